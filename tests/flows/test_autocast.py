"""Under autocast networks run in bfloat16, and what belongs to the flow itself does not: directions, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows, transforms


def _maps(context: int) -> flows.Flow:
    return flows.Compose(3, [transforms.PlanarMap(3, context) for _ in range(3)], context=context)


def _linear() -> flows.Flow:
    return flows.Compose(3, [transforms.ActNorm(3), transforms.LULinear(3), transforms.Permutation(3)])


# couplings, whose networks see the same numbers in both directions
BUILDS: dict[str, Callable[[], flows.Flow]] = {
    "planar maps": lambda: _maps(0),
    "planar maps, context": lambda: _maps(2),
    "planar": lambda: flows.Planar(3, layers=3, context=2),
    "linear layers": _linear,
    "realnvp": lambda: flows.RealNVP(3, layers=4, hidden=8, context=2),
    "nsf": lambda: flows.NSF(4, layers=2, hidden=8),
    "glow": lambda: flows.Glow((1, 4, 4), levels=1, steps=2, hidden=8),
    "glow, batch norm": lambda: flows.Glow((1, 4, 4), levels=1, steps=2, hidden=8, norm="batchnorm", net="highway"),
}


def made(name: str) -> flows.Flow:
    torch.manual_seed(0)
    flow = BUILDS[name]()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for part, value in flow.named_buffers():
            if part.endswith("mean"):
                value.copy_(torch.randn_like(value))
    if isinstance(flow, flows.Glow):
        flow._initialized.fill_(True)
    return flow.eval()


@pytest.mark.parametrize("name", BUILDS)
@torch.no_grad()
def test_the_inverse_undoes_the_flow(name: str) -> None:
    flow = made(name)
    x = torch.randn(40, *flow.shape)
    context: tuple[Tensor, ...] = (torch.randn(40, 2),) if flow.context_width else ()
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = flow(x, *context)
        back, log_det_back = flow.inverse(z, *context)
    torch.testing.assert_close(back, x, rtol=0, atol=2e-4)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-4, atol=1e-3)


def norms(kind: str, lowered: bool) -> Tensor:
    """Of all weights after two passes, each after a change of the weights."""
    torch.manual_seed(0)
    options = {"net": "dense", "hidden": (8, 8)} if kind == "dense" else {"hidden": (48, 48)}
    flow = flows.Residual(16 if kind == "vectors" else (3, 6, 6), blocks=2, **options)
    x = torch.randn(4, *flow.shape)
    flow.initialize(x)
    found: dict[str, float] = {}
    for _ in range(2):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        random_state = torch.get_rng_state()
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            flow.log_prob(x).mean().backward()
            torch.set_rng_state(random_state)
            found |= flow.check_lipschitz()
        torch.set_rng_state(random_state)
    return torch.tensor([*found.values(), *flow.check_lipschitz().values()])


@pytest.mark.parametrize("kind", ["vectors", "images", "dense"])
def test_weights_of_residual_flows_have_the_same_norms(kind: str) -> None:
    """In three digits a norm would pass its bound by a few thousandths."""
    torch.testing.assert_close(norms(kind, True), norms(kind, False), rtol=0, atol=2e-5)


def test_other_layers_are_lowered() -> None:
    """So that the test above is one."""
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is torch.bfloat16
