"""The words around a table: its title, and all that has to be known to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from downstreams import registry
from superb_eval.results import published
from superb_eval.results.folder import OFFICIAL, Protocol, RunGroup
from superb_eval.results.published import PublishedRow
from superb_eval.results.stats import overall
from superb_eval.results.table import footnotes, totals
from superb_eval.results.table.result_table import Column, ResultTable, order_of

Cells = Mapping[tuple[str, str], RunGroup]

PUBLISHED_TITLE = "Published figures (official corpora, historical protocol): not measured here, and not comparable"


def title(key: tuple[str, str], cells: Cells, protocol: Protocol) -> str:
    """Return a board's heading; what is not SUPERB is never called so."""
    corpus, profile = key
    official = key == (OFFICIAL, "superb")
    synthetic = any(cell.record.corpus.synthetic for cell in cells.values())
    kind = "official SUPERB protocol" if official else "not SUPERB"
    speech = "synthetic speech, " if synthetic else ""
    return f"{corpus} ({speech}profile {profile}: {kind}; {protocol} figures)"


def captions_of(board: ResultTable, cells: Cells, rows: Sequence[PublishedRow]) -> Iterator[str]:
    """Yield what has to be known to read a board of measured figures, a sentence or two each."""
    yield "Brackets: 95 % interval over test utterances (ASV: trials, QbE: queries, SD: recordings)."
    chance = {task: cell.record.chance for (_, task), cell in cells.items() if cell.record.chance is not None}
    if chance:
        ordered = sorted(chance, key=order_of)
        yield "Chance: " + ", ".join(f"{task.upper()} {chance[task]:.2f}" for task in ordered) + "."
    yield from _about_ranks(board)
    yield from _about_seeds(board)
    yield from _about_marks(board, cells)
    yield from _about_totals(board)
    if any(line.published for line in board.lines):
        yield "† published by others, without intervals; not ranked with measured figures."
        yield from _sources(rows)


def captions_of_published(rows: Sequence[PublishedRow], reference: PublishedRow | None) -> Iterator[str]:
    """Yield what has to be known to read a board of published figures."""
    yield "† published by others; published figures have no intervals."
    if reference:
        yield f"Δ: difference from {reference.name}."
        if any(row.folds and row is not reference for row in rows) and reference.folds:
            yield "ER: Student's 95 % interval over the five published folds; ≠ distinguishable, ≈ not."
        yield "kept: the share of the reference's figure."
    yield "superb_s: 0 is FBANK as the leaderboard re-ran it, 1000 the best of 2021; mean: of the eleven metrics."
    yield from _sources(rows)


def not_comparable(row: PublishedRow, boards: Sequence[tuple[str, str]], protocol: Protocol, there: list[str]) -> str:
    """Return why measured figures can't be ranked against a published row."""
    measured = "; ".join(f"{corpus}, profile {profile}" for corpus, profile in boards)
    if all(key == (OFFICIAL, "superb") for key in boards) and protocol == "strict":
        return (
            f"--against {row.key}: published figures follow the historical procedure, which looks at the test set; "
            "these are strict. Add --historical to compare like with like."
        )
    return (
        f"--against {row.key}: it was measured on SUPERB's official corpora by the official protocol, the runs here "
        f"on {measured}: figures of different data or protocols can't be ranked together. "
        f"Give --against one of: {', '.join(there)}."
    )


def published_columns() -> tuple[Column, ...]:
    """Return the columns of published figures, as the tasks define them."""
    columns = []
    for place in published.METRICS.values():
        metrics = {m.key: m for m in registry.get(place[0]).metrics}
        known = metrics.get(place[1])
        # ASR's figure with a language model is no metric of every run.
        heading, unit, better = (known.heading, known.unit, known.higher_is_better) if known else LM
        columns.append(Column(place, heading, unit, better))
    return tuple(columns)


LM = ("WER with LM", "%", False)


def _about_ranks(board: ResultTable) -> Iterator[str]:
    ranks = {figure.rank for line in board.lines for figure in line.figures.values()}
    if "best" in ranks:
        yield "Bold: best of its column."
    if "tied" in ranks:
        yield "Bold with =: best of its column, or not distinguishable from the best (paired, 95 %)."
    differences = [f.difference for line in board.lines for f in line.figures.values() if f.difference]
    if differences:
        yield f"Δ: difference from {board.reference}; kept: the share of its figure."
    if any(difference.tested for difference in differences):
        yield (
            "Brackets after Δ: paired 95 % interval over the same test units (folds where a task is cross-validated; "
            "of overall figures, the units of all tasks); ≠ distinguishable from none, ≈ not. "
            "Each is a test at 5 %; several tests are not corrected for."
        )


def _about_seeds(board: ResultTable) -> Iterator[str]:
    if any(figure.seeds > 1 for line in board.lines for figure in line.figures.values()):
        yield "Cells of several seeds: their mean, ± their standard deviation; intervals are for the test set alone."


def _about_marks(board: ResultTable, cells: Cells) -> Iterator[str]:
    used = "".join(figure.marks for line in board.lines for figure in line.figures.values())
    for mark, meaning in footnotes.MEANINGS.items():
        if mark == "¶" and mark in used:
            changed = {(n, task): footnotes.overrides_of(cell.record) for (n, task), cell in cells.items()}
            listed = [f"{n} {task.upper()}: {', '.join(keys)}" for (n, task), keys in changed.items() if keys]
            yield f"{meaning} ({'; '.join(listed)})."
        elif mark in used:
            yield meaning


def _about_totals(board: ResultTable) -> Iterator[str]:
    places = {column.place for column in board.columns}
    if totals.SUPERB_S.place in places:
        yield "superb_s: 0 is FBANK as the leaderboard re-ran it, 1000 the best of 2021."
    if totals.MEAN.place in places:
        yield "mean: of the eleven metrics of ten tasks, errors as 100 - error."
    lacking = [
        f"{line.name} ({', '.join(task.upper() for task in gaps)})"
        for line in board.lines
        if (gaps := overall.missing(_values(line.figures)))
    ]
    if lacking and totals.MEAN.place in places:
        yield f"Overall figures are undefined where a task is missing: {'; '.join(lacking)}."


def _values(figures: Mapping[tuple[str, str], object]) -> dict[tuple[str, str], float]:
    return dict.fromkeys(figures, 0.0)


def _sources(rows: Sequence[PublishedRow]) -> Iterator[str]:
    by_source: dict[str, list[str]] = {}
    for row in rows:
        unverified = "" if row.verified else " (not verified)"
        by_source.setdefault(row.source, []).append(row.name + unverified)
    for source, names in by_source.items():
        yield f"† {', '.join(names)}: {source}."
