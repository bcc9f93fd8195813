"""Coverage of intervals, and how often a paired test finds a difference between equally good systems.

Systems of known quality are simulated on test sets with the nesting of each task: units within utterances within
speakers, trials between them. An interval for new speakers is to cover the figure over all speakers, one for these
speakers the figure over all utterances of the speakers that were drawn. `python -m tests.benchmarks calibration`
prints the tables in `docs/intervals.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from downstreams.metrics import eer
from downstreams.metrics.mtwv import Detections, mtwv_curve
from downstreams.metrics.scores import Metric, Nesting, Score, ratio
from superb_eval.results.stats import differences, intervals, resampling
from superb_eval.results.stats.resampling import NEW_SPEAKERS, NEW_UNITS, THESE_SPEAKERS, Population
from superb_eval.results.stats.training_spread import Variance

SIMULATIONS, FEWER = 400, 100
"""Of most cases, and of a list of trials as large as VoxCeleb1-O."""

METRIC = Metric("e", "E", higher_is_better=False)
UNTRAINED = Variance(0.0, np.inf)

Floats = NDArray[np.float64]


class Sample(NamedTuple):
    """One simulated test set: the scores of two equally good systems, and the figure over each population."""

    scores: tuple[Score, Score]
    truth: dict[Population, float]


@dataclass(frozen=True)
class Case:
    """A task's statistic and nesting. `draw` simulates a test set."""

    name: str
    draw: Callable[[np.random.Generator], Sample]
    simulations: int = SIMULATIONS


SPEAKER, UTTERANCE = 0.15, 0.35
"""Parts of the variance of difficulty that are a speaker's, and an utterance's; the rest is each system's own."""


def mean_probability(rate: float, speakers: Floats) -> Floats:
    """Return the rate of each speaker [speakers]; over all speakers it is `rate` exactly."""
    return stats.norm.cdf((stats.norm.ppf(rate) + np.sqrt(SPEAKER) * speakers) / np.sqrt(1 - SPEAKER))  # type: ignore[no-any-return]


def ratios(
    rng: np.random.Generator, *, rate: float, speakers: int, each: int, parts: tuple[int, int], folds: int = 1
) -> Sample:
    """Simulate a ratio: `parts` bounds the words (or slots, or answers: 1) of an utterance, which err at `rate`."""
    effect, speaker = rng.standard_normal(speakers), np.repeat(np.arange(speakers), each)
    common = np.sqrt(SPEAKER) * effect[speaker] + np.sqrt(UTTERANCE) * rng.standard_normal(len(speaker))
    words = rng.integers(parts[0], parts[1] + 1, len(speaker)).astype(np.float64)
    nesting, fold = Nesting(np.arange(len(speaker))[:, None], speaker), speaker % folds
    of_speaker = 100 * mean_probability(rate, effect)
    these = np.mean([of_speaker[np.arange(speakers) % folds == k].mean() for k in range(folds)])
    probability = stats.norm.cdf((stats.norm.ppf(rate) + common) / np.sqrt(1 - SPEAKER - UTTERANCE))
    scores = [ratio(METRIC, rng.binomial(words.astype(int), probability).astype(float), words) for _ in range(2)]
    one, other = (
        replace(_over_folds(score, fold) if folds > 1 else score, nesting=nesting, share=parts == (1, 1) and folds == 1)
        for score in scores
    )
    return Sample((one, other), {NEW_SPEAKERS: 100 * rate, THESE_SPEAKERS: float(these)})


def _over_folds(score: Score, fold: NDArray[np.intp]) -> Score:
    """The mean over folds of a share, as in ER."""
    values = np.asarray(score.by_unit)

    def statistic(weights: Floats) -> Floats:
        members = [(fold == k).astype(np.float64) for k in np.unique(fold)]
        return np.mean([weights @ (values * m) / (weights @ m) for m in members], axis=0)  # type: ignore[no-any-return]

    return replace(score, statistic=statistic, strata=fold)


def diarisation(rng: np.random.Generator, *, rate: float, recordings: int) -> Sample:
    """Simulate DER on recordings of 5 to 40 s of speech; the wrong share follows a gamma distribution."""
    spoken, common = rng.uniform(5, 40, recordings), rng.gamma(1, rate / 2, recordings)
    one, other = (ratio(METRIC, spoken * (common + rng.gamma(1, rate / 2, recordings)), spoken) for _ in range(2))
    return Sample((one, other), {NEW_UNITS: 100 * rate})


DOCUMENTS, TARGETS, COST = 120, 10, 1.0


def detection(rng: np.random.Generator, *, queries: int) -> Sample:
    """Simulate MTWV: a query's targets score higher than its other documents, by more or less."""
    common = rng.standard_normal(queries)
    one, other = (_mtwv(rng, common) for _ in range(2))
    return Sample((one, other), {NEW_UNITS: _mtwv_of_all()})


def _mtwv(rng: np.random.Generator, common: Floats) -> Score:
    queries = len(common)
    target = np.tile(np.arange(DOCUMENTS) < TARGETS, (queries, 1))
    apart = 1.5 + 0.7 * (common + rng.standard_normal(queries)) / np.sqrt(2)
    scores = rng.standard_normal((queries, DOCUMENTS)) + target * apart[:, None]
    detected = Detections(
        [str(q) for q in range(queries)],
        np.repeat(np.arange(queries), DOCUMENTS),
        scores.ravel(),
        target.ravel(),
        np.ones(target.size),
    )
    curve = mtwv_curve(detected, COST)
    return Score(METRIC, queries, lambda w: np.asarray(100 * curve.maximum(w)), vectorised=False)


@cache
def _mtwv_of_all() -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([_mtwv(rng, rng.standard_normal(4000)).value for _ in range(4)]))


DIM, SAME = 16, 0.6
"""Of simulated embeddings: their width, and the part of their variance that is the speaker's."""


def verification(rng: np.random.Generator, *, speakers: int, each: int, trials: Trials) -> Sample:
    """Simulate EER: a trial's score is the cosine of two utterances' embeddings, each near its speaker's."""
    voices = rng.standard_normal((speakers, DIM))
    one, other = (_embeddings(rng, voices, each) for _ in range(2))
    speaker = np.repeat(np.arange(speakers), each)
    pairs, target = trials(rng, speakers, each)
    nesting = Nesting(pairs, speaker)
    scores = [
        replace(eer.score(METRIC, target, np.sum(e[pairs[:, 0]] * e[pairs[:, 1]], axis=1)), nesting=nesting)
        for e in (one, other)
    ]
    many = 2000  # so that the truth is known far better than the test set shows it
    these = _eer_of(_embeddings(rng, voices, many), np.repeat(np.arange(speakers), many), rng)
    return Sample((scores[0], scores[1]), {NEW_SPEAKERS: _eer_of_all(), THESE_SPEAKERS: these})


Trials = Callable[[np.random.Generator, int, int], tuple[NDArray[np.intp], NDArray[np.bool_]]]
"""Return the utterances of each trial [trials, 2], and whether they are of one speaker [trials]."""


def all_targets(rng: np.random.Generator, speakers: int, each: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return all pairs of one speaker, and as many of two: the embedded corpus's list."""
    pairs = np.stack(np.triu_indices(speakers * each, 1), axis=1)
    target = pairs[:, 0] // each == pairs[:, 1] // each
    (targets,), (others,) = np.nonzero(target), np.nonzero(~target)
    chosen = np.concatenate([targets, rng.choice(others, len(targets), replace=False)])
    return pairs[chosen], target[chosen]


def eight_each(rng: np.random.Generator, speakers: int, each: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return four pairs of one speaker and four of two for each utterance: how VoxCeleb1-O's list is made."""
    count = speakers * each * 8
    enroll, target = np.repeat(np.arange(speakers * each), 8), np.arange(count) % 2 == 0
    speaker, take = enroll // each, enroll % each
    same = speaker * each + (take + rng.integers(1, each, count)) % each
    other = (speaker + rng.integers(1, speakers, count)) % speakers * each + rng.integers(0, each, count)
    return np.stack([enroll, np.where(target, same, other)], axis=1), target


def _embeddings(rng: np.random.Generator, voices: Floats, each: int) -> Floats:
    noise = rng.standard_normal((len(voices), each, DIM))
    vectors = (np.sqrt(SAME) * voices[:, None] + np.sqrt(1 - SAME) * noise).reshape(-1, DIM)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]


def _eer_of(embeddings: Floats, speaker: NDArray[np.intp], rng: np.random.Generator) -> float:
    """The equal error rate over very many pairs."""
    one, other = rng.integers(0, len(speaker), (2, 1_100_000))
    own = rng.integers(0, len(speaker), 1_000_000)
    size = int(np.sum(speaker == 0))
    mate = speaker[own] * size + (own % size + rng.integers(1, size, len(own))) % size
    apart = speaker[one] != speaker[other]
    one, other = one[apart], other[apart]
    pairs = [np.einsum("ij,ij->i", embeddings[a], embeddings[b]) for a, b in ((own, mate), (one, other))]
    target = np.repeat([True, False], [len(own), len(one)])
    return eer.equal_error_rate(target, np.concatenate(pairs))


@cache
def _eer_of_all() -> float:
    rng = np.random.default_rng(0)
    voices = rng.standard_normal((20_000, DIM))
    return _eer_of(_embeddings(rng, voices, 4), np.repeat(np.arange(20_000), 4), rng)


ANSWER = (1, 1)
CASES = tuple(
    Case(*case)
    for case in (
        ("KS: accuracy 60 %, 25 speakers x 11", partial(ratios, rate=0.6, speakers=25, each=11, parts=ANSWER)),
        ("SID: accuracy 35 %, 40 speakers x 5", partial(ratios, rate=0.35, speakers=40, each=5, parts=ANSWER)),
        ("SID: accuracy 95 %, 40 speakers x 5", partial(ratios, rate=0.95, speakers=40, each=5, parts=ANSWER)),
        ("IC: accuracy 60 %, 16 speakers x 10", partial(ratios, rate=0.6, speakers=16, each=10, parts=ANSWER)),
        (
            "ER: accuracy 60 %, 5 folds of 10 speakers x 8",
            partial(ratios, rate=0.6, speakers=50, each=8, parts=ANSWER, folds=5),
        ),
        (
            "ER: accuracy 60 %, 5 folds of 2 speakers x 550 (IEMOCAP)",
            partial(ratios, rate=0.6, speakers=10, each=550, parts=ANSWER, folds=5),
        ),
        ("PR: PER 25 %, 10 speakers x 18", partial(ratios, rate=0.25, speakers=10, each=18, parts=(8, 20))),
        ("ASR: WER 12 %, 10 speakers x 18", partial(ratios, rate=0.12, speakers=10, each=18, parts=(3, 4))),
        (
            "ASR: WER 6 %, 40 speakers x 65 (LibriSpeech test-clean)",
            partial(ratios, rate=0.06, speakers=40, each=65, parts=(3, 34)),
        ),
        ("SF: errors 8 %, 16 speakers x 10", partial(ratios, rate=0.08, speakers=16, each=10, parts=(1, 2))),
        ("SD: DER 25 %, 40 recordings", partial(diarisation, rate=0.25, recordings=40)),
        ("QbE: MTWV, 66 queries", partial(detection, queries=66)),
        ("ASV: EER, 24 speakers x 8", partial(verification, speakers=24, each=8, trials=all_targets)),
        (
            "ASV: EER, 40 speakers x 118 (VoxCeleb1-O)",
            partial(verification, speakers=40, each=118, trials=eight_each),
            FEWER,
        ),
    )
)


class Rates(NamedTuple):
    """How often, in percent, an interval covers the truth, and a paired test finds a difference that is not there."""

    covered: float
    found: float


def rates(case: Case, of: Population, simulations: int | None = None) -> Rates:
    """Return the rates of a case over a population."""
    covered = found = 0
    count = simulations or case.simulations
    for k in range(count):
        sample = case.draw(np.random.default_rng([k, len(case.name)]))
        ours, theirs = sample.scores
        low, high = intervals.interval(ours, of)
        covered += low <= sample.truth[of] <= high
        draws = intervals.distribution(ours, of) - intervals.distribution(theirs, of)
        df = resampling.degrees_of_freedom(ours, of)
        difference = differences.paired(ours.value - theirs.value, draws, df, "units", UNTRAINED)
        found += difference.distinguishable
    return Rates(100 * covered / count, 100 * found / count)


def populations(case: Case) -> Iterator[Population]:
    """Yield the populations of a case."""
    yield from case.draw(np.random.default_rng(0)).truth


def run() -> str:
    lines = ["| simulated | interval for | covers | paired test, no difference |", "| --- | --- | ---: | ---: |"]
    for case in CASES:
        for of in populations(case):
            covered, found = rates(case, of)
            count = "" if case.simulations == SIMULATIONS else f" ({case.simulations})"
            lines.append(f"| {case.name}{count} | {of} | {covered:.1f} % | {found:.1f} % |")
            print(lines[-1], flush=True)
    return "\n".join(lines)
