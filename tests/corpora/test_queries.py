"""The manifest folder of QbE: queries, documents, pairs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from superb_eval.corpora import checks, load_corpus
from superb_eval.data.manifest import Corpus, Trial
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError

SETTINGS = CorpusSettings(gain_db=-3.0)


@pytest.fixture
def root(melodies: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(melodies, tmp_path / "copy"))


def read(root: Path) -> Corpus:
    return load_corpus.open_corpus("qbe", root, ("role",), SETTINGS)


def test_splits_hold_queries_documents_and_trials(melodies: Path) -> None:
    corpus = read(melodies)
    assert list(corpus.splits) == ["dev", "test"]
    for name, split in corpus.splits.items():
        roles = [u.labels["role"] for u in split]
        assert roles == ["query"] * 4 + ["document"] * 8
        assert len(split.trials) == 32 and all(t.enroll.startswith(name) for t in split.trials)
        assert {u.clip.gain_db for u in split} == {-3.0}
    first = corpus.splits["dev"].trials[0]
    assert first == Trial("dev-rising", "dev-d0", first.target)
    assert not checks.check_corpus(corpus, None).problems


def rows_of(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "qbe" / name
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return apply


def replaced(line: int, old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [text.replace(old, new) if k == line else text for k, text in enumerate(lines, start=1)]


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (rows_of("pairs.csv", replaced(3, "dev-rising", "dev-risign")), r"pairs\.csv(?s:.*)line 3: query 'dev-risign'"),
        (
            rows_of("pairs.csv", replaced(4, "dev-d2", "test-d2")),
            r"line 4: doc 'test-d2' is not one of dev in docs\.csv",
        ),
        (rows_of("pairs.csv", replaced(2, "dev,", "train,")), "line 2: split is 'train'; QbE has dev and test"),
        (rows_of("pairs.csv", lambda lines: [*lines, lines[1]]), "line 66: the pair is already that of 2"),
        (rows_of("pairs.csv", lambda lines: [*lines, "dev,dev-rising,dev-d0,yes"]), "line 66: label is 'yes'"),
        (rows_of("pairs.csv", replaced(1, "query", "term")), r"missing column\(s\) query \(found: split, term"),
        (
            rows_of("pairs.csv", lambda lines: [x[:-1] + "0" if x.startswith("test") else x for x in lines]),
            "no pair of test has label 1",
        ),
        (rows_of("queries.csv", replaced(2, "dev,", "train,")), r"queries\.csv(?s:.*)line 2: split is 'train'"),
        (
            rows_of("queries.csv", replaced(2, "dev-rising,", "dev rising,")),
            "line 2: id 'dev rising' has a space",
        ),
        (rows_of("docs.csv", replaced(2, "dev-d0.flac", "gone.flac")), r"docs\.csv(?s:.*)line 2: no such file"),
        (
            rows_of("docs.csv", replaced(2, "dev,dev-d0", "dev,dev-peak")),
            "dev has queries and documents with the same id: dev-p",
        ),
        (
            lambda root: (root / "qbe" / "pairs.csv").unlink(),
            r"has no pairs\.csv \(or \.parquet\)\. QbE reads qbe/quer",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(root: Path, mistake: Callable[[Path], None], sentence: str) -> None:
    mistake(root)
    with pytest.raises(UserError, match=sentence):
        read(root)


def test_a_split_without_queries_is_refused(root: Path) -> None:
    for name in ("queries.csv", "pairs.csv"):
        rows_of(name, lambda lines: [text for text in lines if not text.startswith("test")])(root)
    with pytest.raises(UserError, match=r"queries\.csv: no row has split 'test'\. QbE needs dev and test"):
        read(root)
