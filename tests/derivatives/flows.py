"""The rows that are flows: ``log_prob`` and latents as functions of data and parameters; data as one of latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hybridkern import flows, nets, transforms
from hybridkern.flows.memory import MODES
from tests.derivatives.subject import Subject, normal
from tests.flows.factories import data

Make = Callable[[], Subject]


class _Asked(nn.Module):
    """A module of which ``functional_call`` can ask more than ``forward``."""

    def __init__(self, inner: nn.Module, ask: Callable[[Any, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.inner = inner
        self.ask = ask

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.ask(self.inner, x)


def module_subject(
    inner: nn.Module,
    ask: Callable[[Any, Tensor], tuple[Tensor, ...]],
    x: Tensor,
    *,
    straight: bool = False,
    refused: dict[str, str] | None = None,
) -> Subject:
    """What ``ask`` gets from a module, as a function of ``x`` and the parameters.

    ``straight``: gradients pass straight through jumps, and ``x`` stays where it is: it lies on a lattice.
    """
    module = _Asked(inner, ask)
    names = [name for name, _ in module.named_parameters()]

    def at(x: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        # names of parameters hold dots, which no name of an argument may
        out: tuple[Tensor, ...] = functional_call(module, dict(zip(names, params.values(), strict=True)), (x,))
        return out

    params = {name.replace(".", "_"): value.detach().clone() for name, value in module.named_parameters()}
    if not straight:
        return Subject(at, {"x": x, **params}, ("x",), refused=refused or {})
    smallest = min(params, key=lambda name: (params[name].numel() == 1, params[name].numel()))
    fixed = partial(at, x)
    return Subject(fixed, params, (), smallest, fixed, refused or {})


class _Under(nn.Module):
    """A conditional flow under one context, which is a parameter beside its own."""

    discrete = False

    def __init__(self, flow: flows.Flow) -> None:
        super().__init__()
        self.flow = flow
        self.dim, self.shape = flow.dim, flow.shape
        self.context = nn.Parameter(torch.tensor([0.4, -0.7]))

    def initialize(self, x: Tensor) -> None:
        self.flow.initialize(x, self.context.detach())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow(x, self.context)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z, self.context)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x, self.context)


def moved(module: nn.Module) -> nn.Module:
    """In float64, its parameters moved from where they start."""
    module = module.double()
    if isinstance(getattr(module, "flow", module), flows.Glow):
        module.initialize(data(module, 16, dtype=torch.float64))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def flow_subject(
    build: Callable[[], nn.Module],
    *,
    inverse: bool = False,
    train: bool = False,
    refused: dict[str, str] | None = None,
) -> Subject:
    """``log_prob`` and the latents of a flow, or its inverse."""
    torch.manual_seed(0)
    flow = moved(build()).train(train)
    shape = (flow.dim,) if inverse else flow.shape
    x = data(flow, 2, dtype=torch.float64) if flow.discrete else normal(0, 2, *shape)

    def ask(flow: Any, x: Tensor) -> tuple[Tensor, ...]:
        return flow.inverse(x) if inverse else (flow.log_prob(x), flow(x)[0])

    return module_subject(flow, ask, x, straight=isinstance(flow, flows.IDF), refused=refused)


def _row(build: Callable[[], nn.Module], **options: Any) -> Make:
    return lambda: flow_subject(build, **options)


def _glow(shape: tuple[int, ...] = (1, 2, 2), **options: Any) -> Callable[[], nn.Module]:
    return lambda: flows.Glow(shape, **({"levels": 1, "steps": 2, "hidden": 3} | options))


_NO_UPDATE = dict.fromkeys(
    ("forward_mode", "one_dual", "product", "hessians", "transforms", "per_example"), "call eval"
)
_NO_INVERSE = dict.fromkeys(
    ("each_alone", "product", "penalty", "hessians", "third", "batched", "checkpointed", "hooks"), "memory='recompute'"
)
_BATCHNORM = {"shape": (1, 4, 4), "norm": "batchnorm"}
_KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "in training": {"train": True},
    "of 2 levels": {"shape": (1, 4, 4), "levels": 2, "steps": 1},
    "with highways": {"net": "highway"},
    "with batch norm": _BATCHNORM,
    "with batch norm in training": _BATCHNORM | {"train": True, "refused": _NO_UPDATE},
    "with reversals": {"permutation": "reverse"},
}


def _of_kind(memory: str, kind: str) -> Make:
    options = dict(_KINDS[kind])
    given = {name: options.pop(name) for name in ("train", "refused") if name in options}
    if memory == "invert" and "refused" in given:
        given["refused"] = _NO_UPDATE | _NO_INVERSE
    return _row(_glow(**options, memory=memory), **given)


def _composed() -> nn.Module:
    affine, spline = transforms.AffineElement("nflows_maf"), transforms.SplineElement("nflows_identity", 3, 3.0)
    layers = [
        transforms.ActNorm(3),
        transforms.Autoregressive(nets.MADE(3, 2, (2,), context=2, activation=nn.Tanh), affine),
        transforms.LULinear(3),
        transforms.Coupling(nn.Linear(4, 8), spline, 1),
        transforms.Autoregressive(nets.MADE(3, 2, (), context=2, order=(2, 0, 1)), affine, inverted=True),
        transforms.PlanarMap(3, 2),
    ]
    return _Under(flows.Compose(3, layers, context=2))


_IDF: dict[str, Callable[[], nn.Module]] = {
    "": lambda: flows.IDF(4, layers=2, parts=2, hidden=(3,)),
    " of mixtures": lambda: flows.IDF(4, layers=1, parts=2, hidden=(3,), prior="mixture", components=2),
    " of a tutorial": lambda: flows.IDF(4, layers=2, parts=2, hidden=(3,), lattice="tutorial"),
    " of images": lambda: flows.IDF((1, 4, 4), layers=1, parts=2, hidden=2, levels=2),
}
FLOWS: dict[str, Make] = {
    "RealNVP": _row(lambda: flows.RealNVP(3, layers=2, hidden=(4,))),
    "RealNVP inverse": _row(lambda: flows.RealNVP(3, layers=2, hidden=(4,)), inverse=True),
    "RealNVP images": _row(lambda: flows.RealNVP((1, 4, 4), layers=2, hidden=3, levels=2)),
    "RealNVP images inverse": _row(lambda: flows.RealNVP((1, 2, 2), layers=2, hidden=3, levels=1), inverse=True),
    "composed under a context": _row(_composed),
    "composed under a context inverse": _row(_composed, inverse=True),
    "RealNVP under a context": _row(lambda: _Under(flows.RealNVP(2, layers=2, hidden=(3,), context=2))),
    "MAF (invert)": _row(lambda: flows.MAF(2, layers=2, hidden=(3,), activation=nn.Tanh, memory="invert")),
    "NSF (recompute)": _row(
        lambda: flows.NSF(2, layers=2, hidden=(2,), bins=2, activation=nn.Tanh, memory="recompute")
    ),
    **{
        f"Glow under a context ({memory})": _row(lambda memory=memory: _Under(_glow(memory=memory, context=2)()))
        for memory in MODES
    },
    "Planar": _row(lambda: flows.Planar(3, layers=2)),
    "Planar inverse": _row(lambda: flows.Planar(2, layers=2), inverse=True),
    **{
        f"IDF{kind}{' in training' * train}": _row(build, train=train)
        for kind, build in _IDF.items()
        for train in (False, True)
    },
    "Glow inverse": _row(_glow((1, 4, 2)), inverse=True),
    "Glow with its own net": _row(_glow(net=lambda i, o: nn.Conv2d(i, o, 1))),
    "Glow with batch norm inverse": _row(_glow((1, 4, 2), norm="batchnorm"), inverse=True),
    "Glow with shuffles": _row(_glow(permutation="shuffle")),
    **{
        " ".join(filter(None, ("Glow", kind, f"({memory})"))): _of_kind(memory, kind)
        for memory in MODES
        for kind in _KINDS
    },
}
