"""The student: transformers' HuBERT of few layers, initialised from its teacher's, with heads for training.

It processes batches through `upstreams.distilhubert`, so that training equals evaluation, batch for batch.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.pretraining.recipe import StudentSettings
from upstreams.base import Card, Upstream
from upstreams.distilhubert import DistilHubert, Heads
from upstreams.hubert import Hubert
from upstreams.loading import checkpoint_conversion, weight_names

if TYPE_CHECKING:
    from transformers import HubertConfig, HubertModel

_SIZES = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "conv": "conv_dim",
}
_PARTS = {
    "convolution": r"feature_extractor\.|feature_projection\.projection\.",
    "encoder": r"encoder\.pos_conv_embed\.|encoder\.layers\.",
    "norms": r"encoder\.layer_norm\.|feature_projection\.layer_norm\.",
}


class Student(nn.Module):
    """A small HuBERT and the heads that predict a teacher's layers from its last one."""

    def __init__(self, upstream: DistilHubert, heads: Heads) -> None:
        super().__init__()
        self.upstream, self.heads = upstream, heads

    @property
    def trunk(self) -> HubertModel:
        """The network that is exported."""
        return self.upstream.model

    def forward(self, wavs: PaddedWavs) -> Tensor:
        """Predict from a padded batch; return [batch, predicted layers, frames, teacher's width]."""
        predictions: Tensor = self.heads(self.upstream.forward_padded(wavs)["paper"][0])
        return predictions


def build_student(settings: StudentSettings, teacher: Upstream, predicted: int, *, padded: bool = False) -> Student:
    """Return a student of a teacher, with `predicted` heads; draws from torch's global generator.

    `padded` lets the first normalisation run over padding, as s3prl's does.

    Raises:
        UserError: the sizes don't fit together, or a part to copy is missing in the teacher or has another size.
    """
    from transformers import HubertModel

    source = _trunk_weights(teacher)
    try:
        model = HubertModel(_config(settings, teacher, source))
    except ValueError as error:
        raise UserError(
            f"student: such a network can't be built: {error} Change the sizes in -o student...."
        ) from error
    _copy(model, source, settings, teacher.card.name)
    # `Hubert` decides by its card's name whether the first normalisation runs over padding.
    name, stride = "hubert_padded" if padded else "student", math.prod(model.config.conv_stride)
    card = Card(name=name, summary="in training", stride=stride)
    return Student(DistilHubert(card, model), Heads(model.config.hidden_size, predicted, teacher.card.width))


def _trunk_weights(teacher: Upstream) -> weight_names.Weights:
    """Return a teacher's weights by the names of transformers' HuBERT; an empty dict where it is no such network."""
    weights = teacher.state_dict()
    first = next((name for name in weights if "feature_extractor.conv_layers.0." in name), None)
    if first is None:
        return {}
    prefix = first[: first.index("feature_extractor.")]
    return weight_names.to_transformers(
        {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    )


def _config(settings: StudentSettings, teacher: Upstream, source: weight_names.Weights) -> HubertConfig:
    """Return the student's config: the teacher's own as far as it is a HuBERT, updated by the settings."""
    from transformers import HubertConfig

    config: dict[str, Any] = {}
    if isinstance(teacher, Hubert):
        config = teacher.model.config.to_diff_dict()
    elif source:
        config = checkpoint_conversion.infer_config(source)
    config |= {key: value for name, key in _SIZES.items() if (value := getattr(settings, name)) is not None}
    return HubertConfig(
        **config
        | {
            "num_hidden_layers": settings.layers,
            "feat_proj_layer_norm": settings.projection_norm,
            "hidden_dropout": settings.dropout,
            "attention_dropout": settings.dropout,
            "activation_dropout": settings.dropout,
            "feat_proj_dropout": 0.0,
            "layerdrop": 0.0,
            # Without masking there is no mask embedding, and the network has the paper's 23,491,200 weights.
            "apply_spec_augment": False,
            "mask_time_prob": 0.0,
            "mask_feature_prob": 0.0,
        }
    )


@torch.no_grad()
def _copy(model: HubertModel, source: weight_names.Weights, settings: StudentSettings, name: str) -> None:
    """Copy the parts that the settings name from the weights `source` of the teacher `name`."""
    for part in settings.initialise:
        part_weights = {key: own for key, own in model.state_dict().items() if re.match(_PARTS[part], key)}
        missing = [key for key in part_weights if key not in source]
        if missing:
            raise UserError(
                f"{name}: the student's {part} can't be copied from the teacher: it has no {missing[0]}. "
                f'-o "student.initialise=[{_without(settings, part)}]" leaves it out; or make student.layers smaller.'
            )
        for key, own in part_weights.items():
            if own.shape != source[key].shape:
                raise UserError(
                    f"{name}: {key} is {list(source[key].shape)} in the teacher and {list(own.shape)} in the student. "
                    f'-o "student.initialise=[{_without(settings, part)}]" leaves the copy out; a recipe without '
                    "student.hidden, feed_forward and conv has the teacher's sizes."
                )
            own.copy_(source[key])


def _without(settings: StudentSettings, part: str) -> str:
    """Return what else the settings copy, as an override has it."""
    return ",".join(other for other in settings.initialise if other != part)
