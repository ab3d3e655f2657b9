"""Music genre recognition with a convolutional recurrent network."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crnn.audio import AudioError
    from crnn.checkpoint import CheckpointError
    from crnn.inference import GenreClassifier, Prediction

__all__ = ["AudioError", "CheckpointError", "GenreClassifier", "Prediction"]

_HOMES = {
    "AudioError": "crnn.audio",
    "CheckpointError": "crnn.checkpoint",
    "GenreClassifier": "crnn.inference",
    "Prediction": "crnn.inference",
}


def __getattr__(name: str) -> object:
    """The public names, imported when they are asked for: PyTorch takes a second that `--help` has no use for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
