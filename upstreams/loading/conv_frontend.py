"""HuBERT's convolutional front end as matrix products over frames, each waveform by itself.

Frames are rows ([frames, channels]), so that the windows of a convolution are rows of a view, and nothing is copied:
a kernel of 3 at stride 2 is a product over pairs of frames plus one over every second frame. The first normalisation
(one group per channel, over time) follows from the 10 x 10 covariance of its convolution's input windows, and is folded
into that convolution's weights. Results equal transformers' for each waveform by itself, up to rounding: nothing is
padded, so nothing leaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence


class ConvFrontend(nn.Module):
    """Replaces transformers' feature encoder, with the same layers, and takes waveforms as a list too.

    A tensor [batch, samples] goes through the layers one by one, with its padding, as in transformers; a list of
    waveforms [samples] goes through matrix products, each by itself. A pass leaves no state, so that threads may share
    the module.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.conv_layers = layers
        self._cached_matrices: tuple[object, list[list[Tensor]]] = (None, [])

    @staticmethod
    def supports(extractor: nn.Module) -> bool:
        """Return whether the layers are supported: a norm over time in the first layer only, or norms over
        channels in all."""
        layers: list[Any] = list(getattr(extractor, "conv_layers", ()))
        norms = [getattr(layer, "layer_norm", None) for layer in layers]
        if not norms or not all(hasattr(layer, "activation") and _is_plain_conv(layer.conv) for layer in layers):
            return False
        first = norms[0]
        over_time = isinstance(first, nn.GroupNorm) and first.num_groups == first.num_channels and not any(norms[1:])
        return over_time or all(isinstance(norm, nn.LayerNorm) for norm in norms)

    def forward(self, wavs: Tensor | list[Tensor]) -> Tensor:
        """Return [batch, channels, frames], padded with zeros where waveforms came as a list."""
        if isinstance(wavs, list):
            frames = convolve(list(self.conv_layers), self._matrices(), wavs)
            return pad_sequence(frames, batch_first=True).transpose(1, 2)
        hidden = wavs[:, None]
        for layer in self.conv_layers:
            hidden = layer(hidden)
        return hidden

    def _matrices(self) -> list[list[Tensor]]:
        """Return the kernels of all layers but the first as matrices, cached for frozen layers until they change."""
        convs: list[Any] = [layer.conv for layer in self.conv_layers][1:]
        if any(conv.weight.requires_grad for conv in convs):
            return [_kernel_matrices(conv) for conv in convs]
        state = [(conv.weight.data_ptr(), conv.weight._version, _compute_dtype(conv.weight)) for conv in convs]
        if self._cached_matrices[0] != state:
            with torch.inference_mode(False):
                self._cached_matrices = (state, [_kernel_matrices(conv) for conv in convs])
        return self._cached_matrices[1]


def convolve(layers: Sequence[Any], matrices: Sequence[list[Tensor]], wavs: Sequence[Tensor]) -> list[Tensor]:
    """Return the output of the convolutions for each waveform [samples]: [its frames, channels].

    `matrices` are the kernels of all layers but the first. Each waveform has to be at least as long as the receptive
    field. On a CPU they go one by one, so that a layer's output stays in the cache; a GPU takes all at once.
    """
    groups = [wavs] if wavs[0].device.type != "cpu" else [[wav] for wav in wavs]
    return [frames for group in groups for frames in _convolve_concatenated(layers, matrices, group)]


def _is_plain_conv(conv: object) -> bool:
    return isinstance(conv, nn.Conv1d) and conv.groups == 1 and conv.padding == (0,) and conv.dilation == (1,)


def _convolve_concatenated(
    layers: Sequence[Any], matrices: Sequence[list[Tensor]], wavs: Sequence[Tensor]
) -> list[Tensor]:
    """Convolve concatenated waveforms: each in a slot that is a multiple of the total stride, so that its first window
    begins where the slot does in every layer. Windows that reach into the next slot are computed and dropped."""
    kernels = [layer.conv.kernel_size[0] for layer in layers]
    strides = [layer.conv.stride[0] for layer in layers]
    total = math.prod(strides)
    slots = [-(-len(wav) // total) for wav in wavs]
    x = _first_layer(layers[0], wavs, [slot * total // strides[0] for slot in slots])
    for layer, weights in zip(layers[1:], matrices, strict=True):
        x = _next_layer(layer, x, weights)
    outputs, offset = [], 0
    for wav, slot in zip(wavs, slots, strict=True):
        outputs.append(x[offset : offset + _frame_count(len(wav), kernels, strides)])
        offset += slot
    return outputs


def _frame_count(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _first_layer(layer: Any, wavs: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Convolve, normalise and activate; each waveform's frames are padded to its `rows`: [sum of rows, channels].

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
            w, b = _fold_norm(norm, windows, weight, bias) if isinstance(norm, nn.GroupNorm) else (weight, bias)
            x = windows @ w.T if b is None else torch.addmm(b, windows, w.T)
            parts.append(nn.functional.pad(x, (0, 0, 0, count - len(x))))
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x)
        activated: Tensor = layer.activation(x)
    return activated.to(_compute_dtype(activated))


def _fold_norm(norm: nn.GroupNorm, windows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weights and bias of a convolution that also normalises, for these windows.

    The mean over time of `weight @ window` is `weight` times the windows' mean, its variance the quadratic form of
    their covariance; in double, so that a constant offset of the waveform costs no precision.
    """
    precise = torch.float32 if windows.device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
    windows = windows.to(precise)
    mean = windows.mean(dim=0)
    centred = windows - mean
    covariance = centred.T @ centred / len(centred)
    w = weight.to(precise)
    scale = norm.weight / ((w @ covariance) * w).sum(dim=1).add(norm.eps).sqrt()
    shift = norm.bias - scale * (w @ mean)
    del bias  # the norm subtracts a constant again
    return (w * scale[:, None]).float(), shift.float()


def _next_layer(layer: Any, x: Tensor, weights: list[Tensor]) -> Tensor:
    """Convolve, normalise where there is a norm over channels, and activate: [rows, in] -> [fewer rows, out]."""
    stride = layer.conv.stride[0]
    count = (len(x) - layer.conv.kernel_size[0]) // stride + 1
    trainable = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if trainable:
        out: Tensor = _TrainableProduct.apply(x, stride, count, *weights)  # type: ignore[no-untyped-call]
    else:
        out = _strided_product(x, stride, count, weights)
    if layer.conv.bias is not None:
        out = out + layer.conv.bias.to(out.dtype)
    norm = getattr(layer, "layer_norm", None)
    if norm is not None:
        out = norm(out)
    activated: Tensor = layer.activation(out)
    return activated.to(_compute_dtype(activated))


def _strided_product(x: Tensor, stride: int, count: int, weights: Sequence[Tensor]) -> Tensor:
    """Return the convolution of rows [rows, in] with a kernel, cut into `_kernel_matrices`: [count, out]."""
    views = zip(_window_views(x, stride, count, weights), weights, strict=True)
    windows, weight = next(views)
    out = windows @ weight
    for windows, weight in views:
        out.addmm_(windows, weight)
    return out


def _window_views(x: Tensor, stride: int, count: int, weights: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the input of each matrix of a kernel, as views [count, its rows] of rows [rows, in]."""
    tap = 0
    for weight in weights:
        taps = weight.shape[0] // x.shape[1]
        if taps == stride:
            yield x[tap : tap + stride * count].view(count, -1)
        else:
            yield x[tap : tap + stride * (count - 1) + 1 : stride]
        tap += taps


class _TrainableProduct(torch.autograd.Function):
    """`_strided_product`, with a backward pass that writes each gradient in place.

    torch's own makes a zero-filled copy for each view of `x`, and adds them up: a tenth of an update.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, count: int, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.windows = stride, count
        return _strided_product(x, stride, count, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        stride, count = ctx.windows
        weight_gradients = [windows.T @ gradient for windows in _window_views(x, stride, count, weights)]
        if not ctx.needs_input_grad[0]:
            return None, None, None, *weight_gradients
        input_gradient = torch.empty_like(x)
        covered = stride * count if len(weights[0]) == stride * x.shape[1] else 0
        input_gradient[covered:] = 0
        for k, (windows, weight) in enumerate(
            zip(_window_views(input_gradient, stride, count, weights), weights, strict=True)
        ):
            if k == 0 and covered:
                torch.mm(gradient, weight.T, out=windows)
            else:
                windows.addmm_(gradient, weight.T)
        return input_gradient, None, None, *weight_gradients


def _kernel_matrices(conv: nn.Conv1d) -> list[Tensor]:
    """Cut a kernel [out, in, taps] into matrices: [stride x in, out] for each whole stride, [in, out] for the
    remaining taps."""
    weight = conv.weight.to(_compute_dtype(conv.weight)).permute(2, 1, 0)  # [taps, in, out]
    taps, width, out = weight.shape
    stride = conv.stride[0]
    whole = taps // stride * stride
    cuts = [(first, stride) for first in range(0, whole, stride)] + [(tap, 1) for tap in range(whole, taps)]
    return [weight[first : first + count].reshape(count * width, out).contiguous() for first, count in cuts]


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type that autocast computes with, or the tensor's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
