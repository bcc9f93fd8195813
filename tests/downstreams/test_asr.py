"""ASR: its vocabularies, targets, sampling and scores, and the second answer that a language model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from downstreams.asr import Hypothesis, SpeechHead, SpeechRecognition
from downstreams.base import Prediction, Setup
from downstreams.batching.buckets import Buckets
from downstreams.batching.targets import Targets
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.recipe import TrainSettings

SMALL = {"projector_dim": 24, "hidden_dim": 24, "specaug": None, "dropout": 0.0}


def corpus(train: list[str], test: list[str]) -> Corpus:
    def split(name: str, rows: list[str]) -> Manifest:
        made = (Utterance(f"{name}{i}", Clip(Path("a.wav")), "anna", {"text": t}, i + 2) for i, t in enumerate(rows))
        return Manifest(name, tuple(made), Path(f"asr/{name}.csv"))

    return Corpus(
        "mine", Path(), {"train": split("train", train), "dev": split("dev", test), "test": split("test", test)}
    )


def build(train: list[str], test: list[str], **head: Any) -> tuple[SpeechRecognition, Corpus]:
    rows, settings = corpus(train, test), SpeechHead.model_validate({**SMALL, **head})
    return SpeechRecognition(Setup(SpeechRecognition.learn(rows, settings), settings)), rows


def one_hot(task: SpeechRecognition, *texts: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [batch, frames, outputs] that spells texts, `-` for the blank."""
    index = {token: i for i, token in enumerate(task.labels["characters"])} | {"-": 0}
    rows = [torch.nn.functional.one_hot(torch.tensor([index[c] for c in text]), len(index) - 1) for text in texts]
    return torch.nn.utils.rnn.pad_sequence([9.0 * r for r in rows], batch_first=True), torch.tensor([*map(len, texts)])


def test_english_has_the_protocols_outputs() -> None:
    task, rows = build(["hello there"], ["öl"])
    assert len(task.labels["characters"]) == 32
    target = task.target(rows.splits["train"].utterances[0])
    assert "".join(task.labels["characters"][i] for i in target) == "HELLO|THERE|</s>"
    settings = SpeechHead()
    with torch.device("meta"):
        whole = SpeechRecognition(Setup(task.labels, settings)).head(768)
    assert sum(p.numel() for p in whole.parameters()) == 42_828_832


def test_answers_are_decoded_and_scored_in_words_and_characters() -> None:
    task, rows = build(["ab c"], ["ab c", "c"])
    hypotheses = task.decode(*one_hot(task, "AAB|-|CC|", "--"))
    assert [h.words for h in hypotheses] == ["AB C", ""] and task.show(hypotheses) == ["AB C", ""]
    predictions = task.rows(rows.splits["test"], hypotheses)
    assert predictions == [
        Prediction("test0", "AB C", "AB C", speaker="anna"),
        Prediction("test1", "C", "", speaker="anna"),
    ]
    assert [s.metric.key for s in task.score(predictions)] == ["wer", "cer"]
    assert [s.value for s in task.score(predictions)] == [pytest.approx(100 / 3), 20.0]
    assert task.chance(predictions) == pytest.approx(100 / 3)


def test_subwords_where_the_recipe_asks_for_them() -> None:
    task, rows = build(["the cat sat on the mat", "the dog ate"] * 5, ["the cat"], vocabulary={"sentencepiece": 25})
    assert list(task.labels) == ["sentencepiece"] and isinstance(task.labels["sentencepiece"], str)
    utterance = rows.splits["test"].utterances[0]
    target = task.target(utterance)
    frames = [output for piece in target for output in (piece, 0)]
    output = 9.0 * torch.nn.functional.one_hot(torch.tensor([frames]), 25)
    (hypothesis,) = task.decode(output, torch.tensor([len(frames)]))
    assert hypothesis.words == task.truth(utterance) == "THE CAT"
    assert task.head(8)(torch.randn(1, 5, 8), torch.tensor([5])).shape == (1, 5, 25)


def test_training_sees_half_of_each_group_at_a_time() -> None:
    task, rows = build(["a"] * 6, ["a"])
    settings = TrainSettings(steps=1, eval_every=1, batch_size=4)
    sampler = task.sampler(rows.splits["train"], [1.0, 6.0, 5.0, 4.0, 3.0, 2.0], settings, 0)
    assert isinstance(sampler, Buckets)
    assert sampler.batches == [[1, 2], [3, 4], [5, 0]]


def test_it_learns_from_frames(one_thread: None) -> None:
    task, rows = build(["ab", "ba c", "c", "abc a"], ["a"])
    train = rows.splits["train"]
    targets = [task.target(u) for u in train]
    lengths = torch.tensor([2 * len(t) for t in targets])
    features = torch.zeros(4, int(lengths.max()), 32)
    for row, target in zip(features, targets, strict=True):
        row[range(0, 2 * len(target), 2), target] = 3.0
    torch.manual_seed(0)
    head = task.head(32)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(110):
        loss = task.loss(head(features, lengths), lengths, Targets.of(targets))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert [h.words for h in task.decode(head(features, lengths), lengths)] == [task.truth(u) for u in train]


ARPA = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-99\t<s>\t-0.1
-2\t</s>
-3\t<unk>
-0.3\tCAT\t-0.1
-3\tCAR\t-0.1
-0.5\tA\t-0.1

\\2-grams:
-0.1\tA CAT
-4\tA CAR
-0.1\t<s> A

\\end\\
"""
LEXICON = "CAT\tC A T |\nCAR\tC A R |\nA\tA |\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tiny.arpa").write_text(ARPA)
    (tmp_path / "lexicon.lst").write_text(LEXICON)
    return {"lm": str(tmp_path / "tiny.arpa"), "lexicon": str(tmp_path / "lexicon.lst")}


def doubtful(task: SpeechRecognition) -> list[Hypothesis]:
    """`A CAR`, its last letter nearly a T; and another as clear as can be."""
    output, lengths = one_hot(task, "A|CAR|", "A|CAR|")
    output[0, 4, task.labels["characters"].index("T")] = 8.9
    output[1] *= 9
    return task.decode(output, lengths)


def test_a_language_model_decides_doubtful_words(files: dict[str, str]) -> None:
    pytest.importorskip("flashlight.lib.text", reason="the extra lm")
    pytest.importorskip("kenlm", reason="the extra lm")
    task, rows = build(["a cat a car"], ["a cat", "a car"], **files)
    hypotheses = doubtful(task)
    assert [h.words for h in hypotheses] == ["A CAR", "A CAR"] and task.show(hypotheses) == ["A CAT", "A CAR"]
    predictions = task.rows(rows.splits["test"], hypotheses)
    assert [row.answer for row in predictions] == ["A CAR\tA CAT", "A CAR\tA CAR"]
    assert {s.metric.key: s.value for s in task.score(predictions)} == {"wer": 25.0, "cer": 10.0, "wer_lm": 0.0}
    dev = task.rows(rows.splits["dev"], hypotheses)
    assert [row.answer for row in dev] == ["A CAR", "A CAR"] and len(task.score(dev)) == 2


def test_without_its_packages_the_extra_is_named(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"head\.lm needs the package of flashlight.*pip install 'superb-eval\[lm\]'"):
        build(["a"], ["a"], **files)


def test_what_a_beam_search_needs_is_checked_before_training(files: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text", reason="the extra lm")
    pytest.importorskip("kenlm", reason="the extra lm")
    with pytest.raises(UserError, match="head.lexicon is missing: a beam search needs both"):
        build(["a"], ["a"], lm=files["lm"])
    with pytest.raises(UserError, match="head.lm is missing: a beam search needs both"):
        build(["a"], ["a"], lexicon=files["lexicon"])
    with pytest.raises(UserError, match="head.lm: there is no file nowhere.arpa"):
        build(["a"], ["a"], **(files | {"lm": "nowhere.arpa"}))
    with pytest.raises(UserError, match="head.lm needs letters"):
        build(["the cat sat", "the dog"] * 5, ["a"], vocabulary={"sentencepiece": 20}, **files)
    (tmp_path / "lexicon.lst").write_text("CAT\tC A T |\nÖL\tÖ L |\nA\tA\n")
    with pytest.raises(
        UserError, match=r"(?s)lexicon\.lst: 2 bad.*line 2: 'Ö' is no output.*line 3: 'A\tA' is not a word"
    ):
        build(["a"], ["a"], **files)
