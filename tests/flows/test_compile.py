"""Every kind of flow compiles to one graph, in training and in evaluation, with the results of eager execution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.flows.factories import DISCRETE, data, make

# Forms differ inside the operator; what differs in the graph is the width and the layout of its parameters. Of the
# flows on images, those whose parts are not in another.
IMAGES = ("glow-2-levels", "glow-highway", "glow-batchnorm", "realnvp-images")
# idf-images and idf-mixture have the parts of the first, idf-5-embedding those of the others
LEFT_OUT = ("idf-images-mixture", "idf-1", "idf-1-context")
INTEGERS = tuple(name for name in DISCRETE if name not in LEFT_OUT)
# Every layer and, under a context, every kind of flow that takes one in a way of its own.
VECTORS = ("maf-6-context", "nsf-5", "composed", "realnvp-1-context", "glow-context")
KINDS = ("realnvp-2", "realnvp-5-additive", "realnvp-5-normflows", "planar-5", *VECTORS, *IMAGES, *INTEGERS)


def _step(flow: torch.nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    flow.zero_grad()
    loss = log_prob(x).mean()
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in flow.parameters()]


def _assert_compiles(name: str, compiler: str) -> None:
    torch.compiler.reset()
    flow = make(name).train()
    x = data(flow, 8)
    loss, grads = _step(flow, flow.log_prob, x)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend=compiler)
    compiled_loss, compiled_grads = _step(flow, compiled, x)
    # float32 with sums in another order, which the networks after them amplify
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-5, atol=1e-5)
    for label, mine, theirs in zip(dict(flow.named_parameters()), compiled_grads, grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=lambda text, label=label: f"{label}: {text}")
    flow.eval()
    z, _ = flow(x)
    with torch.no_grad():
        forward = torch.compile(flow, fullgraph=True, backend=compiler)(x)[0]
        inverse = torch.compile(flow.inverse, fullgraph=True, backend=compiler)(z)[0]
    if flow.discrete:
        assert torch.equal(forward, z) and torch.equal(inverse, x)
    else:  # in float32 as above
        torch.testing.assert_close(forward, z, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(inverse, flow.inverse(z)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_compiles_as_one_graph(name: str, backend: str) -> None:
    _assert_compiles(name, "aot_eager")


@pytest.mark.parametrize("name", ["nsf-5", "realnvp-2", "idf-2-parts"])
def test_one_graph_serves_batches_of_any_size(name: str, backend: str) -> None:
    """Under ``dynamic=True`` the numbers that layers hold are symbols to the compiler too."""
    torch.compiler.reset()
    flow = make(name).train()
    compiled = torch.compile(flow.log_prob, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (8, 11):
            loss, grads = _step(flow, compiled, data(flow, count))
            expected, expected_grads = _step(flow, flow.log_prob, data(flow, count))
            torch.testing.assert_close((loss, grads), (expected, expected_grads), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dynamic"), [("nsf-5", True), ("glow-2-levels", None)])
def test_one_graph_draws_any_number_of_samples(name: str, dynamic: bool | None) -> None:
    torch.compiler.reset()
    flow = make(name).eval()
    sample = torch.compile(flow.sample, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for recompiles, count in enumerate((4, 7, 9)):
        with torch._dynamo.config.patch(error_on_recompile=bool(dynamic) or recompiles > 1):
            torch.manual_seed(count)
            found = sample(count)
        torch.manual_seed(count)
        torch.testing.assert_close(found, flow.sample(count), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["realnvp-2", "idf-2-parts", "hybrid-idf-1"])
def test_compiles_to_code(name: str) -> None:
    _assert_compiles(name, "inductor")
