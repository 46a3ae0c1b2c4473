"""``hybridkern.lab.fit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import nn

from hybridkern._arguments import as_number, short
from hybridkern._saved.built import Built, mark_started
from hybridkern._saved.files import CONFIG, WEIGHTS, describe, differs, read_json, write_folder, write_json
from hybridkern.flows import Flow
from hybridkern.hybrid import HybridModel
from hybridkern.hybrid.objectives import Convex, JacobianWeighted, Joint, Objective, Separate, Weighted
from hybridkern.hybrid.vae import VAE
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE
from hybridkern.lab.fitting.callbacks import Keep, Line, Pace, WholeEpochs
from hybridkern.lab.fitting.history import History
from hybridkern.lab.fitting.inputs import Rows, as_rows, check_classes, check_shapes, split
from hybridkern.lab.fitting.module import FitModule, generators_kept, observe
from hybridkern.lab.fitting.settings import Settings, placed_on
from hybridkern.lab.recipes.checkpoints import Restoring, Resumed, SealedCheckpointIO, has_any, newest
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.interrupts import interruptible
from hybridkern.lab.recipes.lock import locked
from hybridkern.lab.recipes.training import quiet_lightning

HISTORY, CHECKPOINTS = "history.json", "checkpoints"
_HELD, _DATA, _MODEL = "validation_sha256", "data_sha256", "model"
_ROWS = {_DATA: "x, y, context", _HELD: "validation"}
_MAY_CHANGE = ("epochs", "minutes", "patience", "device")
_LABELLED = (Convex, JacobianWeighted, Joint, Separate, Weighted)  # which learn from labelled rows only
_EPOCHS = 100
_SAMPLE = 10_000  # rows that actnorm, priors and heads start from


def fit(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    context: Any = None,
    objective: Objective | None = None,
    validation: Any = 0.1,
    epochs: int | None = None,
    minutes: float | None = None,
    patience: int = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    clip: float | None = 50.0,
    schedule: str = "cosine",
    initialize: bool | None = None,
    device: str = "auto",
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains ``model`` in place on arrays, and leaves it in evaluation mode with the weights of its best epoch.

    Args:
        model: a flow, a :class:`~hybridkern.hybrid.HybridModel`, or a variational autoencoder of
            :mod:`hybridkern.hybrid.vae`.
        x: examples ``(N, *shape)``: an array, a tensor or a table of numbers, converted to the model's dtype. Flows on
            real numbers train best where each column is about 0 with standard deviation 1.
        y: targets ``(N,)``: classes 0, 1, ... (-1: unknown, for ``SemiSupervised`` and autoencoders), or numbers.
            ``None``: only ``p(x)`` is trained.
        context: conditions ``(N, width)`` of a flow that has them.
        objective: of a hybrid model with targets; ``None``: ``Weighted(1.0, per_dimension=True)``, that is
            ``-log p(y|x) - log p(x) / D``.
        validation: share of the rows that are held out, a tuple ``(x, y)`` (or ``(x, y, context)``) of rows of their
            own, or 0 for none: then nothing stops the training early and the last weights are kept.
        epochs: the most passes over the data; 100 where ``minutes`` is ``None`` too.
        minutes: the most wall time.
        patience: training stops after more than this many epochs without a lower validation loss.
        batch_size: examples per step.
        lr, weight_decay: of AdamW.
        clip: largest norm of the gradient; ``None``: any.
        schedule: ``"cosine"``: the learning rate falls to 0 over ``epochs`` or ``minutes``; ``"constant"``.
        initialize: whether actnorm, priors and the normalization of heads, that of targets too, start from the data.
            ``None``: a flow and a head each where it was neither trained by this function nor loaded before, by
            ``load_state_dict`` too; a head also where it was trained without targets. A loop of your own is not known
            here: give ``False`` after it, and ``True`` where weights from before a training were loaded.
        device: ``"auto"`` (a GPU where torch sees one), ``"cpu"`` or ``"cuda"``. The model comes back to where it was.
        seed: of the held-out rows, the order and the noise. Torch's own generators are left as they were.
        out: a folder for the model, ``history.json`` and checkpoints; :func:`hybridkern.load` reads it.
        resume: go on with the training in ``out`` from its last whole epoch; with more ``epochs`` or ``minutes`` a
            finished one too. Begins where ``out`` holds no training and no model.
        progress: whether a line on standard error shows how far the training is.

    Returns:
        The record of the training.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; nothing has been trained then. A value
            that is not finite, and a label that is no class, is named by argument and row; a column that the model's
            dtype would round by more than a hundredth of its standard deviation, by argument and column.
        TrainingError: a loss is not finite; the message names the epoch and the layer. The model has the weights of
            the best epoch until then.
        KeyboardInterrupt: after Ctrl-C, with the weights of the best epoch until then; ``resume=True`` goes on.
    """
    if not isinstance(model, (Flow, HybridModel, VAE, SemiSupervisedVAE)):
        raise TypeError(f"model: got {short(model)}, expected a flow, a HybridModel or an autoencoder of hybridkern")
    if objective is not None and not isinstance(objective, Objective):
        raise TypeError(f"objective: got {short(objective)}, expected one of hybridkern.hybrid.objectives")
    if resume and out is None:
        raise ValueError("resume: got True without a folder, expected out, the folder of the training")
    epochs = _EPOCHS if epochs is None and minutes is None else epochs
    settings = Settings(epochs, minutes, patience, batch_size, lr, weight_decay, clip, schedule, seed, device)
    rows = as_rows(model, x, y, context)
    if rows.context is not None and not isinstance(model, Flow):
        raise TypeError(f"context: got one, but {type(model).__name__} takes none; expected a flow with a context")
    train, held = _parts(model, rows, validation, seed)
    objective = _objective(model, rows, objective)
    own = isinstance(validation, (tuple, list))
    check_shapes(model, {"x": rows} | ({"validation[0]": held} if own else {}))
    _check_can_learn(model, objective, {"y": rows} | ({"validation[1]": held} if own else {}))
    described = "-log p(x), nats per example" if objective is None else objective.describe()
    history = History(settings=settings.record() | {"objective": described})
    history.settings |= {"rows": len(train), "validation_rows": len(held), _DATA: rows.digest()}
    if own:
        history.settings[_HELD] = held.digest()
    console = Console(stderr=True, quiet=not progress)
    folder = None if out is None else Path(out)
    _fit(model, objective, (train, held), settings, history, folder, resume, initialize, console)
    return history


def _check_can_learn(model: nn.Module, objective: Objective | None, parts: dict[str, Rows]) -> None:
    """Labels that are classes, by the name of their argument, parameters that may change, and gradients.

    Raises:
        ValueError: a label is no class, or all parameters are frozen.
        RuntimeError: under inference mode.
    """
    for name, rows in parts.items():
        check_classes(model, rows, not isinstance(objective, _LABELLED), name)
    if not any(value.requires_grad for value in model.parameters()):
        raise ValueError("model: got parameters that are all frozen, expected some that require a gradient")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "fit: called under torch.inference_mode, where nothing learns; expected a call outside of it"
        )


def _fit(
    model: nn.Module,
    objective: Objective | None,
    parts: tuple[Rows, Rows],
    settings: Settings,
    history: History,
    folder: Path | None,
    resume: bool,
    initialize: bool | None,
    console: Console,
) -> None:
    train, held = parts
    pace = Pace(settings.epochs, settings.minutes, -(-len(train) // settings.batch_size))
    module = FitModule(model, objective, settings, pace)
    keep = Keep(history, pace, train, held, settings.patience)
    callbacks: list[Callback] = [keep, Line(history, pace, console)]
    home = next(model.parameters()).device
    with ExitStack() as stack:
        resumed = None
        if folder is not None:
            model_written = describe(model)  # before anything is trained: what cannot be saved says so now
            resumed = _begun(stack, folder, history, module, model_written, resume, console)
            callbacks.append(WholeEpochs(folder / CHECKPOINTS, len(train)))
        stack.enter_context(generators_kept())
        stack.enter_context(_weights_cast_anew())
        if resumed is None and initialize is not False:
            torch.manual_seed(settings.seed)
            _initialize(model, train, again=initialize is True)
        _set_training(model)
        for part in (model, *_starting(model, train)):
            mark_started(part)
        marks = [(part, part._started) for part in model.modules() if isinstance(part, Built)]
        batches = _Batches(train, settings.batch_size, settings.seed)
        try:
            _train(module, batches, callbacks, resumed, pace, settings)
        finally:
            model.to(home)
            if keep.weights is not None:
                model.load_state_dict(keep.weights)
            for part, started in marks:  # weights and checkpoints of its own say nothing of a head without targets
                mark_started(part, started)
            model.eval()
        observe(model, train)
        done = len(history.epochs)  # of a training that went on, more than the epochs asked for
        history.stopped = history.stopped or f"{done} epoch{'s were' if done > 1 else ' was'} done"
        if folder is not None:
            write_folder(model, folder, model_written)
            write_json(folder / HISTORY, history.record() | {_MODEL: model_written})


@contextmanager
def _weights_cast_anew() -> Iterator[None]:
    """Under autocast of the caller's, whose copies of the weights would be kept through all steps otherwise."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
        torch.clear_autocast_cache()


class _Batches:
    """Batches in an order that is a function of seed and epoch."""

    def __init__(self, rows: Rows, size: int, seed: int) -> None:
        self.rows, self.size, self.seed, self.epoch = rows, size, seed, 0
        # Lightning calls set_epoch of what a loader holds as its sampler
        self.sampler, self.batch_sampler = self, None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        for picked in torch.randperm(len(self.rows), generator=generator).split(self.size):
            yield self.rows.at(picked)


def _train(
    module: FitModule,
    batches: _Batches,
    callbacks: list[Callback],
    resumed: Resumed | None,
    pace: Pace,
    settings: Settings,
) -> None:
    restoring, device = Restoring(resumed), placed_on(settings.device)
    if resumed is not None:
        resumed.restore(callbacks[0])
        if pace() >= 1:
            return  # nothing is left to do
    with quiet_lightning(), restoring.errors():
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=1 if device.type == "cpu" or device.index is None else [device.index],
            max_epochs=-1 if pace.epochs is None else pace.epochs,
            callbacks=[*callbacks, restoring],
            plugins=[SealedCheckpointIO()],
            gradient_clip_val=settings.clip,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=len(callbacks) > 2,
        )
        with interruptible(trainer):
            trainer.fit(module, batches, ckpt_path=None if resumed is None else resumed.path)


def _begun(
    stack: ExitStack,
    folder: Path,
    history: History,
    module: FitModule,
    model_written: dict[str, Any],
    resume: bool,
    console: Console,
) -> Resumed | None:
    """Holds the folder; the checkpoint to go on from, where there is one and it is asked for.

    Raises:
        ValueError: the folder holds something, or where a training may go on, a model without one, another training
            than this one, or no checkpoint of a finished one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(folder))
    begun = folder / HISTORY
    if not resume:
        if any(folder.iterdir()):
            raise ValueError(f"out: got {folder}, which is not empty; expected another folder, or resume=True")
    elif not begun.exists():
        for name in (CONFIG, WEIGHTS):  # which this training would replace; logs and the like it leaves alone
            if (folder / name).exists():
                raise ValueError(f"out: got {folder}, which holds no training but '{name}'; expected another folder")
    else:
        _require_same(folder, read_json(begun), history, module.model)
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    found = newest(folder / CHECKPOINTS, module, console) if resume else None
    if found is None:
        write_json(begun, history.record() | {_MODEL: model_written})
    return found


def _require_same(folder: Path, written: dict[str, Any], history: History, model: nn.Module) -> None:
    """The training that ``history.json`` of a folder says was begun there must be this one, and able to go on.

    Raises:
        ValueError: it is another, is no training, or is finished and has no checkpoint.
    """
    epochs, before = written.get("epochs"), written.get("settings")
    if not isinstance(epochs, list) or not isinstance(before, dict):
        raise ValueError(f"{folder / HISTORY}: holds no training of hybridkern; expected another folder in out")
    if epochs and not has_any(folder / CHECKPOINTS):
        raise ValueError(f"resume: {folder} holds a finished training, and no checkpoint to go on from any more")
    for name, value in history.settings.items():
        known = before.get(name, value if name == _HELD else None)  # older folders do not hold it
        if name in _ROWS and known != value:
            raise ValueError(f"{_ROWS[name]}: got other rows than those of the training in {folder}")
        if name not in _MAY_CHANGE and known != value:
            raise ValueError(f"{name}: got {value!r}, but the training in {folder} has {known!r}")
    # nor this; weights of the same shapes may mean something else
    other = differs(model, written[_MODEL]) if _MODEL in written else None
    if other:
        raise ValueError(f"model: got one that is built otherwise than that of the training in {folder}: {other}")


def _parts(model: nn.Module, rows: Rows, validation: Any, seed: int) -> tuple[Rows, Rows]:
    if isinstance(validation, (tuple, list)):
        names = [f"validation[{i}]" for i in range(3)]
        if not 1 <= len(validation) <= 3:
            raise ValueError(f"validation: got {len(validation)} arrays, expected (x,), (x, y) or (x, y, context)")
        x, y, context = [*validation, None, None][:3]
        held = as_rows(model, x, y, context, names)
        if (held.y is None) != (rows.y is None) or (held.context is None) != (rows.context is None):
            raise ValueError("validation: got other kinds of rows than those to train on, expected the same")
        return rows, held
    share = as_number("validation", validation, lambda v: 0 <= v < 1, "a share from 0 to below 1, or arrays")
    return split(rows, share, seed)


def _objective(model: nn.Module, rows: Rows, objective: Objective | None) -> Objective | None:
    if not isinstance(model, HybridModel) or rows.y is None:
        if objective is not None:
            raise ValueError("objective: got one, expected none: there are no targets that a head predicts")
        return None
    return Weighted(1.0, per_dimension=True) if objective is None else objective


def _starting(model: nn.Module, rows: Rows) -> list[nn.Module]:
    """What starts from these rows: the flow, or the model itself; and the head, which needs targets to be trained."""
    head = getattr(model, "head", None)
    return [getattr(model, "flow", model)] + ([] if head is None or rows.y is None else [head])


def _set_training(model: nn.Module) -> None:
    """Training mode for what was left in evaluation mode by a training or by loading, of another model, too.

    What is in it for a reason stays so: parts of a model that was seen before, and all that is frozen.
    """
    if not model.training:
        model.train()
    elif not getattr(model, "_started", False):
        for name in ("flow", "head"):
            part: Any = getattr(model, name, None)
            left = getattr(part, "_started", False) and not part.training
            if left and any(value.requires_grad for value in part.parameters()):
                part.train()


def _initialize(model: nn.Module, rows: Rows, again: bool) -> None:
    """Starts what starts from data: the flow, then its head, on a sample of the rows; what has started, ``again``.

    Either may have come from another model: what a flow has learnt there would be lost.
    """
    part = rows.at(slice(None, None, max(1, len(rows) // _SAMPLE)))
    flow: Any = getattr(model, "flow", model)
    given = {} if part.context is None else {"context": part.context}
    if hasattr(flow, "initialize") and (again or not getattr(flow, "_started", False)):
        flow.initialize(part.x, **given)
    head: Any = getattr(model, "head", None)
    if head is not None and (again or not getattr(head, "_started", False)):
        varied = part.y is not None and bool((part.y != part.y[0]).any())
        with evaluating(model), generators_kept():
            head.initialize(flow(part.x)[0], part.y if varied else None)
