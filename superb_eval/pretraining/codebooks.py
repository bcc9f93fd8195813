"""Codebooks that turn frames into codes: k-means' centres (HuBERT), or random ones (BEST-RQ)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from superb_eval.pretraining import target_features
from superb_eval.pretraining.target_features import Frames
from superb_eval.pretraining.target_settings import CodebookSettings
from superb_eval.runtime import atomic_files

CODE_WIDTH = 16
"""Dimensions of random codebooks, as in the paper's experiments (section 4)."""

STREAM = 5
"""Of the seed's random numbers, followed by the codebook's number; the other draws of a training have others."""


@dataclass(frozen=True)
class Codebook:
    """Centres [clusters, dim] of frames that were multiplied by `scale` [dim]."""

    centres: Frames
    scale: Frames

    def points(self, frames: Frames) -> Frames:
        """Return what is compared with the centres, of the frames [frames, dim] of a clip."""
        return frames * self.scale

    def nearest(self, frames: Frames) -> NDArray[np.uint16]:
        """Return the index [frames] of the nearest centre of each frame [frames, dim] of a clip."""
        distance = (self.centres**2).sum(1) - 2 * self.points(frames) @ self.centres.T
        nearest: NDArray[np.uint16] = distance.argmin(1).astype(np.uint16)
        return nearest


@dataclass(frozen=True)
class RandomCodebook(Codebook):
    """Random unit vectors [clusters, 16], to which standardised frames come by a random projection.

    BEST-RQ's quantiser (Chiu et al., arXiv 2202.01855, section 3.1): `mean` and `scale` [dim] standardise a frame,
    `projection` [stack x dim, 16] multiplies it and its neighbours, and the product's norm is set to 1.
    """

    mean: Frames
    projection: Frames

    def points(self, frames: Frames) -> Frames:
        """See `Codebook.points`."""
        stacked = stack_frames((frames - self.mean) * self.scale, len(self.projection) // len(self.mean))
        return _unit_rows(stacked @ self.projection)


def stack_frames(frames: Frames, stack: int) -> Frames:
    """Return [frames, stack x dim]: each frame [dim] between its neighbours; the first and last are repeated."""
    before = (stack - 1) // 2
    padded = np.pad(frames, ((before, stack - 1 - before), (0, 0)), mode="edge")
    return np.concatenate([padded[shift : shift + len(frames)] for shift in range(stack)], axis=1)


def _unit_rows(vectors: Frames) -> Frames:
    unit: Frames = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def fit(sample: Frames, settings: CodebookSettings, clusters: int, number: int, seed: int) -> Codebook:
    """Return the codebook `number`, from 0, of a sample of frames [frames, dim].

    Several of one size differ in their seed alone.
    """
    if settings.quantiser == "random":
        return _draw_random(sample, settings, clusters, np.random.default_rng([seed, STREAM, number]))
    scale = _scale(sample, settings)
    return Codebook(_fit_kmeans(sample * scale, settings, clusters, (seed + number) % 2**32), scale)


def _scale(sample: Frames, settings: CodebookSettings) -> Frames:
    """Return the factors [dim] of the features: weights over the standard deviation, or 1.

    A random projection needs standardised features; without weights, k-means clusters them as they are.
    """
    weighted = settings.weights is not None and settings.features == "mfcc"
    if not weighted and settings.quantiser == "kmeans":
        return np.ones(sample.shape[1], np.float32)
    weights = target_features.mfcc_weights(settings.weights) if settings.weights and weighted else np.float32(1)
    scale: Frames = weights / np.maximum(sample.std(0), 1e-6)
    return scale


def _draw_random(sample: Frames, settings: CodebookSettings, clusters: int, rng: np.random.Generator) -> RandomCodebook:
    """Return a random codebook: its projection by Xavier's uniform rule, its vectors normal and of norm 1."""
    rows = settings.stack * sample.shape[1]
    bound = np.sqrt(6 / (rows + CODE_WIDTH))
    projection = rng.uniform(-bound, bound, (rows, CODE_WIDTH)).astype(np.float32)
    vectors = _unit_rows(rng.standard_normal((clusters, CODE_WIDTH)).astype(np.float32))
    mean = sample.mean(0, dtype=np.float64).astype(np.float32)  # a sum over hours in float32 would be rough
    return RandomCodebook(vectors, _scale(sample, settings).astype(np.float32), mean, projection)


def _fit_kmeans(sample: Frames, settings: CodebookSettings, clusters: int, seed: int) -> Frames:
    """Return k-means' centres [clusters, dim], with the options of HuBERT's `learn_kmeans.py`."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        clusters,
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


def write(path: Path, codebook: Codebook) -> None:
    """Write a codebook's arrays into an npz file, by their names."""

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # numpy would add a suffix to a path's name
            np.savez(file, **asdict(codebook))

    atomic_files.write(path, save)


def read(path: Path) -> Codebook:
    """Return the codebook that `write` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = cast("dict[str, Frames]", dict(stored))
    return RandomCodebook(**arrays) if "projection" in arrays else Codebook(**arrays)
