"""`corpus new`: columns, splits, audio and tables of a corpus made of another toolkit's data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams import registry
from superb_eval.corpora import checks
from superb_eval.corpora.building import place_audio, summary
from superb_eval.corpora.building.new_corpus import make_corpus
from superb_eval.corpora.building.request import CorpusRequest, parse_columns, parse_shares, parse_splits
from superb_eval.corpora.load_corpus import read_corpus
from superb_eval.data import manifest
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.runs.config import choose_recipe
from superb_eval.runtime.progress import NoProgress


def sound(path: Path, seconds: float = 0.1, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    soundfile.write(path, noise, 16_000)
    return path


def class_folders(root: Path, speakers: int = 10, labels: Sequence[str] = ("no", "yes"), takes: int = 2) -> Path:
    for s in range(speakers):
        for label in labels:
            for take in range(takes):
                sound(root / label / f"spk{s}_nohash_{take}.wav", seed=s)
    return root


def kaldi(root: Path, rows: Sequence[tuple[str, str, str]], **tables: Sequence[str]) -> Path:
    """Write a Kaldi data folder of (id, speaker, text); `tables` are further files, one value for each row."""
    root.mkdir(parents=True, exist_ok=True)
    files = {name: sound(root / "wav" / f"{name}.wav", seed=i) for i, (name, _, _) in enumerate(rows)}
    (root / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path in files.items()))
    (root / "utt2spk").write_text("".join(f"{name} {speaker}\n" for name, speaker, _ in rows))
    (root / "text").write_text("".join(f"{name} {text}\n" for name, _, text in rows))
    for table, values in tables.items():
        lines = (f"{row[0]} {value}\n" for row, value in zip(rows, values, strict=True))
        (root / table).write_text("".join(lines))
    return root


def utterances(speakers: int, each: int, first: int = 0) -> list[tuple[str, str, str]]:
    return [(f"u{first + i:03d}", f"s{first + i % speakers}", "ONE TWO") for i in range(speakers * each)]


def make(task: str, source: Path, out: Path, **options: object) -> list[str]:
    request = CorpusRequest(task, source, out, **options)  # type: ignore[arg-type]
    return summary.describe(make_corpus(request, NoProgress()), request)


def load(task: str, out: Path, *overrides: str) -> Corpus:
    return read_corpus(choose_recipe(task, out, overrides=overrides), out)


def speakers_of(corpus: Corpus) -> list[set[str]]:
    return [{u.speaker for u in split} for split in corpus.splits.values()]


def test_class_folders_become_a_corpus_of_whole_speakers(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "words")
    lines = make("ks", source, tmp_path / "out", speaker=r"^(\w+)_nohash")
    corpus = load("ks", tmp_path / "out")
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 32, "dev": 4, "test": 4}
    train, dev, test = speakers_of(corpus)
    assert len(train) == 8 and train.isdisjoint(dev | test) and dev.isdisjoint(test)
    assert all({u.labels["keyword"] for u in split} == {"no", "yes"} for split in corpus.splits.values())
    assert "  columns: keyword is the column label" in lines
    assert "  divided by whole speakers, shares 80,10,10, seed 0" in lines
    assert lines[-2:] == [
        f"  superb-eval corpus check ks --data {tmp_path / 'out'}",
        f"  superb-eval run ks -u fbank_nonorm --data {tmp_path / 'out'}",
    ]
    clip = corpus.splits["dev"].utterances[0].clip
    assert clip.path.is_symlink() and clip.path.resolve().is_relative_to(source)
    assert (
        clip.path.relative_to(tmp_path / "out" / "audio").as_posix()
        == clip.path.resolve().relative_to(source).as_posix()
    )


def test_unknown_speakers_are_stated(tmp_path: Path) -> None:
    lines = make("ks", class_folders(tmp_path / "words"), tmp_path / "out")
    assert "  divided by utterances, shares 80,10,10, seed 0" in lines
    assert "  speakers are unknown, so that splits may share them (--speaker finds them in file names)" in lines
    assert {u.speaker for split in load("ks", tmp_path / "out").splits.values() for u in split} == {manifest.NO_SPEAKER}


def test_a_finished_corpus_is_left_as_it_is_and_another_command_refused(tmp_path: Path) -> None:
    source, out = class_folders(tmp_path / "words"), tmp_path / "out"
    first = make("ks", source, out)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    shutil.rmtree(source / "no")
    assert make("ks", source, out) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} | written == written
    with pytest.raises(UserError, match=r"ks is made there with seed 0, not 1. Give the same options, choose another"):
        make("ks", source, out, seed=1)
    with pytest.raises(UserError, match=r"ks is made there with source .*words\", not .*other"):
        make("sid", tmp_path / "other", out)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "words")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"out: holds thesis.tex, which this command didn't write. Choose a new"):
        make("ks", source, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def test_an_interrupted_command_is_resumed_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = class_folders(tmp_path / "words")
    make("ks", source, tmp_path / "whole", audio="copy")
    place, count = place_audio._place, [0]

    def interrupted(*args: object) -> None:
        count[0] += 1
        if count[0] == 9:
            raise KeyboardInterrupt
        place(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(place_audio, "_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make("ks", source, tmp_path / "out", audio="copy")
    assert not (tmp_path / "out" / "corpus.json").exists()
    with pytest.raises(UserError, match="ks is made there with seed 0, not 3"):
        make("ks", source, tmp_path / "out", audio="copy", seed=3)
    monkeypatch.setattr(place_audio, "_place", place)
    make("ks", source, tmp_path / "out", audio="copy")
    files = [sorted(p.relative_to(out) for p in out.rglob("*")) for out in (tmp_path / "whole", tmp_path / "out")]
    assert files[0] == files[1]
    for name in ("train", "dev", "test"):
        assert (tmp_path / f"whole/ks/{name}.csv").read_bytes() == (tmp_path / f"out/ks/{name}.csv").read_bytes()


def test_a_command_that_asks_for_an_option_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "words", speakers=2, takes=8)
    with pytest.raises(UserError, match=r"has 2 speaker\(s\) to divide.*the splits need 3.*--split-by utterance"):
        make("ks", source, tmp_path / "out", speaker=r"^(\w+)_nohash")
    lines = make("ks", source, tmp_path / "out", speaker=r"^(\w+)_nohash", split_by="utterance")
    assert any(line.startswith("  train and test share ") for line in lines)


def test_two_tasks_do_not_share_their_tables(tmp_path: Path) -> None:
    source, out = class_folders(tmp_path / "source"), tmp_path / "out"
    make("ks", source, out, overrides=("corpus.folder=words",))
    before = (out / "words/train.csv").read_bytes()
    with pytest.raises(UserError, match=r"words/ holds the tables of ks\. Give another -o corpus\.folder=NAME"):
        make("sid", source, out, overrides=("corpus.folder=words",), speaker=r"^(spk\d+)")
    assert (out / "words/train.csv").read_bytes() == before


def test_tasks_of_one_source_share_a_folder(tmp_path: Path) -> None:
    source = kaldi(tmp_path / "data", utterances(6, 5))
    make("asr", source, tmp_path / "out")
    make("sid", source, tmp_path / "out")
    assert set(json.loads((tmp_path / "out/corpus.json").read_text())["made"]) == {"asr", "sid"}
    assert speakers_of(load("sid", tmp_path / "out")) == [{f"s{k}" for k in range(6)}] * 3
    train, dev, test = speakers_of(load("asr", tmp_path / "out"))
    assert train.isdisjoint(dev | test)


def test_the_sources_own_splits_are_kept_with_ids_times_and_order(tmp_path: Path) -> None:
    for k, (name, count) in enumerate({"train_nodup": 6, "dev": 2, "eval": 2, "extra": 2}.items()):
        kaldi(tmp_path / "data" / name, utterances(2, count, 100 * k))
    recording = sound(tmp_path / "data" / "long.wav", 3.0)
    (tmp_path / "data/dev/wav.scp").write_text(f"rec {recording}\n")
    (tmp_path / "data/dev/segments").write_text("u101 rec 0.5 1.25\nu100 rec 1.25 2\nu102 rec 2 -1\nu103 rec 0 0.3\n")
    lines = make("asr", tmp_path / "data", tmp_path / "out")
    assert "  splits: the source's own, train=train_nodup, dev=dev, test=eval" in lines
    assert "  splits that are not used: extra" in lines
    corpus = load("asr", tmp_path / "out")
    assert [u.id for u in corpus.splits["train"]] == [f"u{i:03d}" for i in range(12)]
    dev = {u.id: (u.clip.start, u.clip.end, u.clip.path.name) for u in corpus.splits["dev"]}
    assert dev["u101"] == (0.5, 1.25, "long.wav") and dev["u102"][0] == 2


def test_dev_is_cut_out_of_train_where_a_source_has_two_splits(tmp_path: Path) -> None:
    kaldi(tmp_path / "data" / "train", utterances(20, 3))
    kaldi(tmp_path / "data" / "test", utterances(2, 3, 500))
    lines = make("asr", tmp_path / "data", tmp_path / "out")
    corpus = load("asr", tmp_path / "out")
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 54, "dev": 6, "test": 6}
    train, dev, test = speakers_of(corpus)
    assert train.isdisjoint(dev) and len(dev) == 2 and test == {"s500", "s501"}
    assert "  dev is 10% of the source's train: divided by whole speakers, seed 0" in lines


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("train", "dev_a", "dev_b", "test"), {}, r"dev may be dev_a or dev_b. Name them.*dev=dev_a\+dev_b"),
        (("alpha", "beta"), {}, r"alpha, beta are not recognised.*--shares 80,10,10"),
        (("dev", "test"), {}, r"are not recognised"),
        (("train", "test"), {"splits": {"train": ("trian",)}}, r"has no split 'trian'.*Did you mean 'train'"),
        (("train", "test"), {"splits": {"train": ("train",), "test": ("train",)}}, r"train is named 2 times"),
    ],
)
def test_splits_that_leave_a_choice_are_refused(
    names: Sequence[str], options: dict[str, dict[str, tuple[str, ...]]], message: str, tmp_path: Path
) -> None:
    for k, name in enumerate(names):
        kaldi(tmp_path / "data" / name, utterances(2, 2, 100 * k))
    with pytest.raises(UserError, match=message):
        make("asr", tmp_path / "data", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_named_splits_are_joined_and_ids_in_several_get_their_splits_name(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b", "c", "d")):
        kaldi(tmp_path / "data" / name, [("same", f"s{k}", "ONE"), (f"u{k}", f"s{k}", "TWO")])
    make("asr", tmp_path / "data", tmp_path / "out", splits=parse_splits("train=a+b, dev=c, test=d"))
    corpus = load("asr", tmp_path / "out")
    assert [u.id for u in corpus.splits["train"]] == ["a-same", "u0", "b-same", "u1"]
    assert [u.id for u in corpus.splits["test"]] == ["d-same", "u3"]


def test_columns_are_named_found_by_an_alias_or_asked_for(tmp_path: Path) -> None:
    rows = utterances(6, 2)
    source = kaldi(tmp_path / "data", rows, utt2word=["yes", "no"] * 6, utt2label=["a", "b"] * 6)
    with pytest.raises(
        UserError, match=r"column keyword, and label and word may each be it.*--column keyword=(word|label)"
    ):
        make("ks", source, tmp_path / "out")
    with pytest.raises(UserError, match=r"--column keyword=wrod: there is no column wrod .*Did you mean 'word'"):
        make("ks", source, tmp_path / "out", columns={"keyword": "wrod"})
    with pytest.raises(UserError, match=r"--column keywrod=word: the task reads keyword.*Did you mean 'keyword'"):
        make("ks", source, tmp_path / "out", columns={"keywrod": "word"})
    with pytest.raises(UserError, match=r"column emotion, and label may|column emotion, and no column is it"):
        make("er", kaldi(tmp_path / "plain", rows), tmp_path / "out")
    with pytest.raises(UserError, match=r'needs the column action.*-o "head.slots=\[text\]"'):
        make("ic", kaldi(tmp_path / "plain2", rows), tmp_path / "out")
    make("ks", source, tmp_path / "out", columns={"keyword": "word"})
    assert {u.labels["keyword"] for u in load("ks", tmp_path / "out").splits["train"]} == {"yes", "no"}


def test_rows_that_are_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    rows = utterances(10, 3)
    source = kaldi(tmp_path / "data", rows, utt2keyword=["yes", "no", "yes"] * 10)
    lines = (source / "utt2keyword").read_text().splitlines(keepends=True)
    (source / "utt2keyword").write_text("".join(lines[2:]))
    (source / "wav" / "u005.wav").write_bytes(b"RIFF")
    sound(source / "wav" / "u007.wav", 0.01)
    printed = "\n".join(make("ks", source, tmp_path / "out"))
    left_out = json.loads((tmp_path / "out/corpus.json").read_text())["made"]["ks"]["summary"]["left_out"]
    assert {reason: found["rows"] for reason, found in left_out.items()} == {
        "without keyword": 2,
        "whose audio can't be read": 1,
        "shorter than 0.05 s": 1,
    }
    assert "left out: 2 without keyword, such as " in printed and "u005.wav" in printed
    assert sum(len(split) for split in load("ks", tmp_path / "out").splits.values()) == 26


def test_sid_divides_each_speakers_utterances(tmp_path: Path) -> None:
    source = kaldi(tmp_path / "data", [*utterances(4, 10), ("x1", "few", "A"), ("x2", "few", "B")])
    lines = make("sid", source, tmp_path / "out")
    assert speakers_of(load("sid", tmp_path / "out")) == [{"s0", "s1", "s2", "s3"}] * 3
    assert any(line.startswith("  left out: 2 of a speaker with fewer than 3 utterances") for line in lines)


def test_sid_on_splits_with_other_speakers_is_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    for k, name in enumerate(("train", "dev", "test")):
        kaldi(tmp_path / "data" / name, utterances(2, 5, 100 * k))
    with pytest.raises(UserError, match=r"2 speaker\(s\) of dev are not in train, such as s100.*--shares 80,10,10"):
        make("sid", tmp_path / "data", tmp_path / "out")
    make("sid", tmp_path / "data", tmp_path / "out", shares=(60.0, 20.0, 20.0))
    corpus = load("sid", tmp_path / "out")
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 18, "dev": 6, "test": 6}


def test_asv_gets_other_speakers_in_each_split_and_trials(tmp_path: Path) -> None:
    source = kaldi(tmp_path / "data", [(f"a {name}".replace(" ", "-"), s, t) for name, s, t in utterances(12, 6)])
    lines = make("asv", source, tmp_path / "out", trials=20)
    corpus = load("asv", tmp_path / "out")
    train, dev, test = speakers_of(corpus)
    assert len(dev) >= 2 and len(test) >= 2 and train.isdisjoint(dev | test) and dev.isdisjoint(test)
    assert [
        (len(s.trials), sum(t.target for t in s.trials)) for s in (corpus.splits["dev"], corpus.splits["test"])
    ] == [
        (20, 10),
        (20, 10),
    ]
    assert "  trials of test: 20, of which 10 are of one speaker, seed 0" in lines
    with pytest.raises(UserError, match=r"has 5 speaker\(s\) to divide.* the splits need 6. Add some"):
        make("asv", kaldi(tmp_path / "five", utterances(5, 4)), tmp_path / "other")
    with pytest.raises(UserError, match="needs other speakers in each split: leave out --split-by utterance"):
        make("asv", source, tmp_path / "fourth", split_by="utterance")
    with pytest.raises(UserError, match=r"no row can be used .*without a speaker.*--column speaker=NAME.*--speaker"):
        make("asv", class_folders(tmp_path / "words"), tmp_path / "third")


def test_ids_with_spaces_are_joined_where_lists_separate_by_spaces(tmp_path: Path) -> None:
    source = tmp_path / "words"
    for s in range(6):
        for take in range(3):
            sound(source / "left turn" / f"spk{s} take {take}.wav", seed=s)
            sound(source / "right turn" / f"spk{s} take {take}.wav", seed=s)
    make("asv", source, tmp_path / "out", speaker=r"^(\w+) take", trials=4)
    trial = load("asv", tmp_path / "out").splits["test"].trials[0]
    assert " " not in trial.enroll and trial.enroll.startswith(("left_turn/spk", "right_turn/spk"))


def test_er_is_cross_validated_over_a_column_of_sessions(tmp_path: Path) -> None:
    rows = utterances(5, 4)
    sessions = [f"Session{1 + i % 5}" for i in range(20)]
    source = kaldi(tmp_path / "data", rows, utt2emotion=["hap", "sad"] * 10, utt2session=sessions)
    lines = make("er", source, tmp_path / "out")
    corpus = load("er", tmp_path / "out")
    folds = {u.id: u.labels["fold"] for split in corpus.splits.values() for u in split}
    assert folds == {row[0]: session for row, session in zip(rows, sessions, strict=True)}
    assert any("cross-validation over 5 folds" in line for line in lines)


def test_er_is_cross_validated_over_splits_that_are_sessions(tmp_path: Path) -> None:
    for k in (1, 2):
        kaldi(tmp_path / "data" / f"session{k}", utterances(2, 3, 10 * k), utt2label=["hap", "sad"] * 3)
    make("er", tmp_path / "data", tmp_path / "out")
    corpus = load("er", tmp_path / "out")
    assert all(len(split) for split in corpus.splits.values())
    assert {u.labels["fold"] for split in corpus.splits.values() for u in split} == {"session1", "session2"}


def test_sd_gets_recordings_with_their_turns(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    rttm, scp = [], []
    for k in range(12):
        scp.append(f"rec{k} {sound(source / 'wav' / f'rec{k}.wav', 1.0, k)}\n")
        rttm.append(
            f"SPEAKER rec{k} 1 0.1 0.45 <NA> <NA> a{k} <NA> <NA>\nSPEAKER rec{k} 1 0.5 0.3 <NA> <NA> b{k} <NA> <NA>\n"
        )
    rttm.append("SPEAKER rec0 1 0.3 0.4 <NA> <NA> a0 <NA> <NA>\nSPEAKER rec1 1 0.9 0.5 <NA> <NA> b1 <NA> <NA>\n")
    (source / "wav.scp").write_text("".join(scp))
    (source / "rttm").write_text("".join(rttm))
    lines = make("sd", source, tmp_path / "out")
    corpus = load("sd", tmp_path / "out")
    turns = {u.id: json.loads(u.labels["turns"]) for split in corpus.splits.values() for u in split}
    assert len(turns) == 11 and "rec1" not in turns
    assert turns["rec2"] == [[0.1, 0.55, "a2"], [0.5, 0.8, "b2"]]
    assert turns["rec0"][0] == [0.1, 0.7, "a0"]
    assert any("1 pair(s) of overlapping turns of one speaker merged" in line for line in lines)
    assert any("left out: 1 with a turn after the end of the audio" in line for line in lines)


def test_er_is_divided_by_shares_where_these_are_given_though_there_are_sessions(tmp_path: Path) -> None:
    rows = utterances(10, 4)
    source = kaldi(tmp_path / "data", rows, utt2emotion=["hap", "sad"] * 20, utt2session=["1", "2"] * 20)
    make("er", source, tmp_path / "out", shares=(60.0, 20.0, 20.0))
    corpus = load("er", tmp_path / "out")
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 24, "dev": 8, "test": 8}
    assert not any("fold" in u.labels for split in corpus.splits.values() for u in split)


def test_speakers_without_a_name_are_stated_and_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "words", speakers=9)
    sound(source / "yes" / "anonymous.wav")
    lines = make("ks", source, tmp_path / "out", speaker=r"^(spk\d+)_")
    assert "  1 of 37 utterances have no speaker" in lines
    assert any("whole speakers, utterances without a speaker each on its own, shares" in line for line in lines)
    with pytest.raises(UserError, match=r"--speaker \^\(x\)_: matches no file's name or path, such as "):
        make("ks", source, tmp_path / "other", speaker="^(x)_")


def test_a_corpus_inside_its_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="out: lies in .*words, which is read and not changed"):
        make("ks", class_folders(tmp_path / "words"), tmp_path / "words" / "out")


TABLES: dict[str, dict[str, list[str]]] = {
    "asr": {},
    "pr": {"utt2phones": ["AH0 B", "B K"]},
    "ks": {"utt2label": ["yes", "no"]},
    "sid": {},
    "asv": {},
    "ic": {"utt2action": ["on", "off"], "utt2object": ["lamp", "heat"], "utt2location": ["here", "there"]},
    "sf": {"utt2iob": ["O B-city", "B-city I-city"]},
    "er": {"utt2emotion": ["hap", "sad"]},
    "gender": {"utt2sex": ["female", "male"]},
}


@pytest.mark.parametrize("task", TABLES)
def test_a_corpus_of_each_task_passes_the_checks_and_can_be_learned(task: str, tmp_path: Path) -> None:
    rows = utterances(12, 4)
    tables = {name: [values[i // 12 % 2] for i in range(len(rows))] for name, values in TABLES[task].items()}
    lines = make(task, kaldi(tmp_path / "data", rows, **tables), tmp_path / "out")
    overrides = [word for word in lines[-1].split() if "=" in word]
    assert overrides == (["corpus.folder=gender"] if task == "gender" else [])
    kind, corpus = registry.get(task), load(task, tmp_path / "out", *overrides)
    report = checks.check_corpus(corpus, kind.label_column)
    assert not report.problems
    assert all(split.utterances for split in report.splits.values())
    assert task == "sid" or not report.shared_speakers
    assert kind.learn(corpus, kind.Head.model_validate(choose_recipe(task, tmp_path / "out").head))


def test_qbe_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"qbe can't be made of labelled utterances.*queries.csv.*docs.csv.*pairs.csv"):
        make("qbe", class_folders(tmp_path / "words"), tmp_path / "out")


def test_classes_that_train_lacks_are_refused(tmp_path: Path) -> None:
    for name, keywords in {"train": ["yes", "no"], "dev": ["yes", "no"], "test": ["yes", "maybe"]}.items():
        kaldi(tmp_path / "data" / name, utterances(2, 1), utt2keyword=keywords)
    with pytest.raises(
        UserError, match=r"1 class\(es\) of dev and test are not in train, such as keyword=maybe.*--shares"
    ):
        make("ks", tmp_path / "data", tmp_path / "out")


def test_letters_that_the_protocol_or_train_lacks_are_stated(tmp_path: Path) -> None:
    texts = {"train": "don't, stop", "dev": "stop", "test": "stop 3 ß"}
    for k, (name, text) in enumerate(texts.items()):
        kaldi(tmp_path / "data" / name, [(f"u{k}", f"s{k}", text)])
    lines = "\n".join(make("asr", tmp_path / "data", tmp_path / "out"))
    assert "text has 1 letters that the protocol lacks (,): normalise the transcripts" in lines
    assert "text of test has letters that train lacks (3, 1 in all): no output" in lines
    assert [u.labels["text"] for u in load("asr", tmp_path / "out").splits["test"]] == ["stop 3 ß"]


def test_audio_outside_the_source_and_copies(tmp_path: Path) -> None:
    source = kaldi(tmp_path / "data", utterances(6, 1))
    (source / "wav").rename(tmp_path / "elsewhere")
    scp = (source / "wav.scp").read_text().replace(str(source / "wav"), str(tmp_path / "elsewhere"))
    (source / "wav.scp").write_text(scp)
    make("asr", source, tmp_path / "out", audio="copy")
    corpus = read_corpus(
        choose_recipe("asr", tmp_path / "out", overrides=("corpus.allow_links=false",)), tmp_path / "out"
    )
    clip = next(iter(corpus.splits["train"])).clip
    assert (
        not clip.path.is_symlink() and clip.path.read_bytes() == (tmp_path / "elsewhere" / clip.path.name).read_bytes()
    )


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_shares, "80,20", "expected three positive numbers"),
        (parse_shares, "80,20,x", "expected three positive numbers"),
        (parse_shares, "80,20,0", "expected three positive numbers"),
        (parse_shares, "80,20,nan", "expected three positive numbers"),
        (parse_splits, "dev=a", "names no split for train"),
        (parse_splits, "train=a,tset=b", "Did you mean 'test'"),
        (parse_splits, "train", "is not SPLIT=NAME"),
        (lambda text: parse_columns([text]), "keyword", "expected COLUMN=NAME"),
        (lambda text: CorpusRequest("ks", Path(), Path(), speaker=text), "(", "not a regular expression"),
        (lambda text: CorpusRequest("ks", Path(), Path(), speaker=text), r"\w+", "has 0 groups; one"),
    ],
)
def test_options_of_another_form_are_refused(parse: object, text: str, message: str) -> None:
    assert callable(parse)
    with pytest.raises(UserError, match=message):
        parse(text)
