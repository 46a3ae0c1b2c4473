"""Planar maps and their inverses, permutations and mixings under every way PyTorch differentiates, and ``vmap``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hybridkern import flows
from hybridkern.transforms.mixing import PERMUTATIONS, Mixing
from hybridkern.transforms.permute import Permutation
from hybridkern.transforms.planar import PlanarMap
from tests._derivatives import F64, check_all, close, of_module

pytestmark = pytest.mark.usefixtures("reference_backend")


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 10 * sum(shape)), dtype=F64)


def _shaken(module: nn.Module) -> nn.Module:
    module.double()
    with torch.no_grad():
        for index, value in enumerate(module.parameters()):
            value.copy_(0.8 * _normal(*value.shape, seed=index))
    return module


@pytest.mark.parametrize("inverse", [False, True])
def test_planar_map(inverse: bool) -> None:
    """The inverse is solved; its derivatives are those of the implicit function, not of one step."""
    layer = _shaken(PlanarMap(2))
    check_all(*of_module(layer, lambda x, log_det: layer(x, log_det, inverse=inverse), _normal(3, 2), _normal(3)))


def test_third_derivatives_of_the_inverse() -> None:
    """In one dimension, against the derivatives of the map: with f' = s, g''' = (3 f''**2 - s f''') / s**5."""
    layer = _shaken(PlanarMap(1))

    def derivatives(function, at: Tensor) -> list[Tensor]:
        found = [function]
        for _ in range(3):
            found.append(lambda x, f=found[-1]: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1])
        return [f(at)[0, 0] for f in found[1:]]

    x = torch.tensor([[0.4]], dtype=F64)
    s, second, third = derivatives(lambda x: layer(x)[0], x)
    got = derivatives(lambda y: layer(y, inverse=True)[0], layer(x)[0].detach())
    expected = [1 / s, -second / s**3, (3 * second**2 - s * third) / s**5]
    close(torch.stack(got), torch.stack(expected), 1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_planar_flow(inverse: bool) -> None:
    flow = _shaken(flows.Planar(2, layers=2))
    check_all(*of_module(flow, flow.inverse if inverse else lambda x: (*flow(x), flow.log_prob(x)), _normal(2, 2)))


@pytest.mark.parametrize("inverse", [False, True])
def test_permutation(inverse: bool) -> None:
    layer = Permutation(4)
    check_all(lambda x: [layer(x, inverse=inverse).sin()], [_normal(2, 4, 2)])


@pytest.mark.parametrize("inverse", [False, True])
def test_ensemble_of_permutations(inverse: bool) -> None:
    """Every member its own order."""
    members, x = [Permutation(5) for _ in range(3)], _normal(2, 5)
    _, buffers = stack_module_state(members)
    got = vmap(lambda b: functional_call(members[0], b, (x,), {"inverse": inverse}))(buffers)
    close(got, torch.stack([layer(x, inverse=inverse) for layer in members]), 1e-15)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", PERMUTATIONS)
def test_mixing(kind: str, inverse: bool) -> None:
    torch.manual_seed(0)
    layer = _shaken(Mixing(2, 3, kind))
    check_all(*of_module(layer, lambda: layer(inverse=inverse)))
