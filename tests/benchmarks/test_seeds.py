"""The study of seeds: what it observes, and how it compares with runs of another processor."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from superb_eval.results.folder import open_results
from superb_eval.results.stats.paired_comparison import PairedComparison
from tests.benchmarks import seeds
from tests.recorded import collecting
from tests.results.runs import answers, new_record, vary, write_run

ACC = ("ks", "acc")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three upstreams with three seeds each."""
    folder = tmp_path_factory.mktemp("study")
    for upstream, right in (("hubert", 0.8), ("wav2vec2", 0.7), ("fbank", 0.5)):
        for seed in range(3):
            write_run(folder, vary(new_record(upstream, "ks"), seed=seed), answers(right + 0.02 * seed, seed))
    return folder


def recorded(study: Path, path: Path, moved: float) -> Path:
    """The study's runs as a recorded set, their figures moved by so much."""
    rows = [collecting.run_row(run, "abcdef0", {}) for run in open_results(study).runs]
    rows = [{**row, "figures": f"acc={float(row['figures'].partition('=')[2]) - moved:.6g}"} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, collecting.RUN_FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_spread_is_observed_for_each_upstream(study: Path) -> None:
    (groups,) = open_results(study).run_groups.values()
    observed = seeds.observe(groups, PairedComparison("strict"))
    assert list(observed) == [ACC] and sorted(o.upstream for o in observed[ACC]) == ["fbank", "hubert", "wav2vec2"]
    assert all(o.df == 2 and o.between >= o.beyond for o in observed[ACC])
    (row,) = [line for line in seeds.lines(groups, observed) if line.startswith("| KS acc |")]
    assert row.endswith("of 18 | 0 of 9 |")


@pytest.mark.parametrize(("moved", "outcome"), [(0.0, "equal"), (0.05, "within"), (60.0, "outside")])
def test_runs_of_another_processor_are_counted(study: Path, tmp_path: Path, moved: float, outcome: str) -> None:
    (groups,) = open_results(study).run_groups.values()
    observed = seeds.observe(groups, PairedComparison("strict"))
    *outside, counts = seeds.beside(groups, observed, recorded(study, tmp_path / "set.runs.csv", moved))
    assert counts == f"set.runs.csv: 9 figures: 9 {outcome}"
    assert len(outside) == (9 if outcome == "outside" else 0)
