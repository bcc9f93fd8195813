"""Hostile recipes: `python -m tests.campaigns recipes [CASES]` reads 2 000 recipes, of runs and of trainings.

Each case is a shipped recipe of which one to three values are replaced, by overrides or in the file. It is read, or
refused in sentences of bounded length, within `fuzz.SECONDS` and `fuzz.GIGABYTES`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

from pydantic import BaseModel

from downstreams import registry
from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe, load
from superb_eval.recipe import Recipe
from tests.campaigns import fuzz

LONGEST = 3_000
"""Characters of a refusal, of which each wrong value has a sentence."""

VALUES = (
    *(
        "0",
        "1",
        "2",
        "-1",
        "-7",
        "0.5",
        "1e-320",
        "1e9",
        "1e12",
        "1e20",
        "1e308",
        "1e999",
        ".nan",
        "nan",
        ".inf",
        "-.inf",
    ),
    *("4294967296", "9223372036854775807", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "0x" + "f" * 9000),
    *("0b" + "1" * 99, "1:1:1:1:1", "true", "null", "~", "''", "'a b'", "x" * 5000, "a: b", "2001-01-01", "2001-99-99"),
    *("[]", "[1]", "[-1]", "[0, 0]", "[1, 1, 1, 1, 1, 1, 1]", "[.nan]", "[1e12]", "[a]", "[[[1]]]", "{}", "{a: 1}"),
    *(f"[{'1, ' * 500}1]", "[" * 900, "{a: " * 900, "&a [*a]", "&a {b: *a}", "*a", "!!python/name:os.system ''"),
    *("!!int ''", "!!float x", "!!bool maybe", "!!timestamp x", "!!binary ???", "!!set {a, b}", "{sweep: []}"),
    *("{sweep: [.inf]}", "{sweep: [0.1, 0.1]}", f"{{sweep: [{'0.1, ' * 500}0.1]}}", "{sentencepiece: 1e9}", "last"),
    *("'\\ud800'", '"\\ud800"', '"\\0"', '"\\e[31m"', "\u202e", "'../../etc'", "/etc/passwd", "!!str", "? a", "%TAG"),
)
WHOLE = (
    "task: ks",
    "- a",
    "&a [*a]",
    "{",
    "\x00",
    "? [a]\n: b",
    "task: *x",
    "a: &a [b]\nb: [*a, *a]",
    "<<: {task: ks}",
)


def keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a schema with those of the sections in it, such as `train.steps`."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys(inner, f"{prefix}{name}.")


def _run_keys(task: str) -> list[str]:
    kind = registry.get(task)
    return [*keys(Recipe), *keys(kind.Head, "head."), *keys(kind.CorpusSchema, "corpus.")]


def _read_run(name: str, overrides: Sequence[str]) -> None:
    recipe.load(Path(name), overrides)


def cases(rng: Random, folder: Path) -> Iterator[tuple[str, Any, Path, list[str]]]:
    """Yield names of kinds, the function that reads a recipe, its path, and overrides."""
    shipped = recipe.folder()
    trainings = {"pretrain": PretrainRecipe, "distill": DistillationRecipe}
    known = {task: _run_keys(task) for task in recipe.tasks()} | {name: list(keys(s)) for name, s in trainings.items()}
    while True:
        kind = rng.choice([*known, "pretrain", "distill", "pretrain", "distill"])
        group = kind if kind in trainings else rng.choice(recipe.PROFILES)
        path = (
            rng.choice(sorted((shipped / group).glob("*.yaml")))
            if kind in trainings
            else shipped / group / f"{kind}.yaml"
        )
        if not path.is_file():
            continue
        overrides = [f"{rng.choice(known[kind])}={rng.choice(VALUES)}" for _ in range(rng.choice((1, 1, 2, 3)))]
        if rng.random() < 0.1:
            path, whole = folder / "hostile.yaml", rng.choice((*WHOLE, *VALUES))
            path.write_text(f"{whole}\n", encoding="utf8", errors="replace")
        schema = trainings.get(kind)
        read = _read_run if schema is None else lambda name, o, k=kind, s=schema: load(name, k, s, o)
        yield kind, read, path, overrides


def attempt(read: Callable[[], object]) -> str:
    """Return "accepted", "refused", or what must not occur."""
    try:
        with fuzz.time_limit():
            read()
    except UserError as error:
        return "refused" if len(str(error)) <= LONGEST else f"message of {len(str(error))} characters"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:120]
    return "accepted"


def run(count: int, seed: int = 0) -> tuple[Counter[str], dict[str, str]]:
    """Read `count` hostile recipes; return counts of outcomes, and an example of each that must not occur."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary, fuzz.bounded(fuzz.GIGABYTES):
        for number, (_, read, path, overrides) in enumerate(cases(Random(seed), Path(temporary))):
            if number == count:
                break
            outcome = attempt(lambda: read(str(path), overrides))  # noqa: B023 - called here
            counts[outcome] += 1
            if outcome not in ("accepted", "refused"):
                examples.setdefault(outcome, f"{path.name} {[text[:100] for text in overrides]}")
    return counts, examples


def main(arguments: Sequence[str]) -> int:
    """Run the long form; the argument is a number of cases."""
    counts, examples = run(int(arguments[0]) if arguments else 2000)
    for outcome, example in examples.items():
        print(f"  {outcome}: {example}")
    other = sum(counts.values()) - counts["accepted"] - counts["refused"]
    print(f"recipes: {counts['accepted']} accepted, {counts['refused']} refused with a sentence, {other} other")
    return int(other > 0)
