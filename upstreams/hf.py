"""Encoders of Hugging Face's transformers, at `hf:ORG/MODEL`, `hf:ORG/MODEL@REVISION` and `hf:FOLDER`.

HuBERT, wav2vec 2.0, WavLM, data2vec-audio, UniSpeech and UniSpeech-SAT share a front end and use the batch-invariant
forward pass of `upstreams.hubert`; Whisper's encoder has its own. The folder's preprocessor_config.json decides
whether waveforms are normalised, as in transformers' own feature extractors; 1e-5 is added to the variance, as in
training (fairseq), where those add 1e-7. Code that comes with weights is never run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from superb_eval.errors import UserError
from upstreams.base import Card, Upstream
from upstreams.hubert import Hubert
from upstreams.loading import hf_folders, load_weights

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


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a folder in transformers' layout or a hub id; `checkpoint` is a revision on the hub.

    With a seed, the network of the folder's config.json gets random weights.

    Raises:
        UserError: nothing can be loaded from there, or its architecture isn't supported.
    """
    full_name = f"{name}@{checkpoint}"
    source, revision = (full_name, None) if checkpoint and Path(full_name).is_dir() else (name, checkpoint)
    address = f"hf:{source}" + (f"@{revision}" if revision else "")
    config = _load_config(source, revision)
    model_type = str(config.model_type)
    if model_type not in {*WAVEFORM_MODELS, WHISPER}:
        supported = ", ".join([*WAVEFORM_MODELS.values(), "Whisper"])
        raise UserError(
            f"{address}: is a {model_type}, and these are supported: {supported}. Wrap it in your own FILE.py:Class."
        )
    if seed is not None:
        model = _random_model(config, seed)
    else:
        network = WAVEFORM_MODELS.get(model_type, "Whisper")
        model = hf_folders.from_pretrained(source, network, config=config, revision=revision)
    if model_type == WHISPER:
        from upstreams.loading import whisper_encoder

        return whisper_encoder.Whisper(address, model.encoder, source, revision)
    return _waveform_upstream(address, model, _load_preprocessor_config(source, revision))


def _waveform_upstream(address: str, model: Any, preprocessor: dict[str, Any]) -> Upstream:
    name = WAVEFORM_MODELS[str(model.config.model_type)]
    card = Card(address, f"{name}, batch-invariant", 0, source=address, training_data="unknown: see its model card")
    upstream = Hubert(load_weights.card_with_sizes(card, model), model)
    if "do_normalize" in preprocessor:
        upstream.normalise = bool(preprocessor["do_normalize"])
    return upstream


def _load_config(source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    with hf_folders.explain_load_errors(source, "the config.json"):
        # An adapter shortens only the last state, and belongs to the task that a model was fine-tuned for.
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False, add_adapter=False)


def _random_model(config: Any, seed: int) -> Any:
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(config, dtype=torch.float32)


def _load_preprocessor_config(source: str, revision: str | None) -> dict[str, Any]:
    """Return the content of the folder's preprocessor_config.json; empty where there is none."""
    from transformers.utils import cached_file

    path = cached_file(
        source, "preprocessor_config.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON: {error}. Repair or remove it.") from error
    return content if isinstance(content, dict) else {}
