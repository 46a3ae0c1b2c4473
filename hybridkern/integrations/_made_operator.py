"""Masked networks of nflows and normflows as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern._autocast import has_autocast
from hybridkern.integrations._layer import WIDE
from hybridkern.integrations._made import is_known, is_residual, masked_layers
from hybridkern.integrations._unwatched import Unwatched
from hybridkern.ops.masked_network.operator import ACTIVATIONS, has_fused_masked_network, planned

OPERATOR = "_hybridkern_operator"
_FUNCTIONS: tuple[tuple[object, str], ...] = (
    *((function, "relu") for function in (F.relu, torch.relu)),
    *((function, "tanh") for function in (F.tanh, torch.tanh)),
    (F.elu, "elu"),
)
_MODULES = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.ELU: "elu"}
_NOTHING = (type(None), nn.Identity)


class Plan:
    """How the operator computes a network.

    Attributes:
        layers: the masked layers in order.
        codes, activation: as the operator's schema has them.
    """

    def __init__(self, net: Any) -> None:
        self.unwatched = Unwatched(net)
        self.layers = masked_layers(net)
        self.blocks = list(net.blocks)
        self.residual = is_residual(net)
        functions = [block.activation for block in self.blocks]
        # what may be exchanged without a trace in the modules; nflows' network itself has one, too
        self.own = net.__dict__.get("activation", functions[0])
        names = {name_of(function) for function in (*functions, self.own)}
        self.functions = functions
        self.activation = ACTIVATIONS.index(names.pop()) if len(names) == 1 and None not in names else -1
        self.codes = self._codes(type(net).__module__)

    def _codes(self, library: str) -> tuple[int, ...]:
        count = len(self.layers)
        if self.residual:  # z, then for each block: activation, layer, activation, layer, sum; then the last layer
            inner = [code for i in range(len(self.blocks)) for code in (1, 2 * (2 * i + 1) + 1)]
            inner[-1] -= 1  # the last sum is not activated
            return 1, *inner, 0
        first = int(library.startswith("nflows"))  # normflows does not activate what its first layer gives
        return first, *[1] * (count - 2), 0

    def holds(self, net: Any) -> bool:
        """Whether the network is what it was, and drops and counts nothing."""
        if self.activation < 0 or not self.unwatched.holds(net):
            return False
        known = ACTIVATIONS[self.activation]  # numbers of a module, as alpha of an ELU, may be written into
        if any(name_of(function) != known for function in (*self.functions, self.own)):
            return False
        if net.__dict__.get("activation", self.own) is not self.own:
            return False
        for block, function in zip(self.blocks, self.functions, strict=True):
            dropout = block.dropout
            counts = block.use_batch_norm if self.residual else block.batch_norm is not None
            if counts or (dropout.p > 0 and dropout.training) or block.activation is not function:
                return False
        return True


def name_of(function: Any) -> str | None:
    """What the operator calls an activation, a function or a module; ``None`` where it has none."""
    for known, name in _FUNCTIONS:
        if function is known:
            return name
    kind = _MODULES.get(type(function))
    return None if kind == "elu" and function.alpha != 1 else kind


def plan_of(net: Any) -> Plan | None:
    """How the operator computes ``net``; ``None`` where it cannot."""
    if not is_known(net, None) or not net.blocks or type(getattr(net, "preprocessing", None)) not in _NOTHING:
        return None
    plan = Plan(net)
    return plan if plan.activation >= 0 else None


def is_served(net: Any) -> bool:
    """Whether the operator computes ``net``, for the report."""
    return plan_of(net) is not None and has_fused_masked_network(net.initial_layer.weight)


def run_operator(owner: Any, net: Any, x: Tensor) -> Tensor | None:
    """``net(x)`` by the operator, ``None`` where it does not serve.

    Args:
        owner: the layer that the network belongs to, which remembers its plan.
        net: the network.
        x: ``(B, D)``.
    """
    if (
        torch.compiler.is_compiling()
        or x.dtype not in WIDE
        or has_autocast(x.device)
        or not has_fused_masked_network(x)
    ):
        return None
    plan: Plan | None = owner.__dict__.get(OPERATOR)
    if plan is None or not plan.holds(net):
        plan = plan_of(net)
        if plan is None or not plan.holds(net):
            return None
        owner.__dict__[OPERATOR] = plan
    weights, biases, masks = [], [], []
    for layer in plan.layers:
        weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
        mask = layer._buffers.get("mask")
        if weight is None or bias is None or mask is None or mask.requires_grad:
            return None
        # masks of nflows and normflows are float32, also where torch's default dtype is another
        if weight.dtype is not x.dtype or mask.dtype is not x.dtype:
            return None
        weights.append(weight)
        biases.append(bias)
        masks.append(mask)
    if x.shape[1] != weights[0].shape[1]:
        return None  # the library says what is wrong
    return planned(x, tuple(weights), tuple(biases), tuple(masks), plan.codes, plan.activation)
