"""The values of charts, against brute force and other libraries; `test_browser.py` tests how they are drawn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from downstreams import registry
from downstreams.base import Prediction, Setup
from downstreams.metrics.eer import equal_error_rate
from superb_eval.report.charts import confusion, heatmap, layers, pareto, speaker_turns, svg, training
from superb_eval.report.charts.pareto import Point
from superb_eval.report.sections import headline, worst_utterances
from superb_eval.report.sections.worst_utterances import AudioClips
from superb_eval.results.table.build import TableOptions, collect
from superb_eval.results.table.result_table import Cell, Column

ACC, PER = Column(("ks", "acc"), "ACC", "%", True), Column(("pr", "per"), "PER", "%", False)

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, st.floats(1e-3, 1e6), st.integers(2, 10))
@example(1, 400_401, 2)  # between two multiples of the step that comes first
def test_ticks_are_round_and_within(low: float, width: float, about: int) -> None:
    found = svg.ticks(low, low + width, about)
    slack = 1e-6 * (abs(low) + width)
    assert 1 <= len(found) <= about + 1 or width < 1e-9 * abs(low)
    assert all(low - slack <= tick <= low + width + slack for tick in found)
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert max(steps, default=0) - min(steps, default=0) <= slack


@given(numbers, numbers, numbers)
def test_a_scale_preserves_its_ends_and_its_order(low: float, high: float, value: float) -> None:
    scale = svg.linear(low, high, 10, 90)
    if low == high:
        assert scale(value) == 50
    else:
        assert scale(low) == pytest.approx(10) and scale(high) == pytest.approx(90)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1500, "1.5k"), (2e6, "2M"), (0.05, "0.05"), (1e-4, "1e-4"), (-3e9, "-3G")]
)
def test_ticks_are_written_short(value: float, text: str) -> None:
    assert svg.short(value) == text


def test_text_in_drawings_is_escaped_and_cleaned() -> None:
    drawn = svg.tag("text", "<b>&\u202e\n" + "x" * 400, class_='"><script>')
    assert "<b>" not in drawn and "<script>" not in drawn and "\u202e" not in drawn and len(drawn) < 400
    assert svg.tag("g", svg.tag("b", "x")) == "<g><b>x</b></g>"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=9), st.booleans())
def test_the_front_holds_the_points_that_none_dominates(pairs: list[tuple[int, int]], higher: bool) -> None:
    column = ACC if higher else PER
    points = [Point(str(k), float(cost), Cell(float(value))) for k, (cost, value) in enumerate(pairs)]
    front = {p.name for p in pareto._front(points, column)}
    for k, (cost, value) in enumerate(pairs):
        better = [
            (c, v) for c, v in pairs if c <= cost and (v >= value if higher else v <= value) and (c, v) != (cost, value)
        ]
        assert (str(k) in front) == (not better)
    assert front


def test_the_trade_off_is_that_of_scikit_learn_and_crosses_at_the_equal_error_rate() -> None:
    rng = np.random.default_rng(0)
    target = rng.random(400) < 0.4
    scores = np.round(target + rng.normal(size=400), 2)
    curve = confusion.trade_off(target, scores)
    alarms, misses = curve.alarms, curve.misses
    fpr, tpr, thresholds = roc_curve(target, scores, drop_intermediate=False)
    assert alarms == pytest.approx(100 * fpr[1:]) and misses == pytest.approx(100 * (1 - tpr[1:]))
    assert curve.thresholds == pytest.approx(thresholds[1:])
    k = curve.equal_error_index()
    assert (alarms[k] + misses[k]) / 2 == pytest.approx(equal_error_rate(target, scores), abs=1)


def test_confusions_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c"])
    truth, answer = names[rng.integers(0, 3, 90)], names[rng.integers(0, 3, 90)]
    rows = [Prediction(str(k), str(t), str(a)) for k, (t, a) in enumerate(zip(truth, answer, strict=True))]
    found = confusion.confusion("k", "me", "ks", rows)
    expected = 100 * confusion_matrix(truth, answer, normalize="true")
    assert [[float(cell) for cell in row[1:]] for row in found.rows] == [[round(v) for v in row] for row in expected]


def test_with_many_labels_the_most_frequent_confusions_are_listed() -> None:
    rows = [Prediction(str(k), f"s{k % 60}", f"s{(k + (k % 3 == 0)) % 60}") for k in range(240)]
    found = confusion.confusion("k", "me", "sid", rows)
    assert len(found.rows) == confusion.MOST_PAIRS and all(truth != answer for truth, answer, _ in found.rows)


@pytest.mark.parametrize("task", ["ks", "pr"])
def test_the_worst_utterances_are_those_with_most_errors_over_all_upstreams(task: str) -> None:
    kind = registry.get(task)
    scorer = kind(Setup(["A", "B", "C"], kind.Head()))
    answers = {"one": ["A B", "B", "A", "A"], "two": ["A B", "C", "B", "A"]}
    truths = ["A B", "A", "A", "A"]
    rows = {
        name: [Prediction(str(k), t, a) for k, (t, a) in enumerate(zip(truths, texts, strict=True))]
        for name, texts in answers.items()
    }
    found = worst_utterances.worst(scorer, rows)
    assert [w.id for w in found] == ["1", "2"], "right ones are not shown"
    assert [(a.name, a.text, a.error) for a in found[1].answers] == [("one", "A", 0.0), ("two", "B", 100.0)]


def test_the_worst_trials_lie_farthest_beyond_the_threshold() -> None:
    scores = {
        "t0": ("1", 5.0),
        "t1": ("1", -4.0),
        "n0": ("0", -5.0),
        "n1": ("0", 0.5),
        "t2": ("1", 1.0),
        "n2": ("0", -1.0),
    }
    rows = [Prediction(f"{k} x", truth, str(score)) for k, (truth, score) in scores.items()]
    kind = registry.get("asv")
    found = worst_utterances.worst(kind(Setup([], kind.Head())), {"me": rows})
    assert found[0].id == "t1 x" and found[0].truth == "one speaker"


def test_upstreams_that_answered_other_rows_are_left_out() -> None:
    kind = registry.get("ks")
    rows = {"one": [Prediction("a", "x", "y")], "other": [Prediction("b", "x", "y")]}
    (found,) = worst_utterances.worst(kind(Setup(["x", "y"], kind.Head())), rows)
    assert [answer.name for answer in found.answers] == ["one"]


def test_turns_are_drawn_to_scale() -> None:
    both = speaker_turns.draw(['[[0, 2, "a"], [1, 4, "b"]]', '[[2, 4, "0"]]'])
    assert both is not None
    assert f'width="{speaker_turns.WIDTH / 2:g}"' in both[1] and both[0].count("<rect") == 2
    assert speaker_turns.draw(["[[0]]"]) is None and speaker_turns.draw(["no list"]) is None


def test_a_heat_map_leaves_missing_values_empty() -> None:
    matrix = heatmap.Matrix(("r",), ("a", "b", "c"), ((0.0, None, 2.0),), full=2.0)
    drawn = heatmap.figure("k", "t", "n", matrix)
    assert drawn.svg.count('class="heat"') == 2 and drawn.rows == (("r", "0.00", "", "2.00"),)


def test_norm_correction_gives_long_vectors_their_weight(results: Path) -> None:
    from superb_eval.results.folder import open_results

    ((cells,),) = [list(open_results(results).run_groups.values())]
    of_teacher = {task: cell for (name, task), cell in cells.items() if name == "hubert_mini@teacher"}
    raw, corrected = layers.maps("k", "me", of_teacher)
    assert [row[0] for row in raw.rows] == ["PR", "KS", "QBE", "ASV", "SD", "ER"]
    assert raw.rows[0][1:] == ("33", "33", "33") and raw.rows[2][1:] == ("100", "0", "0")
    assert corrected.rows[0][1:] == ("17", "33", "50"), "norms are 1, 2, 3"
    assert "QBE" not in [row[0] for row in corrected.rows], "a chosen layer has no weight to correct"
    fbank = {task: cell for (name, task), cell in cells.items() if name == "fbank_nonorm"}
    assert layers.maps("k", "fbank", fbank) == [], "one layer has nothing to weigh"


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    curve = [{"step": float(k)} for k in range(1003)]
    thin = training._thinned(curve)
    assert len(thin) <= 1.3 * training.MOST_POINTS and thin[0] == curve[0] and thin[-1] == curve[-1]
    assert training._thinned(curve[:7]) == curve[:7]


def test_summaries_count_the_differences(results: Path) -> None:
    from superb_eval.results.folder import open_results

    (table,), _ = collect(results, TableOptions(against="hubert_mini@teacher"))
    (cells,) = open_results(results).run_groups.values()
    found = {s.name: s for s in headline.summaries(table, cells)}
    assert found["hubert_mini@teacher"].reference and found["hubert_mini@teacher"].compared == 0
    for row in table.rows:
        differences = [f.difference for f in row.cells.values() if f.difference and f.difference.over]
        of_tasks = [d for p, f in row.cells.items() if p[0] and (d := f.difference) and d.over]
        summary = found[row.name]
        assert summary.compared == len(of_tasks) <= len(differences)
        assert len(summary.inconclusive) == sum(not d.distinguishable for d in of_tasks)
    assert found["fbank_nonorm"].worse and "KS" in found["fbank_nonorm"].at_chance
    assert not found["hubert_mini@teacher"].at_chance


def test_missing_audio_of_a_corpus_is_reported_once(results: Path, by_hand: Any, tmp_path: Path) -> None:
    record = by_hand.a_run(tmp_path, "me", "ks", by_hand.predictions("ks", 0.5, 0), tmp_path / "gone")
    clips = AudioClips(1e6)
    assert clips.data_uris(record, "test-yes-0") == () and clips.data_uris(record, "test-yes-1") == ()
    (problem,) = clips.problems
    assert problem.startswith("KS: the audio is not available") and "no such corpus folder" in problem


def test_clips_are_found_where_the_corpus_is_now(tones: Path, by_hand: Any, tmp_path: Path) -> None:
    record = by_hand.a_run(tmp_path, "me", "ks", by_hand.predictions("ks", 0.5, 0), tmp_path / "gone")
    clips = AudioClips(1e6, tones)
    (uri,) = clips.data_uris(record, "test-yes-0")
    assert uri.startswith("data:audio/") and clips.budget == 1e6 - len(uri)
    assert clips.data_uris(record, "test-yes-0") == (uri,) and clips.budget == 1e6 - len(uri), "each clip once"
    assert clips.data_uris(record, "no such row") == ()
