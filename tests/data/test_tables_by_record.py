"""Generated tables, read by column, equal what the standard library reads record by record."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path
from random import Random

import pytest

from superb_eval.data import read_manifest, table_io
from superb_eval.data.audio import Clip
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.manifest import MAX_LISTED, Utterance, bad_rows_message
from superb_eval.data.read_manifest import clip_bounds
from superb_eval.errors import UserError

TABLES = 200
PIECES = (*"ab \t\0\r", *',,,\n\n"', "\r\n", '""', '"c,\nd"', '"e\r\nf",', '"g\r",')
RARE = ("\ufeff", "é", "\x1c", "\u2028", "\xa0", "\x0b", '"open')
ROWS = (
    "x1,a.wav,ann,yes,,",
    "x2,a.wav,ann,yes,0,1",
    'x3,a.wav,"ann, or\nben",no,0.5,',
    " x1 ,a.wav,ann,yes,,",
    ",a.wav,,yes,,",
    "x4,none.wav,ann,,1,0.5",
    "x4,../a.wav,ann,yes,soon,",
    "x5,a.wav,ann",
    "x1,a.wav,ann,yes,,,more",
    "",
    "x6,,ann,yes,nan,1_0",
    "x7,a.wav,ann,yes,-1,inf",
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows cross the ends of batches."""
    monkeypatch.setattr(table_io, "BATCH", 3)


def by_record(path: Path) -> list[tuple[int, list[str]]] | str:
    """Read a table record by record, with the standard library; return what is wrong where it is no CSV."""
    reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if cells:
                records.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        return f"line {line}: not CSV ({error})"
    return records


def test_cells_and_lines_are_those_of_the_standard_reader(tmp_path: Path) -> None:
    rng, path, read, refused = Random(0), tmp_path / "t.csv", 0, 0
    for _ in range(TABLES):
        pieces = rng.choices(PIECES, k=rng.randrange(60)) + rng.choices(RARE, k=rng.choice((0, 0, 1)))
        path.write_text("".join(rng.sample(pieces, len(pieces))), encoding="utf8", newline="")
        expected = by_record(path)
        if not expected or isinstance(expected, str):
            refused += 1
            with pytest.raises(UserError, match=re.escape(expected) if expected else "is empty"):
                table_io.read(path)
            continue
        read += 1
        table = table_io.read(path)
        assert [(1, table.columns), *table.rows()] == [(1, expected[0][1]), *expected[1:]], path.read_bytes()
    read_at_least = TABLES / (5 if sys.version_info >= (3, 11) else 10)  # the reader of Python 3.10 refuses NUL too
    assert read > read_at_least and refused > TABLES / 5


def utterances_by_row(path: Path, root: Path) -> list[Utterance] | str:
    """Read a manifest row by row; return what is wrong where there is something."""
    found = by_record(path)
    assert not isinstance(found, str)
    (_, columns), *records = found
    paths, seen = AudioPaths(root), dict[str, int]()
    utterances, bad = [], []
    for line, row in records:
        cells = dict(zip(columns, row, strict=False))
        problems = [f"has {len(row)} cells where there are 6 columns (quote cells that hold commas)"]
        if len(row) == len(columns):
            problems = [f"empty {name}" for name in ("id", "path", "speaker", "keyword") if not cells[name]]
            problems += [f"id '{row[0]}' is already that of {seen[row[0]]}"] if row[0] and row[0] in seen else []
            problems += paths.problems(cells["path"]) if cells["path"] else []
            problems += read_manifest._time_problems(cells)
        seen.setdefault(row[0], line)
        bad += [f"line {line}: {'; '.join(problems)}"] if problems else []
        if not problems:
            clip = Clip(root / cells["path"], *clip_bounds(cells))
            utterances.append(Utterance(row[0], clip, cells["speaker"], {"keyword": cells["keyword"]}, line))
    return bad_rows_message(path, bad) if bad else utterances


def test_utterances_and_bad_rows_are_those_of_a_reader_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    path, rng, accepted = tmp_path / "train.csv", Random(0), 0
    for number in range(TABLES):
        rows = rng.choices(ROWS if number % 2 else ROWS[:3], k=rng.randrange(1, 3 if number % 3 else 2 * MAX_LISTED))
        path.write_text("\n".join(["id,path,speaker,keyword,start,end", *rows]), encoding="utf8")
        expected = utterances_by_row(path, tmp_path)
        if not expected or isinstance(expected, str):
            with pytest.raises(UserError, match=re.escape(expected) if expected else "no rows"):
                read_manifest.read_split(tmp_path, "train", ("keyword",), tmp_path)
            continue
        split = read_manifest.read_split(tmp_path, "train", ("keyword",), tmp_path)
        accepted += 1
        assert list(split) == [split.utterances[k] for k in range(-len(split), 0)] == expected
        assert split.utterances == expected and split.utterances[1:] == tuple(expected[1:])
        assert split.labels("keyword") == [u.labels["keyword"] for u in expected]
    assert TABLES / 5 < accepted < TABLES / 1.5
