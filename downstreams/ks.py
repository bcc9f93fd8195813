"""KS, keyword spotting: which of twelve classes a clip of one second is.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/speech_commands` runs it. Ten keywords,
`_unknown_` for any other word and `_silence_`; projector, mean over time, linear; cross-entropy; accuracy. Training
draws classes equally often and leaves the smaller last batch of an epoch out, alone among the tasks (`expert.py`); the
dev set that selects the checkpoint is drawn equally often too; the test set is used as it is.
"""

from __future__ import annotations

from pydantic import Field

from downstreams.task_types.classification import Classification
from downstreams.task_types.official_corpus import OfficialCorpus, numbered
from superb_eval.data.bounds import Count
from superb_eval.data.recipe_sections import CorpusSettings

OFFICIAL_CLASSES = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_")
"""The classes of Speech Commands v0.01 in the protocol's order."""


class KeywordCorpus(CorpusSettings):
    """`silence_crops`: how much of the class `_silence_` is made of an official corpus's background noise."""

    silence_crops: Count = Field(
        500, ge=1, description="official corpus: fixed 1 s crops per background file, for train and for dev"
    )


class KeywordSpotting(Classification):
    """Classes are those of the training rows, the official ones first and in their order."""

    name = "ks"
    title = "keyword spotting"
    columns = ("keyword",)
    label_column = "keyword"
    drop_last = True
    CorpusSchema = KeywordCorpus
    official_classes = OFFICIAL_CLASSES
    paper_position = 2
    official_corpus = OfficialCorpus((51_094, 6_798, 3_081), 1.0, numbered(12))
