"""Layer by layer: the figure of one probe on each layer alone, and which layers of two upstreams are similar."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downstreams import registry as tasks
from superb_eval.analysis import abx, cka, units
from superb_eval.errors import UserError
from superb_eval.features import upstream_cache
from superb_eval.features.dataset import FeatureDataset
from superb_eval.probing import phone_abx
from superb_eval.results import layer_record
from superb_eval.results.folder import slug
from superb_eval.results.layer_record import LayerProbe, LayerSimilarity, LayersRecord, TaskProbes
from superb_eval.results.record import RunRecord
from superb_eval.results.stats import training_spread
from superb_eval.results.upstream_address import resolve_address
from superb_eval.runs import evaluate
from superb_eval.runs.config import PreparedRun, RunConfig, prepare
from superb_eval.runtime.progress import NoProgress, Progress
from upstreams.loading import legacy_fingerprints

MOST_UTTERANCES = 1000
"""Compared at most: CKA takes memory and time with their square. Taken evenly from the test split."""


@dataclass(frozen=True)
class LayerQuestion:
    """The `tasks` to probe each layer on, the upstream to compare layers with (None: with none), the numbers of
    clusters of which units are measured, and whether phone ABX errors are.

    `config` holds the rest, as for a single run; its task is ignored, and its `out` is the results folder.
    """

    config: RunConfig
    tasks: tuple[str, ...]
    against: str | None = None
    clusters: tuple[int, ...] = ()
    abx: bool = False


def analyse(question: LayerQuestion, progress: Progress | None = None) -> tuple[LayersRecord, Path]:
    """Probe every layer and compare with another upstream; return the record so far, and its file.

    The probes of a task share one pass of the upstream, by the store. Each is a run of its own, so that an
    interruption loses nothing that was finished.

    Raises:
        UserError: something that the user can fix; finished probes are kept.
    """
    progress = progress or NoProgress()
    if question.abx:
        phone_abx.check_library()  # before the probes, which may take hours
    asked = question.config
    config = replace(asked, upstream=resolve_address(asked.upstream, asked.out))
    path = config.out / layer_record.FOLDER / slug(config.upstream) / layer_record.NAME
    record = _existing_record(path, config)
    for task in question.tasks:
        record = record.with_task(_probe(replace(config, task=task), path.parent, progress))
        layer_record.write(record, path)
    for clusters in question.clusters:
        record = record.with_units(units.measure(config, clusters, path.parent, progress))
        layer_record.write(record, path)
    if question.abx:
        record = record.with_abx(abx.measure(config, progress))
        layer_record.write(record, path)
    if question.against is not None:
        run = prepare(replace(config, task=_comparison_task(question.tasks)), progress)
        record = record.with_similarity(_compare(run, question.against, progress))
        layer_record.write(record, path)
    return record, path


def _existing_record(path: Path, config: RunConfig) -> LayersRecord:
    """Return the record of an earlier analysis of this upstream if it is unchanged, else an empty one."""
    address = config.upstream
    fingerprint = upstream_cache.load(address, config.device, config.store).fingerprint()
    if os.path.lexists(path):
        earlier = layer_record.read(path)
        if (earlier.upstream, legacy_fingerprints.current(earlier.fingerprint)) == (address, fingerprint):
            return earlier.model_copy(update={"fingerprint": fingerprint})
    return LayersRecord(upstream=address, fingerprint=fingerprint)


def _probe(config: RunConfig, folder: Path, progress: Progress) -> TaskProbes:
    """Run the task on each layer alone."""
    probes: list[LayerProbe] = []
    layers = 1
    while len(probes) < layers:
        layer = len(probes)
        progress.log(f"{config.task}: layer {layer}")
        single = replace(config, overrides=(*config.overrides, f"features.layer={layer}"), out=folder.parent)
        run, where = evaluate.evaluate(single, progress)
        probes.append(_layer_probe(layer, run, str(where.relative_to(folder))))
        layers = run.upstream.layers
    metric = run.metrics[0]
    return TaskProbes(
        task=run.task,
        profile=run.profile,
        corpus=run.corpus.name,
        corpus_digest=run.corpus.digest,
        heading=metric.heading,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        probes=probes,
    )


def _layer_probe(layer: int, run: RunRecord, where: str) -> LayerProbe:
    metric = run.metrics[0]
    low, high = training_spread.possible((metric.low, metric.high), metric.higher_is_better)
    return LayerProbe(layer=layer, value=metric.value, low=low, high=high, run=where, command=run.command)


def _comparison_task(chosen: tuple[str, ...]) -> str:
    """Return the task whose corpus CKA uses: one whose features are means over time, where there is one."""
    return next((task for task in chosen if tasks.get(Path(task).stem).pooled), chosen[0])


def _compare(ours: PreparedRun, against: str, progress: Progress) -> LayerSimilarity:
    """Compare an upstream with another one on the test split, on the features that runs of the task use."""
    theirs = prepare(replace(ours.config, upstream=against), progress)
    if ours.corpus_digest != theirs.corpus_digest:
        raise UserError(f"{ours.corpus.name}: changed while it was read. Run the same command again.")
    ids = _compared_clips(ours)
    x, y = (_means(evaluate.load_features(run, progress), ids) for run in (ours, theirs))
    return LayerSimilarity(
        against=against,
        fingerprint=theirs.fingerprint,
        corpus=ours.corpus.name,
        split="test",
        utterances=len(ids),
        cka=_without_nan(cka.linear_cka(x, y)),
        by_chance=_without_nan(cka.by_chance(x, y)),
    )


def _compared_clips(run: PreparedRun) -> list[str]:
    """Digests of the test split's clips, each once, at most `MOST_UTTERANCES`, evenly from its rows."""
    digests = list(dict.fromkeys(run.digests[u.clip] for u in run.corpus.splits["test"]))
    if len(digests) < 3:
        raise UserError(f"{run.corpus.name}: has {len(digests)} test clips; CKA needs at least 3.")
    step = max(1.0, len(digests) / MOST_UTTERANCES)
    return [digests[int(k * step)] for k in range(min(len(digests), MOST_UTTERANCES))]


def _means(dataset: FeatureDataset, digests: list[str]) -> NDArray[np.float64]:
    """Means over time [utterances, layers, dim]."""
    rows = (dataset.read([digest])[0].double() for digest in digests)
    return np.stack([(row if dataset.pooled else row.mean(dim=0)).numpy() for row in rows])


def _without_nan(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    """For JSON: NaN, which it doesn't have, as null."""
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in matrix]
