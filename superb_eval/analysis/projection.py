"""How long a task would take here and how much memory, estimated from the sizes of its corpus and measured rates.

The upstream is timed on noise, in batches as extraction makes them; an update of the task's own head, loss and
optimizer on random features of the right shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from downstreams.base import SearchTask, TrainedTask
from downstreams.batching.targets import Targets
from downstreams.metrics import batched_dtw, dtw
from superb_eval.analysis.workload import Workload
from superb_eval.data import padding
from superb_eval.features.dataset import Features
from superb_eval.features.extract import READERS, Extraction, Extractor
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.load_or_extract import SHARD_UTTERANCES
from superb_eval.features.padded_batches import BatchShapes
from superb_eval.probing.active_probes import ActiveProbes
from superb_eval.probing.batched_probes import MicroBatch
from superb_eval.probing.probe import Probe
from superb_eval.probing.probe_state import ProbeState
from superb_eval.runtime import devices, threads
from superb_eval.runtime.memory import peak_bytes
from upstreams.base import SAMPLE_RATE, Upstream

TIMED_SECONDS = 6.0
"""Audio at most that an upstream is timed on on a CPU, where a batch takes as long as its audio lasts."""

TIMED_LENGTHS = 2.0
"""On a CPU clips are timed at a power of this in frames: throughput depends little on length, so few are timed."""

TIMED_FRAMES = 1000
"""Of a training batch on a CPU, all utterances together: its time is proportional to its frames."""

REPEATS, MAX_SECONDS = 3, 1.0
"""Timings of a piece of work, the first a warm-up, or seconds of them after which no further one begins."""

TIMED_PAIRS, TIMED_PAIRS_CPU = (138, 320), (4, 40)
"""Queries and documents of a search that is timed: blocks of them on a GPU, few on a CPU."""

QUERY_SECONDS = 1.5
"""Length of a query, about."""

GRID_STRIDE = 320
"""Samples per frame of the grid of lengths (`padding.grid_frames`)."""

PROCESS_BYTES = 0.7e9
"""Of a process before its first tensor: libraries, and on a GPU their context."""

WEIGHT_BYTES = 16
"""Of a weight of a head in training: its value, its gradient, and two moments of the optimizer, in float32."""

BATCH_COPIES = 3
"""Batches of features in memory at a time, about: read ahead, in use, and what its gradients need."""


@dataclass(frozen=True)
class TimedBatch:
    """A batch that is timed: `clips` of `samples` each, `share` of a batch of extraction."""

    clips: int
    samples: int
    extraction: Extraction
    share: float = 1.0


@dataclass(frozen=True)
class Throughput:
    """Shape and speed of an upstream's output: `layers` x `width` numbers every `stride` samples, and `factor` seconds
    of audio processed per second; bytes of its weights, and what a batch adds to them."""

    layers: int
    width: int
    stride: int
    factor: float
    weights: float = 0.0
    batch: float = 0.0


@dataclass(frozen=True)
class HeadCost:
    """Seconds to train and test the heads of a run, or to search, and bytes of memory at the peak."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class TaskProjection:
    """What a run of a task would take: seconds of audio, bytes of features, seconds to extract, to extract live what
    exceeds the store, and to train and test; bytes of memory at the peak."""

    task: str
    audio: float
    size: float
    extracting: float
    live: float
    training: float
    memory: float = 0.0

    @property
    def seconds(self) -> float:
        """All together."""
        return self.extracting + self.live + self.training


def timed_batch(upstream: Upstream, workload: Workload, device: str) -> TimedBatch:
    """Return a batch as extraction makes them of clips of a corpus's mean length; on a CPU, a part of one, of about
    that length."""
    extraction = Extraction.of(workload.recipe.features, workload.pooled)
    shapes = BatchShapes.of(upstream, device, extraction.batch_seconds)
    clips = len(shapes.plan([workload.seconds] * min(workload.clips, SHARD_UTTERANCES))[0])
    samples = GRID_STRIDE * padding.grid_frames(round(workload.seconds * SAMPLE_RATE / GRID_STRIDE))
    if device != devices.CPU:
        return TimedBatch(clips, samples, extraction)
    about = GRID_STRIDE * round(TIMED_LENGTHS ** round(math.log(samples / GRID_STRIDE, TIMED_LENGTHS)))
    timed_samples = min(about, round(TIMED_SECONDS * SAMPLE_RATE))
    timed_clips = max(1, min(clips, round(TIMED_SECONDS * SAMPLE_RATE) // timed_samples))
    return TimedBatch(timed_clips, timed_samples, extraction, timed_clips * timed_samples / (clips * samples))


def measure(upstream: Upstream, batch: TimedBatch, device: str) -> Throughput:
    """Return the throughput of an upstream on batches of a shape, features copied to the host.

    Raises:
        UserError: the upstream has no such features.
    """
    noise = 0.1 * torch.randn(batch.clips, batch.samples, generator=torch.Generator().manual_seed(0))
    shapes = BatchShapes.of(upstream, device, batch.extraction.batch_seconds)
    wavs = shapes.pad(list(noise.numpy()), pinned=devices.kind(device) == "cuda")
    extractor = Extractor(upstream, batch.extraction, device)

    @torch.inference_mode()
    def process() -> Tensor:
        return extractor.launch(wavs, batch.clips)[0].cpu()

    added = peak_bytes(process, device) or 0.0
    layers, width = process().shape[-2:]
    factor = noise.numel() / SAMPLE_RATE / timed(process, device)
    weights = sum(t.numel() * t.element_size() for t in (*upstream.parameters(), *upstream.buffers()))
    stride = upstream.get_downsample_rates(batch.extraction.key)
    return Throughput(layers, width, stride, factor, float(weights), added / batch.share)


def head_cost(workload: Workload, throughput: Throughput, device: str) -> HeadCost:
    """Return what training and testing a task's heads takes, or its search, without passes of the upstream."""
    task = workload.task(throughput.stride)
    if isinstance(task, SearchTask):
        return _search_cost(task, workload, throughput, device)
    if isinstance(task, TrainedTask):
        return _training_cost(task, workload, throughput, device)
    raise TypeError(f"{workload.recipe.task} neither trains nor searches")


def project(
    workload: Workload, throughput: Throughput, head: HeadCost, store_bytes: float, device: str
) -> TaskProjection:
    """Return what a run of a task would take, with `store_bytes` for its features."""
    audio, task = workload.audio_seconds, workload.recipe.task
    # A GPU waits for audio to be read only where that takes longer than its own work; a CPU does both.
    read, processed = workload.decoding, 1 / throughput.factor
    rate = read + processed if device == devices.CPU else max(read / READERS, processed)
    size = (2 if workload.recipe.features.dtype == "float16" else 4) * _numbers(workload, throughput)
    must_be_stored = workload.pooled or workload.recipe.train is None
    stored = 1.0 if must_be_stored else min(1.0, store_bytes / size)
    live = 0.0 if stored == 1 else (1 - stored) * _live_seconds(workload) * rate
    # Stored features are extracted before the training, live ones beside it.
    peak = max(throughput.batch, head.memory) if stored == 1 else throughput.batch + head.memory
    resident = size if workload.pooled and device != devices.CPU else 0.0  # means over time are on a GPU as a whole
    memory = PROCESS_BYTES + throughput.weights + peak + resident
    return TaskProjection(task, audio, size, stored * audio * rate, live, head.seconds, memory)


def _numbers(workload: Workload, throughput: Throughput) -> float:
    """Return how many numbers the features of all clips are."""
    frames = 1 if workload.pooled else workload.seconds * SAMPLE_RATE / throughput.stride
    return workload.clips * frames * throughput.layers * throughput.width


def _live_seconds(workload: Workload) -> float:
    """Seconds of audio that training passes through the upstream where nothing is stored, evaluations included; all
    learning rates share a pass."""
    train, (_, dev, test) = workload.recipe.train_settings, workload.utterances
    drawn = train.steps * _batch_utterances(workload) * train.accumulate
    return workload.folds * workload.seconds * (drawn + dev * train.steps / train.eval_every + test)


def _batch_utterances(workload: Workload) -> int:
    """Return how many utterances a training batch has."""
    kind, size = workload.kind, workload.recipe.train_settings.batch_size
    if issubclass(kind, TrainedTask):
        size = kind.utterances_per_batch(size)
    return max(1, min(size, workload.utterances[0]))


def _batch_frames(workload: Workload, throughput: Throughput) -> int:
    """Return how many frames a training batch is padded to; one where features are means over time."""
    crop = workload.recipe.train_settings.crop_seconds or workload.padded
    return 1 if workload.pooled else max(1, round(min(workload.padded, crop) * SAMPLE_RATE / throughput.stride))


def _training_cost(task: TrainedTask, workload: Workload, throughput: Throughput, device: str) -> HeadCost:
    """Return what all updates and evaluations take."""
    train, (_, dev, test) = workload.recipe.train_settings, workload.utterances
    size, frames = _batch_utterances(workload), _batch_frames(workload, throughput)
    timed_frames = frames if device != devices.CPU else min(frames, max(1, TIMED_FRAMES // size))
    timed_update, weights, batch = _measure_update(task, workload, throughput, (size, timed_frames), device)
    update = timed_update * train.accumulate * frames / timed_frames
    tracked = dev + test if task.best_on_test else dev
    evaluations = tracked * train.steps / train.eval_every + test
    # Going forward is a third of an update.
    seconds = workload.folds * (train.steps * update + evaluations * update / (3 * size * train.accumulate))
    return HeadCost(seconds, WEIGHT_BYTES * weights + batch * frames / timed_frames)


def _measure_update(
    task: TrainedTask, workload: Workload, throughput: Throughput, shape: tuple[int, int], device: str
) -> tuple[float, int, float]:
    """Return the seconds of an update of all rates on one micro-batch, [utterances, frames], the heads' weights, and
    the bytes of the micro-batch and of what an update adds at its peak: measured on CUDA, else by its size."""
    train, (count, frames) = workload.recipe.train_settings, shape
    states = [
        ProbeState(lr, Probe(Featurizer(throughput.layers), task.head(throughput.width)).to(device), Path())
        for lr in train.rates()
    ]
    active = ActiveProbes(states, task, train, workload.pooled)
    inner = () if workload.pooled else (frames,)
    hidden = torch.randn(count, *inner, throughput.layers, throughput.width)
    features = Features.from_tensors(list(hidden)).to(device)
    targets = Targets.of([workload.target(task, frames)] * count)
    # A GPU's frames are read ahead by other threads.
    read_ahead = None if workload.pooled or device == devices.CPU else features.batch(range(count))

    def update() -> None:
        batch = read_ahead or features.batch(range(count))
        on_device = torch.device(device)
        micro_batch = MicroBatch(batch.to(on_device), targets.select(range(count)).to(on_device), 0)
        active.update(1, active.probes.backward(micro_batch, 1.0))

    with threads.flush_denormals(), devices.tf32_products(train.precision == "tf32"):  # as in training
        seconds = timed(update, device)
    batch_bytes = float(BATCH_COPIES * hidden.nbytes)
    if devices.kind(device) == "cuda":
        batch_bytes = peak_bytes(update, device) or 0.0
    weights = sum(parameter.numel() for state in states for parameter in state.probe.parameters())
    return seconds, weights, batch_bytes


def _search_cost(task: SearchTask, workload: Workload, throughput: Throughput, device: str) -> HeadCost:
    """Return what it takes to search every layer on dev and one on test, from the rate of a small search."""
    device = devices.CPU if device == "mps" else device  # as the task itself
    queries, documents = TIMED_PAIRS_CPU if device == devices.CPU else TIMED_PAIRS
    query = torch.randn(round(QUERY_SECONDS * SAMPLE_RATE / throughput.stride), throughput.width, device=device)
    frames = max(1, round(workload.seconds * SAMPLE_RATE / throughput.stride))
    document = torch.randn(frames, throughput.width, device=device)

    def search(queries: int, documents: int) -> None:
        dtw.match([query] * queries, [document] * documents, "cosine_exp", device)

    search(1, 1)  # what is compiled at first is ready from now on
    seconds = timed(lambda: search(queries, documents), device) / (queries * documents)
    searched = workload.searched[0] * workload.searched[1]
    seconds *= searched * (throughput.layers + 1) * len(task.ways())
    # One layer in float32; on a GPU a block of distances too, and the same padded.
    blocks = 0.0 if device == devices.CPU else 8.0 * batched_dtw.BLOCK_DISTANCES
    return HeadCost(seconds, 4.0 * _numbers(workload, throughput) / throughput.layers + blocks)


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of a piece of work: the median of a few, once it is warm; what takes long is done once.

    On a CPU, processor time of one core: independent of what else runs.
    """
    clock = time.process_time if device == devices.CPU else time.perf_counter
    seconds: list[float] = []
    with threads.limit_threads(1):
        while len(seconds) < REPEATS and (sum(seconds) < MAX_SECONDS or (len(seconds) < 2 and device != devices.CPU)):
            devices.synchronize(device)
            started = clock()
            work()
            devices.synchronize(device)
            seconds.append(clock() - started)
    return median(seconds[1:] or seconds)
