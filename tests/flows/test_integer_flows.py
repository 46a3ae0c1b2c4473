"""What integer flows promise beyond the laws of every flow: exact inverses and a likelihood that sums to one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.transforms.lattice import evaluate
from tests.flows.factories import DISCRETE, data, make

pytestmark = pytest.mark.usefixtures("backend")
# in a single dimension no network sees the data; a context belongs to one batch, and these tests cut theirs
discrete = pytest.mark.parametrize("name", [n for n in DISCRETE if not n.startswith("idf-1") and "embedding" not in n])


def _train(flow: nn.Module, steps: int = 5) -> None:
    flow.train()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        (-flow.log_prob(data(flow, 64, seed=step)).mean()).backward()
        optimizer.step()
    flow.eval()


def _in_batches(run: object, values: Tensor, size: int) -> Tensor:
    return torch.cat([run(batch)[0] for batch in values.split(size)])


@discrete
@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_round_trip_after_training_for_any_batch_size(name: str, size: int) -> None:
    flow = make(name)
    _train(flow)
    x = data(flow, 200, seed=9)
    z, _ = flow(x)
    assert (z != x.flatten(1)).any(1).double().mean() > 0.9
    assert torch.equal(_in_batches(flow.inverse, z, size).to(torch.int64), x.to(torch.int64))
    assert torch.equal(_in_batches(flow, x, size), z)


def _with_large_translations(name: str) -> nn.Module:
    """A flow with latents near 1e5, where float32 noise is so large that thousands of roundings meet a few flips."""
    flow = make(name).eval()
    weights = [module.weight for module in flow.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        while flow(data(flow, 200, seed=9))[0].abs().max() < 1e5:
            for weight in weights:
                weight *= 1.1
    return flow


@discrete
def test_round_trip_where_float32_networks_would_flip_a_rounding(name: str) -> None:
    flow = _with_large_translations(name)
    x = data(flow, 200, seed=9)
    z, _ = flow(x)
    for size in (1, 7, 200):
        assert torch.equal(_in_batches(flow.inverse, z, size).to(torch.int64), x.to(torch.int64))
    with torch.no_grad():  # in training mode too, as long as no gradient is asked for
        assert torch.equal(_in_batches(flow.train().inverse, z, 7).to(torch.int64), x.to(torch.int64))


def _bounded(in_features: int, out_features: int) -> nn.Module:
    last = nn.Linear(4, out_features)
    return nn.Sequential(nn.Linear(in_features, 4), nn.Tanh(), last)


def _probability_of_square(lattice: str, prior: str = "logistic") -> float:
    """Sum of ``exp(log_prob)`` over the integers of ``[-60, 60]^2``, beyond which no translation here reaches."""
    torch.manual_seed(0)
    flow = flows.IDF(2, layers=3, parts=2, lattice=lattice, prior=prior, net=_bounded).double().eval()
    with torch.no_grad():
        for label, parameter in flow.named_parameters():
            if label.startswith("couplings"):
                parameter.copy_(0.45 if label.endswith("beta") else 1.5 * torch.randn_like(parameter))
        flow.base.log_scale.fill_(0.2)
    side = torch.arange(-60.0, 61.0, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    z, _ = flow(x)
    order = x
    for coupling in flow.couplings:
        order = coupling.permutation(order)
    assert (z != order).any(1).double().mean() > 0.5, "the flow does more than permute"
    return flow.log_prob(x).exp().sum().item()


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
def test_exact_probabilities_sum_to_one(prior: str) -> None:
    assert _probability_of_square("exact", prior) == pytest.approx(1.0, abs=1e-9)


def test_tutorial_probabilities_do_not() -> None:
    assert abs(_probability_of_square("tutorial") - 1.0) > 0.01


def test_tutorial_lattice_is_beta_times_rounded_translation() -> None:
    torch.manual_seed(0)
    flow = flows.IDF(4, layers=1, parts=2, hidden=8, lattice="tutorial").train()
    coupling = flow.couplings[0]
    assert torch.equal(flow(data(flow, 9))[0], data(flow, 9)[:, coupling.permutation.order]), "beta starts at 0"
    with torch.no_grad():
        coupling.beta.fill_(0.3)
        for parameter in coupling.nets.parameters():
            parameter += torch.randn_like(parameter)
    x = data(flow, 9)
    a, b = x[:, coupling.permutation.order].chunk(2, 1)
    a = a + 0.3 * torch.round(coupling.nets[0](b))
    b = b + 0.3 * torch.round(coupling.nets[1](a))
    z, _ = flow(x)
    torch.testing.assert_close(z, torch.cat((a, b), 1))
    torch.testing.assert_close(flow.inverse(z)[0], x)
    assert not flow.discrete


def test_parts_are_updated_in_turn_from_all_the_others() -> None:
    flow = make("idf-4-parts").train()
    x = data(flow, 9)
    for coupling in flow.couplings:
        parts = list(x[:, coupling.permutation.order].split((2, 2, 1, 1), 1))
        for j in range(4):
            others = torch.cat([part for i, part in enumerate(parts) if i != j], 1)
            parts[j] = parts[j] + torch.round(coupling.nets[j](others))
        x = torch.cat(parts, 1)
    assert torch.equal(flow(data(flow, 9))[0], x)


def test_networks_see_and_return_numbers_in_units_of_the_scale() -> None:
    seen = []

    def net(in_features: int, out_features: int) -> nn.Module:
        linear = nn.Linear(in_features, out_features)
        linear.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
        return linear

    torch.manual_seed(0)
    flow = flows.IDF(4, layers=1, parts=2, net=net, center=8.0, scale=5.0).train()
    x = data(flow, 9)
    y, _ = flow(x)
    a, b = x[:, flow.couplings[0].permutation.order].chunk(2, 1)
    torch.testing.assert_close(seen[0][0], (b - 8) / 5)
    assert torch.equal(y[:, :2], a + torch.round(5 * seen[0][1]))
    torch.testing.assert_close(seen[1][0], (y[:, :2] - 8) / 5)
    assert torch.equal(y[:, 2:], b + torch.round(5 * seen[1][1]))


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
def test_prior_starts_from_the_latents_of_a_sample(prior: str) -> None:
    torch.manual_seed(0)
    flow = flows.IDF(4, layers=2, parts=2, hidden=8, prior=prior, dropout=0.5)
    _moved_networks(flow)
    x = data(flow, 500) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    before, state = -flow.eval().log_prob(x).mean(), torch.get_rng_state()
    flow.train().initialize(x)
    assert flow.training and torch.equal(torch.get_rng_state(), state)
    latents = flow.eval()(x)[0]
    means = flow.base.mean if prior == "logistic" else flow.base.mean[0].mean(0)
    # the mean itself; of a mixture the mean of five quantiles, which leaves the tails out
    bound = {"rtol": 1e-5, "atol": 1e-5} if prior == "logistic" else {"rtol": 0.02, "atol": 0.3}
    torch.testing.assert_close(means, latents.mean(0), **bound)
    assert -flow.log_prob(x).mean() < before - 5
    with pytest.raises(ValueError, match=r"x: got shape \(0, 4\), expected \(N, 4\) with at least one row"):
        flow.initialize(x[:0])


def _moved_networks(flow: flows.IDF) -> None:
    with torch.no_grad():
        for parameter in flow.couplings.parameters():
            parameter += 0.3 * torch.randn_like(parameter)


def test_starts_as_a_permutation_and_learns() -> None:
    torch.manual_seed(0)
    flow = flows.IDF(5, layers=2, parts=2, hidden=8)
    x = data(flow, 9)
    assert torch.equal(flow(x)[0].sort(1).values, x.sort(1).values)
    flow.log_prob(x).sum().backward()
    assert all(net[-1].weight.grad.abs().max() > 0 for coupling in flow.couplings for net in coupling.nets)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integer_dtypes_are_taken(dtype: torch.dtype) -> None:
    flow = make("idf-2-parts").eval()
    x = data(flow, 9)
    assert torch.equal(flow(x.to(dtype))[0], flow(x)[0])


def test_values_off_the_lattice_are_refused() -> None:
    flow = make("idf-2-parts").eval()
    x = data(flow, 9)
    x[4, 2] = 0.5
    with pytest.raises(ValueError, match=r"x: got the value 0\.5, expected integers"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match=r"z: got the value 0\.5, expected integers"):
        flow.inverse(x)
    x[4, 2] = float("nan")
    with pytest.raises(ValueError, match="x: got the value nan, expected integers"):
        flow.log_prob(x)
    x[4, 2] = float("inf")
    with pytest.raises(ValueError, match="x: got the value inf, expected integers"):
        flow.log_prob(x)


def test_the_first_training_batch_is_checked() -> None:
    flow = make("idf-2-parts").train()
    with pytest.raises(ValueError, match="expected integers"):
        flow.log_prob(data(flow, 9) / 16)
    flow.log_prob(data(flow, 9))
    flow.log_prob(data(flow, 9) + 0.5)  # later ones are not: the check would wait for the device


@pytest.mark.parametrize("value", [2.0**24, -(2.0**24)])
def test_magnitudes_that_float32_cannot_count_are_refused(value: float) -> None:
    flow = make("idf-2-parts").eval()
    x = data(flow, 9)
    x[4, 2] = value
    with pytest.raises(ValueError, match="x: got the magnitude 16777216, expected less than 16777216"):
        flow(x)
    flow.double()
    assert torch.equal(flow.inverse(flow(x.double())[0])[0], x.double())


def test_results_that_float32_cannot_count_are_refused() -> None:
    flow = _with_large_translations("idf-2-parts")
    x = data(flow, 9) * 2e5
    with pytest.raises(ValueError, match="the result: got the magnitude"):
        flow(x)


def test_networks_that_are_not_finite_pass_through() -> None:
    flow = make("idf-2-parts").eval()
    with torch.no_grad():
        flow.couplings[0].nets[0][-1].bias[0] = float("nan")
    z, _ = flow(data(flow, 9))
    assert z.isnan().any()


class Recurrent(nn.GRU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, None])[0][:, 0]


def tied() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


def with_another_forward() -> nn.Module:
    net = nn.Linear(3, 3)
    net.forward = lambda x: x @ net.weight.T  # type: ignore[method-assign]
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "recurrent": lambda: Recurrent(3, 3, batch_first=True),
    "tied": tied,
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    "hooked": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)).eval(),
    "normalized": lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval(),
    "forward": with_another_forward,
}


@pytest.mark.parametrize("name", NETS)
def test_networks_are_evaluated_in_float64_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    net, x = NETS[name](), torch.randn(4, 3)
    wide = NETS[name]().double()
    wide.load_state_dict(net.state_dict())
    found, expected = evaluate(net, x), wide(x.double())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(net.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, None if theirs.grad is None else theirs.grad.float())


def test_others_may_use_the_networks_meanwhile() -> None:
    """In other threads: what an evaluation works with is no part of the flow while it runs."""
    flow = flows.IDF(4, layers=1, hidden=4).eval()
    own, seen = dict(flow.named_parameters()), []
    for module in flow.modules():
        module.register_forward_hook(lambda *_: seen.append(dict(flow.named_parameters())))
    flow.inverse(flow(torch.zeros(2, 4))[0])
    assert seen and all(now[name] is own[name] for now in seen for name in own)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = x
        return super().forward(x)


def test_networks_keep_what_they_note() -> None:
    net, x = Counting(3, 3), torch.randn(2, 3)
    evaluate(net, x)
    evaluate(net, x)
    assert net.calls == 2 and torch.equal(net.seen, x.double())
    hooked = nn.utils.spectral_norm(nn.Linear(3, 3)).eval()
    evaluate(hooked, x)
    assert hooked.weight.dtype is torch.float32
