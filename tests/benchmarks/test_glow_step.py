"""The comparison of whole Glow steps: what is compared computes what it should, and shares are what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import _measure, glow_step
from benchmarks._results import RESULTS, read_csv
from benchmarks.glow import measure, sides, step_table
from benchmarks.glow.eager import EagerGlow, coupling_network
from benchmarks.glow.idle import at_rest, replacements
from benchmarks.glow.memory import in_fresh_process, peak_of
from benchmarks.glow.result import Line, rates, self_ratios
from benchmarks.glow.side import Architecture, Side, sampling, training_step

TINY = Architecture((3, 8, 8), levels=2, steps=2, hidden=16)
LIBRARIES = [name for name in ("normflows", "freia", "eager", "ours") if sides.missing(name) is None]


def built(name: str) -> Side:
    torch.manual_seed(0)
    return sides.build(name, TINY)


@pytest.mark.parametrize("name", LIBRARIES)
def test_same_architecture(name: str) -> None:
    side, eager = built(name), built("eager")
    assert len(side.networks) == TINY.levels * TINY.steps
    assert side.parameters_in_networks() == eager.parameters_in_networks()
    if name != "freia":  # its 1x1 convolutions are fixed
        assert 0.5 * eager.parameters_elsewhere() < side.parameters_elsewhere() <= eager.parameters_elsewhere()


@pytest.mark.parametrize("name", [name for name in sides.NAMES if name.split("-")[0] in LIBRARIES])
def test_steps_train_and_samples_are_images(name: str) -> None:
    side = built(name)
    assert side.name == name
    run = training_step(side, torch.rand(8, 3, 8, 8) - 0.5)
    losses = [float(run()) for _ in range(20)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    images = sampling(side, 3)()
    assert images.shape == (3, 3, 8, 8) and images.isfinite().all()


@pytest.fixture
def small_glow() -> EagerGlow:
    torch.manual_seed(1)
    model = EagerGlow(Architecture((1, 4, 4), levels=2, steps=2, hidden=4))
    model(torch.randn(16, 1, 4, 4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double()


def test_eager_glow_inverts(small_glow: EagerGlow) -> None:
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    latents, _ = small_glow(x)
    assert (small_glow.inverse(latents) - x).abs().max() < 1e-9


def test_eager_glow_has_the_jacobian_that_it_says(small_glow: EagerGlow) -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def flat(values: Tensor) -> Tensor:
        return torch.cat([latent.flatten() for latent in small_glow(values.view_as(x))[0]])

    jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert abs(small_glow(x)[1].item() - expected.item()) < 1e-9


class Clock:
    """Counts seconds that modules say they take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Takes(torch.autograd.Function):
    """The identity, taking some seconds forward and as many backward."""

    @staticmethod
    def forward(ctx, x, clock, seconds):
        ctx.clock, ctx.seconds = clock, seconds
        clock.now += seconds
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        ctx.clock.now += ctx.seconds
        return grad, None, None


class Slow(nn.Module):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return Takes.apply(x * self.weight, self.clock, self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(_measure.time, "perf_counter", clock)
    return clock


def test_share_outside_of_a_hand_made_case(clock: Clock) -> None:
    network, rest = Slow(clock, 3.0), Slow(clock, 0.5)
    model = nn.ModuleList([network, rest])
    x = torch.ones(2, 1, 1, 1)
    side = Side("hand-made", model, lambda x: rest(x + network(x)).flatten(1).sum(1), lambda n: x, (network,))
    shares = measure.time_shares([side], x, rounds=15)["hand-made"]
    assert (shares.step, shares.outside) == (7.0, 1.0)
    assert shares.share_outside == 1 / 7 and shares.optimizer == 0.0


def test_networks_at_rest_do_no_work_and_work_again_afterwards() -> None:
    network = coupling_network(2, 4, 3).to(memory_format=torch.channels_last)
    nn.init.ones_(network[-1].bias)
    x = torch.randn(2, 2, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    real = network(x)
    functions = replacements([network], lambda: network(x))
    with at_rest([network], functions):
        output = network(x)
        assert output.requires_grad and output.stride() == real.stride() and not output.any()
        output *= 0.1  # as FrEIA's block does
        output.sum().backward()
        fixed = network(x.detach())
        assert fixed.requires_grad  # as that of a network with parameters does
    assert not x.grad.any() and all(p.grad is None for p in network.parameters())
    assert torch.equal(network(x), real)
    with pytest.raises(RuntimeError, match="1 of 1 networks were not called"):
        replacements([network], lambda: None)


@pytest.mark.parametrize("name", [name for name in sides.NAMES if name.split("-")[0] in LIBRARIES])
def test_shares_of_every_side(name: str) -> None:
    side = built(name)
    shares = measure.time_shares([side], torch.rand(2, 3, 8, 8) - 0.5, rounds=15)[name]
    assert shares.outside > 0 and shares.optimizer > 0
    assert all(p.isfinite().all() for p in side.model.parameters())


def allocate(mebibytes: int) -> int:
    def work() -> None:
        torch.ones(8 * mebibytes << 18).sum()  # four bytes each: eight times as much, and freed before it is measured

    work()
    return peak_of(lambda: torch.ones(mebibytes << 18).sum())


def test_peak_memory_is_counted() -> None:
    assert abs(in_fresh_process(allocate, 32) / 2**20 - 32) < 3


def test_rates_are_those_of_the_best_peer() -> None:
    def timing(seconds: float) -> _measure.Timing:
        return _measure.Timing(seconds, seconds, seconds, 15, 1)

    timings = {"normflows": timing(2.0), "freia": timing(1.6), "ours": timing(0.4), "ours again": timing(0.41)}
    assert rates(timings, 32) == {"normflows": (16, 0.8), "freia": (20, 1.0), "ours": (80, 4.0)}
    assert self_ratios(timings) == {"ours": pytest.approx(1.025)}
    assert rates({"ours": timing(0.4)}, 32) == {"ours": (80, None)}


def test_table_of_records() -> None:
    shares = measure.Shares(step=0.4, outside=0.03, optimizer=0.01)
    timing = _measure.Timing(0.41, 0.4, 0.42, 15, 1)
    line = Line("ours-bf16", 1000, 10, timing, 1.2, 78.0, 4.0, shares, 3 << 20)
    conditions = {"cpu": "a CPU", "threads": 2, "torch": "2", "date": "today", "bf16_unit": None, "rounds": 15}
    conditions |= {"shape": "3x8x8", "batch": 32, "levels": 3, "steps": 8, "hidden": 4}
    records = [line.record(conditions), Line("normflows", 1000, 20).record(conditions)]
    text = step_table.render(records)
    assert "| `flows.Glow`, bf16 | 410 ms | 78.0 | 4.00x | 7.5 % | 2.5 % | 3 MiB |  |  |" in text
    assert "| normflows |  |" in text and "32 images of 3x8x8" in text
    assert "DISTURBED, not to be used: step of ours-bf16" in text
    assert records[0]["step_q3_s"] == "0.42" and records[1]["peak_bytes"] == records[1]["bf16_unit"] == ""


def test_published_figures_belong_together() -> None:
    records = read_csv(RESULTS / step_table.FILE)
    assert {record["side"] for record in records} == {*sides.PEERS, *glow_step.OURS}
    batch = int(records[0]["batch"])
    for what, speed, ratio in (("step", "images_per_s", "ratio"), ("sampling", "sampled_per_s", "sampling_ratio")):
        best = max(batch / float(r[f"{what}_s"]) for r in records if sides.is_peer(r["side"]))
        for record in records:
            assert float(record[speed]) == pytest.approx(batch / float(record[f"{what}_s"]))
            assert float(record[ratio]) == pytest.approx(float(record[speed]) / best)
            assert int(record[f"{what}_rounds"]) >= _measure.LEAST_ROUNDS
    assert all(map(_measure.self_check, step_table.self_checks(records).values()))


def test_images_come_from_the_file(tmp_path: Path) -> None:
    import numpy

    raw = numpy.arange(2 * 4 * 4 * 3, dtype=numpy.uint8).reshape(2, 4, 4, 3)
    numpy.savez(tmp_path / "d.npz", images=raw)
    x = glow_step.images(tmp_path / "d.npz", (3, 4, 4), 2, seed=0)
    assert x.shape == (2, 3, 4, 4)
    assert torch.equal(((x + 0.5) * 256).floor(), torch.from_numpy(raw).permute(0, 3, 1, 2).float())
    with pytest.raises(ValueError, match=r"got images of shape \(2, 3, 4, 4\), expected \(2, 1, 4, 4\)"):
        glow_step.images(tmp_path / "d.npz", (1, 4, 4), 2, seed=0)


@pytest.mark.usefixtures("threads_restored")
def test_a_run_at_other_settings_stays_unpublished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glow_step._environment, "with_allocator_settings", lambda *arguments: None)
    monkeypatch.setattr(glow_step, "UNVERIFIED", tmp_path)
    tiny = ["--shape", "3,8,8", "--levels", "2", "--steps", "1", "--hidden", "4", "--batch", "2", "--threads", "1"]
    glow_step.main([*tiny, "--peers", "", "--sides", "eager,eager-bf16", "--parts", "step,outside,sampling"])
    records = read_csv(tmp_path / step_table.FILE)
    assert records[0]["side"] == "eager" and records[0]["shape"] == "3x8x8" and records[0]["ratio"] == ""
    for record in records:
        assert float(record["images_per_s"]) == 2 / float(record["step_s"])
        assert float(record["sampled_per_s"]) == 2 / float(record["sampling_s"])
        assert float(record["share_outside"]) > 0 and record["peak_bytes"] == "" and record["rounds"] == "15"
    assert set(step_table.self_checks(records)) & {"step of eager", "step of eager-bf16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sides", "other"], "side: got 'other', expected one of"),
        (["--parts", "colour"], "parts: got colour"),
        (["--shape", "3,32"], "expected three integers"),
        (["--data", "/nowhere.npz"], "nowhere"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glow_step._environment, "with_allocator_settings", lambda *arguments: None)
    with pytest.raises(SystemExit) as stopped:
        glow_step.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
