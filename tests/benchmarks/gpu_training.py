"""Updates of trainings on noise in memory, timed in the trainer's own loop, so that its loader and the host count."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch._C._autograd import DeviceType

from superb_eval.data.audio import SAMPLE_RATE, Clip
from superb_eval.data.recipe_sections import Section
from superb_eval.pretraining import distill, launch, network
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.masked import MaskedPrediction
from superb_eval.pretraining.objective import Objective
from superb_eval.pretraining.recipe import DistillationRecipe, NetworkSettings, PretrainRecipe, load
from superb_eval.pretraining.shapes import frame_count
from superb_eval.pretraining.targets import Labels
from superb_eval.runtime import devices
from superb_eval.runtime.progress import NoProgress


class Updates(NamedTuple):
    """Numbers of updates: before the timed ones, those, and the ones after them whose kernels are counted."""

    warm: int
    timed: int
    profiled: int


FULL, FEW = Updates(10, 30, 5), Updates(1, 2, 1)

BATCH = {
    "sources": [{"folder": "noise"}],
    "min_seconds": 0.5,
    "crop_seconds": 8.0,
    "batch_seconds": 480.0,
    "memory_gb": 40,
}

TEACHER = {
    "hidden": 256,
    "layers": 12,
    "heads": 4,
    "feed_forward": 1024,
    "conv": [64, 64, 128, 128, 192, 256, 256],
    "dropout": 0.05,
    "layerdrop": 0.0,
    "more": {"num_conv_pos_embeddings": 64},
}
"""10 million weights."""

TOY = {"hidden": 16, "layers": 2, "heads": 2, "feed_forward": 16, "conv": [8] * 7, "layerdrop": 0.0}


@dataclass(frozen=True)
class TrainingRate:
    """Means over updates: milliseconds of each, seconds of audio and clips in it; `busy` are milliseconds of `kernels`
    kernels. `shapes` is the number of different shapes of the batches of all `updates`."""

    milliseconds: float
    audio_seconds: float
    clips: float
    shapes: int
    updates: int
    busy: float | None = None
    kernels: float = 0.0


class UpdateClock(NoProgress):
    """Records when each update was launched, and on a GPU the milliseconds of the kernels of the last ones."""

    def __init__(self, updates: Updates, cuda: bool) -> None:
        self.updates, self.launched = updates, list[float]()
        self.kernels = list[float]()
        activities = [torch.profiler.ProfilerActivity.CUDA]
        self._profiler = torch.profiler.profile(activities=activities) if cuda else None

    @contextmanager
    def step(self, name: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        del name, total, done
        yield self._update

    def _update(self, done: int, postfix: str = "", total: int | None = None) -> None:
        del postfix, total
        self.launched.append(time.perf_counter())
        if self._profiler is not None and done == self.updates.warm + self.updates.timed:
            self._profiler.start()
        if self._profiler is not None and done == sum(self.updates):
            torch.cuda.synchronize()
            self._profiler.stop()
            events = [e for e in self._profiler.events() if e.device_type == DeviceType.CUDA]  # type: ignore[no-untyped-call]
            self.kernels = [e.self_device_time_total / 1e3 for e in events if not e.is_user_annotation]

    def milliseconds(self) -> float:
        """Return the mean of the timed updates."""
        first = self.updates.warm - 1
        return 1e3 * (self.launched[first + self.updates.timed] - self.launched[first]) / self.updates.timed


def random_audio(lengths: Sequence[int]) -> Audio:
    """Return clips of noise that are cached in memory, of so many samples each."""
    noise = np.random.default_rng(0).integers(-3000, 3000, max(lengths) + 1000, dtype=np.int16)
    cached = tuple(noise[k % 1000 : k % 1000 + n] for k, n in enumerate(lengths))
    return Audio(tuple(Clip(Path(f"{k}.wav")) for k in range(len(lengths))), np.array(lengths, np.int64), cached)


def mixed_audio(small: bool) -> Audio:
    """Return two hours of clips of 1 to 8 s, or a minute."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.5, 1, 60) if small else rng.uniform(1, 8, 1_600)
    return random_audio((SAMPLE_RATE * seconds).astype(int).tolist())


def train(chosen: Section, audio: Audio, objective: Objective, device: str, small: bool) -> TrainingRate:
    """Run the updates of a recipe on audio in memory."""
    assert isinstance(chosen, PretrainRecipe | DistillationRecipe)
    updates, cuda = FEW if small else FULL, devices.kind(device) == "cuda"
    chosen = chosen.model_copy(update={"optim": chosen.optim.model_copy(update={"steps": sum(updates)})})
    clock = UpdateClock(updates, cuda)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(launch, "load_audio", return_value=audio),
        launch.prepare(chosen, [], Path(folder), "cuda" if cuda else "cpu", 1, clock, []) as setup,
    ):
        setup.fit(objective, "updates", lambda out: None)
    batches = [setup.batches.load(k, k + 1) for k in range(sum(updates))]
    timed = batches[updates.warm : updates.warm + updates.timed]
    return TrainingRate(
        clock.milliseconds(),
        float(np.mean([sum(map(int, batch.lengths)) / SAMPLE_RATE for batch in timed])),
        float(np.mean([len(batch.clips) for batch in timed])),
        len({batch.wavs.shape for batch in batches}),
        len(batches),
        sum(clock.kernels) / updates.profiled if cuda else None,
        len(clock.kernels) / updates.profiled,
    )


def teacher(device: str, small: bool) -> TrainingRate:
    """Masked prediction of a small HuBERT."""
    overrides = {"batch_seconds": 4.0, "crop_seconds": 1.0} if small else {}
    optim = {"steps": 1, "lr": 1e-3, "clip": 1.0, "front_lr": 0.3, "save_minutes": 30}
    chosen = PretrainRecipe.model_validate(
        {
            "data": BATCH | overrides,
            "network": TOY if small else TEACHER,
            "mask": {"probability": 0.08, "length": 8},
            "predict": {"width": 128, "unmasked": [1.0, 0.3], "penalty": 0.1},
            "optim": {**optim, "precision": "float32" if small else "bf16"},
        }
    )
    audio = mixed_audio(small)
    frames = [frame_count(int(n)) for n in audio.samples]
    labels = np.random.default_rng(1).integers(0, 200, sum(frames)).astype(np.uint16)
    objective = MaskedPrediction(
        network.create(chosen.network, 0),
        Labels(labels, np.cumsum([0, *frames]), 200),
        chosen.mask,
        chosen.predict,
        steps=sum(FULL),
    )
    return train(chosen, audio, objective, device, small)


def student(device: str, small: bool) -> TrainingRate:
    """Distillation of the small HuBERT by the recipe of the student that comes with this repository."""
    audio, sizes = mixed_audio(small), ["data.batch_seconds=480", "data.memory_gb=40"]
    with tempfile.TemporaryDirectory() as folder:
        network.create(NetworkSettings.model_validate(TOY if small else TEACHER), 0).save_pretrained(folder)
        return _distil("distilhubert_mini", f"hubert@{folder}", audio, sizes, device, small)


def paper(device: str, small: bool) -> TrainingRate:
    """DistilHuBERT's distillation of HuBERT Base: 24 crops of 15.6 s."""
    with tempfile.TemporaryDirectory() as folder:
        network.create(NetworkSettings.model_validate(TOY if small else {}), 0).save_pretrained(folder)
        audio = random_audio([16_000] * 10 if small else [250_000] * 480)
        return _distil("distilhubert", f"hubert@{folder}", audio, [], device, small)


def _distil(name: str, address: str, audio: Audio, sizes: list[str], device: str, small: bool) -> TrainingRate:
    overrides = [f"teacher.address={address}", "optim.save_minutes=30", "data.sources=[{folder: noise}]", *sizes]
    if small:
        overrides += ["data.batch_seconds=4", "data.crop_seconds=1", "loss.layers=[1, 2]", "optim.precision=float32"]
    else:
        overrides += ["teacher.precision=bf16", "optim.precision=bf16"]
    chosen = load(name, "distill", DistillationRecipe, overrides)
    return train(chosen, audio, distill._objective(chosen), device, small)


TRAININGS = {"teacher": teacher, "student": student, "paper": paper}
