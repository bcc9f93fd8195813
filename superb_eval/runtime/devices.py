"""Devices that upstreams and heads run on, by torch's names: `cpu`, `cuda`, `cuda:1`, `mps`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from superb_eval.errors import UserError
from superb_eval.runtime.lazy_torch import torch

CPU = "cpu"

_FORM = re.compile(r"cpu|mps|cuda(:(\d+))?")


def parse(text: str) -> str:
    """Return the name of a device as it stands; imports no torch.

    Raises:
        UserError: it is no device's name.
    """
    if not _FORM.fullmatch(text):
        raise UserError(f"--device {text}: no such device. Expected cpu, cuda, cuda:N (a GPU's number) or mps.")
    return text


def kind(device: str) -> str:
    """Return a device's kind: `cpu`, `cuda` or `mps`."""
    return device.partition(":")[0]


def missing(device: str) -> str:
    """Return why a device isn't there; empty where it is."""
    number = int(parse(device).partition(":")[2] or 0)
    if kind(device) == "cuda" and torch.cuda.device_count() <= number:
        built = "" if torch.version.cuda else ", and this torch is a build without CUDA"
        return f"{torch.cuda.device_count()} CUDA GPU(s) are found{built}"
    if kind(device) == "mps" and not torch.backends.mps.is_available():
        return "torch finds no Apple GPU"
    return ""


def require(device: str) -> None:
    """Refuse a device that isn't there, before anything is computed, and set up a GPU that is.

    Raises:
        UserError: naming what was found.
    """
    reason = missing(device)
    if reason:
        raise UserError(f"--device {device}: {reason}. Leave --device out, or see `superb-eval doctor`.")
    if kind(device) == "cuda":
        set_up_cuda()


def set_up_cuda() -> None:
    """Leave out cuDNN's attention, which plans for milliseconds at each new shape, and its trials of convolutions."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = False


@contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Compute float32's matrix products in TF32 on CUDA where that is wanted, in this whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def synchronize(device: str) -> None:
    """Wait until a device has finished what it was given."""
    if kind(device) == "cuda":
        torch.cuda.synchronize(device)
    elif kind(device) == "mps":
        torch.mps.synchronize()
