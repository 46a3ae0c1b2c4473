"""How many kernels a GPU would launch for an operator, for a step of Glow, and for the eager formulas of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

import hybridkern
from hybridkern.flows.glow import GlowLevel
from hybridkern.ops.affine_coupling.form import resolve_form
from tests.evidence.interpreter import recorded
from tests.evidence.launches import Recorder, inside_operators
from tests.evidence.subjects import on_triton


class Launches(NamedTuple):
    """Kernels launched by the forward pass and by the backward pass."""

    forward: int
    backward: int


def _flowing(outputs: object) -> list[Tensor]:
    return [value for value in tree_leaves(outputs) if isinstance(value, Tensor) and value.requires_grad]


def _passes(function: Callable[..., object], args: Mapping[str, Tensor], counted: Callable[[], int]) -> Launches:
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    outputs = _flowing(function(**leaves))
    forward = counted()
    gradients = [torch.ones_like(value) for value in outputs]
    before = counted()
    torch.autograd.grad(outputs, list(leaves.values()), gradients, allow_unused=True)
    return Launches(forward, counted() - before)


def ours(function: Callable[..., object], args: Mapping[str, Tensor]) -> Launches:
    """On the Triton backend: its kernels, and what PyTorch launches around them."""
    with on_triton(), recorded() as launches, Recorder() as recorder, inside_operators(recorder):
        return _passes(function, args, lambda: len(launches) + len(recorder.operators))


def eager(function: Callable[..., object], args: Mapping[str, Tensor]) -> Launches:
    """On the reference backend: the plain formula, every operator of PyTorch a kernel."""
    with hybridkern.use_backend("reference"), Recorder() as recorder:
        return _passes(function, args, lambda: len(recorder.operators))


class _Given(nn.Module):
    """Stands for a coupling network: its output is a parameter, so that it launches nothing."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(shape))

    def forward(self, first: Tensor) -> Tensor:
        return self.raw


def level_of(steps: int, half: tuple[int, ...], form: str = "glow") -> tuple[Callable[..., object], dict[str, Tensor]]:
    """A level of Glow without its networks, as a function of tensors, and these.

    Args:
        steps: of the level.
        half: shape of a half, ``(B, C/2, H, W)``.
        form: of the couplings. ``"additive"`` takes the first half itself for the shift, so that its gradient is
            added, as a network's would be.
    """
    batch, _, *pixels = half
    build = (lambda _, outputs: _Given((batch, outputs, *pixels))) if form != "additive" else lambda *_: nn.Identity()
    level = GlowLevel(2 * half[1], steps, build, resolve_form(form), "actnorm", "conv1x1", "store")
    parameters = dict(level.named_parameters())

    def run(first: Tensor, second: Tensor, log_det: Tensor, **given: Tensor) -> object:
        named = {name: given[name.replace(".", "_")] for name in parameters}
        return functional_call(level, named, ((first, second), log_det))

    state = {"first": torch.zeros(half), "second": torch.zeros(half), "log_det": torch.zeros(batch)}
    return run, state | {name.replace(".", "_"): value.detach() for name, value in parameters.items()}


def step_launches(
    count: Callable[[Callable[..., object], Mapping[str, Tensor]], Launches],
    half: tuple[int, ...],
    form: str = "glow",
    few: int = 2,
    many: int = 5,
) -> tuple[Launches, Launches]:
    """What one more step adds to a level, and what is launched once for all of its steps.

    Args:
        count: :func:`ours` or :func:`eager`.
        half, form: as :func:`level_of` takes them.
        few, many: steps of the levels compared.

    Raises:
        ValueError: the steps of a level do not cost the same.
    """
    small, large = (count(*level_of(steps, half, form)) for steps in (few, many))
    more = [(b - a) / (many - few) for a, b in zip(small, large, strict=True)]
    if any(value != int(value) for value in more):
        raise ValueError(f"steps: {few} of them launch {small}, {many} launch {large}")
    each = Launches(*map(int, more))
    return each, Launches(*(a - few * one for a, one in zip(small, each, strict=True)))
