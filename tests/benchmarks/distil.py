"""One update of distillation beside s3prl's distiller: its teacher, student and loss at the published sizes, dropout
off, on the same batch and weights; equal losses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from superb_eval.audio import SAMPLE_RATE
from tests.benchmarks.timing import pair
from tests.pretraining import test_distillation as made
from upstreams import registry

SAMPLES, CLIPS = 4 * SAMPLE_RATE, 2


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = made.write_teacher(Path(folder) / "hubert.pt", made.BASE, made.BASE_CONV, 12)
        theirs = made.Theirs(path, made.BASE, made.BASE_CONV, (4, 8, 12))
        theirs.teacher.eval()
        ours = made.ours(registry.load(f"hubert@{path}"), (4, 8, 12), replay=False, theirs=theirs)
    heard = made.batch([SAMPLES] * CLIPS)
    parameters = {"theirs": list(theirs.model.parameters()), "ours": list(ours.parameters())}
    optimizers = {name: torch.optim.AdamW(some, lr=2e-6) for name, some in parameters.items()}
    losses = {"theirs": lambda: theirs.loss(heard), "ours": lambda: made.loss(ours(heard))}

    def update(side: str) -> torch.Tensor:
        loss = losses[side]()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters[side], 5.0)
        optimizers[side].step()
        optimizers[side].zero_grad()
        return loss.detach()

    torch.testing.assert_close(update("ours"), update("theirs"), rtol=1e-4, atol=1e-4)
    found = pair(lambda: update("theirs"), lambda: update("ours"), rounds=3)
    speed = CLIPS * SAMPLES / SAMPLE_RATE / sorted(found.fast)[1]
    return f"distillation, one update, s3prl's distiller / ours: {found}; ours hears {speed:.2f} s of audio a second"
