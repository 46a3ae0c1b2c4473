"""One residual layer: its value, its log-determinant, exact or estimated, and its inverse."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from hybridkern._tensors import total_dtype
from hybridkern._values import has_saved_tensor_hooks, transformed
from hybridkern.lipschitz import DenseNet, PlainNet, Weights
from hybridkern.transforms.residual.fixed_point import differentiable
from hybridkern.transforms.residual.series import Estimated, Series, chain, dot

# Dimensions up to which a product after the other takes less than all of them under vmap, whose formulas are PyTorch's.
_ROW_BY_ROW = 8


class ResidualBlock(nn.Module):
    """``y = x + g(x)``.

    Args:
        net: ``g``, a module of :mod:`hybridkern.lipschitz` that takes ``(x, weights)``.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def exact(self, x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """``y``, and ``log det(I + J)`` ``(B,)`` from the whole Jacobian: ``D`` products an example.

        It can be differentiated as often as one likes, also by ``torch.func``.
        """
        eager = not (transformed() or torch.compiler.is_compiling())
        # torch.func takes no hooks on saved tensors, such as those of activation checkpoints
        if eager and x.numel() and not x.is_meta and (_is_small(x) or has_saved_tensor_hooks()):
            return self._row_by_row(x, weights)
        if torch.compiler.is_exporting():
            return self._by_tangents(x, weights)
        y = x + self.net(x, weights)
        if x.is_meta or x.shape[0] == 0:
            return y, y.flatten(1).sum(1, dtype=total_dtype(x)) * 0

        def of_one(row: Tensor) -> Tensor:
            found: Tensor = self.net(row[None], weights)[0].flatten()
            return found

        jacobian = torch.func.vmap(torch.func.jacrev(of_one))(x).flatten(2)
        identity = torch.eye(jacobian.shape[1], dtype=jacobian.dtype, device=x.device)
        return y, _log_abs_det((jacobian + identity).to(total_dtype(x)))

    def _by_tangents(self, x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """:meth:`exact` in plain operations: ``torch.export`` traces neither autograd nor ``torch.func``."""
        identity = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        directions = identity.view(1, -1, *x.shape[1:]).expand(x.shape[0], -1, *x.shape[1:])
        g, columns = cast(PlainNet | DenseNet, self.net).with_tangents(x, weights, directions)
        return x + g, _log_abs_det((columns.flatten(2) + identity).to(total_dtype(x)))  # that of the transpose

    def _row_by_row(self, x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """:meth:`exact` by a vector-Jacobian product a dimension, through the operators' own derivatives."""
        records = _records(x, weights)
        with torch.inference_mode(False), torch.enable_grad():
            given = x if x.requires_grad else _own(x.detach()).requires_grad_()
            g = self.net(given, weights if records else {layer: _own(weight) for layer, weight in weights.items()})
            identity = torch.eye(g[0].numel(), dtype=g.dtype, device=x.device)
            ones = identity.view(-1, 1, *g.shape[1:]).expand(-1, *g.shape)
            rows = [torch.autograd.grad(g, given, one, retain_graph=True, create_graph=records)[0] for one in ones]
        jacobian = torch.stack([row.flatten(1) for row in rows], 1)
        log_det = _log_abs_det((jacobian + identity).to(total_dtype(x)))
        return (given + g, log_det) if records else (x + g.detach(), log_det)

    def estimate(
        self, x: Tensor, weights: Weights, series: Series, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``y``, the mean of ``series.vectors`` estimates of the log-determinant ``(B,)``, and its variance ``(B,)``.

        Where a gradient is recorded, that of the log-determinant is an unbiased estimate of its own, each example with
        its own weight; memory does not grow with the terms. The variance is that of the mean, 0 with one vector.

        Raises:
            RuntimeError: inside a transform of ``torch.func``, forward mode or ``torch.export``.
        """
        if torch.compiler.is_exporting():
            raise RuntimeError("trace: got 'estimate' under torch.export, expected 'exact': log_prob(x, trace='exact')")
        if transformed():
            raise RuntimeError("trace: got 'estimate' inside a transform of torch.func, expected 'exact'")
        records = _records(x, weights)
        with torch.inference_mode(False), torch.enable_grad():
            given = x if x.requires_grad else _own(x.detach()).requires_grad_()
            g = self.net(given, {layer: _own(weight) for layer, weight in weights.items()})

            def pull(u: Tensor) -> Tensor:
                return torch.autograd.grad(g, given, u, retain_graph=True)[0]

            values, surrogates = [], []
            for _ in range(series.vectors):
                v = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
                value, w = chain(pull, v, series.weights(generator))
                values.append(value)
                if records:
                    (product,) = torch.autograd.grad(g, given, w, create_graph=True)
                    surrogates.append(dot(product, v))
        stacked = torch.stack(values)
        log_det = stacked.mean(0)
        variance = stacked.var(0) / len(values) if len(values) > 1 else torch.zeros_like(log_det)
        if records:
            log_det = Estimated.apply(log_det, torch.stack(surrogates).mean(0))  # type: ignore[no-untyped-call]
        return given + g if records else x + g.detach(), log_det, variance

    def inverse(self, y: Tensor, weights: Weights) -> Tensor:
        """``x`` with ``x + g(x) = y``; see :func:`hybridkern.transforms.residual.fixed_point.solve`.

        Raises:
            RuntimeError: under ``torch.export``.
        """
        if torch.compiler.is_exporting():
            raise RuntimeError("inverse: a residual flow iterates until it is solved, which torch.export cannot trace")
        # what the network works with now: functional_call puts other tensors in their place, for the forward pass alone
        held: dict[str, Tensor] = dict(self.net.named_parameters())

        def again(x: Tensor, rows: Tensor) -> Tensor:
            if all(value is held.get(name) for name, value in self.net.named_parameters()):
                return cast(Tensor, self.net(x, weights))
            return cast(Tensor, torch.func.functional_call(self.net, held, (x, weights)))

        own = {layer.weight for layer in weights}  # these come as weights, and are not read again
        read = [p for p in held.values() if p not in own]
        return differentiable(lambda x, _: self.net(x, weights), y, again, read)


def _is_small(x: Tensor) -> bool:
    return x.is_cpu and x[:1].numel() <= _ROW_BY_ROW


def _log_abs_det(matrices: Tensor) -> Tensor:
    """``log|det|`` of ``matrices`` ``(B, D, D)``: ``(B,)``."""
    if not transformed():
        log_det: Tensor = torch.linalg.slogdet(matrices).logabsdet
        return log_det
    # second derivatives of slogdet in forward mode are wrong; the factors take longer
    factors: Tensor = torch.linalg.lu_factor_ex(matrices).LU
    return factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def _records(x: Tensor, weights: Weights) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or any(w.requires_grad for w in weights.values()))


def _own(value: Tensor) -> Tensor:
    """A tensor that can be saved for a backward pass, which one made in inference mode cannot."""
    return value.clone() if value.is_inference() else value


# What torch.compiler.disable does, without its import of the compiler: the number of terms is drawn anew at each call.
_REASON = "estimates run outside of graphs; trace='exact' compiles"
for _function in (ResidualBlock.estimate, Series.weights, chain):
    vars(_function).update(_torchdynamo_disable=True, _torchdynamo_disable_msg=_REASON)
