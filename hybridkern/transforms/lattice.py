"""How integer flows stay exactly invertible in floating-point arithmetic.

An integer coupling adds ``round(t)`` with ``t`` computed by a network; its inverse computes ``t`` again and subtracts
it. Matrix products give other last bits with another batch size, thread count, kernel or machine: for float32 about
1e-7 of ``t``. A value that lies this close to the middle between two integers is then rounded the other way, and the
inverse returns other data. Over a data set this does happen: thousands of roundings an example.

So wherever exactness is promised (evaluation mode, or gradients switched off; either direction) the flow is computed
in float64, networks included. The noise is then about 1e-16 of ``t``, which makes a flip improbable, about 1e-13 a
rounding even for large networks, whatever the batch size, threads, kernel or machine; and intermediate values are
exact up to 2**53. Only a training step (training mode with gradients on) takes the networks as they are: there the
loss does not depend on the choice between two adjacent float32 numbers, and speed does. A device without float64
(Apple's) computes in float32 throughout: there the inverse is exact only for equal shapes on the same machine.

Networks must therefore run in float64 and be deterministic in evaluation mode.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_name
from hybridkern._precision import wide
from hybridkern._values import can_look

LATTICES = ("exact", "tutorial")


def evaluate(net: nn.Module, x: Tensor) -> Tensor:
    """``net(x)`` in float64: parameters and floating-point buffers are converted for this call, differentiably.

    It is called on a copy of its modules that holds them. Put into the module itself for the call, they would be seen
    by other threads that use it, and two that do so at once could leave them there.
    """
    if torch.compiler.is_compiling():
        return _swapped(net, x)
    if any(map(_knows_itself, net.modules())):
        with _swapping:
            return _swapped(net, x)
    done: dict[int, Any] = {}
    out: Tensor = _widened(net, done)(wide(x))
    for module in net.modules():
        _take_over(module, done[id(module)])
    return out


_swapping = threading.RLock()


def _swapped(net: nn.Module, x: Tensor) -> Tensor:
    state = {name: _in_float64(value) for name, value in chain(net.named_parameters(), net.named_buffers())}
    out: Tensor = torch.func.functional_call(net, state, (wide(x),))
    return out


def _in_float64(value: Tensor) -> Tensor:
    return wide(value) if value.is_floating_point() else value


def _knows_itself(module: nn.Module) -> bool:
    """Whether a call of a copy would lead back to the module: compiled ones, scripted ones, and replaced methods."""
    own = module.__dict__
    return "forward" in own or own.get("_compiled_call_impl") is not None or isinstance(module, torch.jit.ScriptModule)


def _widened(module: nn.Module, done: dict[int, Any]) -> nn.Module:
    """A module that shares all but its tensors and parts; ``done`` holds what was converted, by identity."""
    if id(module) in done:
        return cast(nn.Module, done[id(module)])
    copied = done[id(module)] = object.__new__(type(module))
    own = copied.__dict__
    own.update(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        own[kind] = {
            name: value if value is None else done.setdefault(id(value), _in_float64(value))
            for name, value in own[kind].items()
        }
    own["_modules"] = {name: part if part is None else _widened(part, done) for name, part in own["_modules"].items()}
    return copied


_TENSORS = ("_parameters", "_buffers", "_modules")


def _take_over(module: nn.Module, copied: nn.Module) -> None:
    """Other attributes that the call set, such as counts; not weights that hooks made of the converted ones."""
    own, params = module.__dict__, copied._parameters
    for name, value in copied.__dict__.items():
        changed = name not in _TENSORS and value is not own.get(name)
        if changed and not (f"{name}_orig" in params or f"{name}_g" in params):
            own[name] = value


def integer_limit(dtype: torch.dtype) -> int:
    """Integers below this magnitude, and their neighbours, are exact in ``dtype``: ``2**24`` for float32."""
    return int(2 / torch.finfo(dtype).eps)


def check_magnitude(name: str, x: Tensor, dtype: torch.dtype) -> None:
    """The finite integers ``x`` must lie where ``dtype`` has no gaps between integers; waits for the device.

    Raises:
        ValueError: a magnitude reaches :func:`integer_limit` (at the limit itself a rounded value cannot be told
            from an exact one).
    """
    largest = x.abs().max().item() if x.numel() else 0.0
    if integer_limit(dtype) <= largest < float("inf"):
        raise ValueError(
            f"{name}: got the magnitude {largest:.0f}, expected less than {integer_limit(dtype)}, beyond which "
            f"{dtype} skips integers"
        )


def check_integers(name: str, x: Tensor) -> None:
    """``x`` must hold finite integers that its dtype represents without gaps; waits for the device.

    Raises:
        ValueError: a value is not, or see :func:`check_magnitude`.
    """
    wrong = (x != x.round()) | ~x.isfinite()
    if wrong.any():
        raise ValueError(
            f"{name}: got the value {x[wrong][0].item()!r}, expected integers (as floating-point numbers or in an "
            "integer dtype), since the flow's lattice is 'exact'"
        )
    check_magnitude(name, x, x.dtype)


class Lattice:
    """The set of values an integer flow works on, and the arithmetic that this asks for.

    Args:
        kind: ``"exact"``: the integers, evaluated and checked as this module's text says; ``"tutorial"``: real
            numbers, evaluated as they are.

    Raises:
        TypeError, ValueError: another ``kind``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = as_name("lattice", kind, LATTICES)
        self._checked = False

    def run(self, transform: Callable[[Tensor, bool], Tensor], name: str, x: Tensor, training: bool) -> Tensor:
        """``transform(x, exact)``, in float64 where the promise of exactness holds.

        Every batch evaluated exactly is checked, input and output. Batches of training steps are not, because a
        check waits for the device; but the first of them is: data that were scaled or dequantized by mistake show
        there. Compiled graphs, calls under ``vmap`` and meta tensors are not checked.

        Args:
            transform: the flow in one direction; its second argument asks for networks in float64.
            name: of ``x``, for errors.
            x: ``(B, *shape)``.
            training: whether the flow is in training mode.

        Returns:
            The transform's result in the dtype of ``x``.

        Raises:
            ValueError: see :func:`check_integers` (input) and :func:`check_magnitude` (output).
        """
        if self.kind == "tutorial":
            return transform(x, False)
        exact = not (training and torch.is_grad_enabled())
        checking = can_look() and not x.is_meta
        if checking and (exact or not self._checked):
            check_integers(name, x)
            self._checked = True
        if not exact:
            return transform(x, False)
        y = transform(wide(x), True)
        if checking:
            check_magnitude("the result", y, x.dtype)
        return y.to(x.dtype)
