"""Dividing utterances: speakers stay together, classes reach every split, shares are met, the seed decides."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.building.new_trials import make_trials
from superb_eval.corpora.building.splitting import divide, divide_each_speaker, units_of
from superb_eval.data.importers.source import SourceRow
from superb_eval.errors import UserError

SHARES = {"train": 80.0, "dev": 10.0, "test": 10.0}


def row(
    number: int, speaker: str = "", label: str = "", file: str = "", cut: tuple[float, float | None] = (0, None)
) -> NewRow:
    source = SourceRow(f"u{number}", Path(file or f"{number}.wav"), f"line {number}", *cut)
    return NewRow(source.id, source, "", (speaker,) if speaker else (), classes=(label,) if label else ())


def many(count: int, speakers: int, classes: int) -> list[NewRow]:
    """Rows of speakers and classes of very different sizes."""
    rng = random.Random(0)
    return [
        row(i, f"s{int(speakers * rng.random() ** 3)}", f"c{int(classes * rng.random() ** 2)}") for i in range(count)
    ]


def speakers_of(rows: list[NewRow]) -> set[str]:
    return {r.speaker for r in rows}


@pytest.mark.parametrize("seed", range(3))
def test_whole_speakers_are_divided_by_the_shares_with_every_class_in_every_split(seed: int) -> None:
    rows = many(1000, 30, 10)
    splits = divide(units_of(rows, by_speaker=True), SHARES, seed)
    assert sorted(r.id for s in splits.values() for r in s) == sorted(r.id for r in rows)
    assert speakers_of(splits["train"]).isdisjoint(speakers_of(splits["dev"]) | speakers_of(splits["test"]))
    assert speakers_of(splits["dev"]).isdisjoint(speakers_of(splits["test"]))
    for name, share in SHARES.items():
        assert len({c for r in splits[name] for c in r.classes}) == 10
        assert abs(len(splits[name]) - 10 * share) <= 10, name


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    rows = many(300, 30, 4)
    first = divide(units_of(rows, by_speaker=True), SHARES, 0)
    again = divide(units_of(rows[::-1], by_speaker=True), SHARES, 0)
    other = divide(units_of(rows, by_speaker=True), SHARES, 1)
    assert {name: speakers_of(s) for name, s in first.items()} == {name: speakers_of(s) for name, s in again.items()}
    assert speakers_of(first["test"]) != speakers_of(other["test"])


def test_a_division_is_the_same_on_every_platform_and_version() -> None:
    splits = divide(units_of(many(60, 8, 2), by_speaker=True), SHARES, 0)
    assert {name: sorted(speakers_of(rows)) for name, rows in splits.items()} == {
        "train": ["s0", "s1", "s4", "s5", "s6"],
        "dev": ["s2"],
        "test": ["s3", "s7"],
    }


def test_a_speaker_larger_than_dev_and_test_goes_to_train() -> None:
    rows = [row(i, "large" if i < 700 else f"s{i % 30}", "c") for i in range(1000)]
    splits = divide(units_of(rows, by_speaker=True), SHARES, 0)
    assert "large" in speakers_of(splits["train"])
    assert {name: len(s) for name, s in splits.items()} == {"train": 800, "dev": 100, "test": 100}


def test_a_class_of_one_speaker_is_in_train_and_one_of_three_in_every_split() -> None:
    rows = [row(i, f"s{i % 20}", "common") for i in range(400)]
    rows += [row(1000, "s3", "single"), *(row(1001 + k, f"s{k}", "rare") for k in (5, 6, 7))]
    for seed in range(5):
        splits = divide(units_of(rows, by_speaker=True), SHARES, seed)
        classes = {name: {c for r in s for c in r.classes} for name, s in splits.items()}
        assert classes == {"train": {"common", "single", "rare"}, "dev": {"common", "rare"}, "test": {"common", "rare"}}


def test_utterances_without_speakers_are_divided_one_by_one() -> None:
    rows = [row(i, "", f"c{i % 7}") for i in range(700)]
    splits = divide(units_of(rows, by_speaker=True), SHARES, 0)
    assert {name: len(s) for name, s in splits.items()} == {"train": 560, "dev": 70, "test": 70}
    assert Counter(c for r in splits["test"] for c in r.classes) == dict.fromkeys((f"c{k}" for k in range(7)), 10)


def test_clips_that_overlap_in_a_file_stay_together() -> None:
    cuts = [(0.0, 5.0), (1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (6.0, None)]
    rows = [row(i, file="meeting.wav", cut=cut) for i, cut in enumerate(cuts)]
    units = {frozenset(r.id for r in unit.rows) for unit in units_of(rows, by_speaker=False)}
    assert units == {frozenset({"u0", "u1", "u2"}), frozenset({"u3"}), frozenset({"u4"})}
    # Two speakers who talk at once can't be in two splits either.
    talk = [row(0, "a", file="m.wav", cut=(0, 2)), row(1, "b", file="m.wav", cut=(1, 3)), row(2, "b"), row(3, "c")]
    assert len(units_of(talk, by_speaker=True)) == 2


def test_each_speaker_of_sid_is_in_every_split_and_those_with_too_little_are_named() -> None:
    rows = [row(i, f"s{i % 4}") for i in range(80)] + [row(100 + i, "three") for i in range(3)]
    rows += [row(200, "two"), row(201, "two"), row(210, "copies", file="a.wav"), row(211, "copies", file="a.wav")]
    rows += [row(212, "copies")]
    splits, few = divide_each_speaker(rows, SHARES, 0)
    assert few == {"copies", "two"}
    for rows_of_split, count in zip(splits.values(), (16, 2, 2), strict=True):
        expected = {f"s{k}": count for k in range(4)} | {"three": 1}
        assert Counter(r.speaker for r in rows_of_split) == expected


def test_trials_are_pairs_once_half_of_one_speaker_spread_over_speakers() -> None:
    rows = [row(i, f"s{i % 8}") for i in range(80)]
    trials = make_trials(rows, 200, 0, "test")
    speaker = {r.id: r.speaker for r in rows}
    assert len(trials) == 200 and sum(t.target for t in trials) == 100
    assert len({frozenset((t.enroll, t.test)) for t in trials}) == 200
    assert all(t.enroll != t.test and (speaker[t.enroll] == speaker[t.test]) == t.target for t in trials)
    assert set(Counter(speaker[t.enroll] for t in trials if t.target).values()) <= {12, 13}
    assert trials == make_trials(rows, 200, 0, "test") != make_trials(rows, 200, 1, "test")


def test_trials_are_all_pairs_where_there_are_fewer_and_need_both_kinds() -> None:
    rows = [row(0, "a"), row(1, "a"), row(2, "b")]
    assert {(t.enroll, t.test, t.target) for t in make_trials(rows, 1000, 0, "dev")} == {
        ("u0", "u1", True),
        ("u0", "u2", False),
        ("u1", "u2", False),
    }
    with pytest.raises(UserError, match=r"dev has 2 utterances of 2 speaker\(s\): trials need two speakers, and two"):
        make_trials(rows[1:], 1000, 0, "dev")
    with pytest.raises(UserError, match="trials need two speakers"):
        make_trials(rows[:2], 1000, 0, "dev")
