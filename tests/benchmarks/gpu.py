"""What a GPU makes of this project, a line each, with its goals: `python -m tests.benchmarks gpu`, in four minutes.

`--device cpu --small` takes the same lines at toy sizes, to see that they work. `--out FILE` writes them as JSON too.
"""

from __future__ import annotations

import json
import operator
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import soundfile
import torch
import typer

from downstreams.metrics.dtw import match
from superb_eval.analysis import cost
from superb_eval.data.audio import SAMPLE_RATE, Clip
from superb_eval.data.padding import pad_wavs
from superb_eval.features.extract import Extraction, extract
from superb_eval.runtime import devices
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite.estimates import estimate
from superb_eval.suite.jobs import SUPERB, SuiteConfig
from superb_eval.suite.plan import make_plan
from superb_eval.suite.schedule import simulate
from tests.benchmarks import gpu_training, pooled
from tests.benchmarks.timing import pair, seconds
from upstreams import registry


class Goal(NamedTuple):
    """A bound on a figure of a line, by its name: `sign` is <= or >=."""

    figure: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {self.sign} {self.bound:g}"

    def is_met(self, figures: Mapping[str, float]) -> bool:
        return bool({"<=": operator.le, ">=": operator.ge}[self.sign](figures[self.figure], self.bound))


class Figures(NamedTuple):
    """What was measured, by name, and a note on how."""

    values: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """Where the lines are measured, and whether at toy sizes."""

    device: str
    small: bool

    def pick(self, full: int, small: int) -> int:
        """Return a size."""
        return small if self.small else full

    def model(self, name: str) -> str:
        """Return the address of an upstream with random weights."""
        return "hubert_nano@random" if self.small else f"{name}@random"


@dataclass(frozen=True)
class BenchmarkLine:
    """A line of the table."""

    what: str
    measure: Callable[[Bench], Figures]
    goals: tuple[Goal, ...] = ()


def products(bench: Bench) -> Figures:
    """The ceilings of all that follows."""
    size, values = bench.pick(8192, 64), {}
    for name, kind in {"float32": torch.float32, "bf16": torch.bfloat16}.items():
        factor = torch.randn(size, size, device=bench.device, dtype=kind)
        multiply = partial(torch.mm, factor, factor)
        multiply()
        best = min(seconds(multiply, bench.device) for _ in range(10))
        values[f"{name} TFLOP/s"] = 2 * size**3 / max(best, 1e-9) / 1e12
    return Figures(values)


def forward(name: str, bench: Bench) -> Figures:
    """A padded batch, in float32 and in bfloat16."""
    upstream = registry.load(bench.model(name)).to(bench.device)
    count, length = bench.pick(32, 2), bench.pick(10, 1)
    batch = pad_wavs(list(0.1 * torch.randn(count, length * SAMPLE_RATE, device=bench.device)))

    def half() -> torch.Tensor:
        with torch.autocast(bench.device, torch.bfloat16):
            return upstream.forward_padded(batch)["hidden_states"][-1]

    with torch.inference_mode():
        exact, approximate = upstream.forward_padded(batch)["hidden_states"][-1], half().float()
        difference = float((exact - approximate).norm() / exact.norm())
        times = pair(lambda: upstream.forward_padded(batch), half, rounds=bench.pick(10, 2), device=bench.device)
    slow, fast = median(times.slow), median(times.fast)
    values = {"float32 ms": 1e3 * slow, "bf16 ms": 1e3 * fast, "x": slow / fast, "audio-s/s": count * length / fast}
    return Figures(values, f"hidden states differ by {100 * difference:.1f} %")


def extraction(bench: Bench) -> Figures:
    """Clips of many lengths from files to means over time: batches, decoding and copies included."""
    upstream = registry.load(bench.model("distilhubert")).to(bench.device)
    rng, count = np.random.default_rng(0), bench.pick(512, 6)
    lengths = rng.uniform(0.5, 1, count) if bench.small else rng.uniform(6, 16, count)
    noise = rng.integers(-3000, 3000, 16 * SAMPLE_RATE, dtype=np.int16)
    how = Extraction("pooled", batch_seconds=bench.pick(60, 2), precision="bf16")
    with tempfile.TemporaryDirectory() as folder:
        clips = [Clip(Path(folder) / f"{k}.wav") for k in range(count)]
        for clip, length in zip(clips, lengths, strict=True):
            soundfile.write(clip.path, noise[: int(length * SAMPLE_RATE)], SAMPLE_RATE)
        first, again = (
            seconds(lambda: list(extract(upstream, clips, how, bench.device)), bench.device) for _ in range(2)
        )
    return Figures(
        {"audio-s/s": lengths.sum() / again, "first pass audio-s/s": lengths.sum() / first}, "from WAV files"
    )


def one_utterance(bench: Bench) -> Figures:
    """What `superb-eval cost` prints."""
    length = bench.pick(10, 1)
    hubert, student = cost.measure(
        [bench.model("hubert"), bench.model("distilhubert")], bench.device, length, bench.pick(15, 3)
    )
    milliseconds = [1e3 * length * each.real_time_factor[1] for each in (hubert, student)]
    return Figures({"HuBERT ms": milliseconds[0], "DistilHuBERT ms": milliseconds[1], "x": student.speed_up(hubert)[1]})


def ten_heads(bench: Bench) -> Figures:
    """An update of ten heads on means over time, and of one."""
    means = torch.randn(pooled.BATCH, 13, bench.pick(768, 16))
    one, ten = (pooled.ours(None, means, count, bench.device) for count in (1, 10))
    times = pair(ten, one, rounds=bench.pick(10, 2), device=bench.device, often=bench.pick(50, 1))
    return Figures({"x": median(times.ratios), "one ms": 1e3 * median(times.fast)})


def search(bench: Bench) -> Figures:
    """A layer of QUESST14's size: features on the host at first, as they are stored."""
    rng, width = np.random.default_rng(0), bench.pick(768, 16)
    queries = [torch.randn(int(n), width) for n in rng.integers(40, 90, bench.pick(138, 4))]
    documents = [torch.randn(int(n), width) for n in rng.integers(200, 450, bench.pick(2_438, 6))]
    match(queries[:4], documents[:4], "cosine_exp", bench.device)
    took = seconds(lambda: match(queries, documents, "cosine_exp", bench.device), bench.device)
    queries, documents = ([clip.to(bench.device) for clip in clips] for clips in (queries, documents))
    resident = seconds(lambda: match(queries, documents, "cosine_exp", bench.device), bench.device)
    return Figures({"s": took, "features on the device s": resident})


def plan(bench: Bench) -> Figures:
    """What `superb-eval plan --profile superb` estimates; with `--jobs 4` as if no run slowed another."""
    with tempfile.TemporaryDirectory() as folder:
        config = SuiteConfig(
            (bench.model("distilhubert"),),
            ("ks", "qbe") if bench.small else SUPERB,
            profile="superb",
            out=Path(folder),
            device=bench.device,
            store=Path(folder) / "store",
            store_gb=4000,
        )
        planned = make_plan(config)
        estimate(planned, NoProgress(), workers=4)
    hours = {each.task: each.seconds / 3600 for each in planned.projections.values()}
    values = {"h": sum(hours.values()), "h of four jobs": simulate(planned.runs, 4, planned.memory) / 3600}
    values["extraction audio-s/s"] = median(each.factor for each in planned.throughputs.values())
    return Figures(values, ", ".join(f"{task} {hours[task]:.2g}" for task in sorted(hours, key=lambda k: -hours[k])))


def training(name: str, bench: Bench) -> Figures:
    """Updates of a real training, its loader included."""
    measured = gpu_training.TRAININGS[name](bench.device, bench.small)
    values = {"ms": measured.milliseconds, "audio-s/s": measured.audio_seconds / measured.milliseconds * 1e3}
    if measured.busy is not None:
        values["busy %"] = 100 * measured.busy / measured.milliseconds
    note = f"{measured.clips:.0f} clips, {measured.shapes} shapes in {measured.updates} updates"
    note += f"; 200 000 in {measured.milliseconds / 1e3 * 200_000 / 3600:.1f} h"
    return Figures(values, note + (f"; {measured.kernels:.0f} kernels" if measured.busy is not None else ""))


LINES = (
    BenchmarkLine("products 8192^3", products),
    BenchmarkLine(
        "DistilHuBERT forward, 32 x 10 s",
        partial(forward, "distilhubert"),
        (Goal("x", ">=", 3), Goal("audio-s/s", ">=", 25_000)),
    ),
    BenchmarkLine(
        "HuBERT Base forward, 32 x 10 s",
        partial(forward, "hubert"),
        (Goal("x", ">=", 3), Goal("audio-s/s", ">=", 12_000)),
    ),
    BenchmarkLine("DistilHuBERT extraction, 512 clips of 6 to 16 s, bf16", extraction),
    BenchmarkLine("one utterance of 10 s (`cost`)", one_utterance),
    BenchmarkLine(
        "distillation, paper's update (24 x 15.6 s, bf16)", partial(training, "paper"), (Goal("ms", "<=", 54),)
    ),
    BenchmarkLine("ten heads beside one", ten_heads, (Goal("x", "<=", 2),)),
    BenchmarkLine("QbE, 138 queries in 2 438 documents", search, (Goal("s", "<=", 2),)),
    BenchmarkLine(
        "pre-training 12 x 256, batches of 480 s", partial(training, "teacher"), (Goal("audio-s/s", ">=", 15_000),)
    ),
    BenchmarkLine(
        "distillation of it, the same batches", partial(training, "student"), (Goal("audio-s/s", ">=", 10_000),)
    ),
    BenchmarkLine("`plan --profile superb`, DistilHuBERT", plan, (Goal("h", "<=", 4),)),
)
"""The goals are those of the work that made the GPU path fast."""


def take(line: BenchmarkLine, bench: Bench) -> dict[str, Any]:
    """Measure a line; where that fails, it has the error's first sentence."""
    started, found, error = time.perf_counter(), Figures({}), ""
    try:
        found = line.measure(bench)
    except Exception as failure:  # whatever it is, the other lines are measured
        error = f"{type(failure).__name__}: {str(failure).partition('. ')[0].partition(chr(10))[0]}"
    if bench.device != "cpu":
        torch.cuda.empty_cache()
    return {
        "what": line.what,
        "figures": found.values,
        "goals": {str(goal): goal.is_met(found.values) for goal in line.goals if found.values and not bench.small},
        "note": found.note,
        "error": error,
        "seconds": time.perf_counter() - started,
    }


def render(row: dict[str, Any]) -> str:
    """Return a line of the table."""
    measured = ", ".join(f"{value:.4g} {name}" for name, value in row["figures"].items())
    goals = ", ".join(f"{goal}: {'met' if met else 'missed'}" for goal, met in row["goals"].items())
    return f"| {row['what']} | {row['error'] or measured} | {goals} | {row['note']} |"


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:1, or cpu to try the script")] = "cuda",
    small: Annotated[bool, typer.Option("--small", help="toy sizes: figures mean nothing")] = False,
    out: Annotated[Path | None, typer.Option(help="a JSON file for the lines")] = None,
) -> None:
    """Measure the table of a GPU; the exit status is 1 where a line could not be measured."""
    if reason := devices.missing(device):
        raise typer.BadParameter(reason, param_hint="--device")
    card = torch.cuda.get_device_name(device) if devices.kind(device) == "cuda" else "CPU"
    print(
        f"{card}, torch {torch.__version__}\n\n| what | measured | goal | note |\n| --- | --- | --- | --- |", flush=True
    )
    rows = []
    for line in LINES:
        rows.append(take(line, Bench(device, small)))
        print(render(rows[-1]), flush=True)
    if out is not None:
        out.write_text(json.dumps({"card": card, "torch": torch.__version__, "small": small, "lines": rows}, indent=1))
    raise typer.Exit(any(row["error"] for row in rows))
