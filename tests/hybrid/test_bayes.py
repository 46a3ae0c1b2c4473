"""Classification by Bayes' rule: densities against SciPy, the joint likelihood, classes drawn without rejection."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from hybridkern import flows
from hybridkern.distributions import ClassGaussians
from hybridkern.hybrid import HybridModel, heads, objectives


def made(dim: int = 3, classes: int = 4, dtype: torch.dtype = torch.float64) -> HybridModel:
    torch.manual_seed(0)
    flow = flows.RealNVP(dim, layers=2, hidden=8)
    flow.base = ClassGaussians(dim, classes)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return HybridModel(flow, heads.Bayes(flow.base)).to(dtype)


def test_log_joint_is_that_of_scipy() -> None:
    base = made().flow.base
    z = torch.randn(6, 3, dtype=torch.float64)
    frequencies = torch.softmax(base.logits, 0).detach().numpy()
    expected = np.stack(
        [
            stats.multivariate_normal(mean, np.diag(np.exp(2 * scale))).logpdf(z.numpy()) + np.log(frequency)
            for mean, scale, frequency in zip(
                base.mean.detach().numpy(), base.log_scale.detach().numpy(), frequencies, strict=True
            )
        ],
        1,
    )
    np.testing.assert_allclose(base.log_joint(z).detach().numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(base.log_prob(z).detach().numpy(), np.log(np.exp(expected).sum(1)), rtol=1e-10)


def test_joint_objective_is_the_likelihood_of_the_pair() -> None:
    model = made()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1])
    latents = model.flow.run(x)
    expected = model.head(latents.z).gather(1, y[:, None])[:, 0] + latents.log_det
    torch.testing.assert_close(model.log_joint(x, y), expected)
    torch.testing.assert_close(model.loss(x, y, objectives.Joint()), -expected.mean())
    torch.testing.assert_close(model.predict_proba(x).sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(
        torch.logsumexp(torch.stack([model.log_joint(x, y * 0 + k) for k in range(4)]), 0), model.log_prob(x)
    )


def test_consistency_is_the_density_under_the_other_views_class() -> None:
    model = made()
    x, other = torch.randn(2, 5, 3, dtype=torch.float64)
    latents, z = model.flow.run(x), model.flow(other)[0]
    found = objectives.consistency(latents, z, model.head)
    chosen = model.predict(other)
    log_py = torch.log_softmax(model.flow.base.logits, 0)[chosen]
    torch.testing.assert_close(-found, model.log_joint(x, chosen) - log_py)
    with pytest.raises(TypeError, match=r"head: got Categorical, expected heads\.Bayes"):
        objectives.consistency(latents, z, heads.Categorical(3, 4))


def test_classes_are_drawn_without_rejection() -> None:
    model = made(dtype=torch.float32)
    with torch.no_grad():
        model.flow.base.logits[2] = -40.0  # no rejection would ever find it
    x = model.sample_of_class(2, 4000, generator=torch.Generator().manual_seed(0))
    z = model.flow(x)[0].detach()
    base = model.flow.base
    # 4000 draws of deviation about 1: the mean is known to 0.016, the log of the deviation to 0.011
    torch.testing.assert_close(z.mean(0), base.mean[2].detach(), rtol=0, atol=0.1)
    torch.testing.assert_close(z.std(0).log(), base.log_scale[2].detach(), rtol=0, atol=0.05)
    at_its_mean = model.flow(model.sample_of_class(2, 3, temperature=0.0))[0].detach()
    torch.testing.assert_close(at_its_mean, base.mean[2].detach().expand(3, -1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="label: got 4, expected 0 to 3"):
        model.sample_of_class(4, 1)


def test_samples_follow_the_class_frequencies() -> None:
    base = ClassGaussians(2, 3, radius=20.0)
    with torch.no_grad():
        base.logits.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    z = base.sample(5000, generator=torch.Generator().manual_seed(0))
    shares = base.log_joint(z).argmax(1).bincount(minlength=3) / 5000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3]), rtol=0, atol=0.03)
    assert base.sample(0).shape == (0, 2)
    torch.testing.assert_close(base.sample_of_class(1, 2, temperature=0.0), base.mean[1].detach().expand(2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_likelihoods_of_16_bits_are_of_frequencies_that_sum_to_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = ClassGaussians(2, 7)
    base.logits.data.copy_(torch.randn(7, generator=generator))
    base.to(dtype)
    z = torch.randn(50, 2, generator=generator).to(dtype)
    truth = copy.deepcopy(base).double().log_joint(z.double())
    assert (base.log_joint(z) - truth).abs().max() < 1e-5
    assert abs(base.log_frequencies().exp().sum().item() - 1) < 1e-6


def test_means_start_at_right_angles() -> None:
    base = ClassGaussians(6, 4, radius=2.0)
    torch.testing.assert_close(base.mean @ base.mean.T, 4 * torch.eye(4), rtol=0, atol=1e-5)
    assert ClassGaussians(2, 5).mean.norm(dim=1).allclose(torch.tensor(3.0))


def test_the_parameters_are_the_flows_own() -> None:
    model = made()
    assert not [name for name in model.state_dict() if name.startswith("head.")]
    twin = copy.deepcopy(model)
    assert twin.head.base is twin.flow.base is not model.flow.base
    other = made()
    with pytest.raises(ValueError, match="head: got a Bayes head of another distribution"):
        HybridModel(model.flow, other.head)
    with pytest.raises(TypeError, match=r"base: got .*, expected the flow's base"):
        heads.Bayes(flows.RealNVP(2, layers=2).base)


def test_six_labels_and_many_points_find_the_moons() -> None:
    """Two half circles, three labels on each: the mixture's classes grow along what the labels touch."""
    torch.manual_seed(1)
    angle = torch.pi * torch.rand(400)
    first = torch.arange(400) < 200
    x = torch.where(first[:, None], torch.stack((angle.cos(), angle.sin()), 1), 0.0)
    x = torch.where(first[:, None], x, torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1))
    x, truth = (x + 0.05 * torch.randn_like(x) - torch.tensor([0.5, 0.25])) / 0.8, (~first).long()
    y = torch.full((400,), -1)
    for label in (0, 1):
        rows = (truth == label).nonzero()[:, 0]
        order = rows[angle[rows].argsort()]
        y[order[[20, 100, 180]]] = label
    flow = flows.RealNVP(2, layers=6, hidden=32)
    flow.base = ClassGaussians(2, 2, radius=2.0)
    model = HybridModel(flow, heads.Bayes(flow.base))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(x, y, objectives.SemiSupervised(objectives.Joint())).backward()
        optimizer.step()
    assert (model.predict(x) != truth).double().mean() <= 0.03


@pytest.mark.parametrize("part", ["flow", "head", "base"])
def test_a_part_that_was_replaced_by_a_copy_is_noticed(part: str) -> None:
    model, x = made(), torch.randn(4, 3, dtype=torch.float64)
    if part == "base":
        model.flow.base = copy.deepcopy(model.flow.base)
    else:
        setattr(model, part, copy.deepcopy(getattr(model, part)))
    calls = (
        lambda: model(x),
        lambda: model.loss(x, torch.zeros(4, dtype=torch.int64), objectives.Joint()),
        lambda: model.predict(x),
        lambda: model.predict_proba(x),
        lambda: model.sample_of_class(0, 2),
        lambda: model.sample_with_prediction(2),
    )
    for call in calls:
        with pytest.raises(ValueError, match="head: got a Bayes head of another distribution"):
            call()


@pytest.mark.parametrize("rows", [1, 3])
def test_the_other_view_has_as_many_rows(rows: int) -> None:
    """A single one would give its class to all."""
    model = made()
    latents = model.flow.run(torch.randn(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"other: got shape \({rows}, 3\), expected \(5, 3\)"):
        objectives.consistency(latents, latents.z[:rows], model.head)


def test_two_classes_of_one_dimension_start_apart() -> None:
    mean = ClassGaussians(1, 2, radius=2.0).mean.detach()
    assert (mean[0] - mean[1]).abs() == 4.0
