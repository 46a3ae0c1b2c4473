"""``hybridkern.flows.Glow``."""

from __future__ import annotations

from torch import nn

from benchmarks.glow.side import Architecture, Side

MEMORY = ("store", "recompute", "invert")


def ours(architecture: Architecture, bf16: bool = False, memory: str = "store") -> Side:
    """As a user of this package writes it; bfloat16 by autocast around the step."""
    from hybridkern import flows
    from hybridkern.nets import ConvNet

    model = flows.Glow(
        architecture.shape,
        levels=architecture.levels,
        steps=architecture.steps,
        hidden=architecture.hidden,
        form="glow",  # that of the peers
        memory=memory,
    )
    networks: tuple[nn.Module, ...] = tuple(m for m in model.modules() if isinstance(m, ConvNet))
    name = "-".join(["ours", *(["bf16"] if bf16 else []), *([memory] if memory != "store" else [])])
    return Side(name, model, model.log_prob, model.sample, networks, bf16=bf16)
