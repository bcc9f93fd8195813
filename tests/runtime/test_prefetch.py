from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from superb_eval.data.audio import Clip
from superb_eval.features.extract import Extraction, extract
from superb_eval.runtime.prefetch import prefetch
from upstreams import registry


def test_results_come_in_order_whichever_is_computed_first() -> None:
    gate = threading.Event()

    def square(k: int) -> int:
        if k == 0:
            gate.wait(timeout=10)
        elif k == 2:
            gate.set()
        return k * k

    assert list(prefetch(square, range(6), workers=3)) == [0, 1, 4, 9, 16, 25]


def test_few_results_are_computed_ahead() -> None:
    computed: list[int] = []
    results = prefetch(lambda k: computed.append(k) or k, iter(range(1000)), workers=2)
    assert next(results) == 0
    results.close()
    assert len(computed) <= 4


def test_errors_are_raised_where_the_result_is_drawn() -> None:
    results = prefetch(lambda k: 1 // (2 - k), range(4), workers=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_threads_have_their_own_number_of_cores() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(prefetch(lambda _: torch.get_num_threads(), range(4), workers=2)) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_features_have_the_same_bits_however_many_cores_there_are(tones: Path, kind: str) -> None:
    upstream = registry.load("hubert_nano@random")
    clips = [Clip(path) for path in sorted((tones / "audio" / "test").glob("*.flac"))]
    extraction = Extraction(kind, batch_seconds=2)  # type: ignore[arg-type]
    found, before = [], torch.get_num_threads()
    for cores in (1, 3):
        torch.set_num_threads(cores)
        try:
            found.append(dict(extract(upstream, clips, extraction, "cpu")))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(found[0][i], found[1][i]) for i in range(len(clips)))
