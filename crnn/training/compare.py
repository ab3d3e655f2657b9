"""Finished runs side by side: their figures, and what was different about them."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from crnn.checkpoint import HISTORY_FILE, METRICS_FILE, UNFIT
from crnn.terminal import aligned, cells, printable
from crnn.training.state import TrainingError

MODEL = "model"  # the folder in a run's folder that holds what came of it
HEAD = ("run", "part", "clips", "accuracy", "macro-F1", "nll", "ece", "parameters", "minutes")
# Of metrics.json, what a result may come from beside its recipe.
SETTINGS = ("protocol", "genres", "clips", "heard", "groups", "processes", "versions")


@dataclass(frozen=True)
class Run:
    """What a run or a model folder says about its training."""

    name: str
    record: dict  # metrics.json
    history: tuple[dict[str, float], ...]  # the validated epochs of history.csv; a cross-validation has none

    @property
    def minutes(self) -> float | None:
        """Of the training that was validated, or of all folds together."""
        rows = self.history or self.record["valid"].get("folds")
        return sum(row["seconds"] for row in rows) / 60 if rows else None


def read_run(folder: Path) -> Run:
    """Read what `train.py` wrote into a folder. Raises TrainingError if that is not there or is damaged.

    Of a run whose model was calibrated since, that is the model's record: the run's has test figures of what it was.
    """
    try:
        record = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        if (file := folder / MODEL / METRICS_FILE).is_file():
            of_model = json.loads(file.read_text(encoding="utf-8"))
            record = of_model if is_calibrated_since(of_model, record) else record
        history = []
        if (folder / HISTORY_FILE).is_file():
            with (folder / HISTORY_FILE).open(newline="", encoding="utf-8") as file:
                history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        if "left_out" in record:
            raise TrainingError(
                f"{folder} is a cross-validation that left genres out, which has no accuracy to compare."
            )
        run = Run(str(folder), record, tuple(history))
        list(_rows(run))
    except FileNotFoundError as error:
        raise TrainingError(f"{folder} holds no finished run: it has no {METRICS_FILE}.") from error
    except (OSError, *UNFIT) as error:
        raise TrainingError(f"The {METRICS_FILE} or {HISTORY_FILE} of {folder} is not that of a run.") from error
    return run


def is_calibrated_since(of_model: dict, of_run: dict) -> bool:
    """Whether a model has another calibration, and perhaps no test figures for that, than the run that it came from."""
    if of_model.get("calibration") == of_run.get("calibration"):
        return False
    ours, theirs = ({**record, "calibration": None} for record in (of_model, of_run))
    if "test" not in ours:
        theirs.pop("test", None)
    return ours == theirs


def histories(runs: Sequence[Run]) -> dict[str, tuple[dict[str, float], ...]]:
    """The histories of the runs that have one, by their names without the folder that all of these lie in."""
    paths = {Path(run.name): run.history for run in runs if run.history}
    levels = zip(*[path.parts[:-1] for path in paths], strict=False)
    n_common = len([*takewhile(lambda folders: len({*folders}) == 1, levels)])
    return {str(Path(*path.parts[n_common:])): history for path, history in paths.items()}


def table(runs: Sequence[Run]) -> list[str]:
    """Lines with the figures of the runs on their validation and test clips."""
    return _aligned([HEAD, *(row for run in runs for row in _rows(run))], right_from=2)


def differences(runs: Sequence[Run]) -> list[str]:
    """Lines with the settings that are not the same for all runs, one column a run in their order."""
    keys = ("recipe", *SETTINGS)
    records = [{**run.record, "genres": run.record["valid"].get("genres", [])} for run in runs]
    settings = [dict(_flat({key: record[key] for key in keys if key in record})) for record in records]
    names = dict.fromkeys(name for own in settings for name in own)
    rows = [(name, *(own.get(name, "–") for own in settings)) for name in names]
    return _aligned([row for row in rows if len(set(row[1:])) > 1])


def _rows(run: Run) -> Iterator[tuple[str, ...]]:
    parameters = run.record.get("parameters")
    for part in ("valid", "test"):
        if part == "valid" or part in run.record:
            figures = run.record[part]
            yield (
                run.name,
                part,
                str(figures["n"]),
                f"{figures['accuracy']:.3f} ± {figures['accuracy_error']:.3f}",
                *(f"{figures[key]:.3f}" for key in ("macro_f1", "nll", "ece")),
                "–" if parameters is None else f"{parameters:,}",
                "–" if run.minutes is None else f"{run.minutes:.1f}",
            )


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested dicts as text, each under its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _aligned(rows: Sequence[Sequence[str]], right_from: int | None = None) -> list[str]:
    """Lines of columns two blanks apart; those from `right_from` on end at the same place instead of starting there."""
    rows = [[printable(cell) for cell in row] for row in rows]  # others may have written them
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    right_from = len(widths) if right_from is None else right_from
    return [
        "  ".join(
            aligned(cell, width, is_right=place >= right_from)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
