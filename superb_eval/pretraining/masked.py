"""HuBERT's masked prediction (Hsu et al., arXiv 2106.07447, section II): predict the clusters of masked spans.

Logits are the cosine between a projection of a layer and an embedding of each class, over a temperature. In the paper
that is the last layer; lower ones may predict the same clusters, each by a head of its own (intermediate layer
supervision: Wang et al., arXiv 2112.08778, section 3). Several codebooks are predicted at once (cluster ensembles,
section II-C) from one projection, and a frame's loss is the mean over them; the paper has a sum, and a projection each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from superb_eval.pretraining import network
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.objective import Objective, Term, Terms
from superb_eval.pretraining.recipe import MaskSettings, PredictSettings
from superb_eval.pretraining.seeding import generators
from superb_eval.pretraining.targets import Labels

if TYPE_CHECKING:
    from transformers import HubertModel


class PredictionHead(nn.Module):
    """Predicts the codes of each frame from the states of one layer: class embeddings for each codebook."""

    def __init__(self, hidden: int, sizes: Sequence[int], settings: PredictSettings) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.project = nn.Linear(hidden, settings.width)
        # Uniform, as fairseq's: the scale doesn't change the cosines, but it does change the size of their gradients.
        classes = [nn.Parameter(torch.empty(clusters, settings.width).uniform_()) for clusters in sizes]
        self.classes = classes[0]  # alone in checkpoints with one codebook
        self.further = nn.ParameterList(classes[1:])

    def forward(self, states: Tensor) -> list[Tensor]:
        """Return the logits [..., classes] of each codebook, of states [..., dim], in float32 under any autocast."""
        projected = self.project(states)
        with torch.autocast(states.device.type, enabled=False):
            unit = nn.functional.normalize(projected.float(), dim=-1)
            return [
                unit @ nn.functional.normalize(classes, dim=-1).T / self.temperature
                for classes in (self.classes, *self.further)
            ]


class MaskedPrediction(Objective):
    """A HuBERT with its prediction heads and the labels to predict.

    Its terms: the loss on `masked` and on `unmasked` frames, the feature `penalty`, and the accuracy on both kinds of
    frames. Each is a mean over its own frames. fairseq divides the sum over both kinds by their common number where
    it counts unmasked frames at all; in the Base recipe, which does not, the two are the same. Terms of a layer below
    the last end in its number: `masked_4`. Accuracy is of the first codebook; that of a further one on masked frames
    ends in the codebook's number: `masked_right_codebook2`.
    """

    def __init__(
        self, model: HubertModel, labels: Labels, mask: MaskSettings, predict: PredictSettings, *, steps: int
    ) -> None:
        super().__init__()
        self.model, self.labels, self.mask, self.predict, self.steps = model, labels, mask, predict, steps
        self.last: int = model.config.num_hidden_layers
        layers = predict.layers or (self.last,)
        hidden, sizes = model.config.hidden_size, labels.sizes
        self.heads = nn.ModuleDict({str(layer): PredictionHead(hidden, sizes, predict) for layer in layers})

    def frontend(self) -> nn.Module:
        """See `Objective.frontend`."""
        module: nn.Module = self.model.feature_extractor
        return module

    def prepare(self, batch: Batch) -> Batch:
        """See `Objective.prepare`: adds `masked` [rows, frames] and `labels` (`Labels.for_batch`)."""
        inputs = network.frame_inputs(self.model, batch)
        masked = _batch_masks(inputs["counted"], batch.seeds, self.mask)
        labels = self.labels.for_batch(batch, inputs["counted"])
        return batch._replace(inputs={**inputs, "masked": masked, "labels": labels})

    def forward(self, batch: Batch) -> Terms:
        """See `Objective.forward`."""
        frontend = network.run_frontend(self.model, batch)
        counted, masked, labels = (batch.inputs[name] for name in ("counted", "masked", "labels"))
        states = network.encode_layers(self.model, frontend, masked, tuple(map(int, self.heads)))
        squares = network.sum_of_mean_squares(frontend.features, counted)
        terms = {"penalty": Term(squares, counted.sum(), self.predict.penalty)}
        for (layer, head), state in zip(self.heads.items(), states, strict=True):
            suffix = "" if int(layer) == self.last else f"_{layer}"
            predicted = self._prediction_terms(head(state), labels, masked, counted & ~masked, batch.step)
            terms |= {f"{name}{suffix}": term for name, term in predicted.items()}
        return terms

    def _prediction_terms(
        self, logits: Sequence[Tensor], labels: Tensor, masked: Tensor, unmasked: Tensor, step: int
    ) -> Terms:
        """Return the loss and the accuracy on masked and on unmasked frames.

        `logits` [rows, frames, classes] are one tensor per codebook, `labels` as of `Labels.for_batch`.
        """
        codes = labels.reshape(*masked.shape, -1).unbind(-1)
        losses = torch.stack([_frame_losses(*pair) for pair in zip(logits, codes, strict=True)]).mean(0)
        correct, *further = (of_book.argmax(-1) == code for of_book, code in zip(logits, codes, strict=True))
        return {
            "masked": _term(masked, losses, 1.0),
            "unmasked": _term(unmasked, losses, self.unmasked_weight(step)),
            "masked_right": _term(masked, correct, 0.0),
            "unmasked_right": _term(unmasked, correct, 0.0),
            **{f"masked_right_codebook{n}": _term(masked, right, 0.0) for n, right in enumerate(further, start=2)},
        }

    def unmasked_weight(self, step: int) -> float:
        """Return the weight of the loss on unmasked frames at an update (from 1)."""
        first, last = self.predict.unmasked
        return first + (last - first) * (step - 1) / max(1, self.steps - 1)


def _frame_losses(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the cross-entropy [rows, frames] of logits [rows, frames, classes] against codes [rows, frames]."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)


def _term(selected: Tensor, values: Tensor, weight: float) -> Term:
    return Term((values * selected).sum(), selected.sum(), weight)


def _batch_masks(counted: Tensor, seeds: Sequence[int], settings: MaskSettings) -> Tensor:
    """Return the masks [rows, frames] of a batch: that of a clip depends on its own seed and frames alone.

    `counted` [rows, frames] is true on the frames of each clip; rows without a seed are empty.
    """
    masks = np.zeros(counted.shape, dtype=bool)
    for row, length, rng in zip(masks, counted.sum(1).tolist(), generators(seeds), strict=False):
        row[:length] = span_mask(length, settings, rng)
    return torch.from_numpy(masks)


def span_mask(frames: int, settings: MaskSettings, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask [frames], true where frames are masked: spans start at different frames and may overlap.

    As fairseq's `compute_mask_indices` with static lengths, but drawn clip by clip: there, all rows of a batch get as
    many masked frames as the shortest. In clips too short for it a span is half of the clip.
    """
    length = min(settings.length, max(1, frames // 2))
    positions = frames - length + 1
    spans = max(settings.minimum, int(settings.probability * frames + rng.random()))
    starts = rng.choice(positions, size=min(spans, positions), replace=False)
    mask = np.zeros(frames, dtype=bool)
    mask[starts[:, None] + np.arange(length)] = True
    if mask.all():  # in a very short clip, leave one frame as context
        mask[int(rng.integers(frames))] = False
    return mask
