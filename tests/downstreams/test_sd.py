"""SD against s3prl's own modules, on the same weights and inputs, and from chunks to rows."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from downstreams.base import Prediction, Setup
from downstreams.batching.targets import Targets
from downstreams.metrics import diarization
from downstreams.metrics.diarization import EXTRA_FRAMES
from downstreams.nets.heads import SpeakerActivity
from downstreams.sd import DiarizationHead, SpeakerDiarization
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Turn, Utterance
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureBatch

STRIDE = 320
LENGTHS, LABELS = [50, 31, 44], [48, 31, 44]


def s3prl_source(module: str, functions: str) -> Any:
    """A class of a module of `downstream/diarization` that doesn't import (it wants h5py)."""
    spec = importlib.util.find_spec("s3prl")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "downstream" / "diarization" / f"{module}.py").read_text())
    names: dict[str, Any] = {"np": np, "torch": torch, "nn": nn, "Dataset": object}
    nodes = [n for n in tree.body if getattr(n, "name", "") == functions]
    exec("\n".join(map(ast.unparse, nodes)), names)
    return names[functions]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(2)
    features = nn.utils.rnn.pad_sequence([torch.randn(n, 12) for n in LENGTHS], batch_first=True)
    return features, torch.tensor(LENGTHS), [(torch.rand(n, 2) > 0.5).float() for n in LABELS]


def build(speakers: int = 2) -> SpeakerDiarization:
    return SpeakerDiarization(Setup(speakers, DiarizationHead(speakers=speakers), STRIDE))


def test_forward_and_loss_equal_s3prls(batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]) -> None:
    from s3prl.downstream.diarization import model, utils

    features, lengths, labels = batch
    theirs = model.Model(12, 2, rnn_layers=1, hidden_size=16)
    head = SpeakerActivity(12, 16, 2)
    head.load_state_dict(theirs.state_dict())
    padded = nn.utils.rnn.pad_sequence(labels, batch_first=True)
    expected = theirs(features[:, : padded.shape[1]])
    expected_loss, order, orders = utils.pit_loss(expected, padded, torch.tensor(LABELS))
    output = head(features, lengths)
    for row, reference, n in zip(output, expected, LABELS, strict=True):
        torch.testing.assert_close(row[:n], reference[:n], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(build().loss(output, lengths, Targets.of(labels)), expected_loss, rtol=1e-6, atol=1e-6)
    _, actual = diarization.pit_loss(expected, Targets.of(labels))
    assert [diarization.speaker_orders(2)[i] for i in actual.tolist()] == [tuple(orders[i].tolist()) for i in order]


def test_frame_accuracy_is_s3prls(batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]) -> None:
    from s3prl.downstream.diarization import utils

    _, _, labels = batch
    for label in labels:
        logits = torch.randn_like(label)
        length = torch.tensor([len(label)])
        _, order, orders = utils.pit_loss(logits[None], label[None], length)
        correct, frames, *_ = utils.calc_diarization_error(
            logits[None], utils.get_label_perm(label[None], order, orders), length
        )
        assert diarization.frame_accuracy(logits, label) == pytest.approx(100 * correct / frames, abs=1e-4)


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_missing_frames_of_a_training_batch_are_s3prls(
    missing: int, batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
) -> None:
    """Zeros for utterances shorter than the longest, its last frame repeated for the longest."""
    from s3prl.downstream.diarization import model, utils

    features, lengths, _ = batch
    labels = [(torch.rand(n + missing, 2) > 0.5).float() for n in LENGTHS]
    theirs = model.Model(12, 2, rnn_layers=1, hidden_size=16)
    head = SpeakerActivity(12, 16, 2)
    head.load_state_dict(theirs.state_dict())
    padded = nn.utils.rnn.pad_sequence(labels, batch_first=True)
    matched, _ = s3prl_source("expert", "DownstreamExpert")._match_length(None, features, padded)
    expected, _, _ = utils.pit_loss(theirs(matched), padded, torch.tensor([len(label) for label in labels]))
    torch.testing.assert_close(
        build().loss(head(features, lengths), lengths, Targets.of(labels)), expected, rtol=1e-6, atol=1e-7
    )
    part = FeatureBatch(features, lengths).part(1, 3)  # as where memory ran out
    output, whole = head(part.hidden, part.lengths), head(features, lengths)
    for k, n in enumerate(LENGTHS[1:]):
        torch.testing.assert_close(output[k, : n + EXTRA_FRAMES], whole[k + 1, : n + EXTRA_FRAMES])
    head.eval()
    alone = head(features[1:2, : LENGTHS[1]], lengths[1:2])
    torch.testing.assert_close(head(features, lengths)[1:2, : alone.shape[1]], alone)


@pytest.mark.parametrize("frames", [40, 48, 45, 53])
def test_lengths_are_matched_as_in_s3prl(frames: int) -> None:
    """One utterance whose features are fewer or more than its 48 labels."""
    match = s3prl_source("expert", "DownstreamExpert")._match_length
    features, labels = torch.randn(1, frames, 12), torch.zeros(1, 48, 2)
    head = SpeakerActivity(12, 16, 2)
    theirs, _ = match(None, features, labels)
    expected = head.linear(head.rnn(theirs)[0])
    actual = diarization.align_frames(
        head(features, torch.tensor([frames])), torch.tensor([frames]), torch.tensor([48])
    )
    # Beyond EXTRA_FRAMES frames the last output is repeated where s3prl goes on computing it.
    same = min(48, frames + EXTRA_FRAMES)
    torch.testing.assert_close(actual[:, :same], expected[:, :same], rtol=1e-6, atol=1e-6)
    assert actual.shape == expected.shape


def test_labels_are_those_of_s3prl() -> None:
    dataset = s3prl_source("dataset", "DiarizationDataset")
    rng = np.random.default_rng(1)
    for _ in range(50):
        seconds = float(np.round(rng.uniform(3, 9), 2))
        turns = [Turn(s, e, "ba"[k % 2]) for k, (s, e) in enumerate(np.sort(rng.uniform(0, seconds, (6, 2)), axis=1))]
        segments = [{"utt": str(k), "st": t.start, "et": t.end} for k, t in enumerate(turns)]
        data = SimpleNamespace(
            segments={"r": segments},
            utt2spk={str(k): t.speaker for k, t in enumerate(turns)},
            load_wav=lambda *_: (None, 16_000),
        )
        own = SimpleNamespace(data=data, frame_shift=STRIDE)
        for start in (0.0, 4.0):
            if start >= seconds:
                continue
            span = diarization.label_frames(start, min(start + 4, seconds), STRIDE)
            _, expected = dataset._get_labeled_speech(own, "r", *span, 2)
            # s3prl forgets turns that begin before a chunk and end after it.
            across = any(round(t.start * 50) < span[0] and round(t.end * 50) > span[1] for t in turns)
            actual = diarization.speaker_activity(turns, span, STRIDE, 2)
            assert across or (actual == expected).all()


def test_a_turn_that_rounds_to_the_end_of_a_chunk_labels_nothing() -> None:
    """It is spoken for 10 ms of the chunk's last frame at most; s3prl labels all 100 frames."""
    turn, span = Turn(1.995, 2.005, "a"), (0, 100)
    data = SimpleNamespace(
        segments={"r": [{"utt": "0", "st": turn.start, "et": turn.end}]},
        utt2spk={"0": "a"},
        load_wav=lambda *_: (None, 16_000),
    )
    dataset = s3prl_source("dataset", "DiarizationDataset")
    own = SimpleNamespace(data=data, frame_shift=STRIDE)
    assert dataset._get_labeled_speech(own, "r", *span, 2)[1][:, 0].all()
    assert not diarization.speaker_activity([turn], span, STRIDE, 2).any()


def test_a_turn_across_a_whole_chunk_is_labelled() -> None:
    assert diarization.speaker_activity([Turn(0.0, 9.0, "a")], (100, 200), STRIDE, 2)[:, 0].all()


def test_parameters_are_the_protocols() -> None:
    """Protocol: 2,626,562 for a 768-dimensional upstream."""
    assert sum(p.numel() for p in SpeakerActivity(768, 512, 2).parameters()) == 2_626_562


def test_padding_changes_no_output(batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]) -> None:
    features, lengths, _ = batch
    louder = features.clone()
    louder[1, LENGTHS[1] :] = 1e6
    head = SpeakerActivity(12, 16, 2)
    assert torch.equal(head(features, lengths)[1, : 31 + EXTRA_FRAMES], head(louder, lengths)[1, : 31 + EXTRA_FRAMES])


def test_swapped_speakers_cost_the_same(batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]) -> None:
    _, _, labels = batch
    logits = torch.randn(3, 48, 2)
    swapped, _ = diarization.pit_loss(logits.flip(2), Targets.of(labels))
    torch.testing.assert_close(swapped, diarization.pit_loss(logits, Targets.of(labels))[0])


def chunked(tmp_path: Path, turns: list[Turn], seconds: float = 5.0, chunk: float = 2.0) -> Corpus:
    labels = {"recording": "r", "turns": diarization.turns_to_json(turns)}
    edges = np.arange(0, seconds, chunk).tolist()
    rows = tuple(
        Utterance(f"r#{k}", Clip(tmp_path / "r.wav", a, min(a + chunk, seconds)), "a b", labels)
        for k, a in enumerate(edges)
    )
    return Corpus("c", tmp_path, {n: Manifest(n, rows, tmp_path / f"{n}.rttm") for n in ("train", "dev", "test")})


def perfect(task: SpeakerDiarization, split: Manifest) -> list[torch.Tensor]:
    """Logits that are right in every label frame, of one frame fewer than there are labels."""
    targets = [task.target(u) for u in split]
    return [torch.cat([8 * t[:-1] - 4, torch.zeros(EXTRA_FRAMES, 2) - 4]) for t in targets]


def test_chunks_are_joined_again_and_scored(tmp_path: Path) -> None:
    turns = [Turn(0.5, 3.0, "a"), Turn(2.5, 4.9, "b")]
    corpus = chunked(tmp_path, turns)
    task = build()
    assert [len(task.target(u)) for u in corpus.splits["test"]] == [100, 100, 50]
    task.adopt({"threshold": 0.5, "median": 1})
    (row,) = task.rows(corpus.splits["test"], perfect(task, corpus.splits["test"]))
    assert row.id == "r" and diarization.turns_from_json(row.truth) == turns
    # The frames that were cut off, at the end of each chunk, are silent here: 20 ms at 1.98 s and at 3.98 s.
    assert diarization.turns_from_json(row.answer) == [
        Turn(0.5, 1.98, "0"), Turn(2.0, 3.0, "0"), Turn(2.5, 3.98, "1"), Turn(4.0, 4.9, "1"),
    ]  # fmt: skip
    (score,) = task.score([row])
    assert score.value == pytest.approx(100 * 0.04 / 4.9)
    assert task.chance([row]) == pytest.approx(100 * 2.4 / 4.9)


def test_dev_chooses_the_setting_and_the_historical_one_looks_at_test(tmp_path: Path) -> None:
    split = chunked(tmp_path, [Turn(0.0, 1.0, "a"), Turn(1.0, 2.0, "b")], seconds=2.0).splits["dev"]
    task = build()
    target = task.target(split.utterances[0])
    # Speech is as probable as 0.45, and every tenth frame a false alarm on one speaker.
    logits = torch.cat([torch.where(target > 0, -0.2, -4.0), torch.full((EXTRA_FRAMES, 2), -4.0)])
    logits[50:100:10, 0] = -0.2
    tuned = task.tune(split, [logits])
    assert tuned == {"threshold": 0.3, "median": 11} == {"threshold": task.threshold, "median": task.median}
    strict, historical = task.rows(split, [logits]), task.historical(split, [logits])
    assert task.score(strict)[0].value == task.score(historical)[0].value < 10
    assert task.select(split, [logits]) == pytest.approx(50.0)
    assert "speaker 0" in task.show([logits])[0]


def test_one_active_frame_is_the_protocols_turn() -> None:
    probabilities = np.zeros((30, 2), dtype=np.float32)
    probabilities[10, 1] = 0.9
    (turn,) = diarization.decode_turns(probabilities, 0.5, 1, STRIDE)
    assert (turn.start, round(turn.end - turn.start, 2), turn.speaker) == (0.20, 0.02, "1")
    assert diarization.decode_turns(probabilities, 0.5, 11, STRIDE) == []


def test_too_many_speakers_are_refused(tmp_path: Path) -> None:
    corpus = chunked(tmp_path, [Turn(0.0, 1.0, s) for s in "abc"])
    with pytest.raises(UserError, match=r"1 recording\(s\) have more than 2 speakers: r\. .*head\.speakers"):
        SpeakerDiarization.learn(corpus, DiarizationHead())
    assert SpeakerDiarization.learn(corpus, DiarizationHead(speakers=3)) == 3


def test_the_first_step_learns_on_one_utterance(tmp_path: Path) -> None:
    corpus = chunked(tmp_path, [Turn(0.0, 1.0, "a"), Turn(0.5, 2.0, "b")])
    task = build()
    head = task.head(6)
    features, lengths = torch.randn(3, 100, 6), torch.tensor([99, 100, 49])
    targets = [task.target(u) for u in corpus.splits["train"]]
    loss = task.loss(head(features, lengths), lengths, Targets.of(targets))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2), abs=0.1)
    decoded = task.decode(head(features, lengths).detach(), lengths)
    assert [len(logits) for logits in decoded] == [n + EXTRA_FRAMES for n in lengths.tolist()]


def test_a_row_is_all_that_the_score_needs() -> None:
    row = Prediction("r", json.dumps([[0, 2, "a"]]), json.dumps([[1, 2, "0"]]))
    assert build().score([row])[0].value == pytest.approx(50.0)
    assert build().score([row, row])[0].units == 2
