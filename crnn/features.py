"""From a waveform to what the network sees: log-mel spectrograms, and windows of them."""

from collections.abc import Iterable, Iterator
from itertools import chain
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from crnn.audio import SAMPLE_RATE
from crnn.highpass import HighPass, behind

N_FFT = 2_048  # samples, 93 ms
HOP_LENGTH = 914  # samples, 41.5 ms
N_MELS = 128
F_MAX = 11_025.0  # Hz
FLOOR_DB = -80.0  # relative to the level that the log-mel stands on
FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH  # 24.1
FEATURE_SETTINGS = {
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
    "n_mels": N_MELS,
    "f_max": F_MAX,
    "floor_db": FLOOR_DB,
    "reference": "95 % of sounding frames + 3.1 dB",
}

RUMBLE_HZ = 22.0  # where a Butterworth filter of the sixth order cuts: -41 dB at 10 Hz, -20 dB at 15, -0.1 dB at 30
SILENCE_DB = -42.0  # of mel power: a sine at -82 dBFS, white noise at -68 dBFS; of music at full scale it is +30
HEADROOM_DB = 3.1  # from there to 0 dB: where the loudest cell of a clip of GTZAN usually is
SOUNDING_DB = 43.0  # below the level, and further down, is what nobody hears beside the music: hiss, rooms, fades
BRIEF_SECONDS = 1.0  # what is louder than all else for no longer is an accident: a knock, a click, a pop
PEAKS_DB = 3.2  # what a twentieth of the sounding frames exceeds above what a tenth does: 98 of 100 clips have less
GAP_SECONDS = 1.0  # a rest as short belongs to the music
STEADY_SECONDS = 3.0  # for which nothing moves in a tone that stays as it is
STEADY_DB = 2.0  # standard deviation of what does not; hum and tones have 1.4, the stillest 3 s of 856 songs 3.7


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels below the level of a clip's loud frames, which no brief sound moves.

    The mel power spectrogram is librosa's (Hann window, Slaney scale and norm, zero padding at the ends), with
    torchaudio's filters, of what sounds above 22 Hz. The power of channels is averaged, not their samples, which would
    cancel where channels are out of phase. Because the level is relative, a clip's gain has no effect.
    """

    def __init__(self, hop_length: int = HOP_LENGTH) -> None:
        from scipy.signal import butter  # noqa: PLC0415 (who trains on log-mels need not wait for it)
        from scipy.sparse import csr_array  # noqa: PLC0415

        super().__init__()
        self.hop_length = hop_length
        self.high_pass = HighPass(butter(6, RUMBLE_HZ, "highpass", fs=SAMPLE_RATE, output="sos"))
        self.window = torch.hann_window(N_FFT).numpy()
        self.filters = mel_filters()
        # A bin has a real and an imaginary part, and is in no more than two bands.
        self._filters = csr_array(self.filters.T.numpy().repeat(2, axis=1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (samples,) or (channels, samples) at 22 050 Hz to log-mel (128, frames), -80 to 0 dB.

        Where nothing sounds, all is -80.
        """
        return self.of_blocks([np.atleast_2d(waveform.numpy())])

    def of_blocks(self, blocks: Iterable[np.ndarray]) -> Tensor:
        """The same of a waveform that comes in blocks (channels, samples), however long it is."""
        return on_level(self.powers(blocks))

    def powers(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Parts (128, frames) of the mel power spectrogram, float32; a sine of full scale has about 40 dB.

        Without PyTorch, whose threads would keep the cores busy, waiting for each other, that decode what follows.
        """
        rest = np.zeros((1, N_FFT // 2), np.float32)
        for block in chain(self.high_pass(_distinct(blocks)), [None]):
            above = np.zeros((len(rest), N_FFT // 2), np.float32) if block is None else block
            rest = behind(rest, above)
            n_frames = (rest.shape[1] - N_FFT) // self.hop_length + 1
            if n_frames > 0:
                samples = rest[:, : (n_frames - 1) * self.hop_length + N_FFT]
                yield self.power(samples)
                rest = rest[:, n_frames * self.hop_length :]

    def power(self, samples: np.ndarray) -> np.ndarray:
        """The mel power of whole frames of (channels, samples), averaged over channels: (128, frames), all float32."""
        from scipy.fft import rfft  # noqa: PLC0415

        def squares(channel: np.ndarray) -> np.ndarray:
            frames = sliding_window_view(channel, N_FFT)[:: self.hop_length]
            values = rfft(frames * self.window, overwrite_x=True).view(np.float32)
            values *= values
            return values

        with np.errstate(over="ignore", invalid="ignore"):  # of infinite or huge samples, for which all is refused
            # The filters are linear, so that channels may be averaged before them; one by one, there may be many.
            return self._filters @ (sum(map(squares, samples)) / len(samples)).T


def mel_filters() -> Tensor:
    """The share of each bin of the spectrum in each band, (1025, 128)."""
    return melscale_fbanks(N_FFT // 2 + 1, 0.0, F_MAX, N_MELS, SAMPLE_RATE, "slaney", "slaney")


def to_db(power: Tensor) -> Tensor:
    """Power in decibels; none at all is about -379 dB."""
    return 10.0 * torch.log10(power.clamp_min(torch.finfo(power.dtype).tiny))


def on_level(powers: Iterable[np.ndarray]) -> Tensor:
    """The log-mel (128, frames) of parts of a mel power spectrogram, -80 to 0 dB: see `stand_on_level`."""
    return stand_on_level(to_db(torch.from_numpy(np.concatenate([*powers], axis=-1))))


def _distinct(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks (channels, samples), of a single channel for as long as all are the same."""
    is_mono = True
    for block in blocks:
        is_mono = is_mono and bool((block[1:] == block[0]).all())
        yield block[:1] if is_mono else block


def stand_on_level(decibels: Tensor, silence_db: float = SILENCE_DB) -> Tensor:
    """Mel power (128, frames) in dB to a log-mel, -80 to 0 dB, that stands on the level of its loud frames.

    That is what the loudest cells of the frames that sound exceed for a twentieth of the time, and for a second at
    least, but at most PEAKS_DB above what they exceed for a tenth: no knock, click or pop moves it, nor does gain, nor
    a tone of a second or more that stays as it is (`steady_frames`) where there is anything else. What is louder is cut
    off. Applying this twice changes next to nothing, unless frames were silent: those of up to `silence_db`. Where all
    are, it is -80.
    """
    loudest, brief = _loudest_cells(decibels), n_frames_of(BRIEF_SECONDS)
    others = loudest.masked_fill(steady_frames(decibels, silence_db, BRIEF_SECONDS), -torch.inf)
    has_others = (others > silence_db).sum() > brief
    loudest = torch.where(has_others, others, loudest).sort(descending=True).values
    n_loud = (loudest > silence_db).sum()
    knocked = loudest.index_select(0, (n_loud // 10).clamp(max=brief))
    n_sounding = ((loudest > silence_db) & (loudest > knocked - SOUNDING_DB)).sum()
    tenth = n_sounding // 10
    twentieth = torch.minimum((n_sounding // 20).clamp(min=brief), tenth)
    exceeded = torch.minimum(loudest.index_select(0, twentieth), loudest.index_select(0, tenth) + PEAKS_DB)
    level = torch.where(n_loud > 0, exceeded + HEADROOM_DB, torch.inf)
    return (decibels - level).clamp_(FLOOR_DB, 0.0)


def sounding_frames(log_mel: Tensor) -> Tensor:
    """Which frames of a log-mel (128, frames) are part of the music, bool (frames,): not its longer silences.

    Silent is what lies far below the level, whatever it is: digital silence, the hiss before a song. Nor is a tone
    music that stays as it is (`steady_frames`). Rests of up to GAP_SECONDS between sounds belong to the music, and of
    up to half as much at the ends, which may be a cut: the sounding frames, morphologically closed. Beside steady
    tones, what does not last for BRIEF_SECONDS is where they begin, change and end: morphologically opened.
    """
    is_steady = steady_frames(log_mel)
    sounds = ((_loudest_cells(log_mel) > -SOUNDING_DB) & ~is_steady)[None, None].float()
    sounds = -_widened(-_widened(sounds))
    lasting = _widened(-_widened(-sounds, BRIEF_SECONDS), BRIEF_SECONDS)
    return torch.where(is_steady.any(), lasting, sounds)[0, 0] > 0


def steady_frames(decibels: Tensor, silence_db: float = -SOUNDING_DB, seconds: float = STEADY_SECONDS) -> Tensor:
    """Which frames of mel power (128, frames) in dB lie in a tone that stays as it is, bool (frames,): hum, a signal.

    That is where something is louder than `silence_db` and for so many `seconds` no band moves that is heard beside it.
    Frames are judged in blocks of an eighth of that; those behind the last whole block as that block is.
    """
    n_parts, size = 8, n_frames_of(seconds / 8)
    whole = (decibels.shape[1] // size + n_parts + 1) * size
    padded = F.pad(decibels, (0, whole - decibels.shape[1]), value=FLOOR_DB)  # what would be part of it moves
    parts = [F.avg_pool1d(padded, size), F.avg_pool1d(padded.square_(), size)]  # far faster than their variance
    del padded  # as large as the song
    levels, squares = (values.unfold(1, n_parts, 1).mean(dim=2) for values in parts)
    loudest = levels[1:].amax(dim=0)
    moves = ((squares - levels.square()) * (levels > loudest - SOUNDING_DB)).amax(dim=0)
    is_steady = (moves < STEADY_DB**2) & (loudest > silence_db)
    around = F.pad(is_steady.float(), (n_parts - 1, n_parts - 1)).unfold(0, n_parts, 1)
    last = torch.sym_max(decibels.shape[1] // size, 1) - 1
    return (around.amax(dim=1) > 0)[(torch.arange(decibels.shape[1]) // size).clamp(max=last)]


def _widened(rows: Tensor, seconds: float = GAP_SECONDS) -> Tensor:
    """Each frame of (1, 1, frames) as the largest within half of that: a dilation, of negated ones an erosion."""
    half = n_frames_of(seconds) // 2
    return F.max_pool2d(rows, (1, 2 * half + 1), stride=1, padding=(0, half))


def without_silence(log_mel: Tensor) -> Tensor:
    """The frames (128, n) of a log-mel (128, frames) that sound."""
    return log_mel[:, sounding_frames(log_mel)]


def _loudest_cells(log_mel: Tensor) -> Tensor:
    """The loudest cell (frames,) of each frame, but for the lowest band, where rumble and steps are."""
    return log_mel[1:].amax(dim=0)


def mel_of_hz(hz: float) -> float:
    """A frequency on Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    return 3.0 * hz / 200.0 if hz < 1_000.0 else 15.0 + 27.0 * log(hz / 1_000.0) / log(6.4)


def hz_of_mel(mel: float) -> float:
    """The inverse of `mel_of_hz`."""
    return 200.0 * mel / 3.0 if mel < 15.0 else 1_000.0 * 6.4 ** ((mel - 15.0) / 27.0)


def band_of_hz(hz: float) -> float:
    """Where a frequency lies among the mel bands; whole numbers are the centres of bands, counted from 0."""
    return mel_of_hz(hz) / mel_of_hz(F_MAX) * (N_MELS + 1) - 1.0


def hz_of_band(band: float) -> float:
    """The frequency at a place among the mel bands: the inverse of `band_of_hz`."""
    return hz_of_mel((band + 1.0) / (N_MELS + 1) * mel_of_hz(F_MAX))


def n_frames_of(seconds: float) -> int:
    """Number of log-mel frames that span `seconds`."""
    return round(seconds * FRAMES_PER_SECOND)


def repeat_to(log_mel: Tensor, n_frames: int) -> Tensor:
    """Repeat a log-mel (..., frames) from its start until it is at least `n_frames` long, then cut it there.

    A repeated short clip stays music of its own kind, where silence behind it would be something no song has.
    """
    repeats = -(-n_frames // log_mel.shape[-1])
    return log_mel.repeat(*[1] * (log_mel.ndim - 1), repeats)[..., :n_frames]


def windows(log_mel: Tensor, window_frames: int, hop_frames: int) -> tuple[Tensor, list[int]]:
    """Cut a log-mel (n_mels, frames) into overlapping windows.

    Returns the windows (n_windows, n_mels, window_frames) and the frame at which each starts. A clip shorter than one
    window is repeated to fill it; the last window is shifted back so that it ends with the clip and nothing is dropped.
    """
    n_frames = log_mel.shape[-1]
    if n_frames <= window_frames:
        return repeat_to(log_mel, window_frames)[None], [0]
    last = n_frames - window_frames
    starts = [*range(0, last, hop_frames), last]
    return torch.stack([log_mel[:, start : start + window_frames] for start in starts]), starts


def to_levels(log_mel: Tensor) -> np.ndarray:
    """A log-mel (128, frames) in dB as 8-bit levels of the same shape: 0 is the floor, 255 the loudest cell."""
    return torch.round(255.0 * (1.0 - log_mel / FLOOR_DB)).clamp(0, 255).to(torch.uint8).numpy()


def to_decibels(levels: Tensor, floor_db: Tensor | float) -> Tensor:
    """The inverse of `to_levels`: 8-bit levels of any shape to float32 dB, with the floor that they stand on."""
    return floor_db * (1.0 - levels.float() / 255.0)
