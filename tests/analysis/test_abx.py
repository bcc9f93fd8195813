"""`layers --abx`: from aligned speech to the record, and what it reports where it can't run."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
from superb_eval.cli import report
from superb_eval.corpora import aligned_speech
from superb_eval.errors import UserError
from superb_eval.probing import phone_abx
from superb_eval.results import layer_record
from superb_eval.results.layer_record import AbxMeasures, AbxTriples, LayerAbx, LayersRecord
from superb_eval.runs.config import RunConfig
from superb_eval.runtime.progress import NoProgress
from tests import aligned_tones

needs_fastabx = pytest.mark.skipif(
    importlib.util.find_spec("fastabx") is None, reason="extra abx, which needs Python 3.12"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aligned_tones.write(tmp_path_factory.mktemp("aligned"), speakers=2)


def _config(corpus: Path, folder: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "", corpus, out=folder / "results", store=folder / "store")


@needs_fastabx
def test_tones_are_never_confused_and_the_record_states_of_what(corpus: Path, tmp_path: Path) -> None:
    record, path = analyse(LayerQuestion(_config(corpus, tmp_path), (), abx=True))
    (abx,) = record.abx
    assert layer_record.read(path) == record
    assert (abx.phones, abx.speakers, abx.tokens) == (3, 2, 6 * 6)
    # Three clips by each speaker, in each clip each tone twice: six tokens of each.
    assert abx.within == AbxTriples(pairs=3 * 2, triples=2 * 3 * 2 * 6 * 5 * 6)
    assert abx.across == AbxTriples(pairs=3 * 2, triples=2 * 3 * 2 * 6 * 6 * 6)
    assert abx.layers == [LayerAbx(layer=0, within=0, across=0)] and abx.best().layer == 0
    again, _ = analyse(LayerQuestion(_config(corpus, tmp_path), (), clusters=(4,), abx=True))
    assert again.abx == record.abx and len(again.units) == 1, "measured again, it replaces what was measured"


@needs_fastabx
def test_speakers_have_to_be_named(tmp_path: Path) -> None:
    unnamed = aligned_tones.write(tmp_path)
    with pytest.raises(UserError, match=r"train\.csv: missing column\(s\) speaker"):
        analyse(LayerQuestion(_config(unnamed, tmp_path), (), abx=True))


@pytest.mark.parametrize(
    ("oldest", "end"),
    [((3, 10), r"'superb-eval\[abx\]'\."), ((99, 0), r"'superb-eval\[abx\]' on Python 99\.0 or later \(this is 3\.\d")],
)
def test_a_missing_library_is_a_sentence_before_anything_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oldest: tuple[int, int], end: str
) -> None:
    monkeypatch.setitem(sys.modules, "fastabx", None)
    monkeypatch.setattr(phone_abx, "OLDEST_PYTHON", oldest)
    with pytest.raises(UserError, match=rf"^--abx needs fastabx: pip install {end}"):
        analyse(LayerQuestion(_config(corpus, tmp_path), ("ks",), abx=True))
    assert not list(tmp_path.iterdir())


def test_tokens_are_the_frames_of_phones(corpus: Path) -> None:
    """One after another they are what the clusters are measured on; a phone without a frame's centre is none."""
    test = aligned_speech.read(corpus, "nano", NoProgress(), speaker=True).splits["test"]
    numbers, speakers = dict[str, int](), [utterance.speaker for utterance in test]
    frames, stride = [130] * len(test), 160
    phones = aligned_speech.phones(test, frames, stride, numbers).reshape(len(test), -1)
    tokens = aligned_speech.tokens(test, frames, stride)
    rebuilt = np.full_like(phones, -1)
    for token in tokens:
        assert token.speaker == speakers[token.clip]
        rebuilt[token.clip, token.first : token.last] = numbers[token.phone]
    np.testing.assert_array_equal(rebuilt, phones)
    assert all(token.last <= 130 for token in tokens)
    assert len(aligned_speech.tokens(test, [1] * len(test), 16_000)) <= len(test), "one frame is in one phone at most"


def test_short_and_silent_phones_are_no_tokens(tmp_path: Path) -> None:
    aligned_tones.write(tmp_path)
    alignment = '[["A", 0, 0.031], ["B", 0.031, 0.045], ["sil", 0.045, 0.1], ["C", 0.1, 0.13], ["A", 0.13, 9]]'
    for split in ("train", "test"):
        rows = [["id", "path", "speaker", "alignment"], ["a", "train0.wav", "s", alignment]]
        with (tmp_path / f"aligned/{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    test = aligned_speech.read(tmp_path, "nano", NoProgress(), speaker=True).splits["test"]
    found = [(token.phone, token.first, token.last) for token in aligned_speech.tokens(test, [8], 320)]
    # Centres: 10, 30, 50, 70, 90, 110, 130 and 150 ms; none lies in B.
    assert found == [("A", 0, 2), ("C", 5, 6), ("A", 6, 8)]


def test_the_table_has_both_errors(capsys: pytest.CaptureFixture[str]) -> None:
    some = AbxTriples(pairs=1, triples=2)
    layers = [LayerAbx(layer=0, within=12.344, across=20), LayerAbx(layer=1, within=9, across=21.5)]
    abx = AbxMeasures(corpus="c", seed=0, phones=2, speakers=2, tokens=5, within=some, across=some, layers=layers)
    assert abx.best() == layers[0], "across speakers"
    report._show(LayersRecord(upstream="mine", fingerprint="f", abx=[abx]))
    printed = capsys.readouterr().out
    assert "phone ABX error % ↓" in printed and "12.34, 20.00" in printed and "9.00, 21.50" in printed
