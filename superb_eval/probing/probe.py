"""The probe: a featurizer and a head, its predictions on a split, and its weights on disk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstreams.base import BaseTask, TrainedTask
from superb_eval.data import audio
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureBatch, FeatureDataset, Features
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.config import ProbeConfig
from superb_eval.runtime import out_of_memory, outside_files, safetensors_io
from superb_eval.runtime.prefetch import prefetch
from upstreams.loading.network_building import bounded_size

EVAL_BATCH = {True: 4096, False: 32}
"""Utterances per evaluation batch, pooled or not; predictions do not depend on it."""

EVAL_READERS = 2
"""Threads that read the frames of the next evaluation batches for a GPU."""


class Probe(nn.Module):
    """A featurizer and a head: hidden states in, the task's output out."""

    def __init__(self, featurizer: Featurizer, head: nn.Module) -> None:
        super().__init__()
        self.featurizer = featurizer
        self.head = head

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Weigh the layers of [batch, layers, dim] or [batch, frames, layers, dim] and apply the head.

        `lengths` [batch] counts valid frames; ones where features are pooled.
        """
        output: Tensor = self.head(self.featurizer(hidden), lengths)
        return output


def new_probe(config: ProbeConfig, task: TrainedTask, features: Features) -> Probe:
    """Return an untrained probe; the run's seed decides its weights.

    Raises:
        UserError: the features have no such layer as the recipe names, or the head is larger than allowed.
    """
    torch.manual_seed(config.seed)
    try:
        featurizer = Featurizer(features.dataset.layers, config.layer)
    except IndexError as error:
        raise UserError(f"features.layer: {config.upstream} has no {error}.") from error
    with bounded_size(f"head of {task.name}"):
        head = task.head(features.dataset.dim)
    return Probe(featurizer, head).to(config.device)


@dataclass(frozen=True)
class Split:
    """A manifest and the features of its utterances, in its order."""

    manifest: Manifest
    features: Features


def splits_of(corpus: Corpus, config: ProbeConfig, dataset: FeatureDataset) -> dict[str, Split]:
    """Return the splits of a corpus with their features, ready for heads on the run's device."""
    return {
        name: Split(manifest, dataset.select([config.digests[u.clip] for u in manifest]).to(config.device))
        for name, manifest in corpus.splits.items()
    }


def remarks(task: BaseTask, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return which rows can't be trained on, searched for or recognised, for the record; none where features are means.

    Frames that are not stored are counted by the duration and the stride.
    """

    def frames(utterance: Utterance, stored: int | None) -> int:
        if stored is not None:
            return stored
        return round(audio.seconds(utterance.clip) * audio.SAMPLE_RATE) // task.setup.stride

    found: list[str] = []
    for split in splits.values():
        if not split.features.pooled:
            counts = zip(split.manifest, split.features.frame_counts(), strict=True)
            found += task.remarks(split.manifest, [frames(utterance, stored) for utterance, stored in counts])
    return tuple(found)


MOST_HEADER_BYTES = 2**20
"""Of a file of weights, besides its tensors."""

ReadOutput = Callable[[Any, Tensor], Sequence[Any]]
"""Returns something for each utterance of a batch, of a head's output and the lengths [batch] of its features."""


def decode(probes: Sequence[Probe], task: TrainedTask, features: Features) -> list[list[Any]]:
    """Return what the task decodes from each probe's output, per utterance; all probes share one pass."""
    return apply(probes, features, task.decode)


def apply(probes: Sequence[Probe], features: Features, read: ReadOutput) -> list[list[Any]]:
    """Return what is read from each probe's output, per utterance; all probes share one pass.

    A batch that memory can't hold is processed in halves.
    """
    device = next(probes[0].parameters()).device
    size = EVAL_BATCH[features.pooled]
    decoded: list[list[Any]] = [[] for _ in probes]
    for probe in probes:
        probe.eval()
    while (done := len(decoded[-1])) < len(features):
        try:
            with torch.inference_mode(), closing(_batches(features, done, size)) as batches:
                for batch in batches:
                    hidden, lengths = batch.to(device).hidden, batch.lengths
                    outputs = [read(probe(hidden, lengths), lengths) for probe in probes]
                    for before, more in zip(decoded, outputs, strict=True):
                        before.extend(more)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory.calls_for_parts(error) or size == 1:
                raise
            out_of_memory.release(error)
            size = math.ceil(size / 2)
            warnings.warn(f"memory ran out: evaluation continues with batches of {size} utterances", stacklevel=2)
    for probe in probes:
        probe.train()
    return decoded


def _batches(features: Features, first: int, size: int) -> Generator[FeatureBatch, None, None]:
    """Yield the utterances from `first` on in batches of `size`; for a GPU, threads read the next ones meanwhile."""

    def read(start: int) -> FeatureBatch:
        return features.batch(range(start, min(start + size, len(features))))

    starts = range(first, len(features), size)
    yield from prefetch(read, starts, EVAL_READERS) if features.pinned else map(read, starts)


def load_weights(path: Path, probe: Probe) -> None:
    """Fill `probe` with saved weights; one on torch's meta device takes no memory for them, and is only compared.

    Raises:
        UserError: the file can't be read, is damaged, or holds other weights than the probe's.
    """
    most = sum(tensor.nbytes for tensor in probe.state_dict().values()) + MOST_HEADER_BYTES
    outside_files.check_regular(path, most)
    try:
        weights, _ = safetensors_io.read(path)
    except safetensors_io.DamagedError as error:
        raise UserError(f"{path}: damaged ({error}). Remove it, and repeat its run.") from error
    try:
        probe.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: holds other weights than this head's ({reason}). Repeat its run.") from error


def save_weights(path: Path, probe: Probe) -> None:
    """Write the weights of `probe`, atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in probe.state_dict().items()}
    safetensors_io.write(path, weights)
