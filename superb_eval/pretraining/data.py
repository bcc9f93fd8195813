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

from superb_eval.data import audio
from superb_eval.data.audio import SAMPLE_RATE, Clip, Waveform
from superb_eval.errors import UserError
from superb_eval.pretraining import sources
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.pretraining.sources import Named
from superb_eval.runtime.progress import Progress
from superb_eval.runtime.threads import available_cores

ALIGN = 320
"""Samples. Crops begin at multiples of it, so that frames of a crop are frames of the clip."""

JITTER = 0.1
"""Lengths are sorted up to such a factor, so that batches differ from epoch to epoch."""


class Batch(NamedTuple):
    """Crops of clips, padded with zeros.

    `wavs` is [batch, samples] at 16 kHz and `lengths` [batch] in samples. `clips` are numbers of clips, `offsets` the
    first sample of each crop in its clip (a multiple of `ALIGN`), `seeds` one seed per crop for whatever is drawn at
    random about it, the same on any number of processes. `step` is the update, from 1.
    """

    wavs: Tensor
    lengths: Tensor
    clips: tuple[int, ...]
    offsets: tuple[int, ...]
    seeds: tuple[int, ...]
    step: int

    def on(self, device: torch.device) -> Batch:
        """Return it with its waveforms on a device; lengths stay on the CPU, where reading them waits for nothing."""
        return self._replace(wavs=self.wavs.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return it with waveforms that a GPU copies while others compute."""
        return self._replace(wavs=self.wavs.pin_memory())


class Crop(NamedTuple):
    """A stretch of a clip: clip's number, first sample, samples."""

    clip: int
    start: int
    samples: int


@dataclass
class Audio:
    """Clips that can be heard; `samples[i]` is the length of clip i at 16 kHz.

    `problems` names what was left out because it can't be read, or is silent; it grows while files are read.
    """

    clips: tuple[Clip, ...]
    samples: NDArray[np.int64]
    kept: tuple[NDArray[np.int16], ...] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """All clips together."""
        return float(self.samples.sum()) / SAMPLE_RATE / 3600

    def read(self, crop: Crop) -> Waveform | None:
        """Return a crop [samples], or None where it can't be read or is silent; then `problems` says why."""
        try:
            return _sounding(self._read(crop), self.clips[crop.clip])
        except UserError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    def _read(self, crop: Crop) -> Waveform:
        if self.kept is not None:
            stretch = self.kept[crop.clip][crop.start : crop.start + crop.samples]
            return stretch.astype(np.float32) / np.float32(32768)
        clip = self.clips[crop.clip]
        begins = clip.start + crop.start / SAMPLE_RATE
        found = audio.read(replace(clip, start=begins, end=begins + crop.samples / SAMPLE_RATE))
        return found[: crop.samples]


def gather(settings: DataSettings, named: Named, seed: int, progress: Progress) -> Audio:
    """Find the audio of a recipe; keep it in memory where it fits. Files that can't be used are counted and named.

    Raises:
        UserError: a source is missing, or nothing usable is there.
    """
    found = sources.clips(settings, named, seed, progress)
    problems: list[str] = []
    headers = _each(audio.seconds, found, "looking at audio", progress, problems)
    bounds = settings.min_seconds, settings.max_seconds or np.inf
    fits = [(clip, seconds) for clip, seconds in headers if bounds[0] <= seconds <= bounds[1]]
    if len(fits) < len(headers):
        progress.log(f"{len(headers) - len(fits)} clips are left out: not within {bounds[0]} to {bounds[1]} s")
    if sum(seconds for _, seconds in fits) * SAMPLE_RATE * 2 <= settings.memory_gb * 1e9:
        kept = _each(_decoded, [clip for clip, _ in fits], "reading audio", progress, problems)
        clips, waves = tuple(clip for clip, _ in kept), tuple(wave for _, wave in kept)
        gathered = Audio(clips, np.array([len(wave) for wave in waves], dtype=np.int64), waves, problems)
    else:
        lengths = np.array([int(seconds * SAMPLE_RATE) for _, seconds in fits], dtype=np.int64)
        gathered = Audio(tuple(clip for clip, _ in fits), lengths, None, problems)
    _report(gathered, progress)
    return gathered


def _decoded(clip: Clip) -> NDArray[np.int16]:
    samples = _sounding(audio.read(clip), clip)
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def _sounding(samples: Waveform, clip: Clip) -> Waveform:
    if samples.min() == samples.max():
        raise UserError(f"{clip.path}: is silent: nothing can be learnt from it. Drop it, or record it again.")
    return samples


Found = TypeVar("Found")


def _each(
    work: Callable[[Clip], Found], clips: Sequence[Clip], name: str, progress: Progress, problems: list[str]
) -> list[tuple[Clip, Found]]:
    """Apply `work` to all clips with some threads; return (clip, result) of those it didn't refuse."""
    done = []

    def attempt(clip: Clip) -> Found | UserError:
        try:
            return work(clip)
        except UserError as error:
            return error

    with progress.step(name, len(clips)) as update, ThreadPoolExecutor(min(8, available_cores())) as pool:
        for number, (clip, result) in enumerate(zip(clips, pool.map(attempt, clips), strict=True), start=1):
            if isinstance(result, UserError):
                problems.append(str(result))
            else:
                done.append((clip, result))
            update(number)
    return done


def _report(gathered: Audio, progress: Progress) -> None:
    problems = gathered.problems
    if problems:
        listed = "\n  ".join(problems[:5]) + (f"\n  (+{len(problems) - 5} more)" if len(problems) > 5 else "")
        progress.log(f"{len(problems)} files are left out:\n  {listed}")
    if not gathered.clips:
        raise UserError("no audio is left to train on. Check the sources, data.min_seconds and data.max_seconds.")
    progress.log(f"{len(gathered.clips)} clips, {gathered.hours:.2f} h of audio")


class Batches:
    """Batches of crops of about one length, by their padded seconds, without end.

    Each epoch hears every clip once, cut anew where it is longer than `crop_seconds`, in an order of its own.
    """

    def __init__(self, heard: Audio, settings: DataSettings, seed: int) -> None:
        if settings.crop_seconds > settings.batch_seconds:
            raise UserError(
                f"data.crop_seconds={settings.crop_seconds} is more than data.batch_seconds={settings.batch_seconds}: "
                "a batch could not hold one crop. Raise the latter."
            )
        self.audio, self.settings, self.seed = heard, settings, seed
        crop = int(settings.crop_seconds * SAMPLE_RATE)
        self.lengths = np.minimum(heard.samples, crop)
        self._first = [0]
        """Number of the first batch of each epoch, as far as epochs have been planned."""
        self._epoch = lru_cache(maxsize=2)(self._plan)
        self._lock = Lock()

    def at(self, number: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return a rank's share of batch `number` (from 0), for the update `step`.

        Raises:
            UserError: the batch holds fewer clips than there are processes, or none of its files can be read.
        """
        crops = self.crops(number)
        if len(crops) < world:
            raise UserError(
                f"a batch of {len(crops)} clip(s) can't be shared by {world} processes. Raise data.batch_seconds."
            )
        mine = list(enumerate(crops))[rank::world]
        heard = [(crop, place, wave) for place, crop in mine if (wave := self.audio.read(crop)) is not None]
        if not heard:
            raise UserError(f"step {step}: no file of the batch can be used: {'; '.join(self.audio.problems[-3:])}")
        wavs = torch.zeros(len(heard), max(len(wave) for _, _, wave in heard))
        for row, (_, _, wave) in zip(wavs, heard, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        return Batch(
            wavs=wavs,
            lengths=torch.tensor([len(wave) for _, _, wave in heard]),
            clips=tuple(crop.clip for crop, _, _ in heard),
            offsets=tuple(crop.start for crop, _, _ in heard),
            seeds=tuple(_mixed(self.seed, number, place) for _, place, _ in heard),
            step=step,
        )

    def crops(self, number: int) -> list[Crop]:
        """Return the crops of a batch, all processes' together."""
        with self._lock:  # threads read ahead
            while number >= self._first[-1]:
                self._first.append(self._first[-1] + len(self._epoch(len(self._first) - 1)))
            epoch = bisect_right(self._first, number) - 1
            chosen = self._epoch(epoch)[number - self._first[epoch]]
        rng = np.random.default_rng([self.seed, 1, number])
        return [self._cut(int(clip), float(where)) for clip, where in zip(chosen, rng.random(len(chosen)), strict=True)]

    def _cut(self, clip: int, where: float) -> Crop:
        """Return a crop whose place in the clip is `where` between 0 and 1."""
        samples = int(self.lengths[clip])
        places = (int(self.audio.samples[clip]) - samples) // ALIGN + 1
        return Crop(clip, int(where * places) * ALIGN, samples)

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch as numbers of clips."""
        rng = np.random.default_rng([self.seed, 0, epoch])
        order = np.argsort(self.lengths * rng.uniform(1 - JITTER, 1 + JITTER, len(self.lengths)), kind="stable")
        bound, most = int(self.settings.batch_seconds * SAMPLE_RATE), self.settings.batch_clips or len(order)
        starts, longest = [0], 0
        for place, length in enumerate(self.lengths[order].tolist()):
            longest = max(longest, length)
            count = place - starts[-1] + 1
            if count > most or count * longest > bound:
                starts.append(place)
                longest = length
        batches = np.split(order, starts[1:])
        if len(batches) > 2 and len(batches[-1]) < len(batches[-2]) / 2:
            batches.pop()  # the rest of an epoch: too few clips for an update as sure as the others
        return [batches[i] for i in rng.permutation(len(batches))]


def _mixed(*numbers: int) -> int:
    """Return one number of 63 bits that stands for several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
