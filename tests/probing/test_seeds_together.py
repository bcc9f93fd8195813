"""Several seeds that hear the same batches: each comes to what it comes to alone, and the upstream is run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.features import load_or_extract
from superb_eval.features.dataset import FeatureDataset
from superb_eval.probing.training import Training
from superb_eval.results.record import RunRecord
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate, evaluate_seeds
from tests.ten_tasks import SMALL
from upstreams.base import Upstream

SEEDS = (0, 2)
FEW = ("train.steps=12", "train.eval_every=4", "train.batch_size=4", "train.lr={sweep: [1e-2, 1e-3]}")
SHARED = (*FEW, "train.order_seed=7")


def order_of(task: str, corpus: Path, out: Path, overrides: Sequence[str] = SHARED) -> RunConfig:
    own = SMALL[task]
    if task == "asr":  # with all that is random in a head
        own = (*own, "head.dropout=0.3", "head.specaug={dim_width: 4}")
    # Nothing fits the store: every batch is a pass of the upstream.
    return RunConfig("fbank_nonorm", task, corpus, "mini", (*overrides, *own), out=out, store_gb=1e-9)


def told(found: Sequence[tuple[RunRecord, Path]]) -> list[tuple[object, ...]]:
    """All that a seed comes to."""
    return [
        (
            record.seed,
            record.metrics,
            record.training,
            record.features.live,
            [(folder / name).read_bytes() for name in (*record.predictions, *record.heads)],
        )
        for record, folder in found
    ]


@pytest.mark.parametrize("task", ["asr", "sd", "asv"])
def test_each_seed_comes_to_what_it_comes_to_alone(task: str, ten_tasks: Path, tmp_path: Path) -> None:
    order = order_of(task, ten_tasks, tmp_path / "together")
    together = evaluate_seeds(order, SEEDS)
    alone = [evaluate(replace(order, out=tmp_path / "alone", seed=seed)) for seed in SEEDS]
    assert told(together) == told(alone)
    assert together[0][0].features.live > 0
    losses = [record.training[0].rates[0].curve[-1]["loss"] for record, _ in together]
    assert len(set(losses)) == len(SEEDS), "seeds draw other weights, dropout and masks"
    assert [record.seed for record, _ in evaluate_seeds(order, SEEDS)] == list(SEEDS), "and then they are kept"


def heard(order: RunConfig, seeds: Sequence[int], patch: pytest.MonkeyPatch) -> Counter[str]:
    """Run cells and return how many clips of each split the upstream heard, one time or another."""
    found: Counter[str] = Counter()
    extract = load_or_extract.extract

    def counted(upstream: Upstream, clips: Sequence[Clip], *given: Any) -> Iterator[tuple[int, Tensor]]:
        found.update(clip.path.stem.split("-")[0] for clip in clips)
        return extract(upstream, clips, *given)

    with patch.context() as patched:
        patched.setattr(load_or_extract, "extract", counted)
        patched.setattr(FeatureDataset, "norms", lambda _: [1.0])  # some clips more for each record
        evaluate_seeds(order, seeds)
    return found


def test_a_pass_serves_every_seed_and_rate(ten_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_rate = order_of("pr", ten_tasks, tmp_path / "one", (*SHARED, "train.lr=1e-2"))
    alone = heard(one_rate, SEEDS[:1], monkeypatch)
    together = heard(order_of("pr", ten_tasks, tmp_path / "together"), (0, 1, 2), monkeypatch)
    apart = heard(order_of("pr", ten_tasks, tmp_path / "apart", FEW), (0, 1, 2), monkeypatch)
    # All 24 clips are heard to see that they find no room. Then dev at each of three evaluations; dev and test at last.
    assert together == alone == {"train": alone["train"], "dev": 6 + 18 + 6, "test": 6 + 6}
    assert apart["dev"] == 3 * alone["dev"] and apart["train"] > 2 * alone["train"]


def test_seeds_without_a_common_order_train_one_after_the_other(ten_tasks: Path, tmp_path: Path) -> None:
    order = order_of("pr", ten_tasks, tmp_path / "together", FEW)
    alone = [evaluate(replace(order, out=tmp_path / "alone", seed=seed)) for seed in SEEDS]
    assert told(evaluate_seeds(order, SEEDS)) == told(alone)


@pytest.mark.parametrize("done", [0, 1])
def test_who_was_interrupted_catches_up(
    done: int, ten_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 is finished, or stands at step 8; the others have not begun."""
    order = order_of("asr", ten_tasks, tmp_path / "broken")
    expected = told(evaluate_seeds(replace(order, out=tmp_path / "unbroken"), SEEDS))
    update = Training._update

    def interrupted(training: Training, *given: object) -> object:
        if training.step == 11:
            raise KeyboardInterrupt
        return update(training, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        if not done:
            patch.setattr(Training, "_update", interrupted)
            with pytest.raises(KeyboardInterrupt):
                evaluate(order)
        else:
            evaluate(order)
    found = evaluate_seeds(order, SEEDS)
    if not done:
        assert {tuple(rate.resumed_at) for rate in found[0][0].training[0].rates} == {(8,)}
    assert [row[:2] + row[3:] for row in told(found)] == [row[:2] + row[3:] for row in expected]


def test_a_seed_given_twice_is_one(ten_tasks: Path, tmp_path: Path) -> None:
    found = evaluate_seeds(order_of("pr", ten_tasks, tmp_path), [1, 0, 1])
    assert [record.seed for record, _ in found] == [1, 0]


def test_a_loss_that_diverges_in_one_seed_stops_all_and_keeps_what_was_saved(ten_tasks: Path, tmp_path: Path) -> None:
    order = order_of("pr", ten_tasks, tmp_path, (*FEW, "train.order_seed=7", "train.lr=1e30"))
    with pytest.raises(UserError, match=r"step \d+: the loss is (nan|inf)"):
        evaluate_seeds(order, SEEDS)
