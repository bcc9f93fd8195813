"""Fuzzed input: `python -m tests.campaigns.fuzz [KIND...]` reads 10 000 damaged audio files, 1 000 of each other kind.

Every file is accepted, or refused with a `UserError` of bounded length: anything else (another exception, more than
`SECONDS`, more than `GIGABYTES` of memory beyond what was there, a dead process) is counted apart, and has to be none.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from superb_eval.errors import UserError
from tests.campaigns import inputs, mutations
from tests.campaigns.inputs import Kind

SECONDS = 20
GIGABYTES = 4
LONGEST = 20_000
"""Characters of a refusal: `manifest.MAX_LISTED` rows, quoted."""


@dataclass
class Tally:
    """Counts of outcomes, and the first files of each that must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    others: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        accepted, refused = self.counts["accepted"], self.counts["refused"]
        other = {key: n for key, n in self.counts.items() if key not in ("accepted", "refused")}
        return f"{accepted} accepted, {refused} refused with a sentence, {sum(other.values())} other {other or ''}"


def run(kind: Kind, count: int, folder: Path, seed: int = 0, limit: float = GIGABYTES) -> Tally:
    """Read `count` mutations of a kind's seeds in this process."""
    tally, rng = Tally(), Random(f"{kind.name} {seed}")
    seeds = kind.seeds(folder)
    path = folder / f"fuzzed{kind.suffix}"
    path.write_bytes(seeds[0])
    # What is imported on the way is no part of what is measured; what comes of the file is told below, read again.
    with suppress(Exception):
        kind.read(path)
    with _bounded(limit):
        for number in range(count):
            content = mutations.mutated(rng, seeds, kind.words) if number >= len(seeds) else seeds[number]
            path.write_bytes(content)
            outcome = _outcome(kind.read, path)
            tally.counts[outcome] += 1
            if outcome not in ("accepted", "refused"):
                tally.others.setdefault(outcome, content)
    return tally


def _outcome(read: Callable[[Path], object], path: Path) -> str:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read(path)
    except UserError as error:
        return "refused" if 0 < len(str(error)) <= LONGEST else f"refusal of {len(str(error))} characters"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:120]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "accepted"


class _bounded:  # noqa: N801 - a context
    """Lets this process have so many gigabytes more, and an alarm interrupt it."""

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


def main(wanted: list[str]) -> int:
    """Run each kind in a process of its own, so that one that dies is counted too."""
    if wanted[:1] == ["--one"]:
        _, name, count, folder = wanted
        tally = run(inputs.KINDS[name], int(count), Path(folder))
        for outcome, content in tally.others.items():
            print(f"  {outcome}: {content[:200]!r}")
        print(f"{name}: {tally}", flush=True)
        return int(any(key not in ("accepted", "refused") for key in tally.counts))
    failed = 0
    for name, kind in inputs.KINDS.items():
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--one", name, str(kind.count), folder]
                code = subprocess.run(command, check=False).returncode
                if code not in (0, 1):
                    print(f"{name}: the process died with {code}")
                failed += code != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
