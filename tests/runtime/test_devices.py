"""Devices: their names are checked at once, and one that isn't there is refused before anything is read."""

from __future__ import annotations

import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.runtime import devices


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_torchs_names_are_taken(name: str) -> None:
    assert devices.parse(name) == name
    assert devices.kind(name) == str(torch.device(name).type)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:a", "cuda:-1", "CPU", "cpu:0", "cuda:1x", "xla"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="no such device. Expected cpu, cuda, cuda:N"):
        devices.parse(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cpu", "cuda", "cuda:0"):
        devices.require(name)
    with pytest.raises(UserError, match=r"^--device cuda:1: 1 CUDA GPU\(s\) are found.* Leave --device out"):
        devices.require("cuda:1")
    with pytest.raises(UserError, match="^--device mps: torch finds no Apple GPU"):
        devices.require("mps")


def test_attention_that_plans_for_each_shape_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", chosen.append)
    devices.require("cpu")
    assert not chosen
    devices.require("cuda:0")
    assert chosen == [False]
    assert not torch.backends.cudnn.benchmark


def test_tf32_ends_with_its_context() -> None:
    before = torch.get_float32_matmul_precision()
    with devices.tf32_products(True):
        assert torch.get_float32_matmul_precision() == "high"
        with devices.tf32_products(False):
            assert torch.get_float32_matmul_precision() == "high", "what others chose is left"
    assert torch.get_float32_matmul_precision() == before
