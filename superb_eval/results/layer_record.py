"""The record of `superb-eval layers` for one upstream: `OUT/layers/<upstream>/layers.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from superb_eval.errors import UserError
from superb_eval.results.record import RecordPart
from superb_eval.runtime import atomic_files

FOLDER, NAME = "layers", "layers.json"
"""In a results folder; the runs of the probes are stored in the same folder, laid out as in a results folder."""


Part = TypeVar("Part")


class LayerProbe(RecordPart):
    """A head trained on one layer alone."""

    layer: int = Field(ge=0, description="from 0, nearest the input")
    value: float = Field(description="the task's first metric on the test split, everything chosen on dev")
    low: float = Field(description="lower end of its 95 % interval")
    high: float = Field(description="upper end of its 95 % interval")
    run: str = Field(description="folder of the run, relative to this file's")
    command: str = Field(description="the command that makes that run again")


class TaskProbes(RecordPart):
    """One probe for each layer, on one task."""

    task: str
    profile: str
    corpus: str
    corpus_digest: str
    heading: str = Field(description="of the metric")
    unit: str
    higher_is_better: bool
    probes: list[LayerProbe]

    def best(self) -> LayerProbe:
        """Return the probe of the best layer; the first of equals."""
        sign = 1 if self.higher_is_better else -1
        return max(self.probes, key=lambda probe: (sign * probe.value, -probe.layer))


class LayerSimilarity(RecordPart):
    """Linear CKA between the layers of two upstreams, over each utterance's mean over time."""

    against: str = Field(description="address of the other upstream")
    fingerprint: str = Field(description="SHA-256 of the other upstream")
    corpus: str
    split: str
    utterances: int
    cka: list[list[float | None]] = Field(description="[our layers][their layers]; null where a layer is constant")
    by_chance: list[list[float | None]] = Field(description="CKA expected by chance: with utterances paired at random")


class LayersRecord(RecordPart):
    """The layer analyses of one upstream."""

    upstream: str
    fingerprint: str = Field(description="SHA-256 of the upstream's identity, as in `result.json`")
    tasks: list[TaskProbes] = Field(default_factory=list)
    alike: list[LayerSimilarity] = Field(default_factory=list)

    def with_task(self, added: TaskProbes) -> LayersRecord:
        """Return the record with the probes of a task added, or replaced where task, profile and corpus agree."""

        def key(probes: TaskProbes) -> tuple[str, ...]:
            return probes.task, probes.profile, probes.corpus

        return self.model_copy(update={"tasks": _replaced(self.tasks, added, key)})

    def with_similarity(self, added: LayerSimilarity) -> LayersRecord:
        """Return the record with a comparison added, or in place of that with the same upstream and corpus."""

        def key(similarity: LayerSimilarity) -> tuple[str, ...]:
            return similarity.against, similarity.corpus, similarity.split

        return self.model_copy(update={"alike": _replaced(self.alike, added, key)})


def _replaced(parts: list[Part], added: Part, key: Callable[[Part], tuple[str, ...]]) -> list[Part]:
    return [*(part for part in parts if key(part) != key(added)), added]


def read(path: Path) -> LayersRecord:
    """Read a file of `superb-eval layers`.

    Raises:
        UserError: it is no such file.
    """
    try:
        return LayersRecord.model_validate_json(path.read_text(encoding="utf8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(
            f"{path}: can't be read ({reason}). Remove it; `superb-eval layers` writes it again."
        ) from error


def write(record: LayersRecord, path: Path) -> None:
    """Write a record, atomically."""
    atomic_files.write_text(path, record.model_dump_json(indent=1) + "\n")


def find(results: Path) -> list[Path]:
    """Return the files of `superb-eval layers` in a results folder, sorted."""
    return sorted(results.glob(f"{FOLDER}/*/{NAME}"))
