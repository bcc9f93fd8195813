"""Targets of masked prediction: a code for each frame and codebook, of MFCC, log-mel or an upstream's layer.

Labels are computed once, for whole clips, in shards that survive a killed run; a crop uses its segment of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superb_eval.data.audio import SAMPLE_RATE, Waveform
from superb_eval.errors import UserError
from superb_eval.pretraining import codebooks, target_features
from superb_eval.pretraining.batches import ALIGN, Batch
from superb_eval.pretraining.codebooks import Codebook
from superb_eval.pretraining.data import Audio, Crop
from superb_eval.pretraining.shapes import frame_count
from superb_eval.pretraining.target_features import Frames, TargetExtractor
from superb_eval.pretraining.target_settings import CodebookSettings, TargetSettings
from superb_eval.runtime import atomic_files, outside_files
from superb_eval.runtime.progress import Progress

SHARD = 256
"""Clips whose labels share a file."""

FURTHER = "further"
"""In the folder of the labels: those of `targets.further`."""

NAMES = {"kmeans": "k-means", "random": "random projection"}
"""Of quantisers, in the log."""


@dataclass(frozen=True)
class Labels:
    """The labels of all clips, concatenated in `values`; those of clip i begin at `starts[i]`.

    `clusters` is as in the recipe. `values` is [frames], or [frames, codebooks] where there are several.
    """

    values: NDArray[np.uint16]
    starts: NDArray[np.int64]
    clusters: int | tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of clusters of each codebook."""
        return _sizes(self.clusters)

    def beside(self, further: Labels) -> Labels:
        """Return labels of these codebooks and of those of `further`, which are of the same clips."""
        values = [labels.values.reshape(len(self.values), -1) for labels in (self, further)]
        return Labels(np.concatenate(values, axis=1), self.starts, self.sizes + further.sizes)

    def for_batch(self, batch: Batch, counted: Tensor) -> Tensor:
        """Return the labels [rows, frames] of a batch's crops, 0 on frames that aren't `counted` [rows, frames].

        Those of several codebooks are [rows, frames, codebooks].
        """
        labels = np.zeros((*counted.shape, *self.values.shape[1:]), np.int64)
        first = self.starts[list(batch.clips)] + np.array(batch.offsets) // ALIGN
        mask = counted.numpy()
        rows, frames = np.nonzero(mask)
        labels[mask] = self.values[first[rows] + frames]
        return torch.from_numpy(labels)


def _sizes(clusters: int | tuple[int, ...]) -> tuple[int, ...]:
    return (clusters,) if isinstance(clusters, int) else clusters


def create(settings: TargetSettings, audio: Audio, folder: Path, seed: int, device: str, progress: Progress) -> Labels:
    """Return the labels of all clips; those that are in `folder` already are read, the others computed and written.

    Raises:
        UserError: there are too few frames for that number of clusters, the upstream has no such layer or another
            stride, or `folder` holds the labels of other audio, settings or weights of the upstream.
    """
    labels = _create(settings, audio, folder, seed, device, progress)
    if settings.further is None:
        return labels
    return labels.beside(_create(settings.further, audio, folder / FURTHER, seed, device, progress))


def _create(
    settings: CodebookSettings, audio: Audio, folder: Path, seed: int, device: str, progress: Progress
) -> Labels:
    extractor = target_features.extractor(settings, device)
    _claim_folder(settings, audio, folder, seed, extractor.fingerprint)
    books = _codebooks(settings, audio, folder, seed, extractor, progress)
    starts = np.concatenate([[0], np.cumsum([frame_count(int(n)) for n in audio.samples])])
    with progress.step("labelling", len(audio.clips)) as update:
        shards = []
        for first in range(0, len(audio.clips), SHARD):
            clips = range(first, min(first + SHARD, len(audio.clips)))
            shards.append(_shard(clips, audio, folder, extractor, books))
            update(clips.stop)
    return Labels(np.concatenate(shards), starts, settings.clusters)


def _claim_folder(settings: CodebookSettings, audio: Audio, folder: Path, seed: int, fingerprint: str | None) -> None:
    """Record the settings, audio and upstream of the labels in `folder`, or refuse a folder with labels of others."""
    clips = [(clip.path.name, clip.start, int(n)) for clip, n in zip(audio.clips, audio.samples, strict=True)]
    digest = hashlib.sha256(json.dumps(clips).encode()).hexdigest()
    inputs = {**settings.as_recorded(), "seed": seed, "audio": digest}
    text = json.dumps(inputs if fingerprint is None else {**inputs, "upstream": fingerprint}, indent=1)
    path = folder / "targets.json"
    if not path.is_file():
        atomic_files.write_text(path, text)
    elif outside_files.read_text(path) != text:
        raise UserError(
            f"{folder}: holds labels of other audio, settings or weights of the upstream. "
            "Choose another --out, or remove it."
        )


def _shard(
    clips: range, audio: Audio, folder: Path, extractor: TargetExtractor, books: Sequence[Codebook]
) -> NDArray[np.uint16]:
    path = folder / f"labels-{clips.start:07d}.npy"
    if path.is_file():
        stored: NDArray[np.uint16] = np.load(path, allow_pickle=False)
        return stored
    counts = [frame_count(int(audio.samples[i])) for i in clips]
    waves = [_read_whole(audio, i) for i in clips]
    features = iter(_features(extractor, audio, list(zip(clips, waves, strict=True))))
    # Unreadable clips are in no batch either; zeros keep the positions of the others.
    parts = [
        np.zeros((count, len(books)), np.uint16) if wave is None else _codes(_align(next(features), count), books)
        for wave, count in zip(waves, counts, strict=True)
    ]
    labels = np.concatenate(parts)
    labels = labels[:, 0] if len(books) == 1 else labels
    atomic_files.write(path, lambda temporary: _write_array(temporary, labels))
    return labels


def _read_whole(audio: Audio, clip: int) -> Waveform | None:
    """Return the waveform [samples] of a clip, or None where it can't be read."""
    return audio.read(Crop(clip, 0, int(audio.samples[clip])))


def _features(extractor: TargetExtractor, audio: Audio, waves: Iterable[tuple[int, Waveform | None]]) -> list[Frames]:
    """Return the features of those numbered clips whose waveforms could be read."""
    readable = [(audio.clips[i], wave) for i, wave in waves if wave is not None]
    return extractor.compute([clip for clip, _ in readable], [wave for _, wave in readable])


def _codes(frames: Frames, books: Sequence[Codebook]) -> NDArray[np.uint16]:
    """Return the codes [frames, codebooks] of the frames [frames, dim] of a clip."""
    return np.stack([book.nearest(frames) for book in books], axis=1)


def _write_array(path: Path, values: NDArray[np.uint16]) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to a path's name
        np.save(file, values)


def _align(frames: Frames, count: int) -> Frames:
    """Return exactly `count` frames: feature extractors may give one more or less at the end."""
    missing = count - len(frames)
    return np.pad(frames, ((0, missing), (0, 0)), mode="edge") if missing > 0 else frames[:count]


def _codebooks(
    settings: CodebookSettings, audio: Audio, folder: Path, seed: int, extractor: TargetExtractor, progress: Progress
) -> list[Codebook]:
    """Return the codebooks, fitted on one sample of frames where `folder` doesn't hold all of them."""
    sizes = _sizes(settings.clusters)
    paths = [folder / ("codebook.npz" if not number else f"codebook-{number + 1}.npz") for number in range(len(sizes))]
    if not all(path.is_file() for path in paths):
        sample = _sample(settings, audio, seed, extractor, progress)
        if len(sample) < max(sizes):
            raise UserError(
                f"{len(sample)} frames are too few for {max(sizes)} clusters. "
                f"Lower {settings.section}.clusters, or raise {settings.section}.fit_hours or the data."
            )
        for number, (path, clusters) in enumerate(zip(paths, sizes, strict=True)):
            progress.log(f"{NAMES[settings.quantiser]}: {clusters} clusters of {len(sample)} frames")
            codebooks.write(path, codebooks.fit(sample, settings, clusters, number, seed))
    return [codebooks.read(path) for path in paths]


def _sample(
    settings: CodebookSettings, audio: Audio, seed: int, extractor: TargetExtractor, progress: Progress
) -> Frames:
    """Return the frames [frames, dim] of clips drawn by the seed, `fit_hours` in all."""
    order = np.random.default_rng([seed, 2]).permutation(len(audio.clips))
    until = np.searchsorted(np.cumsum(audio.samples[order]), settings.fit_hours * 3600 * SAMPLE_RATE) + 1
    drawn, features = order[:until].tolist(), []
    with progress.step("features to cluster", len(drawn)) as update:
        for first in range(0, len(drawn), SHARD):
            clips = drawn[first : first + SHARD]
            features += _features(extractor, audio, [(i, _read_whole(audio, i)) for i in clips])
            update(min(first + SHARD, len(drawn)))
    return np.concatenate(features) if features else np.zeros((0, 1), np.float32)
