"""Commands without room: `python -m tests.campaigns limits [COMMAND...]`, as root for the disks.

Each command runs with few open files, with little memory, and on a small disk that is soon full. It either ends with
its result, or with one sentence and exit code 2; then the same command without the limit ends with the result of an
undisturbed one.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.campaigns import kill_commands
from tests.campaigns.kill_commands import COMMANDS, SHORT, Command

RUNS = ("*/*/*/predictions.csv", "*/*/*/probe-1.safetensors", "*/*/*/labels.json")

LIMITED: Mapping[str, Command] = {
    "run": Command(
        f"run ks -u fbank_nonorm --data {{tones}} --out OUT/x --store OUT/store --profile nano {SHORT}", RUNS
    ),
    "suite": Command(
        "suite -u fbank,hubert_nano@random --tasks ks --data {tones} --out OUT/x --store OUT/store --jobs 2 "
        f"--profile nano {SHORT}",
        RUNS,
    ),
    **COMMANDS,
}

SHELL = {
    "64 files": "ulimit -n 64",
    "24 files": "ulimit -n 24",
    "3 GB": "ulimit -v 3000000",
    "1 GB": "ulimit -v 1000000",
}
"""Limits by the shell; importing a torch with CUDA takes more than 3 GB of address space, and less than 3.6."""

DISKS = (8, 64, 512, 4096)
"""Sizes of disks, in KiB."""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a disk of a size on a folder; needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    """Give a small disk room."""
    subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)


def outcome(name: str, folder: Path, out: Path, limit: str = "true") -> str:
    """Run a command below a limit of the shell: `finished`, `refused` with one sentence, or what went wrong."""
    process = kill_commands.start(LIMITED[name].words, folder, out, limit)
    try:
        code = process.wait(300)
    except subprocess.TimeoutExpired:
        process.kill()
        return "more than 300 s"
    text = out.with_suffix(".log").read_text(errors="replace")
    if code == 0:
        return "finished"
    last = (text.strip().splitlines() or [""])[-1]
    return (
        "refused" if code == 2 and last.startswith("superb-eval: ") and "Traceback" not in text else f"{code}: {last}"
    )


def run(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each limit of a command, and the outcome below it and after it."""
    base = folder / f"limited-{name.replace(' ', '-')}"
    if outcome(name, folder, base / "undisturbed") != "finished":
        raise RuntimeError((base / "undisturbed.log").read_text(errors="replace")[-1500:])
    for limit, shell in SHELL.items():
        out = base / limit.replace(" ", "-")
        yield limit, _then(name, folder, out, outcome(name, folder, out, shell))
    for size in DISKS:
        out = base / f"disk-{size}"
        with small_disk(out, size):
            found = outcome(name, folder, out)
            enlarge(out)
            yield f"a disk of {size} KiB", _then(name, folder, out, found)


def _then(name: str, folder: Path, out: Path, found: str) -> str:
    """Run a command again without a limit, and compare; return both outcomes."""
    if found != "finished":
        again = outcome(name, folder, out)
        found += "" if again == "finished" else f", again: {again}"
    ours, theirs = (kill_commands.outputs(each, LIMITED[name].compared) for each in (out.with_name("undisturbed"), out))
    different = [path for path in sorted(ours.keys() | theirs.keys()) if ours.get(path) != theirs.get(path)]
    return found + (f"; differ: {different}" if different else "")


def main(arguments: Sequence[str]) -> int:
    """Run every command, or those that are named, below each limit; return 1 for a problem."""
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        kill_commands.prepare(Path(folder))
        for name in arguments or LIMITED:
            for limit, found in run(name, Path(folder)):
                problems += found not in ("finished", "refused")
                print(f"{name}, {limit}: {found}", flush=True)
    return int(problems > 0)
