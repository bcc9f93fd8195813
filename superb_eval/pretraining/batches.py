"""Audio in batches: a batch is a pure function of seed and number, however many processes share it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.pretraining import mixing
from superb_eval.pretraining.data import FULL_SCALE, Audio, Crop
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.pretraining.seeding import derive_seeds
from superb_eval.pretraining.shapes import HOP, ShapeGrid

ALIGN = HOP
"""Samples. Crops begin at multiples of it, so that frames of a crop are frames of the clip."""

JITTER = 0.1
"""Relative random change of the lengths that batches are sorted by, so that batches differ from epoch to epoch."""


class Batch(NamedTuple):
    """Crops of clips, padded with zeros.

    `wavs` is [rows, samples] at 16 kHz, in 16 bits as far as the audio is cached; `to` turns it into floats. On a GPU
    there may be empty rows after the crops, so that many batches have one shape: they count nowhere. `lengths` are the
    samples of each crop, `clips` the indices of their clips, `offsets` the first sample of each crop in its clip (a
    multiple of `ALIGN`), `seeds` one seed per crop for its random draws, the same on any number of processes. `step` is
    the update, from 1. `inputs` are the tensors that the objective prepared for the batch, by name.
    """

    wavs: Tensor
    lengths: tuple[int, ...]
    clips: tuple[int, ...]
    offsets: tuple[int, ...]
    seeds: tuple[int, ...]
    step: int
    inputs: Mapping[str, Tensor] = {}

    @property
    def padded(self) -> PaddedWavs:
        """The waveforms for an upstream. Empty rows have full length: attention needs a frame to attend to."""
        rows, samples = self.wavs.shape
        return PaddedWavs(self.wavs, self.lengths + (samples,) * (rows - len(self.lengths)))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, by one copy per tensor, none of which is waited for; waveforms as floats."""
        wavs = self.wavs.to(device, non_blocking=True)
        if not wavs.is_floating_point():
            wavs = wavs.float().mul_(1 / FULL_SCALE)
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return self._replace(wavs=wavs, inputs=inputs)

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, which a GPU copies asynchronously."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        return self._replace(wavs=self.wavs.pin_memory(), inputs=inputs)


class Batches:
    """An endless sequence of batches: crops of similar length, bounded by their padded seconds.

    Each epoch uses every clip once, in its own order; clips longer than `crop_seconds` are cropped anew. With a `grid`
    the same batches are padded further, and have few shapes.

    Raises (when made):
        UserError: a crop may be longer than a batch.
    """

    def __init__(self, audio: Audio, settings: DataSettings, seed: int, *, grid: bool = False) -> None:
        if settings.crop_seconds > settings.batch_seconds:
            raise UserError(
                f"data.crop_seconds={settings.crop_seconds} is more than data.batch_seconds={settings.batch_seconds}: "
                "a batch could not hold one crop. Raise the latter."
            )
        self.audio, self.settings, self.seed = audio, settings, seed
        crop = int(settings.crop_seconds * SAMPLE_RATE)
        self.lengths = np.minimum(audio.samples, crop)
        self._shapes = ShapeGrid(int(self.lengths.max())) if grid else None
        self._first_of_epoch = [0]
        """Number of the first batch of each epoch, as far as epochs have been planned."""
        self._epoch = lru_cache(maxsize=2)(self._plan)
        self._lock = Lock()

    def of_seconds(self, batch_seconds: float) -> Batches:
        """Return batches of the same audio that have another bound."""
        settings = self.settings.model_copy(update={"batch_seconds": batch_seconds})
        return Batches(self.audio, settings, self.seed, grid=self._shapes is not None)

    def load(self, number: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return a rank's share of batch `number` (from 0), for the update `step`.

        Raises:
            UserError: the batch holds fewer clips than there are processes, or none of its files can be read.
        """
        crops = self.crops(number)
        if len(crops) < world:
            raise UserError(
                f"a batch of {len(crops)} clip(s) can't be shared by {world} processes. Raise data.batch_seconds."
            )
        share = list(enumerate(crops))[rank::world]
        items = [(crop, place, wave) for place, crop in share if (wave := self.audio.read_stored(crop)) is not None]
        if not items:
            raise UserError(f"step {step}: no file of the batch can be used: {'; '.join(self.audio.problems[-3:])}")
        lengths = tuple(len(wave) for _, _, wave in items)
        rows, samples = len(items), max(lengths)
        if self._shapes is not None:
            epoch, _ = self._locate(number)
            rows, samples = self._shapes.shape(epoch, max(crop.samples for crop in crops), world)
        seeds = derive_seeds((self.seed, number), [place for _, place, _ in items])
        wavs = np.zeros((rows, samples), items[0][2].dtype)
        for row, (_, _, wave), seed in zip(wavs, items, seeds, strict=False):
            row[: len(wave)] = self._mixed(wave, seed)
        return Batch(
            wavs=torch.from_numpy(wavs),
            lengths=lengths,
            clips=tuple(crop.clip for crop, _, _ in items),
            offsets=tuple(crop.start for crop, _, _ in items),
            seeds=tuple(seeds),
            step=step,
        )

    def _mixed(self, wave: NDArray[Any], seed: int) -> NDArray[Any]:
        settings = self.settings.mix
        return wave if settings is None else mixing.mix(wave, seed, settings, self._other_speech)

    def _other_speech(self, rng: np.random.Generator, samples: int) -> NDArray[Any] | None:
        """Return so many samples, or fewer, of a clip drawn from all: on any number of processes the same."""
        clip = int(rng.integers(len(self.audio.clips)))
        count = min(samples, int(self.audio.samples[clip]))
        return self.audio.read_stored(Crop(clip, int(rng.integers(int(self.audio.samples[clip]) - count + 1)), count))

    def crops(self, number: int) -> list[Crop]:
        """Return the crops of a batch, all processes' together."""
        epoch, place = self._locate(number)
        with self._lock:
            clips = self._epoch(epoch)[place]
        rng = np.random.default_rng([self.seed, 1, number])
        return [self._crop(int(clip), float(where)) for clip, where in zip(clips, rng.random(len(clips)), strict=True)]

    def _locate(self, number: int) -> tuple[int, int]:
        """Return the epoch of a batch and the batch's place in it, after planning the epochs up to it."""
        with self._lock:  # batches are loaded on several threads
            while number >= self._first_of_epoch[-1]:
                plan = self._epoch(len(self._first_of_epoch) - 1)
                if self._shapes is not None:
                    self._shapes.add_epoch([(len(clips), int(self.lengths[clips].max())) for clips in plan])
                self._first_of_epoch.append(self._first_of_epoch[-1] + len(plan))
        epoch = bisect_right(self._first_of_epoch, number) - 1
        return epoch, number - self._first_of_epoch[epoch]

    def _crop(self, clip: int, where: float) -> Crop:
        """Return a crop at the relative position `where` in the clip, from 0 to 1."""
        samples = int(self.lengths[clip])
        positions = (int(self.audio.samples[clip]) - samples) // ALIGN + 1
        return Crop(clip, int(where * positions) * ALIGN, samples)

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch as indices of clips."""
        rng = np.random.default_rng([self.seed, 0, epoch])
        order = np.argsort(self.lengths * rng.uniform(1 - JITTER, 1 + JITTER, len(self.lengths)), kind="stable")
        max_samples, max_clips = int(self.settings.batch_seconds * SAMPLE_RATE), self.settings.batch_clips or len(order)
        starts, longest = [0], 0
        for position, length in enumerate(self.lengths[order].tolist()):
            longest = max(longest, length)
            count = position - starts[-1] + 1
            if count > max_clips or count * longest > max_samples:
                starts.append(position)
                longest = length
        batches = np.split(order, starts[1:])
        if len(batches) > 2 and len(batches[-1]) < len(batches[-2]) / 2:
            batches.pop()  # a small remainder would give a noisier gradient than the other batches
        return [batches[i] for i in rng.permutation(len(batches))]
