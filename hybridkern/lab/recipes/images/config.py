"""Settings of the recipes that train a flow on images with a classifier on its latents."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hybridkern.flows.glow import DEFAULT_FORM
from hybridkern.flows.idf import COUPLINGS, PRIORS
from hybridkern.lab.recipes.images.training_config import TrainingConfig

FLOWS = ("glow", "residual", "idf")
MEMORIES = ("store", "recompute", "invert")
HEADS = ("all", "top")
_OF_IDF = ("coupling", "prior", "components", "slices", "quantized")


@dataclass(frozen=True)
class ImagesConfig(TrainingConfig):
    """Settings of flow and classifier beside those of data and training.

    Attributes:
        flow: ``"glow"``, ``"residual"``, or ``"idf"``, an integer flow, which sees the grey values as they are;
            ``form``, ``norm``, ``permutation``, ``whiten`` and ``memory`` are Glow's.
        levels, steps, hidden, form, net, norm, permutation: of :class:`hybridkern.flows.Glow`; of
            :class:`hybridkern.flows.Residual` the scales, the blocks of each, the width (or growth) and the network,
            ``"conv"`` or ``"dense"``; of :class:`hybridkern.flows.IDF` the levels, layers of each, width and network.
            Sides that ``2**levels`` does not divide are made longer for it by repeating the last pixels.
        coupling, prior, components, slices: of :class:`hybridkern.flows.IDF`.
        quantized: share of the training, its end, in which the networks of an integer flow learn steps of 8-bit weights
            and activations (:func:`hybridkern.codec.learn_steps`); they must be ``"conv"`` or ``"resnet"`` then.
        activation: of the residual flow's networks, ``"lipswish"`` or ``"clipswish"``.
        logit: of pixels ``x`` from 0 to 1 the flow sees the logits of ``a + (1 - 2a) x``, where ``a`` is this number,
            in place of ``x - 1/2``; 0: it does not.
        whiten: start the 1x1 convolutions from data, as :meth:`hybridkern.flows.Glow.initialize` says.
        memory: what is kept for the backward pass: ``"store"``, ``"recompute"`` or ``"invert"``.
        head: latents that the classifier sees: ``"all"``, or the ``"top"`` level's.
        head_hidden: units of the classifier's hidden layer; 0 makes it linear.
        head_dropout: dropout probability of the classifier's hidden units.
        head_input_dropout: dropout probability of the latents it sees.
        label_smoothing: share of the label that training spreads over all classes; 0 where there are unlabelled images.
        entropy_weight: weight of the entropy of ``p(y|x)``, in nats, of unlabelled images.
    """

    flow: str = "glow"
    levels: int = 3
    steps: int = 8
    hidden: int = 256
    form: str = DEFAULT_FORM
    net: str = "conv"
    norm: str = "actnorm"
    permutation: str = "conv1x1"
    whiten: bool = True
    memory: str = "store"
    coupling: str = "quarter"
    prior: str = "mixture"
    components: int = 5
    slices: int = 1
    quantized: float = 0.0
    activation: str = "lipswish"
    logit: float = 0.0
    head: str = "all"
    head_hidden: int = 0
    head_dropout: float = 0.0
    head_input_dropout: float = 0.0
    label_smoothing: float = 0.0
    entropy_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        named = {"flow": FLOWS, "memory": MEMORIES, "head": HEADS, "coupling": COUPLINGS, "prior": PRIORS}
        for name, choices in named.items():
            self.require_one_of(name, choices)
        for name in ("levels", "steps", "hidden", "components", "slices"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1 on")
        self._require("logit", 0 <= self.logit < 0.5, "a number from 0 to below 1/2")
        self._require("quantized", 0 <= self.quantized < 1, "a share from 0 to below 1")
        self._require("head_hidden", self.head_hidden >= 0, "a whole number from 0 on")
        for name in ("head_dropout", "head_input_dropout", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, "a share from 0 to below 1")
        self._require("entropy_weight", 0 <= self.entropy_weight < math.inf, "a finite number that is not negative")

    def _check_options(self, given: Collection[str]) -> None:
        super()._check_options(given)
        for name in () if self.flow == "idf" else _OF_IDF:
            usual = getattr(ImagesConfig, name)
            self._require(name, getattr(self, name) == usual, f"{usual} without --flow idf")
        if self.semi_supervised:  # of its loss the cross-entropy is that of the labels as they are
            self._require("label_smoothing", not self.label_smoothing, "0 with --set labels and unlabelled images")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImagesConfig:
        """As in the base class; where no form is named, it is that of version 0.1, whatever Glow's own is now.

        Settings that had no effect, which older versions took, are their defaults.
        """
        ignored = () if values.get("flow", cls.flow) == "idf" else _OF_IDF
        effective = {name: value for name, value in values.items() if name not in ignored}
        return super().from_json({"form": "glow"} | effective)
