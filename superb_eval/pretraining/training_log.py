"""The log of a training: `log.csv`, other boards beside it, and the text beside the bar."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from superb_eval.pretraining import loggers as loggers_module
from superb_eval.pretraining.loggers import LoggerSpec
from superb_eval.runtime import atomic_files

CSV = "log.csv"


class TrainingLog:
    """Means over the updates between two lines. `curve` holds the lines; it is filled, and read when going on.

    `loggers` names the boards that get each line too, from the process that `writes`.
    """

    def __init__(self, folder: Path, curve: list[dict[str, float]], writes: bool, loggers: Sequence[str] = ()) -> None:
        self.folder, self.curve, self.writes, self.loggers = folder, curve, writes, loggers
        self._sums: dict[str, float] = {}
        self._count, self._heard, self._step, self._since = 0, 0.0, 0, time.monotonic()
        self._boards: list[LoggerSpec] = []

    def __enter__(self) -> TrainingLog:
        if self.writes:
            first = int(self.curve[-1]["step"]) + 1 if self.curve else 0
            self._boards = loggers_module.opened(self.loggers, self.folder, first)
            self._write()
        return self

    def __exit__(self, *error: object) -> None:
        for board in self._boards:
            loggers_module.close(board, succeeded=error[0] is None)

    def add(self, step: int, parts: dict[str, float], heard: float) -> None:
        """Take in an update: parts of its loss, and the seconds of audio it heard."""
        for key, value in parts.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count, self._heard, self._step = self._count + 1, self._heard + heard, step

    def line(self, seconds: float) -> None:
        """Close a line: means since the last one. `seconds` is the audio heard in all."""
        means = {key: value / self._count for key, value in self._sums.items()}
        speed = self._heard / max(time.monotonic() - self._since, 1e-9)
        self._append({"step": self._step, **means, "hours": seconds / 3600, "audio_s_per_s": speed})
        self._sums, self._count, self._heard, self._since = {}, 0, 0.0, time.monotonic()

    def note(self, step: int, figures: dict[str, float]) -> None:
        """Note what was measured at an update, such as a probe's figures."""
        if figures:
            self._append({"step": step, **figures})
            self._since = time.monotonic()  # no audio is heard while something is measured

    def postfix(self) -> str:
        """Return what stands beside the bar."""
        lines = [line for line in self.curve if "loss" in line]
        if not lines:
            return ""
        shown = [f"{key} {lines[-1][key]:.3f}" for key in lines[-1] if key not in _NOT_SHOWN]
        return f"{'  '.join(shown)}  {lines[-1]['audio_s_per_s']:.0f} audio-s/s"

    def _append(self, line: dict[str, float]) -> None:
        self.curve.append(line)
        if self.writes:
            self._write()
        for board in self._boards:
            board.log_metrics({key: value for key, value in line.items() if key != "step"}, step=int(line["step"]))

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for line in self.curve for key in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in line.items()} for line in self.curve)
        atomic_files.write_text(self.folder / CSV, text.getvalue())


_NOT_SHOWN = {"step", "hours", "audio_s_per_s", "gradient", "lr"}
