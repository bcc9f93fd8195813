"""`run.log` in a run's folder: what was printed, with time stamps; failed runs keep it, resumed ones append to it."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.probing import training
from superb_eval.runs import run_log
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate, evaluate_seeds
from superb_eval.runs.run_log import LoggingProgress
from superb_eval.runtime import memory
from superb_eval.runtime.progress import NoProgress
from superb_eval.suite import jobs
from superb_eval.suite.events import Event, Failed
from superb_eval.suite.executors.local import Local
from superb_eval.suite.jobs import SuiteConfig

SHORT = ("train.steps=20", "train.eval_every=10", "train.lr=1e-2")


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "results")


def test_a_failed_run_keeps_its_log_and_the_resumed_one_appends(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "_evaluate", lambda trainings: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            evaluate(config)
    path = run_log.path_of(caught.value)
    assert path is not None and path.name == "run.log" and not (path.parent / "result.json").exists()
    failed = path.read_text(encoding="utf8")
    assert "ZeroDivisionError: division by zero" in failed and "Traceback" in failed
    record, folder = evaluate(config)
    text = path.read_text(encoding="utf8")
    assert folder == path.parent and text.startswith(failed)
    resumed = text.removeprefix(failed)
    assert "features: 72 utterances extracted" in failed
    for words in (config.command(), "superb-eval 0", "torch 2", "training, lr 0.01: 20/20"):
        assert words in resumed, words
    assert f"ACC {record.metrics[0].value:.2f} % (strict)" in resumed.splitlines()[-1]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  ", line) for line in text.splitlines())
    evaluate(config)
    assert path.read_text(encoding="utf8") == text, "a finished run is left as it is"


def test_each_seed_has_a_log_of_its_own(config: RunConfig) -> None:
    results = evaluate_seeds(config, [0, 1])
    logs = [(folder / "run.log").read_text(encoding="utf8") for _, folder in results]
    assert ["--seed 0" in logs[0], "--seed 1" in logs[0], "--seed 1" in logs[1]] == [True, False, True]
    assert not (set(logs[0].splitlines()) & {line for line in logs[1].splitlines() if "training" in line})


def test_a_record_holds_the_peak_of_memory_where_the_system_measures_it(config: RunConfig) -> None:
    record, _ = evaluate(config)
    assert (record.peak_memory is not None and record.peak_memory > 1e7) == memory.reset_peak(config.device)


def test_warnings_are_written_and_escapes_are_not(tmp_path: Path) -> None:
    progress = LoggingProgress(NoProgress())
    progress.log("before \x1b[31mthe folder is known")

    def fail() -> None:
        with progress.written_to({tmp_path: "superb-eval run ks"}):
            warnings.warn("rate 1 diverged", stacklevel=1)
            with progress.step("training", 2) as update:
                update(1, "loss 0.5")
            raise UserError("the disk is full")

    with pytest.raises(UserError), pytest.warns(UserWarning, match="rate 1 diverged"):
        fail()
    lines = [line.partition("Z  ")[2] for line in (tmp_path / "run.log").read_text(encoding="utf8").splitlines()]
    assert lines[0] == "superb-eval run ks" and lines[2] == r"before \u001b[31mthe folder is known"
    assert lines[3:] == ["warning: rate 1 diverged", lines[4], "failed: the disk is full"]
    assert re.fullmatch(r"training: 1/2  loss 0\.5; \d\.\d s", lines[4])


def test_a_suite_names_the_log_of_the_run_that_broke(tones: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "broken.py"
    encoder.write_text(
        "import torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def forward(self, wavs):\n"
        "        if len(wavs[0]) % 16:\n"
        "            raise RuntimeError('no such length')\n"
        "        return torch.stack(list(wavs)).unfold(1, 400, 320)\n"
    )
    config = SuiteConfig((f"{encoder}:Broken",), ("ks",), tones, "mini", SHORT, out=tmp_path / "results")
    events: list[Event] = []
    Local(1).run(jobs.expand(config), events.append)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert "no such length (broken.py, line 5)" in failed.message
    assert Path(failed.log).name == "run.log", failed
    assert "Traceback" in Path(failed.log).read_text(encoding="utf8")


def test_a_fresh_run_begins_a_log(config: RunConfig) -> None:
    _, folder = evaluate(config)
    evaluate(replace(config, fresh=True))
    assert (folder / "run.log").read_text(encoding="utf8").count(config.command()) == 1
