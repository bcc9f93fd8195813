"""What a tensor is where it holds no plain numbers: as a weight it can't be copied, as a feature no head takes it."""

from __future__ import annotations

import torch
from torch import Tensor


def odd_kind(tensor: Tensor) -> str | None:
    """Return what a tensor is, in words, where it isn't a dense one of real numbers; None: it is."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return "sparse or nested"
    if tensor.is_quantized:
        return "quantised"
    return "without values (on the meta device)" if tensor.is_meta else "complex" if tensor.is_complex() else None
