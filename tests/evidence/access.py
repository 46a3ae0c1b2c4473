"""The rule on traffic: a kernel reads every element of its inputs once and writes every element of its outputs once.

Where a kernel may do otherwise, an :class:`Exemption` says so, with the reason; an exemption that nothing needs fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from tests.evidence.interpreter import Audit
from tests.evidence.shadow import Usage


@dataclass(frozen=True)
class Exemption:
    """Arguments (shell patterns) of kernels (shell pattern) that are not touched once an element, and why not."""

    kernel: str
    argument: str
    reason: str

    def covers(self, kernel: str, argument: str) -> bool:
        """It applies to this argument."""
        return fnmatch(kernel, self.kernel) and fnmatch(argument, self.argument)


def once_each(audit: Audit, exemptions: Sequence[Exemption] = ()) -> list[str]:
    """The arguments that break the rule, each as a sentence; those with an exemption left out."""
    name = audit.launch.name
    broken = {argument: _broken(usage) for argument, usage in audit.usage.items()}
    return [
        f"{name}: {argument} {complaint}"
        for argument, complaint in broken.items()
        if complaint and not any(exemption.covers(name, argument) for exemption in exemptions)
    ]


def needed(audit: Audit, exemption: Exemption) -> bool:
    """Some argument of this launch needs the exemption."""
    name = audit.launch.name
    return any(exemption.covers(name, argument) and _broken(usage) for argument, usage in audit.usage.items())


def _broken(usage: Usage) -> str:
    if usage.writes[1] == 0:
        return "" if usage.reads == (1, 1) else f"is read {_times(usage.reads)} an element"
    if usage.reads[1]:
        return f"is read {_times(usage.reads)} and written {_times(usage.writes)} an element"
    return "" if usage.writes == (1, 1) else f"is written {_times(usage.writes)} an element"


def _times(span: tuple[int, int]) -> str:
    return f"{span[0]} to {span[1]} times"
