"""Every operator, flow, head, objective and distribution under every way PyTorch differentiates.

The whole table takes minutes: ``HYBRIDKERN_DERIVATIVES=all`` runs it. Otherwise each row meets a column under each mode
of recording, so that every column meets every mode; the formulas of every operator, to which all other backends turn
where no kernel serves, meet all columns, and so do the kernels of a few.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.derivatives.columns import COLUMNS
from tests.derivatives.flows import FLOWS
from tests.derivatives.models import MODELS
from tests.derivatives.operators import OPERATORS
from tests.derivatives.subject import MODES, run

ROWS = OPERATORS | FLOWS | MODELS
WHOLE = {
    "glow",
    "logistic, own, sum",
    "gaussian, mean",
    "rounding, beta",
    "mirrored, exact, joined",
    "from output, glow",
}
ALL = os.environ.get("HYBRIDKERN_DERIVATIVES") == "all"


def places(row: int, name: str = "") -> Iterator[tuple[str, str]]:
    """The modes and columns that a row meets."""
    whole = {mode for mode, names in (("nodes", WHOLE), ("reference", OPERATORS)) if name in names}
    for m, recorded in enumerate(MODES):
        for c, column in enumerate(COLUMNS):
            if ALL or recorded in whole or (row + 4 * m + c) % len(COLUMNS) == 0:
                yield recorded, column


@pytest.mark.parametrize(("row", "name"), list(enumerate(ROWS)), ids=ROWS)
def test_every_derivative(row: int, name: str) -> None:
    subject = ROWS[name]()
    for recorded, column in places(row, name):
        run(COLUMNS[column], subject, recorded)


def test_every_column_meets_every_mode() -> None:
    met = {place for row in range(len(ROWS)) for place in places(row)}
    assert met == {(recorded, column) for recorded in MODES for column in COLUMNS}
