"""The commands of one run: `run`, and what its trained head is good for, `predict` and `onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import (
    MOST_SEED,
    Data,
    Device,
    FinishedRun,
    Limit,
    Loggers,
    MaxGb,
    Out,
    Overrides,
    Profile,
    Seeds,
    Store,
    StoreGb,
    Trust,
    Upstream,
    named_loggers,
)
from superb_eval.cli.sections import EVALUATE, UPSTREAMS
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show, visible

if TYPE_CHECKING:
    from downstreams.base import Scores
    from superb_eval.results.record import RunRecord
    from superb_eval.runs.predict import FileAnswer


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(cls=LenientCommand, rich_help_panel=EVALUATE)(run)
    app.command(cls=LenientCommand, rich_help_panel=EVALUATE)(predict)
    app.command(cls=LenientCommand, rich_help_panel=UPSTREAMS)(onnx)


def run(
    task: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a recipe file")],
    upstream: Upstream,
    data: Data = None,
    profile: Profile = None,
    out: Out = Path("results"),
    override: Overrides = None,
    limit: Limit = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MOST_SEED, metavar="N", help="a seed; repeatable, each in turn; default: 0"),
    ] = None,
    seeds: Seeds = None,
    device: Device = "cpu",
    fresh: Annotated[
        bool,
        typer.Option("--fresh/--resume", help="run again, or resume what was interrupted and keep what is finished"),
    ] = False,
    store: Store = None,
    store_gb: StoreGb = None,
    max_gb: MaxGb = None,
    loggers: Loggers = "",
) -> None:
    """Run a task on an upstream: extract features, train a head, test it.

    \b
    superb-eval run ks -u fbank_nonorm
    superb-eval run recipes/mini/ks.yaml -u hubert_mini@random -o train.lr=1e-2 --seed 1
    superb-eval run asr -u fbank_nonorm --seeds 3 -o train.order_seed=0   # one pass for all
    superb-eval run ks -u hubert_mini --limit 20 -o train.steps=50        # a try
    superb-eval run ks -u my_encoder.py:MyEncoder --data my-corpus --out results --loggers tensorboard
    """
    del max_gb  # set by its callback
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate_seeds
    from superb_eval.runtime.progress import TerminalProgress

    _refuse_several(task, upstream)
    every = list(dict.fromkeys([*(seed or ()), *(seeds or ())])) or [0]
    overrides, names = tuple(override or ()), named_loggers(loggers)
    config = RunConfig(
        upstream, task, data, profile, overrides, every[0], out, device, fresh, store, store_gb, names, limit
    )
    for record, folder in evaluate_seeds(config, every, TerminalProgress()):
        _print_result(record, folder, f" seed {record.seed}" if len(every) > 1 else "")


def _refuse_several(task: str, upstream: str) -> None:
    """Refuse several tasks or upstreams, which are runs of a suite."""
    several = any("," in word and not Path(word).exists() for word in (task, upstream))
    if several or task == "all":
        raise UserError(
            f"`run` takes one task and one upstream; several: superb-eval suite -u {upstream} --tasks {task}"
        )


def _print_result(record: RunRecord, folder: Path, seed: str) -> None:
    """Print the figures of a run, with intervals."""
    from downstreams import registry
    from superb_eval.results.stats import chance, training_spread

    for metric in record.metrics:
        low, high = training_spread.widened(record, metric)
        population = metric.population.replace("units", registry.get_or_base(record.task).unit)
        interval = f"95 % interval for {population} {low:.2f} to {high:.2f}"
        figure = f"{metric.heading} {metric.value:.2f} {metric.unit}"
        show(f"{record.task}{seed} {figure} ({interval}, {metric.protocol}, {metric.units} test units)")
    if training_spread.of_metric(record, record.metrics[0]) is None:
        show("training variance unknown: the interval is for the test set alone; several seeds measure it")
    if record.chance is not None:
        below = ": not above it beyond the interval" if chance.of_record(record) else ""
        show(f"chance: {record.chance:.2f}{below}")
    for warning in [*record.skipped, *record.warnings, *_about_limit(record)]:
        show(f"warning: {warning}")
    show(f"record: {folder / 'result.json'}")


def _about_limit(record: RunRecord) -> list[str]:
    if record.limit is None:
        return []
    return [f"--limit {record.limit}: a try on few utterances, which tables and reports leave out"]


def predict(
    run: FinishedRun,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="audio files, or folders of them")],
    format: Annotated[
        Literal["text", "json"], typer.Option(help="text: a line for each file, tabs between its parts; json: a list")
    ] = "text",
    scores: Annotated[
        bool, typer.Option("--scores", help="add class probabilities, or what else shows how sure an answer is")
    ] = False,
    device: Device = "cpu",
    trust: Trust = None,
) -> None:
    """Apply the head of a finished run to audio files: an answer for each.

    Scores are probabilities of the best five classes; of recognisers the mean log probability of their outputs; in sd
    the mean probability of a turn's speaker; in asv the cosine with the first file.

    \b
    superb-eval predict results/fbank_nonorm/ks/mini-seed0-1a2b3c4d5e one.wav two.flac
    superb-eval predict results/fbank_nonorm/ks recordings/ --format json --scores
    superb-eval predict results/my_encoder.py-MyEncoder-5d2c1a/ks one.wav --trust my_encoder.py
    """
    import json

    from superb_eval.runs.predict import predict as answers

    found = answers(run, files, device, scores, trust or ())
    if format == "text":
        for each in found:
            show("\t".join(map(visible, _parts(each, scores))))
        return
    rows = [
        {"file": str(each.file), "answer": each.answer, **({"scores": each.scores} if scores else {})} for each in found
    ]
    show(json.dumps(rows, ensure_ascii=False, indent=2))


def _parts(answer: FileAnswer, scores: bool) -> list[str]:
    """Return what a line of text shows of a file's answer."""
    return [str(answer.file), answer.answer, *([_scores_text(answer.scores)] if scores else [])]


def _scores_text(scores: Scores) -> str:
    """Return scores on one line, such as `yes 0.912, no 0.051`."""
    parts = ((n, f"({_scores_text(s)})" if isinstance(s, Mapping) else f"{s:.3f}") for n, s in scores.items())
    return ", ".join(f"{name} {value}" for name, value in parts)


def onnx(
    run: FinishedRun,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="file to write")] = Path("model.onnx"),
    trust: Trust = None,
) -> None:
    """Write the upstream and head of a finished run as one ONNX model: a waveform in, the head's output out.

    Its outputs are compared with the run's own on several lengths before the file is written. Extra: onnx.

    \b
    superb-eval onnx results/hubert_mini/ks/mini-seed0-1a2b3c4d5e --out ks.onnx
    """
    from superb_eval.export.onnx import export

    show(f"{out}: {export(run, out, trust or ()).summary()}")
