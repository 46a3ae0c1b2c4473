"""Every operator under every way PyTorch differentiates, however it is recorded."""

from __future__ import annotations

import pytest

from tests.derivatives.columns import COLUMNS
from tests.derivatives.operators import OPERATORS
from tests.derivatives.subject import MODES, Subject, mode

_made: dict[str, Subject] = {}


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_derivative_of_an_operator(name: str, recorded: str) -> None:
    subject = _made.setdefault(name, OPERATORS[name]())
    for column in COLUMNS.values():
        with mode(recorded):
            column(subject)
