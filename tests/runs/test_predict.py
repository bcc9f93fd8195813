"""Scores beside the answers of a trained head, for each kind of task."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runs.predict import FileAnswer, predict
from tests.ten_tasks import SMALL


@pytest.fixture
def scored(ten_tasks: Path, tmp_path: Path, request: pytest.FixtureRequest) -> list[FileAnswer]:
    """The answers of a task's head, trained for two updates, for six files."""
    short = ("train.steps=2", "train.eval_every=2", *SMALL[request.param])
    config = RunConfig("fbank_nonorm", request.param, ten_tasks, "nano", short, out=tmp_path / "r", limit=4)
    _, folder = evaluate(config)
    files = sorted((ten_tasks / "audio").glob("test-*.flac"))
    found = predict(folder, files, scores=True)
    plain = predict(folder, files)
    assert [each.answer for each in found] == [each.answer for each in plain] and len(found) == 6
    assert all(each.scores == {} for each in plain)
    return found


@pytest.mark.parametrize("scored", ["ic"], indirect=True)
def test_each_slot_has_probabilities(scored: list[FileAnswer]) -> None:
    for each in scored:
        assert list(each.scores) == ["action", "object", "location"]
        best = ", ".join(f"{slot} {next(iter(of_slot))}" for slot, of_slot in each.scores.items())  # type: ignore[arg-type]
        assert best == each.answer


@pytest.mark.parametrize("scored", ["pr", "asr"], indirect=True)
def test_recognisers_have_a_mean_log_probability_that_padding_leaves_alone(
    scored: list[FileAnswer], tmp_path: Path
) -> None:
    assert all(list(each.scores) == ["mean log probability"] for each in scored)
    (folder,) = (path.parent for path in tmp_path.glob("r/*/*/*/result.json"))
    alone = predict(folder, [scored[1].file], scores=True)
    assert alone[0].scores == pytest.approx(scored[1].scores, abs=2e-4)


@pytest.mark.parametrize("scored", ["sd"], indirect=True)
def test_turns_have_the_probability_of_their_speaker(scored: list[FileAnswer]) -> None:
    for each in scored:
        assert ", ".join(each.scores) == each.answer
        assert all(0 <= value <= 1 for value in each.scores.values())  # type: ignore[operator]


@pytest.mark.parametrize("scored", ["asv"], indirect=True)
def test_verification_has_cosines_with_the_first_file(scored: list[FileAnswer]) -> None:
    cosines = [each.scores["cosine"] for each in scored]
    assert cosines[0] == pytest.approx(1) and all(abs(value) <= 1.001 for value in cosines)  # type: ignore[arg-type]
