"""Runs of the recipes on images: what they leave behind, how they resume after any end, and several processes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.metrics import roc_auc_score

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images import batches as batches_module
from hybridkern.lab.recipes.images import pace as pace_module
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.images.evaluation import score
from hybridkern.lab.recipes.images.official import SVHN
from hybridkern.lab.recipes.images.pace import Pace, factor
from hybridkern.lab.recipes.images.sources import load
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.recipe import DataShape, get_recipe
from hybridkern.lab.recipes.report import result_table
from hybridkern.lab.recipes.sampling import sample_run
from hybridkern.lab.recipes.workflow import evaluate_run, load_run
from hybridkern.ops.affine_coupling.form import resolve_form
from hybridkern.transforms.glow_step import GlowStep
from tests.recipes.conftest import run
from tests.recipes.images import SMALL, npz
from tests.recipes.test_resume import assert_same

PLOTS = ("confidence", "interpolations", "log_px", "real", "reconstructions", "samples", "training")


def small(folder: Path, **options: object) -> dict[str, object]:
    return SMALL | {"data": npz(folder / "a.npz"), "epochs": 2, "precision": "fp32"} | options


def test_run_leaves_figures_with_their_conventions_and_plots(tmp_path):
    np.savez(tmp_path / "noise.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8))
    done = run("svhn", tmp_path / "a", **small(tmp_path, lam=2.0, epochs=8, ood=str(tmp_path / "noise.npz")))
    folder = tmp_path / "a"
    assert {path.name for path in folder.glob("*.png")} == {f"{name}.png" for name in PLOTS}
    assert all(imread(path).std() > 0.01 for path in done.pictures)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == done.metrics
    assert metrics["lam"] == 2 and "(lam / D) * log p(x)" in metrics["lam_convention"]
    assert (metrics["steps"], metrics["epochs"], metrics["examples"]["train"]) == (56, 8, 56)
    assert metrics["images_per_second"] * metrics["train_seconds"] == pytest.approx(56 * 8)
    assert metrics["training"]["step"] == [*range(3, 56, 3), 56]
    assert metrics["validation"]["step"] == [*range(3, 56, 3), 56]
    assert metrics["precision"] == "32-true"
    assert metrics["test_bits_per_dim"] == pytest.approx(metrics["test_nll_nats"] / (192 * math.log(2)))
    assert metrics["test_error"] < 0.35 and metrics["test_bits_per_dim"] < 7.5 and metrics["ood_auroc"] > 0.9
    assert metrics["round_trip_max_abs_error"] < 0.01
    record, task = load_run(folder)
    inside = score(task, record.recipe.load(record.config).test.x, 1)
    outside = score(task, torch.from_numpy(np.load(tmp_path / "noise.npz")["images"]).flatten(1), 1)
    truth = [1] * len(inside.log_px) + [0] * len(outside.log_px)
    assert metrics["ood_auroc"] == roc_auc_score(truth, torch.cat([inside.log_px, outside.log_px]))
    _, again, drawn = evaluate_run(folder, str(tmp_path / "noise.npz"))
    assert again == {key: metrics[key] for key in again} and drawn == [folder / "log_px_noise.png"]
    images = np.load(sample_run(folder, 5, tmp_path / "s.npz", 0))["images"]
    assert images.shape == (5, 8, 8, 3) and images.min() >= 0 and images.max() <= 255


def test_inverse_that_overflows_is_no_number(tmp_path, monkeypatch):
    """At lambda 0 nothing keeps the inverse finite: the figure is missing, and the table and all plots are there."""
    invert = ImageTask.invert
    monkeypatch.setattr(ImageTask, "invert", lambda task, z: invert(task, z) * math.inf)
    run("svhn", tmp_path / "a", **small(tmp_path, lam=0.0, epochs=1))
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["round_trip_max_abs_error"] is None
    assert {path.name for path in (tmp_path / "a").glob("*.png")} == {f"{name}.png" for name in PLOTS}
    table = result_table("", {"this run": json.loads((tmp_path / "a" / "metrics.json").read_text())})
    assert "not finite" in map(str, table.columns[1].cells)


def test_objective_and_likelihood_are_those_of_the_paper(tmp_path):
    done = run("svhn", tmp_path / "a", **small(tmp_path, epochs=1, lam=0.5))
    task = done.task
    data = load(done.record.config, SVHN).test
    x = dequantized(data.x, seeded(7))
    with evaluating(task):
        loss, terms = task.loss_and_terms(x, data.y)
        images = (x / 256 - 0.5).view(-1, 8, 8, 3).permute(0, 3, 1, 2)
        log_px = task.model.flow.log_prob(images)
        torch.testing.assert_close(terms.nll, 192 * math.log(256) - log_px)
        torch.testing.assert_close(loss, (terms.class_nll - 0.5 / 192 * log_px).mean())
        torch.testing.assert_close(task.rows(images), x)


def test_mnist_without_colours_and_a_classifier_of_the_top_level(tmp_path):
    options = small(
        tmp_path, data=npz(tmp_path / "b.npz", shape=(12, 12)), levels=2, head="top", head_hidden=8, epochs=1
    )
    done = run("mnist", tmp_path / "a", **options)
    head = done.task.model.head
    flow = done.task.model.flow
    latents = flow.latents(torch.arange(144.0)[None])
    assert sorted(head.seen.tolist()) == sorted(latents[-1].flatten().int().tolist()) and len(head.seen) == 72
    assert head.net[0].in_features == 72


class Killed(pl.Callback):
    """Ends the process's training as abruptly as a test can, in the middle of a stretch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 8:
            raise ZeroDivisionError


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_run_equals_the_whole_run(tmp_path, precision):
    options = small(tmp_path, precision=precision, head_input_dropout=0.2, ema=0.9, ema_every=2)
    whole = run("svhn", tmp_path / "whole", **options)
    with pytest.raises(ZeroDivisionError):
        run("svhn", tmp_path / "cut", extra=(Killed(),), **options)
    assert torch.load(tmp_path / "cut/checkpoints/last.ckpt")["global_step"] == 6
    torch.rand(5)
    resumed = run("svhn", tmp_path / "cut", resume=True)
    for key, value in whole.task.state_dict().items():
        assert torch.equal(value, resumed.task.state_dict()[key]), key
    last = [torch.load(tmp_path / where / "checkpoints/last.ckpt") for where in ("whole", "cut")]
    for key in ("optimizer_states", "state_dict", "current_model_state", "averaging_state", "global_step"):
        assert_same(last[0][key], last[1][key])
    assert whole.metrics["test_nll_nats"] == resumed.metrics["test_nll_nats"]
    for curves in ("training", "validation"):
        a, b = (dict(done.metrics[curves], seconds=None) for done in (whole, resumed))
        assert a == b


def test_finished_training_is_only_evaluated_again(tmp_path):
    done = run("svhn", tmp_path / "a", **small(tmp_path, epochs=1))
    (tmp_path / "a/metrics.json").unlink()
    again = run("svhn", tmp_path / "a", resume=True)
    same = {"test_nll_nats", "train_seconds", "steps", "training"}
    assert {key: done.metrics[key] for key in same} == {key: again.metrics[key] for key in same}


def test_run_that_was_killed_resumes_to_the_same_weights(tmp_path):
    """SIGKILL to a process of the command line, at a moment that nobody chose."""
    data = npz(tmp_path / "a.npz")
    settings = [f"--set={name}={value}" for name, value in SMALL.items() if name != "batch_size"]
    common = ["--data", data, "--epochs", "30", "--batch-size", "8", "--threads", "1", *settings]

    def command(out: str, *more: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "hybridkern.lab.cli",
            "train",
            "svhn",
            "--out",
            str(tmp_path / out),
            *common,
            *more,
        ]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.Popen(command("whole"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cut = subprocess.Popen(command("cut"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        last = tmp_path / "cut/checkpoints/last.ckpt"
        deadline = time.monotonic() + 120
        while not last.exists():
            assert time.monotonic() < deadline and cut.poll() is None
            time.sleep(0.01)
        cut.send_signal(signal.SIGKILL)
        assert cut.wait() == -signal.SIGKILL and not (tmp_path / "cut/metrics.json").exists()
        subprocess.run(command("cut", "--resume"), env=environment, check=True, capture_output=True, timeout=120)
        assert whole.wait(timeout=120) == 0
    finally:
        for process in (whole, cut):
            process.kill()
    states = [load_run(tmp_path / out)[1].state_dict() for out in ("whole", "cut")]
    assert_same(*(dict(state) for state in states))


class SameOnAllRanks(pl.Callback):
    """Fails unless all processes start from the same weights, actnorm's among them, and there are two of them."""

    def on_train_start(self, trainer, pl_module):
        values = torch.cat([value.flatten().double() for value in pl_module.state_dict().values()])
        gathered = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, values)
        assert len(gathered) == 2 and torch.equal(*gathered)
        assert pl_module.task.model.flow._initialized


def test_two_processes_train_as_one(tmp_path):
    options = small(tmp_path, epochs=1, head_dropout=0.0)  # each process drops units of its own
    one = run("svhn", tmp_path / "one", **options)
    two = run("svhn", tmp_path / "two", extra=(SameOnAllRanks(),), **options | {"devices": 2})
    assert two.metrics["steps"] == one.metrics["steps"] == 7
    for key in ("nll", "class_nll"):
        assert two.metrics["training"][key] == pytest.approx(one.metrics["training"][key], rel=1e-5)
    assert two.metrics["test_nll_nats"] == pytest.approx(one.metrics["test_nll_nats"], rel=1e-5)
    for key, value in one.task.state_dict().items():
        torch.testing.assert_close(two.task.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_failure_in_a_process_is_one_line(tmp_path):
    with pytest.raises(RecipeError, match="a process of --devices failed: ZeroDivisionError"):
        run("svhn", tmp_path / "a", extra=(Killed(),), **small(tmp_path, devices=2))


def test_time_ends_a_run_and_its_schedule(tmp_path):
    done = run("svhn", tmp_path / "a", **small(tmp_path, epochs=None, minutes=0.01))
    assert 0.6 <= done.metrics["train_seconds"] < 5
    written = json.loads((tmp_path / "a/config.json").read_text())["config"]
    assert done.record.config.epochs is written["epochs"] is None and written["minutes"] == 0.01
    last = torch.load(tmp_path / "a/checkpoints/last.ckpt")
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] < 0.2 * 2e-3


def test_a_short_run_has_curves_whatever_ends_it(tmp_path, monkeypatch):
    """By the clock and by epochs: fewer steps than lie between two checkpoints of a long run."""
    ticks = itertools.count(step=0.01)  # two a step: the clock of a busy machine would make stretches of any length
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    for name, options in (("clock", {"epochs": None, "minutes": 0.03}), ("epochs", {"epochs": 13})):
        metrics = run("svhn", tmp_path / name, **small(tmp_path, checkpoint_steps=400, **options)).metrics
        assert 85 <= metrics["steps"] <= 91
        trained, validated = metrics["training"]["step"], metrics["validation"]["step"]
        for steps, least, most, apart in ((trained, 20, 28, 6), (validated, 8, 10, 14)):
            assert least <= len(steps) <= most and steps[-1] == metrics["steps"], name
            assert all(0 < after - before <= apart for before, after in itertools.pairwise([0, *steps])), name
        assert {len(values) for values in metrics["training"].values()} == {len(trained)}
        assert {len(values) for values in metrics["validation"].values()} == {len(validated)}


def test_a_run_by_the_clock_goes_on_where_an_older_version_began_it(tmp_path):
    """Versions up to 0.2.0 wrote a million epochs; ``--epochs`` shortens no such run."""
    options = small(tmp_path, epochs=None, minutes=0.01)
    done = run("svhn", tmp_path / "a", **options)
    path = tmp_path / "a/config.json"
    values = json.loads(path.read_text())
    values["config"]["epochs"] = 10**6
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "checksum"}))
    assert load_run(tmp_path / "a")[0].config == done.record.config
    again = run("svhn", tmp_path / "a", resume=True, minutes=0.02)
    assert again.metrics["steps"] > done.metrics["steps"] and again.record.config.epochs is None
    with pytest.raises(RecipeError, match="--epochs: got 1, but the run to resume has none"):
        run("svhn", tmp_path / "a", resume=True, epochs=1)
    with pytest.raises(RecipeError, match="--epochs: got None, expected a number, or --minutes"):
        dataclasses.replace(done.record.config, minutes=None)


def test_training_that_breaks_down_says_so(tmp_path):
    with pytest.raises(RecipeError, match=r"training broke down in epoch \d+: training (nll|class_nll) is (nan|inf)"):
        run("svhn", tmp_path / "a", **small(tmp_path, lr=1e30, schedule="constant", warmup=0.0, clip=None))


def test_schedules_rise_and_fall():
    for schedule in ("onecycle", "cosine"):
        values = [factor(schedule, 0.25, step / 100) for step in range(101)]
        assert max(values) == values[25] == 1 and values[100] == pytest.approx(1e-3)
        assert values[:26] == sorted(values[:26]) and values[25:] == sorted(values[25:], reverse=True)
    assert factor("onecycle", 0.25, 0) == 1 / 25 and factor("cosine", 0.25, 0) == 0
    assert factor("constant", 0.0, 0.7) == factor("constant", 0.1, 2.0) == 1


def test_the_clock_of_the_first_process_is_sent_from_the_device(monkeypatch):
    """NCCL, by which GPUs talk, sends nothing that lies on a CPU."""
    sent = []

    def broadcast(value, source):
        sent.append((value.device.type, source))
        raise ZeroDivisionError

    monkeypatch.setattr(batches_module, "rank_and_size", lambda: (1, 2))
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    pace = Pace(None, 1.0, "cosine", 0.1)
    pace.on_train_start(None, SimpleNamespace(device=torch.device("meta")))
    with pytest.raises(ZeroDivisionError):
        pace._go_on(1)
    assert sent == [("meta", 0)]


def test_pace_goes_by_whichever_ends_first(monkeypatch):
    pace = Pace(100, 1.0, "cosine", 0.1)
    pace._since = time.perf_counter() - 30
    pace._go_on(10)
    assert pace.progress == pytest.approx(0.5, abs=0.01) and not pace.finished
    pace._go_on(90)
    assert pace.progress == pytest.approx(0.9)
    pace._since -= 31
    pace._go_on(91)
    assert pace.finished


def test_stretches_are_eighths_of_a_run():
    pace, ends = Pace(100, None, "cosine", 0.1), []
    while not pace.finished:
        pace._go_on(pace.step + pace.stretch(400))
        ends.append(pace.step)
    assert ends == [*range(13, 100, 13), 104]  # Lightning ends at step 100
    pace = Pace(None, 1.0, "cosine", 0.1)
    assert pace.stretch(400) == 8 and pace.stretch(3) == 3
    pace.step, pace.progress = 8, 0.01  # 800 steps in all
    assert pace.stretch(400) == 100 and pace.stretch(50) == 50


def test_damaged_last_checkpoint_gives_way_to_the_one_before_it(tmp_path):
    whole = run("svhn", tmp_path / "a", **small(tmp_path))
    folder = tmp_path / "a"
    for name in ("metrics.json", "model.safetensors"):
        (folder / name).unlink()
    last = folder / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    again = run("svhn", folder, resume=True)
    for key, value in whole.task.state_dict().items():
        assert torch.equal(value, again.task.state_dict()[key]), key
    assert whole.metrics["training"]["error"] == again.metrics["training"]["error"]
    for path in (last, folder / "checkpoints/last.previous.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(RecipeError, match=r"last\.ckpt: damaged .*; remove .*/checkpoints to train from the start"):
        run("svhn", folder, resume=True)


def test_checkpoint_of_another_model_is_refused(tmp_path):
    run("svhn", tmp_path / "a", **small(tmp_path))
    run("svhn", tmp_path / "b", **small(tmp_path, hidden=12))
    path = "checkpoints/last.ckpt"
    (tmp_path / "a" / path).write_bytes((tmp_path / "b" / path).read_bytes())
    with pytest.raises(RecipeError, match=r"last\.ckpt: does not fit the model \(.*got shape \(12, "):
        run("svhn", tmp_path / "a", resume=True)


def test_config_without_a_form_means_that_of_version_0_1(tmp_path):
    """Whatever form Glow and RealNVP have by themselves."""
    recipe = get_recipe("svhn")
    config = type(recipe.config).from_json({"levels": 1, "steps": 1, "hidden": 8})
    task = recipe.build(config, DataShape((8, 8, 3), 3, 256, 192))
    forms = {module.form for module in task.modules() if isinstance(module, GlowStep)}
    assert forms == {resolve_form("glow")}
    flights = get_recipe("flights")
    task = flights.build(flights.config, DataShape((8,), 0, 0, 8))
    assert task.model.flow.form == resolve_form("realnvp")
