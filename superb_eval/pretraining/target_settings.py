"""The recipe's section `targets`: what masked prediction predicts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from superb_eval.data.bounds import BatchFrames, LayerIndex, Tries, Weight, at_most, at_most_items
from superb_eval.data.recipe_sections import Section

Clusters = Annotated[int, Field(ge=2, le=65_535)]

SeveralClusters = Annotated[
    tuple[Clusters, ...], Field(min_length=1), at_most_items(32, "each has class embeddings in every prediction head")
]

ClustersOfCodebooks = Annotated[
    Annotated[Clusters, Tag("one codebook")] | Annotated[SeveralClusters, Tag("several codebooks")],
    Discriminator(lambda value: "several codebooks" if isinstance(value, list | tuple) else "one codebook"),
]

Stack = Annotated[int, Field(ge=1), at_most(100, "that is two seconds of audio")]

LATER_KEYS: dict[str, Any] = {"quantiser": "kmeans", "stack": 1}
"""Keys that the section got after labels were written, with their defaults."""


class CodebookSettings(Section):
    """Codes of MFCC (iteration 1) or log-mel, or of one layer of an upstream (iteration 2)."""

    section: ClassVar[str] = "targets.further"
    """Where these settings are in a recipe."""

    features: str = Field("mfcc", description="mfcc, log-mel (80 bands), or an upstream's address, hubert@FOLDER")
    layer: LayerIndex | None = Field(None, ge=0, description="of the upstream: which hidden state is quantised")
    quantiser: Literal["kmeans", "random"] = Field(
        "kmeans", description="kmeans, or random: the nearest of random vectors after a random projection (BEST-RQ)"
    )
    clusters: ClustersOfCodebooks = Field(
        100, description="of the quantiser; a list, such as [100, 500], has several codebooks predicted at once"
    )
    stack: Stack = Field(1, description="random: frames of 20 ms around each that are projected together")
    centre: Literal["none", "c0", "all"] = Field(
        "none", description="MFCC: whose mean over the clip is removed; log-mel: none or all"
    )
    weights: tuple[Weight, Weight, Weight, Weight] | None = Field(
        None, description="MFCC: standardised and weighted, C0 / C1-12 / deltas / delta-deltas; default: as they are"
    )
    fit_hours: Weight = Field(
        10.0, gt=0, description="hours of audio that the quantiser is fitted on, drawn by the seed"
    )
    batch_size: BatchFrames = Field(10_000, description="frames per batch of k-means")
    restarts: Tries = Field(20, description="initialisations of k-means that are tried")

    @model_validator(mode="after")
    def _options_of_its_kind(self) -> CodebookSettings:
        if self.stack > 1 and self.quantiser != "random":
            raise ValueError(
                f"{self.section}.stack={self.stack}: expected 1 with k-means; or set {self.section}.quantiser=random"
            )
        if self.features == "log-mel" and self.centre == "c0":
            raise ValueError(f"{self.section}.centre=c0: log-mel has no C0; expected none or all")
        return self

    def as_recorded(self) -> dict[str, Any]:
        """Return the settings as they are recorded beside labels: later keys where they differ from their defaults."""
        settings = self.model_dump(mode="json", include=set(CodebookSettings.model_fields))
        return {key: value for key, value in settings.items() if LATER_KEYS.get(key, ...) != value}


class TargetSettings(CodebookSettings):
    """The prediction targets."""

    section: ClassVar[str] = "targets"

    further: CodebookSettings | None = Field(
        None,
        description="codes of other features, or of another quantiser, that are predicted at once with these; "
        "default: none",
    )
