"""Encoders of Hugging Face's transformers, at `hf:ORG/MODEL`, `hf:ORG/MODEL@REVISION` and `hf:FOLDER`.

HuBERT, wav2vec 2.0, WavLM, data2vec-audio, UniSpeech and UniSpeech-SAT share a front end and use the batch-invariant
forward pass of `upstreams.hubert`; Whisper's encoder has its own. The folder's preprocessor_config.json decides
whether waveforms are normalised, as in transformers' own feature extractors; 1e-5 is added to the variance, as in
training (fairseq), where those add 1e-7. Code that comes with weights is never run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from superb_eval.errors import UserError, same_names
from upstreams.base import Card, Upstream
from upstreams.hubert import Hubert
from upstreams.loading import addresses, config_bounds, hf_folders, load_weights
from upstreams.loading.config_bounds import PreprocessorBounds
from upstreams.loading.inert_values import shown
from upstreams.loading.network_building import building
from upstreams.loading.network_parts import describe_weights

WAVEFORM_MODELS = {
    "data2vec-audio": "data2vec-audio",
    "hubert": "HuBERT",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeech-SAT",
    "wav2vec2": "wav2vec 2.0",
    "wavlm": "WavLM",
}
"""transformers' `model_type` of the networks that have HuBERT's front end, and their published names."""

WHISPER = "whisper"


@dataclass(frozen=True)
class FolderDescription:
    """What a folder in transformers' layout, or a model on the hub, is."""

    architecture: str
    """The network's published name."""
    card: Card
    """Sizes and notes."""
    convolutions: str
    """(channels, kernel, stride) of each; of Whisper, what it reads instead."""
    normalise: bool | None
    """Whether waveforms are normalised to zero mean and unit variance; None: it reads no waveforms."""
    weights: str
    """The number of files, and the type of weights; of a hub id, that they aren't here."""
    missing: str
    """The parts whose weights are missing, in words; empty: none."""
    left_out: tuple[str, ...]
    """Modules beside the encoder, such as a CTC head."""
    megabytes: float | None
    """Of the files of weights; None: they aren't here."""


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a folder in transformers' layout or a hub id; `checkpoint` is a revision on the hub.

    With a seed, the network of the folder's config.json gets random weights.

    Raises:
        UserError: nothing can be loaded from there, or its architecture isn't supported.
    """
    full_name = f"{name}@{checkpoint}"
    source, revision = (full_name, None) if checkpoint and os.path.isdir(full_name) else (name, checkpoint)
    address = f"hf:{source}" + (f"@{revision}" if revision else "")
    known = [id_ for id_ in addresses.HUB_IDS if same_names(source, [id_.partition("/")[2]])]
    if known and not os.path.isdir(source):
        raise UserError(
            f"{address}: no folder here is called so, and ids on the hub begin with ORG/. Write hf:{known[0]}."
        )
    config = _load_config(source, revision)
    if seed is not None:
        model = _random_model(config, seed, source)
    else:
        model = hf_folders.from_pretrained(source, _network_name(config), config=config, revision=revision)
    return _upstream(address, model, source, revision)


def describe(source: str, revision: str | None = None) -> FolderDescription:
    """Return what a folder or a hub id holds: of its files, the config and the headers of the weights are read.

    Raises:
        UserError: it isn't in transformers' layout, its architecture isn't supported, or a file of weights is absent or
            damaged.
    """
    from transformers import MODEL_MAPPING

    config = _load_config(source, revision)
    with building(source, _network_name(config)):
        network = MODEL_MAPPING[type(config)]  # imported here: see `state_dict_model._classes`
        with torch.device("meta"):  # sizes without memory
            model = network(config)
    own = {name for name in model.state_dict() if not name.startswith("decoder.")} - hf_folders.UNUSED
    upstream = _upstream(f"hf:{source}", model, source, revision)
    files = hf_folders.weight_files(Path(source)) if os.path.isdir(source) else []
    types = hf_folders.read_types(source, files)
    missing = own - types.keys() if files else set()
    beside = types.keys() - own - hf_folders.UNUSED
    return FolderDescription(
        architecture=_network_name(config),
        card=upstream.card,
        convolutions=_convolutions(config),
        normalise=getattr(upstream, "normalise", None),
        weights=_kinds(files, types) if files else "not here: read when it is opened",
        missing=f"{len(missing)} of {len(own)}: {describe_weights(missing)}" if missing else "",
        left_out=tuple(sorted({name.partition(".")[0] for name in beside})),
        megabytes=sum(file.stat().st_size for file in files) / 1e6 if files else None,
    )


def _convolutions(config: Any) -> str:
    if config.model_type == WHISPER:
        return f"none of the waveform: a spectrum of {config.num_mel_bins} bands"
    layers = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
    return " ".join(f"({channels}, {kernel}, {stride})" for channels, kernel, stride in layers)


def _kinds(files: list[Path], types: Mapping[str, str]) -> str:
    count = "1 file" if len(files) == 1 else f"{len(files)} shards"
    return f"{count} of {' and '.join(sorted(set(types.values())))}"


def _network_name(config: Any) -> str:
    return WAVEFORM_MODELS.get(str(config.model_type), "Whisper")


def _upstream(address: str, model: Any, source: str, revision: str | None) -> Upstream:
    if model.config.model_type == WHISPER:
        from upstreams.loading import whisper_encoder

        return whisper_encoder.Whisper(address, model.encoder, source, revision)
    return _waveform_upstream(address, model, _load_preprocessor_config(source, revision))


def _waveform_upstream(address: str, model: Any, preprocessor: PreprocessorBounds) -> Upstream:
    name = WAVEFORM_MODELS[str(model.config.model_type)]
    card = Card(address, f"{name}, batch-invariant", 0, source=address, training_data="unknown: see its model card")
    upstream = Hubert(load_weights.card_with_sizes(card, model), model)
    if preprocessor.do_normalize is not None:
        upstream.normalise = preprocessor.do_normalize
    return upstream


def _load_config(source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    stored = hf_folders.read_config(source, revision)
    found = stored.get("model_type")
    if found not in (*WAVEFORM_MODELS, WHISPER):
        supported = ", ".join([*WAVEFORM_MODELS.values(), "Whisper"])
        address = f"hf:{source}" + (f"@{revision}" if revision else "")
        raise UserError(
            f"{address}: is a {shown(found)}, and these are supported: {supported}. Wrap it in your own FILE.py:Class."
        )
    config_bounds.check_config(stored, found, source)
    with building(source, "the config.json"):
        # An adapter shortens only the last state, and belongs to the task that a model was fine-tuned for.
        fixed = {"add_adapter": False, "return_dict": True}  # whatever the folder states: outputs are read by name
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False, **fixed)


def _random_model(config: Any, seed: int, source: str) -> Any:
    from transformers import AutoModel

    with building(source, f"a random {_network_name(config)}"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _load_preprocessor_config(source: str, revision: str | None) -> PreprocessorBounds:
    path, content = hf_folders.read_json(source, "preprocessor_config.json", revision)
    return config_bounds.validate(PreprocessorBounds, {} if content is None else content, path)
