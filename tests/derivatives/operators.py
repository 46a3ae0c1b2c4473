"""The rows that are operators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern import ops
from hybridkern.ops import CouplingForm
from hybridkern.ops.affine_coupling.form import NAMED_FORMS, resolve_form
from hybridkern.ops.rational_quadratic_spline.form import resolve_spline
from hybridkern.ops.rounding_coupling_mirrored.operator import rounding_coupling_mirrored
from tests.derivatives.subject import Subject, normal

Make = Callable[[], Subject]
_ROWS = ("x", "params", "log_det")


def _coupling(form: str | CouplingForm, inverse: bool, shape: tuple[int, ...] = (2, 2)) -> Make:
    def make() -> Subject:
        outputs = shape[1] * (1 + resolve_form(form).has_scale)
        tensors = {
            "x": normal(0, *shape),
            "params": normal(1, shape[0], outputs, *shape[2:]),
            "log_det": normal(2, shape[0]),
        }
        tensors["params"][0] = (
            0.01 if "zuko" in str(form) else 0.0
        )  # where formulas change branches; zuko's is a true kink
        return Subject(
            lambda x, params, log_det: ops.affine_coupling(x, params, log_det, form=form, inverse=inverse),
            tensors,
            _ROWS,
        )

    return make


def _without_log_det() -> Subject:
    return Subject(
        lambda x, params: ops.affine_coupling(x, params), {"x": normal(0, 2, 2), "params": normal(1, 2, 4)}, _ROWS[:2]
    )


def _from_output(form: str, inverse: bool) -> Make:
    def make() -> Subject:
        outputs = 2 * (1 + resolve_form(form).has_scale)
        tensors = {
            "y": normal(0, 2, 2),
            "params": normal(1, 2, outputs),
            "grad_y": normal(2, 2, 2),
            "grad_log_det": normal(3, 2),
        }
        return Subject(
            lambda **t: ops.affine_coupling_backward_from_output(**t, form=form, inverse=inverse),
            tensors,
            tuple(tensors),
            main="y",
        )

    return make


def _spline(spline: str, tails: str, inverse: bool) -> Make:
    def make() -> Subject:
        count = resolve_spline(spline).parameters(2, tails)
        tensors = {"x": normal(0, 2, 2), "params": normal(1, 2, 2, count), "log_det": normal(2, 2)}
        options = {"spline": spline, "bins": 2, "bound": 4.0, "tails": tails, "inverse": inverse}
        return Subject(lambda **t: ops.rational_quadratic_spline(**t, **options), tensors, tuple(tensors))

    return make


def _actnorm(form: str) -> Make:
    def make() -> Subject:
        outputs = 1 + resolve_form(form).has_scale
        tensors = {
            "x": normal(0, 2, 3),
            "params": normal(1, 2, outputs),
            "scale": normal(2, 3) + torch.tensor([1.0, -2.0, 1.0]),
            "offset": normal(3, 3),
        }
        return Subject(lambda **t: ops.affine_coupling_actnorm(**t, form=form), tensors, ("x", "params"))

    return make


def _through(value: Tensor) -> Tensor:
    """Rounded, with the derivatives of what is not."""
    return value + (value.round() - value).detach()


def _rounding(beta: bool, inverse: bool) -> Make:
    def make() -> Subject:
        tensors = {"x": normal(0, 2, 3, scale=5.0).round(), "t": normal(1, 2, 3, scale=3.0)}
        sign = -1 if inverse else 1
        if not beta:
            return Subject(
                lambda x, t: (ops.rounding_coupling(x, t, inverse=inverse),),
                tensors,
                ("x", "t"),
                main="t",
                smooth=lambda x, t: (x + sign * _through(t),),
            )
        return Subject(
            lambda x, t, beta: (ops.rounding_coupling(x, t, beta=beta, inverse=inverse),),
            tensors | {"beta": torch.tensor([1.7], dtype=torch.float64)},
            ("x", "t"),
            main="t",
            smooth=lambda x, t, beta: (x + sign * _through(beta * t),),
        )

    return make


def _mirrored_tensors() -> dict[str, Tensor]:
    a, b = normal(0, 2, 2, scale=5.0).round(), normal(1, 2, 2, scale=5.0).round()
    return {"a": a, "b": b, "t": normal(2, 2, 2, scale=3.0), "beta": torch.tensor([0.3, 1.7], dtype=torch.float64)}


def _mirrored(exact: bool, join: bool) -> Make:
    def function(**t: Tensor) -> tuple[Tensor, ...]:
        out = rounding_coupling_mirrored(**t, index=1, lattice="exact" if exact else "tutorial", join=join)
        return (out,) if isinstance(out, Tensor) else out

    def smooth(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        y = b + (_through(beta[1] * t) if exact else beta[1] * _through(t))
        z = torch.cat((a, y), 1).flip(1)
        return (z,) if join else (z[:, :2], z[:, 2:])

    return lambda: Subject(function, _mirrored_tensors(), ("a", "b", "t"), main="t", smooth=smooth)


def _density(kind: str, shared: str, reduction: str, *, bin_width: float = 0.8, tie: bool = False) -> Make:
    def make() -> Subject:
        shape = {"own": (2, 2), "one row": (1, 2), "vector": (2,), "scalar": ()}[shared]
        names = ("mean", "log_scale")
        if kind == "mixture":
            names, shape = ("logits", *names), {"own": (2, 3, 2)}.get(shared, (1, 3, 2))
        tensors = {"x": normal(0, 2, 2, scale=2.0)} | {n: normal(i, *shape) for i, n in enumerate(names, 1)}
        if tie:
            tensors["x"] = tensors["mean"].flatten()[:4].view(2, 2).clone()
        call = ops.discretized_logistic_mixture_log_prob if kind == "mixture" else ops.discretized_logistic_log_prob
        return Subject(
            lambda **t: (call(**t, bin_width=bin_width, reduction=reduction),),
            tensors,
            tuple(tensors) if shared == "own" else ("x",),
        )

    return make


def _gaussian(*names: str, shape: tuple[int, ...] = (2, 3)) -> Make:
    def make() -> Subject:
        tensors = {"x": normal(0, 2, 3)} | {n: normal(i, *shape) for i, n in enumerate(names, 1)}
        rows = tuple(tensors) if shape == (2, 3) else ("x",)
        return Subject(lambda **t: (ops.gaussian_log_prob(**t),), tensors, rows)

    return make


def _paired(bias: bool) -> Make:
    def make() -> Subject:
        tensors = {"first": normal(0, 2, 1, 2), "second": normal(1, 2, 1, 2), "weight": normal(2, 2, 2)}
        tensors |= {"bias": normal(3, 2)} if bias else {}
        return Subject(lambda **t: ops.paired_conv1x1(**t), tensors, ("first", "second"), main="first")

    return make


def _network(save_hidden: bool) -> Make:
    def make() -> Subject:
        shapes = {
            "x": (2, 1, 3, 2), "w1": (3, 1, 3, 3), "b1": (3,), "w2": (3, 3, 1, 1), "b2": (3,), "w3": (2, 3, 3, 3),
            "b3": (2,),
        }  # fmt: skip
        tensors = {name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
        return Subject(lambda **t: (ops.coupling_network(**t, save_hidden=save_hidden),), tensors, ("x",))

    return make


OPERATORS: dict[str, Make] = {
    **{
        f"spline, {spline}, {tails}{', inverse' * inverse}": _spline(spline, tails, inverse)
        for spline, tails in (("nflows", "linear"), ("nflows_identity", "box"), ("zuko", "linear"))
        for inverse in (False, True)
    },
    **{f"{form}{' inverse' * inv}": _coupling(form, inv) for form in NAMED_FORMS for inv in (False, True)},
    "sigmoid at its kink": _coupling(CouplingForm("sigmoid", eps=0.05, negate=True), False),
    "glow on images": _coupling("glow", False, (2, 1, 2, 1)),
    "coupling without a log_det": _without_log_det,
    **{
        f"from output, {f}{' inverse' * i}": _from_output(f, i)
        for f in ("glow", "nflows", "additive")
        for i in (False, True)
    },
    **{f"actnorm, {form}": _actnorm(form) for form in ("freia_all_in_one", "exp", "additive", "normflows")},
    **{f"rounding{', beta' * b}{', inverse' * i}": _rounding(b, i) for b in (False, True) for i in (False, True)},
    **{f"mirrored{', exact' * e}{', joined' * j}": _mirrored(e, j) for e in (False, True) for j in (False, True)},
    **{
        f"{kind}, {shared}, {reduction}": _density(kind, shared, reduction)
        for kind in ("logistic", "mixture")
        for shared in ("own", "one row")
        for reduction in ("none", "sum")
    },
    "logistic, narrow, sum": _density("logistic", "own", "sum", bin_width=0.01),
    "logistic at the mean": _density("logistic", "own", "none", tie=True),
    "mixture at a mean": _density("mixture", "one row", "sum", tie=True),
    "logistic, vector, sum": _density("logistic", "vector", "sum"),
    "logistic, scalar, sum": _density("logistic", "scalar", "sum"),
    "gaussian": _gaussian("mean", "log_scale"),
    "gaussian, shared": _gaussian("mean", "log_scale", shape=(3,)),
    "gaussian, mean": _gaussian("mean"),
    "gaussian, log_scale": _gaussian("log_scale"),
    "gaussian, standard": _gaussian(),
    "paired": _paired(True),
    "paired without bias": _paired(False),
    "network": _network(True),
    "network that forgets": _network(False),
}
