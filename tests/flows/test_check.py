"""check_finite names the layer at fault, and leaves nothing behind."""

from __future__ import annotations

import contextlib

import pytest
import torch

from hybridkern.flows import NonFiniteError, RealNVP, check_finite
from tests.flows.factories import data, make


def test_silent_where_all_is_finite() -> None:
    for name in ("realnvp-2", "idf-2-parts", "hybrid-idf-4"):
        flow = make(name).eval()
        with check_finite(flow):
            flow.log_prob(data(flow, 4))
            flow.sample(2)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_names_the_first_layer_and_its_parameter(direction: str) -> None:
    flow = make("realnvp-5-realnvp")
    x = data(flow, 4)
    with torch.no_grad():
        flow.couplings[2].net[0].weight[1, 1] = float("nan")
    run = flow if direction == "forward" else flow.inverse
    message = r"layer 'couplings\.2\.net\.0' \(Linear\) gave NaN: its parameter 'weight' holds NaN"
    with check_finite(flow), pytest.raises(NonFiniteError, match=message):
        run(x)
    with contextlib.nullcontext() if direction == "forward" else pytest.warns(RuntimeWarning, match="not finite"):
        assert run(x)[0].isnan().any(), "outside the block nothing is raised"


def test_names_the_coupling_that_overflows() -> None:
    torch.manual_seed(0)
    flow = RealNVP(4, layers=3, hidden=4, form="exp")
    with torch.no_grad():
        flow.couplings[1].net[-1].bias.fill_(100.0)
    message = r"layer 'couplings\.1' \(AffineCoupling\) gave infinity from finite parameters and input"
    with check_finite(flow), pytest.raises(NonFiniteError, match=message):
        flow(data(flow, 4))


def test_names_the_base_distribution() -> None:
    flow = make("realnvp-2")
    with check_finite(flow), pytest.raises(NonFiniteError, match=r"layer 'base' \(DiagonalGaussian\) gave infinity"):
        flow.base(torch.full((1, 2), 1e30))


def test_names_layers_of_exact_integer_flows() -> None:
    flow = make("idf-2-parts").eval()
    with torch.no_grad():
        flow.couplings[1].nets[0][0].bias[0] = float("inf")
    with check_finite(flow), pytest.raises(NonFiniteError, match=r"layer 'couplings\.1\.nets\.0\.0' \(Linear\)"):
        flow(data(flow, 4))


def test_tells_an_input_that_was_not_finite() -> None:
    flow = make("realnvp-2")
    message = "its input already holds NaN, and no layer made it"
    with check_finite(flow), pytest.raises(NonFiniteError, match=message):
        flow(torch.full((1, 2), float("nan")))


def test_hooks_are_removed_after_an_error() -> None:
    flow = make("realnvp-2")
    with pytest.raises(KeyError), check_finite(flow):
        raise KeyError
    assert not any(module._forward_hooks for module in flow.modules())
