"""Encoders of Hugging Face's transformers, at `hf:ORG/MODEL`, `hf:ORG/MODEL@REVISION` and `hf:FOLDER`.

HuBERT, wav2vec 2.0, WavLM, data2vec-audio, UniSpeech and UniSpeech-SAT share a front end and take the batch-invariant
path of `upstreams.hubert`; Whisper's encoder has its own. The folder's preprocessor_config.json says whether
waveforms are normalised, as transformers' own feature extractors have it; 1e-5 is added to the variance, as in training
(fairseq), where those add 1e-7. Code that comes with weights is never run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from superb_eval.errors import UserError
from upstreams.base import Card, Upstream
from upstreams.hubert import Hubert
from upstreams.loading import load_weights

WAVEFORM = {
    "data2vec-audio": "data2vec-audio",
    "hubert": "HuBERT",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeech-SAT",
    "wav2vec2": "wav2vec 2.0",
    "wavlm": "WavLM",
}
"""What transformers calls the kinds of network that hear waveforms through HuBERT's front end, and we in words."""

WHISPER = "whisper"


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a folder in transformers' layout or a hub id; `checkpoint` is a revision on the hub.

    With a seed, the network of the folder's config.json is given random weights.

    Raises:
        UserError: nothing can be opened there, or it is of a kind that isn't known here.
    """
    whole = f"{name}@{checkpoint}"
    place, revision = (whole, None) if checkpoint and Path(whole).is_dir() else (name, checkpoint)
    address = f"hf:{place}" + (f"@{revision}" if revision else "")
    config = _config(place, revision)
    kind = str(config.model_type)
    if kind not in {*WAVEFORM, WHISPER}:
        known = ", ".join([*WAVEFORM.values(), "Whisper"])
        raise UserError(
            f"{address}: is a {kind}, and these are known: {known}. Wrap it in a class of yours: FILE.py:Class."
        )
    model = (
        _random(config, seed)
        if seed is not None
        else load_weights.from_pretrained(place, WAVEFORM.get(kind, kind), config=config, revision=revision)
    )
    if kind == WHISPER:
        from upstreams.loading import whisper_encoder

        return whisper_encoder.Whisper(address, model.encoder, place, revision)
    return _hears_waveforms(address, model, _preprocessor(place, revision))


def _hears_waveforms(address: str, model: Any, preprocessor: dict[str, Any]) -> Upstream:
    name = WAVEFORM[str(model.config.model_type)]
    card = Card(address, f"{name}, batch-invariant", 0, source=address, training_data="unknown: see its model card")
    upstream = Hubert(load_weights.fitted(card, model), model)
    if "do_normalize" in preprocessor:
        upstream.normalise = bool(preprocessor["do_normalize"])
    return upstream


def _config(place: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    with load_weights.explained(place, "the config.json"):
        # An adapter shortens the last state alone: it belongs to the task that a model was trained for.
        return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False, add_adapter=False)


def _random(config: Any, seed: int) -> Any:
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(config, dtype=torch.float32)


def _preprocessor(place: str, revision: str | None) -> dict[str, Any]:
    """Return what the folder's preprocessor_config.json says; nothing where there is none."""
    from transformers.utils import cached_file

    path = cached_file(
        place, "preprocessor_config.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}. Repair or remove it.") from error
    return content if isinstance(content, dict) else {}
