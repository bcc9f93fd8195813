"""Frames of queries and documents: normalised over a split, and their distances as matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

Distance = Literal["cosine_exp", "cosine", "euclidean", "cityblock"]
"""`cosine_exp` is exp(cosine distance) - 1; the others are scipy's of that name."""

FLOOR = 1e-9
"""Least spread that is divided by: of a dimension of the features, of a row of distances, of a query's scores."""

CACHED_FRAMES, DEVICE_FRAMES = 256, 65_536
"""Frames that are normalised at once, in double precision: so many fit the cache of a core; on a GPU, few kernels."""


def normalised(features: Sequence[Tensor], device: str = "cpu") -> list[Tensor]:
    """Return features [frames, dim] with mean 0 and standard deviation 1 (unbiased) in each dimension, over all.

    They are moved to `device` together, and returned as views of one tensor there, in float32.
    """
    together = torch.empty(sum(map(len, features)), features[0].shape[1])
    together = torch.cat(list(features), out=together).to(device)
    parts = torch.split(together, CACHED_FRAMES if device == "cpu" else DEVICE_FRAMES)
    mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / len(together)
    squares = torch.stack([part.double().sub_(mean).square_().sum(dim=0) for part in parts]).sum(dim=0)
    spread = (squares / max(1, len(together) - 1)).sqrt().clamp(min=FLOOR)
    for part in parts:
        part.copy_(part.double().sub_(mean).div_(spread))
    return list(torch.split(together, [len(frames) for frames in features]))


def prepare_frames(frames: Tensor, distance: Distance) -> Tensor:
    """Return frames [frames, dim] after what is computed once for each, before it is compared with many."""
    if distance in ("cosine", "cosine_exp"):
        return torch.nn.functional.normalize(frames, dim=1)
    # Distances of equal frames are differences of large numbers: in float32 they would be far from 0.
    return frames.double() if distance == "euclidean" else frames


def frame_distances(query: Tensor, document: Tensor, distance: Distance) -> Tensor:
    """Return the distance of each prepared frame of a query [n, dim] to each of a document [m, dim]: [n, m]."""
    if distance == "cityblock":
        return torch.cdist(query, document, p=1.0)
    if distance == "euclidean":
        squares = query.square().sum(dim=1, keepdim=True) + document.square().sum(dim=1)
        return squares.addmm_(query, document.T, alpha=-2).clamp_(min=0).sqrt_()
    cosine = torch.mm(query, document.T).neg_().add_(1)
    return cosine if distance == "cosine" else cosine.exp_().sub_(1)


@contextmanager
def exact_products() -> Iterator[None]:
    """Let float32 products have all of their digits while the context lasts, whatever the process has chosen.

    TF32 has 10 bits of a mantissa: rows of distances are scaled by their spread, which may be as small as its error.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
