"""Coupling blocks of FrEIA: tuples in and out, ``rev=True`` for latent -> data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from FrEIA.modules import coupling_layers as layers
from torch import Tensor

from hybridkern.integrations._layer import Accelerated, fits
from hybridkern.integrations._network import run_network
from hybridkern.integrations.freia._form import FORM, kept_form
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm

Tensors = Sequence[Tensor]
_SCALES = {"atan": ("atan", 1.0), "tanh": ("tanh", 1.0), "sigmoid": ("tanh", 0.5)}  # 2*sigma(a) - 1 = tanh(a/2)


def clamp_name(activation: Callable[[Tensor], Tensor]) -> str | None:
    """Which of the library's own clamps it is: ``"atan"``, ``"tanh"``, ``"sigmoid"``, or ``None``."""
    if activation is torch.tanh:
        return "tanh"
    code = getattr(activation, "__code__", None)
    if code is None or getattr(activation, "__module__", None) != layers.__name__:
        return None
    return {("torch", "atan"): "atan", ("torch", "sigmoid"): "sigmoid"}.get(code.co_names)


class Clamped(Accelerated):
    """What the affine blocks share."""

    REPLACEMENT = "affine_coupling"
    CACHES = (FORM,)
    clamp: float
    f_clamp: Callable[[Tensor], Tensor]

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A clamp of the user's own."""
        if clamp_name(layer.f_clamp) is None:
            return "a clamp activation of its own"
        if not isinstance(layer.clamp, (int, float)) or not layer.clamp > 0:
            return f"clamp is {layer.clamp!r}, not a positive number"
        return ""

    def call(self, network: Any, x: Tensor) -> Tensor:
        """The raw output of a network."""
        return run_network(network, x, options=self._hybridkern)

    def couple(self, x: Tensor, params: Tensor, rev: bool) -> tuple[Tensor, Tensor] | None:
        """``x`` transformed, and the log-determinant; ``None`` where the operator does not fit."""
        if not fits(x, params, 2 * x.shape[1]):
            return None
        return affine_coupling(x, params, form=self._form(), inverse=rev)

    def _form(self) -> CouplingForm:
        name = clamp_name(self.f_clamp)
        assert name is not None
        scale, gain = _SCALES[name]
        return kept_form(self, scale=scale, clamp=float(self.clamp), gain=gain)


class GLOWCouplingBlock(Clamped, layers.GLOWCouplingBlock):
    """Both halves in turn, each with one network for scale and shift."""

    NETWORKS = ("subnet1", "subnet2")

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return self.couple(x1, self.call(self.subnet2, u2), rev) or super()._coupling1(x1, u2, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return self.couple(x2, self.call(self.subnet1, u1), rev) or super()._coupling2(x2, u1, rev)


class RNVPCouplingBlock(Clamped, layers.RNVPCouplingBlock):
    """Both halves in turn, each with a network for the scale and one for the shift."""

    NETWORKS = ("subnet_s1", "subnet_t1", "subnet_s2", "subnet_t2")

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        params = torch.cat([self.call(self.subnet_s2, u2), self.call(self.subnet_t2, u2)], 1)
        return self.couple(x1, params, rev) or super()._coupling1(x1, u2, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        params = torch.cat([self.call(self.subnet_s1, u1), self.call(self.subnet_t1, u1)], 1)
        return self.couple(x2, params, rev) or super()._coupling2(x2, u1, rev)


class AffineCouplingOneSided(Clamped, layers.AffineCouplingOneSided):
    """The second half given the first."""

    NETWORKS = ("subnet",)

    def forward(self, x: Tensors, c: Tensors = (), rev: bool = False, jac: bool = True) -> tuple[tuple[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        x1, x2 = torch.split(x[0], [self.split_len1, self.split_len2], dim=1)
        done = self.couple(x2, self.call(self.subnet, torch.cat([x1, *c], 1) if self.conditional else x1), rev)
        if done is None:
            return super().forward(x, c, rev, jac)
        return (torch.cat((x1, done[0]), 1),), done[1]


class ConditionalAffineTransform(Clamped, layers.ConditionalAffineTransform):
    """All of the input given the condition."""

    NETWORKS = ("subnet",)

    def forward(self, x: Tensors, c: Tensors = (), rev: bool = False, jac: bool = True) -> tuple[tuple[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        done = self.couple(x[0], self.call(self.subnet, torch.cat(tuple(c), 1) if len(c) > 1 else c[0]), rev)
        return super().forward(x, c, rev, jac) if done is None else ((done[0],), done[1])


class NICECouplingBlock(Accelerated, layers.NICECouplingBlock):
    """The library's sums; only its networks are called in another way."""

    REPLACEMENT = "its sums stay; its networks are called as stated for them"
    NETWORKS = ("F", "G")

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        shift = run_network(self.F, u2, options=self._hybridkern)
        return (x1 - shift if rev else x1 + shift), 0.0

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        shift = run_network(self.G, u1, options=self._hybridkern)
        return (x2 - shift if rev else x2 + shift), 0.0
