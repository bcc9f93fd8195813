"""The report as a file: it is complete, needs nothing else, shows the table's figures, and escapes all input."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile

from downstreams.base import Prediction
from superb_eval.errors import UserError
from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.results.formats.markdown import markdown
from superb_eval.results.table import build
from superb_eval.results.table.build import TableOptions
from superb_eval.runtime.progress import NoProgress
from tests.results.runs import known_training

TEACHER, STUDENT, FBANK = "hubert_mini@teacher", "distilhubert_mini", "fbank_nonorm"
"""As in `conftest.py`."""

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../x",
    "\\input{x}{{ 7*7 }}{% raw %}",
    "\u202eright\u05d0to left\x1b[31m\x00",
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
            if name in {"src", "href", "xlink:href", "action", "poster", "data"}:
                assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in parsed.elements}
    assert not re.search(r"@import|url\(", text)


def test_its_policy_allows_its_own_style_and_script_alone(parsed: Any, text: str) -> None:
    (policy,) = [a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_ids_are_unique_and_every_reference_leads_somewhere(parsed: Any) -> None:
    ids = parsed.attributes("id")
    assert len(ids) == len(set(ids)) > 100
    references = [value[1:] for value in parsed.attributes("href") if value.startswith("#")]
    references += parsed.attributes("popovertarget")
    references += [part for value in parsed.attributes("aria-labelledby") for part in value.split()]
    assert references and set(references) <= set(ids)
    assert not parsed.open, "every element is closed"


def test_every_section_is_present(parsed: Any) -> None:
    ids = " ".join(parsed.attributes("id"))
    for part in (
        "b0-table", "b0-forest", "b0-parallel", "b0-pareto", "real-time-factor", "gmacs-per-second", "b0-weights-0-raw",
        "b0-weights-0-norm", "b0-l0-probe-0", "b0-l0-cka-0", "b0-ks-dev", "b0-ks-loss", "b0-ks-lr", "b0-ks-confusion-0",
        "b0-asv-det", "b0-again", "left-out",
    ):  # fmt: skip
        assert part in ids, part
    drawings = [attrs for tag, attrs in parsed.elements if tag == "svg" and attrs.get("role") == "img"]
    charts = [attrs for attrs in drawings if "aria-labelledby" in attrs]
    assert len(charts) == sum(tag == "figure" for tag, _ in parsed.elements) > 30
    assert all("aria-labelledby" in attrs or "aria-label" in attrs for attrs in drawings)


def test_the_summary_compares_in_sentences(parsed: Any) -> None:
    words = " ".join(parsed.texts)
    assert f"{TEACHER} is best, or not distinguishable from the best, in 6 of 6 metrics." in words
    assert re.search(rf"{STUDENT} against {re.escape(TEACHER)}: better beyond chance in 0, worse in \d", words)
    assert "with 50 % of its parameters" in words
    assert "Synthetic speech." in words


def test_its_figures_are_those_of_the_table(results: Path, parsed: Any) -> None:
    (table,), _ = build.collect(results, TableOptions(against=TEACHER))
    head, *rows = parsed.cells
    assert [" ".join(cell) for cell in head] == ["upstream", *(column.title() for column in table.columns)]
    for row, texts in zip(table.rows, rows, strict=True):
        assert texts[0][0] == row.name
        for column, cell in zip(table.columns, texts[1:], strict=True):
            expected_cell = row.cells.get(column.key)
            assert cell == (["·"] if expected_cell is None else [text for text in expected_cell.texts(column) if text])
    of_markdown = [
        [cell.strip().replace("*", "").replace("\\", "") for cell in row.strip("|").split(" | ")]
        for row in markdown(table).splitlines()[4 : 4 + len(rows)]
    ]
    assert [[" ".join(cell).removesuffix(" reference").replace("·", "") for cell in row] for row in rows] == of_markdown


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
    none = page.html(results, ReportOptions(audio_mb=0), NoProgress())
    assert "<audio" not in none and "not available" not in none
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
    assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
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


def test_it_is_written_completely(results: Path, tmp_path: Path) -> None:
    out = page.write(results, tmp_path / "deep" / "report.html", ReportOptions(audio_mb=0))
    assert out.read_text(encoding="utf8").rstrip().endswith("</html>")
