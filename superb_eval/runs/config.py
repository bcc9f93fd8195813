"""What is asked for, and what has to be known before a cell can run: recipe, corpus, task and upstream."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from downstreams import registry as tasks
from downstreams.base import Scored, Setup
from superb_eval import recipe
from superb_eval.corpora import embedded, load_corpus
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus
from superb_eval.recipe import Recipe, TrainSettings
from superb_eval.runtime.progress import Progress
from upstreams.loading import earlier_fingerprints
from upstreams.loading import identity as identities

if TYPE_CHECKING:
    from upstreams.base import Upstream


@dataclass(frozen=True)
class RunConfig:
    """What was asked for: everything that `run` takes."""

    upstream: str
    task: str
    data: Path | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    seed: int = 0
    out: Path = Path("results")
    device: str = "cpu"
    fresh: bool = False
    store: Path | None = None
    store_gb: float | None = None

    def command(self) -> str:
        """Return the command line that asks for the same."""
        words = ["superb-eval", "run", self.task, "-u", self.upstream]
        words += ["--data", str(self.data)] if self.data else []
        words += ["--profile", self.profile] if self.profile else []
        words += [word for text in self.overrides for word in ("-o", text)]
        words += ["--seed", str(self.seed), "--device", self.device]
        return shlex.join(words)


AnyTask = TypeVar("AnyTask", bound=Scored)


@dataclass(frozen=True)
class Fold(Generic[AnyTask]):
    """One of the corpora that a cell trains and tests on, and the task as that corpus taught it."""

    number: int
    corpus: Corpus
    task: AnyTask


@dataclass(frozen=True)
class PreparedRun:
    """A cell made ready: all that has to be known before the first feature is computed."""

    order: RunConfig
    recipe: Recipe
    corpus: Corpus
    folds: tuple[Fold[Any], ...]
    upstream: Upstream
    identity: Mapping[str, str]
    """The upstream's, computed once: it reads all the weights."""
    digests: dict[Clip, str]
    """`audio.digest` of every clip of the corpus."""

    @property
    def kind(self) -> type[Scored]:
        """The task."""
        return type(self.folds[0].task)

    @property
    def train(self) -> TrainSettings:
        """How heads are trained; only where the task trains one (`recipe.load` has seen to it)."""
        assert self.recipe.train is not None  # noqa: S101 - for the type checker
        return self.recipe.train

    @cached_property
    def corpus_digest(self) -> str:
        """A SHA-256 of the rows and trials of all splits and of their audio."""
        return digest_of(self.corpus, self.digests)

    def with_seed(self, seed: int) -> PreparedRun:
        """Return the cell of another seed, with all that is open already."""
        return replace(self, order=replace(self.order, seed=seed))

    @cached_property
    def fingerprint(self) -> str:
        """The upstream's fingerprint (`upstreams.identity`)."""
        return identities.fingerprint(self.identity)

    def folder(self) -> Path:
        """Return where the run lives: `OUT/<upstream>/<task>/<profile>-seed<n>-<digest>`."""
        return self._folder(self.fingerprint)

    def earlier_folders(self) -> list[Path]:
        """Return where the same run may lie from before, under fingerprints that the upstream had then."""
        return [self._folder(fingerprint) for fingerprint in earlier_fingerprints.earlier(self.fingerprint)]

    def _folder(self, fingerprint: str) -> Path:
        name = run_name(self.recipe.profile, self.order.seed, self.recipe.digest(), fingerprint, self.corpus_digest)
        return self.order.out / slug(self.order.upstream) / self.recipe.task / name


def digest_of(corpus: Corpus, digests: Mapping[Clip, str]) -> str:
    """Return a SHA-256 of the rows and trials of all splits and of their audio, given `audio.digest` of every clip."""
    rows = {name: [split.digest(), [digests[u.clip] for u in split]] for name, split in corpus.splits.items()}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def run_name(profile: str, seed: int, recipe: str, fingerprint: str, corpus: str) -> str:
    """Return the folder name of a run, from the digests of all that it depends on."""
    digest = hashlib.sha256("|".join((recipe, fingerprint, corpus, str(seed))).encode()).hexdigest()[:10]
    return f"{profile}-seed{seed}-{digest}"


def slug(address: str) -> str:
    """Return an upstream's address as a folder name: safe anywhere, and never two addresses for one name."""
    safe = re.sub(r"[^A-Za-z0-9_.@=-]+", "-", address).strip("-.")[:80]
    if safe == address:
        return safe
    return f"{safe}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"


def prepare(order: RunConfig, reporter: Progress) -> PreparedRun:
    """Open everything that an order names, and check that it fits together.

    Raises:
        UserError: an unknown name or key, a missing corpus, bad rows, unreadable audio or weights.
    """
    from superb_eval.features import upstream_cache  # with torch, which takes seconds: only who runs a cell should wait

    chosen = choose(order.task, order.data, order.profile, order.overrides)
    corpus = read_corpus(chosen, order.data or embedded.folder(chosen.profile, chosen.part, reporter))
    kind = tasks.get(chosen.task)
    upstream = upstream_cache.load(order.upstream, order.device, order.store)
    stride = upstream.get_downsample_rates(chosen.features.key)
    folds = tuple(_fold(k, fold, kind, chosen, stride) for k, fold in enumerate(kind.folds(corpus), start=1))
    return PreparedRun(order, chosen, corpus, folds, upstream, upstream.identity(), digests(corpus.clips(), reporter))


def choose(task: str, data: Path | None, profile: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a task, or in a file; without a profile, superb where `data` is official and else mini.

    Raises:
        UserError: see `recipe.find` and `recipe.load`.
    """
    official = data is not None and load_corpus.is_official(_task_name(task), data)
    return recipe.load(recipe.find(task, profile or ("superb" if official else "mini")), overrides)


def read_corpus(chosen: Recipe, root: Path) -> Corpus:
    """Return the corpus under `root` as a recipe's task reads it.

    Raises:
        UserError: see `opening.open_corpus` and the task's `annotate`.
    """
    kind = tasks.get(chosen.task)
    columns = kind.needs(kind.Head.model_validate(chosen.head))
    return kind.annotate(load_corpus.open_corpus(chosen.task, root, columns, chosen.corpus))


def _fold(number: int, corpus: Corpus, kind: type[Scored], chosen: Recipe, stride: int) -> Fold[Scored]:
    head = kind.Head.model_validate(chosen.head)
    return Fold(number, corpus, kind(Setup(kind.learn(corpus, head), head, stride)))


def _task_name(task_or_recipe: str) -> str:
    """The task that a word of the command line is about, before the recipe is read."""
    return Path(task_or_recipe).stem if task_or_recipe.endswith((".yaml", ".yml")) else task_or_recipe


def digests(clips: Sequence[Clip], reporter: Progress) -> dict[Clip, str]:
    """Return `audio.digest` of every clip.

    Raises:
        UserError: a file can't be read.
    """
    found: dict[Clip, str] = {}
    with reporter.stage("reading audio", len(clips)) as update:
        for done, clip in enumerate(clips, start=1):
            found[clip] = audio.digest(clip)
            update(done)
    return found
