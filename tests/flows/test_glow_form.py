"""The form of a Glow: bounded by default, safe on spiky data, and part of what is saved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern import flows
from hybridkern.hybrid import HybridModel, heads
from hybridkern.ops.affine_coupling.form import NAMED_FORMS, CouplingForm, resolve_form


def make(**options: object) -> flows.Glow:
    torch.manual_seed(0)
    return flows.Glow((1, 8, 8), levels=2, steps=3, hidden=16, **options)


def spiky(n: int) -> Tensor:
    """Images of which most pixels are equal, as night pictures are."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator) - 0.5
    x[torch.rand(n, 1, 8, 8, generator=generator) < 0.6] = -0.5
    return x


def trained(flow: flows.Glow, x: Tensor, steps: int, lr: float = 3e-3) -> flows.Glow:
    torch.manual_seed(0)
    flow.initialize(x)
    optimizer = torch.optim.Adam(flow.train().parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        noise = torch.rand(64, 1, 8, 8) / 256
        (-flow.log_prob(x[torch.randint(len(x), (64,))] + noise).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
    return flow.eval()


def test_default_form_is_bounded_on_both_sides() -> None:
    form = make().form
    raw = torch.linspace(-1e4, 1e4, 1001)
    x = torch.ones(1001, 1)
    from hybridkern import ops

    y, log_s = ops.affine_coupling(x, torch.stack([raw, torch.zeros(1001)], 1), form=form)
    assert log_s.abs().max() <= 1 and y.min() > 0.36 and y.max() < 2.72


@pytest.mark.slow
def test_samples_after_training_on_spikes_are_finite() -> None:
    x = spiky(256)
    samples = trained(make(), x, 250).sample(1000)
    assert samples.isfinite().all() and samples.abs().max() < 1000


@pytest.mark.slow
def test_likelihood_is_that_of_the_paper_s_form() -> None:
    x = spiky(256)
    nats = {
        form: trained(make(form=form), x, 300, 1e-3).log_prob(x + 1 / 512).mean().item() for form in ("bounded", "glow")
    }
    assert (nats["glow"] - nats["bounded"]) / (64 * 0.6931) < 0.02


@pytest.mark.parametrize("form", [*NAMED_FORMS, CouplingForm("atan", clamp=0.3, offset=0.1, gain=3.0, negate=True)])
def test_numbers_stand_for_the_form(form: str | CouplingForm) -> None:
    resolved = resolve_form(form)
    assert CouplingForm.from_numbers(torch.tensor(resolved.numbers(), dtype=torch.float64).tolist()) == resolved


def test_a_saved_form_is_checked() -> None:
    saved = make(form="realnvp").state_dict()
    make(form="realnvp").load_state_dict(saved)
    make(form=NAMED_FORMS["realnvp"]).load_state_dict(saved)
    flow = make()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"form: got a state_dict of form 'realnvp', expected 'bounded', .*form='realnvp'"
    ):
        flow.load_state_dict(saved)
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def former(flow: flows.Glow) -> dict[str, Tensor]:
    """The ``state_dict`` of version 0.1: without a form, and with a truth value where a number is now."""
    state = {name: value for name, value in flow.state_dict().items() if not name.endswith("_extra_state")}
    return {name: value.bool() if name.endswith("_initialized") else value for name, value in state.items()}


def test_state_dicts_of_version_0_1() -> None:
    flow = make(form="glow")
    flow.initialize(spiky(8))
    other = make(form="glow")
    other.load_state_dict(former(flow))
    assert torch.equal(other.eval().log_prob(spiky(4)), flow.eval().log_prob(spiky(4)))
    with pytest.raises(ValueError, match=r"form: got a state_dict that does not say it, .*Glow\(\.\.\., form='glow'\)"):
        make().load_state_dict(former(flow))
    make().load_state_dict(dict(flow.named_parameters()), strict=False)  # parameters alone are a user's own business


def test_inside_a_model() -> None:
    one, two = (HybridModel(make(form="freia"), heads.Categorical(64, 2)) for _ in range(2))
    assert "flow._extra_state" in one.state_dict()
    two.load_state_dict(one.state_dict())
    assert "form='freia'" in repr(two)


@pytest.mark.parametrize("size", [4, (1, 4, 4)])
def test_realnvp_of_another_form(size: int | tuple[int, ...]) -> None:
    """The same parameters mean another flow: loading them would give other likelihoods without a word."""
    theirs, flow = (flows.RealNVP(size, layers=2, hidden=4, form=form, levels=1) for form in ("freia", "glow"))
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    with pytest.raises(ValueError, match=r"form: got a state_dict of form 'freia', expected 'glow', .*RealNVP\("):
        flow.load_state_dict(theirs.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    flow.load_state_dict({name: value for name, value in theirs.state_dict().items() if name != "_extra_state"})
    x = torch.randn(3, *flow.shape)
    torch.testing.assert_close(torch.func.functional_call(flow, flow.state_dict(), x), flow(x))
