"""Affine coupling as a layer: a network and the fused operator it feeds."""

from __future__ import annotations

from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import short
from hybridkern._saved.built import Built
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form


class AffineCoupling(Built, nn.Module):
    """Transforms one half of the dimensions by an affine map that a network computes from the other half.

    Takes and returns the changing half alone, so that a flow never joins the halves between its layers. Both
    directions go through ``forward``, so that forward hooks (:func:`hybridkern.flows.check_finite`) see both.

    Args:
        net: maps the unchanged half ``(B, C1, *S)`` to raw parameters, ``(B, 2 C2, *S)``, or ``(B, C2, *S)`` for a
            form without scale.
        form: a named form or a :class:`~hybridkern.ops.CouplingForm`; see :func:`hybridkern.ops.affine_coupling`.

    Raises:
        ValueError, TypeError: ``form`` is neither, or ``net`` no module.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8.
    """

    def __init__(self, net: nn.Module, form: str | CouplingForm = "realnvp") -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: got {short(net)}, expected an nn.Module")
        self.net = net
        self.form = resolve_form(form)

    def forward(
        self, x: Tensor, context: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Transform ``x``, the half that changes, given ``context``, the half that stays.

        Args:
            x: ``(B, C2, *S)``.
            context: ``(B, C1, *S)``.
            log_det: of the layers before, in nats, ``(B,)``; ``None`` is zero.
            inverse: latent -> data instead of data -> latent.

        Returns:
            ``y`` like ``x``, and ``log_det`` plus this layer's, of the direction computed, ``(B,)``.
        """
        return ops.affine_coupling(x, self.net(context), log_det, form=self.form, inverse=inverse)
