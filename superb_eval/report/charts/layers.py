"""Charts of layers: how the heads weighed them, what each comes to alone, and which are alike in two upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from superb_eval.report.charts import heatmap, svg
from superb_eval.report.charts.heatmap import Matrix
from superb_eval.report.charts.svg import Box
from superb_eval.results.folder import RunGroup
from superb_eval.results.layer_record import Alikeness, LayersRecord, TaskProbes
from superb_eval.results.record import RunRecord
from superb_eval.results.table.result_table import order_of

RAW = "In %, mean over folds and seeds. QbE has no weights: a full square is the layer that dev chose."
CORRECTED = (
    "In %: the weights times the mean length of each layer's vectors. A short vector with a large weight may say less "
    "than a long one with a small weight."
)


def maps(key: str, name: str, cells: dict[str, RunGroup]) -> list[svg.Figure]:
    """Return the heat maps of an upstream's layer weights: raw, and corrected for norms where records hold them.

    `cells` are by task. Nothing where the upstream has one layer, or every head saw one alone.
    """
    weighed = {task: _weights(cells[task]) for task in sorted(cells, key=order_of)}
    known = {task: values for task, values in weighed.items() if len(values) > 1}
    if not known:
        return []
    corrected = {task: _corrected(values, cells[task].record) for task, values in known.items()}
    there = {task: values for task, values in corrected.items() if values}
    found = [_map(f"{key}-raw", f"Layer weights: {name}", RAW, known)]
    if there:
        found.append(_map(f"{key}-norm", f"Norm-corrected: {name}", CORRECTED, there))
    return found


def _map(key: str, title: str, note: str, weights: dict[str, list[float]]) -> svg.Figure:
    layers = max(map(len, weights.values()))
    # A layer that was chosen has all the weight there is; beside it the others would look empty.
    spread = [max(values) for values in weights.values() if max(values) < 1]
    full = max(spread, default=1.0)
    rows = tuple((*(100 * v for v in values), *(None,) * (layers - len(values))) for values in weights.values())
    names = tuple(task.upper() for task in weights)
    columns = tuple(map(str, range(layers)))
    matrix = Matrix(names, columns, rows, 100 * full, format=".0f", across="layer, 0 nearest the input")
    return heatmap.figure(key, title, note, matrix)


def _weights(cell: RunGroup) -> list[float]:
    rows = [fold.layer_weights for run in cell.runs for fold in run.record.training]
    lengths = {len(row) for row in rows}
    return [fmean(column) for column in zip(*rows, strict=True)] if len(lengths) == 1 else []


def _corrected(weights: Sequence[float], record: RunRecord) -> list[float]:
    """Weights times norms, scaled to sum to 1; nothing where the record has no norms, or nothing was weighed."""
    norms, searched = record.features.norms, record.training[0].lr is None
    if len(norms) != len(weights) or searched or record.recipe.get("features", {}).get("normalize"):
        return []
    products = [weight * norm for weight, norm in zip(weights, norms, strict=True)]
    return [product / sum(products) for product in products] if sum(products) > 0 else []


def probes(key: str, record: LayersRecord, cells: Mapping[tuple[str, str], RunGroup]) -> Iterator[svg.Figure]:
    """Yield a chart for each task that was probed layer by layer, beside the cell that weighs all layers."""
    for k, task in enumerate(record.tasks):
        yield _probed(
            f"{key}-probe-{k}", record.upstream, task, _weighed(task, cells.get((record.upstream, task.task)))
        )


def _weighed(task: TaskProbes, cell: RunGroup | None) -> float | None:
    """What a head on the weighted sum of layers comes to on the same data, where it was run."""
    if cell is None or (cell.record.corpus.digest, cell.record.profile) != (task.corpus_digest, task.profile):
        return None
    return cell.record.metrics[0].value


def _probed(key: str, name: str, task: TaskProbes, weighed: float | None) -> svg.Figure:
    box = Box(48, 30, 330, 190)
    ends = [end for probe in task.probes for end in (probe.low, probe.high)] + ([] if weighed is None else [weighed])
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
    if weighed is not None:
        parts.append(
            svg.path([(box.left, up(weighed)), (box.right, up(weighed))], "front", f"weighted sum: {weighed:.2f}")
        )
        parts.append(svg.text(box.right, up(weighed) - 4, f"weighted sum {weighed:.2f}", "end", "tick halo"))
    title = f"{task.task.upper()} on each layer alone: {name}"
    return svg.Figure(
        key=key,
        title=title,
        note=f"On {task.corpus} (profile {task.profile}), with 95 % intervals. Filled: the best.",
        svg=svg.chart(key, title, "A point for each layer.", (344, box.bottom + 40), *parts),
        headings=("layer", heading, "interval", "command"),
        rows=tuple((str(p.layer), f"{p.value:.2f}", f"[{p.low:.2f}, {p.high:.2f}]", p.command) for p in task.probes),
    )


def alikeness(key: str, record: LayersRecord) -> Iterator[svg.Figure]:
    """Yield the CKA of an upstream with each one that it was compared with."""
    for k, alike in enumerate(record.alike):
        yield _alike(f"{key}-cka-{k}", record.upstream, alike)


def _alike(key: str, name: str, alike: Alikeness) -> svg.Figure:
    known = [value for row in alike.by_chance for value in row if value is not None]
    chance = " to ".join(dict.fromkeys([f"{min(known):.2f}", f"{max(known):.2f}"])) if known else ""
    note = (
        f"Linear CKA of means over time, {alike.utterances} {alike.split} utterances of {alike.corpus}: 1 is alike up "
        f"to rotation and scale; chance alone comes to {chance or 'nothing'}."
    )
    matrix = Matrix(
        rows=tuple(map(str, range(len(alike.cka)))),
        columns=tuple(map(str, range(len(alike.cka[0]) if alike.cka else 0))),
        values=tuple(map(tuple, alike.cka)),
        across=f"layer of {svg.shortened(alike.against, 40)}",
        down="layer",
    )
    return heatmap.figure(key, f"Alike layers: {name} and {alike.against}", note, matrix)
