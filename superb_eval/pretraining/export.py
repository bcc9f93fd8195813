"""Writes encoders as folders in transformers' layout: config.json, model.safetensors, README.md.

`transformers.AutoModel.from_pretrained(folder)` opens them, and so do `hubert@folder` and `distilhubert@folder`.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from upstreams.base import Upstream
from upstreams.distilhubert import HEADS, Heads
from upstreams.hubert import Hubert

if TYPE_CHECKING:
    from transformers import HubertModel

CARD = "README.md"
Kind = Literal["float32", "float16", "bfloat16"]


def export(
    model: HubertModel, folder: Path, *, kind: Kind = "float32", card: str | None = None, heads: Heads | None = None
) -> None:
    """Write a network; what lies in the folder under the same names is replaced, file by file, once all is written.

    Args:
        model: is left as it is.
        folder: is made where it doesn't exist.
        kind: how weights are stored; in 16 bits they take half the room, and are opened in float32 all the same.
        card: text of README.md; None: no card, or the one that lies there.
        heads: distillation heads to keep beside the network, for `distilhubert_heads@folder`; None: they are left out.

    Raises:
        UserError: a weight is not finite in that kind of number, or the disk is full.
    """
    stored = _as_kind(model, kind)
    with atomic_files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
            written = Path(temporary)
            stored.config.to_json_file(written / "config.json", use_diff=False)
            _save(stored, written / "model.safetensors", kind)
            if heads is not None:
                _save(heads, written / HEADS, kind)
            if card is not None:
                (written / CARD).write_text(card, encoding="utf8")
            for path in sorted(written.iterdir()):
                atomic_files.write(folder / path.name, lambda new, path=path: shutil.copyfile(path, new))  # type: ignore[misc]


def cut(model: HubertModel, layers: int) -> HubertModel:
    """Return a network's first transformer layers; with 0, its front end up to and with the positional convolution.

    Raises:
        UserError: it hasn't got so many.
    """
    if not 0 <= layers <= model.config.num_hidden_layers:
        raise UserError(f"--keep-layers {layers}: the network has {model.config.num_hidden_layers} transformer layers.")
    shorter = copy.deepcopy(model)
    shorter.encoder.layers = nn.ModuleList(list(shorter.encoder.layers)[:layers])
    shorter.config.num_hidden_layers = layers
    return shorter


def export_upstream(
    upstream: Upstream, folder: Path, *, kind: Kind, layers: int | None = None, card: str | None
) -> None:
    """Write an upstream's network, or its first layers (`layers`), as `export` does.

    Raises:
        UserError: it is no HuBERT on transformers' network.
    """
    if not isinstance(upstream, Hubert):
        raise UserError(
            f"{upstream.card.name}: can't be exported: it isn't one of this package's HuBERT-like upstreams. "
            "Give hubert..., distilhubert..., or one of them with @FILE."
        )
    model = upstream.model if layers is None else cut(upstream.model, layers)
    export(model, folder, kind=kind, card=card)


def card_beside(checkpoint: str | None) -> str | None:
    """Return the text of the card in a checkpoint's folder, if there is one: it goes where the weights go."""
    path = Path(checkpoint or "") / CARD
    return path.read_text(encoding="utf8") if checkpoint and path.is_file() else None


def _as_kind(model: HubertModel, kind: Kind) -> HubertModel:
    stored = copy.deepcopy(model).cpu().to(getattr(torch, kind))
    broken = [name for name, weight in stored.state_dict().items() if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(f"{broken[0]} is not finite in {kind}: the weights can't be stored so. Choose another --dtype.")
    # What transformers opens them in, whatever they are stored in: on a CPU, half precision is slow and coarse.
    stored.config.dtype = "float32"
    stored.config.architectures = ["HubertModel"]
    stored.config.name_or_path = ""  # else the folder it was opened from would travel with it
    return stored


def _save(module: nn.Module, path: Path, kind: Kind) -> None:
    from safetensors.torch import save_file

    weights = {name: w.detach().cpu().to(getattr(torch, kind)).contiguous() for name, w in module.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})
