"""What can be read off the axes of pictures."""

from __future__ import annotations

import pytest

from hybridkern.lab import plots


@pytest.mark.parametrize("values", [[0.3, 0.28, 0.27], [0.6, 0.32, 0.31], [0.3], [4e-5, 3e-5], [0.5, 0.02, 0.01]])
def test_a_curve_of_errors_has_numbers_at_its_axis_wherever_it_lies(values):
    figure = plots.curve(values, len(values) - 1, "error")
    (axes,) = figure.axes
    figure.canvas.draw()
    low, high = axes.get_ylim()
    shown = [float(text.get_text().removesuffix(" %")) / 100 for text in axes.get_yticklabels()]
    assert len(shown) >= min(2, len(set(values))) and all(low <= value <= high for value in shown)
    assert shown == pytest.approx(list(axes.get_yticks()))
