"""QbE, query by example: in which documents does a spoken query occur? Nothing is trained.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/quesst14_dtw` runs it on QUESST 2014. Each
hidden layer is searched by itself: features normalised over the queries and documents of the split, exponential cosine
distances, subsequence DTW, scores normalised over the documents of each query; MTWV. The layer that is best on dev is
tested. The paper reportedly selects the distance too, on the test set: the best of several is the historical figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from downstreams.base import HeadSettings, Prediction, SearchTask
from downstreams.metrics.dtw import match
from downstreams.metrics.frame_distances import FLOOR, Distance, normalised
from downstreams.metrics.mtwv import Detections, MtwvCurve, beta, mtwv_curve, stdlist
from downstreams.metrics.scores import Metric, Score
from downstreams.task_types.official_corpus import OfficialCorpus
from superb_eval.data import limits
from superb_eval.data.bounds import Count, Weight, at_most_items
from superb_eval.data.manifest import Corpus, Manifest, Trial
from superb_eval.data.recipe_sections import CorpusSettings

if TYPE_CHECKING:
    from torch import Tensor

RANDOM_DRAWS = 20
"""Systems with random scores whose mean is the chance level."""


class QuerySettings(HeadSettings):
    """How to search, and the costs of the score.

    `distance` is that of two frames; `also` are tried too, for the historical figure. `p_target`, `c_fa` and
    `c_miss` give the price of a false alarm, beta = c_fa / c_miss (1 / p_target - 1) = 12.49. They are those of the
    scorer of QUESST 2015; the one of 2014 probably has the same (protocol, derived).
    `missing_score` is that of documents that are not searched. Queries of fewer than `shortest` frames are not
    searched for: they score 0 in every document.
    """

    distance: Distance = "cosine_exp"
    also: Annotated[tuple[Distance, ...], at_most_items(10, "each is a search of its own")] = ()
    p_target: float = Field(0.0008, ge=1e-9, lt=1)
    c_fa: Weight = Field(1.0, ge=1e-9)
    c_miss: Weight = Field(100.0, ge=1e-9)
    missing_score: float = -10.0
    shortest: Count = Field(5, ge=1)


class QueryCorpus(CorpusSettings):
    """`all_languages`: which trials of an official corpus are scored."""

    all_languages: bool = Field(
        True, description="official corpus: score as the official scorer, which counts trials in other languages too"
    )


class _Parts(NamedTuple):
    """The queries and documents of a split: the place of each in the manifest, by id."""

    queries: dict[str, int]
    documents: dict[str, int]


class QueryByExample(SearchTask):
    """Every hidden layer by itself; `Manifest.trials` list which query is searched for in which document."""

    name = "qbe"
    title = "query by example"
    columns = ("role",)
    metrics = (Metric("mtwv", "MTWV", higher_is_better=True, unit="x100"),)
    Head = QuerySettings
    CorpusSchema = QueryCorpus
    unit = "queries"
    trials = True
    truth_names: ClassVar = {"1": "is spoken", "0": "is not spoken"}
    hub_task = "audio-to-audio"
    paper_position = 3
    official_corpus = OfficialCorpus((0, 138 + 2_438, 138 + 2_438), 6.5)

    @classmethod
    def limited(cls, corpus: Corpus, count: int, head: Any) -> Corpus:
        """Return some queries that are spoken in a document, with that and others."""
        del head
        return replace(corpus, splits={name: limits.by_trials(s, count) for name, s in corpus.splits.items()})

    def ways(self) -> tuple[str, ...]:
        """Return the distances: the recipe's, then those of `also`."""
        chosen = self.setup.head
        return tuple(dict.fromkeys((chosen.distance, *chosen.also)))

    def search(self, manifest: Manifest, features: Sequence[Tensor], way: str, device: str) -> list[Prediction]:
        """Return a score for each trial: how many standard deviations its match is better than the query's mean."""
        # Apple's GPUs lack double precision.
        device = "cpu" if device == "mps" else device
        parts, frames = _parts(manifest), normalised(features, device)
        queries = [frames[i] for i in parts.queries.values()]
        scores = -match(queries, [frames[i] for i in parts.documents.values()], cast(Distance, way), device)
        scores[[len(query) < self.setup.head.shortest for query in queries]] = 0.0
        return self._rows(manifest.trials, parts, scores)

    def _rows(self, trials: Sequence[Trial], parts: _Parts, scores: NDArray[np.float64]) -> list[Prediction]:
        row_of = {name: i for i, name in enumerate(parts.queries)}
        column_of = {name: i for i, name in enumerate(parts.documents)}
        in_trials = np.zeros(scores.shape, dtype=bool)
        for trial in trials:
            if trial.test:
                in_trials[row_of[trial.enroll], column_of[trial.test]] = True
        scores = normalise_per_query(scores, in_trials)
        missing = f"{self.setup.head.missing_score:.4f}"
        # The official scorer reads four decimals.
        return [
            Prediction(f"{t.enroll} {t.test}", str(int(t.target)), f"{scores[row_of[t.enroll], column_of[t.test]]:.4f}")
            if t.test
            else Prediction(f"{t.enroll} *{t.count}", str(int(t.target)), missing)
            for t in trials
        ]

    def remarks(self, manifest: Manifest, frames: Sequence[int]) -> list[str]:
        """Return a sentence for each query that is too short to be searched for."""
        shortest = self.setup.head.shortest
        return [
            f"{manifest.split}: query '{name}' has {frames[i]} frames, fewer than {shortest}: scored 0 everywhere"
            for name, i in _parts(manifest).queries.items()
            if frames[i] < shortest
        ]

    def score(self, rows: Sequence[Prediction]) -> list[Score]:
        """Return the MTWV over queries, NaN if a score isn't finite; each resample has its own best threshold."""
        detected = detections(rows)
        twv, finite = self._curve(detected), bool(np.isfinite(detected.score).all())
        searched = {row.id.partition(" ")[0] for row in rows if not _unsearched(row)}
        # Each resample has the same share of queries that were not searched for at all.
        strata = np.array([name in searched for name in twv.names], dtype=np.intp)

        def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(100.0 * twv.maximum(weights) if finite else np.nan)

        return [Score(self.metrics[0], len(twv.names), statistic, vectorised=False, strata=strata)]

    def chance(self, rows: Sequence[Prediction]) -> float:
        """Return the mean MTWV of systems that give random scores where this one searched."""
        rng = np.random.default_rng(0)
        actual = detections(rows)
        searched = np.array([not _unsearched(row) for row in rows])
        values = []
        for _ in range(RANDOM_DRAWS):
            random = np.where(searched, rng.standard_normal(len(searched)), actual.score)
            twv = self._curve(replace(actual, score=random))
            values.append(twv.maximum(np.ones(len(twv.names))))
        return float(100.0 * np.mean(values))

    def _curve(self, detected: Detections) -> MtwvCurve:
        head = self.setup.head
        return mtwv_curve(detected, beta(head.p_target, head.c_fa, head.c_miss))


def normalise_per_query(scores: NDArray[np.float64], in_trials: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return scores [queries, documents] with mean 0 and deviation 1 over the documents of each query's trials."""
    count = np.maximum(in_trials.sum(axis=1, keepdims=True), 1)
    mean = (scores * in_trials).sum(axis=1, keepdims=True) / count
    spread = np.sqrt((np.square(scores - mean) * in_trials).sum(axis=1, keepdims=True) / count)
    centred: NDArray[np.float64] = (scores - mean) / np.maximum(spread, FLOOR)
    return centred


def detections(rows: Sequence[Prediction]) -> Detections:
    """Return predictions as detections; `QUERY *N` is N documents that were not searched."""
    queries = [row.id.partition(" ")[0] for row in rows]
    names = list(dict.fromkeys(queries))
    number = {name: i for i, name in enumerate(names)}
    return Detections(
        names=names,
        query=np.array([number[name] for name in queries], dtype=np.intp),
        score=np.array([row.answer for row in rows], dtype=np.float64),
        target=np.array([row.truth == "1" for row in rows], dtype=bool),
        count=np.array([_unsearched(row) or 1 for row in rows], dtype=np.float64),
    )


def as_stdlist(rows: Sequence[Prediction]) -> str:
    """Return predictions in the format of the official scorer and of submissions: `benchmark.stdlist.xml`."""
    searched = [(*row.id.partition(" ")[::2], float(row.answer)) for row in rows if not _unsearched(row)]
    return stdlist(searched)


def _unsearched(row: Prediction) -> int:
    """The number of documents of a row whose documents were not searched, else 0."""
    document = row.id.partition(" ")[2]
    return int(document[1:]) if document.startswith("*") else 0


def _parts(manifest: Manifest) -> _Parts:
    places: dict[str, dict[str, int]] = {"query": {}, "document": {}}
    for i, utterance in enumerate(manifest):
        places[utterance.labels["role"]][utterance.id] = i
    return _Parts(places["query"], places["document"])
