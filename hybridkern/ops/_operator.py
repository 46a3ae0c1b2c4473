"""What an operator is: one object that says all that the rest of the package and the tests need to know of it.

From an :class:`Operator` come the schemas and shape-only kernels registered with PyTorch, the choice of backend, the
autograd node (:mod:`hybridkern.ops._autograd`), what :func:`hybridkern.backends` says, and the suites that treat all
operators alike: they run over :data:`OPERATORS`. An operator is added in a folder of its own and registered here by
being imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

LIBRARY = torch.library.Library("hybridkern", "DEF")
OPERATORS: dict[str, Operator] = {}
Outputs = Tensor | tuple[Tensor, ...]
_OPTION_TYPES: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "List[float]": tuple}
Option = tuple[Callable[[Any], Any], int]  # its type, and how many numbers it takes


class Sample(NamedTuple):
    """A typical call, for the suites that run over all operators; the first argument is the main tensor.

    Attributes:
        function: from tensors to a tuple of tensors; its arguments stay as they were.
        arguments: ``(shape, dtype)`` of the main tensor to the tensors by name, in the order of ``function``.
        shapes: the numbers of dimensions that the main tensor may have.
        channels: the sizes that its dim 1 may have.
        dtypes: those that it may have.
        lower: the arguments that may be bfloat16 or float16 beside a float32 main tensor.
        free: the arguments whose dtype does not follow that of the main tensor.
        differentiable: whether the outputs have gradients.
        smooth: whether these are the derivatives of the outputs; not so where they pass through a rounding.
    """

    function: Callable[..., tuple[Tensor, ...]]
    arguments: Callable[[tuple[int, ...], torch.dtype], dict[str, Tensor]]
    shapes: Sequence[int] = (1, 2, 3, 4, 5, 6)
    channels: range = range(1 << 30)
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    lower: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    differentiable: bool = True
    smooth: bool = True

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the main tensor may have this shape."""
        return len(shape) in self.shapes and all(size in self.channels for size in shape[1:2])


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of the library ``hybridkern``.

    Attributes:
        name: of its folder, and the beginning of the names of its registered parts.
        schemas: what follows the name of each part: ``{"forward": "(Tensor x) -> Tensor", "backward": ...}``.
            None where the formulas are all there is.
        fakes: the shape-only kernel of each part; called only with arguments that fit the contract.
        contracts: what each part asks of its arguments; raises where they do not fit. Exported programs and C++ callers
            come past the public function. The C++ kernels check for themselves (csrc/check.h).
        triton: whether ``ops/<name>/triton.py`` has launchers of all parts.
        made_of: the operator of which it is composed on the backends that have no kernel of the whole.
        dtypes: of the main tensor, that the C++ kernels serve; none where there are no such kernels.
    """

    name: str
    schemas: Mapping[str, str] = field(default_factory=dict)
    fakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    contracts: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    triton: bool = False
    made_of: str = ""
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    kernels: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for part, schema in self.schemas.items():
            full = f"{self.name}_{part}"
            LIBRARY.define(f"{full}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.register_fake(f"hybridkern::{full}", self.checked(part, self.fakes[part]), lib=LIBRARY)
            self.kernels[part] = getattr(torch.ops.hybridkern, full).default
        OPERATORS[self.name] = self

    def checked(self, part: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel of a part that is no C++, called only with arguments that fit its contract."""
        contract = self.contracts[part]

        def run(*args: Any, **named: Any) -> Any:
            contract(*args, **named)
            return kernel(*args, **named)

        return run

    @property
    def parts(self) -> list[str]:
        """Names under which its parts are registered."""
        return [f"{self.name}_{part}" for part in self.schemas]

    @property
    def samples(self) -> dict[str, Sample]:
        """Typical calls by name, from ``ops/<name>/sample.py``; none where that is missing, which a test forbids."""
        module = f"hybridkern.ops.{self.name}.sample"
        if importlib.util.find_spec(module) is None:
            return {}
        found: dict[str, Sample] = importlib.import_module(module).SAMPLES
        return found


def option_types(kernel: Any) -> tuple[Option, ...]:
    """Types of the arguments of a kernel that are no tensors, in order; the schema says how long a list is."""
    kinds = [(_OPTION_TYPES.get(str(argument.type)), argument.N or 1) for argument in kernel._schema.arguments]
    return tuple((kind, count) for kind, count in kinds if kind is not None)


def options_of(kinds: Sequence[Option], numbers: Sequence[float]) -> list[Any]:
    """The options that a C++ node kept as numbers, one after the other."""
    options, place = [], 0
    for kind, count in kinds:
        options.append(kind(numbers[place : place + count] if kind is tuple else numbers[place]))
        place += count
    return options
