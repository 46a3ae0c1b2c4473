"""Ordered lists of backends, on devices there are and on one that is pretended: who serves, and what an error says."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

import hybridkern
from hybridkern import _env, ops
from hybridkern.ops import _gpu
from hybridkern.ops._backends import choose, set_default, state
from hybridkern.ops._operator import OPERATORS
from tests.ops.test_backends import python

F32, BF16 = torch.float32, torch.bfloat16
NAMES = list(OPERATORS)


class OnGpu(NamedTuple):
    """What a choice looks at, of a tensor on a CUDA device."""

    dtype: torch.dtype = F32
    device: torch.device = torch.device("cuda")
    is_cpu: bool = False
    is_cuda: bool = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> OnGpu:
    """A machine with a GPU, Triton, the C++ kernels, and a CUDA library that serves affine_coupling alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_gpu.state, "native", frozenset({"affine_coupling"}))
    monkeypatch.setattr(_gpu.state, "has_triton", True)
    monkeypatch.setattr(state, "has_cpp", True)
    monkeypatch.setattr(state, "default", ())
    return OnGpu()


def chosen(name: str, x: object, *names: str) -> str:
    with hybridkern.use_backend(*names or ("auto",)):
        return choose(OPERATORS[name], x)


def serves(name: str, backend: str) -> bool:
    """Whether the pretended GPU has kernels of an operator, or of that of which it is made."""
    whole = OPERATORS[name].made_of or name
    return whole == "affine_coupling" if backend == "cuda" else OPERATORS[whole].triton


@pytest.mark.parametrize("name", NAMES)
def test_automatic_choice(gpu: OnGpu, name: str) -> None:
    """The CUDA library where it has the operator, then Triton, then the formulas."""
    best = [backend for backend in ("cuda", "triton") if serves(name, backend)] + ["reference"]
    assert chosen(name, gpu) == best[0]
    assert chosen(name, gpu, "auto") == best[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("names", [("cuda", "triton"), ("triton", "cuda"), ("cpp", "cuda"), ("cuda",), ("triton",)])
def test_first_that_serves_or_an_error_of_them_all(gpu: OnGpu, name: str, names: tuple[str, ...]) -> None:
    able = [backend for backend in names if backend != "cpp" and serves(name, backend)]  # x is not on a CPU
    if able:
        assert chosen(name, gpu, *names) == able[0]
        return
    with pytest.raises(RuntimeError) as caught:
        chosen(name, gpu, *names)
    for backend in names:
        reason = "serves CPU tensors only, but x is on cuda" if backend == "cpp" else f"has no kernel of {name}"
        assert f"backend '{backend}' was chosen and {reason}" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_last_resorts(gpu: OnGpu, name: str) -> None:
    """``reference`` and ``auto`` at the end of a list serve what the others do not."""
    assert chosen(name, gpu, "cpp", "reference") == "reference"
    assert chosen(name, gpu, "cpp", "auto") == chosen(name, gpu)


@pytest.mark.parametrize("name", NAMES)
def test_cpu_tensors(gpu: OnGpu, name: str) -> None:
    """What a GPU alone serves is passed over; so are dtypes without a kernel."""
    for dtype in (F32, BF16):
        x = torch.zeros(2, dtype=dtype)
        here = dtype in OPERATORS[name].dtypes
        assert chosen(name, x) == ("cpp" if here else "reference")
        assert chosen(name, x, "cuda", "triton", "reference", "cpp") == "reference"
        if here:
            assert chosen(name, x, "cuda", "cpp", "reference") == "cpp"
            continue
        with pytest.raises(RuntimeError, match=f"'cpp' was chosen and has no kernel of {name}") as it:
            chosen(name, x, "triton", "cpp")
        assert "backend 'triton' was chosen and serves CUDA and ROCm tensors, but x is on cpu" in str(it.value)


def test_under_transforms_the_formulas_alone(gpu: OnGpu) -> None:
    seen = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(choose(OPERATORS["gaussian_log_prob"], x))
        return x.sum()

    with hybridkern.use_backend("cpp"):
        torch.func.grad(function)(torch.zeros(3))
    assert seen == ["reference"]


def test_nothing_available_is_an_error_of_them_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_gpu.state, "native", frozenset())
    monkeypatch.setattr(_gpu.state, "interpreted", False)
    with pytest.raises(RuntimeError) as caught, hybridkern.use_backend("cuda", "triton"):
        pass
    reasons = hybridkern.backends()
    for name in ("cuda", "triton"):
        assert f"backend '{name}' is not available: {reasons[name].reason}" in str(caught.value)


@pytest.mark.parametrize("names", [(), ("fortran",), ("reference", "Cpp"), ("auto", "")])
def test_names_that_are_none(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^backend: got .+, expected 'auto' or one of 'reference', 'cpp'"):  # noqa: SIM117
        with hybridkern.use_backend(*names):
            pass


SHOW = "import hybridkern; from hybridkern.ops._backends import state; print(state.names())"


def test_environment() -> None:
    done = python(SHOW, HYBRIDKERN_BACKEND=" Reference , cuda ")
    assert (done.stdout.strip(), done.returncode) == ("('reference', 'cuda')", 0), done.stderr


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("cuda,reference", ("cuda", "reference")),
        ("auto", ()),
        (" auto", ()),
        ("reference ,auto", ("reference", "auto")),
    ],
)
def test_default(value: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "default", state.default)
    monkeypatch.setattr(_env, "BACKEND", value)
    set_default()
    assert state.default == names


@pytest.mark.parametrize(
    ("value", "error"), [("fortran", ValueError), ("cuda,,cpp", ValueError), ("cuda", RuntimeError)]
)
def test_wrong_default_changes_nothing(value: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_gpu.state, "native", frozenset())
    monkeypatch.setattr(_env, "BACKEND", value)
    before = state.default
    with pytest.raises(error, match=f"^HYBRIDKERN_BACKEND={value}: backend"):
        set_default()
    assert state.default == before


def test_environment_of_which_none_can_be_used() -> None:
    done = python(SHOW, HYBRIDKERN_BACKEND="cpp, cuda", HYBRIDKERN_NO_EXT="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode != 0
    assert all(f"backend '{name}' is not available: " in done.stderr for name in ("cpp", "cuda"))
    assert "HYBRIDKERN_BACKEND=cpp, cuda: " in done.stderr


def test_environment_is_the_default_that_a_block_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "default", ("reference",))
    assert state.names() == ("reference",)
    with hybridkern.use_backend("auto"):
        assert state.names() == ()


def test_an_operator_raises_what_the_choice_raises(backend: str) -> None:
    """The error comes from the operator that is called, before anything is computed."""
    if backend != "reference":
        x = torch.zeros(2, 3, device="meta")
        with pytest.raises(RuntimeError, match=f"backend '{backend}' was chosen and serves"):
            ops.gaussian_log_prob(x)
