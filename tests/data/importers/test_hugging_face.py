"""Data sets of Hugging Face: saved folders and Parquet, as `datasets` writes them, and SUPERB's own sets."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile

from superb_eval.corpora.building.table_audio import write_table_audio
from superb_eval.data.importers import formats
from superb_eval.data.importers.hf_tables import open_table
from superb_eval.data.importers.source import TableAudio
from superb_eval.data.manifest import Turn
from superb_eval.errors import UserError

datasets = pytest.importorskip("datasets")

STORED = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
"""What the type Audio is in a table; encoding the type itself would need a decoder of audio."""


def audio_bytes(seed: int, seconds: float = 0.3, file_format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)), 16_000, format=file_format
    )
    return file.getvalue()


def data_set(
    columns: Mapping[str, Sequence[Any]], features: Mapping[str, Any], paths: Sequence[str]
) -> datasets.Dataset:
    """Return a data set whose column `audio` holds the bytes of files named `paths`."""
    stored = [{"bytes": audio_bytes(seed), "path": path} for seed, path in enumerate(paths)]
    schema = datasets.Features({"audio": STORED, **features})
    made = datasets.Dataset.from_dict({"audio": stored, **columns}, features=schema)
    return made.cast_column("audio", datasets.Audio(decode=False))


def words(split: str = "train", rows: int = 5) -> datasets.Dataset:
    return data_set(
        {"label": [k % 2 for k in range(rows)], "speaker": [f"{split}{k}" for k in range(rows)]},
        {"label": datasets.ClassLabel(names=["yes", "no"]), "speaker": datasets.Value("string")},
        [f"{split}-{k}.wav" for k in range(rows)],
    )


def check(rows: Sequence[Any], expected: datasets.Dataset) -> None:
    """Compare rows with what `datasets` reads: classes, speakers, and the bytes of every file."""
    names = expected.features["label"]
    assert [(row.labels["label"], row.speaker) for row in rows] == [
        (names.int2str(row["label"]), row["speaker"]) for row in expected
    ]
    with TemporaryDirectory() as out:
        root = rows[0].audio.table.parent
        files = write_table_audio([row.audio for row in rows], root, Path(out), "audio", lambda done: None)
        stored = [(Path(out) / files[row.audio]).read_bytes() for row in rows]
    assert stored == [row["audio"]["bytes"] for row in expected]
    assert [row.id for row in rows] == [Path(row["audio"]["path"]).stem for row in expected]


def problem(root: Path) -> str:
    with pytest.raises(UserError) as error:
        formats.read(root)
    return str(error.value)


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    saved = datasets.DatasetDict({name: words(name) for name in ("train", "validation", "test")})
    saved.save_to_disk(tmp_path / "x", num_shards={"train": 2, "validation": 1, "test": 1})
    assert formats.recognise(tmp_path / "x") == "Hugging Face data set"
    source = formats.read(tmp_path / "x")
    assert list(source.splits) == ["train", "validation", "test"]
    for name, rows in source.splits.items():
        check(rows, datasets.load_from_disk(str(tmp_path / "x"))[name])
    assert source.splits["train"][4].location == "train/data-00001-of-00002.arrow, row 2"
    assert source.notes == ()


def test_a_saved_data_set_is_undivided(tmp_path: Path) -> None:
    words().save_to_disk(tmp_path / "x")
    assert formats.split_names(tmp_path / "x") == [""]
    check(formats.read(tmp_path / "x").splits[""], words())


def write_parquet(root: Path, *names: str, split: str = "train") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        words(split).shard(len(names), number, contiguous=True).to_parquet(root / name)
    return root


LAYOUTS = {
    "hub": ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
    "digests": [
        "data/train-00000-of-00001-0123456789abcdef.parquet",
        "data/test-00000-of-00001-0123456789abcdef.parquet",
    ],
    "configuration": ["ks/train-00000-of-00001.parquet", "ks/test-00000-of-00001.parquet"],
    "converted": ["default/train/0000.parquet", "default/test/0000.parquet"],
    "plain": ["train.parquet", "test.parquet"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_parquet(tmp_path: Path, layout: str) -> None:
    for name in LAYOUTS[layout]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        words("train" if "train" in name else "test", 7).to_parquet(tmp_path / name)
    (tmp_path / "README.md").write_text("---\nlicense: unknown\n---\n")
    source = formats.read(tmp_path)
    assert sorted(source.splits) == ["test", "train"]
    for split, rows in source.splits.items():
        check(rows, words(split, 7))


def test_shards_are_read_in_order_and_a_missing_one_is_named(tmp_path: Path) -> None:
    names = [f"train-{k:05d}-of-00003.parquet" for k in range(3)]
    write_parquet(tmp_path / "data", *names)
    check(formats.read(tmp_path).splits["train"], words())
    (tmp_path / "data" / names[1]).unlink()
    assert "1 of 3 files are missing: train-00001-of-00003.parquet. Copy them too" in problem(tmp_path)


def test_several_configurations_are_named(tmp_path: Path) -> None:
    for name in ("ks", "asr"):
        write_parquet(tmp_path / name, "test-00000-of-00001.parquet")
    assert f"holds several data sets (asr, ks). Give one, such as {tmp_path / 'asr'}" in problem(tmp_path)
    assert formats.recognise(tmp_path / "ks") == "Hugging Face data set"


def test_manifests_in_parquet_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "ks").mkdir()
    rows = {"id": ["a"], "path": ["a.wav"], "speaker": ["x"], "keyword": ["yes"], "file": ["a.wav"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "ks/train.parquet")
    assert formats.recognise(tmp_path) is None


def test_paths_instead_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for k in range(3):
        (tmp_path / f"clips/{k}.wav").write_bytes(audio_bytes(k))
    texts = datasets.Dataset.from_dict({"file": [f"clips/{k}.wav" for k in range(3)], "text": list("ABC")})
    texts.to_parquet(tmp_path / "train.parquet")
    rows = formats.read(tmp_path).splits["train"]
    assert [(row.id, row.audio, row.labels) for row in rows] == [
        (str(k), tmp_path / f"clips/{k}.wav", {"text": text}) for k, text in enumerate("ABC")
    ]
    (tmp_path / "clips/1.wav").unlink()
    assert "train.parquet, row 2: no such file: 'clips/1.wav' is in none of" in problem(tmp_path)


def test_bytes_and_paths_in_one_column(tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(audio_bytes(1))
    cells = [
        {"bytes": audio_bytes(0), "path": "0.wav"},
        {"bytes": None, "path": "1.wav"},
        {"bytes": None, "path": None},
    ]
    made = datasets.Dataset.from_dict({"audio": cells}, features=datasets.Features({"audio": STORED}))
    made.select([0, 1]).to_parquet(tmp_path / "train.parquet")
    first, second = formats.read(tmp_path).splits["train"]
    assert isinstance(first.audio, TableAudio)
    assert second.audio == tmp_path / "1.wav"
    made.to_parquet(tmp_path / "train.parquet")
    assert "train.parquet, row 3: has neither audio nor its path" in problem(tmp_path)


def test_labels_without_names_and_columns_that_are_none(tmp_path: Path) -> None:
    made = data_set(
        {
            "label": [3, 4],
            "x": [{"a": 1}] * 2,
            "embedding": [[0.5]] * 2,
            "words": [["a", "b"], []],
            "share": [0.5, None],
        },
        {
            "label": datasets.Value("int64"),
            "x": {"a": datasets.Value("int32")},
            "embedding": datasets.List(datasets.Value("float32")),
            "words": datasets.List(datasets.Value("string")),
            "share": datasets.Value("float64"),
        },
        ["a.wav", "b.wav"],
    )
    made.to_parquet(tmp_path / "train.parquet")
    source = formats.read(tmp_path)
    assert [dict(row.labels) for row in source.splits["train"]] == [
        {"label": "3", "words": "a b", "share": "0.5"}, {"label": "4", "words": "", "share": ""},
    ]  # fmt: skip
    assert source.notes == (
        "whole numbers are labels as they are, for their classes have no names: label",
        "columns left out, for they hold neither text nor numbers: x, embedding",
    )


def test_a_column_of_ids_that_are_not_unique_is_a_label(tmp_path: Path) -> None:
    text = {"id": datasets.Value("string")}
    data_set({"id": ["u2", "u1"]}, text, ["a.wav", "a.wav"]).save_to_disk(tmp_path / "unique")
    assert [(row.id, row.labels) for row in formats.read(tmp_path / "unique").splits[""]] == [("u2", {}), ("u1", {})]
    data_set({"id": ["u", "u"]}, text, ["x/a.wav", "y/a.wav"]).save_to_disk(tmp_path / "same")
    source = formats.read(tmp_path / "same")
    assert [(row.id, row.labels) for row in source.splits[""]] == [
        ("same-000001", {"id": "u"}),
        ("same-000002", {"id": "u"}),
    ]
    assert "the column id isn't unique" in source.notes[0]


@pytest.mark.parametrize("content", [b"PAR1 cut short", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    write_parquet(tmp_path, "test.parquet")
    (tmp_path / "train.parquet").write_bytes(content)
    text = problem(tmp_path)
    assert text.startswith(f"{tmp_path / 'train.parquet'}: ")
    assert ("Git LFS" in text) == (b"git-lfs" in content)


def test_a_saved_folder_without_its_data_is_named(tmp_path: Path) -> None:
    words().save_to_disk(tmp_path)
    (tmp_path / "data-00000-of-00001.arrow").unlink()
    assert "data-00000-of-00001.arrow is missing. Copy the folder again" in problem(tmp_path)


def test_a_file_name_that_no_disk_holds_is_named(tmp_path: Path) -> None:
    words().save_to_disk(tmp_path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "' + "x" * 5000 + '"}]}')
    assert "is missing. Copy the folder again" in problem(tmp_path)


def test_features_of_columns_that_are_not_there(tmp_path: Path) -> None:
    from pyarrow import parquet

    write_parquet(tmp_path, "train.parquet")
    table = parquet.read_table(tmp_path / "train.parquet")
    parquet.write_table(table.rename_columns(["sound", "label", "speaker"]), tmp_path / "train.parquet")
    assert len(formats.read(tmp_path).splits["train"]) == 5


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"_data_files": [{"name": 1}]}', '{"_data_files": []}'])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    words().save_to_disk(tmp_path)
    (tmp_path / "state.json").write_text(content)
    assert f"{tmp_path / 'state.json'}: is not what save_to_disk writes" in problem(tmp_path)


@pytest.mark.parametrize(
    "stored",
    [
        b"{",
        b"[1]",
        b'{"info": {"features": [1]}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": 1}}}}',
    ],
)
def test_damaged_features_are_named(tmp_path: Path, stored: bytes) -> None:
    from pyarrow import parquet

    write_parquet(tmp_path, "train.parquet")
    table = parquet.read_table(tmp_path / "train.parquet").replace_schema_metadata({b"huggingface": stored})
    parquet.write_table(table, tmp_path / "train.parquet")
    assert f"{tmp_path / 'train.parquet'}: can't be read as a table" in problem(tmp_path)


def test_reading_rows_reads_no_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path, "train.parquet")
    from pyarrow import parquet

    read: list[str] = []
    batches = parquet.ParquetFile.iter_batches

    def recorded(self: Any, *args: Any, **options: Any) -> Any:
        read.extend(options["columns"])
        return batches(self, *args, **options)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", recorded)
    formats.read(tmp_path)
    assert read == ["audio.path", "label", "speaker"]


def test_audio_is_read_a_few_files_at_a_time(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    noise = np.random.default_rng(0)
    cells = [{"bytes": noise.bytes(500_000), "path": f"{k}.wav"} for k in range(40)]
    parquet.write_table(pa.table({"audio": cells}), tmp_path / "train.parquet", row_group_size=2)
    before, most = pa.total_allocated_bytes(), 0
    with open_table(tmp_path / "train.parquet") as table:
        for batch in table.batches(["audio.bytes"], 2):
            assert batch.num_rows == 2
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < 8e6


# SUPERB's own sets, by the features that their public loading script and the hub's card state.

KEYWORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_silence_", "_unknown_"]


def save_superb(root: Path, name: str, made: datasets.Dataset, splits: Sequence[str]) -> Path:
    (root / name).mkdir(parents=True)
    for split in splits:
        made.to_parquet(root / name / f"{split}-00000-of-00001.parquet")
    return root / name


def test_superb_asr(tmp_path: Path) -> None:
    files = [f"/data/LibriSpeech/dev-clean/84/121123/84-121123-000{k}.flac" for k in range(2)]
    columns: dict[str, list[Any]] = {
        "file": files,
        "text": ["GO DO", "BUT"],
        "speaker_id": [84, 84],
        "chapter_id": [121123, 121123],
    }
    ids = [Path(file).stem for file in files]
    kinds = {"file": "string", "text": "string", "speaker_id": "int64", "chapter_id": "int64", "id": "string"}
    features = {key: datasets.Value(kind) for key, kind in kinds.items()}
    made = data_set({**columns, "id": ids}, features, [Path(file).name for file in files])
    root = save_superb(tmp_path, "asr", made, ["train", "validation", "test"])
    rows = formats.read(root).splits["validation"]
    assert [(row.id, row.labels["text"], row.labels["speaker_id"]) for row in rows] == [
        (ids[0], "GO DO", "84"), (ids[1], "BUT", "84"),
    ]  # fmt: skip


def test_superb_ks_has_twelve_classes_and_ids_of_folder_and_file(tmp_path: Path) -> None:
    files = [f"/data/{word}/0a7c2a8d_nohash_0.wav" for word in ("yes", "bed", "_silence_")]
    features = {"file": datasets.Value("string"), "label": datasets.ClassLabel(names=KEYWORDS)}
    made = data_set({"file": files, "label": [0, 11, 10]}, features, files)
    rows = formats.read(save_superb(tmp_path, "ks", made, ["train", "validation", "test"])).splits["test"]
    assert [(row.id, row.labels["label"]) for row in rows] == [
        ("yes/0a7c2a8d_nohash_0", "yes"),
        ("bed/0a7c2a8d_nohash_0", "_unknown_"),
        ("_silence_/0a7c2a8d_nohash_0", "_silence_"),
    ]


def test_superb_ic(tmp_path: Path) -> None:
    slots = {"action": ["activate", "bring"], "object": ["lights", "none"], "location": ["kitchen", "none"]}
    features = {key: datasets.ClassLabel(names=names) for key, names in slots.items()}
    text = {key: datasets.Value("string") for key in ("file", "speaker_id", "text")}
    columns = {"file": ["a", "b"], "speaker_id": ["x", "y"], "text": ["s", "t"]}
    made = data_set(
        {**columns, "action": [0, 1], "object": [0, 1], "location": [1, 0]}, {**text, **features}, ["a.wav", "b.wav"]
    )
    rows = formats.read(save_superb(tmp_path, "ic", made, ["train", "validation", "test"])).splits["train"]
    assert [tuple(row.labels[key] for key in ("speaker_id", *slots)) for row in rows] == [
        ("x", "activate", "lights", "none"), ("y", "bring", "none", "kitchen"),
    ]  # fmt: skip


def test_superb_si_labels_are_speakers(tmp_path: Path) -> None:
    names = [f"id{10_001 + k}" for k in range(1251)]
    files = ["/wav/id10001/v1/00001.wav", "/wav/id10001/v2/00001.wav", "/wav/id11251/v1/00001.wav"]
    features = {"file": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    made = data_set({"file": files, "label": [0, 0, 1250]}, features, ["00001.wav"] * 3)
    rows = formats.read(save_superb(tmp_path, "si", made, ["train", "validation", "test"])).splits["train"]
    assert [(row.id, row.labels["label"]) for row in rows] == [
        ("id10001/v1/00001", "id10001"), ("id10001/v2/00001", "id10001"), ("id11251/v1/00001", "id11251"),
    ]  # fmt: skip


def test_superb_er_has_a_split_for_each_session(tmp_path: Path) -> None:
    features = {"file": datasets.Value("string"), "label": datasets.ClassLabel(names=["neu", "hap", "ang", "sad"])}
    made = data_set({"file": ["a", "b"], "label": [3, 1]}, features, ["a.wav", "b.wav"])
    source = formats.read(save_superb(tmp_path, "er", made, [f"session{k}" for k in range(1, 6)]))
    assert list(source.splits) == ["session1", "session2", "session3", "session4", "session5"]
    assert [row.labels["label"] for row in source.splits["session5"]] == ["sad", "hap"]


def superb_sd(speakers: Sequence[Sequence[tuple[str, int, int]]]) -> datasets.Dataset:
    """Return two chunks of one recording and one of another; times are frames of 10 ms."""
    turn = {"speaker_id": datasets.Value("string"), "start": datasets.Value("int64"), "end": datasets.Value("int64")}
    whole = {"record_id": datasets.Value("string"), "file": datasets.Value("string")}
    features = {
        **whole,
        "start": datasets.Value("int64"),
        "end": datasets.Value("int64"),
        "speakers": datasets.List(turn),
    }
    columns: dict[str, list[Any]] = {
        "record_id": ["m1", "m1", "m2"],
        "file": ["/wav/m1.wav", "/wav/m1.wav", "/wav/m2.wav"],
        "start": [0, 2000, 0],
        "end": [2000, 2500, 900],
        "speakers": [[{"speaker_id": s, "start": a, "end": b} for s, a, b in spoken] for spoken in speakers],
    }
    return data_set(columns, features, ["m1.wav", "m1.wav", "m2.wav"])


def test_superb_sd_chunks_are_recordings_with_turns_in_seconds(tmp_path: Path) -> None:
    m1 = [("ann", 0, 1234), ("bob", 1000, 2500), ("bob", 7, 7)]
    root = save_superb(tmp_path, "sd", superb_sd([m1, m1, [("eve", 5, 900)]]), ["train", "dev", "test"])
    rows = formats.read(root, turns=True).splits["dev"]
    assert [(row.id, row.turns, row.labels) for row in rows] == [
        ("m1", (Turn(0.0, 12.34, "ann"), Turn(10.0, 25.0, "bob")), {"file": "/wav/m1.wav"}),
        ("m2", (Turn(0.05, 9.0, "eve"),), {"file": "/wav/m2.wav"}),
    ]
    save_superb(tmp_path / "other", "sd", superb_sd([m1, m1[:1], []]), ["train"])
    text = problem(tmp_path / "other/sd")
    assert "train-00000-of-00001.parquet, row 2: recording 'm1' has other turns than in train" in text


def test_turns_in_three_lists_are_seconds(tmp_path: Path) -> None:
    features = {
        "timestamps_start": datasets.List(datasets.Value("float64")),
        "timestamps_end": datasets.List(datasets.Value("float64")),
        "speakers": datasets.List(datasets.Value("string")),
    }
    columns: dict[str, list[Any]] = {
        "timestamps_start": [[0.0, 0.1]],
        "timestamps_end": [[0.2, 0.25]],
        "speakers": [["ann", "bob"]],
    }
    data_set(columns, features, ["m.wav"]).to_parquet(tmp_path / "train.parquet")
    (row,) = formats.read(tmp_path).splits["train"]
    assert row.turns == (Turn(0.0, 0.2, "ann"), Turn(0.1, 0.25, "bob"))
