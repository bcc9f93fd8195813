"""Folders that are made once and reused: in the user's cache, or where an environment variable puts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from superb_eval.errors import UserError


@dataclass(frozen=True)
class CacheFolder:
    """A folder of the user's cache: its name, what it holds, and how to choose another."""

    name: str
    content: str
    remedy: str
    variable: str

    def path(self) -> Path:
        """Return the folder, which need not exist yet.

        Raises:
            UserError: the variable is not set, and the user has no home folder, or none in which it can be created.
        """
        import platformdirs

        if chosen := os.environ.get(self.variable):
            return Path(chosen)
        try:
            path = Path(platformdirs.user_cache_dir("superb-eval")) / self.name
        except RuntimeError as error:  # in a container whose user has no entry and no HOME
            raise UserError(f"the {self.content}: no home folder was found for its cache. {self.sentence()}") from error
        existing = nearest_existing(path)
        if existing != path and not os.access(existing, os.W_OK):
            raise UserError(f"{path}: can't be created, since {existing} may not be written. {self.sentence()}")
        return path

    def sentence(self) -> str:
        """Return the remedy as a sentence."""
        return f"{self.remedy[0].upper()}{self.remedy[1:]}."


FEATURES = CacheFolder(
    "features", "feature store", "choose another folder with --store or SUPERB_EVAL_STORE", "SUPERB_EVAL_STORE"
)
CORPORA = CacheFolder(
    "corpora", "embedded corpora", "choose another folder with SUPERB_EVAL_CORPORA", "SUPERB_EVAL_CORPORA"
)


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists and may be seen."""
    return next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
