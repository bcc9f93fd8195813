"""HuBERT: transformers' features for one utterance, identical in any batch, and weights that can't run code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.base import Upstream
from upstreams.contract.check import leakage
from upstreams.hubert import CARDS, Hubert
from upstreams.loading.load_weights import load_weights


def plain(upstream: Upstream) -> torch.nn.Module:
    """Return transformers' own network with the same weights."""
    from transformers import HubertModel

    assert isinstance(upstream, Hubert)
    model = HubertModel(upstream.model.config).eval()
    model.load_state_dict(upstream.model.state_dict())
    return model


def hidden(upstream: Upstream, *wavs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return upstream(list(wavs))["hidden_states"]


@pytest.mark.parametrize("samples", [400, 800, 16_000, 23_456])
def test_one_utterance_equals_transformers(nano: Upstream, samples: int, noise: Callable[..., Tensor]) -> None:
    wav = noise(samples)
    with torch.no_grad():
        theirs = plain(nano)(wav[None], output_hidden_states=True).hidden_states
    assert len(theirs) == nano.card.layers
    for ours, other in zip(hidden(nano, wav), theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=5)
@given(st.lists(st.integers(800, 24_000), min_size=2, max_size=4))
def test_a_batch_equals_its_members(lengths: list[int]) -> None:
    assert leakage(registry.load("hubert_nano@random"), tuple(lengths)) < 1e-4


def test_order_in_the_batch_does_not_matter(nano: Upstream, noise: Callable[..., Tensor]) -> None:
    short, long = noise(8_000), noise(30_000, seed=1)
    one, other = hidden(nano, short, long)[-1], hidden(nano, long, short)[-1]
    torch.testing.assert_close(one[0], other[1], rtol=1e-4, atol=1e-5)


def test_the_published_normalisation_leaks_padding(nano: Upstream) -> None:
    published = next(card for card in CARDS if card.name == "hubert_padded")
    variant = Hubert(published, plain(nano)).eval()  # type: ignore[arg-type]
    assert leakage(nano, (8_000, 40_000)) < 1e-4
    assert leakage(variant, (8_000, 40_000)) > 1e-2


@pytest.mark.parametrize(("samples", "count"), [(399, 0), (400, 1), (799, 2), (8_000, 24), (16_000, 49), (16_160, 50)])
def test_frame_counts(nano: Upstream, samples: int, count: int, noise: Callable[..., Tensor]) -> None:
    # 799 samples: the seven convolutions leave 158, 78, 38, 18, 8, 4, 2.
    assert nano.frames(samples) == count
    if count:
        assert [state.shape[1] for state in hidden(nano, noise(samples))] == [count] * 3


@pytest.mark.parametrize("samples", [1, 9, 399])
def test_less_than_the_receptive_field_is_refused(nano: Upstream, samples: int) -> None:
    with pytest.raises(UserError, match=f"hubert_nano: {samples} samples are too short"):
        nano([torch.zeros(16_000), torch.zeros(samples)])


def test_seeds_draw_weights_and_leave_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    first, same, other = (registry.load(f"hubert_nano@random{seed}").fingerprint() for seed in ("", ":0", ":1"))
    assert first == same != other
    assert torch.equal(state, torch.get_rng_state())


def save(upstream: Upstream, path: Path) -> Path:
    """Save the network's weights in the format of the suffix: a folder, .safetensors or a pickle."""
    assert isinstance(upstream, Hubert)
    if path.suffix == ".safetensors":
        save_file(upstream.model.state_dict(), path)
    elif path.suffix:
        torch.save(upstream.model.state_dict(), path)
    else:
        upstream.model.save_pretrained(path)
    return path


@pytest.mark.parametrize("name", ["folder", "weights.safetensors", "weights.pt"])
def test_saved_weights_come_back(nano: Upstream, name: str, tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    trained = registry.load("hubert_nano@random:5")
    again = registry.load(f"hubert_nano@{save(trained, tmp_path / name)}")
    assert torch.equal(hidden(again, noise(8_000))[-1], hidden(trained, noise(8_000))[-1])
    assert again.fingerprint() == trained.fingerprint() != nano.fingerprint()


def test_a_folder_brings_its_own_sizes(nano: Upstream, tmp_path: Path) -> None:
    card = registry.load(f"hubert@{save(nano, tmp_path / 'folder')}").card
    assert (card.layers, card.width, card.parameters) == (3, 192, 1_327_744)


@pytest.mark.parametrize("name", ["hubert_nano", "hubert", "distilhubert_mini"])
def test_a_card_claims_nothing_of_weights_that_were_given(name: str, tmp_path: Path) -> None:
    """Once, any file opened as `hubert@FILE` was recorded as trained on LibriSpeech 960 h."""
    own = "hubert_nano" if name == "hubert" else name
    path = save(registry.load(f"{own}@random"), tmp_path / "folder")
    card = registry.load(f"{name}@{path}").card
    assert (card.source, card.training_data.partition(":")[0], card.licence) == (str(path), "unknown", "unknown")
    assert registry.card(name).licence != "unknown", "that of the weights which the name downloads or includes"


def test_half_precision_weights_are_loaded_in_float32(
    nano: Upstream, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    assert isinstance(nano, Hubert)
    nano.model.half().save_pretrained(tmp_path / "half")
    assert hidden(registry.load(f"hubert_nano@{tmp_path / 'half'}"), noise(8_000))[-1].dtype == torch.float32


def test_large_takes_normalised_waveforms_and_base_does_not(
    nano: Upstream, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    """As fairseq's `task.normalize`; the preprocessor_config.json of Base on the hub states otherwise."""
    from transformers import HubertConfig, HubertModel

    assert isinstance(nano, Hubert)
    base = save(nano, tmp_path / "base")
    (base / "preprocessor_config.json").write_text('{"do_normalize": true}')
    torch.manual_seed(0)
    config = HubertConfig(**{**nano.model.config.to_diff_dict(), "feat_extract_norm": "layer", "conv_bias": True})
    HubertModel(config).save_pretrained(tmp_path / "large")
    wav = 1e-3 * noise(8_000)  # so quiet that the GroupNorm of Base does not make up for it
    inputs = {base: wav, tmp_path / "large": torch.nn.functional.layer_norm(wav, wav.shape)}
    for folder, waveform in inputs.items():
        with torch.inference_mode():
            expected = HubertModel.from_pretrained(folder).eval()(waveform[None]).last_hidden_state
        found = hidden(registry.load(f"hubert_nano@{folder}"), wav)[-1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_malicious_pickle_is_refused(malicious: tuple[Path, Path]) -> None:
    checkpoint, proof = malicious
    with pytest.raises(UserError, match="refused: its pickle names posix.mkdir, .*none of it was run"):
        registry.load(f"hubert_nano@{checkpoint}")
    assert not proof.exists()


def test_a_malicious_pickle_in_a_folder_is_refused(
    nano: Upstream, malicious: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = save(nano, tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    malicious[0].rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="refused: this pickle needs more than tensors"):
        registry.load(f"hubert_nano@{folder}")
    assert not malicious[1].exists()


def test_weights_of_another_network_are_refused(nano: Upstream, tmp_path: Path) -> None:
    weights = load_weights(save(nano, tmp_path / "weights.pt"))
    weights["encoder.layer_norm.weight"] = torch.zeros(7)
    weights["extra"] = weights.pop("encoder.layer_norm.bias")
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"don't fit hubert_nano: 1 missing .* 1 of another shape .*left out: extra"):
        registry.load(f"hubert_nano@{tmp_path / 'odd.pt'}")


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"not readable as weights|refused"):
        load_weights(tmp_path / name)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="isn't a plain state dict"):
        load_weights(tmp_path / "list.pt")


@pytest.mark.parametrize("address", ["hubert_nano", "hubert_nano@nowhere/at-all", "hubert"])
def test_absent_weights_name_the_next_step(address: str) -> None:
    with pytest.raises(UserError, match="@random"):
        registry.load(address)
