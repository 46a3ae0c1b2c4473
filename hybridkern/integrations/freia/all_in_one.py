"""FrEIA's block of coupling, global scale and permutation: one operator and one product of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from FrEIA.modules import all_in_one_block
from torch import Tensor
from torch.nn import functional as F

from hybridkern.integrations._layer import WIDE, Accelerated, Given, Options, fits, has_own_parts
from hybridkern.integrations._network import run_network
from hybridkern.integrations.freia._form import FORM
from hybridkern.integrations.freia.couplings import no_clamp
from hybridkern.ops import affine_coupling, affine_coupling_actnorm, paired_conv1x1
from hybridkern.ops.affine_coupling.form import CouplingForm

_SMALL = 1024
_PERMUTE = {0: F.linear, 1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DAMPING = 0.1  # the block multiplies all of the network's output by it


class _MisfitError(Exception):
    """The network returned what the operators do not take."""

    def __init__(self, params: object) -> None:
        super().__init__()
        self.params = params


def _log_det(scale: Tensor, z: Tensor) -> Tensor:
    """Of the global scale, which every position of ``z`` goes through."""
    return scale.log().sum() * z[0, 0].numel()


class AllInOneBlock(Accelerated, all_in_one_block.AllInOneBlock):
    """Global scale and offset run in the pass of the coupling, or on images are folded into the permutation."""

    REPLACEMENT = "affine_coupling; global scale and offset in the same pass, or folded into the permutation"
    NETWORKS = ("subnet",)
    CACHES = (FORM,)
    COUPLES = True

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """The volume-preserving variant."""
        return "a GIN block: its scales are normalized over the features" if layer.GIN else no_clamp(layer.clamp)

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        z = x[0]
        if not self._serves(z):
            return super().forward(x, c, rev, jac)
        with torch.autocast(z.device.type, enabled=False):
            permutation = self._permutation_matrix()
            scale = self.global_scale_activation(self.global_scale).flatten()
            offset = self.global_offset.flatten()
        move = self._back if rev else self._on if self.input_rank else self._on_vectors
        try:
            done = move(z, c, permutation, scale, offset)
        except _MisfitError as misfit:
            given = Given(self, subnet=misfit.params)
            return all_in_one_block.AllInOneBlock.forward(given, x, c, rev, jac)
        return (done[0],), done[1]

    def _serves(self, z: Tensor) -> bool:
        return (
            z.dtype in WIDE
            and z.dtype is self.global_scale.dtype is self.global_offset.dtype
            and z.ndim == self.input_rank + 2
            and z.shape[1] == self.in_channels > 1
            and z.numel() >= self._least()
            and not no_clamp(self.clamp)
            and not self.GIN
            and self.permute_function is _PERMUTE.get(self.input_rank)
            and not has_own_parts(self)
        )

    def _least(self) -> int:
        """Numbers in a batch of images below which the library is as fast; options for the networks hold for any."""
        return _SMALL if self._hybridkern == Options() and self.input_rank > 0 else 1

    def _permutation_matrix(self) -> Tensor:
        matrix = self._construct_householder_permutation() if self.householder else self.w_perm
        assert isinstance(matrix, Tensor)
        return matrix.view(self.in_channels, self.in_channels)

    def _inverse_of(self, permutation: Tensor) -> Tensor:
        """As the library has it: a parameter of its own, which a user may have trained."""
        return permutation.t() if self.householder else self.w_perm_inv.view(self.in_channels, self.in_channels)

    def _on(
        self, z: Tensor, c: Sequence[Tensor], permutation: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.reverse_pre_permute:
            z = torch.cat(self._product(z.split(self.splits, 1), self._inverse_of(permutation), None), 1)
        x1, x2 = z.split(self.splits, 1)
        done = self._couple(x1, x2, c, rev=False)
        halves = self._product((x1, done[0]), permutation * scale, torch.mv(permutation, offset))
        return torch.cat(halves, 1), done[1] + _log_det(scale, z)

    def _on_vectors(
        self, z: Tensor, c: Sequence[Tensor], permutation: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.reverse_pre_permute:
            z = F.linear(z, self._inverse_of(permutation))
        x1, x2 = z.split(self.splits, 1)
        params = self._params(x1, c)
        if not fits(x2, params, 2 * self.splits[1]):
            raise _MisfitError(params)
        # the permutation is fixed: with the scale in it, backward would need the gradient of a whole matrix
        y, log_det = affine_coupling_actnorm(z, params, scale, offset, form=self._form())
        return F.linear(y, permutation), log_det

    def _back(
        self, z: Tensor, c: Sequence[Tensor], permutation: Tensor, scale: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        inverse = self._inverse_of(permutation)
        if self.input_rank:
            x1, x2 = self._product(z.split(self.splits, 1), inverse / scale[:, None], -offset / scale)
        else:
            x1, x2 = ((F.linear(z, inverse) - offset) / scale).split(self.splits, 1)
        done = self._couple(x1, x2, c, rev=True)
        pair = (x1, done[0])
        if self.reverse_pre_permute:
            pair = self._product(pair, permutation, None)
        return torch.cat(pair, 1), done[1] - _log_det(scale, z)

    def _couple(self, x1: Tensor, x2: Tensor, c: Sequence[Tensor], rev: bool) -> tuple[Tensor, Tensor]:
        params = self._params(x1, c)
        if not fits(x2, params, 2 * x2.shape[1]):
            raise _MisfitError(params)
        return affine_coupling(x2, params, form=self._form(), inverse=rev)

    def _params(self, x1: Tensor, c: Sequence[Tensor]) -> Tensor:
        given = torch.cat([x1, *c], 1) if self.conditional else x1
        return run_network(self.subnet, given, options=self._hybridkern)

    def _form(self) -> CouplingForm:
        found: tuple[float, CouplingForm] | None = self.__dict__.get(FORM)
        if found is None or found[0] != self.clamp:
            form = CouplingForm(scale="tanh", clamp=float(self.clamp), gain=_DAMPING, shift_gain=_DAMPING)
            found = self.__dict__[FORM] = (self.clamp, form)
        return found[1]

    def _product(self, pair: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """``weight x + bias`` at every position, for the channels of both parts together."""
        first, second = pair
        with torch.autocast(first.device.type, enabled=False):
            if self.splits[0] == self.splits[1] and self.input_rank:
                return paired_conv1x1(first, second, weight, bias)
            kernel = weight.reshape(*weight.shape, *(1,) * self.input_rank)
            x1, x2 = self.permute_function(torch.cat([first, second], 1), kernel, bias).split(self.splits, 1)
            return x1, x2
