"""PTX text to instructions (PTX ISA, sections 4 and 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.evidence.ptx.values import Type


@dataclass(frozen=True)
class Instruction:
    """``@guard name.modifiers operands``; ``text`` for messages."""

    guard: str | None
    negated: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    text: str

    @property
    def type(self) -> Type:
        """The last type among the modifiers: the one that the operands have."""
        return Type.parse(self.modifiers[-1])


@dataclass
class Kernel:
    """One entry point: its code, and where its parameters and its variables in shared memory lie."""

    name: str
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and size
    parameter_bytes: int = 0
    threads: int | None = None
    registers: dict[str, int] = field(default_factory=dict)  # bits, by name without its number
    shared: dict[str, int] = field(default_factory=dict)  # offset
    shared_bytes: int = 0
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def register_bits(self, name: str) -> int:
        """Width of a register, 1 for a predicate.

        Raises:
            KeyError: it was not declared.
        """
        stem = name if name in self.registers else name.rstrip("0123456789")
        return self.registers[stem]


_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)([^,\[]*?)([\w$]+)\s*(?:\[(\d+)\])?\s*(?:,|$)")
_THREADS = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*(?:\[(\d*)\])?")
_LABEL = re.compile(r"([\w$]+):(?!:)")
_INSTRUCTION = re.compile(r"(?:@(!?)(%?[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


def entries(ptx: str) -> list[str]:
    """Names of the kernels in a module."""
    return _ENTRY.findall(ptx)


def parse(ptx: str, name: str | None = None) -> Kernel:
    """One kernel of a module: the only one, or the one whose name is or contains ``name``.

    Raises:
        ValueError: there is no such kernel, or more than one.
    """
    ptx = re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)
    ptx = re.sub(r"^\s*\.(?:loc|file)\b[^\n;]*;?[^\n;]*$", "", ptx, flags=re.MULTILINE)
    found = [entry for entry in _ENTRY.finditer(ptx) if name is None or name in entry[1]]
    found = [entry for entry in found if entry[1] == name] or found
    if len(found) != 1:
        raise ValueError(f"name: got {name!r}, expected one of {entries(ptx)}, found {len(found)}")
    kernel = Kernel(found[0][1])
    body = ptx.index("{", found[0].end())
    header = ptx[found[0].end() : body]
    _read_parameters(kernel, header[: header.rindex(")")])
    if sizes := _THREADS.search(header):
        kernel.threads = int(sizes[1]) * int(sizes[2] or 1) * int(sizes[3] or 1)
    _read_body(kernel, ptx, body)
    operands = " ".join(operand for instruction in kernel.instructions for operand in instruction.operands)
    for declared in _SHARED.finditer(ptx[: found[0].start()]):
        if declared[3] in operands:  # others are of other kernels
            _declare_shared(kernel, declared)
    return kernel


def split(ptx: str) -> dict[str, str]:
    """For each kernel of a module a module of its own: what is declared before the first one, and the kernel."""
    starts = [found.start() for found in re.finditer(r"^[^\n/]*\.entry\b", ptx, re.MULTILINE)]
    parts = [ptx[start:end] for start, end in zip(starts, [*starts[1:], len(ptx)], strict=True)]
    return {entries(part)[0]: ptx[: starts[0]] + part for part in parts}


def _read_parameters(kernel: Kernel, header: str) -> None:
    for line in header.split(","):
        declared = _PARAMETER.search(line.strip())
        if declared is None:
            continue
        width = Type.parse(declared[2]).bits // 8
        size = width * int(declared[5] or 1)
        align = int(declared[1] or width)
        offset = -(-kernel.parameter_bytes // align) * align
        kernel.parameters[declared[4]] = offset, size
        kernel.parameter_bytes = offset + size


def _declare_shared(kernel: Kernel, declared: re.Match[str]) -> None:
    width = Type.parse(declared[2]).bits // 8
    align = int(declared[1] or width)
    kernel.shared_bytes = -(-kernel.shared_bytes // align) * align
    kernel.shared[declared[3]] = kernel.shared_bytes
    count = 1 if declared[4] is None else int(declared[4] or 0)  # [] lies at the end, of a size given at launch
    kernel.shared_bytes += count * width


def _read_body(kernel: Kernel, ptx: str, start: int) -> None:
    at, depth = start, 0
    while True:
        while ptx[at].isspace():
            at += 1
        if ptx[at] in "{}":
            depth += 1 if ptx[at] == "{" else -1
            at += 1
            if depth == 0:
                return
        elif label := _LABEL.match(ptx, at):
            kernel.labels[label[1]] = len(kernel.instructions)
            at = label.end()
        else:
            end = ptx.index(";", at)
            _read_statement(kernel, " ".join(ptx[at:end].split()))
            at = end + 1


def _read_statement(kernel: Kernel, text: str) -> None:
    if text.startswith(".reg"):
        _, kind, names = text.split(None, 2)
        for name in names.split(","):
            kernel.registers[re.sub(r"<\d+>", "", name.strip())] = Type.parse(kind[1:]).bits
    elif declared := _SHARED.match(text):
        _declare_shared(kernel, declared)
    elif not text.startswith(".") and (found := _INSTRUCTION.match(text)):
        name, *modifiers = found[3].replace("::", "__").split(".")
        operands = tuple(operand.strip() for operand in _OPERAND.findall(found[4]))
        kernel.instructions.append(Instruction(found[2], found[1] == "!", name, tuple(modifiers), operands, text))
