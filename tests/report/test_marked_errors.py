"""Transcripts with their errors marked: what stands there is the answer, and with the marks undone the truth."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from superb_eval.report.sections.marked_errors import mark_errors


def test_letters_are_marked_by_kind_of_error() -> None:
    marked = mark_errors("asr", "THREE SHINY SPOONS", "THREE SHINY POONAS")
    assert marked == "THREE SHINY <del>S</del>POON<ins>A</ins>S"
    assert mark_errors("asr", "CAT", "CUT") == 'C<mark title="for A">U</mark>T'
    assert mark_errors("asr", "A B", "AB") == "A<del>␣</del>B", "a blank alone is visible"


def test_phones_are_marked_as_a_whole() -> None:
    assert mark_errors("pr", "AA B K AH", "AE B AH") == '<mark title="for AA">AE</mark> B <del>K</del> AH'


def test_answers_that_are_no_transcripts_have_no_marks() -> None:
    assert mark_errors("ks", "yes", "no") is None


def test_text_from_outside_is_escaped() -> None:
    marked = mark_errors("asr", '"><b>', "<script>alert(1)</script>")
    assert marked is not None and "<script" not in marked and "<b>" not in marked
    assert re.findall(r"<(\w+)", marked) and set(re.findall(r"<(\w+)", marked)) <= {"ins", "del", "mark"}


words = st.text("AB <&", max_size=12)


@pytest.mark.parametrize("task", ["asr", "pr"])
@given(truth=words, answer=words)
def test_the_answer_and_the_truth_can_both_be_read(task: str, truth: str, answer: str) -> None:
    marked = str(mark_errors(task, truth, answer))
    without_deletions = re.sub("<del>.*?</del>", "", marked)
    read_answer = Markup(re.sub("</?(?:ins|mark)[^>]*>", "", without_deletions)).unescape()
    without_insertions = re.sub("<ins>.*?</ins>", "", marked)
    replaced = re.sub('<mark title="for (.*?)">.*?</mark>', r"\1", without_insertions)
    read_truth = Markup(re.sub("</?del>", "", replaced)).unescape()

    def tokens(text: str) -> list[str]:
        return list(text.replace("␣", " ")) if task == "asr" else text.split()

    assert tokens(read_answer) == tokens(answer) and tokens(read_truth) == tokens(truth)
