"""Loads Python files of the user's own, and keeps track of what they import and open in their own folder.

A file that is loaded again is read again, with all that it imports: what an earlier load took from a user's folder is
forgotten first, and byte code that Python cached is never used (its time stamps are whole seconds). So two folders may
each hold a `helper.py`. What others imported under such a name is set aside meanwhile, and put back.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from upstreams.loading.identity import installed

if TYPE_CHECKING:
    from torch import nn

_OWN_PACKAGES = ("superb_eval", "upstreams", "downstreams")

_lock = threading.RLock()
"""One load at a time: `sys.path` and `sys.modules` are shared by all threads."""

_taken: dict[str, ModuleType] = {}
"""Modules that loads took from users' folders, by name, as far as they lie in `sys.modules`."""

_open: list[OwnFiles] = []
"""Loads under way: one may begin another."""


class SourceLoader(SourceFileLoader):
    """Reads a module from its source, never from a cache of byte code, and leaves none behind."""

    def path_stats(self, path: str) -> Any:
        """Raise, as importlib expects it of a source whose time can't be compared with its byte code's."""
        raise OSError(f"{path}: byte code is not used")


class OwnFiles:
    """The files of one folder that a load imported or opened; use it by `reading`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: dict[str, ModuleType] = {}
        self._aside: dict[str, ModuleType] = {}
        self._before = dict(sys.modules)
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._thread = threading.get_ident()
        roots = [Path(sys.prefix), Path(sys.base_prefix), *map(_root_of, _OWN_PACKAGES)]
        self._left_out = [root for root in roots if root.is_relative_to(folder)]

    def owns(self, path: Path) -> bool:
        """Return whether a file counts: below the folder, in no hidden one, no environment and no installed package."""
        if not path.is_relative_to(self.folder) or path.suffix == ".pyc":
            return False
        inside = path.relative_to(self.folder)
        return not (
            any(part.startswith(".") for part in inside.parts[:-1])
            or installed(inside)
            or any(path.is_relative_to(root) for root in self._left_out)
        )

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that counts, by its name relative to the folder."""
        paths = {Path(os.path.realpath(name)) for name in self._read - self._written}
        paths |= {Path(os.path.realpath(file)) for file in map(_file_of, self.modules.values()) if file}
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(paths)
            if self.owns(path) and path.is_file()
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the folder, for `sys.meta_path`."""
        del target
        for place in [str(self.folder)] if path is None else path:
            spec = FileFinder(place, (SourceLoader, [".py"])).find_spec(name)
            if spec is not None and spec.origin is not None and self.owns(Path(os.path.realpath(spec.origin))):
                return spec
        return None

    def collect(self) -> None:
        """Note the modules that came since the load began."""
        for name, module in list(sys.modules.items()):
            place = _file_of(module) or _folder_of(module)
            if place and self._before.get(name) is not module and self.owns(Path(os.path.realpath(place))):
                self.modules[name] = module
                if name not in self._aside:
                    _taken[name] = module

    def set_aside(self) -> None:
        """Take out of `sys.modules` what others imported under names of the folder's own, installed packages apart."""
        names = {path.stem for path in self.folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        names -= {*sys.stdlib_module_names, *_OWN_PACKAGES}
        named = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}
        places = {name: _file_of(module) or _folder_of(module) for name, module in named.items()}
        self._aside = {name: named[name] for name, place in places.items() if place and not installed(Path(place))}
        for name in self._aside:
            del sys.modules[name]

    def put_back(self) -> None:
        """Give the names that others use back to them."""
        sys.modules.update(self._aside)

    def opened(self, name: str, writes: bool) -> None:
        """Note a file that was opened by the thread that loads."""
        if threading.get_ident() == self._thread:
            (self._written if writes else self._read).add(name)


class Modules:
    """Puts a user's own modules in their place for a forward pass, for imports inside of it, and gives it back then.

    Needed where another load, or somebody else, has a module of the same name.
    """

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self.modules = modules
        self._others: dict[str, ModuleType | None] = {}

    def serve(self, module: nn.Module) -> None:
        """Act in each forward pass of a module."""
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)

    def enter(self, *_: object) -> None:
        """A forward pre-hook."""
        self._others = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)

    def leave(self, *_: object) -> None:
        """A forward hook."""
        for name, other in self._others.items():
            if other is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = other

    def __deepcopy__(self, memo: dict[int, Any]) -> Modules:
        return self

    def __reduce__(self) -> tuple[type[Modules], tuple[dict[str, ModuleType]]]:
        return Modules, ({},)  # modules can't be pickled; a process that opens the upstream anew has its own


@contextmanager
def reading(folder: Path) -> Iterator[OwnFiles]:
    """Let imports find a folder first, read anew, and keep track of its files meanwhile.

    Args:
        folder: resolved.
    """
    with _lock:
        _watch()
        for load in _open:
            load.collect()
        _forget()
        own = OwnFiles(folder)
        own.set_aside()
        sys.path.insert(0, str(folder))  # as `python FILE.py` does
        sys.meta_path.insert(_before_paths(), own)
        importlib.invalidate_caches()
        _open.append(own)
        try:
            yield own
        finally:
            own.collect()
            own.put_back()
            _open.remove(own)
            sys.meta_path.remove(own)
            sys.path.remove(str(folder))


def _forget() -> None:
    for name, module in _taken.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _taken.clear()


def _before_paths() -> int:
    """Return the place in `sys.meta_path` before the finder that searches `sys.path`, behind built-in modules."""
    return next((k for k, finder in enumerate(sys.meta_path) if finder is PathFinder), len(sys.meta_path))


def _file_of(module: object) -> str | None:
    if getattr(module, "__name__", None) == "__main__":
        return None
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _folder_of(module: object) -> str | None:
    """Return the folder of a package without an `__init__.py`."""
    try:
        return next(iter(getattr(module, "__path__", None) or ()), None)
    except KeyError:  # a part of one that was taken out of `sys.modules`
        return None


def _root_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(os.path.realpath(spec.origin)).parent if spec and spec.origin else Path(sys.prefix)


_watched: list[bool] = []


def _watch() -> None:
    """Let Python report each file that it opens; once a process, since that can't be taken back."""
    if not _watched:
        sys.addaudithook(_on_event)
        _watched.append(True)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _open:
        return
    name, _, flags = (*arguments, None, None, None)[:3]
    if isinstance(name, str | bytes | os.PathLike):
        writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
        for load in list(_open):
            load.opened(os.path.abspath(os.fsdecode(name)), writes)
