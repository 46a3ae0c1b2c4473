"""The state of ``optim.Adamax``: read in every step, and refused where it does not fit its parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridkern import ops, optim
from hybridkern.ops.adamax.operator import _with_new_versions
from tests.ops import inputs

Change = Callable[[torch.optim.Optimizer, Tensor], Any]


def started(cls: type[torch.optim.Optimizer], shape: tuple[int, ...] = (5, 7)) -> tuple[torch.optim.Optimizer, Tensor]:
    """An optimizer after one step of one parameter."""
    param = torch.nn.Parameter(inputs.normal(0, shape, torch.float32))
    optimizer = cls([param], lr=0.1)
    param.grad = inputs.normal(1, shape, torch.float32)
    optimizer.step()
    return optimizer, param


def replace(name: str, make: Callable[[Tensor], Any]) -> Change:
    """Puts another value in the place of an entry of the state."""

    def change(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
        optimizer.state[param][name] = make(optimizer.state[param][name])

    return change


def double(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    param.data, param.grad = param.data.double(), param.grad.double()


def grow(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    param.data = torch.ones(2000, 100)
    param.grad = torch.ones_like(param)


def load_smaller(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    """What a crafted or a wrong checkpoint holds."""
    smaller, _ = started(type(optimizer), (2, 3))
    optimizer.load_state_dict(smaller.state_dict())


REFUSED = {
    "double": (double, TypeError, "exp_avg of parameter 0: got dtype torch.float32, expected torch.float64"),
    "grown": (grow, ValueError, r"exp_avg of parameter 0: got shape \(5, 7\), expected \(2000, 100\)"),
    "smaller model": (load_smaller, ValueError, r"exp_avg of parameter 0: got shape \(2, 3\), expected \(5, 7\)"),
    "one row": (replace("exp_inf", lambda v: v[:1].clone()), ValueError, r"exp_inf of parameter 0: got shape \(1, 7\)"),
    "no dimensions": (replace("exp_inf", lambda v: v.sum()), ValueError, r"exp_inf of parameter 0: got shape \(\)"),
    "missing": (lambda o, p: o.state[p].pop("exp_inf"), TypeError, "exp_inf of parameter 0: got nothing, expected a"),
    "a list": (replace("exp_avg", Tensor.tolist), TypeError, "exp_avg of parameter 0: got list, expected a torch"),
    "sparse": (replace("exp_avg", Tensor.to_sparse), TypeError, "exp_avg of parameter 0: got layout torch.sparse_coo"),
    "meta": (replace("exp_avg", lambda v: v.to("meta")), ValueError, "exp_avg of parameter 0: got device meta, expect"),
    "half": (replace("exp_avg", Tensor.half), TypeError, "exp_avg of parameter 0: got dtype torch.float16, expected"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_state_that_does_not_fit_is_refused_and_nothing_is_written(what: str) -> None:
    change, error, text = REFUSED[what]
    optimizer, param = started(optim.Adamax)
    change(optimizer, param)
    before = param.detach().clone()
    with pytest.raises(error, match=text):
        optimizer.step()
    assert torch.equal(param, before)


def test_freed_memory_is_refused() -> None:
    optimizer, param = started(optim.Adamax)
    optimizer.state[param]["exp_avg"].untyped_storage().resize_(8)
    lists = [param], [param.grad], [optimizer.state[param]["exp_avg"]], [torch.ones(5, 7)]
    with torch.no_grad(), pytest.raises(ValueError, match="exp_avgs: got a storage of 8 bytes, expected 140 bytes"):
        torch.ops.hybridkern.adamax_step(*lists, 0.1, 0.9, 0.99, 1e-8, 0.0)


def permuted(value: Tensor) -> Tensor:
    return value.t().contiguous().t()


def windowed(value: Tensor) -> Tensor:
    return torch.cat((value, value + 1), 1)[:, : value.shape[1]]


def channels_last(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    param.data = permuted(param.data)
    param.grad = permuted(param.grad)


def load_later(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    other, _ = started(type(optimizer))
    other.step()
    optimizer.load_state_dict(other.state_dict())


def later(optimizer: torch.optim.Optimizer, param: Tensor) -> None:
    optimizer.state[param]["step"].fill_(7)


FOLLOWED = {
    "zeros": replace("exp_avg", torch.zeros_like),
    "another order": replace("exp_avg", lambda v: permuted(v * 2)),
    "a window": replace("exp_inf", lambda v: windowed(v * 2)),
    "double exp_inf": replace("exp_inf", Tensor.double),
    "another count": replace("step", lambda v: torch.tensor(5.0)),
    "count in place": later,
    "memory format": channels_last,
    "loaded": load_later,
    "gradient in another order": lambda o, p: setattr(p, "grad", permuted(p.grad)),
    "gradient expanded": lambda o, p: setattr(p, "grad", torch.ones(1).expand(5, 7)),
    "parameter with gaps": lambda o, p: setattr(p, "data", windowed(p.data)),
    "rate": lambda o, p: o.param_groups[0].update(lr=0.5),
    "negative decay": lambda o, p: o.param_groups[0].update(weight_decay=-0.1),
}


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_is_changed_between_steps_is_followed_as_pytorch_does(what: str) -> None:
    results = []
    for cls in (optim.Adamax, torch.optim.Adamax):
        optimizer, param = started(cls)
        FOLLOWED[what](optimizer, param)
        for _ in range(2):
            optimizer.step()
        state = optimizer.state[param]
        results.append((param.detach(), state["exp_avg"], state["exp_inf"], state["step"]))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7, check_stride=False)


def test_parameters_that_share_memory_step_as_pytorchs() -> None:
    """Two parameters over one memory, and one state for both: the fused kernel would run their blocks in any order."""
    results = []
    for cls in (optim.Adamax, torch.optim.Adamax):
        whole = inputs.normal(0, (40,), torch.float32)
        params = [torch.nn.Parameter(whole[:30]), torch.nn.Parameter(whole[10:])]
        optimizer = cls(params, lr=0.1)
        for param in params:
            param.grad = inputs.normal(1, tuple(param.shape), torch.float32)
        optimizer.step()
        optimizer.state[params[1]]["exp_avg"] = optimizer.state[params[0]]["exp_avg"]
        optimizer.step()
        results.append(whole)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_parameters_of_one_memory_that_lie_apart_are_fused() -> None:
    whole = inputs.normal(0, (40,), torch.float32)
    params = [torch.nn.Parameter(whole[:20]), torch.nn.Parameter(whole[20:])]
    lists = [params, *([torch.ones(20), torch.ones(20)] for _ in range(3))]
    with torch.no_grad():
        torch.ops.hybridkern.adamax_step(*lists, 0.1, 0.9, 0.99, 1e-8, 0.0)


def test_hooks_run_once_where_pytorchs_step_runs() -> None:
    started(torch.optim.Adamax)  # from here on PyTorch's step runs hooks
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer, seen = optim.Adamax([param], maximize=True), []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    optimizer.step()
    assert seen == [1]


@pytest.mark.parametrize("native", [True, False])
def test_versions_are_raised(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backward pass that saved the old parameter raises, as after PyTorch's class."""
    param = torch.nn.Parameter(torch.ones(4))
    others = [torch.ones(4) for _ in range(3)]
    versions = [value._version for value in (param, *others)]
    cube = (param**3).sum()
    lists = [[value] for value in (param, *others)]
    with torch.no_grad():
        if native:
            ops.adamax_step(*lists, rate=0.1)
        else:
            keys = torch._C._dispatch_keys(param)
            _with_new_versions(keys, *lists, 0.1, 0.9, 0.999, 1e-8, 0.0)
    raised = [value._version > before for value, before in zip((param, *others), versions, strict=True)]
    assert raised == [True, False, True, True]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cube.backward()
