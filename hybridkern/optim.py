"""Optimizers whose step is one pass over the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridkern.ops.adamax.operator import fused_step, is_dense


class _Group(NamedTuple):
    """What the steps of one group of parameters share, found once: the parameters and their state."""

    params: list[Tensor]
    exp_avgs: list[Tensor]
    exp_infs: list[Tensor]
    steps: Tensor  # (N,): its elements are what the states hold, so that one addition counts for all
    views: list[Tensor]


class Adamax(torch.optim.Adamax):
    """:class:`torch.optim.Adamax`, its options and its state, with a fused step for parameters on the CPU.

    PyTorch has fused steps of Adam, AdamW, SGD and Adagrad, but none of Adamax, which integer flows are trained with.
    Where this one does not apply (other devices, sparse gradients, ``maximize``, ``differentiable``, ``capturable``)
    PyTorch's own runs. Checkpoints of either class load into the other.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        if not all(map(_is_fused, self.param_groups, chosen)):
            super().step()
            return loss
        for place, (group, params) in enumerate(zip(self.param_groups, chosen, strict=True)):
            if params:
                _step(group, self._group(place, params))
        return loss

    def _group(self, place: int, params: list[Tensor]) -> _Group:
        """State of these parameters of one group; a new one after loading, or where other ones have gradients."""
        groups: dict[int, _Group] = self.__dict__.setdefault("_groups", {})
        kept = groups.get(place)
        if (
            kept is None
            or len(kept.params) != len(params)
            or any(p is not mine for p, mine in zip(params, kept.params, strict=True))
            or any(self.state[p]["step"] is not view for p, view in zip(params, kept.views, strict=True))
        ):
            kept = groups[place] = self._new_group(params)
        return kept

    def _new_group(self, params: list[Tensor]) -> _Group:
        states = [self.state[p] for p in params]
        for param, state in zip(params, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
                state["exp_inf"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            for name in ("exp_avg", "exp_inf"):
                if state[name].stride() != param.stride():  # a checkpoint of a model in another memory format
                    state[name] = torch.empty_like(param).copy_(state[name])
        steps = torch.tensor([float(state["step"]) for state in states])
        views = list(steps.unbind())
        for state, view in zip(states, views, strict=True):
            state["step"] = view
        averages, largest = ([state[name] for state in states] for name in ("exp_avg", "exp_inf"))
        return _Group(params, averages, largest, steps, views)


def _is_fused(group: dict[str, Any], params: list[Tensor]) -> bool:
    if group["maximize"] or group["differentiable"] or group["capturable"] or isinstance(group["lr"], Tensor):
        return False
    return all(p.is_cpu and is_dense(p) and _matches(p, p.grad) for p in params)


def _matches(param: Tensor, grad: Tensor | None) -> bool:
    return grad is not None and grad.layout is torch.strided and grad.stride() == param.stride()


def _step(group: dict[str, Any], found: _Group) -> None:
    steps = found.steps.add_(1).tolist()
    grads = [p.grad for p in found.params if p.grad is not None]
    lists = (found.params, grads, found.exp_avgs, found.exp_infs)
    for step in set(steps):
        same = lists if steps.count(step) == len(steps) else _those(lists, [mine == step for mine in steps])
        rate = group["lr"] / (1 - group["betas"][0] ** step)
        fused_step(*same, rate, *group["betas"], group["eps"], group["weight_decay"])


def _those(lists: tuple[list[Tensor], ...], wanted: list[bool]) -> list[list[Tensor]]:
    return [[value for value, want in zip(values, wanted, strict=True) if want] for values in lists]
