"""Planar flow on vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridkern._autocast import without_autocast
from hybridkern._finite import check_finite_values
from hybridkern._ranks import of_first_rank, rows_over_ranks
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows._later import watch_finite
from hybridkern.flows.base import Context, Flow, check_count, check_vectors
from hybridkern.transforms.planar import PlanarMap


class Planar(Flow):
    """Planar flow: layers ``x + u tanh(w x + b)``, over a standard Gaussian.

    **There is no closed-form inverse.** ``inverse`` solves one scalar equation per example and layer in float64, by
    Newton's method between bounds (80 evaluations of ``tanh``, whatever the dimension); ``sample`` and ``interpolate``
    of a hybrid model go through it. ``forward`` and ``log_prob`` are exact and cheap: ``O(dim)`` per layer. Gradients
    of both directions are exact.

    A layer changes the density along one direction only, so that the flow suits few dimensions; in one dimension it is
    a monotone map. The slope along a direction is at least 1e-3.

    Args:
        dim: dimensions of one example, at least 1.
        layers: number of maps.
        context: width of a condition, to which the parameters of each map are affine, or a module that makes it from
            the condition given.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), section 4.1 and appendix A.1.

    >>> import torch
    >>> flow = Planar(2, layers=3)
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> z, _ = flow(x)
    >>> bool((flow.inverse(z)[0] - x).abs().max() < 1e-5)
    True
    """

    def __init__(self, dim: int, layers: int = 3, *, context: int | nn.Module = 0) -> None:
        dim, layers = check_count("dim", dim, 1), check_count("layers", layers, 1)
        super().__init__(dim, DiagonalGaussian(dim), context)
        self.maps = nn.ModuleList(PlanarMap(dim, self.context_width) for _ in range(layers))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Lays the maps over the data: each bends at a row of ``x`` drawn at random, over half their width.

        From its first random parameters every map bends at the origin; a density of several modes is then hard to find.
        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Args:
            x: a sample of the data, ``(N, dim)`` with ``N >= 2``, as :meth:`forward` takes it.
            context: its conditions, in a flow that has them.
            generator: source of the draw, on a CPU; ``None`` is torch's default generator.

        Raises:
            TypeError, ValueError: what :meth:`forward` raises; fewer than two rows, rows that do not vary, or a value
                that is not finite. Nothing is changed then.
        """
        check_vectors("x", x, self.dim, self.base.dtype, self.base.device)
        seen = self.seen(context, x)
        if x.is_meta:
            return
        x, seen = rows_over_ranks(x), None if seen is None else rows_over_ranks(seen.to(x.dtype))
        check_finite_values("x", x, "; nothing was changed")
        layers = [layer for layer in self.maps if isinstance(layer, PlanarMap)]
        widths = [layer.along(x, seen).std() if len(x) > 1 else x.new_zeros(()) for layer in layers]
        for width in widths:
            if not (width.isfinite() and width > 0):
                raise ValueError(
                    f"x: got {len(x)} rows of standard deviation {width.item():g}, expected rows that vary"
                )
        drawn = [int(torch.randint(len(x), (), generator=generator)) for _ in layers]
        rows = of_first_rank(torch.tensor(drawn, device=x.device))
        for layer, width, row in zip(layers, widths, rows.tolist(), strict=True):
            layer.bend_at(x[row : row + 1], None if seen is None else seen[row : row + 1], 2 / width)

    def _run(self, x: Tensor, context: Context, inverse: bool) -> tuple[Tensor, Tensor]:
        log_det: Tensor | None = None
        seen = self.seen(context, x)
        order = range(len(self.maps))
        with without_autocast(x.device):  # w x loses all that the inverse needs
            x = x.to(self.base.dtype)
            seen = None if seen is None else seen.to(self.base.dtype)
            for i in reversed(order) if inverse else order:
                x, log_det = self.maps[i](x, log_det, context=seen, inverse=inverse)
        assert log_det is not None
        return x, log_det

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: ``(B, dim)``, dtype of the parameters.
            context: condition, ``(B, width)`` or ``(width,)``; ``None`` in a flow without one.

        Returns:
            Latents ``(B, dim)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("x", x, self.dim, self.base.dtype, self.base.device)
        return self._run(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, solved numerically, to the precision that the slope of the map allows.

        Args:
            z: ``(B, dim)``, dtype of the parameters.
            context: as :meth:`forward` takes it.

        Returns:
            Data ``(B, dim)`` and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("z", z, self.dim, self.base.dtype, self.base.device)
        x, log_det = self._run(z, context, inverse=True)
        watch_finite(self, x)
        return x, log_det
