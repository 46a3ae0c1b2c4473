"""Recipes on images with an integer flow: whole numbers, larger sides, steps that are learned at the end."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import pytest
import torch

from hybridkern import codec
from hybridkern.codec.learned import quantized_nets
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images import batches
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.integer_task import IntegerTask
from hybridkern.lab.recipes.images.model import build
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.workflow import load_run
from tests.recipes.conftest import run
from tests.recipes.images import SMALL, npz

OPTIONS = SMALL | {
    "flow": "idf", "net": "resnet", "levels": 2, "components": 2, "quantized": 0.5, "epochs": 4, "translation": 0,
    "precision": "fp32", "lr": 2e-3, "checkpoint_steps": 8,
}  # fmt: skip


def task_of(shape: tuple[int, ...] = (6, 7), **options: object) -> IntegerTask:
    torch.manual_seed(0)
    made = build(ImagesConfig(**(OPTIONS | options)), DataShape(shape, 3, 256, math.prod(shape)))
    assert isinstance(made, IntegerTask)
    x = torch.randint(0, 256, (60, math.prod(shape)))
    made.initialize(x, torch.zeros(60, dtype=torch.long))
    return made


@pytest.mark.parametrize("shape", [(6, 7), (8, 8), (5, 4, 3)])
def test_figures_are_of_whole_numbers(shape: tuple[int, ...]) -> None:
    """The same with any noise, and those of the flow in float64; there and back without a loss."""
    task = task_of(shape)
    x = torch.randint(0, 256, (9, math.prod(shape)), dtype=torch.uint8)
    with evaluating(task):
        plain, noisy = (task.output(rows) for rows in (x, x + 0.999 * torch.rand(x.shape)))
        assert torch.equal(plain.log_px, noisy.log_px) and torch.equal(plain.prediction, noisy.prediction)
        images = task.images(x)
        assert images.shape[2] % 4 == images.shape[3] % 4 == 0 and torch.equal(images, images.round())
        torch.testing.assert_close(plain.log_px, task.model.log_prob(images), rtol=1e-5, atol=1e-3)
        assert torch.equal(task.invert(task.latent(x)), x.float()) and torch.equal(task.rows(images), x.float())
        terms = task.terms(x, torch.zeros(9, dtype=torch.long))
    assert torch.equal(terms.nll, -plain.log_px) and task.sample(2).shape == x[:2].shape


def test_the_top_level_can_be_all_that_the_head_sees() -> None:
    task = task_of(head="top")
    assert torch.equal(task.model.head.seen, torch.arange(task.model.flow.dim)[-4 * 2 * 2 * 2 :])


class StopAfter(pl.Callback):
    """Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.steps:
            raise KeyboardInterrupt


def test_steps_are_learned_at_the_end_and_resumed(tmp_path, monkeypatch) -> None:
    data = npz(tmp_path / "data.npz", shape=(6, 8))
    whole = run("mnist", tmp_path / "whole", data=data, **OPTIONS)
    nets = quantized_nets(whole.task.model.flow)
    assert nets and all(net.on for net in nets)
    assert all((steps < -1).any() for net in nets for steps in net.weight_steps)  # of the running average, too
    record, task = load_run(tmp_path / "whole")
    x = task.images(record.recipe.load(record.config).test.x).long()
    bits = codec.quantize(task.model, x).bits
    assert bits["integers"] < bits["float"] + 0.05 + 4 / 64
    with pytest.raises(KeyboardInterrupt):
        run("mnist", tmp_path / "parts", data=data, extra=(StopAfter(18),), **OPTIONS)
    again = run("mnist", tmp_path / "parts", resume=True)
    for one, other in zip(whole.task.parameters(), again.task.parameters(), strict=True):
        assert torch.equal(one, other)


def test_processes_begin_with_the_steps_of_the_first(monkeypatch) -> None:
    """Each sees its own part of a batch, of which it would choose steps of its own."""
    task = task_of()
    sent = []
    monkeypatch.setattr(batches, "rank_and_size", lambda: (1, 2))
    monkeypatch.setattr(torch.distributed, "broadcast", lambda value, source: sent.append(value.fill_(7)))
    assert task.learn_steps(torch.randint(0, 256, (8, 42))) and not task.learn_steps(torch.zeros(8, 42))
    nets = quantized_nets(task.model.flow)
    assert len(sent) == 2 * len(nets) > 2
    assert all(net.on and net.bits == 7 and (net.activation_steps == 7).all() for net in nets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantized": 1.0}, "--quantized: got 1.0, expected a share"),
        ({"net": "densenet", "hidden": 12}, "--quantized: got 0.5: .*DenseNet"),
        ({"coupling": "half"}, "--coupling: got 'half'"),
        ({"logit": 0.1}, "--logit: got 0.1, expected the default with --flow idf"),
        ({"labels": 12}, "--labels: got 12, expected the default with --flow idf"),
        ({"components": 0}, "--components: got 0"),
    ],
)
def test_settings_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        task_of(**options)
