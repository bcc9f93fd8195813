"""The folder of a new corpus: which commands it was made by, and whether each was finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from superb_eval.corpora.building.request import manifests_folder
from superb_eval.data import manifest
from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, locks, outside_files, own_folder

STATE = ".corpus-new"
"""The subfolder that names unfinished tasks; it is removed with the last of them."""

KIND = "corpus"
"""Of the folder, in its marker."""

SHARED_SETTINGS = ("source", "audio")
"""Settings that all tasks in one folder have in common."""


class _BegunTask(TypedDict):
    settings: dict[str, Any]


class _Counts(TypedDict):
    utterances: int
    hours: float
    speakers: int
    labels: int


class _LeftOutRows(TypedDict):
    rows: int
    first: str


class _Summary(TypedDict):
    """What `summarise` returns."""

    format: str
    splits: dict[str, _Counts]
    decisions: list[str]
    left_out: dict[str, _LeftOutRows]
    overrides: list[str]


class _MadeTask(_BegunTask):
    summary: _Summary


Form = TypeVar("Form")


@dataclass(frozen=True)
class NewCorpusFolder:
    """The part of one task in a folder that may hold several made of the same source.

    `corpus.json` holds the settings and the summary of each finished task; it is written last.
    """

    out: Path
    task: str

    def finished(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the summary of this task if these settings made it already, None where it is to be made.

        Raises:
            UserError: the folder holds something else, or was made by another command.
        """
        made = self._made()
        own_folder.check(self.out, KIND, earlier=self._was_begun())
        for task, there in [*made.items(), *self._unfinished().items()]:
            self._check(task, there["settings"], settings)
        return dict(made[self.task]["summary"]) if self.task in made else None

    @contextmanager
    def reserved(self, settings: dict[str, Any]) -> Iterator[None]:
        """Reserve the folder for these settings while the context lasts, and from then on until `finish`.

        After a `UserError`, which may ask for other options, it is reserved for the same source only.

        Raises:
            UserError: another process is writing there, or nobody may.
        """
        own_folder.claim(self.out, KIND, earlier=self._was_begun())
        held = f"{self.out}: another process is writing there. Wait until it has finished."
        with locks.hold_alone(self.out / STATE / "lock", held):
            self._reserve(settings)
            try:
                yield
            except UserError:
                self._reserve({key: settings[key] for key in SHARED_SETTINGS})
                raise
        if not list((self.out / STATE).glob("*.json")):
            # Killed processes may have left temporary files there.
            shutil.rmtree(self.out / STATE, ignore_errors=True)

    def finish(self, settings: dict[str, Any], summary: dict[str, Any]) -> None:
        """Write `corpus.json` with this task's settings and summary."""
        description = manifest.read_description(self.out) or {"name": self.out.resolve().name, "made": {}}
        made: dict[str, Any] = {**self._made(), self.task: {"settings": settings, "summary": summary}}
        atomic_files.write_text(self.out / "corpus.json", _json({**description, "made": made}))
        self._state_file().unlink()

    def _reserve(self, settings: dict[str, Any]) -> None:
        atomic_files.write_text(self._state_file(), _json({"settings": settings}))

    def _was_begun(self) -> bool:
        """Return whether a command made something here, perhaps of a version that left no marker."""
        return bool(self._made()) or (self.out / STATE).is_dir()

    def _made(self) -> dict[str, _MadeTask]:
        made = manifest.read_description(self.out).get("made", {})
        return _parsed(self.out / "corpus.json", dict[str, _MadeTask], made)

    def _unfinished(self) -> dict[str, _BegunTask]:
        files = sorted((self.out / STATE).glob("*.json"))
        return {path.stem: _parsed(path, _BegunTask, outside_files.read_json(path)) for path in files}

    def _state_file(self) -> Path:
        return self.out / STATE / f"{self.task}.json"

    def _check(self, task: str, there: dict[str, Any], settings: dict[str, Any]) -> None:
        """Refuse another source, for the same task any other setting, and for another task the same tables."""
        tables = manifests_folder(self.task, settings["override"])
        if task != self.task and manifests_folder(task, there.get("override", ())) == tables:
            raise UserError(
                f"{self.out}: {tables}/ holds the tables of {task}. Give another -o corpus.folder=NAME or --out."
            )
        compared = there if task == self.task else SHARED_SETTINGS
        other = [
            f"{key} {_shown(there.get(key))}, not {_shown(settings.get(key))}"
            for key in compared
            if there.get(key) != settings.get(key)
        ]
        if other:
            raise UserError(
                f"{self.out}: {task} is made there with {'; '.join(other)}. Give the same options, choose another "
                "folder, or delete this one."
            )


def _parsed(path: Path, form: type[Form], content: Any) -> Form:
    """Return what a file of this folder holds, of a form.

    Raises:
        UserError: it has another form.
    """
    try:
        return TypeAdapter(form).validate_python(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{path}: isn't as `corpus new` writes it ({reason}). Choose another folder.") from error


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value or value == 0 else "none"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
