"""Flows under ``torch.func`` as programs use it: gradients of each example, and ensembles, in training mode too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from hybridkern import flows
from tests.derivatives.flows import moved
from tests.derivatives.subject import MODES, close, mode
from tests.flows.factories import LogProb, data

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "RealNVP": lambda: flows.RealNVP(4, layers=2, hidden=(3,)),
    "RealNVP images": lambda: flows.RealNVP((1, 4, 4), layers=2, hidden=2, levels=1),
    "Planar": lambda: flows.Planar(3, layers=2),
    "Glow": lambda: flows.Glow((1, 4, 4), levels=1, steps=2, hidden=2),
    "Glow that recomputes": lambda: flows.Glow((1, 4, 4), levels=2, steps=1, hidden=2, memory="recompute"),
    "Glow that inverts": lambda: flows.Glow((1, 4, 4), levels=1, steps=2, hidden=2, net="highway", memory="invert"),
    "IDF": lambda: flows.IDF(4, layers=1, parts=2, hidden=(3,)),
    "IDF images": lambda: flows.IDF((1, 4, 4), layers=1, parts=2, hidden=2, levels=1),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_of_each_example(name: str, train: bool) -> None:
    torch.manual_seed(0)
    module = LogProb(moved(BUILDERS[name]())).train(train)
    x = data(module.flow, 3, dtype=torch.float64)
    params = {n: p.detach() for n, p in module.named_parameters()}
    for recorded in MODES:
        with mode(recorded):
            mapped = vmap(grad(lambda p, u: functional_call(module, p, (u[None],)).sum()), (None, 0))(params, x)
            for i in range(len(x)):
                module.zero_grad()
                module(x[i : i + 1]).sum().backward()
                for n, p in module.named_parameters():
                    close(mapped[n][i], torch.zeros_like(p) if p.grad is None else p.grad, f"{recorded}, {n}")


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", BUILDERS)
def test_an_ensemble(name: str, train: bool) -> None:
    torch.manual_seed(0)
    modules = [LogProb(moved(BUILDERS[name]())).train(train) for _ in range(2)]
    x = data(modules[0].flow, 3, dtype=torch.float64)
    stacked, buffers = stack_module_state(modules)
    stacked = {n: p.detach() for n, p in stacked.items()}
    for recorded in MODES:
        with mode(recorded):
            values = vmap(lambda p, b: functional_call(modules[0], (p, b), (x,)))(stacked, buffers)
            close(values, torch.stack([module(x) for module in modules]), recorded)
            mapped = vmap(grad(lambda p, b: functional_call(modules[0], (p, b), (x,)).sum()))(stacked, buffers)
            for i, module in enumerate(modules):
                module.zero_grad()
                module(x).sum().backward()
                for n, p in module.named_parameters():
                    close(mapped[n][i], torch.zeros_like(p) if p.grad is None else p.grad, f"{recorded}, {n}")


def test_the_first_batch_of_actnorm_says_that_it_cannot_be_mapped() -> None:
    """It sets parameters from data."""
    flow = LogProb(flows.Glow((1, 4, 4), levels=1, steps=1, hidden=2).double())
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    params = {n: p.detach() for n, p in flow.named_parameters()}
    with pytest.raises(RuntimeError, match="initialize"):
        vmap(grad(lambda p, u: functional_call(flow, p, (u[None],)).sum()), (None, 0))(params, x)
    assert not flow.flow._initialized
    flow.flow.initialize(x)
    vmap(grad(lambda p, u: functional_call(flow, p, (u[None],)).sum()), (None, 0))(params, x)


@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_memory_modes_under_functional_call(memory: str) -> None:
    """The backward pass takes the parameters of the forward pass, which may have been computed from others."""
    torch.manual_seed(0)
    flow = LogProb(moved(flows.Glow((1, 4, 4), levels=1, steps=2, hidden=2, memory=memory)))
    plain = LogProb(moved(flows.Glow((1, 4, 4), levels=1, steps=2, hidden=2)))
    plain.load_state_dict(flow.state_dict())
    x = data(flow.flow, 3, dtype=torch.float64)
    results = []
    for module in (flow, plain):
        scale = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
        own = {n: p.detach() * scale for n, p in module.named_parameters()}
        first = next(iter(own))
        own |= {n: p + 0.01 * own[first].sum() for n, p in own.items() if n != first}
        u = x.clone().requires_grad_()
        (functional_call(module, own, (u * scale,)) * torch.arange(3.0)).sum().backward()
        results.append((u.grad, scale.grad))
        assert all(p.grad is None for p in module.parameters())
    for got, expected in zip(*results, strict=True):
        close(got, expected, memory)
