"""The time left of a step: by the pace of its recent part, without its slow start; and as text."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from superb_eval.runtime import progress
from superb_eval.runtime.pace import Pace, duration, time_left
from superb_eval.runtime.progress import TerminalProgress


def times_of_updates(each: list[float], start: float = 0.0) -> list[float]:
    """The times at which units are done that take so long, after a start."""
    return [start := start + seconds for seconds in each]


def worst_factor(each: list[float], done_before: int = 0) -> float:
    """The largest factor between the time left and its estimate, from a tenth of the time to 95 % of it."""
    pace, ends, worst = Pace(0.0), times_of_updates(each), 1.0
    for done, now in enumerate(ends, start=done_before + 1):
        pace.update(done, now)
        left = pace.seconds_left(done_before + len(each), now)
        if left is not None and 0.1 * ends[-1] <= now <= 0.95 * ends[-1]:
            worst = max(worst, math.exp(abs(math.log(left / (ends[-1] - now)))))
    return worst


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("even", [0.08] * 1000),
        ("compiled in the first update", [9.2, *[0.078] * 999]),
        ("an evaluation every tenth", [0.05 + (k % 100 == 99) * 1.5 for k in range(1000)]),
        ("read from the store, then extracted", [*[0.001] * 300, *[0.1] * 700]),
        ("another program began", [*[0.05] * 100, *[0.07] * 900]),
    ],
)
def test_the_time_left_is_true_within_a_factor_from_a_tenth_on(name: str, each: list[float]) -> None:
    assert worst_factor(each) <= 1.5, name


def test_a_resumed_step_is_not_taken_to_be_fast() -> None:
    assert worst_factor([0.1] * 400, done_before=600) <= 1.01


def test_nothing_is_estimated_from_the_first_update() -> None:
    """The first update of a run of 87 s took 9 s, and 9 216 s were printed."""
    pace = Pace(0.0)
    assert pace.seconds_left(1000, 5.0) is None
    pace.update(1, 9.2)
    assert pace.seconds_left(1000, 9.2) is None
    for done in range(2, 12):
        pace.update(done, 9.2 + 0.1 * (done - 1))
    assert pace.seconds_left(1000, 10.2) == pytest.approx(98.9)
    assert pace.seconds_left(1000, 20.2) == pytest.approx(88.9), "counted down between updates"


def test_few_units_that_differ_make_no_estimate() -> None:
    """The thirteenth of forty comparisons took fourteen seconds, and 6.6 min were printed for a step of 16 s."""
    pace = Pace(0.0)
    for done, now in ((12, 1.0), (13, 15.0)):
        pace.update(done, now)
    assert pace.seconds_left(40, 15.0) is None


def test_few_samples_are_held_however_many_updates_there_are() -> None:
    pace = Pace(0.0)
    for done in range(1, 20_000):
        pace.update(done, 0.01 * done)
    assert len(pace._samples) < 100


def test_a_log_has_the_time_left_and_the_finishing_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with TerminalProgress().step("training", 100) as update:
        for done in range(1, 101):
            clock[0] += 9.0 if done == 1 else 1.0
            update(done, "loss 1.0")
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert first == "training: 2/100  loss 1.0"
    assert second.startswith("training: 12/100  about 88 s left, until ") and second.endswith("  loss 1.0")
    assert last == "training: 100/100  loss 1.0"


def test_a_long_line_is_not_wrapped_so_that_its_path_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"features: 0 utterances extracted, 96 from the store /{'folder/' * 30}features [bold]"
    TerminalProgress().log(line)
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.4, "45 s"), (100.0, "1.7 min"), (720.0, "12 min"), (12_240.0, "3.4 h")]
)
def test_durations_are_rounded_to_less_than_a_tenth(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_finishing_time_names_the_day_where_it_is_another() -> None:
    clock = datetime(2026, 11, 26, 18, 0)
    assert time_left(750, clock) == "about 12 min left, until 18:12"
    assert time_left(12 * 3600, clock) == "about 12.0 h left, until Fri 27 Nov, 06:00"
    assert time_left(None) == ""
