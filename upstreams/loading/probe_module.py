"""A module as an upstream, with a card measured on noise: what the module doesn't say of itself is found out.

Used for modules from the user's own files, from other packages (`upstreams.loading.adapters`) and from s3prl.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from upstreams.base import SAMPLE_RATE, Card, Upstream

States = list[Tensor]
"""Hidden states `[batch, frames, dim]`, nearest the input first."""


@dataclass(frozen=True)
class ModuleProbe:
    """What a forward pass on noise told of a module."""

    stride: int
    states: States
    stacked: bool
    """The module takes one tensor `[batch, samples]` instead of a list of waveforms."""
    keys: tuple[str, ...]
    notes: tuple[str, ...]


class Adapted(Upstream):
    """Somebody's module as an upstream; only equal lengths share a batch, so what it does with padding is no matter."""

    def __init__(self, card: Card, model: nn.Module, found: ModuleProbe, settings: str = "") -> None:
        super().__init__(card)
        self.model = model
        self._stacked = found.stacked
        self._keys = found.keys
        self._settings = settings

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; features of other names are handed on as lists too."""
        output = self.model(torch.stack(wavs) if self._stacked else wavs)
        states, _ = hidden_states(output, self.card.name)
        return {**features(output), "hidden_states": states}

    def get_downsample_rates(self, key: str) -> int:
        """Return what the module says of feature `key`, else the stride of the hidden states, in samples."""
        rates = getattr(self.model, "get_downsample_rates", None)
        return int(rates(key)) if callable(rates) else self.card.stride

    def keys(self) -> tuple[str, ...]:
        """Return the names of the features that `forward` gives."""
        return self._keys

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        return {"given": self._settings} if self._settings else {}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: named as the module names them."""
        return self.model.state_dict()


def wrap(model: nn.Module, name: str, summary: str, source: str = "unknown", settings: str = "") -> Adapted:
    """Return a module as an upstream, with a card measured by forward passes on seeded noise.

    Args:
        model: takes a list of waveforms [samples], or one tensor [batch, samples].
        name: goes to the card and into errors.
        summary: goes to the card.
        source: goes to the card.
        settings: text the features depend on besides weights, a part of the identity.

    Raises:
        UserError: the forward pass fails, or gives no hidden states of one frame count and width.
    """
    found = measure(model.eval(), name)
    card = Card(
        name=name,
        summary=summary,
        stride=found.stride,
        layers=len(found.states),
        width=found.states[0].shape[-1],
        parameters=sum(p.numel() for p in model.parameters()),
        source=source,
        training_data="unknown",
        notes=found.notes,
    )
    return Adapted(card, model, found, settings)


def measure(model: nn.Module, name: str) -> ModuleProbe:
    """Learn what the card needs from forward passes on 1 s (and 5 s, where the module names no stride) of noise.

    Raises:
        UserError: see `wrap`.
    """
    output, stacked = _first_forward(model, name)
    states, form = hidden_states(output, name)
    _check_shapes(states, name)
    stride, guess = _stride(model, states[0].shape[1], stacked, name)
    notes = (form, "its forward takes one tensor [batch, samples]" if stacked else "", guess)
    keys = tuple(dict.fromkeys(("hidden_states", *features(output))))
    return ModuleProbe(stride, states, stacked, keys, tuple(note for note in notes if note))


def hidden_states(output: Any, name: str) -> tuple[States, str]:
    """Return the hidden states in what a module gave, and a note where they came in another form than s3prl's.

    Raises:
        UserError: there are none in it.
    """
    if isinstance(output, Mapping):
        for key in ("hidden_states", "last_hidden_state"):
            if output.get(key) is not None:
                note = "" if key == "hidden_states" else "it gives no hidden_states: last_hidden_state alone is used"
                return hidden_states(output[key], name)[0], note
        raise UserError(
            f"{name}: its forward gives no 'hidden_states' but {sorted(map(str, output))}: nothing to probe."
        )
    if isinstance(output, Tensor) and output.dim() == 3:
        return [output], "its forward gives one tensor: one hidden state"
    if _are_states(output):
        return list(output), "its forward gives a bare list: taken for hidden states, nearest the input first"
    raise UserError(
        f"{name}: its forward gives {_described(output)}. Expected {{'hidden_states': [...]}}, a tensor "
        "[batch, frames, dim] or a list of these."
    )


def features(output: Any) -> dict[str, States]:
    """Return whatever else of a module's dict is tensors `[batch, frames, dim]`, by name, each as a list."""
    named = output.items() if isinstance(output, Mapping) else ()
    lists = {str(key): [value] if isinstance(value, Tensor) else value for key, value in named}
    return {key: list(value) for key, value in lists.items() if _are_states(value)}


def _are_states(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0
    return listed and all(isinstance(item, Tensor) and item.dim() == 3 for item in value)


def _described(output: object) -> str:
    return f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def _noise(seconds: int) -> list[Tensor]:
    """Return two seeded waveforms of one length."""
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(seconds * SAMPLE_RATE, generator=generator) for _ in range(2)]


def _first_forward(model: nn.Module, name: str) -> tuple[Any, bool]:
    """Return the output for 1 s of noise, and whether the waveforms had to be stacked into one tensor."""
    with torch.no_grad():
        try:
            return model(_noise(1)), False
        except Exception as refusal:  # user code may raise anything
            try:
                return model(torch.stack(_noise(1))), True
            except Exception:
                reason = format_error(refusal)
                raise UserError(f"{name}: a forward pass on two waveforms of 1 s failed: {reason}") from refusal


def _check_shapes(states: States, name: str) -> None:
    if states[0].shape[0] != 2:
        shape = list(states[0].shape)
        raise UserError(f"{name}: two waveforms gave a hidden state of shape {shape}. Expected [batch, frames, dim].")
    shapes = list(dict.fromkeys(f"{frames} x {dim}" for _, frames, dim in (state.shape for state in states)))
    if len(shapes) > 1:
        raise UserError(
            f"{name}: its hidden states differ in frames x width: {', '.join(shapes)}. Expected one shape "
            "in every layer, so that a weighted sum is defined. Wrap it in a class that brings them to one."
        )


def _stride(model: nn.Module, frames: int, stacked: bool, name: str) -> tuple[int, str]:
    """Return the stride in samples, as the module says it or as two lengths show it, and a note on the latter."""
    rates = getattr(model, "get_downsample_rates", None)
    stated = rates("hidden_states") if callable(rates) else getattr(model, "downsample_rate", None)
    if isinstance(stated, int | float) and stated > 0:
        return round(stated), ""
    with torch.no_grad():
        output = model(torch.stack(_noise(5)) if stacked else _noise(5))
    state = hidden_states(output, name)[0][0]
    longer = state.shape[1]
    if longer <= frames:
        advice = "Is it [batch, dim, frames]? Return x.transpose(1, 2)." if state.shape[2] > longer else ""
        raise UserError(
            f"{name}: gives {frames} frames for 1 s and {longer} for 5 s: no stride. Expected [batch, frames, dim]. "
            f"{advice}".rstrip()
        )
    stride = round(4 * SAMPLE_RATE / (longer - frames))
    return stride, f"its stride was estimated from {frames} frames for 1 s and {longer} for 5 s"


def format_error(error: Exception) -> str:
    """Return an error in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error).strip()}{place}"
