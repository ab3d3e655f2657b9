"""Fit a CRNN to clips, epoch by epoch: knows tensors and labels, not where they come from."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from crnn.data.clips import Clips, fingerprints
from crnn.network.devices import lacks_memory
from crnn.network.model import CRNN
from crnn.training.augment import Augmentation
from crnn.training.metrics import negative_log_likelihood
from crnn.training.state import TrainingError, read_state, write_state
from crnn.training.trainer import Trainer, TrainingConfig


@dataclass(frozen=True)
class Epoch:
    """One row of a training history; accuracies are shares, the learning rate is the epoch's last."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float  # of single classifiers on augmented windows
    valid_loss: float | None  # None where there are no validation clips
    valid_accuracy: float | None  # on clips
    seconds: float


@contextmanager
def room() -> Iterator[None]:
    """Raises TrainingError, which says what takes less memory, where there is not enough."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise TrainingError(
            "There is not enough memory for this training: take a smaller --batch-size, or --accumulation N, which "
            "computes a batch in N parts, or fewer --copies."
        ) from error


@room()
def fit(
    model: CRNN,
    train: Clips,
    config: TrainingConfig,
    augmentation: Augmentation,
    valid: Clips | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    progress: bool = True,
    state: Path | None = None,
    stop_after: int | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> tuple[CRNN, list[Epoch]]:
    """Train `model` and return the average of its weights after the last epoch, on the CPU, and the history.

    The validation clips are only watched, unless `config.patience` has them stop the training: then the average is that
    of the `best_epoch`. `stop_after` is the epoch after which to stop whatever happens; the learning rate follows
    `config.epochs` all the same. `progress` shows a bar on a terminal.

    With `state`, a file, all that the next epoch depends on is saved there before each call of `on_epoch`, and what is
    there already is gone on from: on the same machine it comes to the same weights and history as without a break.
    `notice` is told if it was on another device.

    Processes that a launcher started train one model together when each calls this with the same arguments; the result
    is the same in all of them, and the first one writes `state`.

    Raises TrainingError if the loss is not a number any more, memory runs out or `state` is of another training, and
    OSError if it cannot be written.
    """
    trainer = Trainer(model, train, config, augmentation, valid, progress, bool(state and state.is_file()))
    settings = settings_of(trainer, train, valid) if state else {}
    history, best = gone_on(trainer, state, settings, notice)
    with progress_bar(trainer, len(history)) as bar:
        for number in range(len(history) + 1, (stop_after or config.epochs) + 1):
            if config.patience and history and number - 1 - best_epoch(history) >= config.patience:
                break
            history.append(run_epoch(trainer, number, valid, bar))
            if config.patience and best_epoch(history) == number:
                best = deepcopy(trainer.average.module.state_dict())
            if state:
                keep(trainer, state, settings, history, best if config.patience else None)
            on_epoch(history[-1])
    trainer.average.module.load_state_dict(best)  # without patience, what it has already
    return trainer.average.module.to("cpu", memory_format=torch.contiguous_format).eval(), history


def gone_on(
    trainer: Trainer, state: Path | None, settings: dict, notice: Callable[[str], None]
) -> tuple[list[Epoch], dict]:
    """The history and the best weights so far, and the trainer as it stood: what `state` has, or a beginning."""
    saved = read_state(state, settings, notice) if state else None
    if saved is None:
        return [], trainer.average.module.state_dict()
    best = saved["best"] or trainer.average.module.state_dict()
    trainer.load_state_dict(saved)
    return [Epoch(**row) for row in saved["history"]], best


def keep(trainer: Trainer, state: Path, settings: dict, history: Sequence[Epoch], best: dict | None) -> None:
    """Save all that the next epoch depends on; every process has to call this. Raises OSError."""
    stands = {**trainer.state_dict(), "history": [asdict(row) for row in history], "best": best}
    if trainer.accelerator.is_main_process:
        write_state(state, settings, stands)


def progress_bar(trainer: Trainer, n_epochs: int) -> tqdm:
    """A bar of the batches of a training of which some epochs are over."""
    return tqdm(
        total=trainer.steps,
        initial=n_epochs * trainer.steps // trainer.config.epochs,
        unit="batch",
        dynamic_ncols=True,
        disable=not trainer.shows_progress,
    )


def run_epoch(trainer: Trainer, number: int, valid: Clips | None, bar: tqdm) -> Epoch:
    """Train and validate for one epoch. Raises TrainingError if the loss is not a number any more."""
    started = time.perf_counter()
    loss, accuracy = trainer.epoch(bar)
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss is not a number in epoch {number}; train anew, into another "
            "folder, with a smaller learning rate."
        )
    probabilities = trainer.validate() if valid else None
    return Epoch(
        epoch=number,
        lr=trainer.lr,
        train_loss=loss,
        train_accuracy=accuracy,
        valid_loss=negative_log_likelihood(probabilities, valid.labels) if valid else None,
        valid_accuracy=float((probabilities.argmax(1) == valid.labels).mean()) if valid else None,
        seconds=time.perf_counter() - started,
    )


def best_epoch(history: Sequence[Epoch]) -> int:
    """The number of the epoch with the lowest validation loss; the last where nothing was validated."""
    if history[-1].valid_loss is None:
        return history[-1].epoch
    return min(history, key=lambda row: row.valid_loss).epoch


def settings_of(trainer: "Trainer", train: Clips, valid: Clips | None) -> dict:
    """All that decides what comes out of a training, as numbers, texts and lists of them, in dicts."""
    return {
        "model": asdict(trainer.model.config),
        "training": asdict(trainer.config),
        "augmentation": asdict(trainer.augmenter.augmentation),
        **fingerprints(train, valid),
        "processes": trainer.accelerator.num_processes,
    }
