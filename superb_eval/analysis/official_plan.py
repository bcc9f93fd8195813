"""How long the official protocol would take here, told without its corpora: from their sizes and measured step rates.

An update of each task's own head, loss and optimiser is timed on random features of the right shape, and the upstream
on noise. Sizes are published ones (counts: SUPERB's lists; lengths: about).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from downstreams import registry as tasks
from downstreams.base import Setup, Task
from downstreams.metrics import dtw
from downstreams.text.vocabulary import CHARACTERS, LETTER_SPECIALS, LETTERS, SPECIALS
from superb_eval import recipe
from superb_eval.features.dataset import Batch
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.batched_probes import MicroBatch, assemble
from superb_eval.probing.probe import Probe
from superb_eval.probing.training import OPTIMIZERS
from superb_eval.recipe import Recipe
from superb_eval.runtime import threads

AT_ONCE = 2
"""Utterances of frames that are timed on a CPU; a batch takes as much longer as it has more."""

REPEATS, LONG = 4, 4.0
"""A piece of work is timed as often, the first time for warmth alone; or until that has taken so many seconds."""

NEARBY_SECONDS = 1.5
"""Of a query, about."""


@dataclass(frozen=True)
class Official:
    """A task's corpus: utterances of each split, their mean length in seconds, and what a head learns of them."""

    utterances: tuple[int, int, int]
    seconds: float
    labels: Any = None
    target: Callable[[int], Any] = lambda frames: 0
    """An answer to an utterance of so many frames."""
    folds: int = 1

    @property
    def audio(self) -> float:
        """Seconds of all splits."""
        return sum(self.utterances) * self.seconds


def _names(count: int) -> list[str]:
    return [str(k) for k in range(count)]


OFFICIAL = {
    "pr": Official((28_539, 2_703, 2_620), 12.0, [*SPECIALS, *_names(71)], lambda frames: [5] * (frames // 5)),
    "asr": Official(
        (28_539, 2_703, 2_620),
        12.0,
        {"characters": [*LETTER_SPECIALS, *LETTERS]},
        lambda frames: [5, 6] * (frames // 8),
    ),
    "ks": Official((51_094, 6_798, 3_081), 1.0, _names(12)),
    "qbe": Official((0, 138 + 2_438, 138 + 2_438), 6.5),
    "sid": Official((138_361, 6_904, 8_251), 8.2, _names(1_251)),
    "asv": Official((148_642, 0, 4_715), 8.2, _names(1_211)),
    "sd": Official((13_900, 3_000, 3_000), 14.0, 2, lambda frames: torch.ones(frames, 2)),
    "ic": Official(
        (23_132, 3_118, 3_793),
        2.3,
        {"action": _names(6), "object": _names(14), "location": _names(4)},
        lambda _: [0, 0, 0],
    ),
    "sf": Official(
        (104_672, 2_800, 2_800),
        2.9,
        {"characters": list(CHARACTERS), "slots": _names(39)},
        lambda frames: [5, 6] * (frames // 8),
    ),
    "er": Official((3_540, 885, 1_106), 4.5, _names(4), folds=5),
}
"""By task. ER: of one fold; its five hear the same 5 531 utterances."""


@dataclass(frozen=True)
class Throughput:
    """What an upstream gives and how fast: frames of `layers` x `width` numbers every `stride` samples, and seconds of
    audio per second."""

    layers: int
    width: int
    stride: int
    factor: float


@dataclass(frozen=True)
class TaskProjection:
    """What a task would take: seconds of audio, bytes of features, and seconds to extract, to compute live what the
    store has no room for, and to train."""

    task: str
    audio: float
    size: float
    extracting: float
    live: float
    training: float

    @property
    def seconds(self) -> float:
        """All together."""
        return self.extracting + self.live + self.training


def project(task: str, heard: Throughput, room: float, device: str) -> TaskProjection:
    """Return what a task's official recipe would take, with `room` bytes for its features."""
    official, chosen = OFFICIAL[task], recipe.load(recipe.find(task, "superb"))
    kind = tasks.get(task)
    frames = official.seconds * 16_000 / heard.stride
    audio = official.audio if official.folds == 1 else 5_531 * official.seconds
    pooled = chosen.features.pooled and kind.pooled
    half = 2 if chosen.features.dtype == "float16" else 4
    size = half * heard.layers * heard.width * (audio / official.seconds) * (1 if pooled else frames)
    stored = min(1.0, room / size)
    if not issubclass(kind, Task):
        training, live = _searching(heard, official, frames), 0.0
    else:
        training = _training(kind, chosen, heard, official, round(frames), device)
        live = (1 - stored) * _played(chosen, official) / heard.factor
    return TaskProjection(task, audio, size, stored * audio / heard.factor, live, training)


def _played(chosen: Recipe, official: Official) -> float:
    """Seconds of audio that training hears in all, evaluations included; the rates of a sweep hear it together."""
    assert chosen.train is not None  # noqa: S101 - of a task that trains
    train, (_, dev, test) = chosen.train, official.utterances
    drawn = train.steps * train.batch_size * train.accumulate * (0.5 if chosen.task == "asr" else 1)
    return official.folds * official.seconds * (drawn + dev * train.steps / train.eval_every + test)


def _training(
    kind: type[Task], chosen: Recipe, heard: Throughput, official: Official, frames: int, device: str
) -> float:
    """Seconds of all updates and evaluations."""
    assert chosen.train is not None  # noqa: S101 - of a task that trains
    train, (_, dev, test) = chosen.train, official.utterances
    size = train.batch_size // 2 if chosen.task == "asr" else train.batch_size  # its groups are halved
    if train.crop_seconds:
        frames = min(frames, round(train.crop_seconds * 16_000 / heard.stride))
    count = size if kind.pooled or device != "cpu" else min(AT_ONCE, size)
    update = _update(kind, chosen, heard, official, frames, count, device) * train.accumulate * size / count
    evaluations = dev * train.steps / train.eval_every + test
    # Going forward is a third of an update.
    return official.folds * (train.steps * update + evaluations * update / (3 * size * train.accumulate))


def _update(
    kind: type[Task], chosen: Recipe, heard: Throughput, official: Official, frames: int, count: int, device: str
) -> float:
    """Seconds of an update of all rates on one micro-batch of `count` utterances."""
    assert chosen.train is not None  # noqa: S101 - of a task that trains
    task = kind(Setup(official.labels, kind.Head.model_validate(chosen.head), heard.stride))
    probes = [Probe(Featurizer(heard.layers), task.head(heard.width)).to(device) for _ in chosen.train.rates()]
    team = assemble(probes, task, kind.pooled, chosen.train.precision)
    groups = [{"params": team.parameters(k), "lr": lr} for k, lr in enumerate(chosen.train.rates())]
    optimizer = OPTIMIZERS[chosen.train.optimizer](groups, fused=True)
    shape = (count, heard.layers, heard.width) if kind.pooled else (count, frames, heard.layers, heard.width)
    lengths = None if kind.pooled else torch.full((count,), frames, device=device)
    given = MicroBatch(Batch(torch.randn(shape, device=device), lengths), [official.target(frames)] * count, 0)

    def update() -> None:
        team.backward(given, 1.0)
        team.clip(chosen.train.clip if chosen.train else 1.0)
        optimizer.step()
        team.clear()

    return timed(update, device)


def _searching(heard: Throughput, official: Official, frames: float) -> float:
    """Seconds to search every layer on dev and one on test, from the rate of a small search."""
    queries, documents = 4, 40
    length = round(NEARBY_SECONDS * 16_000 / heard.stride)
    asked = [torch.randn(length, heard.width) for _ in range(queries)]
    held = [torch.randn(round(frames), heard.width) for _ in range(documents)]
    pair = timed(lambda: dtw.match(asked, held, "cosine_exp"), "cpu") / (queries * documents)
    return pair * 138 * 2_438 * (heard.layers + 1)


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of a piece of work: the median of a few, once it is warm.

    On a CPU they are those of one core, whatever else the machine is busy with.
    """
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds: list[float] = []
    with threads.at_most(1):
        while len(seconds) < REPEATS and sum(seconds) < LONG:
            _wait(device)
            began = clock()
            work()
            _wait(device)
            seconds.append(clock() - began)
    return sorted(seconds[1:] or seconds)[len(seconds[1:]) // 2]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def table(projections: Sequence[TaskProjection]) -> list[str]:
    """Return a line for each task and one for all, in hours and GB."""
    lines = [f"  {'task':<6}{'audio h':>9}{'store GB':>10}{'extract h':>11}{'live h':>9}{'train h':>9}{'all h':>9}"]
    for p in projections:
        lines.append(_line(p.task, p.audio, p.size, p.extracting, p.live, p.training, p.seconds))
    columns = ("audio", "size", "extracting", "live", "training", "seconds")
    lines.append(_line("all", *(sum(getattr(p, name) for p in projections) for name in columns)))
    return lines


def _line(name: str, audio: float, size: float, *seconds: float) -> str:
    extract, live, train, whole = (f"{value / 3600:.2f}" for value in seconds)
    return f"  {name:<6}{audio / 3600:>9.1f}{size / 1e9:>10.1f}{extract:>11}{live:>9}{train:>9}{whole:>9}"
