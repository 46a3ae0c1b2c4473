"""Acceleration changes classes of one instance and nothing else, and undoing it leaves no trace."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import normflows as nf
import pytest
import torch
from nflows import transforms
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hybridkern.integrations import accelerate, accelerated, undo
from tests.integrations import freia_cases, nflows_cases, normflows_cases, zuko_cases
from tests.integrations.cases import Case, inputs

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "normflows": normflows_cases.CASES["glow"],
    "nflows": nflows_cases.CASES["glow"],
    "freia": freia_cases.CASES["images"],
    "zuko": zuko_cases.CASES["nsf of a context"],
}
# FrEIA's layers hold lambdas and local functions, which do not pickle, but for coupling blocks with this clamp.
PICKLED = {"nflows": CASES["nflows"], "freia": freia_cases.CASES["glow tanh alone"], "zuko": CASES["zuko"]}
# Compiling takes a second for every few layers.
COMPILED = {
    "normflows": normflows_cases.CASES["one block"],
    "nflows": nflows_cases.CASES["halves"],
    "freia": freia_cases.CASES["glow tanh alone"],
    "zuko": zuko_cases.CASES["nsf of a context"],
    "splines": nflows_cases.CASES["spline unconditional"],
}
pytestmark = pytest.mark.filterwarnings("ignore:torch.lu is deprecated", "ignore:torch.triangular_solve is deprecated")


def built(case: Case) -> nn.Module:
    """A model whose actnorm is initialized."""
    torch.manual_seed(0)
    model = case.build()
    with torch.no_grad():
        case.to_latent(model, *inputs(case, torch.float32))
    return model


def state(model: nn.Module) -> list[tuple[str, type, set[str], list[int]]]:
    """Every module's class, names of attributes, and the tensors it holds, by identity."""
    return [
        (path, type(m), set(m.__dict__), [id(t) for t in (*m._parameters.values(), *m._buffers.values())])
        for path, m in model.named_modules()
    ]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_undo_restores_exactly(case: Case) -> None:
    model = built(case)
    given = inputs(case, torch.float32)
    before, names = state(model), list(model.state_dict())
    expected, _ = case.to_latent(model, *given)
    report = accelerate(model)
    case.to_latent(model, *given)
    assert state(model) != before
    assert list(model.state_dict()) == names
    assert [entry[3] for entry in state(model)] == [entry[3] for entry in before]
    undo(model)
    assert state(model) == before
    got, _ = case.to_latent(model, *given)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert {entry.path for entry in report.replaced} <= {path for path, *_ in before}
    undo(model)  # nothing to do
    assert state(model) == before


def test_context_manager_undoes_after_an_error(case: Case) -> None:
    model = built(case)
    before = state(model)

    def fail() -> None:
        with accelerated(model) as report:
            assert report.replaced
            assert state(model) != before
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert state(model) == before


def test_other_instances_are_left(case: Case) -> None:
    first, second = built(case), built(case)
    before = state(second)
    accelerate(first)
    assert state(second) == before


def test_optimizer_made_before(case: Case) -> None:
    model = built(case)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    accelerate(model)
    given = inputs(case, torch.float32)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = case.loss(model, *given)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1


def test_copies_are_accelerated_too(case: Case) -> None:
    model = built(case)
    accelerate(model)
    given = inputs(case, torch.float32)
    log_det = case.to_latent(model, *given)[1]
    other = copy.deepcopy(model)
    assert [kind for _, kind, *_ in state(other)] == [kind for _, kind, *_ in state(model)]
    assert torch.equal(case.to_latent(other, *given)[1], log_det)
    undo(other)
    assert any(kind is not other for (_, kind, *_), (_, other, *_) in zip(state(model), state(other), strict=True))


@pytest.mark.parametrize("library", PICKLED)
def test_pickles_into_another_process(library: str, tmp_path: Path) -> None:
    case = PICKLED[library]
    model = built(case)
    accelerate(model)
    given = inputs(case, torch.float32)
    _, log_det = case.to_latent(model, *given)
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    here = pickle.loads((tmp_path / "model").read_bytes())
    assert torch.equal(case.to_latent(here, *given)[1], log_det)
    code = (
        "import pickle, sys; model = pickle.load(open(sys.argv[1], 'rb')); "
        "from hybridkern.integrations import undo; undo(model); "
        "print({type(m).__module__.split('.')[0] for m in model.modules()})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "hybridkern" not in done.stdout


@pytest.mark.parametrize("library", COMPILED)
def test_compiles(library: str) -> None:
    case = COMPILED[library]
    model = built(case)
    accelerate(model)
    given = inputs(case, torch.float32)
    latents, log_det = case.to_latent(model, *given)
    compiled = torch.compile(lambda *values: case.to_latent(model, *values), backend="aot_eager")
    got, got_log_det = compiled(*given)
    for part, expected in zip((*got, got_log_det), (*latents, log_det), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


class _Loss(nn.Module):
    def __init__(self, case: Case, model: nn.Module) -> None:
        super().__init__()
        self.case, self.model = case, model

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return self.case.loss(self.model, *given)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_data_parallel(case: Case) -> None:
    model = built(case)
    accelerate(model)
    given = inputs(case, torch.float32)
    case.loss(model, *given).backward()
    expected = [p.grad for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    parallel = nn.parallel.DistributedDataParallel(_Loss(case, model))
    parallel(*given).backward()
    for param, grad in zip((p for p in model.parameters() if p.requires_grad), expected, strict=True):
        torch.testing.assert_close(param.grad, grad)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("memory", [None, "recompute"])
def test_sharded_networks(memory: str | None) -> None:
    """FSDP puts the parameters of a network in place when it runs, and again when it runs anew."""
    torch.manual_seed(0)
    model: Any = nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 4]))
    accelerate(model, memory=memory)
    x = torch.randn(5, 4)
    model(x)[0].square().sum().backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model.flows[1].param_map, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model(x)[0].square().sum().backward()
    for param, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(param.grad.full_tensor(), grad)


def test_hooks_inside_still_see_every_layer() -> None:
    model: Any = built(CASES["normflows"])
    accelerate(model)
    block = model.flows[0][0]
    seen: list[str] = []
    for name, layer in (("coupling", block.flows[0].flows[1]), ("network", block.flows[0].flows[1].param_map)):
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    z = torch.randn(2, 24, 2, 2)
    block(z)
    assert seen == ["network", "coupling"]


def test_masks_loaded_after_acceleration() -> None:
    """The buffers that hold a mask are part of the state dict; what was read off them must follow."""

    def layer(mask: list[int]) -> transforms.AffineCouplingTransform:
        torch.manual_seed(0)
        return transforms.AffineCouplingTransform(mask, nflows_cases._residual)

    ours, theirs = layer([1, 0, 1, 0, 1, 0]), layer([1, 1, 0, 0, 1, 0])
    x = torch.randn(3, 6)
    accelerate(ours)
    ours(x)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


def test_layers_inside_a_module_of_the_users() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([nf.flows.AffineCoupling(nn.Linear(2, 4)), nf.flows.Permute(4)])

    report = accelerate(Mine())
    assert [entry.path for entry in report.replaced] == ["steps.0", "steps.1"]


def test_import_loads_no_library() -> None:
    code = (
        "import sys, hybridkern.integrations; "
        "print([name for name in ('normflows', 'nflows', 'FrEIA', 'zuko') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
