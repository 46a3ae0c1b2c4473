"""What every flow is: a bijection between data and latents, and a distribution over the latents."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridkern import _tensors
from hybridkern._arguments import (
    as_builder,
    as_name,
    as_size,
    as_sizes,
    as_temperature,
    built,
    is_integer,
    is_sizes,
    short,
)
from hybridkern._autocast import has_autocast
from hybridkern._saved.built import Saved
from hybridkern.distributions import Distribution
from hybridkern.flows._context import Embedded, seen, width_of
from hybridkern.flows._later import watch_finite
from hybridkern.nets import Constant, ConvNet, DenseNet, ResNet, as_probability, mlp

Context = Tensor | Embedded | None
NetBuilder = Callable[[int, int], nn.Module]


def check_vectors(name: str, x: Tensor, dim: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
    """``x`` must be a tensor ``(B, dim)`` of ``dtype`` (any floating-point dtype under autocast).

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another shape, or another device than ``device``, where that is named.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor")
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"{name}: got shape {_tensors.shape_text(x.shape)}, expected (B, {dim})")
    if x.dtype is not dtype and not (x.is_floating_point() and has_autocast(x.device)):
        hint = "flow.to changes it" if x.is_floating_point() else f"{name}.to({dtype}) converts whole numbers"
        raise TypeError(f"{name}: got dtype {x.dtype}, expected {dtype}, the dtype of the flow's parameters ({hint})")
    _check_device(name, x, device)


def integers_as(
    name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """``x`` checked by :func:`check_vectors` or :func:`check_images`, converted to ``dtype`` first if of integers."""
    if isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex():
        x = x.to(dtype)
    if len(shape) == 1:
        check_vectors(name, x, shape[0], dtype, device)
    else:
        check_images(name, x, shape, dtype, device)
    return x


def check_images(
    name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None
) -> None:
    """``x`` must be a tensor ``(B, *shape)`` of ``dtype`` (any floating-point dtype under autocast).

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another shape, or another device than ``device``, where that is named.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor")
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        expected = "(B, " + ", ".join(map(str, shape)) + ")"
        raise ValueError(f"{name}: got shape {_tensors.shape_text(x.shape)}, expected {expected}")
    if x.dtype is not dtype and not (x.is_floating_point() and has_autocast(x.device)):
        hint = "; transforms.dequantize makes it from integers" if not x.is_floating_point() else ""
        raise TypeError(f"{name}: got dtype {x.dtype}, expected {dtype}, the dtype of the flow's parameters{hint}")
    _check_device(name, x, device)


def _check_device(name: str, x: Tensor, device: torch.device | None) -> None:
    # what still lies on meta was built there, and has been given its parameters without being moved
    if device is not None and device.type != "meta" and x.device != device:
        raise ValueError(f"{name}: got device {x.device}, expected {device}, the device of the flow (flow.to moves it)")


def check_shape(name: str, shape: object, factor: int, reason: str) -> tuple[int, int, int]:
    """``shape`` as ``(C, H, W)`` with ``H`` and ``W`` divisible by ``factor``, of which ``reason`` says what it is.

    Raises:
        TypeError: not three integers.
        ValueError: a size that is not positive or not divisible.
    """
    given = list(shape) if is_sizes(shape) else []  # type: ignore[call-overload]
    if len(given) != 3 or not all(map(is_integer, given)):
        raise TypeError(f"{name}: got {short(shape)}, expected three integers (C, H, W)")
    c, h, w = sizes = tuple(map(operator.index, given))
    if min(c, h, w) < 1:
        raise ValueError(f"{name}: got {sizes}, expected positive sizes (C, H, W)")
    for label, size in (("H", h), ("W", w)):
        if size % factor:
            raise ValueError(f"{name}: got {sizes}, expected {label} to be divisible by {reason}")
    return c, h, w


def check_count(name: str, value: object, least: int) -> int:
    """``value`` as a Python integer of at least ``least``; NumPy's and torch's integers are taken too.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    if not is_integer(value):
        hint = "; this flow works on vectors (B, dim): flatten images first" if name == "dim" else ""
        raise TypeError(f"{name}: got {short(value)}, expected an integer{hint}")
    return as_size(name, value, least, expected=f"at least {least}")


def net_builder(
    hidden: int | Sequence[int],
    net: NetBuilder | None,
    *,
    activation: Callable[[], nn.Module],
    dropout: float,
    zero_last: bool,
) -> NetBuilder:
    """``net`` itself, or a builder of perceptrons with these hidden layers; an ``int`` means two layers of it.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.
    """
    if net is not None:
        return checked_builder(net)
    sizes = widths_of(hidden)
    as_builder("activation", activation, _ACTIVATION)
    dropout = as_probability("dropout", dropout)
    return partial(mlp, hidden=sizes, activation=activation, dropout=dropout, zero_last=zero_last)


_ACTIVATION = "a function that builds an activation, such as nn.ReLU"


def no_context(context: object) -> None:
    """Of the flows on images only Glow takes a context.

    Raises:
        TypeError, ValueError: ``context`` is another than 0.
    """
    if width_of(context):
        raise ValueError(f"context: got {short(context)}, expected 0 for images; flows.Glow takes one")


def widths_of(hidden: int | Sequence[int]) -> tuple[int, ...]:
    """Sizes of the hidden layers; an ``int`` means two layers of it.

    Raises:
        TypeError, ValueError: neither, or a size that is not positive.
    """
    sizes = _widths(hidden)
    return sizes * 2 if is_integer(hidden) else sizes


def with_context(build: NetBuilder, width: int) -> NetBuilder:
    """Builds networks that see ``width`` numbers more; one that has nothing at all to see is a constant."""
    return lambda inputs, outputs: build(inputs + width, outputs) if inputs + width else Constant(outputs)


def _widths(hidden: object) -> tuple[int, ...]:
    if is_integer(hidden):
        return (as_size("hidden", hidden),)
    if not is_sizes(hidden):
        raise TypeError(f"hidden: got {short(hidden)}, expected a positive integer or a sequence of them")
    return as_sizes("hidden", hidden)


def checked_builder(net: object) -> NetBuilder:
    """``net``, whose networks are checked to be modules.

    Raises:
        TypeError: not callable.
    """
    build = as_builder("net", net, "a callable (in_features, out_features) -> nn.Module")
    return lambda in_features, out_features: built("net", build(in_features, out_features))


IMAGE_NETS: dict[str, Callable[..., nn.Module]] = {
    "conv": ConvNet,
    "densenet": DenseNet,
    "groupnorm-swish": partial(DenseNet, norm=True),
    "resnet": ResNet,
}


def image_net_builder(
    hidden: int | Sequence[int], net: NetBuilder | str | None, *, activation: Callable[[], nn.Module], dropout: float
) -> NetBuilder:
    """``net`` itself, or a builder of one of ``IMAGE_NETS``, which have one width and their own activations.

    Raises:
        TypeError, ValueError: several widths, an unknown name, or an activation or dropout of which these networks
            know nothing.
    """
    if net is not None and not isinstance(net, str):
        return checked_builder(net)
    name = as_name("net", "conv" if net is None else net, tuple(IMAGE_NETS), more=" or a callable")
    if activation is not nn.LeakyReLU or dropout:
        name, value = ("dropout", dropout) if dropout else ("activation", activation)
        raise ValueError(f"{name}: got {value!r}, expected the default for images; give net to choose networks")
    widths = set(_widths(hidden))
    if len(widths) != 1:
        raise ValueError(f"hidden: got {hidden!r}, expected one width for images")
    return partial(IMAGE_NETS[name], hidden=widths.pop())


class FlowPass(NamedTuple):
    """What :meth:`Flow.run` gives: latents ``z`` ``(B, D)``, ``log p(z)`` and the log-determinant, ``(B,)`` nats."""

    z: Tensor
    log_pz: Tensor
    log_det: Tensor

    @property
    def log_px(self) -> Tensor:
        """``log p(x)`` ``(B,)`` in nats."""
        return self.log_pz + self.log_det

    @property
    def dim(self) -> int:
        """Dimensions ``D`` of one example."""
        return self.z.shape[1]


class Flow(Saved, nn.Module, ABC):
    """Base class: a subclass gives ``forward`` and ``inverse``, the rest follows from them and from ``base``.

    Attributes:
        dim: number of dimensions ``D`` of one example.
        shape: shape of one example, ``(D,)`` for vectors or ``(C, H, W)``; latents are ``(D,)`` always.
        base: distribution of the latents. Another one may take its place, of as many dimensions, and of integers where
            it is of integers.
        context_width: width of the condition that the layers see; 0 in a flow without one.
        embedding: module that makes it from the context given, or ``None``.
        discrete: whether data and latents are integers and ``log_prob`` a log-probability instead of a log-density.
    """

    discrete: bool = False
    _replaceable = ("base",)

    def __init__(self, dim: int, base: Distribution, context: int | nn.Module = 0) -> None:
        super().__init__()
        self.dim = dim
        self.shape: tuple[int, ...] = (dim,)
        self.base = base
        self.context_width = width_of(context)
        self.embedding = context if isinstance(context, nn.Module) else None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "base" and "base" in self._modules:
            _check_base(value, self.base)
        super().__setattr__(name, value)

    @abstractmethod
    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data ``x`` ``(B, *shape)`` -> latents ``(B, dim)`` and the log-determinant of this direction ``(B,)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latents ``z`` ``(B, dim)`` -> data ``(B, *shape)`` and the log-determinant of this direction ``(B,)``."""

    def seen(self, context: Context, x: Tensor) -> Tensor | None:
        """What the layers see of the condition of the batch ``x``: ``(B, context_width)``, or ``None`` without one.

        Raises:
            TypeError, ValueError: a context where none was declared, none where one was, or another shape or dtype.
        """
        embed = None if self.embedding is None else self._embed
        return seen(context, self.context_width, embed, x.shape[0], self.base.dtype)

    def _embed(self, context: Tensor) -> Tensor:
        assert self.embedding is not None
        embedded: Tensor = self.embedding(context)
        return embedded

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (integer flows: log-probability) of ``x`` ``(B, *shape)`` in nats: ``(B,)``, at least float32.

        ``context``, ``(B, width)`` or ``(width,)`` for all of the batch, is what it is conditioned on.
        """
        return self.run(x, context).log_px

    def run(self, x: Tensor, context: Tensor | None = None) -> FlowPass:
        """One pass over ``x`` ``(B, *shape)``: latents, ``log p(z)``, log-determinant, and their sum ``log p(x)``."""
        z, log_det = self(x) if context is None else self(x, context)
        return FlowPass(z, self.base(z), log_det)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # a base without parameters of its own has nothing to load, and would stay on the meta device
        names = (name for name in state_dict if name.startswith(prefix) and not name.endswith("_extra_state"))
        given = next((state_dict[name] for name in names if state_dict[name].is_floating_point()), None)
        if given is not None:
            self.base.follow(given)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` samples, without gradient: ``(n, *shape)``, or ``(B, n, *shape)``, ``n`` for each row of ``context``.

        Args:
            n: number of samples, 0 or more.
            context: condition, ``(width,)`` for ``n`` samples or ``(B, width)`` for ``B * n``.
            temperature: latents are drawn with their scale multiplied by it; 0 gives the latents of greatest density,
                of a base of several components the middle of one that is drawn.
            generator: source of randomness, on the flow's device; ``None`` is torch's default generator.

        A sample that is not finite gives a warning, once per flow.

        Raises:
            TypeError, ValueError: a bad ``n`` or ``temperature``, or what :meth:`seen` raises.
        """
        rows, given = self._conditions(n, context)
        z = draw_latents(self.base, rows, temperature=temperature, generator=generator)
        x = self._data_of(z, given, generator)[0]
        watch_finite(self, x)
        return _by_context(x, n, context)

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """``n`` samples and their log-probabilities, ``(n,)`` or ``(B, n)``, from one pass; see :meth:`sample`.

        Gradients flow through the map, not through the draw of the latents.
        """
        rows, given = self._conditions(n, context)
        x, latents = self.decode(self.base.sample(rows, generator=generator), *given, generator=generator)
        return _by_context(x, n, context), _by_context(latents.log_px, n, context)

    def decode(
        self, z: Tensor, context: Context = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, FlowPass]:
        """Data ``(B, *shape)`` of latents ``z`` ``(B, dim)``, and the pass that leads back to them.

        ``generator`` is the source of randomness of a flow whose log-determinant is estimated; others draw nothing.
        """
        x, log_det = self._data_of(z, () if context is None else (context,), generator)
        watch_finite(self, x)
        return x, FlowPass(z, self.base(z), -log_det)

    def data_of(self, z: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Data ``(B, *shape)`` of latents ``z`` ``(B, dim)``, as :meth:`decode` gives them, and nothing else."""
        x = self._data_of(z, (), generator)[0]
        watch_finite(self, x)
        return x

    def _data_of(
        self, z: Tensor, given: tuple[Context, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`inverse`; one that draws random numbers draws them from ``generator``."""
        return self.inverse(z, *given)

    def _conditions(self, n: int, context: Tensor | None) -> tuple[int, tuple[Embedded, ...]]:
        """How many samples are to be drawn, and the context of each, embedded once."""
        n = as_size("n", n, 0)
        batch = 1 if not isinstance(context, Tensor) or context.ndim < 2 else context.shape[0]
        value = self.seen(context, torch.empty(batch, 0))
        return batch * n, () if value is None else (Embedded(value.repeat_interleave(n, 0)),)


def _check_base(given: Any, former: Distribution) -> None:
    """Latents are as many, and whole numbers or not, whatever their distribution."""
    if not isinstance(given, Distribution):
        raise TypeError(f"base: got {type(given).__name__}, expected a Distribution")
    if given.dim != former.dim:
        raise ValueError(f"base: got {given.dim} dimensions, expected {former.dim}")
    if given.discrete != former.discrete:
        kinds = ("real numbers", "integers")
        raise ValueError(
            f"base: got {type(given).__name__}, a distribution of {kinds[given.discrete]}, expected one of "
            f"{kinds[former.discrete]}, as this flow gives"
        )


def draw_latents(
    base: Distribution, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """``n`` latents ``(n, dim)`` of a flow's base, their scale multiplied by ``temperature``.

    Raises:
        TypeError, ValueError: a bad ``temperature``, or one other than 1 and a base that takes none.
    """
    number = as_temperature(temperature)
    if number == 1:
        return base.sample(n, generator=generator)  # a base of one's own need not know it
    try:
        return base.sample(n, generator=generator, temperature=number)
    except TypeError as error:
        if "unexpected keyword argument 'temperature'" not in str(error):
            raise
        raise TypeError(f"temperature: got {number}, expected 1: {type(base).__name__}.sample takes none") from error


def _by_context(x: Tensor, n: int, context: Tensor | None) -> Tensor:
    return x if context is None or context.ndim < 2 else x.reshape(context.shape[0], n, *x.shape[1:])
