"""Recipes of pre-training and distillation: data, network, loss, optimiser.

No recipe contains a path of somebody's disk: each source has a name, and `--data NAME=PATH` gives its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from superb_eval import recipe
from superb_eval.data.bounds import (
    BatchCount,
    BatchSize,
    Count,
    Depth,
    Rate,
    Seconds,
    Seed,
    StateIndex,
    Updates,
    Weight,
    Width,
    at_most,
    at_most_items,
)
from superb_eval.data.recipe_sections import Section
from superb_eval.pretraining.probe_settings import ProbeSettings
from superb_eval.pretraining.target_settings import TargetSettings

KINDS = ("corpus", "librispeech", "folder", "manifest", "synthetic")
"""Kinds of sources."""

Part = Literal["convolution", "encoder", "norms"]
"""Parts of a student that may be copied from its teacher."""

Beta = Annotated[float, Field(ge=0, lt=1)]
"""A decay rate of Adam's moments."""
Decibels = Annotated[float, Field(ge=-100, le=100)]
BatchSeconds = Annotated[float, Field(gt=0), at_most(10**6, "a batch lies in memory as a whole")]


class Source(Section):
    """One source of unlabelled audio. Exactly one of the kinds is given."""

    corpus: str | None = Field(
        None, description="manifest corpus: the training rows of every task, less all files that any task holds out"
    )
    librispeech: str | None = Field(None, description="LibriSpeech root; its train-* folders are read")
    folder: str | None = Field(None, description="any folder of audio, searched recursively")
    manifest: str | None = Field(None, description="one CSV or Parquet file with a column path, relative to the file")
    synthetic: str | None = Field(None, description="SIZE or SIZE/SEED of the embedded unlabelled speech: nano, mini")
    parts: tuple[str, ...] = Field((), description="of a librispeech: folders such as train-clean-100; default: all")
    share: float = Field(1.0, gt=0, le=1, description="share of its clips to use, drawn once by the seed")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"a source is exactly one of {', '.join(KINDS)}, such as 'folder: speech'")
        if self.parts and self.librispeech is None:
            raise ValueError(f"parts: only a librispeech has some; of a {self.kind}, use share or another {self.kind}")
        return self

    @property
    def kind(self) -> str:
        """Return the kind of this source, one of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def location(self) -> str:
        """Return the value of the kind: a path, or a name that `--data` gives a path to."""
        return str(getattr(self, self.kind))

    @property
    def name(self) -> str:
        """Return the NAME of this source in `--data NAME=PATH`."""
        return "synthetic" if self.kind == "synthetic" else self.location


class MixSettings(Section):
    """What is mixed into crops: speech of another clip, or noise, in at most half of a crop."""

    probability: float = Field(0.2, gt=0, le=1, description="share of crops that something is mixed into")
    noise: float = Field(0.1, ge=0, le=1, description="share of these that get noise; the others another clip's speech")
    speech_db: tuple[Decibels, Decibels] = Field(
        (-5.0, 5.0), description="bounds of the power of a crop over that of the other speech, in dB"
    )
    noise_db: tuple[Decibels, Decibels] = Field((-5.0, 20.0), description="the same over that of noise")


class DataSettings(Section):
    """The training audio, and how it is cropped and batched."""

    sources: tuple[Source, ...] = Field(min_length=1, description="unlabelled audio, mixed clip by clip")
    exclude: tuple[str, ...] = Field(
        (), description="manifest files, or corpora whose dev and test rows, name files never to train on (by content)"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of all clips to use, drawn once by the seed")
    min_seconds: Seconds = Field(2.0, ge=0.05, description="shorter clips are left out")
    max_seconds: Seconds | None = Field(None, gt=0, description="longer clips are left out; default: none are")
    join_seconds: Seconds | None = Field(
        None,
        gt=0,
        description="clips are joined at random, once by the seed, until they are as long, since many short rows "
        "cost a GPU more than few long ones; needs the audio in memory; default: none are",
    )
    crop_seconds: Seconds = Field(15.625, ge=0.05, description="longer clips are cropped at random, anew in each epoch")
    batch_seconds: BatchSeconds = Field(
        87.5,
        description="bound on the padded length of a batch over all devices together, in s; on a GPU it is "
        "padded further to one of few shapes, by up to 30 % where clips have a second or more",
    )
    batch_clips: BatchSize | None = Field(None, description="bound on the clips of such a batch too; default: none")
    mix: MixSettings | None = Field(None, description="utterance mixing, as WavLM's; default: none")
    memory_gb: float = Field(
        4.0, ge=0, le=10**6, description="audio that fits into this memory (as 16 bit) is cached there"
    )


class OptimSettings(Section):
    """AdamW with linear warm-up and linear decay. A step is an update of the optimiser."""

    steps: Updates = Field(description="updates")
    lr: Rate = Field(5e-4, description="peak learning rate")
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), description="of AdamW")
    eps: float = Field(1e-6, gt=0, le=1, description="of AdamW")
    weight_decay: Weight = Field(0.01, ge=0, description="of AdamW, on every weight")
    warmup: float = Field(0.08, ge=0, lt=1, description="share of the steps in which the rate rises from 0")
    clip: float = Field(10.0, gt=0, description="bound on the global gradient norm")
    accumulate: BatchCount = Field(1, ge=1, description="batches per update")
    front_lr: Weight = Field(
        1.0,
        ge=0,
        description="factor on the rate of the convolutions; Adam is nearly invariant to a factor on their gradients; "
        "0: they are frozen, and cost no backward pass",
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic; bf16 keeps float32 weights")
    log_every: Updates = Field(50, description="updates between lines of the log")
    save_minutes: float = Field(5.0, ge=0, le=10**6, description="minutes between checkpoints; 0: after every update")


class NetworkSettings(Section):
    """The network: transformers' HubertConfig; the common sizes have names here, `more` gives the rest."""

    hidden: Width = Field(768, description="width of the transformer")
    layers: Depth = Field(12, ge=1, description="transformer layers")
    heads: Width = Field(12, description="attention heads")
    feed_forward: Width = Field(3072, description="width of the feed-forward layers")
    conv: tuple[Width, ...] = Field((512,) * 7, min_length=7, max_length=7, description="channels of the convolutions")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformer, on its attention and on its input")
    layerdrop: float = Field(0.05, ge=0, lt=1, description="probability that a layer is skipped")
    more: dict[str, Any] = Field(default_factory=dict, description="other entries of HubertConfig, by their own names")
    initialise: str | None = Field(
        None,
        description="an encoder of the same settings, hubert@FOLDER, whose weights training begins with; "
        "default: random weights",
    )

    @model_validator(mode="after")
    def _whole_heads(self) -> NetworkSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is no multiple of heads={self.heads}; each head has an equal share")
        return self


class MaskSettings(Section):
    """Spans of frames that are replaced by a learned vector (fairseq's `compute_mask_indices`, static lengths)."""

    probability: float = Field(0.08, gt=0, lt=1, description="spans per frame: fairseq's mask_prob over mask_length")
    length: Count = Field(10, ge=1, description="frames of a span; spans may overlap")
    minimum: Count = Field(2, ge=1, description="spans of a clip at least")


class PredictSettings(Section):
    """The loss: cosine to class embeddings over a temperature, cross-entropy on masked and, if set, other frames."""

    layers: tuple[Depth, ...] = Field(
        (),
        description="layers that predict the targets, ascending from 1 and with the last, each by a head of its own; "
        "default: the last alone, as in the paper",
    )
    width: Width = Field(256, description="of class embeddings")
    temperature: Weight = Field(0.1, gt=0, description="the cosine is divided by it")
    unmasked: tuple[Weight, Weight] = Field(
        (0.0, 0.0), description="weight of the loss on unmasked frames, first and last; linear in between"
    )
    penalty: Weight = Field(10.0, ge=0, description="weight of the mean square of the convolutions' output")


class FrontSettings(Section):
    """Warm start: the convolutions are trained to regress a log-mel spectrogram, before masked prediction."""

    optim: OptimSettings = Field(description="as the recipe's own, whose precision is used here too")
    mels: int = Field(80, ge=8, le=200, description="mel bands")
    batch_seconds: BatchSeconds | None = Field(
        None,
        description="as data.batch_seconds, of the warm start alone: how well the convolutions regress depends on "
        "the number of updates more than on their length; default: data.batch_seconds",
    )


class PretrainRecipe(Section):
    """HuBERT pre-training: one iteration."""

    seed: Seed = Field(0, description="of initialisation, data order, masks and clusters")
    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    front: FrontSettings | None = Field(None, description="warm start of the convolutions; default: none")
    targets: TargetSettings = TargetSettings()
    mask: MaskSettings = MaskSettings()
    predict: PredictSettings = PredictSettings()
    optim: OptimSettings
    probe: ProbeSettings | None = Field(None, description="probes during training; default: none")
    notes: tuple[str, ...] = Field((), description="deviations from the paper, in words")

    @model_validator(mode="after")
    def _layers_that_exist(self) -> PretrainRecipe:
        layers, last = self.predict.layers, self.network.layers
        if layers and (sorted(set(layers)) != list(layers) or layers[0] < 1 or layers[-1] != last):
            raise ValueError(f"predict.layers: expected ascending layers from 1 to {last}, the last one included")
        if self.probe is not None:
            self.probe.check_layers(last)
        return self

    @model_validator(mode="after")
    def _crops_that_fit(self) -> PretrainRecipe:
        seconds = None if self.front is None else self.front.batch_seconds
        if seconds is not None and seconds < self.data.crop_seconds:
            raise ValueError(
                f"front.batch_seconds={seconds:g} can't hold a crop of data.crop_seconds={self.data.crop_seconds:g}"
            )
        return self


class TeacherSettings(Section):
    """The frozen teacher."""

    address: str | None = Field(None, description="an upstream's address; --teacher sets it too")
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the teacher")
    dropout: bool = Field(False, description="leave the teacher's dropout on, as s3prl's runner does")
    stored: bool = Field(
        False,
        description="run it once on each whole clip and store the predicted layers in the feature store, as far as "
        "there is space; targets of crops then have the context of the whole clip",
    )


class StudentSettings(Section):
    """The network. A size that isn't given is the teacher's, or HuBERT Base's where the teacher is no HuBERT."""

    layers: Depth = Field(2, ge=1, description="transformer layers")
    hidden: Width | None = Field(None, description="width of the transformer")
    heads: Width | None = Field(None, description="attention heads")
    feed_forward: Width | None = Field(None, description="width of the feed-forward layers")
    conv: tuple[Width, ...] | None = Field(None, min_length=7, max_length=7, description="channels of the convolutions")
    projection_norm: bool = Field(False, description="LayerNorm between convolutions and projection; the paper: none")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformer layers and on their attention")
    initialise: tuple[Part, ...] = Field(
        ("convolution", "encoder"),
        description="copied from the teacher: convolution (and projection), encoder (positional convolution "
        "and the first layers), norms (their LayerNorms, which s3prl leaves out); []: nothing",
    )


class DistillationSettings(Section):
    """The loss of a frame: l1 x L1 / D + l2 x L2 / D + cosine x -log sigmoid(cos), averaged over predicted layers."""

    layers: Annotated[tuple[StateIndex, ...], at_most_items(100, "each is predicted by a head of its own")] = Field(
        (4, 8, 12), min_length=1, description="hidden states of the teacher to predict"
    )
    l1: Weight = Field(1.0, ge=0, description="weight of the mean absolute difference")
    l2: Weight = Field(0.0, ge=0, description="weight of the mean squared difference")
    cosine: Weight = Field(1.0, ge=0, description="weight of -log sigmoid of the cosine similarity: the paper's lambda")
    standardise: Count = Field(
        0,
        ge=0,
        description="batches over which each dimension of the targets is standardised; 0: predicted as they are",
    )
    padding: bool = Field(
        False,
        description="as in s3prl: padded frames count, in the loss and in the first normalisation, and teachers "
        "process padded batches",
    )


class DistillationRecipe(Section):
    """Layer-wise distillation of any upstream into a small HuBERT."""

    seed: Seed = Field(0, description="of heads, data order and dropout")
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    loss: DistillationSettings = DistillationSettings()
    data: DataSettings
    optim: OptimSettings
    probe: ProbeSettings | None = Field(None, description="probes during training; default: none")
    notes: tuple[str, ...] = Field((), description="deviations from the paper, in words")

    @model_validator(mode="after")
    def _layers_of_the_student(self) -> DistillationRecipe:
        if self.probe is not None:
            self.probe.check_layers(self.student.layers)
        return self


AnyRecipe = TypeVar("AnyRecipe", bound=Section)


def load(name: str, folder: str, schema: type[AnyRecipe], overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe by its path, or by its name in `recipes/FOLDER`, and apply overrides such as `optim.steps=100`.

    Raises:
        UserError: one sentence per fault, near misses of unknown keys included.
    """
    return recipe.resolve(recipe.find(name, folder), overrides, schema)
