"""RealNVP on vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern._coupling_form import CouplingForm, resolve_form
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows.base import Flow, NetBuilder, check_count, check_vectors, net_builder
from hybridkern.transforms import AffineCoupling


class RealNVP(Flow):
    """Affine couplings that transform the two halves of a vector in turn, over a standard Gaussian.

    The halves stay apart through the whole flow and are joined once, at its end. An odd ``dim`` gives the first half
    the extra dimension. With its own networks the flow starts as the identity of its form (their last layer is zero).

    Args:
        dim: dimensions of one example, at least 2.
        layers: number of couplings; even ones transform the second half, odd ones the first.
        hidden: hidden sizes of each coupling network; an ``int`` means two layers of it.
        form: affine form, a name or a :class:`~hybridkern.ops.CouplingForm`: ``"realnvp"`` (``log s`` bounded by 2),
            ``"exp"``, ``"glow"``, ``"additive"`` and the others of :func:`hybridkern.ops.affine_coupling`.
        net: builds a coupling network instead, ``net(in_features, out_features)``; its own initialization is kept.
        activation: builds the activations of the networks.
        dropout: dropout probability in the networks; training steps only.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or an unknown form.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8.

    >>> import torch
    >>> flow = RealNVP(3, layers=2, hidden=8)
    >>> flow.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        dim: int,
        layers: int = 8,
        hidden: int | Sequence[int] = (256, 256),
        form: str | CouplingForm = "realnvp",
        *,
        net: NetBuilder | None = None,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(check_count("dim", dim, 2), DiagonalGaussian(dim))
        check_count("layers", layers, 1)
        self.form = resolve_form(form)
        self.sizes = (dim - dim // 2, dim // 2)
        build = net_builder(hidden, net, activation=activation, dropout=dropout, zero_last=True)
        outputs = 2 if self.form.has_scale else 1
        self.couplings = nn.ModuleList()
        for i in range(layers):
            fixed, changed = self.sizes[i % 2], self.sizes[1 - i % 2]
            self.couplings.append(AffineCoupling(build(fixed, outputs * changed), self.form))

    def _run(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        halves = list(x.split(self.sizes, 1))
        log_det: Tensor | None = None
        order = range(len(self.couplings))
        for i in reversed(order) if inverse else order:
            fixed, changed = i % 2, 1 - i % 2
            halves[changed], log_det = self.couplings[i](halves[changed], halves[fixed], log_det, inverse=inverse)
        assert log_det is not None
        return torch.cat(halves, 1), log_det

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: ``(B, dim)``, dtype of the parameters.

        Returns:
            Latents ``(B, dim)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("x", x, self.dim, self.base.dtype)
        return self._run(x, inverse=False)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data.

        Args:
            z: ``(B, dim)``, dtype of the parameters.

        Returns:
            Data ``(B, dim)`` and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("z", z, self.dim, self.base.dtype)
        return self._run(z, inverse=True)
