"""The rows that are flows: ``log_prob`` and latents as functions of data and parameters; data as one of latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hybridkern import flows
from hybridkern.flows.memory import MODES
from tests.derivatives.subject import Subject, normal
from tests.flows.factories import data

Make = Callable[[], Subject]


class _Asked(nn.Module):
    """A flow of which ``functional_call`` can ask more than ``forward``."""

    def __init__(self, flow: nn.Module, inverse: bool) -> None:
        super().__init__()
        self.flow = flow
        self.inverse = inverse

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.flow.inverse(x) if self.inverse else (self.flow.log_prob(x), self.flow(x)[0])


def flow_subject(
    build: Callable[[], nn.Module],
    *,
    inverse: bool = False,
    train: bool = False,
    refused: dict[str, str] | None = None,
) -> Subject:
    """Of the parameters too, which are moved from where they start."""
    torch.manual_seed(0)
    flow = build().double()
    if isinstance(flow, flows.Glow):
        flow.initialize(data(flow, 16, dtype=torch.float64))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    module = _Asked(flow.train(train), inverse)
    shape = (flow.dim,) if inverse else flow.shape
    x = data(flow, 2, dtype=torch.float64) if flow.discrete else normal(0, 2, *shape)
    names = [name for name, _ in module.named_parameters()]

    def function(x: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        # names of parameters hold dots, which no name of an argument may
        out: tuple[Tensor, ...] = functional_call(module, dict(zip(names, params.values(), strict=True)), (x,))
        return out

    params = {name.replace(".", "_"): value.detach().clone() for name, value in module.named_parameters()}
    return Subject(function, {"x": x, **params}, ("x",), "x", None, refused or {})


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


FLOWS: dict[str, Make] = {
    "RealNVP": _row(lambda: flows.RealNVP(3, layers=2, hidden=(4,))),
    "RealNVP inverse": _row(lambda: flows.RealNVP(3, layers=2, hidden=(4,)), inverse=True),
    "RealNVP images": _row(lambda: flows.RealNVP((1, 4, 4), layers=2, hidden=3, levels=2)),
    "RealNVP images inverse": _row(lambda: flows.RealNVP((1, 2, 2), layers=2, hidden=3, levels=1), inverse=True),
    "Planar": _row(lambda: flows.Planar(3, layers=2)),
    "Planar inverse": _row(lambda: flows.Planar(2, layers=2), inverse=True),
    "Glow inverse": _row(_glow(), inverse=True),
    "Glow with its own net": _row(_glow(net=lambda i, o: nn.Conv2d(i, o, 1))),
    "Glow with batch norm inverse": _row(_glow(norm="batchnorm"), inverse=True),
    "Glow with shuffles": _row(_glow(permutation="shuffle")),
    **{
        " ".join(filter(None, ("Glow", kind, f"({memory})"))): _of_kind(memory, kind)
        for memory in MODES
        for kind in _KINDS
    },
}
