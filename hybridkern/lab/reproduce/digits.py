"""Experiment ``digits``: the tutorial's hybrid integer flow on scikit-learn's digits, on both lattices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from lightning.pytorch.callbacks import Timer
from matplotlib.figure import Figure

from hybridkern.lab.recipes.workflow import train
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table

_RECIPE = "digits-tutorial"
_SEEDS = 3
_TUTORIAL = "the tutorial's code, three seeds"


class Range(NamedTuple):
    """The lowest and highest figure of some runs."""

    low: float
    high: float

    def text(self, form: str) -> str:
        """``low-high``, or one number where both read alike."""
        low, high = format(self.low, form), format(self.high, form)
        return low if low == high else f"{low}-{high}"


class Variant(NamedTuple):
    """A setting with its published test error (percent), NLL (nats) and latents off the lattice (percent)."""

    name: str
    options: dict[str, Any]
    error: Range
    nll: Range
    off_lattice: Range


_VARIANTS = (
    Variant("beta * round(t), 1 net, lambda = 1/D", {"lattice": "tutorial", "parts": 1},
            Range(9.0, 11.9), Range(150.3, 152.4), Range(97, 98)),
    Variant("beta * round(t), 1 net, lambda = 1", {"lattice": "tutorial", "parts": 1, "lam": 1.0},
            Range(13.7, 14.3), Range(128.1, 128.7), Range(87, 88)),
    Variant("beta * round(t), 4 nets, lambda = 1/D", {"lattice": "tutorial", "parts": 4},
            Range(9.2, 12.5), Range(134.6, 136.7), Range(99.9, 99.9)),
    Variant("round(beta * t), 1 net, lambda = 1/D", {"lattice": "exact", "parts": 1},
            Range(10.1, 11.2), Range(141.4, 150.2), Range(0, 0)),
    Variant("round(beta * t), 1 net, lambda = 1", {"lattice": "exact", "parts": 1, "lam": 1.0},
            Range(13.2, 13.2), Range(133.6, 134.1), Range(0, 0)),
)  # fmt: skip
_UNPUBLISHED = ("round(beta * t), 4 nets, lambda = 1/D", {"lattice": "exact", "parts": 4})
COLUMNS = [
    Column("error", "error, %"),
    Column("nll", "NLL of x, nats"),
    Column("off_lattice", "latents off the lattice, %"),
    Column("mismatches", "values lost in a round trip"),
]


def run(request: Request, loaded: Any) -> Result:
    """Trains every variant with three seeds and puts the ranges beside the tutorial's."""
    settings = [(variant.name, variant.options) for variant in _VARIANTS] + [_UNPUBLISHED]
    share = request.budget.share(len(settings) * _SEEDS)
    found = {name: [_trained(request, name, options, share, seed) for seed in _seeds(request)]
             for name, options in settings}  # fmt: skip
    rows = []
    for variant in _VARIANTS:
        rows += [Row(variant.name, _ours(found[variant.name])), Row(variant.name, _theirs(variant), _TUTORIAL)]
    rows.append(Row(_UNPUBLISHED[0], _ours(found[_UNPUBLISHED[0]])))
    cut = [name for name, runs in found.items() if any(metrics["stopped_by_the_clock"] for metrics in runs)]
    conditions = [
        "Data: scikit-learn's digits (64 dimensions, values 0 to 16), 1000 to train, 350 to validate, 447 to test, in "
        f"file order; seeds {', '.join(map(str, _seeds(request)))}; ranges are from the lowest to the highest figure.",
        "Two couplings, networks of two hidden layers of 256 units, Adamax at 1e-3, batches of 64, until more than "
        "20 epochs passed without a lower validation loss.",
        "Loss: -log p(y|x) - lambda log p(x), nats per example; D = 64.",
        "Where latents leave the lattice, p(x) does not sum to 1 over the data, so that its NLL cannot be compared.",
    ]
    shortfalls = (
        [f"The time limit ended training before the validation loss stopped falling: {', '.join(cut)}."] if cut else []
    )
    return Result(
        [Table("Test part", COLUMNS, rows, heading="model")],
        {"ranges": _picture(found)},
        conditions,
        shortfalls,
        {"runs": found},
    )


def _seeds(request: Request) -> list[int]:
    return [request.seed + index for index in range(_SEEDS)]


def _trained(request: Request, name: str, options: dict[str, Any], minutes: float, seed: int) -> dict[str, Any]:
    label = "-".join(f"{value}" for value in options.values()) + f"-seed-{seed}"
    folder = request.run_folder(label)
    request.say(f"{_RECIPE}: {name}, seed {seed}, at most {minutes:.3g} minutes")
    clock = Timer(duration=timedelta(minutes=minutes), verbose=False)
    done = train(
        _RECIPE,
        options | {"seed": seed},
        folder,
        resume=(folder / "config.json").exists(),
        console=request.console,
        extra=(clock,),
    )
    return done.metrics | {"stopped_by_the_clock": (clock.time_remaining() or 0) <= 0}


def _ours(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    def over(key: str, scale: float = 1.0, offset: float = 0.0) -> Range:
        values = [offset + scale * metrics[key] for metrics in runs]
        return Range(min(values), max(values))

    return {
        "error": over("test_error", 100).text(".1f"),
        "nll": over("test_nll_nats").text(".1f"),
        "off_lattice": over("lattice_share", -100, 100).text(".1f"),
        "mismatches": over("round_trip_mismatches").text(".0f"),
    }


def _theirs(variant: Variant) -> dict[str, str]:
    return {
        "error": variant.error.text(".1f"),
        "nll": variant.nll.text(".1f"),
        "off_lattice": variant.off_lattice.text(".1f"),
    }


def _picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Each run as a point beside the published ranges as bars."""
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, scale, unit in (
        (panels[0], "test_error", 100.0, "error, %"),
        (panels[1], "test_nll_nats", 1.0, "NLL of x, nats"),
    ):
        for place, (name, runs) in enumerate(found.items()):
            published = next((variant for variant in _VARIANTS if variant.name == name), None)
            if published is not None:
                low, high = published.error if key == "test_error" else published.nll
                axes.plot([low, high], [place, place], color="0.75", linewidth=9, solid_capstyle="butt",
                          label=_TUTORIAL if place == 0 else None)  # fmt: skip
            axes.plot([scale * metrics[key] for metrics in runs], [place] * len(runs), "o", color="#1f5fa8",
                      label="this run, one point per seed" if place == 0 else None)  # fmt: skip
        axes.set_xlabel(unit)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    panels[0].set_yticks(range(len(found)), list(found))
    panels[0].invert_yaxis()
    return figure


EXPERIMENT = Experiment(
    "digits",
    "The tutorial's hybrid integer flow on scikit-learn's digits, with 1 and 4 networks, on both lattices.",
    15.0,
    run,
)
