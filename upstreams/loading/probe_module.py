"""Wraps a module as an upstream, with a card measured by forward passes on noise.

Used for modules from the user's own files, from other packages (`upstreams.loading.adapters`) and from s3prl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from upstreams.base import SAMPLE_RATE, Card, Upstream
from upstreams.loading.own_code import format_error, running

States = list[Tensor]
"""Hidden states `[batch, frames, dim]`, nearest the input first."""


@dataclass(frozen=True)
class ModuleProbe:
    """What forward passes on noise show of a module."""

    stride: int
    states: States
    stacked: bool
    """The module takes one tensor `[batch, samples]` instead of a list of waveforms."""
    keys: tuple[str, ...]
    notes: tuple[str, ...]


class AdaptedModule(Upstream):
    """Any module as an upstream; only equal lengths share a batch, so that its handling of padding doesn't matter."""

    def __init__(self, card: Card, model: nn.Module, probe: ModuleProbe, settings: str = "") -> None:
        super().__init__(card)
        self.model = model
        self._stacked = probe.stacked
        self._keys = probe.keys
        self._settings = settings

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """See `Upstream.forward`; features of other names are returned as lists too."""
        output = self.model(torch.stack(wavs) if self._stacked else wavs)
        states, _ = hidden_states(output, self.card.name)
        return {**other_features(output), "hidden_states": states}

    def get_downsample_rates(self, key: str) -> int:
        """Return the module's own stride of feature `key`, else the stride of the hidden states, in samples."""
        rates = getattr(self.model, "get_downsample_rates", None)
        return int(rates(key)) if callable(rates) else self.card.stride

    def keys(self) -> tuple[str, ...]:
        """Return the names of the features that `forward` returns."""
        return self._keys

    def feature_settings(self) -> dict[str, Any]:
        """See `Upstream.feature_settings`."""
        return {"given": self._settings} if self._settings else {}

    def feature_weights(self) -> dict[str, Tensor]:
        """See `Upstream.feature_weights`: the module's own names."""
        return self.model.state_dict()


def wrap_module(
    model: nn.Module, name: str, summary: str, source: str = "unknown", settings: str = ""
) -> AdaptedModule:
    """Return a module as an upstream, with a card measured by forward passes on seeded noise.

    Args:
        model: takes a list of waveforms [samples], or one tensor [batch, samples].
        name: for the card and errors.
        summary: for the card.
        source: for the card.
        settings: text that the features depend on besides weights, a part of the identity.

    Raises:
        UserError: the forward pass fails, or returns no hidden states of one frame count and width.
    """
    probe = measure_module(model.eval(), name)
    card = Card(
        name=name,
        summary=summary,
        stride=probe.stride,
        layers=len(probe.states),
        width=probe.states[0].shape[-1],
        parameters=sum(p.numel() for p in model.parameters()),
        source=source,
        training_data="unknown",
        notes=probe.notes,
    )
    return AdaptedModule(card, model, probe, settings)


def measure_module(model: nn.Module, name: str) -> ModuleProbe:
    """Measure what the card needs by forward passes on 1 s (and 5 s, where the module states no stride) of noise.

    Raises:
        UserError: see `wrap_module`.
    """
    output, stacked = _first_forward(model, name)
    states, form = hidden_states(output, name)
    _check_shapes(states, name)
    stride, guess = _infer_stride(model, states[0].shape[1], stacked, name)
    notes = (form, "its forward takes one tensor [batch, samples]" if stacked else "", guess)
    keys = tuple(dict.fromkeys(("hidden_states", *other_features(output))))
    return ModuleProbe(stride, states, stacked, keys, tuple(note for note in notes if note))


def hidden_states(output: Any, name: str) -> tuple[States, str]:
    """Return the hidden states in a module's output, and a note where its form differs from s3prl's.

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
    if _is_state_list(output):
        return list(output), "its forward gives a bare list: taken for hidden states, nearest the input first"
    raise UserError(
        f"{name}: its forward gives {_describe_output(output)}. Expected {{'hidden_states': [...]}}, a tensor "
        "[batch, frames, dim] or a list of these."
    )


def other_features(output: Any) -> dict[str, States]:
    """Return the other tensors `[batch, frames, dim]` of a module's dict, by name, each as a list."""
    named = output.items() if isinstance(output, Mapping) else ()
    lists = {str(key): [value] if isinstance(value, Tensor) else value for key, value in named}
    return {key: list(value) for key, value in lists.items() if _is_state_list(value)}


def _is_state_list(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0
    return listed and all(isinstance(item, Tensor) and item.dim() == 3 for item in value)


def _describe_output(output: object) -> str:
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
        except (Exception, SystemExit) as refusal:  # user code may raise anything
            try:
                return model(torch.stack(_noise(1))), True
            except (Exception, SystemExit):
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


def _infer_stride(model: nn.Module, frames: int, stacked: bool, name: str) -> tuple[int, str]:
    """Return the stride in samples, stated by the module or estimated from two lengths, and a note on an estimate."""
    rates = getattr(model, "get_downsample_rates", None)
    with running(name, "its get_downsample_rates failed"):
        stated = rates("hidden_states") if callable(rates) else getattr(model, "downsample_rate", None)
    if isinstance(stated, int | float) and 0 < stated < 1e9:
        return max(1, round(stated)), ""
    with running(name, "a forward pass on two waveforms of 5 s failed"), torch.no_grad():
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
