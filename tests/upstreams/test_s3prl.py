"""s3prl's hub on a torchaudio that it doesn't support: all entries by name, and one at a time."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from superb_eval.errors import UserError
from tests.upstreams.fairseq import CONV, SIZES
from upstreams import registry, s3prl
from upstreams.contract.check import check
from upstreams.hubert import CARDS, Hubert

HELPERS = {"Path", "FileLock", "load_and_convert_fairseq_ckpt"}
"""Imports of its files that `s3prl.hub.options()` lists besides the upstreams."""

OFFLINE = {"fbank": (160, 240), "mfcc": (160, 39), "mel": (160, 80), "spectrogram": (160, 257), "linear": (160, 201)}
"""Stride (samples) and width of the entries that need no weights."""


@pytest.fixture(scope="module")
def hubert_states() -> dict[str, Any]:
    """Return a converted checkpoint of a tiny HuBERT in s3prl's own layout."""
    s3prl.supply_missing_names()
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
    from s3prl.upstream.utils import merge_with_parent

    config = {**SIZES, "label_rate": 50, "conv_feature_layers": CONV}
    settings = merge_with_parent(HubertConfig, config), merge_with_parent(HubertPretrainingConfig, {"label_rate": 50})
    torch.manual_seed(0)
    weights = HubertModel(*settings, [["a", "b"]]).state_dict()
    task = {"label_rate": 50}
    return {"task_cfg": task, "model_cfg": config, "model_weight": weights, "dictionaries_symbols": [["a", "b"]]}


@pytest.fixture
def tiny_hubert(hubert_states: dict[str, Any], tmp_path: Path) -> Path:
    torch.save(hubert_states, tmp_path / "hubert.pt")
    return tmp_path / "hubert.pt"


def distiller(path: Path) -> Path:
    """Save a tiny DistilHuBERT as s3prl's trainer does, with its command line in it."""
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    heads = {"n_tasks": 3, "pred_layer_id": [4, 8, 12], "out_layer_type": "expand-last", "task_emb_type": "expand-last"}
    config = {**SIZES, **heads, "extractor_conv_feature_layers": CONV}
    weights = DistillerModel(DistillerConfig(config)).state_dict()
    torch.save({"Config": {"distiller": config}, "Distiller": weights, "Args": argparse.Namespace(seed=1)}, path)
    return path


def test_every_entry_of_the_hub_is_listed() -> None:
    hub = s3prl.import_whole_hub()
    options = set(hub.options())
    assert len(options) >= 196
    assert set(s3prl.entries()) == options - HELPERS
    for name in s3prl.entries():
        assert s3prl._entry_index()[name].module in {getattr(hub, name).__module__, "s3prl.upstream.vq_apc.hubconf"}


def test_one_entry_imports_no_other() -> None:
    program = (
        "import sys; from upstreams import registry; registry.load('s3prl:fbank');"
        "print(sorted({m.split('.')[2] for m in sys.modules if m.startswith('s3prl.upstream.')}))"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['baseline', 'interfaces']"


def test_the_missing_names_are_supplied_once() -> None:
    import torchaudio

    s3prl.supply_missing_names()
    before = torchaudio.set_audio_backend, torchaudio.sox_effects
    s3prl.supply_missing_names()
    assert (torchaudio.set_audio_backend, torchaudio.sox_effects) == before
    torchaudio.set_audio_backend("sox_io")
    if not hasattr(torchaudio.sox_effects, "__file__"):
        with pytest.raises(UserError, match=r"no sox effects since version 2\.9"):
            torchaudio.sox_effects.apply_effects_tensor(torch.zeros(1, 5), 16_000, [["rate", "8000"]])


@pytest.mark.parametrize("name", OFFLINE)
def test_entries_without_weights_open(name: str, noise: Callable[..., Tensor]) -> None:
    upstream = registry.load(f"s3prl:{name}")
    assert (upstream.card.stride, upstream.card.width, upstream.card.layers) == (*OFFLINE[name], 1)
    assert upstream.frames(16_000) is None
    state = upstream([noise(16_000), noise(16_000, 1)])["hidden_states"][0]
    assert state.shape[::2] == (2, OFFLINE[name][1])
    assert state.isfinite().all()


def test_settings_stand_in_for_weights(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    text = "spectrogram: {n_fft: 512, hop_length: 256, win_length: 512, window: hann, center: true, log: LOG}"
    path = tmp_path / "stft.yaml"
    prints = []
    for log in ("true", "false"):
        path.write_text(text.replace("LOG", log))
        upstream = registry.load(f"s3prl:stft_mag@{path}")
        prints.append(upstream.fingerprint())
    assert (upstream.card.stride, upstream.card.width) == (256, 257)
    assert prints[0] != prints[1]


def test_the_example_entry_is_seeded() -> None:
    prints = {registry.load("s3prl:customized_upstream").fingerprint() for _ in range(2)}
    assert len(prints) == 1


@pytest.mark.parametrize(
    "entry", ["hubert", "hubert_base", "contentvec", "hubert_local", "hubert_url", "hubert_custom"]
)
def test_a_checkpoint_replaces_the_download(entry: str, tiny_hubert: Path) -> None:
    upstream = registry.load(f"s3prl:{entry}@{tiny_hubert}")
    assert (upstream.card.layers, upstream.card.width, upstream.card.stride) == (3, 32, 320)
    assert upstream.keys()[:2] == ("hidden_states", "last_hidden_state")


def test_an_adapted_entry_keeps_the_contract(tiny_hubert: Path) -> None:
    assert all(finding.passed for finding in check(registry.load(f"s3prl:hubert@{tiny_hubert}")))


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename fairseq's weights to transformers' names."""
    names = [
        ("feature_extractor.conv_layers.0.2.", "feature_extractor.conv_layers.0.layer_norm."),
        ("post_extract_proj.", "feature_projection.projection."),
        ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
        ("encoder.pos_conv.0.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
        ("encoder.pos_conv.0.", "encoder.pos_conv_embed.conv."),
        (".self_attn_layer_norm.", ".layer_norm."),
        (".self_attn.", ".attention."),
        (".fc1.", ".feed_forward.intermediate_dense."),
        (".fc2.", ".feed_forward.output_dense."),
        ("mask_emb", "masked_spec_embed"),
        (".0.weight", ".conv.weight"),
    ]
    result = {}
    for name, weight in weights.items():
        new = "feature_projection." + name if name.startswith("layer_norm.") else name
        for old, other in names:
            new = new if ".layer_norm.weight" in new else new.replace(old, other)
        result[new] = weight
    return {name: weight for name, weight in result.items() if not name.startswith(("final_proj", "label_embs"))}


def test_our_hubert_gives_s3prls_hidden_states(
    tiny_hubert: Path, hubert_states: dict[str, Any], noise: Callable[..., Tensor]
) -> None:
    from transformers import HubertConfig, HubertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    conv = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    model = HubertModel(HubertConfig(**sizes, **conv))
    model.load_state_dict(renamed(hubert_states["model_weight"]))
    ours, theirs = Hubert(CARDS[0], model).eval(), registry.load(f"s3prl:hubert@{tiny_hubert}")
    wav = noise(20_000)
    with torch.no_grad():
        pairs = zip(ours([wav])["hidden_states"], theirs([wav])["hidden_states"], strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_distilhubert_opens_with_its_command_line_inside(tmp_path: Path) -> None:
    upstream = registry.load(f"s3prl:distilhubert@{distiller(tmp_path / 'distil.ckpt')}")
    assert (upstream.card.layers, upstream.card.width, upstream.card.stride) == (6, 32, 320)
    assert {"hidden_states", "paper"} <= set(upstream.keys())


def test_lighthubert_opens_with_its_subnet(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """Its file holds the supernet; s3prl's own code cuts the subnet, whose states are compared with the expert's."""
    s3prl.supply_missing_names()
    from s3prl.upstream.lighthubert.expert import UpstreamExpert
    from s3prl.upstream.lighthubert.lighthubert import LightHuBERT, LightHuBERTConfig

    sizes = {"encoder_embed_dim": 384, "encoder_ffn_embed_dim": 1536, "encoder_attention_heads": 6, "conv_pos": 16}
    settings = {"_name": "hubert_pruner", "pruner_supernet": "small.yaml", "conv_feature_layers": CONV, **sizes}
    config = LightHuBERTConfig(settings)
    config.supernet_type = "small"
    torch.manual_seed(0)
    torch.save({"cfg": {"model": settings}, "model": LightHuBERT(config).state_dict()}, tmp_path / "light.pt")
    upstream = registry.load(f"s3prl:lighthubert_local@{tmp_path / 'light.pt'}")
    assert (upstream.card.layers, upstream.card.width, upstream.card.stride) == (13, 384, 320)
    wav = noise(12_000)
    with torch.no_grad():
        theirs = UpstreamExpert(str(tmp_path / "light.pt")).eval()([wav])["hidden_states"]
        for one, other in zip(upstream([wav])["hidden_states"], theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_huggingface_folders_open(tmp_path: Path) -> None:
    nano = registry.load("hubert_nano@random")
    assert isinstance(nano, Hubert)
    nano.model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "Wav2Vec2FeatureExtractor"}')
    upstream = registry.load(f"s3prl:hf_hubert_custom@{tmp_path}")
    assert (upstream.card.layers, upstream.card.width) == (3, 192)


@pytest.mark.parametrize("entry", ["hubert", "distilhubert", "tera", "wavlm", "apc", "byol_a_2048"])
def test_malicious_pickles_are_refused(entry: str, malicious: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"refused: this pickle needs more than tensors.*TORCH_FORCE_NO_WEIGHTS_ONLY"):
        registry.load(f"s3prl:{entry}@{malicious[0]}")
    assert not malicious[1].exists()


def test_a_trusted_pickle_is_the_users_choice(
    tmp_path: Path, malicious_object: tuple[object, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = distiller(tmp_path / "distil.ckpt")
    states = torch.load(path, weights_only=False)
    torch.save({**states, "Scheduler": malicious_object[0]}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert registry.load(f"s3prl:distilhubert@{path}").card.layers == 6
    assert malicious_object[1].exists()


def test_code_in_settings_is_refused(hubert_states: dict[str, Any], tmp_path: Path) -> None:
    code = f"[__import__('os').mkdir({str(tmp_path / 'it-ran')!r})] * 0 + {CONV}"
    torch.save(
        {**hubert_states, "model_cfg": {**hubert_states["model_cfg"], "conv_feature_layers": code}}, tmp_path / "h.pt"
    )
    with pytest.raises(UserError, match="the checkpoint's settings hold code"):
        registry.load(f"s3prl:hubert@{tmp_path / 'h.pt'}")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3prl:hubertt", r"s3prl has no upstream 'hubertt'\. Did you mean 'hubert'\?"),
        ("s3prl:hubert@random", "s3prl:hubert has no random weights"),
        ("s3prl:hubert_local", "comes without weights. Write s3prl:hubert_local@FILE"),
        ("s3prl:baseline_local", r"comes without settings \(a YAML file\)"),
        ("s3prl:hubert@nowhere.pt", "s3prl:hubert@nowhere.pt: no such file"),
        ("s3prl:fbank@hubert.pt", "s3prl:fbank takes no checkpoint"),
        (
            "s3prl:distilhubert@hubert.pt",
            r"loaded from .*: KeyError: 'Config'\. Is it a checkpoint of that kind\?",
        ),
        ("s3prl:hubert", "s3prl:hubert needs https://.* Fetch it elsewhere and write s3prl:hubert@CHECKPOINT"),
        ("s3prl:hubert_url@http://host/x.pt", "s3prl:hubert_url needs http://host/x.pt"),
        ("s3prl:vggish@hubert.pt", "vggish_pca.* put it beside the checkpoint"),
        ("s3prl:passt_base", "s3prl:passt_base needs https://github.com"),
    ],
)
def test_every_error_is_named(address: str, message: str, tiny_hubert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_hubert.parent)
    monkeypatch.setattr("s3prl.util.download._download", _no_network)
    with pytest.raises(UserError, match=message):
        registry.load(address)


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


@pytest.mark.slow
def test_every_entry_loads_or_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3prl.util.download._download", _no_network)
    answers = Counter(map(_answer, s3prl.entries()))
    assert answers == {"opened": 8, "can't be downloaded": 124, "comes without": 61}


def _answer(name: str) -> str:
    try:
        s3prl.open_address(name, None, None)
    except UserError as error:
        return next((words for words in ("can't be downloaded", "comes without") if words in str(error)), str(error))
    return "opened"
