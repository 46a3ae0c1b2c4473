"""What every flow is: a bijection between data and latents, and a distribution over the latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hybridkern import _tensors as _check
from hybridkern.distributions import Distribution
from hybridkern.nets import ConvNet, mlp

NetBuilder = Callable[[int, int], nn.Module]


def check_vectors(name: str, x: Tensor, dim: int, dtype: torch.dtype) -> None:
    """``x`` must be a tensor ``(B, dim)`` of ``dtype`` (any floating-point dtype under autocast).

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor")
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"{name}: got shape {_check.shape_text(x.shape)}, expected (B, {dim})")
    if x.dtype is not dtype and not (x.is_floating_point() and torch.is_autocast_enabled(x.device.type)):
        raise TypeError(
            f"{name}: got dtype {x.dtype}, expected {dtype}, the dtype of the flow's parameters (flow.to changes it)"
        )


def integers_as(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``x`` checked by :func:`check_vectors` or :func:`check_images`, converted to ``dtype`` first if of integers."""
    if isinstance(x, Tensor) and not x.is_floating_point():
        x = x.to(dtype)
    if len(shape) == 1:
        check_vectors(name, x, shape[0], dtype)
    else:
        check_images(name, x, shape, dtype)
    return x


def check_images(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """``x`` must be a tensor ``(B, *shape)`` of ``dtype`` (any floating-point dtype under autocast).

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor")
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        expected = "(B, " + ", ".join(map(str, shape)) + ")"
        raise ValueError(f"{name}: got shape {_check.shape_text(x.shape)}, expected {expected}")
    if x.dtype is not dtype and not (x.is_floating_point() and torch.is_autocast_enabled(x.device.type)):
        hint = "; transforms.dequantize makes it from integers" if not x.is_floating_point() else ""
        raise TypeError(f"{name}: got dtype {x.dtype}, expected {dtype}, the dtype of the flow's parameters{hint}")


def check_shape(name: str, shape: object, factor: int, reason: str) -> tuple[int, int, int]:
    """``shape`` as ``(C, H, W)`` with ``H`` and ``W`` divisible by ``factor``, of which ``reason`` says what it is.

    Raises:
        TypeError: not three integers.
        ValueError: a size that is not positive or not divisible.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or any(not isinstance(size, int) or isinstance(size, bool) for size in sizes):
        raise TypeError(f"{name}: got {shape!r}, expected three integers (C, H, W)")
    c, h, w = sizes
    if min(c, h, w) < 1:
        raise ValueError(f"{name}: got {sizes}, expected positive sizes (C, H, W)")
    for label, size in (("H", h), ("W", w)):
        if size % factor:
            raise ValueError(f"{name}: got {sizes}, expected {label} to be divisible by {reason}")
    return c, h, w


def check_count(name: str, value: object, least: int) -> int:
    """``value`` as an integer of at least ``least``.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        hint = "; this flow works on vectors (B, dim): flatten images first" if name == "dim" else ""
        raise TypeError(f"{name}: got {value!r}, expected an integer{hint}")
    if value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")
    return value


def net_builder(
    hidden: int | Sequence[int],
    net: NetBuilder | None,
    *,
    activation: Callable[[], nn.Module],
    dropout: float,
    zero_last: bool,
) -> NetBuilder:
    """``net`` itself, or a builder of perceptrons with these hidden layers; an ``int`` means two layers of it."""
    if net is not None:
        return net
    sizes = (hidden, hidden) if isinstance(hidden, int) else tuple(hidden)
    return partial(mlp, hidden=sizes, activation=activation, dropout=dropout, zero_last=zero_last)


def image_net_builder(
    hidden: int | Sequence[int], net: NetBuilder | None, *, activation: Callable[[], nn.Module], dropout: float
) -> NetBuilder:
    """``net`` itself, or a builder of :class:`~hybridkern.nets.ConvNet`, which has one width and its own activations.

    Raises:
        ValueError: several widths, or an activation or dropout of which these networks know nothing.
    """
    if net is not None:
        return net
    if activation is not nn.LeakyReLU or dropout:
        name, value = ("dropout", dropout) if dropout else ("activation", activation)
        raise ValueError(f"{name}: got {value!r}, expected the default for images; give net to choose networks")
    widths = {hidden} if isinstance(hidden, int) else set(hidden)
    if len(widths) != 1:
        raise ValueError(f"hidden: got {hidden!r}, expected one width for images")
    return partial(ConvNet, hidden=widths.pop())


class Flow(nn.Module, ABC):
    """Base class: a subclass gives ``forward`` and ``inverse``, the rest follows from them and from ``base``.

    Attributes:
        dim: number of dimensions ``D`` of one example.
        shape: shape of one example, ``(D,)`` for vectors or ``(C, H, W)``; latents are ``(D,)`` always.
        base: distribution of the latents.
        discrete: whether data and latents are integers and ``log_prob`` a log-probability instead of a log-density.
    """

    discrete: bool = False

    def __init__(self, dim: int, base: Distribution) -> None:
        super().__init__()
        self.dim = dim
        self.shape: tuple[int, ...] = (dim,)
        self.base = base

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data ``x`` ``(B, *shape)`` -> latents ``(B, dim)`` and the log-determinant of this direction ``(B,)``."""

    @abstractmethod
    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``z`` ``(B, dim)`` -> data ``(B, *shape)`` and the log-determinant of this direction ``(B,)``."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (integer flows: log-probability) of ``x`` ``(B, *shape)`` in nats: ``(B,)``, at least float32."""
        z, log_det = self(x)
        log_p: Tensor = self.base(z) + log_det
        return log_p

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples, ``(n, *shape)``, without gradient.

        Args:
            n: number of samples, 0 or more.
            generator: source of randomness, on the flow's device; ``None`` is torch's default generator.
        """
        return self.inverse(self.base.sample(n, generator=generator))[0]

    def sample_and_log_prob(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` samples ``(n, *shape)`` and their log-probabilities ``(n,)`` from one pass.

        Gradients flow through the map, not through the draw of the latents.
        """
        z = self.base.sample(n, generator=generator)
        x, log_det = self.inverse(z)
        return x, self.base(z) - log_det
