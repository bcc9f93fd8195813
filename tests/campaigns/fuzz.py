"""Fuzzed input: `python -m tests.campaigns fuzz [KIND...]` reads 10 000 damaged audio files, 1 000 of each other kind.

Every file is accepted, or refused with a `UserError` of bounded length; the first, which is undamaged, is accepted.
Anything else (another exception, more than `SECONDS`, more than `GIGABYTES` of additional memory, a dead process) is
counted separately, and must not occur.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from superb_eval.errors import UserError
from tests.campaigns import inputs, mutations
from tests.campaigns.inputs import Kind

SECONDS = 20
GIGABYTES = 4
MAX_CHARACTERS = 20_000
"""Length of an error message: `manifest.MAX_LISTED` rows, quoted."""


@dataclass
class Tally:
    """Counts of outcomes, and the first file of each that must not occur."""

    counts: Counter[str] = field(default_factory=Counter)
    others: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        accepted, refused = self.counts["accepted"], self.counts["refused"]
        other = {key: n for key, n in self.counts.items() if key not in ("accepted", "refused")}
        return f"{accepted} accepted, {refused} refused with a user error, {sum(other.values())} other {other or ''}"


def run(kind: Kind, count: int, folder: Path, seed: int = 0, limit: float = GIGABYTES) -> Tally:
    """Read `count` mutations of a kind's seed files in this process."""
    tally, rng = Tally(), Random(f"{kind.name} {seed}")
    seeds = kind.seeds(folder)
    path = folder / f"fuzzed{kind.suffix}"
    path.write_bytes(seeds[0])
    # Imports don't count for time and memory; the file itself is read again below, and counted.
    try:
        kind.read(path)
    except UserError as error:  # such as a missing package: damaged files would be refused for it alone
        tally.counts[f"the undamaged file is refused: {error}"] += 1
        return tally
    except Exception:
        pass  # counted below
    with bounded(limit):
        for number in range(count):
            content = mutations.mutate(rng, seeds, kind.words) if number >= len(seeds) else seeds[number]
            path.write_bytes(content)
            found = outcome(kind.read, path)
            tally.counts[found] += 1
            if found not in ("accepted", "refused"):
                tally.others.setdefault(found, content)
    return tally


def outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        with time_limit():
            read(path)
    except UserError as error:
        return "refused" if 0 < len(str(error)) <= MAX_CHARACTERS else f"message of {len(str(error))} characters"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:120]
    return "accepted"


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise a TimeoutError after `SECONDS`, where `bounded` lets it."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class bounded:  # noqa: N801 - a context
    """Limits this process to so many gigabytes more, and lets an alarm interrupt it."""

    def __init__(self, gigabytes: float) -> None:
        self.bytes = int(gigabytes * 1e9)

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + self.bytes, self.before[1]))
        self.handler = signal.signal(signal.SIGALRM, _late)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGALRM, self.handler)
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def main(names: Sequence[str]) -> int:
    """Fuzz each kind in its own process, so that one that dies is counted too."""
    if "--one" in names:
        _, name, count, folder = names
        tally = run(inputs.KINDS[name], int(count), Path(folder))
        for found, content in tally.others.items():
            print(f"  {found}: {content[:200]!r}")
        print(f"{name}: {tally}", flush=True)
        return int(any(key not in ("accepted", "refused") for key in tally.counts))
    failed = 0
    for name, kind in inputs.KINDS.items():
        if not names or name in names:
            with tempfile.TemporaryDirectory() as folder:
                alone = [sys.executable, "-W", "ignore", "-m", "tests.campaigns", "fuzz", "--one"]
                command = [*alone, name, str(kind.count), folder]
                code = subprocess.run(command, check=False).returncode
                if code not in (0, 1):
                    print(f"{name}: the process died with {code}")
                failed += code != 0
    return int(failed > 0)
