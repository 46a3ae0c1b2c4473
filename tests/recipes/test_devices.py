"""Recipes on a GPU, which is pretended: what Lightning is asked for, where batches are made, and several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridkern.lab.data import Split
from hybridkern.lab.recipes import device, training, workflow
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images import batches, precision
from hybridkern.lab.recipes.images import training as image_training
from hybridkern.lab.recipes.images.batches import TrainingBatches
from hybridkern.lab.recipes.images.module import ImageModule
from hybridkern.lab.recipes.module import HybridModule
from hybridkern.lab.recipes.recipe import DataShape, get_recipe, recipe_names
from tests.recipes.conftest import run
from tests.recipes.images import SMALL, npz

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA, META = map(torch.device, ("cpu", "cuda", "meta"))


def pretend(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """GPUs of these compute capabilities; none without any."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])


@pytest.mark.parametrize(("name", "with_gpu"), [("auto", CUDA), ("cuda", CUDA), ("cpu", CPU)])
def test_device(monkeypatch: pytest.MonkeyPatch, name: str, with_gpu: torch.device) -> None:
    pretend(monkeypatch, (9, 0))
    assert device.chosen(name) == with_gpu
    pretend(monkeypatch)
    if name == "cuda":
        with pytest.raises(RecipeError, match="--device: got 'cuda', but torch sees no CUDA or ROCm device"):
            device.chosen(name)
    else:
        assert device.chosen(name) == CPU


def test_unknown_device(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--device: got 'tpu', expected one of auto, cpu, cuda"):
        run("digits", tmp_path / "a", device="tpu")


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [([(9, 0)], "bf16-mixed"), ([(8, 0), (8, 9)], "bf16-mixed"), ([(9, 0), (7, 5)], "32-true")],
)
def test_bfloat16_where_every_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], name: str
) -> None:
    pretend(monkeypatch, *capabilities)
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: pytest.fail("the CPU was asked"))
    assert precision.resolve("auto", CUDA) == name
    assert precision.resolve("fp32", CUDA) == "32-true"


class Asked(Exception):
    """What the trainer was asked for, in place of a training."""


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """On a machine with GPUs: the arguments of Lightning's trainer, which is not made."""
    asked: dict[str, Any] = {}

    def stand_in(**options: Any) -> None:
        asked.update(options)
        raise Asked

    pretend(monkeypatch, (9, 0), (9, 0))
    monkeypatch.setattr(workflow, "placed", lambda task, where: device.placed(task, CPU))
    for module in (training, image_training):
        monkeypatch.setattr(module.pl, "Trainer", stand_in)
    return asked


def test_recipes_train_on_the_gpu(trainer: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Asked):
        run("svhn", tmp_path / "a", **SMALL, data=npz(tmp_path / "a.npz"), epochs=1)
    assert (trainer["accelerator"], trainer["devices"], trainer["strategy"]) == ("cuda", 1, "auto")
    assert trainer["precision"] == "bf16-mixed"
    with pytest.raises(Asked):
        run("digits", tmp_path / "b", epochs=1)
    assert trainer["accelerator"] == "cuda"
    with pytest.raises(Asked):
        run("digits", tmp_path / "c", epochs=1, device="cpu")
    assert trainer["accelerator"] == "cpu"


def test_several_gpus_talk_by_nccl(trainer: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Asked):
        run("svhn", tmp_path / "a", **SMALL, data=npz(tmp_path / "a.npz"), epochs=1, devices=2)
    assert (trainer["devices"], trainer["num_nodes"]) == (2, 1)
    assert trainer["strategy"]._process_group_backend == "nccl"
    assert trainer["strategy"]._start_method == "spawn"


@pytest.mark.parametrize("quantized", [0.0, 0.5])
def test_parameters_may_have_no_gradient_until_steps_are_learned(
    trainer: dict[str, Any], tmp_path: Path, quantized: float
) -> None:
    options = SMALL | {
        "data": npz(tmp_path / "a.npz"),
        "epochs": 1,
        "devices": 2,
        "flow": "idf",
        "quantized": quantized,
    }
    with pytest.raises(Asked):
        run("svhn", tmp_path / "a", **options)
    assert trainer["strategy"]._ddp_kwargs.get("find_unused_parameters", False) == (quantized > 0)


def test_processes_that_were_launched_are_not_started_again(
    trainer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SMALL | {"data": npz(tmp_path / "a.npz"), "epochs": 1, "devices": 2, "nodes": 2}
    with pytest.raises(RecipeError, match="--nodes: got 2, expected torchrun or SLURM"):
        run("svhn", tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(Asked):
        run("svhn", tmp_path / "b", **options)
    assert trainer["num_nodes"] == 2 and trainer["strategy"]._start_method != "spawn"
    assert not (tmp_path / "b").exists(), "the first process keeps the folder"
    with pytest.raises(RecipeError, match="--devices, --nodes: got 1 x 1, but 4 processes were started"):
        run("svhn", tmp_path / "c", **options | {"devices": 1, "nodes": 1})


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 8)),
    ],
)
def test_who_was_launched(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: tuple[int, int] | None
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert device.launched() == found
    assert device.follows() == (found is not None and found[0] > 0)


def test_batches_are_made_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without memory refuses every tensor of another one."""
    monkeypatch.setattr(batches, "seeded", lambda *numbers, device=CPU: None if device == META else torch.Generator())
    y = torch.tensor([0, 1, -1, -1, -1, -1] * 4)
    split = Split(torch.zeros(24, 192, dtype=torch.uint8), y)
    options: dict[str, Any] = {"stretch": lambda: 1, "seed": 0, "done": lambda: 0}
    options |= {"translation": 2, "redrawn": (0.5, 256)}
    made = TrainingBatches(split, (8, 8, 3), 8, device=META, unlabelled=0.5, views=2, distortion=0.5, **options)
    x, labels = made.batch(0)
    assert x.is_meta and labels.is_meta and x.shape == (8, 192) and x.dtype == torch.float32
    assert split.x.is_cpu and made.__getstate__()["_held"] is None, "other processes are given the split alone"


ON_GLOW, ON_IMAGES = ("svhn", "mnist", "cifar10"), ("svhn", "mnist", "cifar10", "mnist-vae", "digits-vae")


def small_task(name: str, folder: Path) -> tuple[Any, Any, DataShape]:
    recipe = get_recipe(name)
    if name in ON_GLOW:
        config = recipe.config.updated(name, {k: SMALL[k] for k in ("levels", "steps", "hidden")} | {"data": "x.npz"})
        shape = DataShape((8, 8, 3), 3, 256, 192)
        return recipe.build(config, shape), config, shape
    options: dict[str, Any] = {}
    if name in ("mnist-vae", "digits-vae"):
        options["model"] = "hybrid"  # others take rows by their labels, of which meta tensors have none
    if name == "mnist-vae":
        options |= {"data": npz(folder / "a.npz", count=900, shape=(8, 8)), "labels": 9, "validation": 8}
    elif name in ("density", "flights"):
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(300, 8)).astype(np.float32), generator.normal(size=300).astype(np.float32)
        parts = {"X_train": x, "X_test": x[:50]} | ({} if name == "density" else {"y_train": y, "y_test": y[:50]})
        np.savez(folder / "a.npz", **parts)
        options["data"] = str(folder / "a.npz")
    config = recipe.config.updated(name, options)
    shape = DataShape.of(recipe.load(config))
    return recipe.build(config, shape), config, shape


@pytest.mark.parametrize("name", recipe_names())
def test_a_step_of_every_recipe_mixes_no_devices(name: str, tmp_path: Path) -> None:
    task, config, shape = small_task(name, tmp_path)
    if name in ON_IMAGES:
        module: HybridModule = ImageModule(task, config, 1)
        module.on_fit_start()
    else:
        module = HybridModule(task, config, 10)
    module.to(META)
    if isinstance(module, ImageModule):
        module.on_fit_start()
    x = torch.empty(4, shape.dim, device=META)
    kind = torch.int64 if shape.classes > 1 else torch.float32
    batch = (x, torch.empty(4, dtype=kind, device=META))
    module.training_step(batch, 0).backward()
    module._sums = torch.zeros(4, dtype=torch.float64, device=module.device)  # as an epoch of validation begins
    module.validation_step(batch, 0)
    assert module._sums.is_meta and any(parameter.grad is not None for parameter in task.parameters())


def test_a_run_from_a_gpu_is_evaluated_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    done = run("svhn", tmp_path / "a", **SMALL, data=npz(tmp_path / "a.npz"), epochs=1)
    config = dataclasses.replace(done.record.config, device="cuda")
    again = workflow._evaluate(done.record, done.task, get_recipe("svhn").load(config), config)
    assert again.metrics["test_nll_nats"] == done.metrics["test_nll_nats"]


@pytest.mark.slow
def test_torchrun_trains_as_one_process(tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz")
    options = SMALL | {"data": data, "epochs": 1, "precision": "fp32", "device": "cpu"}
    one = run("svhn", tmp_path / "one", **options)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()
             if name in ("data", "epochs", "batch_size", "precision", "device", "validation")]  # fmt: skip
    sets = [f"--set={name}={value}" for name, value in SMALL.items() if name not in ("batch_size", "validation")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517"]
    command += ["-m", "hybridkern.lab.cli", "train", "svhn", "--devices=2", f"--out={tmp_path / 'two'}", *flags, *sets]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["steps"] == one.metrics["steps"]
    assert two["test_nll_nats"] == pytest.approx(one.metrics["test_nll_nats"], rel=1e-5)
    assert done.stdout.count("this run") == 1, "one process says what came of it"
