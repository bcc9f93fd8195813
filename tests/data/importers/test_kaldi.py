"""Data folders of Kaldi and ESPnet: utterances, segments, speakers, turns; what is refused is named by its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval.data.importers import formats
from superb_eval.data.manifest import Turn
from superb_eval.errors import UserError

TABLES = {
    "wav.scp": "rec1 wav/rec1.wav\nrec2 wav/rec2.wav\n",
    "segments": "ann-1 rec1 0.5 1.5\nann-2 rec1 1.5 -1\nbob-1 rec2 0 2.25\n",
    "text": "ann-1 HELLO  THERE\nann-2 YES\nbob-1 NO\n",
    "utt2spk": "ann-1 ann\nann-2 ann\nbob-1 bob\n",
    "spk2utt": "ann ann-1 ann-2\nbob bob-1\n",
    "spk2gender": "ann f\nbob m\n",
    "utt2emotion": "ann-1 happy\nbob-1 sad\n",
    "utt2dur": "ann-1 1.0\nann-2 0.5\nbob-1 2.0\n",
    "cmvn.scp": "ann /nowhere/cmvn.ark:4\n",
    "feats.scp": "ann-1 /nowhere/feats.ark:4\n",
}


def write_wav(path: Path, seconds: float, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.name)).normal(0, 0.1, (round(16_000 * seconds), channels))
    soundfile.write(path, samples, 16_000)


def write(folder: Path, **changes: str | bytes | None) -> Path:
    """Write the tables; `changes` replaces some by their names with `_` for `.`, None leaves one out."""
    tables: dict[str, str | bytes | None] = {
        **TABLES,
        **{name.replace("_scp", ".scp"): v for name, v in changes.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tables.items():
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for name in ("rec1", "rec2"):
        write_wav(folder / f"wav/{name}.wav", 2.0)
    return folder


def problem(root: Path) -> str:
    with pytest.raises(UserError) as error:
        formats.read(root)
    return str(error.value)


def test_segments_are_utterances_with_speakers_and_labels(tmp_path: Path) -> None:
    root = write(tmp_path / "x", segments="ann-1 rec1 0.5 1.5\nann-2 rec1 1.5 -1\nbob-1 rec2 0 2.0\n")
    assert formats.recognise(root) == "Kaldi data folder"
    source = formats.read(root)
    rows = source.splits[""]
    assert [(row.id, row.audio, row.start, row.end, row.speaker) for row in rows] == [
        ("ann-1", root / "wav/rec1.wav", 0.5, 1.5, "ann"),
        ("ann-2", root / "wav/rec1.wav", 1.5, None, "ann"),
        ("bob-1", root / "wav/rec2.wav", 0.0, 2.0, "bob"),
    ]
    assert [row.labels for row in rows] == [
        {"gender": "f", "text": "HELLO  THERE", "emotion": "happy"},
        {"gender": "f", "text": "YES", "emotion": ""},
        {"gender": "m", "text": "NO", "emotion": "sad"},
    ]
    assert rows[1].location == "segments, line 2"
    assert source.notes == ()


def test_a_segment_that_passes_the_end_a_little_is_cut_there_as_kaldi_does(tmp_path: Path) -> None:
    source = formats.read(write(tmp_path / "x"))
    assert source.splits[""][2].end == 2.0
    assert source.notes == ("x: 1 segment(s) cut at the end of their file",)
    late = write(tmp_path / "y", segments="ann-1 rec1 0.5 2.51\nann-2 rec1 2.0 -1\nbob-1 rec2 0 2\n")
    assert "segments, line 1: 0.5 s to 2.51 s lies outside rec1.wav, which lasts 2.000 s" in problem(late)
    assert "segments, line 2: 2.0 s to the end lies outside" in problem(late)


def test_folders_are_splits_by_their_names(tmp_path: Path) -> None:
    for name in ("train_nodup", "dev", "eval2000"):
        write(tmp_path / "data" / name)
    for root in (tmp_path / "data", tmp_path):
        assert list(formats.read(root).splits) == formats.split_names(root) == ["dev", "eval2000", "train_nodup"]
    only = formats.read(tmp_path / "data", ["dev"])
    assert list(only.splits) == ["dev"]
    assert only.splits["dev"][0].location == "dev/segments, line 1"
    with pytest.raises(
        UserError, match=r"has no split 'dve' \(found: dev, eval2000, train_nodup\). Did you mean 'dev'"
    ):
        formats.read(tmp_path, ["dve"])


def test_a_split_that_is_not_asked_for_may_be_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "train_sp", wav_scp="rec1 sox -t wav rec1.wav -t wav - speed 0.9 |\n")
    assert len(formats.read(tmp_path, ["train"]).splits["train"]) == 3


PLAIN: dict[str, str | bytes | None] = {
    "segments": None,
    "text": "rec1 A\nrec2 B\n",
    "utt2spk": "rec1 ann\nrec2 bob\n",
    "spk2utt": None,
    "utt2emotion": None,
}


@pytest.mark.parametrize("place", ["folder", "root", "above", "here", "absolute"])
def test_relative_paths_begin_in_the_folder_above_it_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    root = tmp_path / "egs" / "data"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    bases = {"folder": root / "train", "root": root, "above": root.parent, "here": here, "absolute": tmp_path / "far"}
    for name in ("rec1", "rec2"):
        write_wav(bases[place] / f"corpus/{name}.wav", 0.5)
    prefix = f"{bases[place]}/" if place == "absolute" else ""
    write(root / "train", **PLAIN, wav_scp=f"rec1 {prefix}corpus/rec1.wav\nrec2 {prefix}corpus/rec2.wav\n")
    rows = formats.read(root).splits["train"]
    assert [Path(str(row.audio)).resolve() for row in rows] == [
        (bases[place] / f"corpus/{name}.wav").resolve() for name in ("rec1", "rec2")
    ]
    if place != "root":  # a single data folder is opened too; then what lies above it is not known to be its root
        assert [row.audio for row in formats.read(root / "train").splits[""]] == [row.audio for row in rows]
    assert [(row.id, row.end, row.location) for row in rows][1] == ("rec2", None, "train/wav.scp, line 2")


def test_files_of_windows_unsorted_with_tabs_and_blank_lines_are_read(tmp_path: Path) -> None:
    tables = {
        "wav_scp": "\ufeffrec2\twav/rec2.wav\r\n\r\nrec1 \t wav/rec1.wav  \r\n",
        "text": "rec1\tÄ\u2028B\r\nrec2\r\n",
        "utt2spk": "rec2 bob\r\n\r\nrec1 ann\r\n",
    }
    rows = formats.read(write(tmp_path, **{**PLAIN, **tables})).splits[""]
    assert [(row.id, row.speaker, row.labels["text"], row.labels["gender"]) for row in rows] == [
        ("rec2", "bob", "", "m"), ("rec1", "ann", "Ä\u2028B", "f"),
    ]  # fmt: skip


def test_speakers_come_from_spk2utt_where_utt2spk_is_missing(tmp_path: Path) -> None:
    assert [row.speaker for row in formats.read(write(tmp_path, utt2spk=None)).splits[""]] == ["ann", "ann", "bob"]
    write(tmp_path, utt2spk=None, spk2utt="ann ann-1 ann-2\nbob bob-1 ann-1\n")
    (tmp_path / "utt2spk").unlink(missing_ok=True)
    assert "spk2utt, line 2: 'ann-1' is already an utterance of ann" in problem(tmp_path)


def test_commands_are_refused_and_never_run(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    for command in (f"touch {proof} |", f"| touch {proof}"):
        write(tmp_path / "a", wav_scp=f"rec1 wav/rec1.wav\nrec2 {command}\n")
        text = problem(tmp_path / "a")
        assert "1 of 2 lines are commands, which are never run (line 2: '" in text
        assert "Write their audio to files first" in text
        assert not proof.exists()


def test_archives_are_refused_by_name(tmp_path: Path) -> None:
    text = problem(write(tmp_path, wav_scp="rec1 data/wav.ark:5\nrec2 data/wav.ark:12345\n"))
    assert "2 of 2 lines are places in archives (line 1: 'data/wav.ark:5')" in text


CASES: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "id twice": ({"text": "ann-1 A\nann-2 B\nbob-1 C\nann-1 D\n"}, "text, line 4: 'ann-1' is already in line 1"),
    "recording twice": ({"wav_scp": TABLES["wav.scp"] + "rec1 x.wav\n"}, "wav.scp, line 3: 'rec1' is already in line"),
    "no path": ({"wav_scp": "rec1\nrec2 wav/rec2.wav\n"}, "wav.scp, line 1: 'rec1' has no value"),
    "no file": (
        {"wav_scp": "rec1 wav/rec1.wav\nrec2 gone.wav\n"},
        "wav.scp, line 2: no such file: 'gone.wav' is in none",
    ),
    "utterance without audio": (
        {"text": TABLES["text"] + "eve-1 HI\n"},
        "text, line 4: utterance 'eve-1' has no audio",
    ),
    "utterance without text": ({"text": "ann-1 A\nann-2 B\n"}, "segments, line 3: 'bob-1' has no line in text"),
    "utterance without speaker": ({"utt2spk": "ann-1 ann\nann-2 ann\n"}, "'bob-1' has no line in utt2spk"),
    "unknown recording": (
        {"segments": "ann-1 rec3 0 1\n"},
        "segments, line 1: recording 'rec3' has no line in wav.scp",
    ),
    "segment backwards": ({"segments": "ann-1 rec1 1.5 0.5\n"}, "segments, line 1: 'rec1 1.5 0.5' is not"),
    "segment not a number": ({"segments": "ann-1 rec1 nan 1\n"}, "segments, line 1: 'rec1 nan 1' is not"),
    "not UTF-8": ({"text": b"ann-1 A\nann-2 \xe9t\xe9\nbob-1 B\n"}, "text, line 2: not UTF-8"),
    "second channel": ({"reco2file_and_channel": "rec1 rec1 A\nrec2 rec2 B\n"}, "line 2: 'rec2' is channel B"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_lines_are_named(tmp_path: Path, case: str) -> None:
    changes, expected = CASES[case]
    text = problem(write(tmp_path, **changes))
    assert expected in text
    assert "fix_data_dir.sh" in text


def test_a_message_stays_short(tmp_path: Path) -> None:
    text = problem(write(tmp_path, text="x" * 100_000 + " HI\n", utt2spk=f"{'y' * 100_000}\n"))
    assert len(text) < 4000


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "dev", text="ann-1 A\nann-2 B\n")
    write(tmp_path / "train", wav_scp="rec1 gone.wav\nrec2 wav/rec2.wav\n", text="ann-1 A\nann-1 B\nann-2 C\nbob-1 D\n")
    text = problem(tmp_path)
    assert "dev/segments, line 3: 'bob-1' has no line in dev/text" in text
    assert "train/wav.scp, line 1: no such file" in text
    assert "train/text, line 2: 'ann-1' is already in line 1" in text
    assert text.startswith(f"{tmp_path}: 3 bad row(s):")


def test_a_file_of_two_channels_is_refused_where_the_first_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, reco2file_and_channel="rec1 rec1 A\nrec2 rec2 1\n")
    assert len(formats.read(root).splits[""]) == 3
    write_wav(root / "wav/rec2.wav", 2.0, channels=2)
    assert "reco2file_and_channel, line 2: 'rec2' is channel 1 of rec2.wav, which has 2" in problem(root)


RTTM = "SPEAKER rec1 1 0.1 0.9 <NA> <NA> ann <NA> <NA>\nSPEAKER rec1 1 0.5 1.0 <NA> <NA> bob <NA> <NA>\n"


def test_rttm_gives_recordings_with_turns(tmp_path: Path) -> None:
    rows = formats.read(write(tmp_path, **PLAIN, rttm=RTTM)).splits[""]
    assert [(row.id, row.turns) for row in rows] == [
        ("rec1", (Turn(0.1, 1.0, "ann"), Turn(0.5, 1.5, "bob"))),
        ("rec2", ()),
    ]
    assert rows[0].labels["text"] == "A"


def test_turns_are_segments_with_their_speakers_where_there_is_no_rttm(tmp_path: Path) -> None:
    root = write(tmp_path, segments="ann-1 rec1 0.5 1.5\nann-2 rec1 1.5 2\nbob-1 rec2 0 -1\n")
    rows = formats.read(root, turns=True).splits[""]
    assert [(row.id, row.turns, row.labels, row.speaker) for row in rows] == [
        ("rec1", (Turn(0.5, 1.5, "ann"), Turn(1.5, 2.0, "ann")), {}, ""),
        ("rec2", (Turn(0.0, 2.0, "bob"),), {}, ""),
    ]
    (root / "segments").write_text("ann-1 rec3 0.5 1.5\nann-2 rec1 1.5 3\nbob-1 rec2 0 2\n")
    with pytest.raises(UserError, match="segments, line 1: recording 'rec3' has no line in wav.scp") as error:
        formats.read(root, turns=True)
    assert "segments, line 2: 1.5 s to 3.0 s lies outside rec1.wav" in str(error.value)
    (root / "segments").write_text("ann-1 rec1 0.5 1.5\nann-2 rec1 1.5 2\nbob-1 rec2 0 -1\n")
    (root / "rttm").write_text(RTTM)
    assert formats.read(root, turns=True).splits[""][0].turns[1] == Turn(0.5, 1.5, "bob")
    (root / "rttm").write_text("SPEAKER rec9 1 0.1 0.9 <NA> <NA> ann\nSPEAKER rec1 1 x 0.9 <NA> <NA> ann\n")
    with pytest.raises(UserError, match="rttm, line 2: 'SPEAKER rec1") as error:
        formats.read(root, turns=True)
    assert "rttm, line 1: recording 'rec9' has no line in wav.scp" in str(error.value)


@pytest.mark.parametrize("make", [lambda p: p / "gone", lambda p: p])
def test_a_folder_that_is_none_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    root = make(tmp_path)
    assert formats.recognise(root) is None
    with pytest.raises(UserError, match="no such folder|is none of these: data folders of Kaldi"):
        formats.read(root)


def test_an_empty_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("\n")
    assert "has no utterance (Kaldi data folder)" in problem(tmp_path)
