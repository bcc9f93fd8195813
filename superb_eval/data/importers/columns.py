"""Which column of a data folder is which of a task's, and which of its splits is train, dev or test, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from superb_eval.errors import UserError, near_miss

ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("sentence", "transcript", "transcription", "normalized_text", "normalised_text", "txt", "words"),
    "phones": ("phonemes", "phone", "phoneme", "phone_sequence"),
    "keyword": ("label", "class", "word", "command", "category"),
    "emotion": ("label", "class", "emo", "major_emotion"),
    "speaker": ("speaker_id", "client_id", "spk", "spk_id", "spkid", "user_id", "speaker_name"),
    "gender": ("sex", "label", "class"),
    "text_canonical": ("text", "sentence", "transcript", "transcription"),
    "iob_canonical": ("iob", "iob_tags", "tags", "slots"),
    "fold": ("session",),
}
"""Names that published data sets give a task's column; they count only where exactly one of them is there."""

SPEAKER_CLASSES: dict[str, tuple[str, ...]] = {"speaker": (*ALIASES["speaker"], "label", "class")}
"""Names of the column `speaker` where the classes are speakers."""

_SPLIT_WORDS = {
    "dev": r"dev\d*|development|valid|validation|val|cv",
    "test": r"test\d*|tst|eval\d*|evaluation",
    "train": r"train|trn|training",
}
"""Parts of a split's name, in order of precedence: `train_dev` and `test_dev93` are dev sets."""


@dataclass(frozen=True)
class ColumnChoice:
    """The source's column for each column of the task, and a sentence for each that has another name there."""

    names: Mapping[str, str]
    notes: tuple[str, ...] = ()


def resolve(
    wanted: Sequence[str],
    present: Sequence[str],
    choices: Mapping[str, str],
    optional: Sequence[str] = (),
    aliases: Mapping[str, Sequence[str]] = ALIASES,
) -> ColumnChoice:
    """Return which of the columns `present` are those `wanted` by a task.

    A column is the one that `choices` names (the option `--column`), else the one of the same name, else the only one
    of `aliases`. Those of `optional` are left out where none is there.

    Raises:
        UserError: a choice names a column that isn't there or that the task doesn't read; a column has none or several
            candidates.
    """
    _check_choices((*wanted, *optional), present, choices)
    names: dict[str, str] = {}
    notes = []
    for column in (*wanted, *optional):
        candidates = _candidates(column, present, choices, aliases)
        if len(candidates) == 1:
            names[column] = candidates[0]
            if candidates[0] != column:
                notes.append(f"{column} is the column {candidates[0]}")
        elif candidates or column not in optional:
            raise UserError(_message(column, present, candidates))
    return ColumnChoice(names, tuple(notes))


def split_candidates(names: Iterable[str]) -> dict[str, list[str]]:
    """Return which of a source's splits may be train, dev and test, by the words in their names."""
    found: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in names:
        words = re.split(r"[^a-z0-9]+", name.lower())
        split = next((s for s, rule in _SPLIT_WORDS.items() if any(re.fullmatch(rule, word) for word in words)), None)
        if split:
            found[split].append(name)
    return found


def _candidates(
    column: str, present: Sequence[str], choices: Mapping[str, str], aliases: Mapping[str, Sequence[str]]
) -> list[str]:
    if column in choices:
        return [choices[column]]
    if column in present:
        return [column]
    names = {column, *aliases.get(column, ())}
    return [name for name in present if name.lower() in names]


def _check_choices(columns: Sequence[str], present: Sequence[str], choices: Mapping[str, str]) -> None:
    for column, name in choices.items():
        if column not in columns:
            read = ", ".join(columns) or "no column of labels"
            raise UserError(f"--column {column}={name}: the task reads {read}.{near_miss(column, columns)}")
        if name not in present:
            raise UserError(
                f"--column {column}={name}: there is no column {name} (found: {_listed(present)})."
                f"{near_miss(name, present)}"
            )


def _message(column: str, present: Sequence[str], candidates: Sequence[str]) -> str:
    found = (
        f"{' and '.join(candidates)} may each be it" if candidates else f"no column is it (found: {_listed(present)})"
    )
    example = (candidates or present or ["NAME"])[0]
    return f"the task needs the column {column}, and {found}. Name it: --column {column}={example}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
