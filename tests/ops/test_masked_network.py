"""``masked_network``: networks of many shapes against NumPy in float64, and what the operator alone promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridkern import ops
from hybridkern.ops.masked_network import operator as masked

Array = NDArray[np.float64]
F32, F64 = torch.float32, torch.float64


class Network(NamedTuple):
    """Widths from the inputs on, which layers are activated and what they add, and how the masks are drawn."""

    widths: tuple[int, ...]
    activated: tuple[bool, ...] | None = None
    adds: tuple[int | None, ...] | None = None
    masks: str = "degrees"
    activation: str = "relu"


RESIDUAL = ((True, True, True, True, False, False), (None, None, 0, None, 2, None))
NETWORKS = {
    "one layer": Network((5, 7)),
    "three layers": Network((16, 64, 64, 32)),
    "odd widths": Network((3, 17, 33, 5)),
    "one unit": Network((1, 1, 1)),
    "wide": Network((20, 130, 70, 47)),
    "residual": Network((6, 40, 40, 40, 40, 40, 12), *RESIDUAL),
    "residual tanh": Network((6, 40, 40, 40, 40, 40, 12), *RESIDUAL, activation="tanh"),
    "elu": Network((4, 19, 35, 8), activation="elu"),
    "none": Network((4, 9, 8), activation="none"),
    "no activation before a sum": Network((4, 20, 20, 20, 9), (False, True, False, False), (None, None, 0, None)),
    "sum of the last layer": Network((4, 20, 30, 20), (True, True, False), (None, None, 0)),
    "two sums of one layer": Network((4, 24, 24, 24, 24), (True, True, True, False), (None, 0, 0, 1)),
    "random masks": Network((9, 40, 50, 18), masks="random"),
    "blind": Network((9, 40, 50, 18), masks="blind"),
    "whole": Network((9, 40, 50, 18), masks="whole"),
    "real numbers": Network((9, 40, 18), masks="numbers"),
}
BATCHES = (1, 3, 64, 65, 200)


def drawn(net: Network, batch: int, seed: int = 0) -> tuple[Array, list[Array], list[Array], list[Array]]:
    """``x``, weights, biases and masks."""
    r = np.random.default_rng(seed)
    x, weights, biases, masks = r.normal(size=(batch, net.widths[0])), [], [], []
    degrees = np.arange(net.widths[0])
    for size, units in zip(net.widths, net.widths[1:], strict=False):
        weights.append(r.normal(size=(units, size)) / max(1.0, size**0.5))
        biases.append(0.3 * r.normal(size=units))
        own = np.arange(units) % max(1, net.widths[0])
        mask = {
            "degrees": own[:, None] >= degrees,
            "random": r.random((units, size)) < 0.3,
            "blind": (r.random((units, size)) < 0.5) & (r.random((units, 1)) < 0.4),
            "whole": np.ones((units, size)),
            "numbers": r.normal(size=(units, size)) * (r.random((units, size)) < 0.5),
        }[net.masks]
        masks.append(mask.astype(np.float64))
        degrees = own
    return x, weights, biases, masks


def _activate(name: str, s: Array) -> tuple[Array, Array]:
    """The activation and its derivative."""
    if name == "relu":
        return np.maximum(s, 0), (s > 0).astype(np.float64)
    if name == "tanh":
        return np.tanh(s), 1 / np.cosh(s) ** 2
    if name == "elu":
        return np.where(s > 0, s, np.expm1(np.minimum(s, 0))), np.where(s > 0, 1, np.exp(np.minimum(s, 0)))
    return s, np.ones_like(s)


def by_numpy(net: Network, values: Any, grad: Array) -> tuple[Array, Array, list[Array], list[Array]]:
    """The result, and the gradients of ``x``, weights and biases."""
    x, weights, biases, masks = values
    count = len(weights)
    activated = net.activated or [i < count - 1 for i in range(count)]
    adds = net.adds or [None] * count
    given, sums, slopes = [x], [], []
    for i in range(count):
        s = given[-1] @ (weights[i] * masks[i]).T + biases[i]
        if adds[i] is not None:
            s = s + sums[adds[i]]
        sums.append(s)
        result, slope = _activate(net.activation, s) if activated[i] else (s, np.ones_like(s))
        given.append(result)
        slopes.append(slope)
    own: list[Any] = [np.zeros_like(s) for s in sums]
    of_weights, of_biases = [], []
    for i in reversed(range(count)):
        own[i] = own[i] + grad * slopes[i]
        if adds[i] is not None:
            own[adds[i]] = own[adds[i]] + own[i]
        of_weights.insert(0, own[i].T @ given[i] * masks[i])
        of_biases.insert(0, own[i].sum(0))
        grad = own[i] @ (weights[i] * masks[i])
    return given[-1], grad, of_weights, of_biases


def tensors(
    values: Any, dtype: torch.dtype, grad: bool = True
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """The same as tensors, all but the masks with gradients."""
    x, weights, biases, masks = values

    def one(value: Array, needs: bool) -> Tensor:
        return torch.tensor(value, dtype=dtype, requires_grad=needs)

    lists = [[one(value, grad) for value in part] for part in (weights, biases)]
    return one(x, grad), *lists, [one(mask, False) for mask in masks]


def call(net: Network, given: Any) -> Tensor:
    return ops.masked_network(*given, activation=net.activation, activated=net.activated, adds=net.adds)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NETWORKS)
def test_against_numpy(backend: str, name: str, batch: int) -> None:
    net = NETWORKS[name]
    values = drawn(net, batch)
    upstream = np.random.default_rng(1).normal(size=(batch, net.widths[-1]))
    out, *grads = by_numpy(net, values, upstream)
    for dtype, allowed in ((F32, 2e-6), (F64, 1e-14)):
        given = tensors(values, dtype)
        got = call(net, given)
        got.backward(torch.tensor(upstream, dtype=dtype))
        found = [got, given[0].grad, *(v.grad for part in given[1:3] for v in part)]
        for value, exact in zip(found, [out, grads[0], *grads[1], *grads[2]], strict=True):
            assert value is not None
            scale = max(1.0, float(np.abs(exact).max()))
            assert np.abs(value.detach().double().numpy() - exact).max() <= allowed * scale * max(1, batch / 64)
        for grad, mask in zip((w.grad for w in given[1]), given[3], strict=True):
            assert grad is not None and not grad[mask == 0].any()
        with torch.no_grad():
            assert torch.equal(call(net, given), got)


@pytest.mark.parametrize("name", ["three layers", "residual", "elu", "two sums of one layer"])
def test_second_derivatives(backend: str, name: str) -> None:
    net = NETWORKS[name]._replace(activation="tanh" if name != "elu" else "elu")
    given = tensors(drawn(net, 3), F64)

    def run(*flat: Tensor) -> Tensor:
        layers = len(given[1])
        return call(net, (flat[0], list(flat[1 : 1 + layers]), list(flat[1 + layers :]), given[3]))

    flat = (given[0], *given[1], *given[2])
    first = torch.autograd.grad(run(*flat).square().sum(), flat, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), flat)
    with ops_reference():
        wanted = torch.autograd.grad(run(*flat).square().sum(), flat, create_graph=True)
        expected = torch.autograd.grad(sum(g.square().sum() for g in wanted), flat)
    for got, want in zip((*first, *second), (*wanted, *expected), strict=True):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-9)


def ops_reference() -> Any:
    from hybridkern import use_backend

    return use_backend("reference")


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_of_gradients(backend: str, name: str) -> None:
    """As ``torch.autograd.functional.jacobian(vectorize=True)`` takes them."""
    net = NETWORKS[name]
    given = tensors(drawn(net, 4), F64)
    out, leaves = call(net, given), (given[0], *given[1], *given[2])
    upstream = torch.randn(3, *out.shape, dtype=F64)
    together = torch.autograd.grad(out, leaves, upstream, retain_graph=True, is_grads_batched=True)
    for i, one in enumerate(upstream):
        alone = torch.autograd.grad(out, leaves, one, retain_graph=True)
        for got, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(got[i], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", ["x", "weights", "biases"])
def test_gradients_of_a_part(backend: str, wanted: str) -> None:
    net = NETWORKS["residual"]
    every, some = tensors(drawn(net, 20), F32), tensors(drawn(net, 20), F32, grad=False)
    parts = {"x": [some[0]], "weights": some[1], "biases": some[2][:2]}
    for value in parts[wanted]:
        value.requires_grad_()
    for given in (every, some):
        call(net, given).square().sum().backward()
    for part, other in zip(([some[0]], *some[1:3]), ([every[0]], *every[1:3]), strict=True):
        for value, whole in zip(part, other, strict=True):
            assert (value.grad is not None) == value.requires_grad
            assert value.grad is None or torch.equal(value.grad, whole.grad)


def test_weights_of_any_layout(backend: str) -> None:
    net = NETWORKS["three layers"]
    x, weights, biases, masks = tensors(drawn(net, 9), F32)
    expected = call(net, (x, weights, biases, masks))
    turned = [w.detach().t().contiguous().t().requires_grad_() for w in weights]
    wide = torch.stack([x.detach()] * 2, 2)[..., 0].requires_grad_()
    got = call(net, (wide, turned, [b.repeat(2)[: len(b)] for b in biases], [m.t().contiguous().t() for m in masks]))
    assert torch.equal(got, expected)
    for out in (got, expected):
        out.square().sum().backward()
    assert torch.equal(wide.grad, x.grad)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(turned, weights, strict=True))


def test_what_a_mask_leaves_out_is_not_read(backend: str) -> None:
    """A network whose outputs do not see an input is not disturbed by its being infinite, in compiled kernels."""
    if backend != "cpp":
        pytest.skip("the formula multiplies by zeros")
    x = torch.ones(2, 33)
    x[:, 32] = float("inf")
    weight, mask = torch.ones(33, 33), torch.ones(33, 33).tril()
    out = ops.masked_network(x, [weight], [torch.zeros(33)], [mask], activated=[False])
    assert torch.isfinite(out[:, :32]).all() and torch.isinf(out[:, 32]).all()


def test_changes_of_the_weights_are_seen(backend: str) -> None:
    """Also those that leave no trace in a tensor's version."""
    net = NETWORKS["three layers"]
    given = tensors(drawn(net, 4), F32)
    before = call(net, given)
    given[1][1].data.mul_(2)
    given[3][2].data.zero_()
    after = call(net, given)
    assert not torch.equal(before, after)
    assert torch.allclose(after, given[2][2].expand_as(after))
    if backend != "cpp":
        return  # the formula keeps the product of weights and mask
    out = call(net, given)
    with torch.no_grad():
        given[1][0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(backend: str, threads: int) -> None:
    net = NETWORKS["wide"]
    results = []
    before = torch.get_num_threads()
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            given = tensors(drawn(net, 1500), F32)
            out = call(net, given)
            out.square().sum().backward()
            results.append([out, given[0].grad, *(v.grad for part in given[1:3] for v in part)])
    finally:
        torch.set_num_threads(before)
    if backend == "cpp":
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


GOOD: dict[str, Any] = {
    "x": torch.ones(2, 3),
    "weights": [torch.ones(5, 3), torch.ones(5, 5)],
    "biases": [torch.ones(5), torch.ones(5)],
    "masks": [torch.ones(5, 3), torch.ones(5, 5)],
}
WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no list": ({"weights": torch.ones(5, 3)}, TypeError, "weights: got Tensor, expected a list or tuple"),
    "no layer": ({"weights": [], "biases": [], "masks": []}, ValueError, "weights: got 0 tensors, expected 1 to 250"),
    "a bias too few": ({"biases": GOOD["biases"][:1]}, ValueError, "biases: got 1 tensors, expected 2, one for each"),
    "inputs": (
        {"weights": [torch.ones(5, 4), torch.ones(5, 5)]},
        ValueError,
        r"weights\[0\]: got shape \(5, 4\), expec",
    ),
    "second layer": (
        {"weights": [torch.ones(5, 3), torch.ones(5, 4)]},
        ValueError,
        r"weights\[1\]: got shape \(5, 4\)",
    ),
    "bias": ({"biases": [torch.ones(5), torch.ones(4)]}, ValueError, r"biases\[1\]: got shape \(4,\), expected \(5,\)"),
    "mask": ({"masks": [torch.ones(3, 5), torch.ones(5, 5)]}, ValueError, r"masks\[0\]: got shape \(3, 5\), expected"),
    "mask of bool": (
        {"masks": [torch.ones(5, 3).bool(), torch.ones(5, 5)]},
        TypeError,
        r"masks\[0\]: got .*bool, expected",
    ),
    "trained mask": (
        {"masks": [torch.ones(5, 3), torch.ones(5, 5, requires_grad=True)]},
        ValueError,
        r"masks\[1\]: got a tensor that requires a gradient, expected a constant",
    ),
    "activation": ({"activation": "gelu"}, ValueError, "activation: got 'gelu', expected one of none, relu, tanh, elu"),
    "activated": ({"activated": [True]}, ValueError, "activated: got 1 values, expected 2"),
    "activated last": ({"activated": [True, True]}, ValueError, r"activated\[1\]: got True for the last layer"),
    "no flag": ({"activated": [True, "x"]}, TypeError, r"activated\[1\]: got 'x'"),
    "adds itself": ({"adds": [None, 1]}, ValueError, r"adds\[1\]: got 1, expected None or an earlier layer, 0 to 0"),
    "adds another size": (
        {"weights": [torch.ones(4, 3), torch.ones(5, 4)], "biases": [torch.ones(4), torch.ones(5)]}
        | {"masks": [torch.ones(4, 3), torch.ones(5, 4)], "adds": [None, 0]},
        ValueError,
        r"adds\[1\]: got a layer of 4 units, expected one of 5",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(backend: str, what: str) -> None:
    change, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        ops.masked_network(**GOOD | change)


def test_saved_tensors_pass_their_hooks() -> None:
    net = NETWORKS["residual"]
    given = tensors(drawn(net, 5), F32)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: seen.append(v.shape) or v, lambda v: v):
        call(net, given).sum().backward()
    assert len(seen) >= 1 + len(given[1])


def test_the_node_serves_plain_calls() -> None:
    net = NETWORKS["three layers"]
    out = call(net, tensors(drawn(net, 5), F32))
    if masked.has_fused_masked_network(out):
        assert "MaskedNetwork" in type(out.grad_fn).__name__ or "MaskedNetwork" in out.grad_fn.name()
