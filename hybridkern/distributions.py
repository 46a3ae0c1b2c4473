"""Base distributions of the flows: ``log_prob`` sums over each example, ``sample`` takes an optional generator.

``forward`` is ``log_prob``, so that forward hooks (:func:`hybridkern.flows.check_finite`) see it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_draw, as_flag, as_number, as_size
from hybridkern._finite import check_finite_values
from hybridkern._precision import wide
from hybridkern._ranks import rows_over_ranks
from hybridkern._saved.built import Built
from hybridkern._tensors import check_width, drawn


def standard_logistic(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Samples of the standard logistic on the device of ``like``, in float64 where the device has it."""
    dtype = wide(like).dtype
    u = drawn(torch.rand, shape, dtype, like.device, generator)
    # rand can return 0, whose logit is minus infinity
    return torch.logit(u.clamp(min=torch.finfo(dtype).eps / 4))


def sample_logistic(
    n: int,
    mean: Tensor,
    log_scale: Tensor,
    *,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """``n`` samples of discretized logistics with parameters ``(D,)`` or ``(n, D)``: integers ``(n, D)``."""
    noise = temperature * standard_logistic((n, mean.shape[-1]), mean, generator)
    return torch.round(wide(log_scale).exp() * noise + wide(mean)).to(mean.dtype)


def sample_logistic_mixture(
    n: int,
    logits: Tensor,
    mean: Tensor,
    log_scale: Tensor,
    *,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """The same of mixtures, with parameters ``(1, K, D)`` or ``(n, K, D)``."""
    # inverse of the cumulative weights: as many uniforms as samples, whatever the number of components
    weights = torch.softmax(wide(logits), 1)
    u = drawn(torch.rand, (n, 1, mean.shape[-1]), weights.dtype, weights.device, generator)
    chosen = (u > weights.cumsum(1)[:, :-1]).sum(1, keepdim=True)
    mean, log_scale = (p.expand(n, -1, -1).gather(1, chosen).squeeze(1) for p in (mean, log_scale))
    return sample_logistic(n, mean, log_scale, generator=generator, temperature=temperature)


# The logistic of scale 1 has the standard deviation pi / sqrt(3).
_SCALE_OF_STD = math.sqrt(3) / math.pi
# Log-scales start no lower: dimensions that hardly vary in the sample would make every other value all but impossible.
_LEAST_SCALE = 0.3
# torch.quantile takes no more elements at once.
_QUANTILE_LIMIT = 2**24


def _check_sample(x: Tensor, dim: int) -> Tensor:
    """``x``, that of all ranks, as a wide floating-point sample.

    Raises:
        TypeError: not a tensor.
        ValueError: not ``(N, dim)`` with ``N >= 1``, or a value is not finite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x: got {type(x).__name__}, expected a torch.Tensor")
    x = rows_over_ranks(wide(x) if x.is_floating_point() else x.to(torch.get_default_dtype()))
    if x.ndim != 2 or x.shape[1] != dim or len(x) == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (N, {dim}) with at least one row")
    if not x.is_meta:
        check_finite_values("x", x)
    return x


def _quantiles(x: Tensor, q: Tensor) -> Tensor:
    """Quantiles ``q (K,)`` of each column of ``x (N, D)``: ``(K, D)``."""
    columns = x.split(max(1, _QUANTILE_LIMIT // len(x)), 1)
    return torch.cat([torch.quantile(part, q.to(x), dim=0) for part in columns], 1)


class Distribution(Built, nn.Module, ABC):
    """A distribution over vectors ``(dim,)`` whose dtype and device are those of its parameters or buffers.

    Attributes:
        discrete: whether it is one of integers, and ``log_prob`` a log-probability and no log-density.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.
    """

    discrete: bool = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = as_size("dim", dim)

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""

    @property
    def device(self) -> torch.device:
        """Where samples lie; ``meta`` where that is not known."""
        return torch.device("meta")

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` samples, ``(n, dim)``, without gradient, their scale multiplied by ``temperature``.

        ``generator`` must live on the distribution's device.

        Raises:
            TypeError, ValueError: ``n`` or ``temperature`` is no such number, or negative.
        """

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`log_prob`."""
        return self.log_prob(x)

    def follow(self, given: Tensor) -> None:
        """Leaves the meta device for that of ``given``, in its dtype, with what no ``state_dict`` holds: nothing here.

        A flow calls it where it is loaded by ``load_state_dict(assign=True)``.
        """


class DiagonalGaussian(Distribution):
    """Independent Gaussians: standard by default, with learnt ``mean`` and ``log_scale`` ``(dim,)`` if ``trainable``.

    Source: the density of the normal distribution; see :func:`hybridkern.ops.gaussian_log_prob`.
    """

    _like: Tensor
    mean: Tensor | None
    log_scale: Tensor | None

    def __init__(self, dim: int, *, trainable: bool = False) -> None:
        super().__init__(dim)
        trainable = as_flag("trainable", trainable)
        # follows the module to its device and dtype; not part of state_dict
        self.register_buffer("_like", torch.empty(0), persistent=False)
        for name in ("mean", "log_scale"):
            self.register_parameter(name, nn.Parameter(torch.zeros(self.dim)) if trainable else None)

    def follow(self, given: Tensor) -> None:
        """Samples come in the dtype of ``given``, on its device, where they would be meta tensors otherwise."""
        if self._like.is_meta:
            self._like = given.new_empty(0)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """Where samples lie."""
        return self._like.device

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        check_width("x", x, self.dim)
        return ops.gaussian_log_prob(x, self.mean, self.log_scale)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` samples, ``(n, dim)``, without gradient."""
        n, temperature = as_draw(n, temperature)
        x = drawn(torch.randn, (n, self.dim), self.dtype, self._like.device, generator)
        x = x if temperature == 1 else x * temperature
        if self.mean is None or self.log_scale is None:
            return x
        return x * self.log_scale.exp() + self.mean


class _Learnt(Distribution):
    """One whose ``mean`` is a parameter."""

    mean: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        """Where samples lie."""
        return self.mean.device


class DiscretizedLogistic(_Learnt):
    """Independent logistics, each integer having the mass of the unit interval around it.

    Parameters ``mean`` (starts at 0) and ``log_scale`` (starts at 1, as the tutorial's), ``(dim,)`` each;
    :meth:`initialize` starts them from data instead.

    Source: see :func:`hybridkern.ops.discretized_logistic_log_prob`.
    """

    discrete = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.mean = nn.Parameter(torch.zeros(self.dim))
        self.log_scale = nn.Parameter(torch.ones(self.dim))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Sets mean and standard deviation of each dimension to those of ``x``; scales to 0.3 at least.

        Draws no random numbers.
        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Args:
            x: a sample, ``(N, dim)``, any dtype.

        Raises:
            TypeError, ValueError: no such tensor, no rows, or a value that is not finite.
        """
        x = _check_sample(x, self.dim)
        self.mean.copy_(x.mean(0))
        self.log_scale.copy_((x.std(0, correction=0) * _SCALE_OF_STD).clamp(min=_LEAST_SCALE).log())

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        check_width("x", x, self.dim)
        return ops.discretized_logistic_log_prob(x, self.mean, self.log_scale, reduction="sum")

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` integer samples, ``(n, dim)``, without gradient."""
        n, temperature = as_draw(n, temperature)
        return sample_logistic(n, self.mean, self.log_scale, generator=generator, temperature=temperature)


class DiscretizedLogisticMixture(_Learnt):
    """Independent mixtures of ``components`` discretized logistics.

    Parameters ``logits``, ``mean`` and ``log_scale``, ``(1, components, dim)`` each. The means start apart, over two
    scales around 0: components that start equal would get equal gradients and stay equal. :meth:`initialize` starts
    them from data instead.

    Raises:
        TypeError, ValueError: ``components`` is not a positive integer.

    Source: see :func:`hybridkern.ops.discretized_logistic_mixture_log_prob`.
    """

    discrete = True

    def __init__(self, dim: int, components: int = 5) -> None:
        super().__init__(dim)
        components = as_size("components", components)
        shape = (1, components, self.dim)
        spread = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.logits = nn.Parameter(torch.zeros(shape))
        self.mean = nn.Parameter((2 * math.e * spread).view(1, -1, 1).repeat(1, 1, self.dim))
        self.log_scale = nn.Parameter(torch.ones(shape))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Spreads the components over each dimension of ``x``: equal weights, means at its quantiles.

        With ``K`` components the means are the quantiles ``1/2K, 3/2K, ...``, moved apart by up to 0.3 so that equal
        ones differ, and the scales ``1/K`` of the standard deviation, 0.3 at least: on evenly spread data a component
        is then about half as wide as its neighbours are apart. Draws no random numbers.
        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Args:
            x: a sample, ``(N, dim)``, any dtype.

        Raises:
            TypeError, ValueError: no such tensor, no rows, or a value that is not finite.
        """
        x = _check_sample(x, self.dim)
        components = self.mean.shape[1]
        q = (torch.arange(components, device=x.device) + 0.5) / components
        apart = torch.linspace(-0.3, 0.3, components, device=x.device) if components > 1 else x.new_zeros(1)
        scale = x.std(0, correction=0) * min(1 / components, _SCALE_OF_STD)
        self.logits.zero_()
        self.mean.copy_((_quantiles(x, q) + apart.to(x.dtype)[:, None])[None])
        self.log_scale.copy_(scale.clamp(min=_LEAST_SCALE).log().expand_as(self.log_scale))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        check_width("x", x, self.dim)
        return ops.discretized_logistic_mixture_log_prob(x, self.logits, self.mean, self.log_scale, reduction="sum")

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` integer samples, ``(n, dim)``, without gradient."""
        n, temperature = as_draw(n, temperature)
        return sample_logistic_mixture(
            n, self.logits, self.mean, self.log_scale, generator=generator, temperature=temperature
        )


class ClassGaussians(_Learnt):
    """A diagonal Gaussian for each class, and how often each class is: ``p(z|y) p(y)``, and ``p(z)`` by their sum.

    As the base of a flow it makes ``p(x|y)`` exact, and with it ``p(y|x)`` by Bayes' rule
    (:class:`hybridkern.hybrid.heads.Bayes`) and samples of a class.

    Parameters: ``mean`` and ``log_scale`` ``(classes, dim)``, and ``logits`` ``(classes,)`` of the class frequencies.
    The means start at right angles to each other as far as the dimensions go, ``radius`` from the origin.

    Args:
        dim: dimensions of the latents.
        classes: number of classes, at least 2.
        radius: see above; in units of the standard deviation, which starts at 1.
        trainable: whether means, scales and frequencies are learnt.

    Raises:
        TypeError, ValueError: a size or ``radius`` of the wrong type or range.

    Source: Izmailov et al. 2020 (arXiv:1912.13025), section 3; Ardizzone et al. 2020 (arXiv:2001.06448), equation 6.
    """

    def __init__(self, dim: int, classes: int, *, radius: float = 3.0, trainable: bool = True) -> None:
        super().__init__(dim)
        self.classes = as_size("classes", classes, 2)
        radius = as_number("radius", radius, lambda r: 0 <= r < math.inf, "a finite number of at least 0")
        trainable = as_flag("trainable", trainable)
        directions = torch.randn(self.classes, self.dim)
        # rows at right angles, in groups of at most dim; of a single dimension, whose rows are all 1, on both sides
        groups = [torch.linalg.qr(group.T).Q.T for group in directions.split(self.dim)]
        turned = torch.cat([-group if i % 2 else group for i, group in enumerate(groups)])
        self.mean = nn.Parameter(radius * turned, requires_grad=trainable)
        self.log_scale = nn.Parameter(torch.zeros(self.classes, self.dim), requires_grad=trainable)
        self.logits = nn.Parameter(torch.zeros(self.classes), requires_grad=trainable)

    def log_frequencies(self) -> Tensor:
        """``log p(y)`` of every class in nats, ``(classes,)``, at least float32: 16 bits would not sum to 1."""
        return torch.log_softmax(self._logits(), 0)

    def log_joint(self, z: Tensor) -> Tensor:
        """``log p(z|y) + log p(y)`` of every class in nats, ``(B, classes)``, for ``z`` ``(B, dim)``."""
        check_width("z", z, self.dim)
        frequencies = self.log_frequencies()
        each = [
            ops.gaussian_log_prob(z, mean[None], log_scale[None])
            for mean, log_scale in zip(self.mean, self.log_scale, strict=True)
        ]
        return torch.stack(each, 1) + frequencies

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        return torch.logsumexp(self.log_joint(x), 1)

    def _logits(self) -> Tensor:
        return self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))

    @torch.no_grad()
    def sample_of_class(
        self, label: int, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """``n`` samples of ``p(z|y=label)``, ``(n, dim)``, without gradient.

        Raises:
            TypeError, ValueError: no such class, or a negative ``n`` or ``temperature``.
        """
        n, temperature = as_draw(n, temperature)
        label = as_size("label", label, 0, expected=f"0 to {self.classes - 1} ({self.classes} classes)")
        if label >= self.classes:
            raise ValueError(f"label: got {label}, expected 0 to {self.classes - 1} ({self.classes} classes)")
        return self._around(torch.full((n,), label, device=self.mean.device), generator, temperature)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` samples, ``(n, dim)``, without gradient; ``temperature`` multiplies the scales."""
        n, temperature = as_draw(n, temperature)
        if not n:
            return self.mean.new_empty(0, self.dim)
        frequencies = torch.softmax(self._logits(), 0)
        return self._around(torch.multinomial(frequencies, n, True, generator=generator), generator, temperature)

    def _around(self, labels: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        noise = drawn(torch.randn, (len(labels), self.dim), self.dtype, self.mean.device, generator)
        return self.mean[labels] + temperature * self.log_scale[labels].exp() * noise
