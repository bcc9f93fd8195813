"""The schema of a recipe: load, override, validate, and explain what is wrong.

A recipe is an order form: it names a task and writes down what departs from the defaults below. A recipe, an upstream
and a seed fix a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveFloat, Tag, ValidationError

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import plain_yaml

PROFILES = ("superb", "mini", "nano")
RATES = "rates.csv"  # known learning rates, in the folder of the recipes


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class CorpusSettings(Section):
    """What is read of the corpus, and how."""

    folder: str | None = Field(None, description="folder of the manifests, where it isn't called as the task is")
    allow_links: bool = Field(
        False, description="let links in a folder of manifests lead to audio outside it; only for corpora you trust"
    )
    gain_db: float = Field(
        0.0, description="gain applied to every clip, in dB; the protocol plays KS, QbE and ASV at -3"
    )
    trim_silence: bool = Field(
        False, description="drop silence as sox's `silence 1 0.1 0.1% -1 0.1 0.1%` does; the ASV protocol does"
    )
    silence_crops: int = Field(
        500, ge=1, description="KS, official corpus: fixed 1 s crops per background file, for train and for dev"
    )
    all_languages: bool = Field(
        True, description="QbE, official corpus: score as the official scorer, which counts what other languages hold"
    )
    min_seconds: float = Field(
        0.0, ge=0, description="ASV: training utterances must last longer, in s, after trimming; the protocol says 2"
    )
    dev_speakers: int = Field(
        40, ge=2, description="ASV, official corpus: training speakers held out for trials that choose the checkpoint"
    )
    speakers: int = Field(2, ge=1, description="SD, manifests: recordings with another number of speakers are left out")
    chunk_seconds: float = Field(
        40.0,
        gt=0,
        description="SD: recordings are heard in chunks of this length, in s; the protocol says 2 000 frames",
    )
    merge_turns: bool = Field(
        False, description="SD: overlapping turns of one speaker become one, and are counted; false: they are refused"
    )


class FeatureSettings(Section):
    """Which features of the upstream the head sees, and how they are computed."""

    key: str = Field("hidden_states", description="the upstream's feature; `superb-eval upstream show` lists them")
    layer: int | Literal["last"] | None = Field(None, description="one layer alone instead of the weighted sum")
    normalize: bool = Field(False, description="layer norm over each frame of each layer, without parameters")
    pooled: bool = Field(True, description="store means over time where the task allows (exact); false: every frame")
    batch_seconds: float = Field(60.0, gt=0, description="bound on the padded length of an extraction batch, in s")
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the upstream")
    dtype: Literal["float32", "float16"] = Field("float32", description="how features are stored")


class Sweep(Section):
    """Learning rates to try: the best on dev is tested, and every curve is kept in the record."""

    sweep: tuple[PositiveFloat, ...] = Field(min_length=1, description="learning rates, each trained from the start")


_TAGS = {"one rate", "several rates"}
Rate = Annotated[
    Annotated[PositiveFloat, Tag("one rate")] | Annotated[Sweep, Tag("several rates")],
    Discriminator(lambda value: "several rates" if isinstance(value, dict | Sweep) else "one rate"),
]


class TrainSettings(Section):
    """How the head is trained. A step is an update of the optimiser."""

    steps: int = Field(ge=1, description="updates")
    batch_size: int = Field(32, ge=1, description="utterances per micro-batch")
    accumulate: int = Field(1, ge=1, description="micro-batches per update")
    lr: Rate = Field(1e-4, description="learning rate, constant; or {sweep: [1e-1, 1e-2, ...]}")
    optimizer: Literal["adam", "adamw"] = Field("adam", description="torch's, with its default betas and eps")
    crop_seconds: float | None = Field(
        None, gt=0, description="training utterances are cut at random to this length, anew at each draw; frame tasks"
    )
    clip: float = Field(1.0, gt=0, description="bound on the global gradient norm, featurizer and head together")
    eval_every: int = Field(ge=1, description="updates between evaluations on dev; training state is saved then")
    balance: tuple[Literal["train", "dev"], ...] = Field(
        (), description="splits drawn so that classes come equally often"
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the head")
    order_seed: int | None = Field(
        None,
        ge=0,
        description="seed of the order and the cuts of utterances, for several seeds to share; null: the run's",
    )

    def rates(self) -> tuple[float, ...]:
        """Return the learning rates to train with."""
        return self.lr.sweep if isinstance(self.lr, Sweep) else (self.lr,)


class Recipe(Section):
    """One task's recipe, as resolved: what was left out is filled in with its default."""

    task: str = Field(description="short name of the task")
    profile: Literal["superb", "mini", "nano"] = Field(
        description="official protocol, embedded corpus, or smallest test"
    )
    corpus: CorpusSettings = CorpusSettings()
    features: FeatureSettings = FeatureSettings()
    head: dict[str, Any] = Field(default_factory=dict, description="settings of the task's head")
    train: TrainSettings | None = Field(None, description="how the head is trained; not for tasks that train none")
    departures: tuple[str, ...] = Field((), description="where this recipe departs from the SUPERB protocol, in words")

    @property
    def part(self) -> str:
        """The folder of a manifest corpus that it reads."""
        return self.corpus.folder or self.task

    def digest(self) -> str:
        """Return a SHA-256 of the resolved recipe."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def folder() -> Path:
    """Return the folder of the shipped recipes: inside the package if installed from a wheel, else beside it.

    It is found by its place, never imported: other distributions install a package called `recipes`.

    Raises:
        UserError: neither folder holds them.
    """
    inside, beside = (place / "recipes" for place in Path(__file__).parents[:2])
    for place in (inside, beside):
        if (place / RATES).is_file():  # what another distribution installs as `recipes` doesn't hold this file
            return place
    raise UserError(f"no shipped recipes: {RATES} is neither in {inside} nor in {beside}. Install superb-eval again.")


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
        tasks = sorted(p.stem for p in (folder() / profile).glob("*.yaml"))
        raise UserError(f"no {profile} recipe for task '{name}'.{near_miss(name, tasks)} Known: {', '.join(tasks)}.")
    return path


def shipped(folders: Sequence[str] = PROFILES) -> list[str]:
    """Return the shipped recipes as `recipes/PROFILE/TASK.yaml`; those of other folders where they are asked for."""
    return sorted(f"recipes/{name}/{p.name}" for name in folders for p in (folder() / name).glob("*.yaml"))


def tasks() -> list[str]:
    """Return the tasks that have a recipe, by short name; nothing is imported to find out."""
    return sorted({path.stem for name in PROFILES for path in (folder() / name).glob("*.yaml")})


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides such as `train.steps=100`, and validate the whole, its head's settings too.

    Raises:
        UserError: one sentence per fault: unknown keys with near misses, wrong types, malformed YAML with its line.
    """
    from downstreams import registry
    from downstreams.base import TrainedTask

    recipe = resolve(path, overrides, Recipe)
    kind = registry.get(recipe.task)
    head = kind.Head
    _check_train(path, recipe, trains=issubclass(kind, TrainedTask))
    try:
        settings = head.model_validate(recipe.head)
    except ValidationError as error:
        raise UserError(_explain(path, error, head, prefix="head.")) from error
    return recipe.model_copy(update={"head": settings.model_dump()})


Schema = TypeVar("Schema", bound=Section)


def resolve(path: Path, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """Read a YAML file, apply overrides, and validate it by a schema.

    Raises:
        UserError: as `load`.
    """
    content = _read(path)
    for override in overrides:
        _apply(content, override)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(path, error, schema)) from error


def _check_train(path: Path, recipe: Recipe, trains: bool) -> None:
    """Refuse a recipe that leaves out how its head is trained, or tells it of a task that has none."""
    if trains and recipe.train is None:
        raise UserError(
            f"{path}: 'train' is missing: {recipe.task} trains a head. Write train.steps and the rest there."
        )
    if not trains and recipe.train is not None:
        raise UserError(f"{path}: {recipe.task} trains nothing. Remove 'train' from the recipe, or the -o train....")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = plain_yaml.parse(path.read_text(encoding="utf8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}: line {line}: not valid YAML: {error.problem}.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: can't be read as a recipe: {str(error)[:300]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as 'task' and 'train', found {type(content).__name__}.")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in place; the value is read as YAML, so `1e-3`, `true` and `[train]` mean what they say."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"-o {override}: expected KEY=VALUE, such as train.steps=100.")
    *sections, last = key.strip().split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UserError(f"-o {override}: '{section}' is no section.")
    try:
        content[last] = _number(plain_yaml.parse(text))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"-o {override}: '{text}' is not a value that YAML can read.") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` (no dot) as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(path: Path, error: ValidationError, schema: type[BaseModel], prefix: str = "") -> str:
    faults = [f"{path}: {_fault(e, schema, prefix)}" for e in error.errors()]
    return "\n".join(faults)


def _fault(fault: Any, schema: type[BaseModel], prefix: str) -> str:
    """One sentence for one of pydantic's findings."""
    where = prefix + ".".join(str(part) for part in fault["loc"] if part not in _TAGS)
    if fault["type"] == "extra_forbidden":
        known = _keys(schema, fault["loc"][:-1])
        return f"unknown key '{where}'.{near_miss(str(fault['loc'][-1]), known)} Known here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"'{where}' is missing; write it in the recipe or give -o {where}=VALUE."
    return f"'{where}' is {repr(fault['input'])[:200]}: {fault['msg'][0].lower()}{fault['msg'][1:]}."


def _keys(schema: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The keys that the schema knows at a place."""
    for part in location:
        if isinstance(part, int):  # one of a list: its schema stands in the list's annotation, which is unpacked below
            continue
        annotation = schema.model_fields[str(part)].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        schema = inner[0]
    return list(schema.model_fields)
