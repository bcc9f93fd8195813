"""HuBERT's positional convolution as products of spectra, for a frozen network on a CPU.

A kernel of 128 frames takes two thirds of the multiplications of a transformer layer. Spectra need a twentieth of
them: blocks of frames that overlap by a kernel (overlap-save), a product over channels for each frequency, and what
wraps around is dropped. Results equal the library's up to rounding. Each utterance's blocks begin with its first frame,
and padded frames are zero as the convolution's own padding is, so that features don't depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class PositionalConv(nn.Module):
    """Replaces transformers' positional convolution, with the same weights and names.

    In training, on a GPU and in 16 bits the library's convolution runs. A pass leaves no state besides a cache, so that
    threads may share the module.
    """

    by_spectra = True
    """Whether a frozen network on a CPU uses spectra."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.conv, self.padding, self.activation = embedding.conv, embedding.padding, embedding.activation
        self._cached_spectra: tuple[object, Tensor] = (None, torch.empty(0))

    @staticmethod
    def supports(embedding: nn.Module) -> bool:
        """Return whether it is one plain convolution that keeps the number of frames, without a norm before it."""
        conv = getattr(embedding, "conv", None)
        if not isinstance(conv, nn.Conv1d) or getattr(embedding, "batch_norm", None) is not None:
            return False
        centred = conv.padding == (conv.kernel_size[0] // 2,) and conv.padding_mode == "zeros"
        return centred and conv.stride == (1,) and conv.dilation == (1,)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the activated convolution of hidden states [batch, frames, dim], of the same shape."""
        if self._library_is_needed(hidden):
            out: Tensor = self.activation(self.padding(self.conv(hidden.transpose(1, 2)))).transpose(1, 2)
            return out
        convolved = convolve_blocks(hidden, self._spectra(), self.conv.kernel_size[0])
        activated: Tensor = self.activation(convolved if self.conv.bias is None else convolved + self.conv.bias)
        return activated

    def _library_is_needed(self, hidden: Tensor) -> bool:
        """Return whether gradients, another device or type, or a trace of the network need the library's operation."""
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in (hidden, *self.conv.parameters()))
        plain = hidden.device.type == "cpu" and hidden.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        return not self.by_spectra or not plain or trained or traced

    def _spectra(self) -> Tensor:
        """Return the kernel's spectra, cached until a weight changes: the weight norm is computed once as well."""
        state = [(p.data_ptr(), p._version) for p in self.conv.parameters()]
        if self._cached_spectra[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._cached_spectra = (state, kernel_spectra(self.conv.weight, self.conv.groups))
        return self._cached_spectra[1]


@contextmanager
def library_convolutions(network: nn.Module) -> Iterator[None]:
    """Let a network's positional convolutions run as the library's, such as to count the operations it's known by."""
    modules = [module for module in network.modules() if isinstance(module, PositionalConv)]
    for module in modules:
        module.by_spectra = False
    try:
        yield
    finally:
        for module in modules:
            module.by_spectra = True


def kernel_spectra(weight: Tensor, groups: int) -> Tensor:
    """Return the spectra [frequencies, groups, in, out] of a kernel [groups x out, in, taps], for blocks of twice its
    length in the next power of two; conjugated, since a network's convolution is a correlation."""
    total, width, taps = weight.shape
    block = 2 << (taps - 1).bit_length()
    spectra = torch.fft.rfft(weight, n=block).conj().view(groups, total // groups, width, -1)
    matrices: Tensor = spectra.permute(3, 0, 2, 1).resolve_conj().contiguous()
    return matrices


def convolve_blocks(hidden: Tensor, spectra: Tensor, taps: int) -> Tensor:
    """Return the convolution of [batch, frames, in] with a kernel of `kernel_spectra`, padded by half a kernel:
    [batch, frames, out]."""
    batch, frames, _ = hidden.shape
    frequencies, groups, width, out = spectra.shape
    block = 2 * (frequencies - 1)
    step = block - taps + 1  # frames of a block that nothing wraps around into
    blocks = -(-frames // step)
    padded = nn.functional.pad(hidden, (0, 0, taps // 2, blocks * step - frames + taps - 1 - taps // 2))
    x = torch.fft.rfft(padded.unfold(1, block, step)).view(batch * blocks, groups, width, frequencies)
    y = x.permute(3, 1, 0, 2) @ spectra  # [frequencies, groups, batch x blocks, out]
    convolved = torch.fft.irfft(y.permute(2, 1, 3, 0), n=block)[..., :step]
    rows: Tensor = convolved.reshape(batch, blocks, groups * out, step).mT.reshape(batch, -1, groups * out)
    return rows[:, :frames]
