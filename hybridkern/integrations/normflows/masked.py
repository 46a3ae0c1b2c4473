"""Affine couplings of normflows whose two halves are told apart by a mask."""

from __future__ import annotations

from typing import Any

import torch
from normflows.flows.affine import coupling
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, Given, fits, unsaved
from hybridkern.integrations._network import run_network
from hybridkern.integrations._reads import only_reads
from hybridkern.integrations._seen import Seen
from hybridkern.integrations.normflows.couplings import SHIFT
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm

# Scale and shift come from two networks; the library's map goes from latents to data.
MASKED = CouplingForm(scale="exp", negate=True, shift="subtract")
_BINARY = "_hybridkern_binary"


class MaskedAffineFlow(Accelerated, coupling.MaskedAffineFlow):
    """``affine_coupling`` on all features, with scale and shift zero where the mask is one."""

    REPLACEMENT = "affine_coupling"
    NETWORKS = ("s", "t")
    CACHES = (_BINARY,)
    COUPLES = True

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A layer that is the identity, and masks between zero and one."""
        if not isinstance(layer.s, torch.nn.Module) and not isinstance(layer.t, torch.nn.Module):
            return "neither scale nor shift"
        return "" if _is_binary(layer.b) else "its mask is not of zeros and ones in float32 or float64"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        return self._couple(z, to_data=True)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        return self._couple(z, to_data=False)

    def _couple(self, z: Tensor, to_data: bool) -> tuple[Tensor, Tensor]:
        run = coupling.MaskedAffineFlow.forward if to_data else coupling.MaskedAffineFlow.inverse
        if (
            not isinstance(z, Tensor)
            or z.dtype not in WIDE
            or z.ndim != self.b.ndim
            or z.ndim < 2
            or not self._serves()
        ):
            return run(self, z)
        masked = self.b * z
        tracked = not (torch.compiler.is_compiling() or masked.is_inference())
        before = masked._version if tracked else 0
        nets = [net if isinstance(net, torch.nn.Module) else None for net in (self.s, self.t)]
        scale, shift = (None if net is None else run_network(net, masked, options=self._hybridkern) for net in nets)
        form = SHIFT if scale is None else MASKED
        # a graph cannot look at the mask, and the library's formula holds for any
        params = None if torch.compiler.is_compiling() else self._params(z, scale, shift)
        if not fits(z, params, 2 * z.shape[1] if form.has_scale else z.shape[1]):
            outputs = {name: value for name, value in (("s", scale), ("t", shift)) if value is not None}
            return run(Given(self, **outputs), z)
        assert params is not None
        y, log_det = affine_coupling(z, params, form=form, inverse=to_data)
        written = masked._version != before if tracked else not all(only_reads(net) for net in nets if net is not None)
        if written:  # the library adds what a network left of its input
            return y + (masked - self.b * z), log_det
        return unsaved(y, form, to_data), log_det

    def _params(self, z: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
        """What the operator takes, ``None`` where scale and shift are not both as ``z``."""
        parts = [value for value in (scale, shift) if value is not None]
        if any(value.shape != z.shape or value.dtype is not z.dtype or self.b.dtype is not z.dtype for value in parts):
            return None
        if self.b.shape[1:] != z.shape[1:]:
            return None
        free: Tensor = self.__dict__[_BINARY][3]  # one where the parameters count
        if scale is None:
            assert shift is not None
            return _masked(shift, free)
        return _masked(torch.cat([scale, torch.zeros_like(scale) if shift is None else shift], 1), free)

    def _serves(self) -> bool:
        """Whether the mask is of zeros and ones; looks again when it has other numbers."""
        if torch.compiler.is_compiling():  # the networks alone are called otherwise, which must only read then
            return all(only_reads(net) for net in (self.s, self.t) if isinstance(net, torch.nn.Module))
        form = MASKED if isinstance(self.s, torch.nn.Module) else SHIFT
        found = self.__dict__.get(_BINARY)
        if found is None or found[2] is not form or not found[0].holds((self.b,)):
            with torch.inference_mode(False):  # it is kept, for training too
                free = _free(self.b.detach().clone(), form)
            found = self.__dict__[_BINARY] = (Seen((self.b,)), _is_binary(self.b), form, free)
        return bool(found[1])


def _free(mask: Tensor, form: CouplingForm) -> Tensor:
    return torch.cat([1 - mask] * (1 + form.has_scale), 1)


def _is_binary(mask: Tensor) -> bool:
    return mask.dtype in WIDE and bool(((mask == 0) | (mask == 1)).all())


def _masked(params: Tensor, free: Tensor) -> Tensor:
    """``params * free``, with NaN in place of what is not finite: the library maps infinities to NaN."""
    return torch.addcmul(params.detach() * 0, params, free)
