"""One whole training step of Glow, library against library: ``python -m benchmarks.glow_step``.

A step is ``zero_grad``, loss, ``backward`` and Adam; every side has the same architecture (the numbers of parameters
are printed), the same batch and the same optimizer, and the sides are timed in turn in one process. The share outside
the coupling networks is the time of forward and backward pass with networks that do no work
(``benchmarks/glow/idle.py``) by that of the whole step. Peak memory is that of a fresh process a side, beside weights,
gradients and optimizer state. Sides that end in ``-bf16`` run under ``torch.autocast("cpu", torch.bfloat16)``. Printed
are the table, and JSON of it all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import torch
from torch import Tensor

from benchmarks import _environment
from benchmarks._measure import LEAST_ROUNDS, Timing, self_check
from benchmarks._results import RESULTS, UNVERIFIED, write_csv
from benchmarks.glow import measure, quality, sides, step_table
from benchmarks.glow.memory import in_fresh_process
from benchmarks.glow.result import Line, rates, self_ratios
from benchmarks.glow.side import Architecture, Side

PARTS = ("step", "outside", "memory", "sampling")
OURS = ("eager", "eager-bf16", "ours", "ours-bf16")


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.glow_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    default = Architecture()
    add("--peers", type=_names, default=list(sides.PEERS), help="other libraries, e.g. normflows,freia; '' for none")
    add("--sides", type=_names, default=list(OURS), help=f"further sides, of: {', '.join(sides.NAMES)}")
    add("--parts", type=_names, default=list(PARTS), help=f"what to measure: {','.join(PARTS)}")
    add("--shape", type=_shape, default=default.shape, help="channels,height,width of an image (default 3,32,32)")
    add("--levels", type=int, default=default.levels, help=f"default {default.levels}")
    add("--steps", type=int, default=default.steps, help=f"steps of flow a level (default {default.steps})")
    add("--hidden", type=int, default=default.hidden, help=f"channels in the networks (default {default.hidden})")
    add("--batch", type=int, default=32, help="images per step (default 32)")
    add("--rounds", type=int, default=LEAST_ROUNDS, help=f"interleaved rounds, at least {LEAST_ROUNDS}")
    add("--threads", type=int, default=_environment.THREADS, help=f"default {_environment.THREADS}")
    add("--data", type=Path, help=".npz with uint8 'images' (N,H,W,C); without it, uniform noise")
    add("--out", type=Path, help="CSV; default: in benchmarks/results for a complete run that held, else in .bench")
    add(
        "--quality",
        action="store_true",
        help="instead: train on --data in bf16 and float32, and eagerly; see quality.py",
    )
    add("--train-steps", type=int, default=300, help="of --quality (default 300)")
    add("--held-out", type=int, default=1000, help="images that --quality is measured on (default 1000)")
    add("--lr", type=float, default=5e-4, help="learning rate of --quality (default 5e-4)")
    add("--seed", type=int, default=0, help="of weights and batches")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = parser()
    options = command.parse_args(arguments)
    _environment.with_allocator_settings("benchmarks.glow_step", arguments)
    try:
        architecture = Architecture(options.shape, options.levels, options.steps, options.hidden)
        names = _measurable([*options.peers, *options.sides])
        if unknown := set(options.parts) - set(PARTS):
            raise ValueError(f"parts: got {', '.join(sorted(unknown))}, expected some of {', '.join(PARTS)}")
        x = images(options.data, architecture.shape, options.batch, options.seed)
    except (ValueError, OSError, KeyError) as error:
        command.error(str(error))
    torch.set_num_threads(options.threads)
    if options.quality:
        return _quality(names, architecture, options, command)
    lines = compare(names, architecture, x, options)
    records = [line.record(_conditions(options)) for line in lines]
    checks = step_table.self_checks(records)
    print(step_table.render(records))
    print(json.dumps(records))
    path = options.out or (RESULTS if _publishable(options, names, checks) else UNVERIFIED) / step_table.FILE
    write_csv(path, records)
    print(f"results: {path}")
    return 0 if all(map(self_check, checks.values())) else 1


def _conditions(options: argparse.Namespace) -> dict[str, object]:
    return {
        **_environment.conditions(),
        "shape": "x".join(map(str, options.shape)),
        **{name: getattr(options, name) for name in ("levels", "steps", "hidden", "batch", "rounds")},
        "allocator": "settings of benchmarks/_environment.py",
        "bf16_unit": _environment.bf16_unit(),
    }


def _quality(
    names: Sequence[str], architecture: Architecture, options: argparse.Namespace, command: argparse.ArgumentParser
) -> int:
    wanted = [name for name in names if name in quality.NAMES]
    if options.data is None or len(wanted) < 2:
        command.error(f"--quality needs --data and at least two of the sides {', '.join(quality.NAMES)}")
    data = quality.load(options.data, architecture.shape)
    data = replace(data, held_out=data.held_out[: options.held_out])
    settings = {"steps": options.train_steps, "batch": options.batch, "lr": options.lr, "seed": options.seed}
    print(f"{len(data.train)} training images, {len(data.held_out)} held out; {architecture}; {settings}", flush=True)
    found = quality.compare(wanted, architecture, data, **settings)
    holds = quality.verdict(found)
    print(f"within {quality.TOLERANCE} of each other: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


def compare(names: Sequence[str], architecture: Architecture, x: Tensor, options: argparse.Namespace) -> list[Line]:
    """Builds the sides and measures the wanted parts."""
    built: list[Side] = []
    for name in names:
        torch.manual_seed(options.seed)
        built.append(sides.build(name, architecture))
    found: dict[str, dict[str, object]] = {
        side.name: {
            "parameters_in_networks": side.parameters_in_networks(),
            "parameters_elsewhere": side.parameters_elsewhere(),
        }
        for side in built
    }
    for side in built:
        inside, elsewhere = side.parameters_in_networks(), side.parameters_elsewhere()
        print(f"{side.name}: {inside:,} parameters in networks, {elsewhere:,} elsewhere", flush=True)
    if "step" in options.parts:
        timings = measure.time_steps(built, x, options.rounds)
        _add_times(found, timings, len(x), "step", "images_per_s", "ratio")
    if "outside" in options.parts:
        for name, shares in measure.time_shares(built, x, options.rounds).items():
            found[name]["shares"] = shares
    if "memory" in options.parts:
        for side in built:
            arguments = (sides.build, (side.name, architecture), tuple(x.shape), options.threads)
            found[side.name]["peak_bytes"] = in_fresh_process(measure.step_peak, *arguments)
    if "sampling" in options.parts:
        for side in built:
            with torch.no_grad():
                side.loss(side.prepared(x))  # initializes, if no step has
        timings = measure.time_sampling(built, len(x), options.rounds)
        _add_times(found, timings, len(x), "sampling", "sampled_per_s", "sampling_ratio")
    return [Line(name, **values) for name, values in found.items()]


def _add_times(
    found: dict[str, dict[str, object]], timings: dict[str, Timing], batch: int, what: str, speed: str, ratio: str
) -> None:
    for name, again in self_ratios(timings).items():
        found[name][f"{what}_again"] = again
    for name, (images_per_s, against_best) in rates(timings, batch).items():
        found[name] |= {what: timings[name], speed: images_per_s, ratio: against_best}


def images(path: Path | None, shape: tuple[int, int, int], count: int, seed: int) -> Tensor:
    """``(count, C, H, W)`` in [-1/2, 1/2): dequantized images of a file, or noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, *shape, generator=generator)
    if path is None:
        return noise - 0.5
    with numpy.load(path, allow_pickle=False) as file:
        raw = torch.from_numpy(file["images"][:count])
    raw = raw.unsqueeze(-1) if raw.ndim == 3 else raw
    raw = raw.permute(0, 3, 1, 2).float()
    if raw.shape != noise.shape:
        raise ValueError(f"data: got images of shape {tuple(raw.shape)}, expected {tuple(noise.shape)}")
    return (raw + noise) / 256 - 0.5


def _measurable(names: Sequence[str]) -> list[str]:
    kept = []
    for name in dict.fromkeys(names):
        if name not in sides.NAMES:
            raise ValueError(f"side: got {name!r}, expected one of {', '.join(sides.NAMES)}")
        reason = sides.missing(name)
        if reason is None and "bf16" in name and _environment.bf16_unit() is None:
            reason = "not measurable here: this processor multiplies no bfloat16 matrices (no AMX, no AVX512-BF16)"
        if reason is None:
            kept.append(name)
        else:
            print(f"left out {name}: {reason}")
    if not kept:
        raise ValueError("sides: nothing is left to measure")
    return kept


def _publishable(options: argparse.Namespace, names: Sequence[str], checks: dict[str, float]) -> bool:
    """Whether a run is the one that the documents speak of: every part and side, defaults, undisturbed."""
    default = parser().parse_args([])
    fixed = ("shape", "levels", "steps", "hidden", "batch", "threads")
    same = all(getattr(options, key) == getattr(default, key) for key in fixed)
    complete = set(PARTS) <= set(options.parts) and {*sides.PEERS, *OURS} <= set(names)
    return same and complete and all(map(self_check, checks.values()))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _shape(text: str) -> tuple[int, int, int]:
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected three integers: channels,height,width") from None
    return channels, height, width


if __name__ == "__main__":
    sys.exit(main())
