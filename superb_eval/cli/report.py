"""The commands that draw results and look inside upstreams: `report`, `layers`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.cli.recipes import Device
from superb_eval.cli.sections import COMPARE, INSPECT

if TYPE_CHECKING:
    from superb_eval.results.layer_record import LayersRecord


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=COMPARE)(report)
    app.command(rich_help_panel=INSPECT)(layers)


def report(
    results: Annotated[Path, typer.Argument(help="results folder")] = Path("results"),
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML file to write")] = Path("report.html"),
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="reference; default: the largest upstream of those most run")
    ] = None,
    published: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="rows that others published, such as hubert_base,distilhubert; or all"),
    ] = "",
    historical: Annotated[
        bool, typer.Option("--historical/--strict", help="as published, or all chosen on dev")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="where the corpora are now; default: where each run found them")
    ] = None,
    audio_mb: Annotated[float, typer.Option(min=0, help="audio to embed, in MB; 0: none")] = 4.0,
) -> None:
    """Write a results folder as one self-contained HTML file; it needs no network.

    It shows the table, differences from the reference, quality against cost, layers, training curves, errors, and the
    worst utterances, with players where the audio is at hand: those clips become part of the file.

    \b
    superb-eval report results/ -o report.html
    superb-eval report results/ --against hubert_mini --audio-mb 0
    """
    from superb_eval.report import page
    from superb_eval.results.table.build import TableOptions
    from superb_eval.runtime.progress import TerminalProgress

    names = tuple(published.replace(",", " ").split())
    wanted = TableOptions("historical" if historical else "strict", against, names)
    print(page.write(results, out, page.ReportOptions(wanted, data, audio_mb), TerminalProgress()))


def layers(
    name: Annotated[str, typer.Argument(metavar="NAME", help="an upstream's address")],
    against: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="an upstream to compare its layers with, by linear CKA")
    ] = None,
    tasks: Annotated[str, typer.Option(help="tasks to probe each layer on, such as ks,pr")] = "ks",
    data: Annotated[
        Path | None,
        typer.Option(
            help="official corpora, manifests, or data of Kaldi, Hugging Face or Lhotse; default: the embedded corpus"
        ),
    ] = None,
    profile: Annotated[
        Literal["superb", "mini", "nano"] | None,
        typer.Option(help="which recipe of the tasks; default: superb where DATA is official, else mini"),
    ] = None,
    out: Annotated[Path, typer.Option(help="results folder; the layers go to its folder `layers`")] = Path("results"),
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="change the recipes")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of initialisation and sampling")] = 0,
    device: Device = "cpu",
    store: Annotated[
        Path | None, typer.Option(help="feature store; default: $SUPERB_EVAL_STORE or the user's cache")
    ] = None,
    store_gb: Annotated[float | None, typer.Option(min=0, help="size budget of the store in GB; default 50")] = None,
) -> None:
    """Analyse an upstream layer by layer: one head on each layer alone, and which layers resemble another upstream's.

    All heads of a task share one pass of the upstream. Finished heads are kept; `report` draws them.

    \b
    superb-eval layers distilhubert_mini --against hubert_mini --tasks ks,pr
    superb-eval layers hubert@random --tasks sid --data my-corpus
    """
    from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
    from superb_eval.runs.config import RunConfig
    from superb_eval.runtime.progress import TerminalProgress

    config = RunConfig(name, "", data, profile, tuple(override or ()), seed, out, device, False, store, store_gb)
    record, path = analyse(LayerQuestion(config, tuple(tasks.replace(",", " ").split()), against), TerminalProgress())
    _show(record)
    print(f"layers: {path}", file=sys.stderr)


def _show(record: LayersRecord) -> None:
    """Print a small table: a row for each layer, a column for each task and each upstream compared with."""
    from rich.console import Console
    from rich.table import Table

    from superb_eval.results.formats.escape import rich as escape

    table = Table(title=escape(f"{record.upstream}, layer by layer (0 nearest the input)"), title_justify="left")
    table.add_column("layer", justify="right")
    columns: list[list[str]] = []
    for task in record.tasks:
        arrow = "↑" if task.higher_is_better else "↓"
        heading = f"{task.task.upper()} {task.heading} {task.unit} {arrow}"
        table.add_column("\n".join(map(escape, (heading, task.corpus))), justify="right")
        cells = [(f"{p.value:.2f} [{p.low:.2f}, {p.high:.2f}]", p == task.best()) for p in task.probes]
        columns.append([f"[bold]{escape(text)}[/bold]" if best else escape(text) for text, best in cells])
    for alike in record.alike:
        table.add_column(f"most alike layer of\n{escape(alike.against)} (CKA; by chance)", justify="right")
        columns.append([_most_alike(row, chance) for row, chance in zip(alike.cka, alike.by_chance, strict=True)])
    for layer in range(max(map(len, columns), default=0)):
        table.add_row(str(layer), *(column[layer] if layer < len(column) else "" for column in columns))
    Console().print(table)


def _most_alike(row: list[float | None], chance: list[float | None]) -> str:
    known = [(value, place) for place, value in enumerate(row) if value is not None]
    if not known:
        return "undefined"
    value, place = max(known, key=lambda found: (found[0], -found[1]))
    return f"{place} ({value:.2f}; {chance[place] or 0.0:.2f})"
