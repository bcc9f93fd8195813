"""A try with few utterances: which remain, for each task, and that the task can be trained and scored on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from superb_eval import recipe
from superb_eval.corpora.load_corpus import read_corpus
from superb_eval.data import limits
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance
from superb_eval.errors import UserError
from superb_eval.runs.config import split_folds
from tests.ten_tasks import SMALL


def corpus_of(task: str, root: Path, limit: int | None) -> Corpus:
    return read_corpus(recipe.load(recipe.find(task, "nano"), SMALL[task]), root, limit=limit)


@pytest.mark.parametrize("task", ["pr", "asr", "sf", "ks", "sid", "ic", "er", "asv", "sd", "qbe"])
def test_every_task_can_be_tried_on_few_utterances(task: str, ten_tasks: Path) -> None:
    whole, few = (corpus_of(task, ten_tasks, limit) for limit in (None, 3))
    assert few.limit == 3 and whole.limit is None
    assert few.notes[-1].startswith("a try with --limit 3: ") and not few.complete()
    for name, split in few.splits.items():
        ids = [u.id for u in whole.splits[name]]
        assert 1 <= len(split) <= 4 < len(ids)
        assert [u.id for u in split] == [name for name in ids if name in {u.id for u in split}], "in their order"
    chosen = recipe.load(recipe.find(task, "nano"), SMALL[task])
    assert split_folds(chosen, few, 320), "its labels suffice"
    assert few == corpus_of(task, ten_tasks, 3)


@pytest.mark.parametrize("task", ["asv", "qbe"])
def test_trials_of_both_kinds_are_among_the_utterances_that_remain(task: str, ten_tasks: Path) -> None:
    for name in ("dev", "test"):
        split = corpus_of(task, ten_tasks, 1).splits[name]
        ids = {u.id for u in split}
        assert {trial.target for trial in split.trials} == {True, False}
        assert all({trial.enroll, trial.test} <= ids for trial in split.trials)


def test_a_limit_that_leaves_nothing_out_is_no_try(ten_tasks: Path) -> None:
    assert corpus_of("ks", ten_tasks, 100) == corpus_of("ks", ten_tasks, None)


def test_labels_come_in_turn_and_dev_has_those_of_train() -> None:
    columns = {"train": "aaabbbcd", "dev": "dccba", "test": "aabbcc"}
    corpus = Corpus("c", Path(), {name: _labelled(name, labels) for name, labels in columns.items()})
    few = limits.by_labels(corpus, 4, lambda u: frozenset(u.labels["label"]))
    found = {name: "".join(u.labels["label"] for u in split) for name, split in few.splits.items()}
    # d is in no test row, so it comes last.
    assert found == {"train": "abcd", "dev": "dcba", "test": "aabc"}
    two = limits.by_labels(corpus, 2, lambda u: frozenset(u.labels["label"]))
    assert {u.labels["label"] for split in two.splits.values() for u in split} == {"a", "b"}


def test_a_limit_under_which_no_row_can_be_scored_is_refused() -> None:
    corpus = Corpus(
        "c", Path(), {"train": _labelled("train", "ab"), "dev": _labelled("dev", "b"), "test": _labelled("test", "a")}
    )
    with pytest.raises(UserError, match="--limit 1: no row of dev has only labels of 1 training row.* larger limit"):
        limits.by_labels(corpus, 1, lambda u: frozenset(u.labels["label"]))


def test_recordings_remain_whole() -> None:
    chunks = [Utterance(f"{name}#{k}", Clip(Path(name)), "", {"recording": name}) for name in "abc" for k in range(3)]
    split = Manifest("test", tuple(chunks), Path())
    assert [u.id for u in limits.by_recording(split, 7)] == [u.id for u in chunks[:6]]
    assert [u.id for u in limits.by_recording(split, 1)] == [u.id for u in chunks[:3]]


def test_queries_without_a_match_are_left_out_first() -> None:
    names = ["q0", "q1", "q2", *(f"d{k}" for k in range(8))]
    trials = [Trial(q, f"d{k}", (q, k) in {("q1", 2), ("q2", 5)}) for q in names[:3] for k in range(8)]
    rows = tuple(Utterance(name, Clip(Path(name)), "") for name in names)
    few = limits.by_trials(Manifest("test", rows, Path(), tuple(trials)), 6)
    assert [u.id for u in few] == ["q1", "q2", "d0", "d1", "d2", "d5"]


def test_folds_of_emotions_each_keep_some(tmp_path: Path, ten_tasks: Path) -> None:
    """Where rows are cross-validated, files only list them: each fold has its share."""
    rows = {name: list(csv.DictReader((ten_tasks / f"er/{name}.csv").open())) for name in ("train", "dev", "test")}
    (tmp_path / "er").mkdir()
    (tmp_path / "audio").symlink_to(ten_tasks / "audio")
    (tmp_path / "corpus.json").write_text(json.dumps({"name": "folds"}))
    for name, of_split in rows.items():
        with (tmp_path / f"er/{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*of_split[0], "fold"])
            writer.writeheader()
            writer.writerows({**row, "fold": str(1 + k // 4 % 3)} for k, row in enumerate(of_split))
    chosen = recipe.load(recipe.find("er", "nano"), ["corpus.allow_links=true"])
    few = read_corpus(chosen, tmp_path, limit=4)
    folds = split_folds(chosen, few, 320)
    assert [len(fold.corpus.splits["test"]) for fold in folds] == [4, 4, 4]


def _labelled(name: str, labels: str) -> Manifest:
    rows = (Utterance(f"{name}{k}", Clip(Path(f"{name}{k}")), "", {"label": label}) for k, label in enumerate(labels))
    return Manifest(name, tuple(rows), Path())
