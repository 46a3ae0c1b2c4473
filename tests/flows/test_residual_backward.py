"""The inverse of residual flows between its forward and its backward pass; estimates in inference mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from hybridkern.flows import Residual


class Inverse(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.flow = Residual(4, blocks=2, **{"hidden": (8, 8), **options}).double()
        with torch.no_grad():
            for parameter in self.flow.parameters():
                parameter += 0.5 * torch.randn_like(parameter)

    def forward(self, z: Tensor) -> Tensor:
        return self.flow.inverse(z)[0].sin().sum()


def latents() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("part", ["bias", "beta"])
def test_what_the_inverse_reads_again_must_be_as_it_was(part: str) -> None:
    model, z = Inverse(), latents()
    out = model(z)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(part):
                parameter += 0.7
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_weights_may_change_between_the_passes() -> None:
    """They are read once, bounded."""
    model, z = Inverse(), latents()
    (expected,) = torch.autograd.grad(model(z), z)
    out = model(z)
    with torch.no_grad():
        for module in model.flow._layers():
            module.weight += 0.7
    torch.testing.assert_close(torch.autograd.grad(out, z)[0], expected)


@pytest.mark.parametrize("part", ["bias", "beta", "shares"])
def test_the_inverse_under_functional_call(part: str) -> None:
    options = {"net": "dense", "hidden": (6, 6)} if part == "shares" else {}
    model, z = Inverse(**options), latents()
    model(z)
    given = {name: (p + 0.5).detach() if name.endswith(part) else p for name, p in model.named_parameters()}
    found = torch.autograd.grad(torch.func.functional_call(model, given, (z,)), z)[0]
    with torch.no_grad():
        other = copy.deepcopy(model)
        for name, parameter in other.named_parameters():
            parameter.copy_(given[name])
    torch.testing.assert_close(found, torch.autograd.grad(other(z), z)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-4, 1e-8, 1e-30])
def test_gradients_of_the_inverse_have_their_digits_whatever_their_size(dtype: torch.dtype, scale: float) -> None:
    """Those of a mean over a large batch are small; 0 in some rows is 0."""
    model = Inverse().to(dtype)
    z = latents().detach().to(dtype).requires_grad_()
    x = model.flow.inverse(z)[0]
    weights = torch.tensor([[1.0], [0.0], [1e-3]], dtype=dtype) * torch.arange(1.0, 5.0, dtype=dtype)
    tracked = [z, *(p for p in model.parameters() if p.ndim)]
    expected = torch.autograd.grad((weights * x).sum(), tracked, retain_graph=True)
    found = torch.autograd.grad((scale * weights * x).sum(), tracked)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours / scale, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))
    assert not found[0][1].any()


@pytest.mark.parametrize("trace", ["exact", "estimate"])
def test_inference_mode(trace: str) -> None:
    flow, x = Inverse().flow.eval(), latents().detach()
    values = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            generator = torch.Generator().manual_seed(2)
            values.append(flow.log_prob(x + 0, trace=trace, generator=generator).clone())
    torch.testing.assert_close(values[1], values[0])
