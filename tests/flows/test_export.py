"""``torch.export`` of flows, with a batch of any size, on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.flows.factories import LogProb, data, make

pytestmark = pytest.mark.usefixtures("backend")


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
