"""A run made again: reproduced only to the bit and on the same platform, else by its prediction interval."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import t

from superb_eval.results import platforms, verify_reruns
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import training_spread
from superb_eval.results.stats.training_spread import TrainingSpread
from superb_eval.results.verify_reruns import Outcome, RerunResult, compare, summary
from tests.results.runs import vary

FOLDER = Path("results/fbank/ks/mini-seed0-0123456789")

HERE: dict[str, str | int] = {
    "cpu": "theirs",
    "cores": 2,
    "memory_gb": 8,
    "gpu": "none",
    "cpu_capability": "AVX2",
    "torch_threads": 2,
    "OMP_WAIT_POLICY": "PASSIVE",
    "device": "cpu",
}


@pytest.fixture
def recorded(a_record: RunRecord) -> RunRecord:
    """ACC 43.99, with everything that decides how it was rounded."""
    versions = {"python": "3.11", "superb-eval": "0.1", "torch": "2.11.0", "numpy": "2.0.0"}
    return vary(a_record, hardware=HERE, versions=versions, predictions={"predictions.csv": "p"}, code="engine 1, ks 1")


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> float:
    """Give every figure a spread between seeds of 2 points with 4 degrees of freedom; return the interval's half."""
    monkeypatch.setattr(training_spread, "find", lambda record, key: TrainingSpread(1.5, 2.0, 4.0, f"a study of {key}"))
    return float(t.ppf(0.975, 4) * 2**0.5 * 2.0)


def outcome(recorded: RunRecord, again: RunRecord) -> Outcome:
    return compare(FOLDER, recorded, again).outcome


@pytest.mark.usefixtures("spread")
def test_equal_bits_on_the_same_platform_are_reproduced(recorded: RunRecord) -> None:
    again = vary(
        recorded, hardware__cores=64, hardware__memory_gb=512, versions__python="3.12", seconds={"features": 1}
    )
    found = compare(FOLDER, recorded, again)
    assert found.outcome == "reproduced" and "acc 43.99: predictions and figures to the bit" in found.message
    assert not found.faulty()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hardware__cpu": "ours"}, "cpu was theirs, is ours"),
        ({"hardware__cpu_capability": "AVX512"}, "cpu_capability was AVX2, is AVX512"),
        ({"hardware__MKL_CBWR": "COMPATIBLE"}, "MKL_CBWR was not recorded, is COMPATIBLE"),
        ({"hardware__torch_threads": 1}, "torch_threads was 2, is 1"),
        ({"versions__torch": "2.10.0"}, "torch was 2.11.0, is 2.10.0"),
    ],
)
@pytest.mark.usefixtures("spread")
def test_equal_figures_of_another_platform_are_not_called_reproduced(
    recorded: RunRecord, change: dict[str, object], named: str
) -> None:
    found = compare(FOLDER, recorded, vary(recorded, **change))
    assert found.outcome == "within" and named in found.message
    assert "rounding counts like another seed" in found.message


def test_a_record_without_vector_instructions_is_of_an_unknown_platform(recorded: RunRecord) -> None:
    older = vary(recorded, hardware={key: value for key, value in HERE.items() if key != "cpu_capability"})
    assert outcome(older, recorded) == "unknown"
    assert "cpu_capability was not recorded, is AVX2" in compare(FOLDER, older, recorded).message


def test_the_accelerator_counts_where_it_is_used(recorded: RunRecord) -> None:
    def differing(device: str) -> list[str]:
        one, other = (vary(recorded, hardware__device=device, hardware__gpu=gpu) for gpu in ("A100", "H100"))
        return platforms.differences(platforms.of_record(one), platforms.of_record(other))

    assert differing("cuda") == ["gpu was A100, is H100"]
    assert differing("cpu") == []


def test_the_current_platform_names_what_rounds_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    now = platforms.current("cpu")
    assert (
        now["MKL_CBWR"] == "COMPATIBLE" and {"cpu", "cpu_capability", "torch_threads", "torch", "numpy"} <= now.keys()
    )
    assert now.keys().isdisjoint({"gpu", "cores", "superb-eval"})


def test_the_interval_covers_two_trainings_and_few_seeds(recorded: RunRecord, spread: float) -> None:
    assert spread == pytest.approx(2.776 * 1.4142 * 2.0, abs=0.01)
    inside = vary(recorded, metrics__value=43.99 + spread - 0.01, hardware__cpu="ours")
    outside = vary(recorded, metrics__value=43.99 - spread - 0.01, hardware__cpu="ours")
    assert outcome(recorded, inside) == "within"
    found = compare(FOLDER, recorded, outside)
    assert found.outcome == "OUTSIDE" and found.faulty()
    assert f"[{43.99 - spread:.2f}, {43.99 + spread:.2f}]" in found.message
    assert "sd 2.00 between seeds, 4 degrees of freedom, a study of acc" in found.message


@pytest.mark.usefixtures("spread")
def test_other_bits_on_the_same_platform_are_explained(recorded: RunRecord) -> None:
    found = compare(FOLDER, recorded, vary(recorded, predictions={"predictions.csv": "q"}))
    assert found.outcome == "within" and "On the same platform, but not to the bit" in found.message


def test_without_a_known_spread_the_difference_alone_is_reported(recorded: RunRecord) -> None:
    found = compare(FOLDER, recorded, vary(recorded, metrics__value=13.99, hardware__cpu="ours"))
    assert found.outcome == "unknown" and not found.faulty()
    assert "(-30.00): training variance unknown: no prediction interval" in found.message


def test_what_trains_nothing_is_moved_by_rounding_alone(recorded: RunRecord) -> None:
    search = vary(recorded, task="qbe")
    rounded = search.metrics[0].value + 0.9 * verify_reruns.ROUNDING
    found = compare(FOLDER, search, vary(search, metrics__value=rounded, hardware__cpu="ours"))
    assert found.outcome == "within" and "nothing is trained: rounding alone" in found.message
    moved = search.metrics[0].value + 1.1 * verify_reruns.ROUNDING
    assert outcome(search, vary(search, metrics__value=moved, hardware__cpu="ours")) == "OUTSIDE"


@pytest.mark.usefixtures("spread")
def test_the_worst_figure_counts_and_historical_figures_have_no_interval(recorded: RunRecord) -> None:
    def with_second(value: float, protocol: str) -> RunRecord:
        second = MetricRecord(
            **{**recorded.metrics[0].model_dump(), "key": "cer", "value": value, "protocol": protocol}
        )
        return recorded.model_copy(update={"metrics": [recorded.metrics[0], second]})

    assert outcome(with_second(20.0, "strict"), with_second(90.0, "strict")) == "OUTSIDE"
    assert outcome(with_second(20.0, "historical"), with_second(90.0, "historical")) == "within"
    assert outcome(with_second(20.0, "strict"), recorded) == "FAILED"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe_digest": "r"}, "its recipe has changed"),
        ({"corpus__digest": "d"}, "its corpus has changed"),
        ({"upstream__fingerprint": "f"}, "its upstream has changed"),
        ({"code": "engine 2, ks 1"}, "its code was engine 1, ks 1, is engine 2, ks 1"),
    ],
)
def test_another_run_is_not_compared(recorded: RunRecord, change: dict[str, object], message: str) -> None:
    found = compare(FOLDER, recorded, vary(recorded, **change))
    assert found.outcome == "FAILED" and message in found.message and found.faulty()


@pytest.mark.parametrize(
    ("address", "part", "rounded"),
    [
        ("encoder.py:Encoder", "outputs", True),
        ("encoder.py:Encoder", "encoder.py", False),
        ("hubert_mini@random:7", "weights", True),
        ("hubert_mini", "weights", False),
        ("hubert_mini@random", "settings", False),
    ],
)
@pytest.mark.usefixtures("spread")
def test_upstreams_may_be_rounded_on_another_platform(
    recorded: RunRecord, address: str, part: str, rounded: bool
) -> None:
    """In their outputs, and in random weights: some processors draw them with other last bits."""

    def with_part(value: str, **changes: object) -> RunRecord:
        parts = {"outputs": "o", "encoder.py": "e", "weights": "w", "settings": "s", part: value}
        named = {"upstream__address": address, "upstream__identity": parts, "upstream__fingerprint": value}
        return vary(recorded, **named, **changes)

    elsewhere = outcome(with_part("a"), with_part("b", hardware__cpu="ours"))
    assert elsewhere == ("within" if rounded else "FAILED")
    assert outcome(with_part("a"), with_part("b")) == "FAILED", "the same platform rounds alike"


def test_the_summary_counts_outcomes() -> None:
    results = [RerunResult(FOLDER, each, "") for each in ("within", "reproduced", "OUTSIDE", "within")]
    assert summary(results, 4) == (
        "4 run(s) made again: 1 reproduced to the bit, 2 within the prediction interval, "
        "1 outside the prediction interval. One figure in twenty lies outside by chance."
    )
    assert summary([], 2) == "0 run(s) made again. No more are of unchanged recipe, code, weights and data."
