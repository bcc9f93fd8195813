"""How long the official protocol would take here, estimated without its corpora from their sizes and measured rates.

An update of each task's own head, loss and optimiser is timed on random features of the right shape, and the upstream
on noise. Sizes are published ones (counts: SUPERB's lists; lengths: about).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from downstreams import registry as tasks
from downstreams.base import Setup, TrainedTask
from downstreams.batching.targets import Targets
from downstreams.metrics import dtw
from downstreams.task_types.official_corpus import OfficialCorpus
from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureBatch
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.active_probes import OPTIMIZERS
from superb_eval.probing.batched_probes import MicroBatch, batch_probes
from superb_eval.probing.probe import Probe
from superb_eval.recipe import Recipe
from superb_eval.runtime import devices, threads

TIMED_UTTERANCES = 2
"""Of a frame task, timed on a CPU; the time of a batch is proportional to its utterances."""

REPEATS, MAX_SECONDS = 4, 4.0
"""Timings of a piece of work, the first a warm-up, or seconds after which no further one begins."""

QUERY_SECONDS = 1.5
"""Length of a query, about."""


@dataclass(frozen=True)
class Throughput:
    """Shape and speed of an upstream's output: `layers` x `width` numbers every `stride` samples, and `factor` seconds
    of audio processed per second."""

    layers: int
    width: int
    stride: int
    factor: float


@dataclass(frozen=True)
class TaskProjection:
    """What a task would take: seconds of audio, bytes of features, and seconds to extract, to extract live what
    exceeds the store, and to train."""

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


def project(task: str, throughput: Throughput, store_bytes: float, device: str) -> TaskProjection:
    """Return what a task's official recipe would take, with `store_bytes` for its features.

    Raises:
        UserError: it is not a task of SUPERB.
    """
    kind, chosen = tasks.get(task), recipe.load(recipe.find(task, "superb"))
    official = kind.official_corpus
    if official is None:
        raise UserError(f"{task}: has no official corpus, so nothing can be estimated. Leave it out of --tasks.")
    frames = official.seconds * 16_000 / throughput.stride
    audio = official.audio_seconds
    pooled = chosen.features.pooled and kind.pooled
    number_bytes = 2 if chosen.features.dtype == "float16" else 4
    size = number_bytes * throughput.layers * throughput.width * (audio / official.seconds) * (1 if pooled else frames)
    stored = min(1.0, store_bytes / size)
    if not issubclass(kind, TrainedTask):
        training, live = _search_seconds(throughput, frames, device), 0.0
    else:
        training = _training_seconds(kind, chosen, throughput, official, round(frames), device)
        live = (1 - stored) * _live_seconds(kind, chosen, official) / throughput.factor
    return TaskProjection(task, audio, size, stored * audio / throughput.factor, live, training)


def _live_seconds(kind: type[TrainedTask], chosen: Recipe, official: OfficialCorpus) -> float:
    """Seconds of audio that training passes through the upstream where nothing is stored, evaluations included; all
    learning rates share a pass."""
    train, (_, dev, test) = chosen.train_settings, official.utterances
    drawn = train.steps * kind.utterances_per_batch(train.batch_size) * train.accumulate
    return official.folds * official.seconds * (drawn + dev * train.steps / train.eval_every + test)


def _training_seconds(
    kind: type[TrainedTask], chosen: Recipe, throughput: Throughput, official: OfficialCorpus, frames: int, device: str
) -> float:
    """Seconds of all updates and evaluations."""
    train, (_, dev, test) = chosen.train_settings, official.utterances
    size = kind.utterances_per_batch(train.batch_size)
    if train.crop_seconds:
        frames = min(frames, round(train.crop_seconds * 16_000 / throughput.stride))
    count = size if kind.pooled or device != "cpu" else min(TIMED_UTTERANCES, size)
    update = (
        _update_seconds(kind, chosen, throughput, official, frames, count, device) * train.accumulate * size / count
    )
    evaluations = dev * train.steps / train.eval_every + test
    # Going forward is a third of an update.
    return official.folds * (train.steps * update + evaluations * update / (3 * size * train.accumulate))


def _update_seconds(
    kind: type[TrainedTask],
    chosen: Recipe,
    throughput: Throughput,
    official: OfficialCorpus,
    frames: int,
    count: int,
    device: str,
) -> float:
    """Seconds of an update of all rates on one micro-batch of `count` utterances."""
    train = chosen.train_settings
    task = kind(Setup(official.labels, kind.Head.model_validate(chosen.head), throughput.stride))
    probes = [Probe(Featurizer(throughput.layers), task.head(throughput.width)).to(device) for _ in train.rates()]
    batched = batch_probes(probes, task, kind.pooled, train.precision)
    groups = [{"params": batched.parameters(k), "lr": lr} for k, lr in enumerate(train.rates())]
    optimizer = OPTIMIZERS[train.optimizer](groups, fused=True)
    shape = (
        (count, throughput.layers, throughput.width)
        if kind.pooled
        else (count, frames, throughput.layers, throughput.width)
    )
    lengths = torch.full((count,), 1 if kind.pooled else frames)
    targets = Targets.of([official.target(frames)] * count).to(torch.device(device))
    micro_batch = MicroBatch(FeatureBatch(torch.randn(shape, device=device), lengths), targets, 0)

    def update() -> None:
        batched.backward(micro_batch, 1.0)
        batched.clip(train.clip)
        optimizer.step()
        batched.zero_grad()

    return timed(update, device)


def _search_seconds(throughput: Throughput, frames: float, device: str) -> float:
    """Seconds to search every layer on dev and one on test, from the rate of a small search; on a GPU, of blocks."""
    device = devices.CPU if device == "mps" else device  # as the task itself
    queries, documents = (4, 40) if device == devices.CPU else (138, 320)
    length = round(QUERY_SECONDS * 16_000 / throughput.stride)
    query_frames = [torch.randn(length, throughput.width, device=device) for _ in range(queries)]
    document_frames = [torch.randn(round(frames), throughput.width, device=device) for _ in range(documents)]
    pair = timed(lambda: dtw.match(query_frames, document_frames, "cosine_exp", device), device) / (queries * documents)
    return pair * 138 * 2_438 * (throughput.layers + 1)


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of a piece of work: the median of a few, once it is warm.

    On a CPU, processor time of one core: independent of what else runs.
    """
    clock = time.process_time if device == devices.CPU else time.perf_counter
    seconds: list[float] = []
    with threads.limit_threads(1):
        while len(seconds) < REPEATS and sum(seconds) < MAX_SECONDS:
            devices.synchronize(device)
            started = clock()
            work()
            devices.synchronize(device)
            seconds.append(clock() - started)
    return sorted(seconds[1:] or seconds)[len(seconds[1:]) // 2]


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
