"""Files of weights, opened by what they hold, at `checkpoint:FILE` and `checkpoint:FILE#PREFIX`.

HuBERT, wav2vec 2.0 and WavLM in the layouts of fairseq, s3prl, Microsoft, torchaudio and transformers, and state dicts
under any prefix, as training scripts save them; see `upstreams.loading.checkpoint_conversion`. No code of a file is
ever run. `PREFIX` names one network where a file holds several, such as `student`, `teacher` or `ema`; `#heads=8`
states the number of attention heads of weights that come without settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from superb_eval.errors import UserError
from upstreams import hf
from upstreams.base import Card, Upstream
from upstreams.distilhubert import DistilHubert
from upstreams.hubert import Hubert
from upstreams.loading.checkpoint_conversion import ARCHITECTURES
from upstreams.loading.load_weights import OpenedCheckpoint, card_with_sizes, open_checkpoint, split_selection
from upstreams.loading.state_dict_model import random_network
from upstreams.loading.state_dicts import Selection

_WEIGHTS_OF_FOLDERS = {"model.safetensors", "pytorch_model.bin"}
"""transformers' names of a folder's weights, whose settings lie in its config.json."""


@dataclass(frozen=True)
class CheckpointDescription:
    """What a file of weights is."""

    path: Path
    layout: str
    """Whose layout it is in, such as "fairseq's fine-tuned HuBERT"."""
    architecture: str
    """The network's published name."""
    layers: int
    """The number of transformer layers; hidden states are one more."""
    width: int
    parameters: int
    """Of the encoder alone."""
    convolutions: str
    """(channels, kernel, stride) of each."""
    normalise: bool
    """Whether waveforms are normalised to zero mean and unit variance."""
    prefix: str
    """What comes before the names of the encoder's weights."""
    left_out: tuple[str, ...]
    """Modules beside the encoder, such as a CTC head."""
    foreign: tuple[str, ...]
    """Classes of other libraries in its pickle, which were read past."""
    notes: tuple[str, ...]
    """What the file doesn't state."""
    address: str
    """What opens it."""


def open_address(name: str, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open a file of weights by what it holds; with a seed, its network gets random weights.

    Raises:
        UserError: there is no such file, it holds no supported network, several, or not all of one's weights, or its
            pickle names what could run code.
    """
    source = f"{name}@{checkpoint}" if checkpoint else name
    path, selection = _file(source)
    if _is_of_a_folder(path, selection):
        return hf.open_address(str(path.parent), None, seed)
    opened = open_checkpoint(path, selection)
    if seed is not None:
        opened = replace(opened, model=random_network(opened.checkpoint.architecture, opened.model.config, seed))
    return _upstream(opened, source)


def describe(source: str) -> CheckpointDescription:
    """Return what the file of `FILE` or `FILE#PREFIX` is, by opening it.

    Raises:
        UserError: as `open_address`.
    """
    path, selection = _file(source)
    if _is_of_a_folder(path, selection):
        raise UserError(f"{source}: is the file of weights of a folder in transformers' layout. Give hf:{path.parent}.")
    opened = open_checkpoint(path, selection)
    upstream = _upstream(opened, source)
    found, config = opened.checkpoint, opened.model.config
    convolutions = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
    return CheckpointDescription(
        path=path,
        layout=found.layout,
        architecture=_published_name(found.architecture, isinstance(upstream, DistilHubert)),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=upstream.card.parameters,
        convolutions=" ".join(f"({channels}, {kernel}, {stride})" for channels, kernel, stride in convolutions),
        normalise=upstream.normalise,
        prefix=found.prefix,
        left_out=found.left_out,
        foreign=opened.foreign,
        notes=opened.notes,
        address=upstream.card.name,
    )


def _file(source: str) -> tuple[Path, Selection]:
    file = split_selection(source)
    if file is None:
        path = source.partition("#")[0]
        advice = f"It is a folder: write hf:{path}." if os.path.isdir(path) else "Give the path of a file of weights."
        raise UserError(f"checkpoint:{source}: there is no such file. {advice}")
    return file


def _is_of_a_folder(path: Path, selection: Selection) -> bool:
    plain = path.name in _WEIGHTS_OF_FOLDERS and selection == Selection()
    return plain and (path.parent / "config.json").is_file()


def _upstream(opened: OpenedCheckpoint, source: str) -> Hubert:
    found = opened.checkpoint
    student = not getattr(opened.model.config, "feat_proj_layer_norm", True)
    card = Card(
        name=f"checkpoint:{source}",
        summary=f"{_published_name(found.architecture, student)}, batch-invariant",
        stride=0,
        source=f"{Path(source).name} ({found.layout})",
        training_data="unknown: the file doesn't state it",
        notes=opened.notes,
    )
    upstream = (DistilHubert if student else Hubert)(card_with_sizes(card, opened.model), opened.model)
    if opened.normalise is not None:
        upstream.normalise = opened.normalise
    return upstream


def _published_name(architecture: str, student: bool) -> str:
    return "DistilHuBERT" if student else ARCHITECTURES[architecture]
