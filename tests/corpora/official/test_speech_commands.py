"""The official layout of KS: the protocol's splits, classes, gain and silence."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.ks import KeywordCorpus
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import speech_commands
from superb_eval.corpora.official.speech_commands import BACKGROUND, CLASSES, KEYWORDS, TEST, TRAIN
from superb_eval.data import audio
from superb_eval.data.manifest import Corpus
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from tests.corpora.official.linked import assert_links_are_followed

# By the rule, worked out below: the first goes to train, the second to dev, the third to nobody.
SPEAKERS = ("00000001", "00000000", "00000002")
SECONDS = 2.5


def wav(path: Path, seconds: float = 1.0, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.name)).integers(-3000, 3000, round(seconds * rate)).astype(np.int16)
    soundfile.write(path, samples, rate)


def rule(name: str) -> str:
    """The protocol's rule in whole numbers, for comparison: percent < 10 is n * 100 < 10 * (2^27 - 1)."""
    n = int(hashlib.sha1(re.sub("_nohash_.*", "", name).encode()).hexdigest(), 16) % 2**27 * 100
    return "dev" if n < 10 * (2**27 - 1) else "nobody" if n < 20 * (2**27 - 1) else "train"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small official layout: every keyword and two other words by three speakers, one background file."""
    for word in (*KEYWORDS, "bed", "cat"):
        for speaker in SPEAKERS:
            wav(tmp_path / TRAIN / word / f"{speaker}_nohash_0.wav", rate=8_000 if word == "cat" else 16_000)
    wav(tmp_path / TRAIN / BACKGROUND / "tap.wav", SECONDS)
    for name in CLASSES:
        wav(tmp_path / TEST / name / "0123abcd_nohash_1.wav")
    return tmp_path


def load(root: Path, crops: int = 4) -> Corpus:
    return speech_commands.load(root, KeywordCorpus(silence_crops=crops))


def test_the_splits_follow_the_speakers_hash(root: Path) -> None:
    corpus = load(root)
    for split in ("train", "dev"):
        spoken = [u for u in corpus.splits[split] if u.labels["keyword"] != "_silence_"]
        assert {rule(u.clip.path.name) for u in spoken} == {split}
        assert len(spoken) == 12
    assert [rule(speaker) for speaker in SPEAKERS] == ["train", "dev", "nobody"]


def test_the_rule_is_the_protocols_for_thousands_of_names() -> None:
    names = [f"{i:08x}" for i in range(5000)] + ["no_hash_at_all.wav"]
    assert [speech_commands.split_of(name) or "nobody" for name in names] == [rule(name) for name in names]


@dataclass(frozen=True)
class Lists:
    train: set[str]
    dev: set[str]


def reference(root: Path) -> Lists:
    """The result of s3prl's own `split_dataset`; the module around it needs packages that no longer install."""
    spec = importlib.util.find_spec("s3prl")
    assert spec is not None and spec.origin is not None, "s3prl is a dependency"
    source = Path(spec.origin).parent / "downstream" / "speech_commands" / "expert.py"
    tree = ast.parse(source.read_text())
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "split_dataset"]
    names: dict[str, object] = {}
    header = "import re, hashlib\nfrom pathlib import Path\nfrom typing import *\n"
    exec(header + "\n".join(map(ast.unparse, functions)), names)
    train, dev = names["split_dataset"](root / TRAIN)  # type: ignore[operator]
    return Lists(*({os.path.join(word, path.name) for word, path in rows} for rows in (train, dev)))


def test_the_splits_are_those_of_s3prl(root: Path) -> None:
    for i in range(200):
        (root / TRAIN / KEYWORDS[i % 10] / f"{i * 7919:08x}_nohash_{i % 3}.wav").touch()
    expected = reference(root)
    corpus = load(root)
    for split, names in (("train", expected.train), ("dev", expected.dev)):
        spoken = [u.clip.path for u in corpus.splits[split] if u.labels["keyword"] != "_silence_"]
        assert {os.path.join(path.parent.name, path.name) for path in spoken} == names


def test_other_words_are_unknown_and_keep_their_name(root: Path) -> None:
    train = load(root).splits["train"]
    assert Counter(u.labels["keyword"] for u in train) == dict.fromkeys(KEYWORDS, 1) | {"_unknown_": 2, "_silence_": 4}
    assert {u.labels["word"] for u in train if u.labels["keyword"] == "_unknown_"} == {"bed", "cat"}
    assert {u.speaker for u in train} == {SPEAKERS[0], "_none_"}


def test_the_test_set_is_the_other_archive(root: Path) -> None:
    corpus = load(root)
    assert sorted(u.labels["keyword"] for u in corpus.splits["test"]) == sorted(CLASSES)
    assert all(u.clip.path.parent.parent.name == TEST for u in corpus.splits["test"])


def test_ids_are_unique_and_in_order_on_every_file_system(root: Path) -> None:
    corpus = load(root)
    for split in corpus.splits.values():
        ids = [u.id for u in split]
        assert len(set(ids)) == len(ids)
    spoken = [u.id for u in corpus.splits["train"] if u.labels["keyword"] != "_silence_"]
    assert spoken == sorted(spoken)


def test_silence_is_one_second_inside_the_background_file(root: Path) -> None:
    for split in ("train", "dev"):
        silence = [u.clip for u in load(root, crops=50).splits[split] if u.labels["keyword"] == "_silence_"]
        assert len(silence) == 50
        assert all(0 <= clip.start < clip.end <= SECONDS for clip in silence if clip.end)
        assert {len(audio.read(clip)) for clip in silence} == {16_000}
        assert min(c.start for c in silence) < 0.2
        assert max(c.start for c in silence) > SECONDS - 1 - 0.2


def test_silence_is_always_the_same_and_differs_between_splits(root: Path) -> None:
    def starts(split: str) -> list[float]:
        return [u.clip.start for u in load(root).splits[split] if u.labels["keyword"] == "_silence_"]

    assert starts("train") == starts("train")
    assert starts("train") != starts("dev")


def test_a_background_file_of_one_second_is_cropped_to_itself(root: Path) -> None:
    wav(root / TRAIN / BACKGROUND / "tap.wav", 1.0)
    silence = [u.clip for u in load(root).splits["train"] if u.labels["keyword"] == "_silence_"]
    assert {(clip.start, clip.end) for clip in silence} == {(0.0, 1.0)}


def test_the_deviation_is_noted_with_its_number_and_sizes_are_compared(root: Path) -> None:
    wav(root / TRAIN / BACKGROUND / "zzz.wav", SECONDS)
    corpus = load(root, crops=7)
    assert len(corpus.notes) == 1
    assert "7 fixed 1 s crops of each of 2 background files" in corpus.notes[0]
    assert corpus.expected == {"train": 51_088 + 14, "dev": 6_798 + 14, "test": 3_081}


def test_hidden_files_of_copying_are_no_clips(root: Path) -> None:
    (root / TRAIN / "yes" / f"._{SPEAKERS[0]}_nohash_0.wav").touch()
    (root / TRAIN / ".cache").mkdir()
    assert len(load(root).splits["train"]) == 16


def test_a_missing_archive_is_named(root: Path) -> None:
    (root / TEST).rename(root / "elsewhere")
    assert speech_commands.present(root)
    with pytest.raises(UserError, match=rf"has no folder {TEST}.*Speech Commands v0\.01 \(Google, CC BY 4\.0\)"):
        load(root)
    (root / TRAIN).rename(root / "elsewhere2")
    assert not speech_commands.present(root)


def test_incomplete_folders_are_named(root: Path) -> None:
    (root / TRAIN / "dog").mkdir()
    with pytest.raises(UserError, match=r"dog: holds no \.wav file"):
        load(root)
    (root / TRAIN / "dog").rmdir()
    (root / TRAIN / "go" / f"{SPEAKERS[0]}_nohash_0.wav").unlink()
    with pytest.raises(UserError, match="no training clip of go"):
        load(root)
    (root / TEST / "go").rename(root / TEST / "went")
    with pytest.raises(UserError, match="missing: go, unknown: went"):
        load(root)


def test_missing_or_short_background_noise_is_refused(root: Path) -> None:
    wav(root / TRAIN / BACKGROUND / "tap.wav", 0.9)
    with pytest.raises(UserError, match=r"tap\.wav: lasts 0\.900 s; a crop of silence needs 1 s"):
        load(root)
    (root / TRAIN / BACKGROUND / "tap.wav").unlink()
    with pytest.raises(UserError, match=rf"{BACKGROUND}: holds no \.wav file"):
        load(root)


def test_the_official_layout_is_recognised_and_read_before_manifests(root: Path) -> None:
    assert load_corpus.is_official("ks", root)
    assert not load_corpus.is_official("ks", root / "none")
    assert not load_corpus.is_official("sid", root)
    (root / "ks").mkdir()
    corpus = load_corpus.open_corpus("ks", root, ("keyword",), KeywordCorpus(silence_crops=2))
    assert corpus.name == "Speech Commands v0.01"
    assert len(corpus.splits["train"]) == 12 + 2
    assert len(corpus.notes) == 1


def test_every_clip_has_the_recipes_gain(root: Path) -> None:
    corpus = load_corpus.open_corpus("ks", root, ("keyword",), KeywordCorpus(gain_db=-3.0))
    assert {u.clip.gain_db for split in corpus.splits.values() for u in split} == {-3.0}


def test_manifests_are_read_where_there_is_no_official_layout(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    (tmp_path / "ks").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "ks" / f"{split}.csv").write_text("id,path,speaker,keyword\nx,a.wav,anna,yes\n")
    corpus = load_corpus.open_corpus("ks", tmp_path, ("keyword",), KeywordCorpus(gain_db=-6.0))
    assert [u.clip.gain_db for u in corpus.splits["dev"]] == [-6.0]
    assert corpus.notes == ()


def test_a_folder_with_neither_is_refused_with_both_layouts(root: Path) -> None:
    with pytest.raises(UserError, match="no such corpus folder"):
        load_corpus.open_corpus("ks", root / "none", ("keyword",), KeywordCorpus())
    with pytest.raises(
        UserError, match=rf"neither manifests .* nor the official layout .*Did you mean --data {root}\?"
    ):
        load_corpus.open_corpus("ks", root / TRAIN, ("keyword",), KeywordCorpus())
    with pytest.raises(UserError, match="has no folder 'gender' with manifests"):
        load_corpus.open_corpus("gender", root, ("speaker",), CorpusSettings())


def test_the_official_layout_runs_by_the_official_protocol(root: Path, tmp_path: Path) -> None:
    """As `superb-eval run ks -u fbank_nonorm --data ROOT` would, but for the number of steps."""
    few = ("train.steps=4", "train.eval_every=2", "train.lr=1e-3", "corpus.silence_crops=2")
    record, _ = evaluate(RunConfig("fbank_nonorm", "ks", root, overrides=few, out=tmp_path / "results"))
    assert (record.profile, record.corpus.name) == ("superb", "Speech Commands v0.01")
    assert record.recipe["train"]["balance"] == ["train", "dev"] and record.recipe["corpus"]["gain_db"] == -3.0
    assert any("silence is 2 fixed 1 s crops" in deviation for deviation in record.departures)


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
