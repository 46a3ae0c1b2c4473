"""Builds a model from its description, and compares two models without looking at their weights."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from itertools import chain
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn

from hybridkern._saved.built import Built
from hybridkern._saved.names import resolve

_WHOLE = re.compile(r"\b(\d+)\.0\b")  # of a float, in what a module says of itself
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Builder:
    """Builds what :class:`~hybridkern._saved.describe.Description` described.

    Args:
        allow: classes and functions that may be used beside those of hybridkern and ``torch.nn``, by their names.

    Raises (its methods):
        ValueError: the description is damaged, or names what is not allowed.
    """

    def __init__(self, allow: dict[str, Any]) -> None:
        self._allow = allow
        self._modules: dict[str, nn.Module] = {}

    def value(self, given: Any, where: str) -> Any:
        """The value of a description; ``where`` is the argument, as it was when it was described."""
        if isinstance(given, list):
            return tuple(self.value(item, f"{where}.{i}") for i, item in enumerate(given))
        if not isinstance(given, dict):
            return given
        for key, build in self._kinds.items():
            if key in given:
                return build(self, given, where)
        raise ValueError(f"{where or 'model'}: got keys {sorted(given)[:5]}, expected one of {', '.join(self._kinds)}")

    def _values(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        return {name: self.value(value, f"{where}.{name}".lstrip(".")) for name, value in given.items()}

    def _float(self, given: dict[str, Any], where: str) -> float:
        return float(given["float"])

    def _tensor(self, given: dict[str, Any], where: str) -> torch.Tensor:
        noted = given["tensor"]
        if noted["dtype"] not in _DTYPES:
            raise ValueError(f"{where}: got dtype {noted['dtype']!r}, expected one of {', '.join(_DTYPES)}")
        return torch.zeros(noted["shape"], dtype=getattr(torch, noted["dtype"]))

    def _name(self, given: dict[str, Any], where: str) -> Any:
        return resolve(given["name"], self._allow)

    def _partial(self, given: dict[str, Any], where: str) -> Any:
        positional = [self.value(item, f"{where}.{i}") for i, item in enumerate(given["positional"])]
        return functools.partial(
            self.value(given["partial"], where), *positional, **self._values(given["arguments"], where)
        )

    def _same(self, given: dict[str, Any], where: str) -> nn.Module:
        path: str = given["same"]
        for end in range(len(path), -1, -1):
            if path[:end] in self._modules and (end == len(path) or path[end] == "."):
                return self._modules[path[:end]].get_submodule(path[end + 1 :])
        raise ValueError(f"{where}: got a module of '{path}', expected one that stands before it")

    def _class(self, given: dict[str, Any], where: str) -> Any:
        kind = resolve(given["class"], self._allow)
        if "children" in given:
            made = kind()
            for name, child in given["children"].items():
                made.add_module(name, self.value(child, f"{where}.{name}"))
        else:
            arguments = self._values(given["arguments"], where)
            made = getattr(kind, "_restored", kind)(**arguments)
        for name, part in self._values(given.get("parts", {}), where).items():
            setattr(made, name, part)
        if isinstance(made, nn.Module):
            self._modules[where] = made
        return made

    _kinds = {  # noqa: RUF012
        "class": _class,
        "name": _name,
        "partial": _partial,
        "tensor": _tensor,
        "same": _same,
        "float": _float,
    }


def difference(found: nn.Module, expected: nn.Module) -> str | None:
    """Where two models differ in their modules, their settings or the shapes of their tensors, as a line.

    Settings are attributes, of modules and of what was :class:`~hybridkern._saved.built.Built`: numbers, words,
    functions, classes, and what is made of such. ``None``: nowhere.
    """
    theirs, ours = _structure(found), _structure(expected)
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            return f"{name or 'model'}: got {theirs.get(name, 'nothing')}, expected {ours.get(name, 'nothing')}"
    return None


def _structure(model: nn.Module) -> dict[str, Any]:
    said = {name: f"{type(part).__name__}({part.extra_repr()})" for name, part in model.named_modules()}
    modules = {name: _WHOLE.sub(r"\1", text) for name, text in said.items()}
    tensors = {
        name: f"a tensor of shape {tuple(value.shape)} in {value.dtype}" for name, value in model.state_dict().items()
    }
    settings = {name: value for path, part in model.named_modules() for name, value in _settings_of(part, path)}
    return modules | tensors | _shared(model) | settings


def _shared(model: nn.Module) -> dict[str, str]:
    """Parameters and buffers that stand elsewhere too: loaded as two tensors, they would be trained apart."""
    first: dict[int, str] = {}
    every = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return {name: f"{known} once more" for name, value in every if (known := first.setdefault(id(value), name)) != name}


def _settings_of(owner: object, path: str) -> Iterator[tuple[str, Any]]:
    for key, value in vars(owner).items():
        if not key.startswith("_") and key != "training":
            yield from _setting(value, f"{path}.{key}".lstrip("."))


def _setting(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What the weights do not hold: plain values, and what else can be compared."""
    if _is_plain(value):
        yield path, value
    elif isinstance(value, Built) and not isinstance(value, nn.Module):
        yield path, type(value).__name__
        yield from _settings_of(value, path)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _setting(item, f"{path}.{i}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _setting(item, f"{path}.{key}")
    elif isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        yield path, f"{value.__module__}.{value.__qualname__}"


def _is_plain(value: Any) -> bool:
    """Whether this is a number, a word, or made of such: a setting that the weights do not hold."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Built)):
        return all(map(_is_plain, vars(value).values()))
    return isinstance(value, (bool, int, float, str)) and value == value  # NaN is equal to nothing
