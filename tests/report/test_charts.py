"""The values of charts, against brute force and other libraries; `test_browser.py` tests how they are drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from downstreams import registry
from downstreams.base import Prediction, Setup
from downstreams.metrics.eer import equal_error_rate
from superb_eval.report import markup, verdicts
from superb_eval.report.charts import confusion, cost, det, differences, heatmap, layers, speaker_turns, training
from superb_eval.report.charts.cost import Point
from superb_eval.report.charts.figure import CONFIG, Figure
from superb_eval.report.charts.heatmap import Matrix
from superb_eval.report.sections import headline, worst_utterances
from superb_eval.report.sections.worst_utterances import AudioClips
from superb_eval.results.folder import open_results
from superb_eval.results.table.build import TableOptions, collect
from superb_eval.results.table.result_table import Cell, Column, ResultTable
from tests.results.runs import known_training

ACC, PER = Column(("ks", "acc"), "ACC", "%", True), Column(("pr", "per"), "PER", "%", False)

TEACHER = "hubert_mini@teacher"

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    """Every row of a chart's data."""
    return [row for rows in figure.spec["datasets"].values() for row in rows]


@pytest.fixture(scope="module")
def table(results: Path) -> ResultTable:
    with known_training():
        (found,), _ = collect(results, TableOptions(against=TEACHER))
    return found


@given(numbers, numbers, numbers)
def test_a_scale_preserves_its_ends_and_its_order(low: float, high: float, value: float) -> None:
    scale = markup.linear(low, high, 10, 90)
    if low == high:
        assert scale(value) == 50
    else:
        assert scale(low) == pytest.approx(10) and scale(high) == pytest.approx(90)


def test_text_in_drawings_is_escaped_and_cleaned() -> None:
    drawn = markup.tag("text", "<b>&\u202e\n" + "x" * 400, class_='"><script>')
    assert "<b>" not in drawn and "<script>" not in drawn and "\u202e" not in drawn and len(drawn) < 400
    assert markup.tag("g", markup.tag("b", "x")) == "<g><b>x</b></g>"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=9), st.booleans())
def test_the_front_holds_the_points_that_none_dominates(pairs: list[tuple[int, int]], higher: bool) -> None:
    column = ACC if higher else PER
    points = [Point(str(k), float(price), Cell(float(value))) for k, (price, value) in enumerate(pairs)]
    front = {p.name for p in cost.front(points, column)}
    for k, (price, value) in enumerate(pairs):
        better = [
            (c, v)
            for c, v in pairs
            if c <= price and (v >= value if higher else v <= value) and (c, v) != (price, value)
        ]
        assert (str(k) in front) == (not better)
    assert front


def test_labels_of_marks_that_are_close_stand_on_different_sides() -> None:
    rows = [
        {"upstream": name, "cost": price, "value": value, "low": value - 1, "high": value + 1}
        for name, price, value in (("hubert_mini", 5.78, 68.0), ("distilhubert", 5.6, 69.0), ("fbank", 0.1, 30.0))
    ]
    sides = cost.label_sides(rows)
    placed = zip(cost._spots(rows), sides, rows, strict=True)
    boxes = [cost._box(*spot, side, str(row["upstream"])) for spot, side, row in placed]
    for k, (left, top, right, bottom) in enumerate(boxes):
        assert left > 0 and right < cost.WIDTH
        for other_left, other_top, other_right, other_bottom in boxes[:k]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


def test_a_cost_of_nothing_stands_left_of_the_others_and_is_called_0() -> None:
    points = [Point("hubert", 5.78, Cell(68.0)), Point("fbank", 0.0, Cell(50.0))]
    axis = cost.OF_UPSTREAMS[0]
    found = cost.against_cost("k", points, ACC, axis, ["hubert", "fbank"])
    prices = {row["upstream"]: row["cost"] for row in rows_of(found) if "cost_text" in row}
    assert 0 < prices["fbank"] < prices["hubert"] == 5.78
    assert found.rows[1][1] == "0.00" and "'0'" in json.dumps(found.spec)


def test_the_trade_off_is_that_of_scikit_learn_and_crosses_at_the_equal_error_rate() -> None:
    rng = np.random.default_rng(0)
    target = rng.random(400) < 0.4
    scores = np.round(target + rng.normal(size=400), 2)
    curve = det.trade_off(target, scores)
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
    drawn = {(row["row"], row["column"]): row["value"] for row in rows_of(found)}
    assert drawn == {
        (t, a): pytest.approx(expected[i, j], 1e-4) for i, t in enumerate("abc") for j, a in enumerate("abc")
    }


def test_with_many_labels_the_most_frequent_confusions_are_listed() -> None:
    rows = [Prediction(str(k), f"s{k % 60}", f"s{(k + (k % 3 == 0)) % 60}") for k in range(240)]
    found = confusion.confusion("k", "me", "sid", rows)
    assert len(found.rows) == confusion.MOST_PAIRS and all(truth != answer for truth, answer, _ in found.rows)
    assert [row["count"] for row in rows_of(found)] == [int(row[2]) for row in found.rows]


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
    matrix = Matrix(("r",), ("a", "b", "c"), ((0.0, None, 2.0),), full=2.0)
    drawn = heatmap.heatmap("k", "t", matrix)
    assert [(row["column"], row["value"]) for row in rows_of(drawn)] == [("a", 0.0), ("c", 2.0)]
    assert drawn.rows == (("r", "0.00", "", "2.00"),)


def test_norm_correction_gives_long_vectors_their_weight(results: Path) -> None:
    (groups,) = open_results(results).run_groups.values()
    names = [TEACHER, "distilhubert_mini", "fbank_nonorm"]
    raw, corrected = layers.weight_maps("k", names, groups)
    assert [figure.title for figure in raw.figures] == names[:2], "one layer has nothing to weigh"
    of_teacher = raw.figures[0]
    assert [row[0] for row in of_teacher.rows] == ["PR", "KS", "QBE", "ASV", "SD", "ER"]
    assert of_teacher.rows[0][1:] == ("33", "33", "33") and of_teacher.rows[2][1:] == ("100", "0", "0")
    assert corrected.figures[0].rows[0][1:] == ("17", "33", "50"), "norms are 1, 2, 3"
    assert "QBE" not in [row[0] for row in corrected.figures[0].rows], "a chosen layer has no weight to correct"
    for maps in (raw, corrected):
        domains = [figure.spec["layer"][0]["encoding"]["color"]["scale"]["domain"] for figure in maps.figures]
        assert domains == [[0, pytest.approx(maps.full)]] * len(domains), "one scale"


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    curve = [{"step": float(k)} for k in range(1003)]
    thin = training._thinned(curve)
    assert len(thin) <= 1.3 * training.MOST_POINTS and thin[0] == curve[0] and thin[-1] == curve[-1]
    assert training._thinned(curve[:7]) == curve[:7]


def test_differences_are_those_of_the_table_and_each_has_its_own_scale(table: ResultTable) -> None:
    forests = differences.forests("k", table)
    assert [figure.title for figure in forests] == [f"{row.name} against {TEACHER}" for row in table.rows[1:]]
    for figure, row in zip(forests, table.rows[1:], strict=True):
        compared = [c for c in table.columns if c.key[0] and c.key in row.cells and row.cells[c.key].difference]
        drawn = [found for found in rows_of(figure) if "metric" in found]
        assert [found["metric"] for found in drawn] == [verdicts.short_name(column) for column in compared]
        for found, column in zip(drawn, compared, strict=True):
            cell = row.cells[column.key]
            difference = cell.difference
            assert difference is not None
            sign = 1 if column.higher_is_better else -1
            assert found["value"] == pytest.approx(sign * difference.value, rel=1e-3)
            assert found["low"] <= found["value"] <= found["high"] and found["kind"] == verdicts.verdict(cell, column)
        assert not {"domain", "domainMin"} & set(figure.spec["layer"][1]["encoding"]["x"].get("scale", {}))


def test_the_heat_map_of_differences_has_a_sign_beside_each_colour(table: ResultTable) -> None:
    figure = differences.relative("k", table)
    assert figure is not None and [row[0] for row in figure.rows] == [row.name for row in table.rows[1:]]
    for row in rows_of(figure):
        assert row["shown"][-1] in "▲≈▼" and row["shown"][:-1] == row["figure"]
        assert (row["shown"][-1] != "▲") or row["value"] > 0
    (scale,) = [part["encoding"]["color"]["scale"] for part in figure.spec["layer"][:1]]
    assert scale["domain"][0] == -scale["domain"][2] and scale["domain"][1] == 0


def every_kind(results: Path, table: ResultTable, by_hand: Any) -> Iterator[Figure]:
    (groups,) = open_results(results).run_groups.values()
    names = [row.name for row in table.rows]
    yield differences.forests("k", table)[1]
    yield from filter(None, [differences.relative("k", table)])
    yield next(cost.figures("k", table, {}))
    yield next(layers.weight_maps("k", names, groups)).figures[0]
    yield from layers.probe_charts("k", by_hand.the_layers(), groups)
    yield from layers.unit_charts("k", by_hand.the_layers())
    yield from layers.abx_charts("k", by_hand.the_layers())
    yield from training.figures("k", "ks", {names[0]: groups[names[0], "ks"]}, names)
    rows = [Prediction(f"a{k} b{k}", str(k % 2), str(k % 3)) for k in range(30)]
    yield det.det("k", "asv", {names[0]: rows}, names)
    yield confusion.confusion("k", "me", "ks", [Prediction("1", "a", "b"), Prediction("2", "b", "b")])


def test_every_kind_of_chart_is_drawn(results: Path, table: ResultTable, by_hand: Any) -> None:
    import vl_convert

    figures = {figure.key: figure for figure in every_kind(results, table, by_hand)}
    assert len(figures) == 10
    for key, figure in figures.items():
        spec = {**figure.spec, "width": 300, "config": {**CONFIG, "aria": True}}
        alt.Chart.from_dict(figure.spec)  # tests it against the schema
        drawn = vl_convert.vegalite_to_svg(spec)
        assert drawn.count("<path") > 3 and "NaN" not in drawn and "undefined" not in drawn, key
        assert figure.rows and all(len(row) == len(figure.headings) for row in figure.rows), key


def test_points_without_a_quantity_are_left_out(results: Path, table: ResultTable) -> None:
    (groups,) = open_results(results).run_groups.values()
    name = table.rows[0].name
    group = groups[name, "ks"]
    curve = group.runs[0].record.training[0].rates[0].curve
    points = len(rows_of(next(f for f in training.figures("k", "ks", {name: group}, [name]) if f.key == "k-loss")))
    curve[-1].pop("loss")
    edited = {figure.key: figure for figure in training.figures("k", "ks", {name: group}, [name])}
    assert len(rows_of(edited["k-loss"])) == points - 1 and edited["k-dev"].rows
    curve[:] = [{"other": 1.0}]
    assert training.figures("k", "ks", {name: group}, [name])


HOSTILE = "datum.x');alert(1)//${7*7}\"'</script>[a.b]"


def test_no_text_from_outside_is_part_of_an_expression_or_a_field() -> None:
    import vl_convert

    column = Column(("", "mean"), HOSTILE, HOSTILE, True)
    points = [Point(HOSTILE, 2.0, Cell(60.0, 58, 62)), Point(f"{HOSTILE} 2", 9.0, Cell(70.0, 68, 72))]
    rows = [Prediction("1", HOSTILE, "b"), Prediction("2", "b", HOSTILE)]
    figures = [
        cost.against_cost("k", points, column, cost.OF_UPSTREAMS[0], [HOSTILE, f"{HOSTILE} 2"]),
        confusion.confusion("k", HOSTILE, "ks", rows),
        det.det("k", "asv", {HOSTILE: [Prediction("a", "1", "2"), Prediction("b", "0", "1")]}, [HOSTILE]),
    ]
    for figure in figures:
        compiled = vl_convert.vegalite_to_vega({**figure.spec, "config": CONFIG})
        assert HOSTILE in json.dumps(compiled, ensure_ascii=False).replace('\\"', '"'), "it is shown"
        assert not [text for text in evaluated(compiled) if "alert" in text]


EVALUATED = {"signal", "expr", "test", "update", "init", "field", "fields", "groupby", "as", "on", "events"}


def evaluated(part: Any, key: str = "") -> Iterator[str]:
    """Every string of a Vega specification that Vega evaluates, or looks up as a field."""
    if isinstance(part, str):
        yield from [part] if key in EVALUATED else []
    elif isinstance(part, dict):
        for name, value in part.items():
            # A data set's `values` are data; an object below one of these keys may hold a field's name.
            yield from () if name == "values" and "name" in part else evaluated(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from evaluated(value, key)


def test_summaries_count_the_differences(results: Path, table: ResultTable) -> None:
    (groups,) = open_results(results).run_groups.values()
    found = {s.name: s for s in headline.summaries(table, groups)}
    assert found["hubert_mini@teacher"].reference and found["hubert_mini@teacher"].compared == 0
    for row in table.rows:
        differences_of_row = [f.difference for f in row.cells.values() if f.difference and f.difference.over]
        of_tasks = [d for p, f in row.cells.items() if p[0] and (d := f.difference) and d.over]
        summary = found[row.name]
        assert summary.compared == len(of_tasks) <= len(differences_of_row)
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
