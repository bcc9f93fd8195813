"""Hostile configurations of networks: folders of transformers, settings of fairseq and of s3prl, with wrong values.

Each case is a small network that works, of whose configuration one to three values are replaced.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.upstreams import fairseq
from tests.upstreams.configs import TINY

DEEP: Any = 7
for _ in range(200):
    DEEP = [DEEP]

VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 3, 5, 7, 16, 31, 64, -1, -(2**63), 10**4, 10**6, 10**7, 10**9, 2**31, 2**63, 10**30, 10**400),
    *(0.5, 1.5, 2.0, -0.0, 1e-320, 1e30, 1e308, float("nan"), float("inf"), -float("inf")),
    *(True, False, None, "", "12", "gelu", "relu", "layer", "group", "x" * 5000, "\x1b[31mred", "line\nfeed", "\u202e"),
    *(
        [],
        [0],
        [1],
        [7],
        [-1],
        [0] * 7,
        [1] * 7,
        [-3] * 7,
        [1.5] * 7,
        [True] * 7,
        [10**9] * 7,
        [16] * 64,
        [16] * 10_000,
    ),
    *([None], ["16"] * 7, [[16] * 7], [10, 3, 3], {}, {"a": 1}, {"0": "LABEL_0"}, DEEP),
)

ADDED: tuple[tuple[str, Any], ...] = (
    *(
        ("model_type", kind)
        for kind in ("", "bert", "mimi", "wav2vec2-bert", "encodec", 7, None, ["hubert"], "x" * 999)
    ),
    ("auto_map", {"AutoModel": "modeling_evil.Evil", "AutoConfig": "configuration_evil.EvilConfig"}),
    ("auto_map", "modeling_evil.Evil"),
    *(
        ("quantization_config", {"quant_method": method, "bits": 4, "load_in_4bit": True})
        for method in (
            "bitsandbytes",
            "gptq",
            "awq",
            "fp8",
            "torchao",
            "hqq",
            "eetq",
            "quanto",
            "bitnet",
            "mxfp4",
            "",
            7,
        )
    ),
    *(("quantization_config", value) for value in ({}, [], "int8", 8, {"quant_method": "gptq", "bits": -1})),
    *(
        ("attn_implementation", value)
        for value in ("flash_attention_2", "kernels-community/flash-attn", "eager", "", 3)
    ),
    *(("_attn_implementation", value) for value in ("flash_attention_3", "kernels-community/x", "sdpa", [1])),
    *(("dtype", value) for value in ("float16", "bfloat16", "int8", "float8_e4m3fn", "complex64", "none", 7, [])),
    *(("torch_dtype", value) for value in ("float64", "bool", "quint8", "os.system", 3)),
    *(("num_labels", value) for value in (0, -1, 10**6, 10**12, "3")),
    *(("id2label", value) for value in ({"x": 1}, [], 7, {str(k): "a" for k in range(50_000)})),
    *(("architectures", value) for value in (["Evil"], "Evil", [7], 7)),
    *(("use_kernels", True), ("tie_word_embeddings", "x"), ("is_decoder", True), ("add_cross_attention", True)),
    *(("add_adapter", True), ("adapter_attn_dim", 10**9), ("num_adapter_layers", -1), ("chunk_size_feed_forward", -1)),
    *(("transformers_version", 7), ("_name_or_path", ["x"]), ("problem_type", "x"), ("tp_plan", {"a": "b"})),
    *(
        ("pruned_heads", {"0": [0, 1, 2, 3]}),
        ("pruned_heads", {"99": [0]}),
        ("torchscript", True),
        ("return_dict", False),
    ),
    *(("output_attentions", True), ("output_hidden_states", False), ("use_cache", "x"), ("base_model_tp_plan", 7)),
    *(("rope_scaling", {"type": "x"}), ("text_config", {"a": 1}), ("sub_configs", 7), ("tokenizer_class", 7)),
)
"""Keys that a small network's own configuration doesn't hold, or whose values decide which code is imported."""

WHISPER = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50, "max_source_positions": 100}
WHISPER |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
WHISPER |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64)
WHISPER |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)

KINDS = {
    "Hubert": TINY,
    "Wav2Vec2": TINY,
    "WavLM": TINY,
    "Data2VecAudio": {**TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7},
    "UniSpeech": TINY,
    "UniSpeechSat": TINY,
    "Whisper": WHISPER,
}
"""transformers' classes, and the sizes of small networks."""

PREPROCESSOR = {"do_normalize": True, "feature_size": 80, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
PREPROCESSOR |= {"chunk_length": 30, "padding_value": 0.0, "feature_extractor_type": "WhisperFeatureExtractor"}

TEXTS = (b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe{}", b'{"a": ' * 100_000, b"[" * 100_000, b"9" * 10_000)
TEXTS += (b'{"model_type": "hubert", "hidden_size": ' + b"9" * 5_000 + b"}", b'{"model_type": "hubert"}', b"\0" * 100)
"""Files of JSON as a whole."""


@cache
def network(kind: str) -> Any:
    """Return a small network of transformers with random weights."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**KINDS[kind])
        return getattr(transformers, f"{kind}Model")(config).eval()


def changed(rng: Random, content: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of which one to three values are others."""
    new = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.15:
            key, value = rng.choice(ADDED)
        else:
            key, value = rng.choice(sorted(content)), rng.choice(VALUES)
        if rng.random() < 0.05:
            new.pop(key, None)
        else:
            new[key] = value
    return new


def _config(rng: Random, folder: Path, whole: dict[str, Any]) -> None:
    # What decides on the network's size is chosen more often than the twenty settings of training.
    sizes = {key: whole[key] for key in whole if key in KINDS["Data2VecAudio"] or key in WHISPER or "conv" in key}
    base = sizes if rng.random() < 0.6 else whole
    (folder / "config.json").write_text(json.dumps({**whole, **changed(rng, base)}), encoding="utf8")


def _preprocessor(rng: Random, folder: Path, whole: dict[str, Any]) -> None:
    content = json.dumps(changed(rng, PREPROCESSOR)).encode() if rng.random() < 0.8 else rng.choice(TEXTS)
    (folder / "preprocessor_config.json").write_bytes(content)


def _index(rng: Random, folder: Path, whole: dict[str, Any]) -> None:
    """Replace the weights by shards that a hostile index names."""
    weights = folder / "model.safetensors"
    shard = weights.rename(folder / "model-00001-of-00001.safetensors") if weights.is_file() else weights
    outside = folder.parent / "outside.safetensors"
    places: tuple[Any, ...] = (
        *({"a": "../outside.safetensors"}, {"a": str(outside)}, {"a": "/dev/zero"}, {"a": "fifo.safetensors"}),
        *({"a": 7}, {"a": None}, {"a": ["x"]}, {7: shard.name}, {}, [], 7, "x", None, {"a": "x" * 300}, {"a": "a\0b"}),
        *({"a": shard.name, "b": "absent.safetensors"}, {f"w{k}": shard.name for k in range(1000)}, {"a": "."}),
    )
    content = json.dumps({"metadata": rng.choice(VALUES[:20]), "weight_map": rng.choice(places)}).encode()
    (folder / "model.safetensors.index.json").write_bytes(content if rng.random() < 0.8 else rng.choice(TEXTS))


def _texts(rng: Random, folder: Path, whole: dict[str, Any]) -> None:
    (folder / "config.json").write_bytes(rng.choice(TEXTS))


def _streams(rng: Random, folder: Path, whole: dict[str, Any]) -> None:
    """Replace a file by a pipe, a device, a folder or a link that leads nowhere."""
    import os

    path = folder / rng.choice(("config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"))
    if path.name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    kind = rng.choice(("pipe", "zero", "full", "loop", "folder", "nowhere"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"zero": "/dev/zero", "full": "/dev/full", "loop": path.name, "nowhere": "/nowhere/x"}
        path.symlink_to(targets[kind])


_CHANGES: tuple[tuple[int, Callable[[Random, Path, dict[str, Any]], None]], ...] = (
    *((14, _config), (3, _preprocessor), (1, _index), (1, _streams), (1, _texts)),
)

EVIL = "from pathlib import Path\nPath({canary!r}).touch()\nclass Evil: pass\nclass EvilConfig: pass\n"


def folders(folder: Path, rng: Random, count: int, canary: Path, large: float) -> Iterator[str]:
    """Yield the addresses of `count` folders in transformers' layout, one at a time; the last one is removed."""
    from safetensors.torch import save_file

    outside = folder / "outside.safetensors"
    save_file(dict(network("Hubert").state_dict()), outside)
    weights, changes = [weight for weight, _ in _CHANGES], [change for _, change in _CHANGES]
    for number in range(count):
        kind = rng.choice(sorted(KINDS))
        here = folder / f"folder-{number}"
        here.mkdir()
        (here / "config.json").write_text(network(kind).config.to_json_string(use_diff=False), encoding="utf8")
        save_file(dict(network(kind).state_dict()), here / "model.safetensors", metadata={"format": "pt"})
        for name in ("modeling_evil.py", "configuration_evil.py"):
            (here / name).write_text(EVIL.format(canary=str(canary)), encoding="utf8")
        if rng.random() < 0.3:
            (here / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf8")
        whole = json.loads((here / "config.json").read_text(encoding="utf8"))
        rng.choices(changes, weights)[0](rng, here, whole)
        head = rng.choice(("hf:", "hf:", "", "hubert@", "distilhubert@"))
        yield f"{head}{here}" + ("@random" if head == "hf:" and rng.random() < 0.3 else "")
        shutil.rmtree(here)


EXPRESSIONS = (
    *("[(512,10,5)] * 10**9", "[(16,10,5)] * 1000000000", "[[(16,10,5)] * 10] * 10", "[(16, 10, 0)]", "[(0, 1, 1)]"),
    *("[(16, -1, 5)]", "[]", "", "()", "[(16,10)]", "__import__('os').system('x')", "[(16,10,5)]+" * 200, "[" * 500),
    *("[(1e9,10,5)]", "[(16,10,5)] * -1", "9" * 9000, "[(16,10,5) for _ in range(9**9)]", "[(16,10,5)] * (2**64)"),
    *(f"[(16,{'9' * 5000},5)]", "[(16,10,5)] + [(16,3,2)] * 62", "[(16384,1024,1)] * 64", "lambda: 0", "[(16,10,5)]\0"),
)
"""Convolutions as fairseq's settings state them."""


@cache
def _weights(kind: str) -> dict[str, Any]:
    build = {"hubert": fairseq.hubert, "wav2vec2": fairseq.wav2vec2, "wavlm": fairseq.wavlm}[kind]
    return build(_settings(kind)).state_dict()


def _settings(kind: str) -> dict[str, Any]:
    extra = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 80}
    return fairseq.settings(**(extra if kind == "wavlm" else {}))


def files(folder: Path, rng: Random, count: int, canary: Path, large: float) -> Iterator[str]:
    """Yield the addresses of `count` checkpoints of fairseq, WavLM and s3prl whose settings are hostile."""
    import torch

    for number in range(count):
        kind = rng.choice(("hubert", "wav2vec2", "wavlm"))
        model = changed(rng, _settings(kind))
        if rng.random() < 0.25:
            model["conv_feature_layers"] = rng.choice(EXPRESSIONS)
        path = folder / f"file-{number}.pt"
        torch.save(_stored(rng, kind, model), path)
        head = rng.choice(("checkpoint:", "", "hubert@"))
        head = "s3prl:hubert_local@" if kind == "hubert" and rng.random() < large else head
        yield f"{head}{path}"
        path.unlink()


def _stored(rng: Random, kind: str, model: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file, in one of the layouts that hold settings."""
    weights = _weights(kind)
    task = {"normalize": rng.choice((True, False, *VALUES[:24])), "_name": rng.choice(("hubert_pretraining", 7, None))}
    layouts: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"cfg": {"model": {"_name": kind, **model}, "task": task}, "model": weights},
        lambda: {"cfg": {**model}, "model": weights},
        lambda: {"args": argparse.Namespace(**{k: v for k, v in model.items() if k}, **task), "model": weights},
        lambda: {"model_cfg": model, "task_cfg": task, "model_weight": weights, "dictionaries_symbols": [["a"]]},
        lambda: {"Config": {"distiller": model}, "Distiller": weights},
        lambda: {"cfg": {"model": {"w2v_args": rng.choice((model, {"model": model}, *VALUES))}}, "model": weights},
        lambda: {"cfg": rng.choice(VALUES), "model": weights},
    )
    return rng.choice(layouts)()
