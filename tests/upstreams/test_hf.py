"""Encoders of transformers, by folder: every hidden state is the library's own, and a batch equals its members."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from superb_eval.errors import UserError
from tests.upstreams.configs import LARGE, TINY
from upstreams import registry
from upstreams.contract.check import check, leakage, render
from upstreams.loading.whisper_encoder import Whisper

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert": ("Hubert", TINY),
    "hubert-large": ("Hubert", {**TINY, **LARGE}),
    "mhubert": ("Hubert", {**TINY, "conv_pos_batch_norm": True}),
    "mhubert-large": ("Hubert", {**TINY, **LARGE, "conv_pos_batch_norm": True}),
    "wav2vec2": ("Wav2Vec2", TINY),
    "wav2vec2-large": ("Wav2Vec2", {**TINY, **LARGE}),
    "wav2vec2-adapter": ("Wav2Vec2", {**TINY, "add_adapter": True, "output_hidden_size": 32}),
    "wavlm": ("WavLM", TINY),
    "wavlm-large": ("WavLM", {**TINY, **LARGE}),
    "data2vec-audio": ("Data2VecAudio", {**TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "unispeech": ("UniSpeech", TINY),
    "unispeech-large": ("UniSpeech", {**TINY, **LARGE}),
    "unispeech-sat": ("UniSpeechSat", TINY),
    "unispeech-sat-large": ("UniSpeechSat", {**TINY, **LARGE}),
}
WHISPER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "vocab_size": 50,
    "max_source_positions": 100,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}
"""Processes 2 s at a time instead of 30."""


def network(kind: str) -> nn.Module:
    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm1d)):
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(tensor)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model.eval()


def save(model: Any, folder: Path, **preprocessor: Any) -> Path:
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def theirs(model: nn.Module, wav: Tensor) -> list[Tensor]:
    with torch.no_grad():
        output = model(wav[None], output_hidden_states=True)
    layers = list(output.hidden_states)
    return [
        *layers[:-1],
        layers[-1] if model.config.model_type == "wav2vec2" and model.config.add_adapter else output.last_hidden_state,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_hidden_state_is_the_librarys(kind: str, tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network(kind)
    upstream = registry.load(f"hf:{save(model, tmp_path / 'folder', do_normalize=False)}")
    wav = noise(20_000)
    with torch.no_grad():
        ours = upstream([wav])["hidden_states"]
    expected = theirs(model, wav)
    assert len(ours) == len(expected) == upstream.card.layers == 3
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (upstream.card.stride, upstream.card.width) == (320, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_members(kind: str, tmp_path: Path) -> None:
    upstream = registry.load(f"hf:{save(network(kind), tmp_path / 'folder')}")
    assert leakage(upstream, (8_000, 30_000)) < 1e-5
    assert leakage(upstream, (60_000, 400, 7_000)) < 1e-5  # one frame beside 187


@pytest.mark.parametrize("kind", ["data2vec-audio", "mhubert", "mhubert-large"])
def test_normalised_positions_would_leak(kind: str) -> None:
    """Without `PaddingZeroHook`, padding changes the outputs of positional convolutions that follow a norm."""
    from upstreams.hubert import Hubert

    upstream = Hubert(registry.card("hubert"), network(kind)).eval()  # type: ignore[arg-type]
    assert not upstream.reentrant  # the hooks hold the frame counts of the current batch
    assert leakage(upstream, (8_000, 30_000)) < 1e-5
    assert upstream.encode(torch.zeros(1, 9_000))[0].shape == (1, 27, 32)  # not with the counts of that batch
    upstream._padding_hooks = []
    assert leakage(upstream, (8_000, 30_000)) > 1e-3


@pytest.mark.parametrize("kind", ["wavlm", "mhubert"])
def test_an_encoder_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    findings = check(registry.load(f"hf:{save(network(kind), tmp_path / kind)}"))
    assert all(finding.passed for finding in findings), render(findings)


def test_features_from_before_the_padding_was_zeroed_belong_to_another_upstream() -> None:
    """mHuBERT's batches leaked: stored features of then aren't used again; those of other networks still are."""
    from upstreams.hubert import Hubert

    versions = {
        kind: Hubert(registry.card("hubert"), network(kind)).card.features_version  # type: ignore[arg-type]
        for kind in ("hubert", "data2vec-audio", "mhubert")
    }
    assert versions == {"hubert": 1, "data2vec-audio": 1, "mhubert": 2}


@pytest.mark.parametrize(("kind", "pre_norm"), [("hubert", False), ("hubert-large", True), ("wavlm-large", True)])
def test_the_last_hidden_state_is_after_the_final_norm(
    kind: str, pre_norm: bool, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    """As in s3prl, whose last entry is its encoder's output; transformers 5 ends with the last layer's own."""
    model: Any = network(kind)
    nn.init.normal_(model.encoder.layer_norm.weight)
    upstream = registry.load(f"hf:{save(model, tmp_path / 'folder', do_normalize=False)}")
    wav, outputs = noise(20_000), []
    model.encoder.layers[-1].register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    with torch.no_grad():
        ours = upstream([wav])["hidden_states"][-1]
        before = model(wav[None], output_hidden_states=True).hidden_states[-1]
        last_layer = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
        after = model.encoder.layer_norm(last_layer) if pre_norm else last_layer
    torch.testing.assert_close(ours, after, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(before, last_layer, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours, before, rtol=1e-3, atol=1e-3) is not pre_norm


@pytest.mark.parametrize(
    ("kind", "stated", "normalised"),
    [
        ("wav2vec2", True, True),
        ("wav2vec2-large", False, False),
        ("wav2vec2-large", None, True),
        ("wav2vec2", None, False),
    ],
)
def test_the_folder_states_whether_waveforms_are_normalised(
    kind: str, stated: bool | None, normalised: bool, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    preprocessor = {} if stated is None else {"do_normalize": stated}
    model = network(kind)
    upstream = registry.load(f"hf:{save(model, tmp_path / 'folder', **preprocessor)}")
    wav = 5 * noise(8_000) + 0.5
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalised)
    waveform = extractor(wav.numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
    with torch.no_grad():
        found = upstream([wav])["hidden_states"][-1]
        torch.testing.assert_close(found, theirs(model, waveform)[-1], rtol=1e-3, atol=1e-3)
    assert upstream.normalise == normalised  # type: ignore[union-attr]


@pytest.fixture
def whisper(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)).eval()
    return model, save(model, tmp_path / "whisper")


def test_whispers_encoder_reads_its_extractors_spectra(whisper: tuple[Any, Path], noise: Callable[..., Tensor]) -> None:
    model, folder = whisper
    upstream = registry.load(f"hf:{folder}")
    wavs = [noise(20_000), noise(32_000, 1), noise(70_400, 2)]
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    with torch.no_grad():
        ours = upstream(wavs)["hidden_states"]
        for index, wav in enumerate(wavs):
            for start in range(0, len(wav), 32_000):
                window = wav[start : start + 32_000]
                mel = extractor(window.numpy(), sampling_rate=16_000, max_length=32_000, return_tensors="pt")
                expected = model.encoder(mel.input_features, output_hidden_states=True)
                frames = slice(start // 320, start // 320 + len(window) // 320)
                for layer, state in enumerate([*expected.hidden_states[:-1], expected.last_hidden_state]):
                    torch.testing.assert_close(ours[layer][index, frames], state[0, : len(window) // 320])
    assert [upstream.frames(len(wav)) for wav in wavs] == [62, 100, 220]
    assert ours[0].shape == (3, 220, 32)


def test_whisper_keeps_the_contract(whisper: tuple[Any, Path]) -> None:
    upstream = registry.load(f"hf:{whisper[1]}")
    findings = check(upstream)
    assert all(finding.passed for finding in findings), render(findings)
    assert isinstance(upstream, Whisper) and "a second costs as much as thirty" in upstream.card.notes[0]


def test_whispers_folder_may_have_another_feature_extractor(whisper: tuple[Any, Path]) -> None:
    _, folder = whisper
    plain = registry.load(f"hf:{folder}").fingerprint()
    transformers.WhisperFeatureExtractor(feature_size=80, dither=0.0, n_fft=512).save_pretrained(folder)
    assert registry.load(f"hf:{folder}").fingerprint() != plain


def test_random_weights_of_a_folders_network(tmp_path: Path) -> None:
    folder = save(network("wavlm"), tmp_path / "wavlm")
    first, same, other = (registry.load(f"hf:{folder}@random{seed}").fingerprint() for seed in ("", ":0", ":1"))
    assert first == same != other != registry.load(f"hf:{folder}").fingerprint()


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    assert registry.load(f"hf:{save(network('hubert'), tmp_path / 'a:b@c')}").card.layers == 3


def test_a_malicious_pickle_is_refused(malicious: tuple[Path, Path], tmp_path: Path) -> None:
    folder = save(network("wavlm"), tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    malicious[0].rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="refused: this pickle needs more than tensors"):
        registry.load(f"hf:{folder}")
    assert not malicious[1].exists()


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="is a bert, and these are supported: data2vec-audio, HuBERT, .* Whisper"):
        registry.load(f"hf:{tmp_path / 'bert'}")


@pytest.mark.parametrize("address", ["hf:nobody/nothing-at-all", "hf:nowhere", "hf:nobody/nothing@v2"])
def test_absent_models_name_the_next_step(address: str) -> None:
    with pytest.raises(UserError, match="can't be loaded from 'no.* Give a folder"):
        registry.load(address)


def test_an_invalid_preprocessor_config_is_named(tmp_path: Path) -> None:
    folder = save(network("wavlm"), tmp_path / "folder")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="preprocessor_config.json: line 1: is no JSON"):
        registry.load(f"hf:{folder}")


@pytest.mark.parametrize("address", ["hf:{}", "hubert@{}"])
def test_how_a_folder_wants_its_outputs_changes_nothing(address: str, tmp_path: Path) -> None:
    """With `return_dict: false` transformers' own network fails once hidden states are asked for."""
    network("hubert").save_pretrained(tmp_path)  # type: ignore[operator]
    config = tmp_path / "config.json"
    wavs = [torch.randn(4_000, generator=torch.Generator().manual_seed(0))]
    expected = registry.load(address.format(tmp_path))(wavs)["hidden_states"]
    config.write_text(json.dumps({**json.loads(config.read_text()), "return_dict": False}))
    found = registry.load(address.format(tmp_path))(wavs)["hidden_states"]
    assert all(map(torch.equal, found, expected))
