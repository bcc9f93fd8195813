"""The official layout of SD: prepared folders, and the lists that they are prepared from, give the same corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.sd import DiarizationCorpus
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import librimix
from superb_eval.corpora.official.librimix import ALIGNMENTS, LISTS, MIXTURES, PREPARED, RTTMS
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

MIXTURE = "84-121123-0001_1272-128104-0003"
SAMPLES = 48_000


def mix(root: Path, split: str, name: str) -> Path:
    path = root / "Libri2Mix" / "wav16k" / "max" / split / "mix_both" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(3).integers(-3000, 3000, SAMPLES).astype(np.int16)
    soundfile.write(path, samples, 16_000)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The lists, with the paths of another machine, and the alignment."""
    for split in LISTS:
        name = f"{split}/mix_both/{MIXTURE}.wav"
        mix(tmp_path, split, MIXTURE)
        path = tmp_path / MIXTURES / LISTS[split]
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = "mixture_ID,mixture_path,source_1_path,source_2_path,noise_path,length\n"
        path.write_text(f"{columns}{MIXTURE},/far/away/Libri2Mix/wav16k/max/{name},a,b,c,{SAMPLES}\n")
        rttm = tmp_path / ALIGNMENTS / RTTMS[split]
        rttm.parent.mkdir(parents=True, exist_ok=True)
        rttm.write_text(
            "SPEAKER 121123-0001 1   0.190   1.970 <NA> <NA> 84 <NA> <NA>\n"
            "SPEAKER 121123-0001 1   2.200   0.500 <NA> <NA> 84 <NA> <NA>\n"
            "SPEAKER 128104-0003 1   0.340   2.500 <NA> <NA> 1272 <NA> <NA>\n"
        )
    return tmp_path


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The same mixtures as `prepare_diarization.py` writes them."""
    for split in LISTS:
        wav = mix(tmp_path, split, MIXTURE)
        folder = tmp_path / PREPARED / split
        folder.mkdir(parents=True)
        (folder / "wav.scp").write_text(f"{MIXTURE} {wav}\n")
        (folder / "reco2dur").write_text(f"{MIXTURE} {SAMPLES / 16000}\n")
        turns = [(0.19, 1.97, "84"), (2.2, 0.5, "84"), (0.34, 2.5, "1272")]
        lines = (f"SPEAKER\t{MIXTURE}\t1\t{s}\t{d}\t<NA>\t<NA>\t{who}\t<NA>\n" for s, d, who in turns)
        (folder / "rttm").write_text("".join(lines))
    return tmp_path


def load(root: Path) -> Corpus:
    return load_corpus.open_corpus("sd", root, (), DiarizationCorpus())


def test_both_layouts_give_the_same_corpus(
    raw: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    lists = load(raw)
    folders = load(request.getfixturevalue("prepared"))
    assert lists.name == folders.name == "Libri2Mix"
    for split in LISTS:
        (a,), (b,) = lists.splits[split], folders.splits[split]
        assert (a.id, a.clip, a.speaker) == (b.id, b.clip, b.speaker) == (MIXTURE, b.clip, "1272 84")
        assert a.labels == b.labels
        assert a.clip.end == 3.0


def test_it_is_official_and_its_size_is_known(raw: Path) -> None:
    assert load_corpus.is_official("sd", raw) and not load_corpus.is_official("sd", raw / "none")
    assert load(raw).expected == {"train": 13_900, "dev": 3_000, "test": 3_000}
    shorter = load_corpus.open_corpus("sd", raw, (), DiarizationCorpus(chunk_seconds=2))
    assert shorter.expected == {} and len(shorter.splits["test"]) == 2


def test_a_mixture_without_audio_or_alignment_is_named(raw: Path) -> None:
    path = raw / MIXTURES / LISTS["dev"]
    good = path.read_text()
    path.write_text(
        good + "84-1-1_1272-2-2,/x/Libri2Mix/none.wav,a,b,c,9\n" + good.splitlines()[1].replace("121123", "9", 1) + "\n"
    )
    with pytest.raises(UserError) as error:
        load(raw)
    assert "2 bad row(s)" in str(error.value)
    assert f"line 3: no such file: {raw / 'Libri2Mix' / 'none.wav'}" in str(error.value)
    assert "line 4: '84-9-0001_1272-128104-0003' names sources that the alignment lacks (9-0001)" in str(error.value)


def test_bad_turns_of_a_prepared_folder_are_named(prepared: Path) -> None:
    path = prepared / PREPARED / "test" / "rttm"
    path.write_text(
        path.read_text() + f"SPEAKER\tnone\t1\t0\t1\t<NA>\t<NA>\t84\nSPEAKER\t{MIXTURE}\t1\t2.0\t3\t<NA>\t<NA>\t84\n"
    )
    with pytest.raises(UserError) as error:
        load(prepared)
    assert "line 4: wav.scp has no 'none'" in str(error.value)
    assert "line 5: the turn ends at 5.000 s" in str(error.value) and "line 5: speaker 84" in str(error.value)
    assert "github.com/s3prl/LibriMix" in str(error.value)


def test_missing_files_are_named(prepared: Path) -> None:
    (prepared / PREPARED / "dev" / "wav.scp").write_text(f"{MIXTURE} gone.wav\n")
    with pytest.raises(UserError, match=r"wav\.scp: 1 bad row\(s\):\n  line 1: no such file: .*gone\.wav"):
        load(prepared)
    (prepared / PREPARED / "train" / "reco2dur").unlink()
    with pytest.raises(UserError, match=r"train.reco2dur: no such file\. Expected diarization/"):
        load(prepared)


def test_an_incomplete_layout_is_recognised(raw: Path) -> None:
    (raw / MIXTURES / LISTS["train"]).unlink()
    assert librimix.present(raw)
    with pytest.raises(UserError, match=r"mixture_train-100_mix_both\.csv: no such file"):
        load(raw)


@pytest.mark.parametrize("layout", ["raw", "prepared"])
def test_links_to_folders_and_files_are_followed(
    layout: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = request.getfixturevalue(layout)
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
