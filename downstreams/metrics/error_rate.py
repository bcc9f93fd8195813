"""Edit distances behind PER, WER and CER, counted by jiwer for each utterance and summed over the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

from downstreams.metrics.scores import Metric, Score, ratio


class Edits(NamedTuple):
    """Substitutions, deletions and insertions `errors` [pairs], and the `lengths` [pairs] of the references."""

    errors: NDArray[np.float64]
    lengths: NDArray[np.float64]


def word_edits(truths: Sequence[str], answers: Sequence[str]) -> Edits:
    """Return the edits that turn truths into answers, in words (or phones): what is between spaces."""
    return _count_edits(jiwer.process_words(list(truths), list(answers)))


def character_edits(truths: Sequence[str], answers: Sequence[str]) -> Edits:
    """Return the edits in characters; spaces inside count, those at the ends don't."""
    return _count_edits(jiwer.process_characters(list(truths), list(answers)))


def error_rate(metric: Metric, edits: Edits) -> Score:
    """Return all errors divided by the length of all references, in percent: long utterances weigh more."""
    return ratio(metric, edits.errors, edits.lengths)


def constant_word_error_rate(truths: Sequence[str]) -> float:
    """Return the word (or phone) error rate, in percent, of always answering the commonest one n times, at the best n.

    The distance from n repeats of a word to a sequence of L words that holds it c times is max(L, n) - min(c, n).
    """
    split = [truth.split() for truth in truths]
    word, _ = Counter(w for sequence in split for w in sequence).most_common(1)[0]
    lengths, counts = (np.array([f(s) for s in split]) for f in (len, lambda s: s.count(word)))
    errors = [(np.maximum(lengths, n) - np.minimum(counts, n)).sum() for n in range(lengths.max() + 1)]
    return float(100.0 * min(errors) / lengths.sum())


def _count_edits(output: Any) -> Edits:
    # An alignment's chunk pairs a stretch of the reference with one of the hypothesis; one of them may be empty.
    errors = [
        sum(max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks if c.type != "equal")
        for chunks in output.alignments
    ]
    return Edits(np.array(errors, dtype=np.float64), np.array([len(r) for r in output.references], dtype=np.float64))
