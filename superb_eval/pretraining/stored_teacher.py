"""A teacher's layers from the feature store: it hears each clip once, whole, however often crops of it come up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, load_or_extract
from superb_eval.features.store import Store
from superb_eval.pretraining.data import Audio, Batch
from superb_eval.pretraining.distillation_recipe import DistillationRecipe
from superb_eval.runs.config import digests
from superb_eval.runtime.progress import Progress
from upstreams.base import Upstream


@dataclass(frozen=True)
class Stored:
    """The layers to predict, of every clip. `digests` are the clips' in the bank, `stride` is in samples."""

    bank: FeatureDataset
    digests: list[str]
    stride: int

    def of(self, batch: Batch, frames: Callable[[int], int | None]) -> Tensor:
        """Return the layers of a batch's crops [batch, layers, frames, width] in 16 bits, zeros where there are none.

        `frames` says how many frames the student gives for so many samples.

        Raises:
            UserError: the teacher has fewer frames of a crop than the student.
        """
        rows = []
        whole = self.bank.draw([self.digests[clip] for clip in batch.clips])
        for row, offset, samples in zip(whole, batch.offsets, batch.lengths.tolist(), strict=True):
            first, count = offset // self.stride, frames(samples) or 0
            if first + count > len(row):
                raise UserError(f"the teacher has fewer frames than the student: {len(row)}. Leave teacher.stored out.")
            rows.append(row[first : first + count])
        return pad_sequence(rows, batch_first=True).transpose(1, 2)


def hear(
    teacher: Upstream, settings: DistillationRecipe, heard: Audio, device: torch.device, reporter: Progress
) -> Stored:
    """Let a teacher hear all clips, as far as the store has no such features yet and room for them.

    Clips that find no room are heard whenever a batch needs them.

    Raises:
        UserError: the recipe asks for what can't be stored, or a clip can't be read.
    """
    if settings.teacher.dropout or settings.loss.padding:
        raise UserError(
            "teacher.stored: with teacher.dropout or loss.padding the teacher gives something else each time. "
            "Leave one of them out."
        )
    how = Extraction(
        "frames",
        batch_seconds=settings.data.batch_seconds,
        precision=settings.teacher.precision,
        dtype="float16",
        layers=settings.loss.layers,
    )
    digest_of = digests(heard.clips, reporter)
    source = FeatureSource(teacher.to(device), teacher.fingerprint(), how, str(device))
    passes = settings.optim.steps * settings.data.batch_seconds / (3600 * heard.hours)
    clip_of = {digest: clip for clip, digest in digest_of.items()}
    with reporter.stage("teacher", len(clip_of)) as update:
        bank = load_or_extract(source, clip_of, Store(), update, passes)
    reporter.say(f"teacher: {bank.extracted} clips heard, {len(bank.places) - bank.extracted} from the store")
    return Stored(bank, [digest_of[clip] for clip in heard.clips], teacher.get_downsample_rates(how.key))
