"""The command line: results, one-line errors, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import hybridkern
from hybridkern.lab.cli import app
from hybridkern.lab.recipes.recipe import get_recipe, recipe_names
from hybridkern.lab.recipes.settings import settings_of
from hybridkern.lab.reproduce.experiment import experiment_names

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


def call(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert isinstance(result.exception, (SystemExit, type(None))), "an exception that a user would see as a traceback"
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    result = call("train", "digits-tutorial", "--epochs", 1, "--out", out, "--threads", 1)
    for text in ("test error", "nats per example", "bits per dimension", "mismatches", "seconds", "10.1-11.2 %"):
        assert text in result.stdout
    for name in ("real.png", "samples.png", "validation_error.png", "validation_nll.png", "metrics.json"):
        assert str(out / name) in result.stdout.splitlines()
    return out


def test_evaluate_repeats_the_stored_figures(finished):
    result = call("evaluate", finished)
    row = next(line for line in result.stdout.splitlines() if "nats per example" in line)
    now, stored = (float(cell) for cell in row.split("│")[2:4])
    assert (
        now == stored == pytest.approx(json.loads((finished / "metrics.json").read_text())["test_nll_nats"], abs=0.01)
    )


def test_sample_writes_a_picture_or_an_array_and_overwrites_nothing(finished, tmp_path):
    call("sample", finished)
    assert (finished / "sampled.png").stat().st_size > 1000
    out = tmp_path / "s.npz"
    assert call("sample", finished, "-n", 7, "--out", out).stdout.strip() == str(out)
    images = np.load(out)["images"]
    assert images.shape == (7, 8, 8) and images.dtype == np.int64
    assert "exists already" in call("sample", finished, "--out", out, code=1).stderr
    for name, message in (("s.txt", "ending in .png, .npz or .csv"), ("s.csv", "the samples are images")):
        assert message in call("sample", finished, "--out", tmp_path / name, code=1).stderr
    (tmp_path / "file").touch()
    assert "cannot write" in call("sample", finished, "--out", tmp_path / "file" / "s.npz", code=1).stderr


def test_sample_names_what_the_model_does_not_have(finished, tmp_path):
    for options, message in (
        (("--temperature", 0.5), "cannot be sampled (temperature: got 0.5, expected 1: HybridIDF has no such option)"),
        (("--class", 3), "cannot be sampled (class: got 3, expected none: HybridIDF has no such option)"),
        (("--class", 10), "--class: got 10, expected 0 to 9 (10 classes)"),
        (("--temperature", "nan"), "--temperature: got nan, expected a finite number of at least 0"),
    ):
        assert message in call("sample", finished, *options, "--out", tmp_path / "s.png", code=1).stderr
    assert not list(tmp_path.iterdir())


def test_backends_are_listed():
    out = call("backends").stdout
    assert all(name in out for name in ("reference", "cpp", "triton", "cuda"))


def test_finished_run_is_kept(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    error = call("train", "digits-tutorial", "--epochs", 1, "--out", finished, code=1).stderr
    assert error == f"hybridkern: --out: {finished} holds a finished run; choose another folder, or --resume it\n"
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_without_out_each_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits-tutorial", "digits-tutorial-2"):
        assert str(Path("runs") / name / "metrics.json") in call("train", "digits-tutorial", "--epochs", 1).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "digit"], 2, "RECIPE: got 'digit', expected one of cifar10, digits, digits-tutorial"),
        (["train", "digits", "--resume"], 2, "--resume: needs the folder of the run, --out DIR"),
        (["train", "digits", "--lattice", "cubic"], 1, "--lattice: got 'cubic', expected one of exact, tutorial"),
        (["train", "digits", "--lam", "nan"], 1, "--lam: got nan, expected a finite number"),
        (["train", "digits-tutorial", "--parts", "3"], 1, "--parts: got 3, expected one of 1, 4"),
        (["train", "digits", "--parts", "65"], 1, "--parts: got 65, expected a number from 2 to"),
        (["train", "digits", "--data", "none.npz"], 1, "none.npz: no such file"),
        (["train", "digits", "--out", "file/run"], 1, "--out: cannot write to file/run (Not a directory)"),
        (["train", "digits", "--out", "file"], 1, "--out: file exists and is no run folder"),
        (["train", "digits", "--out", "full"], 1, "--out: full exists and is no run folder"),
        (["train", "digits", "--out", "full", "--resume"], 1, "--resume: full holds no run to go on with"),
        (["train", "svhn"], 1, "--data: the recipe needs either --data FILE.npz or --data-root DIR"),
        (
            ["train", "mnist", "--data-root", "full"],
            1,
            "no train-images-idx3-ubyte or train-images-idx3-ubyte.gz",
        ),
        (["train", "svhn", "--data", "none.npz"], 1, "none.npz: no such file"),
        (["train", "svhn", "--download"], 1, "--download: needs the folder to download to, --data-root DIR"),
        (["train", "digits", "--download"], 1, "--download: the recipe 'digits' has no such option"),
        (["train", "digits", "--memory", "store"], 1, "--memory: the recipe 'digits' has no such option"),
        (["train", "svhn", "--set", "hidden"], 1, "--set: got 'hidden', expected NAME=VALUE with one of svhn's names"),
        (["train", "svhn", "--devices", "3"], 1, "--batch-size: got 32, expected a multiple of --devices 3"),
        (["evaluate", "full"], 1, "full is no run folder: it has no config.json"),
        (["sample", "none"], 1, "none is no run folder"),
    ],
)
def test_mistakes_are_named_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("full").mkdir()
    Path("full/note").touch()
    error = call(*arguments, code=code).stderr
    assert message in error and error.startswith("hybridkern: ") and error.count("\n") == 1
    assert sorted(str(path) for path in Path().rglob("*")) == ["file", "full", "full/note"]


def test_options_that_are_out_of_range_are_usage_errors():
    for option in ("--epochs", "--batch-size", "--threads"):
        assert option in call("train", "digits", option, 0, code=2).stderr


def test_ctrl_c_leaves_a_run_that_can_be_resumed(tmp_path):
    out = tmp_path / "run"
    endless = ("--set", "patience=1000")  # the run may not end before the signal comes
    arguments = [sys.executable, "-m", "hybridkern.lab.cli", "train", "digits-tutorial", "--out", str(out), *endless]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what a shell runs behind
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr and "test error" not in stdout
    assert f"hybridkern train digits-tutorial --out {out} --resume" in " ".join(stderr.split())
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "config.json"]
    assert not [path for path in (out / "checkpoints").iterdir() if path.suffix != ".ckpt" or path.name[0] == "."]
    assert "holds an unfinished run; finish it with --resume" in call("evaluate", out, code=1).stderr
    assert "holds an unfinished run" in call("train", "digits-tutorial", "--out", out, code=1).stderr


def test_recipes_are_listed_with_their_settings():
    listed = call("recipes").stdout
    assert all(name in listed for name in (*recipe_names(), *experiment_names()))
    told = " ".join(call("recipes", "mnist").stdout.split())
    assert "boost" in told and "30.0" in told and "onecycle" in told
    assert "RECIPE: got 'minst', expected one of" in call("recipes", "minst", code=2).stderr


@pytest.mark.parametrize("name", recipe_names())
def test_every_setting_has_a_meaning(name):
    assert [setting.name for setting in settings_of(get_recipe(name)) if len(setting.meaning) < 3] == []


def test_meanings_are_those_of_the_docstrings():
    told = {setting.name: setting for setting in settings_of(get_recipe("moons"))}
    assert told["jitter"].meaning.startswith("standard deviation of the noise that moves")
    assert told["layers"] == ("layers", "int", "8", "number of couplings or maps")
    assert told["weight_decay"].meaning.startswith('decoupled weight decay with "adamw"; with the others an L2 penalty')
    images = {setting.name: setting.meaning for setting in settings_of(get_recipe("mnist"))}
    assert images["steps"] == images["levels"]  # one line for several
    assert told["clip"].kind == "float" and told["data"].default == "none"


def test_version():
    assert call("--version").stdout == f"hybridkern {hybridkern.__version__}, torch {torch.__version__}\n"


def test_help_does_not_wait_for_torch():
    """The command runs ``hybridkern/lab/cli.py`` without the package around it."""
    code = """
import sys, hybridkern_command
sys.argv[1:] = ["train", "--help"]
try:
    hybridkern_command.main()
finally:
    print("torch" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "--batch-size" in done.stdout and done.stdout.endswith("False\n"), done.stderr


def test_the_command_itself(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    code = "import hybridkern_command; hybridkern_command.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "backends"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    assert "reference" in done.stdout


def test_a_run_folder_is_a_model(finished):
    model = hybridkern.load(finished)
    assert isinstance(model, hybridkern.HybridIDF) and not model.training
    assert model.sample(3).shape == (3, 1, 64)


def test_a_finished_run_says_so(finished):
    result = call("train", "digits-tutorial", "--out", finished, "--resume")
    assert "finished already, and evaluated again; to go on, give more --epochs or --minutes" in " ".join(
        result.stderr.split()
    )
