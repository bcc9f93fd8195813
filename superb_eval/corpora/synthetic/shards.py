"""Parts cut into shards of fixed contents: each is rendered by one fresh process, and done once its record exists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .files import write_whole
from .rows import Clip, Row
from .tasks import PARTS

STATE = ".shards"  # the folder, inside the corpus, of the records
ROWS_PER_SHARD = {"nano": 32, "mini": 120}


@dataclass(frozen=True)
class Shard:
    """The `number`-th stretch of one part."""

    part: str
    number: int
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Such as ``ks-003``."""
        return f"{self.part}-{self.number:03d}"

    def record(self, out: Path) -> Path:
        """The file that exists once all clips of the shard do."""
        return out / STATE / f"{self.name}.json"


@dataclass(frozen=True)
class Rendered:
    """What the record of a shard says of one clip; `labels` are those that its rendering revealed."""

    path: str
    sha256: str
    duration_s: float
    labels: Mapping[str, str]


def split(part: str, size: str, seed: int) -> list[Shard]:
    """All shards of a part: the same for every number of workers, because what espeak-ng says depends on it."""
    rows, step = PARTS[part].plan(size, seed), ROWS_PER_SHARD[size]
    return [Shard(part, n, tuple(rows[i : i + step])) for n, i in enumerate(range(0, len(rows), step))]


def save(shard: Shard, out: Path, clips: Sequence[Rendered]) -> None:
    """Declare a shard done. Its files must all be in place."""
    write_whole(shard.record(out), json.dumps([asdict(clip) for clip in clips], indent=0).encode())


def load(shard: Shard, out: Path) -> list[Clip]:
    """The clips of a shard that is done."""
    known = [Rendered(**clip) for clip in json.loads(shard.record(out).read_bytes())]
    return [
        Clip(row, clip.path, clip.sha256, clip.duration_s, {**row.labels, **clip.labels})
        for row, clip in zip(shard.rows, known, strict=True)
    ]


def is_done(shard: Shard, out: Path) -> bool:
    """Whether a shard has its record and all of its files."""
    return shard.record(out).is_file() and all((out / clip.path).is_file() for clip in load(shard, out))
