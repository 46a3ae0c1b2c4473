"""Coupling blocks of FrEIA with one network: tuples in and out, ``rev=True`` for latent -> data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from FrEIA.modules import coupling_layers as layers
from torch import Tensor

from hybridkern.integrations._layer import Accelerated, Given, fits, unsaved
from hybridkern.integrations._network import run_network
from hybridkern.integrations.freia._form import FORM
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


def no_clamp(clamp: object) -> str:
    """Why the operator does not take this bound; empty if it does."""
    fine = isinstance(clamp, (int, float)) and clamp > 0 and math.isfinite(clamp)
    return "" if fine else f"clamp is {clamp!r}, not a positive number"


class Clamped(Accelerated):
    """What the affine blocks share."""

    REPLACEMENT = "affine_coupling"
    CACHES: ClassVar[tuple[str, ...]] = (FORM,)
    COUPLES = True
    clamp: float
    ndims: int
    f_clamp: Callable[[Tensor], Tensor]

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A clamp of the user's own."""
        return "a custom clamp activation" if clamp_name(layer.f_clamp) is None else no_clamp(layer.clamp)

    def call(self, network: Any, x: Tensor) -> Tensor:
        """The raw output of a network."""
        return run_network(network, x, options=self._hybridkern)

    def couple(self, x: Tensor, params: Tensor, rev: bool) -> tuple[Tensor, Tensor] | None:
        """``x`` transformed, and the log-determinant; ``None`` where the operator does not fit."""
        form = self.form()
        if form is None or x.ndim != self.ndims + 1 or not fits(x, params, 2 * x.shape[1]):
            return None
        return affine_coupling(x, params, form=form, inverse=rev)

    def form(self) -> CouplingForm | None:
        """The operator's name for the map, as the attributes are now; ``None`` where it has none."""
        found = self.__dict__.get(FORM)
        if found is None or found[0] is not self.f_clamp or found[1] != self.clamp:
            found = self.__dict__[FORM] = (self.f_clamp, self.clamp, self._form())
        return found[2]

    def _form(self) -> CouplingForm | None:
        name = clamp_name(self.f_clamp)
        if name is None or no_clamp(self.clamp):
            return None
        scale, gain = _SCALES[name]
        return CouplingForm(scale=scale, clamp=float(self.clamp), gain=gain)


class AffineCouplingOneSided(Clamped, layers.AffineCouplingOneSided):
    """The second half given the first."""

    NETWORKS = ("subnet",)

    def forward(self, x: Tensors, c: Tensors = (), rev: bool = False, jac: bool = True) -> tuple[tuple[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        x1, x2 = torch.split(x[0], [self.split_len1, self.split_len2], dim=1)
        params = self.call(self.subnet, torch.cat([x1, *c], 1) if self.conditional else x1)
        done = self.couple(x2, params, rev)
        if done is None:
            return layers.AffineCouplingOneSided.forward(Given(self, subnet=params), x, c, rev, jac)
        return (torch.cat((x1, done[0]), 1),), done[1]


class ConditionalAffineTransform(Clamped, layers.ConditionalAffineTransform):
    """All of the input given the condition."""

    NETWORKS = ("subnet",)

    def forward(self, x: Tensors, c: Tensors = (), rev: bool = False, jac: bool = True) -> tuple[tuple[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        params = self.call(self.subnet, torch.cat(tuple(c), 1) if len(c) > 1 else c[0])
        done = self.couple(x[0], params, rev)
        if done is None:
            return layers.ConditionalAffineTransform.forward(Given(self, subnet=params), x, c, rev, jac)
        form = self.form()
        assert form is not None
        return (unsaved(done[0], form, rev),), done[1]
