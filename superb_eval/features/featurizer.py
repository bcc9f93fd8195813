"""The featurizer: a learned weighted sum over the hidden states of a frozen upstream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Featurizer(nn.Module):
    """Weighs layers with a softmax over scalars that start at zero, so that training starts from their plain mean.

    As s3prl's `upstream/interfaces.py:Featurizer` (SUPERB, arXiv 2105.01051, section 3.2): no further scale, and no
    weights where there is one layer or one is chosen. Per-layer normalisation, where asked for, was applied to each
    frame when features were extracted, since it does not commute with the mean over time.
    """

    def __init__(self, layers: int, layer: int | None = None) -> None:
        """Weigh `layers` hidden states, or select the one at index `layer` (negative: from the end).

        Raises:
            IndexError: there is no such layer.
        """
        super().__init__()
        if layer is not None and not -layers <= layer < layers:
            raise IndexError(f"layer {layer} of {layers}")
        self.layer = 0 if layers == 1 else layer
        self.weights = nn.Parameter(torch.zeros(layers)) if self.layer is None else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Combine [..., layers, dim] into [..., dim]."""
        if self.layer is not None:
            return hidden[..., self.layer, :]
        weights = self.layer_weights()
        if hidden.dim() > 3:
            return weights @ hidden
        # Means over time: layers in front cost one copy, which all batched probes share.
        by_layer = hidden.movedim(-2, 0)
        return (weights @ by_layer.flatten(1)).view(by_layer.shape[1:])

    def of_several(self, weights: Tensor | None, means: Tensor) -> Tensor:
        """Combine means over time [batch, layers, dim] into [heads, batch, dim], or [1, batch, dim] of one layer.

        `weights` [heads, layers] are those of several featurizers like this one; None where it uses one layer.
        """
        if weights is None:
            return means[None, :, self.layer or 0]
        by_layer = means.movedim(-2, 0)
        return (torch.softmax(weights, dim=1) @ by_layer.flatten(1)).view(-1, *by_layer.shape[1:])

    def layer_weights(self) -> Tensor:
        """Return the weight of each layer [layers]; they sum to 1."""
        if self.weights is None:
            return torch.ones(1)
        return torch.softmax(self.weights, dim=0)
