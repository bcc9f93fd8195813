"""Hostile networks: `python -m tests.campaigns networks [KIND...]` opens 1 200 configurations and 800 checkpoints.

Each one is opened and runs a forward pass, or is refused with one sentence that names its file. Anything else (another
exception, more than `fuzz.SECONDS`, more than `fuzz.GIGABYTES`, code that ran, a file that changed) must not occur.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from superb_eval.errors import UserError
from tests.campaigns import checkpoint_files, configurations, fuzz
from tests.campaigns.fuzz import Tally

LONGEST = 1_000
"""Characters of a refusal, without the file's path."""

Generator = Callable[[Path, Random, int, Path, float], Iterator[str]]

KINDS: dict[str, tuple[int, Generator]] = {
    "folders": (700, configurations.folders),
    "settings": (500, configurations.files),
    "checkpoints": (800, checkpoint_files.files),
}
"""Names, cases of the long form, and the generators of addresses."""


def attempt(address: str, near: Path) -> None:
    """Open an upstream and run a forward pass on a second of noise; `near` is where its files lie.

    Raises:
        UserError: it is refused, in one line that names the file.
        AssertionError: the refusal isn't such a sentence.
    """
    import torch

    from upstreams import registry
    from upstreams.loading.identity import probe_waveform

    try:
        upstream = registry.load(address)
        with torch.no_grad():
            upstream([probe_waveform(16_000)])
    except UserError as error:
        text = str(error).replace(address, near.name).replace(str(near), near.name)
        assert near.name[:20] in text, f"names no file: {text[:200]}"
        assert "\n" not in text and text.isprintable(), f"several lines: {text[:200]!r}"
        assert len(text) <= LONGEST, f"{len(text)} characters: {text[:200]}"
        raise


def run(kind: str, count: int, folder: Path, seed: int = 0, large: float = 0.1) -> Tally:
    """Open `count` hostile networks of a kind in this process; `large` is the share of those that take seconds."""
    from upstreams import registry

    tally, rng, canary = Tally(), Random(f"{kind} {seed}"), folder / "code-ran"
    registry.load("hubert_nano@random").identity()  # imports don't count for time and memory
    with warnings.catch_warnings(), fuzz.bounded(fuzz.GIGABYTES):
        warnings.simplefilter("ignore")
        for address in KINDS[kind][1](folder, rng, count, canary, large):
            near = _file_of(address, folder)
            before = _snapshot(folder)
            outcome = fuzz.outcome(lambda path: attempt(address, path), near)  # noqa: B023 - called here
            if canary.exists() or _snapshot(folder) != before:
                outcome = "code ran, or a file changed"
            tally.counts[outcome] += 1
            if outcome not in ("accepted", "refused"):
                tally.others.setdefault(outcome, address.encode(errors="replace"))
    return tally


def _file_of(address: str, folder: Path) -> Path:
    """Return the file or folder in `folder` that an address names."""
    name = address[address.index(str(folder)) + len(str(folder)) + 1 :]
    return folder / name.partition("#")[0].partition("@")[0]


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the sizes and times of the files in a folder."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found}


def main(names: Sequence[str]) -> int:
    """Run the long form, print its counts, and return how many kinds failed."""
    failed = 0
    for kind in names or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            tally = run(kind, KINDS[kind][0], Path(folder))
        for outcome, address in tally.others.items():
            print(f"  {outcome}: {address.decode()[:200]}")
        print(f"{kind}: {tally}", flush=True)
        failed += any(key not in ("accepted", "refused") for key in tally.counts)
    return failed
