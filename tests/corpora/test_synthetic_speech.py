"""The parts of the generator: plan, voices, synthesiser, recording conditions."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superb_eval.corpora.synthetic import espeak, ks, shared_sentences, sid, synthesis
from superb_eval.corpora.synthetic.augment import Conditions, Wave, augment, background
from superb_eval.corpora.synthetic.espeak import Delivery, Phone, Synthesiser, drop_empty_phones
from superb_eval.corpora.synthetic.shards import split
from superb_eval.corpora.synthetic.tasks import PARTS, SIZES
from superb_eval.corpora.synthetic.voices import random_voices
from superb_eval.errors import UserError

SEEDS = st.integers(0, 2**32)
VOICES = random_voices("t", 4, np.random.default_rng(0))


@settings(max_examples=10)
@given(seed=SEEDS)
def test_plan_is_pure_and_its_clips_differ(seed: int) -> None:
    plans = ks.plan_clips("nano", seed)
    assert plans == ks.plan_clips("nano", seed)
    assert len({plan.id for plan in plans}) == len(plans)
    assert len({plan.seed for plan in plans}) == len(plans)
    assert all(0 <= plan.seed < 2**31 for plan in plans)


def test_training_contains_the_unknown_words_of_the_test() -> None:
    words = {name: {plan.text for plan in ks.plan_clips("mini", 0) if plan.split == name} for name in ("train", "test")}
    assert words["test"] <= words["train"]
    assert set(ks.UNKNOWN_WORDS) <= words["train"]


def test_another_seed_gives_other_voices() -> None:
    first, second = ks.plan_clips("nano", 0)[0], ks.plan_clips("nano", 1)[0]
    assert first.id == second.id
    assert (first.voices, first.seed) != (second.voices, second.seed)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("part", PARTS)
def test_shards_split_the_plan(part: str, size: str) -> None:
    shards, plans = split(part, size, 0), PARTS[part].plan_clips(size, 0)
    assert [plan for shard in shards for plan in shard.plans] == plans == PARTS[part].plan_clips(size, 0)
    assert len({plan.id for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)
    assert all(len({voice for plan in shard.plans for voice in plan.voices}) <= espeak.MAX_VOICES for shard in shards)


def test_no_two_parts_share_a_voice() -> None:
    voices = [
        {voice.variant() for plan in part.plan_clips("mini", 0) for voice in plan.voices} for part in PARTS.values()
    ]
    assert len(set.union(*voices)) == sum(map(len, voices))


MINI_SIZES = {  # utterances and speakers of each split
    "core": {"train": (432, 24), "dev": (108, 6), "test": (180, 10)},
    "asv": {"dev": (192, 24), "test": (192, 24)},
    "ks": {"train": (308, 28), "dev": (132, 12), "test": (264, 24)},  # and one clip of silence for each speaker
    "sd": {"train": (40, 24), "dev": (20, 10), "test": (40, 20)},
    "ic": {"train": (260, 26), "dev": (120, 12), "test": (160, 16)},
    "sf": {"train": (320, 32), "dev": (80, 8), "test": (160, 16)},
    "er": {"train": (240, 30), "dev": (80, 10), "test": (80, 10)},
}


@pytest.mark.parametrize("part", MINI_SIZES)
def test_size_mini_has_enough_speakers_to_choose_on_dev(part: str) -> None:
    plans = [plan for plan in PARTS[part].plan_clips("mini", 0) if plan.voices]
    voices = {split: {v.name for p in plans if p.split == split for v in p.voices} for split in MINI_SIZES[part]}
    counts = {split: (sum(p.split == split for p in plans), len(names)) for split, names in voices.items()}
    assert counts == MINI_SIZES[part]
    assert len(set.union(*voices.values())) == sum(map(len, voices.values()))


def test_every_speaker_of_identification_is_in_all_splits_as_often() -> None:
    assert Counter(sid.SPLIT_OF_TAKE) == {"train": 9, "dev": 4, "test": 5}
    assert len(sid.SPLIT_OF_TAKE) == shared_sentences.TAKES["mini"]
    assert Counter(sid.SPLIT_OF_TAKE[: shared_sentences.TAKES["nano"]]) == {"train": 4, "dev": 1, "test": 1}


def test_voices_alternate_and_the_variant_holds_all_parameters() -> None:
    assert [voice.name for voice in VOICES] == ["t_f000", "t_m001", "t_f002", "t_m003"]
    assert VOICES[0].pitch[0] > VOICES[1].pitch[1]
    text = VOICES[0].variant()
    assert f"pitch {VOICES[0].pitch[0]} {VOICES[0].pitch[1]}\n" in text
    assert text.count("formant ") == 9


@given(length=st.integers(1, 20_000), seed=SEEDS)
def test_a_word_is_placed_whole_inside_its_clip(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    word = synthesis.trim_edges(np.concatenate([np.zeros(50), rng.uniform(0.5, 1.0, length), np.zeros(70)]))
    clip, where = synthesis.place_randomly(word, 16_000, rng)
    assert clip.shape == (16_000,)
    np.testing.assert_array_equal(clip[where], word[: min(length, 16_000)])
    assert np.count_nonzero(clip) == min(length, 16_000)


@given(length=st.integers(1, 20_000), seed=SEEDS)
def test_padding_with_silence_leaves_the_speech_unchanged(length: int, seed: int) -> None:
    word = np.random.default_rng(seed).uniform(0.5, 1.0, length)
    clip, start = synthesis.pad_with_silence(word, np.random.default_rng(seed))
    np.testing.assert_array_equal(clip[start : start + length], word)
    assert np.count_nonzero(clip) == length
    assert 800 <= start <= 4_000
    assert 800 <= len(clip) - length - start <= 4_000


def speak(text: str, **options: int) -> espeak.Speech:
    pytest.importorskip("espeakng_loader")
    with Synthesiser(VOICES) as synthesiser:
        return synthesiser.speak(text, VOICES[0], Delivery(**options))


def test_the_energy_of_a_keyword_lies_where_it_was_placed() -> None:
    rng = np.random.default_rng(0)
    clip, where = synthesis.place_randomly(synthesis.trim_edges(speak("stop").at_16k()), ks.SAMPLES, rng)
    recorded = augment(clip, Conditions(room_probability=0, snr_db=(30, 30)), rng)
    assert np.sum(recorded[where] ** 2) > 0.95 * np.sum(recorded**2)
    assert not np.any(np.delete(clip, np.r_[where]))


def test_phones_are_in_order_and_inside_the_audio() -> None:
    speech = speak("Hello world, this is it. And another sentence!")
    assert [phone.label for phone in speech.phones[:5]] == ["h", "@", "l", "'oU", "w"]
    assert speech.phones[0].start >= 0
    assert speech.phones[-1].end == len(speech.audio)
    for phone, following in zip(speech.phones, speech.phones[1:], strict=False):
        assert phone.start < phone.end == following.start


def test_zero_length_phones_are_dropped() -> None:
    assert drop_empty_phones([Phone("a", 0, 5), Phone("b", 5, 5), Phone("c", 5, 9)]) == (
        Phone("a", 0, 5),
        Phone("c", 5, 9),
    )


def test_every_word_fits_into_a_clip_at_the_slowest_rate() -> None:
    pytest.importorskip("espeakng_loader")
    with Synthesiser(VOICES) as synthesiser:
        for word in ks.KEYWORDS + ks.UNKNOWN_WORDS:
            speech = synthesiser.speak(word, VOICES[1], Delivery(rate=round(170 * 0.85)))
            spoken = [phone for phone in speech.phones if not phone.label.startswith("_")]
            assert 0.1 < (spoken[-1].end - spoken[0].start) / espeak.SAMPLE_RATE < 0.95, word
            assert np.abs(speech.audio).max() < 32_767


def test_delivery_changes_the_audio_and_an_unknown_voice_is_refused() -> None:
    assert len(speak("seven", rate=145).audio) > len(speak("seven", rate=195).audio)
    with pytest.raises(ValueError, match="is not one of this synthesiser's"), Synthesiser(VOICES[:1]) as synthesiser:
        synthesiser.speak("seven", VOICES[1])


def test_too_many_voices_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 150"):
        Synthesiser(random_voices("t", 151, np.random.default_rng(0)))


def test_without_espeak_the_message_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'superb-eval\[synth\]'"):
        espeak.version()


@settings(max_examples=25)
@given(samples=st.integers(1, 40_000), seed=SEEDS)
def test_recordings_are_finite_and_keep_length_and_peak(samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech: Wave = rng.standard_normal(samples) * (np.arange(samples) < samples // 2)
    for wave in (augment(speech, Conditions(), rng), background(samples, Conditions(), rng)):
        assert wave.shape == (samples,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() < 10 ** (-0.99 / 20)


def test_noise_has_the_requested_ratio() -> None:
    clean = Conditions(room_probability=0, equaliser_db=0, filter_probability=0, snr_db=(10, 10), peak_db=(0, 0))
    speech = np.sin(np.arange(16_000)) * (np.arange(16_000) < 8_000)
    recorded = augment(speech, clean, np.random.default_rng(0))
    noise = recorded - speech * (recorded @ speech / (speech @ speech))
    ratio = 10 * np.log10(np.mean(recorded[:8_000] ** 2) / np.mean(noise**2))
    assert 8.5 < ratio < 12
