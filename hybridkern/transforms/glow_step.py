"""One step of Glow on a pair of halves: folded actnorm and 1x1 convolution (or batch norm), then an affine coupling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_number, as_size
from hybridkern._autocast import without_autocast
from hybridkern._tensors import total_dtype
from hybridkern._values import transformed
from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.transforms.coupling import joined
from hybridkern.transforms.mixing import inverse_of
from hybridkern.transforms.squeeze import Pair


class PairStatistics(nn.Module):
    """Batch normalization of a pair of halves, as a mean and a standard deviation for each channel.

    In training mode they are those of the batch, and running averages are kept as :class:`torch.nn.BatchNorm2d` keeps
    them, but of the variance that the batch is normalized by; in evaluation mode they are the running ones. A channel
    of a batch whose statistics are not finite leaves the averages as they are: the batch itself gives NaN, and one of
    them must not stay in the model.

    Inside a transform of ``torch.func``, training mode raises RuntimeError where these averages cannot be kept.

    Args:
        channels: channels of both halves together.
        eps: added to the variance.
        momentum: weight of a new batch in the running averages.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Dinh et al. 2017 (arXiv:1605.08803), section 3.7.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        channels = as_size("channels", channels)
        self.eps = as_number("eps", eps, lambda v: 0 <= v < math.inf, "a finite number of at least 0")
        self.momentum = as_number("momentum", momentum, lambda v: 0 <= v <= 1, "a number from 0 to 1")
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self._used: tuple[Tensor, ...] = ()

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance plus ``eps`` to normalize the halves ``(B, C/2, *S)`` by, ``(C,)`` each."""
        if not self.training or first.numel() == 0:
            mean, var = self.running()
            self._remember(mean, var)
            return mean, var
        dims = (0, *range(2, first.ndim))
        parts = [torch.var_mean(half, dims, correction=0) for half in (first, second)]
        var, mean = (torch.cat([part[i] for part in parts]) for i in range(2))
        self._follow(mean.detach(), var.detach())
        var = var + self.eps
        self._remember(mean, var)
        return mean, var

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        if not torch.compiler.is_compiling():  # a graph keeps nothing beside its outputs
            self._used = mean.detach(), var.detach()

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        try:
            finite = (mean + var).isfinite()
            self.mean.lerp_(torch.where(finite, mean, self.mean), self.momentum)
            self.var.lerp_(torch.where(finite, var, self.var), self.momentum)
        except RuntimeError as error:
            if not transformed():
                raise
            raise RuntimeError(
                "batch norm in training mode changes its running averages, which torch.func does not allow here: call "
                "eval() on the flow first, or make its buffers arguments of the function that is transformed"
            ) from error

    @torch.no_grad()
    def initialize(self, mean: Tensor, std: Tensor) -> None:
        """Sets the running averages: ``mean`` and ``std`` ``(C,)``."""
        self.mean.copy_(mean)
        self.var.copy_(std.square())

    def running(self) -> tuple[Tensor, Tensor]:
        """What evaluation mode, and every inverse, normalizes by."""
        return self.mean.clone(), self.var + self.eps


class GlowStep(nn.Module):
    """Mixes the channels of both halves, then transforms the second half given the first.

    Matrix and offset of the mixing come from outside (:class:`~hybridkern.transforms.Mixing` composes those of a whole
    level at once), and so does its log-determinant go elsewhere: this layer adds what depends on the data. Both
    directions go through ``forward``, so that forward hooks (:func:`hybridkern.flows.check_finite`) see both.

    Args:
        net: maps the first half ``(B, C/2, *S)``, joined with the context, to the raw parameters of the second.
        form: affine form of the coupling.
        statistics: batch normalization before the mixing, or ``None``.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), table 1.
    """

    def __init__(self, net: nn.Module, form: CouplingForm, statistics: PairStatistics | None = None) -> None:
        super().__init__()
        self.net = net
        self.form = form
        self.statistics = statistics

    @property
    def by_batch(self) -> bool:
        """Whether ``forward`` depends on the other examples of the batch."""
        return self.statistics is not None and self.statistics.training

    def mix(self, first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The part before the coupling: the halves mixed, and the log-determinant of batch norm, a scalar."""
        if self.statistics is None:
            return *ops.paired_conv1x1(first, second, weight, bias), None
        mean, var = self.statistics(first, second)
        return *ops.paired_conv1x1(first, second, *_normalized(weight, bias, mean, var)), _batch_norm_log_det(
            first, var
        )

    def forward(
        self,
        state: Pair,
        log_det: Tensor,
        weight: Tensor,
        bias: Tensor,
        seen: Tensor | None = None,
        *,
        inverse: bool = False,
    ) -> tuple[Pair, Tensor]:
        """Data -> latent, or back.

        Args:
            state: the halves, ``(B, C/2, *S)`` each.
            log_det: of the layers before, in nats, ``(B,)``.
            weight, bias: of the mixing, ``(C, C)`` and ``(C,)``; those of the inverse mixing for ``inverse``.
            seen: a condition ``(B, c)`` that the network sees at every pixel, or ``None``.
            inverse: latent -> data; batch norm then uses its running averages.

        Returns:
            The new halves, and ``log_det`` plus what this step adds to it.
        """
        if inverse:
            return self._back(state, log_det, weight, bias, seen)
        first, second, normalization = self.mix(*state, weight, bias)
        if normalization is not None:
            log_det = log_det + normalization
        second, log_det = ops.affine_coupling(second, self.net(joined(first, seen)), log_det, form=self.form)
        return (first, second), log_det

    def _back(
        self, state: Pair, log_det: Tensor, weight: Tensor, bias: Tensor, seen: Tensor | None
    ) -> tuple[Pair, Tensor]:
        first, second = state
        raw = self.net(joined(first, seen))
        second, log_det = ops.affine_coupling(second, raw, log_det, form=self.form, inverse=True)
        pair = ops.paired_conv1x1(first, second, weight, bias)
        if self.statistics is None:
            return pair, log_det
        mean, var = self.statistics.running()
        std = var.sqrt()
        shape = (-1, *(1,) * (first.ndim - 2))
        halves = zip(pair, std.chunk(2), mean.chunk(2), strict=True)
        first, second = (half * s.view(shape) + m.view(shape) for half, s, m in halves)
        return (first, second), log_det - _batch_norm_log_det(first, var)

    def inverse(
        self, state: Pair, log_det: Tensor, weight: Tensor, bias: Tensor, seen: Tensor | None = None
    ) -> tuple[Pair, Tensor]:
        """Latent -> data, given the matrix and the offset of ``forward``; they are inverted here."""
        out: tuple[Pair, Tensor] = self(state, log_det, *inverse_of(weight, bias), seen, inverse=True)
        return out

    def remembered(self) -> tuple[Tensor, ...]:
        """What the last ``forward`` normalized by: :meth:`backward_from_output` cannot know it from the output."""
        return () if self.statistics is None else self.statistics._used

    def backward_from_output(
        self,
        state: Pair,
        inputs: tuple[Tensor, ...],
        remembered: tuple[Tensor, ...],
        grad_state: Pair,
        grad_log_det: Tensor,
        params: Sequence[nn.Parameter],
    ) -> tuple[Pair, Pair, tuple[Tensor | None, ...], list[Tensor | None]]:
        """Recovers the input of ``forward`` and its gradients; the network is evaluated once.

        Args:
            state: the halves that ``forward`` returned.
            inputs: the matrix and the offset that it was given, and the condition where there is one.
            remembered: :meth:`remembered` after that call.
            grad_state, grad_log_det: gradients of the loss in what it returned.
            params: parameters to give gradients for.

        Returns:
            The halves that ``forward`` was given, and the gradients in them, in ``inputs`` and in ``params``.
        """
        first, second = state
        with torch.enable_grad():
            kept = first.detach().requires_grad_()
            seen = tuple(value.detach().requires_grad_() for value in inputs[2:])
            raw = self.net(joined(kept, *seen) if seen else kept)
        mixed, grad_mixed, grad_raw = ops.affine_coupling_backward_from_output(
            second, raw.detach(), grad_state[1], grad_log_det, form=self.form
        )
        grad_first = grad_state[0]
        found: Sequence[Tensor | None] = [None] * (len(seen) + len(params))
        if raw.requires_grad:
            to_kept, *found = torch.autograd.grad(raw, (kept, *seen, *params), grad_raw, allow_unused=True)
            grad_first = grad_first if to_kept is None else grad_first + to_kept
        mixing = inputs[:2]
        folded = _normalized(*mixing, *remembered) if remembered else mixing
        before = ops.paired_conv1x1(first, mixed, *inverse_of(*folded))
        with torch.enable_grad():
            leaves = tuple(value.detach().requires_grad_() for value in (*before, *mixing))
            *halves, normalization = self.mix(*leaves)
        outputs, incoming = list(halves), [grad_first, grad_mixed]
        if normalization is not None and normalization.requires_grad:
            outputs.append(normalization)
            incoming.append(grad_log_det.sum().to(normalization.dtype))
        to_first, to_second, *grad_inputs = torch.autograd.grad(outputs, leaves, incoming)
        return before, (to_first, to_second), (*grad_inputs, *found[: len(seen)]), list(found[len(seen) :])


def _normalized(weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and offset with ``(x - mean) / sqrt(var)`` folded in, in the flow's own precision."""
    scaled = weight * var.rsqrt()
    with without_autocast(weight.device):
        return scaled, bias - torch.mv(scaled, mean)


def _batch_norm_log_det(first: Tensor, var: Tensor) -> Tensor:
    return -0.5 * math.prod(first.shape[2:]) * var.to(total_dtype(first)).log().sum()
