"""What waits for a device, or is made on the CPU: every place in the library, each with the reason why it may.

One list is read off the sources: calls that bring values to the host, and tensors made without saying where. The other
is what training steps really ask for, with tensors that say of themselves that they are on no CPU.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo  # before anything is exchanged in Tensor: it lists what Tensor has when it is imported
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hybridkern import flows
from hybridkern.flows import _later
from hybridkern.hybrid import HybridIDF, HybridModel, heads, objectives
from tests.flows.factories import FLOWS, data

PACKAGE = Path(__file__).resolve().parents[1] / "hybridkern"
TO_HOST = {"item", "tolist", "cpu", "numpy"}
MADE = {"tensor", "zeros", "ones", "full", "empty", "eye", "arange", "linspace", "rand", "randn", "randint", "randperm"}
MADE |= {"as_tensor", "from_numpy", "scalar_tensor", "logspace"}

ERROR = "the text of an error"
FIGURES = "figures that are reported; no training"
ON_CPU = "of CPU tensors alone"
BUILDING = "while a module is built"
TAKEN = "a model of another library is taken over"
STARTING = "initialization from data, once"
NO_TRAINING = ("lab", "_saved", "codec")  # which brings data to the device, files, and bytes
ALLOWED = {
    "_finite::check_finite_values: item": ERROR,
    "_finite::check_finite_values: tolist": ERROR,
    "_optim_state::begin: zeros": ON_CPU,
    "flows/_later::_to_host: empty": "the pinned memory for an answer that nobody waits for",
    "flows/check::_cause: item": ERROR,
    "flows/_form_state::FormedFlow.set_extra_state: tolist": "a checkpoint is loaded",
    "nets/masked::MADE.check_state: cpu": "a checkpoint is loaded",
    "_described::Described.set_extra_state: tolist": "a checkpoint is loaded",
    "flows/base::Flow._conditions: empty": "nothing but a size",
    "flows/memory::_check: tolist": "memory='invert' looks at its errors once a level",
    "flows/planar::Planar.initialize: item": STARTING,
    "flows/planar::Planar.initialize: randint": STARTING,
    "flows/planar::Planar.initialize: tolist": STARTING,
    "hybrid/_evidence::maximize: linspace": "a search, after training",
    "hybrid/_evidence::maximize: tolist": "a search, after training",
    "hybrid/heads/base::standardization: item": ERROR,
    "hybrid/heads/gaussian::Gaussian.initialize: item": ERROR,
    "hybrid/hybrid_idf::_check_probabilities: tolist": ERROR,
    "hybrid/hybrid_idf::_chunk_sizes: arange": BUILDING,
    "hybrid/metrics/_check::probabilities: tolist": ERROR,
    "hybrid/metrics/calibration::ece: item": FIGURES,
    "hybrid/metrics/detection::aupr: item": FIGURES,
    "hybrid/metrics/detection::auroc: item": FIGURES,
    "hybrid/metrics/detection::fpr95: item": FIGURES,
    "hybrid/metrics/likelihood::nll: item": FIGURES,
    "hybrid/metrics/selection::CoverageRisk.area: item": FIGURES,
    "hybrid/scores::code_bits: cpu": FIGURES,
    "hybrid/scores::code_bits: numpy": FIGURES,
    "hybrid/scores::code_bits: tensor": FIGURES,
    "hybrid/selective::SelectiveClassifier.coverage_risk: cpu": FIGURES,
    "hybrid/selective::SelectiveClassifier.coverage_risk: empty": FIGURES,
    "hybrid/selective::SelectiveClassifier.fit: cpu": FIGURES,
    "hybrid/selective::SelectiveClassifier.fit: item": FIGURES,
    "hybrid/selective::SelectiveClassifier.fit: zeros": FIGURES,
    "hybrid/vae/likelihoods::Bernoulli.log_prob: item": ERROR,
    "hybrid/vae/m2::M1M2._restored: zeros": BUILDING,
    "integrations/zuko/_plan::_sorted.add: tolist": TAKEN,
    "integrations/zuko/_plan::_sorted: tolist": TAKEN,
    "integrations/zuko/_plan::plan_of: cpu": TAKEN,
    "integrations/_made::_by_level: tolist": TAKEN,
    "integrations/_made::_level: cpu": TAKEN,
    "integrations/_made::levels_of: cpu": TAKEN,
    "integrations/_made::levels_of: tolist": TAKEN,
    "integrations/_features::arrange: tolist": TAKEN,
    "integrations/nflows/composite::_is_reversal: tolist": TAKEN,
    "lipschitz/power::norms: tolist": FIGURES,
    "nets/prediction::_fitted: item": STARTING,
    "nets/prediction::start_at_shift: item": STARTING,
    "ops/lipswish/sample::_arguments: full": "typical calls, for tests",
    "ops/rounding_coupling/sample::_with_beta: full": "typical calls, for tests",
    "optim::Adamax._counts: tensor": ON_CPU,
    "optim::Adamax._fused: tolist": ON_CPU,
    "transforms/dequantize::_check_values: item": ON_CPU,
    "transforms/lattice::check_integers: item": ERROR,
    "transforms/lattice::check_magnitude: item": "integer flows look at the first training batch, and in evaluation",
    "transforms/mixing::_permutation_matrices: eye": BUILDING,
    "transforms/mixing::_permutation_matrices: randperm": BUILDING,
    "transforms/permute::Permutation._check: arange": ON_CPU,
    "transforms/permute::Permutation._check: tolist": ERROR,
    "transforms/residual/fixed_point::solve: item": ERROR,
    "transforms/residual/series::Series.draw: rand": "how many terms are taken, which the host decides",
}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def places(source: str, module: str) -> Iterator[str]:
    """``module::function: call`` of each; constructors are left out, since modules are moved as a whole."""

    def visit(node: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = (*names, child.name)
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and "__init__" not in names:
                name, of = child.func.attr, child.func.value
                is_torch = isinstance(of, ast.Name) and of.id == "torch"
                placed = any(word.arg in ("device", None) for word in child.keywords)
                if (name in TO_HOST and not is_torch and not child.args) or (is_torch and name in MADE and not placed):
                    yield f"{module}::{'.'.join(names)}: {name}"
            yield from visit(child, inner)

    yield from visit(ast.parse(source), ())


def test_every_place_in_the_sources_has_its_reason() -> None:
    library = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in NO_TRAINING]
    found = {place for path in library for place in places(path.read_text(encoding="utf-8"), module_of(path))}
    found = {place for place in found if not place.startswith("hybrid/_logistic_normal::")}  # numbers, at import
    assert sorted(found - set(ALLOWED)) == [], "new: keep it off training paths, or give its reason"
    assert sorted(set(ALLOWED) - found) == [], "no longer there"


def test_places_are_found() -> None:
    code = "def f(x):\n    y = torch.zeros(3) + torch.ones(2, device=x.device)\n    return x.sum().item(), y.cpu()\n"
    assert list(places(code, "m")) == ["m::f: zeros", "m::f: item", "m::f: cpu"]


_VALUES = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "is_nonzero"}
# asked for in a training step after the first, by function
ASKED = {
    "flows/_replay::<genexpr>": "random states, which lie on the host on every device",
    "flows/memory::_check": "memory='invert' looks at its errors once a level",
}


class Waits(TorchDispatchMode):
    """The functions of the package that ask for a value, or for a shape that hangs on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _VALUES or by_mask:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        """Who asks."""
        own = [f for f in traceback.extract_stack() if f.filename.startswith(f"{PACKAGE}/")]
        self.found.add(f"{module_of(Path(own[-1].filename))}::{own[-1].name}" if own else "a test")

    def noting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """For what reads values without an operator."""

        def run(tensor: Tensor) -> Any:
            self.note()
            return method(tensor)

        return run


def waits(step: Callable[[], Tensor], before: int = 2) -> set[str]:
    """What a step asks for, with its backward pass, after ``before`` others, if its tensors lie on a device."""
    elsewhere = property(lambda tensor: False)
    unwaited = lambda flag: (flag.clone(), lambda: False)  # noqa: E731
    with mock.patch.object(Tensor, "is_cpu", elsewhere), mock.patch.object(_later, "_to_host", unwaited):
        for _ in range(before):
            step().backward()
        with Waits() as seen, mock.patch.object(Tensor, "tolist", seen.noting(Tensor.tolist)):
            step().backward()
    return seen.found


def test_what_waits_is_found() -> None:
    x = torch.ones(3, requires_grad=True)
    for step in (lambda: x[x > 0].sum(), lambda: x.sum() * float(x.detach().sum()), lambda: x.sum() * x.tolist()[0]):
        assert waits(step) == {"a test"}
    assert waits(lambda: x.sum()) == set()


@pytest.mark.parametrize("name", ["realnvp-2", "planar-5", "glow-2-levels", "glow-batchnorm", "glow-shuffle",
                                  "realnvp-images", "idf-4-parts", "idf-images-mixture"])  # fmt: skip
def test_flows(name: str) -> None:
    torch.manual_seed(0)
    flow = FLOWS[name]().train()
    x = data(flow, 4)
    assert waits(lambda: -flow.log_prob(x).mean()) == set()


@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_memory_modes(memory: str) -> None:
    flow = flows.Glow((3, 8, 8), levels=2, steps=2, hidden=4, memory=memory).train()
    x = data(flow, 4)
    assert waits(lambda: -flow.log_prob(x).mean()) == (set(ASKED) if memory == "invert" else {next(iter(ASKED))})


HEADS: dict[str, tuple[Callable[[], heads.Head], bool]] = {
    "categorical": (lambda: heads.Categorical(6, 2, hidden=(4,), dropout=0.1), True),
    "gaussian": (lambda: heads.Gaussian(6), False),
    "gaussian-by-input": (lambda: heads.Gaussian(6, noise="input"), False),
    "bayesian-linear": (lambda: heads.BayesianLinear(6, trainable=True), False),
    "bayesian-logistic": (lambda: heads.BayesianLogistic(6), True),
}


@pytest.mark.parametrize("rows", [4, 20])
@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str, rows: int) -> None:
    build, classes = HEADS[name]
    model = HybridModel(flows.RealNVP(6, layers=2, hidden=4), build()).train()
    x = torch.randn(rows, 6)
    y = torch.arange(rows) % 2 if classes else torch.randn(rows)
    assert waits(lambda: model.loss(x, y, objectives.Joint())) == set()


def test_semi_supervised() -> None:
    model = HybridModel(flows.RealNVP(6, layers=2, hidden=4), heads.Categorical(6, 3)).train()
    objective = objectives.SemiSupervised(objectives.Weighted(0.5), entropy_weight=0.7)
    x, y = torch.randn(4, 6), torch.tensor([0, -1, 2, -1])
    assert waits(lambda: model.loss(x, y, objective)) == set()


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
def test_hybrid_idf(lattice: str) -> None:
    model = HybridIDF([lambda: nn.Linear(3, 3)], nn.Linear(6, 3), 2, D=6, lattice=lattice).train()
    x, y = torch.randint(0, 9, (4, 6)).float(), torch.arange(4) % 3
    assert waits(lambda: model(x, y)) == set()
