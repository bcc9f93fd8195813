"""The record of `superb-eval layers` for one upstream: `OUT/layers/<upstream>/layers.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError, model_validator

from superb_eval.errors import UserError
from superb_eval.results import run_files
from superb_eval.results.record import MOST_ENTRIES, Count, Figure, RecordPart, format_error
from superb_eval.runtime import atomic_files

FOLDER, NAME = "layers", "layers.json"
"""In a results folder; the runs of the probes are stored in the same folder, laid out as in a results folder."""


Part = TypeVar("Part")


Matrix = Annotated[list[list[Figure | None]], Field(min_length=1, max_length=1000)]


class LayerProbe(RecordPart):
    """A head trained on one layer alone."""

    layer: int = Field(ge=0, le=MOST_ENTRIES, description="from 0, nearest the input")
    value: Figure = Field(description="the task's first metric on the test split, everything chosen on dev")
    low: Figure = Field(description="lower end of its 95 % interval")
    high: Figure = Field(description="upper end of its 95 % interval")
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
    probes: list[LayerProbe] = Field(min_length=1, max_length=MOST_ENTRIES)

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
    utterances: Count
    cka: Matrix = Field(description="[our layers][their layers]; null where a layer is constant")
    by_chance: Matrix = Field(description="CKA expected by chance: with utterances paired at random")

    @model_validator(mode="after")
    def _check_shapes(self) -> LayerSimilarity:
        """Refuse matrices whose rows differ in length, or from one another."""
        if len({len(row) for row in (*self.cka, *self.by_chance)}) != 1 or len(self.cka) != len(self.by_chance):
            raise ValueError("cka and by_chance are not of one shape [our layers][their layers]")
        return self


class LayerUnits(RecordPart):
    """What the clusters of one layer know of phones, and how many dimensions it uses."""

    layer: int = Field(ge=0, le=MOST_ENTRIES, description="from 0, nearest the input")
    pnmi: Figure = Field(description="mutual information of clusters and phones over the entropy of phones, 0 to 1")
    phone_purity: Figure = Field(description="share of frames whose phone is the commonest of their cluster")
    cluster_purity: Figure = Field(description="share of frames whose cluster is the commonest of their phone")
    rank: Figure = Field(description="effective rank of the frames: 1 to their dimension")


class UnitMeasures(RecordPart):
    """Discovered units of every layer on phone-aligned speech: fitted on its training half, measured on the other."""

    corpus: str
    clusters: int = Field(ge=2, description="of k-means")
    seed: Count = Field(description="of k-means")
    phones: Count = Field(description="different phones")
    frames: Count = Field(description="measured frames, none silent")
    layers: list[LayerUnits] = Field(min_length=1, max_length=MOST_ENTRIES)

    def best(self) -> LayerUnits:
        """Return the layer whose clusters know most of phones; the first of equals."""
        return max(self.layers, key=lambda units: (units.pnmi, -units.layer))


class LayerAbx(RecordPart):
    """The phone ABX error of one layer, in %: 50 by chance."""

    layer: int = Field(ge=0, le=MOST_ENTRIES, description="from 0, nearest the input")
    within: Figure = Field(ge=0, le=100, description="A, B and X by one speaker")
    across: Figure = Field(ge=0, le=100, description="X by another speaker than A and B")


class AbxTriples(RecordPart):
    """What an ABX error is the mean of: for each pair of phones over speakers, then over pairs."""

    pairs: Count = Field(description="of phones, in order: of A and X, and of B")
    triples: Count = Field(description="of A, B and X")


class AbxMeasures(RecordPart):
    """Phone ABX of every layer on the test half of phone-aligned speech, neighbouring phones free."""

    corpus: str
    seed: Count = Field(description="of the choice of speakers and tokens")
    phones: Count = Field(description="different phones")
    speakers: Count = Field(description="compared")
    tokens: Count = Field(description="spoken phones of these speakers that hold at least one frame")
    within: AbxTriples
    across: AbxTriples
    layers: list[LayerAbx] = Field(min_length=1, max_length=MOST_ENTRIES)

    def best(self) -> LayerAbx:
        """Return the layer with the lowest error across speakers; the first of equals."""
        return min(self.layers, key=lambda abx: (abx.across, abx.layer))


class LayersRecord(RecordPart):
    """The layer analyses of one upstream."""

    upstream: str
    fingerprint: str = Field(description="SHA-256 of the upstream's identity, as in `result.json`")
    tasks: list[TaskProbes] = Field(default_factory=list, max_length=MOST_ENTRIES)
    alike: list[LayerSimilarity] = Field(default_factory=list, max_length=MOST_ENTRIES)
    units: list[UnitMeasures] = Field(default_factory=list, max_length=MOST_ENTRIES)
    abx: list[AbxMeasures] = Field(default_factory=list, max_length=MOST_ENTRIES)

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

    def with_units(self, added: UnitMeasures) -> LayersRecord:
        """Return the record with unit measures added, or in place of those with the same corpus, clusters and seed."""

        def key(measures: UnitMeasures) -> tuple[str, ...]:
            return measures.corpus, str(measures.clusters), str(measures.seed)

        return self.model_copy(update={"units": _replaced(self.units, added, key)})

    def with_abx(self, added: AbxMeasures) -> LayersRecord:
        """Return the record with ABX errors added, or in place of those with the same corpus and seed."""

        def key(measures: AbxMeasures) -> tuple[str, ...]:
            return measures.corpus, str(measures.seed)

        return self.model_copy(update={"abx": _replaced(self.abx, added, key)})


def _replaced(parts: list[Part], added: Part, key: Callable[[Part], tuple[str, ...]]) -> list[Part]:
    return [*(part for part in parts if key(part) != key(added)), added]


def read(path: Path) -> LayersRecord:
    """Read a file of `superb-eval layers`.

    Raises:
        UserError: it is no such file.
    """
    try:
        return LayersRecord.model_validate_json(run_files.read_bytes(path.parent, path.name))
    except ValidationError as error:
        reason = format_error(error)
        raise UserError(
            f"{path}: can't be read ({reason}). Remove it; `superb-eval layers` writes it again."
        ) from error


def write(record: LayersRecord, path: Path) -> None:
    """Write a record, atomically."""
    atomic_files.write_text(path, record.model_dump_json(indent=1) + "\n")


def find(results: Path) -> list[Path]:
    """Return the files of `superb-eval layers` in a results folder, sorted."""
    return sorted(results.glob(f"{FOLDER}/*/{NAME}"))
