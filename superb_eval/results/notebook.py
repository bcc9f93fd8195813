"""Records as a table in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from superb_eval.results.record import RunRecord
from superb_eval.results.stats import chance, training_spread


class ShownRecord(RunRecord):
    """The record of a run; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        return html([self])


class RecordList(list[ShownRecord]):
    """The records of several runs; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        return html(self)


def html(records: Sequence[RunRecord]) -> str:
    """Return the figures of runs as a table, a row for each metric, all text escaped."""
    import pandas as pd

    rows = []
    for record in records:
        below = chance.of_record(record)
        for metric in record.metrics:
            low, high = training_spread.widened(record, metric)
            rows.append(
                {
                    "upstream": record.upstream.address,
                    "task": record.task,
                    "seed": record.seed,
                    "metric": f"{metric.heading} {metric.unit} {'↑' if metric.higher_is_better else '↓'}",
                    "protocol": metric.protocol,
                    "value": f"{metric.value:.2f}{'°' if below else ''}",
                    "95 % interval": f"{low:.2f} to {high:.2f}, {metric.population}",
                    "corpus": record.corpus.name + (" (synthetic)" if record.corpus.synthetic else ""),
                }
            )
    notes = ["° not above chance"] if any(chance.of_record(record) for record in records) else []
    notes += ["with --limit: a try on few utterances"] if any(record.limit is not None for record in records) else []
    notes += list(dict.fromkeys(text for record in records for text in [*record.corpus.leaks, *record.warnings]))
    table: str = pd.DataFrame(rows).to_html(index=False, border=0)
    return table + "".join(f"<p>{_escaped(note)}</p>" for note in notes)


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
