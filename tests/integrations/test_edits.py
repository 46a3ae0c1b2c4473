"""Attributes and methods that someone changes after acceleration: the layer computes what the library's would."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from FrEIA import modules
from nflows import transforms
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern.integrations import accelerate
from tests.integrations.cases import mlp
from tests.integrations.nflows_cases import _residual

Edit = Callable[[Any], object]


def method(name: str, function: Callable[..., Any]) -> Edit:
    """Gives an instance a method of its own."""
    return lambda layer: setattr(layer, name, types.MethodType(function, layer))


def doubled(_: Any, x: Tensor, *__: object, rev: bool = False) -> Tensor:
    return x / 2 if rev else x * 2


BLOCK: dict[str, Edit] = {
    "GIN": lambda block: setattr(block, "GIN", True),
    "_affine": method("_affine", lambda self, x, a, rev=False: (doubled(self, x, rev=rev), a.sum(1))),
    "_permute": method("_permute", lambda self, x, rev=False: (doubled(self, x, rev=rev), 1.5)),
    "_pre_permute": method("_pre_permute", doubled),
    "permute_function": lambda block: setattr(block, "permute_function", lambda x, w: F.linear(x, 2 * w)),
    "clamp": lambda block: setattr(block, "clamp", 0.3),
}


def same(build: Callable[[], Any], edit: Edit, call: Callable[[Any, Tensor], tuple[Tensor, Any]]) -> None:
    """The library's layer and the accelerated one, both edited, give the same values and gradients."""
    torch.manual_seed(0)
    theirs = build().double()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    found = []
    for layer in (theirs, ours):
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6).requires_grad_()
        plain, _ = call(layer, x)
        edit(layer)
        y, log_det = call(layer, x)
        assert not torch.allclose(y, plain), "the edit changes nothing"
        found.append((y, torch.as_tensor(log_det), *torch.autograd.grad(y.square().sum(), x)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a)


@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize("edit", BLOCK)
def test_all_in_one_block(edit: str, rev: bool) -> None:
    def build() -> nn.Module:
        return modules.AllInOneBlock([(6,)], subnet_constructor=mlp, reverse_permutation=edit == "_pre_permute")

    def call(block: Any, x: Tensor) -> tuple[Tensor, Any]:
        (y,), log_det = block([x], rev=rev)
        return y, log_det

    same(build, BLOCK[edit], call)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("edited", ["coupling", "sequence"])
def test_methods_of_nflows(edited: str, inverse: bool) -> None:
    def build() -> nn.Module:
        return transforms.CompositeTransform([transforms.AffineCouplingTransform([0, 1] * 3, _residual)])

    def edit(model: Any) -> None:
        if edited == "sequence":
            model._cascade = lambda x, _, context: (3 * x, x.sum(1))
        else:
            model._transforms[0]._scale_and_shift = lambda params: (2 + params[:, 3:].square(), params[:, :3])

    same(build, edit, lambda model, x: model.inverse(x) if inverse else model(x))


def test_a_method_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever exchanges a method for all instances has the library compute it."""
    monkeypatch.setattr(
        transforms.AffineCouplingTransform, "_scale_and_shift", lambda _, params: (params[:, 3:].exp(), params[:, :3])
    )
    model = transforms.AffineCouplingTransform([0, 1] * 3, _residual)
    report = accelerate(model)
    assert [entry.reason for entry in report.unsupported] == ["a custom method: _scale_and_shift"]
