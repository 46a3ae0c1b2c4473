"""A variational autoencoder with a classifier as a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hybridkern.hybrid import HybridModel, HybridOutput, objectives
from hybridkern.hybrid._labels import UNLABELLED
from hybridkern.hybrid.vae import M1M2, VAE, Bernoulli, HybridVAE
from hybridkern.lab.archive import one_line
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.task import Terms, samples_of
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.lab.recipes.vae.model import decoding, latents_of, likelihood_of, model_of, stacked, start_decoder
from hybridkern.lab.recipes.workflow import load_run

_SAMPLE = 10_000


class VAETask(ImageTask):
    """Images are rows ``(B, D)`` from 0 to 1 to the model, black and white where its likelihood is Bernoulli's.

    ``nll`` is minus a bound of ``log p`` of these, in nats, from one draw of the latents; in training it is the loss,
    for another pass would cost more than the step.

    Args:
        config: of model and objective.
        data: shape of the images.
    """

    def __init__(self, config: VAEConfig, data: DataShape) -> None:
        super().__init__(model_of(config, data), _weight(config, data.dim), data.shape, data.grey_levels)  # type: ignore[arg-type]
        self.config, self._data = config, data
        self.classes = data.classes
        self.binary = isinstance(likelihood_of(config, data.grey_levels), Bernoulli)

    @property
    def log_units(self) -> float:
        return 0.0

    def objective(self) -> objectives.Objective:
        config = self.config
        base: objectives.Objective = objectives.Separate()
        if config.model != "m1":
            # of "bayes" labels weigh more; as a bound that weighs less it is the same but for a factor
            lam = self.lam if config.model == "hybrid" else config.labelled_share / max(config.label_weight, 1e-6)
            base = objectives.Weighted(lam)
        return objectives.SemiSupervised(base, config.entropy_weight, balanced=False)

    def initialize(self, x: Tensor, y: Tensor) -> None:
        start_decoder(self._net, self._sample(x))

    def _sample(self, x: Tensor) -> Tensor:
        return self.images(x[:: -(-len(x) // _SAMPLE)])  # evenly spaced: files may be sorted by class

    @property
    def _net(self) -> Any:
        return self.model

    def images(self, x: Tensor) -> Tensor:
        """Rows of grey values with noise, or without, as the model takes them, ``(B, D)``."""
        x = x.to(device=next(self.parameters()).device, dtype=torch.float32)
        shown = x.floor().clamp(0, self.grey_levels - 1) / (self.grey_levels - 1)
        return (shown >= 0.5).to(shown.dtype) if self.binary else shown

    def rows(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`, as far as there is one."""
        return (images * (self.grey_levels - 1)).round().clamp(0, self.grey_levels - 1)

    def loss_and_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Terms]:
        seen = self.images(x)
        if isinstance(self._net, HybridModel):
            loss = self._net.loss(seen, y, self.objective())
        else:
            loss = self._net.loss(seen, y)
        with torch.no_grad():
            out = HybridOutput(seen, -loss.detach().expand(len(seen)), self._prediction(seen))
            return loss, self._terms(out, y)

    def _prediction(self, seen: Tensor) -> Tensor:
        """Logarithms of numbers that are as the classes are probable, ``(B, K)``."""
        net = self._net
        return net.head(net.flow(seen)[0]) if isinstance(net, HybridModel) else net.log_probabilities(seen)

    def output(self, x: Tensor) -> HybridOutput:
        seen, net = self.images(x), self._net
        bound = net.log_prob(seen)
        return HybridOutput(latents_of(net, seen), bound, self._prediction(seen))

    def _terms(self, out: HybridOutput, y: Tensor) -> Terms:
        unlabelled = y == UNLABELLED
        log_p = torch.log_softmax(out.prediction.float(), 1)
        class_nll = -log_p.gather(1, torch.where(unlabelled, 0, y)[:, None]).squeeze(1)
        return Terms(torch.where(unlabelled, 0.0, class_nll), -out.log_px, log_p.argmax(1))

    def latent(self, x: Tensor) -> Tensor:
        return latents_of(self._net, self.images(x))

    def invert(self, z: Tensor) -> Tensor:
        """The images ``(B, D)`` that are expected of what the decoder reads, in grey values."""
        part = decoding(self._net)
        return part.likelihood.mean(part.decoder(z)) * (self.grey_levels - 1)

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        return self.rows(samples_of(self._net, n, temperature, label))

    def decays(self, parameter: nn.Parameter) -> bool:
        """As the base class: the weights of all networks, which are linear layers mostly."""
        layers = (module for module in self.modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
        return any(parameter is layer.weight for layer in layers)

    def head_parameters(self) -> list[nn.Parameter]:
        net = self._net
        head = net.head if isinstance(net, HybridModel) else net.classifier
        return list(head.parameters())


class StackedTask(VAETask):
    """M2 on the latents of a VAE that was trained before, a finished run of model ``"m1"``.

    Which of these vary is known from data, so that M2 is made by :meth:`initialize`, or by loading weights.
    """

    def initialize(self, x: Tensor, y: Tensor) -> None:
        """As the base class; raises RecipeError where the VAE of ``first`` is missing or another one."""
        folder = Path(str(self.config.first))
        record, task = load_run(folder)
        found = record.config
        if not isinstance(found, VAEConfig) or found.model != "m1":
            raise RecipeError(f"--set first: {folder} holds no run of a VAE of model m1")
        first = cast(VAE, cast(HybridVAE, self._net).flow)
        try:
            first.load_state_dict(task.model.flow.state_dict())  # type: ignore[union-attr]
            self.model = stacked(self.config, self._data, first, self._sample(x))  # type: ignore[assignment]
        except (RuntimeError, ValueError) as error:
            raise RecipeError(f"--set first: {folder} does not fit ({one_line(error)})") from error

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(self._net, M1M2):
            self.model = self._of_size(len(state_dict["model.chosen"]))  # type: ignore[assignment]
        return super().load_state_dict(state_dict, *args, **options)

    @torch.no_grad()
    def _of_size(self, count: int) -> M1M2:
        """A model of ``count`` latents of the first VAE, whose weights are to be read yet."""
        first = cast(VAE, cast(HybridVAE, self._net).flow)
        last = cast(nn.Linear, cast(nn.Sequential, first.encoder)[-1])
        last.weight[count : first.dim] = 0  # these do not vary
        last.weight[:count] *= 1e6
        return stacked(self.config, self._data, first, torch.rand(16, self.dim))


def _weight(config: VAEConfig, dim: int) -> float:
    """Of the bound in the validation loss, which is drawn and decides nothing: 1 where the model has none."""
    return config.weight(dim) if config.model == "hybrid" else 1.0


def build(config: VAEConfig, data: DataShape) -> VAETask:
    """The task of a configuration for images of this shape, with torch's global generator."""
    return (StackedTask if config.model == "m1m2" else VAETask)(config, data)
