"""Which networks only read what they are given.

Features that stay apart from layer to layer are tensors that an operator may have kept for its backward pass, with
other strides than in the library. A network that might write into its input, or view it, gets a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hybridkern.integrations._layer import has_hooks

READS = "_hybridkern_reads"  # its place in the ``__dict__`` of a layer

# What comes after one of these never sees the input.
_LINEAR = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d}
_READING = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.Dropout2d),
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus),
}
# Networks of the libraries: a sequence called ``net``, and those whose first layer is linear.
_HOLDING = {"normflows.nets.mlp.MLP", "normflows.nets.cnn.ConvNet2d"}
_STARTING = {
    "nflows.nn.nets.mlp.MLP",
    "nflows.nn.nets.resnet.ResidualNet",
    "nflows.nn.nets.resnet.ConvResidualNet",
    "nflows.transforms.made.MADE",
    "zuko.nn.MLP",
}
# Those that may prepare their input first, by a module called ``preprocessing``.
_PREPARING = {"normflows.nets.resnet.ResidualNet", "normflows.nets.made.MADE"}
_PREPARATIONS = {"torch.nn.modules.linear.Identity", "normflows.utils.nn.PeriodicFeaturesElementwise"}


def only_reads(network: object) -> bool:
    """Whether ``network`` is made of modules that neither write into their input nor view it."""
    if not isinstance(network, nn.Module) or has_hooks((network,)):
        return False
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    if name in _STARTING or type(network) in _LINEAR:
        return True
    if name in _HOLDING:
        return only_reads(network.net)
    if name in _PREPARING:
        return network.preprocessing is None or _prepares(network.preprocessing)
    if type(network) is not nn.Sequential:
        return type(network) in _READING and not getattr(network, "inplace", False)
    for child in network:
        if not only_reads(child):
            return False
        if type(child) in _LINEAR:
            return True
    return True


def _prepares(module: object) -> bool:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" in _PREPARATIONS and not has_hooks((module,))  # type: ignore[arg-type]


def reads(layer: Any, network: object) -> bool:
    """:func:`only_reads` for a network of ``layer``, which remembers the answer."""
    if torch.compiler.is_compiling():
        return only_reads(network)
    known: tuple[tuple[object, bool], ...] = layer.__dict__.get(READS, ())
    for other, answer in known:
        if other is network:
            return answer and not has_hooks((network,))  # type: ignore[arg-type]
    answer = only_reads(network)
    layer.__dict__[READS] = (*known[-3:], (network, answer))  # networks may come and go
    return answer


def readable(layer: Any, network: object, x: Tensor) -> Tensor:
    """``x`` for a network of ``layer``: itself, or a copy where the network might do more than read it."""
    return x if reads(layer, network) else x.clone(memory_format=torch.contiguous_format)
