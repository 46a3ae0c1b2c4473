"""The outcome of a comparison: records for the file, a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE, self_check
from benchmarks._results import Record
from benchmarks.compare.session import AGAIN, BASE, HEAD, Found

_FIGURES = ("base_us", "base_q1_us", "base_q3_us", "head_us", "head_q1_us", "head_q3_us", "rounds")
_RATIOS = ("ratio", "ratio_q1", "ratio_q3", "self_ratio")
_HEADER = ("work", "base", "head", "base / head", "quartiles", "head / head")


def record_of(case: str, found: Found, conditions: Mapping[str, str]) -> Record:
    """Medians and quartiles of both sides, their ratio, that of the head against itself, and the conditions."""
    values: dict[str, str] = dict.fromkeys((*_FIGURES, *_RATIOS), "")
    if not found.problem:
        for side in (BASE, HEAD):
            quartiles = statistics.quantiles(found.times[side], n=4, method="inclusive")
            names = (f"{side}_q1_us", f"{side}_us", f"{side}_q3_us")
            values |= {name: f"{1e6 * value:.2f}" for name, value in zip(names, quartiles, strict=True)}
        ratios = (found.ratio(), *found.ratio_quartiles(), found.ratio(AGAIN))
        values |= {name: f"{value:.3f}" for name, value in zip(_RATIOS, ratios, strict=True)}
        values["rounds"] = str(len(found.times[HEAD]))
    return {"benchmark": case, **values, "problem": found.problem, **conditions}


def disturbed(records: Sequence[Record]) -> list[str]:
    """The cases in which the head did not come out equal to itself."""
    measured = [record for record in records if record["self_ratio"]]
    return [record["benchmark"] for record in measured if not self_check(float(record["self_ratio"]))]


def render(records: Sequence[Record]) -> str:
    """The table in Markdown and, under it, the conditions."""
    first = records[0]
    rounds = max(int(record["rounds"] or 0) for record in records)
    lines = [
        _markdown.table(_HEADER, map(_cells, records)),
        "",
        f"base: {first['base']}; head: {first['head']}. {first['cpu']}, {first['threads']} threads, kernels in "
        f"{first['instruction_set']}, torch {first['torch']}, {first['date']}.",
        f"Medians of {rounds} rounds, processes in turn; a ratio above 1 means that the head is faster. Head against "
        f"head, in two processes, must be 1 +- {SELF_TOLERANCE:.2f}.",
    ]
    lines += [f"{record['benchmark']}: {record['problem']}" for record in records if record["problem"]]
    unsure = disturbed(records)
    return "\n".join([*lines, *([f"DISTURBED, not to be used: {'; '.join(unsure)}."] if unsure else [])])


def _cells(record: Record) -> list[str]:
    if record["problem"]:
        return [record["benchmark"], "", "", "not comparable", "", ""]
    return [
        record["benchmark"],
        _markdown.time_cell(record["base_us"]),
        _markdown.time_cell(record["head_us"]),
        f"{float(record['ratio']):.2f}",
        f"{float(record['ratio_q1']):.2f} to {float(record['ratio_q3']):.2f}",
        f"{float(record['self_ratio']):.2f}",
    ]
