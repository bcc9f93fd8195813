"""s3prl's upstreams, at `s3prl:ENTRY` and `s3prl:ENTRY@CHECKPOINT`, on torchaudio versions that s3prl doesn't support.

`s3prl.hub` imports every upstream, and two names it needs left torchaudio with version 2.9 (s3prl issue 575). Here the
names are supplied, and only the file that defines the entry is imported: s3prl's `hubconf.py` files are parsed as text.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import nn

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import outside_files
from upstreams.base import Upstream
from upstreams.loading.network_building import building, most_bytes
from upstreams.loading.probe_module import wrap_module
from upstreams.loading.safe_pickle import (
    TRUST,
    no_calls_in_eval,
    temporarily_replaced,
    tensors_only,
)

_CHECKPOINT_SUFFIXES = ("_local", "_url", "_custom", "_gdriveid")
"""Suffixes of the entries that take any checkpoint; the others download one of their own."""

_HUB_ID_MODULES = ("s3prl.upstream.hf_hubert.hubconf", "s3prl.upstream.hf_wav2vec2.hubconf")
"""Modules whose checkpoint may be a hub id instead of a file."""


@dataclass(frozen=True)
class Entry:
    """One public function of an s3prl `hubconf.py`."""

    name: str
    module: str
    argument: str | None
    """The argument that takes a checkpoint; None: the entry downloads its own."""

    @property
    def package(self) -> str:
        """The package whose files make up the upstream, such as `s3prl.upstream.hubert`."""
        return self.module.rpartition(".")[0]


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open an entry of s3prl's hub; a checkpoint replaces the file that the entry would download.

    Raises:
        UserError: no such entry; a checkpoint is missing, doesn't fit, or would run code; nothing could be downloaded;
            or the hidden states differ in shape.
    """
    if seed is not None:
        raise UserError(f"s3prl:{name} has no random weights: s3prl's entries need a checkpoint. Drop '@random'.")
    entry = _find_entry(name)
    if entry.argument is not None and checkpoint is None and name != "customized_upstream":
        content = "settings (a YAML file)" if entry.argument == "model_config" else "weights"
        raise UserError(f"s3prl:{name} comes without {content}. Write s3prl:{name}@FILE.")
    address = f"s3prl:{name}" + (f"@{checkpoint}" if checkpoint else "")
    file = None if checkpoint is None else _checkpoint_file(entry, checkpoint)
    model = _build(entry, file, address)
    settings = outside_files.read_text(Path(file)) if file and entry.argument == "model_config" else ""
    source = f"s3prl {sys.modules['s3prl'].__version__}, {entry.package}"
    with contextlib.redirect_stdout(io.StringIO()):
        return wrap_module(model, address, f"s3prl's {name}", source=source, settings=settings)


def entries() -> list[str]:
    """Return the names of s3prl's upstreams: `s3prl.hub.options()` without three helpers that it lists by accident."""
    return sorted(_entry_index())


def supply_missing_names() -> None:
    """Give torchaudio >= 2.9 the two names that s3prl imports, where they are absent.

    `set_audio_backend` does nothing: there is one backend. `sox_effects` raises an error when used.
    """
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda backend: None
    try:
        importlib.import_module("torchaudio.sox_effects")
    except ModuleNotFoundError:
        module: Any = ModuleType("torchaudio.sox_effects")
        # Without a spec, `importlib.util.find_spec` raises a ValueError.
        module.__spec__ = ModuleSpec(module.__name__, loader=None)
        module.apply_effects_file = module.apply_effects_tensor = _no_sox_effects
        sys.modules["torchaudio.sox_effects"] = torchaudio.sox_effects = module


def import_whole_hub() -> ModuleType:
    """Import `s3prl.hub` with all of its upstreams (seconds), the missing names supplied."""
    supply_missing_names()
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("s3prl.hub")


def _no_sox_effects(*_: object, **__: object) -> NoReturn:
    raise UserError("torchaudio has no sox effects since version 2.9. Apply them to the audio files beforehand.")


def _find_entry(name: str) -> Entry:
    if name not in _entry_index():
        raise UserError(
            f"s3prl has no upstream '{name}'.{near_miss(name, _entry_index())} It has {len(_entry_index())}."
        )
    return _entry_index()[name]


@functools.cache
def _entry_index() -> dict[str, Entry]:
    """Return every entry by name, read from `hub.py` and the files it names; of two with one name the last counts."""
    index: dict[str, Entry] = {}
    for node in ast.parse((_s3prl_folder() / "hub.py").read_text(encoding="utf8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("hubconf"):
            names = {alias.name for alias in node.names}
            for entry in _entries_in(str(node.module)):
                if names == {"*"} or entry.name in names:
                    index[entry.name] = entry
    return index


def _entries_in(module: str) -> Iterator[Entry]:
    path = _s3prl_folder().joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            takes_config = "model_config" in {argument.arg for argument in node.args.args}
            yield Entry(node.name, module, "model_config" if takes_config else _checkpoint_argument(node.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").endswith("hubconf"):
            for name in (alias.asname or alias.name for alias in node.names):
                yield Entry(name, module, _checkpoint_argument(name))


def _checkpoint_argument(name: str) -> str | None:
    return "ckpt" if name.endswith(_CHECKPOINT_SUFFIXES) or name == "customized_upstream" else None


def _s3prl_folder() -> Path:
    """Return where s3prl is installed, without importing it."""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        raise UserError("s3prl is not installed. Run `pip install s3prl`.")
    return Path(spec.origin).parent


def _checkpoint_file(entry: Entry, checkpoint: str) -> str:
    """Return the checkpoint's file, downloaded if it is a URL; for Hugging Face's entries, a hub id as it is."""
    if checkpoint.startswith(("http://", "https://")):
        download = importlib.import_module("s3prl.util.download")
        with _DownloadPatch(f"s3prl:{entry.name}", None).installed():
            return str(download.urls_to_filepaths(checkpoint))
    if not os.path.exists(checkpoint) and entry.module not in _HUB_ID_MODULES:
        raise UserError(f"s3prl:{entry.name}@{checkpoint}: no such file. Give a checkpoint in s3prl's own layout.")
    if os.path.exists(checkpoint) and not os.path.isdir(checkpoint):
        outside_files.check_regular(Path(checkpoint), most_bytes())
    return checkpoint


def _build(entry: Entry, checkpoint_file: str | None, address: str) -> nn.Module:
    supply_missing_names()
    downloads = _DownloadPatch(address, checkpoint_file, own_request=2 if entry.package.endswith(".roberta") else 1)
    arguments = {entry.argument: checkpoint_file} if entry.argument and checkpoint_file else {}
    advice = "Is it a checkpoint of that kind?" if checkpoint_file else "Give weights with @CHECKPOINT."
    trust = f"If you trust it, set {TRUST}=1."
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with building(address, f"s3prl's {entry.name}", advice, trust):
            function = _import_entry(entry)
            with downloads.installed(), tensors_only(), no_calls_in_eval("s3prl."):
                model: nn.Module = function(**arguments)
    if checkpoint_file and not arguments and downloads.requests < downloads.own_request:
        raise UserError(f"s3prl:{entry.name} takes no checkpoint: write it without '@'.")
    return model


def _import_entry(entry: Entry) -> Callable[..., Any]:
    """Import the file that defines an entry; three packages import others through `s3prl.hub`."""
    path = _s3prl_folder().joinpath(*entry.package.split(".")[1:])
    if any("s3prl.hub," in text or "s3prl.hub." in text for text in map(Path.read_text, path.glob("*.py"))):
        import_whole_hub()
    function: Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.name)
    return function


class _DownloadPatch:
    """Replaces s3prl's downloader: supplies the user's checkpoint, else downloads, with a clear error.

    `own_request` counts to the entry's own file among those that it requests: RoBERTa first requests a front end's.
    """

    def __init__(self, address: str, checkpoint_file: str | None, own_request: int = 1) -> None:
        self.address = address
        self.checkpoint_file = None if checkpoint_file is None else Path(checkpoint_file).resolve()
        self.own_request = own_request
        self.requests = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the downloader; s3prl resolves the links in its download folder."""
        module = vars(importlib.import_module("s3prl.util.download"))
        self._download, self._cache = module["_download"], module["get_dir"]
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            stack.enter_context(temporarily_replaced(module, "get_dir", lambda: Path(folder)))
            stack.enter_context(temporarily_replaced(module, "_download", self._supply))
            yield

    def _supply(self, link: Path, url: str, refresh: bool) -> None:
        """Link to the file for `url`: the checkpoint, a file beside it with the URL's name, or a download."""
        self.requests += 1
        neighbour = self.checkpoint_file and self.checkpoint_file.with_name(url.rpartition("/")[2])
        if self.checkpoint_file and self.requests == self.own_request:
            target = self.checkpoint_file
        elif neighbour and neighbour.is_file():
            target = neighbour
        else:
            target = self._fetch(self._cache() / link.name, url, refresh)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def _fetch(self, path: Path, url: str, refresh: bool) -> Path:
        try:
            self._download(path, url, refresh)
        except Exception as error:  # without a network this is any of URLError, ConnectionError, KeyError
            advice = (
                f"write {self.address}@CHECKPOINT" if self.checkpoint_file is None else "put it beside the checkpoint"
            )
            reason = f"can't be downloaded ({type(error).__name__}). Fetch it elsewhere and {advice}."
            raise UserError(f"{self.address} needs {url}, which {reason}") from error
        return path.resolve()
