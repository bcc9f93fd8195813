"""On a GPU: the forward pass in float32 and bfloat16 against the device's own matrix ceiling, updates of distillation,
ten heads against one, and QbE on a layer of QUESST14's size: `python -m tests.benchmarks gpu`."""

from __future__ import annotations

import numpy as np
import torch

from downstreams.metrics import dtw
from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.recipe import DistillationSettings, StudentSettings, TeacherSettings
from superb_eval.pretraining.student import build_student
from tests.benchmarks import pooled
from tests.benchmarks.timing import pair, seconds
from upstreams import registry

MODELS = {"distilhubert@random": 32, "hubert@random": 32}
"""Utterances of 10 s in a batch."""


def run() -> str:
    if not torch.cuda.is_available():
        return "gpu: no CUDA device"
    return "\n".join(
        [
            _ceiling(),
            *(_forward(name, count) for name, count in MODELS.items()),
            distillation("cuda"),
            _heads(),
            _search(),
        ]
    )


def _ceiling() -> str:
    lines = []
    for kind in (torch.float32, torch.bfloat16):
        a = torch.randn(8192, 8192, device="cuda", dtype=kind)
        a @ a
        best = min(seconds(lambda: a @ a, "cuda") for _ in range(10))  # noqa: B023 - called at once
        lines.append(f"{kind}: {2 * 8192**3 / best / 1e12:.0f} TFLOP/s")
    return "gpu " + torch.cuda.get_device_name() + ", products of 8192: " + ", ".join(lines)


def _forward(name: str, count: int) -> str:
    upstream = registry.load(name).to("cuda")
    wavs = list(0.1 * torch.randn(count, 160_000, device="cuda"))

    def half() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return upstream(wavs)["hidden_states"][-1]

    with torch.inference_mode():
        exact, approximate = upstream(wavs)["hidden_states"][-1], half()
        difference = float((exact - approximate.float()).norm() / exact.norm())
        assert difference < 0.05, difference
        times = pair(lambda: upstream(wavs), half, rounds=10, device="cuda")
    speed = count * 10 / sorted(times.fast)[len(times.fast) // 2]
    return (
        f"gpu forward {name}, float32 / bfloat16: {times}; {speed:.0f} s of audio a second, difference {difference:.1e}"
    )


def distillation(device: str, clips: int = 24, samples: int = 250_000, updates: int = 20) -> str:
    """Time the paper's update: 24 crops of 15.6 s, a Base teacher, in bfloat16; and estimate 200 000 of them."""
    teacher = registry.load("hubert@random").to(device)
    student = build_student(StudentSettings(), teacher, 3)
    objective = (
        Distillation(student, teacher, DistillationSettings(), TeacherSettings(precision="bf16")).to(device).train()
    )
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-4)
    many = tuple(range(clips))
    prepared = objective.prepare(Batch(0.1 * torch.randn(clips, samples), (samples,) * clips, many, many, many, 1))
    batch = prepared.to(torch.device(device))

    def update() -> None:
        with torch.autocast(device, torch.bfloat16):
            terms = objective(batch)
        loss = torch.stack([term.weight * term.total / term.frames for term in terms.values()]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    update()
    took = seconds(lambda: [update() for _ in range(updates)], device) / updates
    speed = clips * samples / SAMPLE_RATE / took
    hours = took * 200_000 / 3600
    return (
        f"{device} distillation: {1e3 * took:.0f} ms an update, {speed:.0f} s of audio a second; 200 000: {hours:.1f} h"
    )


def _heads() -> str:
    means = torch.randn(pooled.BATCH, 13, 768)
    one, ten = (pooled.ours(None, means, count, "cuda") for count in (1, 10))
    return f"gpu ten heads against one: {pair(ten, one, rounds=10, device='cuda', often=50)}"


def _search() -> str:
    rng = np.random.default_rng(0)
    queries = [torch.randn(int(n), 768) for n in rng.integers(40, 90, 138)]
    documents = [torch.randn(int(n), 768) for n in rng.integers(200, 450, 2_438)]
    took = seconds(lambda: dtw.match(queries, documents, "cosine_exp", "cuda"), "cuda")
    return f"gpu qbe, 138 queries in 2 438 documents: {took:.1f} s"
