"""Every operator on every memory layout of every argument, and of the gradient that comes back."""

from __future__ import annotations

import pytest
import torch

from tests.ops import inputs, layouts
from tests.ops.checks import check_coupling, check_gaussian, check_logistic, check_mixture, check_rounding
from tests.ops.layouts import LAYOUTS

SHAPE = (3, 5, 6, 7)
EXPANDED = {"over_batch": layouts.expanded_over_batch, "over_space": layouts.expanded_over_space}
ALL = LAYOUTS | EXPANDED
F32 = torch.float32


def coupling_args(name: str, dtype: torch.dtype = F32):
    x = inputs.normal(0, SHAPE, dtype)
    return {"x": x, "params": inputs.coupling_params(name, SHAPE, dtype), "log_det": inputs.normal(2, SHAPE[:1], F32)}


def density_args(mixture: bool = False):
    shape = (SHAPE[0], 3, *SHAPE[1:]) if mixture else SHAPE
    names = ("logits", "mean", "log_scale") if mixture else ("mean", "log_scale")
    x = inputs.normal(0, SHAPE, F32, scale=2.0)
    return {"x": x} | {name: inputs.normal(i, shape, F32) for i, name in enumerate(names, 1)}


@pytest.mark.parametrize("params_layout", ALL)
@pytest.mark.parametrize("x_layout", ALL)
def test_coupling(backend: str, x_layout: str, params_layout: str) -> None:
    for name, inverse in (("glow", False), ("normflows", True)):
        args = coupling_args(name)
        args["x"], args["params"] = ALL[x_layout](args["x"]), ALL[params_layout](args["params"])
        check_coupling(args, name, inverse)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_coupling_on_half_of_one_tensor(backend: str, layout: str) -> None:
    """``x`` is a slice of the features and the parameters are a slice of a wider network output."""
    for name in ("nflows", "additive"):
        args = coupling_args(name)
        args["x"] = LAYOUTS[layout](torch.cat([args["x"], args["x"] + 1], dim=1))[:, SHAPE[1] :]
        args["params"] = LAYOUTS[layout](torch.cat([args["params"], args["params"]], dim=1))[
            :, : args["params"].shape[1]
        ]
        check_coupling(args, name, False)


@pytest.mark.parametrize("grad_layout", ALL)
def test_coupling_gradient_comes_in_any_layout(backend: str, grad_layout: str) -> None:
    for place in (layouts.contiguous, layouts.channels_last):
        args = coupling_args("realnvp")
        args["x"], args["params"] = place(args["x"]), place(args["params"])
        check_coupling(args, "realnvp", False, ALL[grad_layout])


def test_coupling_total_with_a_stride(backend: str) -> None:
    args = coupling_args("exp")
    args["log_det"] = torch.arange(6.0)[::2]
    check_coupling(args, "exp", False)
    args["log_det"] = torch.tensor([1.5]).expand(3)
    check_coupling(args, "exp", False)


@pytest.mark.parametrize("params_layout", ALL)
@pytest.mark.parametrize("x_layout", ["contiguous", "channels_last", "channel_slice", "transposed", "every_other"])
def test_densities(backend: str, x_layout: str, params_layout: str) -> None:
    for check, mixture in ((check_logistic, False), (check_mixture, True), (check_gaussian, False)):
        args = {name: ALL[params_layout](value) for name, value in density_args(mixture).items()}
        args["x"] = ALL[x_layout](density_args()["x"])
        check(args)


@pytest.mark.parametrize("layout", ALL)
def test_densities_summed_over_any_layout_of_x(backend: str, layout: str) -> None:
    for check, mixture in ((check_logistic, False), (check_mixture, True)):
        args = density_args(mixture)
        args["x"] = ALL[layout](args["x"])
        check(args, reduction="sum")
    check_gaussian({"x": ALL[layout](density_args()["x"])})


@pytest.mark.parametrize("grad_layout", ALL)
def test_density_gradient_comes_in_any_layout(backend: str, grad_layout: str) -> None:
    check_logistic(density_args(), grad_layout=ALL[grad_layout])
    check_mixture(density_args(mixture=True), grad_layout=ALL[grad_layout])


@pytest.mark.parametrize("x_layout", ALL)
@pytest.mark.parametrize("t_layout", ALL)
def test_rounding(backend: str, x_layout: str, t_layout: str) -> None:
    x = ALL[x_layout](inputs.normal(0, SHAPE, F32, scale=9.0).round())
    args = {"x": x, "t": ALL[t_layout](inputs.normal(1, SHAPE, F32, scale=3.0)), "beta": torch.tensor([1.75])}
    check_rounding(args, grad_layout=ALL[t_layout])
    del args["beta"]
    check_rounding(args, inverse=True, grad_layout=ALL[x_layout])
