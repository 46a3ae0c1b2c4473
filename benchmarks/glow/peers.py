"""Glow as the users of normflows and FrEIA write it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.glow.eager import coupling_network
from benchmarks.glow.side import Architecture, Side


def normflows(architecture: Architecture, bf16: bool = False) -> Side:
    """The model of its Glow example: levels of ``GlowBlock`` and ``Squeeze``, joined by ``Merge``.

    The example's base is conditional on the class; this one is a standard normal, as that of the other sides.
    """
    import normflows as nf

    bases, flows, merges = [], [], []
    shapes = architecture.level_shapes()[::-1]  # that library counts from the latents on
    for index, (channels, height, width) in enumerate(shapes):
        flows.append([nf.flows.GlowBlock(channels, architecture.hidden) for _ in range(architecture.steps)])
        flows[-1].append(nf.flows.Squeeze())
        if index > 0:
            merges.append(nf.flows.Merge())
        latent = (channels if index == 0 else channels // 2, height, width)
        bases.append(nf.distributions.DiagGaussian(latent, trainable=False))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    networks = tuple(m for m in model.modules() if isinstance(m, nf.nets.ConvNet2d))
    name = "normflows-bf16" if bf16 else "normflows"
    return Side(name, model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0], networks, bf16=bf16)


class FrEIAGlow(nn.Module):
    """A graph of ``AllInOneBlock``: coupling of one half, actnorm, and a fixed rotation of the channels (1x1).

    FrEIA has no 1x1 convolution that is learned as a matrix; all else is as in Glow, with its own forms of scales.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        from FrEIA import framework, modules

        block = {
            "subnet_constructor": lambda inputs, outputs: coupling_network(inputs, outputs, architecture.hidden),
            "permute_soft": True,
        }
        nodes = [framework.InputNode(*architecture.shape, name="image")]
        ends = []
        last = nodes[0]
        for level in range(architecture.levels):
            last = framework.Node(last, modules.IRevNetDownsampling, {}, name=f"squeeze {level}")
            nodes.append(last)
            for step in range(architecture.steps):
                last = framework.Node(last, modules.AllInOneBlock, dict(block), name=f"block {level} {step}")
                nodes.append(last)
            if level < architecture.levels - 1:
                split = framework.Node(last, modules.Split, {}, name=f"split {level}")
                ends.append(framework.OutputNode(split.out1, name=f"latent {level}"))
                nodes.append(split)
                last = split.out0
        ends.append(framework.OutputNode(last, name="latent"))
        self.inn = framework.GraphINN([*nodes, *ends])
        self.dim = architecture.dim
        self.latent_shapes = [tuple(shape) for shape in self.inn.global_out_shapes]

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, ``(B,)``."""
        latents, log_det = self.inn(x)
        latents = (latents,) if isinstance(latents, Tensor) else latents
        squares = sum(latent.float().square().flatten(1).sum(1) for latent in latents)
        return log_det - 0.5 * (squares + self.dim * math.log(2 * math.pi))

    def sample(self, count: int) -> Tensor:
        """Images of the model."""
        return self.inn([torch.randn(count, *shape) for shape in self.latent_shapes], rev=True, jac=False)[0]


def freia(architecture: Architecture, bf16: bool = False) -> Side:
    """FrEIA's graph of invertible blocks."""
    from FrEIA.modules import AllInOneBlock

    model = FrEIAGlow(architecture)
    networks = tuple(m.subnet for m in model.modules() if isinstance(m, AllInOneBlock))
    return Side("freia-bf16" if bf16 else "freia", model, model.log_prob, model.sample, networks, bf16=bf16)
