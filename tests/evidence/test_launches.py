"""Launches are counted right, and a step of Glow keeps within its budget."""

from __future__ import annotations

import pytest
import torch

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from torch.func import functional_call  # noqa: E402

from hybridkern.transforms.mixing import Mixing  # noqa: E402
from tests.evidence.counting import eager, ours, step_launches  # noqa: E402
from tests.evidence.launches import launched_operators  # noqa: E402
from tests.evidence.subjects import ALIGNED, MAIN, Subject  # noqa: E402

FORWARD, BACKWARD = 3, 4  # of a step of Glow without its network


def test_views_and_allocations_are_no_launches():
    x = torch.ones(4, 6)
    assert launched_operators(lambda: x.view(6, 4).t()[1:].unsqueeze(0).expand(2, -1, -1)) == []
    assert launched_operators(lambda: torch.empty_like(x)) == []
    assert launched_operators(lambda: (x + 1).sum()) == ["aten::add", "aten::sum"]
    assert launched_operators(lambda: x.t().contiguous()) == ["aten::clone"]


@pytest.mark.parametrize("subject", MAIN, ids=lambda subject: subject.name)
def test_an_operator_launches_at_most_two_kernels_a_pass(subject: Subject):
    """One, and a second stage where an example or a shared gradient is divided among programs."""
    args = subject.arguments(ALIGNED[0])
    own, plain = ours(subject.operator, args), eager(subject.operator, args)
    assert own.forward <= 2 and own.backward <= 2
    assert own.forward < plain.forward and own.backward < plain.backward


HALVES = [(256, 6, 16, 16), (3, 24, 4, 4)]


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_a_step_of_glow_without_its_network_keeps_within_its_budget(half):
    own, once = step_launches(ours, half)
    plain, _ = step_launches(eager, half)
    assert 0 < own.forward <= FORWARD and 0 < own.backward <= BACKWARD, (own, once)
    assert own.forward < plain.forward and own.backward < plain.backward


def test_the_sum_with_a_networks_gradient_is_within_the_budget():
    with_network, without = (step_launches(ours, HALVES[0], form)[0] for form in ("additive", "glow"))
    assert with_network.backward == without.backward + 1 <= BACKWARD


def test_the_matrices_of_a_level_are_composed_at_once():
    """Their launches, part of what a level costs once, are as many for one step as for eight."""
    counts = {}
    for steps in (1, 8):
        mixing = Mixing(steps, 12)
        parameters = {name: value.detach() for name, value in mixing.named_parameters()}
        counts[steps] = ours(lambda m=mixing, **given: functional_call(m, given, ()), parameters)
    assert counts[1] == counts[8]
