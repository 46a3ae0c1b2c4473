"""Experiment ``digits-vae``: scikit-learn's digits from a hundred labels by variational autoencoders."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Result, Row, Table
from hybridkern.lab.reproduce.vae_runs import (
    COLUMNS,
    against_lambda,
    conditions,
    figures,
    picture,
    settings,
    train_all,
)

_LAMS = {"1/D": 1.0, "8/D": 8.0, "1": 64.0}
_SKLEARN = "scikit-learn, this run"


def run(request: Request, loaded: Any) -> Result:
    """Trains the models and puts classifiers of the labelled images alone beside them."""
    runs = train_all(request, "digits-vae", settings(_LAMS), {}, images=False)
    rows = [Row(name, figures(done)) for name, done in runs.items()]
    others = baselines(next(iter(runs.values())))
    rows += [Row(name, {"error": error}, _SKLEARN) for name, error in others.items()]
    best = min(others.values())
    above = [f"{name}: error {figures(done)['error']:.2f} %, not below that of the best classifier of labelled images, "
             f"{best:.2f} %." for name, done in runs.items() if figures(done)["error"] >= best]  # fmt: skip
    return Result(
        [Table("Test part, 100 labels", COLUMNS, rows, heading="model")],
        {"validation": picture(runs, 60.0)},
        [
            *conditions(runs),
            "Two classifiers see only the 100 labelled images, not shifted: multinomial logistic regression, and the "
            "nearest neighbour.",
            against_lambda(runs),
            request.budget.on_processor,
            "No figures of these models on these data are published.",
        ],
        above,
        {"runs": {name: done.metrics for name, done in runs.items()}},
    )


def baselines(run: Run) -> dict[str, float]:
    """Test errors in percent of classifiers of the images with label."""
    data = run.record.recipe.load(run.record.config)
    known = data.train.y >= 0
    x, y = data.train.x[known].numpy(), data.train.y[known].numpy()
    models = {
        "logistic regression, labels only": LogisticRegression(max_iter=2000),
        "nearest neighbour, labels only": KNeighborsClassifier(1),
    }
    test = data.test.x.numpy(), data.test.y.numpy()
    return {name: 100 * (1 - float(model.fit(x, y).score(*test))) for name, model in models.items()}


EXPERIMENT = Experiment(
    "digits-vae",
    "Scikit-learn's digits with 100 labels, by variational autoencoders with and without a weight lambda.",
    2.0,
    run,
)
