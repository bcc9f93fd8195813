"""Puts together the record of a cell from what its run left."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone

from downstreams.base import Task
from superb_eval import audio, environment, threads
from superb_eval.features.gather import Features
from superb_eval.order import Setting
from superb_eval.probe import Probe, Split, State
from superb_eval.results import record as records
from superb_eval.results.intervals import LEVEL, METHOD, interval
from superb_eval.results.record import RunRecord

PREDICTIONS = "predictions.csv"


@dataclass
class Clock:
    """Wall-clock seconds by stage."""

    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the context lasts to a stage."""
        before = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - before, 3)


def metrics(task: Task, truths: Sequence[str], found: Sequence[str]) -> list[records.MetricRecord]:
    """Score the answers, each metric with its interval."""
    rows = []
    for score in task.score(truths, found):
        low, high = interval(score)
        metric = score.metric
        rows.append(
            records.MetricRecord(
                key=metric.key,
                heading=metric.heading,
                unit=metric.unit,
                higher_is_better=metric.higher_is_better,
                value=score.value,
                low=low,
                high=high,
                level=LEVEL,
                method=METHOD,
                utterances=len(truths),
            )
        )
    return rows


def compose(
    setting: Setting,
    splits: dict[str, Split],
    probe: Probe,
    state: State,
    metrics: list[records.MetricRecord],
    predictions: str,
    clock: Clock,
) -> RunRecord:
    """Return the record of a run that is through."""
    corpus, chosen = setting.corpus, setting.recipe
    hours = sum(audio.seconds(u.clip) for manifest in corpus.splits.values() for u in manifest) / 3600
    return RunRecord(
        schema_version=records.SCHEMA_VERSION,
        task=chosen.task,
        profile=chosen.profile,
        seed=setting.order.seed,
        metrics=metrics,
        chance=setting.task.chance(corpus.splits["test"]),
        upstream=_upstream_record(setting, splits["train"].features),
        corpus=records.CorpusRecord(
            name=corpus.name,
            synthetic=corpus.synthetic,
            digest=setting.corpus_digest(),
            utterances={split: len(manifest) for split, manifest in corpus.splits.items()},
            hours=round(hours, 4),
            notes=list(corpus.notes),
        ),
        features=_features_record(splits, probe),
        training=records.TrainingRecord(
            steps=state.step,
            best_step=state.best_step,
            best_dev=float(state.best_value or 0.0),
            curve=state.curve,
            resumed_at=state.resumed_at,
            parameters=sum(p.numel() for p in probe.parameters()),
        ),
        recipe=chosen.model_dump(mode="json"),
        recipe_digest=chosen.digest(),
        departures=list(chosen.departures),
        predictions=PREDICTIONS,
        predictions_digest=hashlib.sha256(predictions.encode()).hexdigest(),
        command=setting.order.command(),
        versions=environment.versions(),
        hardware={**environment.hardware(), **threads.describe(), "device": setting.order.device},
        started=clock.started,
        seconds=clock.seconds,
        skipped=[],
    )


def _upstream_record(setting: Setting, features: Features) -> records.UpstreamRecord:
    card = setting.upstream.card
    return records.UpstreamRecord(
        address=setting.order.upstream,
        name=card.name,
        fingerprint=setting.fingerprint,
        parameters=setting.upstream.count_parameters(),
        layers=features.layers,
        width=features.dim,
        stride=setting.upstream.get_downsample_rates(setting.recipe.features.key),
        licence=card.licence,
        training_data="none (random weights)" if "@random" in setting.order.upstream else card.training_data,
        notes=list(card.notes),
    )


def _features_record(splits: dict[str, Split], probe: Probe) -> records.FeaturesRecord:
    every = [split.features for split in splits.values()]
    return records.FeaturesRecord(
        kind="pooled" if every[0].pooled else "frames",
        extracted=sum(f.extracted for f in every),
        stored=sum(f.stored for f in every),
        made_on=", ".join(sorted({f.made_on for f in every})),
        layer_weights=[round(w, 6) for w in probe.featurizer.layer_weights().tolist()],
    )
