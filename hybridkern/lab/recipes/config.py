"""What a run is made of: one frozen dataclass per recipe, written to ``config.json`` and read back from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from hybridkern.lab.recipes.device import DEVICES
from hybridkern.lab.recipes.errors import RecipeError

OPTIMIZERS = ("adamax", "adam", "adamw")
SCHEDULES = ("constant", "onecycle", "cosine")
LATTICES = ("exact", "tutorial")
_FINITE = (lambda value: 0 <= value < math.inf, "a finite number that is not negative")
# of options; older versions took others, and runs of theirs may hold them
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(("lr", "weight_decay", "prior_lr", "head_lr", "head_weight_decay"), _FINITE),
    "beta2": (lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    "warmup": (lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    "clip": (lambda value: value >= 0, "a number that is not negative"),
    "ema": (lambda value: 0 <= value < 1, "a number from 0 to below 1"),
}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_C = TypeVar("_C", bound="Config")


@dataclass(frozen=True)
class Config:
    """Settings common to all recipes; a recipe adds its model's settings as further fields.

    Attributes:
        data: path of an ``.npz`` file (see :mod:`hybridkern.lab.data`), or ``None`` for the recipe's own data.
        epochs: maximum number of passes over the training part.
        batch_size: examples per step.
        lam: weight of the negative log-likelihood in nats per example: ``loss = -log p(y|x) - lam * log p(x)``.
            ``None``: ``1/D``, D being the dimensions of an example.
        seed: random seed of the initial weights, the order of the data and the samples.
        patience: training stops after more than this many epochs without a lower validation loss.
        optimizer: ``"adamax"``, ``"adam"`` or ``"adamw"``.
        lr: learning rate, the highest one of the schedule.
        weight_decay: decoupled weight decay with ``"adamw"``; with the others an L2 penalty, as in PyTorch's.
        beta2: decay of the optimizer's running average of squared gradients.
        prior_lr: factor on the learning rate of the prior's parameters, which then have no weight decay; for models
            that say which those are.
        schedule: schedule of the learning rate: ``"constant"``, ``"onecycle"`` or ``"cosine"``.
        warmup: share of the steps in which ``"onecycle"`` rises.
        clip: largest norm of the gradient; ``None`` or 0: any.
        ema: decay of the running average of the weights that is validated and kept, or ``None`` for the weights
            themselves.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.
    """

    data: str | None = None
    epochs: int = 100
    batch_size: int = 64
    lam: float | None = None
    seed: int = 0
    patience: int = 20
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    beta2: float = 0.999
    prior_lr: float = 1.0
    schedule: str = "constant"
    warmup: float = 0.3
    clip: float | None = None
    ema: float | None = None
    device: str = "auto"

    @property
    def schedule_may_grow(self) -> bool:
        """Whether a finished run can go on along its schedule, stretched over more epochs or minutes."""
        return False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "a whole number from 1 on")
        for name in ("seed", "patience"):
            self._require(name, 0 <= getattr(self, name) < 2**32, "a whole number from 0 on")
        weighs = self.lam is None or (math.isfinite(self.lam) and self.lam >= 0)
        self._require("lam", weighs, "a finite number that is not negative")
        self.require_one_of("optimizer", OPTIMIZERS)
        self.require_one_of("schedule", SCHEDULES)
        self.require_one_of("device", DEVICES)

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise RecipeError(f"--{_flag(name)}: got {getattr(self, name)}, expected {expected}")

    def _check_options(self, given: Collection[str]) -> None:
        """Holds the options of these names to more than what can be read from an older run.

        Raises:
            RecipeError: one has a value that is out of range, or no effect.
        """
        for name in given:
            if name in _RANGES:
                holds, expected = _RANGES[name]
                self._require(name, holds(getattr(self, name)), expected)

    def require_one_of(self, name: str, choices: tuple[Any, ...]) -> None:
        """Raises RecipeError where the field holds none of the choices."""
        if getattr(self, name) not in choices:
            listed = ", ".join(map(str, choices))
            raise RecipeError(f"--{_flag(name)}: got {getattr(self, name)!r}, expected one of {listed}")

    def updated(self: _C, recipe: str, options: dict[str, Any]) -> _C:
        """This configuration with the options that were given (those not ``None``).

        Raises:
            RecipeError: the recipe has no such option, or its value is out of range or has no effect.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if name not in self.names():
                raise RecipeError(f"--{_flag(name)}: the recipe '{recipe}' has no such option")
        updated = dataclasses.replace(self, **given)
        updated._check_options(given)
        return updated

    def parsed(self, recipe: str, settings: list[str]) -> dict[str, Any]:
        """Settings given as ``NAME=VALUE``, by name, in the type that the recipe's own value has.

        Raises:
            RecipeError: no such form, setting or type.
        """
        values: dict[str, Any] = {}
        types = get_type_hints(type(self))
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals or name not in types:
                listed = ", ".join(self.names())
                raise RecipeError(f"--set: got '{setting}', expected NAME=VALUE with one of {recipe}'s names: {listed}")
            kinds = [kind for kind in (get_args(types[name]) or (types[name],)) if kind is not type(None)]
            try:
                values[name] = _truth(text) if kinds[0] is bool else kinds[0](text)
            except ValueError as error:
                expected = "true or false" if kinds[0] is bool else kinds[0].__name__
                raise RecipeError(f"--set: {name}: got '{text}', expected {expected}") from error
        return values

    def weight(self, dim: int) -> float:
        """The weight of the likelihood for examples of ``dim`` dimensions: ``lam``, or ``1/dim`` where it is unset."""
        return 1.0 / dim if self.lam is None else self.lam

    def lam_record(self, dim: int) -> dict[str, Any]:
        """What ``metrics.json`` says of the weight of the likelihood."""
        convention = "loss = -log p(y|x) - lam * log p(x), nats per example"
        return {"lam": self.weight(dim), "lam_convention": convention}

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_json(cls: type[_C], values: dict[str, Any]) -> _C:
        """The configuration that ``dataclasses.asdict`` wrote; unknown names are an error, missing ones the default.

        Where no device is named, it is the one that there was: the CPU.
        """
        values = {"device": "cpu"} | values
        unknown = sorted(set(values) - set(cls.names()))
        if unknown:
            raise RecipeError(f"this version knows no setting '{unknown[0]}'")
        types = get_type_hints(cls)
        for name, value in values.items():
            kinds = get_args(types[name]) or (types[name],)
            # JSON writes a float that is whole as the user did
            if type(value) not in (*kinds, *((int,) if float in kinds else ())):
                listed = " or ".join(kind.__name__ for kind in kinds)
                raise RecipeError(f"{name}: got {value!r}, expected {listed}")
        return cls(**values)


def _truth(text: str) -> bool:
    """What a word says; Python's own ``bool`` takes every word for true, "false" too."""
    if text.strip().lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.strip().lower()]


def _flag(name: str) -> str:
    return name.replace("_", "-")
