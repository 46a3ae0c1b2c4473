"""The committed page agrees with the kernels, in its cheap columns; ``--update`` writes all of it."""

from __future__ import annotations

from tests.evidence.toolchain import require_nvcc, require_triton

require_triton(module=True)

from tests.evidence import table  # noqa: E402


def test_the_page_states_the_launches_of_today():
    assert table.launch_rows() in table.PAGE.read_text(encoding="utf-8"), "run python -m tests.evidence.table --update"


def test_the_page_states_what_a_flow_step_launches_and_moves_with_its_network():
    flow, _ = table.step_launches(table.ours, table.HALF)
    found = table.network.summary(flow)
    assert found in table.PAGE.read_text(encoding="utf-8"), "run python -m tests.evidence.table --update"


def test_the_page_states_the_cuda_kernels_of_today():
    require_nvcc()
    from tests.evidence.cuda_table import MAIN as CUDA
    from tests.evidence.cuda_table import rows_of

    page = table.PAGE.read_text(encoding="utf-8")
    for row in rows_of(CUDA[0]):
        assert row in page, "run python -m tests.evidence.table --update"


def test_the_page_says_what_is_not_shown():
    assert "What is **not** shown: time" in table.PAGE.read_text(encoding="utf-8")


def test_a_page_is_written_whole(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("old")
    table.write("new\n", page)
    assert page.read_text() == "new\n" and list(tmp_path.iterdir()) == [page]
