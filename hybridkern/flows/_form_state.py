"""The affine form of a flow as a part of its ``state_dict``: parameters mean nothing without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern.flows.base import Flow
from hybridkern.ops.affine_coupling.form import CouplingForm, form_text


class FormedFlow(Flow):
    """A flow of affine couplings, whose ``state_dict`` says of which form.

    A ``state_dict`` that does not say it, as version 0.1 wrote them, is taken for one of the flow's own form.

    Attributes:
        form: of all its couplings.
    """

    form: CouplingForm

    def get_extra_state(self) -> Tensor:
        """The form as numbers."""
        return torch.tensor(self.form.numbers(), dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing is set: a flow keeps the form that it was built with.

        Raises:
            ValueError: ``state`` is another form's.
        """
        theirs = CouplingForm.from_numbers(state.tolist())
        if theirs != self.form:
            raise ValueError(
                f"form: got a state_dict of form {form_text(theirs)}, expected {form_text(self.form)}, that of the "
                f"flow; build it as {type(self).__name__}(..., form={form_text(theirs)})"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        key = prefix + "_extra_state"
        if key in state_dict:  # before anything is copied
            self.set_extra_state(state_dict[key])
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing_keys = args[2]
        if key in missing_keys:
            missing_keys.remove(key)
