"""QbE: a folder of manifests, `qbe/queries.csv`, `qbe/docs.csv` and `qbe/pairs.csv`.

All three have a column `split`, dev or test. Queries and documents are rows as in any manifest; a pair has `query` and
`doc`, their ids, and `label`: 1 where the query is spoken in the document, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from superb_eval.data import manifest, table_io
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance, listing
from superb_eval.errors import UserError
from superb_eval.recipe import CorpusSettings

SPLITS = ("dev", "test")
LAYOUT = "qbe/queries.csv, qbe/docs.csv, qbe/pairs.csv"
ROLES = {"queries": "query", "docs": "document"}
PAIR = ("split", "query", "doc", "label")

Places = Mapping[tuple[str, str], Mapping[str, Utterance]]
"""Utterances by (file, split) and id."""


def read(root: Path, settings: CorpusSettings) -> Corpus:
    """Return dev and test: queries, then documents, with the label column `role`, and their trials.

    Raises:
        UserError: a file is missing, rows are bad (each is named with its line), or a split lacks queries, documents or
            a pair in which the query is spoken.
    """
    folder = root / "qbe"
    found = {
        (name, split): {u.id: u for u in utterances}
        for name in ROLES
        for split, utterances in _by_split(folder, name, root, settings.allow_links).items()
    }
    _check_ids(folder, found)
    trials = _trials(_path(folder, "pairs"), found)
    splits = {split: _split(folder, split, found, trials[split]) for split in SPLITS}
    about = manifest.about(root)
    name = str(about.get("name", root.resolve().name))
    return Corpus(name=name, root=root, splits=splits, synthetic=bool(about.get("synthetic", False)))


def _path(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.csv", folder / f"{name}.parquet"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: has no {name}.csv (or .parquet). QbE reads {LAYOUT}.")


def _by_split(folder: Path, name: str, root: Path, allow_links: bool) -> dict[str, list[Utterance]]:
    """The rows of queries.csv or docs.csv by split, checked."""
    path = _path(folder, name)
    found: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    bad = []
    for utterance in manifest.read_split(folder, name, ("split",), root, allow_links=allow_links):
        split = utterance.labels["split"]
        place = f"{table_io.unit(path)} {utterance.line}"
        if split not in SPLITS:
            bad.append(f"{place}: split is '{split}'; QbE has {' and '.join(SPLITS)}, and nothing to train")
        elif utterance.id.startswith("*") or any(letter.isspace() for letter in utterance.id):
            bad.append(
                f"{place}: id '{utterance.id}' has a blank or begins with '*', which mean something in predictions"
            )
        else:
            found[split].append(_in_role(utterance, ROLES[name]))
    if bad:
        raise UserError(listing(path, bad))
    return found


def _in_role(utterance: Utterance, role: str) -> Utterance:
    # Its line is one of queries.csv or docs.csv, and not of the split's source.
    return replace(utterance, labels={**utterance.labels, "role": role}, line=0)


def _check_ids(folder: Path, found: Places) -> None:
    for split in SPLITS:
        twice = sorted(found["queries", split].keys() & found["docs", split].keys())
        if twice:
            raise UserError(
                f"{folder}: {split} has queries and documents of one id: {', '.join(twice[:5])}. Rename one."
            )


def _trials(path: Path, found: Places) -> dict[str, list[Trial]]:
    table = table_io.read(path)
    missing = [column for column in PAIR if column not in table.columns]
    if missing:
        raise UserError(f"{path}: missing column(s) {', '.join(missing)} (found: {', '.join(table.columns)}).")
    trials: dict[str, list[Trial]] = {split: [] for split in SPLITS}
    seen: dict[tuple[str, ...], int] = {}
    bad: list[str] = []
    for place, row in zip(table.places, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=False))
        wrong = list(_problems([cells.get(column, "") for column in PAIR], found, seen, place))
        if wrong:
            bad.append(f"{table_io.unit(path)} {place}: {'; '.join(wrong)}")
        else:
            trials[cells["split"]].append(Trial(cells["query"], cells["doc"], cells["label"] == "1"))
    if bad:
        raise UserError(listing(path, bad))
    return trials


def _problems(cells: list[str], found: Places, seen: dict[tuple[str, ...], int], place: int) -> Iterator[str]:
    split, query, document, label = cells
    if split not in SPLITS:
        yield f"split is '{split}'; QbE has {' and '.join(SPLITS)}"
        return
    if query not in found["queries", split]:
        yield f"query '{query}' is not one of {split} in queries.csv"
    if document not in found["docs", split]:
        yield f"doc '{document}' is not one of {split} in docs.csv"
    if label not in ("0", "1"):
        yield f"label is '{label}'; expected 1 where the query is spoken in the document, else 0"
    if seen.setdefault((split, query, document), place) != place:
        yield f"the pair is already that of {seen[split, query, document]}"


def _split(folder: Path, split: str, found: Places, trials: list[Trial]) -> Manifest:
    for name in ROLES:
        if not found[name, split]:
            raise UserError(f"{_path(folder, name)}: no row has split '{split}'. QbE needs {' and '.join(SPLITS)}.")
    if not any(trial.target for trial in trials):
        raise UserError(f"{_path(folder, 'pairs')}: no pair of {split} has label 1: there is nothing to find.")
    utterances = (*found["queries", split].values(), *found["docs", split].values())
    return Manifest(split, utterances, folder, tuple(trials))
