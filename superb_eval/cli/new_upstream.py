"""`upstream new`: writes an upstream that works as it is, a file with its card and a test; its author fills it in.

In a checkout the file goes to `upstreams/` and is found by its name; anywhere else it is opened as FILE.py:Class. It
is the same file, so that it can move from the one place to the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from superb_eval.errors import UserError
from superb_eval.runtime.screen import show

TEMPLATES = Path(__file__).parent / "templates"


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="such as my_encoder")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="folder to write; default: upstreams/ in a checkout, else the current one"),
    ] = None,
) -> None:
    """Write a new upstream, ready to be filled in: its file, its card and a test, all of which work as they are.

    \b
    superb-eval upstream new my_encoder
    superb-eval upstream check my_encoder        # in a checkout; elsewhere my_encoder.py:MyEncoder
    """
    paths, address = write(name, out)
    show("\n".join(f"wrote {path}" for path in paths))
    show(f"next: superb-eval upstream check {address}\n      superb-eval quick {address}")


def write(name: str, out: Path | None = None) -> tuple[tuple[Path, Path], str]:
    """Write the file and test of a new upstream; return their paths, and the address that opens it.

    Args:
        name: in lower case, with underscores, such as `my_encoder`.
        out: folder for both; None: `upstreams/` and `tests/upstreams/` where the current folder is a checkout of this
            repository, else the current folder.

    Raises:
        UserError: the name is none, or is taken; a file is there already; or it can't be written.
    """
    from superb_eval.runtime import atomic_files

    _check_name(name)
    class_name = "".join(word.capitalize() for word in name.split("_"))
    root = Path.cwd()
    checkout = out is None and (root / "upstreams/registry.py").is_file() and (root / "tests/upstreams").is_dir()
    folders = (Path("upstreams"), Path("tests/upstreams")) if checkout else (out or Path(),) * 2
    encoder, test = folders[0] / f"{name}.py", folders[1] / f"test_{name}.py"
    address = name if checkout else f"{encoder}:{class_name}"
    next_to_test = "ADDRESS = f\"{Path(__file__).with_name('" + encoder.name + "')}:" + class_name + '"'
    fields = {
        "name": name,
        "kind": class_name,
        "address_line": f'ADDRESS = "{name}"' if checkout else next_to_test,
    }
    for path in (encoder, test):
        if path.exists():
            raise UserError(f"{path}: is there already. Choose another name, or remove it.")
    for path, template in ((encoder, "upstream.py.template"), (test, "test_upstream.py.template")):
        text = (TEMPLATES / template).read_text(encoding="utf8")
        atomic_files.write_text(path, Template(text).substitute(fields))
    return (encoder, test), address


def _check_name(name: str) -> None:
    import pkgutil

    import upstreams
    from upstreams import registry

    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name):
        raise UserError(f"'{name}' can't name an upstream. Expected lower case and underscores, such as my_encoder.")
    if name in registry.names() or name in {module.name for module in pkgutil.iter_modules(upstreams.__path__)}:
        raise UserError(f"'{name}' is taken; see `superb-eval upstream list`. Choose another name.")
