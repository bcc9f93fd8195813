"""One update of distillation against s3prl's distiller: its teacher, student and loss at the published sizes, without
dropout, on the same batch and weights; equal losses. Then the same with stored features of the teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.features.dataset import Features
from superb_eval.pretraining.stored_teacher import StoredTeacher
from tests.benchmarks.timing import pair, seconds
from tests.pretraining import test_distillation as made
from upstreams import registry

SAMPLES, CLIPS = 4 * SAMPLE_RATE, 2

EPOCHS = 200_000 * 24 / 281_241
"""The paper's updates of 24 utterances, over LibriSpeech's 960 h."""


def run(
    sizes: Mapping[str, Any] = made.BASE,
    conv: str = made.BASE_CONV,
    layers: int = 12,
    predicted: tuple[int, ...] = (4, 8, 12),
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = made.write_teacher(Path(folder) / "hubert.pt", dict(sizes), conv, layers)
        theirs = made.Theirs(path, dict(sizes), conv, predicted)
        theirs.teacher.eval()
        ours = made.ours(registry.load(f"hubert@{path}"), predicted, replay=False, theirs=theirs)
    batch = made.make_batch([SAMPLES] * CLIPS)._replace(clips=tuple(range(CLIPS)))
    prepared = ours.prepare(batch)
    hidden = ours.targets(prepared).transpose(1, 2).half()  # [batch, frames, layers, width]
    dataset = Features.from_tensors(list(hidden)).dataset
    parameters = {"theirs": list(theirs.model.parameters()), "ours": list(ours.parameters())}
    # Ours as `superb_eval.pretraining` makes it.
    optimizers = {name: torch.optim.AdamW(some, lr=2e-6, fused=name == "ours") for name, some in parameters.items()}
    losses = {"theirs": lambda: theirs.loss(batch), "ours": lambda: made.loss(made.run(ours, batch))}

    def update(side: str) -> torch.Tensor:
        loss = losses[side]()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters[side], 5.0)
        optimizers[side].step()
        optimizers[side].zero_grad()
        return loss.detach()

    torch.testing.assert_close(update("ours"), update("theirs"), rtol=1e-4, atol=1e-4)
    live = pair(lambda: update("theirs"), lambda: update("ours"), rounds=3)
    once = seconds(lambda: ours.targets(prepared))
    again = losses["ours"]()
    ours.stored = StoredTeacher(dataset, [str(k) for k in range(CLIPS)], 320)
    torch.testing.assert_close(losses["ours"](), again, rtol=1e-3, atol=1e-3)
    stored = pair(lambda: update("theirs"), lambda: update("ours"), rounds=3)
    slow, fast = sorted(stored.slow)[1], sorted(stored.fast)[1]
    speed = CLIPS * SAMPLES / SAMPLE_RATE / sorted(live.fast)[1]
    return (
        f"distillation, one update, s3prl's distiller / ours: {live}; ours processes {speed:.2f} s of audio a second\n"
        f"distillation, one update, s3prl's distiller / ours, teacher stored: {stored}; over {EPOCHS:.0f} epochs, the "
        f"teacher's pass included: {EPOCHS * slow / (EPOCHS * fast + once):.3g} x"
    )
