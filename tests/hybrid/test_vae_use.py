"""Variational autoencoders as they are used: under autocast, with domains, on a trained first model, for samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hybridkern.distributions import ClassGaussians
from hybridkern.hybrid import HybridModel, heads, objectives
from hybridkern.hybrid.vae import CCVAE, DIVA, M1M2, M2, VAE, Gaussian, HybridVAE

DIM, LATENT = 6, 2


class Fixed(nn.Module):
    """The same posterior for every row, in the precision of a layer under autocast."""

    def __init__(self, mean: float, log_scale: float) -> None:
        super().__init__()
        self.layer, self.numbers = nn.Linear(1, 1), (mean, log_scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor(self.numbers).expand(len(x), 2).to(self.layer(x).dtype)


def test_autocast_leaves_the_bound_a_bound() -> None:
    """Latents rounded to bfloat16 lie outside of a narrow posterior: ``-log q(z|x)`` came out too large."""
    torch.manual_seed(0)
    decoder = nn.Linear(1, 1)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    model = VAE(Fixed(3.03, -5.0), decoder, 1, likelihood=Gaussian(0.1))
    x = torch.zeros(4096, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = model.run(x)
        entropy = -model.posterior(x).log_prob(latents.z).mean()
        log_likelihood = model.log_likelihood(x, latents.z)
    torch.testing.assert_close(entropy.item(), 0.5 * math.log(2 * math.pi * math.e) - 5.0, rtol=0, atol=0.03)
    expected = torch.distributions.Normal(0.0, 0.1).log_prob(x[:, 0])
    torch.testing.assert_close(log_likelihood, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["m2", "diva", "ccvae"])
def test_classes_sum_to_one_under_autocast(name: str) -> None:
    """Else the bounds of the classes, hundreds of nats each, are summed with shares of more or less than one."""
    torch.manual_seed(0)
    model = {
        "m2": lambda: M2(DIM, 3, latent=2, hidden=(8,)),
        "diva": lambda: DIVA(DIM, 3, latent=2, hidden=(8,)),
        "ccvae": lambda: CCVAE(nn.Linear(DIM, 10), nn.Linear(5, DIM), DIM, 3, style=2),
    }[name]()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        probabilities = model.predict_proba(torch.rand(50, DIM))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))


def test_one_graph_bounds_batches_of_any_size() -> None:
    torch.compiler.reset()
    model = M2(DIM, 3, latent=2, hidden=(8,), likelihood=Gaussian(0.5))
    bound = torch.compile(model.log_prob, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (5, 7):
            x = torch.rand(count, DIM)
            torch.manual_seed(0)
            found = bound(x)
            torch.manual_seed(0)
            torch.testing.assert_close(found, model.log_prob(x))


def test_jacobian_weighted_counts_the_latents() -> None:
    model = HybridVAE(nn.Linear(DIM, 2 * LATENT), nn.Linear(LATENT, DIM), heads.Categorical(LATENT, 3))
    latents = model.flow.run(torch.rand(5, DIM))
    found = objectives.JacobianWeighted(0.3).combine(torch.zeros(5), latents)
    log_pz = torch.distributions.Normal(0.0, 0.3**-0.5).log_prob(latents.z).sum(1)
    torch.testing.assert_close(found, -log_pz - 0.3 * latents.log_det)


def test_samples_of_a_class_are_samples() -> None:
    model = HybridVAE(nn.Linear(DIM, 2 * LATENT), nn.Linear(LATENT, DIM), heads.Categorical(LATENT, 3))
    x = model.sample_of_class(1, 50, generator=torch.Generator().manual_seed(0))
    assert x.shape == (50, DIM) and set(x.unique().tolist()) == {0.0, 1.0}


def test_samples_come_with_what_the_head_says_of_their_latents() -> None:
    model = HybridVAE(nn.Linear(DIM, 2 * LATENT), nn.Linear(LATENT, DIM), heads.Categorical(LATENT, 3))
    x, log_px, logits = model.sample_with_prediction(50, generator=torch.Generator().manual_seed(0))
    assert x.shape == (50, DIM) and set(x.unique().tolist()) == {0.0, 1.0}
    z = model.flow.base.sample(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits, model.head(z)) and (log_px < 0).all() and log_px.shape == (50,)
    assert model.interpolate(x[:4], x[4:8], steps=3).shape == (3, 4, DIM)


def test_a_latent_mixture_gives_samples_of_classes() -> None:
    vae = VAE(nn.Linear(DIM, 2 * LATENT), nn.Linear(LATENT, DIM), LATENT)
    vae.base = base = ClassGaussians(LATENT, 3)
    model = HybridModel(vae, heads.Bayes(base))
    x = model.sample_of_class(1, 50, generator=torch.Generator().manual_seed(0))
    assert x.shape == (50, DIM) and set(x.unique().tolist()) == {0.0, 1.0}
    x, log_px, logits = model.sample_with_prediction(50, generator=torch.Generator().manual_seed(0))
    z = base.sample(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits, model.head(z)) and (log_px < 0).all() and x.shape == (50, DIM)


@pytest.mark.parametrize("y", [[0, 1], [0, 1, -2, 2, -1], [0, 1, -1, 2, 0, 1]], ids=["short", "range", "long"])
def test_labels_beside_domains_are_checked(y: list[int]) -> None:
    model = DIVA(DIM, 3, domains=2, latent=2, hidden=(4,))
    with pytest.raises(ValueError, match=r"y: got (shape|label)"):
        model.loss(torch.rand(5, DIM), torch.tensor(y), torch.zeros(5, dtype=torch.int64))


def test_m2_sees_latents_of_unit_deviation_even_where_their_means_hardly_vary() -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(DIM, 2 * LATENT)
    first, x = VAE(encoder, nn.Linear(LATENT, DIM), LATENT), torch.rand(4000, DIM)
    nn.init.normal_(encoder.weight[:LATENT], std=0.3)
    model = M1M2(first, x, 3, latent=2, hidden=(4,))
    with torch.no_grad():
        drawn = model._drawn(x)
    torch.testing.assert_close(drawn.std(0), torch.ones(drawn.shape[1]), rtol=0.1, atol=0.0)


def test_the_first_model_stays_as_it_is() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2 * LATENT))
    nn.init.normal_(encoder[-1].weight)
    first, x = VAE(encoder, nn.Linear(LATENT, DIM), LATENT), torch.rand(50, DIM)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    model = M1M2(first, x, 3, latent=2, hidden=(4,)).train()
    features = model.features(x)
    model.loss(x, torch.randint(-1, 3, (50,))).backward()
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    torch.testing.assert_close(model.features(x), features)
    assert model.training and model.second.training


def of_three_classes(name: str) -> nn.Module:
    torch.manual_seed(0)
    first = VAE(nn.Linear(DIM, 4), nn.Linear(2, DIM), 2)
    with torch.no_grad():
        first.encoder.weight.mul_(5)
    return {
        "m2": lambda: M2(DIM, 3, latent=2, hidden=(8,)),
        "diva": lambda: DIVA(DIM, 3, latent=2, hidden=(8,)),
        "ccvae": lambda: CCVAE(nn.Linear(DIM, 10), nn.Linear(5, DIM), DIM, 3, style=2),
        "m1m2": lambda: M1M2(first, torch.rand(30, DIM), 3, latent=2, hidden=(8,)),
        "hybrid": lambda: HybridVAE(nn.Linear(DIM, 4), nn.Linear(2, DIM), heads.Categorical(2, 3)),
    }[name]()


@pytest.mark.parametrize("name", ["m2", "diva", "ccvae", "m1m2", "hybrid"])
def test_temperature_scales_the_latents_of_a_class(name: str) -> None:
    """At 0 every row has the same latents, those of M1 but for the noise that M2 has of them."""
    model = of_three_classes(name)
    net = getattr(model, "second", getattr(model, "flow", model))
    seen: list[torch.Tensor] = []
    net.decoder.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    for temperature in (0.0, 1.0):
        model.sample_of_class(1, 5, temperature=temperature)
    same, different = (rows.std(0).max().item() for rows in seen)
    assert same < 1e-6 < 0.1 < different
    assert model.sample(4, temperature=0.5).shape == (4, DIM)
    with pytest.raises(ValueError, match=r"temperature: got -1, expected a finite number of at least 0"):
        model.sample_of_class(1, 2, temperature=-1)


@pytest.mark.parametrize("label", [-1, 3, 1.5, True])
@pytest.mark.parametrize("name", ["m2", "diva", "ccvae", "m1m2", "hybrid"])
def test_samples_of_no_class_are_refused(name: str, label: object) -> None:
    """-1, the label of rows without one, was the last class of a CCVAE."""
    model = of_three_classes(name)
    with pytest.raises((TypeError, ValueError), match=f"label: got {label}, expected 0 to 2"):
        model.sample_of_class(label, 2)
    with pytest.raises(ValueError, match="n: got -1, expected"):
        model.sample_of_class(1, -1)


@pytest.mark.parametrize("name", ["m2", "diva", "ccvae", "m1m2"])
def test_data_of_another_width_are_refused(name: str) -> None:
    model, y = of_three_classes(name), torch.tensor([0, 1, 2, -1])
    for x in (torch.rand(4, DIM + 1), torch.rand(4, 2, DIM), torch.rand(4)):
        shape = r"\(" + ", ".join(map(str, x.shape))
        calls = (lambda x: model.loss(x, y), model.predict, model.features, model.log_prob, model)
        for call in calls:
            with pytest.raises(ValueError, match=rf"x: got shape {shape}.*, expected \(B, {DIM}\)"):
                call(x)
    with pytest.raises(TypeError, match=r"x: got ndarray, expected a torch\.Tensor"):
        model.predict(torch.rand(4, DIM).numpy())


@pytest.mark.parametrize("name", ["m2", "diva", "ccvae", "m1m2"])
def test_bounds_take_a_label_for_each_row(name: str) -> None:
    """A single one was that of all rows, or an error of the network behind."""
    model, x = of_three_classes(name), torch.rand(5, DIM)
    for y, message in (
        (torch.tensor([1]), r"y: got shape \(1,\), expected \(5,\)"),
        (torch.zeros(5, 1, dtype=torch.int64), r"y: got shape \(5, 1\), expected \(5,\)"),
        (torch.tensor([0, 1, 2, 0, -1]), "y: got label -1"),
        (torch.zeros(5), "y: got torch.float32, expected a tensor of integer labels"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            model.labelled_bound(x, y)


def test_samples_with_what_the_head_says() -> None:
    torch.manual_seed(0)
    model = HybridVAE(nn.Linear(DIM, 4), nn.Linear(2, DIM), heads.Categorical(2, 3))
    one, two = (model.sample_with_prediction(4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert one.x.shape == (4, DIM) and one.log_px.shape == (4,) and one.prediction.shape == (4, 3)
    z = model.flow.base.sample(4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.prediction, model.head(z)), "of the latents that were drawn"
