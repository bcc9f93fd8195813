"""Loads Python files of the user's own, and tracks the files of their folder that they import and open.

A file that is loaded again is read again, with all that it imports: modules that an earlier load imported from a user's
folder are unloaded first, and Python's cached byte code is never used (its time stamps are whole seconds). So two
folders may each hold a `helper.py`. Other modules of such a name are hidden during the load, and restored.
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

from upstreams.loading.identity import is_installed

if TYPE_CHECKING:
    from torch import nn

_OWN_PACKAGES = ("superb_eval", "upstreams", "downstreams")

_lock = threading.RLock()
"""One load at a time: `sys.path` and `sys.modules` are shared by all threads."""

_loaded_modules: dict[str, ModuleType] = {}
"""Modules in `sys.modules` that were loaded from users' folders, by name."""

_active_loads: list[OwnFiles] = []
"""The loads in progress: one may start another."""


class SourceLoader(SourceFileLoader):
    """Reads a module from its source, never from cached byte code, and writes none."""

    def path_stats(self, path: str) -> Any:
        """Raise, as importlib expects of a source whose time can't be compared with its byte code's."""
        raise OSError(f"{path}: byte code is not used")


class OwnFiles:
    """The files of one folder that a load imported or opened; made by `track_files`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: dict[str, ModuleType] = {}
        self._hidden: dict[str, ModuleType] = {}
        self._before = dict(sys.modules)
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._thread = threading.get_ident()
        roots = [Path(sys.prefix), Path(sys.base_prefix), *map(_package_root, _OWN_PACKAGES)]
        self._excluded_roots = [root for root in roots if root.is_relative_to(folder)]

    def owns(self, path: Path) -> bool:
        """Return whether a file counts: below the folder, and in no hidden folder, environment or installed package."""
        if not path.is_relative_to(self.folder) or path.suffix == ".pyc":
            return False
        inside = path.relative_to(self.folder)
        return not (
            any(part.startswith(".") for part in inside.parts[:-1])
            or is_installed(inside)
            or any(path.is_relative_to(root) for root in self._excluded_roots)
        )

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that counts, by its name relative to the folder."""
        paths = {Path(os.path.realpath(name)) for name in self._read - self._written}
        paths |= {Path(os.path.realpath(file)) for file in map(_module_file, self.modules.values()) if file}
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
        for folder in [str(self.folder)] if path is None else path:
            spec = FileFinder(folder, (SourceLoader, [".py"])).find_spec(name)
            if spec is not None and spec.origin is not None and self.owns(Path(os.path.realpath(spec.origin))):
                return spec
        return None

    def record_modules(self) -> None:
        """Record the modules that were imported since the load began."""
        for name, module in list(sys.modules.items()):
            location = _module_file(module) or _namespace_folder(module)
            if location and self._before.get(name) is not module and self.owns(Path(os.path.realpath(location))):
                self.modules[name] = module
                if name not in self._hidden:
                    _loaded_modules[name] = module

    def hide_conflicting_modules(self) -> None:
        """Remove modules with the names of the folder's own from `sys.modules`, except those of installed packages."""
        names = {path.stem for path in self.folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        names -= {*sys.stdlib_module_names, *_OWN_PACKAGES}
        named = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}
        locations = {name: _module_file(module) or _namespace_folder(module) for name, module in named.items()}
        self._hidden = {
            name: named[name] for name, location in locations.items() if location and not is_installed(Path(location))
        }
        for name in self._hidden:
            del sys.modules[name]

    def restore_modules(self) -> None:
        """Restore the modules that were hidden."""
        sys.modules.update(self._hidden)

    def record_opened_file(self, name: str, writes: bool) -> None:
        """Record a file that the loading thread opened."""
        if threading.get_ident() == self._thread:
            (self._written if writes else self._read).add(name)


class UserModules:
    """Puts a user's own modules into `sys.modules` during a forward pass, for imports inside it.

    Needed where another load, or other code, has a module of the same name.
    """

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self.modules = modules
        self._replaced: dict[str, ModuleType | None] = {}

    def attach(self, module: nn.Module) -> None:
        """Register the hooks for each forward pass of a module."""
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)

    def enter(self, *_: object) -> None:
        """Insert the modules (a forward pre-hook)."""
        self._replaced = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)

    def leave(self, *_: object) -> None:
        """Restore the previous modules (a forward hook)."""
        for name, other in self._replaced.items():
            if other is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = other

    def __deepcopy__(self, memo: dict[int, Any]) -> UserModules:
        return self

    def __reduce__(self) -> tuple[type[UserModules], tuple[dict[str, ModuleType]]]:
        return UserModules, ({},)  # modules can't be pickled; a process that loads the upstream again has its own


@contextmanager
def track_files(folder: Path) -> Iterator[OwnFiles]:
    """Import from a folder first, always reading its source, and track its files meanwhile.

    Args:
        folder: resolved.
    """
    with _lock:
        _install_audit_hook()
        for load in _active_loads:
            load.record_modules()
        _unload_user_modules()
        own = OwnFiles(folder)
        own.hide_conflicting_modules()
        sys.path.insert(0, str(folder))  # as `python FILE.py` does
        sys.meta_path.insert(_finder_position(), own)
        importlib.invalidate_caches()
        _active_loads.append(own)
        try:
            yield own
        finally:
            own.record_modules()
            own.restore_modules()
            _active_loads.remove(own)
            sys.meta_path.remove(own)
            sys.path.remove(str(folder))


def _unload_user_modules() -> None:
    for name, module in _loaded_modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _loaded_modules.clear()


def _finder_position() -> int:
    """Return the index in `sys.meta_path` before the finder that searches `sys.path`, after built-in modules."""
    return next((k for k, finder in enumerate(sys.meta_path) if finder is PathFinder), len(sys.meta_path))


def _module_file(module: object) -> str | None:
    if getattr(module, "__name__", None) == "__main__":
        return None
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _namespace_folder(module: object) -> str | None:
    """Return the folder of a package without an `__init__.py`."""
    try:  # no attribute is looked up: transformers' modules import others then
        return next(iter(getattr(module, "__dict__", {}).get("__path__") or ()), None)
    except KeyError:  # part of a package that was removed from `sys.modules`
        return None


def _package_root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(os.path.realpath(spec.origin)).parent if spec and spec.origin else Path(sys.prefix)


_hook_installed: list[bool] = []


def _install_audit_hook() -> None:
    """Let Python report each file that it opens; once per process, since an audit hook can't be removed."""
    if not _hook_installed:
        sys.addaudithook(_audit)
        _hook_installed.append(True)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _active_loads:
        return
    name, _, flags = (*arguments, None, None, None)[:3]
    if isinstance(name, str | bytes | os.PathLike):
        writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
        for load in list(_active_loads):
            load.record_opened_file(os.path.abspath(os.fsdecode(name)), writes)
