"""The embedded corpus: the synthetic speech of a recipe without --data, generated once into the user's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from superb_eval.data import manifest
from superb_eval.errors import UserError
from superb_eval.runtime import user_cache
from superb_eval.runtime.progress import Progress

SIZES: Mapping[tuple[str, str], tuple[int, float]] = {
    ("nano", "pr"): (48, 69.8),
    ("nano", "asr"): (48, 69.8),
    ("nano", "ks"): (96, 96.0),
    ("nano", "qbe"): (46, 45.7),
    ("nano", "sid"): (48, 69.8),
    ("nano", "asv"): (66, 95.6),
    ("nano", "sd"): (12, 68.4),
    ("nano", "ic"): (80, 141.9),
    ("nano", "sf"): (80, 111.5),
    ("nano", "er"): (20, 28.9),
    ("mini", "pr"): (720, 1054.0),
    ("mini", "asr"): (720, 1054.0),
    ("mini", "ks"): (768, 768.0),
    ("mini", "qbe"): (376, 471.2),
    ("mini", "sid"): (720, 1054.0),
    ("mini", "asv"): (1104, 1610.3),
    ("mini", "sd"): (100, 596.5),
    ("mini", "ic"): (540, 956.5),
    ("mini", "sf"): (560, 775.0),
    ("mini", "er"): (400, 581.5),
}
"""Clips and seconds of each profile and task, for plans of what isn't synthesised yet."""


def cache_folder() -> Path:
    """Return the folder of corpora that are made once and reused: `$SUPERB_EVAL_CORPORA`, else in the user's cache.

    Raises:
        UserError: see `user_cache.CacheFolder.path`.
    """
    return user_cache.CORPORA.path()


def default_folder(profile: str) -> Path:
    """Return the folder of the embedded corpus of a profile, in `cache_folder`."""
    from superb_eval.corpora.synthetic.generate import GENERATOR_VERSION

    return cache_folder() / f"synthetic-{profile}-v{GENERATOR_VERSION}"


def ensure_folder(profile: str, task: str, progress: Progress) -> Path:
    """Return the folder of the embedded corpus; generate the task's part first where it is missing.

    Raises:
        UserError: profile or task has no embedded corpus, or synthesis can't run here; the message names the next step.
    """
    if profile == "superb":
        raise UserError(f"the official protocol of {task} needs its corpus: give its folder with --data.")
    from superb_eval.corpora.synthetic.tasks import TASKS

    if task not in TASKS:
        raise UserError(f"the embedded corpus has no part for {task} ({', '.join(TASKS)} only): give --data.")
    out = default_folder(profile)
    if not is_made(profile, task):
        synthesise(profile, out, 0, progress, (task,))
    return out


def is_made(profile: str, task: str) -> bool:
    """Return whether a task's part of the embedded corpus of a profile was generated.

    Raises:
        UserError: the description in its folder is damaged.
    """
    finished = manifest.read_description(default_folder(profile)).get("tasks")
    return isinstance(finished, list) and task in finished


def synthesise(size: str, out: Path, seed: int, progress: Progress, tasks: Sequence[str] = ()) -> None:
    """Generate tasks of the synthetic corpus, by default all ten, with a progress bar; wait where another process does.

    See `superb_eval.corpora.synthetic.generate`.

    Raises:
        UserError: the extra `synth` is missing, the folder holds another corpus, or the disk is full.
    """
    from superb_eval.corpora.synthetic import generate
    from superb_eval.corpora.synthetic.tasks import TASKS

    with progress.step("synthesising", 0) as update:
        generate.synthesise(
            size,
            out,
            seed,
            tasks=tasks or tuple(TASKS),
            progress=lambda done, total: update(done, total=total),
            log=progress.log,
        )
