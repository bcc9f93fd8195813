"""The manifests of Lhotse in a folder, by split: `PREFIX_recordings_SPLIT.jsonl.gz` and the like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from superb_eval.data.importers.columns import split_candidates
from superb_eval.errors import UserError

NAME = re.compile(
    r"(?:(?P<prefix>.+?)[_-])?(?P<kind>recordings|supervisions|cuts)(?:[_-](?P<split>.+?))?\.jsonl(?:\.gz)?"
)


@dataclass
class LhotseSplit:
    """The manifests of one split; None where there is none of that kind."""

    recordings: Path | None = None
    supervisions: Path | None = None
    cuts: Path | None = None


def splits(root: Path) -> dict[str, LhotseSplit]:
    """Return the manifests in a folder, or in its folders, by split; {} where there are none.

    Raises:
        UserError: two manifests are of one kind and split.
    """
    found = _in_folder(root, "")
    for folder in () if found else sorted(root.glob("*/")):
        found |= _in_folder(folder, folder.name)
    return {name: split for name, split in found.items() if split.recordings or split.cuts}


def _in_folder(folder: Path, default: str) -> dict[str, LhotseSplit]:
    """Return the manifests in a folder; `default` names the split of those that name none."""
    found: dict[str, LhotseSplit] = {}
    for path in sorted(folder.glob("*.jsonl*")):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        prefix = match["prefix"] or ""
        # dev_cuts.jsonl.gz names its split first.
        name = match["split"] or (prefix if any(split_candidates([prefix]).values()) else default)
        split = found.setdefault(name, LhotseSplit())
        other = getattr(split, match["kind"])
        if other is not None:
            raise UserError(
                f"{folder}: {other.name} and {path.name} may each be the {match['kind']} of {name or 'the data'}. "
                "Move one elsewhere."
            )
        setattr(split, match["kind"], path)
    return found
