"""Gender identification: whether a voice is called female or male, for speakers who are not in the training data.

Not a task of SUPERB: the eleventh here, and the example of how one is added (`downstreams/README.md`). The head, the
loss and the metric are those of speaker identification; only the label differs.

The label is the column `gender`, whatever classes that holds. Rows without it are read as the embedded corpus names its
voices, `co_f000` and `co_m001`; there it is how a synthetic voice was drawn, and states nothing about people.
"""

from __future__ import annotations

import re
from dataclasses import replace

from downstreams.task_types.classification import Classification
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.errors import UserError

NAMED = re.compile(r"_(?:(f)|(m))\d+$")
"""How the embedded corpus ends a speaker's name."""


class GenderIdentification(Classification):
    """Classes are those of the training rows, sorted."""

    version = 2
    name = "gender"
    title = "gender identification"
    columns = ("speaker",)
    label_column = "gender"

    @classmethod
    def annotate(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with the label `gender` on every row.

        Raises:
            UserError: rows have no such label, and their speaker's name has none; each is named with its line.
        """
        return replace(corpus, splits={name: _labelled(split) for name, split in corpus.splits.items()})


def _labelled(split: Manifest) -> Manifest:
    rows = [replace(u, labels={**u.labels, "gender": _gender(u)}) for u in split]
    unlabelled = [u for u in rows if not u.labels["gender"]]
    if unlabelled:
        problem = "has no gender: add a column gender, or end the speaker's name in _f000 or _m000"
        raise UserError(
            bad_rows_message(
                split.source, [f"{split.row_name(u)}: speaker '{u.speaker}' {problem}" for u in unlabelled]
            )
        )
    return replace(split, utterances=tuple(rows))


def _gender(utterance: Utterance) -> str:
    match = NAMED.search(utterance.speaker)
    named = ("female" if match[1] else "male") if match else ""
    return utterance.labels.get("gender") or named
