"""Training steps as CUDA graphs, as far as they can be shown without a device: the step itself, and what is refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybridkern import flows, graphs
from hybridkern.flows import memory
from hybridkern.flows._replay import draws_nothing
from hybridkern.graphs import GraphedStep
from hybridkern.hybrid import HybridModel, heads, objectives

SHAPE = (3, 8, 8)


def images_model(mode: str = "store", net: Any = "conv") -> HybridModel:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8, memory=mode, net=net)
    flow.initialize(torch.rand(8, *SHAPE) - 0.5)
    return HybridModel(flow, heads.Categorical(flow.dim, 3))


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    drawn = torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(size)) - 0.5
    return drawn, torch.arange(size) % 3


@pytest.mark.parametrize("mode", ["store", "recompute", "invert"])
@pytest.mark.parametrize("bf16", [False, True])
def test_on_the_cpu_it_is_the_plain_step(mode: str, bf16: bool) -> None:
    objective = objectives.Weighted(1.0, per_dimension=True)
    model, other = images_model(mode), images_model(mode)
    optimizer, theirs = (torch.optim.Adam(m.parameters(), lr=1e-2) for m in (model, other))
    step = GraphedStep(model, objective, optimizer, autocast=torch.bfloat16 if bf16 else None, max_norm=0.5)
    for size in (4, 4, 3):  # and a last batch of another size
        loss = step(*batch(size))
        theirs.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            plain = other.loss(*batch(size), objective)
        plain.backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        theirs.step()
        assert torch.equal(loss, plain.detach()) and not loss.requires_grad
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_weight_in_a_tensor_is_read_at_each_step() -> None:
    lam = torch.tensor(1.0)
    model, other = images_model(), images_model()
    step = GraphedStep(model, objectives.Weighted(lam), torch.optim.SGD(model.parameters(), lr=0.0))
    for weight in (1.0, 0.25):
        lam.fill_(weight)
        assert torch.equal(step(*batch()), other.loss(*batch(), objectives.Weighted(weight)).detach())


class OnDevice(TorchDispatchMode):
    """Every tensor lies on the device, none is copied there or back, and no shape hangs on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        self.seen.append(name)
        assert torch.Tag.data_dependent_output not in func.tags, f"{name} waits for a number"
        assert torch.Tag.dynamic_output_shape not in func.tags, f"{name} allocates by data"
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor):
                assert value.is_meta, f"{name} touches a tensor on {value.device}"
        return result


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(
    "objective",
    [
        objectives.Weighted(torch.tensor(0.5, device="meta"), per_dimension=True),
        objectives.Convex(torch.tensor(0.5, device="meta")),
        objectives.SemiSupervised(objectives.Weighted(0.5)),
    ],
    ids=lambda objective: type(objective).__name__,
)
@pytest.mark.parametrize("mode", ["store", "recompute"])
def test_nothing_on_the_way_waits_or_copies_from_the_host(mode: str, objective: Any, clip: float | None) -> None:
    """On tensors without values, which raise where one is read, and of which none may meet a tensor of the host."""
    model = images_model(mode).to("meta")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=True)
    optimizer.param_groups[0]["lr"] = torch.empty((), device="meta")
    step = GraphedStep(model, objective, optimizer, max_norm=clip)
    x, y = (value.to("meta") for value in batch())
    saves_memory = mock.patch.object(memory, "_holds_nothing", return_value=False)
    supported = mock.patch("torch.optim.adam._get_capturable_supported_devices", return_value=["meta"])
    with saves_memory, supported, draws_nothing():
        step.run(x, y)  # states of the optimizer are made, some of them on the host
        with OnDevice() as record:
            loss = step.run(x, y)
    assert loss.shape == () and len(record.seen) > 300


def test_the_record_finds_what_it_should() -> None:
    x = torch.empty(3, device="meta")
    with OnDevice(), pytest.raises(AssertionError, match="touches a tensor on cpu"):
        x.copy_(torch.zeros(3))
    with OnDevice(), pytest.raises((AssertionError, RuntimeError)):
        x.sum().item()
    # how many elements a mask picks is a value: a meta tensor has none, and PyTorch has no kernel for it
    with OnDevice(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        x[x > 0]


class Graph:
    """Stands for torch.cuda.CUDAGraph: what was called while it was captured is called again."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def replay(self) -> None:
        self.again()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """CPU tensors on the way of a device: streams and graphs are stand-ins, a replay runs the step on its tensors."""
    Graph.made = 0
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(graphs, "_on_device", lambda device: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: mock.MagicMock())
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)

    def captured(self: GraphedStep, *places: Tensor) -> Tensor:
        loss = torch.zeros(())
        Graph.again = lambda graph: loss.copy_(self.run(*places))
        return loss

    monkeypatch.setattr(GraphedStep, "_record", captured)
    return Graph


def adam(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Its capturable step on the CPU."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, capturable=True, **options)
    optimizer.defaults["capturable"] = True
    return optimizer


@pytest.fixture
def capturable() -> Any:
    with mock.patch("torch.optim.adam._get_capturable_supported_devices", return_value=["cpu"]):
        yield


def test_every_call_trains_captured_or_not(pretended: type[Graph], capturable: None) -> None:
    objective = objectives.Weighted(1.0, per_dimension=True)
    model, other = images_model(), images_model()
    optimizer, theirs = adam(model), adam(other)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(one, 0.9) for one in (optimizer, theirs)]
    step, plain = GraphedStep(model, objective, optimizer), GraphedStep.__new__(GraphedStep)
    plain.__dict__ |= {"model": other, "objective": objective, "optimizer": theirs, "autocast": None}
    theirs.param_groups[0]["lr"] = torch.tensor(1e-2)
    plain.__dict__ |= {"max_norm": None, "device": torch.device("cpu")}
    sizes = [4, 4, 4, 4, 4, 3, 4, 3, 4]
    for at, size in enumerate(sizes):
        x, y = batch(size)
        assert torch.equal(step(x, y), plain.run(x, y)), at
        for schedule in schedules:
            schedule.step()
    assert pretended.made == 1  # the batch of another size came twice only
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_what_a_graph_takes_for_granted_has_it_captured_anew(pretended: type[Graph], capturable: None) -> None:
    model = images_model()
    optimizer = adam(model)
    step = GraphedStep(model, objectives.Weighted(1.0), optimizer)

    def calls() -> int:
        before = pretended.made
        for _ in range(5):
            step(*batch())
        return pretended.made - before

    assert calls() == 1
    optimizer.param_groups[0]["lr"] = 5e-3  # a number in place of the tensor is no change
    assert calls() == 0 and isinstance(optimizer.param_groups[0]["lr"], Tensor)
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(5e-3)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    assert calls() == 1
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert calls() == 1
    model.head.requires_grad_(False)
    assert calls() == 1
    model.flow.eval()
    assert calls() == 1
    step.objective = objectives.Weighted(0.5)
    assert calls() == 1
    step.max_norm = 0.5
    assert calls() == 1
    optimizer.state.clear()  # a graph would write on into the memory of the old one
    assert calls() == 1
    state = optimizer.state[next(model.flow.parameters())]
    state["exp_avg"] = state["exp_avg"].clone()
    assert calls() == 1
    optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][:-2]
    assert calls() == 1
    place, name = next((m, name) for m in model.modules() for name in m._buffers)
    setattr(place, name, getattr(place, name).clone())
    assert calls() == 1
    assert len(step._graphs) == 1  # those of before are forgotten


def test_rates_of_several_groups(pretended: type[Graph], capturable: None) -> None:
    """Groups that change places, join, or share a tensor keep the rates that a step without a graph would have."""
    model = images_model()
    first, second, third = list(model.parameters())[:3]
    optimizer = torch.optim.Adam(
        [{"params": [p], "lr": lr} for p, lr in ((first, 0.1), (second, 0.2))], capturable=True
    )
    step = GraphedStep(model, objectives.Weighted(1.0), optimizer)

    def rates() -> list[float]:
        before = pretended.made
        for _ in range(5):
            step(*batch())
        assert pretended.made == before + 1
        assert [group["lr"] is rate for group, rate in zip(optimizer.param_groups, step._rates, strict=True)]
        return [round(float(group["lr"]), 3) for group in optimizer.param_groups]

    assert rates() == [0.1, 0.2]
    optimizer.param_groups.reverse()
    assert rates() == [0.2, 0.1]
    optimizer.add_param_group({"params": [third], "lr": 0.3})
    assert rates() == [0.2, 0.1, 0.3]
    optimizer.param_groups[2]["lr"] = optimizer.param_groups[0]["lr"]
    assert rates() == [0.2, 0.1, 0.2]
    optimizer.param_groups[0]["lr"] = 0.5
    assert rates() == [0.5, 0.1, 0.2]


def test_kinds_of_steps_are_counted_up_to_a_number(pretended: type[Graph], capturable: None) -> None:
    model = images_model()
    optimizer = adam(model)
    step = GraphedStep(model, objectives.Weighted(1.0), optimizer)
    for at in range(70):  # as schedules of betas change them
        optimizer.param_groups[0]["betas"] = (0.5 + at / 200, 0.999)
        step(*batch(1))
    assert len(step._seen) < 70


def test_shapes_beyond_the_most_are_not_captured(pretended: type[Graph], capturable: None) -> None:
    model = images_model()
    step = GraphedStep(model, objectives.Weighted(1.0), adam(model))
    for size in range(1, 7):
        for _ in range(4):
            step(*batch(size))
    assert pretended.made == 4


def test_what_cannot_be_captured_is_refused(pretended: type[Graph], capturable: None) -> None:
    objective = objectives.Weighted(1.0)
    model = images_model("invert")
    with pytest.raises(ValueError, match="memory: got 'invert', expected 'store' or 'recompute'"):
        GraphedStep(model, objective, adam(model))
    model = images_model()
    with pytest.raises(ValueError, match="optimizer: got SGD without capturable=True, expected an optimizer"):
        GraphedStep(model, objective, torch.optim.SGD(model.parameters(), lr=0.1))

    def noisy(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Conv2d(inputs, outputs, 1))

    model = images_model("recompute", noisy)
    step = GraphedStep(model, objective, adam(model))
    for _ in range(3):
        step(*batch())
    with pytest.raises(RuntimeError, match="memory: got 'recompute' with networks that draw random numbers"):
        step(*batch())


def test_wrong_arguments_are_named() -> None:
    model = images_model()
    objective, optimizer = objectives.Weighted(1.0), torch.optim.Adam(model.parameters())
    with pytest.raises(TypeError, match="model: got Linear, expected a module with loss"):
        GraphedStep(nn.Linear(2, 2), objective, optimizer)
    with pytest.raises(TypeError, match=r"objective: got float, expected one of hybridkern\.hybrid\.objectives"):
        GraphedStep(model, 1.0, optimizer)
    with pytest.raises(TypeError, match=r"optimizer: got str, expected a torch\.optim\.Optimizer"):
        GraphedStep(model, objective, "adam")
    with pytest.raises(ValueError, match=r"autocast: got torch.float16, expected torch.bfloat16 or None"):
        GraphedStep(model, objective, optimizer, autocast=torch.float16)
    with pytest.raises(ValueError, match="max_norm: got 0"):
        GraphedStep(model, objective, optimizer, max_norm=0)
    with pytest.raises(ValueError, match="optimizer: got parameters of which the model has none"):
        GraphedStep(images_model(), objective, optimizer)
    step = GraphedStep(model, objective, optimizer)
    with pytest.raises(TypeError, match="x: got list, expected a tensor"):
        step([1.0], batch()[1])
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="autocast: a context is active"):
        step(*batch())
    mixed = images_model()
    mixed.head.to("meta")
    with pytest.raises(ValueError, match="model: got tensors on cpu, meta, expected all of them on one device"):
        GraphedStep(mixed, objective, torch.optim.Adam(mixed.parameters()))
