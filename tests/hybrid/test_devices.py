"""What a model says of tensors on another device, and of float16 whose gradients nobody scales."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from hybridkern import flows
from hybridkern.distributions import ClassGaussians
from hybridkern.flows import _later
from hybridkern.hybrid import HybridIDF, HybridModel, _scaling, heads, objectives

META = torch.device("meta")
FLOWS = {
    "realnvp": (lambda: flows.RealNVP(4, layers=2, hidden=4), (4,)),
    "realnvp-images": (lambda: flows.RealNVP((1, 4, 4), layers=2, hidden=4, levels=1), (1, 4, 4)),
    "glow": (lambda: flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4), (1, 4, 4)),
    "planar": (lambda: flows.Planar(4, layers=2), (4,)),
    "idf": (lambda: flows.IDF(4, layers=2, parts=2, hidden=4), (4,)),
    "idf-images": (lambda: flows.IDF((1, 4, 4), layers=1, levels=1, hidden=4), (1, 4, 4)),
    "classes": (lambda: _with_classes(flows.RealNVP(4, layers=2, hidden=4)), (4,)),
}


def _with_classes(flow: flows.Flow) -> flows.Flow:
    flow.base = ClassGaussians(4, 2)
    return flow


@pytest.mark.parametrize("name", FLOWS)
def test_data_on_another_device_than_the_flow(name: str) -> None:
    build, shape = FLOWS[name]
    flow = build()
    with pytest.raises(ValueError, match="x: got device meta, expected cpu, the device of the flow"):
        flow(torch.empty(2, *shape, device=META))
    with pytest.raises(ValueError, match="z: got device meta, expected cpu, the device of the flow"):
        flow.inverse(torch.empty(2, flow.dim, device=META))


def test_targets_and_integers_on_another_device() -> None:
    model = HybridModel(flows.RealNVP(4, layers=2, hidden=4), heads.Categorical(4, 2))
    with pytest.raises(ValueError, match="y: got device meta, expected cpu, the device of x"):
        model.loss(torch.zeros(2, 4), torch.empty(2, dtype=torch.int64, device=META), objectives.Joint())
    tutorial = HybridIDF([lambda: nn.Linear(2, 2)], nn.Linear(4, 2), 1, D=4)
    with pytest.raises(ValueError, match="x: got device meta, expected cpu, the device of the flow"):
        tutorial.f(torch.empty(2, 4, device=META))


def test_parameters_given_to_a_flow_built_on_meta() -> None:
    flow = flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4)
    flow.initialize(torch.randn(4, 1, 4, 4))
    with META:
        other = flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4)
    other.load_state_dict(flow.state_dict(), assign=True)
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(other.log_prob(x), flow.log_prob(x))


def step(model: HybridModel, dtype: torch.dtype, scale: float) -> list[str]:
    """The warnings of a training step."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with torch.autocast("cpu", dtype=dtype):
            loss = model.loss(torch.randn(4, 6), torch.arange(4) % 2, objectives.Joint())
        (loss * scale).backward()
    return [str(warning.message) for warning in seen]


def model_of_six() -> HybridModel:
    return HybridModel(flows.RealNVP(6, layers=2, hidden=4), heads.Categorical(6, 2))


def test_float16_without_a_scaler_is_said_once() -> None:
    model = model_of_six()
    (said,) = step(model, torch.float16, 1.0)
    assert said == f"HybridModel: {_scaling.NOT_SCALED}"
    assert step(model, torch.float16, 1.0) == []


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 2.0**16), (torch.bfloat16, 1.0)])
def test_scaled_or_in_bfloat16_nothing_is_said(dtype: torch.dtype, scale: float) -> None:
    assert step(model_of_six(), dtype, scale) == []


def test_on_a_device_the_answer_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = []
    monkeypatch.setattr(_later, "_to_host", lambda flag: (flag.clone(), lambda: bool(arrived)))
    model = model_of_six()
    assert step(model, torch.float16, 1.0) == []
    arrived.append(True)
    assert len(step(model, torch.float16, 1.0)) == 1
