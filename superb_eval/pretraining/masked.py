"""HuBERT's masked prediction (Hsu et al., arXiv 2106.07447, section II): spans are hidden, their clusters are guessed.

Logits are the cosine between a projection of the last layer and an embedding of each class, over a temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from superb_eval.pretraining import network
from superb_eval.pretraining.data import Batch
from superb_eval.pretraining.objective import Objective, Term, Terms
from superb_eval.pretraining.recipe import MaskSettings, PredictSettings
from superb_eval.pretraining.targets import Labels

if TYPE_CHECKING:
    from transformers import HubertModel


class MaskedPrediction(Objective):
    """A HuBERT with its prediction head, on given labels.

    Its parts: the loss on `masked` and on `unmasked` frames, the feature `penalty`, and the shares of right guesses.
    Each is a mean over its own frames. fairseq divides the sum over both kinds of frames by their common number where
    it counts unmasked frames at all; in the Base recipe, which does not, the two are the same.
    """

    def __init__(
        self, model: HubertModel, labels: Labels, mask: MaskSettings, predict: PredictSettings, *, steps: int
    ) -> None:
        super().__init__()
        self.model, self.labels, self.mask, self.predict, self.steps = model, labels, mask, predict, steps
        self.skips_layers = model.config.layerdrop > 0
        self.project = nn.Linear(model.config.hidden_size, predict.width)
        # Uniform, as fairseq's: cosines don't see the scale, but the size of their gradients does.
        self.classes = nn.Parameter(torch.empty(labels.clusters, predict.width).uniform_())

    def front(self) -> nn.Module:
        """See `Objective.front`."""
        module: nn.Module = self.model.feature_extractor
        return module

    def forward(self, batch: Batch) -> Terms:
        """See `Objective.forward`."""
        heard = network.front(self.model, batch)
        masked = _masks(heard.counts, heard.valid.shape[1], batch.seeds, self.mask).to(heard.valid.device)
        labels = heard.alone(self.labels.batch(batch, heard.valid.shape[1]).to(heard.valid.device))
        logits = self.logits(heard.alone(network.encode(self.model, heard, masked)))
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        right = logits.argmax(-1) == labels
        hidden = heard.alone(masked)
        return {
            "masked": _over(hidden, losses, 1.0),
            "unmasked": _over(~hidden, losses, self.unmasked_weight(batch.step)),
            "penalty": Term(
                network.masked_mean_square(heard.output, heard.valid), heard.valid.sum(), self.predict.penalty
            ),
            "masked_right": _over(hidden, right, 0.0),
            "unmasked_right": _over(~hidden, right, 0.0),
        }

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits [..., classes] of states [..., dim], in float32 whatever the rest is computed in."""
        projected = self.project(states)
        with torch.autocast(states.device.type, enabled=False):
            cosines = (
                nn.functional.normalize(projected.float(), dim=-1) @ nn.functional.normalize(self.classes, dim=-1).T
            )
        return cosines / self.predict.temperature

    def unmasked_weight(self, step: int) -> float:
        """Return the weight of the loss on unmasked frames at an update (from 1)."""
        first, last = self.predict.unmasked
        return first + (last - first) * (step - 1) / max(1, self.steps - 1)


def _over(chosen: Tensor, values: Tensor, weight: float) -> Term:
    return Term((values * chosen).sum(), chosen.sum(), weight)


def _masks(frames: list[int], longest: int, seeds: tuple[int, ...], settings: MaskSettings) -> Tensor:
    """Return the masks [batch, frames] of a batch: those of a clip depend on its own seed and length alone."""
    found = np.zeros((len(frames), longest), dtype=bool)
    for row, count, seed in zip(found, frames, seeds, strict=True):
        row[:count] = mask(count, settings, np.random.default_rng(seed))
    return torch.from_numpy(found)


def mask(frames: int, settings: MaskSettings, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of so many frames are hidden: spans begin at different frames, drawn evenly, and may overlap.

    As fairseq's `compute_mask_indices` with static lengths, but drawn clip by clip: there, all rows of a batch get as
    many masked frames as the shortest. In clips too short for it a span is half of the clip.
    """
    length = min(settings.length, max(1, frames // 2))
    places = frames - length + 1
    spans = max(settings.minimum, int(settings.probability * frames + rng.random()))
    starts = rng.choice(places, size=min(spans, places), replace=False)
    hidden = np.zeros(frames, dtype=bool)
    hidden[(starts[:, None] + np.arange(length)).ravel()] = True
    if hidden.all():  # a clip of few frames: leave one to guess from
        hidden[int(rng.integers(frames))] = False
    return hidden
