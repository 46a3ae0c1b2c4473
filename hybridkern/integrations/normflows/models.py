"""The models of normflows: their loops over layers, which carry halves.

Losses that these classes compute in other ways (``reverse_kld``, ``reverse_alpha_div``) stay the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from normflows import core
from torch import Tensor, nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.normflows._halves import run


class _Flows(Accelerated):
    """A list of flows over one base."""

    REPLACEMENT = "halves are passed on without joining them"
    flows: Any
    q0: nn.Module

    def _back(self, x: Tensor, log_det: Tensor | None) -> tuple[Tensor, Any]:
        return run(reversed(self.flows), x, log_det, to_data=False)

    def _log_prob(self, x: Tensor, log_det: Tensor, *given: Tensor) -> Tensor:
        z, log_px = self._back(x, log_det)
        log_px += self.q0.log_prob(z, *given)  # type: ignore[operator]
        return log_px

    def _sample(self, *given: Any) -> tuple[Tensor, Any]:
        z, log_q = self.q0(*given)
        return run(self.flows, z, log_q, to_data=True, sign=-1)


class NormalizingFlow(_Flows, core.NormalizingFlow):
    """One base and one list of flows."""

    def forward(self, z: Tensor) -> Tensor:
        """Latent -> data."""
        return run(self.flows, z, None, to_data=True)[0]

    def inverse(self, x: Tensor) -> Tensor:
        """Data -> latent."""
        return self._back(x, None)[0]

    def forward_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, with the log-determinant in torch's default dtype, as in the library."""
        return run(self.flows, z, torch.zeros(len(z), device=z.device), to_data=True)

    def inverse_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, likewise."""
        return self._back(x, torch.zeros(len(x), device=x.device))

    def forward_kld(self, x: Tensor) -> Tensor:
        """Mean negative log-probability of ``x``, summed in torch's default dtype, as in the library."""
        return -torch.mean(self._log_prob(x, torch.zeros(len(x), device=x.device)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, ``(B,)``."""
        return self._log_prob(x, torch.zeros(len(x), dtype=x.dtype, device=x.device))

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
        return self._log_prob(x, torch.zeros(len(x), dtype=x.dtype, device=x.device), y)

    def sample(self, num_samples: int = 1, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Samples and their log-probability."""
        return self._sample(num_samples, y)


class MultiscaleFlow(Accelerated, core.MultiscaleFlow):
    """A list of flows for each level."""

    REPLACEMENT = _Flows.REPLACEMENT

    def log_prob(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Nats, ``(B,)``."""
        log_px: Any = 0
        z = x
        if self.transform is not None:
            z, own = self.transform.inverse(z)
            log_px += own
        for i in reversed(range(len(self.q0))):
            z, log_px = run(reversed(self.flows[i]), z, log_px, to_data=False)
            latent = z
            if i:
                (z, latent), own = self.merges[i - 1].inverse(z)
                log_px += own
            log_px += self.q0[i].log_prob(latent, *((y,) if self.class_cond else ()))
        return log_px

    def inverse_and_log_det(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Data -> latents of the levels."""
        log_det: Any = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        if self.transform is not None:
            x, own = self.transform.inverse(x)
            log_det += own
        latents: list[Tensor] = []
        for i in reversed(range(len(self.q0))):
            x, log_det = run(reversed(self.flows[i]), x, log_det, to_data=False)
            latent = x
            if i:
                (x, latent), own = self.merges[i - 1].inverse(x)
                log_det += own
            latents.append(latent)
        return latents[::-1], log_det

    def forward_and_log_det(self, z: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents of the levels -> data."""
        log_det: Any = torch.zeros(len(z[0]), dtype=z[0].dtype, device=z[0].device)
        x = z[0]
        for i in range(len(self.q0)):
            if i:
                x, own = self.merges[i - 1]([x, z[i]])
                log_det += own
            x, log_det = run(self.flows[i], x, log_det, to_data=True)
        if self.transform is not None:
            x, own = self.transform(x)
            log_det += own
        return x, log_det
