"""Linear layers on vectors: a scale and a shift for each dimension, and a full matrix as a product of triangles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._autocast import without_autocast
from hybridkern._finite import check_finite_values
from hybridkern._ranks import rows_over_ranks
from hybridkern._saved.built import Built
from hybridkern._tensors import check_width, total_dtype

# A dimension that varies less keeps its scale.
_LEAST_STD = 1e-6


def _added(log_det: Tensor | None, own: Tensor, x: Tensor) -> Tensor:
    """``log_det`` plus ``own`` ``()`` for each example."""
    return own.expand(x.shape[0]).clone() if log_det is None else log_det + own


class ActNorm(Built, nn.Module):
    """``y = exp(log_scale) * x + shift``, a scale and a shift for each dimension; the identity at the start.

    Args:
        dim: dimensions of one example.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = as_size("dim", dim)
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Starts so that every dimension of ``y`` has mean 0 and standard deviation 1 on ``x`` ``(N, dim)``.

        A dimension that hardly varies (standard deviation below 1e-6) keeps its scale.

        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Raises:
            ValueError: another shape, no rows, or a value that is not finite. Nothing is changed then.
        """
        x = rows_over_ranks(x)
        if x.ndim != 2 or x.shape[1] != len(self.shift) or len(x) == 0:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (N, {len(self.shift)}) with at least one row")
        if x.is_meta:
            return
        check_finite_values("x", x, "; nothing was changed")
        std, mean = torch.std_mean(x.double(), 0, correction=0)
        log_scale = torch.where(std < _LEAST_STD, 0.0, -std.log())
        self.log_scale.copy_(log_scale)
        self.shift.copy_(-mean * log_scale.exp())

    def forward(self, x: Tensor, log_det: Tensor | None = None, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Data -> latent, or back; ``x`` ``(B, dim)``, and ``log_det`` as in every layer.

        Raises:
            TypeError, ValueError: ``x`` is no tensor, or has another shape.
        """
        check_width("x", x, len(self.shift))  # a single scale would be broadcast, and counted once
        own = self.log_scale.sum(dtype=total_dtype(x))
        if inverse:
            return ((x - self.shift) * torch.exp(-self.log_scale)).to(x.dtype), _added(log_det, -own, x)
        return (x * torch.exp(self.log_scale) + self.shift).to(x.dtype), _added(log_det, own, x)


class LULinear(Built, nn.Module):
    """``y = L U x + b`` with ``L`` unit lower and ``U`` upper triangular, its diagonal positive; the identity first.

    The log-determinant costs nothing, and the inverse two triangular solutions. It runs without autocast.

    Args:
        dim: dimensions of one example.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.

    Source: Oliva et al. 2018 (arXiv:1801.09819), section 3.1.1; Kingma and Dhariwal 2018 (arXiv:1807.03039), equation
    10, whose diagonal may have any sign.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = as_size("dim", dim)
        self.matrix = nn.Parameter(torch.zeros(dim, dim))  # L below the diagonal, U above, log of U's diagonal on it
        self.bias = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """``L`` and ``U``, ``(dim, dim)`` each."""
        identity = torch.eye(len(self.bias), dtype=self.matrix.dtype, device=self.matrix.device)
        diagonal = self.matrix.diagonal()
        return self.matrix.tril(-1) + identity, self.matrix.triu(1) + torch.diag_embed(diagonal.exp())

    def forward(self, x: Tensor, log_det: Tensor | None = None, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Data -> latent, or back; ``x`` ``(B, dim)``, and ``log_det`` as in every layer.

        Raises:
            TypeError, ValueError: ``x`` is no tensor, or has another shape.
        """
        check_width("x", x, len(self.bias))
        own = self.matrix.diagonal().sum(dtype=total_dtype(x))
        with without_autocast(x.device):
            lower, upper = self.factors()
            wide = x.to(lower.dtype)
            if not inverse:
                return F.linear(wide, lower @ upper, self.bias).to(x.dtype), _added(log_det, own, x)
            # there are no solutions in half precision
            lower, upper, wide = (value.to(total_dtype(value)) for value in (lower, upper, wide))
            # row by row x (L U)^T = y - b
            half = torch.linalg.solve_triangular(lower.T, wide - self.bias, upper=True, left=False, unitriangular=True)
            back = torch.linalg.solve_triangular(upper.T, half, upper=False, left=False)
        return back.to(x.dtype), _added(log_det, -own, x)
