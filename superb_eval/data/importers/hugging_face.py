"""Data sets of Hugging Face: what `save_to_disk` writes, and Parquet as the hub lays it out.

Facts: the source and documentation of `datasets`; SUPERB's own sets by their public loading script. Audio that lies in
a table is left there: rows name its place, and no table's bytes are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from superb_eval.data.importers import hf_files
from superb_eval.data.importers.audio_files import AudioFinder, near_folders
from superb_eval.data.importers.hf_cells import LabelColumn, turn_columns, turns
from superb_eval.data.importers.hf_tables import HfTable, audio_column, is_embedded, open_table
from superb_eval.data.importers.row_names import name_rows
from superb_eval.data.importers.source import SourceCorpus, SourceRow, TableAudio, raise_if_bad
from superb_eval.errors import UserError

KIND = "Hugging Face data set"


def split_names(root: Path) -> list[str]:
    """Return the names of the splits, [""] where it is undivided, and [] where `root` is no such data set.

    Raises:
        UserError: there are several data sets, or files of one are missing.
    """
    return list(hf_files.tables(root))


def read(root: Path, names: Sequence[str], turns: bool) -> SourceCorpus:
    """Return the rows of the splits `names`; `speaker` is the column of that name, and classes have their names.

    Rows have turns where a column holds them; rows of one `record_id`, as SUPERB's `sd` has them, are one recording.

    Raises:
        UserError: rows are bad (all are named), or a table can't be read.
    """
    del turns
    files, bad, notes = hf_files.tables(root), list[str](), list[str]()
    splits = {name: _split(root, name, files[name], bad, notes) for name in names}
    raise_if_bad(root, bad)
    return SourceCorpus(KIND, root, splits, tuple(dict.fromkeys(notes)))


def _split(root: Path, name: str, files: Sequence[Path], bad: list[str], notes: list[str]) -> tuple[SourceRow, ...]:
    rows: list[SourceRow] = []
    for path in files:
        with open_table(path) as table:
            rows += _Rows(root, table, bad, notes).rows()
    rows = _whole_recordings(rows, bad)
    return tuple(name_rows(rows, name or root.name, notes))


class _Rows:
    """Reads the rows of one table, all columns but the bytes of audio."""

    def __init__(self, root: Path, table: HfTable, bad: list[str], notes: list[str]) -> None:
        column = audio_column(table)
        if column is None:
            present = ", ".join(table.schema.names)
            raise UserError(f"{table.path}: has no column of audio, such as audio or file (found: {present}).")
        self.root, self.table, self.bad, self.audio = root, table, bad, column
        self.embedded = is_embedded(table, column)
        self.turns = turn_columns(table)
        others = [name for name in dict.fromkeys(table.schema.names) if name not in (column, *self.turns)]
        labels = [LabelColumn(name, table) for name in others]
        self.labels = [label for label in labels if label.readable]
        self.finder = AudioFinder(near_folders(table.path.parent, root))
        notes += self._notes([label.name for label in labels if not label.readable])

    def _notes(self, left_out: Sequence[str]) -> Iterator[str]:
        numbers = [label.name for label in self.labels if label.numbers]
        if numbers:
            yield f"whole numbers are labels as they are, for their classes have no names: {', '.join(numbers)}"
        if left_out:
            yield f"columns left out, for they hold neither text nor numbers: {', '.join(left_out)}"

    def rows(self) -> list[SourceRow]:
        """Return the rows, without ids."""
        path_column = f"{self.audio}.path" if self.embedded else self.audio
        columns = [path_column, *self.turns, *(label.name for label in self.labels)]
        stored = self.table.stored_bytes(self.audio) if self.embedded else iter(())
        rows: list[SourceRow] = []
        for batch in self.table.batches(columns):
            for cells in batch.to_pylist():
                row = self._row(cells, len(rows), next(stored, False))
                rows.append(row)
        return rows

    def _row(self, cells: dict[str, Any], number: int, stored: bool) -> SourceRow:
        location = f"{self.table.path.relative_to(self.root).as_posix()}, row {number + 1}"
        labels: dict[str, str] = {}
        for label in self.labels:
            try:
                labels[label.name] = label.text(cells[label.name])
            except ValueError as error:
                self.bad.append(f"{location}: {error}")
        audio = self._audio(cells[self.audio], location, number, stored)
        spoken = turns([cells[name] for name in self.turns]) if self.turns else ()
        speaker = labels.pop("speaker", "")
        return SourceRow("", audio, location, speaker=speaker, labels=labels, turns=spoken)

    def _audio(self, cell: Any, location: str, number: int, stored: bool) -> Path | TableAudio:
        path = str((cell or {}).get("path") or "") if self.embedded else str(cell or "")
        if stored:
            return TableAudio(self.table.path, self.audio, number, path)
        found = self.finder.find(path) if path else None
        if found is None:
            self.bad.append(f"{location}: {self.finder.problem(path) if path else 'has neither audio nor its path'}")
        return found or Path(path)


def _whole_recordings(rows: Sequence[SourceRow], bad: list[str]) -> list[SourceRow]:
    """Return rows with those of one `record_id` as one recording: they are its parts, and each holds all turns."""
    recordings: dict[str, SourceRow] = {}
    others = []
    for row in rows:
        name = row.labels.get("record_id", "") if row.turns else ""
        if not name:
            others.append(row)
        elif name not in recordings:
            labels = {key: value for key, value in row.labels.items() if key not in ("record_id", "start", "end")}
            recordings[name] = replace(row, id=name, labels=labels)
        elif recordings[name].turns != row.turns:
            bad.append(f"{row.location}: recording '{name}' has other turns than in {recordings[name].location}")
    return [*others, *recordings.values()]
