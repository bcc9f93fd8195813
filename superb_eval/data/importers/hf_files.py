"""The files of a Hugging Face data set by its splits: a folder of `save_to_disk`, or Parquet as the hub lays it out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from superb_eval.data.importers.columns import split_candidates
from superb_eval.data.importers.hf_tables import audio_column, open_table
from superb_eval.errors import UserError

SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
"""The name of a shard without its ending."""


Saved = TypeVar("Saved", bound=BaseModel)


def tables(root: Path) -> dict[str, list[Path]]:
    """Return the tables of each split, in the order of their shards; {} where `root` is no such data set.

    Raises:
        UserError: there are several data sets in it, shards are missing, or a state file is damaged.
    """
    return _saved(root) or _parquet(root)


class _SavedSplits(BaseModel):
    """What is read of the file `dataset_dict.json`."""

    splits: list[str]


class _SavedFile(BaseModel):
    filename: str


class _SavedState(BaseModel):
    """What is read of the file `state.json`."""

    files: list[_SavedFile] = Field(alias="_data_files", min_length=1)


def _saved(root: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    if (root / "dataset_dict.json").is_file():
        splits = _parsed(_SavedSplits, root / "dataset_dict.json").splits
        return {name: _state_files(root / name) for name in splits}
    return {"": _state_files(root)} if (root / "state.json").is_file() else {}


def _state_files(folder: Path) -> list[Path]:
    files = [folder / file.filename for file in _parsed(_SavedState, folder / "state.json").files]
    missing = [file.name[:80] for file in files if not os.path.isfile(file)]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} is missing. Copy the folder again.")
    return files


def _parsed(schema: type[Saved], path: Path) -> Saved:
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}). Copy the folder again.") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{path}: is not what save_to_disk writes ({reason}). Copy the folder again.") from error


def _parquet(root: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder of Parquet: in it, in `data`, or in the folder of its only configuration."""
    for folder in (root, root / "data"):
        found = _in_folder(folder)
        if found:
            return found if _has_audio(found) else {}
    configurations = {path.name: _in_folder(path) for path in sorted(root.glob("*/")) if not path.name.startswith(".")}
    with_audio = {name: found for name, found in configurations.items() if found and _has_audio(found)}
    if len(with_audio) > 1:
        names = ", ".join(with_audio)
        raise UserError(
            f"{root}: holds several data sets ({names}). Give one, such as {root / next(iter(with_audio))}."
        )
    return next(iter(with_audio.values()), {})


def _in_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the tables by split: `SPLIT-00000-of-00001.parquet`, `SPLIT.parquet`, or `SPLIT/*.parquet`."""
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith((".", "metadata.")))
    if files:
        splits: dict[str, list[Path]] = {}
        for path in files:
            match = SHARD.fullmatch(path.stem)
            splits.setdefault(match["split"] if match else path.stem, []).append(path)
        for shards in splits.values():
            _check_shards(shards)
        return {"": files} if len(splits) == 1 and not _is_split(next(iter(splits))) else splits
    inner = {path.name: sorted(path.glob("*.parquet")) for path in sorted(folder.glob("*/")) if _is_split(path.name)}
    return {name: files for name, files in inner.items() if any(file.stem != "metadata" for file in files)}


def _is_split(name: str) -> bool:
    return any(split_candidates([name]).values())


def _check_shards(shards: list[Path]) -> None:
    matches = [match for path in shards if (match := SHARD.fullmatch(path.stem))]
    if matches and len({int(match["number"]) for match in matches}) < int(matches[0]["total"]):
        total, numbers = int(matches[0]["total"]), {int(match["number"]) for match in matches}
        missing = [f"{matches[0]['split']}-{n:05d}-of-{total:05d}.parquet" for n in range(total) if n not in numbers]
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(f"{shards[0].parent}: {len(missing)} of {total} files are missing: {shown}. Copy them too.")


def _has_audio(found: dict[str, list[Path]]) -> bool:
    """Return whether the first table has a column of audio: a folder of manifests has Parquet too."""
    with open_table(next(iter(found.values()))[0]) as table:
        return audio_column(table) is not None
