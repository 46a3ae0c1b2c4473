"""``hybridkern.lab.fit``: models of every kind learn, stop, resume; bad input is named before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hybridkern
from hybridkern import flows, lab, transforms
from hybridkern.hybrid import HybridModel, heads, objectives
from hybridkern.hybrid.vae import M2, HybridVAE
from tests.lab.small import QUIET, clouds, hybrid, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_classifier_learns_and_the_history_says_so(tmp_path: Path) -> None:
    x, y = clouds()
    model = hybrid()
    history = lab.fit(model, x, y, epochs=20, lr=1e-2, **QUIET)
    assert not model.training and history["epoch"] == list(range(1, 21))
    assert history["val_loss"][-1] < history["val_loss"][0] - 0.3
    assert history["val_error"][-1] == 0 and history.stopped == "20 epochs were done"
    assert history.best == 1 + int(np.argmin(history["val_loss"]))
    text = str(history)
    assert "<- these weights" in text and "val_log_px" in text and "stopped: 20 epochs" in text
    history.plot().savefig(tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 5000
    assert history.settings["rows"] == 216 and "per_dimension" not in history.settings["objective"]
    assert "1/D" in history.settings["objective"]


def test_the_weights_are_those_of_the_best_epoch() -> None:
    """The validation loss of the kept weights, computed anew, is the lowest of the history."""
    x, y = clouds(24)
    held = clouds(80, seed=1)
    model = hybrid()
    history = lab.fit(model, x, y, validation=held, epochs=40, lr=0.03, schedule="constant", clip=None, **QUIET)
    assert history.best < len(history.epochs)  # so few rows are soon learned by heart
    rows = torch.tensor(held[0], dtype=torch.float32), torch.tensor(held[1])
    with torch.no_grad():
        loss = model.loss(*rows, objectives.Weighted(1.0, per_dimension=True)).item()
    assert loss == pytest.approx(min(history["val_loss"]), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_flow_alone_in_its_dtype(dtype: str) -> None:
    x, _ = clouds()
    flow = flows.Compose(2, [transforms.ActNorm(2), transforms.LULinear(2)]).to(getattr(torch, dtype))
    history = lab.fit(flow, torch.tensor(x), epochs=3, **QUIET)
    assert set(history.epochs[0]) == {"epoch", "seconds", "loss", "val_loss", "val_log_px"}
    assert flow.log_prob(torch.zeros(1, 2, dtype=flow.base.dtype)).dtype == flow.base.dtype
    std = 1 / flow.layers[0].log_scale.exp()  # actnorm started from the data
    torch.testing.assert_close(std.double(), torch.tensor(x.std(0)), rtol=0.1, atol=0)


def test_a_condition() -> None:
    """x is the condition plus noise: what is far from it is not likely."""
    rng = np.random.default_rng(0)
    context = rng.normal(size=(300, 3))
    x = context[:, :1] + 0.1 * rng.normal(size=(300, 1))
    flow = flows.RealNVP(1, layers=2, hidden=16, context=3)
    lab.fit(flow, x, context=context, epochs=25, lr=1e-2, **QUIET)
    c = torch.tensor([[1.0, 0.0, 0.0]])
    assert flow.log_prob(torch.tensor([[1.0]]), c) > flow.log_prob(torch.tensor([[-1.0]]), c) + 2


def test_regression_observes_the_rows_at_the_end() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = 3 * x[:, 0] + 0.1 * rng.normal(size=200) + 5
    model = hybrid(heads.BayesianLinear(2, prior_precision=0.1, noise=0.1, bias=True))
    history = lab.fit(model, x, y, objective=objectives.Weighted(0.1), epochs=3, **QUIET)
    assert history["val_rmse"][-1] < 0.5
    assert int(model.head.rows) == 180


def test_autoencoders_and_unlabelled_rows() -> None:
    x, y = clouds(120)
    y[::2] = -1
    x = 1 / (1 + np.exp(-x))
    semi = M2(2, 2, latent=2, hidden=(8,))
    assert "val_error" in lab.fit(semi, x, y, epochs=2, **QUIET).epochs[0]
    vae = HybridVAE(nn.Linear(2, 4), nn.Linear(2, 2), heads.Categorical(2, 2))
    goal = objectives.SemiSupervised(objectives.Joint(), 0.1)
    assert math.isfinite(lab.fit(vae, x, y, objective=goal, epochs=2, **QUIET)["val_loss"][-1])


def test_rows_without_a_label_are_in_no_share_of_errors() -> None:
    x, y = clouds(100)
    y[:98] = -1
    goal = objectives.SemiSupervised(objectives.Joint(), 0.1)
    options: dict[str, Any] = {"objective": goal, "epochs": 1} | QUIET
    none = lab.fit(hybrid(), x, y, validation=(x[:50], y[:50]), **options)
    assert set(none.epochs[0]) == {"epoch", "seconds", "loss", "val_loss", "val_log_px"} and "val_error" not in str(
        none
    )
    model = hybrid()
    some = lab.fit(model, x, y, validation=(x[50:], y[50:]), **options)
    wrong = model.predict(torch.tensor(x[98:], dtype=torch.float32)) != torch.tensor(y[98:])
    assert some["val_error"] == [wrong.double().mean().item()]


def test_targets_start_from_their_own_mean_and_width() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = 500 + 30 * x[:, 0]
    model = hybrid(heads.Gaussian(2))
    history = lab.fit(model, x, y, epochs=1, **QUIET)
    assert 480 < model.head.target_center < 520 and 20 < model.head.target_scale < 40
    assert history["val_rmse"][0] < 60
    assert lab.fit(hybrid(heads.Gaussian(2)), x, 0 * y + 2, epochs=1, **QUIET).best == 1  # which do not vary


def test_under_autocast_of_the_caller() -> None:
    """Its copies of the weights are made anew in every step: what one sees is what was learned."""
    x, y = clouds()
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(lab.fit(hybrid(), x, y, epochs=8, lr=1e-2, **QUIET)["val_loss"])
    assert losses[1][0] - losses[1][-1] > 0.3
    np.testing.assert_allclose(losses[1], losses[0], atol=0.05)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"fit: called under torch\.inference_mode"):
        lab.fit(hybrid(), x, y, epochs=1, **QUIET)


def test_a_bare_flow_of_integers_and_of_images() -> None:
    whole = np.random.default_rng(0).integers(0, 17, (60, 4))
    assert len(lab.fit(flows.IDF(4, layers=1, hidden=8), whole, epochs=1, **QUIET).epochs) == 1
    glow = flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4)
    lab.fit(glow, torch.randn(40, 1, 4, 4), epochs=1, validation=0, **QUIET)
    assert bool(glow._initialized)


def test_early_stopping_and_no_validation() -> None:
    x, y = clouds(60)
    stopped = lab.fit(hybrid(), x, y, epochs=50, patience=2, lr=0.5, clip=None, schedule="constant", **QUIET)
    assert len(stopped.epochs) < 50 and stopped.stopped == "no lower validation loss in 3 epochs"
    assert len(stopped.epochs) == stopped.best + 3
    plain = lab.fit(hybrid(), x, y, epochs=3, validation=0, patience=0, **QUIET)
    assert plain.best == 3 and set(plain.epochs[0]) == {"epoch", "seconds", "loss"}


def test_minutes_end_the_training_within_an_epoch() -> None:
    x, _ = clouds(4000)
    history = lab.fit(hybrid(), x, minutes=0.02, batch_size=4, **QUIET)
    assert history.stopped == "0.02 minutes were over" and history.epochs[-1]["seconds"] < 10
    assert history["val_loss"]


class Cliff(nn.Module):
    """Divides by zero where a number is large."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs().amax(1, keepdim=True) > 2.5, x / 0.0, x)


def test_nan_stops_the_training_and_names_the_layer() -> None:
    x, y = clouds()
    model = hybrid()
    model.head.net.insert(0, Cliff())
    before = weights(model)
    with pytest.raises(
        lab.TrainingError, match=r"loss: got (nan|inf) in epoch 1, step \d+: layer 'head\.net\.0' \(Cliff\)"
    ):
        lab.fit(model, x, y, epochs=3, initialize=False, **QUIET)
    assert not model.training and weights(model).keys() == before.keys()


def test_it_starts_from_data_once() -> None:
    x, y = clouds(100)
    model = hybrid()
    lab.fit(model, x, y, epochs=1, **QUIET)
    center = model.head.center.clone()
    assert center.abs().max() > 0
    lab.fit(model, x + 3, y, epochs=1, **QUIET)
    assert torch.equal(model.head.center, center)
    lab.fit(model, x + 3, y, epochs=1, initialize=True, **QUIET)
    assert not torch.equal(model.head.center, center)


def _loaded(flow: flows.Flow, tmp_path: Path) -> flows.Flow:
    flow.save(tmp_path / "flow")
    loaded = hybridkern.load(tmp_path / "flow")
    assert isinstance(loaded, flows.Flow)
    return loaded


def _of_state_dict(flow: flows.Flow, tmp_path: Path) -> flows.Flow:
    again = flows.Planar(2, layers=2)
    again.load_state_dict(flow.state_dict())
    return again


@pytest.mark.parametrize("origin", [lambda flow, _: flow, _loaded, _of_state_dict], ids=["fit", "load", "state dict"])
def test_a_trained_flow_keeps_what_it_has_learnt_under_a_new_head(origin: Any, tmp_path: Path) -> None:
    """It was laid over the data anew, as if it were an untrained part of the new model."""
    x, y = clouds(200)
    torch.manual_seed(0)
    flow = flows.Planar(2, layers=2)
    lab.fit(flow, x, epochs=2, **QUIET)
    flow = origin(flow, tmp_path)
    before = weights(flow)
    model = HybridModel(flow, heads.Categorical(2, classes=2))
    lab.fit(model, x + 1, y, epochs=1, lr=1e-12, **QUIET)
    torch.testing.assert_close(weights(flow), before, rtol=0, atol=1e-9)
    assert model.head.center.abs().max() > 0, "the head is new, and starts from data"


def test_a_head_starts_from_the_first_targets() -> None:
    """Not before: where the density alone was trained, a later regression went without their mean and width."""
    x, _ = clouds(100)
    model = hybrid(heads.Gaussian(2))
    lab.fit(model, x, epochs=1, **QUIET)
    flow = weights(model.flow)
    y = 1000 + 3 * x[:, 0]
    lab.fit(model, x, y, epochs=1, lr=1e-12, validation=0, **QUIET)
    assert model.head.target_center.item() == pytest.approx(y.mean(), rel=1e-6)
    assert model.head.target_scale.item() == pytest.approx(y.std(), rel=1e-5)
    torch.testing.assert_close(weights(model.flow), flow, rtol=0, atol=1e-9)


def test_a_conditional_planar_flow() -> None:
    x, _ = clouds(100)
    context = np.random.default_rng(1).normal(size=(100, 3))
    history = lab.fit(flows.Planar(2, context=3), x, context=context, epochs=2, **QUIET)
    assert history.best >= 1


def test_a_model_in_evaluation_mode_is_trained_in_training_mode() -> None:
    """As one that was fitted or loaded before is; what its owner put into evaluation mode alone stays there."""
    x, y = clouds(50)
    model = hybrid(heads.Categorical(2, classes=2, hidden=(4,), dropout=0.5, input_dropout=0.5))
    modes: list[tuple[bool, ...]] = []
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]

    def note(*_: Any) -> None:
        if torch.is_grad_enabled():
            modes.append(tuple(module.training for module in (model, *dropouts)))

    model.head.register_forward_hook(note)
    for _ in range(2):
        lab.fit(model, x, y, epochs=2, **QUIET)
        assert not model.training
    assert set(modes) == {(True, True, True)}
    modes.clear()
    model.train()
    dropouts[0].eval()
    lab.fit(model, x, y, epochs=2, **QUIET)
    assert set(modes) == {(True, False, True)}


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_a_flow_of_an_earlier_training_is_trained_in_training_mode(frozen: bool) -> None:
    """It was left in evaluation mode there, and trained without dropout in the new model; a frozen one stays so."""
    x, y = clouds(50)
    flow = flows.RealNVP(2, layers=2, hidden=8, dropout=0.5)
    lab.fit(flow, x, epochs=1, **QUIET)
    flow.requires_grad_(not frozen)
    model = HybridModel(flow, heads.Categorical(2, classes=2, hidden=(4,), dropout=0.5))
    dropouts = [module for module in flow.modules() if isinstance(module, nn.Dropout)]
    modes: set[bool] = set()

    def note(module: nn.Module, *_: Any) -> None:
        if torch.is_grad_enabled():
            modes.add(module.training)

    for dropout in dropouts:
        dropout.register_forward_hook(note)
    lab.fit(model, x, y, epochs=1, **QUIET)
    assert modes == {not frozen}
    modes.clear()
    model.train()
    flow.eval()  # by its owner: this model has been seen
    lab.fit(model, x, y, epochs=1, **QUIET)
    assert modes == {False}


def test_the_callers_random_numbers_are_left_alone() -> None:
    x, y = clouds(50)
    state = torch.get_rng_state()
    lab.fit(hybrid_without_seed(), x, y, epochs=1, **QUIET)
    assert torch.equal(torch.get_rng_state(), state)


def test_numbers_of_every_kind_are_taken() -> None:
    x = clouds(60)[0]
    numbers = np.abs(1e3 * x)
    big_endian, single = numbers.astype(">f4"), numbers.astype(np.float32)
    for given in (big_endian, numbers.astype(np.int32), numbers.astype(np.uint16), numbers.astype(np.uint64), x + 1e3):
        lab.fit(flows.Planar(2), given, epochs=1, **QUIET)
    expected = lab.fit(flows_without_seed(), single, epochs=1, **QUIET)
    assert lab.fit(flows_without_seed(), big_endian, epochs=1, **QUIET)["loss"] == expected["loss"]


def flows_without_seed() -> flows.Flow:
    torch.manual_seed(0)
    return flows.Planar(2)


def test_targets_that_would_be_rounded_are_named() -> None:
    x, _ = clouds(60)
    model = HybridModel(flows.RealNVP(2, layers=2, hidden=8), heads.Gaussian(2))
    with pytest.raises(ValueError, match=r"y: got values near 1.7e\+09"):
        lab.fit(model, x, 1.7e9 + x[:, 0], epochs=1, **QUIET)


def hybrid_without_seed() -> HybridModel:
    state = torch.get_rng_state()
    model = hybrid()
    torch.set_rng_state(state)
    return model


def test_progress_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    lab.fit(hybrid(), *clouds(), epochs=1)
    captured = capsys.readouterr()
    assert captured.out == "" and "val_loss" in captured.err
