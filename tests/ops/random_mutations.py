"""Wrong arguments made from right ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.ops.random_tensors import DTYPES


class Subclass(torch.Tensor):
    """A tensor that is not of the class itself."""


def _resized(r: random.Random, v: Tensor) -> Tensor:
    sizes = list(v.shape)
    if not sizes:
        return v.expand(2)
    k = r.randrange(len(sizes))
    sizes[k] = max(0, sizes[k] + r.choice((-1, 1, 2, 1000 if v.numel() < 500 else 1)))
    return torch.randn(sizes).to(v.dtype)


def _freed(r: random.Random, v: Tensor) -> Tensor:
    out = v.clone()
    out.untyped_storage().resize_(r.choice((0, max(0, out.untyped_storage().nbytes() - 8))))
    return out


def _inference(r: random.Random, v: Tensor) -> Tensor:
    with torch.inference_mode():
        return v.clone()


TENSOR_MUTATIONS: dict[str, Callable[[random.Random, Tensor], Any]] = {
    "more dimensions": lambda r, v: v.unsqueeze(r.randint(0, v.dim())),
    "fewer dimensions": lambda r, v: v[0] if v.dim() and v.shape[0] else v.reshape(-1),
    "size": _resized,
    "another size": _resized,
    "permuted": lambda r, v: v.permute(*r.sample(range(v.dim()), v.dim())),
    "dtype": lambda r, v: v.to(r.choice(DTYPES)),
    "meta": lambda r, v: v.to("meta"),
    "sparse": lambda r, v: v.to_sparse(),
    "csr": lambda r, v: v.to_sparse_csr(),
    "nested": lambda r, v: torch.nested.nested_tensor([v.float().reshape(-1)] * 2),
    "jagged": lambda r, v: torch.nested.nested_tensor([v.float().reshape(-1)] * 2, layout=torch.jagged),
    "mkldnn": lambda r, v: v.float().contiguous().to_mkldnn(),
    "quantized": lambda r, v: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint8),
    "complex": lambda r, v: v.to(torch.complex64),
    "integers": lambda r, v: v.nan_to_num().to(r.choice((torch.int64, torch.uint8))),
    "bool": lambda r, v: v > 0,
    "empty": lambda r, v: torch.empty((0,) * v.dim(), dtype=v.dtype),
    "inference": _inference,
    "overlapping": lambda r, v: v.new_ones(sum(v.shape) + 1).as_strided(v.shape, [1] * v.dim()),
    "subclass": lambda r, v: v.as_subclass(Subclass),
}
# PyTorch's own functions, which some public functions call first, do not look: for the registered operators alone.
RAW_MUTATIONS = TENSOR_MUTATIONS | {"freed": _freed}
OTHERS = (None, [1.0], (), "x", b"x", 1.5, 3, -1, True, math.nan, math.inf, 1j, object(), torch.tensor([1.0, 2.0]))


def _of_tensor(r: random.Random, v: Tensor, mutations: dict[str, Any]) -> tuple[str, Any]:
    if r.random() < 0.2:
        other = r.choice(OTHERS)
        return repr(other)[:20], other
    what = r.choice(list(mutations))
    try:
        return what, mutations[what](r, v.detach())
    except Exception:  # there is none of this tensor
        return "nothing", v


def mutate(r: random.Random, arguments: dict[str, Any], raw: bool = False) -> str:
    """Changes one argument in place; says which, and how."""
    name = r.choice(list(arguments))
    value, mutations = arguments[name], RAW_MUTATIONS if raw else TENSOR_MUTATIONS
    if isinstance(value, Tensor):
        what, arguments[name] = _of_tensor(r, value, mutations)
    elif isinstance(value, list) and value and r.random() < 0.8:
        i = r.randrange(len(value))
        what, wrong = _of_tensor(r, value[i], mutations)
        arguments[name] = [*value[:i], wrong, *value[i + 1 :]]
    elif isinstance(value, list):
        what = "list"
        arguments[name] = r.choice((None, value[:-1], [*value, torch.ones(2)], 3, "ab", torch.ones(2)))
    else:
        arguments[name] = r.choice(OTHERS)
        what = repr(arguments[name])[:20]
    return f"{name}: {what}"
