"""The parts of the operators as PyTorch operators: opcheck of the calls that the samples make, on every layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hybridkern import ops
from hybridkern.ops._operator import OPERATORS
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.samples import SAMPLES, a_shape, has_kernels, run

WITH_KERNELS = [name for name in SAMPLES if has_kernels(name, "cpp")]
pytestmark = pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)
Call = tuple[Any, tuple[Any, ...]]
PLACES = {
    "contiguous": ((3, 4, 5, 6), layouts.contiguous),
    "channels_last": ((3, 4, 5, 6), layouts.channels_last),
    "slice": ((3, 4, 5, 6), layouts.channel_slice),
    "channels_last_slice": ((3, 4, 5, 6), layouts.channels_last_slice),
    "transposed": ((3, 4, 5, 6), layouts.transposed),
    "empty": ((0, 4, 5), layouts.contiguous),
    "odd": ((17, 33), layouts.contiguous),
    "spaceless": ((7, 1, 3, 1, 5), layouts.contiguous),
}


class Recorder(TorchDispatchMode):
    """Collects the calls of our operators, one for each part and its options; they are run as well."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[tuple[Any, ...], Call] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and notes ours."""
        if func.namespace == "hybridkern":
            options = tuple(value for value in args if not isinstance(value, torch.Tensor | list))
            self.calls[(func, *options)] = (func, tree_map_only(torch.Tensor, torch.detach, args))
        return func(*args, **(kwargs or {}))


def calls(name: str, shape: tuple[int, ...], place: Any, low: torch.dtype = torch.float32) -> list[Call]:
    """What a call of a sample without gradients, and one with its backward pass, call."""
    sample = SAMPLES[name]
    args = sample.arguments(a_shape(sample, shape, shape[:2], (*shape[:2], 5, 2)), torch.float32)
    args = {key: value.to(low) if key in sample.lower else value for key, value in args.items()}
    args = {key: place(value) if value.ndim > 1 else value for key, value in args.items()}
    with Recorder() as recorder:
        sample.function(*args.values())
        run(sample.function, args, place)
    return list(recorder.calls.values())


NOT_RECORDED = "lipswish_double_backward"
FLAT = ("contiguous", "slice", "transposed", "empty", "odd")  # the rest is the same in two dimensions
CASES = [(name, place) for name, sample in SAMPLES.items() for place in (PLACES if 4 in sample.shapes else FLAT)]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_opcheck(backend: str, name: str, place: str) -> None:
    for operator, args in calls(name, *PLACES[place]):
        torch.library.opcheck(operator, args)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.lower])
def test_opcheck_of_low_precision_parameters(backend: str, name: str, low: torch.dtype) -> None:
    for operator, args in calls(name, (3, 4, 5), layouts.contiguous, low):
        torch.library.opcheck(operator, args)


@pytest.mark.parametrize("place", FLAT)
@pytest.mark.parametrize("paired", [False, True])
def test_opcheck_of_second_derivatives(backend: str, place: str, paired: bool) -> None:
    """What the C++ node alone calls: no sample reaches it through a mode that records calls."""
    shape, arrange = PLACES[place]
    x, outer, grad = (arrange(inputs.normal(i, shape, torch.float32)) for i in range(3))
    one = torch.ones(1)
    args = (outer, one, torch.cat((grad, grad), 1) if paired else grad, x, one, paired)
    torch.library.opcheck(getattr(torch.ops.hybridkern, NOT_RECORDED).default, args)


def test_every_part_is_checked(backend: str) -> None:
    """The samples reach every part of every operator that has compiled kernels."""
    checked = {f"hybridkern.{NOT_RECORDED}.default"} | {
        str(operator) for name in WITH_KERNELS for operator, _ in calls(name, (2, 2), layouts.contiguous)
    }
    wanted = {f"hybridkern.{part}.default" for operator in OPERATORS.values() for part in operator.parts}
    assert checked == wanted


def test_every_registered_operator_is_in_the_registry(backend: str) -> None:
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("hybridkern::")}
    assert names == {f"hybridkern::{part}" for operator in OPERATORS.values() for part in operator.parts}


@pytest.mark.parametrize("name", ["glow", "normflows"])
def test_backward_from_output_is_traced(backend: str, name: str) -> None:
    def function(y, params, grad_y, grad_log_det):
        return ops.affine_coupling_backward_from_output(y, params, grad_y, grad_log_det, form=name)

    shape = (4, 6, 5, 3)
    args = [inputs.normal(0, shape, torch.float32), inputs.coupling_params(name, shape, torch.float32)]
    args += [inputs.normal(1, shape, torch.float32), inputs.normal(2, shape[:1], torch.float32)]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*args), function(*args), strict=True):
        assert torch.equal(got, expected)
