"""The files of a saved model: a folder with ``config.json`` and ``model.safetensors``, or the second alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern._saved.build import Builder, difference
from hybridkern._saved.describe import Description
from hybridkern._saved.names import allowed, version
from hybridkern._saved.seals import KEY, json_is_intact, seal_json, seal_tensors, tensors_are_intact
from hybridkern._temporary import beside, is_temporary

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_MODEL = "model"
_SUFFIX = ".safetensors"
_LARGEST_JSON = 64 * 2**20
_HEAD, _SIGNS = 4096, (b'"hybridkern"', b'"checksum":"sha256:')  # which stand at the begin of a file


def describe(model: nn.Module, prefix: str = "") -> dict[str, Any]:
    """What ``config.json`` says of a model, under the key ``model``.

    Args:
        model: to be described; it is built once more, to see that the description holds.
        prefix: before the names of its tensors in the file of weights.

    Raises:
        TypeError: an argument that no file can name.
        ValueError: the model is not what its constructor makes.
    """
    description = Description()
    built = description.of(model, "")
    wanted = {"prefix": prefix, "dtype": str(_dtype(model)).removeprefix("torch."), "built": built}
    found = difference(model, _build(wanted, description.used))
    if found:
        raise ValueError(f"model: was changed after it was built, and a file cannot say how: {found}")
    return wanted


def differs(model: nn.Module, described: Any) -> str | None:
    """Where a model is built otherwise than one that :func:`describe` described, as a line; ``None``: nowhere.

    Both are compared as they are built, whatever words describe them: other versions may have other ones.
    """
    description = Description()
    description.of(model, "")
    try:
        return difference(model, _build(described, description.used))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, RecursionError) as error:
        return f"the one described cannot be built ({type(error).__name__}: {error})"


def save(model: nn.Module, path: str | PathLike[str]) -> None:
    """See :meth:`hybridkern._saved.built.Saved.save`."""
    target = Path(path)
    described = describe(model)
    if target.suffix == _SUFFIX:
        said = {"hybridkern": version(), _MODEL: described}
        _write(target, seal_tensors(_weights(model), {"hybridkern": json.dumps(said, allow_nan=False)}))
        return
    if target.is_dir():
        known = (CONFIG, WEIGHTS)
        others = sorted(p.name for p in target.iterdir() if p.name not in known and not is_temporary(p))
        if others:
            raise ValueError(f"path: got a folder with '{others[0]}' in it, expected an empty one, or a saved model")
        for name in known:  # names that other libraries have for models, too
            if (target / name).exists() and not _is_own(target / name):
                raise ValueError(f"path: got a folder whose {name} is not hybridkern's, expected that of a saved model")
    write_folder(model, target, described)


def _is_own(path: Path) -> bool:
    """Whether hybridkern wrote the file: it holds a checksum, or says so itself. Damage does not matter.

    An empty file, which a full disk may leave, is nobody's.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    return not head or any(sign in head for sign in _SIGNS)


def write_folder(model: nn.Module, folder: Path, described: dict[str, Any]) -> None:
    """Writes both files, whatever else the folder holds; ``described`` is from :func:`describe`."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / CONFIG, folder / WEIGHTS
    said = seal_json({"hybridkern": version(), _MODEL: described})[0]
    with _staged(weights, seal_tensors(_weights(model))) as new_weights, _staged(config, said) as new_config:
        config.unlink(missing_ok=True)  # never that of one model beside the weights of another
        os.replace(new_weights, weights)
        os.replace(new_config, config)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes values with their checksum."""
    _write(path, seal_json(values)[0])


def read_json(path: Path) -> dict[str, Any]:
    """Reads them; raises FileNotFoundError, or ValueError where they are damaged."""
    try:
        return _of_json(_read(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def load(path: str | PathLike[str], *, allow: Iterable[Any] = (), device: str | torch.device = "cpu") -> nn.Module:
    """The model that ``save`` wrote, or that a run of the command line trained; in evaluation mode.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``, such as a run folder, or a ``.safetensors`` file.
        allow: classes and functions of your own that the model is made of, or their import paths. They are imported
            and called. Nothing else of the file is run: without ``allow``, only classes of hybridkern and ``torch.nn``.
        device: where the model goes.

    Returns:
        The model: of the class that was saved, such as :class:`~hybridkern.hybrid.HybridModel`. That of a run folder
        expects what its recipe gave it: images ``(B, C, H, W)`` scaled to ``[-1/2, 1/2)``, or of a run with ``logit``
        their logits, or of an integer flow whole grey values; rows of grey values from 0 to 1 in an autoencoder's;
        vectors standardized.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, holds no model, or names a class that is not allowed.
        TypeError: ``allow`` holds something else.

    >>> import tempfile, torch, hybridkern
    >>> flow = hybridkern.flows.RealNVP(2, layers=2, hidden=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     flow.save(folder)
    ...     same = hybridkern.load(folder)
    >>> x = torch.zeros(3, 2)
    >>> bool((same.log_prob(x) == flow.eval().log_prob(x)).all())
    True
    """
    source, known = Path(path), allowed(allow)
    one_file = source.is_file()
    content = _read(source if one_file else source / WEIGHTS)
    if tensors_are_intact(content) is False:
        raise ValueError(f"{source}: damaged (the checksum of the weights is another)")
    told = source if one_file else source / CONFIG
    try:
        said = _of_header(content) if one_file else _of_json(_read(told))
        described = said[_MODEL]
        model = _build(described, known)
        model.load_state_dict(_tensors(content, described["prefix"]))
    except KeyError as error:
        hint = "; version 0.1 wrote none" if error.args == (_MODEL,) else ""
        raise ValueError(f"{told}: got no entry {error}, expected that of a saved model{hint}") from error
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{told}: {error}") from error
    return model.to(device).eval()


def _build(described: dict[str, Any], known: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = Builder(known).value(described["built"], "")
    if not isinstance(model, nn.Module):
        raise ValueError(f"got {short(model)}, expected a model")
    dtype = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return model.to(dtype[described["dtype"]])


def _dtype(model: nn.Module) -> torch.dtype:
    """That of most parameters: some parts stay in float64 whatever the model's dtype."""
    sizes: dict[torch.dtype, int] = {}
    for value in model.parameters():
        sizes[value.dtype] = sizes.get(value.dtype, 0) + value.numel()
    return max(sizes, key=sizes.__getitem__, default=torch.get_default_dtype())


def _tensors(content: bytes, prefix: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as parsed

    try:
        tensors: dict[str, Tensor] = parsed(content)
    except SafetensorError as error:
        raise ValueError(f"damaged weights ({error})") from error
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _of_header(content: bytes) -> dict[str, Any]:
    size = int.from_bytes(content[:8], "little")
    return dict(json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["hybridkern"]))


def _of_json(content: bytes) -> dict[str, Any]:
    said = json.loads(content.decode())
    if not isinstance(said, dict) or (KEY in said and not json_is_intact(content, said)):
        raise ValueError("damaged (its checksum is another)")
    return said


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".json" and path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"{path}: got {path.stat().st_size} bytes, expected at most {_LARGEST_JSON}")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with _staged(path, content) as new:
        os.replace(new, path)


@contextmanager
def _staged(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside ``path`` with the content, which is on the disk before it takes that name inside the block."""
    temporary = beside(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
