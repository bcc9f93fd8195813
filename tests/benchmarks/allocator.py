"""Freed memory kept against freed memory returned: CPU seconds of processes that take turns, their imports left out."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.timing import Pair

_PROCESS = """
import sys, time
from superb_eval.runtime import allocator
if sys.argv[1] == "keep":
    assert allocator.reuse_freed()
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
{prepare}
work()
before = time.process_time()
for _ in range(6):
    work()
print((time.process_time() - before) / 6)
"""

_EXTRACTION = """
from upstreams import registry
upstream = registry.load("hubert_mini@random").eval()
wavs = [0.1 * torch.randn(25_600) for _ in range(37)]
@torch.inference_mode()
def work():
    upstream(wavs)
"""

_DIARIZATION = """
layers = torch.randn(13, 8, 1500, 256)
weights = torch.zeros(13, requires_grad=True)
lstm = torch.nn.LSTM(256, 128, batch_first=True)
def work():
    features = torch.einsum("lbtd,l->btd", layers, weights.softmax(0))
    lstm(features)[0].square().mean().backward()
"""


def run() -> str:
    named = {"extraction of 37 x 1.6 s, hubert_mini": _EXTRACTION, "an update of 8 x 30 s, SD's LSTM": _DIARIZATION}
    return "\n".join(f"{name}, returned / kept: {_pair(prepare)}" for name, prepare in named.items())


def _pair(prepare: str) -> Pair:
    turns = [(_seconds(prepare, "return"), _seconds(prepare, "keep")) for _ in range(5)]
    return Pair(tuple(slow for slow, _ in turns), tuple(fast for _, fast in turns))


def _seconds(prepare: str, choice: str) -> float:
    """Return the CPU seconds of one piece of work."""
    command = [sys.executable, "-c", _PROCESS.format(prepare=prepare), choice]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
