"""Optimizers whose step is one pass over the parameters."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridkern._optim_state import begin, mend
from hybridkern.ops._backends import choose
from hybridkern.ops.adamax.operator import DTYPES, OPERATOR, fused_step


class _Counts(NamedTuple):
    """Steps of some parameters: the elements are what their states hold, so that one addition counts for all."""

    steps: Tensor  # (N,)
    views: list[Tensor]


class _Found(NamedTuple):
    """Parameters of one group that have a gradient, with what belongs to each of them."""

    params: list[Tensor]
    grads: list[Tensor]
    states: list[dict[str, Any]]

    def lists(self) -> tuple[list[Tensor], ...]:
        """The four lists of a step; what the states hold is read anew."""
        averages = [state["exp_avg"] for state in self.states]
        return self.params, self.grads, averages, [state["exp_inf"] for state in self.states]


class Adamax(torch.optim.Adamax):
    """:class:`torch.optim.Adamax`, its options and its state, with a fused step for parameters on the CPU.

    PyTorch has fused steps of Adam, AdamW, SGD and Adagrad, but none of Adamax, which integer flows are trained with.
    Where this one does not apply (other devices, sparse gradients, ``maximize``, ``differentiable``, ``capturable``,
    parameters that share memory) PyTorch's own runs. Checkpoints of either class load into the other.

    ``state`` is read, and held against the parameters, in every step: an entry that does not fit its parameter is a
    ``TypeError`` or ``ValueError`` that names it, before anything of its group is written.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        left = [rest for place, group in enumerate(self.param_groups) for rest in self._fused(place, group)]
        if left:
            self._step_of_pytorch(left)
        return loss

    def _fused(self, place: int, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The fused step of a group; returns what is left of the group for PyTorch's own."""
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return []
        grads = [p.grad for p in params]
        if not _applies(group, params[0], grads):
            return [group]
        states = [self.state[p] for p in params]
        if not all(states):
            begin(params, states)
        counts = self._counts(place, states)
        steps = [step + 1 for step in counts.steps.tolist()]
        found = _Found(params, grads, states)
        if steps.count(steps[0]) == len(steps):
            if not self._run(group, found, steps[0]):
                return [group]
            counts.steps.add_(1)
            return []
        left = []
        for step in set(steps):
            wanted = [mine == step for mine in steps]
            some = _Found(*(_those(values, wanted) for values in found))
            if self._run(group, some, step):
                torch._foreach_add_(_those(counts.views, wanted), 1)
            else:
                left.append({**group, "params": some.params})
        return left

    def _counts(self, place: int, states: list[dict[str, Any]]) -> _Counts:
        """The steps of these states; in new tensors after loading, or where other parameters have gradients."""
        groups: dict[int, _Counts] = self.__dict__.setdefault("_groups", {})
        kept = groups.get(place)
        own = [state.get("step") for state in states]
        if kept is None or len(kept.views) != len(own) or not all(map(is_, own, kept.views)):
            steps = torch.tensor([float(state["step"]) for state in states])
            kept = groups[place] = _Counts(steps, list(steps.unbind()))
            for state, view in zip(states, kept.views, strict=True):
                state["step"] = view
        return kept

    def _run(self, group: dict[str, Any], found: _Found, step: float) -> bool:
        """One step of parameters with one count; False where the kernel does not take them, and nothing is written."""
        rate = group["lr"] / (1 - group["betas"][0] ** step)
        numbers = (rate, *group["betas"], group["eps"], group["weight_decay"])
        try:
            fused_step(found.lists(), *numbers)
            return True
        except (KeyError, RuntimeError, ValueError):
            if not mend(self, found.params, found.states):
                return False
        try:
            fused_step(found.lists(), *numbers)
            return True
        except (RuntimeError, ValueError):
            return False

    def _step_of_pytorch(self, groups: list[dict[str, Any]]) -> None:
        step = torch.optim.Adamax.step
        if getattr(step, "hooked", False):  # by an optimizer of that class; the hooks of this one have run
            step = step.__wrapped__  # type: ignore[attr-defined]
        every, self.param_groups = self.param_groups, groups
        try:
            step(self)
        finally:
            self.param_groups = every


def _applies(group: dict[str, Any], first: Tensor, grads: list[Tensor]) -> bool:
    """Whether the fused step may serve a group, as far as that is cheaply seen; the kernel looks closer."""
    if group["maximize"] or group["differentiable"] or group["capturable"] or isinstance(group["lr"], Tensor):
        return False
    if not first.is_cpu or first.dtype not in DTYPES or [g.layout for g in grads].count(torch.strided) < len(grads):
        return False
    return choose(OPERATOR, first) == "cpp"


def _those(values: list[Any], wanted: list[bool]) -> list[Any]:
    return [value for value, want in zip(values, wanted, strict=True) if want]
