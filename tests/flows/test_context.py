"""Conditional flows: shapes, each row under its own context, embeddings, errors; temperature of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows
from tests.flows.factories import data, embedding

pytestmark = pytest.mark.usefixtures("backend")
Build = Callable[..., flows.Flow]
CONDITIONAL: dict[str, Build] = {
    "realnvp": lambda context: flows.RealNVP(3, layers=2, hidden=6, context=context),
    "maf": lambda context: flows.MAF(3, layers=2, hidden=6, context=context),
    "iaf": lambda context: flows.IAF(3, layers=2, hidden=6, context=context),
    "nsf": lambda context: flows.NSF(3, layers=2, hidden=6, bins=3, context=context),
    "nsf-autoregressive": lambda context: flows.NSF(
        3, layers=2, hidden=6, bins=3, autoregressive=True, context=context
    ),
    "planar": lambda context: flows.Planar(3, layers=2, context=context),
    "idf": lambda context: flows.IDF(4, layers=2, hidden=6, context=context),
    "glow": lambda context: flows.Glow((1, 4, 2), levels=1, steps=2, hidden=4, context=context),
}
every_flow = pytest.mark.parametrize("name", CONDITIONAL)


def made(name: str, context: int | nn.Module = 2) -> flows.Flow:
    torch.manual_seed(0)
    flow = CONDITIONAL[name](context)
    if name == "glow":
        flow.initialize(data(flow, 8), torch.randn(8, context if isinstance(context, int) else 3))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return flow.eval()


def contexts(n: int, width: int = 2) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(4))


@every_flow
def test_each_row_is_under_its_own_context(name: str) -> None:
    flow, context = made(name), contexts(5)
    x = data(flow, 5)
    together = flow.log_prob(x, context)
    for row, condition, log_p in zip(x, context, together, strict=True):
        torch.testing.assert_close(flow.log_prob(row[None], condition[None])[0], log_p, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flow.log_prob(row[None], condition)[0], log_p, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(flow.log_prob(x, context.flip(0)), together, atol=1e-3)
    torch.testing.assert_close(flow.log_prob(x, context[1]), flow.log_prob(x, context[1].expand(5, -1)))


@every_flow
def test_samples_by_context(name: str) -> None:
    flow, context = made(name), contexts(3)
    shape = flow.shape
    assert flow.sample(4, context).shape == flow.sample(4, context=context).shape == (3, 4, *shape)
    assert flow.sample(4, context[0]).shape == (4, *shape)
    assert flow.sample(0, context).shape == (3, 0, *shape) and flow.sample(4, context[:0]).shape == (0, 4, *shape)
    x, log_p = flow.sample_and_log_prob(4, context)
    assert x.shape == (3, 4, *shape) and log_p.shape == (3, 4)
    again = flow.log_prob(x.flatten(0, 1), context.repeat_interleave(4, 0)).view(3, 4)
    torch.testing.assert_close(again, log_p, rtol=1e-4, atol=1e-4)
    single, log_p = flow.sample_and_log_prob(4, context[1])
    assert single.shape == (4, *shape) and log_p.shape == (4,)
    torch.manual_seed(5)
    first = flow.sample(4, context)
    torch.manual_seed(5)
    z = flow.base.sample(12)
    with torch.no_grad():
        assert torch.equal(flow.inverse(z, context.repeat_interleave(4, 0))[0], first.flatten(0, 1))


@every_flow
def test_an_embedding_is_part_of_the_flow(name: str) -> None:
    flow, context = made(name, embedding()), contexts(5, 3)
    x = data(flow, 5)
    assert any(key.startswith("embedding.") for key in flow.state_dict())
    flow.train()
    flow.log_prob(x, context).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in flow.embedding.parameters())
    flow.eval()
    assert flow.sample(2, context).shape == (5, 2, *flow.shape) and flow.sample(2, context[0]).shape == (2, *flow.shape)
    plain = made(name, 4)
    plain.load_state_dict({key: v for key, v in flow.state_dict().items() if not key.startswith("embedding.")})
    seen = flow.embedding(context).detach()
    torch.testing.assert_close(plain.log_prob(x, seen), flow.log_prob(x, context), rtol=1e-5, atol=1e-5)


def test_an_embedding_is_called_once_a_context() -> None:
    rows = []
    network = embedding()
    network.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    flow = made("maf", network)
    flow.sample(50, contexts(2, 3))
    assert rows == [2]


class Picture(nn.Module):
    """Embeds images, and says how wide it is."""

    out_features = 2

    def forward(self, context: Tensor) -> Tensor:
        return context.flatten(2).mean(2)


def test_an_embedding_of_images() -> None:
    flow = made("nsf", Picture())
    images = torch.randn(4, 2, 5, 5)
    assert flow.log_prob(data(flow, 4), images).shape == (4,) and flow.sample(3, images).shape == (4, 3, 3)


def test_an_integer_flow_s_embedding_is_exact() -> None:
    """Whatever the batch: it is computed in float64, as the flow's own networks are."""
    flow = made("idf", embedding())
    x, context = data(flow, 40), contexts(40, 3)
    z, _ = flow(x, context)
    alone = torch.cat([flow.inverse(z[i : i + 1], context[i : i + 1])[0] for i in range(40)])
    assert torch.equal(alone, x)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "none": (None, ValueError, r"context: got None, expected \(5, 2\) or \(2,\): the flow was built with a context"),
    "width": (torch.zeros(5, 3), ValueError, r"context: got shape \(5, 3\), expected \(5, 2\) or \(2,\)"),
    "width of one": (torch.zeros(3), ValueError, r"context: got shape \(1, 3\), expected \(5, 2\) or \(2,\)"),
    "rows": (torch.zeros(4, 2), ValueError, r"context: got shape \(4, 2\), expected \(5, 2\) or \(2,\)"),
    "dimensions": (torch.zeros(5, 1, 2), ValueError, r"context: got shape \(5, 1, 2\), expected \(5, 2\)"),
    "type": ([[0.0, 0.0]] * 5, TypeError, "context: got list, expected a torch.Tensor"),
    "dtype": (torch.zeros(5, 2, dtype=torch.float64), TypeError, "context: got dtype torch.float64, expected"),
}


@pytest.mark.parametrize("bad", BAD)
@every_flow
def test_bad_contexts(name: str, bad: str) -> None:
    flow = made(name)
    context, error, message = BAD[bad]
    for call in (flow, flow.log_prob):
        with pytest.raises(error, match=message):
            call(data(flow, 5), context)
    with pytest.raises(error, match=message):
        flow.inverse(data(flow, 5).flatten(1), context)


@every_flow
def test_samples_under_bad_contexts(name: str) -> None:
    flow = made(name)
    for context, message in (
        (None, "got None, expected"),
        (torch.zeros(4, 3), r"got shape \(4, 3\), expected \(4, 2\)"),
    ):
        for sample in (flow.sample, flow.sample_and_log_prob):
            with pytest.raises(ValueError, match=f"context: {message}"):
                sample(2, context)


@every_flow
def test_a_context_that_was_not_declared(name: str) -> None:
    flow = CONDITIONAL[name](0).eval()
    context = torch.zeros(5, 2)
    message = r"context: got shape \(5, 2\), expected none: the flow was built without context"
    for call in (flow, flow.log_prob):
        with pytest.raises(ValueError, match=message):
            call(data(flow, 5), context)
    with pytest.raises(ValueError, match=message):
        flow.inverse(data(flow, 5).flatten(1), context)
    with pytest.raises(ValueError, match=message):
        flow.sample(2, context)


class Wrong(Picture):
    def forward(self, context: Tensor) -> Tensor:
        return context[:, :1]


CONSTRUCTION: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: flows.MAF(2, context=-1), ValueError, "context: got -1, expected an integer of at least 0"),
    (lambda: flows.MAF(2, context="2"), TypeError, "context: got '2', expected a width or an embedding"),
    (lambda: flows.MAF(2, context=nn.ReLU()), ValueError, r"context: got an embedding \(ReLU\) of unknown width"),
    (lambda: flows.RealNVP((1, 4, 4), context=2), ValueError, "context: got 2, expected 0 for images"),
    (lambda: flows.IDF((1, 4, 4), context=2), ValueError, "context: got 2, expected 0 for images"),
    (lambda: flows.MAF(2, hidden=4, context=Wrong()).log_prob(torch.zeros(3, 2), torch.zeros(3, 2)), ValueError,
     r"context: its embedding gave shape \(3, 1\), expected \(3, 2\)"),
    (lambda: flows.MAF(2, hidden=4, context=Picture()).log_prob(torch.zeros(3, 2), torch.zeros(4, 2, 1)), ValueError,
     r"context: got shape \(4, 2, 1\), expected a batch of 3 for the embedding"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), CONSTRUCTION)
def test_bad_widths_and_embeddings(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["maf", "idf"])
def test_temperature(name: str) -> None:
    flow = CONDITIONAL[name](0).eval()
    if name == "idf":
        with torch.no_grad():
            flow.base.log_scale.fill_(6.0)  # wide enough that the rounding does not count
    cold, plain = (
        flow.base.sample(4000, temperature=t, generator=torch.Generator().manual_seed(0)).std(0) for t in (0.5, 1.0)
    )
    torch.testing.assert_close(cold / plain, torch.full_like(cold, 0.5), rtol=2e-2, atol=0)
    drawn = [flow.sample(6, temperature=t, generator=torch.Generator().manual_seed(0)) for t in (0.0, 1.0)]
    assert (drawn[0] == drawn[0][0]).all() and not torch.equal(*drawn)
    assert torch.equal(drawn[1], flow.sample(6, generator=torch.Generator().manual_seed(0)))
    for bad, error in ((-1.0, ValueError), (float("inf"), ValueError), ("1", TypeError)):
        with pytest.raises(error, match=r"temperature: got .*, expected a finite number of at least 0"):
            flow.sample(2, temperature=bad)


def test_temperature_of_every_prior() -> None:
    for flow in (
        flows.IDF(3, parts=2, layers=1, hidden=4, prior="mixture", components=2),
        flows.IDF((1, 4, 4), layers=1, parts=2, hidden=2, levels=2),
        flows.Glow((1, 4, 4), levels=1, steps=1, hidden=2, norm="batchnorm"),
    ):
        low, high = (
            flow.base.sample(200, temperature=t, generator=torch.Generator().manual_seed(0)).std() for t in (0.01, 5.0)
        )
        assert low < high
