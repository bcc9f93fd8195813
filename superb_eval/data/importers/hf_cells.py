"""Cells of Hugging Face tables as text and as speaker turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from superb_eval.data.importers.hf_tables import HfTable, class_names
from superb_eval.data.manifest import Turn

FRAME = 0.01
"""Seconds of a frame (160 samples at 16 kHz), in which SUPERB's `sd` on the hub counts: its times are whole numbers."""


class LabelColumn:
    """One column of labels: `text` returns a cell as text, with the name of a class in place of its number."""

    def __init__(self, name: str, table: HfTable) -> None:
        self.name = name
        self.classes = class_names(table.features.get(name))
        self.readable = _is_readable(table.schema.field(name).type, bool(self.classes))
        self.numbers = _is_integer(table.schema.field(name).type) and not self.classes

    def text(self, value: Any) -> str:
        """Return a cell as text: lists separated by spaces, a missing value or class (-1) as empty text.

        Raises:
            ValueError: there is no class of that number.
        """
        if value is None:
            return ""
        if isinstance(value, list):
            return " ".join(self.text(item) for item in value)
        if self.classes and isinstance(value, int):
            if value >= len(self.classes):
                raise ValueError(f"{self.name} is class {value}, but only {len(self.classes)} have names")
            return self.classes[value] if value >= 0 else ""
        return str(value).strip()


def _is_integer(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind))


def _is_readable(kind: Any, classes: bool) -> bool:
    """Return whether a column is one of labels: text, numbers, or lists of text or of classes."""
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        return _is_readable(kind.value_type, classes)
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return classes or bool(kinds.is_string(kind.value_type) or kinds.is_large_string(kind.value_type))
    scalar = kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating, kinds.is_boolean
    return any(test(kind) for test in scalar) or bool(kinds.is_null(kind))


def turn_columns(table: HfTable) -> list[str]:
    """Return the columns that hold speaker turns: one of structures, or three of lists; [] where there is none."""
    import pyarrow.types as kinds

    names = list(table.schema.names)
    lists = ["timestamps_start", "timestamps_end", "speakers"]
    if set(lists) <= set(names):
        return lists
    for name in names:
        kind = table.schema.field(name).type
        item = kind.value_type if kinds.is_list(kind) or kinds.is_large_list(kind) else kind
        if kinds.is_struct(item):
            fields = {item.field(k).name for k in range(item.num_fields)}
            if {"start", "end"} <= fields and fields & {"speaker_id", "speaker"}:
                return [name]
    return []


def turns(cells: Sequence[Any]) -> tuple[Turn, ...]:
    """Return the turns of a row, given its cells of `turn_columns`: seconds, or frames of `FRAME` as whole numbers.

    Turns that are shorter than a frame are left out: as frames, they have no length.
    """
    if len(cells) == 3:
        lists = [cell or [] for cell in cells]
        entries = [{"start": s, "end": e, "speaker": name} for s, e, name in zip(*lists, strict=True)]
    else:
        entries = _structures(cells[0])
    found = []
    for entry in entries:
        scale = FRAME if isinstance(entry["start"], int) and isinstance(entry["end"], int) else 1.0
        start, end = (round(float(entry[key]) * scale, 6) for key in ("start", "end"))
        name = entry.get("speaker_id", entry.get("speaker"))
        if end > start:
            found.append(Turn(start, end, str(name)))
    return tuple(found)


def _structures(cell: Any) -> list[dict[str, Any]]:
    """Return a list of structures, also where it is stored as a structure of lists."""
    if cell is None:
        return []
    if isinstance(cell, list):
        return cell
    return [dict(zip(cell, values, strict=True)) for values in zip(*cell.values(), strict=True)]
