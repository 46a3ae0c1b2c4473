"""Masked networks: what sees what, whatever is written into the weights, and the passes of an inverse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hybridkern import nets, transforms
from hybridkern.nets.passes import Passes, WholePasses, in_blocks

CASES = {
    "plain": {"features": 5},
    "wide steps": {"features": 7, "hidden": (3, 4)},
    "no hidden layer": {"features": 4, "hidden": ()},
    "context": {"features": 4, "hidden": (9, 6), "context": 2},
    "context alone": {"features": 1, "hidden": (3,), "context": 2},
    "nothing": {"features": 1},
    "context without hidden layer": {"features": 3, "hidden": (), "context": 2},
    "order": {"features": 6, "outputs": 3, "order": (3, 0, 5, 1, 4, 2), "hidden": (16, 8), "context": 1},
    "reversed": {"features": 4, "order": (3, 2, 1, 0), "hidden": (5,)},
}
every_case = pytest.mark.parametrize("name", CASES)


def made(name: str, seed: int = 0) -> nets.MADE:
    torch.manual_seed(seed)
    net = nets.MADE(**{"outputs": 2, "hidden": (8, 8), "activation": nn.Tanh} | CASES[name]).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return net


def inputs(net: nets.MADE, rows: int = 3) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, net.features, generator=generator, dtype=torch.float64)
    width = net.context_width
    return x, torch.randn(rows, width, generator=generator, dtype=torch.float64) if width else None


@every_case
def test_a_feature_s_outputs_depend_on_all_before_it_and_on_nothing_else(name: str) -> None:
    net = made(name)
    x, context = inputs(net, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, context), x)[0, :, 0]
    seen = jacobian.view(net.features, net.outputs, net.features).abs().amax(1) > 0
    place = {feature: k for k, feature in enumerate(net.order)}
    for i in range(net.features):
        for j in range(net.features):
            if place[j] >= place[i]:
                assert not seen[i, j]
    if "steps" not in name:  # units enough for every degree
        assert seen.sum() == net.features * (net.features - 1) // 2


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "context" in case])
def test_every_output_sees_the_context(name: str) -> None:
    net = made(name)
    x, context = inputs(net, 1)
    jacobian = torch.autograd.functional.jacobian(lambda c: net(x, c), context)[0, :, 0]
    assert (jacobian.abs().view(net.features, -1).amax(1) > 0).all()


WRITES = {
    "a moving average": lambda p: p.data.mul_(0.9).add_(torch.full_like(p, 0.3)),
    "another tensor": lambda p: setattr(p, "data", p.data + 0.3),
    "NumPy": lambda p: p.detach().numpy().__iadd__(0.3),
    "an optimizer": lambda p: p.data.copy_(p.detach() + 0.3),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@pytest.mark.parametrize("grad", [False, True])
def test_zeros_stay_whatever_is_written_in_evaluation_mode(write: Callable[[nn.Parameter], object], grad: bool) -> None:
    net = made("order").eval()
    x, context = inputs(net, 1)
    with torch.set_grad_enabled(grad):
        net(x, context)
        for parameter in net.parameters():
            write(parameter)
        expected = copy.deepcopy(net).train()(x, context)
        torch.testing.assert_close(net(x, context), expected, rtol=0, atol=0)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, context), x)[0, :, 0].view(6, 3, 6)
    place = {feature: k for k, feature in enumerate(net.order)}
    assert all(not jacobian[i, :, j].any() for i in range(6) for j in range(6) if place[j] >= place[i])


@every_case
def test_a_network_says_what_it_was_built_for(name: str) -> None:
    net = made(name)
    x, context = inputs(net)
    layer = transforms.Autoregressive(net, transforms.AffineElement("realnvp")) if net.outputs == 2 else None
    directions = [] if layer is None else [partial(run, layer, inverse) for inverse in (False, True)]
    for call in (net, *directions):
        with pytest.raises(ValueError, match=rf"x: got shape \(3, {net.features + 1}\)"):
            call(torch.cat([x, x[:, :1]], 1), context)
        if context is None:
            continue
        with pytest.raises(TypeError, match="context: got NoneType, expected"):
            call(x, None)
        for wrong in (context[:1], context[:, :0], torch.cat([context, context], 1), context[0]):
            with pytest.raises(ValueError, match="context: got"):
                call(x, wrong)


def run(layer: transforms.Autoregressive, inverse: bool, x: Tensor, context: Tensor | None) -> Tensor:
    return layer(x, context=context, inverse=inverse)[0]


def test_masks_of_another_order_are_refused() -> None:
    net = made("order")
    case = CASES["order"] | {"order": (0, 1, 2, 3, 4, 5)}
    state = nets.MADE(**case).state_dict()
    with torch.device("meta"):
        empty = nets.MADE(**CASES["order"], activation=nn.Tanh)
    for other in (net, empty):
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(ValueError, match="order: got a state_dict of masks of another order, expected"):
            other.load_state_dict(state, assign=other is empty)
        assert other is empty or all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    empty.load_state_dict(net.state_dict(), assign=True)
    x, context = inputs(net)
    assert torch.equal(empty(x, context), net(x, context))


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
def test_masks_of_other_values_than_0_and_1_are_refused(value: float) -> None:
    """As numbers they would scale weights in one place, and count as connections in another."""
    net, state = made("order"), made("order", seed=1).state_dict()
    state["layers.1.mask"][state["layers.1.mask"].bool()] = value
    before = {name: kept.clone() for name, kept in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"layers\.1\.mask: got other values than 0 and 1"):
        net.load_state_dict(state)
    assert all(torch.equal(kept, before[name]) for name, kept in net.state_dict().items() if "layers.1" in name)


def test_other_weights_for_one_call() -> None:
    net, other = made("plain").eval(), made("plain", seed=3)
    x, _ = inputs(net)
    given = {name: value.detach().clone() for name, value in other.named_parameters()}
    copies = {name: value.clone() for name, value in given.items()}
    with torch.no_grad():
        got = torch.func.functional_call(net, given, (x,))
    assert torch.equal(got, other(x))
    assert all(torch.equal(given[name], copies[name]) for name in given), "what was given is not written to"


def test_under_inference_mode() -> None:
    net = made("plain").eval()
    x, _ = inputs(net)
    expected = net(x)
    with torch.inference_mode():
        assert torch.equal(net(x), expected)
        assert made("plain").eval()(x).shape == expected.shape


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["features"] > 1])
def test_passes_give_what_whole_calls_give(name: str, grad: bool) -> None:
    net = made(name)
    x, context = inputs(net)
    assert in_blocks(net)
    with torch.set_grad_enabled(grad):
        expected = net(x, context).view(len(x), net.features, net.outputs)
        for passes in (Passes(net, x, context), WholePasses(net, net.order, net.outputs, x, context)):
            for k, feature in enumerate(net.order):
                torch.testing.assert_close(passes.outputs(k), expected[:, feature], rtol=1e-12, atol=1e-12)
                passes.add(x[:, feature : feature + 1])
            assert torch.equal(passes.result(), x)


def test_passes_compute_each_unit_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = made("order")
    x, context = inputs(net)
    computed = []
    product = torch.addmm

    def counting(bias: Tensor, weight: Tensor, h: Tensor) -> Tensor:
        computed.append(len(weight))
        return product(bias, weight, h)

    monkeypatch.setattr("torch.addmm", counting)
    passes = Passes(net, x, context)
    for k, feature in enumerate(net.order):
        passes.outputs(k)
        passes.add(x[:, feature : feature + 1])
    assert sum(computed) == sum(layer.out_features for layer in net.layers)


def changed(net: nets.MADE, how: str) -> nets.MADE:
    if how == "hook":
        net.layers[1].register_forward_hook(lambda module, args, out: 2 * out)
    elif how == "spectral norm":
        nn.utils.parametrizations.spectral_norm(net.layers[0])
    else:
        net.layers[0].forward = lambda x: torch.zeros(len(x), 8, dtype=x.dtype)
    return net


@pytest.mark.parametrize("how", ["hook", "spectral norm", "own forward"])
def test_a_network_that_does_more_is_called(how: str) -> None:
    layer = transforms.Autoregressive(changed(made("plain"), how), transforms.AffineElement("realnvp")).eval()
    assert not in_blocks(layer.net)
    x, _ = inputs(layer.net)
    y, log_det = layer(x)
    back, other = layer(y, inverse=True)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other, -log_det, rtol=1e-9, atol=1e-9)


def test_autocast() -> None:
    net = made("order").float().eval()
    x, context = (value.float() for value in inputs(net))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        passes = Passes(net, x, context)
        outputs = []
        for k, feature in enumerate(net.order):
            outputs.append(passes.outputs(k))
            passes.add(x[:, feature : feature + 1])
        expected = net(x, context).view(len(x), net.features, net.outputs)[:, list(net.order)]
        assert passes.result().dtype is torch.float32 and torch.equal(passes.result(), x)
    torch.testing.assert_close(torch.stack(outputs, 1), expected, rtol=0.05, atol=0.05)


BAD = {
    "order twice": ({"features": 3, "order": (0, 1, 1)}, r"order: got \(0, 1, 1\), expected each of 0 to 2 once"),
    "order of another length": ({"features": 3, "order": (0, 1)}, "order: got "),
    "no feature": ({"features": 0}, "features: got 0, expected a positive integer"),
    "negative context": ({"features": 2, "context": -1}, "context: got -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        nets.MADE(**given)


def test_autoregressive_arguments() -> None:
    affine = transforms.AffineElement("realnvp")
    with pytest.raises(TypeError, match="net: got Linear, expected a MADE"):
        transforms.Autoregressive(nn.Linear(2, 4), affine)
    with pytest.raises(ValueError, match="net: got 3 outputs a feature, expected 2"):
        transforms.Autoregressive(nets.MADE(2, 3), affine)


@every_case
def test_what_masks_leave_out_is_left_out_of_the_inverse(name: str) -> None:
    """Someone may take more connections away than the order does."""
    torch.manual_seed(0)
    net = nets.MADE(**{"hidden": (8, 8)} | CASES[name] | {"outputs": 2}).double()
    layer = transforms.Autoregressive(net, transforms.AffineElement("realnvp"))
    for buffer in net.buffers():
        buffer.mul_(torch.rand_like(buffer) < 0.5)
    x, context = inputs(net)
    y, log_det = layer(x, context=context)
    back, log_det_back = layer(y, context=context, inverse=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)
    loaded = nets.MADE(**{"hidden": (8, 8)} | CASES[name] | {"outputs": 2}).double()
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded(x, context), net(x, context))
