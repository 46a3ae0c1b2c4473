"""Models of FrEIA: the sequence of its README, graphs of its documentation, and every option of the blocks."""

from __future__ import annotations

from typing import Any

from FrEIA import framework, modules
from torch import Tensor, nn

from tests.integrations.cases import Case, Latents, conv, mlp


def _to_latent(model: Any, x: Tensor, *context: Tensor) -> tuple[Latents, Tensor]:
    z, log_det = model(x, c=list(context)) if context else model(x)
    return ([z] if isinstance(z, Tensor) else list(z)), log_det


def _to_data(model: Any, latents: Latents, *context: Tensor) -> tuple[Tensor, Tensor]:
    z: Any = latents[0] if len(latents) == 1 else latents
    x, log_det = model(z, c=list(context), rev=True) if context else model(z, rev=True)
    return x, log_det


def _case(build: Any, shape: tuple[int, ...], context: int = 0) -> Case:
    return Case(build, shape, _to_latent, _to_data, context=context)


def sequence(kind: Any, dim: int = 6, **options: Any) -> nn.Module:
    """The README's model: blocks of one kind one after the other."""
    inn = framework.SequenceINN(dim)
    for _ in range(3):
        inn.append(kind, subnet_constructor=mlp, **options)
        inn.append(modules.PermuteRandom)
        inn.append(modules.ActNorm)
    return inn


def pickled() -> nn.Module:
    """Blocks that hold nothing that does not pickle."""
    inn = framework.SequenceINN(6)
    for _ in range(2):
        inn.append(modules.GLOWCouplingBlock, subnet_constructor=mlp, clamp_activation="TANH")
    return inn


def conditional(kind: Any) -> nn.Module:
    """A graph with a condition."""
    condition = framework.ConditionNode(4)
    nodes = [framework.InputNode(6)]
    for _ in range(2):
        nodes.append(framework.Node(nodes[-1], kind, {"subnet_constructor": mlp}, conditions=condition))
    return framework.GraphINN([*nodes, condition, framework.OutputNode(nodes[-1])])


def images(kind: Any = modules.AllInOneBlock, down: Any = modules.IRevNetDownsampling, **options: Any) -> nn.Module:
    """The convolutional example, smaller: two scales, a part of the channels split off between them."""
    given = {"subnet_constructor": conv, **options}
    nodes = [framework.InputNode(2, 8, 8)]
    nodes.append(framework.Node(nodes[-1], down, {}))
    nodes += [framework.Node(nodes[-1], kind, dict(given))]
    nodes += [framework.Node(nodes[-1], kind, dict(given))]
    split = framework.Node(nodes[-1], modules.Split, {})
    nodes.append(split)
    end = framework.OutputNode(split.out1)
    nodes.append(framework.Node(split.out0, down, {}))
    nodes.append(framework.Node(nodes[-1], kind, dict(given)))
    nodes.append(framework.Node(nodes[-1], modules.IRevNetUpsampling, {}))
    return framework.GraphINN([*nodes, end, framework.OutputNode(nodes[-1])])


AIO, GLOW, RNVP = modules.AllInOneBlock, modules.GLOWCouplingBlock, modules.RNVPCouplingBlock
CASES = {
    "all in one": _case(lambda: sequence(AIO), (6,)),
    "all in one soft": _case(lambda: sequence(AIO, permute_soft=True, global_affine_type="SIGMOID"), (6,)),
    "all in one householder": _case(
        lambda: sequence(AIO, learned_householder_permutation=2, global_affine_type="EXP", affine_clamping=1.5), (6,)
    ),
    "all in one reversed": _case(lambda: sequence(AIO, reverse_permutation=True, permute_soft=True), (6,)),
    "all in one odd": _case(lambda: sequence(AIO, dim=7, reverse_permutation=True), (7,)),
    "all in one gin": _case(lambda: sequence(AIO, gin_block=True), (6,)),
    "glow": _case(lambda: sequence(GLOW), (6,)),
    "glow tanh": _case(lambda: sequence(GLOW, clamp_activation="TANH", clamp=1.2), (6,)),
    "glow tanh alone": _case(pickled, (6,)),
    "glow sigmoid": _case(lambda: sequence(GLOW, clamp_activation="SIGMOID", split_len=2), (6,)),
    "glow own clamp": _case(lambda: sequence(GLOW, clamp_activation=lambda u: u / (1 + u.abs())), (6,)),
    "rnvp": _case(lambda: sequence(RNVP, dim=7), (7,)),
    "nice": _case(lambda: sequence(modules.NICECouplingBlock), (6,)),
    "gin": _case(lambda: sequence(modules.GINCouplingBlock), (6,)),
    "one sided": _case(lambda: sequence(modules.AffineCouplingOneSided), (6,)),
    "conditional glow": _case(lambda: conditional(GLOW), (6,), context=4),
    "conditional rnvp": _case(lambda: conditional(RNVP), (6,), context=4),
    "conditional all in one": _case(lambda: conditional(AIO), (6,), context=4),
    "conditional one sided": _case(lambda: conditional(modules.AffineCouplingOneSided), (6,), context=4),
    "conditional affine": _case(lambda: conditional(modules.ConditionalAffineTransform), (6,), context=4),
    "images": _case(images, (2, 8, 8)),
    "images glow haar": _case(lambda: images(GLOW, modules.HaarDownsampling), (2, 8, 8)),
}
