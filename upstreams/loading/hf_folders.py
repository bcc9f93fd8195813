"""Loads networks from folders in transformers' layout, or from the hub; code that comes with weights is never run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files
from upstreams.loading import config_bounds
from upstreams.loading.config_bounds import ShardIndex
from upstreams.loading.inert_values import shown
from upstreams.loading.network_building import building, most_bytes, one_line
from upstreams.loading.network_parts import describe_weights

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files that transformers reads weights from, the first that exists; an index names the shards."""

WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
"""Suffixes of files of weights in any layout."""

_SHARD = re.compile(r"-\d+-of-\d+\.(safetensors|bin)$")
_ANCHORS = ("feature_extractor.conv_layers.0.conv.weight", "encoder.conv1.weight")
"""A weight that each network has (the waveform networks, Whisper); what stands before it is a prefix."""
UNUSED = {"masked_spec_embed"}
"""Serves pre-training alone; students have none."""
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""safetensors' names of types, and torch's."""
_RENAMED = re.compile(r"\.weight_([gv])$")
"""The older names of weight normalisation's length and direction."""
_ENCODER = re.compile(r"(feature_extractor|feature_projection|encoder)\.")


def read_json(source: str, name: str, revision: str | None = None, what: str | None = None) -> tuple[Path, Any]:
    """Return the path and the content of a file of JSON in a folder or on the hub; None: it isn't there.

    Args:
        source: the folder or hub id.
        name: of the file.
        revision: on the hub.
        what: can't be loaded without it, for errors; None: it may be absent.

    Raises:
        UserError: the hub can't be reached, or the file is none of JSON.
    """
    from transformers.utils import cached_file

    here = Path(source) / name
    if os.path.isdir(source):
        return here, outside_files.read_json(here) if os.path.lexists(here) else None
    with building(source, what or f"the {name}"):
        path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=what is not None)
    return (here, None) if path is None else (Path(path), outside_files.read_json(Path(path)))


def read_config(source: str, revision: str | None = None, what: str = "the config.json") -> dict[str, Any]:
    """Return the content of the config.json of a folder or a hub id; see `read_json`.

    Raises:
        UserError: as `read_json`, or it is no JSON object.
    """
    path, content = read_json(source, "config.json", revision, what)
    if content is None:
        raise UserError(f"{source}: has no config.json. Give a folder in transformers' layout, or a file of weights.")
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object. Copy the folder again.")
    return content


def from_pretrained(source: str, what: str, kind: Any = None, **options: Any) -> Any:
    """Load a folder in transformers' layout, or a hub id, in float32; code in the folder is never run.

    Args:
        source: the folder or id.
        what: the network's published name, for errors.
        kind: transformers' class of the network; None: the one that its config names.
        options: passed to its `from_pretrained`.

    Raises:
        UserError: weights are absent, missing in part, damaged, of another network, or a pickle that needs more than
            tensors.
    """
    if kind is not None:
        _check_type(source, what, kind.config_class.model_type)
    if os.path.isdir(source):
        weight_files(Path(source))
    model, info = _load(source, what, kind, options)
    prefix = _prefix(source, info["unexpected_keys"]) if info["missing_keys"] else ""
    if prefix:  # transformers strips only its own, such as `hubert.`
        model, info = _load(source, what, kind, {**options, "key_mapping": {"^" + re.escape(prefix): ""}})
    _check_complete(source, what, model, info)
    return model


def _check_type(source: str, what: str, model_type: str) -> None:
    """Refuse a folder or hub id of another network, whose own parts would be left out.

    wav2vec 2.0 has HuBERT's network; a config.json without a type is taken for what was asked for.
    """
    content = read_config(source, what=f"{what}'s weights")
    found = content.get("model_type")
    if found not in (None, model_type, "wav2vec2"):
        raise UserError(f"{source}: is a {shown(found)} network, not a {what}. Write hf:{source}.")
    config_bounds.check_config(content, model_type, source)


def _load(source: str, what: str, kind: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModel

    options = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True, **options}
    with building(source, f"{what}'s weights"), _quiet(), torch.random.fork_rng(devices=[]):
        model, info = (kind or AutoModel).from_pretrained(source, **options)
    return model, info


def _prefix(source: str, names: Iterable[str]) -> str:
    """Return what stands before the names of a network's weights, such as `module.`; empty where none is found.

    Raises:
        UserError: there are several networks.
    """
    prefixes = sorted({name.removesuffix(anchor) for anchor in _ANCHORS for name in names if name.endswith(anchor)})
    if len(prefixes) > 1:
        found = ", ".join(f"'{prefix}'" for prefix in prefixes)
        raise UserError(
            f"{source}: holds several networks, whose weights begin with {found}. Save the encoder's weights alone."
        )
    return prefixes[0] if prefixes else ""


def _check_complete(source: str, what: str, model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a network of which any weight would be random, or whose folder has weights that it takes no notice of."""
    own = set(model.state_dict()) - UNUSED
    missing, unexpected = sorted(set(info["missing_keys"]) & own), sorted(info["unexpected_keys"])
    if len(missing) == len(own):
        found = f"found {', '.join(unexpected[:3])}" if unexpected else "the file is empty"
        raise UserError(f"{source}: none of the {len(own)} weights of {what} is there: {found}. Is it that network?")
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of the {len(own)} weights of {what} are missing: {describe_weights(missing)}. "
            "None is drawn at random instead. Save the whole network."
        )
    if info["mismatched_keys"]:
        name, stored, expected = sorted(info["mismatched_keys"])[0][:3]
        raise UserError(
            f"{source}: {name} is {list(stored)}, and its config.json makes it {list(expected)}. "
            "Give the config.json that the weights were trained with."
        )
    if ignored := [name for name in unexpected if _ENCODER.match(name)]:
        raise UserError(
            f"{source}: {len(ignored)} weights have no place in the network of its config.json: "
            f"{describe_weights(ignored)}. Give the config.json that the weights were trained with."
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads a folder's weights from, complete as far as their headers show.

    Raises:
        UserError: there are none, a shard is missing or damaged, or it is a Git LFS pointer.
    """
    for path in folder.glob("*.json"):
        outside_files.check_regular(path, outside_files.MOST_BYTES)
    present = {path.name for path in folder.iterdir()}
    first = next((name for name in WEIGHT_FILES if name in present), None)
    if first is None:
        raise UserError(f"{folder}: {_no_weights(folder, sorted(present))}")
    names = _shards(folder / first) if first.endswith(".json") else [first]
    absent = [name for name in names if name not in present]
    if absent:
        found = len(names) - len(absent)
        raise UserError(
            f"{folder}: {first} names {len(names)} shards, of which {found} are there: {', '.join(absent[:3])} "
            f"{'is' if len(absent) == 1 else 'are'} missing. Copy {'it' if len(absent) == 1 else 'them'} too."
        )
    for name in names:
        _check_header(folder / name)
    return [folder / name for name in names]


def _no_weights(folder: Path, names: list[str]) -> str:
    shards = [name for name in names if _SHARD.search(name)]
    other = [name for name in names if name.endswith((*WEIGHT_SUFFIXES, ".h5", ".msgpack")) and name not in shards]
    if shards:
        kind = "model.safetensors" if shards[0].endswith(".safetensors") else "pytorch_model.bin"
        return f"its {len(shards)} shards come without {kind}.index.json, which states what lies where. Copy it too."
    if other and other[0].endswith(WEIGHT_SUFFIXES):
        return (
            f"its weights are called {', '.join(other[:3])}, and transformers reads model.safetensors or "
            f"pytorch_model.bin. Rename them, or write checkpoint:{folder / other[0]}."
        )
    if not other and "config.json" not in names:
        return "has neither a config.json nor weights. Give a folder in transformers' layout, or a file of weights."
    found = f"its only weights are {other[0]}, of another library" if other else "has no weights"
    return f"{found}. Copy model.safetensors there too, or write hf:{folder}@random for random ones."


def _shards(index: Path) -> list[str]:
    content = config_bounds.validate(ShardIndex, outside_files.read_json(index), index)
    return sorted(set(content.weight_map.values()))


def read_types(source: str, files: Iterable[Path]) -> dict[str, str]:
    """Return the type of each weight in files, such as `float16`, by the names of the network's own.

    Args:
        source: the folder, for errors.
        files: what `weight_files` returned.

    Raises:
        UserError: a file is damaged, or a pickle that needs more than tensors.
    """
    from safetensors import safe_open

    types: dict[str, str] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as content:
                types |= {name: str(content.get_slice(name).get_dtype()) for name in content.keys()}  # noqa: SIM118
        else:
            with building(source, path.name):
                content = torch.load(path, map_location="meta", weights_only=True)
            types |= {name: str(weight.dtype).removeprefix("torch.") for name, weight in content.items()}
    prefix = _prefix(source, types)
    return {
        _RENAMED.sub(_newer_name, name.removeprefix(prefix)): _TYPES.get(kind, kind) for name, kind in types.items()
    }


def _newer_name(match: re.Match[str]) -> str:
    return f".parametrizations.weight.original{'gv'.index(match[1])}"


def _check_header(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    with outside_files.open_regular(path, most_bytes()) as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise UserError(f"{path}: is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder.")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise UserError(f"{path}: is damaged or incomplete ({one_line(error)}). Copy it again.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar and its report on keys while weights load: a run has its own."""
    from transformers.utils import logging

    enabled, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if enabled:
            logging.enable_progress_bar()
