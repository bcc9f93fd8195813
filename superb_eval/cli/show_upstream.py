"""The command `upstream show`: what a name, a file, a folder or another address of an upstream is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superb_eval.cli.options import MaxGb
from superb_eval.runtime.screen import show

if TYPE_CHECKING:
    from upstreams.registry import Address

Lines = dict[str, object]

UNKNOWN_LICENCE = "unknown: see where the weights come from"


def upstream_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE|FOLDER|ADDRESS", help="what `run -u` takes")],
    max_gb: MaxGb = None,
) -> None:
    """Show what an upstream is. Of a name: its card (size, stride, licence, source, training data).

    Of a file or folder: its layout, architecture, size, convolutions, whether waveforms are normalised, what is left
    out, and the address that opens it. No code of a file is run, and of a folder the headers alone are read.

    \b
    superb-eval upstream show hubert_mini
    superb-eval upstream show path/to/checkpoint.pt        # of fairseq, s3prl, torchaudio, Lightning, a state dict
    superb-eval upstream show path/to/folder               # of transformers
    superb-eval upstream show facebook/hubert-base-ls960   # on its hub: config.json is fetched, no weights
    """
    del max_gb  # set by its callback
    from upstreams import registry

    address = registry.canonical(name)
    lines = _stored(address, registry.parse(address)) or _card(address)
    for key, value in lines.items():
        show(f"{key:<17}{'; '.join(map(str, value)) if isinstance(value, tuple) else value}")


def _card(address: str) -> Lines:
    from dataclasses import asdict

    from upstreams import registry

    return asdict(registry.card(address))


def _stored(address: str, parsed: Address) -> Lines | None:
    """Return what the weights behind an address are; None: it names none in a file, a folder or on the hub."""
    if parsed.seed is not None:
        return None
    if parsed.scheme == "hf":
        return _folder(address, parsed.name, parsed.checkpoint)
    source = address.partition(":" if parsed.scheme == "checkpoint" else "@")[2]
    if parsed.scheme not in {None, "checkpoint"} or not source:
        return None
    if Path(source).is_dir():
        return _folder(address, source, None)
    is_file = Path(source).is_file() or Path(source.partition("#")[0]).is_file()
    return _file(address, source) if is_file or parsed.scheme == "checkpoint" else None


def _file(address: str, source: str) -> Lines:
    from upstreams import checkpoint

    found = checkpoint.describe(source)
    lines: Lines = {
        "file": found.path,
        "layout": found.layout,
        "architecture": found.architecture,
        "size": _size(found.layers, found.width, found.parameters, found.path.stat().st_size / 1e6),
        "convolutions": f"{found.convolutions}, as (channels, kernel, stride)",
        "normalise": _normalised(found.normalise),
    }
    if found.prefix:
        lines["prefix"] = f"{found.prefix} of the encoder's weights"
    lines["left out"] = found.left_out or "nothing"
    if found.foreign:
        lines["not loaded"] = "; ".join(found.foreign) + " (classes that its pickle names; none was run)"
    if found.notes:
        lines["notes"] = found.notes
    return {**lines, **_next_steps(address)}


def _folder(address: str, source: str, revision: str | None) -> Lines:
    from upstreams import hf

    found = hf.describe(source, revision)
    card = found.card
    lines: Lines = {
        "folder" if Path(source).is_dir() else "hub id": source,
        "layout": "transformers",
        "architecture": found.architecture,
        "size": _size(card.layers - 1, card.width, card.parameters, found.megabytes),
        "convolutions": found.convolutions,
        "normalise": _normalised(found.normalise),
        "weights": found.weights,
        "left out": found.left_out or "nothing",
    }
    if found.missing:
        lines["missing"] = f"{found.missing}; it can't be opened so"
    if card.notes:
        lines["notes"] = card.notes
    return {**lines, **_next_steps(address)}


def _size(layers: int, width: int, parameters: int, megabytes: float | None) -> str:
    stored = "" if megabytes is None else f", {megabytes:.1f} MB stored"
    return f"{layers} layer{'s' * (layers != 1)} x {width}, {parameters:,} parameters{stored}"


def _normalised(normalise: bool | None) -> str:
    if normalise is None:
        return "no: it reads a spectrum"
    return "waveforms to zero mean and unit variance" if normalise else "no: waveforms as they are"


def _next_steps(address: str) -> Lines:
    import shlex

    word = shlex.quote(address)
    return {
        "licence": UNKNOWN_LICENCE,
        "opened as": address,
        "next": f"superb-eval upstream check {word}; superb-eval run ks -u {word}",
    }
