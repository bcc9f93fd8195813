"""Units as an upstream: each frame is the centre that is nearest to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.contract.check import check
from upstreams.units import CENTRES, UnitCodebook

UPSTREAM, LAYER, CLUSTERS = "hubert_nano@random:3", 1, 6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    upstream = registry.load(UPSTREAM)
    noise = 0.1 * torch.randn(48_000, generator=torch.Generator().manual_seed(0))
    frames = upstream([noise])["hidden_states"][LAYER][0]
    codebook = UnitCodebook(frames[::25][:CLUSTERS].contiguous(), UPSTREAM, upstream.fingerprint(), LAYER)
    path = tmp_path_factory.mktemp("units") / "units.safetensors"
    save_file({CENTRES: codebook.centres}, path, codebook.header())
    return path


def test_a_frame_is_the_nearest_centre(file: Path) -> None:
    wavs = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (16_000, 24_000)]
    frames = registry.load(UPSTREAM)(wavs)["hidden_states"][LAYER]
    (centred,) = registry.load(f"units:{file}")(wavs)["hidden_states"]
    (one_hot,) = registry.load(f"units:{file}#one-hot")(wavs)["hidden_states"]
    centres = registry.load(f"units:{file}").get_parameter(CENTRES)
    nearest = torch.cdist(frames, centres.expand(2, -1, -1)).argmin(-1)
    assert torch.equal(centred, centres[nearest])
    assert torch.equal(one_hot, torch.eye(CLUSTERS)[nearest])
    assert len(np.unique(nearest)) > 1


@pytest.mark.parametrize("kind", ["", "#one-hot"])
def test_it_keeps_the_contract(file: Path, kind: str) -> None:
    assert [str(found) for found in check(registry.load(f"units:{file}{kind}")) if not found.passed] == []


def test_what_is_no_file_of_units_is_refused(file: Path, tmp_path: Path) -> None:
    good = UnitCodebook(torch.ones(4, 192), UPSTREAM, registry.load(UPSTREAM).fingerprint(), LAYER).header()
    files = {
        "is no file of units": ({"other": torch.ones(4, 192)}, good),
        "is no file of units ": ({CENTRES: torch.ones(4, 192)}, {}),
        "expected finite centres": ({CENTRES: torch.full((4, 192), torch.nan)}, good),
        "hidden states of 192 dimensions": ({CENTRES: torch.ones(4, 7)}, good),
        "has 3 hidden states": ({CENTRES: torch.ones(4, 192)}, {**good, "layer": "9"}),
        "has changed since": ({CENTRES: torch.ones(4, 192)}, {**good, "fingerprint": "0"}),
        "names the code": ({CENTRES: torch.ones(4, 192)}, {**good, "upstream": f"{tmp_path}/evil.py:X"}),
        "no upstream is called": ({CENTRES: torch.ones(4, 192)}, {**good, "upstream": "hubrt_nano"}),
    }
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')")
    for message, (tensors, header) in files.items():
        save_file(tensors, tmp_path / "bad.safetensors", header)
        with pytest.raises(UserError, match=message):
            registry.load(f"units:{tmp_path}/bad.safetensors")
    for address in (f"units:{file}#centroid", f"units:{file}@random", f"units:{tmp_path}/none", f"units:{tmp_path}"):
        with pytest.raises(UserError):
            registry.load(address)
