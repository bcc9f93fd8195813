"""Plans and rendered clips of single parts: labels, phones, mixtures, prosody of emotions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from superb_eval.corpora.synthetic import er, ic, lexicon, phones, sd, sf, shared_sentences
from superb_eval.corpora.synthetic.espeak import Phone, Synthesiser
from superb_eval.corpora.synthetic.voices import random_voices

pytest.importorskip("espeakng_loader")


def test_phones_of_known_words_are_those_of_the_dictionary() -> None:
    expected = {"five": "F AY V", "matches": "M AE CH IH Z", "seven": "S EH V AH N", "yellow": "Y EH L OW"}
    with Synthesiser(random_voices("t", 1, np.random.default_rng(0))) as synthesiser:
        (voice,) = random_voices("t", 1, np.random.default_rng(0))
        assert {word: " ".join(phones.to_cmu(synthesiser.speak(word, voice).phones)) for word in expected} == expected


def test_an_r_is_not_counted_twice() -> None:
    spoken = [Phone(label, 0, 1) for label in ("k", "l", "'A@", "r", "@", "_:")]
    assert phones.to_cmu(spoken) == ["K", "L", "AA", "R", "AH"]
    with pytest.raises(KeyError, match="unlisted"):
        phones.to_cmu([Phone("unlisted", 0, 1)])


def test_all_39_phones_have_a_name() -> None:
    assert len({phone for some in phones.CMU.values() for phone in some}) == 39


def test_every_word_of_the_lists_has_known_phones() -> None:
    grammars = (lexicon.EVERYDAY, lexicon.READ, lexicon.REQUESTS)
    words = sorted({value for grammar in grammars for values in grammar.lists.values() for value in values})
    voice = random_voices("t", 1, np.random.default_rng(0))[0]
    with Synthesiser([voice]) as synthesiser:
        assert all(phones.to_cmu(synthesiser.speak(word, voice).phones) for word in words)


def test_energy_lies_inside_the_turns_and_silence_outside() -> None:
    for plan in sd.plan_clips("nano", 3)[:4]:
        with Synthesiser(plan.voices) as synthesiser:
            tracks, turns = sd.render_conversation(plan, synthesiser, np.random.default_rng(plan.seed))
        outside = tracks.copy()
        for speaker, start, end in turns:
            index = [voice.name for voice in plan.voices].index(speaker)
            where = slice(round(start * 16_000), round(end * 16_000))
            assert np.abs(tracks[index, where]).max() > 0.01
            assert np.abs(tracks[index, where][[0, -1]]).max() > 0  # edges are cut to the sample
            outside[index, where] = 0
        assert not outside.any()


def test_mixtures_overlap_but_not_all_the_time() -> None:
    shares = []
    for plan in sd.plan_clips("nano", 0):
        with Synthesiser(plan.voices) as synthesiser:
            tracks, _ = sd.render_conversation(plan, synthesiser, np.random.default_rng(plan.seed))
        frames = np.abs(tracks[:, : tracks.shape[1] // 160 * 160]).reshape(2, -1, 160).max(axis=2) > 0
        shares.append(frames.all(axis=0).sum() / frames.any(axis=0).sum())
    assert 0.05 < np.mean(shares) < 0.5


def test_intents_are_balanced_and_training_contains_every_value() -> None:
    plans = ic.plan_clips("mini", 0)
    for column, values in (("action", lexicon.ACTIONS), ("object", lexicon.OBJECTS), ("location", lexicon.LOCATIONS)):
        for split in ("train", "dev", "test"):
            counts = Counter(plan.labels[column] for plan in plans if plan.split == split)
            assert counts.keys() == set(values)
            assert max(counts.values()) < 2 * min(counts.values()) + 4
    assert all(plan.labels["object"] in plan.text for plan in plans)


def test_a_constant_prediction_of_slots_scores_low() -> None:
    slots = [
        {tag[2:] for tag in plan.labels["iob_canonical"].split() if tag != "O"} for plan in sf.plan_clips("mini", 0)
    ]
    everything = set.union(*slots)
    assert np.mean([2 * len(found) / (len(found) + len(everything)) for found in slots]) < 0.35


def test_emotions_differ_in_rate_and_pitch_range() -> None:
    rng = np.random.default_rng(0)
    deliveries = {emotion: [er.random_emotional_delivery(emotion, rng) for _ in range(50)] for emotion in er.PROSODY}
    rates = {emotion: np.mean([d.rate for d in some]) for emotion, some in deliveries.items()}
    ranges = {emotion: np.mean([d.range for d in some]) for emotion, some in deliveries.items()}
    assert rates["sad"] < rates["neu"] < rates["hap"] < rates["ang"]
    assert ranges["sad"] < ranges["neu"] < ranges["ang"] < ranges["hap"]


def test_a_tilt_raises_high_frequencies() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000)
    raised = np.abs(np.fft.rfft(er.tilt_spectrum(noise, 3.0)) / np.fft.rfft(noise))
    assert raised[4_000] / raised[2_000] == pytest.approx(10 ** (3 / 20))
    assert raised[1_000] == pytest.approx(1.0)


def test_a_sentence_of_part_core_is_not_clipped_and_has_its_phones() -> None:
    plan = shared_sentences.plan_clips("nano", 0)[0]
    with Synthesiser(plan.voices) as synthesiser:
        first = shared_sentences.render_clip(plan, synthesiser)
    assert np.abs(first.audio).max() < 10 ** (-0.9 / 20)
    assert set(first.labels["phones"].split()) <= {phone for some in phones.CMU.values() for phone in some}
    assert len(first.labels["phones"].split()) > 8
