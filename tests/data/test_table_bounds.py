"""Tables beyond all bounds are refused, with file, line and bound, before memory is spent on them."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from superb_eval.data import table_io
from superb_eval.data.audio import Clip
from superb_eval.data.importers import json_lines
from superb_eval.data.manifest import Corpus, Manifest, Utterance, read_description
from superb_eval.errors import UserError


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        table_io.read(path)
    assert len(str(error.value)) < 1_000
    return str(error.value)


def test_a_million_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n\n" + ",".join(f"c{k}" for k in range(10**6)))
    assert refusal(path) == f"{path}: line 3: has 1000000 columns; at most 10000 are read. Drop some."


def test_long_lines_and_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,2\n" + b"x" * (table_io.MAX_LINE + 1))
    assert refusal(path) == f"{path}: line 3 is longer than {table_io.MAX_LINE} bytes. Is it a table?"
    path.write_bytes(b"a,b\n1,2\n" + b"x" * (table_io.MAX_CELL + 1))
    assert refusal(path).startswith(f"{path}: line 3: not CSV (field larger than field limit")
    path = tmp_path / "t.parquet"
    pandas.DataFrame({"a": ["x", "y" * (table_io.MAX_CELL + 1)]}).to_parquet(path)
    assert f"column 'a' holds a cell of {table_io.MAX_CELL + 1} bytes" in refusal(path)


def test_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_io, "MAX_ROWS", 3)
    rows = pandas.DataFrame({"a": list("wxyz")})
    rows.to_csv(tmp_path / "t.csv")
    rows.to_parquet(tmp_path / "t.parquet")
    assert "holds more than 3 rows" in refusal(tmp_path / "t.csv")
    assert "holds 4 rows, 1 columns" in refusal(tmp_path / "t.parquet")


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
        assert "at most 2147483647 are read" in refusal(tmp_path / name)


def test_numbers_and_times_of_parquet_are_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pandas.DataFrame({"a": [1, 2], "b": [0.5, None], "c": [" x ", "y"], "d": [True, False]}).to_parquet(path)
    assert list(table_io.read(path).rows()) == [(1, ["1", "0.5", "x", "True"]), (2, ["2", "", "y", "False"])]
    assert table_io.column_names(path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("line", ['{"a": ' + "[" * n + "]" * n + "}" for n in (60, 900, 10**5)])
def test_nesting(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": [1, {"b": 2}]}\n' + line)
    with pytest.raises(UserError, match=r"line 2 is (nested deeper than 50 levels|not valid JSON)"):
        list(json_lines.read(path))


@pytest.mark.parametrize(
    "content", ['{"name": {}}', '{"name": "' + "x" * 201 + '"}', "[" * 10**5, '{"name": ' + "9" * 10**4 + "}"]
)
def test_descriptions(tmp_path: Path, content: str) -> None:
    (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(UserError, match=r"corpus.json: "):
        read_description(tmp_path)


def test_more_classes_than_a_head_has_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    from downstreams import base

    monkeypatch.setattr(base, "MAX_CLASSES", 2)
    rows = tuple(Utterance(k, Clip(Path(k)), "s", {"keyword": k}) for k in "abc")
    corpus = Corpus("c", Path(), {"train": Manifest("train", rows, Path("train.csv"))})
    with pytest.raises(UserError, match=r"train.csv: column 'keyword' holds 3 different labels, .* at most 2 outputs"):
        base.closed_set(corpus, "keyword")
