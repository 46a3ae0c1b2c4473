"""Quantized models as files: an ``.npz`` of integers and a description in JSON, without pickles."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridkern._temporary import beside
from hybridkern.codec.integers import FIELDS, IntegerNet
from hybridkern.codec.quantized import IntegerCoupling, IntegerPrior, QuantizedIDF
from hybridkern.codec.scheme import array
from hybridkern.flows._latents import latent_shapes
from hybridkern.flows._slices import Slices

_VERSION = 1


def save(model: QuantizedIDF, path: str | Path) -> None:
    """Writes a quantized model into a file, which takes the name when it is whole.

    Raises:
        TypeError: another model.
        OSError: the file cannot be written.
    """
    if not isinstance(model, QuantizedIDF):
        raise TypeError(f"model: got {type(model).__name__}, expected what codec.quantize made")
    description = {
        "version": _VERSION,
        "shape": model.shape,
        "levels": [[[c.sizes, c.moved, c.undone] for c in level] for level in model.couplings()],
        "slices": model.prior.slices.count,
        "bits": model.bits,
        "fingerprint": model.fingerprint().hex(),
    }
    arrays: dict[str, Any] = {name: array(value) for name, value in model.state_dict().items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays, description=np.frombuffer(json.dumps(description).encode(), np.uint8))
    path = Path(path)
    temporary = beside(path)
    try:
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: str | Path) -> QuantizedIDF:
    """The model of a file that :func:`save` wrote.

    Raises:
        ValueError: the file is damaged, of another kind, or holds parts that do not fit each other.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "description"}
            description = json.loads(archive["description"].tobytes())
        if description["version"] != _VERSION:
            raise ValueError(f"version {description['version']}")
        model = _built(description, arrays)
        model.load_state_dict(arrays)
        model.check()
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path}: got a file that holds no quantized model, or a damaged one ({error})") from error
    if model.fingerprint().hex() != description["fingerprint"]:
        raise ValueError(f"{path}: got other integers than its fingerprint says: the file is damaged")
    return model


def _built(description: dict[str, Any], arrays: dict[str, Tensor]) -> QuantizedIDF:
    c, h, w = description["shape"]
    levels = []
    for i, level in enumerate(description["levels"]):
        couplings = []
        for j, (sizes, moved, undone) in enumerate(level):
            nets = [_empty_net() if k in moved else None for k in range(len(sizes))]
            couplings.append(IntegerCoupling(arrays[f"levels.{i}.{j}.order"], sizes, nets, undone))
        levels.append(couplings)
    tables = [arrays[f"prior.{name}"] for name in ("logits", "means", "scales", "change")]
    slices = Slices(latent_shapes((c, h, w), len(levels)), description.get("slices", 1))  # older files have one
    prior = IntegerPrior(slices, tables[:3], tables[3], [_empty_net() for _ in slices.shapes[1:]])
    return QuantizedIDF((c, h, w), levels, prior, description["bits"])


def _empty_net() -> IntegerNet:
    plan = torch.zeros(2, FIELDS, dtype=torch.int64)
    return IntegerNet(
        plan, torch.zeros(0, dtype=torch.int8), torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=torch.uint8)
    )
