"""What pre-training and distillation recipes hold: data, optimiser, and the settings of HuBERT's masked prediction.

No recipe names a place on somebody's disk: a source is called by a name, and `--data name=PATH` says where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from superb_eval import recipe
from superb_eval.errors import UserError, near_miss
from superb_eval.recipe import Section

KINDS = ("corpus", "librispeech", "folder", "manifest", "synthetic")
"""What a source may be."""


class Source(Section):
    """Some unlabelled audio. Exactly one of the kinds is given."""

    corpus: str | None = Field(
        None, description="manifest corpus: the training rows of every task, less all files that any task holds out"
    )
    librispeech: str | None = Field(None, description="LibriSpeech root; its train-* folders are read")
    folder: str | None = Field(None, description="any folder of audio, searched through")
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
        """Which kind it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def place(self) -> str:
        """What is behind the kind: a path, or a name that `--data` gives one to."""
        return str(getattr(self, self.kind))

    @property
    def name(self) -> str:
        """What `--data NAME=PATH` calls it."""
        return "synthetic" if self.kind == "synthetic" else self.place


class DataSettings(Section):
    """Which audio is heard, and how it is cut into batches."""

    sources: tuple[Source, ...] = Field(min_length=1, description="unlabelled audio, mixed clip by clip")
    exclude: tuple[str, ...] = Field(
        (), description="manifest files, or corpora whose dev and test rows, name files never to be heard (by content)"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of all clips to use, drawn once by the seed")
    min_seconds: float = Field(2.0, ge=0.05, description="shorter clips are left out")
    max_seconds: float | None = Field(None, gt=0, description="longer clips are left out; default: none are")
    crop_seconds: float = Field(15.625, gt=0, description="longer clips are cut at random, anew at each draw")
    batch_seconds: float = Field(
        87.5, gt=0, description="bound on the padded length of a batch over all devices together, in s"
    )
    batch_clips: int | None = Field(None, ge=1, description="bound on the clips of such a batch too; default: none")
    memory_gb: float = Field(4.0, ge=0, description="audio that fits into so much memory (16 bit) is kept there")


class OptimSettings(Section):
    """AdamW with linear warm-up and linear decay. A step is an update of the optimiser."""

    steps: int = Field(ge=1, description="updates")
    lr: float = Field(5e-4, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    eps: float = Field(1e-6, gt=0, description="of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW, on every weight")
    warmup: float = Field(0.08, ge=0, lt=1, description="share of the steps in which the rate rises from 0")
    clip: float = Field(10.0, gt=0, description="bound on the global gradient norm")
    accumulate: int = Field(1, ge=1, description="batches per update")
    front_lr: float = Field(
        1.0, ge=0, description="factor on the rate of the convolutions; Adam hardly feels a factor on their gradients"
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic; bf16 keeps float32 weights")
    log_every: int = Field(50, ge=1, description="updates between lines of the log")
    save_minutes: float = Field(5.0, ge=0, description="minutes between checkpoints; 0: after every update")


class NetworkSettings(Section):
    """The network: transformers' HubertConfig, of which a few sizes are named and the rest may be given."""

    hidden: int = Field(768, ge=1, description="width of the transformer")
    layers: int = Field(12, ge=1, description="transformer layers")
    heads: int = Field(12, ge=1, description="attention heads")
    feed_forward: int = Field(3072, ge=1, description="width of the feed-forward layers")
    conv: tuple[int, ...] = Field((512,) * 7, min_length=7, max_length=7, description="channels of the convolutions")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformer, on its attention and on its input")
    layerdrop: float = Field(0.05, ge=0, lt=1, description="probability that a layer is skipped")
    more: dict[str, Any] = Field(default_factory=dict, description="other entries of HubertConfig, as they are called")


class MaskSettings(Section):
    """Spans of frames that are replaced by a learned vector (fairseq's `compute_mask_indices`, static lengths)."""

    probability: float = Field(0.08, gt=0, lt=1, description="spans per frame: fairseq's mask_prob over mask_length")
    length: int = Field(10, ge=1, description="frames of a span; spans may overlap")
    minimum: int = Field(2, ge=1, description="spans of a clip at least")


class PredictSettings(Section):
    """The loss: cosine to class embeddings over a temperature, cross-entropy on masked and, if wished, other frames."""

    width: int = Field(256, ge=1, description="of class embeddings")
    temperature: float = Field(0.1, gt=0, description="the cosine is divided by it")
    unmasked: tuple[float, float] = Field(
        (0.0, 0.0), description="weight of the loss on unmasked frames, first and last; linear in between"
    )
    penalty: float = Field(10.0, ge=0, description="weight of the mean square of the convolutions' output")


class TargetSettings(Section):
    """What is predicted: clusters of MFCC (iteration 1), or of one layer of an upstream (iteration 2)."""

    features: str = Field("mfcc", description="mfcc, or an upstream's address such as hubert@FOLDER")
    layer: int | None = Field(None, ge=0, description="of the upstream: which hidden state is clustered")
    clusters: int = Field(100, ge=2, le=65_535, description="of k-means")
    centre: Literal["none", "c0", "all"] = Field("none", description="MFCC: whose mean over the clip is removed")
    weights: tuple[float, float, float, float] | None = Field(
        None, description="MFCC: standardised and weighted, C0 / C1-12 / deltas / delta-deltas; default: as they are"
    )
    fit_hours: float = Field(10.0, gt=0, description="hours of audio that k-means is fitted on, drawn by the seed")
    batch_size: int = Field(10_000, ge=1, description="frames per batch of k-means")
    restarts: int = Field(20, ge=1, description="initialisations of k-means that are tried")


class FrontSettings(Section):
    """Warm start: the convolutions learn to give a log-mel spectrogram by regression, before masked prediction."""

    optim: OptimSettings = Field(description="as the recipe's own, whose precision is used here too")
    mels: int = Field(80, ge=8, description="mel bands")


class ProbeSettings(Section):
    """A quick probe on dev every now and then, to see the encoder become useful and to choose a checkpoint."""

    every: int = Field(ge=1, description="updates between probes")
    tasks: tuple[str, ...] = Field(("ks", "pr"), min_length=1, description="tasks, each by its nano recipe")
    data: str | None = Field(None, description="name of a folder of manifests; default: the embedded corpus")
    overrides: tuple[str, ...] = Field((), description="changes to the tasks' recipes, such as train.steps=100")
    chooses: bool = Field(True, description="what scored best on dev is exported; false: what came last")


class PretrainRecipe(Section):
    """HuBERT pre-training: one iteration."""

    seed: int = Field(0, ge=0, description="of initialisation, data order, masks and clusters")
    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    front: FrontSettings | None = Field(None, description="warm start of the convolutions; default: none")
    targets: TargetSettings = TargetSettings()
    mask: MaskSettings = MaskSettings()
    predict: PredictSettings = PredictSettings()
    optim: OptimSettings
    probe: ProbeSettings | None = Field(None, description="dev probes on the way; default: none")
    notes: tuple[str, ...] = Field((), description="where this recipe departs from the paper, in words")


Settings = TypeVar("Settings", bound=Section)


def load(name: str, folder: str, schema: type[Settings], overrides: Sequence[str] = ()) -> Settings:
    """Read a recipe by its path, or by its name in `recipes/FOLDER`, and apply overrides such as `optim.steps=100`.

    Raises:
        UserError: one sentence per fault, near misses of unknown keys included.
    """
    return recipe.resolve(recipe.find(name, folder), overrides, schema)


def places(given: Sequence[str], settings: DataSettings, probe: ProbeSettings | None = None) -> dict[str, Path]:
    """Return where sources, and the probe's corpus, lie from `--data NAME=PATH` options.

    Raises:
        UserError: no such form, or no source of that name in the recipe.
    """
    known = [source.name for source in settings.sources] + list(settings.exclude)
    known += [probe.data] if probe is not None and probe.data else []
    found = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            raise UserError(f"--data {text}: expected NAME=PATH, with a NAME that the recipe uses: {', '.join(known)}.")
        if name not in known:
            raise UserError(
                f"--data {text}: the recipe has no source '{name}'.{near_miss(name, known)} Known: {', '.join(known)}."
            )
        found[name] = Path(path)
    return found


def place(name: str, named: Mapping[str, Path]) -> Path:
    """Return where a source lies: as `--data` says, else its name taken for a path.

    Raises:
        UserError: nothing is there.
    """
    path = named.get(name, Path(name))
    if not path.exists():
        raise UserError(f"{path}: no such source of audio. Say where it lies: --data {name}=PATH.")
    return path
