"""The embedded corpus: what a recipe uses when no --data is given. Synthesised once, into the user's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress


def place(profile: str) -> Path:
    """Return where the embedded corpus of that size lives: under `$SUPERB_EVAL_CORPORA`, or the user's cache."""
    import platformdirs

    from superb_eval.corpora.synthetic.generate import GENERATOR_VERSION

    chosen = os.environ.get("SUPERB_EVAL_CORPORA")
    root = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("superb-eval")) / "corpora"
    return root / f"synthetic-{profile}-v{GENERATOR_VERSION}"


def folder(profile: str, task: str, progress: Progress) -> Path:
    """Return the folder of the embedded corpus, synthesising first what the task needs of it and it lacks.

    Raises:
        UserError: profile or task has no embedded corpus, or synthesis can't work here; the sentence says what to do.
    """
    if profile == "superb":
        raise UserError(f"the official protocol of {task} needs its corpus: give its folder with --data.")
    from superb_eval.corpora.synthetic.tasks import TASKS
    from superb_eval.data import manifest

    if task not in TASKS:
        raise UserError(f"the embedded corpus has no part for {task} ({', '.join(TASKS)} only): give --data.")
    out = place(profile)
    made = manifest.about(out).get("tasks")
    if not isinstance(made, list) or task not in made:
        synthesise(profile, out, 0, progress, (task,))
    return out


def synthesise(size: str, out: Path, seed: int, progress: Progress, tasks: Sequence[str] = ()) -> None:
    """Generate the given tasks of an embedded corpus, by default all ten, with a progress bar.

    See `superb_eval.corpora.synthetic.generate`.

    Raises:
        UserError: the extra `synth` is missing, the folder holds another corpus, or the disk is full.
    """
    from superb_eval.corpora.synthetic import generate
    from superb_eval.corpora.synthetic.tasks import TASKS

    with progress.step("synthesising", 0) as update:
        generate.synthesise(
            size, out, seed, tasks=tasks or tuple(TASKS), progress=lambda done, total: update(done, total=total)
        )
