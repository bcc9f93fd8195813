"""The commands of one run: `run`, and what its trained head is good for, `predict` and `onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.cli.recipes import Device, Loggers, Overrides, Profile, Seeds, named_loggers
from superb_eval.cli.sections import EVALUATE, UPSTREAMS

if TYPE_CHECKING:
    from superb_eval.results.record import RunRecord

Upstream = Annotated[
    str,
    typer.Option(
        "-u", "--upstream", "--model", help="NAME, FILE, FOLDER, ORG/MODEL, NAME@random, s3prl:NAME, FILE.py:Class"
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="official corpora, manifests, or data of Kaldi, Hugging Face or Lhotse; default: the embedded corpus",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel=EVALUATE)(run)
    app.command(rich_help_panel=EVALUATE)(predict)
    app.command(rich_help_panel=UPSTREAMS)(onnx)


def run(
    task: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="a task such as ks, or a recipe file")],
    upstream: Upstream,
    data: Data = None,
    profile: Profile = None,
    out: Annotated[Path, typer.Option("--out", "--output", help="results folder")] = Path("results"),
    override: Overrides = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="of initialisation and sampling, default 0; several: each in turn")
    ] = None,
    seeds: Seeds = None,
    device: Device = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="run again instead of resuming (stored features are kept)")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="feature store; default: $SUPERB_EVAL_STORE or the user's cache")
    ] = None,
    store_gb: Annotated[float | None, typer.Option(min=0, help="size budget of the store in GB; default 50")] = None,
    loggers: Loggers = "",
) -> None:
    """Run a task on an upstream: features, training, test. Resumes what was interrupted; a finished run is kept.

    \b
    superb-eval run ks -u fbank_nonorm
    superb-eval run recipes/mini/ks.yaml -u hubert_mini@random -o train.lr=1e-2 --seed 1
    superb-eval run asr -u fbank_nonorm --seeds 3 -o train.order_seed=0   # one pass for all
    superb-eval run ks -u my_encoder.py:MyEncoder --data my-corpus --out results --loggers tensorboard
    """
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate_seeds
    from superb_eval.runtime.progress import TerminalProgress

    every = list(dict.fromkeys([*(seed or ()), *(seeds or ())])) or [0]
    overrides, names = tuple(override or ()), named_loggers(loggers)
    config = RunConfig(upstream, task, data, profile, overrides, every[0], out, device, fresh, store, store_gb, names)
    for record, folder in evaluate_seeds(config, every, TerminalProgress()):
        _print_result(record, folder, f" seed {record.seed}" if len(every) > 1 else "")


def _print_result(record: RunRecord, folder: Path, seed: str) -> None:
    """Print the figures of a run, with intervals."""
    from downstreams import registry
    from superb_eval.results.stats import chance, training_spread

    for metric in record.metrics:
        low, high = training_spread.widened(record, metric)
        population = metric.population.replace("units", registry.get_or_base(record.task).unit)
        interval = f"95 % interval for {population} {low:.2f} to {high:.2f}"
        figure = f"{metric.heading} {metric.value:.2f} {metric.unit}"
        print(f"{record.task}{seed} {figure} ({interval}, {metric.protocol}, {metric.units} test units)")
    if training_spread.of_metric(record, record.metrics[0]) is None:
        print("training variance unknown: the interval is for the test set alone; several seeds measure it")
    if record.chance is not None:
        below = ": not above it beyond the interval" if chance.of_record(record) else ""
        print(f"chance: {record.chance:.2f}{below}")
    for warning in [*record.skipped, *record.warnings]:
        print(f"warning: {warning}")
    print(f"record: {folder / 'result.json'}")


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run's folder, the one with result.json")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="audio files, or folders of them")],
    format: Annotated[
        Literal["text", "json"], typer.Option(help="text: FILE, a tab, the answer; json: a list of file and answer")
    ] = "text",
    device: Device = "cpu",
) -> None:
    """Apply the head of a finished run to audio files: one line each.

    \b
    superb-eval predict results/fbank_nonorm/ks/mini-seed0-1a2b3c4d5e one.wav two.flac
    superb-eval predict results/fbank_nonorm/ks recordings/ --format json
    """
    import json

    from superb_eval.runs.predict import predict as answers

    rows = [{"file": str(path), "answer": answer} for path, answer in answers(run, files, device).items()]
    if format == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print("\n".join(f"{row['file']}\t{row['answer']}" for row in rows))


def onnx(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run's folder, the one with result.json")],
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write")] = Path("model.onnx"),
) -> None:
    """Write the upstream and head of a finished run as one ONNX model: a waveform in, the head's output out.

    Its outputs are compared with the run's own on several lengths before the file is written. Extra: onnx.

    \b
    superb-eval onnx results/hubert_mini/ks/mini-seed0-1a2b3c4d5e -o ks.onnx
    """
    from superb_eval.export.onnx import export

    print(f"{out}: {export(run, out).summary()}")
