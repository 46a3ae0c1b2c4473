"""What the spline alone promises: its definition, accuracy where it is hard, edges, bounds, the libraries' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from mpmath import mp, mpf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import hybridkern
from hybridkern.ops import SplineForm, rational_quadratic_spline
from hybridkern.ops.rational_quadratic_spline.form import resolve_spline
from tests.ops import mp_oracle

F32, F64 = torch.float32, torch.float64
KINDS = [("nflows", "linear"), ("nflows_identity", "box"), ("nflows", "circular"), ("zuko", "linear")]
BOUND = 3.0


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal variables that float32 has."""
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).double()


def within(seed: int, *shape: int) -> Tensor:
    """Numbers of the interval that float32 has."""
    return (BOUND * (2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1)).double()


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("spline", "tails"), [*KINDS, ("zuko", "circular")])
def test_formula_is_the_definition(spline: str, tails: str, inverse: bool) -> None:
    """The reference against 50 digits of the definition as the libraries write it."""
    form, bins = resolve_spline(spline), 3
    params = drawn(0, 40, 1, form.parameters(bins, tails), scale=3.0)
    x = within(1, 40, 1)
    with hybridkern.use_backend("reference"):
        y, log_det = rational_quadratic_spline(
            x, params, spline=spline, bins=bins, bound=BOUND, tails=tails, inverse=inverse
        )
    with mp.workdps(mp_oracle.DIGITS):
        for i in range(len(x)):
            raw = [mpf(value) for value in params[i, 0].tolist()]
            expected = mp_oracle.spline(mpf(x[i].item()), raw, form, bins, BOUND, tails, inverse)
            for got, wanted in zip((y[i, 0], log_det[i]), expected, strict=True):
                assert abs(mpf(got.item()) - wanted) <= 1e-10 * max(1, abs(wanted))


Results = tuple[Tensor, ...]


def results(call: Callable[..., tuple[Tensor, Tensor]], x: Tensor, params: Tensor) -> Results:
    """Both outputs and the gradients of a weighted sum of them."""
    leaves = [value.detach().requires_grad_() for value in (x, params)]
    y, log_det = call(*leaves)
    weights = drawn(5, *y.shape).to(y.dtype), drawn(6, len(y)).to(y.dtype)
    torch.autograd.backward([y, log_det], weights)
    return y.detach(), log_det.detach(), *(leaf.grad for leaf in leaves)


def raw_parameters(kind: str, count: int, bins: int) -> Tensor:
    """Mild ones; bins of the smallest width beside wide ones; derivatives from 1e-3 to 1e3."""
    params = drawn(2, 2000, 1, count, scale=0.5)
    if kind == "narrow":
        params[..., : 2 * bins : 2] -= 20.0
    if kind == "steep":
        params[..., 2 * bins :] = torch.where(params[..., 2 * bins :] > 0, 7.0, -20.0)
        params[..., 2 * bins :] += drawn(3, 2000, 1, count - 2 * bins)
    return params


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", ["mild", "narrow", "steep"])
@pytest.mark.parametrize(("spline", "tails"), KINDS)
def test_float32_is_the_spline_of_a_near_place(backend: str, spline: str, tails: str, kind: str, inverse: bool) -> None:
    """Beside the table's relative error nothing but what an error of the place by a millionth of the interval does."""
    bins = 6
    params = raw_parameters(kind, resolve_spline(spline).parameters(bins, tails), bins)
    x, reach = within(4, 2000, 1), 1e-6 * 2 * BOUND

    def call(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(x, params, spline=spline, bins=bins, bound=BOUND, tails=tails, inverse=inverse)

    got = results(call, x.float(), params.float())
    with hybridkern.use_backend("reference"):
        exact, *near = (results(call, x + step, params) for step in (0.0, -reach, reach))
    for name, value, wanted, sides in zip(
        ("y", "log_det", "grad x", "grad params"), got, exact, zip(*near, strict=True), strict=True
    ):
        size = BOUND if name == "y" else 1.0
        largest = (
            wanted.abs().flatten(1).amax(1).view(-1, *[1] * (wanted.ndim - 1)) if wanted.ndim > 1 else wanted.abs()
        )
        moved = torch.maximum(*((side - wanted).abs() for side in sides))
        moved = moved.flatten(1).amax(1).view(largest.shape) if moved.ndim > 1 else moved
        allowed = 2e-6 * largest.clamp_min(size) + moved
        error = (value.double() - wanted).abs()
        assert bool((error <= allowed).all()), f"{name}: {float((error / allowed).max())} of what is allowed"


@pytest.mark.parametrize(("spline", "tails"), KINDS)
@pytest.mark.parametrize("bins", [2, 8, 64])
def test_inverse_of_forward(backend: str, spline: str, tails: str, bins: int) -> None:
    form = resolve_spline(spline)
    x = within(0, 500, 3).float()
    params = drawn(1, 500, 3, form.parameters(bins, tails), scale=0.5).float()
    options = {"spline": spline, "bins": bins, "bound": BOUND, "tails": tails}
    y, forward = rational_quadratic_spline(x, params, **options)
    back, total = rational_quadratic_spline(y, params, forward, inverse=True, **options)
    assert float((back - x).abs().max()) <= 1e-5
    assert float(total.abs().max()) <= 2e-6 * bins * BOUND


def edge_points(params: Tensor, form: SplineForm, bins: int) -> Tensor:
    """The edges of the bins, a float to either side of each, the bounds, and places outside."""
    from hybridkern.ops.rational_quadratic_spline import reference
    from hybridkern.ops.rational_quadratic_spline.form import decoded

    spline = decoded(*form.spec(bins, (-BOUND, BOUND), "linear", False))
    widths = reference._sizes(params[0, 0, :bins].double(), spline, spline.min_width)
    edges = reference._edges(widths, spline).float()
    beside = [edges, edges.nextafter(torch.tensor(torch.inf)), edges.nextafter(torch.tensor(-torch.inf))]
    return torch.cat([*beside, torch.tensor([0.0, -0.0, 1e-30, 1e4, -1e4, 3e38, torch.inf, -torch.inf])])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("spline", ["nflows", "zuko"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e5, 1e30])
def test_edges_bounds_and_outside(backend: str, spline: str, scale: float, inverse: bool) -> None:
    """Nothing is NaN there; what lies outside stays, with a derivative of 1, and feels no parameter."""
    form, bins = resolve_spline(spline), 5
    params = drawn(0, 1, 1, form.parameters(bins), scale=scale).float()
    points = edge_points(params, form, bins)
    x = points.unsqueeze(1).requires_grad_()
    params = params.expand(len(points), -1, -1).clone().requires_grad_()
    y, log_det = rational_quadratic_spline(x, params, spline=spline, bins=bins, bound=BOUND, inverse=inverse)
    (y[points.isfinite()].sum() + log_det.sum()).backward()
    assert not bool(y.isnan().any() or log_det.isnan().any())
    if scale <= 30:
        assert bool(x.grad.isfinite().all() and params.grad.isfinite().all())
    outside = points.abs() > BOUND
    assert torch.equal(y[outside], x[outside]) and not bool(log_det[outside].any())
    assert not bool(params.grad[outside].any()) and bool((x.grad[outside & points.isfinite()] == 1).all())
    assert bool((y[~outside].abs() <= BOUND).all())


def test_it_is_monotonic(backend: str) -> None:
    x = torch.linspace(-3.2, 3.2, 4001).unsqueeze(1)
    for scale in (0.0, 1.0, 10.0):
        for inverse in (False, True):
            y, _ = rational_quadratic_spline(x, drawn(0, 1, 23, scale=scale).float(), inverse=inverse)
            assert float(y.diff(dim=0).min()) >= -1e-6


@pytest.mark.parametrize("spline", ["nflows_identity", "zuko", SplineForm(identity=True, min_derivative=0.1)])
def test_zeros_are_the_identity(backend: str, spline: str | SplineForm) -> None:
    x = within(0, 50, 4).float()
    y, log_det = rational_quadratic_spline(x, torch.zeros(4, 3 * 8 - 1), spline=spline)
    assert float((y - x).abs().max()) <= 1e-6 and float(log_det.abs().max()) <= 2e-6


@pytest.mark.parametrize("shape", [(1, 7), (600, 3), (2100, 2), (3, 2, 4, 5), (2, 300)], ids=str)
def test_shared_parameters_are_those_of_every_example(backend: str, shape: tuple[int, ...]) -> None:
    """In either place of the batch axis; their gradient is the sum over the batch."""
    tail = (shape[1], 8) if len(shape) == 2 else (shape[1] * 8, *shape[2:])
    x, params = drawn(0, *shape, scale=1.5), drawn(1, *tail, scale=0.7)

    def call(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(x, params, bins=3)

    full = results(call, x, params.expand(shape[0], *tail).contiguous())
    for shared in (params, params.unsqueeze(0)):
        got = results(call, x, shared)
        assert all(torch.equal(a, b) for a, b in zip(got[:3], full[:3], strict=True))
        torch.testing.assert_close(got[3].view(tail), full[3].sum(0), rtol=1e-12, atol=1e-12)


def test_interval_may_be_any(backend: str) -> None:
    """A spline on (low, high) is that on (-1, 1), moved and stretched; the log-determinant stays."""
    unit, params = within(0, 60, 2) / 2.5, drawn(1, 60, 2, 3 * 4 + 1)
    y, log_det = rational_quadratic_spline(unit, params, bins=4, bound=1.0, tails="box")
    moved, same = rational_quadratic_spline(5.0 + 2.0 * unit, params, bins=4, bound=(3.0, 7.0), tails="box")
    torch.testing.assert_close(moved, 5.0 + 2.0 * y)
    torch.testing.assert_close(same, log_det)


def test_angles_come_from_anywhere(backend: str) -> None:
    """Of the scheme of zuko, circular: whole turns change nothing, and 0 is where the interval begins."""
    x, params = within(0, 100, 2), drawn(1, 100, 2, 3 * 5 - 1)
    options = {"spline": "zuko", "bins": 5, "bound": math.pi, "tails": "circular"}
    first, second = (rational_quadratic_spline(x + turn, params, **options) for turn in (0.0, 6 * math.pi))
    torch.testing.assert_close(first, second)
    y, _ = rational_quadratic_spline(torch.zeros(1, 2), params[:1].float(), **options)
    assert bool((y == -torch.tensor(math.pi)).all())


class _Looks(TorchDispatchMode):
    """Refuses what copies a number to the host, or makes a shape of one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "equal.default"))
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_numbers(backend: str) -> None:
    x, params = drawn(0, 20, 3).requires_grad_(), drawn(1, 20, 3, 23).requires_grad_()
    with _Looks():
        y, log_det = rational_quadratic_spline(x, params)
        (y.sum() + log_det.sum()).backward()


@pytest.mark.parametrize("library", ["nflows.transforms.splines.rational_quadratic", "normflows.utils.splines"])
@pytest.mark.parametrize("inverse", [False, True])
def test_libraries_give_the_same(library: str, inverse: bool) -> None:
    module = pytest.importorskip(library)
    bins, x = 10, 1.3 * within(0, 200, 3)
    tails = [("linear", None)] + ([("circular", None)] if "normflows" in library else []) + [("box", (0.0, 1.0))]
    for kind, box in tails:
        params = drawn(1, 200, 3, SplineForm().parameters(bins, kind))
        parts = params.tensor_split((bins, 2 * bins), -1)
        given = (x / 8 + 0.5) if box else x
        if box:
            expected = module.rational_quadratic_spline(given, *parts, inverse=inverse)
        else:
            expected = module.unconstrained_rational_quadratic_spline(
                given, *parts, inverse=inverse, tails=kind, tail_bound=BOUND
            )
        got = rational_quadratic_spline(given, params, bins=bins, tails=kind, bound=box or BOUND, inverse=inverse)
        torch.testing.assert_close(got, (expected[0], expected[1].sum(1)), rtol=1e-9, atol=1e-9)


def test_forms_say_what_they_refuse() -> None:
    for name, value, kind in (
        ("scheme", "durkan", ValueError),
        ("min_width", 0.5, ValueError),
        ("min_height", -1e-3, ValueError),
        ("min_derivative", 1.0, ValueError),
        ("slope", 0.0, ValueError),
        ("slope", math.nan, ValueError),
        ("gain", math.inf, ValueError),
        ("gain", "1", TypeError),
        ("identity", 1, TypeError),
    ):
        with pytest.raises(kind, match=rf"SplineForm.{name}: got .*, expected "):
            SplineForm(**{name: value})
