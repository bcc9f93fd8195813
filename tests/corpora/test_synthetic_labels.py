"""What the parts plan and render, before it is a corpus: labels, phones, mixtures, manners of speaking."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from superb_eval.corpora.synthetic import core, er, ic, lexicon, phones, sd, sf
from superb_eval.corpora.synthetic.espeak import Phone, Synthesiser
from superb_eval.corpora.synthetic.voices import random_voices

pytest.importorskip("espeakng_loader")


def test_phones_of_known_words_are_those_of_the_dictionary() -> None:
    expected = {"five": "F AY V", "matches": "M AE CH IH Z", "seven": "S EH V AH N", "yellow": "Y EH L OW"}
    with Synthesiser(random_voices("t", 1, np.random.default_rng(0))) as synthesiser:
        (voice,) = random_voices("t", 1, np.random.default_rng(0))
        assert {word: " ".join(phones.cmu(synthesiser.speak(word, voice).phones)) for word in expected} == expected


def test_an_r_is_not_said_twice() -> None:
    spoken = [Phone(label, 0, 1) for label in ("k", "l", "'A@", "r", "@", "_:")]
    assert phones.cmu(spoken) == ["K", "L", "AA", "R", "AH"]
    with pytest.raises(KeyError, match="unheard"):
        phones.cmu([Phone("unheard", 0, 1)])


def test_all_39_phones_have_a_name() -> None:
    assert len({phone for some in phones.CMU.values() for phone in some}) == 39


def test_every_word_of_the_lists_has_known_phones() -> None:
    grammars = (lexicon.EVERYDAY, lexicon.READ, lexicon.REQUESTS)
    words = sorted({value for grammar in grammars for values in grammar.lists.values() for value in values})
    voice = random_voices("t", 1, np.random.default_rng(0))[0]
    with Synthesiser([voice]) as synthesiser:
        assert all(phones.cmu(synthesiser.speak(word, voice).phones) for word in words)


def test_energy_lies_inside_the_turns_and_silence_outside() -> None:
    for row in sd.plan("nano", 3)[:4]:
        with Synthesiser(row.voices) as synthesiser:
            tracks, turns = sd.converse(row, synthesiser, np.random.default_rng(row.seed))
        outside = tracks.copy()
        for speaker, start, end in turns:
            index = [voice.name for voice in row.voices].index(speaker)
            where = slice(round(start * 16_000), round(end * 16_000))
            assert np.abs(tracks[index, where]).max() > 0.01
            assert np.abs(tracks[index, where][[0, -1]]).max() > 0  # edges are cut to the sample
            outside[index, where] = 0
        assert not outside.any()


def test_mixtures_overlap_but_not_all_the_time() -> None:
    shares = []
    for row in sd.plan("nano", 0):
        with Synthesiser(row.voices) as synthesiser:
            tracks, _ = sd.converse(row, synthesiser, np.random.default_rng(row.seed))
        frames = np.abs(tracks[:, : tracks.shape[1] // 160 * 160]).reshape(2, -1, 160).max(axis=2) > 0
        shares.append(frames.all(axis=0).sum() / frames.any(axis=0).sum())
    assert 0.05 < np.mean(shares) < 0.5


def test_intents_are_balanced_and_every_value_is_heard_in_training() -> None:
    rows = ic.plan("mini", 0)
    for column, values in (("action", lexicon.ACTIONS), ("object", lexicon.OBJECTS), ("location", lexicon.LOCATIONS)):
        for split in ("train", "dev", "test"):
            counts = Counter(row.labels[column] for row in rows if row.split == split)
            assert counts.keys() == set(values)
            assert max(counts.values()) < 2 * min(counts.values()) + 4
    assert all(row.labels["object"] in row.text for row in rows)


def test_no_constant_answer_fills_slots() -> None:
    slots = [{tag[2:] for tag in row.labels["iob_canonical"].split() if tag != "O"} for row in sf.plan("mini", 0)]
    everything = set.union(*slots)
    assert np.mean([2 * len(found) / (len(found) + len(everything)) for found in slots]) < 0.35


def test_emotions_differ_in_speed_and_liveliness() -> None:
    rng = np.random.default_rng(0)
    spoken = {emotion: [er.deliver(emotion, rng) for _ in range(50)] for emotion in er.MANNERS}
    rates = {emotion: np.mean([d.rate for d in some]) for emotion, some in spoken.items()}
    lively = {emotion: np.mean([d.range for d in some]) for emotion, some in spoken.items()}
    assert rates["sad"] < rates["neu"] < rates["hap"] < rates["ang"]
    assert lively["sad"] < lively["neu"] < lively["ang"] < lively["hap"]


def test_a_tilt_raises_high_frequencies() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000)
    raised = np.abs(np.fft.rfft(er.tilted(noise, 3.0)) / np.fft.rfft(noise))
    assert raised[4_000] / raised[2_000] == pytest.approx(10 ** (3 / 20))
    assert raised[1_000] == pytest.approx(1.0)


def test_a_sentence_of_core_keeps_its_level_and_knows_its_phones() -> None:
    row = core.plan("nano", 0)[0]
    with Synthesiser(row.voices) as synthesiser:
        first = core.render(row, synthesiser)
    assert np.abs(first.audio).max() < 10 ** (-0.9 / 20)
    assert set(first.labels["phones"].split()) <= {phone for some in phones.CMU.values() for phone in some}
    assert len(first.labels["phones"].split()) > 8
