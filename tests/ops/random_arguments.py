"""Random valid arguments of every public operator."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridkern import ops
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from hybridkern.ops.rational_quadratic_spline.form import resolve_spline
from tests.ops import random_tensors as rt


class Case(NamedTuple):
    """A call: the function, its tensors (or lists of them), its other arguments, and whether values are tame."""

    function: Callable[..., Any]
    tensors: dict[str, Any]
    options: dict[str, Any]
    tame: bool


def _form(r: random.Random) -> tuple[str, int]:
    """A name, and how many channels of parameters it has for one of ``x``."""
    name = r.choice(list(NAMED_FORMS))
    return name, 1 + NAMED_FORMS[name].has_scale


def _affine(r: random.Random, make: Callable[..., Tensor], dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size, (name, share) = rt.shape(r, 2), _form(r)
    params = make((size[0], size[1] * share, *size[2:]), rt.beside(r, dtype))
    tensors = {"x": make(size, dtype), "params": params}
    if r.random() < 0.5:
        tensors["log_det"] = make(size[:1], r.choice(rt.DTYPES[:2]))
    return tensors, {"form": name, "inverse": r.random() < 0.5}


def _from_output(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size, (name, share) = rt.shape(r, 2), _form(r)
    # the reference rounds the x that it recovers, which may end the range of float16
    dtype = torch.float32 if dtype is torch.float16 else dtype
    params = (size[0], size[1] * share, *size[2:])
    tensors = {
        "y": make(size, dtype, grad=False),
        "params": make(params, rt.beside(r, dtype), grad=False),
        "grad_y": make(size, dtype, grad=False),
        "grad_log_det": make(size[:1], r.choice(rt.DTYPES[:2]), grad=False),
    }
    return tensors, {"form": name, "inverse": r.random() < 0.5}


def _rounding(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size = rt.shape(r, 1)
    tensors = {"x": make(size, dtype), "t": make(size, rt.beside(r, dtype))}
    beta = r.choice((None, 1.5, 2, make((), r.choice(rt.DTYPES)), make((1,), torch.float32)))
    return tensors | ({"beta": beta} if isinstance(beta, Tensor) else {}), (
        {} if isinstance(beta, Tensor) else {"beta": beta}
    ) | {"inverse": r.random() < 0.5}


def _logistic(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors, _ = _gaussian(r, make, dtype)
    size = tuple(tensors["x"].shape)
    for name in ("mean", "log_scale"):
        tensors.setdefault(name, make(rt.broadcastable(r, size), dtype))
    return tensors, {"bin_width": r.choice((1.0, 1 / 255, 2)), "reduction": r.choice(("none", "sum"))}


def _mixture(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size = rt.shape(r, 1, 3)
    full = (size[0], r.choice((1, 2, 3, 5)), *size[1:])
    tensors = {"x": make(size, dtype)}
    for name in ("logits", "mean", "log_scale"):
        some = rt.broadcastable(r, full)
        tensors[name] = make((1,) * (len(full) - len(some)) + some, rt.beside(r, dtype))
    return tensors, {"bin_width": r.choice((1.0, 2)), "reduction": r.choice(("none", "sum"))}


def _gaussian(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size = rt.shape(r, 1)
    tensors = {"x": make(size, dtype)}
    for name in ("mean", "log_scale"):
        if r.random() < 0.8:
            tensors[name] = make(size if r.random() < 0.5 else rt.broadcastable(r, size), rt.beside(r, dtype))
    return tensors, {}


def _network(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    dtype = r.choice(rt.DTYPES[:2])
    batch, channels, height, width = (r.choice(n) for n in ((0, 1, 2, 3), (1, 2, 6), (0, 1, 2, 5, 8), (1, 2, 7)))
    hidden, out = r.choice((1, 3, 8, 33)), r.choice((1, 2, 6))
    sizes = {"x": (batch, channels, height, width), "w1": (hidden, channels, 3, 3), "b1": (hidden,)}
    sizes |= {"w2": (hidden, hidden, 1, 1), "b2": (hidden,), "w3": (out, hidden, 3, 3), "b3": (out,)}
    return {name: make(size, dtype) for name, size in sizes.items()}, {"save_hidden": r.random() < 0.5}


def _paired(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size = rt.shape(r, 2)
    size = (size[0], size[1] % 33, *size[2:])
    channels, low = 2 * size[1], rt.beside(r, dtype)
    tensors = {"first": make(size, dtype), "second": make(size, dtype), "weight": make((channels, channels), low)}
    return tensors | ({"bias": make((channels,), low)} if r.random() < 0.7 else {}), {}


def _actnorm(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    rows, width, (name, share) = r.choice((0, 1, 3)), r.choice((1, 2, 5, 33)), _form(r)
    params = make((rows, r.randint(1, width) * share), rt.beside(r, dtype))
    tensors = {"x": make((rows, width), dtype), "params": params}
    scale = make((width,), dtype, grad=False).abs() + 0.5  # not 0
    return tensors | {"scale": scale.requires_grad_(r.random() < 0.5), "offset": make((width,), dtype)}, {"form": name}


def _adamax(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    dtype, sizes = r.choice(rt.DTYPES[:2]), [rt.shape(r, 1) for _ in range(r.randint(0, 3))]
    how = [r.choice(("plain", "plain", "transposed", "channels_last", "slice", "step", "offset")) for _ in sizes]

    def one(size: rt.Shape, layout: str) -> Tensor:
        return rt.lay(r, rt.values(r, size, dtype, False).abs() + 0.1, layout if r.random() < 0.9 else "plain")

    lists = ("params", "grads", "exp_avgs", "exp_infs")
    return {name: [one(*pair) for pair in zip(sizes, how, strict=True)] for name in lists}, {"rate": 0.01}


def _spline(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    size, bins, tails = rt.shape(r, 2), r.choice((2, 3, 8, 17)), r.choice(("linear", "box", "circular"))
    spline = r.choice(("nflows", "nflows_identity", "zuko"))
    count = resolve_spline(spline).parameters(bins, tails)
    size = (size[0], size[1] % 33, *size[2:])
    tail = (size[1], count) if len(size) == 2 else (size[1] * count, *size[2:])
    batch = r.choice(((size[0],), (size[0],), (1,), ()))
    tensors = {"x": make(size, dtype), "params": make((*batch, *tail), rt.beside(r, dtype))}
    if r.random() < 0.5:
        tensors["log_det"] = make(size[:1], r.choice(rt.DTYPES[:2]))
    bound = r.choice((1.0, 3.0, (0.0, 1.0)))
    return tensors, {"spline": spline, "bins": bins, "tails": tails, "bound": bound, "inverse": r.random() < 0.5}


def _masked(r: random.Random, make: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    widths = [r.choice((1, 2, 5, 16, 33)) for _ in range(r.randint(2, 4))]
    dtype, pairs = r.choice(rt.DTYPES[:2]), list(itertools.pairwise(widths))
    lists = {
        "weights": [rt.tensor(r, (units, size), dtype, False, None) for size, units in pairs],
        "biases": [rt.tensor(r, (units,), dtype, False, None) for _, units in pairs],
        "masks": [(rt.values(r, (units, size), dtype, False) > 0).to(dtype) for size, units in pairs],
    }
    activation = r.choice(("relu", "tanh", "elu", "none"))
    x = rt.tensor(r, (r.choice((0, 1, 3, 70)), widths[0]), dtype, False, None)  # a mask hides what is not finite
    return {"x": x, **lists}, {"activation": activation}


MAKERS: dict[str, Callable[..., tuple[dict[str, Any], dict[str, Any]]]] = {
    "affine_coupling": _affine,
    "affine_coupling_backward_from_output": _from_output,
    "affine_coupling_actnorm": _actnorm,
    "adamax_step": _adamax,
    "coupling_network": _network,
    "discretized_logistic_log_prob": _logistic,
    "discretized_logistic_mixture_log_prob": _mixture,
    "gaussian_log_prob": _gaussian,
    "masked_network": _masked,
    "paired_conv1x1": _paired,
    "rational_quadratic_spline": _spline,
    "rounding_coupling": _rounding,
}


def case(r: random.Random) -> Case:
    """A random valid call."""
    name = r.choice(list(MAKERS))
    dtype = r.choice(rt.DTYPES) if r.random() < 0.6 else torch.float32
    tame = r.random() < 0.8

    def make(size: rt.Shape, of: torch.dtype, grad: bool | None = None) -> Tensor:
        return rt.tensor(r, size, of, not tame, grad)

    tensors, options = MAKERS[name](r, make, dtype)
    return Case(getattr(ops, name), tensors, options, tame)
