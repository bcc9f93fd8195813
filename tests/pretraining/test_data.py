from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.pretraining import data
from superb_eval.pretraining.batches import ALIGN, Batches
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.runtime.progress import NoProgress


def settings(**changes: object) -> DataSettings:
    base = {"sources": [{"folder": "s"}], "min_seconds": 0.3, "crop_seconds": 1.0, "batch_seconds": 4.0}
    return DataSettings.model_validate({**base, **changes})


def loaded(folder: Path, **changes: object) -> Audio:
    return data.load_audio(settings(**changes), {"s": folder}, 0, NoProgress())


def unread(lengths: list[int]) -> Audio:
    """Audio whose files don't exist."""
    return Audio(tuple(Clip(Path(f"{i}.wav")) for i in range(len(lengths))), np.array(lengths, dtype=np.int64))


@given(
    lengths=st.lists(st.integers(5_000, 60_000), min_size=1, max_size=40),
    seed=st.integers(0, 9),
    max_clips=st.sampled_from([None, 1, 3]),
)
def test_an_epoch_uses_each_clip_once_within_the_bounds(lengths: list[int], seed: int, max_clips: int | None) -> None:
    batches = Batches(unread(lengths), settings(batch_clips=max_clips), seed)
    counts: Counter[int] = Counter()
    number = 0
    while sum(counts.values()) < len(lengths):
        crops = batches.crops(number)
        if set(counts) & {crop.clip for crop in crops}:
            break  # the next epoch: the remainder of this one was too small
        counts.update(crop.clip for crop in crops)
        assert len(crops) * max(crop.samples for crop in crops) <= 4 * 16_000
        assert max_clips is None or len(crops) <= max_clips
        for crop in crops:
            assert crop.samples == min(lengths[crop.clip], 16_000)
            assert crop.start % ALIGN == 0 and 0 <= crop.start <= lengths[crop.clip] - crop.samples
        number += 1
    assert set(counts.values()) == {1}
    assert len(counts) >= len(lengths) * 2 / 3


def test_a_batch_depends_on_seed_and_number_alone(speech: Path) -> None:
    loaded_audio = loaded(speech)
    first, second = Batches(loaded_audio, settings(), 7), Batches(loaded_audio, settings(), 7)
    forwards = [first.crops(k) for k in range(60)]
    assert [second.crops(k) for k in reversed(range(60))] == forwards[::-1]
    assert [Batches(loaded_audio, settings(), 8).crops(k) for k in range(60)] != forwards
    assert len({crop.start for crops in forwards for crop in crops if crop.clip == forwards[0][0].clip}) > 1


def test_processes_share_a_batch(speech: Path) -> None:
    batches = Batches(loaded(speech), settings(), 0)
    complete = batches.load(3, step=4)
    parts = [batches.load(3, step=4, rank=rank, world=2) for rank in range(2)]
    for field in ("clips", "offsets", "seeds"):
        union = [value for part in parts for value in getattr(part, field)]
        assert sorted(union) == sorted(getattr(complete, field))
    assert sum(sum(part.lengths) for part in parts) == sum(complete.lengths)
    assert len(set(complete.seeds)) == len(complete.seeds)
    with pytest.raises(UserError, match="can't be shared by 99 processes. Raise data.batch_seconds"):
        batches.load(3, step=4, rank=98, world=99)


def test_cached_audio_equals_the_files(speech: Path) -> None:
    cached, read = loaded(speech), loaded(speech, memory_gb=0)
    assert cached.cached is not None and read.cached is None
    assert cached.samples.tolist() == read.samples.tolist()
    for number in range(3):
        one, other = (
            Batches(source, settings(), 0).load(number, 1).to(torch.device("cpu")) for source in (cached, read)
        )
        torch.testing.assert_close(one.wavs, other.wavs, rtol=0, atol=1e-7)
        crop = Batches(read, settings(), 0).crops(number)[0]
        clip = audio.read(read.clips[crop.clip])
        np.testing.assert_allclose(one.wavs[0, : crop.samples], clip[crop.start :][: crop.samples], atol=1e-7)


@pytest.fixture
def flawed(tmp_path: Path, speech: Path) -> Path:
    """Six good clips, a silent one, one that is no audio, one that is too short."""
    folder = tmp_path / "flawed"
    folder.mkdir()
    for path in sorted(speech.iterdir())[:6]:
        (folder / path.name).write_bytes(path.read_bytes())
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "short.wav", np.ones(100) / 3, 16_000)
    return folder


def test_files_that_cannot_be_used_are_counted_and_named(flawed: Path, recorded: Any) -> None:
    usable = data.load_audio(settings(), {"s": flawed}, 0, recorded)
    assert len(usable.clips) == 6
    (message,) = [line for line in recorded.lines if "files are left out" in line]
    assert message.startswith("3 files are left out")
    for words in ("silent.wav: is silent", "text.wav: not readable as audio", "short.wav: 100 samples"):
        assert words in message


def test_files_that_fail_only_when_they_are_read_are_left_out_of_the_batch(flawed: Path) -> None:
    flawed_audio = loaded(flawed, memory_gb=0)
    assert len(flawed_audio.clips) == 7  # headers don't show silence
    batches = Batches(flawed_audio, settings(batch_seconds=60.0), 0)
    assert len(batches.crops(0)) == 7 and len(batches.load(0, 1).clips) == 6
    assert len(flawed_audio.problems) == 3 and "silent.wav: is silent" in flawed_audio.problems[-1]
    batches.load(1, 2)
    assert len(flawed_audio.problems) == 3
    assert "silent" in str(flawed_audio.clips[-1].path)
    silent = Audio(flawed_audio.clips[-1:], flawed_audio.samples[-1:])
    with pytest.raises(UserError, match=r"step 1: no file of the batch can be used: .*silent"):
        Batches(silent, settings(), 0).load(0, 1)


def test_nothing_left_and_impossible_bounds_are_explained(speech: Path) -> None:
    with pytest.raises(UserError, match="no audio is left to train on"):
        loaded(speech, min_seconds=100)
    with pytest.raises(UserError, match=r"crop_seconds=9.0 is more than data.batch_seconds=4.0"):
        Batches(loaded(speech), settings(crop_seconds=9.0), 0)


def in_memory(lengths: list[int]) -> Audio:
    """Audio of which every sample names its clip."""
    waves = tuple(np.full(length, number, np.int16) for number, length in enumerate(lengths))
    return Audio(unread(lengths).clips, np.array(lengths, dtype=np.int64), waves)


def test_joined_clips_hold_each_clip_once_in_whole_frames() -> None:
    lengths = [8_000 + 1_111 * k for k in range(20)]
    joined = data.join_clips(in_memory(lengths), 3.0, seed=1)
    assert joined.cached is not None and len(joined.cached) == len(joined.clips) == len(joined.samples)
    assert all(seconds >= 3.0 for seconds in joined.samples[:-1] / 16_000)
    numbers, counts = np.unique(np.concatenate(joined.cached), return_counts=True)
    assert dict(zip(numbers, counts, strict=True)) == {k: length // ALIGN * ALIGN for k, length in enumerate(lengths)}
    assert [clip.path.stem for clip in joined.clips] == [str(wave[0]) for wave in joined.cached]
    again, other = (data.join_clips(in_memory(lengths), 3.0, seed) for seed in (1, 2))
    assert again.clips == joined.clips and other.clips != joined.clips


def test_clips_are_joined_in_memory_alone() -> None:
    with pytest.raises(UserError, match=r"data.join_seconds=3.0 joins clips in memory. Raise data.memory_gb"):
        data.join_clips(unread([9_000] * 3), 3.0, seed=0)
