"""The phone ABX error of an upstream's layers: a probe that trains nothing and needs no task's labels.

A and X are tokens of one phone, B is one of another; the error is how often X is farther from A than from B, ties
counted as half (Schatz et al., Interspeech 2013): 50 % by chance. A token is the frames of a phone, and two are
compared by dynamic time warping over the angles between frames, as in ZeroSpeech (Nguyen et al., arXiv 2011.11588).
Within speakers, A, B and X are by one speaker; across speakers, X is by another than A and B.

A token's neighbours are free: phones in any context (Hallap et al., arXiv 2210.15775). In the embedded speech, whose
sentences are short, a dozen pairs of phones share both neighbours within a speaker. Errors in any context are higher
than ZeroSpeech's for triphones, whose neighbours agree, and compare with one another alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from superb_eval.corpora.aligned_speech import PhoneToken
from superb_eval.errors import UserError

OLDEST_PYTHON = (3, 12)
"""That fastabx runs on."""

DISTANCE = "angular"
"""Of two frames: the angle between them."""

LEAST_SPEAKERS = 2
"""Of aligned speech: across speakers, X is by another than A and B."""

MOST_SPEAKERS = 21
"""Speakers compared, chosen by the seed: two minutes on one core for 13 layers of 256 dimensions."""

MOST_TOKENS = 10
"""Tokens of each phone by each speaker, chosen by the seed: ZeroSpeech's limit too."""

GROUP = 3
"""Least number of speakers in a group, chosen by the seed; across speakers, those of one group are compared.

So two or more speakers have an X for each A and B; ZeroSpeech chooses five. The choice that fastabx offers differs
between processes, whatever its seed, since the order that it chooses from does.
"""


DIGITS = 4
"""Of an error in %; later ones depend on the order of a sum, which differs between processes."""


class AbxError(NamedTuple):
    """The error of one layer, and what it is the mean of."""

    percent: float
    pairs: int
    """Of phones, in order: of A and X, and of B."""
    triples: int
    """Of A, B and X; no token is both A and X."""


@dataclass(frozen=True)
class PhoneAbx:
    """The triples of tokens, within and across speakers, as tasks of fastabx; the same for every layer."""

    tokens: list[PhoneToken]
    groups: list[int]
    """Of speakers, for each token."""
    within: Any
    across: Any

    @property
    def phones(self) -> int:
        """Different phones."""
        return len({token.phone for token in self.tokens})

    @property
    def speakers(self) -> int:
        """Different speakers."""
        return len({token.speaker for token in self.tokens})

    def errors(self, frames: Sequence[Tensor]) -> tuple[AbxError, AbxError]:
        """Return the errors within and across speakers of tokens' frames [frames, dim] each.

        The errors of two phones are averaged over speakers, then over pairs of phones, as ZeroSpeech does: a frequent
        pair counts as much as a rare one.
        """
        dataset = _dataset(self.tokens, self.groups, frames)  # fastabx normalises it in place, the first time
        return _error(self.within, dataset, "speaker"), _error(self.across, dataset, "speaker", "group")


def _error(task: Any, dataset: Any, *averaged: str) -> AbxError:
    from fastabx import Score

    task.dataset = dataset
    by_pair = Score(task, DISTANCE, progress=False).details(levels=[averaged])
    return AbxError(round(100 * by_pair["score"].mean(), DIGITS), len(by_pair), sum(by_pair["size"].to_list()))


def check_library() -> None:
    """Check that fastabx, which computes ABX, can be imported.

    Raises:
        UserError: it can't; the message names the extra, and the Python that it needs where this one is older.
    """
    try:
        import fastabx  # noqa: F401
    except ImportError as error:
        older = sys.version_info < OLDEST_PYTHON
        where = f" on Python {'.'.join(map(str, OLDEST_PYTHON))} or later (this is {sys.version.split()[0]})"
        raise UserError(f"--abx needs fastabx: pip install 'superb-eval[abx]'{where if older else ''}.") from error


def build(tokens: Sequence[PhoneToken], seed: int, name: str) -> PhoneAbx:
    """Return the triples of tokens; `seed` chooses where there are more than the limits, `name` is the corpus's.

    Raises:
        UserError: no speaker has two tokens of a phone and one of another, or no two speakers share a phone.
    """
    from fastabx import EmptyTaskError, Task

    rng = np.random.default_rng(seed)
    kept = _sample(tokens, rng)
    speakers = sorted({token.speaker for token in kept})
    if len(speakers) < LEAST_SPEAKERS:
        raise UserError(f"{name}: test has {len(speakers)} speakers with phones; --abx needs {LEAST_SPEAKERS} or more.")
    places = dict(zip(speakers, rng.permutation(len(speakers)).tolist(), strict=True))
    groups = [places[token.speaker] % max(1, len(speakers) // GROUP) for token in kept]
    dataset = _dataset(kept, groups, [torch.zeros(1, 1)] * len(kept))
    try:
        within = Task(dataset, on="phone", by=["speaker"])
        across = Task(dataset, on="phone", by=["group"], across=["speaker"])
    except EmptyTaskError as error:
        raise UserError(
            f"{name}: too few phones to compare. --abx needs two phones by one speaker, one of them twice, and two by "
            "two speakers. Give more aligned speech."
        ) from error
    return PhoneAbx(kept, groups, within, across)


def _sample(tokens: Sequence[PhoneToken], rng: np.random.Generator) -> list[PhoneToken]:
    """Return the tokens of at most `MOST_SPEAKERS` speakers, of each phone at most `MOST_TOKENS`, in their order."""
    speakers = sorted({token.speaker for token in tokens})
    chosen = {speakers[place] for place in rng.permutation(len(speakers))[:MOST_SPEAKERS].tolist()}
    counts: Counter[tuple[str, str]] = Counter()
    kept = []
    for place in rng.permutation(len(tokens)).tolist():
        kind = tokens[place].phone, tokens[place].speaker
        if tokens[place].speaker in chosen and counts[kind] < MOST_TOKENS:
            counts[kind] += 1
            kept.append(place)
    return [tokens[place] for place in sorted(kept)]


def _numbers(names: Sequence[str]) -> list[int]:
    """Return a number for each name: fastabx joins labels by hyphens, which names may hold."""
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [known[name] for name in names]


def _dataset(tokens: Sequence[PhoneToken], groups: Sequence[int], frames: Sequence[Tensor]) -> Any:
    import polars
    from fastabx import Dataset, InMemoryAccessor

    ends = np.cumsum([len(rows) for rows in frames]).tolist()
    places = {number: (end - len(rows), end) for number, (end, rows) in enumerate(zip(ends, frames, strict=True))}
    names = {"phone": [token.phone for token in tokens], "speaker": [token.speaker for token in tokens]}
    labels = {**{column: _numbers(of_tokens) for column, of_tokens in names.items()}, "group": list(groups)}
    return Dataset(polars.DataFrame(labels), InMemoryAccessor(places, torch.cat(list(frames)), torch.device("cpu")))
