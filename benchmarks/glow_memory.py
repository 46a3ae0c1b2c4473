"""Peak activation memory and time of a forward and backward pass of Glow, by memory mode and beside normflows.

    python -m benchmarks.glow_memory                             # all of it
    python -m benchmarks.glow_memory --parts peak --steps 4      # a part; the rest another time
    python -m benchmarks.glow_memory --size 32 --steps 2,4 --time-steps 2 --peer-steps 2 --hidden 16

Every figure goes into ``.bench/glow-memory.csv`` as soon as it is there, and what is there for the same settings and
machine is not measured again: a run that was stopped goes on. Once every figure of the default settings is there, they
become ``benchmarks/results/glow-memory.csv``. Peaks come from a fresh process each; ``glow/allocations.py`` says what
is counted. Times are those of all memory modes in turn, in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from benchmarks import _environment
from benchmarks._measure import LEAST_ROUNDS, Timing, interleave, self_check
from benchmarks._results import RESULTS, UNVERIFIED, Record, read_csv, write_csv
from benchmarks.glow import memory_table, sides
from benchmarks.glow.allocations import initialized, pass_of, pass_peak
from benchmarks.glow.memory import in_fresh_process
from benchmarks.glow.memory_table import AGAIN
from benchmarks.glow.ours import MEMORY
from benchmarks.glow.side import Architecture

PEER = "normflows"
PARTS = ("peak", "time")
PARTIAL = UNVERIFIED / memory_table.FILE
_ATTEMPTS = 3
_SETTINGS = ("threads", "cpu", "instruction_set", "torch", "shape", "levels", "hidden", "batch", "precision")


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.glow_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--parts", type=_names, default=list(PARTS), help=f"what to measure: {','.join(PARTS)}")
    add("--sides", type=_names, default=[*MEMORY, PEER], help=f"some of {','.join([*MEMORY, PEER])}")
    add("--steps", type=_numbers, default=[4, 32, 64], help="steps a level of the peaks (default 4,32,64)")
    add("--peer-steps", type=_numbers, default=[32], help=f"the same for {PEER} (default 32)")
    add("--time-steps", type=_numbers, default=[32], help="steps a level of the times (default 32)")
    add("--size", type=int, default=256, help="pixels of a side of the images (default 256)")
    add("--levels", type=int, default=3, help="default 3")
    add("--hidden", type=int, default=256, help="channels in the networks (default 256)")
    add("--batch", type=int, default=1, help="images (default 1)")
    add("--rounds", type=int, default=LEAST_ROUNDS, help=f"interleaved rounds, at least {LEAST_ROUNDS}")
    add("--bf16", action="store_true", help="under torch.autocast('cpu', torch.bfloat16)")
    add("--again", action="store_true", help="measure anew what is there from a run that was stopped")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = parser()
    options = command.parse_args(arguments)
    for name, known in (("parts", PARTS), ("sides", (*MEMORY, PEER))):
        if unknown := set(getattr(options, name)) - set(known):
            command.error(f"{name}: got {', '.join(sorted(unknown))}, expected some of {', '.join(known)}")
    if options.rounds < LEAST_ROUNDS:
        command.error(f"rounds: got {options.rounds}, expected at least {LEAST_ROUNDS}")
    if PEER in options.sides and (reason := sides.missing(PEER)):
        command.error(f"sides: {PEER} cannot be measured: {reason}; pip install '.[peers]', or leave it out")
    _environment.with_allocator_settings("benchmarks.glow_memory", arguments)
    torch.set_num_threads(_environment.THREADS)
    records = _measure_missing(options)
    print(memory_table.render(records))
    print(f"results: {_publish(options, records)}")
    checks = [memory_table.self_check_of(records, n) for n in options.time_steps]
    return 0 if all(self_check(ratio) for ratio in checks if ratio is not None) else 1


def plan(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """``(kind, side, steps)`` of every figure that is wanted."""
    wanted = []
    if "peak" in options.parts:
        ours = [side for side in options.sides if side != PEER]
        wanted += [("peak", side, steps) for steps in options.steps for side in ours]
        wanted += [("peak", PEER, steps) for steps in options.peer_steps if PEER in options.sides]
    if "time" in options.parts:
        wanted += [("time", side, steps) for steps in options.time_steps for side in (*MEMORY, AGAIN)]
    return wanted


def _key(record: Record) -> tuple[str, str, int]:
    return record["kind"], record["side"], int(record["steps"])


def settings(options: argparse.Namespace) -> Record:
    """What the figures of one table have in common, and the date."""
    shape = f"3x{options.size}x{options.size}"
    chosen = {name: str(getattr(options, name)) for name in ("levels", "hidden", "batch")}
    precision = "bfloat16" if options.bf16 else "float32"
    return {**_environment.conditions(), "shape": shape, **chosen, "precision": precision}


def _measure_missing(options: argparse.Namespace) -> list[Record]:
    """All records of these settings, in the order of the plan; what is missing is measured and kept at once."""
    conditions, wanted = settings(options), plan(options)
    kept = read_csv(PARTIAL) if PARTIAL.exists() else []
    same = [record for record in kept if all(record[name] == conditions[name] for name in _SETTINGS)]
    other = [record for record in kept if record not in same]
    anew = [item for item in wanted if options.again or _disturbed(same, item)]
    found = {_key(record): record for record in same if _key(record) not in anew}
    missing = [item for item in wanted if item not in found]
    for measured in _measured(options, missing):
        for values in measured:
            record = {**values, **conditions}
            found[_key(record)] = record
            print({name: value for name, value in values.items() if value}, flush=True)
        write_csv(PARTIAL, [*other, *found.values()])
    order = {item: place for place, item in enumerate(plan(parser().parse_args([])))}
    return sorted(found.values(), key=lambda record: order.get(_key(record), len(order)))


def _disturbed(records: Sequence[Record], item: tuple[str, str, int]) -> bool:
    kind, _, steps = item
    ratio = memory_table.self_check_of(records, steps) if kind == "time" else None
    return ratio is not None and not self_check(ratio)


def _measured(options: argparse.Namespace, missing: Sequence[tuple[str, str, int]]) -> Iterator[list[Record]]:
    for kind, side, steps in missing:
        if kind == "peak":
            architecture = Architecture((3, options.size, options.size), options.levels, steps, options.hidden)
            arguments = (_name(side, options.bf16), architecture, options.batch, torch.get_num_threads())
            yield [_record("peak", side, steps, peak=in_fresh_process(pass_peak, *arguments))]
    for steps in dict.fromkeys(steps for kind, _, steps in missing if kind == "time"):
        timings = _times(options, steps)
        yield [_record("time", side, steps, timing=timing) for side, timing in timings.items()]


def _times(options: argparse.Namespace, steps: int) -> dict[str, Timing]:
    architecture = Architecture((3, options.size, options.size), options.levels, steps, options.hidden)
    x = torch.rand(options.batch, *architecture.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    run = {side: pass_of(initialized(_name(side, options.bf16), architecture, x), x) for side in MEMORY}
    for _ in range(_ATTEMPTS):
        timings = interleave(run | {AGAIN: run["store"]}, rounds=options.rounds, seconds=0.0, settle=False)
        if self_check(timings[AGAIN].median / timings["store"].median):
            break
    return timings


def _name(side: str, bf16: bool) -> str:
    library = PEER if side == PEER else "ours"
    mode = f"-{side}" if side in MEMORY[1:] else ""
    return f"{library}{'-bf16' if bf16 else ''}{mode}"


def _record(kind: str, side: str, steps: int, *, peak: int | None = None, timing: Timing | None = None) -> Record:
    values = {
        "kind": kind,
        "side": side,
        "steps": steps,
        "peak_bytes": peak,
        "median_s": timing and timing.median,
        "q1_s": timing and timing.q1,
        "q3_s": timing and timing.q3,
        "rounds": timing and timing.rounds,
    }
    return {name: "" if found is None else str(found) for name, found in values.items()}


def _publish(options: argparse.Namespace, records: Sequence[Record]) -> str:
    """Moves a whole set of figures of the default settings, undisturbed, to where the documents find it."""
    default = parser().parse_args([])
    wanted = plan(default)
    same = settings(default) == settings(options)
    checks = [memory_table.self_check_of(records, steps) for steps in default.time_steps]
    whole = {_key(record) for record in records} >= set(wanted)
    if not (same and whole and all(ratio is not None and self_check(ratio) for ratio in checks)):
        return f"{PARTIAL} (not the whole run of the default settings: the published results stay as they were)"
    write_csv(RESULTS / memory_table.FILE, [record for record in records if _key(record) in wanted])
    rest = [record for record in read_csv(PARTIAL) if record not in records]
    if rest:
        write_csv(PARTIAL, rest)
    else:
        PARTIAL.unlink()
    return str(RESULTS / memory_table.FILE)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0]
    if not all(number > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected positive integers, separated by commas")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
