"""Loggers of evaluations: each point once though a run is killed, the same figures as without, and one run for each."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from superb_eval.cli import app
from superb_eval.errors import UserError
from superb_eval.probing import probe_state
from superb_eval.probing.folds import WORK
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runs.run_loggers import LOGGED
from superb_eval.runtime import loggers
from superb_eval.suite import jobs
from superb_eval.suite.jobs import Job, SuiteConfig

SHORT = ("train.steps=60", "train.eval_every=20", "train.batch_size=8", "train.schedule=linear")
SWEPT = (*SHORT, "train.lr={sweep: [1e-2, 4e-3]}")


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "ks", tones, overrides=SWEPT, out=tmp_path / "results")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows of a run: every event of each tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_each_point_once_though_the_run_was_stopped_twice(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    plain, plain_folder = evaluate(replace(config, out=tmp_path / "plain"))
    logged = replace(config, loggers=("tensorboard",))
    save = probe_state.save
    for last in (20, 40):  # between the checkpoint and the loggers

        def save_and_stop(path: Path, step: int, *state: Any, last: int = last) -> None:
            save(path, step, *state)
            if step == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(probe_state, "save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                evaluate(logged)
    record, folder = evaluate(logged)
    assert record.metrics == plain.metrics, "loggers change no figure"
    assert (folder / "predictions.csv").read_bytes() == (plain_folder / "predictions.csv").read_bytes()
    found = scalars(folder)
    for rate in record.training[0].rates:
        steps = [int(point["step"]) for point in rate.curve]
        assert steps == [20, 40, 60]
        for tag, values in {
            "train/loss": [point["loss"] for point in rate.curve],
            "dev/acc": [point["dev"] for point in rate.curve],
            "train/lr": [rate.lr * (1 - (step - 1) / 60) for step in steps],
        }.items():
            assert [step for step, _ in found[f"lr{rate.lr:g}/{tag}"]] == steps
            assert [value for _, value in found[f"lr{rate.lr:g}/{tag}"]] == pytest.approx(values)
    assert found["test/acc"] == [(60, pytest.approx(record.metrics[0].value))]
    evaluate(logged)
    assert scalars(folder) == found, "a finished run logs nothing"


class OfflineLogger:
    """Stands in for the loggers of Lightning: records the calls."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.run_id = settings, settings.get("run_id") or "run-1"
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.params: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics.append((step, metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.params = params

    def save(self) -> None: ...

    def finalize(self, status: str) -> None:
        self.status = status


def test_each_seed_is_a_run_of_its_own_with_its_hyperparameters(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[OfflineLogger] = []

    def offline(run: loggers.LoggedRun) -> OfflineLogger:
        made.append(OfflineLogger(name=run.name, **run.hyperparameters))
        return made[-1]

    monkeypatch.setitem(loggers._LOGGERS, "mlflow", offline)
    monkeypatch.setattr(loggers, "_missing_packages", lambda name: [])
    words = f"superb-eval run ks -u fbank_nonorm --data {config.data} --out {config.out} --seeds 2 --loggers mlflow"
    overrides = ("train.steps=20", "train.eval_every=20", "train.lr=1e-2", "train.order_seed=0")
    monkeypatch.setattr(sys, "argv", [*words.split(), *(word for text in overrides for word in ("-o", text))])
    app.app(standalone_mode=False)
    first, second = made
    assert first.settings["name"].startswith("fbank_nonorm/ks/mini-seed0-") and "-seed1-" in second.settings["name"]
    assert (first.params["seed"], second.params["seed"]) == (0, 1)
    assert first.params["upstream"] == "fbank_nonorm" and first.params["train"]["steps"] == 20
    assert [sorted(metrics) for _, metrics in first.metrics] == [["dev/acc", "train/loss", "train/lr"], ["test/acc"]]
    assert first.status == second.status == "success"
    assert "ACC" in capsys.readouterr().out


def test_a_search_logs_the_dev_score_of_each_layer(
    config: RunConfig, melodies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = OfflineLogger()
    monkeypatch.setitem(loggers._LOGGERS, "mlflow", lambda run: logger)
    monkeypatch.setattr(loggers, "_missing_packages", lambda name: [])
    record, _ = evaluate(replace(config, task="qbe", data=melodies, overrides=(), loggers=("mlflow",)))
    by_layer = record.training[0].tuned["dev_by_layer"]["cosine_exp"]
    *searched, (_, figures) = logger.metrics
    assert searched[0] == (0, {"cosine_exp/dev/mtwv": by_layer["0"]})
    assert figures["test/mtwv"] == record.metrics[0].value


def test_suites_hand_loggers_over_and_wrong_ones_are_named_before_anything_runs(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs.expand(SuiteConfig(("fbank",), ("ks",), config.data, loggers=("tensorboard",)))
    assert Job.loads(job.dumps()) == job and job.loggers == ("tensorboard",)
    for command in ("run ks", "suite --tasks ks"):
        monkeypatch.setattr(sys, "argv", f"superb-eval {command} -u fbank --loggers tensorbord".split())
        with pytest.raises(UserError, match="Did you mean 'tensorboard'"):
            app.app(standalone_mode=False)
    with pytest.raises(UserError, match="no logger is called 'board'"):
        evaluate(replace(config, loggers=("board",)))
    assert not config.out.exists()


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b'{"lr1": "x"}', b'{"lr1": null}'])
def test_a_damaged_note_of_what_was_logged_stops_no_run(config: RunConfig, content: bytes) -> None:
    record, folder = evaluate(config)
    path = folder / WORK / LOGGED
    path.parent.mkdir()
    path.write_bytes(content)
    (folder / "result.json").unlink()
    assert evaluate(config)[0].metrics == record.metrics
