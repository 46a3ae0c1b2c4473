"""The figures of docs/regression.md: ``python docs/diabetes.py``; a minute on one core.

Twenty random splits of scikit-learn's diabetes. The number of steps is chosen by cross-validation within the training
rows of each split; test rows choose nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge

from hybridkern import flows, hybrid
from hybridkern.hybrid import heads, objectives

STEPS, FOLDS, MEMBERS, TRAIN, SPLITS = (10, 25, 40, 60), 4, 3, 350, range(1, 21)
Prediction = tuple[np.ndarray, np.ndarray]


def nll(y: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """``-log N(y; mean, std**2)`` per row, in nats."""
    return 0.5 * np.log(2 * np.pi * std**2) + (y - mean) ** 2 / (2 * std**2)


def least_squares(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Prediction:
    """Mean and deviation of ordinary least squares, the uncertainty of its weights included."""
    a, b = (np.column_stack([rows, np.ones(len(rows))]) for rows in (x, new))
    weights = np.linalg.lstsq(a, y, rcond=None)[0]
    noise = np.square(y - a @ weights).sum() / (len(a) - a.shape[1])
    return b @ weights, np.sqrt(noise * (1 + np.einsum("ij,jk,ik->i", b, np.linalg.pinv(a.T @ a), b)))


def bayesian_ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Prediction:
    """Mean and deviation of scikit-learn's ``BayesianRidge``."""
    return BayesianRidge().fit(x, y).predict(new, return_std=True)


def hybrid_model(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> dict[int, Prediction]:
    """Mean and deviation of a flow with a head whose noise depends on the row, after each number of ``STEPS``."""
    torch.manual_seed(seed)
    center, scale, middle, unit = x.mean(0), x.std(0), y.mean(), y.std()
    rows, asked = (torch.tensor((part - center) / scale, dtype=torch.float32) for part in (x, new))
    targets = torch.tensor((y - middle) / unit, dtype=torch.float32)
    flow, head = flows.RealNVP(10, layers=2, hidden=16), heads.Gaussian(10, noise="input")
    with torch.no_grad():  # the flow starts as the identity, so that the head may start from a ridge regression
        a = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        weights = torch.linalg.solve(a.T @ a + 10 * torch.eye(11), a.T @ targets)
        for parameter, value in ((head.net[0].weight, weights[:10]), (head.net[0].bias, weights[10])):
            parameter.zero_()
            parameter[0] = value
        head.net[0].bias[1] = math.log(0.7)
    model = hybrid.HybridModel(flow, head)
    groups = [{"params": flow.parameters(), "lr": 4e-4, "weight_decay": 0.0}, {"params": head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.3)
    found = {}
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        model.loss(rows, targets, objectives.Weighted(0.03)).backward()
        optimizer.step()
        if step in STEPS:
            with torch.no_grad():
                prediction = model(asked).prediction
            mean, std = (value.double().numpy() * unit for value in (head.mean(prediction), head.std(prediction)))
            found[step] = mean + middle, std
    return found


def chosen_steps(x: np.ndarray, y: np.ndarray) -> int:
    """The number of steps of the lowest NLL in cross-validation."""
    sums = dict.fromkeys(STEPS, 0.0)
    for fold, held in enumerate(np.array_split(np.arange(len(x)), FOLDS)):
        rest = np.setdiff1d(np.arange(len(x)), held)
        for steps, prediction in hybrid_model(x[rest], y[rest], x[held], fold).items():
            sums[steps] += nll(y[held], *prediction).mean()
    return min(sums, key=lambda steps: sums[steps])


def figures(y: np.ndarray, members: list[Prediction]) -> tuple[float, float, float]:
    """NLL of the members' mixture in nats, RMSE of their mean, share of rows in 95 % bands."""
    mean, std = (np.array(part) for part in zip(*members, strict=True))
    each = np.array([nll(y, *member) for member in members])
    center = mean.mean(0)
    spread = np.sqrt((std**2 + mean**2).mean(0) - center**2)
    loss = math.log(len(members)) - np.logaddexp.reduce(-each, 0).mean()
    return loss, math.sqrt(np.square(center - y).mean()), (np.abs(center - y) < 1.96 * spread).mean()


def main() -> None:
    """Prints the table, and paired differences with standard errors corrected for the overlap of the splits."""
    x, y = load_diabetes(return_X_y=True)
    found = []
    for split in SPLITS:
        order = np.random.default_rng(split).permutation(len(x))
        train, test = order[:TRAIN], order[TRAIN:]
        steps = chosen_steps(x[train], y[train])
        members = [hybrid_model(x[train], y[train], x[test], seed)[steps] for seed in range(MEMBERS)]
        simple = [[method(x[train], y[train], x[test])] for method in (least_squares, bayesian_ridge)]
        found.append([figures(y[test], predictions) for predictions in (*simple, members)])
    table = np.array(found)
    for name, row in zip(("least squares", "BayesianRidge", "hybrid model"), table.mean(0), strict=True):
        print(f"{name:>14}: NLL {row[0]:.4f} nats, RMSE {row[1]:.2f}, {row[2]:.1%} in 95 % bands")
    # Nadeau and Bengio 2003, "Inference for the generalization error", section 3
    factor = math.sqrt(1 / len(table) + (len(x) - TRAIN) / TRAIN)
    for index, name in enumerate(("least squares", "BayesianRidge")):
        for column, figure in enumerate(("NLL", "RMSE")):
            less = table[:, 2, column] - table[:, index, column]
            spread, wins = less.std(ddof=1), (less < 0).sum()
            errors = f"{spread / math.sqrt(len(less)):.4f}, corrected {spread * factor:.4f}"
            print(f"{figure} less that of {name}: {less.mean():.4f}, standard error {errors}; ", end="")
            print(f"lower on {wins} of {len(table)} splits")


if __name__ == "__main__":
    main()
