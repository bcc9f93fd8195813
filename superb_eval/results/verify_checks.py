"""The checks of `verify`, a function each: it yields a message for everything that no longer matches the record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from superb_eval import recipe
from superb_eval.corpora import embedded, load_corpus
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from superb_eval.results import code_versions, platforms, recorded_upstream, run_files
from superb_eval.results import origin as origins
from superb_eval.results import record as records
from superb_eval.results.folder import Run, run_folder
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.recorded_command import parse_command
from superb_eval.results.recorded_recipe import recipe_of
from superb_eval.results.recorded_upstream import UntrustedCodeError
from superb_eval.results.stats import scoring
from superb_eval.runtime.progress import NoProgress
from upstreams.loading import identity, legacy_fingerprints

TOLERANCE = 1e-9
"""Relative difference allowed in a figure: another machine may sum in another order."""


@dataclass(frozen=True)
class Scope:
    """What to check. `data`: where the corpora are now; `quick`: leave out upstreams and corpora.

    `trusted`: the code that recorded upstreams may run (`recorded_upstream.check_trusted`).
    """

    data: Path | None = None
    quick: bool = False
    trusted: tuple[str, ...] = ()


CheckResult = tuple[str] | tuple[str, bool]
"""A message, and whether it is only a remark."""

Value = TypeVar("Value")


@dataclass
class VerifyContext:
    """What the checks of all runs share, each computed once: identities of upstreams, digests of corpora."""

    scope: Scope
    cache: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, compute: Callable[[], Value]) -> Value:
        """Return what `compute` returns, or raise what it raised, without computing it twice."""
        if key not in self.cache:
            try:
                self.cache[key] = compute()
            except UserError as error:
                self.cache[key] = error
        cached = self.cache[key]
        if isinstance(cached, UserError):
            raise cached
        return cached  # type: ignore[no-any-return]


Check = Callable[[Run, VerifyContext], Iterator[CheckResult]]


def _schema(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    del context
    version = run.record.schema_version
    if version < records.SCHEMA_VERSION:
        yield (
            f"is of the older schema {version} (now {records.SCHEMA_VERSION}); it loads, with defaults for newer keys",
            True,
        )


def _folder(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    """The name of a run's folder is a digest of its inputs as the record names them."""
    del context
    expected = run_folder(run.record)
    if run.folder.name != expected.name:
        yield (f"its record belongs in a folder named {expected.name}: record or folder was changed",)
    if run.folder.parts[-3:-1] != expected.parts[:-1]:
        yield (f"lies under {run.folder.parents[1].name}/{run.folder.parent.name}, but its record is of another run",)


def _files(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    del context
    for name, digest in {**run.record.predictions, **run.record.heads}.items():
        try:
            if not run_files.exists(run.folder, name):
                yield (f"{name} is missing",)
            elif run_files.sha256(run.folder, name) != digest:
                yield (f"{name} is not the file that the run wrote",)
        except UserError as error:
            yield (str(error),)


def _figures(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    del context
    task = scoring.load_task(run.record, run.folder)
    for protocol in dict.fromkeys(metric.protocol for metric in run.record.metrics):
        rows = scoring.run_predictions(run.folder, protocol == "historical")
        rescored = {metric.key: metric for metric in scoring.metrics(task, rows, protocol)}
        recorded = {metric.key: metric for metric in run.record.metrics if metric.protocol == protocol}
        for key in recorded.keys() | rescored.keys():
            yield from _metric_changes(f"{protocol} {key}", recorded.get(key), rescored.get(key))
        if protocol == "strict":
            yield from _chance(run.record, task.chance(rows))


def _metric_changes(name: str, recorded: MetricRecord | None, rescored: MetricRecord | None) -> Iterator[CheckResult]:
    if recorded is None or rescored is None:
        yield (
            f"{name} is {'not recorded' if recorded is None else 'recorded, but does not follow from the predictions'}",
        )
        return
    if not _equal(recorded.value, rescored.value):
        yield (f"{name} is {recorded.value:.4f} in the record, and {rescored.value:.4f} by its predictions",)
    if recorded.method != rescored.method:
        yield f"{name}: its interval was made by another method ({recorded.method})", True
    else:
        for ours, theirs in zip(_intervals(recorded), _intervals(rescored), strict=True):
            if not all(map(_equal, ours, theirs)):
                bounds = f"[{ours[0]:.4f}, {ours[1]:.4f}]"
                yield (f"{name}: its interval {bounds} doesn't follow from its predictions",)
    if _about(recorded) != _about(rescored):
        yield (f"{name}: its units, speakers or direction are not those of the task and its predictions",)


def _intervals(metric: MetricRecord) -> list[tuple[float, float]]:
    """Both intervals of a metric; NaN, which equals nothing, for an end that only one record has."""
    ends = (metric.low_these, metric.high_these)
    these = (math.inf, math.inf) if ends == (None, None) else tuple(math.nan if e is None else e for e in ends)
    return [(metric.low, metric.high), (these[0], these[1])]


def _about(metric: MetricRecord) -> tuple[object, ...]:
    return metric.units, metric.unit, metric.higher_is_better, metric.population, metric.speakers


def _chance(record: RunRecord, chance: float | None) -> Iterator[CheckResult]:
    if (chance is None) != (record.chance is None) or not _equal(record.chance or 0.0, chance or 0.0):
        yield (f"chance is {record.chance} in the record, and {chance} by its predictions",)


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-7)


def _recipe(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    del context
    if recipe.digest_of(run.record.recipe) != run.record.recipe_digest:
        yield ("the recipe in the record is not the one that the run was made with",)
    command = parse_command(run.record)
    now = recipe.load(recipe.find(command.task, run.record.profile), command.overrides).model_dump(mode="json")
    before = recipe_of(run.record).model_dump(mode="json")
    changed = _changes(recipe.as_digested(before), recipe.as_digested(now))
    if changed:
        yield (f"the recipe has changed: {'; '.join(changed)}",)


def _changes(before: Any, after: Any, name: str = "") -> list[str]:
    """What differs between two recipes, key by key; `departures`, which only describes the recipe, doesn't count."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{name} was {before!r}, is {after!r}"]
    keys = [key for key in sorted(before.keys() | after.keys()) if key != "departures"]
    return [text for key in keys for text in _changes(before.get(key), after.get(key), f"{name}.{key}".strip("."))]


def _code(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    del context
    recorded = run.record.code
    now = code_versions.versions(run.record.task)
    outdated = code_versions.is_outdated(recorded, run.record.task)
    if code_versions.is_digest(recorded) and not outdated:
        yield (
            f"was recorded as a digest of sources, before versions were: it does not show whether today's code ({now}) "
            "gives the same figures",
            True,
        )
    elif outdated:
        yield (
            f"the figures were computed by {code_versions.stated(recorded) or 'code from before versions'}, and "
            f"today's code is {now}: its figures differ now; run it again with --fresh to compare",
        )


def _upstream(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    if context.scope.quick:
        return
    address, recorded = run.record.upstream.address, run.record.upstream.identity
    try:
        now = context.once(("upstream", address), lambda: _identity(run.record, context.scope.trusted))
    except UntrustedCodeError as error:
        changed = recorded_upstream.changed_files(run.record.upstream)
        if changed:
            yield (f"{address} has changed: {', '.join(changed)}",)
        else:
            yield f"its outputs are not compared: {error}", True
        return
    except UserError as error:
        yield f"not compared: {error}", True
        return
    if legacy_fingerprints.current(run.record.upstream.fingerprint) == identity.fingerprint(now):
        return
    if not recorded:
        yield (
            f"not compared: {address} was recorded by a digest of its source, before identities were stored; "
            "run it again with --fresh to compare",
            True,
        )
    elif platforms.only_rounding_differs(address, recorded, now):
        elsewhere = platforms.differences(platforms.of_record(run.record), _current_platform(run.record))
        bits = (
            f"the bits of {', '.join(identity.differences(recorded, now))} differ for {address}, and nothing else does"
        )
        if elsewhere:
            yield f"{bits}, as rounding makes them on another platform: {', '.join(elsewhere)}", True
        else:
            yield (f"{bits}, though the platform is the same: something that it imports has changed",)
    else:
        yield (f"{address} has changed: {', '.join(identity.differences(recorded, now))}",)


def _identity(record: RunRecord, trusted: Sequence[str]) -> dict[str, str]:
    return recorded_upstream.load(record.upstream, trusted).identity()


def _current_platform(record: RunRecord) -> platforms.Platform:
    return platforms.current(str(record.hardware.get(platforms.DEVICE, "cpu")))


def _corpus(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    if context.scope.quick:
        return
    record = run.record
    root = context.scope.data or parse_command(record).data or embedded.default_folder(record.profile)
    if not root.is_dir():
        yield f"not compared: {root} does not exist; give the corpus's folder with --data", True
        return
    chosen = recipe_of(record)
    settings = (chosen.corpus.model_dump_json(), json.dumps(chosen.head, sort_keys=True), record.limit)
    key = ("corpus", str(root), chosen.task, *settings)
    if context.once(key, lambda: _corpus_digest(chosen, root, record.limit)) != record.corpus.digest:
        yield (f"rows or audio of {record.task} under {root} are not those of the run",)


def _corpus_digest(chosen: Recipe, root: Path, limit: int | None) -> str:
    corpus = load_corpus.read_corpus(chosen, root, limit=limit)
    return load_corpus.corpus_digest(corpus, load_corpus.audio_digests(corpus.clips(), NoProgress()))


def _origin(run: Run, context: VerifyContext) -> Iterator[CheckResult]:
    """A merged run's record is the one that was merged."""
    del context
    origin = origins.read(run.folder)
    if origin is not None and origin.record != run_files.sha256(run.folder, records.NAME):
        yield (f"its record is not the one that was merged ({origin})",)


CHECKS: dict[str, Check] = {
    "schema": _schema,
    "folder": _folder,
    "origin": _origin,
    "files": _files,
    "figures": _figures,
    "recipe": _recipe,
    "code": _code,
    "weights": _upstream,
    "data": _corpus,
}
"""What is checked of each run, by the name that findings begin with."""
