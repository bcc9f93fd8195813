"""Data folders of other toolkits, read as they are: the same corpus as its manifests, or the command that decides."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from downstreams import registry as tasks
from superb_eval.corpora import embedded, load_corpus
from superb_eval.corpora.building.new_corpus import make_corpus
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.corpora.load_corpus import open_corpus
from superb_eval.data.importers import formats
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.runs.config import choose_recipe
from superb_eval.runtime.progress import NoProgress

SPLITS = ("train", "dev", "test")

Row = dict[str, str]


def rows_of(split: str) -> list[Row]:
    """Return five utterances of two speakers that no other split has."""
    return [
        {
            "id": f"{split}-{k}",
            "path": f"audio/{split}-{k}.wav",
            "speaker": f"{split}{k % 2}",
            "text": ["GO", "STOP NOW", "YES", "NO", "GO"][k],
            "keyword": ["go", "stop", "yes", "no", "go"][k],
        }
        for k in range(5)
    ]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Manifests of ASR and KS with their audio."""
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    (root / "audio").mkdir(parents=True)
    for split in SPLITS:
        rows = rows_of(split)
        for row in rows:
            soundfile.write(root / row["path"], rng.normal(0, 0.1, 8_000), 16_000)
        for task, label in (("asr", "text"), ("ks", "keyword")):
            (root / task).mkdir(exist_ok=True)
            with (root / task / f"{split}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["id", "path", "speaker", label], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
    return root


def load(task: str, root: Path, **settings: Any) -> Corpus:
    kind = tasks.get(task)
    columns = kind.needs(kind.Head())
    return kind.annotate(open_corpus(task, root, columns, kind.CorpusSchema.model_validate(settings)))


def digest(corpus: Corpus) -> str:
    return load_corpus.corpus_digest(corpus, load_corpus.audio_digests(corpus.clips(), NoProgress()))


def problem(task: str, root: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        load(task, root, **settings)
    return str(error.value)


def command(task: str, root: Path) -> str:
    return f"To decide it, make a corpus of the folder: superb-eval corpus new {task} {root} --out DIR"


# The same corpus in each format.


def write_kaldi(root: Path, audio: Path, names: Sequence[str] = SPLITS) -> Path:
    for split, name in zip(SPLITS, names, strict=True):
        rows = rows_of(split)
        (root / name).mkdir(parents=True)
        tables = {"wav.scp": {row["id"]: str(audio / row["path"]) for row in rows}}
        tables["text"] = {row["id"]: row["text"] for row in rows}
        tables["utt2spk"] = {row["id"]: row["speaker"] for row in rows}
        tables["utt2keyword"] = {row["id"]: row["keyword"] for row in rows}
        for file, lines in tables.items():
            (root / name / file).write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    return root


def write_saved(root: Path, audio: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    names = ["go", "stop", "yes", "no"]
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    plain = {name: datasets.Value("string") for name in ("id", "speaker", "text")}
    features = datasets.Features({"audio": stored, **plain, "label": datasets.ClassLabel(names=names)})
    splits = {}
    for split, name in zip(SPLITS, ("train", "validation", "test"), strict=True):
        rows = rows_of(split)
        columns: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in plain}
        columns["label"] = [names.index(row["keyword"]) for row in rows]
        columns["audio"] = [
            {"bytes": (audio / row["path"]).read_bytes(), "path": Path(row["path"]).name} for row in rows
        ]
        made = datasets.Dataset.from_dict(columns, features=features)
        splits[name] = made.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict(splits).save_to_disk(root)
    return root


def write_lhotse(root: Path, audio: Path) -> Path:
    root.mkdir()
    for split in SPLITS:
        recordings, supervisions = [], []
        for row in rows_of(split):
            source = {"type": "file", "channels": [0], "source": str(audio / row["path"])}
            recordings.append({"id": row["id"], "sources": [source], "sampling_rate": 16_000, "duration": 0.5})
            segment = {"id": row["id"], "recording_id": row["id"], "start": 0.0, "duration": 0.5, "channel": 0}
            custom = {"keyword": row["keyword"]}
            supervisions.append({**segment, "text": row["text"], "speaker": row["speaker"], "custom": custom})
        for kind, lines in (("recordings", recordings), ("supervisions", supervisions)):
            (root / f"mine_{kind}_{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def write_parquet(root: Path, audio: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_from_disk(str(write_saved(root.with_name("saved"), audio)))
    (root / "data").mkdir(parents=True)
    for name, split in saved.items():
        split.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def write_audiofolder(root: Path, audio: Path) -> Path:
    for split, name in zip(SPLITS, ("train", "validation", "test"), strict=True):
        (root / name).mkdir(parents=True)
        rows = rows_of(split)
        for row in rows:
            (root / name / Path(row["path"]).name).write_bytes((audio / row["path"]).read_bytes())
        lines = [{**row, "file_name": Path(row.pop("path")).name} for row in rows]
        (root / name / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


Writer = Callable[[Path, Path], Path]

FORMATS = (write_kaldi, write_saved, write_parquet, write_audiofolder, write_lhotse)


@pytest.mark.parametrize("task", ["asr", "ks"])
@pytest.mark.parametrize("write", FORMATS)
def test_it_is_the_corpus_of_its_manifests(manifests: Path, tmp_path: Path, write: Writer, task: str) -> None:
    ours = load(task, write(tmp_path / "other", manifests))
    expected = load(task, manifests)
    assert digest(ours) == digest(expected)
    assert ours.notes[0] == f"read as it is, from a {formats.recognise(tmp_path / 'other')}"
    for split in SPLITS:
        assert [(u.id, u.speaker, u.labels) for u in ours.splits[split]] == [
            (u.id, u.speaker, u.labels) for u in expected.splits[split]
        ]
    assert choose_recipe(task, tmp_path / "other").profile == "mini"


@pytest.mark.parametrize("write", FORMATS)
def test_corpus_new_makes_the_same(manifests: Path, tmp_path: Path, write: Writer) -> None:
    other = write(tmp_path / "other", manifests)
    make_corpus(CorpusRequest("ks", other, tmp_path / "made"), NoProgress())
    assert digest(load("ks", tmp_path / "made", allow_links=True)) == digest(load("ks", other))


def test_audio_settings_of_the_recipe_hold(manifests: Path, tmp_path: Path) -> None:
    corpus = load("ks", write_kaldi(tmp_path / "other", manifests), gain_db=-3.0)
    assert {u.clip.gain_db for u in corpus.splits["test"]} == {-3.0}


def test_class_folders_have_no_speakers(manifests: Path, tmp_path: Path) -> None:
    for split in SPLITS:
        for row in rows_of(split):
            path = tmp_path / "folders" / split / row["keyword"] / f"{row['id']}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(manifests / row["path"])
    corpus = load("ks", tmp_path / "folders")
    assert [(u.id, u.labels, u.speaker) for u in corpus.splits["dev"]][:2] == [
        ("go/dev-0", {"keyword": "go"}, "_none_"), ("go/dev-4", {"keyword": "go"}, "_none_"),
    ]  # fmt: skip
    assert "columns: keyword is the column label" in corpus.notes


# Audio that lies in tables.


def test_stored_audio_is_written_once(manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = write_saved(tmp_path / "saved", manifests)
    (folder,) = {u.clip.path.parents[3] for u in load("ks", saved).splits["test"]}
    assert folder.parent == embedded.cache_folder()
    assert len(list(folder.rglob("*.wav"))) == 15
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    saved.rename(tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr("superb_eval.corpora.table_cache.write_table_audio", None)  # a call would fail
        load("asr", tmp_path / "moved")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == first


def test_an_interrupted_writing_is_resumed(manifests: Path, tmp_path: Path) -> None:
    saved = write_saved(tmp_path / "saved", manifests)
    expected = digest(load("ks", saved))
    paths = sorted(embedded.cache_folder().rglob("*.wav"))
    stayed = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    assert digest(load("ks", saved)) == expected
    assert paths[1].is_file()
    assert paths[0].stat().st_mtime_ns == stayed


# What is left open is refused, with the command that decides it.


def test_an_undivided_folder(manifests: Path, tmp_path: Path) -> None:
    write_kaldi(tmp_path / "other", manifests)
    one = tmp_path / "other/train"
    text = problem("ks", one)
    assert text == f"{one}: isn't divided into train, dev and test. {command('ks', one)}"


def test_splits_that_leave_open_which_is_which(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "my other", manifests, ("train", "dev_clean", "dev_other"))
    text = problem("ks", other)
    assert "dev may be dev_clean or dev_other" in text
    assert command("ks", Path(f"'{other}'")) in text


def test_a_missing_split(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests, ("train_nodup", "set_aside", "eval2000"))
    text = problem("ks", other)
    assert text.startswith(f"{other}: has no split for dev (found: train_nodup, eval2000). ")
    assert command("ks", other) in text


def test_a_column_that_may_be_several(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    for split in SPLITS:
        (other / split / "utt2keyword").rename(other / split / "utt2label")
        (other / split / "utt2word").write_text((other / split / "utt2label").read_text())
    text = problem("ks", other)
    assert "label and word may each be it" in text
    assert command("ks", other) in text


def test_rows_without_a_label(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    lines = (other / "dev/utt2keyword").read_text().splitlines()
    (other / "dev/utt2keyword").write_text("\n".join(lines[1:]) + "\n")
    assert "has 1 row(s) without keyword, such as dev/wav.scp, line 1, which would be left out" in problem("ks", other)


def test_tasks_that_need_lists(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    assert "needs lists of trials, which a data folder doesn't hold" in problem("asv", other)
    assert command("asv", other) in problem("asv", other)
    assert "qbe/queries.csv" in problem("qbe", other)
    assert "corpus new" not in problem("qbe", other)


def test_speakers_of_sid_are_those_of_train(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    text = problem("sid", other)
    assert "2 speaker(s) of dev are not in train" in text
    assert command("sid", other) in text


def test_bad_lines_are_not_a_matter_of_choice(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    (other / "dev/text").write_text("dev-0 A\ndev-0 B\n")
    text = problem("asr", other)
    assert "dev/text, line 2: 'dev-0' is already in line 1" in text
    assert "corpus new" not in text


# Precedence, and the data sets of SUPERB on the hub.


def test_another_table_called_train_is_no_manifest(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    (other / "tables").mkdir()
    (other / "tables/train.csv").write_text("name,path\n")
    assert load("ks", other).notes
    (other / "tables/train.csv").write_text('\ufeff"id", path,speaker\n')
    assert "holds neither manifests" in problem("ks", other)


def test_manifests_come_first(manifests: Path) -> None:
    write_kaldi(manifests / "data", manifests)
    assert not load("ks", manifests).notes
    with pytest.raises(UserError, match="has no folder 'gender'|holds neither"):
        load("gender", manifests)


def test_a_folder_that_is_none_names_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert "nor a data folder of Kaldi, Hugging Face or Lhotse, nor class folders" in problem("ks", tmp_path)


def write_hub(root: Path, name: str, splits: dict[str, str], features: Any, columns: Any, paths: Sequence[str]) -> None:
    datasets = pytest.importorskip("datasets")
    (root / name).mkdir(parents=True)
    content = (root.parent / "mine/audio/train-0.wav").read_bytes()
    for split, prefix in splits.items():
        stored = [{"bytes": content, "path": f"{prefix}{path}"} for path in paths]
        schema = datasets.Features(
            {"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, **features}
        )
        made = datasets.Dataset.from_dict({"audio": stored, **columns}, features=schema)
        made.to_parquet(root / name / f"{split}-00000-of-00001.parquet")


THREE = {"train": "a", "validation": "b", "test": "c"}


def test_sets_of_superb_are_found_by_the_task(manifests: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    hub = tmp_path / "superb"
    speakers = {"label": datasets.ClassLabel(names=["id10001", "id10002"])}
    emotions = {"label": datasets.ClassLabel(names=["neu", "hap", "ang", "sad"])}
    text = {"text": datasets.Value("string"), "speaker_id": datasets.Value("int64")}
    write_hub(hub, "si", THREE, speakers, {"label": [0, 1]}, ["1.wav", "2.wav"])
    write_hub(hub, "er", {f"session{k}": f"s{k}" for k in range(1, 6)}, emotions, {"label": [0, 3]}, ["1.wav", "2.wav"])
    write_hub(hub, "asr", THREE, text, {"text": ["A B", "C"], "speaker_id": [84, 85]}, ["1.wav", "2.wav"])
    assert [(u.id, u.labels) for u in load("sid", hub).splits["test"]] == [
        ("c1", {"speaker": "id10001"}), ("c2", {"speaker": "id10002"}),
    ]  # fmt: skip
    emotion = load("er", hub)
    assert {u.labels["emotion"] for u in emotion.splits["train"]} == {"neu", "sad"}
    assert len(tasks.get("er").folds(emotion)) == 5
    assert [(u.speaker, u.labels) for u in load("asr", hub).splits["dev"]] == [
        ("84", {"text": "A B"}), ("85", {"text": "C"}),
    ]  # fmt: skip
    assert "holds several data sets (asr, er, si)" in problem("ks", hub)


def test_diarisation_of_superb_equals_its_manifests(manifests: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    turn = {key: datasets.Value("string" if key == "speaker_id" else "int64") for key in ("speaker_id", "start", "end")}
    features = {
        "record_id": datasets.Value("string"), "start": datasets.Value("int64"), "end": datasets.Value("int64"),
        "speakers": datasets.List(turn),
    }  # fmt: skip
    spoken = [{"speaker_id": "ann", "start": 0, "end": 30}, {"speaker_id": "bob", "start": 25, "end": 50}]
    columns = {"record_id": ["m", "m"], "start": [0, 25], "end": [25, 50], "speakers": [spoken, spoken]}
    write_hub(tmp_path / "hub", "sd", dict.fromkeys(SPLITS, ""), features, columns, ["m.wav", "m.wav"])
    ours = load("sd", tmp_path / "hub", chunk_seconds=0.3)
    (tmp_path / "plain/sd").mkdir(parents=True)
    (tmp_path / "plain/m.wav").write_bytes((manifests / "audio/train-0.wav").read_bytes())
    for split in SPLITS:
        (tmp_path / f"plain/sd/{split}.csv").write_text(f"id,path\n{split}-m,m.wav\n")
        # Ids that several splits have begin with the split.
        lines = ("0.0 0.3 <NA> <NA> ann", "0.25 0.25 <NA> <NA> bob")
        rttm = "".join(f"SPEAKER {split}-m 1 {line} <NA> <NA>\n" for line in lines)
        (tmp_path / f"plain/sd/{split}.rttm").write_text(rttm)
    expected = load("sd", tmp_path / "plain", chunk_seconds=0.3)
    for split in SPLITS:
        assert [(u.id, u.speaker, u.labels, u.clip.start, u.clip.end) for u in ours.splits[split]] == [
            (u.id, u.speaker, u.labels, u.clip.start, u.clip.end) for u in expected.splits[split]
        ]


def test_turns_of_kaldi_are_checked(manifests: Path, tmp_path: Path) -> None:
    other = write_kaldi(tmp_path / "other", manifests)
    good = "SPEAKER {0} 1 0 0.3 <NA> <NA> ann\nSPEAKER {0} 1 0.2 0.3 <NA> <NA> bob\n"
    for split in SPLITS:
        (other / split / "rttm").write_text("".join(good.format(f"{split}-{k}") for k in range(5)))
    corpus = load("sd", other)
    assert [u.id for u in corpus.splits["dev"]] == [f"dev-{k}" for k in range(5)]
    late = good.replace("0.2 0.3", "0.2 0.9") + "SPEAKER {0} 1 0.1 0.1 <NA> <NA> ann\n"
    (other / "dev/rttm").write_text("".join(late.format(f"dev-{k}") for k in range(5)))
    text = problem("sd", other)
    assert "dev/wav.scp, line 1: a turn of bob ends at 1.100 s, but dev-0.wav lasts 0.500 s" in text
    assert "dev/wav.scp, line 1: ann has a turn from 0.100 s and another to 0.300 s" in text
