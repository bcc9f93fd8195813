"""A report embeds no audio from outside the corpus folder, whatever a corpus links to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.report.sections.worst_utterances import AudioClips
from superb_eval.runtime.progress import NoProgress


@pytest.fixture
def linked(tones: Path, tmp_path: Path) -> Path:
    """The corpus of tones, in which one file of the test split is a link to a file outside."""
    root, outside = tmp_path / "corpus", tmp_path / "private.wav"
    shutil.copytree(tones, root)
    table = (root / "ks" / "test.csv").read_text().splitlines()
    columns = table[0].split(",")
    path = next(dict(zip(columns, row.split(","), strict=True)) for row in table[1:] if row.startswith("test-yes-0,"))
    audio = root / path["path"]
    audio.rename(outside)
    audio.symlink_to(outside)
    return root


def test_linked_audio_is_not_embedded_and_the_row_has_the_reason(linked: Path, by_hand: Any, tmp_path: Path) -> None:
    rows = by_hand.predictions("ks", 0.5, 0)
    record = by_hand.a_run(tmp_path / "runs", "me", "ks", rows, linked)
    clips = AudioClips(1e6)
    assert clips.data_uris(record, "test-yes-0") == ()
    assert clips.no_audio(record, "test-yes-0").startswith("no player: ")
    assert len(clips.data_uris(record, "test-yes-1")) == 1 and clips.no_audio(record, "test-yes-1") == ""
    assert not clips.problems


def test_a_corpus_folder_that_is_a_link_has_its_players(tones: Path, by_hand: Any, tmp_path: Path) -> None:
    (tmp_path / "corpus").symlink_to(tones)
    rows = by_hand.predictions("ks", 0.5, 0)
    record = by_hand.a_run(tmp_path / "runs", "me", "ks", rows, tmp_path / "corpus")
    assert len(AudioClips(1e6).data_uris(record, "test-yes-0")) == 1


def test_the_page_shows_such_rows_without_a_player(tones: Path, by_hand: Any, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    shutil.copytree(tones / "ks", root / "ks")
    (root / "audio").symlink_to(tones / "audio")
    by_hand.a_run(tmp_path / "runs", "me", "ks", by_hand.predictions("ks", 0.5, 0), root)
    html = page.html(tmp_path / "runs", ReportOptions(), NoProgress())
    assert "<audio" not in html and "data:audio" not in html
    assert "outside the corpus folder, by a link or a path" in html
