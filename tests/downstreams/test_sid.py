"""SID: its head against s3prl's modules, its classes, and what it refuses."""

from __future__ import annotations

import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from downstreams.base import Prediction, Setup
from downstreams.batching.targets import Targets
from downstreams.nets.heads import UtteranceLevel
from downstreams.sid import SpeakerIdentification
from superb_eval import recipe
from superb_eval.data import read_manifest
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

SPEAKERS = [f"id{10001 + k}" for k in range(1251)]


def sids(root: Path, dev: str = "anna,bert,cleo", test: str = "anna,bert,cleo") -> Path:
    """Manifests over files that need only be there."""
    (root / "sid").mkdir(parents=True)
    (root / "a.wav").touch()
    for split, speakers in {"train": "cleo,bert,anna,bert", "dev": dev, "test": test}.items():
        rows = [f"{split}{k},a.wav,{speaker}" for k, speaker in enumerate(speakers.split(","))]
        (root / "sid" / f"{split}.csv").write_text("\n".join(["id,path,speaker", *rows]))
    return root


def read(root: Path) -> Corpus:
    return read_manifest.read(root, "sid", SpeakerIdentification.columns)


def build(labels: list[str]) -> SpeakerIdentification:
    return SpeakerIdentification(Setup(labels, SpeakerIdentification.Head()))


def test_forward_loss_and_gradient_equal_s3prls_for_1251_speakers() -> None:
    from s3prl.downstream import model

    torch.manual_seed(1)
    projector = nn.Linear(48, 256)
    theirs = model.UtteranceLevel(input_dim=256, output_dim=1251, pooling="MeanPooling")
    task = build(SPEAKERS)
    head = task.head(48)
    assert isinstance(head, UtteranceLevel)
    head.projector.load_state_dict(projector.state_dict())
    head.classifier.load_state_dict(theirs.post_net.linear.state_dict())
    frames, lengths, labels = torch.randn(5, 60, 48), torch.tensor([60, 9, 1, 33, 20]), [0, 7, 1250, 600, 7]
    expected, _ = theirs(projector(frames), lengths)
    actual = head(frames, lengths)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    reference = nn.CrossEntropyLoss()(expected, torch.tensor(labels))
    loss = task.loss(actual, lengths, Targets.of(labels))
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    reference.backward()
    loss.backward()
    torch.testing.assert_close(head.projector.weight.grad, projector.weight.grad, rtol=1e-5, atol=1e-7)


def test_parameters_are_the_protocols() -> None:
    assert sum(p.numel() for p in build(SPEAKERS).head(768).parameters()) == 518_371


def test_classes_are_the_sorted_speakers_of_training(tmp_path: Path) -> None:
    corpus = read(sids(tmp_path))
    assert SpeakerIdentification.learn(corpus, None) == ["anna", "bert", "cleo"]
    task = build(["anna", "bert", "cleo"])
    assert [task.target(u) for u in corpus.splits["train"]] == [2, 1, 0, 1]
    assert task.classes(corpus.splits["dev"]) == ["anna", "bert", "cleo"]


def test_ids_of_voxceleb_are_numbered_as_the_protocol_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = _s3prls_dataset(monkeypatch)
    corpus = read(sids(tmp_path))
    rows = tuple(replace(corpus.splits["train"].utterances[0], labels={"speaker": s}) for s in reversed(SPEAKERS))
    train = replace(corpus.splits["train"], utterances=rows)
    task = build(SpeakerIdentification.learn(replace(corpus, splits={"train": train}), None))
    paths = [f"VoxCeleb1/dev/wav/{u.labels['speaker']}/video/00001.wav" for u in train]
    assert [task.target(u) for u in train] == theirs.build_label(None, paths)


def _s3prls_dataset(monkeypatch: pytest.MonkeyPatch) -> Any:
    """s3prl's data set class; the package that it finds files with is not needed for labels."""
    util = types.ModuleType("librosa.util")
    util.find_files = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "librosa", types.ModuleType("librosa"))
    monkeypatch.setitem(sys.modules, "librosa.util", util)
    from s3prl.downstream.voxceleb1 import dataset

    return dataset.SpeakerClassifiDataset


def test_a_speaker_who_is_not_in_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dev\.csv: 1 bad row.*\s+line 3: speaker 'dora' is never seen in train"):
        SpeakerIdentification.learn(read(sids(tmp_path / "a", dev="anna,dora")), None)
    with pytest.raises(UserError, match=r"test\.csv: 2 bad row(?s:.*)line 2: speaker 'dora'(?s:.*)line 4: speaker 'x'"):
        SpeakerIdentification.learn(read(sids(tmp_path / "b", test="dora,anna,x")), None)


def test_answers_are_scored_against_chance() -> None:
    task = build(["anna", "bert"])
    answers = task.decode(torch.tensor([[0.1, 0.9], [2.0, 1.0], [3.0, 1.0], [0.0, 0.1]]), torch.ones(4))
    rows = [
        Prediction("", truth, answer) for truth, answer in zip(["bert", "bert", "anna", "bert"], answers, strict=True)
    ]
    assert task.score(rows)[0].value == 75.0
    assert task.chance(rows) == 75.0


def test_the_official_recipe_is_the_protocol() -> None:
    """protocol: s3prl downstream/voxceleb1/config.yaml, with the rates that the published rows were searched over."""
    official = recipe.load(recipe.find("sid", "superb"))
    train = official.train
    assert (train.steps, train.batch_size * train.accumulate, train.eval_every) == (200_000, 8 * 4, 5000)
    assert (train.optimizer, train.clip, train.balance) == ("adam", 1.0, ())
    assert train.rates() == (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    assert official.head == {"projector_dim": 256} and official.corpus.gain_db == 0.0
    assert any("8 s at random" in departure for departure in official.departures)


def test_frames_cut_at_random_are_the_other_way(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the official recipe names as nearest to the protocol's cuts of 8 s."""
    # Matrices this small are no work for two threads, which wait for one another on a busy machine.
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    root = _by_pitch(tones, tmp_path / "corpus")
    settings = ("train.steps=40", "train.eval_every=40", "train.lr=1e-2", "train.batch_size=8")
    cuts = (*settings, "features.pooled=false", "train.crop_seconds=0.3")
    record, _ = evaluate(RunConfig("fbank_nonorm", "sid", root, overrides=cuts, out=tmp_path / "r"))
    assert record.features.kind == "frames"
    assert record.metrics[0].value > 50 > (record.chance or 100)


def _by_pitch(tones: Path, root: Path) -> Path:
    """The half of the corpus of tones, with the pitch for a speaker."""
    shutil.copytree(tones / "audio", root / "audio")
    (root / "sid").mkdir()
    for split in ("train", "dev", "test"):
        lines = (tones / "ks" / f"{split}.csv").read_text().splitlines()[1::2]
        rows = [f"{name},{path},{word}" for name, path, _, word in (line.split(",") for line in lines)]
        (root / "sid" / f"{split}.csv").write_text("\n".join(["id,path,speaker", *rows]))
    return root
