"""Random calls of the registered operators, past the checks of the public functions."""

from __future__ import annotations

import random
import re
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.ops import layouts
from tests.ops.random_mutations import mutate
from tests.ops.samples import SAMPLES
from tests.ops.test_registration import calls

CLEAR = re.compile(r"^\w+(\[\d+\])?: got .*, expected .*", re.DOTALL)
# The dispatcher's own: no kernel for such tensors, or a value that the schema does not take.
OF_PYTORCH = (
    "hybridkern.",  # a jagged tensor, which knows no rule for the operator
    "Could not run 'hybridkern::",
    "Expected a value of type",
    "Unable to cast",
    "Inplace update to inference tensor",
    "Argument types did not match",
    "Cannot access storage of OpaqueTensorImpl",  # a tensor of oneDNN in the place of a number
)


PLACES = (((3, 4, 5, 6), layouts.transposed), ((0, 4, 5), layouts.contiguous), ((17, 33), layouts.contiguous))


def _calls() -> list[tuple[Any, tuple[Any, ...]]]:
    """What the samples of all operators call, in several layouts and sizes."""
    found = []
    for name, sample in SAMPLES.items():
        lows = (torch.float32, torch.bfloat16) if sample.lower else (torch.float32,)
        for low in lows:
            for size, place in PLACES:
                found += calls(name, size, place, low)
    return found


CALLS = _calls()


def _copied(value: Any) -> Any:
    """Memory of its own, where a tensor has any."""
    if isinstance(value, list):
        return [_copied(one) for one in value]
    if type(value) is not Tensor or value.layout is not torch.strided or value.is_nested or value.is_quantized:
        return value
    is_whole = value.device.type == "cpu" and value.untyped_storage().nbytes() > 0
    return value.clone() if is_whole and not value.is_inference() else value


def _shapes(out: Any) -> list[tuple[Any, torch.dtype]]:
    flat = torch.utils._pytree.tree_leaves(out)  # some give lists
    return [(tuple(value.shape), value.dtype) for value in flat if isinstance(value, Tensor)]


def _fake_outcome(operator: Any, arguments: dict[str, Any]) -> list[tuple[Any, torch.dtype]] | Exception:
    try:
        with FakeTensorMode(allow_non_fake_inputs=False) as mode:
            faked = torch.utils._pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
            return _shapes(operator(*faked.values()))
    except Exception as error:
        return error


def raw_outcome(r: random.Random) -> tuple[str, str]:
    """The class of a random call of a registered operator: refused clearly, or accepted and shaped as its fake says."""
    operator, args = r.choice(CALLS)
    names = [argument.name for argument in operator._schema.arguments]
    arguments = dict(zip(names, args, strict=False))
    changed: list[str] = []
    for _ in range(r.choice((0, 1, 1, 1, 2))):
        if not changed or "freed" not in changed[-1]:  # PyTorch's own functions would read what is no longer there
            changed.append(mutate(r, arguments, raw=True))
    what = f"{operator} ({'; '.join(changed)})"
    try:
        got: Any = _shapes(operator(*(_copied(value) for value in arguments.values())))
    except Exception as error:
        if CLEAR.match(str(error)) or any(text in str(error) for text in OF_PYTORCH):
            return "raw refused", ""
        return "unclear", f"{what}: {type(error).__name__}: {error}"
    if any("meta" in text or "subclass" in text for text in changed):
        return "raw accepted", ""
    expected = _fake_outcome(operator, arguments)
    if isinstance(expected, Exception):
        return "fake refuses", f"{what}: {type(expected).__name__}: {expected}"
    return ("raw accepted", "") if got == expected else ("fake differs", f"{what}: {got}, fake {expected}")
