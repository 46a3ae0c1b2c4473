"""Triton's launcher writes a function around the arguments of a kernel, whose own variables must not be among them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

import hybridkern.codec
import hybridkern.ops

_OWN = {
    "params",
    "stream",
    "device",
    "device_type",
    "options",
    "specialization",
    "backend",
    "specialize_impl",
    "grid",
    "warmup",
    "self",
    "args",
    "kwargs",
}


def _below(room: ModuleType) -> list[pkgutil.ModuleInfo]:
    return list(pkgutil.walk_packages(room.__path__, f"{room.__name__}."))


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(hybridkern.ops.__path__, "hybridkern.ops.")
    names = [one.name for one in found if ".triton" in one.name or "._triton." in one.name]
    return [importlib.import_module(name) for name in names]


def test_arguments_of_kernels_are_not_the_launchers_own() -> None:
    """``params`` is: a kernel with such an argument compiles, and cannot be launched."""
    kernels = {f"{module.__name__}.{name}": value for module in modules() for name, value in vars(module).items()
               if name.endswith("_kernel")}  # fmt: skip
    assert len(kernels) >= 20
    assert {name: taken for name, value in kernels.items() if (taken := _OWN & set(value.arg_names))} == {}
