"""The configuration of a run, and what is loaded from it before features are computed: recipe, corpus, upstream."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downstreams import registry as tasks
from downstreams.base import BaseTask, Setup
from superb_eval import recipe as recipes
from superb_eval.corpora import embedded, leaks, load_corpus
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus
from superb_eval.features.budget import budget_bytes
from superb_eval.probing.config import Fold, ProbeConfig
from superb_eval.recipe import Recipe
from superb_eval.results.folder import run_name, slug
from superb_eval.runtime import devices
from superb_eval.runtime.progress import Progress
from upstreams.loading import identity as identities
from upstreams.loading import legacy_fingerprints

if TYPE_CHECKING:
    from upstreams.base import Upstream


@dataclass(frozen=True)
class RunConfig:
    """The options of `superb-eval run`.

    `upstream` is an address, `task` a task or a recipe file, `data` the corpus folder (None: the embedded corpus).
    Without a `profile`, the protocol follows the corpus (see `choose_recipe`). `store` and `store_gb` name the feature
    store and its budget (None: see `superb_eval.features.store.Store`). `fresh` reruns what is finished. `loggers` are
    names of `superb_eval.runtime.loggers`. `limit` is how many utterances of each split a try is made with.
    """

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
    loggers: tuple[str, ...] = ()
    limit: int | None = None

    def command(self) -> str:
        """Return the command line of the same run."""
        words = ["superb-eval", "run", self.task, "-u", self.upstream]
        words += ["--data", str(self.data)] if self.data else []
        words += ["--profile", self.profile] if self.profile else []
        words += [word for text in self.overrides for word in ("-o", text)]
        words += ["--limit", str(self.limit)] if self.limit is not None else []
        words += ["--seed", str(self.seed), "--device", self.device]
        return shlex.join(words)


@dataclass(frozen=True)
class PreparedRun:
    """A run with everything loaded that must be known before its first feature is computed.

    `identity` is the upstream's, computed once since it reads all weights; `digests` holds `audio.digest` of every clip
    of the corpus.
    """

    config: RunConfig
    recipe: Recipe
    corpus: Corpus
    folds: tuple[Fold[Any], ...]
    upstream: Upstream
    identity: dict[str, str]
    digests: dict[Clip, str]

    @property
    def task_type(self) -> type[BaseTask]:
        """The class of the task."""
        return type(self.folds[0].task)

    @cached_property
    def fingerprint(self) -> str:
        """The upstream's fingerprint (`upstreams.loading.identity`)."""
        return identities.fingerprint(self.identity)

    @cached_property
    def corpus_digest(self) -> str:
        """A SHA-256 of the rows and trials of all splits and of their audio."""
        return load_corpus.corpus_digest(self.corpus, self.digests)

    @cached_property
    def leaks(self) -> list[str]:
        """A sentence for each leak between the splits of the corpus, or of its folds."""
        label_column, several = self.task_type.label_column, len(self.folds) > 1
        found = (leaks.leaks(f.corpus, self.digests, label_column, of_fold=several) for f in self.folds)
        return list(dict.fromkeys(text for of_one in found for text in of_one))

    def with_seed(self, seed: int) -> PreparedRun:
        """Return the run of another seed, which shares everything that is loaded."""
        other = replace(self, config=replace(self.config, seed=seed))
        # Not computed again for every seed: of a million rows they take half a minute.
        other.__dict__.update(fingerprint=self.fingerprint, corpus_digest=self.corpus_digest, leaks=self.leaks)
        return other

    def folder(self) -> Path:
        """Return the run's folder: `OUT/<upstream>/<task>/<profile>-seed<n>-<digest>`."""
        return self._folder(self.fingerprint)

    def earlier_folders(self) -> list[Path]:
        """Return the folders of the same run under the upstream's earlier fingerprints."""
        return [self._folder(fingerprint) for fingerprint in legacy_fingerprints.legacy(self.fingerprint)]

    def _folder(self, fingerprint: str) -> Path:
        inputs = (self.recipe.digest(), fingerprint, self.corpus_digest)
        name = run_name(self.recipe.profile, self.config.seed, *inputs, self.corpus.limit)
        return self.config.out / slug(self.config.upstream) / self.recipe.task / name

    def probe_config(self) -> ProbeConfig:
        """Return what probing needs to know of this run."""
        return ProbeConfig(
            upstream=self.config.upstream,
            layer=self.recipe.features.layer_index,
            seed=self.config.seed,
            device=self.config.device,
            folder=self.folder(),
            digests=self.digests,
            reentrant=self.upstream.reentrant,
        )


def prepare(config: RunConfig, progress: Progress) -> PreparedRun:
    """Load the recipe, corpus and upstream of a run, and check that they fit together.

    Raises:
        UserError: an unknown name or key, a missing device or corpus, bad rows, unreadable audio or weights, or a
            budget of the feature store that is no number above 0.
    """
    from superb_eval.features import upstream_cache  # imports torch, which takes seconds: only a run should wait for it

    budget_bytes(config.store_gb)
    recipe = choose_recipe(config.task, config.data, config.profile, config.overrides)
    devices.require(config.device)
    if recipe.train is not None:
        recipe.train.require_device(config.device)
    data = config.data or embedded.ensure_folder(recipe.profile, recipe.part, progress)
    corpus = load_corpus.read_corpus(recipe, data, progress, config.limit)
    upstream = upstream_cache.load(config.upstream, config.device, config.store)
    folds = split_folds(recipe, corpus, upstream.get_downsample_rates(recipe.features.key))
    digests = load_corpus.audio_digests(corpus.clips(), progress)
    return PreparedRun(config, recipe, corpus, folds, upstream, upstream.identity(), digests)


def choose_recipe(task: str, data: Path | None, profile: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a task, or of a recipe file. Without a profile: superb where `data` is official, else mini.

    Raises:
        UserError: see `recipe.find` and `recipe.load`.
    """
    name = Path(task).stem if task.endswith((".yaml", ".yml")) else task
    official = data is not None and load_corpus.is_official(name, data)
    return recipes.load(recipes.find(task, profile or ("superb" if official else "mini")), overrides)


def split_folds(recipe: Recipe, corpus: Corpus, stride: int) -> tuple[Fold[BaseTask], ...]:
    """Return the folds of a corpus, each with its task; `stride` is samples per feature frame.

    Raises:
        UserError: see the task's `learn`.
    """
    task_type = tasks.get(recipe.task)
    head = task_type.Head.model_validate(recipe.head)
    parts = task_type.folds(corpus)
    return tuple(
        Fold(number, part, task_type(Setup(task_type.learn(part, head), head, stride)), total=len(parts))
        for number, part in enumerate(parts, start=1)
    )
