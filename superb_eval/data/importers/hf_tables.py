"""Tables of Hugging Face data sets, in Parquet or Arrow: their columns, and their rows without the audio's bytes.

Facts: the features that `datasets` stores as JSON in a schema's metadata, under the key `huggingface`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

BATCH = 256
"""Rows read at a time: of audio, some tens of MB."""

AUDIO_NAMES = ("audio", "file", "audio_path", "audio_filepath", "wav", "file_name", "filename")
"""Names of columns of text that hold paths of audio, in order of precedence."""

LFS_POINTER = b"version https://git-lfs"


class HfTable:
    """One table. `features` are the data set's own types of columns by name, {} where they aren't stored."""

    def __init__(self, path: Path, source: Any) -> None:
        self.path = path
        self._source = source

    @cached_property
    def schema(self) -> Any:
        """The schema, as pyarrow's."""
        return self._source.schema_arrow if self._is_parquet else self._source.schema

    @cached_property
    def features(self) -> dict[str, Any]:
        """The features in the schema's metadata, else in the file that `save_to_disk` writes beside a table.

        Raises:
            ValueError, UserError: they aren't stored as `datasets` stores them.
        """
        stored = (self.schema.metadata or {}).get(b"huggingface")
        beside = self.path.with_name("dataset_info.json")
        if stored:
            info = from_json(stored)  # a ValueError, however deep it is nested
            info = info.get("info") if isinstance(info, dict) else info
        else:
            info = outside_files.read_json(beside) if beside.is_file() else {}
        features = (info.get("features") or {}) if isinstance(info, dict) else info
        if not isinstance(features, dict):
            raise ValueError("the features in its metadata are no JSON object")
        return features

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def batches(self, columns: Sequence[str], rows: int = BATCH) -> Iterator[Any]:
        """Yield record batches of `columns`; `NAME.path` reads one field of a column of structures, under its name."""
        if self._is_parquet:
            yield from self._source.iter_batches(batch_size=rows, columns=list(columns))
            return
        for batch in _stream(self.path):  # a stream is read once, so each reading has its own
            for first in range(0, batch.num_rows, rows):
                yield _selected(batch.slice(first, rows), columns)

    def stored_bytes(self, column: str) -> Iterator[bool]:
        """Yield for each row whether an audio column holds the file's bytes, and not its path alone."""
        counts = self._null_counts(f"{column}.bytes")
        if counts is not None:
            for nulls, rows in counts:
                yield from [nulls == 0] * rows
            return
        for batch in self.batches([f"{column}.bytes"]):
            yield from (not missing for missing in batch.column(0).field("bytes").is_null().to_pylist())

    def _null_counts(self, leaf: str) -> list[tuple[int, int]] | None:
        """Return nulls and rows of each row group where all or none of its rows are null: then no byte is read."""
        if not self._is_parquet:
            return None
        metadata = self._source.metadata
        counts = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            columns = [group.column(k) for k in range(group.num_columns)]
            statistics = next((c.statistics for c in columns if c.path_in_schema == leaf), None)
            if statistics is None or not statistics.has_null_count:
                return None
            if statistics.null_count not in (0, group.num_rows):
                return None
            counts.append((statistics.null_count, group.num_rows))
        return counts


def _stream(path: Path) -> Iterator[Any]:
    """Yield the record batches of an Arrow file, without copying them into memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as source:
        yield from source


def _selected(batch: Any, columns: Sequence[str]) -> Any:
    import pyarrow as pa

    arrays, names = [], []
    for column in columns:
        name, _, field = column.partition(".")
        array = batch.column(name)
        arrays.append(pa.StructArray.from_arrays([array.field(field)], [field]) if field else array)
        names.append(name)
    return pa.RecordBatch.from_arrays(arrays, names)


@contextmanager
def open_table(path: Path) -> Iterator[HfTable]:
    """Open a table; what is wrong with the file, here and inside the block, becomes a sentence.

    Raises:
        UserError: pyarrow is missing, or the file is no such table.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet and Arrow need pyarrow: pip install pyarrow.") from error
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(f"{path}: is a pointer of Git LFS, not the table. Run git lfs pull in its folder.")
        if path.suffix == ".parquet":
            # Its default reads every column ahead, and audio of all rows into memory.
            with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as source:
                yield HfTable(path, source)
        else:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as source:
                yield HfTable(path, source)
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise UserError(f"{path}: can't be read as a table ({error}). Check that it is complete.") from error


def audio_column(table: HfTable) -> str | None:
    """Return the column of audio: of the type Audio, or of structures of bytes and path, or of paths.

    Raises:
        UserError: several columns may be it.
    """
    names_there = set(table.schema.names)
    typed = [name for name, kind in table.features.items() if name in names_there and _type(kind) == "Audio"]
    structures = [field.name for field in table.schema if is_embedded(table, field.name)]
    for names in (typed, structures):
        if len(names) > 1 and "audio" not in names:
            raise UserError(
                f"{table.path}: has several columns of audio ({', '.join(names)}). Rename the one to read: audio."
            )
        if names:
            return "audio" if "audio" in names else names[0]
    texts = [name for name in AUDIO_NAMES if name in table.schema.names and _is_text(table.schema.field(name).type)]
    # A manifest has ids and paths; its other columns of paths are labels.
    return texts[0] if texts and not {"id", "path"} <= set(table.schema.names) else None


def is_embedded(table: HfTable, column: str) -> bool:
    """Return whether a column holds structures of bytes and path."""
    import pyarrow.types as kinds

    kind = table.schema.field(column).type
    return bool(kinds.is_struct(kind)) and {"bytes", "path"} <= {kind.field(k).name for k in range(kind.num_fields)}


def class_names(feature: Any) -> list[str]:
    """Return the names of a feature's classes, also where it is a list of them; [] where it has none.

    Raises:
        ValueError: they are no list.
    """
    if isinstance(feature, list):
        return class_names(feature[0]) if feature else []
    if _type(feature) in ("List", "Sequence", "LargeList"):
        return class_names(feature.get("feature"))
    names = (feature.get("names") or []) if _type(feature) == "ClassLabel" else []
    if not isinstance(names, list):
        raise ValueError("the names of classes in its metadata are no list")
    return [str(name) for name in names]


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))
