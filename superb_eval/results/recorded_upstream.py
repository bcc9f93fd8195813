"""Opens the upstream of a record, which somebody else may have written: code runs only where the person trusts it.

A results folder is passed on, and its records may name any file as an upstream, such as one beside them. So code is
trusted by name alone, wherever it lies and whoever made the run: `--trust FILE.py`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from superb_eval.errors import UserError
from superb_eval.results import run_files
from superb_eval.results.record import UpstreamRecord
from upstreams.loading import addresses, identity

if TYPE_CHECKING:
    from upstreams.base import Upstream


class UntrustedCodeError(UserError):
    """The upstream of a record is code that the person has not named."""


def load(recorded: UpstreamRecord, trusted: Sequence[str] = ()) -> Upstream:
    """Open the upstream of a record; see `check_trusted`.

    Raises:
        UntrustedCodeError: it is code that is not trusted.
        UserError: it can't be opened.
    """
    from upstreams import registry  # imports torch

    check_trusted(recorded.address, trusted)
    return registry.load(recorded.address)


def check_trusted(address: str, trusted: Sequence[str] = ()) -> None:
    """Refuse a recorded address that would run code which `trusted` doesn't name.

    Args:
        address: of a record.
        trusted: what `--trust` names: files, or whole addresses, whose files are then trusted. Links are followed.

    Raises:
        UntrustedCodeError: a file of its code, or one that such code loads, is not among them.
        UserError: no upstream has that address.
    """
    from upstreams import registry

    named = {_real(file) for text in trusted for file in _named_files(text)}
    missing = [file for file in registry.code_files(address) if _real(file) not in named]
    if missing:
        options = " ".join(f"--trust {shlex.quote(file)}" for file in missing)
        raise UntrustedCodeError(
            f"its upstream {address} is code, which is not run for a record's sake. If you trust it, add {options}."
        )


def _named_files(text: str) -> list[str]:
    from upstreams import registry

    return [text] if os.path.isfile(os.path.expanduser(text)) else registry.code_files(text)


def _real(file: str) -> str:
    return os.path.realpath(os.path.expanduser(file))


def changed_files(recorded: UpstreamRecord) -> list[str]:
    """Return the files of a user's own upstream that are not those of its record, by name; none of them is run.

    A record holds the digest of each file that the upstream imported or read, by its path below the folder of the code.
    """
    head, _, _ = recorded.address.partition("@")
    code, _ = addresses.split_scheme(head)
    if code is None or not code.endswith(".py"):
        return []
    return [name for name, path in _own_files(recorded, Path(_real(code)).parent) if not _holds(path, recorded, name)]


def _own_files(recorded: UpstreamRecord, folder: Path) -> Iterator[tuple[str, Path]]:
    for name in sorted(recorded.identity.keys() - identity.PARTS):
        if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts:
            yield name, folder / name


def _holds(path: Path, recorded: UpstreamRecord, name: str) -> bool:
    try:
        return run_files.sha256(path.parent, path.name) == recorded.identity[name]
    except UserError:  # gone, or no regular file any more
        return False
