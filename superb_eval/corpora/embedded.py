"""The embedded corpus: the synthetic speech of a recipe without --data, generated once into the user's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress


def default_folder(profile: str) -> Path:
    """Return the folder of the embedded corpus of a profile: in `$SUPERB_EVAL_CORPORA`, else in the user's cache."""
    import platformdirs

    from superb_eval.corpora.synthetic.generate import GENERATOR_VERSION

    setting = os.environ.get("SUPERB_EVAL_CORPORA")
    root = Path(setting) if setting else Path(platformdirs.user_cache_dir("superb-eval")) / "corpora"
    return root / f"synthetic-{profile}-v{GENERATOR_VERSION}"


def ensure_folder(profile: str, task: str, progress: Progress) -> Path:
    """Return the folder of the embedded corpus; generate the task's part first where it is missing.

    Raises:
        UserError: profile or task has no embedded corpus, or synthesis can't run here; the message names the next step.
    """
    if profile == "superb":
        raise UserError(f"the official protocol of {task} needs its corpus: give its folder with --data.")
    from superb_eval.corpora.synthetic.tasks import TASKS
    from superb_eval.data import manifest

    if task not in TASKS:
        raise UserError(f"the embedded corpus has no part for {task} ({', '.join(TASKS)} only): give --data.")
    out = default_folder(profile)
    finished = manifest.read_description(out).get("tasks")
    if not isinstance(finished, list) or task not in finished:
        synthesise(profile, out, 0, progress, (task,))
    return out


def synthesise(size: str, out: Path, seed: int, progress: Progress, tasks: Sequence[str] = ()) -> None:
    """Generate tasks of the synthetic corpus, by default all ten, with a progress bar.

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
