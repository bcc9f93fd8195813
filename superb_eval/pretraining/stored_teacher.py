"""A teacher's layers from the feature store: it processes each whole clip once, and crops use their segments of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superb_eval.corpora.load_corpus import audio_digests
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, load_or_extract
from superb_eval.features.store import Store
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.recipe import DistillationRecipe
from superb_eval.runtime.progress import Progress
from upstreams.base import Upstream


@dataclass(frozen=True)
class StoredTeacher:
    """The predicted layers of every clip. `digests` are the clips' keys in the dataset, `stride` is in samples."""

    dataset: FeatureDataset
    digests: list[str]
    stride: int

    def crops(self, batch: Batch, counted: Tensor) -> Tensor:
        """Return the layers of a batch's crops [rows, frames, layers, width] in 16 bits, padded with zeros.

        `counted` [rows, frames] is true on the student's frames of each crop.

        Raises:
            UserError: the teacher has fewer frames of a crop than the student.
        """
        clips = self.dataset.read([self.digests[clip] for clip in batch.clips])
        layers = clips[0].new_zeros(*counted.shape, *clips[0].shape[1:])
        for row, clip, offset, count in zip(layers, clips, batch.offsets, counted.sum(1).tolist(), strict=False):
            first = offset // self.stride
            if first + count > len(clip):
                raise UserError(
                    f"the teacher has fewer frames than the student: {len(clip)}. Leave teacher.stored out."
                )
            row[:count] = clip[first : first + count]
        return layers


def extract(
    teacher: Upstream, recipe: DistillationRecipe, audio: Audio, device: torch.device, progress: Progress
) -> StoredTeacher:
    """Extract and store a teacher's layers of all clips, as far as they are not stored yet and there is space.

    Clips without space are processed whenever a batch needs them.

    Raises:
        UserError: the recipe makes the teacher's output change between passes, a clip can't be read, or the budget of
            the feature store is no number above 0.
    """
    if recipe.teacher.dropout or recipe.loss.padding:
        raise UserError(
            "teacher.stored: with teacher.dropout or loss.padding the teacher's output changes between passes. "
            "Leave one of them out."
        )
    store = Store()
    # In batches of its own size, not the training's: another `data.batch_seconds` uses what is stored.
    extraction = Extraction("frames", precision=recipe.teacher.precision, dtype="float16", layers=recipe.loss.layers)
    digest_of = audio_digests(audio.clips, progress)
    source = FeatureSource(teacher.to(device), teacher.fingerprint(), extraction, str(device))
    passes = recipe.optim.steps * recipe.data.batch_seconds / (3600 * audio.hours)
    clip_of = {digest: clip for clip, digest in digest_of.items()}
    with progress.step("teacher", len(clip_of)) as update:
        dataset = load_or_extract(source, clip_of, store, update, passes)
    live = "; {:,} are not stored, for want of space or since that takes longer: processed in each of their batches"
    progress.log(
        f"teacher: {dataset.extracted:,} clips extracted, {len(dataset.places) - dataset.extracted:,} from the store"
        + (live.format(len(dataset.unstored)) if dataset.unstored else "")
    )
    return StoredTeacher(
        dataset, [digest_of[clip] for clip in audio.clips], teacher.get_downsample_rates(extraction.key)
    )
