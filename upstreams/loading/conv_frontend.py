"""HuBERT's convolutional front end as matrix products over frames, with no operation per waveform on a GPU.

Frames are rows ([frames, channels]), so that the windows of a convolution are rows of a view, and nothing is copied:
a kernel of 3 at stride 2 is a product over pairs of frames plus one over every second frame. The waveforms of a batch
lie in slots of one length, a multiple of the total stride, so that each one's first window begins where its slot does
in every layer, and a layer is a product over the rows of the whole batch. The first normalisation (one group per
channel, over time) follows from the 10 x 10 covariance of its convolution's input windows, and is folded into that
convolution's weights. No window of a valid frame reaches into padding, so that results equal transformers' for each
waveform by itself, up to rounding.

On a CPU, waveforms go one by one, and a frozen network's in tiles of 2 s: outputs of a whole waveform would be fetched
from memory that was new each time. In float32 the layers after the first are the library's convolutions there, over the
same rows (`_by_library`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from superb_eval.data.padding import PaddedWavs, lengths_on, valid_mask

ONE_BY_ONE = frozenset({"cpu"})
"""Kinds of devices on which waveforms go one by one, in tiles: a layer's output stays in a processor's cache."""

TILE_FRAMES = 100
"""Frames that a frozen network computes at a time there: 2 s of audio, and 13 MB after HuBERT Base's first layer."""


class ConvFrontend(nn.Module):
    """Replaces transformers' feature encoder, with the same layers, and takes padded batches of waveforms.

    A plain tensor [batch, samples] goes through the layers one by one, with its padding, as in transformers; a
    `PaddedWavs` goes through matrix products, and its padding changes nothing. A pass leaves no state, so that threads
    may share the module.
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

    def forward(self, batch: Tensor | PaddedWavs) -> Tensor:
        """Return [batch, channels, frames], of a `PaddedWavs` zero where a waveform has no frames.

        Each of its waveforms has to be at least as long as the receptive field.
        """
        if isinstance(batch, PaddedWavs):
            return self._convolve(batch).transpose(1, 2)
        hidden = batch[:, None]
        for layer in self.conv_layers:
            hidden = layer(hidden)
        return hidden

    def _convolve(self, batch: PaddedWavs) -> Tensor:
        """Return [batch, frames, channels]."""
        layers, matrices = list(self.conv_layers), self._matrices()
        if batch.samples.device.type not in ONE_BY_ONE:
            return _convolve(layers, matrices, batch)
        each = [_convolve_tiles(layers, matrices, wav[None]) for wav in batch.unpad()]
        frames = _frame_count(layers, batch.samples.shape[1])
        return torch.stack([nn.functional.pad(rows, (0, 0, 0, frames - len(rows))) for rows in each])

    def _matrices(self) -> list[list[Tensor]]:
        """Return the kernels of all layers but the first, cached for frozen layers until they change: as matrices, or
        one tensor as the library's convolution takes it."""
        convs: list[Any] = [layer.conv for layer in self.conv_layers][1:]
        if any(conv.weight.requires_grad for conv in convs):
            return [_kernel_matrices(conv) for conv in convs]
        state = [
            (conv.weight.data_ptr(), conv.weight._version, _compute_dtype(conv.weight), _by_library(conv.weight))
            for conv in convs
        ]
        if self._cached_matrices[0] != state:
            with torch.inference_mode(False):
                kernels = [[_library_kernel(c)] if _by_library(c.weight) else _kernel_matrices(c) for c in convs]
                self._cached_matrices = (state, kernels)
        return self._cached_matrices[1]


def _is_plain_conv(conv: object) -> bool:
    return isinstance(conv, nn.Conv1d) and conv.groups == 1 and conv.padding == (0,) and conv.dilation == (1,)


def _convolve(layers: Sequence[Any], matrices: Sequence[list[Tensor]], batch: PaddedWavs) -> Tensor:
    """Return the output of the convolutions [batch, frames, channels], zero where a waveform has no frames.

    `matrices` are the kernels of all layers but the first.
    """
    total = math.prod(layer.conv.stride[0] for layer in layers)
    slot = -(-batch.samples.shape[1] // total)
    x = _apply_layers(layers, matrices, batch.samples, slot * total, _first_kernel(layers[0], batch))
    frames = _frame_count(layers, batch.samples.shape[1])
    counts = [_frame_count(layers, length) for length in batch.lengths]
    x = x.view(len(counts), slot, -1)[:, :frames]
    if min(counts) == frames:
        return x
    return torch.where(valid_mask(lengths_on(x.device, counts), frames)[..., None], x, 0.0)


def _convolve_tiles(layers: Sequence[Any], matrices: Sequence[list[Tensor]], wav: Tensor) -> Tensor:
    """Return the output of the convolutions [frames, channels] for one waveform [1, samples], tile by tile.

    Neighbouring tiles share the samples of a receptive field less a stride. Gradients take a waveform as one tile.
    """
    strides = [layer.conv.stride[0] for layer in layers]
    total, frames = math.prod(strides), _frame_count(layers, wav.shape[1])
    field = 1 + sum((layer.conv.kernel_size[0] - 1) * math.prod(strides[:k]) for k, layer in enumerate(layers))
    first = _first_kernel(layers[0], PaddedWavs(wav, (wav.shape[1],)))
    tiles = 1 if torch.is_grad_enabled() else -(-frames // TILE_FRAMES)
    step = -(-frames // tiles)  # about equal tiles: products of few rows are slow
    parts = []
    for start in range(0, frames, step):
        count = min(step, frames - start)
        part = wav[:, start * total : (start + count - 1) * total + field]
        slot = -(-part.shape[1] // total) * total
        parts.append(_apply_layers(layers, matrices, part, slot, first)[:count])
    return torch.cat(parts)


def _apply_layers(
    layers: Sequence[Any], matrices: Sequence[list[Tensor]], samples: Tensor, slot: int, first: Tensor
) -> Tensor:
    """Return the rows of all slots: [batch x slot / total stride, channels]."""
    x = _first_layer(layers[0], samples, slot, first)
    for layer, weights in zip(layers[1:], matrices, strict=True):
        x = _next_layer(layer, x, weights)
    return x


def _frame_count(layers: Sequence[Any], samples: int) -> int:
    """Return the number of frames that the layers make of a number of samples."""
    for layer in layers:
        samples = (samples - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
    return samples


def _first_kernel(layer: Any, batch: PaddedWavs) -> Tensor:
    """Return the first layer's weights, and its bias as one more, [batch or 1, kernel + 1, channels]; a norm over time
    is folded in."""
    weight = layer.conv.weight[:, 0].float()  # [channels, kernel]
    norm = getattr(layer, "layer_norm", None)
    with torch.autocast(weight.device.type, enabled=False):
        if isinstance(norm, nn.GroupNorm):
            windows = batch.samples.float().unfold(1, layer.conv.kernel_size[0], layer.conv.stride[0])
            return _fold_norm(norm, windows, [_frame_count([layer], length) for length in batch.lengths], weight)
        bias = weight.new_zeros(len(weight)) if layer.conv.bias is None else layer.conv.bias.float()
        return torch.cat([weight, bias[:, None]], dim=1).T[None]


def _first_layer(layer: Any, samples: Tensor, slot: int, kernel: Tensor) -> Tensor:
    """Convolve, normalise and activate waveforms in slots of `slot` samples: [batch * slot / stride, channels].

    Always in float32: it is a hundredth of the work, and 16 bits would round the waveform itself.
    """
    size, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    with torch.autocast(samples.device.type, enabled=False):
        windows = nn.functional.pad(samples.float(), (0, slot + size - stride - samples.shape[1])).unfold(
            1, size, stride
        )
        x = nn.functional.pad(windows, (0, 1), value=1.0) @ kernel
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x)
        activated: Tensor = layer.activation(x)
    return activated.to(_compute_dtype(activated)).flatten(0, 1)


def _fold_norm(norm: nn.GroupNorm, windows: Tensor, counts: list[int], weight: Tensor) -> Tensor:
    """Return the weights, and the bias as one more, [batch, kernel + 1, channels], of a convolution that also
    normalises each waveform: the first `counts` of windows [batch, windows, kernel].

    The mean over time of `weight @ window` is `weight` times the windows' mean, its variance the quadratic form of
    their covariance; in double, so that a constant offset of the waveform costs no precision. The norm subtracts the
    convolution's own bias again.
    """
    precise = torch.float32 if windows.device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
    windows = windows[:, : max(counts)].to(precise)
    if min(counts) == max(counts):
        mean = windows.mean(dim=1, keepdim=True)
        centred = windows - mean
        covariance = centred.mT @ centred / max(counts)
    else:
        lengths = lengths_on(windows.device, counts)
        valid, count = valid_mask(lengths, max(counts))[..., None], lengths[:, None, None]
        mean = torch.where(valid, windows, 0.0).sum(dim=1, keepdim=True) / count
        centred = torch.where(valid, windows - mean, 0.0)
        covariance = centred.mT @ centred / count
    w = weight.to(precise)
    scale = norm.weight / ((w @ covariance) * w).sum(dim=2).add(norm.eps).sqrt()  # [batch, channels]
    shift = norm.bias - scale * (mean @ w.T)[:, 0]
    return torch.cat([(w * scale[..., None]).mT, shift[:, None]], dim=1).float()


def _next_layer(layer: Any, x: Tensor, weights: list[Tensor]) -> Tensor:
    """Convolve, normalise where there is a norm over channels, and activate: [rows, in] -> [rows / stride, out]."""
    stride = layer.conv.stride[0]
    trainable = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if weights[0].dim() == 4:
        out: Tensor = _library_convolution(x, stride, weights[0])
    elif trainable:
        out = _TrainableProduct.apply(x, stride, *weights)  # type: ignore[no-untyped-call]
    else:
        out = _strided_product(x, stride, weights)
    if layer.conv.bias is not None:
        out = out + layer.conv.bias.to(out.dtype)
    norm = getattr(layer, "layer_norm", None)
    if norm is not None:
        out = norm(out)
    activated: Tensor = layer.activation(out)
    return activated.to(_compute_dtype(activated))


def _strided_product(x: Tensor, stride: int, weights: Sequence[Tensor]) -> Tensor:
    """Return the convolution of rows [rows, in] with a kernel, cut into `_kernel_matrices`: [rows / stride, out].

    The last windows, which reach beyond the rows, are padding: they lack the matrices that would lie there.
    """
    views = zip(_window_views(x, stride, weights), weights, strict=True)
    windows, weight = next(views)
    out = windows @ weight
    for windows, weight in views:
        out[: len(windows)].addmm_(windows, weight)
    return out


def _window_views(x: Tensor, stride: int, weights: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the input of each matrix of a kernel, as views [windows, its rows] of rows [rows, in]."""
    tap = 0
    for weight in weights:
        taps = weight.shape[0] // x.shape[1]
        count = (len(x) - tap - taps) // stride + 1
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
    def forward(ctx: Any, x: Tensor, stride: int, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.stride = stride
        return _strided_product(x, stride, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        views = _window_views(x, ctx.stride, weights)
        weight_gradients = [windows.T @ gradient[: len(windows)] for windows in views]
        if not ctx.needs_input_grad[0]:
            return None, None, *weight_gradients
        input_gradient = torch.empty_like(x)
        covered = len(weights[0]) == ctx.stride * x.shape[1]  # the first windows are all of `x`
        if not covered:
            input_gradient.zero_()
        for k, (windows, weight) in enumerate(
            zip(_window_views(input_gradient, ctx.stride, weights), weights, strict=True)
        ):
            if k == 0 and covered:
                torch.mm(gradient, weight.T, out=windows)
            else:
                windows.addmm_(gradient[: len(windows)], weight.T)
        return input_gradient, None, *weight_gradients


def _by_library(weight: Tensor) -> bool:
    """Return whether tiles of a frozen network are convolved by the library (oneDNN), channels last as our rows are.

    So they are in float32 with AVX2 or AVX-512: no rows are rearranged, and a layer's output is written once, where
    two products write it twice. Which of the two is faster has to do with MKL's products, which not every maker's
    processor runs as well; oneDNN's convolutions are the other libraries' own.
    """
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    tiled = weight.device.type == "cpu" and "cpu" in ONE_BY_ONE
    return vectors and has_onednn and tiled and _compute_dtype(weight) == torch.float32


def _library_kernel(conv: nn.Conv1d) -> Tensor:
    """Return a kernel [out, in, 1, taps], channels last in memory."""
    return conv.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)


def _library_convolution(x: Tensor, stride: int, kernel: Tensor) -> Tensor:
    """Return the convolution of rows [rows, in]: [windows, out]."""
    return nn.functional.conv2d(x.T[None, :, None], kernel, stride=(1, stride))[0, :, 0].T


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
