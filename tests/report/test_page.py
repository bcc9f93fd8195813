"""The report as a file: it is complete, needs nothing else, shows the table's figures, and escapes all input."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from downstreams.base import Prediction
from superb_eval.errors import UserError
from superb_eval.report import page, render, verdicts
from superb_eval.report.page import ReportOptions
from superb_eval.report.sections import result_grid
from superb_eval.report.sections.result_grid import arranged
from superb_eval.results.folder import RunGroup, open_results
from superb_eval.results.table import build, costs, totals
from superb_eval.results.table.build import TableOptions
from superb_eval.results.table.result_table import Column
from superb_eval.runtime.progress import NoProgress
from tests.results.runs import known_training, new_record

TEACHER, STUDENT, FBANK = "hubert_mini@teacher", "distilhubert_mini", "fbank_nonorm"
"""As in `conftest.py`."""

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../x",
    "\\input{x}{{ 7*7 }}{% raw %}",
    "\u202eright\u05d0to left\x1b[31m" + "\x00" * (sys.version_info >= (3, 11)),  # 3.10's csv writes no NUL
    "x" * 300,
)


@pytest.fixture(scope="session")
def text(results: Path) -> str:
    with known_training():
        return page.html(results, ReportOptions(), NoProgress())


@pytest.fixture(scope="session")
def parsed(text: str, by_hand: Any) -> Any:
    return by_hand.Page(text)


def test_it_is_one_file_that_needs_nothing_else(parsed: Any, text: str) -> None:
    for tag, attrs in parsed.elements:
        for name, value in attrs.items():
            assert name not in {"style", "srcset"} and not name.startswith("on"), f"<{tag} {name}>"
            if name in {"src", "href", "xlink:href", "action", "poster"} or (tag, name) == ("object", "data"):
                assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in parsed.elements}
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert not re.search(r"@import|url\(", style)
    assert "import(" not in text and text.count("window.vegaEmbed=") == 1, "the library of charts is in it, once"


def test_its_policy_allows_its_own_style_and_script_alone(parsed: Any, text: str) -> None:
    (policy,) = [a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for tag, opening, count in (("style", "<style>", 1), ("script", '<script type="module">', 2)):
        found = re.findall(rf"{opening}(.*?)</{tag}>", text, flags=re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in found]
        sources = [f"'sha256-{digest}'" for digest in digests]
        assert len(sources) == count and f"{tag}-src {' '.join(sources)};" in policy
    others = [attrs for tag, attrs in parsed.elements if tag == "script" and attrs.get("type") != "module"]
    assert {attrs["type"] for attrs in others} == {"application/json"}, "data, which no browser runs"


def test_ids_are_unique_and_every_reference_leads_somewhere(parsed: Any) -> None:
    ids = parsed.attributes("id")
    assert len(ids) == len(set(ids)) > 80
    references = [value[1:] for value in parsed.attributes("href") if value.startswith("#")]
    references += parsed.attributes("popovertarget")
    references += [part for value in parsed.attributes("aria-labelledby") for part in value.split()]
    assert references and set(references) <= set(ids)
    assert not parsed.open, "every element is closed"


def test_every_section_is_present(parsed: Any, text: str) -> None:
    ids = " ".join(parsed.attributes("id"))
    for part in (
        "b0-table", "b0-forest", "b0-relative", "b0-cost", "real-time-factor", "gmacs-per-second", "b0-weights-0-raw",
        "b0-weights-0-norm", "b0-l0-probe-0", "b0-l0-cka-0", "b0-ks-dev", "b0-ks-loss", "b0-ks-lr", "b0-ks-confusion-0",
        "b0-asv-det", "b0-again", "left-out",
    ):  # fmt: skip
        assert part in ids, part
    specs = [json.loads(text) for text in re.findall(r'class="spec">(.*?)</script>', text, flags=re.DOTALL)]
    assert len(specs) == sum(tag == "figure" for tag, _ in parsed.elements) > 30
    assert all(spec["description"] and spec["width"] == "container" and spec["datasets"] for spec in specs)
    drawings = [attrs for tag, attrs in parsed.elements if tag == "svg" and attrs.get("role") == "img"]
    assert all("aria-label" in attrs for attrs in drawings)


def test_the_summary_compares_in_sentences(parsed: Any) -> None:
    words = " ".join(parsed.texts)
    assert f"{TEACHER} is best, or not distinguishable from the best, in 6 of 6 metrics." in words
    assert re.search(rf"{STUDENT} against {re.escape(TEACHER)}: better beyond chance in 0, worse in \d", words)
    assert "with 50 % of its parameters" in words
    assert "Synthetic speech." in words


def test_its_figures_are_those_of_the_table(results: Path, parsed: Any) -> None:
    (table,), _ = build.collect(results, TableOptions(against=TEACHER))
    (groups,) = open_results(results).run_groups.values()
    columns = arranged(costs.with_evaluation(table, groups).columns)
    assert sorted(column.key for column in columns) == sorted([*(c.key for c in table.columns), costs.TIME.key])
    head, *rows = parsed.cells
    assert [" ".join(cell) for cell in head] == ["upstream", *(column.title() for column in columns)]
    for row, texts in zip(table.rows, rows, strict=True):
        assert texts[0][0] == row.name
        for column, found in zip(columns, texts[1:], strict=True):
            cell = row.cells.get(column.key)
            if column != costs.TIME:
                sign = verdicts.SIGNS[verdicts.verdict(cell, column)] if cell else ""
                value, *more = cell.texts(column) if cell else ("·",)
                assert [text.replace("\n", " ") for text in found] == [text for text in (value, sign, *more) if text]


def test_the_table_shows_one_figure_of_each_task_and_the_rest_when_chosen(results: Path, parsed: Any) -> None:
    with known_training():
        (table,), _ = build.collect(results, TableOptions(against=TEACHER))
    (groups,) = open_results(results).run_groups.values()
    grid = result_grid.grid("k", costs.with_evaluation(table, groups), groups)
    shown = [column.heading for column in grid.columns if column.shown]
    assert shown == ["PR", "KS", "QBE", "ASV", "SD", "ER"], "one column a task; no costs"
    assert {"params M", "GMAC/s", "speed-up", "evaluation"} == {c.heading for c in grid.columns if not c.shown}
    boxes = [attrs for _, attrs in parsed.elements if attrs.get("class") == "column"]
    assert ["checked" in attrs for attrs in boxes] == [column.shown for column in grid.columns]


def test_overall_figures_come_right_after_the_name() -> None:
    columns = [costs.PARAMETERS, Column(("ks", "acc"), "ACC", "%", True), totals.MEAN, totals.RETAINED]
    assert arranged(columns) == [totals.MEAN, totals.RETAINED, columns[1], costs.PARAMETERS]


def test_a_cell_says_how_it_compares_by_sign_and_colour(results: Path, parsed: Any) -> None:
    cells = [attrs for tag, attrs in parsed.elements if tag == "td" and "data-label" in attrs and "class" in attrs]
    kinds = {attrs["class"].split()[0] for attrs in cells if attrs["class"].strip()}
    assert {"worse", "inconclusive"} <= kinds
    labels = [attrs["aria-label"] for _, attrs in parsed.elements if attrs.get("class") == "sign" and "title" in attrs]
    assert set(labels) >= {"worse beyond chance", "inconclusive"}
    assert any("at-chance" in attrs["class"] for attrs in cells)


def test_what_an_evaluation_took_is_summed_over_its_runs(results: Path) -> None:
    (table,), _ = build.collect(results, TableOptions(against=TEACHER))
    (groups,) = open_results(results).run_groups.values()
    found = costs.with_evaluation(table, groups)
    minutes = {row.name: row.cells[costs.TIME.key].value for row in found.rows}
    assert minutes == pytest.approx({TEACHER: 6 / 60, STUDENT: 6 / 60, FBANK: 5 / 60}), "a second for each run"
    assert costs.MEMORY not in found.columns, "no record holds it"
    (run,) = groups[STUDENT, "ks"].runs
    heavy = replace(run, record=run.record.model_copy(update={"peak_memory": 2.5e9}))
    measured = costs.with_evaluation(table, {**groups, (STUDENT, "ks"): RunGroup((heavy,))})
    peaks = {row.name: row.cells[costs.MEMORY.key].value for row in measured.rows if costs.MEMORY.key in row.cells}
    assert peaks == {STUDENT: 2.5} and costs.MEMORY in measured.columns


def test_errors_of_phones_are_marked(parsed: Any) -> None:
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("del") > 5, "made-up answers of PR leave phones out"


def test_what_is_left_out_is_listed(parsed: Any, results: Path) -> None:
    words = " ".join(parsed.texts)
    for expected in ("notes.txt: is no part of a run", "not a run record", "shorter than 5 frames", "made by hand"):
        assert expected in words
    assert "PR: the audio is not available" in words and "no such corpus folder" in words


def test_commands_that_repeat_each_run_are_listed(parsed: Any) -> None:
    words = " ".join(parsed.texts)
    for name in (TEACHER, STUDENT, FBANK):
        assert f"superb-eval run ks -u {name} --data " in words


def test_clips_are_embedded_where_the_audio_is_available(parsed: Any, tones: Path) -> None:
    clips = [attrs["src"] for tag, attrs in parsed.elements if tag == "audio"]
    assert clips
    for uri in clips:
        kind, _, content = uri.partition(";base64,")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
        assert kind.startswith("data:audio/") and rate == 16_000 and 0.3 * rate < len(samples) < 1.2 * rate


def test_the_budget_of_clips_is_respected(results: Path, by_hand: Any) -> None:
    few = by_hand.Page(page.html(results, ReportOptions(audio_mb=0.01), NoProgress()))
    assert sum(len(src) for src in few.attributes("src")) <= 10_000
    assert "over the budget" in " ".join(few.texts)


def test_another_reference_can_be_chosen(results: Path, by_hand: Any) -> None:
    words = " ".join(
        by_hand.Page(page.html(results, ReportOptions(TableOptions(against=FBANK), audio_mb=0), NoProgress())).texts
    )
    assert re.search(rf"{STUDENT} against {FBANK}: better beyond chance in [1-9]", words)
    with pytest.raises(UserError, match="the table has no row of that name"):
        page.html(results, ReportOptions(TableOptions(against="nobody")), NoProgress())


def test_the_same_folder_gives_the_same_bytes(results: Path, text: str) -> None:
    assert page.html(results, ReportOptions(), NoProgress()) == text


def test_hostile_texts_are_escaped(tmp_path: Path, by_hand: Any) -> None:
    root = tmp_path / "<img src=x>"
    for k, name in enumerate(HOSTILE):
        rows = [Prediction(f"{name}{i}", name, HOSTILE[(k + i) % 6], 1) for i in range(8)]
        record = by_hand.a_run(root, name, "ks", rows)
        by_hand.a_run(root, name, "pr", [Prediction(f"{name} {i}", name, "AA", 1) for i in range(4)])
        assert record.upstream.address == name
    parsed = by_hand.Page(page.html(root, ReportOptions(), NoProgress()))
    tags = [tag for tag, _ in parsed.elements]
    scripts = [attrs["type"] for tag, attrs in parsed.elements if tag == "script"]
    assert scripts.count("module") == 2 and set(scripts) == {"module", "application/json"}
    assert "img" not in tags and "b" not in tags
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    words = "".join(parsed.texts)
    assert "<script>alert(1)</script>" in words, "shown as text, and not run"
    assert "{{ 7*7 }}{% raw %}" in words, "no template in a name is run"
    assert "\u202e" not in words and "\x1b" not in words and "\x00" not in words
    assert max(len(row[0][0]) for row in parsed.cells[1:]) <= 80, "a name of 300 letters is truncated in the table"


def test_a_single_run_and_an_empty_folder(tmp_path: Path, by_hand: Any) -> None:
    by_hand.a_run(tmp_path / "one", FBANK, "ks", by_hand.predictions("ks", 0.5, 0))
    words = " ".join(by_hand.Page(page.html(tmp_path / "one", ReportOptions(audio_mb=0), NoProgress())).texts)
    assert "there is nothing to compare it with" in words
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no finished run"):
        page.html(tmp_path / "empty", ReportOptions(), NoProgress())


def test_published_rows_stand_apart(results: Path, by_hand: Any) -> None:
    options = ReportOptions(TableOptions(published=("hubert_base", "distilhubert")), audio_mb=0)
    parsed = by_hand.Page(page.html(results, options, NoProgress()))
    words = " ".join(parsed.texts)
    assert "HuBERT Base" in words and "not comparable" in words
    assert [a for tag, a in parsed.elements if tag == "tbody" and a.get("class") == "published"]


def test_it_is_written_completely_with_a_title_and_no_audio(results: Path, by_hand: Any, tmp_path: Path) -> None:
    options = ReportOptions(audio_mb=0, title="Ours <b>& theirs")
    written = page.write(results, tmp_path / "deep" / "report.html", options).read_text(encoding="utf8")
    assert written.rstrip().endswith("</html>")
    texts = by_hand.Page(written).texts
    body = written[written.index("<body>") : written.index('<script type="module">')]
    assert "<audio" not in body and "not available" not in body
    assert texts.count("Ours <b>& theirs") == 1 and "Ours <b>& theirs: superb-eval report" in texts


def test_the_days_of_the_runs_are_named_once() -> None:
    record = new_record("hubert", "ks")
    later = record.model_copy(update={"started": "2031-01-02T03:04:05+00:00"})
    assert render._days([record, record]) == record.started[:10]
    assert render._days([later, record]) == f"{record.started[:10]} to 2031-01-02"
