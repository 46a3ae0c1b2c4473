"""Training steps of residual flows against normflows: ``python -m benchmarks.residual_step``.

Eight layers with two hidden layers of 128 units and LipSwish on batches of 256: loss, backward pass, Adam, and the
norms of the weights (by five iterations in normflows, as its users call ``update_lipschitz``; until they settle here).
Both cut the series by a geometric proposal of rate 0.5 after two terms. Also the peak of a step's memory by the terms
that are always taken. Results: ``benchmarks/results/residual-step.csv``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _environment, _markdown
from benchmarks._measure import LEAST_ROUNDS, SELF_TOLERANCE, interleave, self_check
from benchmarks._results import AGAIN, OURS, RESULTS, UNVERIFIED, Record, write_csv
from benchmarks.glow.allocations import peak_bytes

FILE = "residual-step.csv"
PEER = "normflows"
DIMS, BATCH, BLOCKS, HIDDEN = (16, 64), 256, 8, 128
TERMS = (4, 16, 64)
TARGET = 1.5
_ATTEMPTS = 3
Step = Callable[[], object]


def ours(dim: int, terms: int = 2) -> nn.Module:
    """``flows.Residual``."""
    from hybridkern import flows

    torch.manual_seed(0)
    return flows.Residual(dim, blocks=BLOCKS, hidden=(HIDDEN,) * 2, terms=terms, proposal="geometric", rate=0.5)


def peer(dim: int) -> nn.Module:
    """The same of normflows, whose layers stand in the order of sampling."""
    import normflows as nf

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(BLOCKS):
        net = nf.nets.LipschitzMLP([dim, HIDDEN, HIDDEN, dim], init_zeros=False, lipschitz_const=0.98)
        layers += [nf.flows.Residual(net, reverse=True), nf.flows.ActNorm(dim)]
    model: nn.Module = nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), layers)
    return model


def step_of(model: Any, x: Tensor) -> Step:
    """A training step; it updates the norms of normflows' weights, while ours does so by itself."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    norms = None
    if type(model).__module__.startswith(PEER):
        from normflows.utils import update_lipschitz as norms

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (-model.log_prob(x).mean()).backward()
        optimizer.step()
        if norms is not None:
            norms(model, 5)

    return step


def times(dim: int, rounds: int) -> Iterator[Record]:
    """Medians of a step of each side, in turn."""
    x = torch.randn(BATCH, dim, generator=torch.Generator().manual_seed(0))
    sides = {name: step_of(build(dim), x) for name, build in ((PEER, peer), (OURS, ours), (AGAIN, ours))}
    for run in sides.values():
        for _ in range(20):
            run()  # from the start, where norms are far off, to ordinary steps
    for _ in range(_ATTEMPTS):
        found = interleave(sides, rounds=rounds, seconds=1.0)
        if self_check(found[AGAIN].median / found[OURS].median):
            break
    for name, timing in found.items():
        ratio = timing.median / found[OURS].median
        yield _record(f"step, {dim} dimensions", name, f"{1e3 * timing.median:.4g}", ratio, timing.rounds)


def peaks() -> Iterator[Record]:
    """Most bytes alive in a forward and backward pass, by the terms that are taken always."""
    x = torch.randn(BATCH, DIMS[-1], generator=torch.Generator().manual_seed(0))
    for terms in TERMS:
        model: Any = ours(DIMS[-1], terms)
        model.log_prob(x)
        size = peak_bytes(lambda model=model: (-model.log_prob(x).mean()).backward(), list(model.parameters()))
        yield _record(f"peak of a step, {DIMS[-1]} dimensions, {terms} terms", OURS, f"{size / 2**20:.4g}", None, None)


def _record(work: str, side: str, amount: str, ratio: float | None, rounds: int | None) -> Record:
    own = {
        "work": work,
        "side": side,
        "amount": amount,
        "ratio": "" if ratio is None else f"{ratio:.4g}",
        "rounds": "" if rounds is None else str(rounds),
    }
    return own | _environment.conditions()


def render(records: Sequence[Record]) -> str:
    """The table, with its conditions."""
    lines = []
    for record in records:
        if record["side"] == PEER:
            ours_ms = next(r["amount"] for r in records if (r["work"], r["side"]) == (record["work"], OURS))
            ratio = float(record["ratio"])
            missed = ", **missed**" if ratio < TARGET else ""
            lines.append(
                (record["work"], f"{record['amount']} ms", f"{ours_ms} ms", f"{ratio:.2f}x (target {TARGET}x{missed})")
            )
        elif record["side"] == OURS and not record["ratio"]:
            lines.append((record["work"], "", f"{record['amount']} MiB", ""))
    again = [float(record["ratio"]) for record in records if record["side"] == AGAIN]
    first = records[0]
    text = (
        f"{first['cpu']}, {first['threads']} thread{'s' * (first['threads'] != '1')}, torch {first['torch']}, "
        f"{first['date']}. Medians of {first['rounds']} rounds in one process, alternating between the sides; ours "
        f"against itself: {min(again):.2f} to {max(again):.2f} (must be 1 +- {SELF_TOLERANCE})."
    )
    return f"{_markdown.table(('work', PEER, '`flows.Residual`', 'ratio'), lines)}\n\n{text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.residual_step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    options = parser.parse_args(arguments)
    _environment.with_allocator_settings("benchmarks.residual_step", arguments)
    torch.set_num_threads(options.threads)
    records = [record for dim in DIMS for record in times(dim, options.rounds)] + list(peaks())
    quiet = all(self_check(float(record["ratio"])) for record in records if record["side"] == AGAIN)
    path = (options.results if quiet else UNVERIFIED) / FILE
    write_csv(path, records)
    print(f"{render(records)}\nresults: {path}")
    return 0 if quiet else 1


if __name__ == "__main__":
    sys.exit(main())
