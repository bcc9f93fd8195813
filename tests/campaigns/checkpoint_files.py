"""Hostile files of weights: tensors that no network takes, formats that state more than they hold, streams."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.campaigns import mutations
from tests.campaigns.configurations import network
from tests.upstreams import fairseq

Weights = dict[str, Any]
Writer = Callable[[Random, Path, Path], None]


@cache
def state_dict(kind: str) -> Weights:
    """Return the weights of a small network, by the names of its library."""
    if kind == "fairseq":
        return dict(fairseq.hubert(fairseq.settings()).state_dict())
    return dict(network(kind).state_dict())


def _odd_tensors() -> list[Callable[[Any], Any]]:
    """Return what may stand for a weight."""
    import torch

    return [
        lambda w: w.to_sparse(),
        lambda w: w.reshape(len(w), -1).to_sparse_csr() if w.ndim else w,
        lambda w: torch.quantize_per_tensor(w.float(), 0.1, 0, torch.qint8),
        lambda w: torch.quantize_per_channel(
            w.float(), torch.ones(len(w)), torch.zeros(len(w), dtype=torch.long), 0, torch.quint8
        ),
        lambda w: w.to("meta"),
        lambda w: w.to(torch.complex64),
        lambda w: w > 0,
        lambda w: torch.nested.nested_tensor([w.flatten(), w.flatten()[:1]]),
        *(lambda w, t=t: w.to(t) for t in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64)),
        *(lambda w, t=t: w.to(t) for t in (torch.float8_e4m3fn, torch.uint8, torch.int32)),
        lambda w: w[:0],
        lambda w: w.reshape(-1),
        lambda w: w.sum(),
        lambda w: w[None],
        lambda w: w.flatten()[:1].expand(w.shape),
        lambda w: torch.zeros(1).expand(10**6, 10**6),
        lambda w: torch.zeros(0, 10**12),
        lambda w: w * float("nan"),
        lambda w: w * float("inf"),
        lambda w: w.transpose(0, -1) if w.ndim else w,
        lambda w: torch.nn.Parameter(w.float()),
        lambda w: w.conj(),
        lambda w: torch.empty(w.shape, dtype=torch.float32).random_(),
        *(lambda w, v=v: v for v in (None, 7, "x", [], {}, b"x", (1, 2), float("nan"), {"weight": 7})),
    ]


def odd_weights(rng: Random, path: Path, canary: Path) -> None:
    """Write a state dict of which some weights are others, are missing, or have other names."""
    import torch

    weights = dict(state_dict(rng.choice(("Hubert", "Wav2Vec2", "WavLM", "fairseq"))))
    names, change = sorted(weights), rng.choice(_odd_tensors())
    chosen = names if rng.random() < 0.2 else rng.sample(names, rng.choice((1, 1, 3)))
    if rng.random() < 0.3:
        chosen = [name for name in names if "conv_layers" in name][: rng.choice((1, 9))]
    for name in chosen:
        try:
            weights[name] = change(weights[name])
        except (RuntimeError, IndexError, NotImplementedError):  # torch has none of that shape
            weights[rng.choice((name + "x", "", "\ud800", "a" * 5000, "feature_extractor"))] = weights.pop(name)
    content = rng.choice((weights, {"model": weights}, {"state_dict": {f"module.{k}": v for k, v in weights.items()}}))
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.7)


def other_layers(rng: Random, path: Path, canary: Path) -> None:
    """Write weights whose names state other layers than there are, or that share their memory."""
    import torch

    weights = dict(state_dict(rng.choice(("Hubert", "fairseq"))))
    names = sorted(weights)
    kind = rng.randrange(5)
    if kind == 0:  # a thousand layers that are one
        layer = {name: weights[name] for name in names if ".layers.0." in name}
        weights |= {name.replace(".0.", f".{k}."): w for k in range(1000) for name, w in layer.items()}
    elif kind == 1:
        weights = {
            name.replace(".layers.1.", f".layers.{10 ** rng.randrange(1, 30)}."): w for name, w in weights.items()
        }
    elif kind == 2:
        weights = {name: weights[name] for name in rng.sample(names, rng.randrange(1, len(names)))}
    elif kind == 3:
        weights = {name: torch.zeros([int(n) * 3 for n in w.shape]) for name, w in weights.items()}
    else:
        weights |= {f"{k}.{name}": w for k in range(rng.choice((2, 100))) for name, w in weights.items()}
    torch.save(weights, path)


def safetensors_header(rng: Random, path: Path, canary: Path) -> None:
    """Write a file of safetensors whose header is hostile."""
    first = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    values: tuple[Any, ...] = (
        *(
            {**first, "shape": shape}
            for shape in ([10**18], [2**63, 2], [-2, -2], [0] * 10, [1.5], "x", None, [2, 2, 1])
        ),
        *({**first, "data_offsets": offsets} for offsets in ([0, 10**18], [16, 0], [0], [-16, 0], "x", [8, 24])),
        *({**first, "dtype": kind} for kind in ("F128", "C64", "F8_E4M3", "F4", "BOOL", "", 7, None, "I64")),
        *({}, [], 7, None, {"dtype": "F32"}),
    )
    name = rng.choice(("feature_extractor.conv_layers.0.conv.weight", "", "__metadata__", "a" * 9999, "\ud800"))
    header = {name: rng.choice(values)}
    if rng.random() < 0.2:
        header = {f"w{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(20_000)}
    text = json.dumps(header).encode()
    size = rng.choice((len(text), 0, len(text) - 1, len(text) + 1, 10**8, 2**63, 2**64 - 1))
    path.write_bytes(struct.pack("<Q", size) + text + bytes(16))
    if rng.random() < 0.2:
        path.write_bytes(struct.pack("<Q", 10**7) + b" " * 100)
    if rng.random() < 0.3:  # a terabyte of zeros, which takes no space on the disk
        first = {"dtype": "F32", "shape": [250 * 10**9], "data_offsets": [0, 10**12]}
        text = json.dumps({"feature_extractor.conv_layers.0.conv.weight": first}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(path, 8 + len(text) + 10**12)


def archives(rng: Random, path: Path, canary: Path) -> None:
    """Write an archive that isn't what `torch.save` writes: compressed, nested, or with records of other sizes."""
    import torch

    file = io.BytesIO()
    torch.save(state_dict("Hubert"), file)
    with zipfile.ZipFile(file) as whole:
        records = {info.filename: whole.read(info) for info in whole.infolist()}
    change, names = rng.randrange(6), sorted(records)
    method = zipfile.ZIP_STORED
    if change == 0:
        method = zipfile.ZIP_DEFLATED
        records[rng.choice(names)] = bytes(5 * 10**7)  # 50 MB of zeros in 50 kB
    elif change == 1:
        records[rng.choice(names)] = b""
    elif change == 2:
        records = {rng.choice(("../" + name, "/" + name, name.upper(), "a" * 9999)): v for name, v in records.items()}
    elif change == 3:
        records["archive/code/__torch__.py"] = b"import os"
        records["archive/constants.pkl"] = b"\x80\x02."
    elif change == 4:
        records["archive/byteorder"] = rng.choice((b"big", b"", b"middle"))
    else:
        records = {name: value[: len(value) // 2] for name, value in records.items()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in records.items():
            archive.writestr(name, value)


class _Run:
    """Unpickling it makes a file: proof that a loader ran code."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.value = function, arguments

    def __reduce__(self) -> Any:
        return self.value


def pickles(rng: Random, path: Path, canary: Path) -> None:
    """Write a pickle, in torch's format or by itself, that would run code or fill the memory."""
    import torch

    command = f"touch {canary}"
    content: Any = rng.choice(
        (
            *(_Run(os.system, command), _Run(eval, f"open({str(canary)!r}, 'w')"), _Run(os.mkdir, str(canary))),
            *(
                _Run(exec, f"open({str(canary)!r}, 'w')"),
                _Run(bytearray, 10**12),
                _Run(range, 10**18),
                _Run(pow, 9, 9**9),
            ),
            *(
                {"a": 7},
                7,
                None,
                "x",
                [1],
                {(1, 2): 3},
                object,
                {"model": 7},
                {"cfg": 7, "model": []},
                {1: 2},
                {None: 3},
            ),
        )
    )
    if rng.random() < 0.5:
        content = {"model": state_dict("fairseq"), "more": content}
    if rng.random() < 0.3:
        path.write_bytes(pickle.dumps(content, protocol=rng.choice((0, 2, 4, 5))))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.5)


def bombs(rng: Random, path: Path, canary: Path) -> None:
    """Write a few bytes that stand for many, or many that stand for nothing."""
    nested = b"\x80\x02" + b"]" * 100_000 + b"." if rng.random() < 0.5 else b"\x80\x02(" + b"(" * 10_000 + b"."
    grown = b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 60 + b"."
    claims = (b"\x80\x04\x8e" + struct.pack("<Q", 2**62), b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.")
    indices = b"\x80\x02Nr\xff\xff\xff\x7f.", b"I" + b"9" * 100_000 + b"\n.", b"\x80\x02\x8b\xff\xff\xff\x7f"
    path.write_bytes(rng.choice((nested, grown, *claims, *indices, b"", b"\0" * 4096, b"PK\x03\x04", b"\x80")))
    if rng.random() < 0.2:
        os.truncate(path, 10**12)


def streams(rng: Random, path: Path, canary: Path) -> None:
    """Make a pipe, a link to a device, a link in a circle, a folder, or a file that may not be read."""
    kind = rng.choice(("pipe", "/dev/zero", "/dev/urandom", "/dev/full", path.name, "folder", "secret"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "secret":
        path.touch(mode=0)
    else:
        path.symlink_to(kind)


def damaged(rng: Random, path: Path, canary: Path) -> None:
    """Write one of two files after random changes."""
    import torch
    from safetensors.torch import save

    file = io.BytesIO()
    torch.save(state_dict("Hubert"), file)
    seeds = [file.getvalue(), save(state_dict("Hubert"))]
    path.write_bytes(mutations.mutate(rng, seeds, (b"PK", b"cposix\nsystem\n", b'"dtype":"F64"')))


def other_files(rng: Random, path: Path, canary: Path) -> None:
    """Write what people confuse with weights."""
    texts = (
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>",
        b"{}",
        b"a: 1\n",
        b"\x89PNG\r\n",
        b"\n",
    )
    path.write_bytes(rng.choice(texts) * rng.choice((1, 1000)))


WRITERS: dict[Writer, int] = {
    odd_weights: 8,
    other_layers: 3,
    safetensors_header: 3,
    archives: 2,
    pickles: 3,
    bombs: 2,
    streams: 1,
    damaged: 2,
    other_files: 1,
}
"""How often each kind of file is written."""

HEADS = ("checkpoint:", "checkpoint:", "", "hubert_nano@", "hubert@", "distilhubert@", "distilhubert_heads@")
LARGE_HEADS = ("torchaudio:HUBERT_BASE@", "torchaudio:WAV2VEC2_BASE@", "torchaudio:WAVLM_BASE@")
LARGE_HEADS += ("s3prl:hubert_local@", "s3prl:distiller_local@", "s3prl:wavlm_local@", "s3prl:wav2vec2_custom@")
"""Addresses that build a whole network, or import another library, first."""


def files(folder: Path, rng: Random, count: int, canary: Path, large: float) -> Iterator[str]:
    """Yield the addresses of `count` files of weights, one at a time; the last one is removed.

    `large` is the share of addresses that take seconds.
    """
    for number in range(count):
        writer = rng.choices(list(WRITERS), list(WRITERS.values()))[0]
        suffix = ".safetensors" if writer is safetensors_header else rng.choice((".pt", ".pt", ".ckpt", ".bin", ""))
        path = folder / f"weights-{number}{suffix}"
        writer(rng, path, canary)
        selection = rng.choice(("", "", "", "", "#heads=2", "#module", "#heads=0", "#" + "x" * 400))
        yield f"{rng.choice(LARGE_HEADS if rng.random() < large else HEADS)}{path}{selection}"
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
