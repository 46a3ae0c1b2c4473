"""Whole models on the device: a Glow against plain PyTorch in float64, its memory modes, its start, a graphed step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.glow.eager import EagerGlow
from benchmarks.glow.side import Architecture
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.sizes import Sizes
from hybridkern import flows

_GLOW = Architecture((3, 16, 16), levels=2, steps=2, hidden=32)
_NEAR = 1e-3  # of the norm: float32 through eight networks, against float64


def items(device: Device, sizes: Sizes) -> list[Item]:
    """The checks of models."""
    checks: dict[str, Callable[[Context], None]] = {
        "Glow as plain PyTorch in float64": _as_eager,
        "Glow starts whitened": _whitened,
        "Glow recompute": partial(_as_stored, "recompute"),
        "Glow invert": partial(_as_stored, "invert"),
        "Glow inverse": _inverse,
        "GraphedStep store": partial(_graphed, "store"),
        "GraphedStep recompute": partial(_graphed, "recompute"),
    }
    return [Item(name, partial(_run, name, check)) for name, check in checks.items()]


def _run(name: str, check: Callable[[Context], None], context: Context) -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        check(context)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    context.add(name)


def _batch(context: Context) -> Tensor:
    return (torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5).to(context.device.torch)


def _flow(context: Context, memory: str = "store") -> flows.Glow:
    torch.manual_seed(0)
    g = _GLOW
    flow = flows.Glow(g.shape, levels=g.levels, steps=g.steps, hidden=g.hidden, form="glow", memory=memory)
    for parameter in flow.parameters():  # the last layers start at zero, which would hide the networks
        parameter.data += 0.02 * torch.randn(parameter.shape)
    flow = flow.to(context.device.torch).train()
    with torch.no_grad():
        flow.log_prob(_batch(context))
    return flow


def _gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def near(what: str, got: Tensor, wanted: Tensor, share: float = _NEAR) -> None:
    """By the norm.

    Raises:
        AssertionError: further away than ``share`` of ``wanted``, or not finite.
    """
    got, wanted = got.detach().double(), wanted.detach().to(got.device).double()
    distance = float((got - wanted).norm())
    size = float(wanted.norm())
    if not distance <= share * size + 1e-7:
        raise AssertionError(f"{what}: {distance:.3g} away from {size:.3g}")


def _as_eager(context: Context) -> None:
    flow = _flow(context)
    plain = EagerGlow(_GLOW)
    plain.take_over(copy.deepcopy(flow).cpu())
    plain.double()
    x = _batch(context)
    theirs, ours = plain.log_prob(x.cpu().double()), flow.log_prob(x)
    near("log p(x)", ours, theirs, 1e-5)
    grads = _gradients(flow, ours.mean())
    wanted = _gradients(plain, theirs.mean())
    for level in range(_GLOW.levels):
        for step in range(_GLOW.steps):
            for conv, place in (("conv1", 0), ("conv2", 2), ("conv3", 4)):
                name = f"levels.{level}.steps.{step}.net.{conv}.weight"
                near(name, grads[name], wanted[f"levels.{level}.{step}.net.{place}.weight"])


def _whitened(context: Context) -> None:
    flow = flows.Glow(_GLOW.shape, levels=2, steps=2, hidden=32).to(context.device.torch)
    flow.initialize(_batch(context), whiten=True)
    values = flow.log_prob(_batch(context))
    if not bool(values.isfinite().all()):
        raise AssertionError("log p(x) is not finite")


def _as_stored(memory: str, context: Context) -> None:
    found = []
    for mode in ("store", memory):
        flow = _flow(context, mode)
        found.append(_gradients(flow, flow.log_prob(_batch(context)).mean()))
    for name, wanted in found[0].items():
        near(name, found[1][name], wanted)


def _inverse(context: Context) -> None:
    flow = _flow(context).eval()
    x = _batch(context)
    with torch.no_grad():
        z, log_det = flow(x)
        back, negative = flow.inverse(z)
    near("x", back, x, 1e-4)
    near("log_det", -negative, log_det, 1e-4)


def _graphed(memory: str, context: Context) -> None:
    from benchmarks.gpu.graphed import graphed_step, plain_step

    losses = []
    for make in (plain_step, graphed_step):
        flow = _flow(context, memory)
        step = make(flow, _batch(context))
        losses.append(torch.stack([step().clone() for _ in range(6)]))
    near("losses of six steps", losses[1], losses[0], 1e-4)
