"""DistilHuBERT (Chang, Yang and Lee, arXiv 2110.01900): HuBERT's front end and two transformer layers.

It is transformers' HuBERT with two layers and no LayerNorm before the projection, so that `upstreams.hubert`
applies: batch-invariant, 50 frames per second. The heads that predicted the teacher's layers in training are left out;
`distilhubert_heads` has them, for s3prl's default feature.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from upstreams import hubert
from upstreams.base import Card, Upstream, of_given_weights
from upstreams.hubert import Hubert
from upstreams.loading.load_weights import load_model, load_weights, shipped_weights
from upstreams.loading.network_building import building

if TYPE_CHECKING:
    from transformers import HubertModel

HEADS_FILE = "heads.safetensors"
"""The file of a student's heads, in the folder of its model.safetensors, if they were exported."""

HUB = {"distilhubert": "ntu-spml/distilhubert"}
_PAPER_CONFIG = {"num_hidden_layers": 2, "feat_proj_layer_norm": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "distilhubert": _PAPER_CONFIG,
    "distilhubert_heads": _PAPER_CONFIG,
    "distilhubert_mini": {**hubert.CONFIGS["hubert_mini"], "num_hidden_layers": 2},
}
"""What differs from HuBERT Base, by name."""

_BASE: dict[str, Any] = {
    "stride": 320,
    "width": 768,
    "licence": "Apache-2.0",
    "source": "arXiv 2110.01900; hub id ntu-spml/distilhubert; s3prl's distilhubert_ls960_4-8-12.ckpt",
    "training_data": "LibriSpeech 960 h, from HuBERT Base",
}
_KEY = "the paper's SUPERB figures use the second layer alone: -o features.key=paper"

CARDS = (
    Card(
        name="distilhubert",
        summary="DistilHuBERT, batch-invariant; heads removed",
        layers=3,
        # 23,491,200 and the mask embedding (768), which transformers' network has and the paper's hasn't.
        parameters=23_491_968,
        notes=(_KEY, "hidden_states: the first layer's input and both layers' outputs, as in hubert"),
        **_BASE,
    ),
    Card(
        name="distilhubert_heads",
        summary="DistilHuBERT with its prediction heads",
        layers=6,
        parameters=27_035_520,
        notes=(_KEY, "hidden_states as s3prl's: projected convolution, both layers, then each head's prediction"),
        **_BASE,
    ),
    Card(
        name="distilhubert_mini",
        summary="2 layers x 256, distilled from hubert_mini",
        stride=320,
        layers=3,
        width=256,
        parameters=2_298_944,
        licence="Apache-2.0",
        source="this repository",
        training_data="see its model card, upstreams/weights/distilhubert_mini/README.md",
        notes=("features.key=paper is its last layer alone",),
    ),
)


def weights_source(card: Card, checkpoint: str | None) -> str | None:
    """Return the file, folder or hub id that a name's weights are loaded from; None: it has none."""
    return checkpoint or shipped_weights(card.name) or HUB.get(card.name)


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a student with seeded random weights, from a file, a folder in transformers' layout, or from the hub.

    Raises:
        UserError: there are no weights there, they don't fit, they have no heads where heads are requested, or
            the file would run code.
    """
    source = weights_source(card, checkpoint)
    loaded = load_model(of_given_weights(card, checkpoint), CONFIGS[card.name], source, seed)
    if card.name != "distilhubert_heads":
        return DistilHubert(loaded.card, loaded.model)
    if seed is not None:
        heads = _random_heads(seed)
    else:
        with building(source, "the heads", f"Load it as distilhubert@{source}, without heads."):
            heads = Heads.from_state_dict(loaded.heads or _load_heads(Path(str(source))))
    return DistilHubertWithHeads(loaded.card, loaded.model, heads, str(source))


class DistilHubert(Hubert):
    """A student as an upstream. Feature `paper` is the last layer alone, which the published figures use."""

    family = "distilhubert"

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """See `Upstream.forward_padded`; each feature is a list of tensors `[batch, frames, dim]`."""
        states = super().forward_padded(batch)["hidden_states"]
        return {"hidden_states": states, "paper": states[-1:]}

    def keys(self) -> tuple[str, ...]:
        """Return the names of the features that `forward` gives."""
        return ("hidden_states", "paper")


class Heads(nn.Module):
    """Prediction heads: the teacher's layers from the student's last layer (s3prl `upstream/distiller/model.py`).

    One linear layer to `width` per predicted layer, GELU, then one linear layer per head to the teacher's width.
    Weights are initialised as torch's linear layers: uniformly within 1 / sqrt(width).
    """

    def __init__(self, width: int, count: int, out: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, width * count)
        self.weight = nn.Parameter(torch.empty(count, width, out).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.empty(count, out).uniform_(-(width**-0.5), width**-0.5))

    @classmethod
    def from_state_dict(cls, weights: dict[str, Tensor]) -> Heads:
        """Return heads with the sizes and weights of a state dict."""
        count, width, out = weights["weight"].shape
        heads = cls(width, count, out)
        heads.load_state_dict(weights)
        return heads

    def forward(self, last: Tensor) -> Tensor:
        """Map the last layer [batch, frames, width] into predictions [batch, count, frames, out]."""
        count, width, _ = self.weight.shape
        each = nn.functional.gelu(self.shared(last)).view(*last.shape[:2], count, width)
        return torch.einsum("btnw,nwo->bnto", each, self.weight) + self.bias[:, None]


class DistilHubertWithHeads(DistilHubert):
    """A student with its heads: `hidden_states` are s3prl's (`upstream/distiller/expert.py`)."""

    family = "distilhubert_heads"

    def __init__(self, card: Card, model: HubertModel, heads: Heads, source: str) -> None:
        super().__init__(card, model)
        _, width, out = heads.weight.shape
        if width != model.config.hidden_size or out != width:
            raise UserError(
                f"{source}: its heads map {width} to {out} dimensions, but its layers have {model.config.hidden_size}: "
                f"they can't be summed. Load it as distilhubert@{source}, without heads."
            )
        self.heads = heads
        self.reentrant = False  # each pass registers a hook
        layers = model.config.num_hidden_layers + 1 + len(heads.weight)
        self.card = replace(self.card, layers=layers, parameters=self.count_parameters())

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: the heads' are named as in `HEADS_FILE`."""
        heads = {f"heads.{name}": value for name, value in self.heads.state_dict().items()}
        return {**super().feature_weights(), **heads}

    def forward_padded(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:
        """See `Upstream.forward_padded`; hidden states: the projected convolution, every layer, each prediction."""
        projected: list[Tensor] = []
        hook = self.model.feature_projection.register_forward_hook(lambda *arguments: projected.append(arguments[-1]))
        try:
            output = super().forward_padded(batch)
        finally:
            hook.remove()
        layers = output["hidden_states"][1:]
        predictions = self.heads(layers[-1]).unbind(1)
        return {"hidden_states": [projected[0], *layers, *predictions], "paper": output["paper"]}


def _random_heads(seed: int) -> Heads:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Heads(768, 3, 768)


def _load_heads(folder: Path) -> dict[str, Tensor]:
    if not os.path.lexists(folder / HEADS_FILE):
        raise UserError(
            f"{folder}: has no heads ({HEADS_FILE}): they were removed at export. Load it as distilhubert@{folder}."
        )
    return load_weights(folder / HEADS_FILE)
