"""The schema of a recipe: load, override, validate, and explain what is wrong.

A recipe names a task and lists what differs from the defaults below. A recipe, an upstream and a seed define a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from superb_eval.data.bounds import BatchCount, BatchSize, LayerIndex, Rate, Seconds, Seed, Updates, at_most_items
from superb_eval.data.recipe_sections import CorpusSettings, Section, explain
from superb_eval.errors import UserError
from superb_eval.runtime import devices, outside_files, plain_yaml

PROFILES = ("superb", "mini", "nano")
RATES = "rates.csv"  # known learning rates, in the folder of the recipes

MOST_BYTES = 2**18
"""Of a recipe; the shipped ones have some 2 000."""

MOST_SHOWN = 200
"""Letters of an override in a message."""

MOST_SECTIONS = 8
"""Of a key in an override."""

FORMER_CORPUS_KEYS = {
    "silence_crops": 500,
    "all_languages": True,
    "min_seconds": 0.0,
    "dev_speakers": 40,
    "speakers": 2,
    "chunk_seconds": 40.0,
    "merge_turns": False,
}
"""Keys that every task's section `corpus` once had, with their defaults: recipes are digested with them still, so that
a recipe keeps its digest."""

LATER_TRAIN_KEYS = {"schedule": "constant"}
"""Keys that the section `train` got after recipes were recorded, with their defaults: digested only where they differ
from it, so that a recipe keeps its digest."""


class FeatureSettings(Section):
    """Which features of the upstream the head is given, and how they are computed."""

    key: str = Field("hidden_states", description="the upstream's feature; `superb-eval upstream show` lists them")
    layer: LayerIndex | Literal["last"] | None = Field(None, description="one layer alone instead of the weighted sum")
    normalize: bool = Field(False, description="layer norm over each frame of each layer, without parameters")
    pooled: bool = Field(True, description="store means over time where the task allows (exact); false: every frame")
    batch_seconds: Seconds = Field(60.0, gt=0, description="most padded seconds in a batch of extraction; on a GPU 5 x")
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the upstream")
    dtype: Literal["float32", "float16"] = Field("float32", description="how features are stored")

    @property
    def layer_index(self) -> int | None:
        """The index of the one layer, -1 for the last; None: the weighted sum of all."""
        return -1 if self.layer == "last" else self.layer


class Sweep(Section):
    """Learning rates to try: the best on dev is tested, and every curve is stored in the record."""

    sweep: Annotated[tuple[Rate, ...], at_most_items(100, "each is a training of its own")] = Field(
        min_length=1, description="learning rates, each trained from the start"
    )


RateOrSweep = Annotated[
    Annotated[Rate, Tag("one rate")] | Annotated[Sweep, Tag("several rates")],
    Discriminator(lambda value: "several rates" if isinstance(value, dict | Sweep) else "one rate"),
]


class TrainSettings(Section):
    """How the head is trained. A step is an update of the optimiser."""

    steps: Updates = Field(description="updates")
    batch_size: BatchSize = Field(32, description="utterances per micro-batch")
    accumulate: BatchCount = Field(1, ge=1, description="micro-batches per update")
    lr: RateOrSweep = Field(1e-4, description="learning rate of the first update; or {sweep: [1e-1, 1e-2, ...]}")
    schedule: Literal["constant", "linear"] = Field(
        "constant",
        description="linear: the rate falls linearly to zero after the last update (Defazio et al. 2023, "
        "arXiv:2310.07831); the SUPERB protocol's is constant",
    )
    optimizer: Literal["adam", "adamw"] = Field("adam", description="torch's, with its default betas and eps")
    crop_seconds: Seconds | None = Field(
        None, gt=0, description="training utterances are cut at random to this length, anew at each draw; frame tasks"
    )
    clip: float = Field(1.0, gt=0, description="bound on the global gradient norm, featurizer and head together")
    eval_every: Updates = Field(description="updates between evaluations on dev; training state is saved then")
    balance: tuple[Literal["train", "dev"], ...] = Field(
        (), description="splits drawn so that classes come equally often"
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="arithmetic of the head; tf32: float32 with matrix products in TF32, on CUDA alone, where cuDNN's "
        "convolutions and recurrences use it anyway",
    )
    order_seed: Seed | None = Field(
        None,
        description="seed of the order and the cuts of utterances, for several seeds to share; null: the run's",
    )

    def rates(self) -> tuple[float, ...]:
        """Return the learning rates to train with."""
        return self.lr.sweep if isinstance(self.lr, Sweep) else (self.lr,)

    def require_device(self, device: str) -> None:
        """Refuse a device that can't compute in this precision, before anything is computed.

        Raises:
            UserError: naming the precision.
        """
        if self.precision == "tf32" and devices.kind(device) != "cuda":
            raise UserError(f"train.precision=tf32 needs --device cuda, found {device}. Choose float32 or bf16.")

    def rate_factor(self, step: int) -> float:
        """Return what the learning rate is multiplied by at an update (from 1).

        It depends on the step alone, so that a resumed run continues with the same rate.
        """
        return 1.0 if self.schedule == "constant" else 1.0 - (step - 1) / self.steps


class Recipe(Section):
    """One task's recipe, as resolved: what was left out is filled in with its default."""

    task: str = Field(description="short name of the task")
    profile: Literal["superb", "mini", "nano"] = Field(
        description="official protocol, embedded corpus, or smallest test"
    )
    corpus: SerializeAsAny[CorpusSettings] = Field(CorpusSettings(), validate_default=True)
    features: FeatureSettings = FeatureSettings()
    head: dict[str, Any] = Field(default_factory=dict, description="settings of the task's head")
    train: TrainSettings | None = Field(None, description="how the head is trained; not for tasks that train none")
    departures: tuple[str, ...] = Field((), description="deviations from the SUPERB protocol, in words")

    @field_validator("corpus", mode="before")
    @classmethod
    def _validate_corpus(cls, value: Any, info: ValidationInfo) -> CorpusSettings:
        """Return the section validated by the schema of the recipe's task."""
        from downstreams import registry

        schema = registry.get_or_base(info.data.get("task", "")).CorpusSchema
        return schema.model_validate(value.model_dump(exclude_unset=True) if type(value) is CorpusSettings else value)

    @classmethod
    def of_record(cls, content: dict[str, Any]) -> Recipe:
        """Return the recipe that a run's record holds; of `FORMER_CORPUS_KEYS` only the task's own are read.

        Raises:
            ValidationError: it is no recipe of this version.
        """
        from downstreams import registry

        own = registry.get_or_base(str(content.get("task"))).CorpusSchema.model_fields
        section = content.get("corpus")
        if isinstance(section, dict):
            section = {key: value for key, value in section.items() if key in own or key not in FORMER_CORPUS_KEYS}
            content = {**content, "corpus": section}
        return cls.model_validate(content)

    @property
    def train_settings(self) -> TrainSettings:
        """How the head is trained.

        Raises:
            UserError: the recipe has none; those that `load` returned have, where the task trains a head.
        """
        if self.train is None:
            raise UserError(f"the recipe of {self.task} has no section 'train'. Write train.steps and the rest there.")
        return self.train

    @property
    def part(self) -> str:
        """The folder of a manifest corpus that it reads."""
        return self.corpus.folder or self.task

    def digest(self) -> str:
        """Return a SHA-256 of the resolved recipe."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(content: Mapping[str, Any]) -> str:
    """Return a SHA-256 of a resolved recipe, as it is written in a record."""
    return hashlib.sha256(json.dumps(as_digested(content), sort_keys=True).encode()).hexdigest()


def as_digested(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe as it is digested: two that differ elsewhere alone have the same results."""
    digested = dict(content)
    section, train = content.get("corpus"), content.get("train")
    if isinstance(section, dict):
        # Links were refused by default, and features don't depend on them.
        links = {"allow_links": False} if section.get("allow_links", False) is None else {}
        digested["corpus"] = {**FORMER_CORPUS_KEYS, **section, **links}
    if isinstance(train, dict):
        digested["train"] = {key: value for key, value in train.items() if LATER_TRAIN_KEYS.get(key, ...) != value}
    return digested


def folder() -> Path:
    """Return the folder of the shipped recipes: inside the package if installed from a wheel, else beside it.

    It is found by its path and never imported: other distributions install a package called `recipes`.

    Raises:
        UserError: neither folder holds them.
    """
    installed, checkout = (parent / "recipes" for parent in Path(__file__).parents[:2])
    for path in (installed, checkout):
        if (path / RATES).is_file():  # what another distribution installs as `recipes` doesn't hold this file
            return path
    raise UserError(
        f"no shipped recipes: {RATES} is neither in {installed} nor in {checkout}. Install superb-eval again."
    )


def find(name: str, profile: str) -> Path:
    """Return the path of a recipe: `name` is a file, or a task's short name looked up in the shipped profile.

    `profile` is a folder of the shipped recipes; `pretrain` and `distill` are such folders too.

    Raises:
        UserError: no such file or task; near misses are offered.
    """
    if name.endswith((".yaml", ".yml")):
        path = next((p for p in (Path(name), folder().parent / name) if p.is_file()), None)
        if path is None:
            raise UserError(f"{name}: no such recipe file. Shipped: {', '.join(shipped())}.")
        return path
    path = folder() / profile / f"{name}.yaml"
    if not path.is_file():
        from downstreams import registry

        tasks = sorted(p.stem for p in (folder() / profile).glob("*.yaml"))
        near = registry.suggestion(name, tasks)
        raise UserError(f"no {profile} recipe for task '{name}'.{near} Known: {', '.join(tasks)}.")
    return path


def shipped(folders: Sequence[str] = PROFILES) -> list[str]:
    """Return the shipped recipes as `recipes/PROFILE/TASK.yaml`; or those of other folders."""
    return sorted(f"recipes/{name}/{p.name}" for name in folders for p in (folder() / name).glob("*.yaml"))


def heading(path: Path) -> str:
    """Return the first sentence of the comment that a recipe file begins with; empty: it has none."""
    lines = []
    with path.open(encoding="utf8") as file:
        for line in file:
            if not line.startswith("# "):
                break
            lines.append(line[2:].strip())
    sentence, _, _ = " ".join(lines).partition(". ")
    return sentence.rstrip(".")


def tasks() -> list[str]:
    """Return the tasks that have a recipe, by short name, from the file names alone."""
    return sorted({path.stem for name in PROFILES for path in (folder() / name).glob("*.yaml")})


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides such as `train.steps=100`, and validate the whole, its head's settings too.

    Raises:
        UserError: one sentence per fault: unknown keys with near misses, wrong types, malformed YAML with its line.
    """
    from downstreams import registry
    from downstreams.base import BaseTask, TrainedTask

    content = _overridden(path, overrides)
    name = content.get("task")
    task = registry.get(name) if isinstance(name, str) else BaseTask
    recipe = _validated(path, content, Recipe, {"corpus": task.CorpusSchema})
    _check_train(path, recipe, trains=issubclass(task, TrainedTask))
    try:
        head = task.Head.model_validate(recipe.head)
    except ValidationError as error:
        raise UserError(explain(path, error, task.Head, prefix="head.")) from error
    return recipe.model_copy(update={"head": head.model_dump()})


Schema = TypeVar("Schema", bound=Section)


def resolve(path: Path, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """Read a YAML file, apply overrides, and validate it by a schema.

    Raises:
        UserError: as `load`.
    """
    return _validated(path, _overridden(path, overrides), schema, {})


def _overridden(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    content = _read(path)
    for override in overrides:
        _apply(content, override)
    return content


def _validated(
    path: Path, content: dict[str, Any], schema: type[Schema], sections: Mapping[str, type[BaseModel]]
) -> Schema:
    """Validate by a schema; `sections` are the schemas of those sections that depend on the task, for messages."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(path, error, schema, sections)) from error


def _check_train(path: Path, recipe: Recipe, trains: bool) -> None:
    """Refuse a recipe without `train` for a task that trains a head, or with it for one that doesn't."""
    if trains and recipe.train is None:
        raise UserError(
            f"{path}: 'train' is missing: {recipe.task} trains a head. Write train.steps and the rest there."
        )
    if not trains and recipe.train is not None:
        raise UserError(f"{path}: {recipe.task} trains nothing. Remove 'train' from the recipe, or the -o train....")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = plain_yaml.parse(outside_files.read_text(path, MOST_BYTES))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}: line {line}: not valid YAML: {error.problem}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: can't be read as a recipe: it is nested too deeply.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: can't be read as a recipe: {str(error)[:300]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as 'task' and 'train', found {type(content).__name__}.")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in place; the value is read as YAML, so `1e-3`, `true` and `[train]` have their types."""
    key, equals, text = override.partition("=")
    shown = override[:MOST_SHOWN]
    if not equals or not key.strip():
        folder = "" if equals else f" To choose where output goes: --out {shown}."
        raise UserError(f"-o {shown}: -o changes the recipe, by KEY=VALUE such as train.steps=100.{folder}")
    if key.startswith(("config.", "args.")):
        raise UserError(
            f"-o {shown}: is a key of s3prl. Here it is such as train.lr; `superb-eval recipe show TASK` lists all."
        )
    *sections, last = key.strip().split(".")
    if len(sections) > MOST_SECTIONS:
        raise UserError(f"-o {shown}: names {len(sections)} sections in one another. Expected such as train.steps.")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UserError(f"-o {shown}: '{section}' is no section.")
    content[last] = _number(_override_value(shown, text))


def _override_value(shown: str, text: str) -> Any:
    """Return the value of an override, which messages call `shown`."""
    try:
        return plain_yaml.parse(text)
    except RecursionError as error:
        raise UserError(f"-o {shown}: is nested too deeply to be a setting.") from error
    except yaml.YAMLError as error:
        raise UserError(f"-o {shown}: '{text[:MOST_SHOWN]}' is not a value that YAML can read.") from error
    except ValueError as error:
        raise UserError(f"-o {shown}: {str(error)[:MOST_SHOWN]}") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` (no dot) as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
