"""Generates the synthetic corpus: shards of fixed contents, so that any number of workers writes the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

import superb_eval
from superb_eval.corpora.synthetic import espeak
from superb_eval.corpora.synthetic.clips import SynthesisedClip
from superb_eval.corpora.synthetic.manifests import to_csv
from superb_eval.corpora.synthetic.shards import STATE, ClipShard, is_done, load, split
from superb_eval.corpora.synthetic.tasks import FOLDERS, SIZES, TASKS, parts_of
from superb_eval.data import manifest
from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import atomic_files, locks, outside_files, own_folder
from superb_eval.runtime.threads import available_cores

GENERATOR_VERSION = 4
"""Raise it with every change that changes a sample or a label."""

KIND = "synthetic corpus"
"""Of the folder, in its marker."""

ProgressCallback = Callable[[int, int], None]
"""Called with the number of clips that are done and the number of all clips."""

LOOK_EVERY = 2.0
"""Seconds between two looks at how far another process has come."""


@dataclass(frozen=True)
class _Generation:
    """One call of `synthesise`: the folder, and what it must hold in the end."""

    out: Path
    size: str
    seed: int
    tasks: tuple[str, ...]

    def settings(self) -> dict[str, object]:
        return {"size": self.size, "seed": self.seed, "generator_version": GENERATOR_VERSION}


def synthesise(
    size: str,
    out: Path,
    seed: int = 0,
    *,
    tasks: Sequence[str] = tuple(TASKS),
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Generate the synthetic corpus in folder `out`, or resume an interrupted generation there.

    The same size and seed give the same bytes on one platform, whatever the number of workers and however often the
    generation was interrupted. A finished corpus is not changed; tasks that it lacks are added.

    Args:
        size: ``nano`` (for tests) or ``mini`` (for the quickstart).
        out: The corpus: manifests in ``<task>/``, clips in ``audio/<part>/``; ``corpus.json`` is written last.
        seed: At least 0.
        tasks: Which tasks to generate, by default all ten; also ``unlabelled``, for training encoders.
        workers: How many processes to use; by default one for each available core.
        progress: Called with the number of clips that are done and the number of all clips.
        log: Called with one line where another process generates into `out`, which is then waited for.

    Returns:
        `out`.

    Raises:
        UserError: An argument is wrong; espeak-ng is not installed; `out` holds another corpus or cannot be written.
            Finished shards stay usable. What else lies there is not touched.
        RuntimeError: A worker died; the message names its shard and ends with the last lines of its output.
    """
    generation = _Generation(Path(out), size, seed, _check_arguments(size, seed, tasks, workers))
    with atomic_files.explain_disk_errors(generation.out):
        if not set(generation.tasks) <= _finished_tasks(generation):
            _generate(generation, workers or available_cores(), progress or _ignore, log or _ignore)
    return generation.out


def _ignore(*arguments: object) -> None:
    del arguments


def _check_arguments(size: str, seed: int, tasks: Sequence[str], workers: int | None) -> tuple[str, ...]:
    """Return the tasks in the order of `FOLDERS`; refuse wrong arguments."""
    if size not in SIZES:
        raise UserError(f"unknown corpus size '{size}': use {' or '.join(SIZES)}.{near_miss(size, SIZES)}")
    if seed < 0 or (workers is not None and workers < 1):
        raise UserError(f"seed {seed}, workers {workers}: the seed must be at least 0 and workers at least 1.")
    for task in tasks:
        if task not in FOLDERS:
            names = ", ".join(FOLDERS)
            raise UserError(f"no synthetic corpus for task '{task}': use {names}.{near_miss(task, FOLDERS)}")
    return tuple(task for task in FOLDERS if task in tasks)


def _finished_tasks(generation: _Generation) -> set[str]:
    description = manifest.read_description(generation.out)
    if not description:
        return set()
    _check_same_settings(generation, description, generation.settings())
    tasks = description.get("tasks")
    if not isinstance(tasks, list) or not set(map(str, tasks)) <= FOLDERS.keys():
        raise UserError(f"{generation.out / 'corpus.json'}: its tasks are none of ours. Choose another folder.")
    return set(tasks)


def _check_same_settings(generation: _Generation, present: dict[str, object], expected: dict[str, object]) -> None:
    differences = [
        f"{key} {present.get(key)} (expected {value})" for key, value in expected.items() if present.get(key) != value
    ]
    if differences:
        raise UserError(
            f"{generation.out} already holds a synthetic corpus with {', '.join(differences)}: "
            "choose another folder or delete this one."
        )


def _generate(generation: _Generation, workers: int, progress: ProgressCallback, log: Callable[[str], None]) -> None:
    out, version = generation.out, espeak.version()
    own_folder.claim(out, KIND, earlier=(out / STATE).is_dir())
    with _turn(generation, progress, log):
        finished = _finished_tasks(generation)  # another process may have generated them in the meantime
        if set(generation.tasks) <= finished:
            return
        union = replace(generation, tasks=tuple(task for task in FOLDERS if task in finished.union(generation.tasks)))
        _write_settings(union, union.settings() | {"espeak_version": version})
        _render(union, _shards(union), workers, progress)
        _write_manifests(union, version)


@contextmanager
def _turn(generation: _Generation, progress: ProgressCallback, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; while another process does, show how much is generated of what is asked for."""
    lock = generation.out / STATE / "lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(lock, timeout=0))
        except Timeout:
            _check_reserved(generation, generation.settings())
            log(f"another process is generating into {generation.out}: waiting for it")
            while not _entered(stack, lock):
                shards = _shards(generation)
                done = sum(len(shard.plans) for shard in shards if is_done(shard, generation.out))
                progress(done, sum(len(shard.plans) for shard in shards))
        yield


def _entered(stack: ExitStack, lock: Path) -> bool:
    """Wait a little for the lock; return whether the stack holds it now."""
    try:
        stack.enter_context(locks.hold(lock, timeout=LOOK_EVERY))
    except Timeout:
        return False
    return True


def _shards(generation: _Generation) -> list[ClipShard]:
    return [shard for part in parts_of(generation.tasks) for shard in split(part, generation.size, generation.seed)]


def _write_settings(generation: _Generation, settings: dict[str, object]) -> None:
    """Reserve the folder for these settings, so that another size or seed can't mix with what is there."""
    if not _check_reserved(generation, settings):
        atomic_files.write_bytes(_settings_file(generation), json.dumps(settings).encode())


def _check_reserved(generation: _Generation, settings: dict[str, object]) -> bool:
    """Return whether the folder is reserved, which must be for these settings."""
    path = _settings_file(generation)
    if path.is_file():
        present = outside_files.read_json(path)
        _check_same_settings(generation, present if isinstance(present, dict) else {}, settings)
    return path.is_file()


def _settings_file(generation: _Generation) -> Path:
    return generation.out / STATE / "settings.json"


def _render(generation: _Generation, shards: Sequence[ClipShard], workers: int, progress: ProgressCallback) -> None:
    missing = [shard for shard in shards if not is_done(shard, generation.out)]
    total = sum(len(shard.plans) for shard in shards)
    done = total - sum(len(shard.plans) for shard in missing)
    progress(done, total)
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_run_worker, generation, shard): shard for shard in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done += len(futures[future].plans)
                progress(done, total)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run_worker(generation: _Generation, shard: ClipShard) -> None:
    command = [sys.executable, "-m", f"{__package__}.worker", shard.part, generation.size, str(generation.seed)]
    command += [str(shard.number), str(generation.out.resolve())]
    worker = subprocess.run(command, env=_environment(), capture_output=True, check=False)
    if worker.returncode == 0:
        return
    lines = worker.stderr.decode(errors="replace").strip().splitlines() or ["(nothing)"]
    if worker.returncode == 2:
        raise UserError(lines[-1])
    tail = "\n".join(lines[-20:])
    raise RuntimeError(
        f"the worker for shard {shard.name} died with status {worker.returncode}; its last output was:\n{tail}"
    )


def _environment() -> dict[str, str]:
    """Return this process's environment with one thread, and with this package where it is not installed."""
    root = str(Path(superb_eval.__file__).parents[1])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _write_manifests(generation: _Generation, espeak_version: str) -> None:
    """Write manifests and checksums, then the description, without which a corpus is not finished."""
    out = generation.out
    clips = {part: _synthesised_clips(generation, part) for part in parts_of(generation.tasks)}
    for task in generation.tasks:
        for name, data in FOLDERS[task].task_files(clips).items():
            _write_same(out / task / name, data)
    checksums = ((clip.path, clip.sha256) for part_clips in clips.values() for clip in part_clips)
    atomic_files.write_bytes(out / "checksums.csv", to_csv(("path", "sha256"), checksums))
    name = f"synthetic-{generation.size}-seed{generation.seed}"
    description = {"name": name, "synthetic": True, **generation.settings()}
    description |= {"espeak_version": espeak_version, "tasks": generation.tasks}
    atomic_files.write_bytes(out / "corpus.json", (json.dumps(description, indent=2) + "\n").encode())


def _write_same(path: Path, data: bytes) -> None:
    """Write a manifest; one that is there has the same bytes, since generation is deterministic, or isn't ours.

    Raises:
        UserError: it has others.
    """
    if path.is_file() and path.read_bytes() != data:
        raise UserError(f"{path}: isn't the manifest that is generated there. Choose another folder, or remove it.")
    atomic_files.write_bytes(path, data)


def _synthesised_clips(generation: _Generation, part: str) -> list[SynthesisedClip]:
    shards = split(part, generation.size, generation.seed)
    return [clip for shard in shards for clip in load(shard, generation.out)]
