"""Builds the record of a run from its results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from downstreams.base import TrainedTask
from superb_eval.data import audio, links
from superb_eval.features.dataset import FeatureDataset
from superb_eval.probing.folds import FoldResult, LearningRateResult
from superb_eval.results import code_versions
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import intervals
from superb_eval.runs.config import PreparedRun
from superb_eval.runs.run_warnings import run_warnings
from superb_eval.runtime import atomic_files, environment, threads


@dataclass
class StepTimer:
    """Wall-clock seconds by step; for steps that several runs share, each run's part.

    `peak_memory`: bytes in use at the peak of those steps; None where that isn't measured.
    """

    runs: int = 1
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: float | None = None

    def shared_by(self, runs: int) -> StepTimer:
        """Return a copy for the next steps, which so many runs share."""
        return replace(self, runs=runs, seconds=dict(self.seconds))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time that the context lasts to a step."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + (time.perf_counter() - start) / self.runs, 3)


def build_record(
    run: PreparedRun,
    dataset: FeatureDataset,
    results: Sequence[FoldResult],
    metrics: list[records.MetricRecord],
    timer: StepTimer,
) -> RunRecord:
    """Return the record of a finished run, whose predictions and heads are in its folder."""
    recipe, folder = run.recipe, run.folder()
    return RunRecord(
        schema_version=records.SCHEMA_VERSION,
        task=recipe.task,
        profile=recipe.profile,
        seed=run.config.seed,
        limit=run.corpus.limit,
        metrics=metrics,
        chance=run.folds[0].task.chance([row for result in results for row in result.rows]),
        upstream=_upstream(run, dataset),
        corpus=_corpus(run),
        features=_features(dataset),
        training=[_training(result) for result in results],
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe.digest(),
        departures=[*recipe.departures, *run.corpus.notes],
        predictions=_file_digests(sorted(folder.glob("predictions*.csv"))),
        heads=_file_digests([*sorted(folder.glob("probe-*.safetensors")), *folder.glob(records.LABELS)]),
        code=code_versions.versions(recipe.task),
        command=run.config.command(),
        versions=environment.versions(),
        hardware=_hardware(run.config.device),
        started=timer.started,
        seconds=timer.seconds,
        peak_memory=timer.peak_memory,
        skipped=[text for result in results for text in result.skipped],
        warnings=_warnings(run, results, metrics[0]),
    )


def _warnings(run: PreparedRun, results: Sequence[FoldResult], first: records.MetricRecord) -> list[str]:
    task, train = run.folds[0].task, run.recipe.train
    if train is None or not isinstance(task, TrainedTask):
        return []
    return run_warnings(task, train, results, standard_error=(first.high - first.low) / (2 * intervals.reach(math.inf)))


def _hardware(device: str) -> dict[str, str | int]:
    instructions = environment.vector_instructions()
    return {**environment.hardware(), **instructions, **threads.thread_settings(), "device": device}


def _upstream(run: PreparedRun, dataset: FeatureDataset) -> records.UpstreamRecord:
    card = run.upstream.card
    return records.UpstreamRecord(
        address=run.config.upstream,
        name=card.name,
        fingerprint=run.fingerprint,
        identity=dict(run.identity),
        parameters=run.upstream.count_parameters(),
        layers=dataset.layers,
        width=dataset.dim,
        stride=run.upstream.get_downsample_rates(run.recipe.features.key),
        licence=card.licence,
        training_data="none (random weights)" if "@random" in run.config.upstream else card.training_data,
        notes=list(card.notes),
    )


def _corpus(run: PreparedRun) -> records.CorpusRecord:
    corpus = run.corpus
    return records.CorpusRecord(
        name=corpus.name,
        synthetic=corpus.synthetic,
        official=corpus.complete(),
        digest=run.corpus_digest,
        utterances={split: len(manifest) for split, manifest in corpus.splits.items()},
        hours=round(sum(audio.seconds(clip) for clip in corpus.clips()) / 3600, 4),
        links=links.describe_links((clip.path for clip in corpus.clips()), corpus.root),
        leaks=run.leaks,
    )


def _features(dataset: FeatureDataset) -> records.FeaturesRecord:
    return records.FeaturesRecord(
        kind="pooled" if dataset.pooled else "frames",
        extracted=dataset.extracted,
        stored=len(dataset.places) - dataset.extracted,
        live=len(dataset.unstored),
        made_on=dataset.made_on,
        norms=[round(norm, 6) for norm in dataset.norms()],
    )


def _training(result: FoldResult) -> records.TrainingRecord:
    return records.TrainingRecord(
        fold=result.fold,
        lr=result.chosen.lr if result.chosen else None,
        rates=[_rate(rate) for rate in result.rates],
        layer_weights=[round(weight, 6) for weight in result.layer_weights],
        tuned=result.tuned,
        parameters=result.parameters,
    )


def _rate(rate: LearningRateResult) -> records.RateRecord:
    state = rate.state
    return records.RateRecord(
        lr=rate.lr,
        steps=state.step,
        best_step=state.best.step,
        best_dev=float(state.best.value or 0.0),
        curve=state.curve,
        resumed_at=state.resumed_at,
        skipped=state.skipped,
        diverged_at=state.diverged_at,
    )


def _file_digests(paths: Sequence[Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by name."""
    return {path.name: atomic_files.sha256(path) for path in paths}
