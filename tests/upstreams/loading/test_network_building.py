"""What a library builds from somebody's configuration is bounded, and what it raises is one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from superb_eval.errors import UserError
from tests.upstreams import fairseq
from tests.upstreams.configs import TINY
from upstreams import registry
from upstreams.loading.config_bounds import check_config
from upstreams.loading.network_building import MAX_GB, bounded_size, building, most_bytes, one_line


@pytest.mark.parametrize("text", ["nan", "0", "-1", "inf", "sixteen", "1e12", ""])
def test_a_bound_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_GB, text)
    with pytest.raises(UserError, match=f"{MAX_GB} is '{text}'. Expected a number of gigabytes"):
        most_bytes()


def test_a_network_is_refused_before_its_memory_is_taken() -> None:
    message = "big: its network takes 100.0 GB or more, and 16 GB are allowed.*--max-gb"
    with pytest.raises(UserError, match=message), bounded_size("big"), torch.device("meta"):
        nn.Linear(250_000, 100_000)
    nn.Linear(3, 3)  # nothing is counted afterwards


def test_ten_million_layers_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upstreams.loading.network_building.MOST_PARTS", 5_000)
    began = time.monotonic()
    with pytest.raises(UserError, match="deep: its network has more than 5,000 parts"), bounded_size("deep"):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(10**7)))
    assert time.monotonic() - began < 20


class SilentError(Exception):
    """Fails when it is printed."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("encoder"), "KeyError: 'encoder'"),
        (ValueError("a\nb\x1b[31m"), r"from 'x': a b\?\[31m"),
        (RuntimeError("z" * 10**6), r"RuntimeError: z{200}\. Next"),
        (SilentError(), "SilentError: SilentError"),
    ],
)
def test_whatever_a_library_raises_is_one_sentence(error: Exception, words: str) -> None:
    message = f"the network can't be loaded from 'x': .*{words}|{words}"
    with pytest.raises(UserError, match=message) as caught, building("x", "the network", "Next."):
        raise error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_memory_that_runs_out_stays_so() -> None:
    with pytest.raises(MemoryError), building("x", "the network"):
        raise MemoryError


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    """A terabyte of zeros takes no space on the disk."""
    path = tmp_path / "large.safetensors"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(UserError, match="large.safetensors: holds 1000000000000 bytes or more, at most 16000000000"):
        registry.load(f"checkpoint:{path}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 5}, "hidden_size of 768 isn't a multiple of num_attention_heads, 5"),
        ({"num_conv_pos_embedding_groups": 7}, "isn't a multiple of num_conv_pos_embedding_groups, 7"),
        ({"hidden_size": 0}, "its hidden_size is '0': .* greater than or equal to 1"),
        ({"hidden_size": True}, "its hidden_size is 'True': .* valid integer"),
        ({"hidden_size": "768"}, "its hidden_size is '768': .* valid integer"),
        ({"hidden_size": 10**30}, "its hidden_size is 'a huge number'"),
        ({"num_hidden_layers": 10**7}, "its num_hidden_layers is '10000000': .* less than or equal to 512"),
        ({"num_hidden_layers": -1}, "its num_hidden_layers is '-1'"),
        ({"conv_dim": []}, "its conv_dim is 'a list': .* at least 1"),
        ({"conv_dim": [16] * 1000}, "its conv_dim is 'a list': .* at most 64"),
        ({"conv_dim": [16, 16]}, r"conv_dim, conv_kernel and conv_stride list \[2, 7, 7\] convolutions"),
        ({"conv_stride": [5, 2, 0, 2, 2, 2, 2]}, r"its conv_stride.2 is '0'"),
        ({"conv_stride": [1000] * 7}, "one frame of more than 16,000 samples"),
        ({"layer_norm_eps": float("nan")}, "its layer_norm_eps is 'nan'"),
        ({"layer_norm_eps": float("inf")}, "its layer_norm_eps is 'inf'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "its quantization_config is 'a dict': quantised weights"),
        ({"attn_implementation": "kernels-community/flash-attn"}, "its attn_implementation is 'kernels-community"),
        ({"_attn_implementation": "flash_attention_2"}, "its attn_implementation is 'flash_attention_2'"),
    ],
)
def test_impossible_configurations_name_key_and_value(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"^FILE: .*{words}"):
        check_config(change, "hubert", "FILE")


@pytest.mark.parametrize("key", ["d_model", "encoder_attention_heads", "vocab_size", "max_source_positions"])
def test_whispers_configuration_is_checked_too(key: str) -> None:
    check_config({}, "whisper", "FILE")
    with pytest.raises(UserError, match=f"FILE: its {key} is '-3'"):
        check_config({key: -3}, "whisper", "FILE")


def test_a_folder_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", **TINY, "num_attention_heads": 3}))
    for address in (f"hf:{tmp_path}", f"hf:{tmp_path}@random", f"hubert@{tmp_path}"):
        with pytest.raises(UserError, match=f"{tmp_path}: hidden_size of 32 isn't a multiple of num_attention_heads"):
            registry.load(address)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse or nested": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "without values": lambda weight: weight.to("meta"),
    "complex": lambda weight: weight.to(torch.complex64),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_odd_weights_are_named(kind: str, tmp_path: Path) -> None:
    settings = fairseq.settings()
    weights = {name: ODD[kind](weight) for name, weight in fairseq.hubert(settings).state_dict().items()}
    torch.save({**fairseq.as_dictionary(settings), "model": weights}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"x.pt: its model.* is {kind}"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}")


def test_one_number_that_stands_for_a_million_million(tmp_path: Path) -> None:
    weights = fairseq.hubert(fairseq.settings()).state_dict()
    weights["feature_extractor.conv_layers.0.0.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"model": weights}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x.pt: its network takes 4,000\.0 GB or more"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}")


@pytest.mark.parametrize("seed", ["1" * 5000, str(2**64), "²", "-1", "1.5"])
def test_seeds_beyond_64_bits(seed: str) -> None:
    with pytest.raises(UserError, match=r"hubert_nano@random': the seed '.*' is not a number below 2\^64"):
        registry.load(f"hubert_nano@random:{seed}")


@pytest.mark.parametrize(
    "address", ["checkpoint:", "hf:", "hubert@", "s3prl:hubert_local@", "torchaudio:HUBERT_BASE@", ""]
)
def test_streams_and_long_names_are_refused(address: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    for name in ("pipe.pt", "loop.pt", "x" * 300 + ".pt", "a\0b.pt"):
        with pytest.raises(UserError):
            registry.load(f"{address}{tmp_path / name}")


def test_a_text_that_cannot_be_printed() -> None:
    assert one_line(SilentError()) == "SilentError"


NOTHING_IS_IMPORTED_WITHOUT_MEMORY = """
import importlib.abc, sys
import torch

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if torch.empty(0).is_meta and name.partition(".")[0] not in ("superb_eval", "upstreams"):
            raise SystemExit(f"{name} is imported on the meta device")

sys.meta_path.insert(0, Watch())
from upstreams import hf, registry
opener, path = sys.argv[1:]
hf.describe(path) if opener == "describe" else registry.load(path)
registry.load("fbank")([torch.zeros(16_000)])
"""


@pytest.mark.parametrize("opener", ["load", "describe"])
def test_fbank_works_where_a_checkpoint_was_opened_before_any_library_was_imported(tmp_path: Path, opener: str) -> None:
    """torchaudio makes a tensor as it is imported, which had no data where that was on the meta device."""
    if opener == "load":
        settings = fairseq.settings()
        path = fairseq.save(tmp_path / "h.pt", fairseq.hubert(settings), fairseq.as_dictionary(settings))
    else:
        path = tmp_path
        HubertModel(HubertConfig(**TINY)).save_pretrained(path)
    command = [sys.executable, "-W", "ignore", "-c", NOTHING_IS_IMPORTED_WITHOUT_MEMORY, opener, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
