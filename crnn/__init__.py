"""Music genre recognition with a convolutional recurrent network."""

from crnn.audio import AudioError
from crnn.checkpoint import CheckpointError
from crnn.inference import GenreClassifier, Prediction

__all__ = ["AudioError", "CheckpointError", "GenreClassifier", "Prediction"]
