"""The benchmark code runs, on tiny shapes and without a word on time; the tables in docs/ are those of the results."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import (
    _environment,
    _markdown,
    _measure,
    adamax,
    affine_coupling,
    affine_coupling_actnorm,
    coupling_network,
    digits_tutorial,
    discretized_logistic,
    discretized_logistic_mixture,
    gaussian_log_prob,
    headline,
    operator_table,
    paired_conv1x1,
    plot,
    rational_quadratic_spline,
    rounding_coupling,
    table,
)
from benchmarks._case import Case, Sides, operator_case
from benchmarks._results import AGAIN, COMPILED, EAGER, FLOOR, OURS, RESULTS, Row, read_rows, write_rows
from benchmarks.cases import by_file
from benchmarks.conftest import doubt
from benchmarks.test_cases import make_rows
from hybridkern.ops._operator import OPERATORS

WORKS = {
    "affine_coupling": partial(affine_coupling.work, 2, 3, 2, 2),
    "rounding_coupling": partial(rounding_coupling.work, 2, 3, 2, 2),
    "discretized_logistic": partial(discretized_logistic.work, 3, 5),
    "discretized_logistic_mixture": partial(discretized_logistic_mixture.work, 3, 5, 2),
    "coupling_network": partial(coupling_network.work, 2, 3, False),
    "gaussian_log_prob": partial(gaussian_log_prob.work, 3, 5),
    "affine_coupling_actnorm": partial(affine_coupling_actnorm.work, 3, 5),
    "paired_conv1x1": partial(paired_conv1x1.work, 2, 3, 2, 2),
}
ROW = Row(
    "some work", OURS, "10.00", "9.00", "11.00", "41", "1.000", "", "", "2", "a CPU", "avx2", "2.13", "2026-01-01"
)
ROWS = [
    ROW,
    replace(ROW, side=AGAIN, ratio_to_ours="1.010"),
    replace(ROW, side=EAGER, ratio_to_ours="3.400", target="3.5"),
    replace(ROW, side=COMPILED, ratio_to_ours="2.100", target="2.0"),
    replace(ROW, side=FLOOR, ratio_to_ours="0.800"),
    replace(ROW, benchmark="other work", median_us="1500"),
    replace(ROW, benchmark="other work", side=AGAIN, ratio_to_ours="1.200"),
]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", WORKS)
def test_operators_agree_with_their_formulas(name: str, backward: bool) -> None:
    case = operator_case(name, WORKS[name], eager=1, backward=backward, floor=True, compile_formula=False)
    sides = case.build()
    assert set(sides.run) == {OURS, AGAIN, EAGER, FLOOR}
    sides.check()


@pytest.mark.parametrize("backward", [False, True])
def test_splines_agree_with_nflows_and_the_formula_that_is_compiled(backward: bool) -> None:
    pytest.importorskip("nflows")
    sides = rational_quadratic_spline.case(5, 3, eager=1, compiled=1, backward=backward, compile_formula=False).build()
    assert set(sides.run) == {OURS, AGAIN, EAGER}
    sides.check()
    x, params = torch.randn(5, 3), torch.randn(5, 3, 23)
    torch.testing.assert_close(
        rational_quadratic_spline.formula(x, params), rational_quadratic_spline.library(x, params), rtol=1e-4, atol=1e-4
    )


def test_steps_agree_with_adamax() -> None:
    adamax.case(3, 4, 5, target=1).build().check()


def test_every_operator_with_kernels_has_a_row() -> None:
    measured = {case.name.split()[0] for cases in by_file().values() for case in cases}
    with_kernels = {name for name, operator in OPERATORS.items() if operator.schemas}
    # HybridIDF's own, which the steps of the tutorial measure
    assert with_kernels - measured == {"rounding_coupling_mirrored"}


def test_floor_moves_the_bytes_of_the_forward() -> None:
    case = operator_case(
        "glow", partial(affine_coupling.work, 256, 6, 1, 2), eager=1, backward=False, floor=True, compile_formula=False
    )
    sides = case.build()
    assert sides.traffic == 4 * (256 * 12 * (1 + 2 + 1) + 256)  # x, parameters, y, log-determinants
    (added,) = sides.run[FLOOR]()
    assert abs(3 * 4 * added.numel() - sides.traffic) < 12


@pytest.mark.parametrize("lattice", ["tutorial", "exact"])
def test_digits_agree_with_the_tutorial(lattice: str) -> None:
    digits_tutorial.without_networks(lattice, target=1, batch=3, dim=6).build().check()


@pytest.mark.parametrize("lattice", ["tutorial", "exact"])
def test_training_steps_agree_with_the_tutorial(lattice: str) -> None:
    digits_tutorial.training_step(lattice, target=1, batch=16).build().check()


def test_disagreement_is_an_error() -> None:
    sides = Sides({OURS: lambda: (torch.ones(3),), EAGER: lambda: (torch.tensor([1.0, 1.0, 1.2]),)})
    with pytest.raises(AssertionError, match="result 0 of 'eager'"):
        sides.check()
    with pytest.raises(AssertionError, match="result 0 of 'eager'"):
        replace(sides, run={OURS: sides.run[OURS], EAGER: lambda: (torch.full((3,), torch.nan),)}).check()


def test_sides_are_timed_in_turn() -> None:
    called: list[str] = []
    sides = {name: partial(called.append, name) for name in ("a", "b", "c")}
    timings = _measure.interleave(sides, rounds=15, seconds=0.0)
    assert all(timing.rounds == 15 and timing.q1 <= timing.median <= timing.q3 for timing in timings.values())
    in_rounds = called[-3 * 15 * 2 :]  # once untimed and once timed
    assert all(len(set(in_rounds[i : i + 6])) == 3 for i in range(0, len(in_rounds), 6))
    with pytest.raises(ValueError, match="rounds: got 14"):
        _measure.interleave(sides, rounds=14)


def test_refusal_says_how_to_start() -> None:
    reason = _environment.refusal({"MALLOC_TOP_PAD_": "1"})
    assert reason is not None and "MALLOC_MMAP_THRESHOLD_" in reason and "make bench" in reason


def test_rows_survive_the_file(tmp_path: Path) -> None:
    case = Case("some, work", dict, {EAGER: 3.5})
    timings = {side: _measure.Timing(2e-3, 1e-3, 3e-3, 41, 7) for side in (OURS, EAGER, FLOOR)}
    rows = make_rows(case, timings, traffic=1000)
    write_rows(tmp_path / "results" / "r.csv", rows)
    assert read_rows(tmp_path / "results" / "r.csv") == rows
    assert [row.target for row in rows] == ["", "3.5", ""] and rows[2].bytes_per_s == "5e+05"
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["r.csv"]


def test_table_says_what_was_missed() -> None:
    text = operator_table.render(ROWS)
    assert "| some work | 10 us | 3.40x (target 3.5x, **missed**) | 2.10x (target 2.0x) | 0.80 |" in text
    assert "| other work | 1.5 ms |  |  |  |" in text and "DISTURBED, not to be used: other work" in text
    assert "Targets met: 1 of 2" in text
    assert "torch.compile" not in operator_table.render([row for row in ROWS if row.side != COMPILED])


def test_only_a_whole_run_that_held_is_published() -> None:
    held = [row for row in ROWS if row.benchmark == "some work"]
    assert doubt(held, {"some work"}) is None
    assert doubt(held, {"some work", "other work"}) == "not all benchmarks were run"
    assert doubt(ROWS, {"some work", "other work"}) == "not all benchmarks held"


def test_a_page_is_changed_between_its_comments_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    other = "<!-- bench:b -->\nkept\n<!-- /bench:b -->\nafter\n"
    readme.write_text("before\n<!-- bench:a -->\nold\n<!-- /bench:a -->\n" + other, encoding="utf-8")
    _markdown.replace_block(readme, "a", r"new \1")
    text = readme.read_text(encoding="utf-8")
    assert text == "before\n<!-- bench:a -->\nnew \\1\n<!-- /bench:a -->\n" + other
    assert (_markdown.block_of(text, "a"), _markdown.block_of(text, "b")) == (r"new \1", "kept")
    with pytest.raises(ValueError, match="'<!-- bench:c -->'"):
        _markdown.block_of(text, "c")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_picture_is_drawn(tmp_path: Path) -> None:
    plot.save(plot.draw(ROWS), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shown", table.TABLES, ids=lambda shown: shown.name)
def test_the_documentation_shows_the_results(shown: table.Table) -> None:
    pages = shown.pages()
    assert table.PAGE in pages and "target" not in pages[table.PAGE].lower()
    for page, text in pages.items():
        assert _markdown.block_of(page.read_text(encoding="utf-8"), shown.name) == text


def test_the_readme_shows_the_headline() -> None:
    readme = table.README.read_text(encoding="utf-8")
    shown = headline.render()
    assert _markdown.block_of(readme, headline.NAME) == shown and len(shown.splitlines()) == 7
    assert headline._IMAGES.split("|")[2].strip() in shown


def test_a_headline_of_nothing_measured(tmp_path: Path) -> None:
    assert len(headline.render(tmp_path).splitlines()) == 3


@pytest.mark.parametrize("file", by_file())
def test_results_are_those_of_the_cases(file: str) -> None:
    if not (RESULTS / file).exists():
        assert "Not measured yet" in table.PAGE.read_text(encoding="utf-8")
        return
    rows, cases = read_rows(RESULTS / file), by_file()[file]
    assert {row.benchmark for row in rows} == {case.name for case in cases}
    targets = {(case.name, side): str(ratio) for case in cases for side, ratio in case.targets.items()}
    assert {(row.benchmark, row.side): row.target for row in rows if row.target} == targets
    medians = {row.benchmark: float(row.median_us) for row in rows if row.side == OURS}
    for row in rows:
        assert float(row.ratio_to_ours) == pytest.approx(float(row.median_us) / medians[row.benchmark], rel=2e-3)
        assert int(row.rounds) >= _measure.LEAST_ROUNDS
        assert row.side != AGAIN or _measure.self_check(float(row.ratio_to_ours))
