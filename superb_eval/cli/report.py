"""The commands that draw results and look inside upstreams: `report`, `layers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import (
    MOST_SEED,
    Data,
    Device,
    Historical,
    Overrides,
    Profile,
    Published,
    RecordedData,
    Results,
    Resume,
    Store,
    StoreGb,
    finite,
)
from superb_eval.cli.sections import COMPARE, INSPECT
from superb_eval.runtime.screen import console, show

if TYPE_CHECKING:
    from superb_eval.results.layer_record import LayerAbx, LayersRecord, LayerUnits


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(cls=LenientCommand, rich_help_panel=COMPARE)(report)
    app.command(cls=LenientCommand, rich_help_panel=INSPECT)(layers)


def report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="HTML file to write")] = Path("report.html"),
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="reference; default: the largest upstream of those most run")
    ] = None,
    published: Published = "",
    historical: Historical = False,
    data: RecordedData = None,
    audio_mb: Annotated[
        float, typer.Option(min=0, callback=finite, metavar="MB", help="size of the audio to embed; 0: none")
    ] = 4.0,
    title: Annotated[
        str, typer.Option(metavar="TITLE", help="heading of the page; default: the name of the results folder")
    ] = "",
) -> None:
    """Write a results folder as one self-contained HTML file; it needs no network.

    It shows the table, differences from the reference, quality against cost, layers, training curves, errors, and the
    worst utterances, with players where the audio is at hand: those clips become part of the file. Every chart can be
    saved as SVG or PNG, and has its figures as a table.

    \b
    superb-eval report results/ --out report.html
    superb-eval report results/ --against hubert_mini --audio-mb 0 --title "Our encoders"
    """
    from superb_eval.report import page
    from superb_eval.results.table.build import TableOptions
    from superb_eval.runtime.progress import TerminalProgress

    names = tuple(published.replace(",", " ").split())
    wanted = TableOptions("historical" if historical else "strict", against, names)
    show(page.write(results, out, page.ReportOptions(wanted, data, audio_mb, title), TerminalProgress()))


def layers(
    name: Annotated[str, typer.Argument(metavar="NAME", help="an upstream's address")],
    against: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="an upstream to compare its layers with, by linear CKA")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="TASK,...", help="tasks to probe each layer on; default: ks, or none with --units, --abx"),
    ] = None,
    units: Annotated[
        list[int] | None,
        typer.Option(min=2, metavar="K", help="measure what K clusters of each layer know of phones; may be repeated"),
    ] = None,
    abx: Annotated[
        bool, typer.Option("--abx", help="measure how often each layer confuses two phones (extra `abx`, Python 3.12)")
    ] = False,
    data: Data = None,
    profile: Profile = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="results folder; the layers go to its folder `layers`")
    ] = Path("results"),
    override: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, metavar="N", help="of initialisation and sampling")] = 0,
    device: Device = "cpu",
    store: Store = None,
    store_gb: StoreGb = None,
    resume: Resume = False,
) -> None:
    """Analyse an upstream layer by layer: one head on each layer alone, and which layers resemble another upstream's.

    All heads of a task share one pass of the upstream. Finished heads are kept; `report` draws them. --units and --abx
    need no task but phones that are known to the sample, of embedded speech or of DATA/aligned: k-means clusters
    against phones, and the phone ABX error within and across speakers, whatever the neighbouring phones are.

    \b
    superb-eval layers distilhubert_mini --against hubert_mini --tasks ks,pr
    superb-eval layers hubert@random --tasks sid --data my-corpus
    superb-eval layers hubert_mini --units 100 --units 500
    superb-eval layers hubert_mini --abx
    """
    del resume  # which it does anyway
    from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
    from superb_eval.analysis.units import file_name
    from superb_eval.runs.config import RunConfig
    from superb_eval.runtime.progress import TerminalProgress

    config = RunConfig(name, "", data, profile, tuple(override or ()), seed, out, device, False, store, store_gb)
    default = "" if (units or abx) and not against else "ks"
    chosen = tuple((default if tasks is None else tasks).replace(",", " ").split())
    record, path = analyse(LayerQuestion(config, chosen, against, tuple(units or ()), abx), TerminalProgress())
    _show(record)
    for measures in record.units:
        file = file_name(measures.best().layer, measures.clusters)
        show(f"units of the best layer: units:{path.parent / file}", error=True)
    show(f"layers: {path}", error=True)


def _show(record: LayersRecord) -> None:
    """Print a small table: a row for each layer, a column for each task and each upstream compared with."""
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
    for measures in record.units:
        table.add_column(f"units: {measures.clusters} clusters ↑\nPNMI, purity, rank", justify="right")
        columns.append([_known_of_phones(layer, layer == measures.best()) for layer in measures.layers])
    for abx in record.abx:
        heading = f"phone ABX error % ↓\nwithin, across speakers\n{escape(abx.corpus)}, seed {abx.seed}"
        table.add_column(heading, justify="right")
        columns.append([_abx_errors(layer, layer == abx.best()) for layer in abx.layers])
    for layer in range(max(map(len, columns), default=0)):
        table.add_row(str(layer), *(column[layer] if layer < len(column) else "" for column in columns))
    console().print(table)


def _known_of_phones(units: LayerUnits, best: bool) -> str:
    text = f"{units.pnmi:.3f}, {units.phone_purity:.3f}, {units.rank:.1f}"
    return f"[bold]{text}[/bold]" if best else text


def _abx_errors(abx: LayerAbx, best: bool) -> str:
    text = f"{abx.within:.2f}, {abx.across:.2f}"
    return f"[bold]{text}[/bold]" if best else text


def _most_alike(row: list[float | None], chance: list[float | None]) -> str:
    known = [(value, place) for place, value in enumerate(row) if value is not None]
    if not known:
        return "undefined"
    value, place = max(known, key=lambda found: (found[0], -found[1]))
    return f"{place} ({value:.2f}; {chance[place] or 0.0:.2f})"
