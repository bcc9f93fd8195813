"""Unlabelled audio: read from its files, or from memory where it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from superb_eval.data import audio as audio_files
from superb_eval.data.audio import SAMPLE_RATE, Clip, Waveform
from superb_eval.errors import UserError
from superb_eval.pretraining import sources
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.pretraining.shapes import HOP
from superb_eval.pretraining.sources import SourcePaths
from superb_eval.runtime.progress import Progress
from superb_eval.runtime.threads import available_cores

FULL_SCALE = 32768
"""The sample of 16 bits that is 1 as a float."""


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
        samples = self.read_stored(crop)
        return samples if samples is None or samples.dtype == np.float32 else _to_float(samples)

    def read_stored(self, crop: Crop) -> NDArray[Any] | None:
        """Return what `read` does, in 16 bits where the clip is cached."""
        try:
            return _check_not_silent(self._read(crop), self.clips[crop.clip])
        except UserError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    def _read(self, crop: Crop) -> NDArray[Any]:
        if self.cached is not None:
            return self.cached[crop.clip][crop.start : crop.start + crop.samples]
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
    return join_clips(audio, settings.join_seconds, seed) if settings.join_seconds else audio


def join_clips(audio: Audio, seconds: float, seed: int) -> Audio:
    """Return audio whose clips are several joined, in an order drawn by the seed, until each has `seconds` or more.

    Lengths are cut to whole frames, so that the frames of each part are those that it has alone but for the last two.
    A joined clip bears the name of its first part.

    Raises:
        UserError: the audio isn't cached in memory.
    """
    if audio.cached is None:
        raise UserError(f"data.join_seconds={seconds} joins clips in memory. Raise data.memory_gb, or leave it out.")
    whole = [wave[: len(wave) // HOP * HOP] for wave in audio.cached]
    parts: list[list[int]] = [[]]
    samples = 0
    for clip in np.random.default_rng([seed, 4]).permutation(len(whole)).tolist():
        if samples >= seconds * SAMPLE_RATE:
            parts.append([])
            samples = 0
        parts[-1].append(clip)
        samples += len(whole[clip])
    waves = tuple(np.concatenate([whole[clip] for clip in part]) for part in parts)
    lengths = np.array([len(wave) for wave in waves], dtype=np.int64)
    return Audio(tuple(audio.clips[part[0]] for part in parts), lengths, waves, audio.problems)


def _decode(clip: Clip) -> NDArray[np.int16]:
    samples: Waveform = _check_not_silent(audio_files.read(clip), clip)
    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _to_float(samples: NDArray[np.int16]) -> Waveform:
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def _check_not_silent(samples: NDArray[Any], clip: Clip) -> NDArray[Any]:
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
