"""What the operators' suites cannot see: that Triton runs, sums in two stages, far offsets, repeatability."""

from __future__ import annotations

import mmap
from unittest import mock

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from hybridkern import ops
from hybridkern.ops import _gpu
from hybridkern.ops._operator import OPERATORS
from hybridkern.ops._triton import pair_tiles, tiles
from hybridkern.ops._triton.layout import order_of, part_of, tile_at
from hybridkern.ops._triton.reduce import column_sums, split_sums
from hybridkern.ops.affine_coupling import triton as affine_coupling
from tests.ops import inputs
from tests.ops.checks import (
    check_coupling,
    check_gaussian,
    check_logistic,
    check_mixture,
    check_paired_conv1x1,
    check_rounding,
)

F32 = torch.float32


def coupling(shape: tuple[int, ...], name: str = "glow") -> dict[str, torch.Tensor]:
    params = inputs.coupling_params(name, shape, F32)
    return {"x": inputs.normal(0, shape, F32), "params": params, "log_det": inputs.normal(2, shape[:1], F32)}


def densities(shape: tuple[int, ...], own: tuple[int, ...], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    args = {"x": inputs.normal(0, shape, F32, scale=2.0)}
    return args | {name: inputs.normal(i, own, F32, scale=0.7) for i, name in enumerate(names, 1)}


def test_triton_is_what_runs(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator of the table reaches its launcher."""
    assert backend == "triton"
    for operator in OPERATORS.values():
        for part in operator.parts if operator.triton else ():
            assert _gpu.launcher(part).__module__ == f"hybridkern.ops.{operator.name}.triton"
    launches = []
    plain = affine_coupling.launch_tiles
    monkeypatch.setattr(affine_coupling, "launch_tiles", lambda *a, **k: (launches.append(a[0]), plain(*a, **k)))
    ops.affine_coupling(torch.zeros(2, 3), torch.zeros(2, 6))
    assert launches == [affine_coupling.forward_kernel]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 threads and no least number of steps: several programs share one example or one column."""
    from hybridkern import _env

    monkeypatch.setattr(_env, "TRITON_WARPS", 1)
    monkeypatch.setattr(tiles, "LEAST", 1)


def test_two_stages(backend: str, small_tiles: None) -> None:
    shape = (2, 2, 9, 11)
    assert tiles.tile_of(2, 198, 4, True).chunks > 1
    check_coupling(coupling(shape), "glow", False)
    check_coupling(coupling(shape, "normflows"), "normflows", True)
    check_rounding({"x": inputs.normal(0, shape, F32).round(), "t": inputs.normal(1, shape, F32, scale=3.0),
                    "beta": torch.tensor([1.75])})  # fmt: skip
    check_logistic(densities(shape, shape, ("mean", "log_scale")), reduction="sum")
    check_gaussian(densities(shape, shape, ("mean", "log_scale")))
    small = (2, 40)
    check_mixture(densities(small, (2, 3, 40), ("logits", "mean", "log_scale")), reduction="sum")


@pytest.fixture
def own_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles that the tables choose, not those of the number of warps that these suites are run with."""
    from hybridkern import _env

    monkeypatch.setattr(_env, "TRITON_WARPS", 0)


# rows, channels, pixels: the warps that the table chooses where an example has a program for itself
@pytest.mark.parametrize(("warps", "shape"), [(4, (3, 4, 100)), (8, (3, 4, 600)), (16, (2, 2, 2100))])
def test_sums_by_programs_of_any_size(backend: str, own_tiles: None, warps: int, shape: tuple[int, ...]) -> None:
    tile = tiles.tile_of(shape[0], shape[1] * shape[2], 4, True)
    assert (tile.warps, tile.chunks) == (warps, 1)
    check_coupling(coupling(shape), "glow", False)
    check_rounding({"x": inputs.normal(0, shape, F32).round(), "t": inputs.normal(1, shape, F32, scale=3.0),
                    "beta": torch.tensor([1.75])})  # fmt: skip
    check_logistic(densities(shape, shape, ("mean", "log_scale")), reduction="sum")
    check_gaussian(densities(shape, shape, ("mean", "log_scale")))


def test_an_example_of_several_large_programs(backend: str, own_tiles: None) -> None:
    shape = (1, 2, 20000)
    tile = tiles.tile_of(1, 40000, 4, True)
    assert (tile.warps, tile.chunks, tile.steps) == (16, 2, 10)
    check_coupling(coupling(shape), "glow", False)


@pytest.mark.parametrize("rows", [40, 200])
def test_sums_down_the_batch_in_several_steps(backend: str, own_tiles: None, rows: int, monkeypatch) -> None:
    monkeypatch.setattr(tiles, "FULL", 64)  # so that few programs are many
    assert tiles.batch_tile_of(rows, 96, 4).steps == (1 if rows == 40 else 3)
    own = (1, 4, 24)
    check_logistic(densities((rows, 4, 24), own, ("mean", "log_scale")))
    check_gaussian(densities((rows, 4, 24), own, ("log_scale",)))
    check_gaussian(densities((rows, 4, 24), own, ("mean", "log_scale")))


@pytest.mark.parametrize("steps", [1, 3])
def test_positions_one_tile_a_program_and_several(backend: str, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(pair_tiles, "FULL", 1056 if steps == 1 else 2)
    half, channels = (5, 3, 64), 6
    assert pair_tiles.mix_tile(channels, 320).steps == pair_tiles.gradient_tile(channels, 320).steps == steps
    args = {"first": inputs.normal(0, half, F32), "second": inputs.normal(1, half, F32)}
    args |= {"weight": inputs.normal(2, (channels, channels), F32), "bias": inputs.normal(3, (channels,), F32)}
    check_paired_conv1x1(args)


@pytest.mark.parametrize("chunks", [1, 5, 64, 200])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_of_columns_in_one_launch(backend: str, chunks: int, count: int) -> None:
    """Several matrices of partial sums, more rows than a program reads at once, columns over several programs."""
    partial = inputs.normal(0, (count, chunks, 70), F32)
    outs = [torch.empty(1, 7, 10) for _ in range(count)]
    column_sums(partial, outs, order_of(outs[0]))
    for out, expected in zip(outs, partial.double().sum(1), strict=True):
        assert torch.allclose(out.flatten().double(), expected, rtol=0, atol=1e-6 * chunks)
    first, second = torch.empty(50), torch.empty(20)
    split_sums(partial[0], first, second)
    assert torch.equal(torch.cat((first, second)), outs[0].flatten())


@pytest.mark.parametrize("rows", [2, 21])
def test_parameters_shared_by_the_batch(backend: str, small_tiles: None, rows: int) -> None:
    shape = (rows, 5, 9)
    check_logistic(densities(shape, (1, 5, 9), ("mean", "log_scale")))
    check_gaussian(densities(shape, (1, 5, 9), ("mean", "log_scale")))
    check_gaussian(densities(shape, (1, 5, 9), ("log_scale",)))
    check_mixture(densities(shape, (1, 3, 5, 9), ("logits", "mean", "log_scale")), reduction="sum")
    channels_last = densities((rows, 3, 4, 2), (1, 3, 4, 2), ("mean", "log_scale"))
    channels_last["x"] = channels_last["x"].contiguous(memory_format=torch.channels_last)
    check_logistic(channels_last, reduction="sum")


@pytest.mark.parametrize("components", [1, 2, 3, 9, 17])
def test_any_number_of_components(backend: str, components: int) -> None:
    names = ("logits", "mean", "log_scale")
    check_mixture(densities((2, 3, 5), (2, components, 3, 5), names))


def test_matrix_of_several_blocks(backend: str) -> None:
    """More channels than a program sums at once, and than it holds the matrix of."""
    half, channels = (2, 130, 3), 260
    args = {"first": inputs.normal(0, half, F32), "second": inputs.normal(1, half, F32)}
    args |= {"weight": inputs.normal(2, (channels, channels), F32), "bias": inputs.normal(3, (channels,), F32)}
    check_paired_conv1x1(args)


def test_offsets_beyond_31_bits(backend: str) -> None:
    """Examples, and channels within an example, further apart than 2**31 elements; the memory between is untouched."""
    far = 2**31 + 64
    # not from malloc, which these tests make write to what it hands out
    pages = mmap.mmap(-1, 2 * (2 * far + 64), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    storage = torch.frombuffer(pages, dtype=torch.bfloat16)
    for shape, stride in (((2, 2, 3), (far, 3, 1)), ((1, 2, 3), (2 * far, far, 1))):
        t = storage.as_strided(shape, stride)
        t.copy_(inputs.normal(0, shape, torch.bfloat16))
        x = inputs.normal(1, shape, F32)
        y, _ = ops.affine_coupling(x, t, form="additive")
        assert torch.equal(y, x + t.float())
        got = ops.rounding_coupling(x, t)
        assert torch.equal(got, x + t.float().round())


def test_parts_of_parameters_beyond_31_bits(backend: str) -> None:
    """Where the shifts start, and an offset in them, each of which fits into 31 bits, and their sum, which does not."""
    apart = 2**30 - 2**26
    pages = mmap.mmap(-1, 8 * apart, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    params = torch.frombuffer(pages, dtype=torch.bfloat16).as_strided((1, 4, 1), (4 * apart, apart, 1))
    args = coupling((1, 2, 1))
    params.copy_(args["params"])
    given = params.clone(memory_format=torch.contiguous_format)
    for form in ("glow", "freia"):  # halves, in either order
        y, log_det = ops.affine_coupling(args["x"], params, form=form)
        expected, wanted = ops.affine_coupling(args["x"], given, form=form)
        assert torch.equal(y, expected) and torch.equal(log_det, wanted)


def test_channels_of_a_network_beyond_31_bits(backend: str) -> None:
    """The input and the gradient as channels of far apart, the rest as it is."""
    apart = 2**30 + 2**27
    network = [torch.randn(size) for size in ((5, 3, 3, 3), (5,), (5, 5, 1, 1), (5,), (3, 5, 3, 3), (3,))]
    given = [torch.randn(1, 3, 2, 4) for _ in range(2)]
    far = []
    for value in given:
        pages = mmap.mmap(-1, 4 * (2 * apart + 8), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        far.append(torch.frombuffer(pages, dtype=F32).as_strided((1, 3, 2, 4), (3 * apart, apart, 4, 1)).copy_(value))
    forward, backward = (getattr(torch.ops.hybridkern, f"coupling_network_{part}") for part in ("forward", "backward"))
    params, *hidden = forward(far[0], *network, False, True)
    expected, *_ = forward(given[0], *network, False, True)
    assert torch.equal(params, expected)
    found = backward(far[1], far[0], *network, *hidden, False, True)
    assert all(map(torch.equal, found, backward(given[1], given[0], *network, *hidden, False, True)))


@triton.jit
def _numbers_kernel(
    rows, columns, SHARED: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, tile
):
    example, chunk = part_of(3, WIDE, ROWS)
    tl.store(rows + tl.arange(0, ROWS), example.to(tl.int64))
    tl.store(rows + ROWS, chunk.to(tl.int64))
    row, column, _, _ = tile_at(tile, tile, 2**40, 2**40, SHARED, WIDE, ROWS, COLUMNS)
    tl.store(columns + tl.arange(0, COLUMNS), tl.sum(tl.where(row == tl.min(row), column.to(tl.int64), 0), axis=0))
    tl.store(columns + COLUMNS, tl.min(row))


@pytest.mark.parametrize("shared", [False, True])
def test_numbers_beyond_31_bits(backend: str, shared: bool) -> None:
    """Of programs and steps that no test can wait for."""
    program, tile = 3 * 2**29 + 2, 2**28 + 1
    rows, columns = torch.zeros(9, dtype=torch.int64), torch.zeros(17, dtype=torch.int64)
    found = interpreter.TensorHandle(np.array([program], np.int32), tl.int32)
    with mock.patch.object(interpreter.InterpreterBuilder, "create_get_program_id", return_value=found):
        _numbers_kernel[(1,)](rows, columns, SHARED=shared, WIDE=True, ROWS=8, COLUMNS=16, tile=tile)
    first = program // 3 * 8
    assert first > 2**31 and rows.tolist() == [*range(first, first + 8), 2]
    assert columns.tolist() == [*range(16 * tile, 16 * tile + 16), 8 * tile]


def test_registered_operators_read_any_layout(backend: str) -> None:
    """As the compiled ones: what the public functions make contiguous may come otherwise."""
    x, weight, bias = torch.randn(2, 3, 4), torch.randn(6, 6), torch.randn(12)[::2]
    for part, given in (("forward", (x, -x)), ("backward", (x, -x, x + 1, x))):
        operator = getattr(torch.ops.hybridkern, f"paired_conv1x1_{part}")
        rest = (bias,) if part == "forward" else ()
        found = operator(*given, weight.t(), *rest)
        expected = operator(*given, weight.t().contiguous(), *(value.contiguous() for value in rest))
        assert all(map(torch.equal, found, expected)) and all(value.is_contiguous() for value in found)


def test_hidden_activations_in_any_layout(backend: str) -> None:
    x, w1, b1 = torch.randn(1, 2, 4, 8), torch.randn(5, 2, 3, 3), torch.randn(5)
    network = (w1, b1, torch.randn(5, 5, 1, 1), b1, torch.randn(2, 5, 3, 3), torch.randn(2))
    params, *hidden = torch.ops.hybridkern.coupling_network_forward(x, *network, False, True)
    apart = [torch.cat((value, torch.full_like(value, torch.nan)), 2)[..., : value.shape[2]] for value in hidden]
    backward = torch.ops.hybridkern.coupling_network_backward
    expected = backward(params, x, *network, *hidden, False, True)
    assert all(map(torch.equal, backward(params, x, *network, *apart, False, True), expected))


def test_registered_operators_refuse_what_the_compiled_ones_refuse(backend: str) -> None:
    x, freed = torch.ones(3, 4), torch.ones(3, 4)
    freed.untyped_storage().resize_(8)
    operators = torch.ops.hybridkern
    with pytest.raises(ValueError, match="t: got a storage of 8 bytes, expected 48 bytes"):
        operators.rounding_coupling_forward(x, freed, None, False)
    with pytest.raises(ValueError, match="log_scale: got a storage of 8 bytes, expected 48 bytes"):
        operators.gaussian_log_prob_forward(x, None, log_scale=freed)
    for width in (0.0, -1.0, float("nan"), 1e7):
        with pytest.raises(ValueError, match=r"bin_width: got .*, expected a number from 1e-06 to 1e\+06"):
            operators.discretized_logistic_forward(x, x, x, width, True)
        with pytest.raises(ValueError, match=r"bin_width: got .*, expected"):
            operators.discretized_logistic_mixture_backward(x, x, *[x[:, None]] * 3, width, False)


def test_what_only_the_backward_pass_asks_for(backend: str) -> None:
    x, one, point = torch.ones(2, 1, 4, 4), torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
    network = (one, torch.ones(1), point, torch.ones(1), one, torch.ones(1))
    params, *hidden = torch.ops.hybridkern.coupling_network_forward(x, *network, False, True)
    for wrong in (torch.float64, torch.bfloat16):
        with pytest.raises(TypeError, match=rf"hidden2: got dtype {wrong}, expected torch.float32, as forward made it"):
            torch.ops.hybridkern.coupling_network_backward(
                params, x, *network, hidden[0], hidden[1].to(wrong), False, True
            )
    with pytest.raises(TypeError, match=r"beta: got NoneType, expected a torch\.Tensor"):
        torch.ops.hybridkern.rounding_coupling_backward(x, x, None, False)


def test_negated_views_past_the_dispatcher(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the CUDA library serves an operator, Triton's kernels are called without the dispatcher, which negates."""
    operator = OPERATORS["rounding_coupling"]
    monkeypatch.setattr(_gpu.state, "native", frozenset({operator.name}))
    x = torch.randn(3, 4) * 3
    negated = torch._neg_view(-x)
    assert negated.is_neg() and torch.equal(negated, x)
    found = _gpu.run(operator, "forward", "triton", negated, negated, None, False)
    assert torch.equal(found, x + x.round())
    assert torch.equal(_gpu.runner(operator, "forward")("triton", x, negated, None, True), x - x.round())


def test_same_bits_each_time(backend: str) -> None:
    args = coupling((5, 3, 7, 9))
    first, second = (ops.affine_coupling(**args, form="glow") for _ in range(2))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True))
