"""Sounds that are no music, synthesised: what a model should not be sure about."""

from functools import cache

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from crnn.audio import SAMPLE_RATE
from crnn.features import LogMel

SECONDS = 12.0
EACH = 12  # clips of each kind
VOWEL_FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


@cache
def outlier_log_mels() -> tuple[Tensor, ...]:
    """Log-mels (128, frames) in dB of noise, tones, hum, knocks, voices, crowds and surf; always the same."""
    generator = np.random.default_rng(0)
    front_end = LogMel()
    waveforms = [kind(generator) for kind in KINDS for _ in range(EACH)]
    return tuple(front_end(torch.from_numpy(waveform.astype(np.float32))) for waveform in waveforms)


def time_seconds() -> np.ndarray:
    """The time of each sample."""
    return np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE


def noise(generator: np.random.Generator) -> np.ndarray:
    """Noise between white and brown: wind, rain, tape, an engine."""
    spectrum = np.fft.rfft(generator.normal(size=len(time_seconds())))
    slope = generator.uniform(0, 1)  # of the amplitude: 0 is white, 0.5 pink, 1 brown
    return np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope, len(time_seconds()))


def tone(generator: np.random.Generator) -> np.ndarray:
    """One or two sine waves, some of them gliding, over a little noise."""
    time = time_seconds()
    glide = generator.choice([0.0, generator.uniform(-0.05, 0.05)])  # octaves a second
    frequencies_hz = 100 * 2 ** generator.uniform(0, 5, size=generator.integers(1, 3))
    tones = sum(np.sin(2 * np.pi * hz * time * 2 ** (glide * time)) for hz in frequencies_hz)
    return tones + 10 ** generator.uniform(-5, -2) * generator.normal(size=len(time))


def hum(generator: np.random.Generator) -> np.ndarray:
    """The harmonics of a motor or of the mains."""
    time = time_seconds()
    base_hz = generator.choice([50.0, 60.0, generator.uniform(30, 200)])
    falling = generator.uniform(0.5, 2)
    powers = [n**-falling for n in range(29, 0, -1)]  # a harmonic is a power of the first: one sine for all of them
    harmonics = np.polyval([*powers, 0], np.exp(2j * np.pi * base_hz * time)).imag
    return harmonics + generator.uniform(0.01, 0.3) * generator.normal(size=len(time))


def knocks(generator: np.random.Generator) -> np.ndarray:
    """Short noises at random times, from some a second to applause."""
    n_samples = len(time_seconds())
    strikes = generator.uniform(size=n_samples) < 10 ** generator.uniform(0, 3) / SAMPLE_RATE
    decay = np.exp(-1 / (SAMPLE_RATE * generator.uniform(0.003, 0.03)))  # from one sample to the next
    envelope = lfilter([1], [1, -decay], strikes * generator.uniform(0.2, 1, n_samples))
    return envelope * generator.normal(size=n_samples) + 1e-3 * generator.normal(size=n_samples)


def voice(generator: np.random.Generator) -> np.ndarray:
    """Somebody speaks: syllables of a pulse train through the formants of vowels, consonants of noise, pauses.

    Formants after Peterson and Barney 1952.
    """
    speech = 1e-3 * generator.normal(size=len(time_seconds()))
    size, pitch_hz = generator.uniform(0.9, 1.25), generator.uniform(90, 230)
    at = 0
    while at < len(speech):
        n_samples = round(generator.uniform(0.1, 0.3) * SAMPLE_RATE)
        sound = _syllable(generator, n_samples, size, pitch_hz * 2 ** generator.uniform(-0.3, 0.3))[: len(speech) - at]
        speech[at : at + n_samples] += sound
        at += n_samples + round(SAMPLE_RATE * generator.choice([0.0, 0.02, 0.5], p=[0.6, 0.25, 0.15]))
    return speech


def _syllable(generator: np.random.Generator, n_samples: int, size: float, pitch_hz: float) -> np.ndarray:
    phase = np.cumsum(pitch_hz * np.linspace(1.05, 0.95, n_samples) / SAMPLE_RATE)
    sound = np.diff(np.floor(phase), prepend=0.0) + 0.02 * generator.normal(size=n_samples)
    for formant_hz in generator.choice(VOWEL_FORMANTS_HZ):
        angle, radius = 2 * np.pi * size * formant_hz / SAMPLE_RATE, np.exp(-np.pi * 90 / SAMPLE_RATE)  # 90 Hz wide
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    sound *= np.hanning(n_samples) / (np.abs(sound).max() + 1e-9)
    n_consonant = n_samples // 4
    consonant = np.diff(generator.normal(size=n_consonant + 1)) * np.hanning(n_consonant)
    sound[:n_consonant] += generator.uniform(0, 0.3) * consonant
    return sound * generator.uniform(0.5, 1)


def crowd(generator: np.random.Generator) -> np.ndarray:
    """Many people speak at once."""
    voices = [voice(generator) for _ in range(3)]
    shifts = generator.integers(len(time_seconds()), size=(len(voices), 4))
    return sum(np.roll(speaker, shift) for speaker, own in zip(voices, shifts, strict=True) for shift in own)


def surf(generator: np.random.Generator) -> np.ndarray:
    """Bands of noise that swell and fade, each by itself: the sea, traffic, a stadium from afar."""
    time, spectrum = time_seconds(), np.fft.rfft(generator.normal(size=len(time_seconds())))
    band = np.searchsorted(
        np.sort(generator.uniform(50, 8_000, size=generator.integers(3, 12))),
        np.fft.rfftfreq(len(time), 1 / SAMPLE_RATE),
    )
    points = np.arange(0, SECONDS + 1, 1 / generator.uniform(1, 8))  # of the swell, some a second
    depth, slope = generator.uniform(0.2, 1.5), generator.uniform(0, 0.7)
    total = np.zeros(len(time))
    for number in range(band.max() + 1):
        swell = np.exp(depth * np.interp(time, points, generator.normal(size=len(points))))
        total += swell * np.fft.irfft(spectrum * (band == number), len(time)) / (number + 1) ** slope
    return total


KINDS = (noise, tone, hum, knocks, voice, crowd, surf)
