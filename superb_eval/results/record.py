"""The run record, `result.json`: what was run, on which data, and the results.

It is written last, so a run without it did not finish. Whatever reads results reads it; what else is stored of a run
(the suite's receipts, tables, reports) is derived from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superb_eval.errors import UserError
from superb_eval.results import run_files
from superb_eval.runtime import atomic_files

SCHEMA_VERSION = 6
"""Raised when a key is added, removed or changes its meaning; older records still load, with defaults for new keys.

1: the first. 2: `code`, `heads` and `corpus.official`. 3: `upstream.identity`; `code` names versions. 4:
`warnings`, and of each rate `skipped` and `diverged_at`. 5: `corpus.leaks` and `corpus.links`. 6: `limit` and
`peak_memory`.
"""

NAME = "result.json"

LABELS = "labels.json"
"""In a run's folder: what the outputs of each fold's head mean (`TrainedTask.learn`)."""

PREDICTIONS, HISTORICAL = "predictions.csv", "predictions-historical.csv"
"""In a run's folder: what its strict and its historical figures are scored from."""


MOST_ENTRIES = 10_000
"""Of a list or table in a record; a curve may have a hundred times as many points."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, le=10**6)]
Figure = Annotated[float, Field(ge=-1e12, le=1e12)]
Figures = Annotated[list[Figure], Field(max_length=MOST_ENTRIES)]
Texts = Annotated[list[str], Field(max_length=MOST_ENTRIES)]
TextByName = Annotated[dict[str, str], Field(max_length=MOST_ENTRIES)]


class RecordPart(BaseModel):
    """A part of a record: unknown keys are refused, and so are texts and figures that no run writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=100_000)


class MetricRecord(RecordPart):
    """One metric of a run."""

    key: str = Field(description="short name, such as `acc`")
    heading: str = Field(description="name in tables, such as `ACC`")
    unit: str = Field(description="unit of value, low and high")
    higher_is_better: bool = Field(description="direction")
    protocol: Literal["strict", "historical"] = Field(
        description="`strict`: everything was chosen on dev; `historical`: the published procedure, which looks at test"
    )
    value: Figure = Field(description="the metric on the test split")
    low: Figure = Field(description="lower end of the interval over test units; tables add the variance of training")
    high: Figure = Field(description="upper end")
    level: float = Field(gt=0, lt=1, description="nominal coverage of the interval, 0.95")
    method: str = Field(description="how the interval was made")
    units: Count = Field(description="test units: utterances, trials, queries or recordings")
    population: str = Field(
        "new units", description="what `low` and `high` are for: `new speakers`, `these speakers` or `new units`"
    )
    speakers: Count = Field(0, description="speakers of the test units; 0: none are known")
    low_these: Figure | None = Field(
        None, description="lower end for new utterances of these speakers, where `population` is `new speakers`"
    )
    high_these: Figure | None = Field(None, description="upper end")


class UpstreamRecord(RecordPart):
    """The upstream of a run."""

    address: str = Field(description="as given with -u")
    name: str = Field(description="name of its card")
    fingerprint: str = Field(description="SHA-256 of `identity`; in records without one, of weights and source")
    identity: TextByName = Field(
        default_factory=dict,
        description="SHA-256 of each part that its features depend on: `weights`, `settings` and `entry` (family and "
        "features version), or `outputs` on probe waveforms and each file of the user's own, by name",
    )
    parameters: Count = Field(description="weights that a forward pass uses")
    layers: Size = Field(description="hidden states offered to the featurizer")
    width: Size = Field(description="dimension of a hidden state")
    stride: Size = Field(description="samples per frame")
    licence: str = Field(description="of the weights")
    training_data: str = Field(description="what the upstream was trained on")
    notes: Texts = Field(description="what its card warns of")


class CorpusRecord(RecordPart):
    """The data of a run."""

    name: str = Field(description="name of the corpus")
    synthetic: bool = Field(description="generated speech; never to be called SUPERB")
    official: bool = Field(False, description="read from the official layout of SUPERB's corpus, and complete")
    digest: str = Field(description="SHA-256 of the rows of all splits and of the bytes of their audio")
    utterances: Annotated[dict[str, Count], Field(max_length=MOST_ENTRIES)] = Field(description="rows per split")
    hours: Figure = Field(description="audio of all splits, in hours")
    links: str = Field(
        "", description="how many audio files are links out of the corpus folder, with one of them; empty: none"
    )
    leaks: Texts = Field(
        default_factory=list,
        description="audio or speakers that two splits share; empty where none was found, or none looked for",
    )


class FeaturesRecord(RecordPart):
    """Where the features of a run came from."""

    kind: str = Field(description="`pooled` (means over time) or `frames`")
    extracted: Count = Field(description="utterances that the upstream was run on for this run")
    stored: Count = Field(description="utterances whose features were read from the store")
    live: Count = Field(
        0, description="utterances whose features were computed anew for each batch: the store had no room for them"
    )
    made_on: str = Field(description="device and precision of the extraction")
    norms: Figures = Field(
        default_factory=list,
        description="mean length of each layer's vectors, of means over time where pooled; over 256 clips at most",
    )


class RateRecord(RecordPart):
    """One learning rate that was tried."""

    lr: float = Field(description="learning rate")
    steps: Count = Field(description="updates made")
    best_step: Count = Field(description="update with the best first metric on dev; 0: it was never evaluated")
    best_dev: float = Field(description="that figure")
    curve: list[dict[str, float]] = Field(
        max_length=100 * MOST_ENTRIES,
        description="step, mean training loss since the last point, first metric on dev, on test where it is monitored",
    )
    resumed_at: list[Count] = Field(
        max_length=MOST_ENTRIES, description="updates at which an interrupted run was resumed"
    )
    skipped: Count = Field(0, description="updates left out because their gradient was not finite")
    diverged_at: Count | None = Field(
        None, description="update after which it was left out, since none was finite any more; null: it did not diverge"
    )


class TrainingRecord(RecordPart):
    """How the head of one fold was trained."""

    fold: Count = Field(description="number of the fold, from 1")
    lr: float | None = Field(
        description="the learning rate that was tested; chosen on dev where several were; null: nothing was trained"
    )
    rates: Annotated[list[RateRecord], Field(max_length=MOST_ENTRIES)] = Field(
        description="every learning rate that was tried"
    )
    layer_weights: list[Figure] = Field(
        max_length=MOST_ENTRIES, description="weight of each layer as tested; weights are not importance"
    )
    tuned: dict[str, Any] = Field(description="what was chosen on dev without training, such as thresholds, or a layer")
    parameters: Count = Field(description="trainable weights of featurizer and head")


class RunRecord(RecordPart):
    """One run: a task, an upstream and a seed."""

    schema_version: Count = Field(description="of this file; see the list of keys in superb_eval/results/README.md")
    task: str = Field(description="short name of the task")
    profile: str = Field(description="`superb` (official protocol), `mini` or `nano`")
    seed: Annotated[int, Field(ge=0, lt=2**64)] = Field(description="of head initialisation, sampling and dropout")
    limit: Count | None = Field(
        None, description="of a try: --limit, the utterances of each split that were left, about; null: all of them"
    )
    metrics: list[MetricRecord] = Field(
        max_length=MOST_ENTRIES,
        description="on the test split; the first one chose the checkpoint on dev, except in SD (frame accuracy did)",
    )
    chance: Figure | None = Field(
        description="first metric of the best constant answer, or of random scores; null where neither is defined"
    )
    upstream: UpstreamRecord
    corpus: CorpusRecord
    features: FeaturesRecord
    training: Annotated[list[TrainingRecord], Field(max_length=MOST_ENTRIES)] = Field(description="one for each fold")
    recipe: dict[str, Any] = Field(description="the recipe as resolved: file, overrides and defaults")
    recipe_digest: str = Field(description="SHA-256 of the resolved recipe")
    departures: Texts = Field(description="deviations of recipe and corpus from the SUPERB protocol")
    predictions: TextByName = Field(
        description="prediction files in the run's folder (id, truth, answer, fold, speaker) and their SHA-256"
    )
    heads: TextByName = Field(
        default_factory=dict, description="files of featurizers, heads and their labels, and their SHA-256"
    )
    code: str = Field(
        "",
        description="versions of the engine and of the task, such as `engine 1, ks 1`; in records without "
        "versions, a SHA-256 of the sources",
    )
    command: str = Field(description="the command that repeats this run")
    versions: TextByName = Field(description="of Python and the packages that matter")
    hardware: dict[str, str | int] = Field(
        max_length=MOST_ENTRIES,
        description="processor, cores, memory, accelerator, threads; `cpu_capability`: the vector instructions that "
        "torch uses, and variables that limit them, such as ATEN_CPU_CAPABILITY, where set",
    )
    started: str = Field(description="when the run (or its last resumption) began, ISO 8601, UTC")
    seconds: Annotated[dict[str, Figure], Field(max_length=MOST_ENTRIES)] = Field(
        description="wall-clock time per step since then"
    )
    peak_memory: Annotated[float, Field(ge=0, le=1e18)] | None = Field(
        None,
        description="bytes in use at the peak of features, training and test: resident in the process, or allocated on "
        "the accelerator; null where the system doesn't measure it",
    )
    skipped: Texts = Field(description="what was left out, and why; empty where nothing was")
    warnings: Texts = Field(
        default_factory=list,
        description="what its training warns of: the best checkpoint is the last, rates diverged, updates were skipped",
    )


def write(record: RunRecord, folder: Path) -> None:
    """Write a record into its run's folder, atomically."""
    atomic_files.write_text(folder / NAME, record.model_dump_json(indent=2) + "\n")


def read(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        UserError: it can't be read, is not the record of a finished run, or of a newer schema than this version knows.
    """
    content = run_files.read_bytes(path.parent, path.name)
    _check_version(path, content)
    try:
        record = RunRecord.model_validate_json(content)
    except ValidationError as error:
        why = format_error(error)
        raise UserError(f"{path}: not a run record of schema {SCHEMA_VERSION}: {why}. Run it again.") from error
    for part in ("metrics", "training"):
        if not getattr(record, part):
            raise UserError(f"{path}: not the record of a finished run: `{part}` is empty. Run it again.")
    return record


def format_error(error: ValidationError) -> str:
    """Return the first error on one line: the key, and what is wrong with it."""
    first = error.errors(include_input=False, include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"]))[:200], first["msg"])))


class _Versioned(BaseModel):
    """The one key that all schemas have."""

    schema_version: int


def _check_version(path: Path, content: bytes) -> None:
    """Refuse a newer schema by name; a file that is no record is left to the validation."""
    try:
        version = _Versioned.model_validate_json(content).schema_version
    except ValidationError:
        return
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema {version}; this version of superb-eval reads up to {SCHEMA_VERSION}. Update it."
        )


def find(results: Path) -> list[Path]:
    """Return the records of a results folder, sorted by path.

    Raises:
        UserError: there is no such folder.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such results folder. `superb-eval run` creates one.")
    return sorted(results.glob(f"*/*/*/{NAME}"))


def describe_keys() -> str:
    """Return the schema key by key as a Markdown list."""
    return "\n".join(_keys(RunRecord, ""))


def _keys(model: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for name, info in model.model_fields.items():
        inner = _model_of(info.annotation)
        text = info.description or (inner.__doc__ if inner else "") or ""
        lines.append(f"- `{prefix}{name}`: {text}")
        if inner:
            lines += _keys(inner, f"{prefix}{name}{'[]' if 'list' in str(info.annotation) else ''}.")
    return lines


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((c for c in candidates if issubclass(type(c), type) and issubclass(c, BaseModel)), None)
