from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.operations import Operations
from tests.upstreams import configs
from upstreams.loading.padding_attention import NAME, padding_bias, use_padding_attention, use_valid_mask


def network(stable: bool = False, attention: str = "sdpa") -> Any:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, do_stable_layer_norm=stable,
        attn_implementation=attention,
    )  # fmt: skip
    return HubertModel(config).eval()


def encode(model: Any, mask: Tensor | None) -> Tensor:
    hidden = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output: Tensor = model.encoder(hidden, attention_mask=mask).last_hidden_state
    return output


@pytest.mark.parametrize("stable", [False, True])
def test_outputs_are_transformers_own_and_no_mask_is_read(stable: bool) -> None:
    model = network(stable)
    mask = torch.arange(12) < torch.tensor([[12], [5], [1]])
    expected = encode(model, mask), encode(model, None)
    with pytest.raises(AssertionError, match="reads from the device"), Operations():
        encode(model, mask)
    use_padding_attention(model)
    with Operations():
        found = encode(model, mask), encode(model, None)
    torch.testing.assert_close(found, expected)


def test_other_attention_is_left_as_it_is() -> None:
    model = network(attention="eager")
    use_padding_attention(model)
    assert model.config._attn_implementation == "eager"


def test_a_saved_network_does_not_name_it(tmp_path: Any) -> None:
    from transformers import HubertModel

    model = network()
    use_padding_attention(model)
    assert model.config._attn_implementation == NAME
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert HubertModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_the_bias_is_minus_infinity_on_padding() -> None:
    bias = padding_bias(torch.tensor([[True, True], [True, False]]), torch.bfloat16, q_length=2)
    assert bias is not None
    assert bias.dtype == torch.bfloat16
    assert bias.tolist() == [[[[0.0, 0.0]]], [[[0.0, -torch.inf]]]]


LENGTHS = torch.tensor([8_000, 5_000, 719, 720, 400])


def of_kind(kind: str) -> Any:
    """A network of those with HuBERT's front end, whose attention doesn't read its mask."""
    import transformers

    kinds = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "data2vec": "Data2VecAudio"}
    own = {"wavlm": {"num_buckets": 16}, "data2vec": {"conv_pos_kernel_size": 9}}.get(kind, {})
    config = getattr(transformers, f"{kinds[kind]}Config")(**configs.TINY, **own)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kinds[kind]}Model")(config).eval()
    use_padding_attention(model)
    return model


def hidden_states(model: Any) -> tuple[Tensor, ...]:
    wavs = 0.1 * torch.randn(5, 8_000, generator=torch.Generator().manual_seed(1))
    wavs = torch.where(torch.arange(8_000) < LENGTHS[:, None], wavs, 0.0)
    with torch.inference_mode():
        output = model(wavs, attention_mask=LENGTHS[:, None], output_hidden_states=True)
    states: tuple[Tensor, ...] = output.hidden_states
    return states


@pytest.mark.parametrize("kind", ["hubert", "wavlm", "wav2vec2", "data2vec"])
def test_states_are_transformers_own_to_the_bit_and_no_number_is_copied(kind: str) -> None:
    model = of_kind(kind)
    expected = hidden_states(model)
    with pytest.raises(AssertionError, match="copies a number to the device"), Operations():
        hidden_states(model)
    use_valid_mask(model)
    with Operations():
        found = hidden_states(model)
    assert len(found) == 3
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_copy_has_the_same_mask() -> None:
    model = of_kind("hubert")
    use_valid_mask(model)
    with Operations():
        found = hidden_states(copy.deepcopy(model))
    assert all(torch.equal(one, other) for one, other in zip(found, hidden_states(model), strict=True))
