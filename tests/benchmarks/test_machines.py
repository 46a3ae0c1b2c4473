"""The page of other machines is that of the results kept of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks import machines
from benchmarks._results import OPERATORS, write_csv


def test_page_shows_what_was_kept() -> None:
    assert machines.PAGE.read_text(encoding="utf-8") == machines.render()


def test_a_machine_has_the_tables_that_were_measured_on_it(tmp_path: Path) -> None:
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
    write_csv(tmp_path / "first" / OPERATORS, machines_rows())
    text = machines.render(tmp_path)
    assert text.index("## first") < text.index("### Operators") < text.index("## second")
    assert text.count("### ") == 1 and "a processor (3 cores)" in text


def machines_rows() -> list[dict[str, str]]:
    """One benchmark of a processor of its own."""
    row = dict.fromkeys(
        ("benchmark", "side", "median_us", "q1_us", "q3_us", "rounds", "ratio_to_ours", "bytes_per_s", "target"), ""
    )
    conditions = {"date": "today", "threads": "2", "cpu": "a processor (3 cores)", "instruction_set": "avx2"} | {
        "torch": "2"
    }
    sides = {"ours": "1.000", "ours again": "1.010", "eager": "2.000"}
    figures = {"benchmark": "some work", "median_us": "10", "q1_us": "9", "q3_us": "11", "rounds": "41"}
    return [row | figures | {"side": side, "ratio_to_ours": ratio} | conditions for side, ratio in sides.items()]
