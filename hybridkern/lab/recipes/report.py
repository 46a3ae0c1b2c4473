"""The table a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from hybridkern.lab.recipes.recipe import Published


def _mismatches(metrics: dict[str, Any]) -> str:
    return f"{metrics['round_trip_mismatches']} of {metrics['round_trip_elements']}"


def _epochs(metrics: dict[str, Any]) -> str:
    if "best_epoch" in metrics:
        return f"{metrics['epochs']} ({metrics['best_epoch']})"
    return f"{metrics['epochs']:.1f}"


_ROWS: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
    ("test_error", "test error", lambda m: f"{m['test_error']:.1%}".replace("%", " %")),
    ("test_rmse", "test RMSE, units of y", lambda m: f"{m['test_rmse']:.2f}"),
    ("test_nll_nats", "test NLL, nats per example", lambda m: f"{m['test_nll_nats']:.2f}"),
    ("gaussian_nll_nats", "the same of a Gaussian", lambda m: f"{m['gaussian_nll_nats']:.2f}"),
    ("test_bits_per_dim", "test NLL, bits per dimension", lambda m: f"{m['test_bits_per_dim']:.3f}"),
    ("ood", "OOD set", lambda m: m["ood"]),
    ("ood_auroc", "AUROC of log p(x) against it, 0 to 1", lambda m: f"{m['ood_auroc']:.4f}"),
    ("ood_bits_per_dim", "NLL of the OOD set, bits per dimension", lambda m: f"{m['ood_bits_per_dim']:.3f}"),
    ("ood_entropy_nats", "entropy of p(y|x) on the OOD set, nats", lambda m: f"{m['ood_entropy_nats']:.3f}"),
    ("test_class_nll_nats", "test -log p(y|x), nats", lambda m: f"{m['test_class_nll_nats']:.3f}"),
    ("lattice_share", "latents that are whole numbers", lambda m: f"{m['lattice_share']:.1%}".replace("%", " %")),
    ("round_trip_mismatches", "round-trip mismatches, values", _mismatches),
    (
        "round_trip_max_abs_error",
        "largest round-trip error, units of the data",
        lambda m: f"{m['round_trip_max_abs_error']:.1e}",
    ),
    (
        "round_trip_max_error_deviations",
        "largest round-trip error, standard deviations",
        lambda m: f"{m['round_trip_max_error_deviations']:.1e}",
    ),
    ("train_seconds", "training time, seconds", lambda m: f"{m['train_seconds']:.1f}"),
    ("images_per_second", "training speed, images per second", lambda m: f"{m['images_per_second']:.1f}"),
    ("epochs", "epochs (best)", _epochs),
    ("lam", "lambda", lambda m: f"{m['lam']:g}"),
]


def result_table(title: str | Text, columns: dict[str, dict[str, Any]], published: Published | None = None) -> Table:
    """One column a set of metrics, and one of published figures where there are any; rows nobody has are left out."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    figures = published.figures if published else {}
    if published and figures:
        table.add_column(published.source, justify="right", style="dim")
    for key, label, text in _ROWS:
        cells = [_cell(metrics, key, text) for metrics in columns.values()]
        if not any(cells):
            continue
        if figures:
            cells.append(figures.get(key, ""))
        table.add_row(label, *map(Text, cells))  # which may hold names of files
    return table


def _cell(metrics: dict[str, Any], key: str, text: Callable[[dict[str, Any]], str]) -> str:
    """Files hold ``None`` for a figure that is not finite."""
    if key not in metrics:
        return ""
    return "not finite" if metrics[key] is None else text(metrics)


def notes(columns: list[dict[str, Any]]) -> list[str]:
    """What has to be said below a table: the convention of lambda, and a warning where figures are no likelihood."""
    found = [f"lambda: {metrics['lam_convention']}" for metrics in columns if "lam_convention" in metrics][:1]
    found += [metrics["nll_convention"] for metrics in columns if "nll_convention" in metrics][:1]
    if not columns[0]["valid_likelihood"]:
        found.append("Not a valid likelihood: the couplings leave the whole numbers, so p(x) does not sum to 1.")
    return found
