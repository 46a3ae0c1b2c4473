"""How large the works are: those of a GPU, and tiny ones with which the code is tested."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.glow.side import Architecture

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Whole training steps of Glow: architecture, images per batch, sides in bfloat16 or in float32 (TF32)."""

    glow: Architecture
    batch: int
    bf16: bool = True

    @property
    def name(self) -> str:
        """As the tables have it."""
        glow = self.glow
        precision = "bf16" if self.bf16 else "float32"
        return f"Glow {glow.shape} L{glow.levels} K{glow.steps} hidden {glow.hidden}, batch {self.batch}, {precision}"


@dataclass(frozen=True)
class Sizes:
    """Defaults: the sizes of Glow on 3x32x32, and some that fill every GPU.

    Attributes:
        couplings: halves in channels_last, with parameters in bfloat16 as networks give them.
        wide: one that does not fit the L2 cache of any GPU.
        lattice: of the rounding coupling.
        densities: ``(B, D)``.
        mixture: ``(B, D)``, five components.
        network: the pixels and channels of coupling networks, ``(B, C, H, W)``.
        hidden: of these.
        steps: whole training steps.
        profiled: the one that is profiled and compiled.
        rounds: of everything.
        copy: bytes.
        huge: elements of the tensor that no 32-bit number counts.
    """

    couplings: tuple[Shape, ...] = ((256, 6, 16, 16), (256, 12, 8, 8), (256, 24, 4, 4), (64, 48, 16, 16))
    wide: Shape = (256, 48, 32, 32)
    lattice: Shape = (256, 6, 32, 32)
    densities: tuple[Shape, ...] = ((512, 3072), (4096, 3072))
    mixture: Shape = (64, 3072)
    network: tuple[Shape, ...] = ((256, 6, 16, 16), (256, 12, 8, 8), (256, 24, 4, 4))
    hidden: int = 512
    steps: tuple[Step, ...] = (
        Step(Architecture(), 64),
        Step(Architecture(), 256),
        Step(Architecture(), 64, bf16=False),
        Step(Architecture(), 256, bf16=False),
        Step(Architecture(steps=32), 512),  # last: it takes the longest, and the deadline may cut it short
    )
    profiled: Step = Step(Architecture(), 64)
    rounds: int = 15
    copy: int = 1 << 30
    huge: int = (1 << 31) + (1 << 20)


_TINY = Architecture((3, 8, 8), levels=2, steps=1, hidden=4)
TINY = Sizes(
    couplings=((2, 2, 4, 4),),
    wide=(2, 2, 4, 4),
    lattice=(2, 2, 4, 4),
    densities=((4, 6),),
    mixture=(2, 6),
    network=((2, 2, 4, 4),),
    hidden=4,
    steps=(Step(_TINY, 2),),
    profiled=Step(_TINY, 2),
    copy=1 << 10,
    huge=1 << 12,
)
