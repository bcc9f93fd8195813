"""The manifest folder of ASV: trials are resolved to utterances, and bad ones are all named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.asv import VerificationCorpus
from superb_eval.corpora import load_corpus
from superb_eval.data.manifest import Corpus, Trial
from superb_eval.errors import UserError

SPEAKERS = {"train": "ab", "dev": "cd", "test": "ef"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "asv").mkdir()
    for split, speakers in SPEAKERS.items():
        lines = ["id,path,speaker,source"]
        for speaker in speakers:
            for k, seconds in enumerate((0.5, 1.5)):
                samples = np.random.default_rng(k).integers(-3000, 3000, round(16_000 * seconds)).astype(np.int16)
                path = tmp_path / "audio" / f"{speaker}{k}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, samples, 16_000)
                lines.append(f"id-{speaker}{k},audio/{speaker}{k}.wav,{speaker},x")
        (tmp_path / "asv" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    trials(tmp_path, "dev_trials", "audio/c0.wav,audio/c1.wav,1", "audio/c0.wav,audio/d1.wav,0")
    trials(tmp_path, "trials", "audio/e0.wav,id-e1,1", "audio/f0.wav,audio/e1.wav,0")
    return tmp_path


def trials(root: Path, name: str, *lines: str) -> None:
    (root / "asv" / f"{name}.csv").write_text("enroll,test,target\n" + "\n".join(lines) + "\n")


def load(root: Path, **settings: float) -> Corpus:
    return load_corpus.open_corpus("asv", root, (), VerificationCorpus.model_validate(settings))


def test_trials_are_resolved_by_path_or_id(root: Path) -> None:
    corpus = load(root)
    assert corpus.splits["test"].trials == (Trial("id-e0", "id-e1", True), Trial("id-f0", "id-e1", False))
    assert corpus.splits["dev"].trials == (Trial("id-c0", "id-c1", True), Trial("id-c0", "id-d1", False))
    assert corpus.splits["train"].trials == ()
    assert corpus.notes == ()


def test_short_training_utterances_are_left_out(root: Path) -> None:
    corpus = load(root, min_seconds=0.5)
    assert [u.id for u in corpus.splits["train"]] == ["id-a1", "id-b1"]
    assert len(corpus.splits["test"]) == 4
    assert corpus.notes == ("2 of 4 training utterances left out: not longer than 0.5 s",)
    with pytest.raises(UserError, match=r"no utterance of train lasts 9\.0 s"):
        load(root, min_seconds=9)


def test_durations_are_those_after_trimming(root: Path) -> None:
    path = root / "audio" / "a1.wav"
    samples = soundfile.read(path)[0]
    samples[8_000:20_000] = 0
    soundfile.write(path, samples, 16_000)
    assert [u.id for u in load(root, min_seconds=1.0, trim_silence=True).splits["train"]] == ["id-b1"]
    assert len(load(root, min_seconds=1.0).splits["train"]) == 2


def test_every_bad_trial_is_named_with_its_line(root: Path) -> None:
    bad = ["audio/none.wav,audio/e1.wav,1", "audio/e0.wav,audio/e1.wav,1", "audio/e0.wav,audio/a0.wav,0"]
    trials(root, "trials", *bad, "audio/e0.wav,audio/f0.wav,yes", "audio/e0.wav,audio/f0.wav,1")
    with pytest.raises(UserError) as error:
        load(root)
    message = str(error.value)
    assert "trials.csv: 4 bad row(s)" in message
    assert "line 2: test.csv has no utterance 'audio/none.wav'" in message
    assert "line 4: test.csv has no utterance 'audio/a0.wav'" in message
    assert "line 5: target 'yes' must be 1 (one speaker) or 0 (two)" in message
    assert "line 6: target is 1, but the speakers are 'e' and 'f'" in message


def test_a_missing_list_or_column_is_named(root: Path) -> None:
    (root / "asv" / "dev_trials.csv").write_text("enrol,test,target\n")
    with pytest.raises(UserError, match=r"dev_trials\.csv: missing column\(s\) enroll .*Did you mean 'enrol'"):
        load(root)
    (root / "asv" / "dev_trials.csv").unlink()
    with pytest.raises(UserError, match=r"dev_trials\.csv: no such file; it lists the trials of dev"):
        load(root)


def test_every_clip_has_the_recipes_gain_and_trimming(root: Path) -> None:
    clips = [u.clip for split in load(root, gain_db=-3, trim_silence=True).splits.values() for u in split]
    assert {(clip.gain_db, clip.trim_silence) for clip in clips} == {(-3.0, True)}
