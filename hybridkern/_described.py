"""What a module computes beside its parameters, as a part of its ``state_dict``: they mean nothing without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Described(nn.Module):
    """A module whose ``state_dict`` says which map its parameters belong to, and which takes no other's.

    A ``state_dict`` that does not say it is taken for one of the module's own map.
    """

    def numbers(self) -> tuple[float, ...]:
        """The choices of the module, equal for two that compute the same; empty where it cannot say them."""
        raise NotImplementedError

    def described(self) -> str:
        """The same in words, for an error."""
        raise NotImplementedError

    def get_extra_state(self) -> Tensor:
        """The choices as numbers."""
        return torch.tensor(self.numbers(), dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing is set: a module stays what it was built as.

        Raises:
            ValueError: ``state`` is another map's.
        """
        own, theirs = self.numbers(), tuple(state.tolist())
        if own and theirs and own != theirs:
            raise ValueError(
                f"{type(self).__name__}: got a state_dict of another map, whose numbers are {_text(theirs)}, expected "
                f"{_text(own)}, those of {self.described()}; build it as it was when it was saved"
            )

    def check_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Raises ValueError where ``state_dict`` holds another map under ``prefix``; before anything is copied."""
        if prefix + "_extra_state" in state_dict:
            self.set_extra_state(state_dict[prefix + "_extra_state"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.check_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        key, missing_keys = prefix + "_extra_state", args[2]
        if key in missing_keys:
            missing_keys.remove(key)


def _text(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
