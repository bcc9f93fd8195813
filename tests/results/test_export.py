"""Exports: the model card's index, as the hub reads it, and the leaderboard's files, task by task."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from downstreams.base import Prediction
from superb_eval.errors import UserError
from superb_eval.export import model_card, submission
from superb_eval.results import recorded_command
from superb_eval.results.folder import Run
from tests.results.runs import answers, new_record, vary, write_run


def test_the_hub_reads_the_index(complete: Path, tmp_path: Path) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    content = yaml.safe_load(model_card.model_index(complete, "hubert", "strict"))
    name, results = model_index_to_eval_results(content["model-index"])
    assert name == "hubert" and len(results) == 12, "eleven metrics, and ASR's character errors"
    assert [r.task_name.split()[0] for r in results[:3]] == ["PR", "ASR", "ASR"], "the papers' order"
    assert all("(SUPERB, profile superb)" in r.task_name for r in results)
    ks = next(r for r in results if r.task_name.startswith("KS"))
    assert (ks.metric_type, ks.dataset_name, ks.dataset_revision) == ("accuracy", "pack", "d-ks")
    low, high = ks.metric_args["interval_95"]
    assert low < ks.metric_value < high
    write_run(tmp_path, vary(new_record("mine", "ks"), corpus__synthetic=True), answers(0.6, 0))
    assert "KS (not SUPERB, profile mini, synthetic speech)" in model_card.model_index(tmp_path, "mine", "strict")


def test_seeds_are_averaged_in_the_index_and_a_hostile_name_is_escaped(tmp_path: Path) -> None:
    name = "a: {b}\n- !!python/object:os.system\u202e"
    for seed in (0, 1):
        write_run(tmp_path, vary(new_record(name, "ks"), seed=seed), answers(0.6, seed))
    (index,) = yaml.safe_load(model_card.model_index(tmp_path, name, "strict"))["model-index"]
    assert index["results"][0]["metrics"][0]["args"]["seeds"] == 2
    assert "\n" not in index["name"] and "\u202e" not in index["name"]
    with pytest.raises(UserError, match="no run of 'other'"):
        model_card.model_index(tmp_path, "other", "strict")


def test_only_official_runs_are_submitted(tmp_path: Path) -> None:
    write_run(tmp_path, new_record("hubert", "ks"), answers(0.6, 0))
    with pytest.raises(UserError, match="follows the official protocol"):
        submission.write(tmp_path, "hubert", "strict", tmp_path / "out")


def test_each_of_the_ten_tasks_has_its_files(complete: Path, tmp_path: Path) -> None:
    paths = submission.write(complete, "hubert", "strict", tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in paths}
    assert {path.split("/")[0] for path in found} == set(submission.FORMS)
    assert {"ks/test_predict.txt", "qbe/benchmark.stdlist.xml", "er/test_fold1_predict.txt"} <= found
    assert {"pr/test-hyp.ark", "sf/test-hyp.ark", "asr/test-clean-noLM-hyp.ark", "sd/scoring/frame_shift"} <= found
    ElementTree.parse(tmp_path / "out" / "qbe" / "benchmark.stdlist.xml")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(new_record("hubert", "ks"), tmp_path)


def written(run: Run, task: str, rows: list[Prediction], tmp_path: Path) -> dict[str, str]:
    official = Run(run.record.model_copy(update={"task": task}), run.folder)
    found = {}
    for place, save in submission.files_of(official, rows):
        path = tmp_path / place.replace("/", "_")
        save(path)
        found[place] = path.read_text() if path.suffix != ".h5" else str(path)
    return found


def test_lines_are_those_that_s3prl_writes(run: Run, tmp_path: Path) -> None:
    """The line formats of s3prl's downstream/*/expert.py."""
    rows = [Prediction("yes/ab_nohash_0", "yes", "no")]
    assert written(run, "ks", rows, tmp_path) == {"test_predict.txt": "yes-ab_nohash_0.wav no\n"}
    rows = [Prediction("id10270/5r0d/00001.wav id10271/x/2.wav", "1", "0.5")]
    assert written(run, "asv", rows, tmp_path) == {"test_predict.txt": "id10270-5r0d-00001_id10271-x-2 0.5\n"}
    rows = [Prediction("spk/u1", "", '{"action": "a", "object": "b, c", "location": "none"}')]
    assert written(run, "ic", rows, tmp_path) == {"test_predict.csv": 'u1,a,"b, c",none\n'}
    rows = [Prediction("u1", "A", "A B\tA C"), Prediction("u2", "A", "\tD")]
    found = written(run, "asr", rows, tmp_path)
    assert found == {"test-clean-noLM-hyp.ark": "u1 A B\nu2 \n", "test-clean-LM-hyp.ark": "u1 A C\nu2 D\n"}
    rows = [Prediction("u1\nu2 yes", "a", "b"), Prediction("u3", "a", "b", 2)]
    found = written(run, "er", rows, tmp_path)
    assert found == {"test_fold1_predict.txt": "u1 u2 yes b\n", "test_fold2_predict.txt": "u3 b\n"}


def test_turns_become_frames_that_give_the_same_turns(run: Run, tmp_path: Path) -> None:
    import h5py

    from downstreams.metrics import diarization

    turns = [[0.2, 1.0, "0"], [0.6, 2.0, "1"]]
    rows = [Prediction("../../rec", str(turns).replace("'", '"'), str(turns).replace("'", '"'))]
    found = written(run, "sd", rows, tmp_path)
    assert found["scoring/frame_shift"] == "320\n" and "scoring/predictions/rec.h5" in found
    with h5py.File(found["scoring/predictions/rec.h5"]) as file:
        active = file["T_hat"][:]
    assert active.shape == (100, 2)
    again = diarization.decode_turns(active, threshold=0.5, median=1, stride=320)
    assert [list(turn) for turn in again] == turns


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/home/me/enc.py:Class", "enc.py:Class"),
        ("hubert@/mnt/x y/c.pt", "hubert@c.pt"),
        ("checkpoint:~/a/b.pt#ema", "checkpoint:b.pt#ema"),
        ("corpus.folder=/data/ks", "corpus.folder=ks"),
        ("facebook/hubert-base-ls960", "facebook/hubert-base-ls960"),
        ("recipes/mini/ks.yaml", "recipes/mini/ks.yaml"),
        ("hf:../mine/model", "hf:../mine/model"),
        ("https://host/org/model", "https://host/org/model"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(word: str, expected: str) -> None:
    assert recorded_command.without_folders(word) == expected


def test_a_model_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    command = "superb-eval run ks -u /home/me/enc.py:Class --data '/mnt/my disk/ks' --seed 0"
    record = vary(new_record("/home/me/enc.py:Class", "ks"), command=command)
    write_run(tmp_path, record, answers(0.5, 0, count=40))
    card = model_card.model_index(tmp_path, "/home/me/enc.py:Class", "strict")
    assert "/home" not in card and "/mnt" not in card
    assert "superb-eval run ks -u enc.py:Class --data ks --seed 0" in card
