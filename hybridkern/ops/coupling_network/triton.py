"""Coupling network on a GPU: nine matrix products and the kernels around them, forward and backward.

Forward are three products, backward are six. The four that end in a ReLU, or go back through one, are kernels of our
own: bias and ReLU, or mask and the sum that is the bias's gradient, lie in their epilogues. The other five are
PyTorch's. Products of bfloat16 numbers sum in float32, and biases are added to those sums. Where the hidden activations
were not kept, they are computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.launch import launch
from hybridkern.ops._triton.layout import FAR
from hybridkern.ops._triton.tiles import power_of_two
from hybridkern.ops.coupling_network.operator import gradients_like, hidden_size
from hybridkern.ops.coupling_network.triton_kernels import (
    collect_kernel,
    gather_kernel,
    product_kernel,
    unpack_kernel,
)

_BLOCK = 1024  # elements of a program that copies
_POSITIONS = 32  # pixels of a program that gathers or collects


class _Tile(NamedTuple):
    """Tile of a product; warps, and stages of its pipeline."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# by bytes of an element; float32 is multiplied as float32, without tensor cores
_TILES = {2: _Tile(128, 128, 64, 8, 3), 4: _Tile(64, 64, 32, 8, 2), 8: _Tile(32, 32, 16, 4, 1)}


def _tile(a: Tensor) -> _Tile:
    return _TILES[a.element_size()]


class _Sizes(NamedTuple):
    """Numbers of pixels and channels; ``wide``, ``row`` and ``last`` are sides of matrices, rounded up."""

    positions: int
    channels: int
    hidden: int
    out: int
    wide: int
    row: int
    last: int

    def constants(self) -> dict[str, int]:
        """Those that kernels are compiled for."""
        return {
            "CHANNELS": self.channels,
            "HIDDEN": self.hidden,
            "OUT": self.out,
            "WIDE": self.wide,
            "ROW": self.row,
            "LAST": self.last,
        }


class _Gathered(NamedTuple):
    """Neighbors of the pixels and matrices, in the dtype of the products, and partial sums of the gradient."""

    x: Tensor
    grad: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor
    sums: Tensor


def _up(value: int, step: int) -> int:
    return (value + step - 1) // step * step


def _sizes(x: Tensor, w1: Tensor, w3: Tensor) -> _Sizes:
    batch, channels, height, width = x.shape
    hidden, out = w1.shape[0], w3.shape[0]
    # rows of multiples of 16 elements: the products then use whole accesses, and Triton knows it
    rows = _up(9 * channels, 16), _up(9 * out, 16)
    return _Sizes(batch * height * width, channels, hidden, out, _up(hidden, 32), *rows)


def _low(x: Tensor, bf16: bool) -> torch.dtype:
    return torch.bfloat16 if bf16 and x.dtype is torch.float32 else x.dtype


def _reach(value: Tensor, first: int = 0) -> int:
    """How far from the first element the last one lies; ``first``: along the dims from that on."""
    return sum((size - 1) * stride for size, stride in zip(value.shape[first:], value.stride()[first:], strict=True))


def _is_far(*offsets: int) -> bool:
    """Whether one of them may pass 2^31."""
    return bool(max(offsets) >= FAR)


def _gather(x: Tensor, grad: Tensor | None, weights: tuple[Tensor, ...], low: torch.dtype) -> _Gathered:
    w1, w2, w3 = weights
    s = _sizes(x, w1, w3)
    groups = triton.cdiv(s.positions, _POSITIONS)
    columns = min(128, power_of_two(max(s.row, s.last)))
    x_to = x.new_empty((s.positions, s.row), dtype=low)
    grad_to = x.new_empty((s.positions if grad is not None else 0, s.last), dtype=low)
    sums = x.new_empty((groups if grad is not None else 0, s.out))
    parts = (s.wide * s.row, s.wide * s.wide, s.last * s.wide)
    packed = x.new_empty((sum(parts),), dtype=low)
    x_programs = groups * triton.cdiv(s.row, columns)
    grad_programs = groups * triton.cdiv(s.last, columns) if grad is not None else 0
    launch(
        gather_kernel,
        x_programs + grad_programs + triton.cdiv(sum(parts), _BLOCK),
        x,
        *(x, grad, w1, w2, w3, x_to, grad_to, packed, sums),
        *(s.positions, x.shape[2], x.shape[3], x_programs, grad_programs),
        *(*x.stride(), *(x.stride() if grad is None else grad.stride())),
        *(*w1.stride(), *w2.stride()[:2], *w3.stride()),
        **s.constants(),
        APART=_is_far(sum(parts), _reach(x, 1), 0 if grad is None else _reach(grad, 1), *map(_reach, weights)),
        POSITIONS=_POSITIONS,
        COLUMNS=columns,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    first, middle, last = packed.split(parts)
    matrices = (first.view(s.wide, s.row), middle.view(s.wide, s.wide), last.view(s.last, s.wide))
    return _Gathered(x_to, grad_to, *matrices, sums)


def _collect(parts: Tensor, bias: Tensor | None, like: Tensor, channels: int) -> Tensor:
    """``(B, channels, H, W)`` in channels_last, of the dtype of ``like``, from ``parts`` ``(P, 9 channels)``."""
    batch, _, height, width = like.shape
    out = like.new_empty((batch, height, width, channels))
    columns = min(32, power_of_two(channels))
    positions = 512 // columns
    programs = triton.cdiv(batch * height * width, positions) * triton.cdiv(channels, columns)
    launch(
        collect_kernel,
        programs,
        like,
        *(parts, bias, out, batch * height * width, height, width),
        CHANNELS=channels,
        ROW=parts.shape[1],
        POSITIONS=positions,
        COLUMNS=columns,
        num_warps=4,
    )
    return out.permute(0, 3, 1, 2)


def _wide_product(a: Tensor, b: Tensor, wide: torch.dtype) -> Tensor:
    """``a @ b``, summed and given in ``wide``; into a tensor of our own, since autocast leaves such products alone."""
    out = a.new_empty((a.shape[0], b.shape[1]), dtype=wide)
    if a.dtype is wide:
        return torch.mm(a, b, out=out)
    if a.is_cpu:  # the interpreter
        return torch.mm(a.to(wide), b.to(wide), out=out)
    return torch.mm(a, b, out_dtype=wide, out=out)


def _product(
    a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None, hidden: Tensor | None = None, sums: Tensor | None = None
) -> None:
    """``out = relu(a b + bias)``, or ``(a b) * (hidden > 0)`` with the sums of its groups of rows."""
    positions, depth = a.shape
    width = out.shape[1]
    tile = _tile(a)
    columns = min(tile.columns, width & -width)
    launch(
        product_kernel,
        triton.cdiv(positions, tile.rows) * (width // columns),
        a,
        *(a, b, bias, hidden, out, sums, positions, depth, a.stride(0), b.stride(0), b.stride(1)),
        HIDDEN=width if bias is None else len(bias),
        WIDE=width,
        WORK=tl.float64 if a.dtype is torch.float64 else tl.float32,
        ROWS=tile.rows,
        COLUMNS=columns,
        DEPTH=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _hidden(one: _Gathered, b1: Tensor, b2: Tensor, to1: Tensor, to2: Tensor) -> None:
    """The hidden activations."""
    _product(one.x, one.first.t(), to1, b1.contiguous())
    _product(to1, one.middle.t(), to2, b2.contiguous())


def _masked(a: Tensor, b: Tensor, hidden: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """``(a b) * (hidden > 0)`` and partial sums over its rows."""
    out = torch.empty_like(hidden)
    sums = a.new_empty((triton.cdiv(len(a), _tile(a).rows), hidden.shape[1]), dtype=wide)
    _product(a, b, out, None, hidden, sums)
    return out, sums


def forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, bf16: bool, save_hidden: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``coupling_network_forward``: see ``hybridkern/ops/coupling_network/operator.py``."""
    low = _low(x, bf16)
    s = _sizes(x, w1, w3)
    slices, pixels, wide = hidden_size(x.shape[0], x.shape[2], x.shape[3], s.hidden)
    kept = [x.new_empty((slices, pixels, wide), dtype=low) for _ in range(2)]
    if s.positions == 0:
        empty = x.new_empty((x.shape[0], *x.shape[2:], s.out)).permute(0, 3, 1, 2)
        return empty, *(value if save_hidden else value[:0] for value in kept)  # type: ignore[return-value]
    one = _gather(x, None, (w1, w2, w3), low)
    h1, h2 = (value.view(-1, wide).narrow(0, 0, s.positions) for value in kept)
    _hidden(one, b1, b2, h1, h2)
    params = _collect(_wide_product(h2, one.last.t(), x.dtype), b3.contiguous(), x, s.out)
    if save_hidden:
        return params, kept[0], kept[1]
    return params, kept[0].new_empty((0, pixels, wide)), kept[1].new_empty((0, pixels, wide))


def backward(
    grad: Tensor,
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    hidden1: Tensor,
    hidden2: Tensor,
    bf16: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``coupling_network_backward``: gradients of ``x`` (empty unless wanted), of three weights and three biases."""
    low = _low(x, bf16)
    s = _sizes(x, w1, w3)
    grads = gradients_like(w1, b1, w2, b2, w3, b3)
    no_x = x.new_empty((0, x.shape[2], x.shape[3], s.channels)).permute(0, 3, 1, 2)
    if s.positions == 0:
        return (torch.empty_like(x) if wants_x else no_x, *(value.zero_() for value in grads))  # type: ignore[return-value]
    one = _gather(x, grad, (w1, w2, w3), low)
    if hidden1.shape[0]:
        h1, h2 = (value.contiguous().view(-1, s.wide).narrow(0, 0, s.positions) for value in (hidden1, hidden2))
    else:
        h1, h2 = (x.new_empty((s.positions, s.wide), dtype=low) for _ in range(2))
        _hidden(one, b1, b2, h1, h2)
    d2, sums2 = _masked(one.grad, one.last, h2, x.dtype)
    d1, sums1 = _masked(d2, one.middle, h1, x.dtype)
    last = _wide_product(one.grad.t(), h2, x.dtype)
    middle = _wide_product(d2.t(), h1, x.dtype)
    first = _wide_product(d1.t(), one.x, x.dtype)
    to1, to_b1, _, to_b2, to3, to_b3 = grads
    programs = [triton.cdiv(value.numel(), _BLOCK) for value in (to1, to3)]
    columns = 64
    b_programs = triton.cdiv(s.hidden, columns)
    launch(
        unpack_kernel,
        sum(programs) + 2 * b_programs + triton.cdiv(s.out, columns),
        x,
        *(first, last, sums1, sums2, one.sums, to1, to_b1, to_b2, to3, to_b3),
        *(len(sums1), len(one.sums), *programs, b_programs, *to1.stride(), *to3.stride()),
        **s.constants(),
        APART=_is_far(_reach(to1), _reach(to3)),
        BLOCK=_BLOCK,
        ROWS=32,
        COLUMNS=columns,
        num_warps=4,
    )
    to2 = middle.narrow(0, 0, s.hidden).narrow(1, 0, s.hidden).contiguous().view(w2.shape)
    to_x = _collect(_wide_product(d1, one.first, x.dtype), None, x, s.channels) if wants_x else no_x
    return to_x, to1, to_b1, to2, to_b2, to3, to_b3


OPERATORS = {"coupling_network_forward": forward, "coupling_network_backward": backward}
