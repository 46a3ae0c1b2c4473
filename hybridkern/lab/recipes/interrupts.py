"""Ctrl-C during training: it ends the loop wherever it comes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class _Noted(Callback):
    """Raises once more at the next batch: Python drops an exception that comes up in a finalizer."""

    asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python does, which is remembered."""
        self.asked = True
        signal.default_int_handler(number, frame)

    def on_train_batch_start(self, *_: Any) -> None:
        """Of Lightning."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Around ``trainer.fit``: Ctrl-C ends it with ``KeyboardInterrupt``, once the trainer has shut down.

    Lightning turns Ctrl-C into exit code 1; the command line has its own code and a word on how to go on. Another
    handler than Python's own stays in charge.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if here else None
    if here and before is signal.default_int_handler:
        noted = _Noted()
        trainer.callbacks.append(noted)  # type: ignore[attr-defined]
        signal.signal(signal.SIGINT, noted.handle)
    try:
        yield
    except SystemExit as stop:
        if trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise
    finally:
        if here and before is not None:
            signal.signal(signal.SIGINT, before)
