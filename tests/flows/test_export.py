"""``torch.export`` of flows, with a batch of any size, on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern import flows
from hybridkern.lipschitz import iterate
from hybridkern.lipschitz.power import by_kind
from tests.flows.factories import LogProb, data, make

pytestmark = pytest.mark.usefixtures("backend")


class Exact(LogProb):
    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x, trace="exact")


class Inverse(LogProb):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(x)


@pytest.mark.parametrize(
    "name",
    [
        "glow-2-levels",
        "realnvp-2",
        "realnvp-images",
        "idf-2-parts",
        "maf-6-context",
        "nsf-5",
        "composed",
        "glow-context",
    ],
)
def test_exports_with_a_dynamic_batch(name: str) -> None:
    flow = make(name).eval()
    x = data(flow, 7)  # as many examples as one of the flows has dimensions: no size may be mistaken for another
    z = flow(x)[0].detach()
    modules = ((LogProb(flow), x), (Inverse(flow), z))
    for module, given in ((flow, x), *modules) if name.startswith("glow") else modules:
        program = torch.export.export(module, (given[:5],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        got, expected = program.module()(given), module(given)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "strict"), [("residual-images", False), ("residual-dense", True)])
def test_residual_flows_export_exact_densities(name: str, strict: bool) -> None:
    flow = make(name).eval()
    for group in by_kind(flow._layers()):
        iterate(group, tolerance=1e-7)  # the program iterates at each call, which then changes nothing
    x = data(flow, 7)
    program = torch.export.export(Exact(flow), (x[:5],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=strict)
    torch.testing.assert_close(program.module()(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)


def test_what_of_residual_flows_cannot_be_exported_says_so() -> None:
    flow = flows.Residual(9, blocks=1, hidden=4).eval()
    x = data(flow, 5)
    with pytest.raises(RuntimeError, match="expected 'exact'"):
        torch.export.export(flow, (x,), strict=False)
    with pytest.raises(RuntimeError, match="inverse: a residual flow iterates"):
        torch.export.export(Inverse(flow), (x,), strict=False)
