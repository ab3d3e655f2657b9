"""What options of several commands have in common, for argparse."""

import argparse
import sys
from pathlib import Path
from typing import Any

from crnn.bundle import DEFAULT_MODEL, MODEL_VARIABLE

MOST = 1e31  # of what computing is done with: float32 holds more, but not what a sum or an optimiser makes of it


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option `--model` of a command that answers with any."""
    parser.add_argument(
        "--model",
        type=filled,
        help="the model: a folder, a bundled model or a Hub id with an optional @revision "
        f"(default: ${MODEL_VARIABLE} if it is set, otherwise {DEFAULT_MODEL})",
    )


def filled(text: str) -> str:
    """An argparse type for a text that is not empty, as that of a variable that is not set is."""
    if not text:  # as a path it would be the folder where one is, as a model or a device the default
        raise argparse.ArgumentTypeError("this cannot be empty")
    return text


def pathname(text: str) -> Path:
    """An argparse type for a file or a folder, of which an empty text is none."""
    return Path(filled(text))


def number_of(kind: type, text: str, name: str = "this") -> Any:
    """What a text says as an int or a float. Raises ArgumentTypeError, which calls it by `name`, if it is none."""
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{name} takes {wanted}, not {text!r}") from error


def positive(kind: type) -> type:
    """An argparse type for positive numbers."""

    def number(text: str) -> float:
        value = number_of(kind, text)
        if not 0 < value < (sys.maxsize if kind is int else MOST):
            raise argparse.ArgumentTypeError(f"{text} is not positive" if not value > 0 else f"{text} is too large")
        return value

    return number


def count(text: str) -> int:
    """An argparse type for a whole number from 0 up."""
    value = number_of(int, text)
    if not 0 <= value < sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text} is {'negative' if value < 0 else 'too large'}")
    return value


def seed(text: str) -> int:
    """An argparse type for what starts generators of random numbers, NumPy's among them."""
    value = number_of(int, text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {2**32 - 1}")
    return value


def share(text: str) -> float:
    """An argparse type for a number from 0 to 1."""
    value = number_of(float, text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return value
