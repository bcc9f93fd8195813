"""How far figures move between seeds, and whether intervals allow for it: read from a study of several seeds.

    superb-eval suite -u fbank_nonorm,hubert_mini@random,hubert_mini,distilhubert_mini --tasks all --profile mini \\
        --data corpus --out study --seeds 5
    python -m tests.benchmarks.seeds study --source docs/intervals.md --write

`--write` puts the spreads into `recipes/training_spread.csv`, in place of those of the same profile. Coverage is judged
with the spread of the *other* upstreams, as for an encoder that the study has not seen. `--beside SET.runs.csv`
compares the runs with recorded ones of the same seeds on another processor, by the intervals of `verify --again`.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations, product
from pathlib import Path
from statistics import fmean
from statistics import variance as sample_variance
from typing import Annotated, NamedTuple

import typer

from downstreams import registry
from downstreams.base import SearchTask
from superb_eval import recipe
from superb_eval.results.folder import Run, RunGroup, open_results
from superb_eval.results.stats import training_spread
from superb_eval.results.stats.paired_comparison import PairedComparison
from superb_eval.results.stats.training_spread import NAME, TrainingSpread, Variance
from superb_eval.results.verify_reruns import ROUNDING, prediction_half_width
from superb_eval.runtime import atomic_files

COLUMNS = (
    "profile",
    "task",
    "metric",
    "corpus",
    "recipe_digest",
    "sd",
    "seed_sd",
    "df",
    "seeds",
    "upstreams",
    "source",
)
"""Of the file of spreads; `training_spread` reads it."""

FEWEST = 3.0
"""Degrees of freedom at least: a spread differs between upstreams, but not without bounds."""


class Observed(NamedTuple):
    """One upstream's variances between seeds of a metric: beyond the test units, and all; with their degrees."""

    upstream: str
    beyond: float
    between: float
    df: int


Key = tuple[str, str]
"""(task, key of the metric)."""


def observe(groups: Mapping[tuple[str, str], RunGroup], comparison: PairedComparison) -> dict[Key, list[Observed]]:
    """Return what was observed of each metric, by upstream."""
    found: dict[Key, list[Observed]] = defaultdict(list)
    for (upstream, task), group in groups.items():
        if issubclass(registry.get(task), SearchTask) or len(group.runs) < 3:
            continue
        for metric in group.runs[0].metrics("strict"):
            singles = [single(run) for run in group.runs]
            draws = [d for one in singles if (d := comparison.draws(one, metric.key)) is not None]
            values = [comparison.value(one, metric.key) for one in singles]
            variances = training_spread.variances(values, draws)
            found[task, metric.key].append(Observed(upstream, *variances, len(values) - 1))
    return found


def pool(observed: Sequence[Observed], source: str) -> TrainingSpread:
    """Return the spread to expect of another upstream: the mean, with how well it predicts one (Smyth 2004)."""
    between = [o.between for o in observed]
    mean, total = fmean(between), sample_variance(between)
    differing = max(0.0, total - fmean(2 * o.between**2 / o.df for o in observed))
    df = 2 * mean**2 / (differing + total / len(observed)) if total > 0 else math.inf
    known = sum(o.df for o in observed)
    return TrainingSpread(
        math.sqrt(max(0.0, fmean(o.beyond for o in observed))),
        math.sqrt(mean),
        min(max(df, FEWEST), float(known)),
        source,
    )


class OneSeed(PairedComparison):
    """Compares single seeds of one upstream by the spread of the others."""

    def __init__(self, observed: Mapping[Key, Sequence[Observed]]) -> None:
        super().__init__("strict")
        self._observed = observed

    def spread(self, group: RunGroup, key: str) -> TrainingSpread | None:
        others = [
            o for o in self._observed.get((group.record.task, key), ()) if o.upstream != group.record.upstream.address
        ]
        return pool(others, "") if others else TrainingSpread(0.0, 0.0, math.inf, "")


def single(run: Run) -> RunGroup:
    """Return a group of one run."""
    return RunGroup((run,))


class Counts(NamedTuple):
    """Of the pairs of seeds of one system: how many lie in the other's interval, and how many are distinguishable."""

    inside: int
    ordered: int
    apart: int
    pairs: int


def count(group: RunGroup, key: str, comparison: PairedComparison) -> Counts:
    """Return the counts of one upstream on one metric."""
    runs = [single(run) for run in group.runs]
    inside = sum(_within(one, comparison.value(other, key), key, comparison) for one, other in permutations(runs, 2))
    apart = 0
    for one, other in combinations(runs, 2):
        difference = comparison.difference(one, other, key)
        apart += difference is not None and difference.distinguishable
    n = len(runs)
    return Counts(inside, n * (n - 1), apart, n * (n - 1) // 2)


def _within(one: RunGroup, value: float, key: str, comparison: PairedComparison) -> bool:
    metric = one.runs[0].metric(key, "strict")
    training = comparison.training(one, key) or Variance(0.0, math.inf)
    if metric is None:
        return False
    low, high = training_spread.widen(metric.value, (metric.low, metric.high), training)
    return low <= value <= high


def lines(groups: Mapping[tuple[str, str], RunGroup], observed: Mapping[Key, Sequence[Observed]]) -> Iterator[str]:
    """Yield a Markdown table of spreads and of how intervals allow for them."""
    comparison = OneSeed(observed)
    yield "| metric | sd between seeds, by upstream | beyond test units | df | in other's interval | distinct |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for task, key in sorted(observed, key=lambda k: registry.task_order(k[0])):
        spread = pool(observed[task, key], "")
        counts = [count(groups[o.upstream, task], key, comparison) for o in observed[task, key]]
        inside, ordered, apart, pairs = (sum(column) for column in zip(*counts, strict=True))
        each = ", ".join(f"{math.sqrt(o.between):.1f}" for o in observed[task, key])
        yield (
            f"| {task.upper()} {key} | {each} | {spread.sd:.2f} | {spread.df:.0f} | {inside} of {ordered} | "
            f"{apart} of {pairs} |"
        )


def beside(
    groups: Mapping[tuple[str, str], RunGroup], observed: Mapping[Key, Sequence[Observed]], path: Path
) -> Iterator[str]:
    """Yield the figures of recorded runs that leave the prediction interval of a second training, and the counts."""
    counts = Counter[str]()
    for row in csv.DictReader(path.read_text(encoding="utf8").splitlines()):
        address, task, seed = row["upstream"], row["task"], row["seed"]
        again = [run for group in groups.values() for run in group.runs if _is_again(run, row)]
        for run, (key, value) in product(again, (text.split("=") for text in row["figures"].split())):
            seen, metric = observed.get((task, key)), run.metric(key, "strict")
            half = prediction_half_width(pool(seen, "")) if seen else ROUNDING
            moved = math.inf if metric is None else metric.value - float(value)
            outcome = "equal" if abs(moved) < 1e-4 else "within" if abs(moved) <= half else "outside"
            counts[outcome] += 1
            if outcome == "outside":
                yield f"{address} {task} {key} seed {seed}: {value} moved by {moved:+.2f}, {half:.2f} are allowed"
    yield f"{path.name}: {counts.total()} figures: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items())


def _is_again(run: Run, row: Mapping[str, str]) -> bool:
    record = run.record
    what = (record.upstream.address, record.task, str(record.seed))
    digests = (record.recipe_digest, row["recipe_digest"]), (record.corpus.digest, row["corpus_digest"])
    same = (*digests, (record.upstream.fingerprint, row["fingerprint"]))
    return what == (row["upstream"], row["task"], row["seed"]) and all(own.startswith(text) for own, text in same)


def write(observed: Mapping[Key, Sequence[Observed]], groups: Mapping[tuple[str, str], RunGroup], source: str) -> Path:
    """Write the spreads, in place of those of the same profile and corpus."""
    path = recipe.folder() / NAME
    with path.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    record = next(iter(groups.values())).record
    rows = [row for row in rows if (row["profile"], row["corpus"]) != (record.profile, record.corpus.name)]
    for (task, key), seen in observed.items():
        spread, group = pool(seen, source), groups[seen[0].upstream, task]
        figures = (f"{spread.sd:.4f}", f"{spread.seed_sd:.4f}", f"{spread.df:.2f}")
        about = (record.profile, task, key, record.corpus.name, group.record.recipe_digest)
        seeds, upstreams = str(len(group.runs)), " ".join(o.upstream for o in seen)
        rows.append(dict(zip(COLUMNS, (*about, *figures, seeds, upstreams, source), strict=True)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["profile"], registry.task_order(row["task"]), row["metric"])))
    atomic_files.write_text(path, text.getvalue())
    return path


def main(
    study: Annotated[Path, typer.Argument(help="results folder with several seeds of several upstreams")],
    source: Annotated[str, typer.Option(help="where the study is described")] = "",
    save: Annotated[bool, typer.Option("--write", help=f"write recipes/{NAME}")] = False,
    recorded: Annotated[Path | None, typer.Option("--beside", help="SET.runs.csv of another processor")] = None,
) -> None:
    """Print how far figures move between seeds, and write it for the recipes to ship."""
    for groups in open_results(study).run_groups.values():
        observed = observe(groups, PairedComparison("strict"))
        print("\n".join(lines(groups, observed)), flush=True)
        if recorded:
            print("\n".join(beside(groups, observed, recorded)), flush=True)
        if save:
            print(write(observed, groups, source))


if __name__ == "__main__":
    typer.run(main)
