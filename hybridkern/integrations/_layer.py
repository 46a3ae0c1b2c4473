"""What an accelerated layer is: an instance of a library's class whose class became a subclass with other methods.

Swapping ``__class__`` for an importable subclass changes nothing else of the instance: its parameters, buffers, hooks
and every reference to it stay; it pickles and copies as it did, and the way back is the same swap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hybridkern import _calls
from hybridkern.ops.affine_coupling.form import CouplingForm, shifts_first

WIDE = (torch.float32, torch.float64)  # what the fused paths take; other dtypes go the library's own way


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`~hybridkern.integrations.accelerate`, which every accelerated layer carries.

    Attributes:
        networks: whether the networks may change their memory format and precision, and masked ones their algorithm.
        precision: ``None`` (that of the model) or ``"bf16"``.
        memory: ``None`` or ``"recompute"``.
    """

    networks: bool = False
    precision: str | None = None
    memory: str | None = None


class Accelerated:
    """Mixed into a subclass of a library's layer, before that layer.

    Attributes:
        REPLACEMENT: what computes it, in words for the report.
        NETWORKS: names of the attributes that hold its coupling networks.
        CACHES: names of the entries of ``__dict__`` that its methods add.
        COUPLES: whether it gains by itself, as a coupling does. Other layers change only in a model where one of those
            does.
    """

    REPLACEMENT: ClassVar[str]
    NETWORKS: ClassVar[tuple[str, ...]] = ()
    CACHES: ClassVar[tuple[str, ...]] = ()
    COUPLES: ClassVar[bool] = False
    _PARTS: ClassVar[frozenset[str]] = frozenset()
    _hybridkern: Options

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._PARTS = frozenset(_parts(cls))

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Why this instance of the library's class has to stay as it is; empty if it has not."""
        return ""

    @classmethod
    def no_gain(cls, layer: Any, options: Options) -> str:
        """Why this instance would be no faster with these options; empty if it would."""
        return ""

    @classmethod
    def folds(cls, layer: Any) -> tuple[nn.Module, ...]:
        """Layers inside this one that it computes beside its own work."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        # a copy reads its own tensors; and what was made inside a transform of torch.func cannot be copied
        return {name: value for name, value in self.__dict__.items() if name not in self.CACHES}

    @classmethod
    def library_class(cls) -> type[nn.Module]:
        """The class that it was."""
        return next(base for base in cls.__mro__ if issubclass(base, nn.Module) and not issubclass(base, Accelerated))


def _parts(kind: type) -> Iterable[str]:
    """Names of the methods that the library's ``forward`` and ``inverse`` may call."""
    for base in kind.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module and not issubclass(base, Accelerated):
            for name, value in vars(base).items():
                own = callable(value) or isinstance(value, (staticmethod, classmethod))
                if own and not name.startswith("__") and name not in ("forward", "inverse"):
                    yield name


def has_own_parts(layer: Accelerated) -> bool:
    """Whether someone gave this instance another method than its class has: then the library runs it, by its methods.

    ``forward`` and ``inverse`` are left to :func:`has_hooks`: a call of the layer finds the instance's own.
    """
    if torch.compiler.is_compiling():
        return any(name in layer.__dict__ for name in layer._PARTS)
    return not layer._PARTS.isdisjoint(layer.__dict__)


def put_on(layer: nn.Module, target: type[nn.Module], options: Options) -> None:
    """Makes ``layer`` an instance of ``target``, a subclass of its class."""
    layer.__dict__["_hybridkern"] = options
    layer.__class__ = target


def take_off(layer: nn.Module) -> None:
    """Undoes :func:`put_on`."""
    assert isinstance(layer, Accelerated)
    for name in ("_hybridkern", *layer.CACHES):
        layer.__dict__.pop(name, None)
    layer.__class__ = layer.library_class()  # type: ignore[assignment]


def own_methods(layer: nn.Module) -> list[str]:
    """Names of methods of its class that this instance has another function for."""
    return [name for name, value in vars(layer).items() if callable(value) and callable(getattr(type(layer), name, 0))]


def patched_methods(kind: type) -> list[str]:
    """Names of methods of a library's class in whose place someone put a function from elsewhere."""
    return [
        name
        for base in kind.__mro__
        if base.__module__.startswith(kind.__module__.partition(".")[0])
        for name, value in vars(base).items()
        if isinstance(value, FunctionType) and value.__module__ != base.__module__
    ]


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether someone watches a module, or gave it a ``forward`` of its own: then it is called, not merely computed."""
    watched = list(modules)
    return _calls.has_hooks(watched) or any(
        "forward" in module.__dict__ or "inverse" in module.__dict__ for module in watched
    )


def is_watched(module: nn.Module) -> bool:
    """:func:`has_hooks` of one module, without the hooks of all modules."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or "inverse" in own
    )


def fits(x: Tensor, params: object, channels: int) -> bool:
    """Whether ``params`` are those of a coupling of ``x`` that the operator takes, with that many channels."""
    return (
        isinstance(params, Tensor)
        and x.dtype in WIDE
        and (params.dtype is x.dtype or (x.dtype is torch.float32 and params.dtype in (torch.bfloat16, torch.float16)))
        and params.shape == (x.shape[0], channels, *x.shape[2:])
        and params.device == x.device
        and x.numel() > 0
    )


def unsaved(y: Tensor, form: CouplingForm, inverse: bool) -> Tensor:
    """``y``, or a copy where the operator keeps ``y`` for its backward pass: what comes next may write into it."""
    return y.clone() if y.requires_grad and shifts_first(form.code(inverse)) else y


class Given:
    """A layer as a method of its library sees it, whose networks give again what they gave once.

    So a call that the operators do not serve is computed by the library, and no network runs (counts a batch, draws
    units to drop, calls its hooks) twice.
    """

    def __init__(self, layer: nn.Module, **outputs: object) -> None:
        self.__dict__["_layer"] = layer
        for name, value in outputs.items():
            self.__dict__[name] = lambda *_, _value=value: _value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_layer"], name)
