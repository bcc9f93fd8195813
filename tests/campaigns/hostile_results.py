"""Results folders as a stranger may hand them over: records with other values, and files that are none."""

from __future__ import annotations

import copy
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.campaigns import mutations

DEEP = "[" * 3_000 + "]" * 3_000

VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**63, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", "x", "x" * 120_000, "\x1b[2J\x1b]0;t\x07", "\u202e\u0000", "\ud800", "../../../../etc/passwd", "/dev/zero"),
    *("{outside}/evil.py:X", "{outside}/evil.py:X@random", "s3prl:hubert_local@{outside}/evil.pt", "hubert@/dev/zero"),
    *("checkpoint:{outside}/pipe", "hf:{outside}", "superb-eval run {outside}/pipe -u fbank", "strict", "historical"),
    *("superb-eval run ks --data {outside}/pipe", "superb-eval run ks --data /dev", "'unclosed", "superb-eval"),
    *([], {}, [None], [[]], {"": {}}, {"a": [1]}, ["w"] * 20_000, [0.0] * 20_000, {str(k): k for k in range(20_000)}),
    *("ks", "sd", "qbe", "asr", "no_such_task", "2026", "2026-13-45T99:99:99", "cuda:7", "9" * 30),
)
"""What a value of a record is replaced by; `{outside}` is a folder beside the results."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below the top of a JSON document."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*path, key))


def mutate_record(rng: Random, content: bytes, outside: Path) -> bytes:
    """Return a record after one to three changes of its values, or of its bytes."""
    if rng.random() < 0.15:
        return mutations.mutate(rng, [content], (b'"', b"{", b"null", b"NaN", DEEP.encode()))
    record = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, record, rng.choice(list(places(record))), outside)
    text = json.dumps(record)
    if rng.random() < 0.03:  # keys twice, which json.dumps can't write
        text = '{"task": "sd", ' + text[1:]
    return text.encode("utf8", "surrogatepass")


def _change(rng: Random, record: Any, path: tuple[Any, ...], outside: Path) -> None:
    for key in path[:-1]:
        record = record[key]
    kind = rng.random()
    if kind < 0.1:
        del record[path[-1]]
    elif kind < 0.15 and isinstance(record, dict):
        record["unknown\x1b"] = 1
    elif kind < 0.25 and isinstance(record, list):
        record += [copy.deepcopy(record[path[-1]])] * rng.choice((1, 2, 3_000))
    else:
        value = copy.deepcopy(rng.choice(VALUES))
        record[path[-1]] = value.format(outside=outside) if isinstance(value, str) and "{outside}" in value else value


def _pipe(path: Path, outside: Path, rng: Random) -> None:
    os.mkfifo(path)


def _socket(path: Path, outside: Path, rng: Random) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def _link(target: str) -> Callable[[Path, Path, Random], None]:
    return lambda path, outside, rng: path.symlink_to(target.format(outside=outside, name=path.name))


def _folder(path: Path, outside: Path, rng: Random) -> None:
    path.mkdir()


def _sparse(path: Path, outside: Path, rng: Random) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


def _bytes(content: bytes) -> Callable[[Path, Path, Random], None]:
    return lambda path, outside, rng: path.write_bytes(content) and None


def _noise(path: Path, outside: Path, rng: Random) -> None:
    path.write_bytes(rng.randbytes(5_000))


Trap = Callable[[Path, Path, Random], None]

TRAPS: dict[str, Trap] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to a terminal": _link("/dev/tty"),
    "a link to a pipe": _link("{outside}/pipe"),
    "a link out": _link("{outside}/secret.csv"),
    "a link in a circle": _link("{name}"),
    "a dangling link": _link("nowhere"),
    "a folder": _folder,
    "a terabyte": _sparse,
    "nothing": _bytes(b""),
    "noise": _noise,
    "other encoding": _bytes("ä,ü\n".encode("latin1")),
    "a null": _bytes(b"null"),
    "a list": _bytes(b"[]"),
    "deep nesting": _bytes(DEEP.encode()),
    "huge integers": _bytes(b'{"1": ' + b"9" * 100_000 + b"}"),
}
"""What stands in place of a file."""

COLUMNS = "id,truth,answer,fold,speaker"

TABLES: dict[str, str] = {
    "other columns": "id,truth\n1,yes\n",
    "a million columns": ",".join(["c"] * 10**6) + "\n",
    "no rows": f"{COLUMNS}\n",
    "long cells": f"{COLUMNS}\na,{'y' * 10**6},n,1,s\n",
    "scores that are none": COLUMNS
    + "\n"
    + "".join(
        f"a{k} b{k},{k % 2},{w},1,s\tt\n"
        for k, w in enumerate(("nan", "inf", "1e999", "-inf", "1e308", "x", "", "0x1", "1_0", "٣"))
    ),
    "cells of other shapes": COLUMNS
    + "\n"
    + "".join(
        f'r{k},"{cell}","{cell}",1,\n'
        for k, cell in enumerate(
            ("[[0, 1, 2]]", "[[1e308, -1e308, a]]", "{}", "[[0, 999999999, a]]", "[1]", "null", "[" * 999)
        )
    ),
    "missing cells": f"{COLUMNS}\na,yes\nb,yes,no,1,s,more\n",
    "folds": COLUMNS
    + "\n"
    + "".join(f"u{k},a,a,{fold},s\n" for k, fold in enumerate(("-1", "1e9", "9" * 50, "", "1.0"))),
    "one id": COLUMNS + "\n" + "u,a,b,1,s\n" * 50,
    "one row": f"{COLUMNS}\nu,a,b,1,s\n",
    "escapes": f"{COLUMNS}\nu\x1b[2J,\u202ea,\x07b,1,s\nv,a,a,1,s\n",
    "empty references": f"{COLUMNS}\nu,,,1,s\nv,,,1,s\n",
    "quotes": f'{COLUMNS}\nu,"a,b,1,s\n',
}
"""Contents of predictions.csv."""

LABELS = (
    '{"1": null}',
    '{"1": {}}',
    '{"1": []}',
    '{"1": [1, 2]}',
    '{"1": 1000000000}',
    '{"2": ["a"]}',
    '{"1": "yes"}',
    '{"1": ["only one"]}',
    '{"1": {"characters": []}}',
    '{"1": {"sentencepiece": "x"}}',
    '{"1": ["yes", "no", "\\u001b[2J"]}',
)
"""Contents of labels.json."""


def header_bomb(rng: Random) -> bytes:
    """Return bytes of safetensors whose header lies: of its own length, of shapes, of types, of offsets."""
    kind = rng.randrange(5)
    if kind == 0:
        return struct.pack("<Q", rng.choice((2**63, 2**40, 99_999_999))) + b"{}"
    entry = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}
    if kind == 1:
        entry["dtype"] = rng.choice(("F8_E4M3", "BOOL", "X", "I64", "BF16"))
        entry["shape"] = [4]
    if kind == 2:
        entry |= {"shape": [1], "data_offsets": [-4, 2**62]}
    header = DEEP if kind == 3 else json.dumps({f"head.{k}": entry for k in range(1 if kind < 4 else 20_000)})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4)


def other_head(rng: Random, path: Path) -> None:
    """Write a head of our own form with other tensors: missing, of other shapes and types, not finite."""
    import torch

    from superb_eval.runtime import safetensors_io

    tensors, _ = safetensors_io.read(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    name = rng.choice(sorted(tensors))
    changes: Sequence[Callable[[], torch.Tensor | None]] = (
        lambda: None,
        lambda: tensors[name].flatten()[:1],
        lambda: tensors[name].to(torch.bfloat16),
        lambda: torch.full_like(tensors[name], float("nan")),
        lambda: torch.zeros(3, 0),
    )
    changed = rng.choice(changes)()
    del tensors[name]
    safetensors_io.write(path, tensors if changed is None else {**tensors, name: changed})
