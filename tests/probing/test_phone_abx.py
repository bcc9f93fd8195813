"""Phone ABX: against a reference of a few lines, at its ends, and what it is computed from."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from superb_eval.corpora.aligned_speech import PhoneToken
from superb_eval.errors import UserError
from superb_eval.probing import phone_abx
from superb_eval.probing.phone_abx import PhoneAbx, build

pytest.importorskip("fastabx", reason="extra abx, which needs Python 3.12")

Distances = NDArray[np.float64]


def some_tokens(
    kinds: Sequence[tuple[str, str]], dim: int, seed: int, spread: float
) -> tuple[list[PhoneToken], list[Tensor]]:
    """Return tokens of (phone, speaker) of 1 to 5 frames, `spread` around a direction of their phone."""
    rng, directions = np.random.default_rng(seed), {}
    tokens, frames = [], []
    for clip, (phone, speaker) in enumerate(kinds):
        direction = directions.setdefault(phone, rng.standard_normal(dim))
        length = int(rng.integers(1, 6))
        rows = direction + spread * rng.standard_normal((length, dim))
        tokens.append(PhoneToken(phone, speaker, clip, 0, length))
        frames.append(torch.from_numpy(rows).float())
    return tokens, frames


def percents(abx: PhoneAbx, frames: Sequence[Tensor]) -> tuple[float, float]:
    within, across = abx.errors(frames)
    return within.percent, across.percent


def warped(x: Tensor, y: Tensor) -> float:
    """Return the mean angle along the cheapest path of two tokens; of equally cheap steps the diagonal one."""
    x, y = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (x, y))
    costs = (x @ y.T).clamp(-1, 1).acos().numpy() / np.pi
    total: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j in np.ndindex(costs.shape):
        before = [total[step] for step in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if step in total]
        cost, length = min(before, key=lambda path: path[0]) if before else (0.0, 0)
        total[i, j] = cost + costs[i, j], length + 1
    cost, length = total[costs.shape[0] - 1, costs.shape[1] - 1]
    return cost / length


def reference(tokens: Sequence[PhoneToken], frames: Sequence[Tensor]) -> tuple[float, float]:
    """Return the errors within and across speakers: the mean over pairs of phones of the mean over cells of a pair."""
    d = np.array([[warped(x, y) for y in frames] for x in frames])
    places = defaultdict(list)
    for place, token in enumerate(tokens):
        places[token.phone, token.speaker].append(place)
    errors: tuple[dict[tuple[str, str], list[float]], ...] = (defaultdict(list), defaultdict(list))
    for (a, speaker), (b, other), (x, third) in itertools.product(places, places, places):
        if a == b or a != x or speaker != other:
            continue
        triples = itertools.product(places[a, speaker], places[b, speaker], places[x, third])
        wrong = [(1 + np.sign(d[k, i] - d[k, j])) / 2 for i, j, k in triples if i != k]
        if wrong:
            errors[third != speaker][a, b].append(fmean(wrong))
    within, across = (100 * fmean(map(fmean, of_pairs.values())) for of_pairs in errors)
    return within, across


def test_errors_are_those_of_a_reference() -> None:
    kinds = [(phone, speaker) for phone in "pbt" for speaker in ("s", "u", "v") for _ in range(3)][:-2]
    tokens, frames = some_tokens(kinds, dim=4, seed=1, spread=1.5)
    abx = build(tokens, 0, "corpus")
    assert abx.tokens == tokens and (abx.phones, abx.speakers) == (3, 3)
    assert percents(abx, frames) == pytest.approx(reference(tokens, frames), abs=1e-3)
    assert 5 < min(percents(abx, frames)) < 45, "neither too easy nor by chance"


def test_pairs_and_triples_are_those_of_a_count_by_hand() -> None:
    tokens, frames = some_tokens([("p", "s"), ("p", "s"), ("b", "s"), ("p", "u"), ("b", "u")], 4, 0, 1)
    within, across = build(tokens, 0, "corpus").errors(frames)
    assert within[1:] == (1, 2), "the two p of s against b"
    # p of s (2) and b, X by u (1); b of s and p (2), X by u; p of u and b, X by s (2); b of u and p, X by s.
    assert across[1:] == (2, 2 + 2 + 2 + 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_are_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [(phone, speaker) for phone in "pbtdkg" for speaker in "suvw" for _ in range(8)]
    tokens, frames = some_tokens(kinds, 8, seed, spread=0.5)
    within, across = percents(build(tokens, 0, "corpus"), frames)
    assert max(within, across) < 10
    shuffled = [frames[place] for place in rng.permutation(len(frames)).tolist()]
    assert percents(build(tokens, 0, "corpus"), shuffled) == pytest.approx((50, 50), abs=4)


def test_tokens_that_are_equal_are_never_confused_and_constant_ones_are_ties() -> None:
    tokens, frames = some_tokens([(phone, speaker) for phone in "pbt" for speaker in "su" for _ in range(3)], 8, 0, 0.0)
    abx = build(tokens, 0, "corpus")
    assert percents(abx, frames) == (0, 0)
    ones = [torch.ones(1, 8) for _ in frames]  # of one frame: means over paths of unequal length differ by rounding
    assert percents(abx, ones) == (50, 50)


def test_limits_choose_by_the_seed_and_leave_the_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_abx, "MOST_SPEAKERS", 3)
    monkeypatch.setattr(phone_abx, "MOST_TOKENS", 2)
    kinds = [(phone, speaker) for phone in ("p", "p-b", "b") for speaker in ("s", "b-s", "u", "v") for _ in range(4)]
    tokens, frames = some_tokens(kinds, 4, 0, 1)
    first, again, other = (build(tokens, seed, "corpus") for seed in (0, 0, 1))
    assert first.tokens == again.tokens != other.tokens and set(first.tokens) < set(tokens)
    assert (first.phones, first.speakers, len(first.tokens)) == (3, 3, 3 * 3 * 2)
    kept = [frames[token.clip] for token in first.tokens]
    assert first.errors(kept)[0][1:] == (3 * 2, 3 * 3 * 2 * 2 * 2)
    assert percents(first, kept) == percents(again, kept) == pytest.approx(reference(first.tokens, kept), abs=1e-3)


def test_across_speakers_are_groups_of_three_which_the_seed_chooses() -> None:
    kinds = [(phone, speaker) for phone in "pb" for speaker in "stuvwxyz" for _ in range(2)]
    tokens, frames = some_tokens(kinds, 4, 0, 1)
    first, again, other = (build(tokens, seed, "corpus") for seed in (0, 0, 1))
    assert first.groups == again.groups != other.groups
    # Eight speakers are two groups of four: two pairs of phones by eight speakers, each with three others.
    assert first.errors(frames)[1][1:] == (2, 2 * 8 * 3 * 2 * 2 * 2)
    of_group = [place for place, group in enumerate(first.groups) if group == 0]
    errors = [
        reference([tokens[k] for k in kept], [frames[k] for k in kept])[1]
        for kept in (of_group, sorted(set(range(len(tokens))) - set(of_group)))
    ]
    assert percents(first, frames)[1] == pytest.approx(fmean(errors), abs=1e-3)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([("p", "s"), ("p", "s"), ("b", "s")], "test has 1 speakers .* needs 2 or more"),
        ([], "test has 0 speakers"),
        ([("p", "s"), ("b", "s"), ("p", "u")], "too few phones to compare"),
        ([("p", "s"), ("p", "s"), ("b", "s"), ("t", "u")], "too few phones to compare"),
    ],
)
def test_too_little_speech_is_named(kinds: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=f"corpus: {message}"):
        build(some_tokens(kinds, 4, 0, 1)[0], 0, "corpus")
