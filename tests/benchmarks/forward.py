"""The upstream's forward pass against three libraries', at equal weights and outputs, with all hidden states."""

from __future__ import annotations

import torch

from superb_eval.runtime import environment
from tests.benchmarks import peers
from tests.benchmarks.timing import pair

SHAPES = {"distilhubert": ((1, 5), (8, 5)), "hubert": ((1, 5), (8, 5))}
"""Utterances and seconds of each."""


def run(device: str = "cpu") -> str:
    processor = f"{environment.hardware()['cpu']}, {torch.backends.cpu.get_cpu_capability()}"
    for model, shapes in SHAPES.items():
        for peer in peers.peers_of(model):
            for count, seconds in shapes:
                print(_line(model, peer, count, seconds), "on", processor, flush=True)
    return ""


def _line(model: str, peer: peers.Peer, count: int, seconds: int) -> str:
    wavs = list(0.1 * torch.randn(count, 16_000 * seconds, generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        ours, theirs = peer.ours(wavs)["hidden_states"][-1], peer.theirs(wavs)
        difference = float((ours - theirs).norm() / theirs.norm())
        assert difference < 1e-4, difference
        times = pair(lambda: peer.theirs(wavs), lambda: peer.ours(wavs), rounds=4 if count == 1 else 2)
    return f"forward {model} {count} x {seconds} s, {peer.name} / ours: {times}, relative difference {difference:.1e}"
