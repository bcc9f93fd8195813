"""What probing needs to know of a run: where it trains, with which seed, on which clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from downstreams.base import BaseTask
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus

AnyTask = TypeVar("AnyTask", bound=BaseTask)


LogPoints = Callable[[str, Sequence[Mapping[str, float]]], None]
"""Called with the name of a series, such as `fold2/lr0.01`, and all of its points so far, each with its `step`."""


@dataclass(frozen=True)
class Fold(Generic[AnyTask]):
    """One of the corpora that a run trains and tests on, and the task with the labels of that corpus.

    `number` counts from 1 to `total`. Most tasks have one fold; ER has one for each session.
    """

    number: int
    corpus: Corpus
    task: AnyTask
    total: int = 1


@dataclass(frozen=True)
class ProbeConfig:
    """What a run hands over to probing.

    `upstream` is the address, for messages. `layer` is the index of the one layer used, None the sum. `folder` is the
    run's folder. `digests` holds `audio.digest` of every clip, the keys of features. `reentrant`: several threads may
    run the upstream at once. `log` shows the curve of each training.
    """

    upstream: str
    layer: int | None
    seed: int
    device: str
    folder: Path
    digests: Mapping[Clip, str]
    reentrant: bool
    log: LogPoints = lambda series, points: None
