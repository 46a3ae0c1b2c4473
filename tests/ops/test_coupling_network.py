"""The convolutional coupling network: against float64, layouts, sizes, instruction sets, recomputation, autograd."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import hybridkern
from hybridkern import ops
from tests._tolerances import to_numpy
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.samples import assert_same_bits

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
NAMES = ("x", "w1", "b1", "w2", "b2", "w3", "b3")
# batch, in, height, width, hidden, out: one pixel; odd; whole examples in a slice; several; bands; rows beyond a slice;
# slices that are alike but for the last, with a third of a block
SIZES = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 4, 5, 7, 5),
    (3, 6, 16, 16, 64, 12),
    (20, 4, 3, 3, 40, 8),
    (2, 3, 40, 33, 33, 6),
    (1, 2, 3, 300, 40, 4),
    (2, 32, 9, 3, 32, 32),
    (10, 2, 6, 12, 33, 4),
]


def arguments(size: tuple[int, ...], dtype: torch.dtype = F32) -> dict[str, Tensor]:
    """Arguments of a network whose activations are of order one."""
    batch, channels, height, width, hidden, out = size
    shapes = [(batch, channels, height, width), (hidden, channels, 3, 3), (hidden,), (hidden, hidden, 1, 1), (hidden,)]
    shapes += [(out, hidden, 3, 3), (out,)]
    scales = (1.0, (9 * channels) ** -0.5, 0.3, hidden**-0.5, 0.3, (9 * hidden) ** -0.5, 1.0)
    drawn = zip(NAMES, shapes, scales, strict=True)
    return {name: inputs.normal(i, shape, dtype, scale) for i, (name, shape, scale) in enumerate(drawn)}


def run(args: dict[str, Tensor], grad: Tensor, bf16: bool = False, save: bool = True) -> dict[str, Tensor]:
    """Output and gradients."""
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    with torch.autocast("cpu", BF16, enabled=bf16):
        y = ops.coupling_network(**leaves, save_hidden=save)
    y.backward(grad)
    return {"params": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}


def low(value: np.ndarray, bf16: bool) -> np.ndarray:
    """Rounded to bfloat16, as float64 numbers."""
    return torch.from_numpy(value.copy()).float().to(BF16).double().numpy() if bf16 else value


def spread(image: np.ndarray) -> np.ndarray:
    """``(B, C, H, W)`` to ``(B, H, W, 9, C)``: the nine neighbours of each pixel, row by row."""
    _, _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = [padded[:, :, dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    return np.stack(parts, axis=-1).transpose(0, 2, 3, 4, 1)


def collect(parts: np.ndarray) -> np.ndarray:
    """The transpose of :func:`spread`."""
    batch, height, width, _, channels = parts.shape
    padded = np.zeros((batch, channels, height + 2, width + 2))
    for tap in range(9):
        dy, dx = divmod(tap, 3)
        padded[:, :, dy : dy + height, dx : dx + width] += parts[:, :, :, tap].transpose(0, 3, 1, 2)
    return padded[:, :, 1:-1, 1:-1]


def oracle(args: dict[str, Tensor], grad: Tensor, bf16: bool, hidden: list[np.ndarray] | None = None):
    """Float64 results, and for each the sum of magnitudes that its error is relative to.

    In bfloat16 everything that a product reads is rounded first. A sum on the edge between two such numbers may fall
    on either side, so errors are also relative to what one of those steps would change.
    """
    a = {name: to_numpy(value) for name, value in args.items()}
    hid, out = a["b1"].size, a["b3"].size
    w1 = low(a["w1"].transpose(2, 3, 1, 0).reshape(-1, hid), bf16)  # (9 C, hidden)
    w2 = low(a["w2"][:, :, 0, 0].T, bf16)  # (hidden, hidden')
    w3 = low(a["w3"][:, :, ::-1, ::-1].transpose(1, 2, 3, 0).reshape(hid, -1), bf16)  # (hidden, 9 out)
    shape = a["x"].shape
    columns = spread(low(a["x"], bf16)).reshape(-1, 9 * shape[1])
    pre1 = columns @ w1 + a["b1"]
    h1 = low(np.maximum(pre1, 0), bf16)
    pre2 = h1 @ w2 + a["b2"]
    h2 = low(np.maximum(pre2, 0), bf16)
    grid = (shape[0], *shape[2:], 9)
    value = {"params": collect((h2 @ w3).reshape(*grid, out)) + a["b3"][:, None, None]}
    size = {"params": collect((np.abs(h2) @ np.abs(w3)).reshape(*grid, out)) + np.abs(a["b3"])[:, None, None]}
    g = to_numpy(grad)
    back = spread(low(g, bf16)).reshape(-1, 9 * out)
    wide2 = (back @ w3.T) * (h2 > 0)
    d2 = low(wide2, bf16)
    wide1 = (d2 @ w2.T) * (h1 > 0)
    d1 = low(wide1, bf16)
    m2 = (np.abs(back) @ np.abs(w3).T) * (h2 > 0)
    m1 = (m2 @ np.abs(w2).T) * (h1 > 0)
    value["x"] = collect((d1 @ w1.T).reshape(*grid, shape[1]))
    size["x"] = collect((m1 @ np.abs(w1).T).reshape(*grid, shape[1]))
    value["b3"], size["b3"] = g.sum((0, 2, 3)), np.abs(g).sum((0, 2, 3))
    value["b2"], size["b2"] = wide2.sum(0), m2.sum(0)
    value["b1"], size["b1"] = wide1.sum(0), m1.sum(0)

    def unfold3(w: np.ndarray) -> np.ndarray:
        return w.reshape(hid, 3, 3, out).transpose(3, 0, 1, 2)[:, :, ::-1, ::-1]

    def unfold1(w: np.ndarray) -> np.ndarray:
        return w.reshape(3, 3, shape[1], hid).transpose(3, 2, 0, 1)

    value["w3"], size["w3"] = unfold3(h2.T @ back), unfold3(np.abs(h2).T @ np.abs(back))
    value["w2"], size["w2"] = (h1.T @ d2).T[:, :, None, None], (np.abs(h1).T @ m2).T[:, :, None, None]
    value["w1"], size["w1"] = unfold1(columns.T @ d1), unfold1(np.abs(columns).T @ m1)
    return value, size


def assert_near(got: dict[str, Tensor], expected, relative: float, root_mean_square: float) -> None:
    """No error beyond ``relative`` of its magnitude; and small on the whole, where single steps may differ."""
    value, size = expected
    for name, tensor in got.items():
        error = np.abs(to_numpy(tensor) - value[name])
        assert (error <= relative * size[name] + 1e-300).all(), f"{name}: {(error / (size[name] + 1e-300)).max():.3e}"
        norm = np.sqrt((value[name] ** 2).mean())
        assert np.sqrt((error**2).mean()) <= root_mean_square * norm, f"{name}: error {error.max()} of {norm}"


def gradient(args: dict[str, Tensor]) -> Tensor:
    batch, _, height, width = args["x"].shape
    return inputs.normal(9, (batch, args["b3"].numel(), height, width), args["x"].dtype)


@pytest.fixture
def products() -> Iterator[None]:
    """The choice of bfloat16 instructions is put back."""
    if not COMPILED_BACKENDS:
        yield
        return
    from hybridkern import _C

    before, level = _C.bf16_products(), _C.instruction_set()
    yield
    _C.set_instruction_set(level)
    _C.set_bf16_products(before)


def levels() -> list[tuple[str, str]]:
    """Instruction sets of this processor, and how each multiplies bfloat16."""
    if not COMPILED_BACKENDS:
        return []
    from hybridkern import _C

    before, products, found = _C.instruction_set(), _C.bf16_products(), []
    for level in ("baseline", "avx2", "avx512"):
        for name in ("widened", "avx512_bf16", "amx"):
            try:
                _C.set_instruction_set(level)
                _C.set_bf16_products(name)
            except ValueError:
                continue
            found.append((level, name))
    _C.set_instruction_set(before)
    _C.set_bf16_products(products)
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("level", "name"), levels())
def test_every_instruction_set(level: str, name: str, size: tuple[int, ...], products: None) -> None:
    from hybridkern import _C

    _C.set_instruction_set(level)
    _C.set_bf16_products(name)
    assert (_C.instruction_set(), _C.bf16_products()) == (level, name)
    args = arguments(size)
    grad = gradient(args)
    with hybridkern.use_backend("cpp"):
        if name == "widened":
            assert_near(run(args, grad), oracle(args, grad, False), 4e-6, 2e-6)
        assert_near(run(args, grad, True), oracle(args, grad, True), 2**-8, 1e-3)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_accuracy(backend: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    args = arguments(size, dtype)
    grad = gradient(args)
    bounds = (4e-6, 2e-6) if dtype is F32 else (1e-13, 1e-13)
    got = run(args, grad)
    assert_near(got, oracle(args, grad, False), *bounds)
    assert all(value.dtype is dtype for value in got.values())
    assert got["params"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_layouts_under_autocast(backend: str, layout: str) -> None:
    place = layouts.LAYOUTS[layout]
    args = arguments((3, 5, 6, 7, 10, 4))
    grad = gradient(args)
    expected = run(args, grad, True)
    for name in NAMES:
        if args[name].ndim == 4:
            got = run(args | {name: place(args[name])}, grad, True)
            assert_same_bits(got, expected, name) if backend != "reference" else None
    got = run(args, place(grad), True)
    assert_same_bits(got, expected, "grad") if backend != "reference" else None
    assert_near(got, oracle(args, grad, True), 2**-6, 1e-2)


@pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)
@pytest.mark.parametrize("place", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_taken_as_they_are(backend: str, place: torch.memory_format) -> None:
    """Kernels read weights in their layout and write gradients in it: nobody copies either of them."""
    args = arguments((3, 5, 6, 7, 10, 4))
    placed = {name: args[name].contiguous(memory_format=place) for name in ("w1", "w2", "w3")}
    args |= placed | {"x": args["x"].contiguous(memory_format=torch.channels_last)}
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    grad = gradient(args).contiguous(memory_format=torch.channels_last)
    y = ops.coupling_network(**leaves)
    with torch.profiler.profile(record_shapes=True) as profile:
        y.backward(grad)
    copied = [event.input_shapes[0] for event in profile.events() if event.name == "aten::copy_"]
    assert list(args["w1"].shape) not in copied
    assert list(args["w3"].shape) not in copied
    for name in ("w1", "w3"):
        assert leaves[name].grad.stride() == placed[name].stride()


@pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.usefixtures("threads_restored")
def test_same_bits_whatever_the_threads_and_whether_hidden_is_kept(backend: str, bf16: bool) -> None:
    for size in [(9, 6, 16, 16, 70, 12), (2, 3, 40, 33, 33, 6), (33, 4, 3, 3, 40, 8)]:
        args = arguments(size)
        grad = gradient(args)
        results = []
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results += [run(args, grad, bf16, save) for save in (True, False)]
        for other in results[1:]:
            assert_same_bits(other, results[0])


@pytest.mark.parametrize("bf16", [False, True])
def test_non_finite_numbers_stay_where_they_reach(backend: str, bf16: bool) -> None:
    """A NaN in one pixel reaches the pixels two steps around it, and no other example or padding."""
    args = arguments((3, 3, 9, 9, 20, 4))
    for bad in (float("nan"), float("inf")):
        x = args["x"].clone()
        x[1, 0, 4, 4] = bad
        with torch.autocast("cpu", BF16, enabled=bf16):
            y = ops.coupling_network(**(args | {"x": x}))
            clean = ops.coupling_network(**args)
        hit = torch.zeros(3, 1, 9, 9, dtype=torch.bool)
        hit[1, :, 2:7, 2:7] = True
        assert torch.equal(y.masked_fill(hit, 0), clean.masked_fill(hit, 0))
        assert not y[1, :, 2:7, 2:7].isfinite().any()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)
def test_traced_under_autocast(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(ops.coupling_network, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in [(4, 6, 5, 9, 10, 8), (7, 6, 3, 8, 10, 8)] if dynamic else [(4, 6, 5, 9, 10, 8)]:
        args = arguments(size)
        grad = gradient(args)
        leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
        with torch.autocast("cpu", BF16):
            y = compiled(**leaves)
        y.backward(grad)
        got = {"params": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}
        assert_same_bits(got, run(args, grad, True))
    torch._dynamo.reset()
