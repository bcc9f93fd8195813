"""QbE: the English part of QUESST 2014, as in the SUPERB protocol.

Source of the rules: s3prl `downstream/quesst14_dtw/dataset.py` for what is searched, `quesst14_embedding` for the
ground truth. `torchaudio.datasets.QUESST14` reads the same lists, but neither the ground truth nor the other languages,
which the official score counts: the scorer reads the ground truth of six languages and the scores of one, and uses its
default score, -10, for all other trials. Queries of other languages are then always missed, and documents of other
languages, never accepted, dilute the false alarms. (Derived from the scorer's README, not checked with the database.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from downstreams.qbe import QueryCorpus
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import NO_SPEAKER, Corpus, Manifest, Trial, Utterance, bad_rows_message
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

DATABASE = "quesst14Database"
LANGUAGE = "nnenglish"
PARTS = {"dev": "dev", "test": "eval"}
"""The database's name of each split."""

DOCUMENTS = "language_key_utterances.lst"

LAYOUT = (
    f"{DATABASE}/scoring/ with {DOCUMENTS}, language_key_{{dev,eval}}.lst and "
    "groundtruth_quesst14_{dev,eval}/quesst14_{dev,eval}.rttm, and the audio that the lists name"
)
ORIGIN = "The database is distributed free of charge by BUT (speech.fit.vutbr.cz, quesst14Database.tgz)"

EXPECTED = 138 + 2_438
"""English queries and documents of each split in a complete copy: as reported by users, not verified."""


@dataclass(frozen=True)
class _Entry:
    """A line of a list: a file's name without suffix, its path, its language."""

    name: str
    path: Path
    language: str


def present(root: Path) -> bool:
    """Return whether `root` holds the database, or part of it."""
    return (root / DATABASE).is_dir()


def load(root: Path, settings: QueryCorpus) -> Corpus:
    """Return dev and test (the database's eval): English queries, then English documents, and their trials.

    Documents are the same in both. The label column is `role`. With `all_languages`, trials of the ground truth that
    are not searched are counted too (`Trial`); without, English alone is scored.

    Raises:
        UserError: a list, the ground truth or audio is missing, or their lines are bad; all are named.
    """
    database = root / DATABASE
    documents = _entries(database, DOCUMENTS)
    splits = {
        split: _split(database, split, _entries(database, f"language_key_{part}.lst"), documents, settings)
        for split, part in PARTS.items()
    }
    return Corpus(
        name="QUESST 2014 (English)",
        root=root,
        splits=splits,
        notes=() if settings.all_languages else ("scored against English alone: higher than the official score",),
        expected=dict.fromkeys(PARTS, EXPECTED),
        shared="documents",
    )


def _entries(database: Path, name: str) -> list[_Entry]:
    """Return the entries of a list, lines `TOP/RELATIVE/PATH.wav LANGUAGE`; the top folder is that of the archive."""
    path = database / "scoring" / name
    entries, bad = [], []
    for line, text in enumerate(_lines(path), start=1):
        fields = text.split()
        if len(fields) != 2 or "/" not in fields[0] or ".." in fields[0].split("/"):
            bad.append(f"line {line}: '{text}'; expected TOP/FOLDER/FILE.wav LANGUAGE")
            continue
        audio = database / fields[0].partition("/")[2]
        if fields[1] == LANGUAGE and not audio.is_file():
            bad.append(f"line {line}: no such file: {audio}")
        entries.append(_Entry(audio.stem, audio, fields[1]))
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{ORIGIN}.")
    if not any(entry.language == LANGUAGE for entry in entries):
        raise UserError(f"{path}: no line of language {LANGUAGE}. Is the database complete? {ORIGIN}.")
    return entries


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: can't be read (No such file or directory). QbE needs {LAYOUT}. {ORIGIN}.")
    return outside_files.read_text(path).splitlines()


def _split(
    database: Path, split: str, queries: list[_Entry], documents: list[_Entry], settings: QueryCorpus
) -> Manifest:
    part = PARTS[split]
    ground_truth = database / "scoring" / f"groundtruth_quesst14_{part}" / f"quesst14_{part}.rttm"
    targets = _targets(ground_truth, {entry.name for entry in queries})
    english_queries, english_documents = (
        [e for e in entries if e.language == LANGUAGE] for entries in (queries, documents)
    )
    if not any(targets[query.name] for query in english_queries):
        raise UserError(
            f"{ground_truth}: names no document for any query of {LANGUAGE}. Is the database complete? {ORIGIN}."
        )
    trials = list(_trials(english_queries, english_documents, targets))
    if settings.all_languages:
        trials += _unsearched(queries, documents, targets)
    utterances = [_utterance(e, "query") for e in english_queries]
    utterances += [_utterance(e, "document") for e in english_documents]
    return Manifest(split, tuple(utterances), database / "scoring", tuple(trials))


def _utterance(entry: _Entry, role: str) -> Utterance:
    return Utterance(entry.name, Clip(entry.path), NO_SPEAKER, {"role": role})


def _targets(path: Path, queries: set[str]) -> dict[str, set[str]]:
    """Return the documents in which each query is spoken, from lines `LEXEME DOCUMENT ... QUERY ...`."""
    targets: dict[str, set[str]] = {query: set() for query in queries}
    for text in _lines(path):
        kind, document, *others = [*text.split(), "", ""]
        query = next((field for field in others if field in queries), None)
        if kind == "LEXEME" and query is not None:
            targets[query].add(document)
    return targets


def _trials(queries: list[_Entry], documents: list[_Entry], targets: dict[str, set[str]]) -> Iterator[Trial]:
    for query in queries:
        for document in documents:
            yield Trial(query.name, document.name, document.name in targets[query.name])


def _unsearched(queries: list[_Entry], documents: list[_Entry], targets: dict[str, set[str]]) -> Iterator[Trial]:
    """Yield the ground truth's other trials: for each query the number of targets, and of non-targets."""
    searched = {d.name for d in documents if d.language == LANGUAGE}
    names = {d.name for d in documents}
    for query in queries:
        unsearched = names - searched if query.language == LANGUAGE else names
        hits = len(unsearched & targets[query.name])
        for target, count in ((True, hits), (False, len(unsearched) - hits)):
            if count:
                yield Trial(query.name, "", target, count)
