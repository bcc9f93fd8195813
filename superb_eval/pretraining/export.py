"""Exports encoders as folders in transformers' layout: config.json, model.safetensors, README.md.

`transformers.AutoModel.from_pretrained(folder)` loads them, and so do `hubert@folder` and `distilhubert@folder`.
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, outside_files, own_folder
from upstreams.base import Upstream
from upstreams.distilhubert import HEADS_FILE, Heads
from upstreams.hubert import Hubert

if TYPE_CHECKING:
    from transformers import HubertModel

CARD = "README.md"

MODEL = "model"
"""In the folder of a training: the exported encoder, which `hubert@FOLDER/model` loads."""

KIND = "upstream"
"""In the marker of a folder that `export_upstream` wrote."""

Dtype = Literal["float32", "float16", "bfloat16"]


def export(
    model: HubertModel, folder: Path, *, dtype: Dtype = "float32", card: str | None = None, heads: Heads | None = None
) -> None:
    """Write a network; existing files of the same names are replaced, one by one, once all new ones are written.

    Args:
        model: is not changed.
        folder: is created where it doesn't exist.
        dtype: of the stored weights; 16 bits take half the space, and are loaded as float32 nevertheless.
        card: text of README.md; None: an existing one is left as it is.
        heads: distillation heads to store with the network, for `distilhubert_heads@folder`; None: they are left out.

    Raises:
        UserError: a weight is not finite in that dtype, or the disk is full.
    """
    stored = _convert(model, dtype)
    with atomic_files.explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
            new = Path(temporary)
            stored.config.to_json_file(new / "config.json", use_diff=False)
            _save(stored, new / "model.safetensors", dtype)
            if heads is not None:
                _save(heads, new / HEADS_FILE, dtype)
            if card is not None:
                (new / CARD).write_text(card, encoding="utf8")
            for path in sorted(new.iterdir()):
                os.replace(path, folder / path.name)


def truncate(model: HubertModel, layers: int) -> HubertModel:
    """Return a network's first transformer layers; with 0, its front end up to and with the positional convolution.

    Raises:
        UserError: it has fewer.
    """
    if not 0 <= layers <= model.config.num_hidden_layers:
        raise UserError(f"--keep-layers {layers}: the network has {model.config.num_hidden_layers} transformer layers.")
    shorter = copy.deepcopy(model)
    shorter.encoder.layers = nn.ModuleList(list(shorter.encoder.layers)[:layers])
    shorter.config.num_hidden_layers = layers
    return shorter


def export_upstream(
    upstream: Upstream, folder: Path, *, dtype: Dtype, layers: int | None = None, card: str | None
) -> None:
    """Write an upstream's network, or its first layers (`layers`), as `export` does, to a folder of its own.

    Raises:
        UserError: it is no HuBERT on transformers' network, or has fewer layers; or the folder holds something else.
    """
    own_folder.check(folder, KIND)
    if not isinstance(upstream, Hubert):
        raise UserError(
            f"{upstream.card.name}: can't be exported: it isn't one of this package's HuBERT-like upstreams. "
            "Give hubert..., distilhubert..., or one of them with @FILE."
        )
    model = upstream.model if layers is None else truncate(upstream.model, layers)
    own_folder.claim(folder, KIND)
    export(model, folder, dtype=dtype, card=card)


def read_card(checkpoint: str | None) -> str | None:
    """Return the text of the model card in a checkpoint's folder, which is exported with the weights; None: no card."""
    path = Path(checkpoint or "") / CARD
    return outside_files.read_text(path) if checkpoint and path.is_file() else None


def _convert(model: HubertModel, dtype: Dtype) -> HubertModel:
    """Return a copy in `dtype`, checked to be finite, with the config to store."""
    stored = copy.deepcopy(model).cpu().to(getattr(torch, dtype))
    broken = [name for name, weight in stored.state_dict().items() if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(
            f"{broken[0]} is not finite in {dtype}: the weights can't be stored in it. Choose another --dtype."
        )
    # The dtype that transformers loads into, whatever is stored: on a CPU, half precision is slow and coarse.
    stored.config.dtype = "float32"
    stored.config.architectures = ["HubertModel"]
    stored.config.name_or_path = ""  # a local path has no place in a released folder
    return stored


def _save(module: nn.Module, path: Path, dtype: Dtype) -> None:
    from safetensors.torch import save_file

    weights = {name: w.detach().cpu().to(getattr(torch, dtype)).contiguous() for name, w in module.state_dict().items()}
    atomic_files.write(path, lambda target: save_file(weights, target, metadata={"format": "pt"}))
