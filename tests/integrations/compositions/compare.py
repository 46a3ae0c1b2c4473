"""One model in two copies, the library's and the accelerated: every call must give the same, or fail in the same way.

Values, log-determinants, gradients and second derivatives are compared in float64 with the library's; in float32 both
are compared with the library in float64, and the accelerated one may be no further from it than a few times the
library's own distance. Errors are compared by their class, and what the calls leave behind by the state dict.
"""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern.integrations import accelerate

Call = Callable[..., Any]
Outcome = tuple[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is done with a model.

    Attributes:
        build: makes it, in float32, from the seeds of torch and NumPy.
        calls: what a user does with it, in order: ``(model, x, context)`` -> tensors; a name that begins with "no_grad"
            or "inference" says under what.
        shape: of one example.
        context: features of the context, 0 for none.
        dtype: of the model.
        train: mode.
        initialized: whether the model was used before it is accelerated.
        count: examples in a batch.
        seed: of everything.
        second: whether second derivatives are compared.
        lenient: whether the accelerated model may serve a call that the library refuses: a network that writes into
            its input is refused where that is one view of several, and so is one whose output the library writes into.
        options: of :func:`accelerate`.
    """

    build: Callable[[], nn.Module]
    calls: Sequence[tuple[str, Call]]
    shape: tuple[int, ...]
    context: int = 0
    dtype: torch.dtype = torch.float64
    train: bool = True
    initialized: bool = True
    count: int = 3
    seed: int = 0
    second: bool = True
    lenient: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def seeded(seed: int) -> None:
    """All the random numbers that the libraries draw."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def made(plan: Plan, dtype: torch.dtype) -> nn.Module:
    """The library's model, its parameters moved a little, used once if the plan says so."""
    seeded(plan.seed)
    model = plan.build().to(dtype).train(plan.train)
    generator = torch.Generator().manual_seed(plan.seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter += (0.1 * noise).to(parameter.dtype)
    if plan.initialized:
        outcome(plan, model, plan.calls[0], dtype, -1)
    return model


def outcome(plan: Plan, model: nn.Module, call: tuple[str, Call], dtype: torch.dtype, turn: int) -> Outcome:
    """``("values", tensors)`` or ``("error", its class)``."""
    name, function = call
    generator = torch.Generator().manual_seed(plan.seed + turn + 1)
    leaf = torch.randn(plan.count, *plan.shape, generator=generator, dtype=torch.float64).to(dtype)
    given = torch.randn(plan.count, plan.context, generator=generator, dtype=torch.float64).to(dtype)
    context = given if plan.context else None
    seeded(plan.seed + turn + 1)
    try:
        if name.startswith("inference"):
            with torch.inference_mode():
                return "values", [value.clone() for value in flat(function(model, leaf.clone(), context))]
        if name.startswith("no_grad"):
            with torch.no_grad():
                return "values", flat(function(model, leaf.clone(), context))
        leaf.requires_grad_()
        return "values", derivatives(plan, model, leaf, flat(function(model, leaf * 1, context)))
    except Exception as error:
        if os.environ.get("HYBRIDKERN_SHOW"):
            traceback.print_exc()
        return "error", type(error)


def flat(values: Any) -> list[Tensor]:
    """All tensors in it, in order."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in flat(value)] if isinstance(values, (list, tuple)) else []


def derivatives(plan: Plan, model: nn.Module, x: Tensor, values: list[Tensor]) -> list[Tensor]:
    """The values, their gradients, and if asked for the gradients of a penalty on the gradients."""
    found = [value.detach().clone() for value in values]
    wanted = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    generator = torch.Generator().manual_seed(0)
    loss = sum(
        (value * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)).sum()
        for value in values
        if value.requires_grad and value.is_floating_point()
    )
    if not isinstance(loss, Tensor) or not torch.isfinite(loss):
        return found
    grads = torch.autograd.grad(loss, wanted, create_graph=plan.second, allow_unused=True)
    found += [torch.zeros_like(w) if g is None else g.detach() for w, g in zip(wanted, grads, strict=True)]
    if plan.second:
        penalty = sum(g.square().sum() for g in grads if g is not None and g.requires_grad)
        if isinstance(penalty, Tensor):
            seconds = torch.autograd.grad(penalty, wanted, allow_unused=True)
            found += [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, seconds, strict=True)]
    return found


def check(plan: Plan) -> int:
    """Runs the plan on both copies.

    Returns:
        How many modules were replaced.

    Raises:
        AssertionError: they differ.
    """
    try:
        theirs, ours = made(plan, plan.dtype), made(plan, plan.dtype)
    except (AssertionError, ValueError):
        return 0  # the library does not build it
    exact = made(plan, torch.float64) if plan.dtype is torch.float32 else None
    keys = list(ours.state_dict())
    report = accelerate(ours, **plan.options)
    assert list(ours.state_dict()) == keys
    for turn, call in enumerate(plan.calls):
        expected = outcome(plan, theirs, call, plan.dtype, turn)
        got = outcome(plan, ours, call, plan.dtype, turn)
        truth = None if exact is None else outcome(plan, exact, call, torch.float64, turn)
        if plan.lenient and expected == ("error", RuntimeError):
            return len(report.replaced)  # their states differ from here on
        _same(call[0], got, expected, truth, plan.second)
    states = [copy.copy(model.state_dict()) for model in (ours, theirs)]
    for (key, own), value in zip(states[0].items(), states[1].values(), strict=True):
        assert own.dtype is value.dtype, f"{key}: {own.dtype}, library {value.dtype}"
        _close(f"state {key}", own, value, 1e-4 if plan.dtype is torch.float32 else 1e-9)
    return len(report.replaced)


def _same(name: str, got: Outcome, expected: Outcome, truth: Outcome | None, second: bool) -> None:
    assert got[0] == expected[0], f"{name}: {got}, library {expected}"
    if got[0] == "error":
        assert got[1] is expected[1], f"{name}: raises {got[1]}, library {expected[1]}"
        return
    assert len(got[1]) == len(expected[1]), f"{name}: {len(got[1])} values, library {len(expected[1])}"
    for i, (own, value) in enumerate(zip(got[1], expected[1], strict=True)):
        assert own.shape == value.shape, f"{name}[{i}]: {own.shape}, library {value.shape}"
        assert own.dtype is value.dtype, f"{name}[{i}]: {own.dtype}, library {value.dtype}"
        if truth is None or truth[0] == "error":
            # the library itself sums some log-determinants in float32; second derivatives lose more digits
            allowed = 1e-4 if value.dtype is torch.float32 else 1e-6 if second else 1e-8
            _close(f"{name}[{i}]", own, value, allowed)
        else:
            _not_worse(f"{name}[{i}]", own, value, truth[1][i])


def _close(name: str, own: Tensor, value: Tensor, allowed: float) -> None:
    if value.numel() == 0:
        return
    a, b = own.detach().double(), value.detach().double()
    finite = torch.isfinite(b)
    assert torch.equal(torch.isfinite(a), finite), f"{name}: not finite elsewhere than in the library"
    difference = torch.where(finite, (a - b).abs(), torch.zeros(()).double()).max()
    scale = max(1.0, float(torch.where(finite, b.abs(), torch.zeros(()).double()).max()))
    assert difference <= allowed * scale, f"{name}: differs by {difference:.3g} of {scale:.3g}"


def _not_worse(name: str, own: Tensor, value: Tensor, truth: Tensor) -> None:
    if value.numel() == 0 or truth.shape != value.shape or not torch.isfinite(truth).all():
        return
    own, value, truth = (tensor.detach().double() for tensor in (own, value, truth))
    scale = max(1.0, float(truth.abs().max()))
    theirs, ours = float((value - truth).abs().max()), float((own - truth).abs().max())
    if not theirs <= 1e-2 * scale:  # the library's own numbers are noise
        return
    assert ours <= 10 * theirs + 2e-5 * scale, f"{name}: off by {ours:.3g} of {scale:.3g}, the library by {theirs:.3g}"
