"""What masked prediction predicts: a cluster for each frame, of MFCC (iteration 1) or of an upstream's layer.

Labels are made once, for whole clips, in shards that a killed run keeps; a crop takes its stretch of them.
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
from superb_eval.pretraining.data import ALIGN, Audio, Batch, Crop
from superb_eval.pretraining.network import frames
from superb_eval.pretraining.recipe import TargetSettings
from superb_eval.pretraining.target_features import Describe, Frames
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import Progress

SHARD = 256
"""Clips whose labels share a file."""


@dataclass(frozen=True)
class Codebook:
    """Centres [clusters, dim] of frames that were multiplied by `scale` [dim]."""

    centres: Frames
    scale: Frames

    def nearest(self, described: Frames) -> NDArray[np.uint16]:
        """Return the nearest centre of each frame [frames, dim]."""
        distance = (self.centres**2).sum(1) - 2 * (described * self.scale) @ self.centres.T
        nearest: NDArray[np.uint16] = distance.argmin(1).astype(np.uint16)
        return nearest


@dataclass(frozen=True)
class Labels:
    """Labels of every clip in a row, in `values`; those of clip i begin at `starts[i]`."""

    values: NDArray[np.uint16]
    starts: NDArray[np.int64]
    clusters: int

    def batch(self, batch: Batch, longest: int) -> Tensor:
        """Return the labels [batch, frames] of the crops of a batch, padded with 0 to `longest` frames."""
        found = torch.zeros(len(batch.clips), longest, dtype=torch.long)
        for row, clip, offset, samples in zip(found, batch.clips, batch.offsets, batch.lengths.tolist(), strict=True):
            first, count = int(self.starts[clip]) + offset // ALIGN, frames(samples)
            row[:count] = torch.from_numpy(self.values[first : first + count].astype(np.int64))
        return found


def make(settings: TargetSettings, heard: Audio, folder: Path, seed: int, device: str, progress: Progress) -> Labels:
    """Return the labels of all clips, from `folder` as far as they are there.

    Raises:
        UserError: there are too few frames for so many clusters, the upstream has no such layer or another stride, or
            `folder` holds the labels of other audio or settings.
    """
    _claim(settings, heard, folder, seed)
    describe = target_features.by(settings, device)
    codebook = _codebook(settings, heard, folder, seed, describe, progress)
    starts = np.concatenate([[0], np.cumsum([frames(int(n)) for n in heard.samples])])
    shards = range(0, len(heard.clips), SHARD)
    with progress.step("labelling", len(heard.clips)) as update:
        found = []
        for first in shards:
            clips = range(first, min(first + SHARD, len(heard.clips)))
            found.append(_shard(clips, heard, folder, describe, codebook))
            update(clips.stop)
    return Labels(np.concatenate(found), starts, settings.clusters)


def _claim(settings: TargetSettings, heard: Audio, folder: Path, seed: int) -> None:
    """Note what the labels in `folder` are of, or refuse a folder that holds others."""
    clips = [(clip.path.name, clip.start, int(n)) for clip, n in zip(heard.clips, heard.samples, strict=True)]
    audio = hashlib.sha256(json.dumps(clips).encode()).hexdigest()
    text = json.dumps({**settings.model_dump(mode="json"), "seed": seed, "audio": audio}, indent=1)
    path = folder / "targets.json"
    if not path.is_file():
        atomic_files.write_text(path, text)
    elif path.read_text(encoding="utf8") != text:
        raise UserError(f"{folder}: holds labels of other audio or settings. Choose another --out, or remove it.")


def _shard(clips: range, heard: Audio, folder: Path, describe: Describe, codebook: Codebook) -> NDArray[np.uint16]:
    path = folder / f"labels-{clips.start:07d}.npy"
    if path.is_file():
        found: NDArray[np.uint16] = np.load(path, allow_pickle=False)
        return found
    counts = [frames(int(heard.samples[i])) for i in clips]
    waves = [heard.read(Crop(i, 0, int(heard.samples[i]))) for i in clips]
    described = iter(describe([wave for wave in waves if wave is not None]))
    # What can't be read is in no batch either; zeros keep its place.
    parts = [
        np.zeros(count, np.uint16) if wave is None else codebook.nearest(_aligned(next(described), count))
        for wave, count in zip(waves, counts, strict=True)
    ]
    labels = np.concatenate(parts)
    atomic_files.write(path, lambda temporary: _dump(temporary, np.save, labels))
    return labels


def _dump(path: Path, save: Callable[..., None], *values: NDArray[Any], **named: NDArray[Any]) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to a path's name
        save(file, *values, **named)


def _aligned(described: Frames, count: int) -> Frames:
    """Return exactly `count` frames: feature extractors may give one more or less at the end."""
    missing = count - len(described)
    return np.pad(described, ((0, missing), (0, 0)), mode="edge") if missing > 0 else described[:count]


def _codebook(
    settings: TargetSettings, heard: Audio, folder: Path, seed: int, describe: Describe, progress: Progress
) -> Codebook:
    path = folder / "codebook.npz"
    if not path.is_file():
        sample = _sample(settings, heard, seed, describe, progress)
        if len(sample) < settings.clusters:
            raise UserError(
                f"{len(sample)} frames are too few for {settings.clusters} clusters. "
                "Lower targets.clusters, or raise targets.fit_hours or the data."
            )
        progress.log(f"k-means: {settings.clusters} clusters of {len(sample)} frames")
        scale = _scale(sample, settings)
        centres = _clustered(sample * scale, settings, seed)
        atomic_files.write(path, lambda temporary: _dump(temporary, np.savez, centres=centres, scale=scale))
    with np.load(path, allow_pickle=False) as kept:
        return Codebook(kept["centres"], kept["scale"])


def _scale(sample: Frames, settings: TargetSettings) -> Frames:
    """Return what frames are multiplied by: 1, or weights over the standard deviation."""
    if settings.weights is None or settings.features != "mfcc":
        return np.ones(sample.shape[1], np.float32)
    scale: Frames = target_features.mfcc_weights(settings.weights) / np.maximum(sample.std(0), 1e-6)
    return scale


def _sample(settings: TargetSettings, heard: Audio, seed: int, describe: Describe, progress: Progress) -> Frames:
    """Return the frames of clips drawn by the seed, as many hours as `fit_hours` says."""
    order = np.random.default_rng([seed, 2]).permutation(len(heard.clips))
    until = np.searchsorted(np.cumsum(heard.samples[order]), settings.fit_hours * 3600 * SAMPLE_RATE) + 1
    chosen, found = order[:until].tolist(), []
    with progress.step("features to cluster", len(chosen)) as update:
        for first in range(0, len(chosen), SHARD):
            crops = [Crop(i, 0, int(heard.samples[i])) for i in chosen[first : first + SHARD]]
            found += describe([wave for crop in crops if (wave := heard.read(crop)) is not None])
            update(min(first + SHARD, len(chosen)))
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


def _clustered(sample: Frames, settings: TargetSettings, seed: int) -> Frames:
    """Return k-means' centres, with the options of HuBERT's `learn_kmeans.py`."""
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
