"""Opens an upstream by its address.

| address | opens |
| --- | --- |
| `NAME` | an entry of this folder, with its published weights |
| `NAME@CHECKPOINT` | the same with weights from a file, a folder or a hub id |
| `NAME@random`, `NAME@random:7` | the same with seeded random weights (seed 0 unless one is stated) |
| `SCHEME:REST[@CHECKPOINT]` | what `open_address` of `upstreams/SCHEME.py` returns: `s3prl:fbank`, `hf:FOLDER` |
| `FILE.py:Class[@CHECKPOINT]` | a class from a file of the user's own |

What else people type (a hub id, a folder, a file of weights) is one of these by `upstreams.loading.addresses`.

Every file at the ground level of this folder is a family, but the two of the interface: `base.py` and this one. A name
begins with the name of its family's file (`fbank_nonorm` lies in `fbank.py`), so that only that file is imported. Other
packages add names by the entry point group `superb_eval.upstreams`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import upstreams
from superb_eval.errors import UserError, near_miss, nearest, same_names
from upstreams.base import Card, Upstream, freeze
from upstreams.loading import addresses

INTERFACE = {Upstream.__module__.rpartition(".")[2], __name__.rpartition(".")[2]}
"""The modules at the ground level of this folder that are no family: the base class and the registry."""

OPENED_BY_OTHERS = ("s3prl", "torchaudio")
"""Schemes whose checkpoints are opened by the code of another library."""


@dataclass(frozen=True)
class Address:
    """The parts of an upstream's address."""

    text: str
    name: str
    scheme: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    """Seed of random weights; None: stored weights."""


def parse(text: str) -> Address:
    """Split an address into its parts.

    Raises:
        UserError: an empty name, a file without a class, or a seed that isn't a number.
    """
    head, _, checkpoint = text.partition("@")
    scheme, name = addresses.split_scheme(head)
    if not name:
        raise UserError(f"'{text}' names no upstream. Expected NAME, NAME@CHECKPOINT or SCHEME:NAME.")
    if scheme is None and name.endswith(".py"):
        raise UserError(f"'{text}' names a file but no class in it. Write {name}:Class.")
    word, _, seed = checkpoint.partition(":")
    if word != "random":
        return Address(text, name, scheme, checkpoint or None)
    if seed and not (seed.isdecimal() and seed.isascii() and len(seed) <= 20 and int(seed) < 2**64):
        shown = seed if len(seed) <= 40 else f"{seed[:40]}..."
        raise UserError(f"'{name}@random': the seed '{shown}' is not a number below 2^64. Expected NAME@random:7.")
    return Address(text, name, scheme, None, int(seed or 0))


def canonical(text: str) -> str:
    """Return the address that a text is opened as, as records and folders name it; see `addresses.canonical`.

    Raises:
        UserError: it names a file or folder that isn't there, or that holds nothing that can be opened.
    """
    return addresses.canonical(text, lambda name: name in names())


def load(text: str) -> Upstream:
    """Open the upstream at an address, or of what `canonical` finds there, frozen and in evaluation mode.

    Raises:
        UserError: no upstream has that name (near misses are suggested), or its weights can't be loaded.
    """
    text = canonical(text)
    address = parse(text)
    if address.scheme and address.scheme.endswith(".py"):
        from upstreams.loading import adapters

        return freeze(adapters.from_file(Path(address.scheme), address.name, address.checkpoint, address.seed))
    if address.scheme:
        return freeze(_find_scheme(address.scheme, text).open_address(address.name, address.checkpoint, address.seed))
    module, card = _find_card(address.name)
    if isinstance(module, EntryPoint):
        from upstreams.loading import adapters

        return freeze(adapters.from_entry_point(module, address.checkpoint, address.seed))
    return freeze(module.build(card, address.checkpoint, address.seed))


def weights_source(name: str) -> str | None:
    """Return the file, folder or hub id that the weights of a name of this folder are loaded from; None: it has none.

    Raises:
        UserError: no upstream has that name.
    """
    module, card = _find_card(name)
    source: str | None = module.weights_source(card, None) if card and hasattr(module, "weights_source") else None
    return source


def weight_files(text: str) -> list[Path] | None:
    """Return the files that the weights at an address are read from, sorted; empty for `@random`.

    None: that isn't known before they are loaded. A family defines it by a function `weights_source`.

    Raises:
        UserError: no upstream has that name.
    """
    address = parse(canonical(text))
    if address.scheme:
        return _files_of_address(address)
    module, card = _find_card(address.name)
    if isinstance(module, EntryPoint) or not hasattr(module, "weights_source"):
        return None
    if address.seed is not None:
        return []
    source = module.weights_source(card, address.checkpoint)
    if source is None:
        return None
    path = Path(source if os.path.exists(source) else source.partition("#")[0])
    if os.path.isdir(path):
        return sorted(file for file in path.iterdir() if file.suffix in {".json", ".safetensors", ".bin"})
    return [path] if os.path.isfile(path) else None  # None: a hub id, perhaps


def code_files(text: str) -> list[str]:
    """Return the files that decide which code runs when an address is opened: a user's own code, and what it loads.

    Of `FILE.py:Class@CHECKPOINT` both; of s3prl's and torchaudio's entries and of those of other packages the
    checkpoint, which their code opens. Empty where this package reads files as data alone, as in `hubert@FILE`.

    Raises:
        UserError: no upstream has that name.
    """
    address = parse(canonical(text))
    loaded = [address.checkpoint] if address.checkpoint else []
    if address.scheme:
        if address.scheme.endswith(".py"):
            return [address.scheme, *loaded]
        return loaded if address.scheme in OPENED_BY_OTHERS else []
    module, _ = _find_card(address.name)
    return loaded if isinstance(module, EntryPoint) else []


def _files_of_address(address: Address) -> list[Path] | None:
    """Return the files behind `hf:FOLDER` and `checkpoint:FILE`; None: behind an address of another kind."""
    path = Path(address.name)
    if address.scheme == "hf" and os.path.isdir(path) and address.checkpoint is None:
        from upstreams.loading import hf_folders

        weights = [] if address.seed is not None else hf_folders.weight_files(path)
        return sorted([*path.glob("*.json"), *weights])
    if address.scheme == "checkpoint" and address.checkpoint is None and address.seed is None:
        path = path if os.path.exists(path) else Path(address.name.partition("#")[0])
        return [path] if os.path.isfile(path) else None
    return None


def cards() -> list[Card]:
    """Return the card of every upstream of this folder, by name."""
    all_cards = [card for family in _families() for card in getattr(_import_family(family), "CARDS", ())]
    return sorted(all_cards, key=lambda card: card.name)


def names() -> list[str]:
    """Return every name that `load` takes: this folder's and those of installed packages."""
    return sorted({card.name for card in cards()} | {point.name for point in _entry_points()})


def card(name: str) -> Card:
    """Return the card of an upstream; of a name of this folder, without loading weights.

    Raises:
        UserError: no upstream has that name, or `load` refuses the address.
    """
    name = canonical(name)
    if parse(name).scheme:
        return load(name).card
    module, card = _find_card(name)
    return card or Card(name=name, summary=f"from another package: {module.value}", stride=0)


def _find_card(name: str) -> tuple[ModuleType, Card] | tuple[EntryPoint, None]:
    for family in sorted(_families(), key=len, reverse=True):
        if name.startswith(family):
            module = _import_family(family)
            for card in getattr(module, "CARDS", ()):
                if card.name == name:
                    return module, card
    for point in _entry_points():
        if point.name == name:
            return point, None
    available = names()
    raise UserError(
        f"no upstream is called '{name}'.{_suggestion(name, available)} Known: {', '.join(available)}; "
        "see `superb-eval upstream list` for other kinds of address."
    )


def _suggestion(name: str, available: list[str]) -> str:
    """Return the addresses that a text which is no name may stand for: of this folder, the hub, or s3prl."""
    from upstreams import s3prl

    try:
        entries = s3prl.entries()
    except UserError:  # it isn't installed
        entries = []
    same = same_names(name, available)
    if not same:
        same = [f"hf:{id_}" for id_ in addresses.HUB_IDS if same_names(name, [id_.partition("/")[2]])]
        same += [f"s3prl:{entry}" for entry in same_names(name, entries)]
    if same:
        return f" Did you mean {' or '.join(map(repr, same))}?"
    of_s3prl = nearest(name, entries)
    return near_miss(name, available) or (f" Did you mean 's3prl:{of_s3prl}'?" if of_s3prl else "")


def _find_scheme(scheme: str, text: str) -> ModuleType:
    schemes = [family for family in _families() if hasattr(_import_family(family), "open_address")]
    if scheme not in schemes:
        kinds = ", ".join(f"{k}:NAME" for k in schemes)
        raise UserError(f"'{text}': no addresses begin with '{scheme}:'.{near_miss(scheme, schemes)} Known: {kinds}.")
    return _import_family(scheme)


def _families() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(upstreams.__path__) if m.name not in INTERFACE and not m.ispkg]


def _import_family(family: str) -> ModuleType:
    return importlib.import_module(f"upstreams.{family}")


def _entry_points() -> list[EntryPoint]:
    return sorted(entry_points(group="superb_eval.upstreams"), key=lambda point: point.name)
