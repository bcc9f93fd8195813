"""The address of an upstream in a results folder: typed in two ways, one upstream is one row of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results import run_files
from superb_eval.results.folder import slug
from upstreams.loading import addresses


class _Upstream(BaseModel):
    address: str


class _Addressed(BaseModel):
    """What records of all schemas have of an upstream."""

    upstream: _Upstream


def resolve_address(typed: str, out: Path) -> str:
    """Return the address of what was typed: the one that results in `out` have already, else the canonical one.

    An earlier version recorded addresses as they were typed, such as `hf:./folder`; a folder may also be typed as a
    relative and as an absolute path.

    Raises:
        UserError: see `upstreams.loading.addresses.canonical`.
    """
    address = addresses.canonical(typed, _is_name)
    for candidate in (address, typed):
        if (out / slug(candidate)).is_dir():
            return candidate
    place = addresses.absolute(address)
    if place == address and address == typed:  # no path in it, or an absolute one
        return address
    return next((known for known in _recorded(out) if addresses.absolute(known) == place), address)


def row_of(typed: str, rows: Collection[str]) -> str:
    """Return the row of a table that a text names as `run -u` takes it: `./my.pt` is `checkpoint:my.pt`.

    Its file need not be there any more. The text itself, where it names no row, or several.
    """
    path = addresses.tidy(typed)
    meant = {addresses.absolute(address) for address in (path, f"checkpoint:{path}", f"hf:{path}")}
    named = [row for row in rows if addresses.absolute(row) in meant]
    return named[0] if typed not in rows and len(named) == 1 else typed


def _is_name(name: str) -> bool:
    from upstreams import registry  # imports torch, which takes seconds; only a path that exists needs it

    return name in registry.names()


def _recorded(out: Path) -> Iterator[str]:
    """Yield the address of each upstream that has a readable record in a results folder."""
    for folder in sorted(out.glob("*")):
        path = next(folder.glob(f"*/*/{records.NAME}"), None)
        if path is not None:
            with suppress(UserError, ValidationError):  # damaged: the run that meets it reports it
                yield _Addressed.model_validate_json(run_files.read_bytes(path.parent, path.name)).upstream.address
