"""Targets of masked prediction: a cluster for each frame, of MFCC (iteration 1) or of an upstream's layer.

Labels are computed once, for whole clips, in shards that survive a killed run; a crop uses its segment of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.errors import UserError
from superb_eval.pretraining import target_features
from superb_eval.pretraining.batches import ALIGN, Batch
from superb_eval.pretraining.data import Audio, Crop
from superb_eval.pretraining.recipe import TargetSettings
from superb_eval.pretraining.shapes import frame_count
from superb_eval.pretraining.target_features import Extractor, Frames
from superb_eval.runtime import atomic_files, outside_files
from superb_eval.runtime.progress import Progress

SHARD = 256
"""Clips whose labels share a file."""


@dataclass(frozen=True)
class Codebook:
    """Centres [clusters, dim] of frames that were multiplied by `scale` [dim]."""

    centres: Frames
    scale: Frames

    def nearest(self, frames: Frames) -> NDArray[np.uint16]:
        """Return the index [frames] of the nearest centre of each frame [frames, dim]."""
        distance = (self.centres**2).sum(1) - 2 * (frames * self.scale) @ self.centres.T
        nearest: NDArray[np.uint16] = distance.argmin(1).astype(np.uint16)
        return nearest


@dataclass(frozen=True)
class Labels:
    """The labels of all clips, concatenated in `values`; those of clip i begin at `starts[i]`."""

    values: NDArray[np.uint16]
    starts: NDArray[np.int64]
    clusters: int

    def for_batch(self, batch: Batch, counted: Tensor) -> Tensor:
        """Return the labels [rows, frames] of a batch's crops, 0 on frames that aren't `counted` [rows, frames]."""
        labels = np.zeros(counted.shape, np.int64)
        first = self.starts[list(batch.clips)] + np.array(batch.offsets) // ALIGN
        mask = counted.numpy()
        rows, frames = np.nonzero(mask)
        labels[mask] = self.values[first[rows] + frames]
        return torch.from_numpy(labels)


def create(settings: TargetSettings, audio: Audio, folder: Path, seed: int, device: str, progress: Progress) -> Labels:
    """Return the labels of all clips; those that are in `folder` already are read, the others computed and written.

    Raises:
        UserError: there are too few frames for that number of clusters, the upstream has no such layer or another
            stride, or `folder` holds the labels of other audio or settings.
    """
    _claim_folder(settings, audio, folder, seed)
    extract = target_features.extractor(settings, device)
    codebook = _codebook(settings, audio, folder, seed, extract, progress)
    starts = np.concatenate([[0], np.cumsum([frame_count(int(n)) for n in audio.samples])])
    with progress.step("labelling", len(audio.clips)) as update:
        shards = []
        for first in range(0, len(audio.clips), SHARD):
            clips = range(first, min(first + SHARD, len(audio.clips)))
            shards.append(_shard(clips, audio, folder, extract, codebook))
            update(clips.stop)
    return Labels(np.concatenate(shards), starts, settings.clusters)


def _claim_folder(settings: TargetSettings, audio: Audio, folder: Path, seed: int) -> None:
    """Record the settings and audio of the labels in `folder`, or refuse a folder with labels of others."""
    clips = [(clip.path.name, clip.start, int(n)) for clip, n in zip(audio.clips, audio.samples, strict=True)]
    digest = hashlib.sha256(json.dumps(clips).encode()).hexdigest()
    text = json.dumps({**settings.model_dump(mode="json"), "seed": seed, "audio": digest}, indent=1)
    path = folder / "targets.json"
    if not path.is_file():
        atomic_files.write_text(path, text)
    elif outside_files.read_text(path) != text:
        raise UserError(f"{folder}: holds labels of other audio or settings. Choose another --out, or remove it.")


def _shard(clips: range, audio: Audio, folder: Path, extract: Extractor, codebook: Codebook) -> NDArray[np.uint16]:
    path = folder / f"labels-{clips.start:07d}.npy"
    if path.is_file():
        stored: NDArray[np.uint16] = np.load(path, allow_pickle=False)
        return stored
    counts = [frame_count(int(audio.samples[i])) for i in clips]
    waves = [audio.read(Crop(i, 0, int(audio.samples[i]))) for i in clips]
    features = iter(extract([wave for wave in waves if wave is not None]))
    # Unreadable clips are in no batch either; zeros keep the positions of the others.
    parts = [
        np.zeros(count, np.uint16) if wave is None else codebook.nearest(_align(next(features), count))
        for wave, count in zip(waves, counts, strict=True)
    ]
    labels = np.concatenate(parts)
    atomic_files.write(path, lambda temporary: _write_array(temporary, np.save, labels))
    return labels


def _write_array(path: Path, save: Callable[..., None], *values: NDArray[Any], **named: NDArray[Any]) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to a path's name
        save(file, *values, **named)


def _align(frames: Frames, count: int) -> Frames:
    """Return exactly `count` frames: feature extractors may give one more or less at the end."""
    missing = count - len(frames)
    return np.pad(frames, ((0, missing), (0, 0)), mode="edge") if missing > 0 else frames[:count]


def _codebook(
    settings: TargetSettings, audio: Audio, folder: Path, seed: int, extract: Extractor, progress: Progress
) -> Codebook:
    path = folder / "codebook.npz"
    if not path.is_file():
        sample = _sample(settings, audio, seed, extract, progress)
        if len(sample) < settings.clusters:
            raise UserError(
                f"{len(sample)} frames are too few for {settings.clusters} clusters. "
                "Lower targets.clusters, or raise targets.fit_hours or the data."
            )
        progress.log(f"k-means: {settings.clusters} clusters of {len(sample)} frames")
        scale = _scale(sample, settings)
        centres = _fit_kmeans(sample * scale, settings, seed)
        atomic_files.write(path, lambda temporary: _write_array(temporary, np.savez, centres=centres, scale=scale))
    with np.load(path, allow_pickle=False) as stored:
        return Codebook(stored["centres"], stored["scale"])


def _scale(sample: Frames, settings: TargetSettings) -> Frames:
    """Return the factors [dim] of the features: 1, or weights over the standard deviation."""
    if settings.weights is None or settings.features != "mfcc":
        return np.ones(sample.shape[1], np.float32)
    scale: Frames = target_features.mfcc_weights(settings.weights) / np.maximum(sample.std(0), 1e-6)
    return scale


def _sample(settings: TargetSettings, audio: Audio, seed: int, extract: Extractor, progress: Progress) -> Frames:
    """Return the frames [frames, dim] of clips drawn by the seed, `fit_hours` in all."""
    order = np.random.default_rng([seed, 2]).permutation(len(audio.clips))
    until = np.searchsorted(np.cumsum(audio.samples[order]), settings.fit_hours * 3600 * SAMPLE_RATE) + 1
    drawn, features = order[:until].tolist(), []
    with progress.step("features to cluster", len(drawn)) as update:
        for first in range(0, len(drawn), SHARD):
            crops = [Crop(i, 0, int(audio.samples[i])) for i in drawn[first : first + SHARD]]
            features += extract([wave for crop in crops if (wave := audio.read(crop)) is not None])
            update(min(first + SHARD, len(drawn)))
    return np.concatenate(features) if features else np.zeros((0, 1), np.float32)


def _fit_kmeans(sample: Frames, settings: TargetSettings, seed: int) -> Frames:
    """Return k-means' centres [clusters, dim], with the options of HuBERT's `learn_kmeans.py`."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        settings.clusters,
        batch_size=settings.batch_size,
        n_init=settings.restarts,
        max_iter=100,
        tol=0.0,
        max_no_improvement=100,
        reassignment_ratio=0.0,
        random_state=seed,
    )
    centres: Frames = kmeans.fit(sample).cluster_centers_.astype(np.float32)
    return centres
