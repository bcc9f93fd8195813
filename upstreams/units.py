"""Discovered units as features, at `units:FILE` and `units:FILE#one-hot`: each frame becomes its nearest cluster.

`superb-eval layers NAME --units K` writes such files: k-means' centres of one layer of an upstream. A frame is then its
cluster's centre, or a vector with a single one: what a task can do with units shows what they have kept (hidden-unit
clustering: Hsu et al., arXiv 2106.07447, section II.A).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files
from upstreams.base import Card, Upstream

CENTRES = "centres"
"""The one tensor of a file: [clusters, dim]."""
ONE_HOT = "one-hot"
MOST_BYTES = 2**28


@dataclass(frozen=True)
class UnitCodebook:
    """Centres [clusters, dim] of the frames of one `layer` of an upstream, by its address and fingerprint."""

    centres: Tensor
    upstream: str
    fingerprint: str
    layer: int

    def header(self) -> dict[str, str]:
        """Return what a file states beside the centres."""
        return {"upstream": self.upstream, "fingerprint": self.fingerprint, "layer": str(self.layer)}


def read(path: Path) -> UnitCodebook:
    """Read a file of units.

    Raises:
        UserError: there is none, or it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    outside_files.check_regular(path, MOST_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            stated, centres = dict(file.metadata() or {}), file.get_tensor(CENTRES)
        codebook = UnitCodebook(centres.float(), stated["upstream"], stated["fingerprint"], int(stated["layer"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: is no file of units ({error}). `superb-eval layers NAME --units 100` makes some."
        ) from error
    if codebook.centres.ndim != 2 or not codebook.centres.isfinite().all() or codebook.layer < 0:
        raise UserError(f"{path}: expected finite centres [clusters, dim] of a layer from 0, found others.")
    return codebook


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open the units of a file, and the upstream that they are of.

    Raises:
        UserError: the file can't be read, its upstream can't be opened, is code, or has changed since.
    """
    from upstreams import registry

    text, _, kind = name.partition("#")
    if checkpoint is not None or seed is not None or kind not in ("", ONE_HOT):
        raise UserError(f"units:{name}: expected units:FILE or units:FILE#{ONE_HOT}.")
    codebook = read(Path(text))
    if registry.code_files(codebook.upstream):
        raise UserError(f"{text}: names the code {codebook.upstream}. Units of code are not opened: only of weights.")
    upstream = registry.load(codebook.upstream)
    if upstream.fingerprint() != codebook.fingerprint:
        raise UserError(f"{text}: {codebook.upstream} has changed since these units were made of it. Make them again.")
    return Units(f"units:{name}", upstream, codebook, one_hot=bool(kind))


class Units(Upstream):
    """One hidden state `[batch, frames, dim]` of centres, or `[batch, frames, clusters]` of zeros and a one."""

    family = "units"

    def __init__(self, address: str, upstream: Upstream, codebook: UnitCodebook, *, one_hot: bool) -> None:
        card, (clusters, dim) = upstream.card, codebook.centres.shape
        if codebook.layer >= card.layers or dim != card.width:
            raise UserError(
                f"{address}: {codebook.upstream} has {card.layers} hidden states of {card.width} dimensions; "
                f"these units are of number {codebook.layer}, of {dim}."
            )
        super().__init__(
            Card(
                name=address,
                summary=f"{clusters} units of layer {codebook.layer} of {codebook.upstream}",
                stride=card.stride,
                layers=1,
                width=clusters if one_hot else dim,
                parameters=card.parameters + codebook.centres.numel(),
                training_data=card.training_data,
                licence=card.licence,
            )
        )
        self.upstream, self.codebook, self.one_hot = upstream, codebook, one_hot
        self.centres = nn.Parameter(codebook.centres, requires_grad=False)
        self.reentrant, self.padding_invariant = upstream.reentrant, upstream.padding_invariant

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`."""
        return self._units(self.upstream(wavs))

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """See `Upstream.forward_padded`."""
        return self._units(self.upstream.forward_padded(batch))

    def frames(self, samples: int) -> int | None:
        """See `Upstream.frames`."""
        return self.upstream.frames(samples)

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        return {"layer": self.codebook.layer, "one_hot": self.one_hot, "upstream": self.codebook.fingerprint}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: the upstream's are in its fingerprint."""
        return {CENTRES: self.centres}

    def _units(self, output: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        nearest = self._nearest(output["hidden_states"][self.codebook.layer].float())
        units = nn.functional.one_hot(nearest, len(self.centres)).float() if self.one_hot else self.centres[nearest]
        return {"hidden_states": [units]}

    def _nearest(self, frames: Tensor) -> Tensor:
        """Return the number [batch, frames] of the centre that is nearest to each frame [batch, frames, dim]."""
        return (self.centres.square().sum(1) - 2 * frames @ self.centres.T).argmin(-1)
