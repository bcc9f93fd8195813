from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from superb_eval.errors import UserError
from superb_eval.results import code_versions
from superb_eval.results.folder import open_results
from superb_eval.results.formats import tabular, terminal
from superb_eval.results.formats.latex import latex
from superb_eval.results.formats.markdown import markdown
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import overall, training_spread
from superb_eval.results.stats.differences import Difference
from superb_eval.results.stats.resampling import NEW_SPEAKERS, THESE_SPEAKERS
from superb_eval.results.table import build, totals
from superb_eval.results.table.build import TableOptions
from superb_eval.results.table.result_table import Cell, Column, ResultTable, Row
from tests.results.runs import answers, known_training, new_record, ten_tasks, vary, write_records, write_run


@pytest.fixture(autouse=True)
def _training_spread() -> Iterator[None]:
    """Recipes ship a spread between trainings, without which nothing is called distinguishable."""
    with known_training():
        yield


def shown(table: ResultTable, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in terminal.wide_tables(table, width):
        console.print(part)
    console.print(terminal.notes(table))
    return console.export_text()


def test_upstreams_go_down_and_tasks_across_with_gaps(a_record: RunRecord, tmp_path: Path) -> None:
    pr = vary(a_record, task="pr", metrics__heading="PER", metrics__key="per", metrics__higher_is_better=False)
    pr = vary(pr, chance=90.0, code=code_versions.versions("pr"))
    write_records(tmp_path, a_record, vary(a_record, upstream__address="hubert", metrics__value=48.0), pr)
    (table,), problems = build.collect(tmp_path)
    assert markdown(table).splitlines()[2:6] == [
        "| upstream | params M | PR PER % ↓ | KS ACC % ↑ |",
        "| --- | ---: | ---: | ---: |",
        "| fbank | 23.49 | 43.99 \\[38.69, 49.29\\] | 43.99 \\[38.69, 49.29\\] |",
        "| hubert | 23.49 |  | **48.00** \\[38.74, 49.59\\] |",
    ]
    assert len(problems) == 2 and all("predictions.csv" in problem for problem in problems), "none to compare by"


def test_what_is_not_superb_is_never_called_so(a_record: RunRecord, tmp_path: Path) -> None:
    synthetic = vary(a_record, corpus__name="synthetic-mini", corpus__digest="s", corpus__synthetic=True)
    lying = vary(a_record, corpus__name="fake", corpus__digest="f", corpus__synthetic=True, profile="superb")
    own = vary(a_record, corpus__name="mine", corpus__digest="m", profile="superb")
    official = vary(a_record, corpus__name="Speech Commands v0.01", profile="superb", corpus__official=True)
    other = vary(official, corpus__name="LibriSpeech", task="pr")
    write_records(tmp_path, a_record, synthetic, lying, own, official, other)
    titles = [table.title for table in build.collect(tmp_path)[0]]
    assert len(titles) == 5, "official corpora share a table, others never do"
    (superb,) = [title for title in titles if "official SUPERB protocol" in title]
    assert superb.startswith("official corpora")
    assert all("not SUPERB" in title for title in titles if title is not superb)
    assert any("synthetic speech" in title for title in titles)


def test_cells_that_differ_from_their_column_are_marked(a_record: RunRecord, tmp_path: Path) -> None:
    peers = [vary(a_record, upstream__address=f"peer{k}") for k in range(3)]
    other_data = vary(a_record, upstream__address="data", corpus__digest="other")
    other_recipe = vary(a_record, upstream__address="recipe", recipe_digest="other")
    command = "superb-eval run ks -u free -o train.lr=1 -o head.projector_dim=9"
    free = vary(a_record, upstream__address="free", command=command)
    later = vary(a_record, upstream__address="peer0", started="2026-02-01T00:00:00+00:00", metrics__value=50.0)
    outdated = vary(a_record, upstream__address="outdated", code="engine 1, ks 0")
    write_records(tmp_path, *peers, other_data, other_recipe, free, later, outdated)
    (table,), _ = build.collect(tmp_path)
    marks = {row.name: row.cells["ks", "acc"].marks for row in table.rows}
    assert marks == {"peer0": "*", "peer1": "", "peer2": "", "data": "§", "recipe": "‡", "free": "¶", "outdated": "‖"}
    assert "50.00" in markdown(table), "the latest run is shown"
    notes = " ".join(table.notes)
    assert all(mark in notes for mark in "*§‡‖") and "¶ a changed recipe (free KS: head.projector_dim)" in notes


def test_a_row_of_two_encoders_of_one_name_is_marked(a_record: RunRecord, tmp_path: Path) -> None:
    """The released pair was replaced under its names: a folder that began before would mix both in one row."""
    early, late = {"started": "2026-01-01T00:00:00+00:00"}, {"started": "2026-02-01T00:00:00+00:00"}
    now, before = {"upstream__identity": {"weights": "b"}}, {"upstream__identity": {"weights": "a"}}
    runs = [
        vary(a_record, task="ks", code="engine 1, ks 1", **late, **now),
        vary(a_record, task="pr", code="engine 1, pr 1", **early, **before),
        vary(a_record, task="qbe", code="engine 1, qbe 1", **early, **now),
        vary(a_record, task="asr", code="engine 1, asr 1", **early, upstream__parameters=1),
        vary(a_record, task="sf", code="engine 1, sf 1", **early),
    ]
    (table,), _ = build.collect(write_records(tmp_path, *runs))
    ((row),) = table.rows
    marks = {task: cell.marks for (task, _), cell in row.cells.items() if task}
    assert marks == {"ks": "", "pr": "◊", "qbe": "", "asr": "◊", "sf": ""}
    assert any("other weights than the newest run of its row" in note for note in table.notes)


def test_what_is_not_above_chance_is_neither_ranked_nor_counted(tmp_path: Path) -> None:
    """Chance of `answers` is 50 %. A table once praised "best in 12 of 12 metrics" with five tasks at chance."""
    for upstream, right, seed in (("good", 0.75, 1), ("random", 0.5, 2)):
        write_run(tmp_path, new_record(upstream, "ks"), answers(right, seed))
        write_run(tmp_path, new_record(upstream, "sid"), answers(0.5, seed))
    (table,), _ = build.collect(tmp_path)
    cells = {(row.name, task): row.cells[task, "acc"] for row in table.rows for task in ("ks", "sid")}
    assert {key: cell.at_chance for key, cell in cells.items()} == {
        ("good", "ks"): False,
        ("random", "ks"): True,
        ("good", "sid"): True,
        ("random", "sid"): True,
    }
    assert all(cell.rank == "" for cell in cells.values()), "alone above chance, a figure is compared with nothing"
    text = markdown(table)
    assert "| **" not in text and f"{cells['random', 'ks'].value:.2f}°" in text
    assert "° not above chance: the interval includes what a constant or random answer scores; unranked." in text


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        build.collect(tmp_path)
    with pytest.raises(UserError, match="no such results folder"):
        build.collect(tmp_path / "absent")


def test_differences_are_paired_and_marked(tmp_path: Path) -> None:
    for upstream, right, seed in (("good", 0.75, 1), ("alike", 0.75, 2), ("poor", 0.5, 3)):
        write_run(tmp_path, new_record(upstream, "ks"), answers(right, seed))
    (table,), problems = build.collect(tmp_path, TableOptions(against="poor"))
    assert problems == []
    good, alike, poor = (table.cell(name, ("ks", "acc")) for name in ("good", "alike", "poor"))
    assert good and alike and poor and good.difference and alike.difference
    assert poor.difference is None
    assert good.difference.value == pytest.approx(good.value - poor.value)
    assert good.difference.distinguishable and good.difference.over == "300 utterances"
    hits = np.array([[row.truth == row.answer for row in answers(*which)] for which in ((0.75, 1), (0.5, 3))], float)
    half = 100 * 1.96 * np.std(hits[0] - hits[1], ddof=1) / np.sqrt(300)
    half = np.hypot(half, 2.04 * np.sqrt(2 * 0.5**2))
    assert good.difference.high - good.difference.low == pytest.approx(2 * half, rel=0.08), "the normal paired one"
    assert (good.rank, alike.rank, poor.rank) == ("tied", "tied", "")
    assert "≠" in markdown(table) and f"**{good.value:.2f}=**" in markdown(table)
    (other,), _ = build.collect(tmp_path, TableOptions(against="good"))
    row = other.cell("alike", ("ks", "acc"))
    assert row and row.difference and not row.difference.distinguishable


def test_a_difference_without_ends_is_not_tested() -> None:
    unknown = Difference(1.5, math.nan, math.nan, "9 trials")
    assert not unknown.distinguishable and not unknown.tested
    column = Column(("asv", "eer"), "EER", "%", higher_is_better=False)
    cell = Cell(12.0, difference=unknown)
    assert cell.texts(column) == ("12.00", "", "Δ +1.50")
    table = ResultTable("title", (column,), (Row("one", cells={column.key: cell}),), ())
    (row,) = json.loads(tabular.as_json([table]))["tables"][0]["figures"]
    assert (row["difference"], row["difference_low"], row["distinguishable"]) == (1.5, None, None)
    for p, differs in ((0.049, True), (0.05, False), (1.0, False), (None, False)):
        assert Difference(1.0, 0.1, 2.0, "9 trials", p).distinguishable == differs


def test_the_reference_comes_first_and_the_others_by_size(tmp_path: Path) -> None:
    for name, size in (("small", 1), ("b", 5), ("a", 5), ("large", 9), ("none", 0)):
        write_run(tmp_path, vary(new_record(name, "ks"), upstream__parameters=size * 10**6), answers(0.6, size))
    by_reference = [build.collect(tmp_path, TableOptions(against=name))[0][0].rows for name in (None, "small")]
    names = [[row.name for row in rows] for rows in by_reference]
    assert names == [["large", "a", "b", "small", "none"], ["small", "large", "a", "b", "none"]]


def test_cross_validated_tasks_are_compared_fold_by_fold(tmp_path: Path) -> None:
    for upstream, seed in (("a", 1), ("b", 2)):
        rows = [row._replace(fold=1 + i % 5) for i, row in enumerate(answers(0.6, seed))]
        write_run(tmp_path, new_record(upstream, "er"), rows)
    (table,), _ = build.collect(tmp_path, TableOptions(against="a"))
    cell = table.cell("b", ("er", "acc"))
    assert cell and cell.difference and cell.difference.over == "5 folds"


def test_other_test_units_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, new_record("a", "ks"), answers(0.6, 1))
    write_run(tmp_path, vary(new_record("b", "ks"), corpus__digest="other"), answers(0.9, 2, count=200))
    (table,), _ = build.collect(tmp_path, TableOptions(against="a"))
    cell = table.cell("b", ("ks", "acc"))
    assert cell and cell.difference is None


def test_seeds_are_averaged_and_their_spread_stated(tmp_path: Path) -> None:
    for seed, right in enumerate((0.55, 0.6, 0.65)):
        write_run(tmp_path, vary(new_record("a", "ks"), seed=seed), answers(right, seed))
    (table,), _ = build.collect(tmp_path)
    cell = table.cell("a", ("ks", "acc"))
    assert cell and cell.seeds == 3 and cell.spread and cell.low and cell.high
    assert cell.low < cell.value < cell.high
    assert f"± {cell.spread:.2f} (3 seeds)" in markdown(table)
    assert any("Seeds behind a cell: 3; of several, the mean" in note for note in table.notes)


def test_without_a_training_variance_nothing_is_distinguishable(tmp_path: Path) -> None:
    for upstream, right, seed in (("good", 0.9, 1), ("poor", 0.3, 3)):
        write_run(tmp_path, new_record(upstream, "ks"), answers(right, seed))
    with known_training(None):
        (table,), _ = build.collect(tmp_path, TableOptions(against="poor"))
    good = table.cell("good", ("ks", "acc"))
    assert good and good.difference and good.difference.low > 0 and not good.difference.distinguishable
    assert good.training is None and good.rank == ""
    assert markdown(table).count("?") and "≠" not in markdown(table).splitlines()[4]
    assert any("Training variance unknown: KS: one seed" in note for note in table.notes)
    for upstream, right, seed in (("good", 0.88, 11), ("poor", 0.31, 13)):
        write_run(tmp_path, vary(new_record(upstream, "ks"), seed=1), answers(right, seed))
    with known_training(None):
        (table,), _ = build.collect(tmp_path, TableOptions(against="poor"))
    good = table.cell("good", ("ks", "acc"))
    assert good and good.difference and good.difference.p is not None, "two seeds measure it"


def test_a_rows_metrics_are_tested_as_a_family(tmp_path: Path) -> None:
    """Two differences that are told apart one by one, at about 4 %, are not in a family of two."""
    rows = answers(0.6, 1)
    right = [i for i, row in enumerate(rows) if row.answer == row.truth][:4]
    worse = [row._replace(answer="wrong") if i in right else row for i, row in enumerate(rows)]
    for task in ("ks", "sid"):
        write_run(tmp_path, new_record("a", task), rows)
        write_run(tmp_path, new_record("b", task), worse)
    with known_training(training_spread.TrainingSpread(0.0, 0.0, 99.0, "made up")):
        (table,), _ = build.collect(tmp_path, TableOptions(against="a"))
    cells = [table.cell("b", (task, "acc")) for task in ("ks", "sid")]
    differences = [cell.difference for cell in cells if cell and cell.difference]
    assert len(differences) == 2 and all(d.high < 0 and d.p and d.p > 0.05 for d in differences)
    assert any("(Holm)" in note for note in table.notes)


def test_overall_figures_need_all_ten_tasks(complete: Path, tmp_path: Path) -> None:
    (table,), problems = build.collect(complete, TableOptions(against="hubert"))
    assert problems == []
    score, retained = table.cell("distilhubert", ("", "superb_s")), table.cell("distilhubert", ("", "retained_mean"))
    mean, whole = (table.cell(name, ("", "mean")) for name in ("distilhubert", "hubert"))
    assert score and retained and mean and whole
    assert score.low is not None and score.high is not None and score.low < score.value < score.high
    assert retained.value == pytest.approx(100 * mean.value / whole.value)
    assert (
        retained.low is not None and retained.high is not None and retained.low < retained.value < retained.high < 100
    )
    difference = score.difference
    assert difference and difference.distinguishable and difference.high - difference.low < 2 * (score.high - score.low)
    assert (mean.difference or difference).value == pytest.approx(mean.value - whole.value)
    assert whole.difference is None
    ten_tasks(tmp_path, "hubert", 0.1, 1)
    (elsewhere,), _ = build.collect(tmp_path)
    assert elsewhere.cell("hubert", ("", "mean")) and not elsewhere.cell("hubert", ("", "superb_s"))
    for path in tmp_path.glob("hubert/sd/*/result.json"):
        path.unlink()
    (lacking,), _ = build.collect(tmp_path)
    assert not lacking.cell("hubert", ("", "mean")), "never averaged around"


def test_overall_differences_are_those_of_the_parts_resampled_together(complete: Path) -> None:
    """Errors of tasks are independent: the variances of their paired differences add up."""
    (table,), _ = build.collect(complete, TableOptions(against="hubert"))
    mean = table.cell("distilhubert", ("", "mean"))
    assert mean and mean.difference
    halves = []
    for metric in overall.METRICS:
        cell = table.cell("distilhubert", metric)
        assert cell and cell.difference
        halves.append((cell.difference.high - cell.difference.low) / 2)
    expected = np.sqrt(np.sum(np.square(halves))) / len(halves)
    assert (mean.difference.high - mean.difference.low) / 2 == pytest.approx(expected, rel=0.25)


def test_overall_figures_of_other_test_units_have_no_paired_difference(complete: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(complete, tmp_path / "other")
    (path,) = folder.glob("distilhubert/ks/*/predictions.csv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    (table,), _ = build.collect(folder, TableOptions(against="hubert"))
    score, retained = (table.cell("distilhubert", ("", key)) for key in ("superb_s", "retained_superb_s"))
    assert score and score.low is not None and score.difference is None
    assert retained and retained.low is None, "the share stands without an interval"


def test_published_rows_stand_apart(complete: Path, tmp_path: Path) -> None:
    (together,), _ = build.collect(complete, TableOptions("historical", "hubert_base", ("hubert_base", "distilhubert")))
    row = next(row for row in together.rows if row.name == "HuBERT Base")
    assert row.published and "leaderboard" in row.source
    assert "*HuBERT Base†*" in markdown(together) and r"\textit{HuBERT Base\dag{}}" in latex(together)
    assert together.reference == "HuBERT Base"
    theirs, ours = (together.cell(name, ("", "superb_s")) for name in ("HuBERT Base", "hubert"))
    retained = together.cell("hubert", ("", "retained_superb_s"))
    assert theirs and theirs.value == pytest.approx(941, abs=1) and ours and ours.low and ours.difference and retained
    assert ours.difference.value == pytest.approx(ours.value - theirs.value) and not ours.difference.tested
    assert retained.value == pytest.approx(100 * ours.value / theirs.value)
    measured = together.cell("hubert", ("ks", "acc"))
    assert measured and measured.difference and "≠" not in measured.texts(together.columns[0])[2]
    write_run(tmp_path, new_record("mine", "ks"), answers(0.6, 1))
    tables, _ = build.collect(tmp_path, TableOptions(published=("distilhubert",)))
    assert [any(row.published for row in table.rows) for table in tables] == [False, True]
    namesake = shutil.copytree(complete, tmp_path / "namesake")
    for path in namesake.glob("hubert/*/*/result.json"):
        path.write_text(path.read_text().replace('"address": "hubert"', '"address": "hubert_base"'))
    (both,), _ = build.collect(namesake, TableOptions("historical", "hubert_base", ("distilhubert", "hubert_base")))
    theirs, ours = both.cell("HuBERT Base", ("ks", "acc")), both.cell("distilhubert", ("ks", "acc"))
    assert both.reference == "hubert_base" and theirs and theirs.difference is None, "the measured one is meant"
    assert ours and ours.difference and ours.difference.tested
    assert "not comparable" in tables[1].title


def test_published_rows_alone_give_their_scores(tmp_path: Path) -> None:
    options = TableOptions(against="hubert_base", published=("all",))
    (table,), _ = build.collect(tmp_path / "none", options)
    assert len(table.rows) == 48
    for name, score in (("HuBERT Base", 941), ("DistilHuBERT", 717), ("FBANK (leaderboard re-run)", 0)):
        cell = table.cell(name, ("", "superb_s"))
        assert cell and cell.value == pytest.approx(score, abs=1)
    distil = table.cell("DistilHuBERT", ("", "superb_s"))
    assert distil and distil.texts(totals.SUPERB_S) == ("717.4", "", "Δ -223.7"), "no test against chance"
    er = table.cell("DistilHuBERT", ("er", "acc"))
    assert er and er.difference and not er.difference.distinguishable
    assert "Δ -1.89 [-5.65, 1.86] ≈" in shown(table)
    assert not table.cell("LightHuBERT a_base", ("", "superb_s")), "tasks are missing"
    assert any("LightHuBERT a_base (not verified)" in note for note in table.notes)


def test_ranking_what_can_not_be_ranked_is_refused(complete: Path, tmp_path: Path) -> None:
    write_run(tmp_path, new_record("mine", "ks"), answers(0.6, 1))
    with pytest.raises(UserError, match=r"official corpora.*runs here on pack, profile mini.*can't be ranked"):
        build.collect(tmp_path, TableOptions(against="hubert_base", published=("hubert_base",)))
    with pytest.raises(UserError, match="Add --historical"):
        build.collect(complete, TableOptions(against="hubert_base", published=("hubert_base",)))
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        build.collect(tmp_path, TableOptions(against="mien"))
    with pytest.raises(UserError, match=r"can't be ranked.*Without --against, --published hubert_base shows"):
        build.collect(tmp_path, TableOptions(against="hubert_base"))
    with pytest.raises(UserError, match="Add --published hubert_base"):
        build.collect(complete, TableOptions("historical", against="hubert_base"))
    with pytest.raises(UserError, match="Its rows: mine. Run it on the same data to have one"):
        build.collect(tmp_path, TableOptions(against="s3prl:apc"))


def test_a_reference_may_be_typed_as_it_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checkpoint:enc/my.pt", "hf:folder", "other"):
        write_run(tmp_path, new_record(name, "ks"), answers(0.6, 1))
    for typed, name in (("./enc/my.pt", "checkpoint:enc/my.pt"), ("folder/", "hf:folder"), ("other", "other")):
        assert build.collect(tmp_path, TableOptions(against=typed))[0][0].reference == name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc/my.pt").touch()
    absolute = TableOptions(against=str(tmp_path / "enc/my.pt"))
    assert build.collect(tmp_path, absolute)[0][0].reference == "checkpoint:enc/my.pt", "relative in the record"


def test_seeds_that_are_all_right_have_the_interval_of_one(tmp_path: Path) -> None:
    """The bootstrap of their mean has no width, which is its limit and no certainty."""
    for seed in (0, 1):
        write_run(tmp_path, vary(new_record("mine", "ks"), seed=seed), answers(1.0, 0, count=12))
    cell = build.collect(tmp_path)[0][0].cell("mine", ("ks", "acc"))
    (metric,) = open_results(tmp_path).runs[0].metrics("strict")
    assert cell and (cell.value, cell.high) == (100.0, 100.0) and metric.low < 80
    assert cell.low == pytest.approx(metric.low, abs=0.1), "the variance of training adds a little"


def test_historical_figures_are_shown_only_with_that_option(a_record: RunRecord, tmp_path: Path) -> None:
    content = a_record.model_dump()
    content["metrics"].append({**content["metrics"][0], "protocol": "historical", "value": 60.0})
    write_records(tmp_path, RunRecord.model_validate(content))
    strict, historical = (build.collect(tmp_path, TableOptions(p))[0][0] for p in ("strict", "historical"))  # type: ignore[arg-type]
    assert "60.00" not in markdown(strict) and "strict figures" in strict.title
    assert "60.00" in markdown(historical) and "historical figures" in historical.title


def test_costs_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    for upstream in ("teacher", "student"):
        write_run(tmp_path, new_record(upstream, "ks"), answers(0.6, 1))
    cost = {"teacher": {"gmacs_per_second": 7.0, "real_time_factor": 0.02}, "student": {"real_time_factor": 0.01}}
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    (table,), problems = build.collect(tmp_path, TableOptions(against="teacher"))
    assert problems == [], "the file of costs is expected"
    speed = table.cell("student", ("", "speed_up"))
    assert speed and speed.value == 2.0
    assert table.cell("student", ("", "gmacs_per_second")) is None, "a gap stays a gap"
    (tmp_path / "cost.json").write_text("[1]")
    (table,), (problem,) = build.collect(tmp_path)
    assert (
        "cost.json: not what `superb-eval cost` writes" in problem and table.cell("student", ("", "speed_up")) is None
    )


def test_intervals_are_for_new_speakers_or_for_these(tmp_path: Path) -> None:
    """Speakers who are easy or hard throughout: new ones vary more than further utterances of these."""
    for upstream, right in (("a", 20), ("b", 16)):
        rows = [
            row._replace(answer=row.truth if (i // 10) % 30 < right else "wrong", speaker=f"s{i // 10}")
            for i, row in enumerate(answers(0.5, 1))
        ]
        noisy = [row._replace(answer="wrong") if i % 10 == 0 else row for i, row in enumerate(rows)]
        write_run(tmp_path, new_record(upstream, "ks"), noisy)
    new, these = (
        build.collect(tmp_path, TableOptions(against="a", population=of))[0][0] for of in (NEW_SPEAKERS, THESE_SPEAKERS)
    )
    wide, narrow = (table.cell("b", ("ks", "acc")) for table in (new, these))
    assert wide and narrow and wide.low and wide.high and narrow.low and narrow.high and wide.difference
    assert (wide.population, narrow.population) == (NEW_SPEAKERS, THESE_SPEAKERS)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low) and wide.difference.over == "30 speakers"
    assert any("KS: new speakers" in note for note in new.notes)
    assert any("KS: these speakers" in note for note in these.notes)


def test_tasks_and_order_of_rows_can_be_chosen(complete: Path) -> None:
    (every,), _ = build.collect(complete, TableOptions())
    (few,), _ = build.collect(complete, TableOptions(tasks=("ks", "asr")))
    assert {column.key[0] for column in few.columns} == {"", "ks", "asr"}
    assert all(column.heading != "mean" for column in few.columns), "a mean of some tasks is no mean of SUPERB's"
    for sort, key in (("ks", ("ks", "acc")), ("asr", ("asr", "wer")), ("ASR CER", ("asr", "cer"))):
        (table,), _ = build.collect(complete, TableOptions(sort=sort))
        values = [row.cells[key].value for row in table.rows if key in row.cells]
        assert values == sorted(values, reverse=key[0] == "ks") and len(table.rows) == len(every.rows)
    with pytest.raises(UserError, match="--sort kss: the table has no such column. Its columns: .*, ks acc,"):
        build.collect(complete, TableOptions(sort="kss"))
    with pytest.raises(UserError, match="--tasks kss: no run of it. Did you mean 'ks'"):
        build.collect(complete, TableOptions(tasks=("kss",)))
