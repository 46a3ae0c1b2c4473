"""Coupling blocks of FrEIA that transform both halves in turn, in the library's own ``forward``."""

from __future__ import annotations

from typing import Any

import torch
from FrEIA.modules import coupling_layers as layers
from torch import Tensor, nn

from hybridkern.integrations._layer import Accelerated, Given, Options, unsaved
from hybridkern.integrations._network import keeps_strides, run_network
from hybridkern.integrations._reads import only_reads
from hybridkern.integrations.freia.couplings import Clamped

Coupled = tuple[Tensor, Tensor]


class _TwoSided(Clamped):
    """What the blocks share: the half that was transformed is what the next network gets."""

    def half(self, x: Tensor, params: Tensor, rev: bool, networks: tuple[object, ...]) -> Coupled | None:
        """``x`` transformed for those networks, and the log-determinant; ``None`` where the operator does not fit."""
        done = self.couple(x, params, rev)
        if done is None or not done[0].requires_grad or all(only_reads(network) for network in networks):
            return done
        form = self.form()
        assert form is not None
        return unsaved(done[0], form, rev), done[1]


def _called_otherwise(names: tuple[str, ...], layer: Any, options: Options) -> bool:
    """Whether the networks get another precision, memory format or memory."""
    networks = [getattr(layer, name) for name in names]
    strided = all(isinstance(network, nn.Module) and keeps_strides(network) for network in networks)
    return options != Options() or (len(layer.dims_in[0]) == 3 and strided)


class GLOWCouplingBlock(_TwoSided, layers.GLOWCouplingBlock):
    """Both halves in turn, each with one network for scale and shift."""

    NETWORKS = ("subnet1", "subnet2")

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> Coupled:
        params = self.call(self.subnet2, u2)
        done = self.half(x1, params, rev, (self.subnet1,))
        return done or layers.GLOWCouplingBlock._coupling1(Given(self, subnet2=params), x1, u2, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> Coupled:
        params = self.call(self.subnet1, u1)
        done = self.half(x2, params, rev, (self.subnet2,))
        return done or layers.GLOWCouplingBlock._coupling2(Given(self, subnet1=params), x2, u1, rev)


class RNVPCouplingBlock(_TwoSided, layers.RNVPCouplingBlock):
    """Both halves in turn, each with a network for the scale and one for the shift."""

    NETWORKS = ("subnet_s1", "subnet_t1", "subnet_s2", "subnet_t2")

    @classmethod
    def no_gain(cls, layer: Any, options: Options) -> str:
        """Four networks that would be called as they are."""
        called_otherwise = _called_otherwise(cls.NETWORKS, layer, options)
        return "" if called_otherwise else "joining what its networks return costs what the operator gains"

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> Coupled:
        s, t = self.call(self.subnet_s2, u2), self.call(self.subnet_t2, u2)
        done = self._both(x1, s, t, rev, (self.subnet_s1, self.subnet_t1))
        return done or layers.RNVPCouplingBlock._coupling1(Given(self, subnet_s2=s, subnet_t2=t), x1, u2, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> Coupled:
        s, t = self.call(self.subnet_s1, u1), self.call(self.subnet_t1, u1)
        done = self._both(x2, s, t, rev, (self.subnet_s2, self.subnet_t2))
        return done or layers.RNVPCouplingBlock._coupling2(Given(self, subnet_s1=s, subnet_t1=t), x2, u1, rev)

    def _both(self, x: Tensor, s: Tensor, t: Tensor, rev: bool, networks: tuple[object, ...]) -> Coupled | None:
        if s.shape != x.shape or t.shape != x.shape or s.dtype is not t.dtype or s.device != t.device:
            return None
        return self.half(x, torch.cat([s, t], 1), rev, networks)


class NICECouplingBlock(Accelerated, layers.NICECouplingBlock):
    """The library's sums; only its networks are called in another way."""

    REPLACEMENT = "its sums stay as they are; its networks are called as listed below"
    NETWORKS = ("F", "G")
    COUPLES = True

    @classmethod
    def no_gain(cls, layer: Any, options: Options) -> str:
        """Networks that would be called as they are."""
        return "" if _called_otherwise(cls.NETWORKS, layer, options) else "two sums already"

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        shift = run_network(self.F, u2, options=self._hybridkern)
        return (x1 - shift if rev else x1 + shift), 0.0

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        shift = run_network(self.G, u1, options=self._hybridkern)
        return (x2 - shift if rev else x2 + shift), 0.0
