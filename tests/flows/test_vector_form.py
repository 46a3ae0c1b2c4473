"""The maps of the layers of vector flows are a part of what is saved: parameters mean nothing without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows, nets, transforms
from hybridkern.hybrid import HybridModel, heads


def maf(**options: object) -> flows.Flow:
    return flows.MAF(3, layers=2, hidden=8, **options)


def nsf(**options: object) -> flows.Flow:
    return flows.NSF(3, layers=2, hidden=8, **options)


def coupling(first: bool) -> flows.Flow:
    return flows.Compose(4, [transforms.Coupling(nn.Linear(2, 4), transforms.AffineElement("exp"), 2, first=first)])


def residual(lipschitz: float) -> flows.Flow:
    return flows.Residual(3, blocks=1, hidden=(4,), lipschitz=lipschitz).eval()


# saved and loading: of the same shapes, and of other maps
PAIRS: dict[str, tuple[Callable[[], flows.Flow], Callable[[], flows.Flow]]] = {
    "affine form": (maf, lambda: maf(form="exp")),
    "direction": (maf, lambda: flows.IAF(3, layers=2, hidden=8)),
    "bound": (nsf, lambda: nsf(bound=3.0)),
    "spline": (nsf, lambda: nsf(spline="zuko")),
    "autoregressive spline": (lambda: nsf(autoregressive=True), lambda: nsf(autoregressive=True, spline="nflows")),
    "bound of the norms": (lambda: residual(0.9), lambda: residual(0.5)),
    "part that changes": (lambda: coupling(True), lambda: coupling(False)),
}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", PAIRS)
def test_another_map_is_refused_before_anything_is_copied(name: str) -> None:
    saved, other = (build() for build in PAIRS[name])
    before = values(other)
    with pytest.raises(ValueError, match=r"got a state_dict of another map, whose numbers are .*, expected"):
        other.load_state_dict(saved.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    model = HybridModel(other, heads.Categorical(other.dim, 2))
    with pytest.raises(ValueError, match="another map"):
        model.load_state_dict(HybridModel(saved, heads.Categorical(other.dim, 2)).state_dict())


@pytest.mark.parametrize("name", PAIRS)
def test_its_own_map_is_loaded(name: str) -> None:
    saved, other = PAIRS[name][0](), PAIRS[name][0]()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.normal_(std=0.3)
    other.load_state_dict(saved.state_dict())
    x = torch.randn(5, saved.dim)
    for flow in (saved, other):
        if isinstance(flow, flows.Residual):
            flow.update_lipschitz()
    assert torch.equal(saved.log_prob(x), other.log_prob(x))


def test_a_state_that_does_not_say_it_is_taken_for_the_layer_s_own() -> None:
    saved, other = maf(), maf()
    state = {key: value for key, value in saved.state_dict().items() if not key.endswith("_extra_state")}
    assert len(state) < len(saved.state_dict())
    other.load_state_dict(state)
    assert torch.equal(saved.log_prob(torch.ones(2, 3)), other.log_prob(torch.ones(2, 3)))


def test_an_element_of_one_s_own_need_not_say_what_it_is() -> None:
    class Shift:
        outputs = 1

        def __call__(
            self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
        ) -> tuple[Tensor, Tensor]:
            return (x - params if inverse else x + params), x.new_zeros(len(x)) if log_det is None else log_det

    def build() -> flows.Flow:
        return flows.Compose(3, [transforms.Autoregressive(nets.MADE(3, 1, (4,)), Shift())])

    build().load_state_dict(build().state_dict())
