"""Every module of FrEIA, cheap, on vectors of 6 features, signals of 4 x 5 and images of 4 x 4 x 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from FrEIA import framework, modules
from torch import Tensor, nn

from tests.integrations.compositions.compare import Call
from tests.integrations.compositions.networks import NETWORKS

DIM, CONTEXT = 6, 2
IMAGE = (4, 4, 4)
# class, arguments without the network, whether it has one, whether it takes a condition
Layer = tuple[Any, dict[str, Any], bool, bool]

GLOW, RNVP, AIO = modules.GLOWCouplingBlock, modules.RNVPCouplingBlock, modules.AllInOneBlock
COUPLINGS: Mapping[str, Layer] = {
    "glow": (GLOW, {}, True, False),
    "glow tanh": (GLOW, {"clamp_activation": "TANH", "clamp": 1.2}, True, False),
    "glow sigmoid uneven": (GLOW, {"clamp_activation": "SIGMOID", "split_len": 2}, True, False),
    "glow conditioned": (GLOW, {}, True, True),
    "glow unsplit": (GLOW, {"split_len": 1.0}, True, False),
    "rnvp": (RNVP, {}, True, False),
    "rnvp uneven": (RNVP, {"split_len": 1}, True, False),
    "rnvp conditioned": (RNVP, {"clamp_activation": "TANH"}, True, True),
    "all in one": (AIO, {}, True, False),
    "all in one soft": (AIO, {"permute_soft": True, "global_affine_type": "SIGMOID"}, True, False),
    "all in one reversed": (AIO, {"reverse_permutation": True, "global_affine_type": "EXP"}, True, False),
    "all in one learned": (AIO, {"learned_householder_permutation": 2}, True, False),
    "all in one conditioned": (AIO, {}, True, True),
    "one sided": (modules.AffineCouplingOneSided, {}, True, False),
    "one sided conditioned": (modules.AffineCouplingOneSided, {"split_len": 2}, True, True),
    "affine conditioned": (modules.ConditionalAffineTransform, {}, True, True),
}
OTHERS: Mapping[str, Layer] = {
    "nice": (modules.NICECouplingBlock, {}, True, False),
    "gin": (modules.GINCouplingBlock, {}, True, False),
    "all in one gin": (AIO, {"gin_block": True}, True, False),
    "glow own clamp": (GLOW, {"clamp_activation": torch.sin}, True, False),
    "permute": (modules.PermuteRandom, {}, False, False),
    "actnorm": (modules.ActNorm, {}, False, False),
    "scaling": (modules.LearnedElementwiseScaling, {}, False, False),
    "auto act": (modules.InvAutoAct, {}, False, False),
    "auto act two sided": (modules.InvAutoActTwoSided, {}, False, False),
}
VECTOR_OTHERS: Mapping[str, Layer] = {
    **OTHERS,
    "linear": (modules.FixedLinearTransform, {"M": torch.eye(DIM) + 0.1, "b": torch.ones(DIM)}, False, False),
    "orthogonal": (modules.OrthogonalTransform, {}, False, False),
    "householder": (modules.HouseholderPerm, {"n_reflections": 2}, False, False),
    "householder fixed": (modules.HouseholderPerm, {"n_reflections": 2, "fixed": True}, False, False),
    "sigmoid": (modules.InvertibleSigmoid, {}, False, False),
    "residual": (modules.IResNetLayer, {"internal_size": 4, "jacobian_iterations": 2}, False, False),
    "auto fc": (modules.InvAutoFC, {}, False, False),
    "reshape": (modules.Reshape, {"output_dims": (DIM,)}, False, False),
    "haar": (modules.HaarDownsampling, {}, False, False),
}
IMAGE_OTHERS: Mapping[str, Layer] = {
    **OTHERS,
    "conv": (modules.Fixed1x1Conv, {"M": torch.eye(4) + 0.1}, False, False),
    "auto conv": (modules.InvAutoConv2D, {}, False, False),
    "residual": (modules.IResNetLayer, {"internal_size": 3, "jacobian_iterations": 2}, False, False),
    "flatten": (modules.Flatten, {}, False, False),
    "sequence down up": ((modules.IRevNetDownsampling, modules.IRevNetUpsampling), {}, False, False),
    "sequence haar": ((modules.HaarDownsampling, modules.HaarUpsampling), {}, False, False),
    "sequence ordered": ((modules.HaarUpsampling, modules.HaarDownsampling), {"order_by_wavelet": True}, False, False),
    "sequence legacy": ((modules.IRevNetUpsampling, modules.IRevNetDownsampling), {}, False, False),
    "sequence flat": ((modules.Flatten, modules.Reshape), {}, False, False),
}


def _network(name: str, images: bool) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: NETWORKS[name](inputs, outputs, images)


def sequence(layers: Sequence[Layer], networks: Sequence[str], shape: tuple[int, ...]) -> nn.Module:
    """``SequenceINN``."""
    images = len(shape) == 3
    inn = framework.SequenceINN(*shape)
    for (kind, given, has_network, conditioned), name in zip(layers, networks, strict=True):
        options = dict(given)
        if has_network:
            options["subnet_constructor"] = _network(name, images)
        if conditioned:
            options |= {"cond": 0, "cond_shape": (CONTEXT, *shape[1:])}
        for part in kind if isinstance(kind, tuple) else (kind,):
            more = {"output_dims": shape} if part is modules.Reshape else {}
            inn.append(part, **{**options, **more})
    return inn


def graph(layers: Sequence[Layer], networks: Sequence[str], shape: tuple[int, ...]) -> nn.Module:
    """``GraphINN``, whose first two channels are split off, and joined at the end."""
    images = len(shape) == 3
    condition = framework.ConditionNode(CONTEXT, *shape[1:])
    nodes: list[Any] = [framework.InputNode(*shape)]
    for (kind, given, has_network, conditioned), name in zip(layers, networks, strict=True):
        options = dict(given)
        if has_network:
            options["subnet_constructor"] = _network(name, images)
        for part in kind if isinstance(kind, tuple) else (kind,):
            more = {"output_dims": shape} if part is modules.Reshape else {}
            nodes.append(
                framework.Node(nodes[-1], part, {**options, **more}, conditions=condition if conditioned else None)
            )
    split = framework.Node(nodes[-1], modules.Split, {})
    nodes += [split, framework.Node([split.out0, split.out1], modules.Concat, {})]
    return framework.GraphINN([*nodes, condition, framework.OutputNode(nodes[-1])])


def _conditions(x: Tensor, c: Tensor) -> list[Tensor]:
    return [c.view(*c.shape, *(1,) * (x.ndim - 2)).expand(*c.shape, *x.shape[2:])]


CALLS: Sequence[tuple[str, Call]] = (
    ("forward", lambda m, x, c: m(x, c=_conditions(x, c))),
    ("reverse", lambda m, x, c: m(x, c=_conditions(x, c), rev=True)),
    ("inference forward", lambda m, x, c: m(x, c=_conditions(x, c))),
    ("no_grad reverse", lambda m, x, c: m(x, c=_conditions(x, c), rev=True)),
    ("reverse without jacobian", lambda m, x, c: m(x, c=_conditions(x, c), rev=True, jac=False)[0]),
)
