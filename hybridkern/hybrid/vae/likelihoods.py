"""What a decoder's numbers say about the data: ``log p(x|z)`` of an example, by the fused operators."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridkern import ops
from hybridkern._arguments import as_number, as_size
from hybridkern._finite import readable
from hybridkern._saved.built import Built
from hybridkern._tensors import drawn, total_dtype
from hybridkern.distributions import sample_logistic, sample_logistic_mixture


class Likelihood(Built, ABC):
    """``p(x|z)`` of ``D`` values that are independent given the decoder's outputs.

    Attributes:
        outputs: numbers that the decoder gives for each value; the numbers of one kind stand together.
    """

    outputs: int = 1

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """``log p(x|z)`` in nats, ``(B,)``, at least float32, for ``params`` ``(B, outputs * D)`` and ``x`` ``(B, D)``.

        Raises:
            ValueError: data outside of the range of the likelihood.
        """

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """The expected values, ``(B, D)``."""

    @abstractmethod
    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw for each row, ``(B, D)``."""


class Bernoulli(Likelihood):
    """Values from 0 to 1 by their logits: black and white pixels, or grey ones as probabilities.

    Source: Kingma and Welling 2014 (arXiv:1312.6114), appendix C.1.
    """

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        if readable(x) and x.numel() and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"x: got values from {x.min().item():g} to {x.max().item():g}, expected 0 to 1 for the Bernoulli "
                "likelihood"
            )
        each = F.binary_cross_entropy_with_logits(
            params.to(total_dtype(params)), x.to(total_dtype(x)), reduction="none"
        )
        return -each.sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        return torch.sigmoid(params)

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Likelihood.sample`."""
        return torch.bernoulli(self.mean(params), generator=generator)


class Gaussian(Likelihood):
    """Real values with a mean and a log-scale each; or with one fixed ``scale``, when the decoder gives means alone.

    Raises:
        TypeError, ValueError: ``scale`` is not a positive number.
    """

    _settings = ("scale",)

    def __init__(self, scale: float | None = None) -> None:
        known = (
            None if scale is None else as_number("scale", scale, lambda s: 0 < s < float("inf"), "a positive number")
        )
        self.scale = known
        self.outputs = 2 if known is None else 1

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        if self.scale is None:
            mean, log_scale = params.chunk(2, 1)
            return mean, log_scale
        return params, torch.full_like(params, math.log(self.scale))

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        if self.scale is None:
            return ops.gaussian_log_prob(x, *self._split(params))
        wide = total_dtype(params)  # a known scale is not rounded to the decoder's precision
        return ops.gaussian_log_prob(x.to(wide), *self._split(params.to(wide)))

    def mean(self, params: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        return self._split(params)[0]

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Likelihood.sample`."""
        mean, log_scale = self._split(params)
        noise = drawn(torch.randn, mean.shape, mean.dtype, mean.device, generator)
        return mean + log_scale.exp() * noise


class Logistic(Likelihood):
    """Discretized logistics on the multiples of ``bin_width``: :func:`hybridkern.ops.discretized_logistic_log_prob`.

    Raises:
        TypeError, ValueError: ``bin_width`` is not a positive number.
    """

    _settings = ("bin_width",)
    outputs = 2

    def __init__(self, bin_width: float = 1.0) -> None:
        self.bin_width = as_number("bin_width", bin_width, lambda w: 0 < w < float("inf"), "a positive number")

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        mean, log_scale = params.chunk(2, 1)
        return ops.discretized_logistic_log_prob(x, mean, log_scale, bin_width=self.bin_width, reduction="sum")

    def mean(self, params: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        return params.chunk(2, 1)[0]

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Likelihood.sample`."""
        mean, log_scale = (p / self.bin_width if i == 0 else p for i, p in enumerate(params.chunk(2, 1)))
        shifted = log_scale - math.log(self.bin_width)
        return self.bin_width * sample_logistic(len(mean), mean, shifted, generator=generator)


class LogisticMixture(Likelihood):
    """Mixtures of ``components`` discretized logistics; logits, means, log-scales, component by component.

    Raises:
        TypeError, ValueError: a number of the wrong type or range.
    """

    _settings = ("bin_width",)

    def __init__(self, components: int = 5, bin_width: float = 1.0) -> None:
        self.components = as_size("components", components)
        self.bin_width = as_number("bin_width", bin_width, lambda w: 0 < w < float("inf"), "a positive number")
        self.outputs = 3 * self.components

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, mean, log_scale = params.unflatten(1, (3, self.components, -1)).unbind(1)
        return logits, mean, log_scale

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        return ops.discretized_logistic_mixture_log_prob(
            x, *self._split(params), bin_width=self.bin_width, reduction="sum"
        )

    def mean(self, params: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        logits, mean, _ = self._split(params)
        return (torch.softmax(logits, 1) * mean).sum(1)

    def sample(self, params: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Likelihood.sample`."""
        logits, mean, log_scale = self._split(params)
        shifted = log_scale - math.log(self.bin_width)
        drawn = sample_logistic_mixture(len(mean), logits, mean / self.bin_width, shifted, generator=generator)
        return self.bin_width * drawn


NAMED: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "logistic": Logistic,
    "mixture": LogisticMixture,
}


def resolve_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name with its defaults, or itself.

    Raises:
        ValueError: no likelihood has that name.
        TypeError: neither.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str):
        if likelihood in NAMED:
            return NAMED[likelihood]()
        raise ValueError(f"likelihood: got {likelihood!r}, expected one of {', '.join(map(repr, NAMED))}")
    raise TypeError(f"likelihood: got {type(likelihood).__name__}, expected a name or a Likelihood")
