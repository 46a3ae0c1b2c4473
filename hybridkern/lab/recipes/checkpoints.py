"""Checkpoints: written whole, verified when read, and the one before the last kept to fall back on."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from hybridkern._saved.seals import archive_is_intact, ends_as_archive, ends_as_checkpoint, seal_archive
from hybridkern._temporary import beside
from hybridkern.lab.archive import one_line
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError, UnsealedFileError
from hybridkern.lab.recipes.files import read_file, sync_folder, write_durably
from hybridkern.lab.recipes.fitting import require_fit

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "last.previous.ckpt"
_LISTS, _DICTIONARIES, _NUMBERS = (
    ("optimizer_states", "lr_schedulers"),
    ("callbacks", "loops"),
    ("epoch", "global_step"),
)
_TO_GO_ON = dict.fromkeys(_LISTS, list) | dict.fromkeys(_DICTIONARIES, dict) | dict.fromkeys(_NUMBERS, int)


class SealedCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints with their checksum, beside their place and then moved there, and reads none without one.

    Before ``last.ckpt`` is replaced it becomes ``last.previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(f"{target}: cannot write the file ({one_line(error)})") from error
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with _kept(target):
            write_durably(target, seal_archive(buffer.getvalue()))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        # Lightning brings the weights of other processes home this way too: those are no whole checkpoint
        return _verified(Path(path))


@contextmanager
def _kept(target: Path) -> Iterator[None]:
    """Keeps the file that the block replaces, where it is the last checkpoint. At no time is there neither."""
    aside = beside(target, ".old")
    if target.name != LAST or not target.exists():
        yield
        return
    try:
        try:
            os.link(target, aside)
        except OSError:  # a file system without links
            os.replace(target, aside.with_name(PREVIOUS))
        yield
        if aside.exists():
            os.replace(aside, target.with_name(PREVIOUS))
    except OSError as error:
        raise RecipeError(f"{target}: cannot write the file ({one_line(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def read_checkpoint(path: Path, to_go_on: bool = False) -> dict[str, Any]:
    """The content of a checkpoint: plain data and tensors on the CPU.

    Args:
        path: of the file.
        to_go_on: whether it must hold all that training needs to go on, not the weights alone.

    Raises:
        DamagedFileError: missing, truncated, changed, or no checkpoint.
        UnsealedFileError: it is whole, but holds no checksum.
    """
    checkpoint = _verified(path)
    for name, kind in ({"state_dict": dict} | (_TO_GO_ON if to_go_on else {})).items():
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(name), kind):
            raise DamagedFileError(f"{path}: no checkpoint of a run (it has no '{name}')")
    return checkpoint


def _verified(path: Path) -> dict[str, Any]:
    """What :func:`torch.save` wrote, plain data only, where the checksum is right."""
    content = read_file(path, ends=ends_as_checkpoint)
    intact = archive_is_intact(content)
    if intact is None:
        raise UnsealedFileError(f"{path}: holds no checksum, so it is not what this run wrote")
    if not intact:
        raise DamagedFileError(f"{path}: damaged (its checksum is another)")
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise DamagedFileError(f"{path}: damaged ({one_line(error)})") from error
    return checkpoint


def seal_all(folder: Path) -> None:
    """Gives the checkpoints of a run of version 0.1, which wrote none, their checksums; damaged ones stay so."""
    for path in sorted(folder.glob("*.ckpt")):
        with contextlib.suppress(DamagedFileError):
            content = read_file(path, ends=ends_as_checkpoint)
            if ends_as_archive(content):
                write_durably(path, seal_archive(content))


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to go on from."""

    path: Path
    checkpoint: dict[str, Any]

    def state_of(self, callback: Callback) -> dict[str, Any]:
        """What it holds of a callback; raises DamagedFileError where it holds nothing."""
        state = self.checkpoint["callbacks"].get(callback.state_key)
        if not isinstance(state, dict):
            raise DamagedFileError(f"{self.path}: does not fit this run (it knows no {type(callback).__name__})")
        return state

    def restore(self, callback: Callback) -> None:
        """Gives a callback its state; raises DamagedFileError where that cannot be."""
        state = self.state_of(callback)
        try:
            callback.load_state_dict(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"{self.path}: does not fit this run ({type(callback).__name__}: {one_line(error)})"
            ) from error


def has_any(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from, be it damaged."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def newest(folder: Path, module: pl.LightningModule, console: Console) -> Resumed | None:
    """The last checkpoint of a run, or where that is damaged the one before it, with a line that says so.

    Raises:
        DamagedFileError: there are checkpoints, but none that can be used.
        RecipeError: the checkpoint is whole, but not one of this model.
    """
    if not has_any(folder):
        return None
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        return _read(last, module)
    except DamagedFileError as damaged:
        try:
            found = _read(previous, module)
        except DamagedFileError:
            hint = f"remove {folder} to train from the start with --resume"
            raise DamagedFileError(f"{damaged}; {hint}") from None
        say(console, f"{damaged}; going on from {PREVIOUS}, the checkpoint before it")
    try:
        # in its place, lest the next one that is written push it out and keep the damaged one
        os.replace(previous, last)
    except OSError as error:
        raise RecipeError(f"{last}: cannot write the file ({one_line(error)})") from error
    sync_folder(folder)
    return Resumed(last, found.checkpoint)


def _read(path: Path, module: pl.LightningModule) -> Resumed:
    checkpoint = read_checkpoint(path, to_go_on=True)
    require_fit(path, checkpoint, module)
    return Resumed(path, checkpoint)


def say(console: Console, text: str) -> None:
    """A line to the user about what was done instead of what was asked for."""
    console.print(f"hybridkern: note: {text}", soft_wrap=True, highlight=False, markup=False)


class Restoring(Callback):
    """Turns what Lightning raises while it restores a checkpoint into one line about that checkpoint.

    Args:
        resumed: the checkpoint; ``None``: nothing is restored.
    """

    def __init__(self, resumed: Resumed | None) -> None:
        self._path = None if resumed is None else resumed.path
        self._done = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._done = True

    @contextmanager
    def errors(self) -> Iterator[None]:
        """For the block in which Lightning trains."""
        try:
            yield
        except RecipeError:
            raise
        except Exception as error:
            if self._path is None or self._done:
                raise
            raise DamagedFileError(f"{self._path}: does not fit this run ({one_line(error)})") from error
