"""The run record, `result.json`: what was run, on which data, and the results.

It is written last, so a run without it did not finish. Whatever reads results reads it; what else is stored of a run
(the suite's receipts, tables, reports) is derived from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superb_eval.errors import UserError
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


class RecordPart(BaseModel):
    """A part of a record: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricRecord(RecordPart):
    """One metric of a run."""

    key: str = Field(description="short name, such as `acc`")
    heading: str = Field(description="name in tables, such as `ACC`")
    unit: str = Field(description="unit of value, low and high")
    higher_is_better: bool = Field(description="direction")
    protocol: str = Field(
        description="`strict`: everything was chosen on dev; `historical`: the published procedure, which looks at test"
    )
    value: float = Field(description="the metric on the test split")
    low: float = Field(description="lower end of the interval over test units; tables add the variance of training")
    high: float = Field(description="upper end")
    level: float = Field(description="nominal coverage of the interval, 0.95")
    method: str = Field(description="how the interval was made")
    units: int = Field(description="test units: utterances, trials, queries or recordings")
    population: str = Field(
        "new units", description="what `low` and `high` are for: `new speakers`, `these speakers` or `new units`"
    )
    speakers: int = Field(0, description="speakers of the test units; 0: none are known")
    low_these: float | None = Field(
        None, description="lower end for new utterances of these speakers, where `population` is `new speakers`"
    )
    high_these: float | None = Field(None, description="upper end")


class UpstreamRecord(RecordPart):
    """The upstream of a run."""

    address: str = Field(description="as given with -u")
    name: str = Field(description="name of its card")
    fingerprint: str = Field(description="SHA-256 of `identity`; in records without one, of weights and source")
    identity: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of each part that its features depend on: `weights`, `settings` and `entry` (family and "
        "features version), or `outputs` on probe waveforms and each file of the user's own, by name",
    )
    parameters: int = Field(description="weights that a forward pass uses")
    layers: int = Field(description="hidden states offered to the featurizer")
    width: int = Field(description="dimension of a hidden state")
    stride: int = Field(description="samples per frame")
    licence: str = Field(description="of the weights")
    training_data: str = Field(description="what the upstream was trained on")
    notes: list[str] = Field(description="what its card warns of")


class CorpusRecord(RecordPart):
    """The data of a run."""

    name: str = Field(description="name of the corpus")
    synthetic: bool = Field(description="generated speech; never to be called SUPERB")
    official: bool = Field(False, description="read from the official layout of SUPERB's corpus, and complete")
    digest: str = Field(description="SHA-256 of the rows of all splits and of the bytes of their audio")
    utterances: dict[str, int] = Field(description="rows per split")
    hours: float = Field(description="audio of all splits, in hours")
    links: str = Field(
        "", description="how many audio files are links out of the corpus folder, with one of them; empty: none"
    )
    leaks: list[str] = Field(
        default_factory=list,
        description="audio or speakers that two splits share; empty where none was found, or none looked for",
    )


class FeaturesRecord(RecordPart):
    """Where the features of a run came from."""

    kind: str = Field(description="`pooled` (means over time) or `frames`")
    extracted: int = Field(description="utterances that the upstream was run on for this run")
    stored: int = Field(description="utterances whose features were read from the store")
    live: int = Field(
        0, description="utterances whose features were computed anew for each batch: the store had no room for them"
    )
    made_on: str = Field(description="device and precision of the extraction")
    norms: list[float] = Field(
        default_factory=list,
        description="mean length of each layer's vectors, of means over time where pooled; over 256 clips at most",
    )


class RateRecord(RecordPart):
    """One learning rate that was tried."""

    lr: float = Field(description="learning rate")
    steps: int = Field(description="updates made")
    best_step: int = Field(description="update with the best first metric on dev; 0: it was never evaluated")
    best_dev: float = Field(description="that figure")
    curve: list[dict[str, float]] = Field(
        description="step, mean training loss since the last point, first metric on dev, on test where it is monitored"
    )
    resumed_at: list[int] = Field(description="updates at which an interrupted run was resumed")
    skipped: int = Field(0, description="updates left out because their gradient was not finite")
    diverged_at: int | None = Field(
        None, description="update after which it was left out, since none was finite any more; null: it did not diverge"
    )


class TrainingRecord(RecordPart):
    """How the head of one fold was trained."""

    fold: int = Field(description="number of the fold, from 1")
    lr: float | None = Field(
        description="the learning rate that was tested; chosen on dev where several were; null: nothing was trained"
    )
    rates: list[RateRecord] = Field(description="every learning rate that was tried")
    layer_weights: list[float] = Field(description="weight of each layer as tested; weights are not importance")
    tuned: dict[str, Any] = Field(description="what was chosen on dev without training, such as thresholds, or a layer")
    parameters: int = Field(description="trainable weights of featurizer and head")


class RunRecord(RecordPart):
    """One run: a task, an upstream and a seed."""

    schema_version: int = Field(description="of this file; see the list of keys in superb_eval/results/README.md")
    task: str = Field(description="short name of the task")
    profile: str = Field(description="`superb` (official protocol), `mini` or `nano`")
    seed: int = Field(description="of head initialisation, sampling and dropout")
    limit: int | None = Field(
        None, description="of a try: --limit, the utterances of each split that were left, about; null: all of them"
    )
    metrics: list[MetricRecord] = Field(
        description="on the test split; the first one chose the checkpoint on dev, except in SD (frame accuracy did)"
    )
    chance: float | None = Field(
        description="first metric of the best constant answer, or of random scores; null where neither is defined"
    )
    upstream: UpstreamRecord
    corpus: CorpusRecord
    features: FeaturesRecord
    training: list[TrainingRecord] = Field(description="one for each fold")
    recipe: dict[str, Any] = Field(description="the recipe as resolved: file, overrides and defaults")
    recipe_digest: str = Field(description="SHA-256 of the resolved recipe")
    departures: list[str] = Field(description="deviations of recipe and corpus from the SUPERB protocol")
    predictions: dict[str, str] = Field(
        description="prediction files in the run's folder (id, truth, answer, fold, speaker) and their SHA-256"
    )
    heads: dict[str, str] = Field(
        default_factory=dict, description="files of featurizers, heads and their labels, and their SHA-256"
    )
    code: str = Field(
        "",
        description="versions of the engine and of the task, such as `engine 1, ks 1`; in records without "
        "versions, a SHA-256 of the sources",
    )
    command: str = Field(description="the command that repeats this run")
    versions: dict[str, str] = Field(description="of Python and the packages that matter")
    hardware: dict[str, str | int] = Field(
        description="processor, cores, memory, accelerator, threads; `cpu_capability`: the vector instructions that "
        "torch uses, and variables that limit them, such as ATEN_CPU_CAPABILITY, where set"
    )
    started: str = Field(description="when the run (or its last resumption) began, ISO 8601, UTC")
    seconds: dict[str, float] = Field(description="wall-clock time per step since then")
    peak_memory: float | None = Field(
        None,
        description="bytes in use at the peak of features, training and test: resident in the process, or allocated on "
        "the accelerator; null where the system doesn't measure it",
    )
    skipped: list[str] = Field(description="what was left out, and why; empty where nothing was")
    warnings: list[str] = Field(
        default_factory=list,
        description="what its training warns of: the best checkpoint is the last, rates diverged, updates were skipped",
    )


def write(record: RunRecord, folder: Path) -> None:
    """Write a record into its run's folder, atomically."""
    atomic_files.write_text(folder / NAME, record.model_dump_json(indent=2) + "\n")


def read(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        UserError: not the record of a finished run, or one of a newer schema than this version knows.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path}: can't be read: it is no regular file.")
    try:
        text = path.read_text(encoding="utf8")
        _check_version(path, text)
        record = RunRecord.model_validate_json(text)
    except ValidationError as error:
        why = format_error(error)
        raise UserError(f"{path}: not a run record of schema {SCHEMA_VERSION}: {why}. Run it again.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from error
    for part in ("metrics", "training"):
        if not getattr(record, part):
            raise UserError(f"{path}: not the record of a finished run: `{part}` is empty. Run it again.")
    return record


def format_error(error: ValidationError) -> str:
    """Return the first error on one line: the key, and what is wrong with it."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _check_version(path: Path, text: str) -> None:
    """Refuse a newer schema by name; a file that is no record is left to the validation."""
    try:
        version = json.loads(text)["schema_version"]
        newer = version > SCHEMA_VERSION
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    if newer:
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
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
