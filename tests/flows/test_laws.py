"""The laws every flow obeys, on every backend."""

from __future__ import annotations

import io

import pytest
import torch

from tests.flows.factories import CONTINUOUS, DISCRETE, FLOWS, data, make

pytestmark = pytest.mark.usefixtures("backend")
every_flow = pytest.mark.parametrize("name", FLOWS)
continuous = pytest.mark.parametrize("name", CONTINUOUS)
discrete = pytest.mark.parametrize("name", DISCRETE)


@every_flow
def test_shapes_and_dtypes(name: str) -> None:
    flow = make(name).eval()
    x = data(flow, 7)
    z, log_det = flow(x)
    back, inverse_log_det = flow.inverse(z)
    sample, log_p = flow.sample_and_log_prob(3)
    assert z.shape == (7, flow.dim) and back.shape == x.shape == (7, *flow.shape)
    assert z.dtype == back.dtype == torch.float32
    for value in (log_det, inverse_log_det, flow.log_prob(x)):
        assert value.shape == (7,) and value.dtype == torch.float32
    assert sample.shape == (3, *flow.shape) and log_p.shape == (3,)
    assert flow.sample(4).shape == (4, *flow.shape) and not flow.sample(4).requires_grad


@continuous
def test_round_trip_of_continuous_flows(name: str) -> None:
    flow = make(name).eval()
    x = data(flow, 64)
    z, log_det = flow(x)
    back, inverse_log_det = flow.inverse(z)
    assert not torch.allclose(z, x.flatten(1), atol=0.1)  # it moves the data: a round trip of the identity says nothing
    scale = torch.maximum(x.abs().amax(), z.abs().amax())
    assert ((back - x).abs().max() / scale).item() <= 1e-5
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-5, atol=1e-5)


@discrete
def test_round_trip_of_integer_flows(name: str) -> None:
    flow = make(name).eval()
    x = data(flow, 64)
    z, _ = flow(x)
    assert torch.equal(z, z.round())
    assert not torch.equal(z.sort(1).values, x.flatten(1).sort(1).values), "the flow does more than permute"
    assert torch.equal(flow.inverse(z)[0].to(torch.int64), x.to(torch.int64))
    other = x.flatten(1)
    assert torch.equal(flow(flow.inverse(other)[0])[0].to(torch.int64), other.to(torch.int64))


@continuous
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_the_jacobian(name: str, direction: str) -> None:
    flow = make(name).double().eval()
    run = flow if direction == "forward" else flow.inverse
    rows = data(flow, 3, dtype=torch.float64)
    for row in rows if direction == "forward" else rows.flatten(1):
        jacobian = torch.autograd.functional.jacobian(lambda v: run(v[None])[0][0].flatten(), row)
        jacobian = jacobian.reshape(flow.dim, flow.dim)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(run(row[None])[1][0], expected, rtol=1e-9, atol=1e-9)


@every_flow
def test_log_prob_agrees_with_sample_and_log_prob(name: str) -> None:
    flow = make(name).double().eval()
    x, log_p = flow.sample_and_log_prob(32)
    again = flow.log_prob(x)
    if flow.discrete:
        assert torch.equal(again, log_p)
    else:
        torch.testing.assert_close(again, log_p, rtol=1e-9, atol=1e-9)


@every_flow
def test_gradients_reach_every_parameter(name: str) -> None:
    flow = make(name).train()
    flow.log_prob(data(flow, 32)).mean().backward()
    for label, parameter in flow.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().max() > 0, label


@every_flow
def test_save_and_load(name: str) -> None:
    flow, other = make(name).eval(), make(name, seed=5).eval()
    x = data(flow, 16)
    assert not torch.equal(flow(x)[0], other(x)[0])
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(flow(x)[0], other(x)[0])
    assert torch.equal(flow.log_prob(x), other.log_prob(x))
    z = x.flatten(1)
    assert torch.equal(flow.inverse(z)[0], other.inverse(z)[0])


@every_flow
def test_float64(name: str) -> None:
    flow = make(name).eval()
    x = data(flow, 16)
    z, log_det = flow(x)
    log_p = flow.log_prob(x)
    flow.double()
    wide_z, wide_log_det = flow(x.double())
    wide_log_p = flow.log_prob(x.double())
    assert {wide_z.dtype, wide_log_det.dtype, wide_log_p.dtype, flow.sample(2).dtype} == {torch.float64}
    torch.testing.assert_close(wide_z, z.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide_log_det, log_det.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wide_log_p, log_p.double(), rtol=1e-4, atol=1e-4)


@every_flow
def test_empty_batch(name: str) -> None:
    for flow in (make(name).eval(), make(name).train()):
        x, z = torch.empty(0, *flow.shape), torch.empty(0, flow.dim)
        for out in (*flow(x), *flow.inverse(z), flow.log_prob(x), flow.sample(0), *flow.sample_and_log_prob(0)):
            assert out.shape[0] == 0
        flow.log_prob(x).sum().backward()


@every_flow
def test_sampling_is_determined_by_the_seed(name: str) -> None:
    flow = make(name).eval()
    torch.manual_seed(3)
    first = flow.sample(8)
    torch.manual_seed(3)
    assert torch.equal(flow.sample(8), first)
    assert not torch.equal(flow.sample(8), first)


@every_flow
def test_sampling_with_a_generator(name: str) -> None:
    flow = make(name).eval()
    state = torch.get_rng_state()
    first = flow.sample(8, generator=torch.Generator().manual_seed(3))
    again, _ = flow.sample_and_log_prob(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again, first)
    assert torch.equal(torch.get_rng_state(), state), "the default generator is left alone"
