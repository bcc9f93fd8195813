"""`upstream show`: what a file, a folder or a name is, and what opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from superb_eval.cli.show_upstream import upstream_show as show
from superb_eval.errors import UserError
from tests.upstreams.configs import LARGE, TINY
from upstreams import registry


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what the command prints, by key."""

    def run(name: str) -> dict[str, str]:
        capsys.readouterr()
        show(name)
        return {line[:17].strip(): line[17:] for line in capsys.readouterr().out.splitlines()}

    return run


def test_a_name_has_its_card(shown: Any) -> None:
    lines = shown("hubert_mini")
    assert (lines["layers"], lines["parameters"], lines["features_version"]) == ("13", "10196544", "1")


def test_a_folder_in_shards_with_a_head(shown: Any) -> None:
    network = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**TINY, **LARGE))
    network.save_pretrained("tuned", max_shard_size="30KB")
    parameters = registry.load("tuned").count_parameters()
    lines = shown("./tuned/")
    megabytes = sum(path.stat().st_size for path in Path("tuned").glob("*.safetensors")) / 1e6
    assert lines["architecture"] == "wav2vec 2.0"
    assert lines["size"] == f"2 layers x 32, {parameters:,} parameters, {megabytes:.1f} MB stored"
    assert lines["convolutions"].startswith("(16, 10, 5) (16, 3, 2)")
    assert lines["normalise"] == "waveforms to zero mean and unit variance"
    assert lines["weights"] == f"{len(list(Path('tuned').glob('*.safetensors')))} shards of float32"
    assert lines["left out"] == "lm_head"
    assert lines["opened as"] == "hf:tuned" and lines["next"].startswith("superb-eval upstream check hf:tuned")
    assert "missing" not in lines and "unknown" in lines["licence"]


def test_half_precision_older_names_and_a_missing_part_are_shown(shown: Any) -> None:
    transformers.HubertModel(transformers.HubertConfig(**TINY)).half().save_pretrained("half")
    weights = load_file("half/model.safetensors")
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        weights = {name.replace(new, old): weight for name, weight in weights.items()}
    Path("half/model.safetensors").unlink()
    torch.save({f"module.{name}": weight for name, weight in weights.items()}, "half/pytorch_model.bin")
    lines = shown("hubert@half")
    assert (lines["weights"], lines["left out"], lines["opened as"]) == ("1 file of float16", "nothing", "hubert@half")
    assert "missing" not in lines
    rest = {name: weight for name, weight in weights.items() if "layers.1.attention" not in name}
    save_file(rest, "half/model.safetensors")
    assert shown("half")["missing"].startswith("8 of 50: layer 2's attention, such as")


def test_whisper_has_no_convolutions_of_the_waveform(shown: Any) -> None:
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50, "encoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    config = transformers.WhisperConfig(**sizes, **heads, **tokens)
    transformers.WhisperForConditionalGeneration(config).save_pretrained("whisper")
    lines = shown("whisper")
    assert lines["architecture"] == "Whisper" and lines["size"].startswith("1 layer x 32")
    assert lines["left out"] == "decoder" and "a second costs as much as thirty" in lines["notes"]
    assert "80 bands" in lines["convolutions"] and lines["normalise"] == "no: it reads a spectrum"


def test_a_file_and_what_it_is_opened_as(shown: Any) -> None:
    network = transformers.HubertModel(transformers.HubertConfig(**TINY))
    head = {"final_proj.weight": torch.zeros(8, 32)}
    weights = {f"module.{name}": weight for name, weight in {**network.state_dict(), **head}.items()}
    torch.save({"state_dict": weights, "epoch": 3}, "last.ckpt")
    lines = shown("./last.ckpt#heads=2")
    assert (lines["file"], lines["architecture"]) == ("last.ckpt", "HuBERT")
    assert lines["size"].startswith("2 layers x 32, ") and "MB stored" in lines["size"]
    assert lines["left out"] == "final_proj" and "module." in lines["prefix"]
    assert lines["opened as"] == "checkpoint:last.ckpt#heads=2"
    assert lines["next"].endswith("-u 'checkpoint:last.ckpt#heads=2'")
    assert registry.load(lines["opened as"]).card.layers == 3


def test_nothing_of_a_folder_is_read_but_headers(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers.HubertModel(transformers.HubertConfig(**TINY)).save_pretrained("folder")
    monkeypatch.setattr("upstreams.loading.hf_folders.from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    assert shown("folder")["architecture"] == "HuBERT"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.pt", r"nowhere\.pt: no such file or folder"),
        ("text.txt", "isn't weights"),
        ("bert", "is a bert, and these are supported"),
        ("no/thing", "can't be loaded from 'no/thing'"),
        ("bare", "has no weights"),
        ("wavlm_large", "s3prl:wavlm_large"),
    ],
)
def test_errors_are_one_sentence(name: str, message: str) -> None:
    Path("text.txt").write_text("text")
    transformers.BertConfig().save_pretrained("bert")
    transformers.HubertConfig(**TINY).save_pretrained("bare")
    with pytest.raises(UserError, match=message):
        show(name)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.mkdir, (tmp_path / "it-ran",)  # type: ignore[return-value]

    transformers.HubertConfig(**TINY).save_pretrained("folder")
    torch.save({"weight": torch.zeros(3), "more": Malicious()}, "folder/pytorch_model.bin")
    with pytest.raises(UserError, match="refused"):
        show("folder")
    assert not (tmp_path / "it-ran").exists()
