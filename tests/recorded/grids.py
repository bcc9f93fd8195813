"""Tables in Markdown, and the tables of a training's log."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence

from superb_eval import recipe


def log_table(name: str, steps: Sequence[int], columns: Mapping[str, str]) -> str:
    """Return lines of a training's log; `columns` are headings and how a row is formatted there, as `{loss:.2f}`."""
    by_step = {row["step"]: row for row in log(name)}
    rows = [[text.format(**by_step[step]).replace("%", " %") for text in columns.values()] for step in steps]
    return grid(list(columns), rows, left=0)


def whole_table(name: str, columns: Mapping[str, str]) -> str:
    """Return every line of `recipes/distill/logs/NAME.csv`, whose cells are text; `columns` as in `log_table`."""
    rows = [[text.format(**row) for text in columns.values()] for row in lines(name)]
    return grid(list(columns), rows)


def log(name: str) -> list[dict[str, float]]:
    """Return the numbers of `recipes/distill/logs/NAME.csv`."""
    return [{key: _number(value) for key, value in row.items()} for row in lines(name)]


def speed(name: str) -> str:
    """Return the time of an update and the audio processed a second, by a training's log less its first line.

    The first line holds what happens once: workers start, kernels are chosen.
    """
    rows = log(name)
    rate = sum(row["audio_s_per_s"] for row in rows[1:]) / (len(rows) - 1)
    seconds_each = rows[-1]["hours"] * 3600 / rows[-1]["step"]
    return f"{1e3 * seconds_each / rate:.0f} ms, {round(rate, -2):_.0f} s of audio a second".replace("_", " ")


def lines(name: str) -> list[dict[str, str]]:
    """Return the lines of `recipes/distill/logs/NAME.csv`.

    Raises:
        ValueError: a line has more cells than there are columns, or fewer: one holds a comma that isn't quoted.
    """
    with (recipe.folder() / "distill" / "logs" / f"{name}.csv").open(encoding="utf8", newline="") as file:
        heading, *rows = csv.reader(file)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def grid(heading: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table whose first columns are aligned left, the others right."""
    rule = ["---" if k < left else "---:" for k in range(len(heading))]
    table = [heading, rule, *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in table)


def listed(words: Iterable[str]) -> str:
    """Return words as a list in a sentence: `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
