"""What a model was built from, as values for JSON.

A value is itself where JSON has it. Anything else is an object with one key that says what it is: ``class`` (with
``arguments``, and ``parts`` that may have been replaced, as a flow's base; or with ``children``, for a
``torch.nn.Sequential``), ``name`` (of a class or function), ``partial``, ``tensor``, ``same`` (a module that stands
elsewhere too) or ``float``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern._saved.built import Arguments, Built, Shape, Unnamed, noted, signature_of
from hybridkern._saved.names import name_of

_ABSENT = object()
_ELSEWHERE = {"device", "dtype"}  # of the constructors of torch.nn: the weights say it


class Description:
    """Describes one model; ``used`` gets the classes and functions by their names.

    Raises (its methods):
        TypeError: an argument that no file can name; the message names it.
    """

    def __init__(self) -> None:
        self.used: dict[str, Any] = {}
        self._paths: dict[int, str] = {}  # of modules that were described

    def of(self, value: Any, where: str) -> Any:
        """``value``, which is the argument ``where``: ``"head.activation"``."""
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, Shape):
            return {"tensor": {"shape": list(value.sizes), "dtype": value.dtype}}
        if isinstance(value, Unnamed):
            raise _unnamed(where, value.text)
        if isinstance(value, nn.Module):
            return self._module(value, where)
        if isinstance(value, Built):
            return self._called(type(value), value.built_from(), where)
        if isinstance(value, tuple):
            return [self.of(item, f"{where}.{i}") for i, item in enumerate(value)]
        if isinstance(value, functools.partial):
            return {
                "partial": self.of(value.func, where),
                "positional": [self.of(item, f"{where}.{i}") for i, item in enumerate(value.args)],
                "arguments": self._values(value.keywords, where),
            }
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            arguments = {name: getattr(value, name) for name in _parameters(type(value))}
            return self._called(type(value), Arguments((), arguments), where)
        return {"name": self._name(value)}

    def _values(self, values: dict[str, Any], where: str) -> dict[str, Any]:
        return {name: self.of(value, f"{where}.{name}".lstrip(".")) for name, value in values.items()}

    def _name(self, value: Any) -> str:
        name = name_of(value)
        self.used[name] = value
        return name

    def _module(self, module: nn.Module, where: str) -> dict[str, Any]:
        if id(module) in self._paths:
            return {"same": self._paths[id(module)]}
        described = self._described(module, where)
        for name, part in module.named_modules():
            self._paths.setdefault(id(part), f"{where}.{name}".strip("."))
        return described

    def _described(self, module: nn.Module, where: str) -> dict[str, Any]:
        if type(module) in (nn.Sequential, nn.Identity):
            children = {name: self.of(child, f"{where}.{name}") for name, child in module.named_children()}
            return {"class": self._name(type(module)), "children": children}
        if hasattr(module, "init_arguments"):
            return self._called(type(module), noted((), module.init_arguments()), where)  # type: ignore[operator]
        if isinstance(module, Built):
            described = self._called(type(module), module.built_from(), where)
            return described | self._parts(module, where)
        if name_of(type(module)).startswith("torch.nn."):
            return self._called(type(module), noted((), _of_torch(module, where)), where)
        raise TypeError(
            f"{where}: got {short(module)}, expected a module of hybridkern or torch.nn, or one with a method "
            "init_arguments() that returns the arguments of its constructor by name"
        )

    def _parts(self, module: Any, where: str) -> dict[str, Any]:
        parts = {name: getattr(module, name) for name in module._replaceable}
        chosen = {
            name: part
            for name, part in parts.items()
            if getattr(part, "_is_chosen", True) and id(part) not in self._paths
        }
        return {"parts": self._values(chosen, where)} if chosen else {}

    def _called(self, kind: Callable[..., Any], call: Arguments, where: str) -> dict[str, Any]:
        signature = signature_of(getattr(kind, "_restored", kind))
        bound = signature.bind(*call.args, **call.kwargs)
        bound.apply_defaults()  # which another version may have others of
        values: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                values |= value
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                values[name] = value
            elif value:
                raise _unnamed(f"{where}.{name}".lstrip("."), f"*{name}")
        # defaults come as they were written, not as they are kept
        return {"class": self._name(kind), "arguments": self._values(noted((), values).kwargs, where)}


def _unnamed(where: str, text: str) -> TypeError:
    return TypeError(
        f"{where}: got {text}, expected something that a file can name: a number, a text, a module, or a class or "
        "function at the top of a module"
    )


def _parameters(kind: Callable[..., Any]) -> list[str]:
    found = inspect.signature(kind).parameters.values()
    plain = [own.name for own in found if own.kind not in (own.VAR_POSITIONAL, own.VAR_KEYWORD)]
    return [name for name in plain if name not in _ELSEWHERE and not name.startswith("_")]


def _of_torch(module: nn.Module, where: str) -> dict[str, Any]:
    """The arguments of a module of ``torch.nn``, which keeps them as attributes of the same names."""
    found = {name: getattr(module, name, _ABSENT) for name in _parameters(type(module))}
    if found.get("bias", _ABSENT) is None or isinstance(found.get("bias"), Tensor):
        found["bias"] = found["bias"] is not None
    for name, value in found.items():
        if value is _ABSENT:
            raise TypeError(
                f"{where}: got {short(module)}, whose argument '{name}' is not known; expected another module"
            )
    return found
