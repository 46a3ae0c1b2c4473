"""Swaps the classes of the layers that hybridkern computes, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from hybridkern.integrations._decide import decide, report
from hybridkern.integrations._layer import Accelerated, Options, put_on, take_off
from hybridkern.integrations._report import Report

PRECISIONS = (None, "bf16")
MEMORY = (None, "recompute")


def accelerate(
    model: nn.Module, *, networks: bool = False, precision: str | None = None, memory: str | None = None
) -> Report:
    """Lets hybridkern compute the layers it knows of a normflows, nflows, FrEIA or zuko model, in this instance alone.

    The layers found anywhere inside ``model`` (also where it is a module of the user's own around them) get a subclass
    of their class. State dict, parameters, buffers and hooks stay the same objects, so an optimizer made before keeps
    working; the model pickles and copies as before. What a layer returns keeps the library's conventions and agrees
    with it within rounding. Modules that are not known, or subclassed, stay as they are; and in a model without a
    coupling, spline, autoregressive or LU layer that hybridkern computes, all do: the others alone would be no faster.

    Derivatives of higher order, forward mode and ``torch.func`` run on the reference formulas, which are slower.

    Args:
        model: the model, or any module that holds layers of these libraries.
        networks: allow the coupling networks of images that are Glow's (3x3, ReLU, 1x1, ReLU, 3x3) to run as one
            operator, others that keep their numbers to run in channels_last for small images too, and masked networks
            of nflows, normflows and zuko as one operator, where nobody watches them and they neither drop units nor
            normalize batches: what a mask leaves out is then not computed. Their parameters are left as they are.
            The inverse of a masked autoregressive layer of nflows or normflows then computes each unit of its network
            once, in place of a call of the network for every number.
        precision: ``"bf16"`` runs the coupling networks under ``torch.autocast`` in bfloat16; what they return is
            converted in registers, and all else keeps the precision of the model. Needs ``networks=True``.
        memory: ``"recompute"`` keeps of a coupling network only its input, and runs it again in the backward pass.

    Returns:
        What is faster now, what has nothing to gain and what is not supported, with reasons.

    Raises:
        TypeError: ``model`` is not a module, or ``networks`` not a bool.
        ValueError: an unknown ``precision`` or ``memory``; a model without a module of these libraries; or one
            that is accelerated already (:func:`undo` it first).
        RuntimeError: a version of the library that is not supported. In all these cases nothing was changed.
    """
    options = _options(networks, precision, memory)
    _check_module(model)
    if is_accelerated(model):
        raise ValueError(
            "model: got one that is accelerated already, expected hybridkern.integrations.undo(model) first"
        )
    decisions = decide(model, options)
    found = report(decisions, options)
    for decision in decisions:
        if decision.target is not None:
            put_on(decision.layer, decision.target, options)
    return found


def undo(model: nn.Module) -> None:
    """Gives every layer in ``model`` its own class back; a model that is not accelerated stays as it is.

    Raises:
        TypeError: ``model`` is not a module.
    """
    _check_module(model)
    for layer in model.modules():
        if isinstance(layer, Accelerated):
            take_off(layer)


@contextmanager
def accelerated(
    model: nn.Module, *, networks: bool = False, precision: str | None = None, memory: str | None = None
) -> Iterator[Report]:
    """Accelerates the model inside a ``with`` block, and undoes it after; gives the report.

    Args:
        model, networks, precision, memory: as :func:`accelerate` takes them, which raises the same errors.
    """
    report = accelerate(model, networks=networks, precision=precision, memory=memory)
    try:
        yield report
    finally:
        undo(model)


def is_accelerated(model: nn.Module) -> bool:
    """Whether any layer in ``model`` is accelerated."""
    return any(isinstance(layer, Accelerated) for layer in model.modules())


def _options(networks: object, precision: str | None, memory: str | None) -> Options:
    if not isinstance(networks, bool):
        raise TypeError(f"networks: got {type(networks).__name__}, expected a bool")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected None or 'bf16'")
    if memory not in MEMORY:
        raise ValueError(f"memory: got {memory!r}, expected None or 'recompute'")
    if precision is not None and not networks:
        raise ValueError(f"precision: got {precision!r} with networks=False, expected networks=True beside it")
    return Options(networks, precision, memory)


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
