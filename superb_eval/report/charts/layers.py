"""Charts of layers: the weights heads give them, the score of each alone, and the similarity of two upstreams'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from downstreams.registry import task_order
from superb_eval.report.charts import heatmap, svg
from superb_eval.report.charts.heatmap import Matrix
from superb_eval.report.charts.svg import Box
from superb_eval.results.folder import RunGroup
from superb_eval.results.layer_record import LayerSimilarity, LayersRecord, TaskProbes
from superb_eval.results.record import RunRecord

RAW = "In %, mean over folds and seeds. QbE has no weights: a full square is the layer that dev chose."
CORRECTED = (
    "In %: the weights times the mean length of each layer's vectors. A short vector with a large weight may "
    "contribute less than a long one with a small weight."
)


def maps(key: str, name: str, groups: dict[str, RunGroup]) -> list[svg.Figure]:
    """Return the heat maps of an upstream's layer weights: raw, and corrected for norms where records hold them.

    `groups` are by task. Empty where the upstream has one layer, or every head was trained on a single one.
    """
    weights = {task: _weights(groups[task]) for task in sorted(groups, key=task_order)}
    weighted = {task: values for task, values in weights.items() if len(values) > 1}
    if not weighted:
        return []
    corrected = {task: _corrected(values, groups[task].record) for task, values in weighted.items()}
    with_norms = {task: values for task, values in corrected.items() if values}
    charts = [_map(f"{key}-raw", f"Layer weights: {name}", RAW, weighted)]
    if with_norms:
        charts.append(_map(f"{key}-norm", f"Norm-corrected: {name}", CORRECTED, with_norms))
    return charts


def _map(key: str, title: str, note: str, weights: dict[str, list[float]]) -> svg.Figure:
    layers = max(map(len, weights.values()))
    # A layer that dev chose has all the weight; scaled to it, the other tasks would look empty.
    largest = [max(values) for values in weights.values() if max(values) < 1]
    full = max(largest, default=1.0)
    rows = tuple((*(100 * v for v in values), *(None,) * (layers - len(values))) for values in weights.values())
    names = tuple(task.upper() for task in weights)
    columns = tuple(map(str, range(layers)))
    matrix = Matrix(names, columns, rows, 100 * full, format=".0f", across="layer, 0 nearest the input")
    return heatmap.figure(key, title, note, matrix)


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


def probe_charts(key: str, record: LayersRecord, groups: Mapping[tuple[str, str], RunGroup]) -> Iterator[svg.Figure]:
    """Yield a chart for each task that was probed layer by layer, beside the figure of the head on all layers."""
    for k, task in enumerate(record.tasks):
        weighted_sum = _weighted_sum(task, groups.get((record.upstream, task.task)))
        yield _probe_chart(f"{key}-probe-{k}", record.upstream, task, weighted_sum)


def _weighted_sum(task: TaskProbes, group: RunGroup | None) -> float | None:
    """The figure of a head on the weighted sum of layers on the same data, where it was run."""
    if group is None or (group.record.corpus.digest, group.record.profile) != (task.corpus_digest, task.profile):
        return None
    return group.record.metrics[0].value


def _probe_chart(key: str, name: str, task: TaskProbes, weighted_sum: float | None) -> svg.Figure:
    box = Box(48, 30, 330, 190)
    ends = [end for probe in task.probes for end in (probe.low, probe.high)] + (
        [] if weighted_sum is None else [weighted_sum]
    )
    low, high = min(ends), max(ends)
    up = (
        svg.linear(low, high, box.bottom - 6, box.top + 6)
        if task.higher_is_better
        else svg.linear(low, high, box.top + 6, box.bottom - 6)
    )
    across = svg.linear(-0.5, len(task.probes) - 0.5, box.left, box.right)
    every = max(1, round(len(task.probes) / 13))
    heading = f"{task.task.upper()} {task.heading} {task.unit} {'↑' if task.higher_is_better else '↓'}"
    parts = [box.up(up, svg.ticks(low, high, 4), heading)]
    parts.append(box.across(across, [p.layer for p in task.probes][::every], "layer alone, 0 nearest the input"))
    parts.append(svg.path([(across(p.layer), up(p.value)) for p in task.probes], "course s1"))
    for p in task.probes:
        hint = f"layer {p.layer}: {p.value:.2f} [{p.low:.2f}, {p.high:.2f}]"
        parts += [
            svg.line(across(p.layer), up(p.low), across(p.layer), up(p.high), "whisker s1"),
            svg.mark(across(p.layer), up(p.value), 0, hint, hollow=p != task.best()),
        ]
    if weighted_sum is not None:
        parts.append(
            svg.path(
                [(box.left, up(weighted_sum)), (box.right, up(weighted_sum))],
                "front",
                f"weighted sum: {weighted_sum:.2f}",
            )
        )
        parts.append(svg.text(box.right, up(weighted_sum) - 4, f"weighted sum {weighted_sum:.2f}", "end", "tick halo"))
    title = f"{task.task.upper()} on each layer alone: {name}"
    return svg.Figure(
        key=key,
        title=title,
        note=f"On {task.corpus} (profile {task.profile}), with 95 % intervals. Filled: the best.",
        svg=svg.chart(key, title, "A point for each layer.", (344, box.bottom + 40), *parts),
        headings=("layer", heading, "interval", "command"),
        rows=tuple((str(p.layer), f"{p.value:.2f}", f"[{p.low:.2f}, {p.high:.2f}]", p.command) for p in task.probes),
    )


def similarity_charts(key: str, record: LayersRecord) -> Iterator[svg.Figure]:
    """Yield the CKA of an upstream with each one that it was compared with."""
    for k, similarity in enumerate(record.alike):
        yield _similarity_chart(f"{key}-cka-{k}", record.upstream, similarity)


def _similarity_chart(key: str, name: str, similarity: LayerSimilarity) -> svg.Figure:
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
        across=f"layer of {svg.shortened(similarity.against, 40)}",
        down="layer",
    )
    return heatmap.figure(key, f"Layer similarity: {name} and {similarity.against}", note, matrix)
