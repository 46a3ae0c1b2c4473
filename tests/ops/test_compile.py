"""torch.compile(fullgraph=True), forward and backward, gives what eager gives."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
import torch

from hybridkern import ops
from hybridkern.ops._autograd import Gradient
from hybridkern.ops._operator import OPERATORS
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.samples import FIRST, assert_near, assert_same_bits, run

# what inductor compiles with, beside CXX
HAS_COMPILER = any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++"))))
SHAPES = [(4, 6, 13, 9), (7, 10, 3, 8)]  # all sizes differ: equal ones would be taken as equal for ever
FLAT = [(4, 6), (7, 10)]
# A step of an optimizer checks how its tensors lie in memory, which Dynamo does not trace: it stands outside of graphs.
TRACED = [name for name, sample in FIRST.items() if sample.differentiable]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_equal(backend: str, got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Kernels are opaque to the compiler: the same bits. The reference is compiled itself: within the table."""
    if backend != "reference":
        assert_same_bits(got, expected)
        return
    assert got.keys() == expected.keys()
    assert_near(got, expected)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", TRACED)
def test_traced(backend: str, name: str, dynamic: bool) -> None:
    """Dynamo and AOTAutograd, without code generation; one graph serves two shapes when they are dynamic."""
    sample = FIRST[name]
    shapes = SHAPES if 4 in sample.shapes else FLAT
    compiled = torch.compile(sample.function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in shapes if dynamic else shapes[:1]:
            args = sample.arguments(shape, torch.float32)
            assert_equal(backend, run(compiled, args), run(sample.function, args))


@pytest.mark.parametrize("name", TRACED)
def test_kernels_are_what_is_compiled(backend: str, name: str) -> None:
    """The graph holds the operator's kernel, whole, and no formula in its place; on the reference it holds none."""
    sample, seen = FIRST[name], []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    shape = SHAPES[0] if 4 in sample.shapes else FLAT[0]
    torch.compile(sample.function, fullgraph=True, backend=keep)(*sample.arguments(shape, torch.float32).values())
    assert any("hybridkern" in target for target in seen) == (backend != "reference"), seen


def model(x: torch.Tensor, params: torch.Tensor, low: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """All operators in one graph, in the way a hybrid model chains them."""
    y, log_det = ops.affine_coupling(x, params, form="glow")
    y, log_det = ops.affine_coupling(y, low, log_det, form="nflows", inverse=True)
    mean, log_scale = params[:1, : x.shape[1]], params[:, x.shape[1] :] * 0.1
    several = [value.unsqueeze(1).expand(-1, 9, *x.shape[1:]) for value in (log_scale, mean, log_scale)]
    return (
        ops.rounding_coupling(x.round(), params[:, x.shape[1] :], beta=beta),
        ops.gaussian_log_prob(y, mean, log_scale) + log_det,
        ops.discretized_logistic_log_prob(y, mean, log_scale, bin_width=0.5),
        ops.discretized_logistic_mixture_log_prob(y, *several, reduction="sum"),
    )


@pytest.mark.skipif(not HAS_COMPILER, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [("reference", False), *((name, dynamic) for name in COMPILED_BACKENDS for dynamic in (False, True))],
    indirect=["backend"],
)
def test_compiled_to_machine_code(backend: str, dynamic: bool) -> None:
    """The same through inductor, with bfloat16 parameters and channels_last.

    Inductor also fuses the code between the operators, so results agree within the table and not to the bit. The
    reference is compiled for static shapes only: its graph is the slowest thing here to build.
    """
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for shape in SHAPES if dynamic else SHAPES[:1]:
        args = {
            "x": inputs.normal(0, shape, torch.float32),
            "params": inputs.coupling_params("glow", shape, torch.float32, reach=0.2),
            "low": inputs.coupling_params("nflows", shape, torch.bfloat16, reach=0.2),
            "beta": torch.tensor(1.75),
        }
        args = {key: layouts.channels_last(value) for key, value in args.items()}
        assert_equal("reference", run(compiled, args), run(model, args))


def _held(function: FunctionType) -> Iterator[Any]:
    """What a function holds from where it was made, and the functions among it hold in turn."""
    for cell in function.__closure__ or ():
        held = cell.cell_contents
        yield held
        if isinstance(held, FunctionType):
            yield from _held(held)


def test_what_is_traced_holds_nothing_of_ours() -> None:
    """Dynamo of torch 2.10 takes functions, operators, numbers and words from a closure within one, and no more."""
    gradients = [found for found in gc.get_objects() if type(found) is Gradient]
    assert len(gradients) >= len(OPERATORS) - 1  # a step of an optimizer has no derivative
    for gradient in gradients:
        for function in (gradient.forward, gradient.saves, gradient.backward):
            assert isinstance(function, FunctionType)
            for held in _held(function):
                assert isinstance(held, FunctionType | torch._ops.OpOverload | str | int), (gradient.name, held)
