"""The rule on traffic: a kernel reads every element of its inputs once and writes every element of its outputs once.

Where a kernel may do otherwise, an :class:`Exemption` says so, with the reason; an exemption that nothing needs fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import Tensor

from tests.evidence.interpreter import Audit
from tests.evidence.shadow import Usage


@dataclass(frozen=True)
class Exemption:
    """Inputs (shell patterns) of kernels (shell pattern) that are not read once an element, and why not.

    ``most_reads``: how often an element may be read, ``None`` for any number of times. ``applies``: to which of the
    arguments so called.
    """

    kernel: str
    argument: str
    reason: str
    most_reads: int | None = None
    applies: Callable[[Tensor], bool] = lambda value: True

    def names(self, kernel: str, argument: str, value: Tensor) -> bool:
        """It is about this argument."""
        return fnmatch(kernel, self.kernel) and fnmatch(argument, self.argument) and self.applies(value)

    def covers(self, audit: Audit, argument: str) -> bool:
        """It allows what was done with this argument."""
        usage = audit.usage[argument]
        if not self.names(audit.launch.name, argument, audit.launch.arguments[argument]) or usage.writes[1]:
            return False
        return self.most_reads is None or usage.reads[1] <= self.most_reads


def once_each(audit: Audit, exemptions: Sequence[Exemption] = ()) -> list[str]:
    """The arguments that break the rule, each as a sentence; those with an exemption left out."""
    name = audit.launch.name
    return [
        f"{name}: {argument} {_broken(usage)}"
        for argument, usage in audit.usage.items()
        if _broken(usage) and not any(exemption.covers(audit, argument) for exemption in exemptions)
    ]


def needed(audit: Audit, exemption: Exemption) -> bool:
    """Some argument of this launch needs the exemption."""
    return any(exemption.covers(audit, argument) and _broken(usage) for argument, usage in audit.usage.items())


def _broken(usage: Usage) -> str:
    if usage.writes[1] == 0:
        return "" if usage.reads == (1, 1) else f"is read {_times(usage.reads)} an element"
    if usage.reads[1]:
        return f"is read {_times(usage.reads)} and written {_times(usage.writes)} an element"
    return "" if usage.writes == (1, 1) else f"is written {_times(usage.writes)} an element"


def _times(span: tuple[int, int]) -> str:
    return f"{span[0]} to {span[1]} times"
