"""The formats of a table: they agree figure for figure, and escape every name from outside."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table as RichTable

from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.report.sections.result_grid import arranged
from superb_eval.results.formats import escape, tabular, terminal
from superb_eval.results.formats.latex import SIZES, latex
from superb_eval.results.formats.markdown import markdown
from superb_eval.results.stats.differences import Difference
from superb_eval.results.table import build, footnotes
from superb_eval.results.table.build import TableOptions
from superb_eval.results.table.result_table import AT_CHANCE, Cell, ResultTable, Row
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
        rows = part.split(r"\midrule")[1].split(r"\bottomrule")[0].split(r" \\ \addlinespace")
        for place, row in enumerate(row for row in rows if row.strip()):
            cells = [re.findall(NUMBER, cell) for cell in row.split(" & ")[1:] if cell.strip()]
            lines.setdefault(place, []).extend(cells)
    return [cell for cells in lines.values() for cell in cells]


def from_html(text: str) -> list[list[str]]:
    head, *rows = Page(text).cells
    taken = [cell[0] for cell in head].index("evaluation")  # what evaluations took is in the report alone
    return [re.findall(NUMBER, " ".join(cell)) for row in rows for cell in row[1:taken] if cell != ["·"]]


def from_terminal(table: ResultTable) -> list[str]:
    console = Console(width=150, record=True, file=io.StringIO())
    for part in terminal.wide_tables(table, 150):
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
    in_order = replace(table, columns=tuple(arranged(table.columns)))
    assert from_html(page.html(quickstart, ReportOptions(AGAINST, audio_mb=0), NoProgress())) == printed(in_order)
    assert from_markdown(markdown(table)) == expected
    assert from_latex(latex(table)) == expected
    assert sorted(from_terminal(table)) == sorted(number for cell in expected for number in cell)
    assert from_records(list(csv.DictReader(io.StringIO(tabular.as_csv([table])))), table) == expected  # type: ignore[arg-type]
    assert from_records(json.loads(tabular.as_json([table]))["tables"][0]["figures"], table) == expected


def test_a_terminal_never_truncates_a_figure(table: ResultTable) -> None:
    for width in (60, 80, 137, 400):
        console = Console(width=width, record=True, file=io.StringIO())
        for part in terminal.wide_tables(table, width):
            console.print(part)
        assert "…" not in console.export_text(), f"{width} columns"


def drawn(parts: list[RichTable], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_a_compact_table_is_one_box_of_100_columns(table: ResultTable) -> None:
    parts = terminal.compact_tables(table, 100)
    text = drawn(parts, 100)
    assert len(parts) == 1 and "…" not in text and max(map(len, text.splitlines())) <= 100
    for row in table.rows:
        for column in table.columns:
            if column.key[0]:
                assert re.search(rf"{re.escape(row.name)}.*\b{row.cells[column.key].value:.1f}", text)
    assert "Left out here: intervals and differences, mean retained % ↑ (--wide)." in terminal.compact_notes(table, 100)
    assert not terminal.fits(table, 100) and terminal.fits(table, 600)


def test_a_compact_table_never_truncates_a_figure(table: ResultTable) -> None:
    for width in (40, 60, 80, 200):
        assert "…" not in drawn(terminal.compact_tables(table, width), width), f"{width} columns"


def test_colours_stand_for_differences_that_are_distinguishable(table: ResultTable) -> None:
    column = next(column for column in table.columns if column.key == ("pr", "per"))
    apart = Difference(20.0, 10.0, 30.0, "utterances", p=0.001)
    worse = Cell(40.0, difference=apart)
    assert worse.better_than_reference(column) is False
    assert replace(worse, difference=replace(apart, value=-20.0)).better_than_reference(column) is True
    assert replace(worse, difference=replace(apart, p=0.2)).better_than_reference(column) is None
    row = Row("other", {column.key: worse})
    (part,) = terminal.compact_tables(replace(table, columns=(column,), rows=(row,)), 100)
    assert "[red]40.0[/]" in list(part.columns[1].cells)


def test_plain_text_has_marks_in_place_of_styles(table: ResultTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    key, first = ("ks", "acc"), table.rows[1]
    worse = replace(first.cells["pr", "per"], difference=Difference(20.0, 10.0, 30.0, "utterances", p=0.001), rank="")
    changed = {key: replace(first.cells[key], rank="best"), ("pr", "per"): worse}
    best = replace(first, cells={**first.cells, **changed})
    shown = replace(
        table, rows=(table.rows[0], best, *table.rows[2:]), notes=("Bold: best of its column.", *table.notes)
    )
    coloured, plain = (terminal.text([shown], wide=None, to_file=to_file) for to_file in (False, True))
    assert "\x1b[" in coloured and "\x1b" not in plain
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 100 and all(line == line.rstrip() for line in lines)
    assert len([line for line in lines if line.startswith("hubert_mini ")]) == 1, "one box"
    assert f" {best.cells[key].value:.1f}^" in plain and "^ best of its column" in plain and "Bold" not in plain
    assert "+, -: distinguishably better" in " ".join(plain.split()) and f" {worse.value:.1f}- " in plain
    wide = terminal.text([shown], wide=True, to_file=True)
    assert f" {best.cells[key].value:.2f}^ " in wide and "Δ" in wide and "\x1b" not in wide


def test_every_sign_of_our_own_is_typeset(table: ResultTable) -> None:
    own = [table.title, *table.notes, *(column.title() for column in table.columns)]
    own += [text for row in table.rows for key, cell in row.cells.items() for text in cell.texts(table.columns[0])]
    assert not re.search(r"U\+[0-9A-F]{4}", "".join(map(escape.latex, [*own, AT_CHANCE, *footnotes.MEANINGS])))


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
    for part in terminal.wide_tables(hostile, 200):
        console.print(part)
    console.print(terminal.title(hostile), soft_wrap=True)
    console.print(terminal.notes(hostile))
    text = console.export_text()
    assert "[red]a|b[/red]" in text and "\\u001b[31mred" in text and "\\u202egnp.exe" in text
    assert "\x1b[31mred" not in text and "\u202e" not in text
    assert max(len(escape.short(name)) for name in HOSTILE) <= escape.LONGEST


def test_hostile_names_are_escaped_in_markdown(hostile: ResultTable) -> None:
    text = markdown(hostile)
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
    for text in (latex(hostile), latex(table)):
        assert text.isascii()
        commands = set(re.findall(r"\\([A-Za-z]+)", text))
        assert commands <= {
            *("begin", "end", "caption", "label", "centering", "textbf", "textit", "textbackslash", "textasciitilde"),
            *("textasciicircum", "textless", "textgreater", "textbar", "Delta", "neq", "approx", "pm", "uparrow"),
            *("downarrow", "ldots", "dag", "ddag", "parallel", "diamond", "S", "P", "setlength", "tabcolsep"),
            *(
                "par",
                "smallskip",
                "toprule",
                "midrule",
                "bottomrule",
                "addlinespace",
                "usepackage",
                "circ",
                "resizebox",
                "textwidth",
                *SIZES,
            ),
        }, "no command but our own"
        bare = re.sub(r"\\.", "", text)
        assert bare.count("{") == bare.count("}")


def test_latex_splits_what_is_wider_than_a_page(table: ResultTable) -> None:
    for part in latex(table).split(r"\begin{table}")[1:]:
        rows = part.split(r"\midrule")[1].split(r"\bottomrule")[0].split(r" \\ \addlinespace")
        for row in rows:
            plain = re.sub(r"\\begin{tabular}\[t\]{.*?}}|\\end{tabular}|\\textbf", "", row)
            plain = re.sub(r"\$\\\w+\$", "x", plain).replace("{", "").replace("}", "")
            widths = [max(map(len, cell.strip().split(r" \\ "))) for cell in plain.split(" & ")]
            assert sum(widths) + 3 * len(widths) <= SIZES["tiny"], row


def test_figures_alone_of_ten_tasks_fit_a_page(quickstart: Path) -> None:
    (brief,), _ = build.collect(quickstart, replace(AGAINST, intervals=False))
    text = latex(brief)
    assert text.count(r"\begin{table}") == 1 and text.count(r"\label{tab:pack-mini-strict}") == 1
    assert r"\resizebox{\textwidth}" in text and "{[}" not in text and "Intervals and differences are left out" in text
    (few,), _ = build.collect(quickstart, replace(AGAINST, intervals=False, tasks=("pr", "ks")))
    assert r"\small" in latex(few) and r"\tiny" not in latex(few)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(hostile: ResultTable, table: ResultTable, quickstart: Path, tmp_path: Path) -> None:
    names = sorted({column.key[0] for column in table.columns} - {""})
    few = [replace(AGAINST, intervals=False, tasks=tuple(names[:count])) for count in range(1, 11)]
    tables = [hostile, table, *(build.collect(quickstart, options)[0][0] for options in few)]
    body = "\n".join(map(latex, tables))
    preamble = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}"
    source = f"{preamble}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert "Overfull" not in done.stdout, "nothing is wider than the page"
