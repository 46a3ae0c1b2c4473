"""Random tensors for random calls: shapes with edges, hard values, every layout that a tensor can have."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

Shape = tuple[int, ...]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = (0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33)
WILD = (math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-40, -0.0, 88.0, -104.0, 3e38, 1e4, -1e4)
LAYOUTS = (*("plain",) * 4, "transposed", "channels_last", "step", "slice", "offset", "expanded", "neg", "real")


def shape(r: random.Random, least: int, most: int = 4, room: int = 20000) -> Shape:
    """A batch and up to three more dimensions, some of them empty, some just past a block."""
    sizes = [r.choice((0, 1, 2, 3, 5)), *(r.choice(SIZES) for _ in range(r.randint(least, most) - 1))]
    if len(sizes) == 2 and r.random() < 0.3:
        sizes[1] = r.choice((1023, 1024, 1025, 2050))
    while math.prod(sizes) > room:
        sizes[r.randrange(1, len(sizes))] = 2
    return tuple(sizes)


def values(r: random.Random, size: Shape, dtype: torch.dtype, wild: bool) -> Tensor:
    """Normal numbers, integers or small ones; with ``wild``, infinities, NaN and numbers near the end of the type."""
    made = torch.randn(size, generator=torch.Generator().manual_seed(r.getrandbits(40)), dtype=torch.float64)
    scale = r.choice((1.0, 1.0, 1e-3))
    made = (made * 5).round() if r.random() < 0.2 else made * scale
    if wild and made.numel():
        for _ in range(r.randint(1, 4)):
            made.view(-1)[r.randrange(made.numel())] = r.choice(WILD)
    return made.to(dtype)


def _window(r: random.Random, v: Tensor, step: int) -> Tensor:
    """A view into a larger tensor of NaN, every ``step``-th element of one dimension."""
    k = r.randrange(v.dim())
    sizes = list(v.shape)
    sizes[k] = sizes[k] * step + 2
    around = torch.full(sizes, math.nan, dtype=v.dtype)
    inner = [slice(None)] * v.dim()
    inner[k] = slice(1, 1 + sizes[k] - 2, step)
    around[tuple(inner)] = v
    return around[tuple(inner)]


def lay(r: random.Random, v: Tensor, how: str) -> Tensor:
    """The same numbers in another layout, where there is one; ``expanded`` repeats the first of them."""
    d = v.dim()
    if how == "transposed" and d >= 2:
        i, j = r.sample(range(d), 2)
        return v.transpose(i, j).contiguous().transpose(i, j)
    if how == "channels_last" and d == 4:
        return v.contiguous(memory_format=torch.channels_last)
    if how in ("step", "slice") and d >= 1:
        return _window(r, v, 2 if how == "step" else 1)
    if how == "offset":
        return torch.cat((torch.full((r.randint(1, 4),), math.nan, dtype=v.dtype), v.reshape(-1)))[-v.numel() :].view(
            v.shape
        ) if v.numel() else v  # fmt: skip
    if how == "expanded" and d >= 1 and v.numel():
        return v.narrow(r.randrange(d), 0, 1)[(...,)].expand(v.shape) if 1 in v.shape else v[:1].expand(v.shape)
    if how == "neg" and v.dtype in (torch.float32, torch.float64):
        return torch._neg_view(-v)
    if how == "real" and v.dtype in (torch.float32, torch.float64):
        return torch.complex(v, v + 1).real
    return v


def tensor(r: random.Random, size: Shape, dtype: torch.dtype, wild: bool, grad: bool | None = None) -> Tensor:
    """A leaf of that shape and dtype, in a random layout."""
    made = lay(r, values(r, size, dtype, wild), r.choice(LAYOUTS))
    return made.detach().requires_grad_(r.random() < 0.5 if grad is None else grad)


def beside(r: random.Random, dtype: torch.dtype) -> torch.dtype:
    """A dtype that parameters may have beside ``dtype``."""
    return r.choice(DTYPES[2:]) if dtype is torch.float32 and r.random() < 0.3 else dtype


def broadcastable(r: random.Random, size: Shape) -> Shape:
    """A shape that broadcasts to ``size``."""
    some = tuple(n if r.random() < 0.6 else 1 for n in size)
    return some[r.randint(0, len(some) - 1) :] if r.random() < 0.3 else some
