"""The frame of experiments: what is written, errors before anything is written, interruption and resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.lock import locked
from hybridkern.lab.reproduce.budget import Budget
from hybridkern.lab.reproduce.experiment import experiment_names, get_experiment
from tests.reproduce.conftest import done
from tests.test_cli import call

PAGE = """\
# fake

An experiment for tests.

## Errors

| model | source | error, % | NLL, nats |
| --- | --- | ---: | ---: |
| lambda = 1 | this run | 12.3 | inf |
| lambda = 1 | A. Author 2000 | 2-3 \\| 4 |  |

![fake](fake.png)

## Conditions

- Budget: 1.5 minutes of training; seed 7.
- Data: none.

## Limitations

- Nothing was reached.
"""


def test_every_experiment_of_the_list_has_its_name():
    for name in experiment_names():
        experiment = get_experiment(name)
        assert experiment.name == name and experiment.summary.endswith(".") and experiment.minutes > 0


def test_a_run_writes_a_page_a_picture_and_a_json_file(fake, tmp_path):
    out = tmp_path / "deep" / "er"
    paths = done(fake, out, minutes=1.5, seed=7).paths
    assert [path.name for path in paths] == ["fake.md", "fake.png", "results.json"]
    assert paths[0].read_text() == PAGE
    assert imread(paths[1]).std() > 0.01
    written = json.loads(paths[2].read_text())
    assert written["tables"][0]["columns"] == {"error": "error, %", "nll": "NLL, nats"}
    assert written["tables"][0]["rows"][0] == {
        "label": "lambda = 1", "source": "this run", "values": {"error": 12.34, "nll": "inf"},
    }  # fmt: skip
    assert (written["minutes"], written["seed"], written["record"]) == (1.5, 7, {"steps": 3})
    assert 0 <= written["minutes_spent"] < 1
    names = {path.name for path in out.iterdir()}
    assert names == {"fake.md", "fake.png", "results.json", "experiment.json", "runs"}


def test_an_interrupted_experiment_has_no_result_and_goes_on(fake, tmp_path):
    np.savez(tmp_path / "a.npz", stop=np.ones(1))
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        done(fake, out, data=tmp_path / "a.npz", seed=4)
    assert {path.name for path in out.iterdir()} == {"experiment.json", "runs", "stopped"}
    asked = json.loads((out / "experiment.json").read_text())
    assert asked["seed"] == 4
    with pytest.raises(RecipeError, match="holds an experiment; choose another folder, or --resume it"):
        done(fake, out, data=tmp_path / "a.npz")
    with pytest.raises(RecipeError, match=r"--minutes: got 3, but what is to be resumed has 2\.0"):
        done(fake, out, data=tmp_path / "a.npz", minutes=3, resume=True)
    np.savez(tmp_path / "b.npz", stop=np.ones(1))
    with pytest.raises(RecipeError, match=r"--data: got .*b\.npz, but what is to be resumed has .*a\.npz"):
        done(fake, out, data=tmp_path / "b.npz", resume=True)
    assert not (out / "results.json").exists()
    assert done(fake, out, resume=True).paths[-1].exists()
    assert json.loads((out / "experiment.json").read_text()) == asked  # nothing had to be said again
    with pytest.raises(RecipeError, match="is finished"):
        done(fake, out, data=tmp_path / "a.npz", resume=True)
    with pytest.raises(RecipeError, match=r"holds an experiment; choose another folder$"):
        done(fake, out, data=tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "NAME: got 'nothing', expected one of "),
        (["fake", "--resume"], 2, "--resume: needs the folder of the run, --out DIR"),
        (["fake", "--minutes", "0"], 1, "--minutes: got 0.0, expected a finite, positive number"),
        (["fake", "--minutes", "nan"], 1, "--minutes: got nan, expected a finite, positive number"),
        (["fake", "--data-root", "full"], 1, "--data-root: the experiment 'fake' has no such option"),
        (["fake", "--data", "none.npz"], 1, "none.npz: no such file"),
        (["fake", "--data", "file"], 1, "file: not an .npz file, or a truncated one"),
        (["fake", "--out", "file"], 1, "--out: file exists and is no folder of an experiment"),
        (["fake", "--out", "full"], 1, "--out: full exists and is no folder of an experiment; choose another folder"),
        (["fake", "--out", "file/out"], 1, "--out: cannot write to file/out (Not a directory)"),
        (["fake", "--out", "full", "--resume"], 1, "--resume: full holds no experiment to go on with"),
    ],
)
def test_mistakes_are_named_in_one_line_and_nothing_is_written(fake, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("full").mkdir()
    Path("full/note").touch()
    error = call("reproduce", *arguments, code=code).stderr
    assert message in error and error.startswith("hybridkern: ") and error.count("\n") == 1
    assert sorted(str(path) for path in Path().rglob("*")) == ["file", "full", "full/note"]


def test_the_command_shows_its_table_and_paths_and_says_how_to_resume(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("reproduce-fake", "reproduce-fake-2"):
        lines = call("reproduce", fake).stdout.splitlines()
        assert lines[-3:] == [f"runs/{name}/{file}" for file in ("fake.md", "fake.png", "results.json")]
        assert any("12.3" in line and "this run" in line for line in lines)
    np.savez("a.npz", stop=np.ones(1))
    said = call("reproduce", fake, "--data", "a.npz", "--out", "c", code=130).stderr
    assert "hybridkern reproduce fake --out c --resume" in said


def test_folder_is_held_and_begun_anew_where_a_process_died(fake, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".experiment.5.tmp.json").touch()
    with locked(out):
        assert "another process is at work in this folder" in call("reproduce", fake, "--out", out, code=1).stderr
    call("reproduce", fake, "--out", out, "--resume")
    assert not list(out.glob(".*"))
    (out / "results.json").unlink()
    content = (out / "experiment.json").read_text()
    for damaged in (content.replace("2.0", "3.0"), "[" * 100_000, "", '{"minutes": "x"}'):
        (out / "experiment.json").write_text(damaged)
        error = call("reproduce", fake, "--out", out, "--resume", code=1).stderr
        assert error.startswith(f"hybridkern: {out}/experiment.json: damaged") and error.count("\n") == 1


def test_budget_counts_down_and_is_shared():
    now = [0.0]
    budget = Budget(2.0, clock=lambda: now[0])
    now[0] = 30.0
    assert (budget.spent, budget.left, budget.share(4)) == (0.5, 1.5, 0.5)
    now[0] = 300.0
    assert budget.left == 0.0
