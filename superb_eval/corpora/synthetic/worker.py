"""Renders one shard in a fresh process: espeak-ng's output depends on all that it synthesised in the process before.

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

from superb_eval.corpora.synthetic.augment import SAMPLE_RATE, Wave
from superb_eval.corpora.synthetic.clips import ClipPlan
from superb_eval.corpora.synthetic.espeak import Synthesiser
from superb_eval.corpora.synthetic.shards import ClipRecord, ClipShard, save, split
from superb_eval.corpora.synthetic.tasks import PARTS
from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from superb_eval.runtime.screen import show


def render_shard(shard: ClipShard, out: Path) -> None:
    """Write the clips of a shard in order, then its record.

    Raises:
        UserError: the disk is full or may not be written.
    """
    voices = {voice.name: voice for plan in shard.plans for voice in plan.voices}
    with Synthesiser(list(voices.values())) as synthesiser:
        save(shard, out, [_render(shard.part, plan, synthesiser, out) for plan in shard.plans])


def _render(part: str, plan: ClipPlan, synthesiser: Synthesiser, out: Path) -> ClipRecord:
    rendered = PARTS[part].render_clip(plan, synthesiser)
    data = to_flac(rendered.audio)
    atomic_files.write_bytes(out / plan.path(part), data)
    sha256 = hashlib.sha256(data).hexdigest()
    return ClipRecord(plan.path(part), sha256, len(rendered.audio) / SAMPLE_RATE, rendered.labels)


def to_flac(audio: Wave) -> bytes:
    """Return `audio` [samples] in [-1, 1] as a 16 kHz, 16-bit FLAC file, encoded in memory.

    libsndfile hides a full disk where it writes the file itself.
    """
    data = io.BytesIO()
    soundfile.write(data, np.round(audio * 32_767).astype(np.int16), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return data.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, render the shard and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("part", str), ("size", str), ("seed", int), ("shard", int), ("out", Path)):
        parser.add_argument(name, type=kind)
    options = parser.parse_args(arguments)
    try:
        with atomic_files.explain_disk_errors(options.out):
            render_shard(split(options.part, options.size, options.seed)[options.shard], options.out)
    except UserError as error:
        show(error, error=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
