"""A cell as the suite deals with it: what `superb-eval run` would be asked, before anything heavy is imported."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from superb_eval import recipe
from superb_eval.corpora import embedded, load_corpus
from superb_eval.errors import UserError, near_miss
from superb_eval.suite import inputs

PLACE = ".suite"
"""In a results folder: receipts and logs of the suite."""

SUPERB = tuple(sorted(load_corpus.OFFICIAL))
"""The ten that `all` means; other tasks are run where they are named."""


@dataclass(frozen=True)
class Request:
    """What `suite` is asked for; `seeds` are 0, 1, ... up to one less."""

    upstreams: tuple[str, ...]
    tasks: tuple[str, ...]
    data: Path | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    seeds: int = 1
    out: Path = Path("results")
    device: str = "cpu"
    store: Path | None = None
    store_gb: float | None = None


@dataclass(frozen=True)
class Job:
    """One cell: the fields of `superb_eval.runs.config.RunConfig`, with the profile decided."""

    upstream: str
    task: str
    data: Path | None
    profile: str
    overrides: tuple[str, ...]
    seed: int
    out: Path
    device: str
    store: Path | None
    store_gb: float | None

    def __str__(self) -> str:
        return f"{self.upstream} {self.task}" + (f" seed {self.seed}" if self.seed else "")

    def dumps(self) -> str:
        """Return the job as JSON, for a worker."""
        return json.dumps({key: str(v) if isinstance(v, Path) else v for key, v in asdict(self).items()})

    @classmethod
    def loads(cls, text: str) -> Job:
        """Return the job that `dumps` wrote."""
        content: dict[str, Any] = json.loads(text)
        for name in ("data", "out", "store"):
            content[name] = None if content[name] is None else Path(content[name])
        content["overrides"] = tuple(content["overrides"])
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    @property
    def corpus(self) -> Path:
        """Where its corpus lies."""
        return self.data or embedded.place(self.profile)

    def part(self) -> str:
        """Return the folder of a manifest corpus that its recipe reads.

        Raises:
            UserError: the recipe isn't there, or can't be read.
        """
        return recipe.resolve(recipe.find(self.task, self.profile), self.overrides, recipe.Recipe).part

    def receipt(self) -> Path:
        """Return the file that says, once the cell is finished, what it was made with."""
        asked = (self.upstream, self.task, str(self.data and self.data.resolve()), self.profile, self.seed)
        name = hashlib.sha256(json.dumps([*asked, *self.overrides]).encode()).hexdigest()[:20]
        return self.out / PLACE / f"{name}.json"


def expand(request: Request) -> list[Job]:
    """Return a request's cells, in an order in which they share the features that the store keeps.

    Tasks of one upstream follow one another, and further seeds come last: by then all features are stored.

    Raises:
        UserError: an unknown task, also before an override, or nothing to run.
    """
    tasks = _tasks(request.tasks)
    upstreams = list(dict.fromkeys(request.upstreams))
    if not upstreams:
        raise UserError("--upstreams: names none; give NAME,NAME,...")
    profiles = {task: request.profile or _profile(task, request.data) for task in tasks}
    common = (request.out, request.device, request.store, request.store_gb)
    return [
        Job(upstream, task, request.data, profiles[task], _overrides(request, task), seed, *common)
        for seed, upstream, task in itertools.product(range(request.seeds), upstreams, tasks)
    ]


def _tasks(names: Sequence[str]) -> list[str]:
    if "all" in names:
        names = [*SUPERB, *(name for name in names if name != "all")]
    known = recipe.tasks()
    for name in names:
        if name not in known:
            raise UserError(f"--tasks: no task is called '{name}'.{near_miss(name, known)} Known: {', '.join(known)}.")
    if not names:
        raise UserError(f"--tasks: names none; give all, or some of {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _overrides(request: Request, task: str) -> tuple[str, ...]:
    """The overrides of a task's recipe: those for all, and those that begin with `TASK:`."""
    found = []
    for override in request.overrides:
        head, colon, _ = override.partition("=")[0].partition(":")
        if not colon:
            found.append(override)
        elif head == task:
            found.append(override.removeprefix(f"{head}:"))
        elif head not in recipe.tasks():
            raise UserError(f"-o {override}: no task is called '{head}'.{near_miss(head, recipe.tasks())}")
    return tuple(found)


def _profile(task: str, data: Path | None) -> str:
    """The profile that `superb-eval run` would choose."""
    return "superb" if data is not None and load_corpus.is_official(task, data) else "mini"


def finished(job: Job) -> Path | None:
    """Return the folder of a finished cell whose inputs look as they did then, else None.

    Recipe, corpus, weights and a user's own encoder are compared by the names, sizes and times of their files, in
    milliseconds and without opening any. None doesn't mean that the cell has to be run: only that this has to be found
    out by opening them.
    """
    try:
        receipt = json.loads(job.receipt().read_text(encoding="utf8"))
        folder = job.out / str(receipt["run"])
        return folder if receipt["signature"] == signature(job) and (folder / "result.json").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def signature(job: Job) -> str:
    """Return a digest of the files behind a cell, by name, size and time, and of the versions of our code.

    Raises:
        UserError: the task has no recipe of that profile.
    """
    store = job.store or Path(os.environ.get("SUPERB_EVAL_STORE") or job.out)
    parts = (
        inputs.state(recipe.find(job.task, job.profile)),
        inputs.versions(job.task),
        inputs.state(job.corpus),
        inputs.upstream(job.upstream, (job.out, job.corpus, store)),
        job.device,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def forget() -> None:
    """Look at files anew from now on."""
    inputs.forget()
