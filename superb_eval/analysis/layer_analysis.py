"""Layer by layer: what one probe on each layer alone comes to, and which layers of two upstreams are alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downstreams import registry as tasks
from superb_eval.analysis import cka
from superb_eval.errors import UserError
from superb_eval.features import upstream_cache
from superb_eval.features.dataset import FeatureDataset
from superb_eval.results import layer_record
from superb_eval.results.layer_record import Alikeness, LayerProbe, LayersRecord, TaskProbes
from superb_eval.results.record import RunRecord
from superb_eval.runs import config, evaluate
from superb_eval.runs.config import PreparedRun, RunConfig, prepare
from superb_eval.runtime.progress import NoProgress, Progress
from upstreams.loading import earlier_fingerprints

MOST_UTTERANCES = 1000
"""Compared at most: CKA takes memory and time with their square. Taken evenly from the test split."""


@dataclass(frozen=True)
class LayerQuestion:
    """What is asked: `tasks` to probe each layer on, and the upstream to compare layers with (None: with none).

    `cell` says all else as for a single cell; its task is left open, and its `out` is the results folder.
    """

    cell: RunConfig
    tasks: tuple[str, ...]
    against: str | None = None


def analyse(question: LayerQuestion, reporter: Progress | None = None) -> tuple[LayersRecord, Path]:
    """Probe every layer and compare with another upstream; return what was found so far, and the file it is kept in.

    The probes of a task share one pass of the upstream, by the store. Each is a run of its own, so that what was
    finished before an interruption is kept.

    Raises:
        UserError: something that the user can mend; what was finished is kept.
    """
    reporter = reporter or NoProgress()
    asked = question.cell
    path = asked.out / layer_record.FOLDER / config.slug(asked.upstream) / layer_record.NAME
    record = _begun(path, asked)
    for task in question.tasks:
        record = record.with_task(_probe(replace(asked, task=task), path.parent, reporter))
        layer_record.write(record, path)
    if question.against is not None:
        setting = prepare(replace(asked, task=_heard(question.tasks)), reporter)
        record = record.with_alike(_compare(setting, question.against, reporter))
        layer_record.write(record, path)
    return record, path


def _begun(path: Path, asked: RunConfig) -> LayersRecord:
    """What was found before of this upstream, if it still gives the same."""
    address = asked.upstream
    fingerprint = upstream_cache.load(address, asked.device, asked.store).fingerprint()
    if path.is_file():
        kept = layer_record.read(path)
        if (kept.upstream, earlier_fingerprints.current(kept.fingerprint)) == (address, fingerprint):
            return kept.model_copy(update={"fingerprint": fingerprint})
    return LayersRecord(upstream=address, fingerprint=fingerprint)


def _probe(asked: RunConfig, folder: Path, reporter: Progress) -> TaskProbes:
    """Run a cell on each layer alone."""
    probes: list[LayerProbe] = []
    layers = 1
    while len(probes) < layers:
        layer = len(probes)
        reporter.say(f"{asked.task}: layer {layer}")
        one = replace(asked, overrides=(*asked.overrides, f"features.layer={layer}"), out=folder.parent)
        run, where = evaluate.evaluate(one, reporter)
        probes.append(_told(layer, run, str(where.relative_to(folder))))
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


def _told(layer: int, run: RunRecord, where: str) -> LayerProbe:
    metric = run.metrics[0]
    return LayerProbe(layer=layer, value=metric.value, low=metric.low, high=metric.high, run=where, command=run.command)


def _heard(chosen: tuple[str, ...]) -> str:
    """The task whose corpus is heard for CKA: one whose features are means already, where there is such a one."""
    return next((task for task in chosen if tasks.get(Path(task).stem).pooled), chosen[0])


def _compare(ours: PreparedRun, against: str, reporter: Progress) -> Alikeness:
    """Compare an upstream with another one on the test split, through the features that cells of the task use."""
    theirs = prepare(replace(ours.order, upstream=against), reporter)
    if ours.corpus_digest != theirs.corpus_digest:
        raise UserError(f"{ours.corpus.name}: changed while it was read. Run the same command again.")
    ids = _chosen(ours)
    x, y = (_means(evaluate.features(setting, reporter), ids) for setting in (ours, theirs))
    return Alikeness(
        against=against,
        fingerprint=theirs.fingerprint,
        corpus=ours.corpus.name,
        split="test",
        utterances=len(ids),
        cka=_written(cka.linear_cka(x, y)),
        by_chance=_written(cka.by_chance(x, y)),
    )


def _chosen(setting: PreparedRun) -> list[str]:
    """Digests of the test split's clips, each once, at most `MOST_UTTERANCES`, evenly from its rows."""
    digests = list(dict.fromkeys(setting.digests[u.clip] for u in setting.corpus.splits["test"]))
    if len(digests) < 3:
        raise UserError(f"{setting.corpus.name}: has {len(digests)} test clips; CKA needs at least 3.")
    step = max(1.0, len(digests) / MOST_UTTERANCES)
    return [digests[int(k * step)] for k in range(min(len(digests), MOST_UTTERANCES))]


def _means(bank: FeatureDataset, digests: list[str]) -> NDArray[np.float64]:
    """Means over time [utterances, layers, dim]."""
    rows = (bank.draw([digest])[0].double() for digest in digests)
    return np.stack([(row if bank.pooled else row.mean(dim=0)).numpy() for row in rows])


def _written(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    """For JSON: NaN, which it doesn't have, as null."""
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in matrix]
