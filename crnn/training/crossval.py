"""Cross-validation: every clip is answered once by a model that has not heard it, nor its artist or genre if asked."""

import json
import multiprocessing
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from crnn.checkpoint import METRICS_FILE, UNFIT
from crnn.data.clips import Clips
from crnn.data.copies import copies_of
from crnn.data.features import DAMAGE, DatasetError
from crnn.data.names import listed
from crnn.data.workers import started
from crnn.files import whole_file, write_json
from crnn.network.devices import lacks_memory
from crnn.terminal import called_as
from crnn.training.evaluation import clip_logits
from crnn.training.fit import Epoch, fit
from crnn.training.metrics import cross_fitted_metrics, mean_probabilities
from crnn.training.processes import SCRIPT
from crnn.training.recipes import Recipe
from crnn.training.state import MACHINE, TrainingError, differences

SETTINGS_FILE = "settings.json"
OF_GENRES = "genres"  # what the settings call folds that have a genre each
FORMAT = 2  # of the files of folds
FOLDS = 5  # if no number is asked for


class Fold(NamedTuple):
    """What one model of a cross-validation learns, and what it is asked."""

    genres: tuple[str, ...]  # that it learns
    train: np.ndarray  # indices of clips
    held_out: np.ndarray  # likewise


def folds_of(
    labels: np.ndarray, genres: tuple[str, ...], groups: Sequence[str] | None, kind: str, n_folds: int | None, seed: int
) -> list[Fold]:
    """Folds over which genres are spread evenly and groups, which are called a `kind`, kept together.

    Raises TrainingError if there are too few clips, or groups, of a genre for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415

    names = np.arange(len(labels)) if groups is None else np.array(groups)
    counts = {genre: len(np.unique(names[labels == label])) for label, genre in enumerate(genres)}
    genre, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < 2:
        raise TrainingError(f"{genre!r} has a single {kind}, and a cross-validation takes two of each genre or more.")
    if not 2 <= (n_folds or FOLDS) <= fewest:
        possible = "2 only" if fewest == 2 else f"2 to {fewest}"
        default = "" if n_folds else f" ({FOLDS} is the default)"
        raise TrainingError(f"{genre!r} has {fewest} {kind}s, so that --folds can be {possible}{default}.")
    splitter = StratifiedGroupKFold(n_folds or FOLDS, shuffle=True, random_state=seed)
    folds = [Fold(genres, *parts) for parts in splitter.split(labels, labels, names)]
    for number, fold in enumerate(folds, start=1):
        if len(fold.held_out) < 2 or len(np.unique(labels[fold.train])) < len(genres):
            way = "take fewer --folds" if len(folds) > 2 else f"take more {kind}s"
            raise TrainingError(f"Fold {number} would lack a genre to learn, or clips to ask: {way}.")
    return folds


def folds_without_a_genre(clips: Clips, genres: tuple[str, ...]) -> list[Fold]:
    """A fold for each genre, whose model has not heard of it.

    Raises TrainingError if it would know a single one, or one of which copies of what is left out are all there is.
    """
    if len(genres) < 3:
        raise TrainingError("To leave out a genre takes three genres or more.")
    songs, folds = copies_of(clips.features), []
    for label in range(len(genres)):
        is_held = clips.labels == label
        is_heard = ~is_held & ~np.isin(songs, songs[is_held])  # nor is a copy that is in another genre
        others = (*genres[:label], *genres[label + 1 :])
        if copied := [name for name in others if genres.index(name) not in clips.labels[is_heard]]:
            raise TrainingError(
                f"All clips of {listed(copied)} are copies of songs in {genres[label]!r}, so that a model that has not "
                "heard these has none to learn from: keep each song in one genre."
            )
        folds.append(Fold(others, np.flatnonzero(is_heard), np.flatnonzero(is_held)))
    return folds


class Answers(NamedTuple):
    """What a model made of clips that it had not heard."""

    genres: tuple[str, ...]  # that it knows
    truths: list[str]  # the genre of each clip, known or not
    logits: list[Tensor]  # of each clip, (n_windows, n_genres)
    seconds: float  # of the training


def cross_validate(
    clips: Clips,
    genres: tuple[str, ...],
    groups: Sequence[str] | None,
    folds: Sequence[Fold],
    recipe: Recipe,
    folder: Path,
    jobs: int,
    report: Callable[[int, Epoch], None],
) -> dict:
    """Train and measure a model for each of the folds that `folds_of` made of these clips, genres and groups.

    They work `jobs` at a time in processes of their own; what `folder` has is not redone. A fold that was stopped goes
    on after its last epoch.

    Returns the figures: the keys of `crnn.training.metrics.metrics` for all clips together, "folds" with n, accuracy,
    nll and seconds of each, and "spread", the standard deviation of the folds' accuracies. `report` gets the number of
    a fold and an epoch, in the fold's process. Raises TrainingError if the folder holds folds of other settings or a
    fold fails.
    """
    settings = {"recipe": recipe.settings(), "folds": len(folds), "clips": _fingerprint(clips, groups)}
    answers = _run(folds, clips, genres, recipe, folder, settings, jobs, report)
    return _summary(clips, genres, folds, answers, recipe.config(genres).evidence)


def leave_genres_out(
    clips: Clips,
    genres: tuple[str, ...],
    folds: Sequence[Fold],
    recipe: Recipe,
    folder: Path,
    jobs: int,
    report: Callable[[int, Epoch], None],
) -> dict:
    """Train a model without each genre in turn, and ask it about the clips of that genre, as a stranger would.

    The folds are those of `folds_without_a_genre`; it works like `cross_validate`, and raises the same. Returns under
    "left_out", for each genre, n, seconds and "taken_for", the share of its clips for which each of the others was the
    most probable.
    """
    settings = {"recipe": recipe.settings(), "folds": OF_GENRES, "clips": _fingerprint(clips, None)}
    rows, evidence = {}, recipe.config(genres).evidence
    for genre, of_fold in zip(genres, _run(folds, clips, genres, recipe, folder, settings, jobs, report), strict=True):
        answers = mean_probabilities(of_fold.logits, evidence=evidence)
        given = Counter(of_fold.genres[label] for label in answers.argmax(axis=1))
        taken_for = {name: count / given.total() for name, count in given.most_common()}
        rows[genre] = {"n": len(of_fold.truths), "taken_for": taken_for, "seconds": of_fold.seconds}
    return {"left_out": rows}


def read_answers(folder: Path) -> list[Answers]:
    """What the folds of a finished cross-validation in `folder` said.

    Raises TrainingError if there is none, one of its files is missing or damaged.
    """
    try:
        folds = sorted(folder.glob("fold-*.npz"), key=lambda path: int(path.stem.partition("-")[2]))
        n_folds = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["folds"]
        if not folds or not (folder / METRICS_FILE).is_file():
            raise ValueError
        answers = [_read(path) for path in folds]
        if n_folds == OF_GENRES:
            n_folds = len({genre for fold in answers for genre in (*fold.genres, *fold.truths)})
        if folds != [_path(folder, number) for number in range(n_folds)]:
            raise ValueError
        return answers
    except (OSError, *UNFIT) as error:
        raise _unfinished(folder) from error


def read_record(folder: Path) -> dict:
    """The record of a finished cross-validation: as of a run, and "held_out", its clips by `crnn.data.heard`.

    Raises TrainingError if there is none, or if it is damaged.
    """
    try:
        record = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        if not (isinstance(record["recipe"]["front"], str) and isinstance(record["held_out"], str)):
            raise ValueError
        return record
    except (OSError, *UNFIT) as error:
        raise _unfinished(folder) from error


def _unfinished(folder: Path) -> TrainingError:
    return TrainingError(f"{folder} holds no finished cross-validation; {called_as(SCRIPT)} cross-validate makes one.")


def _run(
    folds: Sequence[Fold],
    clips: Clips,
    genres: tuple[str, ...],
    recipe: Recipe,
    folder: Path,
    settings: dict,
    jobs: int,
    report: Callable[[int, Epoch], None],
) -> list[Answers]:
    """The answers of the models of all folds; `genres` are those of the clips."""
    _claim(folder, {**settings, "format": FORMAT})
    to_do = [number for number in range(len(folds)) if not _path(folder, number).is_file()]
    jobs = max(1, min(jobs, len(to_do)))
    threads = max(1, torch.get_num_threads() // jobs)

    def start(number: int) -> BaseProcess:
        fold = folds[number]
        places = {genre: place for place, genre in enumerate(fold.genres)}
        labels = np.array([places.get(genre, -1) for genre in genres])
        parts = [clips.select(index) for index in (fold.train, fold.held_out)]
        train, held_out = (Clips(part.features, labels[part.labels]) for part in parts)
        truths = [genres[label] for label in parts[1].labels]
        arguments = (number, recipe, fold.genres, train, held_out, truths, _path(folder, number), threads, report)
        return started(_run_fold, arguments, preload=["torch._dynamo"])  # which an optimiser imports

    _side_by_side(start, to_do, jobs)
    return [_read(_path(folder, number)) for number in range(len(folds))]


def _side_by_side(start: Callable[[int], BaseProcess], numbers: Sequence[int], jobs: int) -> None:
    """Start the processes of the folds of these numbers, `jobs` at a time.

    Raises TrainingError as soon as one fails; then, or if this one is stopped, none goes on or begins. All is done in
    one thread: of two that ask how a process ended, `multiprocessing` tells one.
    """
    to_do, running = list(numbers), dict[int, BaseProcess]()
    try:
        while to_do or running:
            while to_do and len(running) < jobs:
                number = to_do.pop(0)
                running[number] = start(number)
            wait([process.sentinel for process in running.values()])
            for number, process in list(running.items()):
                if process.is_alive():
                    continue
                del running[number]
                if process.exitcode:
                    raise TrainingError(
                        f"Fold {number + 1} {_ending(process.exitcode)} The same command goes on from here."
                    )
    finally:
        for process in running.values():
            process.terminate()


def _ending(code: int) -> str:
    """How a process that failed with this code ended."""
    if code > 0:
        return "failed; its reason stands above."
    memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
    return f"was ended by signal {-code}{memory}."


def _run_fold(
    number: int,
    recipe: Recipe,
    genres: tuple[str, ...],
    train: Clips,
    held_out: Clips,
    truths: Sequence[str],
    path: Path,
    threads: int,
    report: Callable[[int, Epoch], None],
) -> None:
    """Train the model of one fold and write the logits of the clips held out, whose genres are `truths`."""
    torch.set_num_threads(threads)
    tqdm.set_lock(RLock())  # its own is one between processes, which would be left behind where this one is ended
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
            held_out if held_out.labels.min() >= 0 else None,
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
                genres=genres,
                truths=truths,
                seconds=sum(epoch.seconds for epoch in history),
            )
        path.with_suffix(".pt").unlink(missing_ok=True)
    except KeyboardInterrupt:  # the parent says so
        raise SystemExit(1) from None
    except (DatasetError, TrainingError) as error:
        raise SystemExit(f"Fold {number + 1}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise SystemExit(f"Fold {number + 1}: There is not enough memory: take fewer --jobs, or fewer clips.") from None
    except OSError as error:
        place, reason = error.filename or path, error.strerror or error
        raise SystemExit(f"Fold {number + 1}: {place} cannot be read or written ({reason}).") from None


def _summary(
    clips: Clips, genres: tuple[str, ...], folds: Sequence[Fold], answers: Sequence[Answers], evidence: float
) -> dict:
    logits: list[Tensor | None] = [None] * len(clips)
    rows = []
    for fold, of_fold in zip(folds, answers, strict=True):
        for index, part in zip(fold.held_out, of_fold.logits, strict=True):
            logits[index] = part
        figures = cross_fitted_metrics(of_fold.logits, clips.labels[fold.held_out], genres, evidence)
        rows.append({key: figures[key] for key in ("n", "accuracy", "nll")} | {"seconds": of_fold.seconds})
    spread = float(np.std([row["accuracy"] for row in rows], ddof=1))
    return {**cross_fitted_metrics(logits, clips.labels, genres, evidence), "folds": rows, "spread": spread}


def _read(path: Path) -> Answers:
    """What the model of a fold said. Raises TrainingError if its file is damaged, and OSError."""
    try:
        with np.load(path) as file:
            logits = torch.from_numpy(file["logits"]).split(file["windows"].tolist())
            genres, truths = tuple(file["genres"].tolist()), file["truths"].tolist()
            if len(truths) != len(logits) or any(clip.shape[1:] != (len(genres),) for clip in logits):
                raise ValueError("its arrays do not fit each other")
            return Answers(genres, truths, list(logits), float(file["seconds"]))
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.filename:  # without a name it is of a place outside the file
            raise
        raise TrainingError(
            f"{path} is damaged: delete it, and {called_as(SCRIPT)} cross-validate makes it anew."
        ) from error


def _path(folder: Path, number: int) -> Path:
    return folder / f"fold-{number + 1}.npz"


def _fingerprint(clips: Clips, groups: Sequence[str] | None) -> str:
    """Tells clips, their contents and their groups from others."""
    return sha256("\n".join([clips.fingerprint(), *clips.features.track_id, *(groups or [])]).encode()).hexdigest()


def _claim(folder: Path, settings: dict) -> None:
    """Note in `folder` what its folds are of. Raises TrainingError if they, or what else is there, are of others."""
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = folder / SETTINGS_FILE, json.loads(json.dumps(settings))  # as they are read again
    if not path.is_file() and any(
        not one.name.startswith(".") and one.suffix != ".partial" for one in folder.iterdir()
    ):
        raise TrainingError(f"{folder} is not empty and holds no cross-validation; give another --out.")
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    except UNFIT:
        before = None
    if any(name not in MACHINE for name, _ in differences(before, settings)):
        raise TrainingError(f"{folder} holds folds of other clips or settings; give another --out.")
    if not path.is_file() or before != settings:
        write_json(path, settings)
