"""Ogg Vorbis and Opus: every stream is read, and a cut is a slice of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from tests.data.sounds import RATE, assert_cuts_are_slices, read, voice, write


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("seconds", [1.5, 25.0])
def test_a_cut_of_an_ogg_is_a_slice_of_the_whole(tmp_path: Path, subtype: str, seconds: float) -> None:
    samples = voice(round(seconds * RATE) + 77)
    path = write(tmp_path / "a.ogg", samples, format="OGG", subtype=subtype)
    assert len(read(path)) == len(samples)
    assert_cuts_are_slices(path, seconds, np.random.default_rng(0))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_stream_of_a_chained_ogg_is_read(tmp_path: Path, subtype: str) -> None:
    first = write(tmp_path / "1.ogg", voice(20_000), format="OGG", subtype=subtype)
    second = write(tmp_path / "2.ogg", voice(30_000, seed=1), format="OGG", subtype=subtype)
    path = tmp_path / "both.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert soundfile.info(path).frames == 20_000, "libsndfile drops what follows"
    whole = np.concatenate([read(first), read(second)])
    np.testing.assert_array_equal(read(path), whole)
    np.testing.assert_allclose(read(path, 1.0, 2.0), whole[16_000:32_000], atol=1e-4)


def test_streams_of_two_rates_in_one_ogg_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{rate}.ogg", voice(rate, rate), rate) for rate in (8_000, 16_000)]
    path = tmp_path / "both.ogg"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    with pytest.raises(UserError, match="its streams have 8000 and 16000 Hz"):
        audio.read(Clip(path))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
def test_a_truncated_ogg_is_refused(tmp_path: Path, subtype: str, share: float) -> None:
    path = write(tmp_path / "a.ogg", voice(80_000), format="OGG", subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: max(8, round(share * len(content)))])
    for refuses in (audio.read, audio.header):
        with pytest.raises(UserError, match="truncated: it ends inside a page of Ogg"):
            refuses(Clip(path))
