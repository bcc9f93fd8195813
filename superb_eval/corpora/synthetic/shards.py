"""Parts split into shards of fixed contents: each is rendered by one fresh process, and done once its record exists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from superb_eval.corpora.synthetic.clips import ClipPlan, SynthesisedClip
from superb_eval.corpora.synthetic.tasks import PARTS
from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files, outside_files

STATE = ".shards"
"""The folder, inside the corpus, of the shards' records."""

CLIPS_PER_SHARD = {"nano": 32, "mini": 120}


@dataclass(frozen=True)
class ClipShard:
    """The `number`-th shard of a part, from 0."""

    part: str
    number: int
    plans: tuple[ClipPlan, ...]

    @property
    def name(self) -> str:
        """Such as ``ks-003``."""
        return f"{self.part}-{self.number:03d}"

    def record_path(self, out: Path) -> Path:
        """Return the path of the file that exists once all clips of the shard do."""
        return out / STATE / f"{self.name}.json"


@dataclass(frozen=True)
class ClipRecord:
    """The entry of one clip in a shard's record; `labels` are those that only rendering yields."""

    path: str
    sha256: str
    duration_s: float
    labels: Mapping[str, str]


_RECORDS = TypeAdapter(list[ClipRecord])


def split(part: str, size: str, seed: int) -> list[ClipShard]:
    """Return all shards of a part: the same for every number of workers, because espeak-ng's output depends on it."""
    plans, step = PARTS[part].plan_clips(size, seed), CLIPS_PER_SHARD[size]
    return [ClipShard(part, n, tuple(plans[i : i + step])) for n, i in enumerate(range(0, len(plans), step))]


def save(shard: ClipShard, out: Path, clips: Sequence[ClipRecord]) -> None:
    """Write the record of a shard, which marks it as done. All of its clips must have been written.

    Raises:
        UserError: the disk is full or may not be written.
    """
    atomic_files.write_bytes(shard.record_path(out), json.dumps([asdict(clip) for clip in clips], indent=0).encode())


def load(shard: ClipShard, out: Path) -> list[SynthesisedClip]:
    """Return the clips of a shard that is done.

    Raises:
        UserError: its record is damaged.
    """
    path = shard.record_path(out)
    try:
        records = _RECORDS.validate_python(outside_files.read_json(path))
        if len(records) != len(shard.plans):
            raise ValueError(f"{len(records)} clips where there are {len(shard.plans)}")
    except ValueError as error:
        raise UserError(f"{path}: is damaged. Remove it, and run the same command again.") from error
    return [
        SynthesisedClip(plan, record.path, record.sha256, record.duration_s, {**plan.labels, **record.labels})
        for plan, record in zip(shard.plans, records, strict=True)
    ]


def is_done(shard: ClipShard, out: Path) -> bool:
    """Return whether a shard has its record and all of its files."""
    return shard.record_path(out).is_file() and all((out / clip.path).is_file() for clip in load(shard, out))
