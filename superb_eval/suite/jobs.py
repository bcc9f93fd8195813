"""A run as the suite handles it: the options of `superb-eval run`, before anything heavy is imported."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from superb_eval import recipe
from superb_eval.corpora import embedded, load_corpus
from superb_eval.errors import UserError, near_miss
from superb_eval.results.upstream_address import resolve_address
from superb_eval.suite import inputs, state_files
from superb_eval.suite.state_files import Count, Receipt

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


def _without_nul(folder: Path) -> Path:
    if "\0" in str(folder):
        raise ValueError("no folder has a NUL in its name")
    return folder


Folder = Annotated[Path, AfterValidator(_without_nul)]


@dataclass(frozen=True)
class Job:
    """One run (a task, an upstream, a seed): fields of `superb_eval.runs.config.RunConfig`, with the profile chosen."""

    __pydantic_config__: ClassVar[ConfigDict] = state_files.STRICT

    upstream: str
    task: str
    data: Folder | None
    profile: str
    overrides: tuple[str, ...]
    seed: Count
    out: Folder
    device: str
    store: Folder | None
    store_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    loggers: tuple[str, ...] = ()  # earlier versions planned without
    limit: Annotated[int, Field(gt=0, lt=2**63)] | None = None

    def __str__(self) -> str:
        return f"{self.upstream} {self.task}" + (f" seed {self.seed}" if self.seed else "")

    def dumps(self) -> str:
        """Return the job as a line of JSON, for a worker."""
        return state_files.dump(self)

    @classmethod
    def loads(cls, text: str) -> Job:
        """Return the job that `dumps` wrote.

        Raises:
            ValueError: it is none.
        """
        return state_files.parse(cls, text)

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
        """Return the path of the run's receipt (`superb_eval.suite.state_files.Receipt`)."""
        key = (self.upstream, self.task, str(self.data and os.path.realpath(self.data)), self.profile, self.seed)
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
    receipt = state_files.load(Receipt, job.receipt_path())
    if receipt is None or not os.path.isfile(job.out / receipt.run / "result.json"):  # no name is too long for it
        return None
    return job.out / receipt.run if receipt.signature == signature(job) else None


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
