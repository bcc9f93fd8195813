"""A run as the suite handles it: the options of `superb-eval run`, before anything heavy is imported."""

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
from superb_eval.runs.upstream_address import resolve_address
from superb_eval.suite import inputs

SUITE_FOLDER = ".suite"
"""Subfolder of a results folder with the states and logs of the suite."""

SUPERB = tuple(sorted(load_corpus.OFFICIAL_READERS))
"""The ten tasks that `all` stands for; other tasks are run where they are named."""


@dataclass(frozen=True)
class SuiteConfig:
    """The options of `superb-eval suite`."""

    upstreams: tuple[str, ...]
    tasks: tuple[str, ...]
    data: Path | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    out: Path = Path("results")
    device: str = "cpu"
    store: Path | None = None
    store_gb: float | None = None
    loggers: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Job:
    """One run (a task, an upstream, a seed): fields of `superb_eval.runs.config.RunConfig`, with the profile chosen."""

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
    loggers: tuple[str, ...] = ()
    limit: int | None = None

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
        for name in ("overrides", "loggers"):
            content[name] = tuple(content.get(name, ()))  # earlier versions planned without loggers
        return cls(**{field.name: content[field.name] for field in fields(cls) if field.name in content})

    @property
    def corpus(self) -> Path:
        """The corpus folder."""
        return self.data or embedded.default_folder(self.profile)

    def part(self) -> str:
        """Return the folder of a manifest corpus that the job's recipe reads.

        Raises:
            UserError: there is no such recipe, or it is invalid.
        """
        return recipe.resolve(recipe.find(self.task, self.profile), self.overrides, recipe.Recipe).part

    def receipt_path(self) -> Path:
        """Return the path of the run's receipt (`superb_eval.suite.job_state.Receipt`)."""
        key = (self.upstream, self.task, str(self.data and self.data.resolve()), self.profile, self.seed)
        tried = [] if self.limit is None else [f"--limit {self.limit}"]
        name = hashlib.sha256(json.dumps([*key, *self.overrides, *tried]).encode()).hexdigest()[:20]
        return self.out / SUITE_FOLDER / f"{name}.json"


def expand(config: SuiteConfig) -> list[Job]:
    """Return the runs of a suite, in an order that reuses stored features.

    Tasks of one upstream follow one another, and further seeds come last: by then all features are stored.

    Raises:
        UserError: an unknown task, also before an override, or nothing to run.
    """
    tasks = _tasks(config.tasks)
    upstreams = list(dict.fromkeys(_address(typed, config.out) for typed in config.upstreams))
    if not upstreams:
        raise UserError("--upstreams: names none; give NAME,NAME,...")
    profiles = {task: config.profile or _profile(task, config.data) for task in tasks}
    common = (config.out, config.device, config.store, config.store_gb, config.loggers, config.limit)
    return [
        Job(upstream, task, config.data, profiles[task], _overrides(config, task), seed, *common)
        for seed, upstream, task in itertools.product(config.seeds, upstreams, tasks)
    ]


def _address(typed: str, out: Path) -> str:
    """Return the address of an upstream in a results folder; where it can't be opened, its runs report why."""
    try:
        return resolve_address(typed, out)
    except UserError:
        return typed


def _tasks(names: Sequence[str]) -> list[str]:
    if "all" in names:
        names = [*SUPERB, *(name for name in names if name != "all")]
    known = recipe.tasks()
    for name in names:
        if name not in known:
            from downstreams import registry

            near = registry.suggestion(name, known)
            raise UserError(f"--tasks: no task is called '{name}'.{near} Known: {', '.join(known)}.")
    if not names:
        raise UserError(f"--tasks: names none; give all, or some of {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _overrides(config: SuiteConfig, task: str) -> tuple[str, ...]:
    """Return the overrides of a task's recipe: those for all tasks, and those that begin with `TASK:`."""
    overrides = []
    for override in config.overrides:
        head, colon, _ = override.partition("=")[0].partition(":")
        if not colon:
            overrides.append(override)
        elif head == task:
            overrides.append(override.removeprefix(f"{head}:"))
        elif head not in recipe.tasks():
            raise UserError(f"-o {override}: no task is called '{head}'.{near_miss(head, recipe.tasks())}")
    return tuple(overrides)


def _profile(task: str, data: Path | None) -> str:
    """Return the profile that `superb-eval run` would choose."""
    return "superb" if data is not None and load_corpus.is_official(task, data) else "mini"


def finished(job: Job) -> Path | None:
    """Return the folder of a finished run whose inputs are unchanged, else None.

    Recipe, corpus, weights and a user's own encoder are compared by the names, sizes and times of their files, in
    milliseconds and without opening any. None doesn't mean that the run must be repeated: only that its inputs have to
    be opened to decide.
    """
    try:
        receipt = json.loads(job.receipt_path().read_text(encoding="utf8"))
        folder = job.out / str(receipt["run"])
        return folder if receipt["signature"] == signature(job) and (folder / "result.json").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def signature(job: Job) -> str:
    """Return a digest of the files that a run depends on, by name, size and time, and of the versions of the code.

    Raises:
        UserError: the task has no recipe of that profile.
    """
    store = job.store or Path(os.environ.get("SUPERB_EVAL_STORE") or job.out)
    parts = (
        inputs.file_state(recipe.find(job.task, job.profile)),
        inputs.code_state(job.task),
        inputs.file_state(job.corpus),
        inputs.upstream_state(job.upstream, (job.out, job.corpus, store)),
        job.device,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
