"""What the experiments on variational autoencoders share: the models, their runs, table and picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hybridkern.lab.recipes.images.plots import finish
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.lab.recipes.workflow import Run, train
from hybridkern.lab.reproduce.experiment import Request
from hybridkern.lab.reproduce.image_runs import shifts, source_options
from hybridkern.lab.reproduce.result import Column

COLUMNS = [
    Column("error", "error, %", ".2f"),
    Column("nll", "NLL of q(y|x), nats"),
    Column("bound", "minus the bound of log P(x), nats", ".1f"),
]
_COLOURS = ("#1f5fa8", "#b3261e", "#3b7d3a", "#c77f1a", "#6d4c9f", "0.3", "0.55", "#00838f")


class Setting(NamedTuple):
    """A model: its settings, and of how many it takes the time."""

    name: str
    options: dict[str, Any]
    share: float = 1.0


FIRST = "M1 and a linear classifier"
STACKED = "M1+M2"
BY_CONVOLUTIONS = ", q(y|x) by convolutions"
CC = "CCVAE"


def settings(lams: Mapping[str, float], convolutions: bool = False) -> list[Setting]:
    """All models; M1 and the M2 on it share the time of one. ``lams``: weights per dimension by their names.

    ``convolutions``: M2, and M2 on M1, also with another classifier.
    """
    conv = {"classifier": "conv"}
    others = [
        Setting("M2" + BY_CONVOLUTIONS, {"model": "m2"} | conv),
        Setting(STACKED + BY_CONVOLUTIONS, {"model": "m1m2"} | conv, 0.5),
    ]
    return [
        Setting("M2", {"model": "m2"}),
        Setting(FIRST, {"model": "m1"}, 0.5),
        Setting(STACKED, {"model": "m1m2"}, 0.5),
        Setting(CC, {"model": "ccvae"}),
        Setting("latent mixture", {"model": "bayes"}),
        *(Setting(f"hybrid VAE, lambda = {name}", {"model": "hybrid", "lam": lam}) for name, lam in lams.items()),
        *(others if convolutions else ()),
    ]


def train_all(
    request: Request, recipe: str, chosen: list[Setting], options: Mapping[str, Any], images: bool
) -> dict[str, Run]:
    """Trains every model for its share of the time; ``images``: whether the recipe reads files."""
    each = request.budget.minutes / sum(setting.share for setting in chosen)
    sources = source_options(request) if images else {}
    runs: dict[str, Run] = {}
    for setting in chosen:
        folder, minutes = request.run_folder(_label(setting.name)), each * setting.share
        request.say(f"{recipe}: {setting.name}, {minutes:.3g} minutes")
        asked = {"seed": request.seed, "minutes": minutes} | sources | dict(options) | setting.options
        if setting.options["model"] == "m1m2":
            asked["first"] = str(request.run_folder(_label(FIRST)))
        resume = (folder / "config.json").exists()
        runs[setting.name] = train(recipe, asked, folder, resume=resume, console=request.console)
    return runs


def _label(name: str) -> str:
    signs: dict[str, str | int | None] = {",": "", ")": "", **dict.fromkeys("(| /", "-")}
    return name.lower().translate(str.maketrans(signs)).replace("=-", "")


def figures(run: Run) -> dict[str, float]:
    """The row of a run."""
    found = run.metrics
    values = {"error": 100 * found["test_error"], "nll": found["test_class_nll_nats"]}
    return values | ({"bound": found["test_nll_nats"]} if "test_nll_nats" in found else {})


def conditions(runs: Mapping[str, Run]) -> list[str]:
    """What the figures hold for."""
    first = next(iter(runs.values()))
    config, metrics = first.record.config, first.metrics
    assert isinstance(config, VAEConfig)
    examples = metrics["examples"]
    but = " except the convolutions" if any(name.endswith(BY_CONVOLUTIONS) for name in runs) else ""
    return [
        f"Data: {metrics['data']}; {examples['train']} images to train, {config.labels} of them with labels, equally "
        f"many per class; {examples['validation']} for the curves only, {examples['test']} to test.",
        f"Every network{but} has one hidden layer of {config.hidden} units; {config.latent} latents "
        f"(CCVAE: and one per class); {config.optimizer}, one cycle of the learning rate up to {config.lr:g}, "
        f"batches of {config.batch_size}, {100 * config.unlabelled:g} % of them without labels, "
        f"{shifts(config.translation)}.",
        f"{metrics['nll_convention']}.",
        *(f"{name}: {run.metrics['lam_convention'].removeprefix('none; ')}." for name, run in runs.items()),
        "Steps (minutes): "
        + ", ".join(
            f"{name} {run.metrics['steps']} ({run.metrics['train_seconds'] / 60:.2f})" for name, run in runs.items()
        ) + ". M1+M2 takes the M1 of the row above it; its bound is one of M1's latents, and is left out.",
    ]  # fmt: skip


def against_lambda(runs: Mapping[str, Run]) -> str:
    """Whether the model without lambda is as good as the best lambda."""
    hybrids = {name: figures(run)["error"] for name, run in runs.items() if name.startswith("hybrid")}
    best = min(hybrids, key=lambda name: hybrids[name])
    own = figures(runs[CC])["error"]
    near = own <= hybrids[best] + 0.5
    return (
        f"CCVAE, which has no lambda: {own:.2f} %; the best of {len(hybrids)} hybrid VAEs "
        f"({best.removeprefix('hybrid VAE, ')}): {hybrids[best]:.2f} %. CCVAE is {'' if near else 'not '}better than "
        "it or within 0.5 points of it."
    )


def picture(runs: Mapping[str, Run], highest: float) -> Figure:
    """Validation error by minutes of training, up to ``highest`` percent."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for name, run in runs.items():
        base = name.removesuffix(BY_CONVOLUTIONS)
        if base not in colours:
            colours[base] = _COLOURS[len(colours)]
        line = "-" if name == base else "--"
        curve = run.metrics["validation"]
        minutes = [seconds / 60 for seconds in curve["seconds"]]
        axes.plot(
            minutes, [100 * error for error in curve["val_error"]], color=colours[base], ls=line, label=name, marker="."
        )
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"validation error, % (up to {highest:g})")
    axes.set_ylim(0, highest)
    finish(axes)
    return figure
