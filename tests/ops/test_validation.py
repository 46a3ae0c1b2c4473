"""Wrong arguments: one clear error that names the argument, what came and what was expected; nothing is written."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from hybridkern import ops
from hybridkern.ops import CouplingForm, SplineForm
from tests.ops.samples import SAMPLES, a_shape, main_name

F64, BF16 = torch.float64, torch.bfloat16
ARGUMENTS = {
    name: sample.arguments(a_shape(sample, (2, 3), (2, 3, 5, 4)), torch.float32) for name, sample in SAMPLES.items()
}
EACH = [(name, argument) for name, args in ARGUMENTS.items() for argument in args]
BESIDE_MAIN = [(name, argument) for name, argument in EACH if argument != main_name(ARGUMENTS[name])]


def refused(name: str, argument: str, value: object, *says: str) -> None:
    """The sample with this argument replaced raises one clear error, and writes to no argument."""
    args = {key: given.clone() for key, given in ARGUMENTS[name].items()}
    with pytest.raises((TypeError, ValueError), match=rf"^{argument}(\[0\])?: got .+, expected ") as caught:
        SAMPLES[name].function(*(args | {argument: value}).values())
    assert all(part in str(caught.value) for part in says), str(caught.value)
    assert all(torch.equal(given, ARGUMENTS[name][key]) for key, given in args.items())


@pytest.mark.parametrize(("name", "argument"), EACH)
def test_no_tensor(backend: str, name: str, argument: str) -> None:
    refused(name, argument, [0.0], "got list", "a torch.Tensor")


@pytest.mark.parametrize(("name", "argument"), EACH)
def test_integers(backend: str, name: str, argument: str) -> None:
    value = ARGUMENTS[name][argument]
    refused(name, argument, value.long(), "torch.int64", "float32")
    refused(name, argument, value.bool(), "torch.bool", "float32")


@pytest.mark.parametrize(("name", "argument"), EACH)
def test_another_layout(backend: str, name: str, argument: str) -> None:
    value = ARGUMENTS[name][argument]
    refused(name, argument, value.to_sparse(), "got layout torch.sparse_coo", "expected an ordinary dense tensor")
    refused(name, argument, value.to_mkldnn(), "got layout torch._mkldnn", "dense")


@pytest.mark.parametrize(("name", "argument"), BESIDE_MAIN)
def test_on_another_device(backend: str, name: str, argument: str) -> None:
    refused(name, argument, ARGUMENTS[name][argument].to("meta"), "got device meta", "expected cpu")


@pytest.mark.parametrize(("name", "argument"), BESIDE_MAIN)
def test_shape(backend: str, name: str, argument: str) -> None:
    """One dimension too many, of a size that fits nothing."""
    value = ARGUMENTS[name][argument]
    refused(name, argument, value.unsqueeze(-1).expand(*value.shape, 7), f"{tuple(value.shape)}"[:-1].rstrip(","))


@pytest.mark.parametrize("name", SAMPLES)
def test_dimensions_of_the_main_tensor(backend: str, name: str) -> None:
    main = main_name(ARGUMENTS[name])
    for dimensions in set(range(6)) - set(SAMPLES[name].shapes):
        shape = torch.Size((2, 3, 5, 4, 1)[:dimensions])
        refused(name, main, torch.zeros(shape), f"got shape {tuple(shape)}", "expected (B")


@pytest.mark.parametrize(("name", "argument"), [(n, a) for n, a in EACH if a in SAMPLES[n].lower])
def test_parameters_are_never_wider_than_the_main_tensor(backend: str, name: str, argument: str) -> None:
    refused(name, argument, ARGUMENTS[name][argument].double(), "got dtype torch.float64", "float32", "or float16")


STRICT = [(n, a) for n, a in BESIDE_MAIN if a not in SAMPLES[n].lower + SAMPLES[n].free]


@pytest.mark.parametrize(("name", "argument"), STRICT)
def test_arguments_of_one_dtype(backend: str, name: str, argument: str) -> None:
    """What may be neither lower nor of a dtype of its own must be what the main tensor is."""
    refused(name, argument, ARGUMENTS[name][argument].double(), "torch.float64", "torch.float32")


class Wrong(NamedTuple):
    """One wrong argument of an otherwise good call, and what the message must say."""

    argument: str
    value: object
    error: type[Exception]
    says: tuple[str, ...]


X, WIDE, ROW = torch.zeros(2, 3), torch.zeros(2, 6), torch.zeros(2)


def shape_error(argument: str, shape: tuple[int, ...], expected: str) -> Wrong:
    return Wrong(argument, torch.zeros(shape), ValueError, (f"got shape {shape}", f"expected {expected}"))


BIN_ERRORS = [
    Wrong("bin_width", value, ValueError, (f"got {value!r}", "1e-06 to 1e+06"))
    for value in (0.0, -1.0, 9e-7, 1.1e6, math.nan, math.inf)
] + [
    Wrong("bin_width", "1", TypeError, ("got str", "a number")),
    Wrong("bin_width", torch.tensor(1.0), TypeError, ("got Tensor", "a number")),
    Wrong("reduction", "mean", ValueError, ("got 'mean'", "'none' or 'sum'")),
    Wrong("reduction", None, ValueError, ("got None",)),
]
TOTAL_ERRORS = {
    name: [
        Wrong(name, ROW.to(BF16), TypeError, ("got dtype torch.bfloat16", "expected float32 or float64")),
        shape_error(name, (3,), "(2,)"),
        shape_error(name, (2, 1), "(2,)"),
    ]
    for name in ("log_det", "grad_log_det")
}
INVERSE_ERRORS = [
    Wrong("inverse", value, TypeError, (f"got {value!r}", "expected True or False")) for value in ("x", 3, 1, None, [])
]
FORM_ERRORS = [
    Wrong("form", "gloww", ValueError, ("got 'gloww'", "glow", "CouplingForm")),
    Wrong("form", 3, TypeError, ("got 3", "CouplingForm")),
]
PARAMS_ERRORS = [shape_error("params", shape, "(2, 6)") for shape in ((2, 3), (1, 6), (2, 6, 1))]
SQUARE_ERROR = "expected torch.float32 of shape (2, 3)"


def shape_errors(names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], expected: str) -> list[Wrong]:
    return [shape_error(name, shape, expected) for name in names for shape in shapes]


def wrong_from_output() -> list[Wrong]:
    return [
        *PARAMS_ERRORS,
        Wrong("grad_y", X.double(), ValueError, ("got torch.float64", "expected torch.float32")),
        Wrong("grad_y", torch.zeros(2, 4), ValueError, ("(2, 4)", SQUARE_ERROR)),
        *TOTAL_ERRORS["grad_log_det"],
        *FORM_ERRORS,
        *INVERSE_ERRORS,
    ]


def wrong_rounding() -> list[Wrong]:
    return [
        *shape_errors(("t",), ((2, 4), (1, 3)), "(2, 3)"),
        *shape_errors(("beta",), ((2,), (0,)), "one element"),
        Wrong("beta", "1", TypeError, ("got str", "torch.Tensor")),
        Wrong("beta", torch.tensor(1), TypeError, ("got dtype torch.int64", "expected float32")),
        *INVERSE_ERRORS,
    ]


def wrong_logistic() -> list[Wrong]:
    shapes = ((4,), (3, 3), (1, 2, 3))
    return [*BIN_ERRORS, *shape_errors(("mean", "log_scale"), shapes, "one that broadcasts to (2, 3)")]


def wrong_mixture() -> list[Wrong]:
    names = ("logits", "mean", "log_scale")
    return [
        *BIN_ERRORS,
        *shape_errors(names, ((3,), (2, 3), (1, 2, 4, 3)), "3 dimensions"),
        *shape_errors(names, ((2, 3, 3), (3, 4, 3), (2, 4, 2)), "one that broadcasts to (2,"),
    ]


def wrong_paired() -> list[Wrong]:
    return [
        Wrong("second", X.double(), ValueError, ("got torch.float64", "expected torch.float32")),
        Wrong("second", torch.zeros(2, 4), ValueError, ("(2, 4)", SQUARE_ERROR)),
        shape_error("weight", (5,), "(6, 6) for halves of 3 channels"),
        shape_error("bias", (5,), "(6,) for halves of 3 channels"),
    ]


def wrong_actnorm() -> list[Wrong]:
    shapes = ((2, 3), (2, 8), (2, 0), (3, 4), (4,))
    return [
        *shape_errors(("params",), shapes, "(2, 2n) with n in 1 .. 3 for x of"),
        *shape_errors(("scale", "offset"), ((2,), (1, 3)), "(3,)"),
        *FORM_ERRORS,
    ]


def wrong_network() -> list[Wrong]:
    return [
        Wrong("x", torch.zeros(2, 3, 4, 4, dtype=BF16), TypeError, ("torch.bfloat16", "float32 or float64")),
        shape_error("w1", (8, 2, 3, 3), "(hidden, 3, 3, 3)"),
        shape_error("b1", (7,), "(8,)"),
        shape_error("w2", (8, 8, 3, 3), "(8, 8, 1, 1)"),
        shape_error("w3", (6, 7, 3, 3), "(out, 8, 3, 3)"),
        shape_error("b3", (5,), "(6,)"),
    ]


def wrong_spline() -> list[Wrong]:
    shapes = ((2, 3), (2, 3, 22), (3, 3, 23), (2, 23), (2, 69))
    bounds = (0.0, -1.0, math.inf, math.nan, 2e6, 1e-7, (1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0))
    return [
        *shape_errors(("params",), shapes, "(2, 3, 23), or (3, 23) for all of the batch"),
        *TOTAL_ERRORS["log_det"],
        *(Wrong("bins", value, ValueError, (f"got {value}", "from 2 to 64")) for value in (1, 0, -3, 65)),
        *(Wrong("bins", value, TypeError, ("an integer from 2 to 64",)) for value in (8.0, "8", True, None)),
        *(Wrong("bound", value, ValueError, (f"got {value!r}", "a pair (low, high)")) for value in bounds),
        *(Wrong("bound", value, TypeError, ("a pair (low, high)",)) for value in ("3", None, True, (1.0,), [1, "2"])),
        Wrong("tails", "none", ValueError, ("got 'none'", "'linear'", "'circular'")),
        Wrong("tails", None, TypeError, ("got None",)),
        Wrong("spline", "neural", ValueError, ("got 'neural'", "nflows", "zuko", "SplineForm")),
        Wrong("spline", 3, TypeError, ("got 3", "SplineForm")),
        *INVERSE_ERRORS,
    ]


NETWORK = {"x": (2, 3, 4, 4), "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "b2": (8,), "w3": (6, 8, 3, 3)}
ROW3 = torch.ones(3)
SQUARE, ROW6 = torch.zeros(6, 6), torch.zeros(6)
PARTS = {"logits": torch.zeros(2, 4, 3), "mean": torch.zeros(2, 4, 3), "log_scale": torch.zeros(2, 4, 3)}
BACK = {"y": X, "params": WIDE, "grad_y": X, "grad_log_det": ROW}
GOOD = {
    "affine_coupling": (
        {"x": X, "params": WIDE, "log_det": ROW},
        PARAMS_ERRORS + TOTAL_ERRORS["log_det"] + FORM_ERRORS + INVERSE_ERRORS,
    ),
    "affine_coupling_backward_from_output": (BACK, wrong_from_output()),
    "affine_coupling_actnorm": (
        {"x": X, "params": torch.zeros(2, 4), "scale": ROW3, "offset": ROW3},
        wrong_actnorm(),
    ),
    "paired_conv1x1": ({"first": X, "second": X, "weight": SQUARE, "bias": ROW6}, wrong_paired()),
    "rational_quadratic_spline": ({"x": X, "params": torch.zeros(2, 3, 23), "log_det": ROW}, wrong_spline()),
    "rounding_coupling": ({"x": X, "t": X, "beta": 1.0}, wrong_rounding()),
    "discretized_logistic_log_prob": ({"x": X, "mean": X, "log_scale": X}, wrong_logistic()),
    "discretized_logistic_mixture_log_prob": ({"x": X, **PARTS}, wrong_mixture()),
    "gaussian_log_prob": (
        {"x": X, "mean": X, "log_scale": X},
        shape_errors(("mean", "log_scale"), ((4,),), "one that broadcasts to (2, 3)"),
    ),
    "coupling_network": (
        {name: torch.zeros(shape) for name, shape in NETWORK.items()} | {"b3": torch.zeros(6)},
        wrong_network(),
    ),
}
ALL_WRONG = [(operator, wrong) for operator, (_, errors) in GOOD.items() for wrong in errors]


def describe(value: object) -> str | None:
    if not isinstance(value, Wrong):
        return None
    given = value.value
    text = f"{tuple(given.shape)}{given.dtype}{given.device}" if isinstance(given, torch.Tensor) else repr(given)
    return f"{value.argument}={text}".replace(" ", "")


@pytest.mark.parametrize("operator", GOOD)
def test_the_good_call_is_good(backend: str, operator: str) -> None:
    getattr(ops, operator)(**GOOD[operator][0])


@pytest.mark.parametrize(("operator", "wrong"), ALL_WRONG, ids=describe)
def test_one_wrong_argument(backend: str, operator: str, wrong: Wrong) -> None:
    args = GOOD[operator][0] | {wrong.argument: wrong.value}
    with pytest.raises(wrong.error) as caught:
        getattr(ops, operator)(**args)
    message = str(caught.value)
    assert type(caught.value) is wrong.error
    assert message.startswith(f"{wrong.argument}: got "), message
    assert all(part in message for part in wrong.says), message
    assert not any(bool(value.any()) for value in (X, WIDE, ROW))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("operator", GOOD)
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_are_refused(backend: str, operator: str, layout: torch.layout) -> None:
    """A nested tensor has no shape to compare: asking for it is an error of PyTorch's own."""
    good = GOOD[operator][0]
    for name in (name for name, value in good.items() if isinstance(value, torch.Tensor)):
        nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=layout)
        with pytest.raises(TypeError, match=f"{name}: got (a nested tensor|layout torch.jagged), expected an ordinary"):
            getattr(ops, operator)(**good | {name: nested})


def test_bins_that_leave_no_room_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"bins: got 4, expected fewer than 1 / 0\.3"):
        ops.rational_quadratic_spline(X, torch.zeros(2, 3, 11), spline=SplineForm(min_height=0.3), bins=4)


def test_flags_are_true_or_false(backend: str) -> None:
    assert torch.equal(ops.rounding_coupling(X, X + 1, inverse=np.bool_(True)), X - 1)
    network = (torch.ones(n) for n in ((1, 1, 2, 2), (1, 1, 3, 3), (1,), (1, 1, 1, 1), (1,), (1, 1, 3, 3), (1,)))
    with pytest.raises(TypeError, match=r"save_hidden: got \[1\], expected True or False"):
        ops.coupling_network(*network, save_hidden=[1])


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_meta_tensors_give_shapes(dtype: torch.dtype) -> None:
    """Without memory there is nothing to compute; autocast knows no such device."""
    x, params = X.to("meta", dtype), WIDE.to("meta", dtype)
    y, log_det = ops.affine_coupling(x, params)
    assert y.is_meta and y.shape == X.shape and y.dtype is dtype and log_det.shape == (2,)


ADAMAX_ERRORS = [
    ({"params": None}, TypeError, "params: got NoneType, expected a sequence of tensors"),
    ({"params": torch.ones(3)}, TypeError, "params: got Tensor, expected a sequence of tensors"),
    ({"params": [1.0]}, TypeError, r"params\[0\]: got float, expected a torch.Tensor"),
    ({"grads": [ROW3.to_sparse()]}, TypeError, r"grads\[0\]: got layout torch.sparse_coo"),
    ({"exp_avgs": [torch.ones(1).expand(3)]}, ValueError, r"exp_avgs\[0\]: got strides \(0,\), expected elements"),
    *(({"rate": bad}, TypeError, "rate: got .*, expected a finite number") for bad in ("x", None, torch.tensor(0.1))),
    *(({"rate": bad}, ValueError, "rate: got .*, expected a finite number") for bad in (math.nan, math.inf)),
    ({"betas": (2.0, -1.0)}, ValueError, r"betas: got \(2.0, -1.0\), expected numbers from 0 to below 1"),
    ({"betas": (0.9, 1.0)}, ValueError, r"betas: got \(0.9, 1.0\)"),
    ({"betas": (0.9, -0.1)}, ValueError, r"betas: got -0.1, expected numbers from 0"),
    ({"betas": 0.9}, TypeError, "betas: got 0.9, expected two numbers"),
    ({"eps": -1.0}, ValueError, "eps: got -1.0, expected a number that is not negative"),
    ({"weight_decay": math.nan}, ValueError, "weight_decay: got nan, expected a number that is not negative"),
]


@pytest.mark.parametrize(("change", "error", "text"), ADAMAX_ERRORS)
def test_wrong_arguments_of_adamax_step(backend: str, change: dict, error: type[Exception], text: str) -> None:
    good = {name: [torch.ones(3)] for name in ("params", "grads", "exp_avgs", "exp_infs")} | {"rate": 0.1}
    with pytest.raises(error, match=text):
        ops.adamax_step(**good | change)
    assert torch.equal(good["params"][0], torch.ones(3))


def test_additive_form_takes_as_many_channels_as_x(backend: str) -> None:
    with pytest.raises(ValueError, match=r"params: got shape \(2, 6\), expected \(2, 3\)"):
        ops.affine_coupling(X, WIDE, form="additive")


def test_parameters_are_never_wider_than_x(backend: str) -> None:
    with pytest.raises(TypeError, match=r"params: got dtype torch.float32, expected torch.bfloat16"):
        ops.affine_coupling(X.to(BF16), WIDE)
    with pytest.raises(TypeError, match=r"mean: got dtype torch.bfloat16, expected torch.float64"):
        ops.gaussian_log_prob(X.double(), X.to(BF16))


def test_mixture_without_components(backend: str) -> None:
    none = torch.zeros(2, 0, 3)
    with pytest.raises(ValueError, match="logits: got 0 components"):
        ops.discretized_logistic_mixture_log_prob(X, none, none, none)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("scale", "relu", "'exp'"),
        ("shift", "during", "'after'"),
        ("layout", "mixed", "'interleaved'"),
        ("clamp", 0.0, "positive"),
        ("clamp", -1.0, "positive"),
        ("eps", -0.1, "not negative"),
        *(
            (name, bad, "finite")
            for name in ("clamp", "offset", "eps", "gain", "shift_gain")
            for bad in (math.nan, math.inf)
        ),
    ],
)
def test_coupling_form_checks_its_fields(field: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"CouplingForm.{field}: got ") as caught:
        CouplingForm(**{field: value})
    assert repr(value) in str(caught.value) and says in str(caught.value)
