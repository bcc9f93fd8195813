"""The formats of a table: they agree figure for figure, and escape every name from outside."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.results.formats import documents, escape, tabular
from superb_eval.results.table import build
from superb_eval.results.table.build import TableOptions
from superb_eval.results.table.result_table import ResultTable
from superb_eval.runtime.progress import NoProgress
from tests.results.pages import Page
from tests.results.runs import answers, new_record, ten_tasks, vary, write_run

NUMBER = r"[-+]?\d+\.\d+"

HOSTILE = (
    "<script>alert(1)</script>",
    "../../x",
    r"\input{/etc/passwd}$%&#_{~^",
    "x" * 300,
    "\u202egnp.exe",
    "\u05e9\u05dc\u05d5\u05dd",
    "\x1b[31mred",
    "[red]a|b[/red](javascript:x)",
    "=HYPERLINK(1)",
    "`whoami` ![x](y)\n| new | row |",
)


QUICKSTART = {"fbank_nonorm": 0.5, "hubert_mini@random": 0.6, "hubert_mini": 0.1, "distilhubert_mini": 0.25}
"""The upstreams of the quickstart, and how often they are wrong here."""

AGAINST = TableOptions(against="hubert_mini")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    for seed, (name, errs) in enumerate(QUICKSTART.items()):
        ten_tasks(folder, name, errs, seed)
    return folder


@pytest.fixture(scope="module")
def table(quickstart: Path) -> ResultTable:
    (found,), problems = build.collect(quickstart, AGAINST)
    assert not problems
    return found


def printed(table: ResultTable) -> list[list[str]]:
    """Every number of every cell, as all formats must print them."""
    cells = []
    for row in table.rows:
        for column in table.columns:
            cell = row.cells.get(column.key)
            if cell is not None:
                cells.append(re.findall(NUMBER, " ".join(cell.texts(column))))
    return cells


def from_markdown(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [re.findall(NUMBER, cell) for row in rows for cell in row.strip("| ").split(" | ")[1:] if cell.strip()]


def from_latex(text: str) -> list[list[str]]:
    """Its columns are cut into several tables: a row's cells are spread over them in order."""
    lines: dict[int, list[list[str]]] = {}
    for part in text.split(r"\begin{table}")[1:]:
        rows = part.split(r"\hline")[2].split(r" \\\noalign{\vskip3pt}")
        for place, row in enumerate(row for row in rows if row.strip()):
            cells = [re.findall(NUMBER, cell) for cell in row.split(" & ")[1:] if cell.strip()]
            lines.setdefault(place, []).extend(cells)
    return [cell for cells in lines.values() for cell in cells]


def from_html(text: str) -> list[list[str]]:
    _, *rows = Page(text).cells
    return [re.findall(NUMBER, " ".join(cell)) for row in rows for cell in row[1:] if cell != ["·"]]


def from_terminal(table: ResultTable) -> list[str]:
    console = Console(width=150, record=True, file=io.StringIO())
    for part in documents.rich_tables(table, 150):
        console.print(part)
    return re.findall(NUMBER, console.export_text())


def from_records(rows: list[dict[str, object]], table: ResultTable) -> list[list[str]]:
    decimals = {column.key: column.decimals for column in table.columns}
    cells = []
    for row in rows:
        places = decimals[str(row["task"]), str(row["metric"])]
        keys = ("value", "low", "high", "spread", "difference", "difference_low", "difference_high")
        found = [(key, float(str(row[key]))) for key in keys if row[key] not in (None, "")]
        cells.append([f"{v:+.{places}f}" if key == "difference" else f"{v:.{places}f}" for key, v in found])
    return cells


def test_all_formats_agree_figure_for_figure(table: ResultTable, quickstart: Path) -> None:
    expected = printed(table)
    assert len(expected) == 4 * 15 and sum(map(len, expected)) > 250
    assert from_html(page.html(quickstart, ReportOptions(AGAINST, audio_mb=0), NoProgress())) == expected
    assert from_markdown(documents.markdown(table)) == expected
    assert from_latex(documents.latex(table)) == expected
    assert sorted(from_terminal(table)) == sorted(number for cell in expected for number in cell)
    assert from_records(list(csv.DictReader(io.StringIO(tabular.as_csv([table])))), table) == expected  # type: ignore[arg-type]
    assert from_records(json.loads(tabular.as_json([table]))["tables"][0]["figures"], table) == expected


def test_a_terminal_never_truncates_a_figure(table: ResultTable) -> None:
    for width in (60, 80, 137, 400):
        console = Console(width=width, record=True, file=io.StringIO())
        for part in documents.rich_tables(table, width):
            console.print(part)
        assert "…" not in console.export_text(), f"{width} columns"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ResultTable:
    folder = tmp_path_factory.mktemp("hostile")
    for seed, name in enumerate(HOSTILE):
        record = vary(new_record(name, "ks"), corpus__name=HOSTILE[0] + HOSTILE[2])
        write_run(folder, record, answers(0.5, seed, count=40))
    (found,), _ = build.collect(folder, TableOptions(against=HOSTILE[1]))
    return found


def test_hostile_names_are_escaped_in_a_terminal(hostile: ResultTable) -> None:
    console = Console(width=200, record=True, file=io.StringIO(), force_terminal=True)
    for part in documents.rich_tables(hostile, 200):
        console.print(part)
    console.print(documents.rich_title(hostile), soft_wrap=True)
    console.print(documents.rich_notes(hostile))
    text = console.export_text()
    assert "[red]a|b[/red]" in text and "\\u001b[31mred" in text and "\\u202egnp.exe" in text
    assert "\x1b[31mred" not in text and "\u202e" not in text
    assert max(len(escape.short(name)) for name in HOSTILE) <= escape.LONGEST


def test_hostile_names_are_escaped_in_markdown(hostile: ResultTable) -> None:
    text = documents.markdown(hostile)
    assert "<script" not in text and "\u202e" not in text
    assert re.search(r"(?<!\\)`|(?<!\\)\[(?!\d)|(?<!\\)!\[", text.replace("**", "")) is None
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(HOSTILE), "no name begins a row"
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_hostile_names_are_escaped_in_a_spreadsheet(hostile: ResultTable) -> None:
    rows = list(csv.DictReader(io.StringIO(tabular.as_csv([hostile]))))
    names = {row["upstream"] for row in rows}
    assert len(names) == len(HOSTILE)
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)


def test_hostile_names_are_unchanged_in_json(hostile: ResultTable) -> None:
    figures = json.loads(tabular.as_json([hostile]))["tables"][0]["figures"]
    assert {figure["upstream"] for figure in figures} == set(HOSTILE)
    assert tabular.as_json([hostile]).isascii()


def test_latex_escapes_every_special_character(hostile: ResultTable, table: ResultTable) -> None:
    for text in (documents.latex(hostile), documents.latex(table)):
        assert text.isascii()
        commands = set(re.findall(r"\\([A-Za-z]+)", text))
        assert commands <= {
            *("begin", "end", "tiny", "caption", "hline", "textbf", "textit", "textbackslash", "textasciitilde"),
            *("textasciicircum", "textless", "textgreater", "textbar", "Delta", "neq", "approx", "pm", "uparrow"),
            *("downarrow", "ldots", "dag", "ddag", "S", "P", "setlength", "tabcolsep", "noalign", "vskip"),
            *("par", "smallskip"),
        }, "no command but our own"
        bare = re.sub(r"\\.", "", text)
        assert bare.count("{") == bare.count("}")


def test_latex_splits_what_is_wider_than_a_page(table: ResultTable) -> None:
    for part in documents.latex(table).split(r"\begin{table}")[1:]:
        rows = part.split(r"\hline")[2].split(r" \\\noalign{\vskip3pt}")
        for row in rows:
            plain = re.sub(r"\\begin{tabular}\[t\]{.*?}}|\\end{tabular}|\\textbf", "", row)
            plain = re.sub(r"\$\\\w+\$", "x", plain).replace("{", "").replace("}", "")
            widths = [max(map(len, cell.strip().split(r" \\ "))) for cell in plain.split(" & ")]
            assert sum(widths) + 3 * len(widths) <= documents.PAGE, row


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(hostile: ResultTable, table: ResultTable, tmp_path: Path) -> None:
    body = "\n".join(map(documents.latex, (hostile, table)))
    source = f"\\documentclass{{article}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert "Overfull" not in done.stdout, "nothing is wider than the page"
