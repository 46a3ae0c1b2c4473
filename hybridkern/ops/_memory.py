"""How tensors lie in memory, for operators that write in place."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def is_dense(value: Tensor) -> bool:
    """Whether a tensor's elements fill one stretch of memory, each place once."""
    return value.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(value))


def reach(value: Tensor) -> int:
    """How far from the first element of a tensor the last one lies."""
    return int(sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)))


def _needed(value: Tensor) -> int:
    """Bytes of the storage that a tensor says it has."""
    return (int(value.storage_offset()) + reach(value) + 1) * value.element_size() if value.numel() else 0


def is_whole(value: Tensor) -> bool:
    """Whether its memory is all there: a storage that was freed or cut holds less than its tensors say."""
    return value.untyped_storage().nbytes() >= _needed(value)


def check_whole(name: str, value: Tensor) -> None:
    """Raises ValueError where :func:`is_whole` is not so."""
    if not is_whole(value):
        held = value.untyped_storage().nbytes()
        raise ValueError(f"{name}: got a storage of {held} bytes, expected {_needed(value)} bytes")


def meets_itself(value: Tensor) -> bool:
    """Whether two elements of a tensor lie in one place, or may: an expanded tensor, or overlapping windows."""
    last = 0
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1 and stride <= last:
            return value.numel() > 0
        last += (size - 1) * stride
    return False


def check_apart(lists: dict[str, list[Tensor]], read_only: Collection[str]) -> None:
    """No two tensors of these lists may share memory, but for those of lists that are only read.

    Of two tensors with gaps that lie between each other, only those that start at one place are refused.

    Raises:
        ValueError: names the tensor, and the one whose memory it has.
    """
    stretches = []
    for name, values in lists.items():
        for i, value in enumerate(values):
            if type(value) not in (Tensor, torch.nn.Parameter) or value.is_meta or value.numel() == 0:
                continue  # without memory of its own
            written = name not in read_only
            if written and meets_itself(value):
                raise ValueError(f"{name}[{i}]: got strides {value.stride()}, expected elements that lie apart")
            begin = value.data_ptr()
            end = begin + (reach(value) + 1) * value.element_size()
            stretches.append((begin, end, written, is_dense(value), f"{name}[{i}]"))
    stretches.sort(key=lambda stretch: stretch[0])
    open_ones: list[tuple[int, int, bool, bool, str]] = []
    for stretch in stretches:
        begin, _, written, dense, name = stretch
        open_ones = [other for other in open_ones if other[1] > begin]
        for other in open_ones:
            if (written or other[2]) and (other[0] == begin or (dense and other[3])):
                first, second = sorted((name, other[4]), key=lambda text: list(lists).index(text.split("[")[0]))
                raise ValueError(f"{second}: got memory of {first}, expected a tensor of its own")
        open_ones.append(stretch)
