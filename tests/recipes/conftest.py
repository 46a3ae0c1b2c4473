"""Runs of a few epochs that the tests of this folder share."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hybridkern.lab.cli import app
from hybridkern.lab.recipes.callbacks import Last
from hybridkern.lab.recipes.workflow import Run, train


class StopAt(pl.Callback):
    """Ctrl-C in the middle of an epoch (from 0)."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 7:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def every_epoch_is_kept(monkeypatch):
    """Epochs here take less time than lies between two checkpoints, and an interrupt must have something to keep."""
    monkeypatch.setattr(Last, "seconds", 0.0)


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Every recipe."""


def run(name: str, out: Path, resume: bool = False, extra: tuple = (), **options: Any) -> Run:
    """Trains without a progress line."""
    return train(name, options, out, resume=resume, extra=extra, console=Console(file=io.StringIO()))


def call(*arguments: object, code: int) -> str:
    """Standard error of a command, which ends with ``code`` and no exception that a user would see."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    assert result.exit_code == code, result.stderr
    return result.stderr


def without_pictures(*modules: Any, autouse: bool = False) -> Any:
    """A fixture: runs of the recipes of these modules without their pictures, which take longer than the training."""

    @pytest.fixture(autouse=autouse)
    def undrawn(monkeypatch):
        for module in modules:
            monkeypatch.setattr(module, "RECIPE", dataclasses.replace(module.RECIPE, draw=lambda *_: []))

    return undrawn
