"""From nothing to one's own model of one's own table, with what README.md and docs/getting-started.md say.

Each step is a process of its own in an empty folder, as a newcomer's would be. ``make readme-test`` begins with the
installation, in a new environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

TRAIN = """
import numpy, torch
from hybridkern import flows, hybrid, lab

table = numpy.genfromtxt("table.csv", delimiter=",", skip_header=1)
x, y = table[:, :-1], table[:, -1]
mean, std = x.mean(0), x.std(0)
torch.manual_seed(0)
model = hybrid.HybridModel(flows.RealNVP(4, layers=3, hidden=16), hybrid.heads.Gaussian(4))
print(lab.fit(model, (x - mean) / std, (y - y.mean()) / y.std(), epochs=20, lr=5e-3, out="model"))
"""

USE = """
import hybridkern, torch

model = hybridkern.load("model")
rows = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]])
prediction, log_px = model.predict(rows), model.log_prob(rows)
print("prediction", round(prediction[0].item(), 2), "and foreign" if log_px[1] < log_px[0] - 10 else "and alike")
"""

GAPS = """
import numpy
from hybridkern import flows, lab

lab.fit(flows.RealNVP(5), numpy.genfromtxt("gaps.csv", delimiter=",", skip_header=1))
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def test_from_a_table_to_a_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)) * [1, 10, 0.1, 3] + 5
    rows = np.column_stack([x, x[:, 0] + 0.1 * x[:, 1] + 0.1 * rng.normal(size=300)])
    header = "a,b,c,d,target"
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",", header=header, comments="")
    trained = run(TRAIN, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "val_rmse" in trained.stdout and "<- these weights" in trained.stdout
    used = run(USE, tmp_path)
    assert used.returncode == 0, used.stderr
    assert re.search(r"prediction -?0\.\d+ and foreign", used.stdout), used.stdout

    rows[17, 2] = np.nan
    np.savetxt(tmp_path / "gaps.csv", rows, delimiter=",", header=header, comments="")
    refused = run(GAPS, tmp_path)
    assert "ValueError: x: got NaN in row 17 and 0 others, expected finite numbers" in refused.stderr


def test_the_commands_of_the_readme_exist() -> None:
    """Each ``hybridkern`` line, with options that the command has."""
    lines = re.findall(r"^hybridkern ([a-z]+)(?: ([\w-]+))?", README, flags=re.MULTILINE)
    assert {name for name, _ in lines} >= {"train", "recipes", "reproduce"}
    listed = run("import hybridkern_command, sys; sys.argv[1:] = ['recipes']; hybridkern_command.main()", ROOT)
    assert listed.returncode == 0, listed.stderr
    assert all(argument in listed.stdout for _, argument in lines if argument)
