"""How far a choice of backend reaches: threads, tasks, backward passes, recomputed pieces, compiled functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import hybridkern
from hybridkern import ops
from hybridkern.flows import Glow
from hybridkern.ops import _backends
from hybridkern.ops._backends import state
from tests.conftest import COMPILED_BACKENDS
from tests.ops.samples import DIFFERENTIABLE, a_shape, has_kernels, upstream
from tests.ops.test_backends import break_formulas

needs_cpp = pytest.mark.skipif("cpp" not in COMPILED_BACKENDS, reason="needs the compiled kernels of CPUs")


def in_thread(function: Callable[[], Any]) -> Any:
    """What ``function`` returns, or raises, in a thread of its own."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def test_a_choice_may_be_entered_again() -> None:
    """One after the other, one inside the other, in two threads at once, and as a decorator."""
    default, one = state.names(), hybridkern.use_backend("reference")
    decorated = one(state.names)
    for _ in range(2):
        with one, hybridkern.use_backend("auto"):
            with one:
                assert state.names() == ("reference",)
                assert in_thread(decorated) == decorated() == ("reference",)
            assert state.names() == ()
            assert in_thread(state.names) == default
        assert state.names() == default


def test_threads_do_not_see_each_others_choice() -> None:
    """Two threads hold different choices at the same time; a third has none."""
    inside, done = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    default = state.names()

    def hold() -> tuple[str, ...]:
        with hybridkern.use_backend("reference"):
            inside.wait()
            done.wait()
            return state.names()

    found: list[tuple[str, ...]] = []
    thread = threading.Thread(target=lambda: found.append(hold()))
    thread.start()
    inside.wait()
    with hybridkern.use_backend("auto"):
        assert state.names() == ()
        assert in_thread(state.names) == default
    assert state.names() == default
    done.wait()
    thread.join()
    assert found == [("reference",)]


def test_blocks_of_threads_may_end_in_any_order() -> None:
    """A block that began before another's and ends after it leaves nothing behind."""
    default, first_in, second_out = state.names(), threading.Event(), threading.Event()

    def long() -> None:
        with hybridkern.use_backend("reference"):
            first_in.set()
            assert second_out.wait(60)

    thread = threading.Thread(target=long)
    thread.start()
    assert first_in.wait(60)
    with hybridkern.use_backend("reference"):
        pass
    second_out.set()
    thread.join()
    assert state.names() == default


def test_tasks_do_not_see_each_others_choice() -> None:
    async def hold(name: str) -> list[tuple[str, ...]]:
        seen = []
        with hybridkern.use_backend(name):
            for _ in range(3):
                seen.append(state.names())
                await asyncio.sleep(0)
        return seen

    async def both() -> list[list[tuple[str, ...]]]:
        return await asyncio.gather(hold("reference"), hold("auto"))

    before = state.names()
    assert asyncio.run(both()) == [[("reference",)] * 3, [()] * 3]
    assert state.names() == before


# Calls whose backward pass is a kernel's.
RECORDED = [name for name in DIFFERENTIABLE if has_kernels(name, "cpp") and not name.endswith("from_output")]


@pytest.fixture(params=["after", "thread", "other"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Runs a backward pass after the block of its forward pass: here, in another thread, or under another choice."""

    def other(function: Callable[[], Any]) -> Any:
        with hybridkern.use_backend("reference"):
            return function()

    return {"after": lambda function: function(), "thread": in_thread, "other": other}[request.param]


@needs_cpp
@pytest.mark.parametrize("name", RECORDED)
def test_backward_runs_where_forward_ran(name: str, elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the kernels: with the formulas made to raise nothing is noticed. On the formulas: no kernel is called."""
    sample = DIFFERENTIABLE[name]
    args = sample.arguments(a_shape(sample, (2, 3), (2, 3, 4, 5)), torch.float32)
    leaves = [value.requires_grad_() for value in args.values()]
    with hybridkern.use_backend("cpp"):
        outputs = sample.function(*leaves)
    break_formulas(monkeypatch)
    elsewhere(lambda: torch.autograd.backward(outputs, upstream(list(outputs))))
    assert all(leaf.grad is not None for leaf in leaves)


def glow(memory: str) -> Glow:
    torch.manual_seed(0)
    flow = Glow((3, 4, 4), levels=1, steps=1, hidden=4, memory=memory).double()
    with torch.no_grad():
        for value in flow.parameters():
            value.add_(torch.randn_like(value) * 0.05)
        flow(torch.randn(4, 3, 4, 4, dtype=torch.float64))
    return flow


@needs_cpp
@pytest.mark.parametrize("memory", ["recompute", "invert"])
@pytest.mark.parametrize("name", ["reference", "cpp"])
def test_recomputed_pieces_run_where_they_ran(
    memory: str, name: str, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward inside a block, backward elsewhere: every choice of the backward pass is that of the forward pass."""
    flow, x = glow(memory), torch.randn(4, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    with hybridkern.use_backend(name):
        z, log_det = flow(x)
    seen: list[str] = []
    plain = _backends.choose

    def watched(operator: Any, value: Any) -> str:
        seen.append(plain(operator, value))
        return seen[-1]

    for module in [m for n, m in __import__("sys").modules.items() if n.startswith("hybridkern.")]:
        if getattr(module, "choose", None) is plain:
            monkeypatch.setattr(module, "choose", watched)
    elsewhere(lambda: (sum(part.sum() for part in _parts(z)) + log_det.sum()).backward())
    assert seen and set(seen) == {name}
    assert x.grad is not None


def _parts(z: Any) -> list[torch.Tensor]:
    return [z] if isinstance(z, torch.Tensor) else list(z)


class Counter:
    """A compiler that counts graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward

    def calls_of_kernels(self, index: int) -> int:
        return sum("hybridkern" in str(node.target) for node in self.graphs[index].graph.nodes)


@pytest.fixture
def counter() -> Iterator[Counter]:
    torch._dynamo.reset()
    yield Counter()
    torch._dynamo.reset()


@needs_cpp
def test_choice_inside_a_compiled_function_is_one_graph(counter: Counter) -> None:
    """Formulas and kernels in one graph, each where it was chosen, with the numbers of eager."""

    def function(x: torch.Tensor) -> torch.Tensor:
        with hybridkern.use_backend("reference"):
            first = ops.gaussian_log_prob(x)
        with hybridkern.use_backend("cpp"):
            return first + ops.gaussian_log_prob(2 * x)

    x = torch.randn(3, 4)
    assert torch.equal(torch.compile(function, fullgraph=True, backend=counter)(x), function(x))
    assert len(counter.graphs) == 1
    assert counter.calls_of_kernels(0) == 1


@needs_cpp
def test_compiled_function_follows_the_choice_around_it(counter: Counter) -> None:
    """It is compiled anew where the choice changes, and not where it comes back."""
    compiled, x = torch.compile(ops.gaussian_log_prob, fullgraph=True, backend=counter), torch.randn(3, 4)
    for name, kernels in (("cpp", 1), ("reference", 0), ("cpp", 1), ("reference", 0)):
        with hybridkern.use_backend(name):
            assert torch.equal(compiled(x), ops.gaussian_log_prob(x))
        assert counter.calls_of_kernels(["cpp", "reference"].index(name)) == kernels
    assert len(counter.graphs) == 2
