"""Launch plans launch what the launchers would: the same kernels, grids, constants and addresses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

triton = pytest.importorskip("triton", reason="the package triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels have no plans", allow_module_level=True)

from hybridkern.ops import _gpu  # noqa: E402
from hybridkern.ops._operator import OPERATORS, Operator, Sample  # noqa: E402
from hybridkern.ops._triton import launch, plans  # noqa: E402
from hybridkern.ops._triton.plans import Plans, launcher_by_launcher  # noqa: E402
from hybridkern.ops.affine_coupling.form import NAMED_FORMS  # noqa: E402
from tests.triton.pretended import Gpu, Launch, pretended  # noqa: E402

SPEC = NAMED_FORMS["glow"].spec(False)
CASES = [
    (operator, name, sample, dtype)
    for operator in OPERATORS.values()
    for name, sample in (operator.samples if operator.triton else {}).items()
    for dtype in (torch.float32, torch.bfloat16)
    if dtype in sample.dtypes
]


class Kept(TorchDispatchMode):
    """Nothing that is made in the block is freed, so that an address is one tensor's alone."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.values.append(func(*args, **(kwargs or {})))
        return self.values[-1]


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretended() as found:
        yield found


Call = tuple[Any, list[Launch]]


def called(gpu: Gpu, run: Callable[..., Any], args: tuple[Any, ...]) -> Call:
    gpu.launches = []
    with Kept() as kept:
        out = run(*args)
    gpu.kept = getattr(gpu, "kept", []) + [kept]  # type: ignore[attr-defined]
    return out, gpu.launches


def same(first: Call, second: Call, args: tuple[Any, ...]) -> None:
    """The same launches of memory that plays the same part; what the caller gave is the same memory."""
    inputs = [value for value in args if isinstance(value, Tensor)]
    own = [range(value.untyped_storage().data_ptr(), value.untyped_storage().data_ptr() + 1 +
                 value.untyped_storage().nbytes()) for value in inputs]  # fmt: skip
    pairs: set[tuple[int, int]] = set()
    assert len(first[1]) == len(second[1]) > 0
    for a, b in zip(first[1], second[1], strict=True):
        assert a.kernel is b.kernel
        assert (a.grid, a.stream, len(a.arguments)) == (b.grid, b.stream, len(b.arguments))
        for kind, mine, theirs in zip(a.kernel.specialization[0].values(), a.arguments, b.arguments, strict=True):
            if str(kind).startswith("*") and mine and not any(mine in place for place in own):
                pairs.add((mine, theirs))
            else:
                assert type(mine) is type(theirs) and repr(mine) == repr(theirs), kind
    outs = [out if isinstance(out, tuple) else (out,) for out, _ in (first, second)]
    for mine, theirs in zip(*outs, strict=True):
        assert (mine.shape, mine.stride(), mine.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
        pairs.add((mine.data_ptr(), theirs.data_ptr()))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def plans_of(part: str) -> Plans:
    return Plans(lambda *args: _gpu.launcher(part)(*args))


def check(gpu: Gpu, planned: Plans, args: tuple[Any, ...]) -> None:
    """Called as often as it takes to have a plan and to use it, it does what the launcher does."""
    with launcher_by_launcher():
        expected = called(gpu, planned, args)
    for _ in range(4):
        same(expected, called(gpu, planned, args), args)


def kinds(planned: Plans) -> int:
    assert all(callable(plan) for plan in planned.kept.values())
    return len(planned.kept)


def tensors(shape: tuple[int, ...] = (4, 3, 8, 8), low: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(shape), torch.zeros(shape[0], 2 * shape[1], *shape[2:], dtype=low), torch.zeros(shape[0])]


def shifted(value: Tensor, by: int) -> Tensor:
    """The same tensor, ``by`` elements beyond memory that is aligned."""
    out = torch.zeros(value.numel() + by)[by:].view(value.shape)
    assert out.data_ptr() % 16 == 4 * by % 16
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}.{case[1]}-{case[3]}")
def test_every_part_of_every_operator(gpu: Gpu, case: tuple[Operator, str, Sample, torch.dtype]) -> None:
    """Forward and backward of typical calls, recorded as they reach the launchers."""
    operator, name, sample, dtype = case
    shape = next(shape for shape in ((3, 4, 6, 8), (3, 12, 4), (3, 12)) if sample.takes(shape))
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def noted(part: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            seen.append((part, args))
            return find(part)(*args)

        return run

    find = _gpu.launcher
    leaves = {key: value.detach().requires_grad_(value.is_floating_point())
              for key, value in sample.arguments(shape, dtype).items()}  # fmt: skip
    with mock.patch.object(_gpu, "launcher", noted), launcher_by_launcher():
        outputs = [out for out in sample.function(*leaves.values()) if out.requires_grad]
        if outputs:
            torch.autograd.grad(
                outputs, list(leaves.values()), [torch.zeros_like(o) for o in outputs], allow_unused=True
            )
    assert {part for part, _ in seen} <= set(operator.parts)
    assert seen or name == "glow_from_output"  # which runs on the formulas where they are recorded
    for part, args in seen:
        with torch.no_grad():
            planned = plans_of(part)
            check(gpu, planned, args)
        assert kinds(planned) == 1


def variations() -> dict[str, tuple[Any, ...]]:
    """Calls of one operator, each of which differs from the first in one thing that kernels or launchers ask for."""
    x, params, log_det = tensors()
    last = x.contiguous(memory_format=torch.channels_last)
    zero, minus = list(SPEC[1]), list(SPEC[1])
    place = next(i for i, number in enumerate(zero) if number == 0)
    minus[place] = -0.0
    return {
        "the first": (x, params, log_det, *SPEC),
        "x 4 bytes off": (shifted(x, 1), params, log_det, *SPEC),
        "x 8 bytes off": (shifted(x, 2), params, log_det, *SPEC),
        "parameters off": (x, shifted(params, 3), log_det, *SPEC),
        "log_det off": (x, params, shifted(log_det, 1), *SPEC),
        "x in channels_last": (last, params, log_det, *SPEC),
        "log_det with a stride": (x, params, torch.zeros(8)[::2], *SPEC),
        "log_det of one number": (x, params, torch.zeros(1).expand(4), *SPEC),
        "no log_det": (x, params, None, *SPEC),
        "log_det in float64": (x, params, log_det.double(), *SPEC),
        "low parameters": (x, params.bfloat16(), log_det, *SPEC),
        "half parameters": (x, params.half(), log_det, *SPEC),
        "float64": (x.double(), params.double(), log_det.double(), *SPEC),
        "one example": (*tensors((1, 3, 8, 8)), *SPEC),
        "one channel": (*tensors((4, 1, 8, 8)), *SPEC),
        "one pixel": (*tensors((4, 3, 1, 1)), *SPEC),
        "odd sizes": (*tensors((4, 3, 7, 9)), *SPEC),
        "other sizes": (*tensors((8, 3, 8, 8)), *SPEC),
        "long examples": (*tensors((2, 3, 64, 64)), *SPEC),
        "the inverse": (x, params, log_det, *NAMED_FORMS["glow"].spec(True)),
        "another form": (x, params, log_det, *NAMED_FORMS["realnvp"].spec(False)),
        "without scale": (x, torch.zeros(4, 3, 8, 8), log_det, *NAMED_FORMS["additive"].spec(False)),
        "another number": (x, params, log_det, SPEC[0], [*SPEC[1][:-1], SPEC[1][-1] + 1]),
        "zero in a list": (x, params, log_det, SPEC[0], zero),
        "minus zero": (x, params, log_det, SPEC[0], minus),
    }


def test_another_kind_of_call_has_its_own_plan(gpu: Gpu) -> None:
    """One after the other, each as its launcher would launch it, whatever has a plan already; then all again."""
    planned = plans_of("affine_coupling_forward")
    calls = variations()
    for args in [*calls.values(), *calls.values()]:
        check(gpu, planned, args)
    assert kinds(planned) == len(calls) - 1  # the list is the tuple that it was made of


def test_kernels_differ_where_a_plan_must(gpu: Gpu) -> None:
    """That the cases above are cases: alignment alone, and a constant alone, change what is compiled."""
    calls, kernels = variations(), []
    names = ("the first", "x 4 bytes off", "no log_det", "low parameters", "another form", "x in channels_last")
    with launcher_by_launcher():
        for name in names:
            kernels.append(called(gpu, plans_of("affine_coupling_forward"), calls[name])[1][0].kernel)
    assert len(set(kernels)) == len(names)


def test_the_stream_is_the_current_one(gpu: Gpu) -> None:
    planned, args = plans_of("affine_coupling_forward"), (*tensors(), *SPEC)
    check(gpu, planned, args)
    for stream in (11, 12):
        gpu.stream = stream
        assert [launch.stream for launch in called(gpu, planned, args)[1]] == [stream]
    assert kinds(planned) == 1


def test_each_device_has_its_plans(gpu: Gpu) -> None:
    planned, args = plans_of("affine_coupling_forward"), (*tensors(), *SPEC)
    check(gpu, planned, args)
    first, own = called(gpu, planned, args)[1][0].kernel, gpu.device
    gpu.change_device()
    check(gpu, planned, args)
    assert called(gpu, planned, args)[1][0].kernel is not first
    gpu.device = own
    assert called(gpu, planned, args)[1][0].kernel is first
    assert kinds(planned) == 2


def test_arguments_that_share_memory(gpu: Gpu) -> None:
    """Halves of one tensor lie to each other as they happen to, which is no part of their kind."""
    planned = plans_of("affine_coupling_forward")
    for apart in (0, 192, 576):
        memory = torch.zeros(4 * 16 * 64 + apart)
        x = memory[: 4 * 192].view(4, 3, 8, 8)
        params = memory[4 * 192 + apart :][: 4 * 384].view(4, 6, 8, 8)
        check(gpu, planned, (x, params, None, *SPEC))


def test_one_tensor_given_twice(gpu: Gpu) -> None:
    """Its plan would read the first of two others twice; theirs serves it as well."""
    planned = plans_of("affine_coupling_forward")
    x, other, log_det = torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8), torch.zeros(4)
    additive = NAMED_FORMS["additive"].spec(False)
    for params in (x, other, x):
        check(gpu, planned, (x, params, log_det, *additive))
    assert kinds(planned) == 1


def test_views_of_arguments_that_share_memory_have_no_plan(gpu: Gpu) -> None:
    """A view that a launcher makes of one of them might be one of another."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.mm(y.view(4, 3).t(), y.view(4, 3))

    planned = Plans(run)
    for apart in (0, 0, 0, 12, 4):
        memory = torch.randn(64)
        x, y = memory[:12], memory[12 + apart :][:12]
        assert torch.equal(planned(x, y), run(x, y)), apart
    planned = Plans(run)
    for _ in range(4):
        x, y = torch.randn(12), torch.randn(12)
        assert torch.equal(planned(x, y), run(x, y))
    assert kinds(planned) == 1


def test_who_watches_launches_sees_them(gpu: Gpu) -> None:
    planned, args = plans_of("affine_coupling_forward"), (*tensors(), *SPEC)
    check(gpu, planned, args)
    with mock.patch.object(triton.knobs.runtime.launch_enter_hook, "calls", [lambda *_: None]):
        with mock.patch.object(planned, "_run", return_value="launched") as run:
            assert planned(*args) == "launched"
        assert run.call_count == 1
    with mock.patch.object(triton.knobs.runtime, "debug", True):
        check(gpu, planned, args)
    assert kinds(planned) == 2


def test_memory_that_is_not_aligned_is_left_to_the_launcher(gpu: Gpu) -> None:
    planned, args = plans_of("affine_coupling_forward"), (*tensors(), *SPEC)
    check(gpu, planned, args)
    (plan,) = planned.kept.values()
    odd = lambda size, stride, **options: shifted(torch.zeros(size), 1)  # noqa: E731
    with mock.patch.dict(plan.__globals__, {"empty": odd}):
        gpu.launches = []
        assert plan(7, *args) is None and gpu.launches == []
        check(gpu, planned, args)


def test_plans_are_few_and_made_for_what_comes_again(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_MOST", 3)
    planned = plans_of("affine_coupling_forward")
    for rows in (1, 2, 3, 4, 5):
        called(gpu, planned, (*tensors((rows, 3, 2, 2)), *SPEC))
        assert len(planned.kept) <= 3
    assert not any(callable(plan) for plan in planned.kept.values())


def test_what_a_launcher_cannot_repeat_has_no_plan(gpu: Gpu) -> None:
    """One that looks at a value, or at more than metadata."""

    def looks(x: Tensor) -> Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1

    planned = Plans(looks)
    for value in (1.0, 1.0, 1.0, -1.0):
        x = torch.full((4,), value)
        assert torch.equal(planned(x), looks(x))


def test_operators_of_pytorch_are_repeated_with_their_numbers(gpu: Gpu) -> None:
    def run(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        to = torch.empty(x.shape[::-1])
        to.copy_(x.t())
        product = torch.mm(to.t()[1:], y)
        return product.mul(scale), x.to(torch.float64)

    planned = Plans(run)
    for turn in range(4):
        x, y = torch.randn(3, 4), torch.randn(4, 2)
        for got, expected in zip(planned(x, y, 2.0), run(x, y, 2.0), strict=True):
            assert torch.equal(got, expected), turn
            assert got.stride() == expected.stride()
    assert kinds(planned) == 1


def test_contracts_are_checked_before_there_is_a_plan(gpu: Gpu) -> None:
    x, params, log_det = tensors()
    forward = torch.ops.hybridkern.affine_coupling_forward
    for _ in range(3):
        forward(x, params, log_det, *SPEC)
    with pytest.raises(ValueError, match="params: got shape"):
        forward(x, params[:, :5], log_det, *SPEC)
    with pytest.raises(TypeError, match="log_det: got dtype"):
        forward(x, params, log_det.half(), *SPEC)


def test_freed_memory_has_no_plan(gpu: Gpu) -> None:
    """A plan would hand its address, which is that of nothing, to a kernel."""
    call = torch.ops.hybridkern.rounding_coupling_forward
    x, pair = torch.ones(3, 4), torch.ones(2, 3, 4)
    for t in (torch.ones(3, 4), pair[1]):
        for _ in range(3):
            call(x, t, None, False)
        t.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="t: got a storage of 0 bytes, expected"):
            call(x, t, None, False)


def test_graphs_that_two_threads_trace(gpu: Gpu) -> None:
    """One begins before the other and ends before it: a launch goes into the graph that its own thread traces."""
    entered, ended = threading.Event(), threading.Event()

    def trace() -> None:
        with launch.traced():
            entered.set()
            ended.wait(60)

    thread = threading.Thread(target=trace)
    call, x = torch.ops.hybridkern.rounding_coupling_forward, torch.ones(3, 4)
    with mock.patch.object(torch.library, "wrap_triton", side_effect=AssertionError("traced")):
        with launch.traced():
            thread.start()
            assert entered.wait(60)
        call(x, x, None, False)  # the other one still traces
        ended.set()
        thread.join()
        for _ in range(3):
            gpu.launches = []
            call(x, x, None, False)
            assert len(gpu.launches) == 1
        with launch.traced(), pytest.raises(AssertionError, match="traced"), launcher_by_launcher():
            call(x, x, None, False)
