"""The outputs of each entry for fixed inputs are pinned: a change of them increments its features version.

`pinned_outputs.json` holds, by address and features version, a few numbers of each hidden state. Rewrite it by
`python tests/upstreams/test_pinned_outputs.py`, which leaves those of other versions unchanged. Other weights of a name
are another encoder: remove its entry first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model

from tests.upstreams.configs import LARGE, TINY
from upstreams import registry
from upstreams.base import Upstream, freeze
from upstreams.loading import identity, legacy_fingerprints
from upstreams.torchaudio import Torchaudio

PINNED = Path(__file__).with_name("pinned_outputs.json")

LENGTHS = (16_000, 9_600, 4_000)
"""In samples, together in one batch; the first also by itself."""

SHIPPED = {"fbank", "fbank_nonorm", "hubert_mini", "distilhubert_mini"}
"""Entries that need no checkpoint; the others are pinned with random weights of seed 0."""

EARLIER = {"fbank", "fbank_nonorm"}
"""Entries of the same features since fingerprints were made in another way. Processors draw random weights with other
last bits, and so with other fingerprints; the pair that is shipped is a later one."""

FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hf:hubert": ("HubertConfig", TINY),
    "hf:wav2vec2-large": ("Wav2Vec2Config", {**TINY, **LARGE}),
    "hf:wavlm": ("WavLMConfig", TINY),
    "hf:data2vec-audio": ("Data2VecAudioConfig", {**TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "hf:unispeech": ("UniSpeechConfig", TINY),
    "hf:unispeech-sat": ("UniSpeechSatConfig", TINY),
    "hf:whisper": (
        "WhisperConfig",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_source_positions": 100,
        },
    ),
}
"""Networks of transformers, tiny: the class of a config, and its sizes."""

TORCHAUDIO = "torchaudio:small"

NAMES = [
    *(card.name if card.name in SHIPPED else f"{card.name}@random" for card in registry.cards()),
    *FOLDERS,
    TORCHAUDIO,
]

REWRITE = f"python tests/upstreams/{Path(__file__).name}"


def load_entry(name: str, folder: Path) -> Upstream:
    if name == TORCHAUDIO:
        return small_bundle()
    if name not in FOLDERS:
        return registry.load(name)
    kind, sizes = FOLDERS[name]
    getattr(transformers, kind)(**sizes).save_pretrained(folder)
    return registry.load(f"hf:{folder}@random")


def small_bundle() -> Upstream:
    """Return torchaudio's HuBERT with two small layers."""
    params = {**pipelines.HUBERT_BASE._params, "encoder_embed_dim": 48, "encoder_num_layers": 2}
    params |= {"encoder_num_heads": 4, "encoder_ff_interm_features": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return freeze(Torchaudio(TORCHAUDIO, wav2vec2_model(**params), normalise=True))


def summary(upstream: Upstream) -> list[list[float]]:
    """Return a few numbers of each valid hidden state: mean, standard deviation, and some values of a middle frame."""
    rows = []
    with torch.inference_mode():
        for wavs in ([identity.probe_waveform(LENGTHS[0])], [identity.probe_waveform(length) for length in LENGTHS]):
            for state in upstream(wavs)["hidden_states"]:
                for k, wav in enumerate(wavs):
                    valid = state[k, : upstream.frames(len(wav))]
                    values = [valid.mean(), valid.std(), *valid[len(valid) // 2, :3]]
                    rows.append([float(f"{value:.5g}") for value in values])
    return rows


def key(name: str, upstream: Upstream) -> str:
    return f"{name} version {upstream.card.features_version}"


SLOW = {"hubert_base@random"}
"""Of the size of HuBERT Base, and the same as `hubert`."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES])
def test_outputs_change_with_the_features_version_alone(name: str, tmp_path: Path) -> None:
    upstream = load_entry(name, tmp_path)
    pinned = json.loads(PINNED.read_text(encoding="utf8")).get(key(name, upstream))
    assert pinned is not None, f"{name}: its outputs aren't pinned yet. Run `{REWRITE}`."
    found = torch.tensor(summary(upstream))
    assert torch.allclose(found, torch.tensor(pinned), rtol=1e-3, atol=1e-3), (
        f"{name}: its outputs are no longer those of features version {upstream.card.features_version}. "
        f"Raise `features_version` in its card, then run `{REWRITE}`."
    )
    if name in EARLIER:
        assert legacy_fingerprints.legacy(upstream.fingerprint()), (
            f"{name}: features stored before are no longer found."
        )


def write(folder: Path) -> None:
    """Pin the entries' current outputs, where none are pinned for their features version."""
    pinned = json.loads(PINNED.read_text(encoding="utf8")) if PINNED.is_file() else {}
    for name in NAMES:
        upstream = load_entry(name, folder / name.replace(":", "-"))
        pinned.setdefault(key(name, upstream), summary(upstream))
    lines = ",\n".join(f'"{name}": {json.dumps(rows)}' for name, rows in sorted(pinned.items()))
    PINNED.write_text(f"{{\n{lines}\n}}\n", encoding="utf8")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
