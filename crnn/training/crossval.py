"""Cross-validation: every clip is answered once by a model that has not heard it, nor its artist if groups say so."""

import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crnn.data.clips import Clips
from crnn.features import DatasetError
from crnn.files import whole_file
from crnn.training.evaluation import clip_logits
from crnn.training.fit import Epoch, fit
from crnn.training.metrics import cross_fitted_metrics
from crnn.training.recipes import Recipe
from crnn.training.state import MACHINE, TrainingError, differences

SETTINGS_FILE = "settings.json"


def fold_indices(
    labels: np.ndarray, groups: Sequence[str] | None, n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The clips to train on and those held out, for each fold; genres are spread evenly, groups kept together.

    Raises TrainingError if there are too few clips, or groups, of a genre for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415

    names = np.arange(len(labels)) if groups is None else np.array(groups)
    fewest = min(len(np.unique(names[labels == label])) for label in np.unique(labels))
    if not 2 <= n_folds <= fewest:
        kind = "clips" if groups is None else "groups"
        raise TrainingError(f"The number of folds must be 2 to {fewest}, the {kind} of the smallest genre.")
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, names))


def cross_validate(
    clips: Clips,
    genres: tuple[str, ...],
    groups: Sequence[str] | None,
    recipe: Recipe,
    n_folds: int,
    folder: Path,
    jobs: int,
    report: Callable[[int, Epoch], None],
) -> dict:
    """Train and measure `n_folds` models, `jobs` at a time in processes of their own; what `folder` has is not redone.

    A fold that was stopped goes on after its last epoch.

    Returns the figures: the keys of `crnn.training.metrics.metrics` for all clips together, "folds" with n, accuracy,
    nll and seconds of each, and "spread", the standard deviation of the folds' accuracies. `report` gets the number of
    a fold and an epoch, in the fold's process. Raises TrainingError if the folder holds folds of other settings or a
    fold fails.
    """
    folds = fold_indices(clips.labels, groups, n_folds, recipe.training.seed)
    _claim(folder, {"recipe": recipe.settings(), "folds": n_folds, "clips": _fingerprint(clips, groups)})
    threads = max(1, torch.get_num_threads() // jobs)

    def process_of(number: int) -> BaseProcess | None:
        path = _path(folder, number)
        if path.is_file():
            return None
        train, held_out = (clips.select(index) for index in folds[number])
        arguments = (number, recipe, genres, train, held_out, path, threads, report)
        return multiprocessing.get_context("spawn").Process(target=_run_fold, args=arguments, daemon=True)

    _side_by_side(process_of, n_folds, jobs)
    return _summary(clips, genres, folds, folder)


def _side_by_side(process_of: Callable[[int], BaseProcess | None], n_folds: int, jobs: int) -> None:
    """Run the processes of all folds that have one, `jobs` at a time.

    Raises TrainingError if one fails; then, or if this one is stopped, none goes on.
    """
    running: list[BaseProcess] = []

    def run(number: int) -> None:
        process = process_of(number)
        if process is None:
            return
        running.append(process)
        process.start()
        process.join()
        if process.exitcode:
            raise TrainingError(
                f"Fold {number + 1} failed; its reason stands above. The same command goes on from here."
            )

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(run, range(n_folds)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _run_fold(
    number: int,
    recipe: Recipe,
    genres: tuple[str, ...],
    train: Clips,
    held_out: Clips,
    path: Path,
    threads: int,
    report: Callable[[int, Epoch], None],
) -> None:
    """Train the model of one fold and write the logits of the clips held out."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def on_epoch(epoch: Epoch) -> None:
        if not parent.is_alive():  # killed, so that it could not stop its children
            raise SystemExit(1)
        report(number, epoch)

    try:
        model, history = fit(
            recipe.build(genres),
            train,
            recipe.training,
            recipe.augmentation,
            held_out,
            on_epoch,
            progress=False,
            state=path.with_suffix(".pt"),
            notice=lambda text: print(f"Fold {number + 1}: {text}", file=sys.stderr),
        )
        logits = clip_logits(model, held_out)
        with whole_file(path) as file:
            np.savez(
                file,
                logits=torch.cat(logits).numpy(),
                windows=[len(clip) for clip in logits],
                seconds=sum(epoch.seconds for epoch in history),
            )
        path.with_suffix(".pt").unlink(missing_ok=True)
    except KeyboardInterrupt:  # the parent says so
        raise SystemExit(1) from None
    except (DatasetError, TrainingError, OSError) as error:
        raise SystemExit(f"Fold {number + 1}: {error}") from None


def _summary(clips: Clips, genres: tuple[str, ...], folds: list[tuple[np.ndarray, np.ndarray]], folder: Path) -> dict:
    logits: list[Tensor | None] = [None] * len(clips)
    rows = []
    for number, (_, held_out) in enumerate(folds):
        with np.load(_path(folder, number)) as file:
            parts = torch.from_numpy(file["logits"]).split(file["windows"].tolist())
            seconds = float(file["seconds"])
        for index, part in zip(held_out, parts, strict=True):
            logits[index] = part
        figures = cross_fitted_metrics(parts, clips.labels[held_out], genres)
        rows.append({key: figures[key] for key in ("n", "accuracy", "nll")} | {"seconds": seconds})
    spread = float(np.std([row["accuracy"] for row in rows], ddof=1))
    return {**cross_fitted_metrics(logits, clips.labels, genres), "folds": rows, "spread": spread}


def _path(folder: Path, number: int) -> Path:
    return folder / f"fold-{number + 1}.npz"


def _fingerprint(clips: Clips, groups: Sequence[str] | None) -> str:
    """Tells clips, their contents and their groups from others."""
    return sha256("\n".join([clips.fingerprint(), *clips.features.track_id, *(groups or [])]).encode()).hexdigest()


def _claim(folder: Path, settings: dict) -> None:
    """Note in `folder` what its folds are of. Raises TrainingError if they are of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS_FILE
    text = json.dumps(settings, indent=2) + "\n"
    try:
        others = differences(json.loads(path.read_text(encoding="utf-8")), json.loads(text)) if path.is_file() else ()
    except ValueError:
        others = [(SETTINGS_FILE, "")]
    if any(name not in MACHINE for name, _ in others):
        raise TrainingError(f"{folder} holds folds of other clips or settings; give another --out.")
    path.write_text(text, encoding="utf-8")
