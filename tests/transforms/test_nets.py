"""Networks: where dropout acts, and scaling of inputs and outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hybridkern.nets import Scaled, mlp
from hybridkern.transforms.lattice import evaluate


def test_input_dropout_acts_on_the_inputs_alone() -> None:
    torch.manual_seed(0)
    net = mlp(64, 64, (), input_dropout=0.5)
    assert [type(layer).__name__ for layer in net] == ["Dropout", "Linear"]
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(64))
        net[1].bias.zero_()
    x = torch.ones(100, 64)
    assert set(net(x).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(net.eval()(x), x)


@pytest.mark.parametrize("name", ["dropout", "input_dropout"])
def test_dropout_is_a_probability(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got 1.0, expected a probability"):
        mlp(2, 2, **{name: 1.0})


def test_scaled() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(3, 2)
    net, x = Scaled(inner, center=8.0, scale=5.0), 16 * torch.rand(7, 3)
    expected = 5 * inner((x - 8) / 5)
    assert torch.equal(net(x), expected)
    wide = evaluate(net, x)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), expected)
    assert "center=8.0, scale=5.0" in repr(net)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_scale_is_positive_and_finite(scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale: got {scale}, expected a finite number greater than 0"):
        Scaled(nn.Identity(), scale=scale)
