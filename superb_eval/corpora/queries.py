"""QbE: a folder of manifests, `qbe/queries.csv`, `qbe/docs.csv` and `qbe/pairs.csv`.

All three have a column `split`, dev or test. Queries and documents are rows as in any manifest; a pair has `query` and
`doc`, their ids, and `label`: 1 where the query is spoken in the document, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from superb_eval.data import manifest, read_manifest, table_io
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError, listed

SPLITS = ("dev", "test")
LAYOUT = "qbe/queries.csv, qbe/docs.csv, qbe/pairs.csv"
ROLES = {"queries": "query", "docs": "document"}
PAIR = ("split", "query", "doc", "label")

UtterancesByFile = Mapping[tuple[str, str], Mapping[str, Utterance]]
"""Utterances by (file, split) and id."""


def read(root: Path, settings: CorpusSettings) -> Corpus:
    """Return dev and test: queries, then documents, with the label column `role`, and their trials.

    Raises:
        UserError: a file is missing, rows are bad (each is named with its line), or a split lacks queries, documents or
            a pair in which the query is spoken.
    """
    folder = root / "qbe"
    utterances = {
        (name, split): {u.id: u for u in rows}
        for name in ROLES
        for split, rows in _by_split(folder, name, root, settings.allow_links).items()
    }
    _check_ids(folder, utterances)
    trials = _trials(_table_path(folder, "pairs"), utterances)
    splits = {split: _split(folder, split, utterances, trials[split]) for split in SPLITS}
    description = manifest.read_description(root)
    name = str(description.get("name", root.resolve().name))
    return Corpus(name=name, root=root, splits=splits, synthetic=bool(description.get("synthetic", False)))


def _table_path(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.csv", folder / f"{name}.parquet"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: has no {name}.csv (or .parquet). QbE reads {LAYOUT}.")


def _by_split(folder: Path, name: str, root: Path, allow_links: bool | None) -> dict[str, list[Utterance]]:
    """Return the rows of queries.csv or docs.csv by split, checked."""
    path = _table_path(folder, name)
    by_split: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    bad = []
    for utterance in read_manifest.read_split(folder, name, ("split",), root, allow_links=allow_links):
        split = utterance.labels["split"]
        row_name = f"{table_io.row_unit(path)} {utterance.line}"
        if split not in SPLITS:
            bad.append(f"{row_name}: split is '{split}'; QbE has {' and '.join(SPLITS)}, no training")
        elif utterance.id.startswith("*") or any(letter.isspace() for letter in utterance.id):
            bad.append(
                f"{row_name}: id '{utterance.id}' has a space or begins with '*': files of predictions reserve both"
            )
        else:
            by_split[split].append(_with_role(utterance, ROLES[name]))
    if bad:
        raise UserError(bad_rows_message(path, bad))
    return by_split


def _with_role(utterance: Utterance, role: str) -> Utterance:
    # `line` is dropped: it counts in queries.csv or docs.csv, and not in the split's source.
    return replace(utterance, labels={**utterance.labels, "role": role}, line=0)


def _check_ids(folder: Path, utterances: UtterancesByFile) -> None:
    for split in SPLITS:
        common = sorted(utterances["queries", split].keys() & utterances["docs", split].keys())
        if common:
            raise UserError(
                f"{folder}: {split} has queries and documents with the same id: {', '.join(common[:5])}. Rename one."
            )


def _trials(path: Path, utterances: UtterancesByFile) -> dict[str, list[Trial]]:
    table = table_io.read(path)
    missing = [column for column in PAIR if column not in table.columns]
    if missing:
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {listed(table.columns)}).")
    trials: dict[str, list[Trial]] = {split: [] for split in SPLITS}
    seen: dict[tuple[str, ...], int] = {}
    bad: list[str] = []
    for number, row in table.rows():
        cells = dict(zip(table.columns, row, strict=False))
        wrong = list(_problems([cells.get(column, "") for column in PAIR], utterances, seen, number))
        if wrong:
            bad.append(f"{table_io.row_unit(path)} {number}: {'; '.join(wrong)}")
        else:
            trials[cells["split"]].append(Trial(cells["query"], cells["doc"], cells["label"] == "1"))
    if bad:
        raise UserError(bad_rows_message(path, bad))
    return trials


def _problems(
    cells: list[str], utterances: UtterancesByFile, seen: dict[tuple[str, ...], int], number: int
) -> Iterator[str]:
    split, query, document, label = cells
    if split not in SPLITS:
        yield f"split is '{split}'; QbE has {' and '.join(SPLITS)}"
        return
    if query not in utterances["queries", split]:
        yield f"query '{query}' is not one of {split} in queries.csv"
    if document not in utterances["docs", split]:
        yield f"doc '{document}' is not one of {split} in docs.csv"
    if label not in ("0", "1"):
        yield f"label is '{label}'; expected 1 where the query is spoken in the document, else 0"
    if seen.setdefault((split, query, document), number) != number:
        yield f"the pair is already that of {seen[split, query, document]}"


def _split(folder: Path, split: str, utterances: UtterancesByFile, trials: list[Trial]) -> Manifest:
    for name in ROLES:
        if not utterances[name, split]:
            raise UserError(
                f"{_table_path(folder, name)}: no row has split '{split}'. QbE needs {' and '.join(SPLITS)}."
            )
    if not any(trial.target for trial in trials):
        raise UserError(f"{_table_path(folder, 'pairs')}: no pair of {split} has label 1: there is nothing to find.")
    rows = (*utterances["queries", split].values(), *utterances["docs", split].values())
    return Manifest(split, rows, folder, tuple(trials))
