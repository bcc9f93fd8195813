"""Random changes that damage a valid file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"inf", b"-inf", b"1e-45", b"9" * 40, b"2147483648", b"0x10", b"1,5")
TEXTS = (b"", b" ", b"\t", b"\n", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", "ä".encode(), b"../", b"/etc/passwd")


def mutate(rng: Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return one of the seed files after one to four random changes."""
    content = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_CHANGES)(rng, content, (*words, *NUMBERS, *TEXTS))
    return content


def _flip(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    near = rng.choice((len(changed), 64, 512))  # headers matter most
    for _ in range(rng.choice((1, 2, 8))):
        if changed:
            changed[rng.randrange(min(near, len(changed)))] = rng.choice((0, 255, 128, rng.randrange(256)))
    return bytes(changed)


def _number(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    """Overwrite an aligned word near the beginning: sizes, rates, channels."""
    at = 2 * rng.randrange(max(1, min(len(content), 96) // 2))
    value = rng.choice((0, 1, 2, 3, 16, 255, 4000, 8000, 44100, 65535, 2**31 - 1, 2**31, 2**32 - 1))
    kind = rng.choice("<>") + rng.choice("HIQ")
    packed = struct.pack(kind, value & (2 ** (8 * struct.calcsize(kind)) - 1))
    return content[:at] + packed + content[at + len(packed) :]


def _truncate(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _cut_out(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + rng.choice((b"", bytes(last - first))) + content[last:]


def _repeat(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    times = rng.choice((1, 2, 50)) if last - first < 2000 else 1
    return content[:last] + content[first:last] * times + content[last:]


def _word(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content) + 1)
    word = rng.choice(words) * rng.choice((1, 1, 1, 2000 if rng.random() < 0.1 else 1))
    return content[:at] + word + content[at + rng.choice((0, 0, len(word), 3)) :]


def _lines(rng: Random, content: bytes, words: Sequence[bytes]) -> bytes:
    lines = content.split(b"\n")
    chosen = rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines.insert(rng.randrange(len(lines) + 1), lines[chosen])
    else:
        lines[chosen] = rng.choice((b"", lines[chosen].replace(b",", b" "), lines[chosen] + b",x", lines[chosen][::-1]))
    return b"\n".join(lines)


_CHANGES = (_flip, _flip, _number, _truncate, _cut_out, _repeat, _word, _word, _lines)
