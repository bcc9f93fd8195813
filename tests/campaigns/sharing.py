"""Four processes with one store and one results folder: `python -m tests.campaigns.sharing [PROCESSES]`.

Each runs a suite of the same cells. Afterwards every record and head has to equal those of one process alone, no shard
may be damaged, and the upstream may have heard no clip more than once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from superb_eval.features.store import Store
from superb_eval.results import record as records
from tests.campaigns import kill


def suite(corpus: Path, place: Path, tasks: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Begin a suite of two upstreams and two seeds."""
    command = [
        sys.executable,
        "-m",
        "superb_eval",
        "suite",
        "-u",
        "fbank,fbank_nonorm",
        "--tasks",
        tasks,
        "--seeds",
        "2",
    ]
    command += ["--profile", "nano", "--data", str(corpus), "--jobs", "1"]
    command += ["--out", str(place / "results"), "--store", str(place / "store")]
    command += [word for text in overrides for word in ("-o", text)]
    with (place / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(corpus: Path, folder: Path, tasks: str, processes: int, overrides: tuple[str, ...] = ()) -> list[str]:
    """Run the campaign; return what is wrong."""
    alone, together = folder / "alone", folder / "together"
    for place, count in ((alone, 1), (together, processes)):
        place.mkdir(parents=True)
        running = [suite(corpus, place, tasks, overrides) for _ in range(count)]
        codes = [process.wait() for process in running]
        if any(codes):
            return [f"exit codes {codes}: {(place / 'log').read_text()[-1500:]}"]
    found = kill.differences(alone / "results", together / "results")
    heard = [
        sum(records.read(p).features.extracted for p in records.find(place / "results")) for place in (alone, together)
    ]
    if heard[0] != heard[1]:
        found.append(f"the upstream heard {heard[1]} clips where one process alone lets it hear {heard[0]}")
    names = [{path.name for path in (place / "store").rglob("*.safetensors")} for place in (alone, together)]
    if names[0] != names[1]:
        found.append(f"{len(names[1] - names[0])} shards too many, {len(names[0] - names[1])} missing")
    store = Store(together / "store")
    found += [f"{path}: damaged" for path in store.folder.rglob("*.safetensors") if store.read(path) is None]
    return found + kill.left_behind(together)


def main() -> int:
    """Run the long form: all ten tasks."""
    count = int((*sys.argv[1:], "4")[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        synth = [sys.executable, "-m", "superb_eval", "corpus", "synth", "--size", "nano", "--out", str(corpus)]
        subprocess.run(synth, check=True)
        found = run(corpus, Path(folder) / "runs", "all", count)
        print(f"{count} processes: {found or 'equal to one, to the bit; no clip was heard twice'}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
