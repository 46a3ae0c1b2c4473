"""The coupling network's Triton kernels: what a flow step launches with them, the bytes that it moves, their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from hybridkern import ops
from hybridkern.ops.coupling_network import triton as launchers
from tests.evidence.counting import Launches, ours
from tests.evidence.interpreter import recorded
from tests.evidence.launches import Launch
from tests.evidence.static_run import report_launch
from tests.evidence.subjects import on_triton
from tests.evidence.triton_compile import AMD_TARGETS, NVIDIA_TARGETS
from tests.ops import test_coupling_network as network

Size = tuple[int, ...]  # batch, in, height, width, hidden, out
GLOW = (64, 6, 16, 16, 512, 12)  # the first level of a Glow on 3x32x32, hidden 512
FLOW_BYTES = 750  # a pixel, of the coupling and the 1x1 convolution, forward and backward


def bytes_of(*values: object) -> int:
    """Each tensor once."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def run(size: Size, bf16: bool, save: bool) -> None:
    """Forward and backward of a network of that size."""
    args = network.arguments(size)
    network.run(args, network.gradient(args), bf16, save)


@contextmanager
def products(note: Callable[[int], None]) -> Iterator[None]:
    """PyTorch's products are noted by their bytes, and not carried out."""

    def product(a: Tensor, b: Tensor, wide: torch.dtype) -> Tensor:
        out = a.new_empty((a.shape[0], b.shape[1]), dtype=wide)
        note(bytes_of(a, b, out))
        return out

    with mock.patch.object(launchers, "_wide_product", product):
        yield


def launches_and_products(size: Size, bf16: bool = True, save: bool = True) -> tuple[list[Launch], list[int]]:
    """Triton's launches, none of them carried out, and the bytes of each of PyTorch's products."""
    moved: list[int] = []
    with on_triton(), recorded() as launches, products(moved.append):
        run(size, bf16, save)
    return launches, moved


def launches_of_a_pass() -> tuple[Launches, int]:
    """Kernels of Triton and what PyTorch launches around them, forward and backward; PyTorch's products in all."""

    def function(**args: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ops.coupling_network(**args)

    moved: list[int] = []
    with products(moved.append):
        own = ours(function, network.arguments((2, 6, 4, 4, 64, 12)))
    return own, len(moved)


def bytes_a_pixel(save: bool) -> float:
    """What a network and the flow's own operators read and write: every argument of a launch once."""
    launches, moved = launches_and_products(GLOW, save=save)
    total = sum(moved) + sum(bytes_of(*launch.arguments.values()) for launch in launches)
    return total / (GLOW[0] * GLOW[2] * GLOW[3]) + FLOW_BYTES


def different(launches: list[Launch]) -> list[tuple[str, Launch]]:
    """A name and a launch of each kernel; ``product_kernel`` forward and backward are two, its layers are alike."""
    found: dict[str, Launch] = {}
    for launch in launches:
        name = launch.name
        if name.endswith("product_kernel"):
            name += " forward" if launch.arguments["hidden"] is None else " backward"
        if name.endswith("gather_kernel"):
            name += " forward" if launch.arguments["grad"] is None else " backward"
        found.setdefault(name, launch)
    return list(found.items())


def summary(flow: Launches) -> str:
    """What the page says of a flow step with this network; ``flow`` are its launches without it."""
    own, matrix = launches_of_a_pass()
    total = sum(own) + matrix + sum(flow)
    batch, channels, height, width, hidden, out = GLOW
    kept, again = (bytes_a_pixel(save) / 1000 for save in (True, False))
    return "\n".join(
        [
            f"A network of {channels}, {hidden} and {out} channels on {batch} images of {height}x{width}, in",
            f"bfloat16: {own.forward} kernels forward and {own.backward} backward beside {matrix} matrix products of",
            f"PyTorch; with those of the flow that is {total} launches a flow step. Each tensor that a launch reads",
            f"or writes counted once, the step moves {kept:.1f} KB a pixel, and {again:.1f} KB where the hidden",
            f"activations are computed again ({FLOW_BYTES} bytes of it are the flow's own).",
        ]
    )


def section(flow: Launches) -> str:
    """The page's part on the network."""
    lines = [
        "\n## The coupling network in Triton\n",
        summary(flow),
        "Its kernels are not executed as PTX: products of matrices are instructions that the executor does not know.",
        "Under the interpreter their numbers and accesses are shown as those of the others",
        "(`tests/evidence/test_network.py`). A product lives on registers and shared memory, not on many threads.\n",
        "| kernel | registers | widest access | occupancy | spills | gfx942 VGPRs |",
        "|---|---|---|---|---|---|",
    ]
    for name, launch in different(launches_and_products(GLOW)[0]):
        reports = [report_launch(launch, target) for target in NVIDIA_TARGETS]
        amd = report_launch(launch, AMD_TARGETS[0])
        cells = (
            f"`{name}`",
            " / ".join(str(report.registers) for report in reports),
            " / ".join(f"{report.widest} B" for report in reports),
            " / ".join(f"{report.occupancy:.1%}" for report in reports),
            " / ".join(str(report.spills) for report in (*reports, amd)),
            f"{amd.registers}, {amd.occupancy:.1%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
