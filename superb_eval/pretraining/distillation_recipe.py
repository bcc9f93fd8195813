"""What a distillation recipe holds: teacher, student and loss. Data and optimiser are as in pre-training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from superb_eval.pretraining.recipe import DataSettings, OptimSettings, ProbeSettings
from superb_eval.recipe import Section

Part = Literal["convolution", "encoder", "norms"]


class TeacherSettings(Section):
    """Who is imitated."""

    address: str | None = Field(None, description="an upstream's address; --teacher says it too")
    precision: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the teacher")
    dropout: bool = Field(False, description="leave the teacher's dropout on, as s3prl's runner does")
    stored: bool = Field(
        False,
        description="let it hear each clip once, whole, and keep what is predicted in the feature store, as far as "
        "there is room; crops of longer clips then know of what is around them",
    )


class StudentSettings(Section):
    """The network. A size that isn't given is the teacher's, or HuBERT Base's where the teacher is no HuBERT."""

    layers: int = Field(2, ge=1, description="transformer layers")
    hidden: int | None = Field(None, ge=1, description="width of the transformer")
    heads: int | None = Field(None, ge=1, description="attention heads")
    feed_forward: int | None = Field(None, ge=1, description="width of the feed-forward layers")
    conv: tuple[int, ...] | None = Field(None, min_length=7, max_length=7, description="channels of the convolutions")
    projection_norm: bool = Field(False, description="LayerNorm between convolutions and projection; the paper: none")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformer layers and on their attention")
    initialise: tuple[Part, ...] = Field(
        ("convolution", "encoder"),
        description="what is copied from the teacher: convolution (and projection), encoder (positional convolution "
        "and the first layers), norms (the LayerNorms beside them, which s3prl leaves out); []: nothing",
    )


class DistillationSettings(Section):
    """The loss of a frame: l1 x L1 / D + l2 x L2 / D + cosine x -log sigmoid(cos), averaged over predicted layers."""

    layers: tuple[int, ...] = Field((4, 8, 12), min_length=1, description="hidden states of the teacher to predict")
    l1: float = Field(1.0, ge=0, description="weight of the mean absolute difference")
    l2: float = Field(0.0, ge=0, description="weight of the mean squared difference")
    cosine: float = Field(1.0, ge=0, description="weight of -log sigmoid of the cosine similarity: the paper's lambda")
    standardise: int = Field(
        0,
        ge=0,
        description="batches over which each dimension of the targets is standardised; 0: predicted as they are",
    )
    padding: bool = Field(
        False,
        description="as in s3prl: padded frames count, in the loss and in the first normalisation, and teachers hear "
        "padded batches",
    )


class DistillationRecipe(Section):
    """Layer-wise distillation of any upstream into a small HuBERT."""

    seed: int = Field(0, ge=0, description="of heads, data order and dropout")
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    loss: DistillationSettings = DistillationSettings()
    data: DataSettings
    optim: OptimSettings
    probe: ProbeSettings | None = Field(None, description="dev probes on the way; default: none")
    notes: tuple[str, ...] = Field((), description="where this recipe departs from the paper, in words")
