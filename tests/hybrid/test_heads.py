"""Heads: normalization of the latents."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hybridkern.hybrid import heads


def _latents() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, 3, generator=generator) * torch.tensor([4.0, 1.0, 0.01]) + torch.tensor([8.0, -2.0, 100.0])


def test_normalization_from_a_sample() -> None:
    head, z = heads.Categorical(3, 4), _latents()
    assert torch.equal(head(z), head.net(z)), "none before"
    seen = []
    head.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head.initialize(z)
    head(z)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert seen[0].square().mean().item() == pytest.approx(1.0, rel=1e-5)
    ratio = seen[0].std(0) / z.std(0)
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-3, atol=0), "one scale: no latent is blown up"


def test_normalization_is_saved_and_follows_the_dtype() -> None:
    head, z = heads.Categorical(3, 4), _latents()
    head.initialize(z)
    other = heads.Categorical(3, 4)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(z), head(z))
    torch.testing.assert_close(head.double()(z.double()).float(), other(z), rtol=1e-4, atol=1e-4)
    assert {name for name, _ in head.named_parameters()} == {"net.0.weight", "net.0.bias"}


def test_input_dropout() -> None:
    head = heads.Categorical(3, 4, hidden=(5,), dropout=0.1, input_dropout=0.3)
    assert [module.p for module in head.net if isinstance(module, nn.Dropout)] == [0.3, 0.1]


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(5, 2), r"z: got shape \(5, 2\), expected \(N, 3\)"),
        (torch.zeros(0, 3), "at least one row"),
        (torch.ones(5, 3), "standard deviation 0.0, expected a finite, positive one"),
        (
            torch.full((5, 3), float("nan")),
            "z: got nan in row 0, dimension 0 and 14 more of 15 values, expected finite",
        ),
    ],
)
def test_bad_samples_are_refused(z: torch.Tensor, message: str) -> None:
    head = heads.Categorical(3, 4)
    with pytest.raises(ValueError, match=message):
        head.initialize(z)
    assert torch.equal(head.center, torch.zeros(3)) and head.scale == 1


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64]
)
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    head, y = heads.Categorical(3, 4), torch.tensor([0, 3, 1])
    prediction = head(torch.ones(3, 3))
    assert torch.equal(head.log_prob(prediction, y.to(dtype)), head.log_prob(prediction, y))
    with pytest.raises(ValueError, match=r"y: got label 4, expected 0 to 3 \(4 classes\)"):
        head.log_prob(prediction, (y + 1).to(dtype))
