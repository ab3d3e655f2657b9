"""Every figure, drawn from arrays. They need no display, and several threads may draw at once."""

from crnn.plots.audio import FEATURES, Feature, mel_spectrogram, mel_spectrograms, timeline
from crnn.plots.inside import STEPS, Step
from crnn.plots.style import INK, PALETTE, genre_colours, picture_file, save_picture, to_svg
from crnn.plots.training import compared, confusion_matrix, curves, reliability

__all__ = [
    "FEATURES",
    "INK",
    "PALETTE",
    "STEPS",
    "Feature",
    "Step",
    "compared",
    "confusion_matrix",
    "curves",
    "genre_colours",
    "mel_spectrogram",
    "mel_spectrograms",
    "picture_file",
    "reliability",
    "save_picture",
    "timeline",
    "to_svg",
]
