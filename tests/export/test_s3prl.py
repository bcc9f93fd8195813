"""Ours in other people's programs: s3prl's hub and `S3PRLUpstream`, and `torch.hub`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import superb_eval
from superb_eval.errors import UserError
from upstreams import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    names = superb_eval.register_s3prl()
    import s3prl.hub

    yield s3prl.hub
    for name in names:  # other tests compare the hub with what s3prl ships
        delattr(s3prl.hub, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    registry.load("distilhubert_mini@random:4").model.save_pretrained(tmp_path)  # type: ignore[operator,union-attr]
    return tmp_path


def test_names_in_the_hub(hub: Any) -> None:
    names = superb_eval.register_s3prl()  # a second time changes nothing
    assert {"superb_eval", "superb_eval_hubert", "superb_eval_distilhubert", "distilhubert_mini"} <= set(names)
    assert {f"superb_eval_{card.name}" for card in registry.cards()} < set(names)
    assert set(names) <= set(hub.options())
    # What s3prl has itself stays its own.
    assert hub.hubert.__module__.startswith("s3prl.")
    assert hub.distilhubert.__module__.startswith("s3prl.")
    assert hub.fbank.__module__.startswith("s3prl.")


@pytest.mark.parametrize("entry", ["superb_eval_distilhubert", "distilhubert_mini", "superb_eval"])
def test_s3prls_upstream_opens_ours(hub: Any, folder: Path, entry: str) -> None:
    from s3prl.nn import S3PRLUpstream

    checkpoint = f"distilhubert@{folder}" if entry == "superb_eval" else str(folder)
    model = S3PRLUpstream(entry, checkpoint)
    model.eval()
    assert (model.num_layers, model.hidden_sizes, model.downsample_rates) == (3, [256] * 3, [320] * 3)
    wavs = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states, lengths = model(wavs, torch.tensor([16_000, 9_000]))
        ours = registry.load(f"distilhubert@{folder}")([wavs[0], wavs[1, :9_000]])["hidden_states"]
    assert lengths[0].tolist() == [50, 29]  # s3prl counts a frame for each stride begun
    for theirs, mine in zip(states, ours, strict=True):
        torch.testing.assert_close(theirs[0, :49], mine[0, :49])
        torch.testing.assert_close(theirs[1, :27], mine[1, :27])


def test_s3prls_featurizer_weighs_our_student(hub: Any) -> None:
    """The released student, through s3prl's own `S3PRLUpstream` and `Featurizer`, and through ours."""
    from s3prl.nn import Featurizer, S3PRLUpstream

    from superb_eval.features.featurizer import Featurizer as Ours

    model = S3PRLUpstream("superb_eval_distilhubert_mini")
    theirs, ours = Featurizer(model), Ours(3)
    with torch.no_grad():
        theirs.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
        ours.weights.copy_(theirs.weights)
        wavs = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
        weighed, lengths = theirs(*model.eval()(wavs, torch.tensor([16_000, 9_000])))
        own = torch.stack(registry.load("distilhubert_mini")([wavs[0], wavs[1, :9_000]])["hidden_states"], dim=2)
        expected = ours(own)
    assert lengths.tolist() == [50, 29]
    torch.testing.assert_close(weighed[0, :49], expected[0, :49])
    torch.testing.assert_close(weighed[1, :27], expected[1, :27])


@pytest.mark.parametrize("name", ["distilhubert_mini", "hubert_mini"])
def test_automodel_opens_what_we_release(name: str, tmp_path: Path) -> None:
    """As a user of transformers does, from the folder and after `save_pretrained`: equal hidden states."""
    from transformers import AutoModel

    from upstreams.loading.load_weights import shipped_weights

    wav = 0.1 * torch.randn(1, 12_000, generator=torch.Generator().manual_seed(0))
    folder, ours = shipped_weights(name), registry.load(name)
    AutoModel.from_pretrained(folder, dtype=torch.float32).save_pretrained(tmp_path / "again")
    for place in (folder, tmp_path / "again"):
        model = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
        with torch.no_grad():
            theirs = model(wav, output_hidden_states=True).hidden_states
            for one, other in zip(ours([wav[0]])["hidden_states"], theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_entry_takes_s3prls_arguments(hub: Any, folder: Path) -> None:
    upstream = hub.superb_eval_hubert(ckpt=str(folder), refresh=True)
    assert upstream.get_downsample_rates("hidden_states") == 320
    assert not any(p.requires_grad for p in upstream.parameters())


@pytest.mark.parametrize(
    ("entry", "checkpoint", "message"),
    [
        ("superb_eval", None, "which upstream"),
        ("superb_eval", "hubert_nan@random", "Did you mean 'hubert_nano'"),
        ("superb_eval_distilhubert", "nowhere", "can't be loaded from 'nowhere'"),
    ],
)
def test_mistakes_are_one_sentence(
    hub: Any, entry: str, checkpoint: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3prl.nn import S3PRLUpstream

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(UserError, match=message):
        S3PRLUpstream(entry, checkpoint)


def test_torch_hub(folder: Path) -> None:
    load: Callable[..., Any] = torch.hub.load
    for arguments in (("distilhubert_mini", str(folder)), ("upstream", f"distilhubert@{folder}")):
        upstream = load(str(ROOT), *arguments, source="local")
        states = upstream([torch.zeros(16_000)])["hidden_states"]
        assert [tuple(state.shape) for state in states] == [(1, 49, 256)] * 3


def test_the_package_opens_without_any_of_it() -> None:
    """`import superb_eval` stays light: s3prl, torch and transformers wait until they are asked for."""
    program = "import superb_eval, sys; print([m for m in ('torch', 's3prl', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
