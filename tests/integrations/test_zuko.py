"""Accelerated flows of zuko: shapes, passes, networks, derivatives, and estimators around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zuko
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from zuko import flows
from zuko.flows import gaussianization

from tests.integrations.zuko_cases import CASES, CONTEXT, HIDDEN, SPLINE, both, couplings, elementwise, normal, same

SHAPED = [
    lambda: flows.NSF(4, CONTEXT, **HIDDEN),
    lambda: flows.MAF(4, CONTEXT, **HIDDEN),
    lambda: flows.NICE(4, CONTEXT, **HIDDEN),
]


@pytest.mark.parametrize("build", SHAPED)
@pytest.mark.parametrize("x", [(), (1,), (3,), (2, 3), (2, 1)])
@pytest.mark.parametrize("c", [(), (1,), (3,), (2, 3), (5, 1, 3)])
def test_shapes_of_values_and_contexts(build: Any, x: tuple[int, ...], c: tuple[int, ...]) -> None:
    """All that the library serves; what it refuses is refused, or served."""
    theirs, ours = both(build)
    given, context = normal(*x, 4), normal(*c, CONTEXT)
    for call in (
        lambda m: m(context).transform(given),
        lambda m: m(context).transform.inv(given),
        lambda m: m(context).transform.call_and_ladj(given),
        lambda m: m(context).transform.inv.call_and_ladj(given),
    ):
        try:
            expected = call(theirs)
        except RuntimeError:
            continue
        same(call(ours), expected)
    torch.manual_seed(1)
    samples = theirs(context).rsample_and_log_prob((2,))
    torch.manual_seed(1)
    same(ours(context).rsample_and_log_prob((2,)), samples)


class _Products(TorchDispatchMode):
    """Counts the multiplications in products of matrices."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.total += out.numel() * args[-1].shape[0]
        return out


@pytest.mark.parametrize("name", ["nsf", "maf residual", "maf in three passes", "graph", "maf without hidden units"])
def test_inverse_costs_one_call_of_the_network(name: str) -> None:
    case = CASES[name]
    theirs, ours = both(case.build)
    x, context = normal(128, *case.shape), [normal(128, case.context)] if case.context else []

    def products(call: Callable[[Any], object]) -> int:
        with _Products() as counter:
            call(ours(*context).transform)
        return counter.total

    same(ours(*context).transform.inv.call_and_ladj(x), theirs(*context).transform.inv.call_and_ladj(x))
    assert 0 < products(lambda t: t.inv(x)) <= products(lambda t: t(x))


@pytest.mark.parametrize("build", [lambda: flows.MAF(3, **HIDDEN), couplings])
def test_many_narrow_rows(build: Any) -> None:
    """Where the operator of affine maps would be slower than PyTorch."""
    theirs, ours = both(build)
    x = normal(1000, theirs().event_shape[0])
    same(ours().transform.call_and_ladj(x), theirs().transform.call_and_ladj(x))
    same(ours().transform.inv.call_and_ladj(x), theirs().transform.inv.call_and_ladj(x))


CALLS: Any = (
    lambda m: m().log_prob(normal(2, 3)),
    lambda m: m().sample((2,)),
    lambda m: m().transform.inv.call_and_ladj(normal(2, 3)),
)


@pytest.mark.parametrize("kind", ["pre", "forward", "inner"])
def test_watched_networks_are_called_as_before(kind: str) -> None:
    theirs, ours = both(lambda: flows.NSF(3, transforms=2, **HIDDEN), networks=True)
    counts = []
    for model in (theirs, ours):
        seen: list[int] = []
        for layer in model.transform.transforms:
            module = layer.hyper[0] if kind == "inner" else layer.hyper
            hook = lambda *_, seen=seen: seen.append(1)  # noqa: E731
            module.register_forward_pre_hook(hook) if kind == "pre" else module.register_forward_hook(hook)
        counts.append([])
        for call in CALLS:
            seen.clear()
            call(model)
            counts[-1].append(len(seen))
    assert counts[0] == counts[1]
    assert counts[0] == [2, 6, 8]


@pytest.mark.parametrize("networks", [False, True])
@pytest.mark.parametrize("name", ["nsf of a context", "maf tanh", "couplings", "maf"])
def test_derivatives_of_every_kind(name: str, networks: bool) -> None:
    """Second derivatives, batched backward passes, forward mode and ``torch.func``, in both directions."""
    case = CASES[name]
    theirs, ours = both(case.build, networks=networks)
    x, context = normal(3, *case.shape), [normal(3, case.context)] if case.context else []

    def found(model: Any) -> list[Any]:
        forward = lambda v: model(*context).log_prob(v)  # noqa: E731
        back = lambda v: model(*context).transform.inv(v)  # noqa: E731
        values: list[Any] = []
        for function in (forward, back):
            leaf = x.clone().requires_grad_()
            wanted = [leaf, *model.parameters()]
            first = torch.autograd.grad(function(leaf).square().sum(), wanted, create_graph=True)
            values += torch.autograd.grad(sum(g.square().sum() for g in first), wanted, allow_unused=True)
            values.append(torch.autograd.functional.jacobian(function, x, vectorize=True))
            values.append(torch.func.jvp(function, (x,), (torch.ones_like(x),)))
            values.append(torch.func.jacrev(function)(x))
        if not context:
            values.append(torch.func.vmap(lambda v: model().log_prob(v))(x))
        return [torch.zeros(1) if value is None else value for value in values]

    for got, expected in zip(found(ours), found(theirs), strict=True):
        same(got, expected)


def test_frozen_and_mixed() -> None:
    """Frozen parameters get no gradient; under autocast networks run in bfloat16 as in the library."""
    theirs, ours = both(lambda: flows.MAF(4, CONTEXT, **HIDDEN), networks=True)
    for model in (theirs, ours):
        model.transform.transforms[1].hyper[0].weight.requires_grad_(False)
        model(normal(1, CONTEXT)).log_prob(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    assert [p.grad is None for p in ours.parameters()] == [p.grad is None for p in theirs.parameters()]
    theirs, ours = theirs.float(), ours.float()
    x, c = torch.randn(5, 4), torch.randn(5, CONTEXT)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = theirs(c).log_prob(x), ours(c).log_prob(x)
        back = ours(c).transform.inv(x)
    assert got.dtype is expected.dtype and back.dtype is torch.float32
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "options", [{"networks": True}, {"networks": True, "precision": "bf16"}, {"memory": "recompute"}]
)
def test_options(options: dict[str, Any]) -> None:
    theirs, ours = both(lambda: flows.NSF(4, CONTEXT, **HIDDEN), **options)
    x, c = normal(6, 4), normal(6, CONTEXT)
    allowed = 0.1 if "precision" in options else 1e-9
    for model in (theirs, ours):
        model(c).log_prob(x).sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=allowed, atol=allowed)
    torch.testing.assert_close(ours(c).transform.inv(x), theirs(c).transform.inv(x), rtol=allowed, atol=allowed)


@pytest.mark.parametrize("name", ["maf", "nsf coupling", "real nvp", "elements"])
def test_sampling_in_inference_mode_then_training(name: str) -> None:
    """What a layer remembers of a call in inference mode serves autograd as well."""
    _, ours = both(CASES[name].build, networks=True)
    with torch.inference_mode():
        ours().log_prob(ours().sample((2,)))
    x = ours().rsample((2,))
    ours().log_prob(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def _affine_elements() -> Any:
    return flows.Flow([gaussianization.ElementWiseTransform(4, CONTEXT, **HIDDEN)], flows.MAF(4).base)


def test_samples_may_be_written_into() -> None:
    for build, width in ((couplings, 0), (_affine_elements, CONTEXT), (lambda: flows.MAF(4), 0)):
        theirs, ours = both(build)
        context = [normal(2, width)] if width else []
        grads = []
        for model in (theirs, ours):
            z = torch.ones(2, model(*context).event_shape[0], dtype=torch.float64, requires_grad=True)
            model(*context).transform.inv(z * 1).mul_(2).sum().backward()
            grads.append(z.grad)
        same(*grads)


def test_values_outside_and_at_the_ends() -> None:
    """On the bounds, beyond them, and NaN; an infinity keeps its log-determinant, which the library makes NaN."""
    theirs, ours = both(elementwise(**SPLINE))
    x = torch.tensor([[-5.0, 5.0, 7.0], [-7.0, 1e30, 0.0]], dtype=torch.float64)
    same(ours().call_and_ladj(x), theirs().call_and_ladj(x))
    same(ours().inv.call_and_ladj(x), theirs().inv.call_and_ladj(x))
    y, ladj = ours().call_and_ladj(torch.full((1, 3), torch.nan, dtype=torch.float64))
    assert y.isnan().all() and ladj.isnan().all()
    y, ladj = ours().call_and_ladj(torch.full((1, 3), torch.inf, dtype=torch.float64))
    assert y.isposinf().all() and ladj.eq(0).all()


@pytest.mark.parametrize("local", [False, True])
def test_bayesian_flows(local: bool) -> None:
    """Weights that stand in for the parameters for a while, and layers whose ``forward`` is replaced."""
    from zuko.bayesian import BayesianModel

    theirs, ours = both(lambda: BayesianModel(flows.NSF(3, **HIDDEN), init_logvar=-5.0), networks=True)
    x = normal(4, 3)
    values = []
    for model in (theirs, ours):
        torch.manual_seed(4)
        with model.reparameterize(local_trick=local) as flow:
            values.append((flow().log_prob(x), flow().transform.inv(x)))
    same(values[1], values[0])


class _Estimator(nn.Module):
    """As sbi's density estimators hold a flow: behind an embedding, called by shapes of their own."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self._embedding_net = net, nn.Sequential(nn.Linear(6, CONTEXT))

    def log_prob(self, x: Tensor, condition: Tensor) -> Tensor:
        embedded = self._embedding_net(condition)
        value: Tensor = self.net(embedded.expand(len(x), *embedded.shape)).log_prob(x)
        return value

    def sample(self, count: int, condition: Tensor) -> Tensor:
        value: Tensor = self.net(self._embedding_net(condition)).sample((count,))
        return value


@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("kind", [flows.NSF, flows.MAF, flows.NICE])
def test_estimators_around_flows(kind: Any, features: int) -> None:
    """Standardized first, as sbi does it; in one dimension there is nothing to condition on but the context."""

    def build() -> Any:
        flow = kind(features, CONTEXT, **HIDDEN)
        scaled = zuko.lazy.UnconditionalTransform(
            torch.distributions.AffineTransform,
            loc=torch.ones(features),
            scale=torch.full((features,), 0.5),
            buffer=True,
        )
        return _Estimator(flows.Flow([scaled, *flow.transform.transforms], flow.base))

    theirs, ours = both(build)
    x, condition = normal(2, 3, features), normal(3, 6)
    same(ours.log_prob(x, condition), theirs.log_prob(x, condition))
    samples = []
    for model in (theirs, ours):
        torch.manual_seed(2)
        samples.append(model.sample(5, condition[:1]))
    same(samples[1], samples[0])
    assert list(ours.state_dict()) == list(theirs.state_dict())
