"""SIGKILL to every other command that writes: `python -m tests.campaigns kill_commands [KILLS] [COMMAND...]`.

Pre-training, distillation, layer analysis, reports, synthesis and exports are killed `KILLS` times each, at random
moments of the time that an undisturbed one takes; then the same command runs to its end. What it wrote has to equal
the undisturbed output, and nothing else may be left over.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.conftest import write_tones
from tests.results import runs

FIRST = 1.0
"""Seconds that Python and its libraries take to start: nothing is written before."""

UNEQUAL = re.compile(rb'"?seconds"?: ?\{[^}]*\}|"(started|peak_memory|merged)": ?[^,\n]*', re.DOTALL)
"""What two undisturbed runs don't share: how long they took, and when."""


@dataclass(frozen=True)
class Command:
    """The words of a command that writes to `OUT`, and the files of it that two undisturbed runs share.

    `{r}` and `{official}` stand for results folders, `{speech}` for unlabelled audio, `{tones}` for a corpus.
    """

    words: str
    compared: tuple[str, ...] = ("**/*",)


TRAINED = ("model/*", "recipe.yaml")

SHORT = "-o train.steps=20 -o train.eval_every=5 -o train.lr=1e-2"

COMMANDS: Mapping[str, Command] = {
    "pretrain": Command("pretrain hubert_toy --data audio={speech} --out OUT/x --loggers none", TRAINED),
    "distill": Command("distill distilhubert_toy --data audio={speech} --out OUT/x --loggers none", TRAINED),
    "layers": Command(
        f"layers hubert_nano@random --tasks ks --data {{tones}} --out OUT/x --store OUT/store {SHORT}",
        ("layers/*/layers.json",),
    ),
    "report": Command("report {r} --out OUT/x/report.html"),
    "synth": Command("corpus synth --size nano --tasks ks --out OUT/x"),
    "corpus new": Command("corpus new ks {tones}/classes --out OUT/x --audio copy"),
    "corpus export": Command("corpus export ks --data {tones} --out OUT/x"),
    "onnx": Command("onnx {r}/hubert_nano@random --out OUT/x/ks.onnx"),
    "submission": Command("export {official} --submission hubert --out OUT/x"),
    "hub": Command("export {r} --model-card fbank_nonorm --hub org/name --dry-run"),
    "table": Command("table {r} --out OUT/x/table.html"),
    "merge": Command("merge ann={r} --out OUT/x"),
    "upstream export": Command("upstream export hubert_nano@random --out OUT/x"),
}


def prepare(folder: Path) -> None:
    """Make what the commands read: speech, a corpus, and results folders."""
    rng = np.random.default_rng(0)
    (folder / "speech").mkdir()
    for number in range(16):
        noise = 0.1 * rng.standard_normal(int(16_000 * rng.uniform(0.5, 2.0)))
        soundfile.write(folder / f"speech/{number:02d}.flac", noise, 16_000)
    tones = write_tones(folder / "tones", {"train": 12, "dev": 6, "test": 6})
    for path in (tones / "audio").rglob("*.flac"):
        label, _, number = path.stem.rpartition("-")
        target = tones / f"classes/{label}/{path.parent.name}{number}_x.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    runs.ten_tasks(folder / "official", "hubert", 0.1, 0, profile="superb", corpus__official=True)
    for upstream in ("hubert_nano@random", "fbank_nonorm"):
        _finish(f"run ks -u {upstream} --data {{tones}} --out {{r}} --profile nano {SHORT}", folder, folder / "run")


def start(words: str, folder: Path, out: Path, limit: str = "true") -> subprocess.Popen[bytes]:
    """Start a command in its own process group, below a limit of the shell; its output goes to a file beside `out`."""
    out.mkdir(parents=True, exist_ok=True)
    inputs = {name: folder / name for name in ("r", "official", "speech", "tones")}
    text = words.format(**inputs).replace("OUT", str(out))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SUPERB_EVAL_STORE": str(folder / "store")}
    with out.with_suffix(".log").open("wb") as log:
        command = shlex.join([sys.executable, "-m", "superb_eval", *text.split()])
        return subprocess.Popen(
            ["bash", "-c", f"{limit} && exec {command}"],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _finish(words: str, folder: Path, out: Path) -> None:
    """Run a command to its end."""
    if start(words, folder, out).wait() != 0:
        raise RuntimeError(f"{words}: {out.with_suffix('.log').read_text(errors='replace')[-1500:]}")


def outputs(out: Path, compared: tuple[str, ...]) -> dict[str, bytes]:
    """Return the compared files of an output, without what two undisturbed runs don't share."""
    paths = {path for pattern in compared for path in (out / "x").glob(pattern) if path.is_file()}
    return {str(path.relative_to(out)): _comparable(path, out) for path in sorted(paths) if path.name != "lock"}


def _comparable(path: Path, out: Path) -> bytes:
    return UNEQUAL.sub(b"", path.read_bytes().replace(str(out).encode(), b"OUT"))


def leftovers(out: Path) -> list[str]:
    """Return temporary files, also of temporary folders."""
    return sorted(path.name for path in out.rglob("*") if re.search(r"\.(tmp|part|before)$|^tmp", path.name))


def run(name: str, folder: Path, kills: int, seed: int = 0) -> tuple[list[str], list[float]]:
    """Kill a command repeatedly, then let it end; return the problems, and when it was killed, in seconds."""
    command, rng = COMMANDS[name], random.Random(f"{name} {seed}")
    out = folder / name.replace(" ", "-")
    began = time.monotonic()
    _finish(command.words, folder, out / "undisturbed")
    duration, moments = time.monotonic() - began, list[float]()
    for _ in range(kills):
        process = start(command.words, folder, out / "killed")
        moments.append(rng.uniform(min(FIRST, duration / 2), duration))
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments[-1])
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    try:
        _finish(command.words, folder, out / "killed")
    except RuntimeError as error:
        return [str(error)], moments
    ours, theirs = (outputs(out / part, command.compared) for part in ("undisturbed", "killed"))
    problems = [f"{path} differs" for path in sorted(ours.keys() | theirs.keys()) if ours.get(path) != theirs.get(path)]
    problems += [
        f"left over: {path}" for path in leftovers(out / "killed") if path not in leftovers(out / "undisturbed")
    ]
    return problems, moments


def main(arguments: Sequence[str]) -> int:
    """Kill each command, or those that are named, six times or as often as is asked for; return 1 for a problem."""
    kills, names = int((*arguments[:1], "6")[0]), arguments[1:] or list(COMMANDS)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in names:
            problems, moments = run(name, Path(folder), kills)
            failed += bool(problems)
            when = ", ".join(f"{moment:.1f}" for moment in moments)
            print(f"{name}: {kills} kills (after {when} s): {problems or 'as undisturbed'}", flush=True)
    return int(failed > 0)
