"""Which layers of a model hybridkern computes, and why others stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType

from torch import nn

from hybridkern.integrations._layer import Accelerated, Options, own_methods, patched_methods
from hybridkern.integrations._libraries import LIBRARIES, layers_of, library_of
from hybridkern.integrations._network import network_reason
from hybridkern.integrations._report import Entry, Report

_ALONE = "as fast in the library, where no coupling, spline, autoregressive or LU layer is replaced"


@dataclass(frozen=True)
class Decision:
    """What becomes of one module of a library.

    Attributes:
        path: its name in ``model.named_modules()``.
        layer: the module.
        target: the class that it gets, ``None`` where it stays as it is.
        reason: in words.
        group: that of the report: ``"faster"``, ``"no_gain"``, ``"unsupported"``; empty for what is not counted.
    """

    path: str
    layer: nn.Module
    target: type[nn.Module] | None
    reason: str
    group: str

    @property
    def entry(self) -> Entry:
        """Its line in the report."""
        return Entry(self.path, full_name(type(self.layer)), self.reason)


def full_name(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def decide(model: nn.Module, options: Options) -> list[Decision]:
    """For every module of the libraries in ``model``.

    Raises:
        ValueError: there is none.
        RuntimeError: a library of another version than the known ones.
    """
    found = [(path, layer, name) for path, layer in model.named_modules() if (name := library_of(layer)) is not None]
    if not found:
        raise ValueError(
            f"model: got {type(model).__name__} without a module of {', '.join(LIBRARIES)}, expected at least one"
        )
    tables = {name: layers_of(name) for name in dict.fromkeys(name for _, _, name in found)}
    decisions = _with_couplings([_decision(path, layer, tables[name], options) for path, layer, name in found])
    return list(_counted(decisions, {id(layer): tables[name] for _, layer, name in found}))


def _decision(path: str, layer: nn.Module, library: ModuleType, options: Options) -> Decision:
    target: type[nn.Module] | None = library.LAYERS.get(type(layer))
    if target is None:
        return Decision(path, layer, None, *_why_left(layer, library))
    assert issubclass(target, Accelerated)
    own = [*own_methods(layer), *patched_methods(type(layer))]
    obstacle = f"a custom method: {', '.join(own)}" if own else target.obstacle(layer)
    if obstacle:
        return Decision(path, layer, None, obstacle, "unsupported")
    no_gain = target.no_gain(layer, options)
    if no_gain:
        return Decision(path, layer, None, no_gain, "no_gain")
    return Decision(path, layer, target, target.REPLACEMENT, "faster")


def _why_left(layer: nn.Module, library: ModuleType) -> tuple[str, str]:
    """Reason and group."""
    no_gain: Mapping[str, str] = library.NO_GAIN
    if _is_theirs(layer) and type(layer).__name__ in no_gain:
        return no_gain[type(layer).__name__], "no_gain"
    if type(layer).__name__ in library.CONTAINERS and _is_theirs(layer):
        return "only runs its parts, which are listed separately", "unsupported"
    if not isinstance(layer, library.ROOTS):
        return "not a layer", "unsupported"
    for base in type(layer).__mro__:
        if base in library.LAYERS:
            return f"a subclass of {base.__name__}, which may compute something else", "unsupported"
    return "not known to hybridkern", "unsupported"


def _is_theirs(layer: nn.Module) -> bool:
    """Whether its own class, not only one above it, is of a library."""
    return type(layer).__module__.partition(".")[0] in LIBRARIES


def _couples(decision: Decision) -> bool:
    return decision.target is not None and issubclass(decision.target, Accelerated) and decision.target.COUPLES


def _with_couplings(decisions: list[Decision]) -> list[Decision]:
    """Without a coupling, or what gains like one, nothing changes; what runs other layers changes where one does."""
    couplings = {id(decision.layer) for decision in decisions if _couples(decision)}

    def stays(decision: Decision) -> bool:
        layers = list(decision.layer.modules())
        runs_others = any(library_of(layer) is not None for layer in layers[1:])
        return not couplings or (runs_others and couplings.isdisjoint(map(id, layers)))

    return [
        replace(decision, target=None, reason=_ALONE, group="no_gain")
        if decision.target is not None and stays(decision)
        else decision
        for decision in decisions
    ]


def _counted(decisions: Iterable[Decision], library: Mapping[int, ModuleType]) -> Iterator[Decision]:
    """The same, with a group only for layers, each once: not for what runs them, nor what they are made of inside."""
    inside: set[int] = set()
    folded: dict[int, str] = {}
    for decision in decisions:
        layer, table = decision.layer, library[id(decision.layer)]
        if decision.target is not None and issubclass(decision.target, Accelerated):
            folded |= dict.fromkeys(map(id, decision.target.folds(layer)), decision.reason)
        if id(layer) in folded:
            yield replace(decision, reason=f"{decision.reason} (here: {folded[id(layer)]})", group="faster")
            inside |= {id(part) for part in layer.modules()}
            continue
        parts = [part for part in layer.modules() if part is not layer and isinstance(part, table.ROOTS)]
        runs = type(layer).__name__ in table.CONTAINERS if _is_theirs(layer) else bool(parts)
        is_part = id(layer) in inside and decision.target is None
        if runs or is_part or not isinstance(layer, table.ROOTS):
            yield replace(decision, group="")
            continue
        inside |= {id(part) for part in layer.modules()}
        yield decision


def report(decisions: Iterable[Decision], options: Options) -> Report:
    """What is going to be done, for the user."""
    decisions = list(decisions)
    chosen = [decision for decision in decisions if decision.target is not None]

    def group(name: str) -> tuple[Entry, ...]:
        return tuple(decision.entry for decision in decisions if decision.group == name)

    return Report(
        faster=group("faster"),
        no_gain=group("no_gain"),
        unsupported=group("unsupported"),
        networks=tuple(entry for decision in chosen for entry in _networks(decision, options)),
        replaced=tuple(decision.entry for decision in chosen),
        left=tuple(decision.entry for decision in decisions if decision.target is None),
    )


def _networks(decision: Decision, options: Options) -> Iterator[Entry]:
    assert decision.target is not None
    assert issubclass(decision.target, Accelerated)
    for name in decision.target.NETWORKS:
        network = getattr(decision.layer, name, None)
        if isinstance(network, nn.Module):
            path = f"{decision.path}.{name}" if decision.path else name
            reason = getattr(decision.target, "network_reason", network_reason)
            yield Entry(path, full_name(type(network)), reason(network, options))
