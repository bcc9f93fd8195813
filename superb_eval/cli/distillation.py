"""The commands of the distilled upstream: `distill`, `cost` and `upstream export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.cli import options
from superb_eval.cli.command import LenientCommand
from superb_eval.cli.pretraining import Device, Devices, Loggers, Named, Out, Overrides, listed
from superb_eval.cli.sections import INSPECT, TRAIN
from superb_eval.runtime.screen import show


def register(app: typer.Typer, upstream_app: typer.Typer) -> None:
    """Add the commands."""
    app.command("distill", cls=LenientCommand, rich_help_panel=TRAIN)(distill)
    app.command("cost", cls=LenientCommand, rich_help_panel=INSPECT)(cost)
    upstream_app.command("export", cls=LenientCommand)(export)


def distill(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a file, or a name in recipes/distill")],
    out: Out,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="an upstream's address; default: the recipe's")
    ] = None,
    data: Named = None,
    override: Overrides = None,
    device: Device = "cpu",
    devices: Devices = 1,
    loggers: Loggers = None,
    resume: options.Resume = False,
) -> None:
    """Distill a teacher, any upstream, into a small HuBERT: the student is then `distilhubert@OUT/model`.

    Checkpoints, resuming and OUT/log.csv are as in `pretrain`; the log has a loss for each predicted layer. Ablations
    are one override each: -o loss.layers=[4,12], -o loss.cosine=0, -o student.initialise=[], -o student.layers=1,
    -o data.share=0.1.

    \b
    superb-eval distill distilhubert --out distill --data librispeech=DIR --device cuda
    superb-eval distill distilhubert_mini --teacher hubert_mini@mini/model --data real=A --data synthetic=B --out d2
    superb-eval distill distilhubert --teacher s3prl:wavlm_local@FILE --out wavlm -o student.initialise=[convolution]
    superb-eval run ks -u distilhubert@distill/model -o features.key=paper
    """
    del resume  # which it does anyway
    from superb_eval.pretraining.distill import distill as train
    from superb_eval.pretraining.recipe import DistillationRecipe, load
    from superb_eval.runtime.progress import TerminalProgress

    overrides = [*(override or ()), *([f"teacher.address={json.dumps(teacher)}"] if teacher else ())]
    settings = load(recipe, "distill", DistillationRecipe, overrides)
    folder = train(settings, data or (), out, device, devices, TerminalProgress(), listed(loggers))
    show(f"student: distilhubert@{folder}")


def cost(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="addresses; ratios are to the first")],
    device: options.Device = "cpu",
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=3600, callback=options.finite, metavar="SECONDS", help="length of the utterance"),
    ] = 10.0,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="how often each is timed, alternating")
    ] = 15,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="results folder whose table and report will show the costs")
    ] = None,
    max_gb: options.MaxGb = None,
) -> None:
    """Measure size and speed: weights, multiply-accumulates per second of audio, real-time factor, peak memory.

    The upstreams alternate on the same utterance, and ratios are of adjacent timings: they hold on a busy machine.

    \b
    superb-eval cost hubert@random distilhubert@random
    superb-eval cost hubert_mini distilhubert_mini --device cuda --seconds 30
    superb-eval cost fbank hubert_mini distilhubert_mini --out results
    """
    del max_gb  # set by its callback
    from superb_eval.analysis import cost as costs
    from superb_eval.results.table import costs as cost_file
    from superb_eval.results.upstream_address import resolve_address

    if out is not None:  # the costs go beside the rows of these addresses
        names = [resolve_address(name, out) for name in names]
    measured = costs.measure(names, device, seconds, rounds)
    if out is not None:
        cost_file.write(out, {cost.name: cost.figures() for cost in measured})
    show(costs.render(measured))


def export(
    address: Annotated[str, typer.Argument(metavar="NAME", help="a HuBERT-like upstream's address")],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="folder to write: config.json, model.safetensors, README.md")
    ],
    keep_layers: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="keep only the first transformer layers; 0: the front end alone"),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="how weights are stored")
    ] = "float16",
    card: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="a text for its README.md; default: the one beside it"
        ),
    ] = None,
    max_gb: options.MaxGb = None,
) -> None:
    """Write an upstream for release, or cut as a control; transformers.AutoModel and hubert@OUT open it.

    \b
    superb-eval upstream export hubert@out/teacher/model --out release/hubert_mini
    superb-eval upstream export hubert@out/teacher/model --keep-layers 2 --out out/teacher-cut
    superb-eval upstream export hubert@out/teacher/model --keep-layers 0 --out out/front-end
    """
    del max_gb  # set by its callback
    from superb_eval.pretraining import export as exports
    from superb_eval.runtime import outside_files
    from upstreams import registry
    from upstreams.loading import load_weights

    parsed = registry.parse(registry.canonical(address))
    folder = parsed.name if parsed.scheme == "hf" else parsed.checkpoint
    released = load_weights.shipped_weights(parsed.name) if parsed.seed is None else None
    text = outside_files.read_text(card) if card else exports.read_card(folder or released)
    exports.export_upstream(registry.load(address), out, dtype=dtype, layers=keep_layers, card=text)
    show(f"exported: {out}")
