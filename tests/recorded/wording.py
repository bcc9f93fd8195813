"""What templates call: tables, figures and sentences made of a recorded set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from superb_eval.results.table.result_table import Column
from tests.recorded import recorded_set
from tests.recorded.grids import grid, listed
from tests.recorded.recorded_set import RecordedSet, Values

Outcome = Literal["better", "worse", "inconclusive", "untested"]

VERDICTS: Mapping[Outcome, tuple[str, str]] = {
    "better": ("ahead of", "ahead"),
    "worse": ("behind", "behind"),
    "inconclusive": ("not distinguishable from", "inconclusive"),
    "untested": ("not tested against", "not tested, since the variance of training is unknown,"),
}
"""How sentences put the outcome of a test, of one metric and of several."""

COUNTS = {"1": "one core", "2": "two cores", "4": "four cores", "8": "eight cores"}


@dataclass(frozen=True)
class Figures:
    """A recorded set as documents cite it. Upstreams are named as in the set, metrics `pr.per` or `mean`."""

    recorded: RecordedSet

    def table(self, rows: Mapping[str, str], metrics: Sequence[str] = ()) -> str:
        """Return a table of upstreams down and metrics across; `rows` are labels by upstream.

        `metrics`: those shown; none: the first of each task that every row has, and no others.
        """
        metrics = metrics or self._firsts(rows)
        cells = [[self._interval(self.recorded.find(name, metric)) for metric in metrics] for name in rows]
        heading = ["", *map(self._heading, metrics)]
        return grid(heading, [[label, *row] for label, row in zip(rows.values(), cells, strict=True)])

    def by_task(self, upstreams: Sequence[str]) -> str:
        """Return a table of all metrics down, with chance, and upstreams across."""
        rows, seen = [], set[str]()
        for metric in self.recorded.metrics:
            task = metric.partition(".")[0]
            chance = next(run["chance"] for run in self.recorded.runs if run["task"] == task)
            start = ["", "", ""] if task in seen else [task.upper(), "", f"{float(chance):.1f}"]
            start[1] = self._heading(metric).partition(" ")[2]
            rows.append([*start, *(self._interval(self.recorded.find(name, metric)) for name in upstreams)])
            seen.add(task)
        return grid(["task", "metric", "chance", *(f"`{name}`" for name in upstreams)], rows, left=2)

    def means(self, rows: Mapping[str, str], references: Mapping[str, str]) -> str:
        """Return a table of the means, and of their differences; `references` are headings by upstream."""
        lines = []
        for name, label in rows.items():
            differences = ["" if name == other else self.difference(name, other) for other in references]
            lines.append([label, self.figure(name), *differences])
        return grid(["", "mean", *references.values()], lines)

    def figure(self, upstream: str, metric: str = "mean") -> str:
        """Return a figure with its interval, such as `76.9 [75.0, 78.8]`."""
        return self._interval(self.recorded.cell(upstream, metric))

    def difference(self, upstream: str, reference: str, metric: str = "mean") -> str:
        """Return a difference with its interval, such as `+2.5 [0.6, 4.5]`."""
        cell = self.recorded.cell(upstream, metric, reference)
        return f"{float(cell['difference']):+.1f} {_brackets(cell['difference_low'], cell['difference_high'])}"

    def retained(self, upstream: str, reference: str) -> str:
        """Return the % of the reference's mean that is retained."""
        return f"{float(self.recorded.cell(upstream, 'retained_mean', reference)['value']):.0f} %"

    def weights(self, upstream: str, reference: str) -> str:
        """Return an upstream's number of weights in % of another's."""
        own, other = (float(self.recorded.cell(name, "parameters_m")["value"]) for name in (upstream, reference))
        return f"{100 * own / other:.0f} %"

    def verdict(self, upstream: str, reference: str, metric: str = "mean") -> str:
        """Return `ahead of`, `behind`, `not distinguishable from` or `not tested against`, by the recorded test."""
        return VERDICTS[self._outcome(upstream, reference, metric)][0]

    def tasks(self, upstream: str, reference: str) -> str:
        """Return in which tasks an upstream is ahead of another, behind, and neither: of those that both have."""
        compared = [m for m in self.recorded.metrics if self.recorded.find(upstream, m, reference)]
        outcomes = {metric: self._outcome(upstream, reference, metric) for metric in compared}
        parts = {outcome: [m for m in compared if outcomes[m] == outcome] for outcome in VERDICTS}
        if compared in parts.values():
            return f"{VERDICTS[outcomes[compared[0]]][1]} in every task"
        named = {outcome: listed(self._named(metrics, compared)) for outcome, metrics in parts.items() if metrics}
        return "; ".join(f"{VERDICTS[outcome][1]} in {names}" for outcome, names in named.items())

    def provenance(self, rows: Iterable[str], tasks: Iterable[str] = ()) -> str:
        """Return what the runs of some rows ran on: commit, seeds, processor, versions; and changed settings."""
        runs = self._runs(rows, tasks)
        where = sorted({f"{COUNTS.get(r['cores'], r['cores'] + ' cores')} of {_machine(r)}" for r in runs})
        versions = sorted({f"torch {_minor(r['torch'])} and Python {_minor(r['python'])}" for r in runs})
        commits = sorted({run["commit"][:7] for run in runs})
        plural = "commits" if len(commits) > 1 else "commit"
        text = f"Recorded at {plural} {listed(commits)}, {self._seeds(runs)}, on {listed(where)}, {listed(versions)}."
        changed = {f"{task_name(r['task'])} `{r['overrides']}`": None for r in runs if r["overrides"]}
        return text + (f" Changed settings: {', '.join(changed)}." if changed else "")

    def shared(self, rows: Iterable[str]) -> list[str]:
        """Return the tasks of which every row has a figure."""
        return [metric.partition(".")[0] for metric in self._firsts(rows)]

    def seconds(self, tasks: Iterable[str]) -> str:
        """Return how long training and test of a run took, of the task's means the least and the most."""
        times = [[float(r["training_s"]) for r in self.recorded.runs if r["task"] == task] for task in tasks]
        means = [sum(part) / len(part) for part in times]
        return f"{min(means):.0f} to {max(means):.0f}"

    def _outcome(self, upstream: str, reference: str, metric: str) -> Outcome:
        cell = self.recorded.cell(upstream, metric, reference)
        if cell["distinguishable"] != "True":
            return "inconclusive" if cell["distinguishable"] else "untested"
        higher_is_better = self.recorded.cell(upstream, metric)["higher_is_better"] == "True"
        return "better" if (float(cell["difference"]) > 0) == higher_is_better else "worse"

    def _named(self, metrics: Sequence[str], compared: Sequence[str]) -> list[str]:
        """Return the tasks of metrics; with the metric where not all of a task's are among them."""
        names = dict[str, None]()
        for metric in metrics:
            task, _, key = metric.partition(".")
            whole = all(other in metrics for other in compared if other.startswith(f"{task}."))
            names[task_name(task) if whole else f"{task_name(task)} ({key.upper()})"] = None
        return list(names)

    def _firsts(self, rows: Iterable[str]) -> list[str]:
        names, firsts = list(rows), dict[str, str]()
        for metric in self.recorded.metrics:
            firsts.setdefault(metric.partition(".")[0], metric)
        return [m for m in firsts.values() if all(self.recorded.find(name, m) for name in names)]

    def _heading(self, metric: str) -> str:
        cell = self.recorded.metrics[metric]
        column = Column((cell["task"], cell["metric"]), cell["metric"].upper(), "", cell["higher_is_better"] == "True")
        return column.title()

    def _interval(self, cell: Values | None) -> str:
        if cell is None:
            return ""
        return f"{float(cell['value']):.1f} {_brackets(cell['low'], cell['high'])}".rstrip()

    def _runs(self, rows: Iterable[str], tasks: Iterable[str]) -> list[Values]:
        names, wanted = set(rows), set(tasks)
        return [r for r in self.recorded.runs if r["upstream"] in names and (not wanted or r["task"] in wanted)]

    def _seeds(self, runs: Sequence[Values]) -> str:
        """The seeds of most rows, and those of the others by name."""
        found: dict[tuple[str, str], list[int]] = {}
        for run in runs:
            found.setdefault((run["upstream"], run["task"]), []).append(int(run["seed"]))
        texts = {key: _span(seeds) for key, seeds in found.items()}
        most = Counter(texts.values()).most_common(1)[0][0]
        others: dict[str, list[str]] = {}
        for (upstream, task), text in texts.items():
            if text != most:
                others.setdefault(f"`{upstream}` {text}", []).append(task)
        whole = len({task for _, task in texts})
        more = [
            name if len(tasks) == whole else f"{name} in {listed(map(task_name, tasks))}"
            for name, tasks in others.items()
        ]
        return most + (f" ({'; '.join(more)})" if more else "")


def task_name(task: str) -> str:
    """Return a task's name in a sentence."""
    return "QbE" if task == "qbe" else task.upper()


def figures(name: str) -> Figures:
    """Return a recorded set for templates."""
    return Figures(recorded_set.read(name))


def _brackets(low: str, high: str) -> str:
    return f"[{float(low):.1f}, {float(high):.1f}]" if low and high else ""


def _machine(run: Values) -> str:
    article = "an" if run["processor"][:1] in "AEIOU" else "a"
    return f"{article} {run['processor']} ({run['capability']})"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _span(seeds: Sequence[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) == 1:
        return f"seed {ordered[0]}"
    whole = ordered == list(range(ordered[0], ordered[-1] + 1))
    return f"seeds {ordered[0]} to {ordered[-1]}" if whole else f"seeds {listed(map(str, ordered))}"
