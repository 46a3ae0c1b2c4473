"""Arguments of constructors: each is taken as what it stands for, or refused by ``name: got ..., expected ...``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch


def is_integer(value: object) -> bool:
    """Whether ``value`` is one integer: of Python, of NumPy or of torch; truth values are none."""
    if isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (np.bool_, torch.bool):
        return False
    if getattr(value, "ndim", 0) != 0:  # one-element tensors and arrays are sequences
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def as_size(name: str, value: object, least: int = 1, *, expected: str = "") -> int:
    """``value`` as a Python integer of at least ``least``; NumPy's and torch's integers are taken too.

    Args:
        name: of the argument.
        value: what came.
        least: the smallest size allowed.
        expected: what the error says was expected; by default, an integer of at least ``least``.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    if not expected:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
    if type(value) is int:
        size = value  # as it is: to torch.compile it may be a symbol, such as a number of samples
    elif is_integer(value):
        size = operator.index(value)  # type: ignore[arg-type]
    else:
        raise TypeError(f"{name}: got {short(value)}, expected {expected}")
    if size < least:
        raise ValueError(f"{name}: got {size}, expected {expected}")
    return size


def is_sizes(value: object) -> bool:
    """Whether ``value`` holds several numbers: a sequence, an array or a tensor of one dimension; no text."""
    if isinstance(value, (str, bytes, dict, set)) or getattr(value, "ndim", 1) != 1:
        return False
    return isinstance(value, Iterable) and hasattr(value, "__len__")


def as_sizes(name: str, value: object, least: int = 1) -> tuple[int, ...]:
    """``value`` as a tuple of sizes, by :func:`as_size`.

    Raises:
        TypeError: no sequence of integers.
        ValueError: one is too small.
    """
    expected = "positive integers" if least == 1 else f"integers of at least {least}"
    if not is_sizes(value):
        raise TypeError(f"{name}: got {short(value)}, expected {expected}")
    given: list[Any] = list(value)  # type: ignore[call-overload]
    sizes = tuple(operator.index(size) if is_integer(size) else None for size in given)
    if None in sizes:
        raise TypeError(f"{name}: got {short(value)}, expected {expected}")
    if any(size is not None and size < least for size in sizes):
        raise ValueError(f"{name}: got {sizes}, expected {expected}")
    return tuple(size for size in sizes if size is not None)


def is_number(value: object) -> bool:
    """Whether ``value`` is one real number: of Python, of NumPy or of torch; neither truth values nor text are."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex)) or getattr(value, "ndim", 0) != 0:
        return False
    if getattr(value, "dtype", None) in (np.bool_, torch.bool):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False
    return True


def as_number(
    name: str, value: object, holds: Callable[[float], bool] = math.isfinite, expected: str = "a finite number"
) -> float:
    """``value`` as a Python float for which ``holds`` says yes.

    Raises:
        TypeError: not a number.
        ValueError: another number than ``expected``.
    """
    if type(value) is float:
        number = value  # as it is: to torch.compile it may be a symbol
    elif is_number(value):
        number = float(value)  # type: ignore[arg-type]
    else:
        raise TypeError(f"{name}: got {short(value)}, expected {expected}")
    if not holds(number):
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return number


def as_temperature(value: object) -> float:
    """The argument ``temperature``, a factor on the scale of latents.

    Raises:
        TypeError, ValueError: no finite number of at least 0.
    """
    return as_number("temperature", value, lambda t: 0 <= t < math.inf, "a finite number of at least 0")


def as_draw(n: object, temperature: object) -> tuple[int, float]:
    """The arguments ``n`` and ``temperature`` of a method that draws samples.

    Raises:
        TypeError, ValueError: as :func:`as_size` and :func:`as_temperature`.
    """
    return as_size("n", n, 0), as_temperature(temperature)


def as_flag(name: str, value: object) -> bool:
    """``value`` as True or False.

    Raises:
        TypeError: anything else, numbers and text included.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: got {short(value)}, expected True or False")
    return bool(value)


def as_name(name: str, value: object, known: Sequence[str], more: str = "") -> str:
    """``value``, which must be one of the ``known`` names; ``more`` says what else the argument may be.

    Raises:
        TypeError: not a string.
        ValueError: an unknown one.
    """
    if isinstance(value, str) and value in known:
        return value
    *some, last = map(repr, known)
    expected = f"{', '.join((*some, last))}{more}" if more else f"{', '.join(some)} or {last}"
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name}: got {short(value)}, expected {expected}")


def as_builder(name: str, value: object, expected: str) -> Callable[..., Any]:
    """``value``, which must be callable.

    Raises:
        TypeError: it is not.
    """
    if not callable(value):
        raise TypeError(f"{name}: got {short(value)}, expected {expected}")
    return value


def built(name: str, value: object) -> torch.nn.Module:
    """``value``, which a function given as the argument ``name`` returned: a module.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, torch.nn.Module):
        raise TypeError(f"{name}: got a function that returns {short(value)}, expected one that returns an nn.Module")
    return value


def short(value: object) -> str:
    """``value`` as an error shows it: small values as they are written, large ones by their type."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__
