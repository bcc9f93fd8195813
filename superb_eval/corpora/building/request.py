"""What `superb-eval corpus new` was asked for: its options, read from text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from superb_eval.corpora.building.new_row import DIVIDED
from superb_eval.errors import UserError, near_miss

SHARES = (80.0, 10.0, 10.0)
"""Of train, dev and test, where a source is undivided."""


def manifests_folder(task: str, overrides: Sequence[str]) -> str:
    """Return the name of a task's folder of manifests: that of `-o corpus.folder=NAME`, else the task's."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("corpus.folder=")]
    return named[-1] if named else task


@dataclass(frozen=True)
class CorpusRequest:
    """The options of `superb-eval corpus new`.

    `columns` are the source's columns by the task's (`--column`), `splits` the source's splits by ours (`--splits`;
    where train alone is named, its rows are divided). With `shares` rows are divided anew. `split_by` "speaker" keeps
    speakers in one split where they are known. `speaker` is a pattern that finds the speaker in a file's name or path.
    """

    task: str
    source: Path
    out: Path
    overrides: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    seed: int = 0
    split_by: Literal["speaker", "utterance"] = "speaker"
    speaker: str = ""
    trials: int = 1000
    audio: Literal["link", "copy"] = "link"

    def __post_init__(self) -> None:
        if self.shares and self.splits:
            raise UserError(
                "--shares divides all rows anew, and --splits names splits that are there: give one of them."
            )
        self.pattern()

    def settings(self) -> dict[str, object]:
        """Return all that the corpus depends on, as `corpus.json` stores it."""
        return {
            "source": str(self.source.resolve()),
            "override": list(self.overrides),
            "column": dict(sorted(self.columns.items())),
            "splits": {name: list(parts) for name, parts in self.splits.items()},
            "shares": list(self.shares),
            "seed": self.seed,
            "split_by": self.split_by,
            "speaker": self.speaker,
            "trials": self.trials,
            "audio": self.audio,
        }

    def folder(self) -> str:
        """Return the name of the folder of manifests: that of `-o corpus.folder=NAME`, else the task's."""
        return manifests_folder(self.task, self.overrides)

    def divides(self) -> bool:
        """Return whether the options decide the splits, so that folds of the source don't."""
        return bool(self.shares or self.splits)

    def divided_shares(self) -> dict[str, float]:
        """Return the shares of train, dev and test."""
        return dict(zip(DIVIDED, self.shares or SHARES, strict=True))

    def pattern(self) -> re.Pattern[str] | None:
        """Return the pattern that finds speakers, None without one.

        Raises:
            UserError: it is no regular expression, or has not one group.
        """
        if not self.speaker:
            return None
        try:
            pattern = re.compile(self.speaker)
        except re.error as error:
            raise UserError(f"--speaker {self.speaker}: not a regular expression ({error}).") from error
        if pattern.groups != 1:
            raise UserError(
                f"--speaker {self.speaker}: has {pattern.groups} groups; one, in brackets, must match the speaker, "
                r"such as '^(\w+)_nohash'."
            )
        return pattern


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Return `--column keyword=label` as a mapping.

    Raises:
        UserError: one has another form, or a column is named twice.
    """
    columns: dict[str, str] = {}
    for text in texts:
        name, _, source = (part.strip() for part in text.partition("="))
        if not name or not source or name in columns:
            raise UserError(f"--column {text}: expected COLUMN=NAME once for each column, such as keyword=label.")
        columns[name] = source
    return columns


def parse_splits(text: str) -> dict[str, tuple[str, ...]]:
    """Return `--splits train=a+b,dev=c,test=d` as a mapping; empty for an empty text.

    Raises:
        UserError: it has another form, or train is not among them.
    """
    splits: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, names = (word.strip() for word in part.partition("="))
        chosen = tuple(filter(None, (word.strip() for word in names.split("+"))))
        if name not in DIVIDED or not chosen or name in splits:
            raise UserError(
                f"--splits {text}: '{part}' is not SPLIT=NAME with {', '.join(DIVIDED)} once each, such as "
                f"train=train_nodup,dev=dev,test=eval.{near_miss(name, DIVIDED)}"
            )
        splits[name] = chosen
    if splits and "train" not in splits:
        raise UserError(f"--splits {text}: names no split for train.")
    return splits


def parse_shares(text: str) -> tuple[float, ...]:
    """Return `--shares 80,10,10` as numbers; empty for an empty text.

    Raises:
        UserError: they are not three positive numbers.
    """
    if not text:
        return ()
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != len(DIVIDED) or not all(0 < share < float("inf") for share in shares):
        raise UserError(f"--shares {text}: expected three positive numbers for train, dev and test, such as 80,10,10.")
    return shares
