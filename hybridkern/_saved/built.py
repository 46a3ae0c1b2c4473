"""Objects that remember the arguments they were built from, so that a file can say how to build them again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, nn

from hybridkern._arguments import short

_B = TypeVar("_B", bound="Built")


@dataclass(frozen=True)
class Unnamed:
    """What stands for an argument that no file can name, such as a lambda; ``text`` is for the error."""

    text: str


@dataclass(frozen=True)
class Shape:
    """What stands for a tensor: its values are in the weights, or are not needed."""

    sizes: tuple[int, ...]
    dtype: str


class Arguments(NamedTuple):
    """The arguments of a call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def signature_of(kind: Callable[..., Any]) -> inspect.Signature:
    """What a class, or a function, takes.

    Of a class that inherits both, Python 3.10 takes ``__new__``, which here is :class:`Built`'s and takes anything.
    """
    if not (isinstance(kind, type) and issubclass(kind, Built)):
        return inspect.signature(kind)
    found = inspect.signature(kind.__init__)
    return found.replace(parameters=list(found.parameters.values())[1:])


class Built:
    """Base of a class whose instances hold the arguments they were built from."""

    _built_from: Arguments
    _replaceable: tuple[str, ...] = ()  # attributes that may hold another module than the constructor made
    _settings: tuple[str, ...] = ()  # arguments by name that are attributes too, and may be set anew at any time
    _is_chosen = True  # as a part: not made by the whole for itself
    _started = False  # of a module: trained by ``lab.fit`` or loaded, so that it does not start from data again

    def __new__(cls: type[_B], *args: Any, **kwargs: Any) -> _B:
        made = super().__new__(cls)
        # past nn.Module, which is not initialized yet; modules stay in tuples, so that they are registered once
        object.__setattr__(made, "_built_from", noted(args, kwargs))
        return made

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]  # of nn.Module
        if any(name.startswith(prefix) for name in state_dict):
            mark_started(self)

    def built_from(self) -> Arguments:
        """The arguments of the constructor, as :func:`noted` keeps them, with the settings as they are now."""
        if not self._settings:
            return self._built_from
        call = signature_of(type(self)).bind(*self._built_from.args, **self._built_from.kwargs)
        named = [place for place in call.arguments.values() if isinstance(place, dict)]  # **arguments of a subclass
        for name in self._settings:
            places = [call.arguments] if name in call.signature.parameters else [p for p in named if name in p]
            for place in places:
                place[name] = _noted(getattr(self, name))
        return Arguments(call.args, call.kwargs)


def mark_started(module: object, started: bool = True) -> None:
    """Says of a module that it need not start from data any more, or that it has yet to."""
    object.__setattr__(module, "_started", started)


class Saved(Built):
    """Base of a model that :meth:`save` writes and :func:`hybridkern.load` reads."""

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the model, for :func:`hybridkern.load`: how it was built as JSON, its weights as safetensors.

        Args:
            path: a folder, which gets ``config.json`` and ``model.safetensors`` and is made where it is missing; or a
                file whose name ends in ``.safetensors``, which holds both.

        Raises:
            TypeError: an argument of the model's constructor cannot be named in a file: a lambda, a function inside of
                another, a module whose arguments nobody knows. The error says which argument.
            ValueError: the model was changed after it was built, or ``path`` is a folder with other files in it, or
                with the model of another library.
            OSError: the files cannot be written; what was there before stays.

        Modules of hybridkern and of ``torch.nn`` can be saved, also as arguments of others. A module of your own can
        be if its class stands at the top of a module and has a method ``init_arguments()`` that returns the arguments
        of its constructor by name. Functions and classes are saved by their import path. As in any ``state_dict``,
        ``requires_grad`` is not kept: parameters that were frozen by hand require gradients in a loaded model.
        """
        from hybridkern._saved.files import save

        assert isinstance(self, nn.Module)
        save(self, path)


def noted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Arguments in a form that can be kept: pickled with the object, and without its training data."""
    return Arguments(tuple(_noted(value) for value in args), {name: _noted(value) for name, value in kwargs.items()})


def _noted(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str, nn.Module, Built)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad and not value.is_meta:
        return value.item()
    if isinstance(value, Tensor):
        return Shape(tuple(value.shape), str(value.dtype).removeprefix("torch."))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size < 100:
        return tuple(value.tolist())
    if isinstance(value, (tuple, list)):
        return tuple(_noted(item) for item in value)
    if isinstance(value, functools.partial):
        return functools.partial(_noted(value.func), *map(_noted, value.args), **_noted_values(value.keywords))
    if callable(value) and not _has_path(value):
        return Unnamed(f"{value!r}")
    if callable(value) or hasattr(value, "__dataclass_fields__"):
        return value
    return Unnamed(short(value))


def _noted_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _noted(value) for name, value in values.items()}


def _has_path(value: Any) -> bool:
    """Whether this is a class or function that can be imported by a name."""
    return "<" not in getattr(value, "__qualname__", "<") and getattr(value, "__self__", None) is None
