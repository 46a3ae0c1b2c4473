"""Finds the layers of a model that hybridkern knows, and swaps their classes there and back."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from hybridkern.integrations._layer import Accelerated, Options, put_on, take_off
from hybridkern.integrations._network import network_reason
from hybridkern.integrations._report import Entry, Report

PRECISIONS = (None, "bf16")
MEMORY = (None, "recompute")


@dataclass(frozen=True)
class Library:
    """A flow library: its distribution, the versions whose sources were read, and the module with its layers."""

    distribution: str
    versions: tuple[str, ...]
    layers: str


LIBRARIES = {
    "normflows": Library("normflows", ("1.7",), "hybridkern.integrations.normflows"),
    "nflows": Library("nflows", ("0.14",), "hybridkern.integrations.nflows"),
    "FrEIA": Library("FrEIA", ("0.2",), "hybridkern.integrations.freia"),
}


@dataclass(frozen=True)
class _Decision:
    path: str
    layer: nn.Module
    target: type[nn.Module] | None
    reason: str

    @property
    def entry(self) -> Entry:
        return Entry(self.path, _full_name(type(self.layer)), self.reason)


def accelerate(
    model: nn.Module, *, networks: bool = False, precision: str | None = None, memory: str | None = None
) -> Report:
    """Lets hybridkern compute the layers of a normflows, nflows or FrEIA model that it knows, in this instance alone.

    The layers found anywhere inside ``model`` (also where it is a module of the user's own around them) get a subclass
    of their class. State dict, parameters, buffers and hooks stay the same objects, so an optimizer made before keeps
    working; the model pickles and copies as before. What a layer returns keeps the library's conventions and agrees
    with it within rounding. Modules that are not known, or subclassed, stay as they are.

    The operators have first derivatives only, and none under ``torch.func``.

    Args:
        model: the model, or any module that holds layers of these libraries.
        networks: allow the coupling networks of images to run in channels_last and, where they are Glow's (3x3, ReLU,
            1x1, ReLU, 3x3), as one operator. Their parameters are left as they are.
        precision: ``"bf16"`` runs the coupling networks under ``torch.autocast`` in bfloat16; what they return is
            converted in registers, and all else keeps the precision of the model. Needs ``networks=True``.
        memory: ``"recompute"`` keeps of a coupling network only its input, and runs it again in the backward pass.

    Returns:
        What was replaced, what was left, and why.

    Raises:
        TypeError: ``model`` is not a module, or ``networks`` not a bool.
        ValueError: an unknown ``precision`` or ``memory``; a model without a module of these libraries; or one
            that is accelerated already (:func:`undo` it first).
        RuntimeError: a version of the library that is not supported. In all these cases nothing was changed.
    """
    options = _options(networks, precision, memory)
    decisions = _decide(model)
    chosen = [(decision, decision.target) for decision in decisions if decision.target is not None]
    report = Report(
        replaced=tuple(decision.entry for decision, _ in chosen),
        left=tuple(decision.entry for decision in decisions if decision.target is None),
        networks=tuple(entry for decision, target in chosen for entry in _networks(decision, target, options)),
    )
    for decision, target in chosen:
        put_on(decision.layer, target, options)
    return report


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


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _decide(model: nn.Module) -> list[_Decision]:
    _check_module(model)
    if is_accelerated(model):
        raise ValueError(
            "model: got one that is accelerated already, expected hybridkern.integrations.undo(model) first"
        )
    found = [(path, layer, name) for path, layer in model.named_modules() if (name := _library_of(layer)) is not None]
    if not found:
        raise ValueError(
            f"model: got {type(model).__name__} without a module of {', '.join(LIBRARIES)}, expected at least one"
        )
    tables = {name: layers_of(name) for name in dict.fromkeys(name for _, _, name in found)}
    return [_decision(path, layer, tables[name]) for path, layer, name in found]


def _library_of(layer: nn.Module) -> str | None:
    """The library that its class, or a class above that, comes from."""
    roots = (base.__module__.partition(".")[0] for base in type(layer).__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def layers_of(name: str) -> ModuleType:
    """The module with the tables ``LAYERS`` and ``LEFT`` of an imported library.

    Raises:
        RuntimeError: its version is not supported.
    """
    library = LIBRARIES[name]
    version = _version(name, library)
    if not any(version == known or version.startswith(known + ".") for known in library.versions):
        raise RuntimeError(
            f"{name}: got version {version}, expected {' or '.join(library.versions)}, whose layers hybridkern knows; "
            "the model was left as it is"
        )
    return importlib.import_module(library.layers)


def _version(name: str, library: Library) -> str:
    stated = getattr(sys.modules.get(name), "__version__", None)
    if stated is not None:
        return str(stated)
    try:
        return importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _decision(path: str, layer: nn.Module, library: ModuleType) -> _Decision:
    known: Mapping[type[nn.Module], type[nn.Module]] = library.LAYERS
    target = known.get(type(layer))
    if target is None:
        return _Decision(path, layer, None, _why_left(layer, library))
    assert issubclass(target, Accelerated)
    obstacle = target.obstacle(layer)
    if obstacle:
        return _Decision(path, layer, None, obstacle)
    return _Decision(path, layer, target, target.REPLACEMENT)


def _why_left(layer: nn.Module, library: ModuleType) -> str:
    reasons: Mapping[str, str] = library.LEFT
    for base in type(layer).__mro__:
        if base in library.LAYERS:
            return f"a subclass of {base.__name__}, which may compute something else"
        if base.__name__ in reasons:
            return reasons[base.__name__]
    return "not known to hybridkern"


def _networks(decision: _Decision, target: type[nn.Module], options: Options) -> Iterator[Entry]:
    assert issubclass(target, Accelerated)
    for name in target.NETWORKS:
        network = getattr(decision.layer, name)
        if isinstance(network, nn.Module):
            path = f"{decision.path}.{name}" if decision.path else name
            yield Entry(path, _full_name(type(network)), network_reason(network, options))
