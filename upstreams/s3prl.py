"""s3prl's upstreams, at `s3prl:ENTRY` and `s3prl:ENTRY@CHECKPOINT`, on torchaudio versions that s3prl itself fails on.

`s3prl.hub` imports every upstream, and two names it needs left torchaudio with version 2.9 (s3prl issue 575). Here the
names are supplied, and only the file that defines the entry is imported: s3prl's `hubconf.py` files are read as text.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import pickle
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
from upstreams.base import Upstream
from upstreams.loading.probe_module import format_error, wrap
from upstreams.loading.safe_pickle import TRUST, no_calls_in_eval, refused_pickle, replaced, tensors_only

_OPEN = ("_local", "_url", "_custom", "_gdriveid")
"""What the names of entries end with that take any checkpoint; the others fetch one of their own."""

_HUGGING_FACE = ("s3prl.upstream.hf_hubert.hubconf", "s3prl.upstream.hf_wav2vec2.hubconf")
"""Whose checkpoint may be a hub id, which is no file."""


@dataclass(frozen=True)
class Entry:
    """One public function of an s3prl `hubconf.py`."""

    name: str
    module: str
    argument: str | None
    """The argument a checkpoint goes to; None: the entry fetches its own."""

    @property
    def package(self) -> str:
        """The package whose files make up the upstream, such as `s3prl.upstream.hubert`."""
        return self.module.rpartition(".")[0]


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open an entry of s3prl's hub; with a checkpoint, that file takes the place of the one the entry would fetch.

    Raises:
        UserError: no such entry; a checkpoint is missing, unfit, or wants to run code; nothing could be downloaded;
            or the hidden states are not of one shape.
    """
    if seed is not None:
        raise UserError(f"s3prl:{name} has no random weights: s3prl's entries need a checkpoint. Drop '@random'.")
    entry = _entry(name)
    if entry.argument is not None and checkpoint is None and name != "customized_upstream":
        what = "settings (a YAML file)" if entry.argument == "model_config" else "weights"
        raise UserError(f"s3prl:{name} comes without {what}. Write s3prl:{name}@FILE.")
    address = f"s3prl:{name}" + (f"@{checkpoint}" if checkpoint else "")
    place = None if checkpoint is None else _place(entry, checkpoint)
    model = _build(entry, place, address)
    settings = Path(place).read_text(encoding="utf8") if place and entry.argument == "model_config" else ""
    source = f"s3prl {sys.modules['s3prl'].__version__}, {entry.package}"
    with contextlib.redirect_stdout(io.StringIO()):
        return wrap(model, address, f"s3prl's {name}", source=source, settings=settings)


def entries() -> list[str]:
    """Return the names of s3prl's upstreams: `s3prl.hub.options()` less three helpers that it lists by accident."""
    return sorted(_index())


def supply_missing_names() -> None:
    """Give torchaudio >= 2.9 the two names that s3prl imports, where they are absent.

    `set_audio_backend` does nothing: there is one backend. `sox_effects` fails when used, and says so.
    """
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda backend: None
    try:
        importlib.import_module("torchaudio.sox_effects")
    except ModuleNotFoundError:
        module: Any = ModuleType("torchaudio.sox_effects")
        # Without a spec, whoever asks importlib whether the module is there gets a ValueError.
        module.__spec__ = ModuleSpec(module.__name__, loader=None)
        module.apply_effects_file = module.apply_effects_tensor = _no_sox
        sys.modules["torchaudio.sox_effects"] = torchaudio.sox_effects = module


def whole_hub() -> ModuleType:
    """Import `s3prl.hub` with all of its upstreams (seconds), the missing names supplied."""
    supply_missing_names()
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("s3prl.hub")


def _no_sox(*_: object, **__: object) -> NoReturn:
    raise UserError("torchaudio has no sox effects since version 2.9. Apply them to the audio files beforehand.")


def _entry(name: str) -> Entry:
    if name not in _index():
        raise UserError(f"s3prl has no upstream '{name}'.{near_miss(name, _index())} It has {len(_index())}.")
    return _index()[name]


@functools.cache
def _index() -> dict[str, Entry]:
    """Return every entry by name, read from `hub.py` and the files it names; the last of two homonyms holds."""
    found: dict[str, Entry] = {}
    for node in ast.parse((_folder() / "hub.py").read_text(encoding="utf8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("hubconf"):
            names = {alias.name for alias in node.names}
            for entry in _defined(str(node.module)):
                if names == {"*"} or entry.name in names:
                    found[entry.name] = entry
    return found


def _defined(module: str) -> Iterator[Entry]:
    path = _folder().joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            takes_config = "model_config" in {argument.arg for argument in node.args.args}
            yield Entry(node.name, module, "model_config" if takes_config else _argument(node.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").endswith("hubconf"):
            for name in (alias.asname or alias.name for alias in node.names):
                yield Entry(name, module, _argument(name))


def _argument(name: str) -> str | None:
    return "ckpt" if name.endswith(_OPEN) or name == "customized_upstream" else None


def _folder() -> Path:
    """Return where s3prl is installed, without importing it."""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        raise UserError("s3prl is not installed. Run `pip install s3prl`.")
    return Path(spec.origin).parent


def _place(entry: Entry, checkpoint: str) -> str:
    """Return the checkpoint's file, downloaded if it is a URL; for Hugging Face's entries, whatever was given."""
    if checkpoint.startswith(("http://", "https://")):
        download = importlib.import_module("s3prl.util.download")
        with _Files(f"s3prl:{entry.name}", None).installed():
            return str(download.urls_to_filepaths(checkpoint))
    if not Path(checkpoint).exists() and entry.module not in _HUGGING_FACE:
        raise UserError(f"s3prl:{entry.name}@{checkpoint}: no such file. Give a checkpoint in s3prl's own layout.")
    return checkpoint


def _build(entry: Entry, place: str | None, address: str) -> nn.Module:
    supply_missing_names()
    files = _Files(address, place, turn=2 if entry.package.endswith(".roberta") else 1)
    arguments = {entry.argument: place} if entry.argument and place else {}
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            function = _import(entry)
            with files.installed(), tensors_only(), no_calls_in_eval("s3prl."):
                model: nn.Module = function(**arguments)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise refused_pickle(address, f"If you trust it, set {TRUST}=1.") from error
    except Exception as error:  # each entry fails in ways of its own
        advice = "Is it a checkpoint of that kind?" if place else "Give weights with @CHECKPOINT."
        raise UserError(f"{address} can't be built: {format_error(error)}. {advice}") from error
    if place and not arguments and files.asked < files.turn:
        raise UserError(f"s3prl:{entry.name} takes no checkpoint: write it without '@'.")
    return model


def _import(entry: Entry) -> Callable[..., Any]:
    """Import the file that defines an entry; three packages reach for others through `s3prl.hub`."""
    path = _folder().joinpath(*entry.package.split(".")[1:])
    if any("s3prl.hub," in text or "s3prl.hub." in text for text in map(Path.read_text, path.glob("*.py"))):
        whole_hub()
    function: Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.name)
    return function


class _Files:
    """What s3prl's downloader does meanwhile: hands out the user's checkpoint, else fetches, with a clear error.

    `turn` says which of the files that an entry asks for is its own: RoBERTa's asks for those of a front end first.
    """

    def __init__(self, address: str, place: str | None, turn: int = 1) -> None:
        self.address = address
        self.place = None if place is None else Path(place).resolve()
        self.turn = turn
        self.asked = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take the downloader's place; s3prl resolves the links that it finds in its folder of downloads."""
        module = vars(importlib.import_module("s3prl.util.download"))
        self._download, self._cache = module["_download"], module["get_dir"]
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            stack.enter_context(replaced(module, "get_dir", lambda: Path(folder)))
            stack.enter_context(replaced(module, "_download", self._supply))
            yield

    def _supply(self, link: Path, url: str, refresh: bool) -> None:
        """Make `link` point at the file for `url`: the checkpoint, one of the URL's name beside it, or a download."""
        self.asked += 1
        beside = self.place and self.place.with_name(url.rpartition("/")[2])
        if self.place and self.asked == self.turn:
            target = self.place
        elif beside and beside.is_file():
            target = beside
        else:
            target = self._fetch(self._cache() / link.name, url, refresh)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def _fetch(self, path: Path, url: str, refresh: bool) -> Path:
        try:
            self._download(path, url, refresh)
        except Exception as error:  # no network shows as any of URLError, ConnectionError, KeyError
            advice = f"write {self.address}@CHECKPOINT" if self.place is None else "put it beside the checkpoint"
            told = f"can't be downloaded ({type(error).__name__}). Fetch it elsewhere and {advice}."
            raise UserError(f"{self.address} needs {url}, which {told}") from error
        return path.resolve()
