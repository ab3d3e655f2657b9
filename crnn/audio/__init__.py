"""Audio in: any sound or video file, or its bytes, as a stream of blocks of its channels at the model's sample rate."""

from crnn.audio.faults import AudioError, Notice, not_now
from crnn.audio.sound import (
    MAX_SECONDS,
    MIN_SECONDS,
    SAMPLE_RATE,
    SUFFIXES,
    Opener,
    Passages,
    Sound,
    load_audio,
    open_audio,
    open_file,
    open_sound,
)

__all__ = [
    "MAX_SECONDS",
    "MIN_SECONDS",
    "SAMPLE_RATE",
    "SUFFIXES",
    "AudioError",
    "Notice",
    "Opener",
    "Passages",
    "Sound",
    "load_audio",
    "not_now",
    "open_audio",
    "open_file",
    "open_sound",
]
