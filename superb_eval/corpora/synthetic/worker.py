"""Renders one shard, in a process of its own: what espeak-ng says depends on all it has said in the process before.

Exit status: 0 done; 2 the last line on stderr is one sentence for the user; anything else is a defect.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from superb_eval.errors import UserError

from .augment import SAMPLE_RATE, Wave
from .espeak import Synthesiser
from .files import explain, write_whole
from .rows import Row
from .shards import Rendered, Shard, save, split
from .tasks import PARTS


def render_shard(shard: Shard, out: Path) -> None:
    """Write the clips of a shard in order, then its record."""
    voices = {voice.name: voice for row in shard.rows for voice in row.voices}
    with Synthesiser(list(voices.values())) as synthesiser:
        save(shard, out, [_render(shard.part, row, synthesiser, out) for row in shard.rows])


def _render(part: str, row: Row, synthesiser: Synthesiser, out: Path) -> Rendered:
    recording = PARTS[part].render(row, synthesiser)
    data = to_flac(recording.audio)
    write_whole(out / row.path(part), data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Rendered(row.path(part), sha256, len(recording.audio) / SAMPLE_RATE, recording.labels)


def to_flac(audio: Wave) -> bytes:
    """A 16 kHz, 16-bit FLAC file of `audio` [samples] in [-1, 1]. Encoded in memory: libsndfile hides a full disk."""
    data = io.BytesIO()
    soundfile.write(data, np.round(audio * 32_767).astype(np.int16), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return data.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("part", str), ("size", str), ("seed", int), ("shard", int), ("out", Path)):
        parser.add_argument(name, type=kind)
    given = parser.parse_args(arguments)
    try:
        render_shard(split(given.part, given.size, given.seed)[given.shard], given.out)
    except (UserError, OSError) as error:
        sentence = explain(error, given.out) if isinstance(error, OSError) else error
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
