"""What a training did: figures of every epoch, as text, as a picture, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LABELS = {
    "loss": "training loss, nats per example",
    "val_loss": "validation loss, nats per example",
    "val_log_px": "validation log p(x), nats per example",
    "val_error": "validation error, share of examples",
    "val_rmse": "validation RMSE, units of y",
}
_SHOWN = 12


@dataclass
class History:
    """The record of :func:`hybridkern.lab.fit`; ``print`` shows a table, :meth:`plot` draws the curves.

    Attributes:
        epochs: one entry per epoch: ``epoch`` (from 1), ``seconds`` since the start, ``loss``, and where there are
            validation rows ``val_loss``, ``val_log_px`` and ``val_error`` (a share of those with a label, where there
            are any) or ``val_rmse`` (units of ``y``).
        best: the epoch (from 1) whose weights the model has: that of the lowest ``val_loss``, or the last one.
        stopped: why training ended.
        settings: what :func:`fit` was called with.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    stopped: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[float]:
        """The values of one figure, one per epoch: ``history["val_loss"]``."""
        return [entry[name] for entry in self.epochs if name in entry]

    def record(self) -> dict[str, Any]:
        """The content as values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.epochs:
            return "no epoch was finished"
        names = [name for name in ("epoch", "seconds", *LABELS) if name in self.epochs[-1]]
        step = -(-len(self.epochs) // _SHOWN)
        shown = [e for e in self.epochs if (e["epoch"] - 1) % step == 0 or e["epoch"] in (self.best, len(self.epochs))]
        lines = ["  ".join(f"{name:>10}" for name in names)]
        for entry in shown:
            mark = "  <- these weights" if entry["epoch"] == self.best else ""
            lines.append("  ".join(_cell(name, entry[name]) for name in names) + mark)
        return "\n".join([*lines, f"stopped: {self.stopped}"])

    def plot(self) -> Any:
        """The curves as a ``matplotlib.figure.Figure``: ``history.plot().savefig("training.png")``."""
        from matplotlib.figure import Figure

        panels = [name for name in LABELS if name != "loss" and self[name]] or ["loss"]
        figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            if name == "val_loss":
                axes.plot(self["epoch"], self["loss"], color="#9aa0a6", label="training")
            axes.plot(self["epoch"], self[name], color="#1f5fa8", label="validation" if name != "loss" else "training")
            axes.axvline(self.best, color="#b3261e", linewidth=0.8, linestyle=":", label=f"epoch {self.best}, kept")
            axes.set(xlabel="epoch", ylabel=LABELS[name])
            axes.legend(frameon=False)
        return figure


def _cell(name: str, value: float) -> str:
    if name == "epoch":
        return f"{int(value):>10}"
    return f"{value:>10.1f}" if name == "seconds" else f"{value:>10.4g}"
