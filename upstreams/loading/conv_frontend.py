"""HuBERT's seven convolutions as matrix products over frames, each waveform by itself.

Frames stand in rows ([frames, channels]), so that the windows of a convolution are rows of a view, and nothing is
copied: a kernel of 3 at stride 2 is a product over pairs of frames plus one over every second frame. The first
normalisation (one group per channel, over time) follows from the 10 x 10 covariance of the windows that its convolution
sees, and is folded into that convolution's weights. What is computed is what the library computes, up to rounding, for
every waveform as if it were alone: nothing is padded, so nothing leaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence


class Convolutions(nn.Module):
    """Takes the place of transformers' feature encoder, with its very layers, and takes waveforms as a list too.

    A tensor [batch, samples] goes through the layers one by one, padding and all, as in the library; a list of
    waveforms [samples] goes by products, each as if it were alone. Nothing of a pass is kept, so that threads may share
    the module.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.conv_layers = layers
        self._kept: tuple[object, list[list[Tensor]]] = (None, [])

    @staticmethod
    def fit(extractor: nn.Module) -> bool:
        """Return whether the layers are such as are known here: a norm over time in the first alone, or norms over
        channels in all."""
        layers: list[Any] = list(getattr(extractor, "conv_layers", ()))
        norms = [getattr(layer, "layer_norm", None) for layer in layers]
        if not norms or not all(hasattr(layer, "activation") and _plain(layer.conv) for layer in layers):
            return False
        first = norms[0]
        over_time = isinstance(first, nn.GroupNorm) and first.num_groups == first.num_channels and not any(norms[1:])
        return over_time or all(isinstance(norm, nn.LayerNorm) for norm in norms)

    def forward(self, wavs: Tensor | list[Tensor]) -> Tensor:
        """Return [batch, channels, frames], padded with zeros where waveforms came as a list."""
        if isinstance(wavs, list):
            found = convolve(list(self.conv_layers), self._matrices(), wavs)
            return pad_sequence(found, batch_first=True).transpose(1, 2)
        hidden = wavs[:, None]
        for layer in self.conv_layers:
            hidden = layer(hidden)
        return hidden

    def _matrices(self) -> list[list[Tensor]]:
        """The kernels of all layers but the first as matrices; those of frozen layers are kept until they change."""
        convs: list[Any] = [layer.conv for layer in self.conv_layers][1:]
        if any(conv.weight.requires_grad for conv in convs):
            return [_taps(conv) for conv in convs]
        state = [(conv.weight.data_ptr(), conv.weight._version, _kind(conv.weight)) for conv in convs]
        if self._kept[0] != state:
            with torch.inference_mode(False):
                self._kept = (state, [_taps(conv) for conv in convs])
        return self._kept[1]


def convolve(layers: Sequence[Any], matrices: Sequence[list[Tensor]], wavs: Sequence[Tensor]) -> list[Tensor]:
    """Return what convolutions give for each waveform [samples]: [its frames, channels].

    `matrices` are the kernels of all layers but the first. Each waveform has to be as long as the receptive field at
    least. On a CPU they go one by one, so that what a layer gives stays near the processor; a GPU takes all at once.
    """
    pieces = [wavs] if wavs[0].is_cuda else [[wav] for wav in wavs]
    return [frames for piece in pieces for frames in _end_to_end(layers, matrices, piece)]


def _plain(conv: object) -> bool:
    return isinstance(conv, nn.Conv1d) and conv.groups == 1 and conv.padding == (0,) and conv.dilation == (1,)


def _end_to_end(layers: Sequence[Any], matrices: Sequence[list[Tensor]], wavs: Sequence[Tensor]) -> list[Tensor]:
    """Convolve waveforms end to end: each in a slot that is a multiple of the total stride, so that its first window
    begins where the slot does in every layer. Windows that reach into the next slot are computed and left out."""
    kernels = [layer.conv.kernel_size[0] for layer in layers]
    strides = [layer.conv.stride[0] for layer in layers]
    total = math.prod(strides)
    slots = [-(-len(wav) // total) for wav in wavs]
    x = _first(layers[0], wavs, [slot * total // strides[0] for slot in slots])
    for layer, weights in zip(layers[1:], matrices, strict=True):
        x = _then(layer, x, weights)
    found, begins = [], 0
    for wav, slot in zip(wavs, slots, strict=True):
        found.append(x[begins : begins + _frames(len(wav), kernels, strides)])
        begins += slot
    return found


def _frames(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _first(layer: Any, wavs: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Convolve, normalise and activate; each waveform's frames are padded to as many `rows`: [sum of rows, channels].

    Always in float32: it is a hundredth of the work, and 16 bits would round the waveform itself.
    """
    kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    weight = layer.conv.weight[:, 0].float()  # [channels, kernel]
    bias = None if layer.conv.bias is None else layer.conv.bias.float()
    norm = getattr(layer, "layer_norm", None)
    parts = []
    with torch.autocast(weight.device.type, enabled=False):
        for wav, count in zip(wavs, rows, strict=True):
            windows = wav.float().unfold(0, kernel, stride)  # [frames, kernel]
            own = _folded(norm, windows, weight, bias) if isinstance(norm, nn.GroupNorm) else (weight, bias)
            x = windows @ own[0].T if own[1] is None else torch.addmm(own[1], windows, own[0].T)
            parts.append(nn.functional.pad(x, (0, 0, 0, count - len(x))))
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x)
        activated: Tensor = layer.activation(x)
    return activated.to(_kind(activated))


def _folded(norm: nn.GroupNorm, windows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weights and bias that convolve and normalise at once, for these windows.

    The mean over time of `weight @ window` is `weight` times the windows' mean, its variance the quadratic form of
    their covariance; in double, so that a constant offset of the waveform costs nothing.
    """
    exact = windows.double()
    mean = exact.mean(dim=0)
    centred = exact - mean
    covariance = centred.T @ centred / len(centred)
    w = weight.double()
    scale = norm.weight / ((w @ covariance) * w).sum(dim=1).add(norm.eps).sqrt()
    shift = norm.bias - scale * (w @ mean)
    del bias  # the norm takes a constant away again
    return (w * scale[:, None]).float(), shift.float()


def _then(layer: Any, x: Tensor, weights: list[Tensor]) -> Tensor:
    """Convolve, normalise where there is a norm over channels, and activate: [rows, in] -> [fewer rows, out]."""
    stride = layer.conv.stride[0]
    count = (len(x) - layer.conv.kernel_size[0]) // stride + 1
    learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if learns:
        out: Tensor = _Learnt.apply(x, stride, count, *weights)  # type: ignore[no-untyped-call]
    else:
        out = _product(x, stride, count, weights)
    if layer.conv.bias is not None:
        out = out + layer.conv.bias.to(out.dtype)
    norm = getattr(layer, "layer_norm", None)
    if norm is not None:
        out = norm(out)
    activated: Tensor = layer.activation(out)
    return activated.to(_kind(activated))


def _product(x: Tensor, stride: int, count: int, weights: Sequence[Tensor]) -> Tensor:
    """Return what a kernel, cut into matrices (`_taps`), gives for windows of rows [rows, in]: [count, out]."""
    out: Tensor | None = None
    for seen, weight in zip(_seen(x, stride, count, weights), weights, strict=True):
        out = seen @ weight if out is None else out.addmm_(seen, weight)
    assert out is not None  # noqa: S101 - a kernel has one tap at least
    return out


def _seen(x: Tensor, stride: int, count: int, weights: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield what of rows [rows, in] each matrix of a kernel sees, as views [count, its rows]."""
    place = 0
    for weight in weights:
        many = weight.shape[0] // x.shape[1]
        if many == stride:
            yield x[place : place + stride * count].view(count, -1)
        else:
            yield x[place : place + stride * (count - 1) + 1 : stride]
        place += many


class _Learnt(torch.autograd.Function):
    """`_product`, with a way back that writes each gradient in its place.

    torch's own makes a copy filled with zeros for each view of `x`, and adds them up: a tenth of an update.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, count: int, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.windows = stride, count
        return _product(x, stride, count, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        stride, count = ctx.windows
        own = [seen.T @ gradient for seen in _seen(x, stride, count, weights)]
        if not ctx.needs_input_grad[0]:
            return None, None, None, *own
        back = torch.empty_like(x)
        covered = stride * count if len(weights[0]) == stride * x.shape[1] else 0
        back[covered:] = 0
        for k, (seen, weight) in enumerate(zip(_seen(back, stride, count, weights), weights, strict=True)):
            if k == 0 and covered:
                torch.mm(gradient, weight.T, out=seen)
            else:
                seen.addmm_(gradient, weight.T)
        return back, None, None, *own


def _taps(conv: nn.Conv1d) -> list[Tensor]:
    """Cut a kernel [out, in, taps] into matrices: [stride x in, out] for each whole stride, [in, out] for what is
    left."""
    weight = conv.weight.to(_kind(conv.weight)).permute(2, 1, 0)  # [taps, in, out]
    taps, width, out = weight.shape
    stride = conv.stride[0]
    whole = taps // stride * stride
    cuts = [(first, stride) for first in range(0, whole, stride)] + [(tap, 1) for tap in range(whole, taps)]
    return [weight[first : first + many].reshape(many * width, out).contiguous() for first, many in cuts]


def _kind(x: Tensor) -> torch.dtype:
    """The type that autocast would compute with, or the tensor's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
