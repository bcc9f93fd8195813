"""The section `probe` of a recipe: how an encoder is probed while it is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from superb_eval.data.bounds import StateIndex, Updates, at_most_items
from superb_eval.data.recipe_sections import Section

UNITS = "units"
"""In `probe.tasks`: the probe by discovered units, which is no task."""


class UnitProbeSettings(Section):
    """A probe by discovered units: k-means clusters of hidden states against the phones of aligned speech."""

    clusters: int = Field(100, ge=2, le=65_535, description="of k-means")
    layers: Annotated[tuple[StateIndex, ...], at_most_items(100, "each is clustered at each probe")] = Field(
        (), description="hidden states to cluster, 0 the input of the first layer; the best one counts; default: all"
    )
    size: Literal["nano", "mini"] = Field("nano", description="of the embedded speech, where probe.data is not given")


class ProbeSettings(Section):
    """A quick probe at intervals, to follow the encoder's usefulness and to choose a checkpoint."""

    every: Updates = Field(description="updates between probes")
    tasks: tuple[str, ...] = Field(
        ("ks", "pr"),
        min_length=1,
        description="tasks, each by its nano recipe on dev; or units: discovered units, without a task's labels",
    )
    units: UnitProbeSettings = Field(UnitProbeSettings(), description="of the probe by discovered units")
    data: str | None = Field(None, description="name of a folder of manifests; default: the embedded corpus")
    overrides: tuple[str, ...] = Field((), description="changes to the tasks' recipes, such as train.steps=100")
    chooses: bool = Field(True, description="true: the checkpoint with the best score is exported; false: the last")

    @model_validator(mode="after")
    def _settings_that_count(self) -> ProbeSettings:
        if self.units != UnitProbeSettings() and UNITS not in self.tasks:
            raise ValueError(f"probe.units is set, but probe.tasks has no {UNITS}: add it, or leave probe.units out")
        if self.data is not None and self.units.size != "nano":
            raise ValueError("probe.units.size is of the embedded speech, which probe.data replaces: leave one out")
        if self.overrides and set(self.tasks) == {UNITS}:
            raise ValueError(f"probe.overrides change recipes of tasks, and {UNITS} has none: leave them out")
        return self

    @model_serializer(mode="wrap")
    def _without_unused_units(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `units` out where they are not probed: recipes in folders of earlier trainings lack them too."""
        content: dict[str, Any] = write(self)
        if UNITS not in self.tasks:
            del content["units"]
        return content

    def check_layers(self, last: int) -> None:
        """Check that a network with hidden states 0 to `last` has the layers to cluster.

        Raises:
            ValueError: it lacks one.
        """
        if self.units.layers and max(self.units.layers) > last:
            raise ValueError(
                f"probe.units.layers: {max(self.units.layers)} is no hidden state of the network. Choose of 0 to {last}"
            )
