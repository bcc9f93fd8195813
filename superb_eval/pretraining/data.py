"""Unlabelled audio in batches: a batch is a pure function of seed and number, however many processes share it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superb_eval.data import audio as audio_files
from superb_eval.data.audio import SAMPLE_RATE, Clip, Waveform
from superb_eval.errors import UserError
from superb_eval.pretraining import sources
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.pretraining.sources import SourcePaths
from superb_eval.runtime.progress import Progress
from superb_eval.runtime.threads import available_cores

ALIGN = 320
"""Samples. Crops begin at multiples of it, so that frames of a crop are frames of the clip."""

JITTER = 0.1
"""Relative random change of the lengths that batches are sorted by, so that batches differ from epoch to epoch."""


class Batch(NamedTuple):
    """Crops of clips, padded with zeros.

    `wavs` is [batch, samples] at 16 kHz and `lengths` [batch] in samples. `clips` are indices of clips, `offsets` the
    first sample of each crop in its clip (a multiple of `ALIGN`), `seeds` one seed per crop for its random draws, the
    same on any number of processes. `step` is the update, from 1.
    """

    wavs: Tensor
    lengths: Tensor
    clips: tuple[int, ...]
    offsets: tuple[int, ...]
    seeds: tuple[int, ...]
    step: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its waveforms on a device; lengths stay on the CPU, where reading them is no sync."""
        return self._replace(wavs=self.wavs.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch with waveforms in pinned memory, which a GPU copies asynchronously."""
        return self._replace(wavs=self.wavs.pin_memory())


class Crop(NamedTuple):
    """A segment of a clip: the clip's index, first sample, samples."""

    clip: int
    start: int
    samples: int


@dataclass
class Audio:
    """The training audio; `samples[i]` is the length of clip i at 16 kHz.

    `cached` holds the decoded clips where they fit into memory. `problems` lists unreadable and silent files, which
    are left out; it grows while files are read.
    """

    clips: tuple[Clip, ...]
    samples: NDArray[np.int64]
    cached: tuple[NDArray[np.int16], ...] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """Return the duration of all clips together in hours."""
        return float(self.samples.sum()) / SAMPLE_RATE / 3600

    def read(self, crop: Crop) -> Waveform | None:
        """Return a crop [samples], or None where it is unreadable or silent; `problems` then has the reason."""
        try:
            return _check_not_silent(self._read(crop), self.clips[crop.clip])
        except UserError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    def _read(self, crop: Crop) -> Waveform:
        if self.cached is not None:
            samples = self.cached[crop.clip][crop.start : crop.start + crop.samples]
            return samples.astype(np.float32) / np.float32(32768)
        clip = self.clips[crop.clip]
        start = clip.start + crop.start / SAMPLE_RATE
        waveform = audio_files.read(replace(clip, start=start, end=start + crop.samples / SAMPLE_RATE))
        return waveform[: crop.samples]


def load_audio(settings: DataSettings, paths: SourcePaths, seed: int, progress: Progress) -> Audio:
    """Find the audio of a recipe and cache it in memory where it fits. Unusable files are counted and named.

    Raises:
        UserError: a source is missing, or holds nothing usable.
    """
    clips = sources.find_clips(settings, paths, seed, progress)
    problems: list[str] = []
    durations = _map_clips(audio_files.seconds, clips, "reading headers", progress, problems)
    shortest, longest = settings.min_seconds, settings.max_seconds or np.inf
    fitting = [(clip, seconds) for clip, seconds in durations if shortest <= seconds <= longest]
    if len(fitting) < len(durations):
        progress.log(f"{len(durations) - len(fitting)} clips are left out: not within {shortest} to {longest} s")
    if sum(seconds for _, seconds in fitting) * SAMPLE_RATE * 2 <= settings.memory_gb * 1e9:
        decoded = _map_clips(_decode, [clip for clip, _ in fitting], "reading audio", progress, problems)
        waves = tuple(wave for _, wave in decoded)
        lengths = np.array([len(wave) for wave in waves], dtype=np.int64)
        audio = Audio(tuple(clip for clip, _ in decoded), lengths, waves, problems)
    else:
        lengths = np.array([int(seconds * SAMPLE_RATE) for _, seconds in fitting], dtype=np.int64)
        audio = Audio(tuple(clip for clip, _ in fitting), lengths, None, problems)
    _report(audio, progress)
    return audio


def _decode(clip: Clip) -> NDArray[np.int16]:
    samples = _check_not_silent(audio_files.read(clip), clip)
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def _check_not_silent(samples: Waveform, clip: Clip) -> Waveform:
    if samples.min() == samples.max():
        raise UserError(f"{clip.path}: is silent: no training data. Remove it, or record it again.")
    return samples


Result = TypeVar("Result")


def _map_clips(
    function: Callable[[Clip], Result], clips: Sequence[Clip], name: str, progress: Progress, problems: list[str]
) -> list[tuple[Clip, Result]]:
    """Apply `function` to all clips on several threads; return (clip, result), and append its errors to `problems`."""
    results = []

    def attempt(clip: Clip) -> Result | UserError:
        try:
            return function(clip)
        except UserError as error:
            return error

    with progress.step(name, len(clips)) as update, ThreadPoolExecutor(min(8, available_cores())) as pool:
        for done, (clip, result) in enumerate(zip(clips, pool.map(attempt, clips), strict=True), start=1):
            if isinstance(result, UserError):
                problems.append(str(result))
            else:
                results.append((clip, result))
            update(done)
    return results


def _report(audio: Audio, progress: Progress) -> None:
    problems = audio.problems
    if problems:
        listed = "\n  ".join(problems[:5]) + (f"\n  (+{len(problems) - 5} more)" if len(problems) > 5 else "")
        progress.log(f"{len(problems)} files are left out:\n  {listed}")
    if not audio.clips:
        raise UserError("no audio is left to train on. Check the sources, data.min_seconds and data.max_seconds.")
    progress.log(f"{len(audio.clips)} clips, {audio.hours:.2f} h of audio")


class Batches:
    """An endless sequence of batches: crops of similar length, bounded by their padded seconds.

    Each epoch uses every clip once, in its own order; clips longer than `crop_seconds` are cropped anew.

    Raises (when made):
        UserError: a crop may be longer than a batch.
    """

    def __init__(self, audio: Audio, settings: DataSettings, seed: int) -> None:
        if settings.crop_seconds > settings.batch_seconds:
            raise UserError(
                f"data.crop_seconds={settings.crop_seconds} is more than data.batch_seconds={settings.batch_seconds}: "
                "a batch could not hold one crop. Raise the latter."
            )
        self.audio, self.settings, self.seed = audio, settings, seed
        crop = int(settings.crop_seconds * SAMPLE_RATE)
        self.lengths = np.minimum(audio.samples, crop)
        self._first_of_epoch = [0]
        """Number of the first batch of each epoch, as far as epochs have been planned."""
        self._epoch = lru_cache(maxsize=2)(self._plan)
        self._lock = Lock()

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
        items = [(crop, place, wave) for place, crop in share if (wave := self.audio.read(crop)) is not None]
        if not items:
            raise UserError(f"step {step}: no file of the batch can be used: {'; '.join(self.audio.problems[-3:])}")
        wavs = torch.zeros(len(items), max(len(wave) for _, _, wave in items))
        for row, (_, _, wave) in zip(wavs, items, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        return Batch(
            wavs=wavs,
            lengths=torch.tensor([len(wave) for _, _, wave in items]),
            clips=tuple(crop.clip for crop, _, _ in items),
            offsets=tuple(crop.start for crop, _, _ in items),
            seeds=tuple(_derive_seed(self.seed, number, place) for _, place, _ in items),
            step=step,
        )

    def crops(self, number: int) -> list[Crop]:
        """Return the crops of a batch, all processes' together."""
        with self._lock:  # batches are loaded on several threads
            while number >= self._first_of_epoch[-1]:
                self._first_of_epoch.append(self._first_of_epoch[-1] + len(self._epoch(len(self._first_of_epoch) - 1)))
            epoch = bisect_right(self._first_of_epoch, number) - 1
            clips = self._epoch(epoch)[number - self._first_of_epoch[epoch]]
        rng = np.random.default_rng([self.seed, 1, number])
        return [self._crop(int(clip), float(where)) for clip, where in zip(clips, rng.random(len(clips)), strict=True)]

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


def _derive_seed(*numbers: int) -> int:
    """Return a seed of 63 bits derived from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
