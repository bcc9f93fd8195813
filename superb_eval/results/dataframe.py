"""Every figure of a results folder as a tidy table: a row for each run, metric and protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from superb_eval.results.folder import Run, open_results
from superb_eval.results.record import MetricRecord
from superb_eval.results.stats import training_spread

if TYPE_CHECKING:
    from pandas import DataFrame


def load_results(folder: str | Path) -> DataFrame:
    """Return every figure of every finished run under `folder`, a row each.

    `shown`: whether the tables show the run: the newest of its seed, of the upstream's newest recipe, data and
    weights. `frame.attrs["left_out"]` lists, a sentence each, the folder's entries that can't be read.

        >>> frame = superb_eval.load_results("results")
        >>> frame[frame.shown].pivot_table("value", "upstream", ["task", "metric"])

    Raises:
        UserError: there is no such folder.
    """
    import pandas as pd

    results = open_results(Path(folder))
    rows = [
        _row(run, metric, first=metric.key == run.record.metrics[0].key, shown=run.folder in results.shown)
        for run in results.finished
        for metric in run.record.metrics
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["left_out"] = results.left_out
    return frame


COLUMNS = {
    "upstream": "its address",
    "task": "short name",
    "metric": "key of the metric",
    "value": "the figure, in its unit",
    "low": "lower end of its 95 % interval, the variance of training included where it is known",
    "high": "upper end",
    "population": "what the interval is for: new speakers, these speakers or new units",
    "training_sd": "standard deviation between trainings that the interval includes; missing: unknown",
    "unit": "% or x100",
    "higher_is_better": "direction",
    "chance": "of the task's first metric",
    "n": "test units: utterances, trials, queries or recordings",
    "seed": "of the run",
    "limit": "of a try, its --limit; missing: all utterances",
    "protocol": "strict or historical",
    "profile": "superb, mini or nano",
    "corpus": "name of the corpus",
    "synthetic": "generated speech",
    "official": "the complete official corpus",
    "shown": "whether tables show this run",
    "parameters": "of the upstream",
    "interval": "how the interval was made",
    "fingerprint": "SHA-256 of the upstream",
    "corpus_digest": "SHA-256 of rows and audio",
    "recipe_digest": "SHA-256 of the recipe",
    "code": "versions of the engine and of the task",
    "schema": "version of the record",
    "started": "when, UTC",
    "command": "repeats the run",
    "path": "folder of the run",
}
"""Columns of the frame and what they hold."""


def _row(run: Run, metric: MetricRecord, first: bool, shown: bool) -> dict[str, Any]:
    record = run.record
    spread = training_spread.of_metric(record, metric)
    ends = training_spread.widened(record, metric)
    values = (
        record.upstream.address,
        record.task,
        metric.key,
        metric.value,
        *ends,
        metric.population,
        None if spread is None else spread.sd,
        metric.unit,
        metric.higher_is_better,
        record.chance if first else None,
        metric.units,
        record.seed,
        record.limit,
        metric.protocol,
        record.profile,
        record.corpus.name,
        record.corpus.synthetic,
        record.corpus.official,
        shown,
        record.upstream.parameters,
        metric.method,
        record.upstream.fingerprint,
        record.corpus.digest,
        record.recipe_digest,
        record.code,
        record.schema_version,
        record.started,
        record.command,
        str(run.folder),
    )
    return dict(zip(COLUMNS, values, strict=True))
