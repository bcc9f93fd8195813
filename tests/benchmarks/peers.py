"""The same network in other libraries, with the same random weights: s3prl, transformers, torchaudio."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.upstreams.loading import test_checkpoint_conversion as made
from upstreams import registry
from upstreams.base import Upstream

Forward = Callable[[list[Tensor]], Tensor]
"""Waveforms to the last hidden state [batch, frames, dim]."""


@dataclass(frozen=True)
class Peer:
    """Another library's network, and ours with its weights."""

    name: str
    theirs: Forward
    ours: Upstream
    library: Any = None
    """Their network, as s3prl's loop would run it."""


class TransformersUpstream(torch.nn.Module):
    """transformers' network with s3prl's upstream interface."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        outputs = self.network(torch.stack(wavs), output_hidden_states=True)
        return {"hidden_states": list(outputs.hidden_states)}

    def get_downsample_rates(self, key: str) -> int:
        del key
        return 320


def peers_of(model: str) -> list[Peer]:
    """Return the peers of `hubert` or `distilhubert`, at the published sizes."""
    with tempfile.TemporaryDirectory() as folder:
        return [_s3prl(model, Path(folder)), _transformers(model), _torchaudio(model, Path(folder))]


def _s3prl(model: str, folder: Path) -> Peer:
    path = folder / "theirs.ckpt"
    if model == "hubert":
        made.converted(path, {**made.BASE, "encoder_layers": 12}, made.BASE_CONV)
        from s3prl.upstream.hubert.expert import UpstreamExpert
    else:
        made.distiller(path, made.BASE, made.BASE_CONV)
        from s3prl.upstream.distiller.expert import UpstreamExpert
    expert = UpstreamExpert(str(path)).eval().requires_grad_(False)
    key = "hidden_states" if model == "hubert" else "paper"

    def forward(wavs: list[Tensor]) -> Tensor:
        states = expert(wavs)[key]
        return states[-1] if isinstance(states, list | tuple) else states

    return Peer("s3prl", forward, registry.load(f"{model}@{path}"), expert)


def _transformers(model: str) -> Peer:
    from transformers import HubertModel

    ours = registry.load(f"{model}@random")
    network: Any = ours.model
    theirs = HubertModel(network.config).eval()
    theirs.load_state_dict(network.state_dict())
    upstream = TransformersUpstream(theirs).eval().requires_grad_(False)
    return Peer("transformers", lambda wavs: upstream(wavs)["hidden_states"][-1], ours, upstream)


def _torchaudio(model: str, folder: Path) -> Peer:
    from torchaudio.models import wav2vec2_model

    torch.manual_seed(0)
    theirs = wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=None,
        extractor_conv_bias=False,
        encoder_embed_dim=768,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=12 if model == "hubert" else 2,
        encoder_num_heads=12,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=3072,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    path = folder / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    return Peer(
        "torchaudio", lambda wavs: theirs.extract_features(torch.stack(wavs))[0][-1], registry.load(f"hubert@{path}")
    )
