"""The resources that a run needs of a cluster, and which runs share one pass of an upstream over a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import devices
from superb_eval.suite.jobs import Job


@dataclass(frozen=True)
class Resources:
    """Cores, share of GPUs, and memory in GB (0: not specified) of one run."""

    cpu: int = 1
    gpu: float = 0.0
    memory_gb: float = 0.0


def parse(text: str, device: str) -> Resources:
    """Return the resources in a text such as `cpu=2,gpu=0.5,memory_gb=8`; default: one core, and one GPU on cuda.

    Raises:
        UserError: an unknown key, or a value that is no number in range.
    """
    known = [field.name for field in fields(Resources)]
    values: dict[str, float] = {"cpu": 1, "gpu": 0.0 if device == devices.CPU else 1.0, "memory_gb": 0.0}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = part.partition("=")
        if key not in known:
            raise UserError(f"--demand {part}: unknown.{near_miss(key, known)} Known: {', '.join(known)}.")
        values[key] = _number(part, value, minimum=1 if key == "cpu" else 0)
    return Resources(int(values["cpu"]), values["gpu"], values["memory_gb"])


def _number(part: str, value: str, minimum: int) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not minimum <= number < 1e6:
        raise UserError(f"--demand {part}: expected a number, such as cpu=2,gpu=0.5,memory_gb=8.")
    return number


def shared_passes(jobs: Sequence[Job]) -> dict[tuple[str, ...], list[Job]]:
    """Group runs that share the features of one pass of an upstream over a corpus; keys are what they share.

    Seeds share a pass, and so do settings of a head and its training. Tasks with the same audio share shards of the
    feature store anyway.
    """
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        overrides = [text for text in job.overrides if not text.startswith(("train.", "head."))]
        key = (job.upstream, job.task, job.profile, str(job.data), *overrides)
        groups.setdefault(key, []).append(job)
    return groups


def with_absolute_folders(job: Job) -> Job:
    """Return a job with absolute folders, which every machine that shares them resolves alike."""
    from superb_eval.features.store import default_folder

    data = None if job.data is None else job.data.resolve()
    return replace(job, data=data, out=job.out.resolve(), store=(job.store or default_folder()).resolve())
