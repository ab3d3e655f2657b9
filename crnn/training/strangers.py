"""From which borders on a model may answer strangers, some of whose songs are of no genre that it knows."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
from torch import Tensor

from crnn.checkpoint import CARD_FILE, METRICS_FILE, UNFIT, brief, card_bytes, read, save
from crnn.data.heard import joined, n_in_both
from crnn.files import as_json, set_aside, whole_file
from crnn.network.model import CRNN
from crnn.training.card import model_card
from crnn.training.crossval import Answers, read_answers, read_record
from crnn.training.evaluation import calibrated
from crnn.training.metrics import CONFIDENCE, fit_among_strangers, is_answered, mean_probabilities
from crnn.training.state import MACHINE, TrainingError, differences


def calibrate(
    folder: Path, validations: Sequence[Path], share: float, risk: float, command: str
) -> tuple[dict, Path | None, bool]:
    """Give the model in `folder` a temperature and borders that clips held out of cross-validations speak for.

    Clips of genres that their fold knew stand for the songs that it knows, the others for a `share` of all songs; at
    most `risk` of its answers are to be wrong (`metrics.fit_among_strangers`). The clips are more than a validation
    part has, and of strange genres.

    Returns what the model's record now says under "calibration", where the former card is if it was any other than
    `train.py` writes, and whether the record had figures of test clips, which held for the earlier borders and are
    gone. Raises TrainingError where the cross-validations are not of this model's genres or front, lack known or
    unknown clips or would count some twice, or the model's folder was not made by `train.py`, CheckpointError if it has
    no model or its NOTICE cannot be kept, and OSError if it cannot be written.
    """
    model = read(folder, str(folder))  # and no bundled model of that name
    try:
        record = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{folder} has no {METRICS_FILE}, so that it does not say how it was made.") from error
    except UNFIT as error:
        raise TrainingError(f"The {METRICS_FILE} of {folder} is damaged: train anew.") from error
    of_each = {path: read_answers(path) for path in validations}
    answers = list(chain.from_iterable(of_each.values()))
    records = {path: read_record(path) for path in validations}
    check_counted_once(validations, of_each, records)
    for path in validations:
        if (front := records[path]["recipe"]["front"]) != model.config.front:
            raise TrainingError(
                f"{path} is of models with the front {front}, whose energies are others than those of "
                f"{model.config.front}: cross-validate the recipe of this model."
            )
    others = other_recipes(record, records.values())
    is_edited = has_another_card(folder, model, record)
    figures = fit_borders(model, answers, share, risk) | {"command": command}
    figures["held_out"] = joined(other["held_out"] for other in records.values())
    figures |= {"other_recipe": others} if others else {}
    try:
        record["calibration"] = figures
        was_tested = record.pop("test", None) is not None  # with the earlier borders
        card = model_card(model, record)
    except UNFIT as error:
        raise TrainingError(f"The {METRICS_FILE} of {folder} is not what a training writes: train anew.") from error
    with whole_file(folder / METRICS_FILE) as file:
        file.write(as_json(record))
        file.flush()
        os.fsync(file.fileno())  # a full disk is to be known before the model changes
        former_card = set_aside(folder / CARD_FILE) if is_edited else None
        try:
            save(model, folder, card)
        except BaseException:
            if former_card:
                former_card.replace(folder / CARD_FILE)
            raise
    return figures, former_card, was_tested


def has_another_card(folder: Path, model: CRNN, record: dict) -> bool:
    """Whether a model's folder has a card, and not the very file that `train.py` writes for this model and record."""
    path = folder / CARD_FILE
    if path.is_symlink() or not path.is_file():
        return os.path.lexists(path)
    try:
        return path.read_bytes() not in (b"", card_bytes(model_card(model, record)))
    except (OSError, *UNFIT):
        return True


def other_recipes(record: dict, others: Iterable[dict]) -> list[str]:
    """What was other about the models of cross-validations with these records than about that of a record.

    Models of fewer members or epochs may well stand for it, but one should know.
    """
    own = record.get("recipe") if isinstance(record, dict) else None
    if not isinstance(own, dict):
        return []
    told = (text for other in others for name, text in differences(other["recipe"], own) if name not in MACHINE)
    return list(dict.fromkeys(brief(text, 100) for text in told))


def check_counted_once(
    validations: Sequence[Path], answers: Mapping[Path, Sequence[Answers]], records: Mapping[Path, dict]
) -> None:
    """Raises TrainingError if a clip may be in two of these folders, both of genres known or both of genres left out.

    It may well be in one of each kind.
    """
    if twice := next((path for path, other in combinations(validations, 2) if path.samefile(other)), None):
        raise TrainingError(f"{twice} is there twice, so that its clips would count twice: name it once.")
    leaves_out = {path: any(set(fold.truths) - set(fold.genres) for fold in answers[path]) for path in validations}
    for one, other in combinations(validations, 2):
        if leaves_out[one] != leaves_out[other]:
            continue
        if n_both := n_in_both(records[one]["held_out"], records[other]["held_out"]):
            kinds = "" if leaves_out[one] else ", beside one with --groups genre"
            raise TrainingError(
                f"{one} and {other} held out {n_both} of the same clips, and a clip may count once: "
                f"name one of them{kinds}."
            )


def fit_borders(model: CRNN, answers: Sequence[Answers], share: float, risk: float) -> dict:
    """Write temperature and borders into the model's configuration; returns what speaks for them. Raises TrainingError.

    Keys: temperature, unsure_below, strange_below, unknown_share, risk, confidence, known (n, answered and
    answered_right, the shares of clips and of these), unknown (for each genre that was left out, n and answered).
    """
    genres = model.config.genres
    if any(not set(fold.genres) <= set(genres) or not set(fold.truths) <= set(genres) for fold in answers):
        raise TrainingError(f"The cross-validations must be of clips of the model's genres, {', '.join(genres)}.")
    known = [
        (logits, genres.index(truth))
        for fold in answers
        if fold.genres == genres
        for logits, truth in zip(fold.logits, fold.truths, strict=True)
    ]
    unknown: dict[str, list[Tensor]] = {}  # by the genre that was left out
    for fold in answers:
        for logits, truth in zip(fold.logits, fold.truths, strict=True):
            if truth not in fold.genres:
                unknown.setdefault(truth, []).append(logits)
    for clips, option in ((known, "artist"), (unknown, "genre")):
        if not clips:
            raise TrainingError(
                f"These cross-validations lack one with --groups {option}: it takes clips of genres that the fold "
                "knew, and of genres that were left out."
            )
    logits, labels = [clip for clip, _ in known], np.array([label for _, label in known])
    calibration = fit_among_strangers(logits, labels, [*unknown.values()], share, risk, model.config.evidence)
    calibrated(model, calibration)
    answered = is_answered(logits, calibration)
    probabilities = mean_probabilities(logits, calibration.temperature, calibration.evidence)
    is_right = probabilities.argmax(axis=1) == labels
    return {
        **vars(calibration),
        "unknown_share": share,
        "risk": risk,
        "confidence": CONFIDENCE,
        "known": {
            "n": len(labels),
            "answered": float(answered.mean()),
            "answered_right": float(is_right[answered].mean()) if answered.any() else None,
        },
        "unknown": {
            genre: {"n": len(unknown[genre]), "answered": float(is_answered(unknown[genre], calibration).mean())}
            for genre in genres
            if genre in unknown
        },
    }
