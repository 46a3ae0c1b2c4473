"""memory="recompute" and "invert" of flows made of layers, and under a context: the gradients of "store"."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybridkern import flows, transforms
from tests.flows.factories import data

Build = Callable[[str], flows.Flow]
FLOWS: dict[str, Build] = {
    "maf": lambda memory: flows.MAF(4, layers=3, hidden=6, context=2, memory=memory),
    "iaf": lambda memory: flows.IAF(3, layers=2, hidden=6, context=2, memory=memory),
    "nsf": lambda memory: flows.NSF(5, layers=3, hidden=6, bins=4, context=2, memory=memory),
    "linear": lambda memory: flows.Compose(
        3, [transforms.ActNorm(3), transforms.Permutation(3), transforms.LULinear(3)], context=2, memory=memory
    ),
    "glow": lambda memory: flows.Glow((1, 4, 4), levels=2, steps=2, hidden=4, context=2, memory=memory),
    "glow, batch norm": lambda memory: flows.Glow(
        (1, 4, 4), levels=1, steps=2, hidden=4, context=2, norm="batchnorm", memory=memory
    ),
}


def gradients(name: str, memory: str) -> dict[str, Tensor]:
    """In data, context and parameters."""
    torch.manual_seed(0)
    flow = FLOWS[name](memory).double()
    x, context = data(flow, 6, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    if isinstance(flow, flows.Glow):
        flow.initialize(x, context)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    x.requires_grad_()
    context.requires_grad_()
    z, log_det = flow.train()(x, context)
    weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=z.dtype)
    ((weights * z).sum() + log_det.sin().sum()).backward()
    return {"x": x.grad, "context": context.grad, **{n: p.grad for n, p in flow.named_parameters()}}


@pytest.mark.parametrize("memory", ["recompute", "invert"])
@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_those_of_store(name: str, memory: str) -> None:
    got, expected = gradients(name, memory), gradients(name, "store")
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        if value is None:  # layers that see no context
            assert got[key] is None or not got[key].any(), key
        else:
            torch.testing.assert_close(
                got[key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_an_error_names_the_layer() -> None:
    """One layer squeezes everything to nothing; float32 cannot tell afterwards what it was."""
    flow = flows.Compose(2, [transforms.LULinear(2), transforms.ActNorm(2), transforms.LULinear(2)], memory="invert")
    with torch.no_grad():
        flow.layers[1].log_scale.fill_(-60.0)
        flow.layers[1].shift.fill_(1.0)
    with pytest.raises(flows.ReconstructionError, match=r"the input of step 1 of 3 \(ActNorm\) was recovered"):
        flow.log_prob(torch.randn(4, 2)).sum().backward()
