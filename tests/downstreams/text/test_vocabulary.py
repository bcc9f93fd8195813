"""Vocabularies against s3prl's own encoders."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.text.vocabulary import ARPABET, CHARACTERS, LETTER_SPECIALS, LETTERS, SPECIALS, Letters, Pieces, Tokens
from superb_eval.errors import UserError

TEXTS = ["the cat sat on the mat", "a dog ate the cat's hat", "the dog and the cat"] * 4


def test_the_protocols_numbers_of_outputs() -> None:
    assert len(set(ARPABET)) == 71 and len(SPECIALS) + len(ARPABET) == 74
    assert len(set(LETTERS)) == 28 and len(LETTER_SPECIALS) + len(LETTERS) == 32
    assert len(set(CHARACTERS)) == 28


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["AA0", "Z", "HH", "SPN", "nonsense"]), min_size=1))
def test_phones_are_s3prls(phones: list[str]) -> None:
    from s3prl.downstream.ctc.text import WordTextEncoder

    theirs, ours = WordTextEncoder(list(ARPABET)), Tokens([*SPECIALS, *ARPABET])
    ids = ours.encode(" ".join(phones))
    assert ids == theirs.encode(" ".join(phones))
    assert ours.decode(ids) == theirs.decode(ids)


@settings(max_examples=200)
@given(st.lists(st.text("abZ'", min_size=1), min_size=1), st.lists(st.integers(0, 31)))
def test_letters_are_s3prls(words: list[str], path: list[int]) -> None:
    from s3prl.downstream.asr.dictionary import Dictionary

    theirs, ours = Dictionary(), Letters(Letters.learn(["".join(LETTERS).replace("|", " ")]))
    for letter in LETTERS:
        theirs.add_symbol(letter)
    assert ours.tokens == theirs.symbols
    spelled = " ".join("|".join(words).upper()) + " |"
    assert ours.encode(" ".join(words)) == theirs.encode_line(spelled, line_tokenizer=str.split).tolist()
    assert ours.decode(path) == " ".join(theirs.string(path).replace(" ", "").replace("|", " ").split())


def test_the_protocols_example_of_asr() -> None:
    letters = Letters(Letters.learn(["ab c"]))
    assert [letters.tokens[i] for i in letters.encode("AB C")] == ["A", "B", "|", "C", "|", "</s>"]
    assert letters.tokens[letters.blank] == "<s>"


def test_letters_beyond_the_protocols_are_learnt_and_others_are_unknown() -> None:
    tokens = Letters.learn(["öl öl", "a"])
    assert tokens == [*LETTER_SPECIALS, "|", "L", "Ö", "A"]
    letters = Letters(tokens)
    assert letters.encode("az")[1] == LETTER_SPECIALS.index("<unk>")
    assert letters.decode(letters.encode("öl a")) == "ÖL A"


def test_subwords_survive_json_and_are_always_the_same() -> None:
    model = Pieces.learn(TEXTS, 30)
    assert model == Pieces.learn(TEXTS, 30)
    pieces = Pieces(json.loads(json.dumps(model)))
    assert len(pieces) == 30
    ids = pieces.encode("the cat's  hat")
    assert ids[-1] == 1 and 0 not in ids
    assert pieces.decode([0, *ids]) == "THE CAT'S HAT"


@pytest.mark.parametrize("size", [5, 5000])
def test_a_subword_vocabulary_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=rf"head.vocabulary.sentencepiece: {size} doesn't suit the training text"):
        Pieces.learn(TEXTS, size)
