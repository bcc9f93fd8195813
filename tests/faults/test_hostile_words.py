"""Short forms of the campaigns of recipes and of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns import names, recipes
from tests.campaigns.commands import type_command

QUICK = (
    "recipe copy",
    "recipe rates",
    "recipe show",
    "corpus check",
    "corpus new",
    "corpus synth",
    "upstream show",
    "table",
)
"""Commands that end in a few hundredths of a second."""


def test_hostile_recipes_are_read_or_refused_with_a_sentence() -> None:
    counts, examples = recipes.run(150)
    assert not examples, examples
    assert counts["refused"] > 75 and counts["accepted"] > 0


def test_hostile_names_end_in_a_result_or_a_sentence_and_change_nothing() -> None:
    counts, faults = names.run(40, only=QUICK)
    assert not faults, faults
    assert counts["refused"] > 20


def test_every_command_has_words_that_the_campaign_can_start_from() -> None:
    assert {name for name, command in names.commands() if command.params} == set(names.BASE)


@pytest.mark.parametrize(
    "words",
    [
        ["cost", "fbank", "--seconds", "nan"],
        ["cost", "fbank", "--seconds", "1e308"],
        ["cost", "fbank", "--rounds", "9" * 30],
        ["report", "results", "--audio-mb", "nan"],
        ["corpus", "new", "asv", "words", "--out", "out", "--trials", "9" * 30],
        ["recipe", "copy", "ks", "--out", ""],
    ],
)
def test_numbers_and_names_that_no_command_takes_are_refused(words: list[str]) -> None:
    called = type_command(*words)
    assert called.refused and len(called.err) < 400, called.err


def test_a_head_that_would_fill_the_memory_is_refused_before_it_is_built(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERB_EVAL_MAX_GB", "0.01")
    words = ["--data", tones, "--out", tmp_path / "r", "--store", tmp_path / "s", "-o", "head.projector_dim=65536"]
    called = type_command("run", "ks", "-u", "fbank_nonorm", *words)
    assert called.refused and "head of ks: its network takes 0.1 GB or more" in called.err, called.err
