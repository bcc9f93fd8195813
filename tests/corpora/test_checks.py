"""Checks of a corpus: each planted problem is found, and a valid corpus has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.base import Setup
from downstreams.ks import KeywordSpotting
from downstreams.pr import PhoneHead, PhonemeRecognition
from superb_eval.corpora import checks
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError


def wav(path: Path, seed: int = 0, seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> Path:
    samples = np.random.default_rng(seed).integers(-3000, 3000, (round(seconds * rate), channels))
    soundfile.write(path, samples.astype(np.int16), rate)
    return path


def utterance(
    path: Path, speaker: str, label: str, line: int, start: float = 0.0, end: float | None = None
) -> Utterance:
    return Utterance(f"{path.stem}-{line}", Clip(path, start, end), speaker, {"keyword": label}, line)


def corpus(folder: Path, splits: dict[str, list[Utterance]], expected: dict[str, int] | None = None) -> Corpus:
    manifests = {name: Manifest(name, tuple(rows), folder / f"{name}.csv") for name, rows in splits.items()}
    return Corpus("mine", folder, manifests, expected=expected or {})


@pytest.fixture
def valid(tmp_path: Path) -> dict[str, list[Utterance]]:
    """Three splits without problems: two labels, other files and other speakers in each."""
    files = [wav(tmp_path / f"{i}.wav", seed=i) for i in range(6)]
    return {
        "train": [utterance(files[0], "anna", "yes", 2), utterance(files[1], "ben", "no", 3)],
        "dev": [utterance(files[2], "cleo", "yes", 2), utterance(files[3], "cleo", "no", 3)],
        "test": [utterance(files[4], "dan", "yes", 2), utterance(files[5], "dan", "no", 3)],
    }


@pytest.mark.parametrize("full", [False, True])
def test_a_valid_corpus_is_counted_without_problems(
    tmp_path: Path, valid: dict[str, list[Utterance]], full: bool
) -> None:
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword", full)
    assert report.problems == report.remarks == ()
    train = report.splits["train"]
    assert (train.utterances, train.speakers, train.labels, train.expected) == (2, 2, {"no": 1, "yes": 1}, None)
    assert train.hours == pytest.approx(2 / 3600)
    assert (report.rates, report.channels) == ({16_000: 6}, {1: 6})


def test_progress_reaches_the_end(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    steps: list[tuple[int, int]] = []
    checks.check_corpus(corpus(tmp_path, valid), "keyword", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(1, 7)]


def test_every_unreadable_file_is_listed_with_its_line(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    (tmp_path / "0.wav").write_bytes(b"no audio")
    wav(tmp_path / "5.wav", seconds=0.01)
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword")
    first, second = report.problems
    assert first.startswith(f"train, line 2: {tmp_path}/0.wav: not readable as audio")
    assert second.startswith(f"test, line 3: {tmp_path}/5.wav: ")
    assert "too short" in second
    assert report.splits["train"].hours == pytest.approx(1 / 3600)


def test_only_full_reading_finds_damage_inside_a_file(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    path = tmp_path / "damaged.flac"
    soundfile.write(path, np.random.default_rng(0).integers(-3000, 3000, 48_000).astype(np.int16), 16_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\x55" * 200
    path.write_bytes(content)
    valid["train"].append(utterance(path, "anna", "yes", 4))
    assert checks.check_corpus(corpus(tmp_path, valid), "keyword").problems == ()
    (problem,) = checks.check_corpus(corpus(tmp_path, valid), "keyword", full=True).problems
    assert problem.startswith("train, line 4: ")


def test_labels_absent_from_train_are_problems_and_labels_absent_from_test_remarks(
    tmp_path: Path, valid: dict[str, list[Utterance]]
) -> None:
    valid["test"] = [utterance(tmp_path / "4.wav", "dan", "yes", 2), utterance(tmp_path / "5.wav", "dan", "maybe", 3)]
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword")
    assert report.problems == ("test, line 3: keyword 'maybe' is never seen in train (known: no, yes)",)
    assert report.remarks == ("test has no utterance of no.",)


def test_a_task_without_classes_has_no_labels_to_compare(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    valid["test"][0] = utterance(tmp_path / "4.wav", "dan", "maybe", 2)
    report = checks.check_corpus(corpus(tmp_path, valid), None)
    assert report.problems == report.remarks == ()
    assert report.splits["test"].labels == {}


def test_a_missing_column_is_refused(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    with pytest.raises(UserError, match=r"train has no label column 'emotion' \(found: keyword\)"):
        checks.check_corpus(corpus(tmp_path, valid), "emotion")


def test_shared_speakers_are_remarks_except_for_no_speaker(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    for split, line in (("train", 4), ("dev", 4), ("test", 4)):
        valid[split].append(utterance(wav(tmp_path / f"{split}.wav", seed=ord(split[0])), "_none_", "yes", line))
    valid["test"].append(utterance(wav(tmp_path / "more.wav", seed=99), "anna", "no", 5))
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword")
    assert report.shared_speakers == {("train", "test"): ("anna",)}
    assert report.problems == ()
    assert report.remarks == ("train and test share the speakers anna: scores on test are optimistically biased.",)
    assert report.splits["train"].speakers == 2


def test_a_segment_in_train_and_test_is_a_problem(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    valid["test"].append(utterance(tmp_path / "0.wav", "eve", "yes", 4, 0.5, 0.9))
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword")
    assert report.problems == ("train and test use the same segment of 0.wav: remove it from one of the two.",)
    assert report.shared_files == {("train", "test"): ("0.wav",)}


def test_other_segments_of_one_file_and_silence_shared_with_dev_are_remarks(
    tmp_path: Path, valid: dict[str, list[Utterance]]
) -> None:
    valid["train"] = [
        utterance(tmp_path / "0.wav", "anna", "yes", 2, 0.0, 0.5),
        utterance(tmp_path / "1.wav", "b", "no", 3),
    ]
    valid["test"].append(utterance(tmp_path / "0.wav", "eve", "yes", 4, 0.5, 1.0))
    valid["dev"].append(utterance(tmp_path / "1.wav", "_none_", "no", 4))
    report = checks.check_corpus(corpus(tmp_path, valid), "keyword")
    assert report.problems == ()
    assert report.remarks == ("train and test use the same files: 0.wav.", "train and dev use the same files: 1.wav.")


def test_links_to_one_file_count_as_one_file(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "0.wav")
    valid["test"].append(utterance(tmp_path / "link.wav", "eve", "yes", 4))
    assert len(checks.check_corpus(corpus(tmp_path, valid), "keyword").problems) == 1


def test_full_reading_finds_copies_under_another_name(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    (tmp_path / "copy.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    valid["test"].append(utterance(tmp_path / "copy.wav", "eve", "yes", 4))
    assert checks.check_corpus(corpus(tmp_path, valid), "keyword").problems == ()
    assert len(checks.check_corpus(corpus(tmp_path, valid), "keyword", full=True).problems) == 1


def test_sizes_rates_channels_and_silence_are_remarks(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    wav(tmp_path / "0.wav", rate=8_000)
    wav(tmp_path / "1.wav", rate=44_100, channels=2)
    soundfile.write(tmp_path / "2.wav", np.zeros(16_000), 16_000)
    report = checks.check_corpus(corpus(tmp_path, valid, {"train": 2, "test": 3_081}), "keyword", full=True)
    assert report.remarks == (
        "test holds 2 utterances where a complete copy has 3081: scores on it are not comparable with published ones.",
        "1 clip(s) at 8000 Hz are resampled to 16000 Hz; they hold nothing above 4000 Hz.",
        "1 clip(s) at 44100 Hz are resampled to 16000 Hz.",
        "1 clip(s) have several channels, which are averaged.",
        "digital silence, every sample 0: dev, line 2.",
    )
    assert report.rates == {8_000: 1, 16_000: 4, 44_100: 1}
    assert report.channels == {1: 5, 2: 1}


def test_a_corpus_without_train_is_checked_too(tmp_path: Path, valid: dict[str, list[Utterance]]) -> None:
    del valid["train"]
    assert checks.check_corpus(corpus(tmp_path, valid), "keyword").problems == ()


def test_transcripts_that_do_not_fit_are_remarks(tmp_path: Path) -> None:
    """A second has 50 frames at HuBERT's stride: 30 equal phones need 59, and one for the end."""
    rows = {
        name: [Utterance(name, Clip(wav(tmp_path / f"{name}.wav")), "anna", {"phones": phones}, 2)]
        for name, phones in (("train", "a " * 30), ("dev", "a"), ("test", "a b"))
    }
    spoken = corpus(tmp_path, rows)
    task = PhonemeRecognition(Setup(PhonemeRecognition.learn(spoken, PhoneHead()), PhoneHead()))
    assert [text.partition(" rows ")[2] for text in checks.row_remarks(task, spoken)] == [
        "(such as line 2) need more outputs than they have frames: they are not trained on",
        "(such as line 2) hold symbols that have no output: these can't be recognised",
    ]
    assert checks.row_remarks(KeywordSpotting(Setup(["yes"], KeywordSpotting.Head())), spoken) == []
