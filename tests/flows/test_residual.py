"""Residual flows: unbiased estimates, their gradients, memory, the inverse, and the bound that keeps it unique."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybridkern import flows
from hybridkern.flows import LipschitzError, Residual
from hybridkern.hybrid import HybridModel, heads
from hybridkern.transforms.residual import ConvergenceError, Series
from hybridkern.transforms.residual.series import chain

KINDS = {
    "mlp": lambda dim: Residual(dim, blocks=2, hidden=(8, 8), terms=1),
    "dense": lambda dim: Residual(dim, blocks=2, net="dense", hidden=(6, 6), activation="clipswish", terms=1),
    "geometric": lambda dim: Residual(dim, blocks=2, hidden=(8,), terms=0, proposal="geometric", rate=0.6),
    "conv": lambda dim: Residual((dim // 2, 2, 1), blocks=1, hidden=(6, 6), terms=1, vectors=2),
}


def made(kind: str, dim: int) -> Residual:
    torch.manual_seed(0)
    flow = KINDS[kind](dim).double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return flow


def data(flow: Residual, n: int) -> Tensor:
    return torch.randn(n, *flow.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_estimate_and_its_gradient_have_the_exact_means(kind: str, dim: int) -> None:
    """Over 10,000 draws, a weight of its own for each example: copies of each example share a number of terms."""
    flow = made(kind, dim)
    copies, calls = 50, 200
    x = data(flow, 3).requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    tracked = [x, *(p for p in flow.parameters() if p.ndim > 1)]
    exact = flow.log_prob(x, trace="exact")
    expected = torch.cat([g.flatten() for g in torch.autograd.grad((weights * exact).sum(), tracked)])
    generator = torch.Generator().manual_seed(2)
    values, gradients = [], []
    for _ in range(calls):
        log_p = flow.log_prob(x.repeat(copies, *(1,) * len(flow.shape)), trace="estimate", terms=1, generator=generator)
        means = log_p.view(copies, 3).mean(0)
        values.append(means.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad((weights * means).sum(), tracked)]))
    for found, wanted in ((torch.stack(values), exact.detach()), (torch.stack(gradients), expected)):
        error = found.std(0) / calls**0.5
        score = (found.mean(0) - wanted) / error.clamp_min(1e-12)
        # of the many gradients the largest may lie further out; they share the numbers of terms
        assert score.abs().median() < 3 and score.abs().max() < (4 if score.numel() < 10 else 5)


def test_the_series_weighs_its_terms() -> None:
    """Against the powers of a matrix."""
    torch.manual_seed(0)
    matrix = 0.3 * torch.randn(5, 5, dtype=torch.float64)
    v, weights = torch.randn(4, 5, dtype=torch.float64), [1.0, 1.0, 1.5, 2.5]
    value, w = chain(lambda u: u @ matrix, v, weights)
    powers = [torch.linalg.matrix_power(matrix, k) for k in range(4)]
    series = sum((-1) ** (k + 1) * weights[k] / k * powers[k] for k in (1, 2, 3))
    inverse = sum((-1) ** k * weights[k] * powers[k] for k in range(4))
    torch.testing.assert_close(value, torch.einsum("bi,ij,bj->b", v, series, v))
    torch.testing.assert_close(w, v @ inverse)


def test_small_weights_stay_as_they_are() -> None:
    flow = made("mlp", 3)
    layer = flow.scales[0].blocks[1].net.layers[0]
    with torch.no_grad():
        layer.weight.mul_(0.1 / torch.linalg.matrix_norm(layer.weight, 2))
    assert torch.equal(flow._weights()[layer], layer.weight)


def test_standard_error_is_that_of_repeated_estimates() -> None:
    flow = made("mlp", 12)
    x = data(flow, 4)
    with torch.no_grad():
        runs = [flow.log_prob_and_error(x, vectors=8, terms=1) for _ in range(200)]
    spread = torch.stack([log_p for log_p, _ in runs]).std(0)
    stated = torch.stack([error for _, error in runs]).square().mean(0).sqrt()
    # a deviation of 200 draws is itself known to 1/sqrt(400) = 5 %: four of those
    torch.testing.assert_close(stated, spread, rtol=0.2, atol=0.0)


def test_estimates_are_determined_by_the_generator() -> None:
    flow = made("mlp", 12)
    x = data(flow, 4)
    first, again, other = (flow.log_prob(x, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_memory_does_not_grow_with_the_terms() -> None:
    """Counted in tensors that the graph keeps."""

    def kept(terms: int) -> int:
        flow = Residual(12, blocks=2, hidden=(16, 16), terms=terms, rate=1e-9)
        x = torch.randn(8, 12)
        flow.initialize(x)
        held: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
            flow.log_prob(x, trace="estimate")
        return len(held)

    assert kept(64) == kept(4)


@pytest.mark.parametrize("dim", [3, 12])
def test_exact_log_determinants_inside_of_a_checkpoint(dim: int) -> None:
    flow = made("mlp", dim)
    x = data(flow, 4).requires_grad_()
    wanted = [x, *flow.parameters()]

    def loss(x: Tensor) -> Tensor:
        return flow.log_prob(x, trace="exact").sum()

    expected = torch.autograd.grad(loss(x), wanted)
    got = torch.autograd.grad(checkpoint(loss, x, use_reentrant=False), wanted)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_solves_every_layer(dtype: torch.dtype) -> None:
    flow = made("mlp", 5).to(dtype)
    block = flow.scales[0].blocks[0]
    weights = flow._weights()
    y = torch.randn(64, 5, dtype=dtype)
    x = block.inverse(y, weights)
    residual = (x + block.net(x, weights) - y).abs().max()
    assert residual <= (1e-6 if dtype is torch.float32 else 1e-10)
    with torch.no_grad():
        alone = torch.cat([block.inverse(row[None], weights) for row in y])
        among_others = block.inverse(torch.cat([y[:32], 5 * torch.randn(32, 5, dtype=dtype)]), weights)[:32]
    assert (alone + block.net(alone, weights) - y).abs().max() <= (1e-6 if dtype is torch.float32 else 1e-10)
    torch.testing.assert_close(among_others, x[:32], rtol=0, atol=1e-12 if dtype is torch.float64 else 1e-6)
    # each row solves to 1e-6, so that two of its solutions are at most twice that apart, over 1 - c
    torch.testing.assert_close(alone, x, rtol=0, atol=1e-12 if dtype is torch.float64 else 2e-6)


def test_the_inverse_has_gradients() -> None:
    flow = made("mlp", 3)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow.inverse, (z,), atol=1e-6)
    weight = flow.scales[0].blocks[1].net.layers[0].weight
    (found,) = torch.autograd.grad(flow.inverse(z)[0].sin().sum(), weight)
    with torch.no_grad():
        steps = []
        for sign in (1, -1):
            weight[0, 0] += sign * 1e-3
            steps.append(flow.inverse(z)[0].sin().sum())
            weight[0, 0] -= sign * 1e-3
    torch.testing.assert_close(found[0, 0], (steps[0] - steps[1]) / 2e-3, rtol=1e-3, atol=0.0)


def test_second_derivatives_are_exact_or_refused() -> None:
    flow = made("dense", 3)
    x = data(flow, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: flow.log_prob(v, trace="exact"), (x,), atol=1e-6)
    with pytest.raises(RuntimeError, match="trace='exact'"):
        torch.autograd.grad(flow.log_prob(x, trace="estimate").sum(), x, create_graph=True)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("order", ["forward forward", "reverse forward", "forward reverse"])
def test_second_derivatives_in_forward_mode(order: str, batched: bool) -> None:
    """Those of ``torch.linalg.slogdet`` are wrong, and under ``vmap`` by orders of magnitude."""
    flow = made("mlp", 2).eval()
    by = {"forward": torch.func.jacfwd, "reverse": torch.func.jacrev}
    outer, inner = (by[name] for name in order.split())

    def log_prob(row: Tensor) -> Tensor:
        return flow.log_prob(row[None])[0]

    x = torch.randn(2, 2, dtype=torch.float64)
    expected = torch.stack([torch.autograd.functional.hessian(log_prob, row) for row in x])
    hessian = outer(inner(log_prob))
    found = torch.func.vmap(hessian)(x) if batched else torch.stack([hessian(row) for row in x])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_every_weight_keeps_its_bound_while_training() -> None:
    torch.manual_seed(0)
    flow = Residual(4, blocks=3, hidden=(16, 16), lipschitz=0.9)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    x = torch.randn(64, 4)
    for _ in range(20):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean() - 10 * flow.log_prob(3 * x).mean()).backward()
        optimizer.step()
    assert 0.85 < max(flow.check_lipschitz().values()) <= 0.9 * 1.001


def test_copies_of_the_weights_are_followed() -> None:
    """Weights that are written to by hand, as an average of models does, get singular vectors of their own."""
    flow = made("conv", 4)
    flow(data(flow, 2))
    other = copy.deepcopy(flow)
    assert torch.equal(other(data(flow, 2))[0], flow(data(flow, 2))[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter) * 3)
    assert max(other.check_lipschitz().values()) <= 0.98 * 1.001


def test_broken_weights_are_named() -> None:
    flow = made("mlp", 3)
    flow(data(flow, 2))
    with torch.no_grad():
        flow.scales[0].blocks[1].net.layers[0].weight.data[0, 0] = float("nan")
    with pytest.raises(LipschitzError, match=r"scales.0.blocks.1.net.layers.0: got a spectral norm of nan"):
        flow.check_lipschitz()
    with pytest.raises(ConvergenceError, match="are not solved after 1000 iterations"):
        flow.inverse(torch.randn(2, 3, dtype=torch.float64))


def test_no_nan_at_zero() -> None:
    flow = made("mlp", 3)
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for trace in ("exact", "estimate"):
        flow.zero_grad()
        flow.log_prob(x, trace=trace).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())


@pytest.mark.parametrize("proposal", ["geometric", "poisson"])
def test_number_of_terms_has_its_distribution(proposal: str) -> None:
    series = Series(2, proposal, 0.5)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([series.draw(generator) for _ in range(4000)])
    for k in (1, 2, 3):
        share = (drawn >= k).double().mean().item()
        p = series.reach(k)
        assert abs(share - p) <= 4 * (p * (1 - p) / 4000) ** 0.5
    assert series.weights(generator)[:3] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lipschitz": 1.0}, "lipschitz: got 1.0, expected a number between 0 and 1"),
        ({"net": "conv"}, "net: got 'conv', expected 'mlp' or 'dense'"),
        ({"activation": "relu"}, "activation: got 'relu'"),
        ({"blocks": (1, 2)}, r"blocks: got \(1, 2\), expected one number for vectors"),
        ({"hidden": (3,), "activation": "clipswish"}, "expected even widths for activation 'clipswish'"),
        ({"hidden": (4, 6), "net": "dense"}, "expected one growth for net 'dense'"),
        ({"proposal": "geometric", "rate": 2.0}, "rate: got 2.0, expected a number between 0 and 1"),
        ({"proposal": "uniform"}, "proposal: got 'uniform'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        flows.Residual(4, **arguments)


def test_bad_calls() -> None:
    flow = made("mlp", 3)
    with pytest.raises(ValueError, match="trace: got 'sum', expected 'auto'"):
        flow.log_prob(data(flow, 2), trace="sum")
    with pytest.raises(ValueError, match="vectors: got 1, expected at least 2"):
        flow.log_prob_and_error(data(flow, 2), vectors=1)
    with pytest.raises(RuntimeError, match="expected 'exact'"):
        torch.func.jvp(lambda x: flow.log_prob(x, trace="estimate"), (data(flow, 2),), (data(flow, 2),))


def test_training_steps_compile_as_one_graph() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    flow, x = flows.Residual(2, blocks=1, hidden=(4,)).train(), torch.randn(8, 2)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="aot_eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="not initialized yet; call initialize"):
        compiled(x)
    flow.initialize(x)
    torch.compiler.reset()
    found, expected = (torch.autograd.grad(f(x).sum(), list(flow.parameters())) for f in (compiled, flow.log_prob))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_compiled_estimates_are_the_same() -> None:
    flow = made("mlp", 12)
    x = data(flow, 4)
    torch._dynamo.reset()
    compiled = torch.compile(flow.log_prob, backend="eager")
    for trace in ("exact", "estimate"):
        torch.manual_seed(3)
        expected = flow.log_prob(x, trace=trace)
        torch.manual_seed(3)
        torch.testing.assert_close(compiled(x, trace=trace), expected)


def test_loaded_weights_give_the_same_bits() -> None:
    torch.manual_seed(0)
    flow, other = Residual(3, blocks=2, hidden=(8,)).eval(), Residual(3, blocks=2, hidden=(8,)).eval()
    x = torch.randn(4, 3)
    fresh = copy.deepcopy(flow.state_dict())  # itself it would hold what the pass below writes
    for state in (fresh, flow.state_dict() if flow.log_prob(x).isfinite().all() else fresh):
        other.load_state_dict(state)
        assert torch.equal(other.log_prob(x), flow.log_prob(x))


def test_made_on_meta() -> None:
    with torch.device("meta"):
        flow = Residual((1, 4, 4), blocks=(1, 1), net="dense", hidden=(4, 4), factor_out=True)
    flow.log_prob(torch.empty(2, 1, 4, 4, device="meta")).sum().backward()
    assert flow.inverse(torch.empty(2, 16, device="meta"))[0].shape == (2, 1, 4, 4)


def test_samples_are_determined_by_the_generator() -> None:
    """Their log-determinants are estimates, and draw too."""
    flow = made("mlp", 16).eval()
    model = HybridModel(flow, heads.Categorical(16, 2).double())
    before = torch.get_rng_state()
    one, two = (flow.sample_and_log_prob(3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    flow.sample(3, generator=torch.Generator().manual_seed(1))
    model.sample_of_class(1, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
