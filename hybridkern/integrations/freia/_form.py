"""The coupling form of a block, made once, for as long as the attributes that it follows from stay as they are."""

from __future__ import annotations

from typing import Any

from hybridkern.integrations._layer import Accelerated
from hybridkern.ops.affine_coupling.form import CouplingForm

FORM = "_hybridkern_form"  # its place in the ``__dict__`` of a block


def kept_form(layer: Accelerated, **fields: Any) -> CouplingForm:
    """``CouplingForm(**fields)``."""
    found: tuple[dict[str, Any], CouplingForm] | None = layer.__dict__.get(FORM)
    if found is None or found[0] != fields:
        found = layer.__dict__[FORM] = (fields, CouplingForm(**fields))
    return found[1]
