"""``lab.fit`` on a machine with several GPUs, as far as it goes without one."""

from __future__ import annotations

import warnings

import pytest
import torch

from hybridkern.lab.fitting.module import generators_kept


def test_generators_of_several_devices_are_kept_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: written.append(device))
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with generators_kept():
            torch.rand(1)
    assert written == [0, 1] and torch.equal(torch.get_rng_state(), before)
