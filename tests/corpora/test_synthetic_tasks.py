"""All ten tasks of the synthetic corpus: every task reads its part, and labels agree with the audio."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from superb_eval import recipe
from superb_eval.cli import app
from superb_eval.corpora import embedded, load_corpus
from superb_eval.corpora.synthetic import er, lexicon, phones, qbe, synthesise
from superb_eval.corpora.synthetic.generate import GENERATOR_VERSION
from superb_eval.corpora.synthetic.tasks import TASKS
from superb_eval.data import audio
from superb_eval.data.manifest import Corpus
from superb_eval.data.rttm import read_rttm
from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("nano", tmp_path_factory.mktemp("synthetic") / "nano")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def opened(root: Path, task: str) -> Corpus:
    from downstreams import registry

    settings = recipe.load(recipe.find(task, "nano")).corpus
    return load_corpus.open_corpus(task, root, registry.get(task).columns, settings)


@pytest.mark.slow
def test_two_generations_give_the_same_bytes(nano: Path, tmp_path: Path) -> None:
    """Words, mixtures, a search and voices of emotions: the others are made as one of these is."""
    tasks = ("ks", "sd", "qbe", "er")
    again = synthesise("nano", tmp_path, tasks=tasks, workers=1)
    names = sorted(path.relative_to(again) for path in again.glob("*/**/*") if path.is_file())
    assert len(names) > 200
    assert all((nano / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.mark.parametrize("task", TASKS)
def test_corpus_check_finds_no_problem(task: str, nano: Path) -> None:
    answer = CliRunner().invoke(app.app, ["corpus", "check", task, "--data", str(nano), "--full"])
    assert answer.exit_code == 0, answer.output
    assert "synthetic-nano-seed0" in answer.output


@pytest.mark.parametrize("task", TASKS)
def test_plans_know_the_size_of_what_is_synthesised(task: str, nano: Path) -> None:
    clips = opened(nano, task).clips()
    count, seconds = embedded.SIZES["nano", task]
    assert len(clips) == count and sum(map(audio.seconds, clips)) == pytest.approx(seconds, rel=0.02)
    assert GENERATOR_VERSION == 4, "another corpus: measure embedded.SIZES anew"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_synthetic_and_its_durations_are_those_of_the_files(task: str, nano: Path) -> None:
    assert opened(nano, task).synthetic
    listed = [row for path in (nano / task).glob("*.csv") for row in table(path) if "duration_s" in row]
    assert listed
    for row in listed:
        info = soundfile.info(nano / row["path"])
        assert float(row["duration_s"]) == info.frames / info.samplerate
        assert info.samplerate == 16_000


def test_speakers_of_recognition_are_disjoint_and_those_of_identification_the_same(nano: Path) -> None:
    for task, same in (("pr", False), ("asr", False), ("sid", True), ("ic", False), ("sf", False)):
        corpus = opened(nano, task)
        speakers = [{u.speaker for u in split} for split in corpus.splits.values()]
        assert (speakers[0] == speakers[1] == speakers[2]) if same else not set.intersection(*speakers)


def test_speakers_of_trials_are_unseen_and_targets_balanced(nano: Path) -> None:
    corpus = opened(nano, "asv")
    speakers = {name: {u.speaker for u in split} for name, split in corpus.splits.items()}
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]
    for name in ("dev", "test"):
        targets = Counter(trial.target for trial in corpus.splits[name].trials)
        assert targets[True] == targets[False] > 5


def test_folds_share_no_speaker(nano: Path) -> None:
    rows = [row for split in ("train", "dev", "test") for row in table(nano / "er" / f"{split}.csv")]
    folds = {row["speaker"]: {r["fold"] for r in rows if r["speaker"] == row["speaker"]} for row in rows}
    assert all(len(found) == 1 for found in folds.values())
    assert set.union(*folds.values()) == {"1", "2", "3", "4", "5"}
    assert Counter(row["emotion"] for row in rows) == dict.fromkeys(er.PROSODY, 5)


def test_pairs_are_labelled_by_whether_the_document_contains_the_word(nano: Path) -> None:
    queries = {row["id"]: row for row in table(nano / "qbe/queries.csv")}
    documents = {row["id"]: row for row in table(nano / "qbe/docs.csv")}
    pairs = table(nano / "qbe/pairs.csv")
    for pair in pairs:
        query, document = queries[pair["query"]], documents[pair["doc"]]
        assert query["split"] == document["split"] == pair["split"]
        assert query["speaker"] != document["speaker"]
        assert (f" {query['word'].upper()} " in f" {document['text']} ") == (pair["label"] == "1")
    words = {split: {q["word"] for q in queries.values() if q["split"] == split} for split in qbe.SPLITS}
    assert not words["dev"] & words["test"]
    assert 0.03 < np.mean([pair["label"] == "1" for pair in pairs]) < 0.3


def test_phones_are_those_of_cmudict_at_the_rate_of_speech(nano: Path) -> None:
    rows = [row for split in ("train", "dev", "test") for row in table(nano / "pr" / f"{split}.csv")]
    silence = 0.3  # seconds, on average, before and after
    rates = [len(row["phones"].split()) / (float(row["duration_s"]) - silence) for row in rows]
    assert 7 < min(rates) <= max(rates) < 20
    assert 9 < np.median(rates) < 16
    known = {phone for some in phones.CMU.values() for phone in some}
    assert {phone for row in rows for phone in row["phones"].split()} <= known


def test_rttm_agrees_with_the_audio(nano: Path) -> None:
    quiet, loud = [], []
    for split in ("train", "dev", "test"):
        lines, bad = read_rttm(nano / f"sd/{split}.rttm")
        assert not bad
        for row in table(nano / f"sd/{split}.csv"):
            audio, rate = soundfile.read(nano / row["path"])
            turns = [line.turn for line in lines if line.recording == row["id"]]
            assert {turn.speaker for turn in turns} == set(row["speaker"].split("+"))
            spoken = np.zeros(len(audio), bool)
            for turn in turns:
                spoken[round(turn.start * rate) : round(turn.end * rate)] = True
            loud.append(np.mean(audio[spoken] ** 2))
            quiet.append(np.mean(audio[: rate // 6] ** 2))
    assert np.median(np.array(loud) / np.array(quiet)) > 10


def test_tags_mark_the_values(nano: Path) -> None:
    for row in table(nano / "sf/train.csv"):
        words, tags = row["text_canonical"].split(), row["iob_canonical"].split()
        assert len(words) == len(tags)
        found: dict[str, list[str]] = {}
        for word, tag in zip(words, tags, strict=True):
            if tag != "O":
                found.setdefault(tag[2:], []).append(word)
        assert found
        assert all(" ".join(value) in lexicon.REQUESTS.lists[name] for name, value in found.items())


def test_a_task_is_generated_on_first_use_and_others_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from superb_eval.runtime.progress import NoProgress

    monkeypatch.setenv("SUPERB_EVAL_CORPORA", str(tmp_path))
    first = embedded.ensure_folder("nano", "er", NoProgress())
    assert {path.name for path in first.iterdir() if path.is_dir()} == {".shards", "audio", "er"}
    assert embedded.ensure_folder("nano", "asv", NoProgress()) == first
    assert opened(first, "asv").synthetic
    assert opened(first, "er").synthetic


def test_a_task_that_the_embedded_corpus_lacks_needs_data() -> None:
    from superb_eval.runtime.progress import NoProgress

    with pytest.raises(UserError, match=r"no part for humming \(pr, asr, .*--data"):
        embedded.ensure_folder("nano", "humming", NoProgress())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_nano_recipes_run_on_the_nano_corpus(task: str, nano: Path, tmp_path: Path) -> None:
    record, _ = evaluate(RunConfig("fbank_nonorm", f"recipes/nano/{task}.yaml", nano, out=tmp_path))
    assert record.corpus.synthetic
    assert record.corpus.name == "synthetic-nano-seed0"
