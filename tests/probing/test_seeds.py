"""Several seeds that train together on the same batches: identical results, and one pass of the upstream."""

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


def config_for(task: str, corpus: Path, out: Path, overrides: Sequence[str] = SHARED) -> RunConfig:
    own = SMALL[task]
    if task == "asr":  # with everything that is random in a head
        own = (*own, "head.dropout=0.3", "head.specaug={dim_width: 4}")
    # Nothing fits the store: every batch is a pass of the upstream.
    return RunConfig("fbank_nonorm", task, corpus, "mini", (*overrides, *own), out=out, store_gb=1e-9)


def results_by_seed(runs: Sequence[tuple[RunRecord, Path]]) -> list[tuple[object, ...]]:
    """Everything that depends on the seed."""
    return [
        (
            record.seed,
            record.metrics,
            record.training,
            record.features.live,
            [(folder / name).read_bytes() for name in (*record.predictions, *record.heads)],
        )
        for record, folder in runs
    ]


@pytest.mark.parametrize("task", ["asr", "sd", "asv"])
def test_each_seed_has_the_results_that_it_has_alone(task: str, ten_tasks: Path, tmp_path: Path) -> None:
    config = config_for(task, ten_tasks, tmp_path / "together")
    together = evaluate_seeds(config, SEEDS)
    alone = [evaluate(replace(config, out=tmp_path / "alone", seed=seed)) for seed in SEEDS]
    assert results_by_seed(together) == results_by_seed(alone)
    assert together[0][0].features.live > 0
    losses = [record.training[0].rates[0].curve[-1]["loss"] for record, _ in together]
    assert len(set(losses)) == len(SEEDS), "seeds draw other weights, dropout and masks"
    assert [record.seed for record, _ in evaluate_seeds(config, SEEDS)] == list(SEEDS), "finished runs are returned"


def processed(config: RunConfig, seeds: Sequence[int], patch: pytest.MonkeyPatch) -> Counter[str]:
    """Run seeds and return how many clips of each split the upstream processed, repetitions included."""
    clips_by_split: Counter[str] = Counter()
    extract = load_or_extract.extract

    def counted(upstream: Upstream, clips: Sequence[Clip], *args: Any) -> Iterator[tuple[int, Tensor]]:
        clips_by_split.update(clip.path.stem.split("-")[0] for clip in clips)
        return extract(upstream, clips, *args)

    with patch.context() as patched:
        patched.setattr(load_or_extract, "extract", counted)
        patched.setattr(FeatureDataset, "norms", lambda _: [1.0])  # some clips more for each record
        evaluate_seeds(config, seeds)
    return clips_by_split


def test_a_pass_serves_every_seed_and_rate(ten_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_rate = config_for("pr", ten_tasks, tmp_path / "one", (*SHARED, "train.lr=1e-2"))
    alone = processed(one_rate, SEEDS[:1], monkeypatch)
    together = processed(config_for("pr", ten_tasks, tmp_path / "together"), (0, 1, 2), monkeypatch)
    apart = processed(config_for("pr", ten_tasks, tmp_path / "apart", FEW), (0, 1, 2), monkeypatch)
    # All 24 clips once, to measure that the store has no room; dev at three evaluations; dev and test at the end.
    assert together == alone == {"train": alone["train"], "dev": 6 + 18 + 6, "test": 6 + 6}
    assert apart["dev"] == 3 * alone["dev"] and apart["train"] > 2 * alone["train"]


def test_seeds_without_a_common_order_train_one_after_the_other(ten_tasks: Path, tmp_path: Path) -> None:
    config = config_for("pr", ten_tasks, tmp_path / "together", FEW)
    alone = [evaluate(replace(config, out=tmp_path / "alone", seed=seed)) for seed in SEEDS]
    assert results_by_seed(evaluate_seeds(config, SEEDS)) == results_by_seed(alone)


@pytest.mark.parametrize("finished", [0, 1])
def test_an_interrupted_seed_catches_up(
    finished: int, ten_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 is finished, or stands at step 8; the others have not begun."""
    config = config_for("asr", ten_tasks, tmp_path / "interrupted")
    expected = results_by_seed(evaluate_seeds(replace(config, out=tmp_path / "uninterrupted"), SEEDS))
    update = Training._update

    def interrupted(training: Training, *args: object) -> object:
        if training.step == 11:
            raise KeyboardInterrupt
        return update(training, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(Training, "_update", interrupted)
            with pytest.raises(KeyboardInterrupt):
                evaluate(config)
        else:
            evaluate(config)
    runs = evaluate_seeds(config, SEEDS)
    if not finished:
        assert {tuple(rate.resumed_at) for rate in runs[0][0].training[0].rates} == {(8,)}
    assert [row[:2] + row[3:] for row in results_by_seed(runs)] == [row[:2] + row[3:] for row in expected]


def test_a_seed_given_twice_is_one(ten_tasks: Path, tmp_path: Path) -> None:
    runs = evaluate_seeds(config_for("pr", ten_tasks, tmp_path), [1, 0, 1])
    assert [record.seed for record, _ in runs] == [1, 0]


def test_a_loss_that_diverges_in_one_seed_stops_all(ten_tasks: Path, tmp_path: Path) -> None:
    config = config_for("pr", ten_tasks, tmp_path, (*FEW, "train.order_seed=7", "train.lr=1e30"))
    with pytest.raises(UserError, match=r"step \d+: the loss is (nan|inf)"):
        evaluate_seeds(config, SEEDS)
