"""In which pass of an autoregressive inverse each unit of a masked network can be computed, read off its masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from zuko.nn import MaskedLinear, Residual

from hybridkern.integrations.zuko._masked import Layers, masked_layers


@dataclass(frozen=True)
class Part:
    """A masked layer whose units and inputs are sorted by the pass that they belong to.

    Attributes:
        rows, columns: its units, and its inputs but for the context, in that order.
        mask, context: of its weights for those, as numbers.
        counts: units of each pass.
        order: ``rows`` as a list.
    """

    rows: Tensor
    columns: Tensor
    mask: Tensor
    context: Tensor
    counts: list[int]
    order: list[int]


@dataclass(frozen=True)
class Plan:
    """The passes of a network.

    Attributes:
        features: how many belong to each pass.
        order, places: the features in the order of their passes, and what undoes that.
        parts: of every masked layer.
        skips: of every residual block, for each pass: where the units that it adds to lie in its input.
    """

    features: list[int]
    order: Tensor
    places: Tensor
    parts: list[Part]
    skips: list[list[list[int]]]


def plan_of(layers: Layers, features: int, passes: int, total: int) -> Plan | None:
    """The plan for so many features, of ``total`` outputs each, in at most so many passes.

    ``None`` where the masks allow none.
    """
    linear = masked_layers(layers)
    masks = [layer.mask for layer in linear]
    known = [mask.detach().cpu().bool() for mask in masks]
    if known[0].shape[1] < features or known[-1].shape[0] != features * total:
        return None
    seen = _seen(layers, known)
    parents = seen.unflatten(0, (features, -1)).any(1)[:, :features]
    stages = _longest(parents, passes)
    if stages is None:
        return None
    return _sorted(layers, known, stages, features, masks[0].device)


def _walk(layers: Layers) -> list[str]:
    kinds = {MaskedLinear: "linear", Residual: "residual"}
    return [kinds.get(type(layer), "activation") for layer in layers]


def _seen(layers: Layers, masks: list[Tensor]) -> Tensor:
    """Which outputs depend on which inputs, ``(outputs, inputs)``."""
    rest = [mask.double() for mask in masks]
    x = torch.eye(masks[0].shape[1], dtype=torch.float64, device="cpu")
    for kind in _walk(layers):
        if kind == "linear":
            x = rest.pop(0) @ x
        elif kind == "residual":
            x = x + rest.pop(1) @ (rest.pop(0) @ x)
        x = x.clamp(max=1.0)
    return x > 0


def _longest(parents: Tensor, passes: int) -> Tensor | None:
    """Of each feature: how many features come one after the other before it; ``None`` for too many, or a circle."""
    stages = torch.zeros(len(parents), dtype=torch.int64, device="cpu")
    for _ in range(passes):
        later = _stages(parents, stages + 1)
        if torch.equal(later, stages):
            return stages
        stages = later
    return None


def _stages(mask: Tensor, inputs: Tensor) -> Tensor:
    """The pass of each unit: that of the last input that it sees."""
    return torch.where(mask, inputs, 0).amax(1)


def _sorted(layers: Layers, masks: list[Tensor], stages: Tensor, features: int, device: torch.device) -> Plan:
    count = int(stages.max()) + 1
    order = torch.argsort(stages, stable=True)
    outputs = len(masks[-1]) // features
    inputs = torch.cat([stages + 1, torch.zeros(masks[0].shape[1] - features, dtype=torch.int64, device="cpu")])
    parts: list[Part] = []
    skips: list[list[list[int]]] = []
    columns, width = order, features
    left = list(masks)

    def add(mask: Tensor, own: Tensor) -> Tensor:
        nonlocal columns, width
        own = own.clamp(max=count - 1)  # what no output sees may have to wait for the last feature
        rows = torch.argsort(own, stable=True)
        counts = torch.bincount(own, minlength=count).tolist()
        sorted_mask, context = mask[rows][:, columns], mask[rows][:, width:]
        places = [value.to(device) for value in (rows, columns, sorted_mask, context)]
        parts.append(Part(places[0], places[1], places[2], places[3], counts, rows.tolist()))
        columns, width = rows, mask.shape[0]
        return own

    for kind in _walk(layers):
        if kind == "linear":
            mask = left.pop(0)
            # the outputs of a feature are computed in its own pass
            own = _stages(mask, inputs) if left else stages.repeat_interleave(outputs)
            inputs = add(mask, own)
        elif kind == "residual":
            before = parts[-1]
            inner = add(left[0], _stages(left[0], inputs))
            inputs = add(left[1], torch.maximum(inputs, _stages(left[1], inner)))
            skips.append(_places(before.order, parts[-1]))
            del left[:2]
    order_list = order.to(device)
    return Plan(
        torch.bincount(stages, minlength=count).tolist(),
        order_list,
        torch.argsort(order_list),
        parts,
        skips,
    )


def _places(order: list[int], part: Part) -> list[list[int]]:
    where = {unit: place for place, unit in enumerate(order)}
    found, start = [], 0
    for count in part.counts:
        found.append([where[unit] for unit in part.order[start : start + count]])
        start += count
    return found
