"""The models of normflows: their loops over layers, carrying halves and one running log-determinant.

Losses that these classes compute in other ways (``reverse_kld``, ``reverse_alpha_div``) stay the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from normflows import core
from torch import Tensor, nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.normflows._halves import added, run


class _Flows(Accelerated):
    """A list of flows over one base."""

    REPLACEMENT = "halves and one log-determinant from layer to layer"
    flows: Any
    q0: nn.Module

    def _on(self, z: Tensor, log_det: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return run(self.flows, z, log_det, to_data=True)

    def _back(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return run(reversed(self.flows), x, None, to_data=False)

    def _log_prob(self, x: Tensor, *given: Tensor) -> Tensor:
        z, total = self._back(x)
        found = added(total, self.q0.log_prob(z, *given))  # type: ignore[operator]
        assert found is not None
        return found

    def _sample(self, *given: Any) -> tuple[Tensor, Tensor]:
        z, log_q = self.q0(*given)
        z, log_det = self._on(z)
        return z, log_q if log_det is None else log_q - log_det


class NormalizingFlow(_Flows, core.NormalizingFlow):
    """One base and one list of flows."""

    def forward(self, z: Tensor) -> Tensor:
        """Latent -> data."""
        return self._on(z)[0]

    def inverse(self, x: Tensor) -> Tensor:
        """Data -> latent."""
        return self._back(x)[0]

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, with the log-determinant in torch's default dtype, as in the library."""
        x, log_det = self._on(z)
        return x, _like(torch.zeros(len(z), device=z.device), log_det)

    def inverse_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, likewise."""
        z, log_det = self._back(x)
        return z, _like(torch.zeros(len(x), device=x.device), log_det)

    def forward_kld(self, x: Tensor) -> Tensor:
        """Mean negative log-probability of ``x``, summed in torch's default dtype, as in the library."""
        return -torch.mean(_like(torch.zeros(len(x), device=x.device), self._log_prob(x)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, ``(B,)``."""
        return self._log_prob(x).to(x.dtype)

    def sample(self, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        """Samples and their log-probability."""
        return self._sample(num_samples)


class ClassCondFlow(_Flows, core.ClassCondFlow):
    """The base depends on a class."""

    def forward_kld(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean negative log-probability of ``x`` in the classes ``y``."""
        return -torch.mean(self.log_prob(x, y))

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Nats, ``(B,)``."""
        return self._log_prob(x, y).to(x.dtype)

    def sample(self, num_samples: int = 1, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Samples and their log-probability."""
        return self._sample(num_samples, y)


class MultiscaleFlow(Accelerated, core.MultiscaleFlow):
    """A list of flows for each level."""

    REPLACEMENT = _Flows.REPLACEMENT

    def log_prob(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Nats, ``(B,)``."""
        latents, total = self._back(x)
        given = (y,) if self.class_cond else ()
        for i in reversed(range(len(self.q0))):
            total = added(total, self.q0[i].log_prob(latents[i], *given))
        assert total is not None
        return total

    def inverse_and_log_det(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Data -> latents of the levels."""
        latents, total = self._back(x)
        return latents, _like(torch.zeros(len(x), dtype=x.dtype, device=x.device), total)

    def forward_and_log_det(self, z: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents of the levels -> data."""
        zeros = torch.zeros(len(z[0]), dtype=z[0].dtype, device=z[0].device)
        total: Tensor | None = None
        x = z[0]
        for i in range(len(self.q0)):
            if i:
                x, own = self.merges[i - 1]([x, z[i]])
                total = added(total, own)
            x, total = run(self.flows[i], x, total, to_data=True)
        if self.transform is not None:
            x, own = self.transform(x)
            total = added(total, own)
        return x, _like(zeros, total)

    def _back(self, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        total: Tensor | None = None
        if self.transform is not None:
            x, own = self.transform.inverse(x)
            total = added(total, own)
        latents: list[Tensor] = []
        for i in reversed(range(len(self.q0))):
            x, total = run(reversed(self.flows[i]), x, total, to_data=False)
            latent = x
            if i:
                (x, latent), own = self.merges[i - 1].inverse(x)
                total = added(total, own)
            latents.append(latent)
        return latents[::-1], total


def _like(zeros: Tensor, total: Tensor | None) -> Tensor:
    """The total in the dtype of the library's sum; ``zeros`` if no layer has one."""
    return zeros if total is None else total.to(zeros.dtype)
