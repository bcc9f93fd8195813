from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results import table
from superb_eval.results.record import RunRecord


def vary(record: RunRecord, **changes: Any) -> RunRecord:
    """A record with changes such as `upstream__address="x"` or `metrics__value=3.0`."""
    content = record.model_dump()
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if part == "metrics":
            content["metrics"][0][key] = value
        elif key:
            content[part][key] = value
        else:
            content[part] = value
    return RunRecord.model_validate(content)


def keep(folder: Path, *runs: RunRecord) -> Path:
    for k, run in enumerate(runs):
        place = folder / f"u{k}" / run.task / "run"
        place.mkdir(parents=True)
        records.write(run, place)
    return folder


def shown(folder: Path) -> str:
    boards, _ = table.collect(folder)
    console = Console(width=200, record=True, file=io.StringIO())
    for board in boards:
        console.print(table.as_rich(board))
        console.print(board.caption())
    return console.export_text()


def test_upstreams_go_down_and_tasks_across_with_gaps(a_record: RunRecord, tmp_path: Path) -> None:
    pr = vary(a_record, task="pr", metrics__heading="PER", metrics__higher_is_better=False, metrics__value=7.0)
    keep(tmp_path, a_record, vary(a_record, upstream__address="hubert", metrics__value=90.0), pr)
    (board,), problems = table.collect(tmp_path)
    assert problems == []
    assert table.as_markdown(board).splitlines()[2:6] == [
        "| upstream | params M | PR PER % ↓ | KS ACC % ↑ |",
        "| --- | ---: | ---: | ---: |",
        "| fbank | 0.00 | 7.00 [38.80, 49.18] | 43.99 [38.80, 49.18] |",
        "| hubert | 0.00 |  | 90.00 [38.80, 49.18] |",
    ]
    assert "43.99 [38.80, 49.18]" in shown(tmp_path)


def test_what_is_not_superb_is_never_called_so(a_record: RunRecord, tmp_path: Path) -> None:
    synthetic = vary(a_record, corpus__name="synthetic-mini", corpus__synthetic=True)
    official = vary(a_record, corpus__name="Speech Commands v0.01", profile="superb")
    lying = vary(a_record, corpus__name="fake", corpus__synthetic=True, profile="superb")
    keep(tmp_path, a_record, synthetic, official, lying)
    boards, _ = table.collect(tmp_path)
    titles = {board.corpus: board.title() for board in boards}
    assert len(boards) == 4, "runs of different corpora or profiles never share a table"
    assert "synthetic speech" in titles["synthetic-mini"] and "not SUPERB" in titles["synthetic-mini"]
    assert "official SUPERB protocol" in titles["Speech Commands v0.01"]
    assert "not SUPERB" in titles["fake"] and "not SUPERB" in titles["pack"]


def test_cells_that_differ_from_their_column_are_marked(a_record: RunRecord, tmp_path: Path) -> None:
    peers = [vary(a_record, upstream__address=f"peer{k}") for k in range(3)]
    other_data = vary(a_record, upstream__address="data", corpus__digest="other")
    other_recipe = vary(a_record, upstream__address="recipe", recipe_digest="other")
    later = vary(a_record, upstream__address="peer0", started="2026-02-01T00:00:00+00:00", metrics__value=50.0)
    keep(tmp_path, *peers, other_data, other_recipe, later)
    (board,), _ = table.collect(tmp_path)
    marks = {upstream: board.marks(upstream, "ks") for upstream in board.upstreams()}
    assert marks == {"peer0": "*", "peer1": "", "peer2": "", "data": "†", "recipe": "‡"}
    assert "50.00" in table.as_markdown(board), "the latest run is shown"
    assert all(mark in board.caption() for mark in "*†‡")


def test_what_cannot_be_read_is_listed_and_the_rest_shown(a_record: RunRecord, tmp_path: Path) -> None:
    keep(tmp_path, a_record)
    (tmp_path / "x" / "ks" / "run").mkdir(parents=True)
    (tmp_path / "x" / "ks" / "run" / "result.json").write_text('{"half": ')
    boards, problems = table.collect(tmp_path)
    assert len(boards) == 1 and len(problems) == 1 and "result.json" in problems[0]


def test_nothing_to_show_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        table.collect(tmp_path)
    with pytest.raises(UserError, match="no such results folder"):
        table.collect(tmp_path / "absent")


def test_hostile_names_do_no_harm(a_record: RunRecord, tmp_path: Path) -> None:
    keep(tmp_path, vary(a_record, upstream__address="[red]a|b[/red]", corpus__name="[link=x]c"))
    (board,), _ = table.collect(tmp_path)
    assert "[red]a|b[/red]" in shown(tmp_path)
    assert "[red]a\\|b[/red]" in table.as_markdown(board)


def test_historical_figures_stand_in_only_where_they_are_asked_for(a_record: RunRecord, tmp_path: Path) -> None:
    content = a_record.model_dump()
    content["metrics"].append({**content["metrics"][0], "protocol": "historical", "value": 60.0})
    keep(tmp_path, RunRecord.model_validate(content), vary(a_record, upstream__address="other"))
    strict, historical = (table.collect(tmp_path, protocol)[0][0] for protocol in ("strict", "historical"))  # type: ignore[arg-type]
    assert "60.00" not in table.as_markdown(strict) and "strict figures" in strict.title()
    assert "60.00" in table.as_markdown(historical) and "historical figures" in historical.title()
    assert "43.99" in table.as_markdown(historical), "a task without a historical figure shows its strict one"
