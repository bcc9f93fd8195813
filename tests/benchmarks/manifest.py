"""A manifest of a million rows: time and memory of its validation by columns, beside that row by row.

Row by row is what a script does, and what this project did: the standard library's `DictReader`, and an `Utterance` for
each row. Each side runs in a process of its own, in turn with the other.
"""

from __future__ import annotations

import csv
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from superb_eval.data import read_manifest
from superb_eval.data.audio import Clip
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.manifest import Utterance
from superb_eval.errors import UserError

ROWS, FILES, TURNS = 1_000_000, 1_000, 3


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), ROWS)
        turns = [[_measure(side, folder) for side in ("by_row", "by_column")] for _ in range(TURNS)]
    ratio = statistics.median(slow[0] / fast[0] for slow, fast in turns)
    (slow, more), (fast, less) = map(min, zip(*turns, strict=True))
    return (
        f"manifest of {ROWS} rows: {ratio:.1f} x ({slow:.1f} s row by row, {fast:.1f} s by columns, on one core; "
        f"{more:.0f} and {less:.0f} MB)"
    )


def write(root: Path, rows: int) -> None:
    """Write a corpus of segments of `FILES` files."""
    (root / "audio").mkdir()
    (root / "ks").mkdir()
    for k in range(FILES):
        (root / "audio" / f"{k}.wav").touch()
    with (root / "ks" / "train.csv").open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "speaker", "keyword", "start", "end"])
        writer.writerows([k, f"audio/{k % FILES}.wav", "a", "yes", k // FILES, k // FILES + 1] for k in range(rows))


def by_column(root: Path) -> list[Utterance]:
    split = read_manifest.read_split(root / "ks", "train", ("keyword",), root)
    return [split.utterances[0], split.utterances[-1]]


def by_row(root: Path) -> list[Utterance]:
    paths, seen, utterances = AudioPaths(root), set[str](), []
    with (root / "ks" / "train.csv").open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        for cells in reader:
            line, name, path = reader.line_num, cells["id"].strip(), cells["path"].strip()
            start, end = float(cells["start"] or 0), float(cells["end"] or math.inf)
            if None in cells or not all((name, path, cells["speaker"].strip(), cells["keyword"].strip())):
                raise UserError(f"line {line}: a cell is missing")
            if name in seen or paths.problems(path) or not 0 <= start < end:
                raise UserError(f"line {line}: {name}")
            seen.add(name)
            clip = Clip(root / path, start, end)
            utterances.append(
                Utterance(name, clip, cells["speaker"].strip(), {"keyword": cells["keyword"].strip()}, line)
            )
    return [utterances[0], utterances[-1]]


def _measure(side: str, folder: str) -> tuple[float, float]:
    """Return seconds on one core and the peak of memory in MB, of a new process."""
    done = subprocess.run([sys.executable, "-m", __name__, side, folder], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


if __name__ == "__main__":
    import pyarrow.compute  # noqa: F401 - imports don't count

    before = time.process_time()
    {"by_row": by_row, "by_column": by_column}[sys.argv[1]](Path(sys.argv[2]))
    print(time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
