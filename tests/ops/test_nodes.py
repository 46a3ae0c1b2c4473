"""The C++ autograd nodes: the same bits as the Python Functions, and calls that they hand back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from hybridkern import HybridIDF, ops
from hybridkern._extension import nodes
from hybridkern.ops._autograd import python_functions
from hybridkern.ops.affine_coupling.form import CouplingForm
from tests.ops import inputs
from tests.ops.samples import SAMPLES, a_shape, assert_same_bits, run

pytestmark = pytest.mark.skipif(nodes.module is None, reason=nodes.reason)


SERVED = [(name, dtype) for name, sample in SAMPLES.items() for dtype in sample.dtypes]


@pytest.mark.parametrize(("name", "dtype"), SERVED, ids=str)
def test_nodes_and_python_functions_agree_to_the_bit(name: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[name]
    args = sample.arguments(a_shape(sample, (3, 4, 5), (3, 4), (3, 4, 5, 2)), dtype)
    got = run(sample.function, args)
    with python_functions():
        expected = run(sample.function, args)
    assert_same_bits(got, expected)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("beta", [None, 1.75])
def test_rounding_coupling_agrees(beta: float | None, inverse: bool) -> None:
    args = {"x": inputs.normal(0, (3, 4), torch.float32), "t": inputs.normal(1, (3, 4), torch.bfloat16)}

    def function(x, t):
        return (ops.rounding_coupling(x, t, beta=beta, inverse=inverse),)

    got = run(function, args)
    with python_functions():
        assert_same_bits(got, run(function, args))


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
@pytest.mark.parametrize("parts", ["z", "log_p", "both"])
def test_training_step_of_hybrid_idf_agrees(lattice: str, parts: str) -> None:
    """Halves, prior and joined result, with gradients that flow back through one output or both."""

    def step() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = HybridIDF([lambda: torch.nn.Linear(4, 4)], torch.nn.Identity(), 3, D=8, lattice=lattice)
        with torch.no_grad():
            model.beta.fill_(1.3)
        x = torch.randint(0, 17, (5, 8)).float()
        z = model.f(x)
        log_p = model.log_prior(z)
        joined = model.f(x)
        loss = {"z": z.sin().sum(), "log_p": log_p.sum(), "both": z.sin().sum() + log_p.sum()}[parts]
        (loss + joined.cos().sum()).backward()
        return [z, log_p, joined, *(p.grad for p in model.parameters() if p.grad is not None)]

    got = step()
    with python_functions():
        expected = step()
    assert len(got) == len(expected) > 5
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.equal(mine, theirs)


def _coupling(x: torch.Tensor) -> torch.Tensor:
    return ops.affine_coupling(x, torch.cat((x, x), 1))[0]


def test_ordinary_tensors_get_a_node() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    assert "Affine" in _coupling(x).grad_fn.name()
    assert _coupling(x).grad_fn.name() != "AffineCouplingBackward"
    with python_functions():
        assert _coupling(x).grad_fn.name() == "AffineCouplingBackward"


class Subclass(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"seen {function}")


def test_subclasses_dispatch_modes_and_transforms_are_handed_back() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    spec = CouplingForm("none").spec(False)
    params = torch.randn(2, 3)  # the form of code 0 has no scale
    assert nodes.module.affine_coupling(x, params, None, *spec) is not None
    wrapped = torch.Tensor._make_subclass(Subclass, params)
    assert nodes.module.affine_coupling(x, wrapped, None, *spec) is None
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert nodes.module.affine_coupling(x, params, None, *spec) is None
    seen = []

    def inside(value: torch.Tensor) -> torch.Tensor:
        seen.append(nodes.module.affine_coupling(value, params, None, *spec))
        return value.sum()

    torch.func.grad(inside)(x.detach())
    assert seen == [None]
    assert nodes.module.affine_coupling(x.to("meta"), params.to("meta"), None, *spec) is None


def test_saved_tensors_are_freed_after_backward_and_say_so() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    y = _coupling(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_input_changed_in_place_is_an_error() -> None:
    """``exp`` saves ``x``: a later write to it must not pass unseen."""
    x = torch.randn(2, 3)
    params = torch.randn(2, 6, requires_grad=True)
    y, _ = ops.affine_coupling(x, params, form="exp")
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_kept_output_is_no_reference_cycle() -> None:
    """``glow`` saves its own output: what its node holds must still go when the last tensor of the graph goes."""
    params = torch.randn(2, 6, requires_grad=True)
    held = weakref.ref(params)
    gc.disable()
    try:
        y, log_det = ops.affine_coupling(torch.randn(2, 3), params, form="glow")
        del params
        assert held() is not None
        del y, log_det
        assert held() is None
    finally:
        gc.enable()


class _Subclass(torch.Tensor):
    """As those of torchvision: an ordinary tensor with a name of its own."""


@pytest.mark.parametrize(
    "name", ["affine_coupling.additive", "affine_coupling_actnorm.nflows", "rational_quadratic_spline.nflows"]
)
def test_log_determinants_of_subclasses_may_be_added_to(name: str) -> None:
    """The same class and bits as those of tensors, and no view of something that nobody else has."""
    sample = SAMPLES[name]
    args = sample.arguments((3, 4), torch.float32)
    found = []
    for kind in (torch.Tensor, _Subclass):

        def function(x, *others, kind=kind):
            y, log_det = sample.function(x.as_subclass(kind), *others)
            assert type(y) is type(log_det) is kind
            log_det += 1
            return y.as_subclass(torch.Tensor), log_det.as_subclass(torch.Tensor)

        found.append(run(function, args))
    assert_same_bits(*found)
