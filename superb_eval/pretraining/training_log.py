"""The log of a training: `log.csv`, the postfix of the progress bar, and `superb_eval.runtime.loggers`.

`log.csv` is always written.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from superb_eval.runtime import atomic_files, loggers
from superb_eval.runtime.loggers import LoggedRun, Logger

CSV = "log.csv"

NOT_IN_POSTFIX = {"step", "hours", "audio_s_per_s", "gradient", "lr"}
"""Columns of the log that the progress bar leaves out."""


class TrainingLog:
    """The log of one training; its lines are means over the updates since the line before.

    `curve` holds the lines; it is appended to, and has the earlier ones when a training resumes. Each line also goes
    to the loggers of these `names`. Only the process that `writes` writes files and opens loggers.
    """

    def __init__(self, folder: Path, curve: list[dict[str, float]], writes: bool, names: Sequence[str] = ()) -> None:
        self.folder, self.curve, self.writes, self.names = folder, curve, writes, names
        self._sums: dict[str, float] = {}
        self._count, self._seconds, self._step, self._since = 0, 0.0, 0, time.monotonic()
        self._loggers: dict[str, Logger] = {}

    def __enter__(self) -> TrainingLog:
        if self.writes:
            self._loggers = loggers.open_loggers(self.names, self._logged_run())
            self._write()
        return self

    def __exit__(self, *error: object) -> None:
        loggers.close_loggers(self._loggers, succeeded=error[0] is None)

    def add(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Add an update: its loss and terms, and the seconds of its audio."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count, self._seconds, self._step = self._count + 1, self._seconds + seconds, step

    def write_means(self, total_seconds: float) -> None:
        """Write a line: means since the last one. `total_seconds` is the audio of all updates so far."""
        means = {key: value / self._count for key, value in self._sums.items()}
        speed = self._seconds / max(time.monotonic() - self._since, 1e-9)
        self._append({"step": self._step, **means, "hours": total_seconds / 3600, "audio_s_per_s": speed})
        self._sums, self._count, self._seconds, self._since = {}, 0, 0.0, time.monotonic()

    def write_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line of metrics that were measured at an update, such as a probe's."""
        if metrics:
            self._append({"step": step, **metrics})
            self._since = time.monotonic()  # the time of the measurement is none of the training's

    def postfix(self) -> str:
        """Return the text after the progress bar: the last line's loss and speed."""
        lines = [line for line in self.curve if "loss" in line]
        if not lines:
            return ""
        values = [f"{key} {value:.3f}" for key, value in lines[-1].items() if key not in NOT_IN_POSTFIX]
        return f"{'  '.join(values)}  {lines[-1]['audio_s_per_s']:.0f} audio-s/s"

    def _append(self, line: dict[str, float]) -> None:
        self.curve.append(line)
        if self.writes:
            self._write()
        for logger in self._loggers.values():
            logger.log_metrics({key: value for key, value in line.items() if key != "step"}, step=int(line["step"]))

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for line in self.curve for key in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in line.items()} for line in self.curve)
        atomic_files.write_text(self.folder / CSV, text.getvalue())

    def _logged_run(self) -> LoggedRun:
        recipe = self.folder / "recipe.yaml"
        settings: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf8")) if recipe.is_file() else {}
        # What a killed process logged after its last checkpoint is logged again.
        first = int(self.curve[-1]["step"]) + 1 if self.curve else 0
        return LoggedRun(self.folder, self.folder.name, self.folder, settings, purge_step=first)
