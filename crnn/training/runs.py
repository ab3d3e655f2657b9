"""A training from its data to its folder: it is validated, refitted, measured, and all that is written down."""

import csv
import json
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from shutil import get_terminal_size

from tqdm import tqdm

from crnn.checkpoint import HISTORY_FILE, METRICS_FILE, UNFIT, optional_text, save
from crnn.data.clips import Clips
from crnn.data.gtzan import Dataset
from crnn.data.heard import n_heard
from crnn.files import write_json
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.terminal import aligned, called_as, cells, fitting
from crnn.training.card import model_card
from crnn.training.evaluation import calibrated, clip_logits, evaluate
from crnn.training.fit import Epoch, best_epoch, fit
from crnn.training.metrics import at_an_end, cross_fitted_metrics, fit_calibration
from crnn.training.processes import SCRIPT, any_of_them, complain, processes
from crnn.training.recipes import NETWORK, Recipe

UNFINISHED = "unfinished"  # the folder in a run's folder that holds where it stands, until it is complete
MOST_CELLS = 24  # of a terminal's line, for the name of a genre
USUAL_TERMINAL = (120, 24)  # where there is none
PACKAGES = ("torch", "torchaudio", "numpy", "scikit-learn", "av")


def train_and_measure(
    recipe: Recipe, dataset: Dataset, out: Path, command: str, refit: bool = True, logs: Path | None = None
) -> None:
    """Validate a recipe, train it again on all clips if it is to be refitted, and write what came of it into `out`.

    `command` is what was typed, for the record; `logs` is a folder for TensorBoard. What `out` has already of this
    training is gone on from.

    Processes that a launcher started train together when each calls this; the first one writes and reports.
    """
    here = processes(recipe.training.device)
    sizes = clips_by_part(dataset)
    record = {
        "protocol": dataset.protocol,
        "clips": sizes,
        "epochs": recipe.training.epochs,
        **provenance(command, recipe),
        **({"processes": here.num_processes} if here.num_processes > 1 else {}),
        **heard_before(recipe, dataset),
    }
    valid = dataset.clips("valid")
    model, history = fit_recipe(recipe, dataset, "train", out, logs, valid)
    if recipe.training.patience:
        record["chosen_epoch"] = best_epoch(history)
    if here.is_main_process:
        logits = clip_logits(model, valid)
        calibration = fit_calibration(logits, valid.labels, model.config.evidence)
        record["valid"] = cross_fitted_metrics(logits, valid.labels, dataset.genres, model.config.evidence)
        write_run(out, "validated" if refit else "model", calibrated(model, calibration), record, history)
        write_curves(out, history)
        write_figures(out, "valid", record["valid"])
        print_figures("valid", record["valid"])
        if notice := at_an_end(calibration.temperature):
            complain(notice)
    if refit:
        print("The same on training and validation clips:")
        model, _ = fit_recipe(recipe, dataset, "train+valid", out, logs, stop_after=record.get("chosen_epoch"))
    if not here.is_main_process:
        return
    model = calibrated(model, calibration)
    if "test" in sizes:
        record["test"] = evaluate(model, dataset.clips("test"))
        write_figures(out, "test", record["test"])
        print_figures("test", record["test"])
    write_run(out, "model", model, record, history)
    shutil.rmtree(out / UNFINISHED)
    print(f"{out / 'model'} is the model.")


def clips_by_part(dataset: Dataset) -> dict[str, int]:
    """The number of clips of each part that has any."""
    return {part: len(index) for part, index in dataset.splits.items() if len(index)}


def heard_before(recipe: Recipe, dataset: Dataset, parts: Sequence[str] = ("valid", "test")) -> dict[str, list[str]]:
    """Under "heard", those of these parts that the model which the recipe starts from was trained on, if any."""
    there = [part for part in parts if len(dataset.splits[part])] if recipe.base else []
    heard = [part for part in there if dataset.is_heard_by(recipe.base.model, part)]
    return {"heard": heard} if heard else {}


def is_calibrated_by(model: CRNN, origin: Origin, dataset: Dataset, split: str) -> bool:
    """Whether its training took a model's temperature and border from this part, which it has not learned from."""
    record = _record(origin)
    if split != "valid" or "calibration" in record:  # that of a cross-validation
        return False
    is_same = (record.get("protocol"), record.get("clips")) == (dataset.protocol, clips_by_part(dataset))
    return is_same and dataset.is_heard_by(model, "train") and not dataset.is_heard_by(model, "valid")


def n_calibrating(origin: Origin, clips: Clips) -> int:
    """How many of these clips a cross-validation held out whose answers calibrated a model."""
    record = _record(origin)
    held_out = record["calibration"].get("held_out") if isinstance(record.get("calibration"), dict) else None
    return n_heard(held_out, clips.features) if isinstance(held_out, str) else 0


def _record(origin: Origin) -> dict:
    """The metrics.json of a model; empty if it has none, or one that others than train.py wrote."""
    try:
        record = json.loads(optional_text(origin.folder, METRICS_FILE)) if origin.folder else {}
    except UNFIT:
        return {}
    return record if isinstance(record, dict) else {}


def fit_recipe(
    recipe: Recipe,
    dataset: Dataset,
    parts: str,
    out: Path,
    logs: Path | None,
    valid: Clips | None = None,
    stop_after: int | None = None,
) -> tuple[CRNN, list[Epoch]]:
    """Train a recipe on some parts of the data, from where it stands in the folder of the run."""
    here, clips = processes(recipe.training.device), dataset.clips(parts)
    if not here.is_main_process:
        logs = None
    with stopping_after_the_epoch(here.is_main_process) as stop_if_asked, logging_to(logs and logs / parts) as log:

        def on_epoch(epoch: Epoch) -> None:
            if here.is_main_process:
                report(epoch)
            log(epoch)
            stop_if_asked()

        model, history = fit(
            recipe.build(dataset.genres),
            clips,
            recipe.training,
            recipe.augmentation,
            valid,
            on_epoch,
            state=out / UNFINISHED / f"{parts}.pt",
            stop_after=stop_after,
            notice=complain,
        )
    past = {"trained_on": recipe.trained_on(dataset.protocol, parts), "heard": recipe.heard(clips.features)}
    model.config = replace(model.config, **past)
    return model, history


@contextmanager
def logging_to(folder: Path | None) -> Iterator[Callable[[Epoch], None]]:
    """A function that logs an epoch for TensorBoard; without a folder it does nothing."""
    if folder is None:
        yield lambda _: None
        return
    with import_module("torch.utils.tensorboard").SummaryWriter(folder) as writer:

        def log(epoch: Epoch) -> None:
            for name, value in asdict(epoch).items():
                part, _, figure = name.rpartition("_")
                if value is not None and name != "epoch":
                    writer.add_scalar(f"{figure}/{part}" if part else name, value, epoch.epoch)
            writer.flush()

        yield log


@contextmanager
def stopping_after_the_epoch(says_so: bool) -> Iterator[Callable[[], None]]:
    """Until the block is left, the first Ctrl-C makes only the function that it gives raise KeyboardInterrupt.

    It does so in all processes if one of them was asked to stop. The second Ctrl-C does so at once.
    """
    asked, said = False, f"\n{called_as(SCRIPT)}: stopping after this epoch; Ctrl-C again stops at once.\n".encode()

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if says_so:  # by a call that no signal can come into
            with suppress(OSError):  # a disk that is full
                os.write(2, said)

    def stop_if_asked() -> None:
        if any_of_them(asked):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)


def provenance(command: str, recipe: Recipe) -> dict:
    """What made a result: the command, the recipe and the versions."""
    return {
        "command": command,
        "recipe": {**recipe.settings(), "network": {**NETWORK, **recipe.network}},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def report(epoch: Epoch) -> None:
    """One line an epoch, above the progress bar."""
    tqdm.write(line_of(epoch), file=sys.stdout, nolock=True)
    sys.stdout.flush()


def report_fold(number: int, epoch: Epoch) -> None:
    """The same of one fold among others, whose processes write at the same time: only a line in one piece stays one."""
    sys.stdout.write(f"fold {number + 1}  {line_of(epoch)}\n")
    sys.stdout.flush()


def line_of(epoch: Epoch) -> str:
    """An epoch in a line."""
    valid = (
        f"  valid loss {epoch.valid_loss:.3f} accuracy {epoch.valid_accuracy:.3f}"
        if epoch.valid_loss is not None
        else ""
    )
    return (
        f"epoch {epoch.epoch:3d}  lr {epoch.lr:.1e}"
        f"  train loss {epoch.train_loss:.3f} accuracy {epoch.train_accuracy:.3f}{valid}  {epoch.seconds:.1f} s"
    )


def write_run(out: Path, name: str, model: CRNN, record: dict, history: list[Epoch]) -> None:
    """Write a model with its card, metrics.json and history.csv."""
    record = {
        **record,
        "trained_on": model.config.trained_on,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    save(model, out / name, model_card(model, record))
    for folder in (out, out / name):  # beside the model, too, for the page that shows where it comes from
        write_json(folder / METRICS_FILE, record)
        write_history(folder, history)


def write_history(folder: Path, history: list[Epoch]) -> None:
    """Write history.csv."""
    with (folder / HISTORY_FILE).open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        rows.writeheader()
        rows.writerows(asdict(epoch) for epoch in history)


def write_curves(out: Path, history: list[Epoch]) -> None:
    """Draw curves.png."""
    from crnn import plots  # noqa: PLC0415 (only who draws needs Matplotlib)

    plots.save_picture(plots.curves([asdict(epoch) for epoch in history]), out / "curves.png")


def write_figures(out: Path, part: str, figures: dict) -> None:
    """Draw confusion-<part>.png and reliability-<part>.png."""
    from crnn import plots  # noqa: PLC0415

    plots.save_picture(plots.confusion_matrix(figures["confusion"], figures["genres"]), out / f"confusion-{part}.png")
    plots.save_picture(plots.reliability(figures["reliability"]), out / f"reliability-{part}.png")


def print_figures(part: str, figures: dict) -> None:
    """The figures of one evaluation, readable."""
    print(
        f"{part}: {figures['n']} clips, accuracy {figures['accuracy']:.3f} ± {figures['accuracy_error']:.3f}, "
        f"macro-F1 {figures['macro_f1']:.3f}, negative log-likelihood {figures['nll']:.3f}"
    )
    print(
        f"expected calibration error {figures['ece']:.3f} (perfect calibration would show "
        f"{figures['ece_by_chance']:.3f} on so many clips)"
    )
    right = "" if figures["answered_right"] is None else f", {figures['answered_right']:.1%} of these right"
    print(f'answered rather than "unsure": {figures["answered"]:.1%}{right}')
    recall = (f"{genre} {value:.2f}" for genre, value in figures["per_genre"].items() if value is not None)
    print(f"recall: {', '.join(recall)}")


def print_confusion(figures: dict) -> None:
    """The confusion matrix as a table: a row is a true genre, a column an answer.

    Columns have the numbers of rows where names would not fit into the terminal.
    """
    rows = [fitting(genre, MOST_CELLS) for genre in figures["genres"]]
    heads, first = rows, "confusion"
    width = max(5, *map(cells, heads)) + 1
    if width * (1 + len(heads)) > get_terminal_size(USUAL_TERMINAL).columns:
        heads = [str(number) for number in range(1, len(heads) + 1)]
        rows = [f"{number:>2} {genre}" for number, genre in zip(heads, rows, strict=True)]
        width = max(len(str(count)) for row in (heads, *figures["confusion"]) for count in row) + 1
    margin = max(map(cells, (first, *rows)))
    for name, row in zip((first, *rows), (heads, *figures["confusion"]), strict=True):
        print(aligned(name, margin) + "".join(aligned(str(cell), width, is_right=True) for cell in row))
