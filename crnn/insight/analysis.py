"""What can be measured in a song without any learning: loudness, pitch classes, beats, timbre.

The definitions are librosa's (B. McFee et al., "librosa: Audio and music signal analysis in Python", SciPy 2015), which
is imported by the first call: that takes seconds, and compiling its beat tracker seconds more.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crnn.audio import SAMPLE_RATE

N_FFT = 2_048  # samples, 93 ms
FINE_HOP_LENGTH = 512  # samples, 23 ms, for the sake of the beats
FINE_FRAMES_PER_SECOND = SAMPLE_RATE / FINE_HOP_LENGTH  # 43.1; frame i is about the moment i / FINE_FRAMES_PER_SECOND
BLOCK_FRAMES = 2_048  # are worked on at once, 48 s, to spare memory
LOWEST_DBFS = -90.0  # however quiet a song is, below it there is no more than the noise of 16 bits
SILENCE_DB = 50.0  # below the level of a song's loudest second there is no pitch and no timbre to speak of
N_MFCC = 13
PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
CONTRAST_EDGES_HZ = (0, 200, 400, 800, 1_600, 3_200, 6_400, 10_000)  # above, the resampler filters

# Noise and steady tones stay under 0.08; of GTZAN's clips, all of disco is over 0.3, a quarter of classical under 0.1.
LEAST_PULSE_CLARITY = 0.15
LEAST_BEATS = 4
LONGEST_REST_SECONDS = 2.0  # through which one taps on
LONGEST_REST_BEATS = 1.5  # where that is longer: the sounds of a slow pulse may be short
CLARITY_FRAMES = round(8 * FINE_FRAMES_PER_SECOND)  # in which a tempo may be taken as steady


class Waveform:
    """A waveform (samples,) or (channels, samples), float at 22 050 Hz with full scale 1, and spectrograms of it.

    Features share them; they are made when a feature first needs them: 0.2 GB for 15 minutes.
    """

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = np.atleast_2d(np.asarray(samples, np.float32))
        self.duration_seconds = self.samples.shape[1] / SAMPLE_RATE

    @cached_property
    def power(self) -> np.ndarray:
        """The power spectrogram (1025, frames), float32, the mean of the channels'; bins are 10.8 Hz apart."""
        import librosa  # noqa: PLC0415

        padded = np.pad(self.samples, ((0, 0), (N_FFT // 2, N_FFT // 2)))
        n_frames = 1 + self.samples.shape[1] // FINE_HOP_LENGTH
        power = np.empty((1 + N_FFT // 2, n_frames), np.float32)
        for first in range(0, n_frames, BLOCK_FRAMES):
            block = padded[:, first * FINE_HOP_LENGTH :][:, : (BLOCK_FRAMES - 1) * FINE_HOP_LENGTH + N_FFT]
            spectra = librosa.stft(block, n_fft=N_FFT, hop_length=FINE_HOP_LENGTH, center=False)
            power[:, first : first + BLOCK_FRAMES] = (np.abs(spectra) ** 2).mean(axis=0)
        return power

    @cached_property
    def dbfs(self) -> np.ndarray:
        """The RMS level (frames,) under the Hann window of each frame in dBFS: a full-scale sine has 0 (AES17).

        By Parseval's theorem, from the power spectrogram.
        """
        both_halves = 2.0 * self.power.sum(axis=0) - self.power[0] - self.power[-1]
        mean_square = both_halves / (N_FFT**2 * 3 / 8)  # the mean square of a Hann window is 3 / 8
        return 10.0 * np.log10(np.maximum(2.0 * mean_square, 1e-20))

    @cached_property
    def silent(self) -> np.ndarray:
        """Which frames are silent beside the song's loudest second, or beside its loudest tenth; bool (frames,)."""
        n_louder = min(round(FINE_FRAMES_PER_SECOND), len(self.dbfs) // 10)
        loud = np.sort(self.dbfs)[-1 - n_louder]
        return self.dbfs <= max(loud - SILENCE_DB, LOWEST_DBFS)

    @cached_property
    def mel_db(self) -> np.ndarray:
        """The mel spectrogram (128, frames) in dB, at most 80 dB below its peak."""
        import librosa  # noqa: PLC0415

        return librosa.power_to_db(librosa.feature.melspectrogram(S=self.power, sr=SAMPLE_RATE))


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Series:
    """A feature over time: `values` (frames,) or (rows, frames), masked where the song is silent."""

    values: np.ma.MaskedArray
    duration_seconds: float


@dataclass(frozen=True, eq=False)
class Loudness:
    """A waveform (channels, samples) with full scale 1 and its RMS level `dbfs` (frames,), -90 at the lowest."""

    waveform: np.ndarray
    dbfs: np.ndarray
    duration_seconds: float


@dataclass(frozen=True, eq=False)
class Beats:
    """The beats of a song. Where there is no steady pulse, `bpm` is None and `times_seconds` is empty."""

    bpm: float | None  # mean tempo in beats a minute, of what is no silence
    parts_seconds: tuple[np.ndarray, ...]  # the times of beats (beats,) before, between and after long silences
    onset_strength: np.ndarray  # (frames,), at least 0: how much louder the mel bands have become, mean in dB
    duration_seconds: float

    @property
    def times_seconds(self) -> np.ndarray:
        """When the beats are, (beats,)."""
        return np.concatenate(self.parts_seconds)


def loudness(waveform: Waveform) -> Loudness:
    """How loud the song is, moment by moment: the RMS level, without the ear's weighting of pitches."""
    return Loudness(waveform.samples, np.maximum(waveform.dbfs, LOWEST_DBFS), waveform.duration_seconds)


def chroma(waveform: Waveform) -> Series:
    """The energy of each pitch class (12, frames), C to B with A at 440 Hz; the strongest of a frame is 1.

    D. Ellis, "Chroma feature analysis and synthesis", 2007.
    """
    import librosa  # noqa: PLC0415

    values = librosa.feature.chroma_stft(S=waveform.power, sr=SAMPLE_RATE, tuning=0.0)
    return _audible(waveform, values)


def beats(waveform: Waveform) -> Beats:
    """Where a listener would tap: D. Ellis, "Beat tracking by dynamic programming", 2007.

    The tempo is that of the beats found, which may be half or twice what a musician would count. A tracker finds beats
    in anything; they are kept where the onsets repeat from beat to beat, and not in silences longer than a rest.
    """
    import librosa  # noqa: PLC0415

    onsets = librosa.onset.onset_strength(S=waveform.mel_db, sr=SAMPLE_RATE, hop_length=FINE_HOP_LENGTH)
    settings = {"sr": SAMPLE_RATE, "hop_length": FINE_HOP_LENGTH}
    blocks = [onsets[first : first + BLOCK_FRAMES] for first in range(0, len(onsets), BLOCK_FRAMES)]
    tempogram = sum(librosa.feature.tempogram(onset_envelope=block, **settings).sum(axis=1) for block in blocks)
    tempo = float(librosa.feature.tempo(tg=tempogram[:, None] / len(onsets), **settings)[0])
    _, frames = librosa.beat.beat_track(onset_envelope=onsets, bpm=tempo, **settings)
    period_frames = 60.0 * FINE_FRAMES_PER_SECOND / tempo
    longest_rest_frames = max(LONGEST_REST_SECONDS * FINE_FRAMES_PER_SECOND, LONGEST_REST_BEATS * period_frames)
    parts = _parted(frames, waveform.silent, longest_rest_frames)
    seconds = np.concatenate([np.diff(part) for part in parts]) / FINE_FRAMES_PER_SECOND  # from beat to beat
    bpm = None
    if len(seconds) >= LEAST_BEATS - 1 and pulse_clarity(onsets, round(period_frames)) >= LEAST_PULSE_CLARITY:
        bpm = 60.0 / float(seconds.mean())
    else:
        parts = [frames[:0]]
    return Beats(bpm, tuple(part / FINE_FRAMES_PER_SECOND for part in parts), onsets, waveform.duration_seconds)


def _parted(frames: np.ndarray, silent: np.ndarray, longest_rest_frames: float) -> list[np.ndarray]:
    """The `frames` of beats (beats,) that are in no silence longer than a rest, parted where one lies between them.

    `silent` (frames,) says which of all frames are silent.
    """
    edges = np.flatnonzero(np.diff(np.pad(silent, 1))).reshape(-1, 2)
    long = edges[np.diff(edges)[:, 0] > longest_rest_frames]
    n_begun, n_over = (np.searchsorted(of_all, frames, side="right") for of_all in long.T)
    is_heard = n_begun == n_over
    return np.split(frames[is_heard], np.flatnonzero(np.diff(n_over[is_heard])) + 1)


def pulse_clarity(onset_strength: np.ndarray, period_frames: int) -> float:
    """How much the onsets (frames,) repeat after a beat: their autocorrelation there, at most 1, in windows of 8 s.

    O. Lartillot, T. Eerola, P. Toiviainen, J. Fornari, "Multi-feature modeling of pulse clarity", ISMIR 2008.
    """
    length = min(len(onset_strength), CLARITY_FRAMES)
    parts = np.lib.stride_tricks.sliding_window_view(onset_strength, length)[:: max(length // 2, 1)]
    spectra = np.fft.rfft(parts - parts.mean(axis=1, keepdims=True), 2 * length)
    correlation = np.fft.irfft((np.abs(spectra) ** 2).sum(axis=0))[:length]
    near = correlation[max(period_frames - 1, 1) : period_frames + 2]
    return float(near.max() / correlation[0]) if near.size and correlation[0] > 0 else 0.0


def mfcc(waveform: Waveform) -> Series:
    """Mel-frequency cepstral coefficients (13, frames): the shape of the spectrum, from coarse to fine.

    S. Davis, P. Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", 1980.
    """
    import librosa  # noqa: PLC0415

    return _audible(waveform, librosa.feature.mfcc(S=waveform.mel_db, n_mfcc=N_MFCC))


def spectral_centroid(waveform: Waveform) -> Series:
    """The centre of gravity (frames,) of the magnitude spectrum in Hz."""
    magnitude = np.sqrt(waveform.power)
    frequencies_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE).astype(np.float32)
    centroid_hz = frequencies_hz @ magnitude / np.maximum(magnitude.sum(axis=0), np.finfo(np.float32).tiny)
    return _audible(waveform, centroid_hz)


def spectral_contrast(waveform: Waveform) -> Series:
    """Peaks over valleys of the spectrum in dB, in seven bands (7, frames) between the `CONTRAST_EDGES_HZ`.

    D.-N. Jiang, L. Lu, H.-J. Zhang, J.-H. Tao, L.-H. Cai, "Music type classification by spectral contrast feature",
    ICME 2002; peak and valley are the mean powers of the highest and the lowest 2 % of the bins, at least one.
    """
    import librosa  # noqa: PLC0415

    frequencies_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    used = frequencies_hz <= CONTRAST_EDGES_HZ[-1]
    return _audible(waveform, librosa.feature.spectral_contrast(S=waveform.power[used], freq=frequencies_hz[used]))


def _audible(waveform: Waveform, values: np.ndarray) -> Series:
    """Values (..., frames) without those of silent frames."""
    return Series(np.ma.masked_array(values, np.broadcast_to(waveform.silent, values.shape)), waveform.duration_seconds)
