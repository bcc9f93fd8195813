"""Charts of layers: the weights heads give them, the score of each alone, and the similarity of two upstreams'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import altair as alt

from downstreams.registry import task_order
from superb_eval.report.charts.figure import DataRow, Figure, chart_of, figure, tips
from superb_eval.report.charts.heatmap import Matrix, heatmap
from superb_eval.results.folder import RunGroup, RunGroups
from superb_eval.results.layer_record import (
    AbxMeasures,
    LayerProbe,
    LayerSimilarity,
    LayersRecord,
    TaskProbes,
    UnitMeasures,
)
from superb_eval.results.record import RunRecord

RAW = "Mean over folds and seeds. QbE has no weights: a full square is the layer that dev chose."

CORRECTED = (
    "The weights times the mean length of each layer's vectors: a short vector with a large weight may contribute less "
    "than a long one with a small weight."
)

Weights = Mapping[str, Sequence[float]]
"""The weight of each layer, by task."""


@dataclass(frozen=True)
class WeightMaps:
    """The layer weights of all upstreams on one scale; `full` is the weight with the strongest colour, in %."""

    title: str
    note: str
    full: float
    figures: tuple[Figure, ...]


def weight_maps(key: str, names: Sequence[str], groups: RunGroups) -> Iterator[WeightMaps]:
    """Yield the layer weights of upstreams: raw, and corrected for norms where records hold them.

    Upstreams with one layer are left out: there is nothing to weigh.
    """
    by_upstream = {name: {task: group for (n, task), group in groups.items() if n == name} for name in names}
    raw = {name: _weights_by_task(of_name) for name, of_name in by_upstream.items()}
    corrected = {
        name: {task: _corrected(values, by_upstream[name][task].record) for task, values in weights.items()}
        for name, weights in raw.items()
    }
    for kind, title, note, weights in (("raw", "Raw", RAW, raw), ("norm", "Norm-corrected", CORRECTED, corrected)):
        shown = {name: found for name, of_name in weights.items() if (found := {t: w for t, w in of_name.items() if w})}
        if shown:
            full = 100 * _largest(shown)
            maps = [
                _map(f"{key}-weights-{names.index(name)}-{kind}", name, found, full) for name, found in shown.items()
            ]
            yield WeightMaps(title, note, full, tuple(maps))


def _weights_by_task(groups: Mapping[str, RunGroup]) -> dict[str, list[float]]:
    weights = {task: _weights(groups[task]) for task in sorted(groups, key=task_order)}
    return {task: values for task, values in weights.items() if len(values) > 1}


def _weights(group: RunGroup) -> list[float]:
    rows = [fold.layer_weights for run in group.runs for fold in run.record.training]
    lengths = {len(row) for row in rows}
    return [fmean(column) for column in zip(*rows, strict=True)] if len(lengths) == 1 else []


def _corrected(weights: Sequence[float], record: RunRecord) -> list[float]:
    """Weights times norms, scaled to sum to 1; empty where the record has no norms, or the head no weights."""
    norms, searched = record.features.norms, record.training[0].lr is None
    if len(norms) != len(weights) or searched or record.recipe.get("features", {}).get("normalize"):
        return []
    products = [weight * norm for weight, norm in zip(weights, norms, strict=True)]
    return [product / sum(products) for product in products] if sum(products) > 0 else []


def _largest(weights: Mapping[str, Weights]) -> float:
    """The largest weight; that of a layer that dev chose is 1: scaled to it, the other tasks would look empty."""
    largest = [max(values) for of_name in weights.values() for values in of_name.values()]
    return max((value for value in largest if value < 1), default=1.0)


def _map(key: str, name: str, weights: Weights, full: float) -> Figure:
    layers = max(map(len, weights.values()))
    matrix = Matrix(
        rows=tuple(task.upper() for task in weights),
        columns=tuple(map(str, range(layers))),
        values=tuple((*(100 * v for v in row), *(None,) * (layers - len(row))) for row in weights.values()),
        full=full,
        format=".0f",
        down="task",
        across="layer",
    )
    return heatmap(key, name, matrix)


def probe_charts(key: str, record: LayersRecord, groups: RunGroups) -> Iterator[Figure]:
    """Yield a chart for each task that was probed layer by layer, beside the figure of the head on all layers."""
    for k, task in enumerate(record.tasks):
        weighted_sum = _weighted_sum(task, groups.get((record.upstream, task.task)))
        yield _probe_chart(f"{key}-probe-{k}", record.upstream, task, weighted_sum)


def _weighted_sum(task: TaskProbes, group: RunGroup | None) -> float | None:
    """The figure of a head on the weighted sum of layers on the same data, where it was run."""
    if group is None or (group.record.corpus.digest, group.record.profile) != (task.corpus_digest, task.profile):
        return None
    return group.record.metrics[0].value


def unit_charts(key: str, record: LayersRecord) -> Iterator[Figure]:
    """Yield what the clusters of each layer know of phones, one chart for each corpus and number of clusters."""
    for k, measures in enumerate(record.units):
        yield _unit_chart(f"{key}-units-{k}", record.upstream, measures)


def _unit_chart(key: str, name: str, measures: UnitMeasures) -> Figure:
    base = chart_of("units").encode(
        x=alt.X("layer:O", title="layer, 0 nearest the input", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("pnmi:Q", title="PNMI ↑", scale=alt.Scale(zero=False)),
    )
    points = base.mark_point(filled=True, size=55, opacity=1, stroke="var(--s1)").encode(
        fill=alt.Fill("best:N", scale=alt.Scale(domain=BEST, range=["var(--s1)", "var(--paper)"])).legend(None),
        tooltip=tips(layer="layer", figure="PNMI", purity="phone purity", rank="effective rank", best="best"),
    )
    data = [
        {
            "layer": units.layer,
            "pnmi": units.pnmi,
            "figure": f"{units.pnmi:.3f}",
            "purity": f"{units.phone_purity:.3f}",
            "rank": f"{units.rank:.1f}",
            "best": "yes" if units == measures.best() else "no",
        }
        for units in measures.layers
    ]
    rows = [[str(row[name]) for name in ("layer", "figure", "purity", "rank")] for row in data]
    return figure(
        alt.LayerChart(layer=[base.mark_line(color="var(--s1)", strokeWidth=1.2), points]).properties(height=200),
        {"units": data},
        key,
        f"What {measures.clusters} clusters of each layer know of phones: {name}",
        "A point for each layer, better on top.",
        (("layer", "PNMI", "phone purity", "effective rank"), rows),
        f"Mutual information with {measures.phones} phones over their entropy, {measures.frames} frames of "
        f"{measures.corpus}. Filled: the best.",
    )


def abx_charts(key: str, record: LayersRecord) -> Iterator[Figure]:
    """Yield the phone ABX errors of each layer, one chart for each corpus and seed."""
    for k, measures in enumerate(record.abx):
        yield _abx_chart(f"{key}-abx-{k}", record.upstream, measures)


def _abx_chart(key: str, name: str, measures: AbxMeasures) -> Figure:
    colours = alt.Scale(domain=["within speakers", "across speakers"], range=["var(--s1)", "var(--s2)"])
    base = chart_of("abx").encode(
        x=alt.X("layer:O", title="layer, 0 nearest the input", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("error:Q", title="phone ABX error % ↓", scale=alt.Scale(zero=False, reverse=True)),
        color=alt.Color("speakers:N", scale=colours),
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        tooltip=tips(layer="layer", figure="error", speakers="speakers", best="best")
    )
    data = [
        {
            "layer": abx.layer,
            "error": error,
            "figure": f"{error:.2f}",
            "speakers": speakers,
            "best": "yes" if abx == measures.best() else "no",
        }
        for abx in measures.layers
        for speakers, error in (("within speakers", abx.within), ("across speakers", abx.across))
    ]
    rows = [[str(abx.layer), f"{abx.within:.2f}", f"{abx.across:.2f}"] for abx in measures.layers]
    return figure(
        alt.LayerChart(layer=[base.mark_line(strokeWidth=1.2), points]).properties(height=200),
        {"abx": data},
        key,
        f"How often each layer confuses two phones: {name}",
        "Two points for each layer, within and across speakers, better on top.",
        (("layer", "within speakers", "across speakers"), rows),
        f"Phone ABX in any context, 50 % by chance; {measures.tokens} tokens of {measures.phones} phones by "
        f"{measures.speakers} speakers of {measures.corpus}, {measures.within.triples} triples within speakers and "
        f"{measures.across.triples} across. Best across speakers: layer {measures.best().layer}.",
    )


def _probe_chart(key: str, name: str, task: TaskProbes, weighted_sum: float | None) -> Figure:
    heading = f"{task.task.upper()} {task.heading} {task.unit} {'↑' if task.higher_is_better else '↓'}"
    scale = alt.Scale(zero=False, reverse=not task.higher_is_better)
    base = chart_of("probes").encode(
        x=alt.X("layer:O", title="layer alone, 0 nearest the input", axis=alt.Axis(labelAngle=0))
    )
    y = alt.Y("value:Q", title=heading, scale=scale)
    layers = [
        base.mark_line(color="var(--s1)", strokeWidth=1.2).encode(y=y),
        base.mark_rule(color="var(--s1)").encode(y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q")),
        base.mark_point(filled=True, size=55, opacity=1, stroke="var(--s1)").encode(
            y=y,
            fill=alt.Fill("best:N", scale=alt.Scale(domain=BEST, range=["var(--s1)", "var(--paper)"])).legend(None),
            tooltip=tips(layer="layer", figure="figure", interval="interval", best="best"),
        ),
    ]
    datasets = {"probes": [_probe_row(probe, task) for probe in task.probes]}
    if weighted_sum is not None:
        layers += _weighted_sum_line()
        datasets["sum"] = [{"sum": weighted_sum, "text": f"weighted sum {weighted_sum:.2f}"}]
    rows = [(str(p.layer), f"{p.value:.2f}", f"[{p.low:.2f}, {p.high:.2f}]", p.command) for p in task.probes]
    return figure(
        alt.LayerChart(layer=layers).properties(height=200),
        datasets,
        key,
        f"{task.task.upper()} on each layer alone: {name}",
        "A point for each layer with its 95 % interval, better on top.",
        (("layer", heading, "interval", "command"), rows),
        f"On {task.corpus} (profile {task.profile}). Filled: the best.",
    )


BEST = ["yes", "no"]


def _probe_row(probe: LayerProbe, task: TaskProbes) -> DataRow:
    return {
        "layer": probe.layer,
        "value": probe.value,
        "low": probe.low,
        "high": probe.high,
        "figure": f"{probe.value:.2f}",
        "interval": f"[{probe.low:.2f}, {probe.high:.2f}]",
        "best": "yes" if probe == task.best() else "no",
    }


def _weighted_sum_line() -> list[alt.Chart]:
    base = chart_of("sum").encode(y=alt.Y("sum:Q"))
    text = base.mark_text(align="right", dy=-6, color="var(--muted)")
    return [
        base.mark_rule(strokeDash=[3, 3]),
        text.encode(x=alt.value("width"), text=alt.Text("text:N")),
    ]


def similarity_charts(key: str, record: LayersRecord) -> Iterator[Figure]:
    """Yield the CKA of an upstream with each one that it was compared with."""
    for k, similarity in enumerate(record.alike):
        yield _similarity_chart(f"{key}-cka-{k}", record.upstream, similarity)


def _similarity_chart(key: str, name: str, similarity: LayerSimilarity) -> Figure:
    values = [value for row in similarity.by_chance for value in row if value is not None]
    chance = " to ".join(dict.fromkeys([f"{min(values):.2f}", f"{max(values):.2f}"])) if values else ""
    note = (
        f"Linear CKA of means over time, {similarity.utterances} {similarity.split} utterances of {similarity.corpus}: "
        f"1 is identical up to rotation and scale; by chance it is {chance or 'undefined'}."
    )
    matrix = Matrix(
        rows=tuple(map(str, range(len(similarity.cka)))),
        columns=tuple(map(str, range(len(similarity.cka[0]) if similarity.cka else 0))),
        values=tuple(map(tuple, similarity.cka)),
        full=1.0,
        down="layer of the first",
        across="layer of the second",
    )
    return heatmap(key, f"Layer similarity: {name} and {similarity.against}", matrix, note)
