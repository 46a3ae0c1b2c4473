"""The same numbers in different memory: what the kernels read as it lies, and what they must copy first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def contiguous(value: Tensor) -> Tensor:
    """Row-major."""
    return value.contiguous()


def channels_last(value: Tensor) -> Tensor:
    """Channels innermost, where there are two or three spatial dimensions."""
    return value.contiguous(memory_format=_LAST.get(value.ndim, torch.contiguous_format))


def _slice(value: Tensor, place: Callable[[Tensor], Tensor]) -> Tensor:
    wide = place(torch.full((value.shape[0], value.shape[1] + 3, *value.shape[2:]), 7.0, dtype=value.dtype))
    part = wide[:, 1 : 1 + value.shape[1]]
    part.copy_(value)
    return part


def channel_slice(value: Tensor) -> Tensor:
    """``wide[:, 1:1+c]`` of a row-major tensor."""
    return _slice(value, contiguous)


def channels_last_slice(value: Tensor) -> Tensor:
    """``wide[:, 1:1+c]`` of a channels_last tensor."""
    return _slice(value, channels_last)


def transposed(value: Tensor) -> Tensor:
    """The last two dimensions swapped in memory."""
    return value.transpose(-1, -2).contiguous().transpose(-1, -2)


def batch_innermost(value: Tensor) -> Tensor:
    """All dimensions in reverse order in memory."""
    order = tuple(reversed(range(value.ndim)))
    return value.permute(order).contiguous().permute(order)


def every_other(value: Tensor) -> Tensor:
    """A stride of two in the last dimension."""
    wide = torch.full((*value.shape[:-1], 2 * value.shape[-1]), 7.0, dtype=value.dtype)
    wide[..., ::2] = value
    return wide[..., ::2]


def batch_stride(value: Tensor) -> Tensor:
    """Every other example of a larger batch."""
    wide = torch.full((2 * value.shape[0], *value.shape[1:]), 7.0, dtype=value.dtype)
    wide[::2] = value
    return wide[::2]


def misaligned(value: Tensor) -> Tensor:
    """Row-major, starting one element into its storage."""
    flat = torch.full((value.numel() + 1,), 7.0, dtype=value.dtype)
    flat[1:] = value.reshape(-1)
    return flat[1:].view(value.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    layout.__name__: layout
    for layout in (
        contiguous,
        channels_last,
        channel_slice,
        channels_last_slice,
        transposed,
        batch_innermost,
        every_other,
        batch_stride,
        misaligned,
    )
}


def expanded_over_batch(value: Tensor) -> Tensor:
    """One example for the whole batch, with stride 0 (other numbers than ``value``)."""
    return value[:1].expand(value.shape)


def expanded_over_space(value: Tensor) -> Tensor:
    """One number a channel, with stride 0 in all but dim 1 (other numbers than ``value``)."""
    index = (slice(0, 1), slice(None)) + (slice(0, 1),) * (value.ndim - 2)
    return value[index].expand(value.shape)
