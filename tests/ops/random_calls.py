"""``python -m tests.ops.random_calls FIRST LAST [INSTRUCTION_SET]``: random calls, right and wrong ones, a seed each.

A call of a public operator runs compiled and by the reference, forward and backward; one of ``torch.ops.hybridkern``
runs compiled and by its fake. What is not as it should be is printed, a line a seed; ``@SEED`` goes before each seed to
standard error, so that a process that dies tells where. The last line counts the outcomes.
"""

from __future__ import annotations

import importlib
import random
import re
import sys
import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor

import hybridkern
from tests.ops.random_arguments import Case, case
from tests.ops.random_mutations import mutate
from tests.ops.random_raw import raw_outcome
from tests.ops.random_tensors import lay

TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 5e-3}
CLEAR = re.compile(r"^(\w+)(\[\d+\])?: got .*, expected .*", re.DOTALL)
# Messages that name no argument: PyTorch's own about any operator, and that of a backend chosen for the block.
ALSO_CLEAR = (
    "Inference tensors cannot be saved for backward",
    "Inplace update to inference tensor",
    "backend 'cpp' was chosen and serves CPU tensors only",
    "backend 'cpp' was chosen and has no kernel of",
)


def _fresh(value: Any) -> Any:
    """The argument for one run: a leaf of its own, a list of tensors that may be written."""
    if isinstance(value, list):
        return [one.clone() if _is_strided(one) else one for one in value]
    if type(value) is Tensor and _is_strided(value) and value.requires_grad and not value.is_inference():
        return value.detach().requires_grad_()
    return value


def _is_strided(value: Any) -> bool:
    # an empty tensor of a quantized dtype has no quantizer, and cannot even be cloned
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_nested
        and not (value.is_quantized and value.numel() == 0)
    )


def _upstream(seed: int, i: int, out: Tensor) -> Tensor:
    r = random.Random(f"{seed} {i}")
    made = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(out.dtype)
    how = r.choice(("plain", "expanded", "transposed", "step"))
    return torch.ones((), dtype=out.dtype).expand(out.shape) if how == "expanded" else lay(r, made, how)


def _run(call: Case, backend: str, seed: int) -> list[Tensor]:
    """Outputs and gradients; zeros where nothing depends on a leaf."""
    tensors = {name: _fresh(value) for name, value in call.tensors.items()}
    with hybridkern.use_backend(backend):
        out = call.function(**tensors, **call.options)
        outputs = [out] if isinstance(out, Tensor) else list(out or ())
        if not outputs:
            return [value for values in tensors.values() for value in values]
        leaves = [value for value in tensors.values() if isinstance(value, Tensor) and value.requires_grad]
        pairs = [(o, _upstream(seed, i, o)) for i, o in enumerate(outputs) if o.requires_grad]
        grads: list[Tensor] = []
        if leaves and pairs:
            roots, incoming = zip(*pairs, strict=True)
            found = torch.autograd.grad(roots, leaves, incoming, allow_unused=True)
            grads = [torch.zeros_like(v) if g is None else g for g, v in zip(found, leaves, strict=True)]
        elif leaves:
            grads = [torch.zeros_like(value) for value in leaves]
    return [*(value.detach() for value in outputs), *grads]


def _difference(got: list[Tensor], expected: list[Tensor], tolerance: float) -> str:
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"result {i}: {a.dtype} {tuple(a.shape)}, reference {b.dtype} {tuple(b.shape)}"
        if a.is_meta or not a.numel() or not tolerance:
            continue
        x, y = a.double(), b.double()
        scale = max(1.0, y.nan_to_num(0, 0, 0).abs().max().item())
        wide = max(tolerance, TOLERANCES[a.dtype])
        wrong = ~torch.isclose(x, y, rtol=wide, atol=wide * scale, equal_nan=True)
        wrong &= ~(y.isnan() & x.isinf())  # of an infinite factor: formulas make NaN of zero times infinity
        if not wrong.any():
            continue
        at = int(wrong.reshape(-1).nonzero()[0])
        return f"result {i}, element {at}: {x.reshape(-1)[at].item()!r}, reference {y.reshape(-1)[at].item()!r}"
    return ""


def _is_clear(error: Exception, names: set[str]) -> bool:
    found = CLEAR.match(str(error))
    if found and isinstance(error, (TypeError, ValueError)):
        return found[1] in names
    return any(text in str(error) for text in ALSO_CLEAR)


def _attempt(call: Case, backend: str, seed: int) -> list[Tensor] | Exception:
    try:
        return _run(call, backend, seed)
    except Exception as error:
        return error


def public_outcome(r: random.Random, seed: int) -> tuple[str, str]:
    """The class of a random call of a public operator, and what was seen where it is no good one."""
    call = case(r)
    changed = []
    for _ in range(r.choice((0, 0, 1, 1, 2))):
        arguments = {**call.tensors, **call.options}
        changed.append(mutate(r, arguments))
        tensors = {name: arguments[name] for name in call.tensors}
        call = call._replace(tensors=tensors, options={name: arguments[name] for name in call.options})
    what = f"{call.function.__name__} ({'; '.join(changed)})"
    got = _attempt(call, "cpp", seed)
    if isinstance(got, Exception):
        if not _is_clear(got, {*call.tensors, *call.options}):
            return "unclear", f"{what}: {type(got).__name__}: {got}"
        return "clear", ""
    expected = _attempt(call, "reference", seed)
    if isinstance(expected, Exception):
        return "reference raises", f"{what}: {type(expected).__name__}: {expected}"
    given = [v for v in call.tensors.values() if isinstance(v, Tensor) and v.dtype in TOLERANCES]
    tolerance = max((TOLERANCES[v.dtype] for v in given), default=1e-4) if call.tame else 0.0
    found = _difference(got, expected, tolerance)
    return ("differs", f"{what}: {found}") if found else ("right", "")


def main(first: int, last: int, level: str = "") -> None:
    """Runs the seeds from ``first`` to below ``last``; every fourth is a call of a registered operator."""
    if level:
        importlib.import_module("hybridkern._C").set_instruction_set(level)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for seed in range(first, last):
        print(f"@{seed}", file=sys.stderr, flush=True)
        r = random.Random(seed)
        kind, text = raw_outcome(r) if seed % 4 == 0 else public_outcome(r, seed)
        counts[kind] += 1
        if text:
            print(f"{seed} {kind}: {' '.join(text.split())[:400]}", flush=True)
    print(dict(sorted(counts.items())))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
