"""The summary of a new corpus: what it holds, what was decided, what was left out, and the commands that come next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from downstreams.text.vocabulary import ARPABET, LETTERS, Letters
from superb_eval.corpora.building.label_rows import LeftOut
from superb_eval.corpora.building.new_row import DIVIDED, NewRow
from superb_eval.corpora.building.request import CorpusRequest

COLUMNS = ("utterances", "hours", "speakers", "labels")


def summarise(
    kind: str, splits: Mapping[str, Sequence[NewRow]], decisions: Sequence[str], left_out: LeftOut, *, labels: bool
) -> dict[str, Any]:
    """Return the summary, as `corpus.json` stores it; `labels` states whether classes are labels to count."""
    return {
        "format": kind,
        "splits": {name: _counts(splits[name], labels) for name in DIVIDED},
        "decisions": [*decisions, *_spelling(splits)],
        "left_out": {reason: {"rows": len(found), "first": found[0]} for reason, found in left_out.items()},
    }


def describe(summary: Mapping[str, Any], request: CorpusRequest) -> list[str]:
    """Return a summary as lines of text."""
    lines = [f"{request.out}: {request.task}, from {request.source} ({summary['format']})"]
    lines.append(f"{'':8}" + "".join(f"{name:>12}" for name in COLUMNS))
    for name, counts in summary["splits"].items():
        lines.append(f"  {name:6}" + "".join(f"{_cell(counts[column]):>12}" for column in COLUMNS))
    lines += [f"  {decision}" for decision in summary["decisions"]]
    for reason, found in summary["left_out"].items():
        lines.append(f"  left out: {found['rows']} {reason}, such as {found['first']}")
    return [*lines, "next:", *(f"  {shlex.join(command)}" for command in _next_commands(summary, request))]


def _counts(rows: Sequence[NewRow], labels: bool) -> dict[str, Any]:
    return {
        "utterances": len(rows),
        "hours": round(sum(row.seconds for row in rows) / 3600, 4),
        "speakers": len({speaker for row in rows for speaker in row.speakers}),
        "labels": len({label for row in rows for label in row.classes}) if labels else 0,
    }


def _cell(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value or "-")


def _next_commands(summary: Mapping[str, Any], request: CorpusRequest) -> list[list[str]]:
    overrides = [word for text in (*request.overrides, *summary["overrides"]) for word in ("-o", text)]
    data = ["--data", str(request.out), *overrides]
    return [
        ["superb-eval", "corpus", "check", request.task, *data],
        ["superb-eval", "run", request.task, "-u", "fbank_nonorm", *data],
    ]


def _spelling(splits: Mapping[str, Sequence[NewRow]]) -> list[str]:
    """Return sentences on transcripts whose letters or phones are not the protocol's, or have no output."""
    letters = {name: _units(rows, "text", Letters.spell) for name, rows in splits.items()}
    phones = {name: _units(rows, "phones", str.split) for name, rows in splits.items()}
    return [
        *_vocabulary(
            "letters", "text", letters, LETTERS, "normalise the transcripts before you compare with LibriSpeech"
        ),
        *_vocabulary("phones", "phones", phones, ARPABET, "the head has an output for each phone of train instead"),
    ]


def _units(rows: Sequence[NewRow], column: str, spell: Any) -> Counter[str]:
    return Counter(unit for row in rows if column in row.labels for unit in spell(row.labels[column]))


def _vocabulary(
    what: str, column: str, found: Mapping[str, Counter[str]], protocol: Sequence[str], advice: str
) -> list[str]:
    notes = []
    own = sorted(found["train"].keys() - set(protocol))
    known = found["train"].keys() if own else {*protocol, *found["train"]}
    if own:
        notes.append(f"{column} has {len(own)} {what} that the protocol lacks ({_shown(own)}): {advice}")
    for name in DIVIDED[1:]:
        without = sorted(found[name].keys() - known)
        if without:
            count = sum(found[name][unit] for unit in without)
            notes.append(
                f"{column} of {name} has {what} that train lacks ({_shown(without)}, {count} in all): no output"
            )
    return notes


def _shown(units: Sequence[str]) -> str:
    more = f" and {len(units) - 12} more" if len(units) > 12 else ""
    return " ".join(units[:12]) + more
