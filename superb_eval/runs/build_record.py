"""Puts together the record of a cell from what its run left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from superb_eval.data import audio
from superb_eval.features.dataset import FeatureDataset
from superb_eval.probing.folds import Outcome, Rate
from superb_eval.results import code_versions
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord
from superb_eval.runs.config import PreparedRun
from superb_eval.runtime import atomic_files, environment, threads


@dataclass
class StageTimer:
    """Wall-clock seconds by stage; of stages that several cells share, each cell's part."""

    cells: int = 1
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    seconds: dict[str, float] = field(default_factory=dict)

    def among(self, cells: int) -> StageTimer:
        """Return one that goes on from here, for stages that so many cells share."""
        return replace(self, cells=cells, seconds=dict(self.seconds))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the context lasts to a stage."""
        before = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + (time.perf_counter() - before) / self.cells, 3)


def build_record(
    setting: PreparedRun,
    bank: FeatureDataset,
    outcomes: Sequence[Outcome],
    found: list[records.MetricRecord],
    clock: StageTimer,
) -> RunRecord:
    """Return the record of a run that is through."""
    chosen, folder = setting.recipe, setting.folder()
    return RunRecord(
        schema_version=records.SCHEMA_VERSION,
        task=chosen.task,
        profile=chosen.profile,
        seed=setting.order.seed,
        metrics=found,
        chance=setting.folds[0].task.chance([row for outcome in outcomes for row in outcome.rows]),
        upstream=_upstream(setting, bank),
        corpus=_corpus(setting),
        features=records.FeaturesRecord(
            kind="pooled" if bank.pooled else "frames",
            extracted=bank.extracted,
            stored=len(bank.places) - bank.extracted,
            live=len(bank.unstored),
            made_on=bank.made_on,
            norms=[round(norm, 6) for norm in bank.norms()],
        ),
        training=[_training(outcome) for outcome in outcomes],
        recipe=chosen.model_dump(mode="json"),
        recipe_digest=chosen.digest(),
        departures=[*chosen.departures, *setting.corpus.notes],
        predictions={path.name: atomic_files.sha256(path) for path in sorted(folder.glob("predictions*.csv"))},
        heads={
            path.name: atomic_files.sha256(path)
            for path in sorted(folder.glob("probe-*.safetensors")) + _labels(folder)
        },
        code=code_versions.versions(chosen.task),
        command=setting.order.command(),
        versions=environment.versions(),
        hardware={**environment.hardware(), **threads.thread_settings(), "device": setting.order.device},
        started=clock.started,
        seconds=clock.seconds,
        skipped=[text for outcome in outcomes for text in outcome.skipped],
    )


def _upstream(setting: PreparedRun, bank: FeatureDataset) -> records.UpstreamRecord:
    card = setting.upstream.card
    return records.UpstreamRecord(
        address=setting.order.upstream,
        name=card.name,
        fingerprint=setting.fingerprint,
        identity=dict(setting.identity),
        parameters=setting.upstream.count_parameters(),
        layers=bank.layers,
        width=bank.dim,
        stride=setting.upstream.get_downsample_rates(setting.recipe.features.key),
        licence=card.licence,
        training_data="none (random weights)" if "@random" in setting.order.upstream else card.training_data,
        notes=list(card.notes),
    )


def _corpus(setting: PreparedRun) -> records.CorpusRecord:
    corpus = setting.corpus
    return records.CorpusRecord(
        name=corpus.name,
        synthetic=corpus.synthetic,
        official=corpus.complete(),
        digest=setting.corpus_digest,
        utterances={split: len(manifest) for split, manifest in corpus.splits.items()},
        hours=round(sum(audio.seconds(clip) for clip in corpus.clips()) / 3600, 4),
    )


def _training(outcome: Outcome) -> records.TrainingRecord:
    return records.TrainingRecord(
        fold=outcome.fold,
        lr=outcome.chosen.lr if outcome.chosen else None,
        rates=[_rate(rate) for rate in outcome.rates],
        layer_weights=[round(weight, 6) for weight in outcome.layer_weights],
        tuned=outcome.tuned,
        parameters=outcome.parameters,
    )


def _rate(rate: Rate) -> records.RateRecord:
    state = rate.state
    return records.RateRecord(
        lr=rate.lr,
        steps=state.step,
        best_step=state.best.step,
        best_dev=float(state.best.value or 0.0),
        curve=state.curve,
        resumed_at=state.resumed_at,
    )


def _labels(folder: Path) -> list[Path]:
    return [folder / records.LABELS] if (folder / records.LABELS).is_file() else []
