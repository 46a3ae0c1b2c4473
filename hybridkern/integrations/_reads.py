"""Which networks only read what they are given.

Features that stay apart from layer to layer are tensors that an operator may have kept for its backward pass, with
other strides than in the library. A network that might write into its input, or view it, gets a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern.integrations._layer import has_hooks, is_watched

_READING = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.Dropout2d),
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus),
}
# What comes after one of these never sees the input.
_LINEAR = {
    *("torch.nn.modules.linear.Linear", "zuko.nn.Linear", "zuko.nn.MaskedLinear"),
    *(f"torch.nn.modules.conv.Conv{n}d" for n in (1, 2, 3)),
    *("nflows.transforms.made.MaskedLinear", "normflows.nets.made.MaskedLinear"),
}
_SEQUENCES = {"torch.nn.modules.container.Sequential", "zuko.nn.MLP"}
# Networks of the libraries, and the attributes that see the input; the first one alone where it is linear.
_NETWORKS = {
    "normflows.nets.mlp.MLP": ("net",),
    "normflows.nets.cnn.ConvNet2d": ("net",),
    "nflows.nn.nets.mlp.MLP": ("_input_layer",),
    "nflows.nn.nets.resnet.ResidualNet": ("initial_layer",),
    "nflows.nn.nets.resnet.ConvResidualNet": ("initial_layer",),
    "nflows.transforms.made.MADE": ("initial_layer",),
    "normflows.nets.resnet.ResidualNet": ("preprocessing", "initial_layer"),
    "normflows.nets.made.MADE": ("preprocessing", "initial_layer"),
}
_PERIODIC = "normflows.utils.nn.PeriodicFeaturesElementwise"


def only_reads(network: object) -> bool:
    """Whether ``network`` is made of modules that neither write into their input nor view it.

    Every call looks: layers may be exchanged, and watched.
    """
    return not has_hooks(()) and _only_reads(network)


def readable(network: object, x: Tensor) -> Tensor:
    """``x`` for a network: itself, or a copy where the network might do more than read it."""
    return x if only_reads(network) else x.clone(memory_format=torch.contiguous_format)


def _only_reads(network: Any) -> bool:
    if not isinstance(network, nn.Module) or is_watched(network):
        return False
    kind = _kind(type(network))
    if kind == "linear":
        return True
    if kind == "sequence":
        return _all_read(network._modules.values())
    if isinstance(kind, tuple):
        return _all_read(value for name in kind if (value := getattr(network, name)) is not None)
    return kind == "reading" and not getattr(network, "inplace", False)


def _all_read(modules: Iterable[Any]) -> bool:
    """Whether all of them only read, up to the first that is linear."""
    for module in modules:
        if not _only_reads(module):
            return False
        if _kind(type(module)) == "linear":
            return True
    return True


def _kind(kind: type) -> str | tuple[str, ...]:
    """What instances of exactly this class are."""
    return _named(kind) if torch.compiler.is_compiling() else _remembered(kind)


def _named(kind: type) -> str | tuple[str, ...]:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in _LINEAR:
        return "linear"
    if name in _SEQUENCES:
        return "sequence"
    if name in _NETWORKS:
        return _NETWORKS[name]
    return "reading" if kind in _READING or name == _PERIODIC else ""


_remembered = lru_cache(maxsize=1024)(_named)
