"""Runs a library's own test suite on accelerated layers: ``pytest -p hybridkern.integrations.pytest_plugin``.

Every layer of the libraries that :func:`~hybridkern.integrations.accelerate` knows is accelerated as
soon as it is built, by whomever. This holds for the whole process, which is why it is a plugin of a test run and no
option of the package. ``--hybridkern-networks`` and ``--hybridkern-memory`` are the arguments of ``accelerate``. The
summary says how many layers of which classes it were.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from hybridkern.integrations._layer import Accelerated, Options, put_on
from hybridkern.integrations._libraries import LIBRARIES, layers_of


class Accelerator:
    """Wraps the constructors of the layers, and counts what they build.

    Args:
        options: what every layer is accelerated with.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self._own: list[tuple[type[nn.Module], Any]] = []

    def install(self) -> None:
        """From now on. Libraries that are not installed are left out; another version than the known is an error."""
        for name in LIBRARIES:
            if importlib.util.find_spec(name) is None:
                continue
            importlib.import_module(name)
            for kind, target in layers_of(name).LAYERS.items():
                self._own.append((kind, kind.__dict__.get("__init__")))
                kind.__init__ = self._wrapped(kind, target, kind.__init__)

    def remove(self) -> None:
        """The constructors are the libraries' again; what was built stays accelerated."""
        for kind, init in self._own:
            if init is None:
                del kind.__init__
            else:
                kind.__init__ = init  # type: ignore[method-assign]
        self._own.clear()

    def _wrapped(
        self, kind: type[nn.Module], target: type[nn.Module], init: Callable[..., None]
    ) -> Callable[..., None]:
        assert issubclass(target, Accelerated)

        @functools.wraps(init)
        def build(layer: nn.Module, *args: Any, **kwargs: Any) -> None:
            init(layer, *args, **kwargs)
            if type(layer) is kind and not target.obstacle(layer) and not target.no_gain(layer, self.options):
                put_on(layer, target, self.options)
                self.counts[f"{kind.__module__}.{kind.__qualname__}"] += 1

        return build

    def lines(self) -> list[str]:
        """What was built, for the summary."""
        return [f"{count} x {name}" for name, count in sorted(self.counts.items())]


_KEY = pytest.StashKey[Accelerator]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The arguments of ``accelerate``."""
    group = parser.getgroup("hybridkern")
    group.addoption("--hybridkern-networks", action="store_true", help="accelerate(..., networks=True)")
    group.addoption("--hybridkern-memory", choices=["recompute"], help="accelerate(..., memory=...)")


def pytest_configure(config: pytest.Config) -> None:
    """Starts before any test is collected."""
    options = Options(config.getoption("--hybridkern-networks"), None, config.getoption("--hybridkern-memory"))
    accelerator = config.stash[_KEY] = Accelerator(options)
    accelerator.install()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends with the run."""
    config.stash[_KEY].remove()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says what was accelerated: nothing would be a run of the library alone."""
    lines = config.stash[_KEY].lines()
    terminalreporter.section("layers accelerated by hybridkern")
    for line in lines or ["none"]:
        terminalreporter.write_line(line)
