"""Input of the contract's rules: a seeded waveform, and forward passes without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from upstreams.base import Upstream


def signal(samples: int, seed: int = 0) -> Tensor:
    """Return a seeded waveform [samples] of speech-like level: noise in bursts of about 0.2 s, peak below 1."""
    generator = torch.Generator().manual_seed(seed)
    bursts = torch.rand(samples // 3_200 + 2, generator=generator).repeat_interleave(3_200)[:samples]
    return 0.2 * bursts * torch.randn(samples, generator=generator).clamp(-4, 4)


def states(upstream: Upstream, wavs: list[Tensor]) -> list[Tensor]:
    """Return the hidden states of waveforms on the CPU, without gradients."""
    with torch.no_grad():
        hidden: list[Tensor] = upstream(wavs)["hidden_states"]
    return hidden
