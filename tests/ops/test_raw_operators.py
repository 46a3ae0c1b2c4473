"""The registered operators, called as exported programs and C++ callers do: past the checks of the public functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hybridkern import ops
from hybridkern._extension import nodes
from tests.conftest import COMPILED_BACKENDS

pytestmark = pytest.mark.skipif("cpp" not in COMPILED_BACKENDS, reason="needs the compiled kernels")
FORM = ops.CouplingForm("exp").spec(False)
X, PARAMS, ROW, BETA = torch.ones(3, 4), torch.ones(3, 8), torch.ones(3), torch.ones(2)
MATRIX, VECTOR = torch.ones(8, 8), torch.ones(8)
MANY = torch.ones(3, 2, 4)
IMAGE, LAYER, POINT, BIAS = torch.ones(2, 1, 4, 4), torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), torch.ones(1)
WEIGHTS = (LAYER, BIAS, POINT, BIAS, LAYER, BIAS)
HIDDEN = torch.ops.hybridkern.coupling_network_forward(IMAGE, *WEIGHTS, False, True)[1]
LISTS = ([X], [X + 1], [X + 2], [X + 3])
SPLINE = (2, -3.0, 3.0, 1e-3, 1e-3, 1e-3, 1.0, 1.0)  # 2 bins on [-3, 3], 5 numbers an element
# two layers, of which the second adds the sums of the first
MASKED = ([torch.ones(4, 4)] * 2, [torch.ones(4)] * 2, [torch.ones(4, 4)] * 2, (1, 2), 1)
NUMBERS = (0.1, 0.9, 0.99, 1e-8, 0.0)

# Good arguments of each operator.
GOOD: dict[str, tuple[Any, ...]] = {
    "affine_coupling_forward": (X, PARAMS, ROW, *FORM),
    "affine_coupling_backward": (X, PARAMS, X, ROW, *FORM),
    "affine_coupling_backward_from_output": (X, PARAMS, X, ROW, *FORM),
    "affine_coupling_actnorm_forward": (X, PARAMS, BETA.repeat(2), BETA.repeat(2), *FORM),
    "affine_coupling_actnorm_backward": (X, ROW, X, PARAMS, BETA.repeat(2), *FORM),
    "rational_quadratic_spline_forward": (X, torch.ones(3, 4, 5), ROW, *SPLINE),
    "rational_quadratic_spline_backward": (X, torch.ones(1, 4, 5), X, ROW, *SPLINE),
    "rounding_coupling_forward": (X, X, BIAS, False),
    "rounding_coupling_backward": (X, X, BIAS, False),
    "rounding_coupling_mirrored_forward": (X, X, X, BETA, 1, True),
    "rounding_coupling_mirrored_backward": (X, X, X, BETA, 1, True),
    "discretized_logistic_forward": (X, X, X[:1], 1.0, True),
    "discretized_logistic_backward": (ROW, X, X, X, 1.0, True),
    "discretized_logistic_mixture_forward": (X, MANY, MANY, MANY, 1.0, False),
    "discretized_logistic_mixture_backward": (X, X, MANY, MANY, MANY, 1.0, False),
    "gaussian_log_prob_forward": (X, X[:1], X[:1]),
    "gaussian_log_prob_backward": (ROW, X, X, X),
    "paired_conv1x1_forward": (X, X, MATRIX, VECTOR),
    "paired_conv1x1_backward": (X, X, X, X, MATRIX),
    "coupling_network_forward": (IMAGE, *WEIGHTS, False, True),
    "coupling_network_backward": (IMAGE, IMAGE, *WEIGHTS, HIDDEN, HIDDEN, False, True),
    "lipswish_forward": (X, BIAS, True),
    "lipswish_backward": (X, X, BIAS, False),
    "lipswish_double_backward": (X, BIAS, X, X, BIAS, False),
    "masked_network_forward": (X, *MASKED, True),
    "masked_network_backward": (X, X, torch.zeros(48), *MASKED, True),
    "adamax_step": (*LISTS, *NUMBERS),
}
ONE_NUMBER = ("beta", "b", "outer_b")
ALONE = ("lipswish_forward", 0)  # may have any shape: nothing else depends on it
GOOD["discretized_logistic_forward"] = (X, X[:1], X[:1], 1.0, True)


def operator(name: str) -> Any:
    return getattr(torch.ops.hybridkern, name).default


def replaced(name: str, place: int, value: object) -> tuple[Any, ...]:
    """The good arguments, but for one."""
    args = GOOD[name]
    return (*args[:place], value, *args[place + 1 :])


def tensor_places() -> list[tuple[str, int]]:
    return [(n, i) for n, args in GOOD.items() for i, value in enumerate(args) if isinstance(value, (Tensor, list))]


def test_every_operator_has_good_arguments() -> None:
    names = {
        name.removeprefix("hybridkern::") for name in torch._C._dispatch_get_all_op_names() if "hybridkern::" in name
    }
    assert names == GOOD.keys()
    for name, args in GOOD.items():
        operator(name)(*(([v.clone() for v in value] if isinstance(value, list) else value) for value in args))


def wrong_tensors(value: Tensor) -> dict[str, Tensor]:
    """Others that every argument refuses: of shape, dtype, or memory."""
    freed = value.clone()
    freed.untyped_storage().resize_(0)
    return {
        "larger": torch.ones(*(size + 5 for size in value.shape)),
        "more dimensions": value[None, None],
        "of one number": torch.ones(1, 1, 1),
        "integers": value.long(),
        "complex": value.to(torch.complex64),
        "70 dimensions": value.reshape((1,) * (70 - value.dim()) + tuple(value.shape)),
        "freed": freed,
    }


@pytest.mark.parametrize(("name", "place"), tensor_places())
def test_a_wrong_tensor_is_refused_by_name(name: str, place: int) -> None:
    argument = operator(name)._schema.arguments[place].name
    good = GOOD[name][place]
    for what, wrong in wrong_tensors(good[0] if isinstance(good, list) else good).items():
        one_number = what in ("more dimensions", "of one number", "70 dimensions")
        if argument in ONE_NUMBER and (what == "larger" if "mirrored" in name else one_number):
            continue  # of any length; or of any shape, with one element
        if (name, place) == ALONE and (one_number or what == "larger"):
            continue
        value = [wrong] if isinstance(good, list) else wrong
        with pytest.raises(ValueError, match=r": got .*, expected ") as caught:
            operator(name)(*replaced(name, place, value))
        # a wrong main argument may be told by one that no longer fits it
        assert str(caught.value).split(":")[0].split("[")[0] in {a.name for a in operator(name)._schema.arguments}, what


@pytest.mark.parametrize(
    ("name", "place"), [place for place in tensor_places() if GOOD[place[0]][place[1]] is not BETA and place != ALONE]
)
def test_fakes_refuse_a_wrong_shape(name: str, place: int) -> None:
    """What ``torch.compile`` and ``torch.export`` trace is held to the same."""
    good = GOOD[name][place]
    wrong = torch.ones(*(size + 5 for size in (good[0] if isinstance(good, list) else good).shape))
    args = replaced(name, place, [wrong] if isinstance(good, list) else wrong)
    meta = torch.utils._pytree.tree_map_only(Tensor, lambda value: value.to("meta"), args)
    with pytest.raises((ValueError, TypeError), match=r": got .*, expected "):
        operator(name)(*meta)
    operator(name)(*torch.utils._pytree.tree_map_only(Tensor, lambda value: value.to("meta"), GOOD[name]))


NUMBERS_WRONG = {
    "code of no scale map": ("affine_coupling_forward", 3, 7, "code: got 7"),
    "code of no layout": ("affine_coupling_forward", 3, 1 | 4 << 8, "code: got 1025"),
    "five numbers": ("affine_coupling_forward", 4, FORM[1][:5], "numbers: got 5 numbers, expected the 8"),
    "five numbers backward": ("affine_coupling_backward", 5, FORM[1][:5], "numbers: got 5 numbers"),
    "nine numbers": ("affine_coupling_actnorm_forward", 5, (*FORM[1], 0.0), "numbers: got 9 numbers"),
    "negative code": ("affine_coupling_backward", 4, -1, "code: got -1"),
    "code of no layout in halves": ("affine_coupling_actnorm_forward", 4, 1 | 3 << 8, "code: got 769"),
    "code without scale": ("affine_coupling_actnorm_forward", 4, 0, "code: got 0, expected that of a form with scale"),
    "code of one bin": ("rational_quadratic_spline_forward", 3, 1, "code: got 1, expected the code of SplineForm.spec"),
    "code of no scheme": ("rational_quadratic_spline_backward", 4, 2 | 2 << 8, "code: got 514"),
    "code of no tails": ("rational_quadratic_spline_forward", 3, 2 | 3 << 10, "code: got 3074"),
    "bound of infinity": ("rational_quadratic_spline_forward", 5, float("inf"), "high: got inf"),
    "bounds that meet": ("rational_quadratic_spline_backward", 6, -3.0, "high: got -3"),
    "widths beyond the whole": ("rational_quadratic_spline_forward", 6, 0.5, "min_width: got 0.5"),
    "slope of NaN": ("rational_quadratic_spline_forward", 8, float("nan"), "least: got nan"),
    "negative index": ("rounding_coupling_mirrored_forward", 4, -1, "index: got -1"),
    "index too large": ("rounding_coupling_mirrored_backward", 4, 2, "index: got 2, expected one of the 2 places"),
    "bin of no width": ("discretized_logistic_forward", 3, 0.0, "bin_width: got 0, expected a number from 1e-06"),
    "bin of NaN": ("discretized_logistic_mixture_forward", 4, float("nan"), "bin_width: got nan"),
    "rate of NaN": ("adamax_step", 4, float("nan"), "rate: got nan"),
    "beta of 1": ("adamax_step", 6, 1.0, "beta2: got 1, expected a number from 0 to 1"),
    "plan of one layer": ("masked_network_forward", 4, (1,), "plan: got 1 numbers, expected 2"),
    "plan that adds itself": ("masked_network_backward", 6, (1, 4), r"plan\[1\]: got 4, expected an earlier layer"),
    "plan below zero": ("masked_network_forward", 4, (-1, 0), r"plan\[0\]: got -1, expected an earlier layer"),
    "activated last": ("masked_network_forward", 4, (1, 1), "plan: got an activation of the last layer"),
    "activation of no name": ("masked_network_forward", 5, 4, "activation: got 4, expected a place in ACTIVATIONS"),
    "None": ("rounding_coupling_forward", 1, None, "t: got None, expected a tensor"),
}


@pytest.mark.parametrize("what", NUMBERS_WRONG)
def test_a_wrong_number_is_refused_by_name(what: str) -> None:
    name, place, value, text = NUMBERS_WRONG[what]
    with pytest.raises(ValueError, match=text):
        operator(name)(*replaced(name, place, value))


def test_layers_wider_than_places_count_are_refused() -> None:
    """Places of units are integers of 32 bits; these tensors have one number each."""
    row, column = torch.zeros(1, 1).expand(1, 2**31), torch.zeros(1, 1).expand(2**31, 1)
    expected = "expected 2147483647 at most a side"
    with pytest.raises(ValueError, match=rf"weights\[0\]: got shape \(1, 2147483648\), {expected}"):
        operator("masked_network_forward")(row, [row], [BIAS], [row], (0,), 0, False)
    with pytest.raises(ValueError, match=rf"weights\[0\]: got shape \(2147483648, 1\), {expected}"):
        operator("masked_network_forward")(X[:, :1], [column], [BIAS.expand(2**31)], [column], (0,), 0, False)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:The PyTorch API of nested tensors")
def test_tensors_of_other_dispatch_keys_are_refused() -> None:
    for other in (X.to_sparse(), X.to_sparse_csr(), X.to_mkldnn(), torch.nested.nested_tensor([X[0], X[1]])):
        with pytest.raises((NotImplementedError, RuntimeError)):
            operator("rounding_coupling_forward")(X, other, None, False)


def test_meta_beside_memory_is_refused() -> None:
    """The shape-only kernel would return memory that nobody has written."""
    with pytest.raises(ValueError, match="t: got device meta, expected cpu"):
        operator("rounding_coupling_forward")(X, X.to("meta"), None, False)


ALIASES = {
    "the parameter as average": lambda a, b: ([a], [b], [a], [b + 1]),
    "the gradient as parameter": lambda a, b: ([a], [a], [b], [b + 1]),
    "a part of another parameter": lambda a, b: ([a, a[1:]], [b, b[1:]], [b + 1, b[1:] + 1], [b + 2, b[1:] + 2]),
    "averages shared": lambda a, b: ([a, a + 1], [b, b], [(c := b + 1), c], [b + 2, b + 3]),
}


@pytest.mark.parametrize("what", ALIASES)
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_lists_that_share_memory_are_refused(what: str, backend: str) -> None:
    from hybridkern import use_backend

    lists = ALIASES[what](torch.ones(4, 3), torch.ones(4, 3))
    pattern = r"\w+\[\d\]: got memory of \w+\[\d\], expected a tensor of its own"
    with use_backend(backend), pytest.raises(ValueError, match=pattern):
        ops.adamax_step(*lists, rate=0.1)
    with torch.no_grad(), pytest.raises(ValueError, match=pattern):
        operator("adamax_step")(*lists, *NUMBERS)


def test_one_gradient_for_two_parameters() -> None:
    grad = torch.ones(3)
    params, averages, largest = ([torch.ones(3), torch.ones(3)] for _ in range(3))
    ops.adamax_step(params, [grad, grad], averages, largest, rate=0.1)
    assert torch.equal(*params) and params[0][0] != 1


@pytest.mark.parametrize("shape", [(2, 0, 16), (2, 0, 4, 4), (1, 0), (0, 0)], ids=str)
def test_halves_of_no_channels(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, requires_grad=True)
    weight, bias = torch.empty(0, 0, requires_grad=True), torch.empty(0, requires_grad=True)
    for y in (out := ops.paired_conv1x1(x, x, weight, bias)):
        assert y.shape == shape
    sum(y.sum() for y in out).backward()
    assert x.grad.shape == shape and weight.grad.shape == (0, 0) and bias.grad.shape == (0,)


def test_weights_of_any_layout() -> None:
    """The registered operator takes a transposed matrix and a strided bias as they are."""
    weight, bias = torch.randn(8, 8), torch.randn(16)[::2]
    got = operator("paired_conv1x1_forward")(X, X, weight.t(), bias)
    expected = operator("paired_conv1x1_forward")(X, X, weight.t().contiguous(), bias.contiguous())
    assert all(map(torch.equal, got, expected))
    rows = torch.randn(4, 3).t()
    got = operator("rounding_coupling_mirrored_forward")(rows, rows, rows, BETA, 0, True)
    assert torch.equal(got, operator("rounding_coupling_mirrored_forward")(*[rows.contiguous()] * 3, BETA, 0, True))


@pytest.mark.skipif(nodes.module is None, reason=nodes.reason)
def test_a_derivative_through_a_direct_call_is_an_error() -> None:
    """PyTorch's own rule for operators without one is a warning, and no gradient or tangent."""
    x, params = torch.randn(2, 3, requires_grad=True), torch.randn(2, 6)
    y, _ = torch.ops.hybridkern.affine_coupling_forward(x, params, None, *FORM)
    with pytest.raises(RuntimeError, match="derivative for hybridkern::affine_coupling_forward is not implemented"):
        y.sum().backward()
    with pytest.raises(NotImplementedError, match="forward AD with hybridkern::gaussian_log_prob_forward"):
        torch.func.jvp(lambda u: torch.ops.hybridkern.gaussian_log_prob_forward(u, None, None), (params,), (params,))
