"""SID, speaker identification: which of the training speakers is speaking.

Protocol: SUPERB (arXiv 2105.01051, section 3.1) as s3prl's `downstream/voxceleb1` runs it on the identification split
of VoxCeleb1: 1,251 speakers, the same in each split. Projector, mean over time, linear; cross-entropy; accuracy.

Training there crops each utterance to 8 s at random before the upstream processes it. Here the upstream runs once on
whole utterances, so that only its frames can be cropped (`train.crop_seconds`).
"""

from __future__ import annotations

from downstreams.task_types.classification import Classification
from downstreams.task_types.official_corpus import OfficialCorpus, numbered


class SpeakerIdentification(Classification):
    """Classes are the speakers of the training rows, sorted: for VoxCeleb1 the number of the id less 10001."""

    version = 2
    name = "sid"
    title = "speaker identification"
    columns = ("speaker",)
    label_column = "speaker"
    paper_position = 4
    official_corpus = OfficialCorpus((138_361, 6_904, 8_251), 8.2, numbered(1_251))
