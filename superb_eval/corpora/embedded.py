"""The embedded corpus: what a recipe uses when no --data is given. Synthesised once, into the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from superb_eval.console import Reporter
from superb_eval.errors import UserError


def place(profile: str) -> Path:
    """Return where the embedded corpus of that size lives: under `$SUPERB_EVAL_CORPORA`, or the user's cache."""
    import platformdirs

    chosen = os.environ.get("SUPERB_EVAL_CORPORA")
    root = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("superb-eval")) / "corpora"
    return root / f"synthetic-{profile}"


def folder(profile: str, task: str, reporter: Reporter) -> Path:
    """Return the folder of the embedded corpus, synthesising it first where it is missing.

    Raises:
        UserError: profile or task has no embedded corpus, or synthesis can't work here; the sentence says what to do.
    """
    if profile == "superb":
        raise UserError(f"the official protocol of {task} needs its corpus: give its folder with --data.")
    from superb_eval.corpora.synthetic.tasks import TASKS

    if task not in TASKS:
        raise UserError(f"the embedded corpus has no part for {task} yet ({', '.join(TASKS)} only): give --data.")
    out = place(profile)
    if not (out / "corpus.json").is_file():
        synthesise(profile, out, 0, reporter)
    return out


def synthesise(size: str, out: Path, seed: int, reporter: Reporter) -> None:
    """Generate an embedded corpus with a progress bar; see `superb_eval.corpora.synthetic.generate`.

    Raises:
        UserError: the extra `synth` is missing, the folder holds another corpus, or the disk is full.
    """
    from superb_eval.corpora.synthetic import generate

    with reporter.stage("synthesising", 0) as update:
        generate.synthesise(size, out, seed, progress=lambda done, total: update(done, total=total))
