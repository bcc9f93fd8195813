"""What a cell demands of a cluster, and which cells share a pass of an upstream over a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from superb_eval.errors import UserError, near_miss
from superb_eval.suite.jobs import Job


@dataclass(frozen=True)
class Resources:
    """Cores, share of GPUs, and memory in GB (0: nothing is demanded) of one cell."""

    cpu: int = 1
    gpu: float = 0.0
    memory_gb: float = 0.0


def parse(text: str, device: str) -> Resources:
    """Return a demand such as `cpu=2,gpu=0.5,memory_gb=8`; what is left out is one core, and one GPU on cuda.

    Raises:
        UserError: an unknown name, or no such number.
    """
    known = [field.name for field in fields(Resources)]
    found: dict[str, float] = {"cpu": 1, "gpu": 1.0 if device == "cuda" else 0.0, "memory_gb": 0.0}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = part.partition("=")
        if key not in known:
            raise UserError(f"--demand {part}: unknown.{near_miss(key, known)} Known: {', '.join(known)}.")
        found[key] = _number(part, value, least=1 if key == "cpu" else 0)
    return Resources(int(found["cpu"]), found["gpu"], found["memory_gb"])


def _number(part: str, value: str, least: int) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not least <= number < 1e6:
        raise UserError(f"--demand {part}: expected a number, such as cpu=2,gpu=0.5,memory_gb=8.")
    return number


def passes(wanted: Sequence[Job]) -> dict[tuple[str, ...], list[Job]]:
    """Return the cells that share the features of one pass of an upstream over a corpus, by what they share.

    Seeds do, and settings of a head's training. Tasks that happen to hear the same audio share shards of the store.
    """
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in wanted:
        kept = [text for text in job.overrides if not text.startswith(("train.", "head."))]
        key = (job.upstream, job.task, job.profile, str(job.data), *kept)
        found.setdefault(key, []).append(job)
    return found


def on_shared_folders(job: Job) -> Job:
    """Return a cell whose folders are named from the root, so that they mean the same to every machine."""
    from superb_eval.features.store import default_folder

    data = None if job.data is None else job.data.resolve()
    return replace(job, data=data, out=job.out.resolve(), store=(job.store or default_folder()).resolve())
