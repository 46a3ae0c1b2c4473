"""The build backend: that of setuptools, which is told of torch by ``torch_here``."""

from __future__ import annotations

import os
from typing import Any

import torch_here
from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """An editable installation that puts the clone on ``sys.path``.

    setuptools' own finds the package after everything on ``sys.path``. In the folder above a clone Python then takes
    the clone itself, a folder named ``hybridkern``, for the package.
    """
    settings = {"editable_mode": "compat"} | dict(config_settings or {})
    made: str = build_meta.build_editable(wheel_directory, settings, metadata_directory)
    return made


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """torch, where the extension is wanted and the environment has none to build with."""
    unwanted = os.environ.get("HYBRIDKERN_NO_EXT", "").strip() not in ("", "0")
    return [] if unwanted else torch_here.required_to_build()


get_requires_for_build_editable = get_requires_for_build_wheel


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """Nothing: sources need no torch."""
    return []
