"""The official layout of ASV: all but the held-out speakers are in train, and their trials are always the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.asv import VerificationCorpus
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import voxceleb1_trials
from superb_eval.corpora.official.voxceleb1_trials import draw_trials, held_out_speakers
from superb_eval.data.manifest import Corpus, Trial
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

TRAIN = [f"id1{k:04d}" for k in range(1, 7)]
TEST = ["id10270", "id10300"]


def wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.parts)).integers(-3000, 3000, round(16_000 * seconds)).astype(np.int16)
    soundfile.write(path, samples, 16_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for archive, speakers in (("dev", TRAIN), ("test", TEST)):
        for speaker in speakers:
            for k in range(3):
                wav(tmp_path / "VoxCeleb1" / archive / "wav" / speaker / f"video{k % 2}" / f"0000{k}.wav", 0.5 + k)
    lines = [
        "1 id10270/video0/00000.wav id10270/video1/00001.wav",
        "0 id10270/video0/00000.wav id10300/video0/00002.wav",
    ]
    (tmp_path / "VoxCeleb1" / "voxceleb1_test_v2.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def load(root: Path, **settings: float) -> Corpus:
    chosen = VerificationCorpus.model_validate({"dev_speakers": 2, **settings})
    return load_corpus.open_corpus("asv", root, (), chosen)


def test_speakers_are_held_out_by_the_hash_of_their_names(root: Path) -> None:
    corpus = load(root)
    speakers = {name: {u.speaker for u in split} for name, split in corpus.splits.items()}
    assert len(speakers["dev"]) == 2 and speakers["dev"] == set(held_out_speakers(TRAIN, 2))
    assert speakers["train"] == set(TRAIN) - speakers["dev"]
    assert speakers["test"] == set(TEST)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in TRAIN}
    assert max(digests[s] for s in speakers["dev"]) < min(digests[s] for s in speakers["train"])


def test_the_deviation_is_noted(root: Path) -> None:
    (note,) = load(root).notes
    assert (
        note.startswith("2 of 6 development speakers are held out")
        and "historical score is that of the protocol's" in note
    )


def test_dev_trials_are_of_both_kinds_and_always_the_same(root: Path) -> None:
    dev = load(root).splits["dev"]
    assert dev.trials == load(root).splits["dev"].trials
    assert {t.target for t in dev.trials} == {True, False}
    speaker = {u.id: u.speaker for u in dev}
    assert all((speaker[t.enroll] == speaker[t.test]) == t.target for t in dev.trials)
    assert len(set(dev.trials)) == len(dev.trials)


def test_as_many_trials_of_each_kind_as_there_are_utterances_for() -> None:
    by_speaker = {s: [f"{s}{k}" for k in range(30)] for s in "abcd"}
    trials = draw_trials(by_speaker, per_speaker=50)
    kinds = Counter((t.enroll[0], t.target) for t in trials)
    assert all(kinds[s, True] == 50 and 45 <= kinds[s, False] <= 50 for s in "abcd")
    assert all(t.enroll != t.test for t in trials)
    assert draw_trials(by_speaker, 50, seed=1) != trials
    with pytest.raises(ValueError, match="two speakers"):
        draw_trials({"a": ["a1", "a2"]}, 5)


def test_test_trials_are_those_of_the_list(root: Path) -> None:
    test = load(root).splits["test"]
    first, second, third = "id10270/video0/00000.wav", "id10270/video1/00001.wav", "id10300/video0/00002.wav"
    assert test.trials == (Trial(first, second, True), Trial(first, third, False))
    assert [u.id for u in test] == [first, second, third]


def test_training_utterances_of_two_seconds_and_less_are_left_out(root: Path) -> None:
    corpus = load(root, min_seconds=2.0)
    assert len(corpus.splits["train"]) == 4
    assert corpus.notes[1] == "8 of 12 training utterances left out: not longer than 2 s"


def test_another_list_is_noted(root: Path) -> None:
    folder = root / "VoxCeleb1"
    (folder / "voxceleb1_test_v2.txt").rename(folder / "veri_test2.txt")
    assert load(root).notes[-1] == "trials of veri_test2.txt where the protocol uses voxceleb1_test_v2.txt"
    (folder / "veri_test2.txt").unlink()
    with pytest.raises(UserError, match=r"has no voxceleb1_test_v2\.txt, the list of trials"):
        load(root)


def test_every_bad_line_is_named(root: Path) -> None:
    path = root / "VoxCeleb1" / "voxceleb1_test_v2.txt"
    path.write_text("2 a.wav b.wav\n" + path.read_text() + "1 id10270/video0/00000.wav id10270/none/00000.wav\n")
    with pytest.raises(UserError) as error:
        load(root)
    assert "2 bad row(s)" in str(error.value)
    assert "line 1: '2 a.wav b.wav' is not of the form" in str(error.value)
    assert "line 4: test/wav has no id10270/none/00000.wav" in str(error.value)


def test_an_incomplete_copy_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="6 speakers are too few to hold 5 out"):
        load(root, dev_speakers=5)
    (root / "VoxCeleb1" / "dev" / "wav" / "id10099").mkdir()
    with pytest.raises(UserError, match=r"no \.wav file of id10099"):
        load(root)
    assert voxceleb1_trials.present(root) and not voxceleb1_trials.present(root / "VoxCeleb1")


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
