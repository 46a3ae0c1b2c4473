"""Networks that learn their steps: what they compute is what the integers compute, and training goes on."""

from __future__ import annotations

import pytest
import torch

from hybridkern import codec, nets
from hybridkern.codec.convert import Converter
from hybridkern.codec.learned import quantized_nets
from hybridkern.codec.stages import QuantizedNet, steps_of
from hybridkern.codec.steps import input_bits
from tests.codec import cases
from tests.codec.test_integers import NETS, sample

OPTIONS = {
    "parts": {},
    "quarter": {"prior": "mixture", "coupling": "quarter", "net": "resnet"},
    "unscaled": {"center": 0, "scale": 1},
}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", [name for name in NETS if "densenet" not in name])  # which learn no steps
def test_integers_are_what_was_trained(name: str, scaled: bool) -> None:
    """Closer to it by far than to the network without steps, which is what they are made from otherwise."""
    torch.manual_seed(3)
    x, center, scale = sample(6, 8, 8, 20), 100.0, 60.0
    net = NETS[name](6, 4).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    learned = QuantizedNet(net, center, scale).double()
    seen = (x.double() - center) / scale
    with torch.no_grad():
        plain = learned(seen)
        learned.calibrate(seen)
        for steps in (*learned.weight_steps, learned.activation_steps):
            steps.add_(0.2 * torch.randn(steps.shape))  # as training moves them: no longer the best
        wanted = 4000 * learned(seen)
    outer = nets.Scaled(learned, center, scale) if scaled else learned
    factors = torch.full((4,), 4000 / scale if scaled else 4000.0)
    found = Converter(outer, x, factors, center, scale).convert()(x)
    error = (found - wanted).std()
    assert (
        error < 0.3 * (4000 * plain - wanted).std()
    )  # a bias or the stream, rounded, moves a few activations by a step


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_flows_learn_steps(options: dict) -> None:
    flow, x = cases.flow(strength=0.03, **options), cases.images(4, 64)
    before = flow.log_prob(x)
    parameters = [parameter.clone() for parameter in flow.parameters()]
    assert codec.learn_steps(flow) is flow
    assert torch.equal(flow.log_prob(x), before)  # until steps are chosen
    codec.learn_steps(flow, x)
    assert all(net.on for net in quantized_nets(flow)) and len(quantized_nets(flow)) > 3
    names = ("weight_steps", "activation_steps")
    kept = [value for name, value in flow.named_parameters() if not any(part in name for part in names)]
    assert all(map(torch.equal, kept, parameters))
    z, _ = flow(x)
    assert torch.equal(flow.inverse(z)[0].long(), x)
    flow.train()
    (-flow.log_prob(x).mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in flow.parameters())
    found = codec.quantize(flow, x)
    assert abs(found.bits["integers"] - found.bits["float"] - 4 / 64) < 0.03  # half a byte
    assert torch.equal(codec.Codec(found).decode(codec.Codec(found).encode(x)), x)


def test_steps_lie_where_the_model_does() -> None:
    flow = codec.learn_steps(cases.flow().to("meta"))
    assert all(value.is_meta for value in flow.state_dict(keep_vars=True).values() if isinstance(value, torch.Tensor))


def test_training_with_steps_lowers_the_bits() -> None:
    x = cases.images(6, 64)
    flow = cases.flow(strength=0.05, **OPTIONS["quarter"])
    codec.learn_steps(flow, x)
    before = codec.quantize(flow, x).bits["integers"]
    optimizer = torch.optim.Adam(flow.train().parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    after = codec.quantize(flow.eval(), x).bits
    assert after["integers"] < before - 0.02 and after["integers"] - after["float"] < 0.05 + 4 / 64


def test_gradients_of_steps() -> None:
    """Within the range the rounding error, beyond it the bound: equation 3 of the source, times the step."""
    from hybridkern.codec.stages import _rounded

    x = torch.tensor([0.26, -1.24, 3.0, -9.0], dtype=torch.float64)
    log_step = torch.tensor(0.5, dtype=torch.float64).log().requires_grad_()
    out = _rounded(x, log_step.exp(), -3, 4)
    assert out.tolist() == [0.5, -1.0, 2.0, -1.5]
    gradients = [torch.autograd.grad(value, log_step, retain_graph=True)[0].item() for value in out]
    assert gradients == pytest.approx([0.5 - 0.26, -1.0 + 1.24, 2.0, -1.5])


def test_inputs_lose_no_bit_where_all_fit() -> None:
    assert input_bits(torch.arange(-128, 128)) == 0
    assert input_bits(torch.cat([torch.arange(-128, 128).repeat(1000), torch.tensor([300])])) == 0
    assert input_bits(torch.arange(-500, 500)) == 2


def test_others_have_no_steps() -> None:
    assert steps_of(nets.ConvNet(3, 2, 4)) is None and steps_of(QuantizedNet(nets.ConvNet(3, 2, 4))) is None
    with pytest.raises(TypeError, match=r"DenseNet.*expected nets.ConvNet or nets.ResNet"):
        codec.learn_steps(cases.flow(net="densenet", hidden=12))
    flow = cases.flow()
    flow.base.nets[-1] = torch.nn.Identity()
    with pytest.raises(TypeError, match=r"Identity.*expected nets.ConvNet or nets.ResNet"):
        codec.learn_steps(flow)
    assert not quantized_nets(flow)
    with pytest.raises(ValueError, match="images: got none"):
        codec.learn_steps(cases.flow(), torch.zeros(0, 1, 8, 8, dtype=torch.long))
