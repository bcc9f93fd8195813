"""A short form of the campaign of streams: tables and text of others are read, or refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns import streams
from tests.campaigns.commands import type_command


@pytest.mark.parametrize("name", streams.STREAMS)
def test_the_corpora_that_are_damaged_are_valid(name: str, tmp_path: Path) -> None:
    streams.write(streams.STREAMS[name], tmp_path)
    called = type_command("corpus", "check", streams.STREAMS[name].task, "--data", tmp_path)
    assert called.code == 0, called.err


@pytest.mark.filterwarnings("ignore")
def test_what_others_wrote_is_read_or_refused_with_a_sentence() -> None:
    counts = streams.run(2, seed=1, places=("pipe", "deep"))
    assert counts.keys() == {"accepted", "refused"}
