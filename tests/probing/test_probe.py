"""Evaluation: batches that threads read ahead for a GPU, and that memory can't hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from superb_eval.features.featurizer import Featurizer
from superb_eval.probing import probe as probes_module
from superb_eval.probing.probe import Probe, decode
from tests.probing.small_trainings import DIM, LAYERS, small_split

FRAMES = (9, 30, 14, 22, 5, 41, 17)


def test_batches_read_ahead_are_decoded_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_module, "EVAL_BATCH", {False: 2})
    task, split = small_split("pr", FRAMES)
    torch.manual_seed(0)
    probe = Probe(Featurizer(LAYERS), task.head(DIM))
    expected = decode([probe], task, split.features)
    assert decode([probe], task, replace(split.features, pinned=True)) == expected
    assert len(expected[0]) == len(FRAMES) and len(set(expected[0])) > 1


def test_evaluation_continues_in_smaller_batches_where_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = small_split("pr", FRAMES)
    torch.manual_seed(0)
    probe = Probe(Featurizer(LAYERS), task.head(DIM))
    expected = decode([probe], task, split.features)
    sizes: list[int] = []
    decode_batch = type(task).decode

    def limited(self: object, output: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        sizes.append(len(lengths))
        if len(lengths) > 2 and len(sizes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_batch(self, output, lengths)  # type: ignore[arg-type]

    monkeypatch.setattr(probes_module, "EVAL_BATCH", {False: 4})
    monkeypatch.setattr(type(task), "decode", limited)
    with pytest.warns(UserWarning, match="memory ran out: evaluation continues with batches of 2 utterances"):
        assert decode([probe], task, split.features) == expected
    assert sizes == [4, 3, 2, 1], "what was decoded before isn't decoded again"
