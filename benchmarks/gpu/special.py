"""What no sample shows: empty tensors, another stream, capture in a CUDA graph, the same bits twice, 64-bit offsets,
networks of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import hybridkern
from benchmarks.gpu.backends import backends_of, serves
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.sizes import Sizes
from hybridkern import codec, flows, ops
from hybridkern.ops._operator import OPERATORS, Sample

_SHAPES = ((16, 6, 16, 16), (64, 300), (4096,))
Run = Callable[[], tuple[Tensor, ...]]


def items(device: Device, sizes: Sizes) -> list[Item]:
    """The first sample of every operator that a backend serves, in every such situation; the huge tensors apart."""
    found = []
    for backend in backends_of(device):
        for name, operator in OPERATORS.items():
            sample = next(iter(operator.samples.values()))
            shapes = [shape for shape in _SHAPES if sample.takes(shape)]
            if not serves(backend, name) or not shapes or not sample.differentiable:
                continue
            for title, check in (("twice", _twice), ("stream", _stream), ("graph", _graph), ("empty", _empty)):
                item = f"{name} {backend} {title}"
                found.append(Item(item, partial(_run, item, check, sample, backend, shapes[0])))
        item = f"affine_coupling {backend} {sizes.huge} elements"
        found.append(Item(item, partial(_huge, item, backend)))
    return [*found, Item("codec, networks of integers", _codec)]


def _run(
    item: str,
    check: Callable[[Context, Run, Run], None],
    sample: Sample,
    backend: str,
    shape: tuple[int, ...],
    context: Context,
) -> None:
    def on(at: tuple[int, ...]) -> Run:
        with context.device.torch:
            args = [value.requires_grad_() for value in sample.arguments(at, torch.float32).values()]

        def run() -> tuple[Tensor, ...]:
            with hybridkern.use_backend(backend):
                outputs = sample.function(*args)
                flowing = [out for out in outputs if out.requires_grad]
                grads = torch.autograd.grad(flowing, args, [torch.ones_like(o) for o in flowing], allow_unused=True)
            return tuple(value.detach() for value in (*outputs, *grads) if value is not None)

        return run

    check(context, on(shape), on((0, *shape[1:])))
    context.add(item)


def _same(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for i, (value, other) in enumerate(zip(got, wanted, strict=True)):
        if not torch.equal(value, other):
            raise AssertionError(f"result {i} differs, by up to {float((value - other).abs().max())}")


def _twice(context: Context, run: Run, _: Run) -> None:
    """The same input gives the same bits."""
    wanted = run()
    for _round in range(3):
        _same(run(), wanted)


def _stream(context: Context, run: Run, _: Run) -> None:
    """On another stream, while the first one is busy."""
    wanted = run()
    if not context.device.is_gpu:
        return _same(run(), wanted)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    context.device.cover(0.01)
    with torch.cuda.stream(side):
        got = run()
    side.synchronize()
    return _same(got, wanted)


def _graph(context: Context, run: Run, _: Run) -> None:
    """Forward and backward, captured and replayed."""
    wanted = run()
    if not context.device.is_gpu:
        return _same(run(), wanted)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run()
    for value in got:
        value.zero_()
    graph.replay()
    context.device.synchronize()
    return _same(got, wanted)


def _empty(context: Context, _: Run, empty: Run) -> None:
    """No example at all."""
    for value in empty():
        if value.numel() and not bool((value == 0).all()):
            raise AssertionError(f"a sum over no example is {value.flatten()[0].item()}, expected 0")


def _huge(item: str, backend: str, context: Context) -> None:
    """More elements than 32 bits count: the last example is as it is alone."""
    rows = 4
    columns = -(-context.sizes.huge // rows)
    with context.device.torch:
        x = torch.zeros(rows, columns, dtype=torch.bfloat16)
        params = torch.zeros(rows, 2 * columns, dtype=torch.bfloat16)
        x[-1] = torch.linspace(-3, 3, columns)
        params[-1] = torch.linspace(-1, 1, 2 * columns)
        with hybridkern.use_backend(backend):
            y, _ = ops.affine_coupling(x, params, form="glow")
            alone, _ = ops.affine_coupling(x[-1:].clone(), params[-1:].clone(), form="glow")
    if not torch.equal(y[-1:], alone):
        raise AssertionError("the last example differs from what it is alone")
    context.add(item)


def _codec(context: Context) -> None:
    """An integer flow compresses to the same bytes as on the CPU, and they decode to the same images."""
    torch.manual_seed(0)
    hidden = max(16, min(64, context.sizes.hidden))  # wider ones take the CPU long to quantize
    flow = flows.IDF((3, 16, 16), layers=2, hidden=hidden, net="resnet", center=128, scale=128)
    with torch.no_grad():
        for value in flow.parameters():
            value.add_(torch.randn(value.shape) * 0.02)
    images = torch.randint(0, 256, (20, 3, 16, 16))
    flow.initialize(images)
    model = codec.quantize(flow, images)
    wanted = codec.Codec(model).encode(images)
    own = codec.Codec(model.to(context.device.torch))
    if own.encode(images) != wanted:
        raise AssertionError("the bytes differ from those of the CPU")
    if not torch.equal(own.decode(wanted), images):
        raise AssertionError("the images differ from those that were compressed")
    context.add("codec, networks of integers")
