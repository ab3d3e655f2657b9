"""The way of one window through the network, stage by stage, as arrays that can be drawn."""

from dataclasses import dataclass

import numpy as np
import torch

from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH, N_FFT, repeat_to
from crnn.network.front import Maps
from crnn.network.model import CRNN


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Trace:
    """One window on its way from sound to genre. Of an ensemble, all from `maps` to `attention` is the first member's.

    A song shorter than the window is repeated to fill it, whole frame by whole frame.
    """

    genres: tuple[str, ...]
    start_seconds: float  # in the song
    duration_seconds: float  # of the window
    waveform: np.ndarray  # float32 (channels, samples) of the window; frame i is about sample i * 914
    log_mel: np.ndarray  # float32 (128, frames) dB below the level of the song
    maps: tuple[Maps, ...]  # of the convolutions; the last is what the recurrent layer reads, one frame a step
    directions: tuple[str, ...]  # of the recurrent layer: forwards and backwards, or the single one of a model without
    states: np.ndarray  # float32 (steps, features) in equal parts for the directions; -1 to 1 if it has two
    attention: np.ndarray  # float32 (steps,), sum 1; all alike where the pooling has none
    logits: np.ndarray  # float32 (n_genres,), of the whole: what `CRNN.forward` gives
    probabilities: np.ndarray  # float32 (n_genres,), sum 1: softmax(logits / temperature)

    @property
    def step_seconds(self) -> float:
        """From one step of the recurrent layer to the next."""
        return self.maps[-1].frame_seconds

    @property
    def loudest_frame(self) -> int:
        """The loudest frame with some neighbours on both sides."""
        edge = min(4, self.log_mel.shape[1] // 2 - 1)
        return edge + int((10 ** (self.log_mel[:, edge : self.log_mel.shape[1] - edge] / 10)).sum(axis=0).argmax())

    def spectrum_db(self, frame: int) -> np.ndarray:
        """The power spectrum (1025,) of a frame in dB below its peak, with the Hann window of the log-mel."""
        samples = np.pad(self.waveform, ((0, 0), (N_FFT // 2, N_FFT // 2)))[:, frame * HOP_LENGTH :][:, :N_FFT]
        power = (np.abs(np.fft.rfft(samples * hann())) ** 2).mean(axis=0)
        return 10 * np.log10(np.maximum(power / max(power.max(), 1e-20), 1e-10))


def hann() -> np.ndarray:
    """The window (2048,) that cuts a frame out of the waveform."""
    return torch.hann_window(N_FFT).numpy()


@torch.inference_mode()
def trace(model: CRNN, log_mel: np.ndarray, waveform: np.ndarray, start_seconds: float = 0.0) -> Trace:
    """Follow one window of a song through a model in evaluation mode, which stays as it is.

    Args:
        model: several threads may use it meanwhile.
        log_mel: of the window, (128, frames) dB; what is more is left out.
        waveform: of the same, (samples,) or (channels, samples) at 22 050 Hz.
        start_seconds: where the window starts in the song.
    """
    config = model.config
    waveform = np.atleast_2d(waveform)
    window = repeat_to(torch.from_numpy(log_mel), config.window_frames)[None]
    member = model.members[0]
    stem = model.stem_of(window)
    maps = (*model.stem.maps(window), *member.front.maps(stem))
    steps = torch.from_numpy(maps[-1].values[None, :, 0]).transpose(1, 2)
    states = member.recurrent(steps)
    logits = model(window)[0]
    return Trace(
        genres=config.genres,
        start_seconds=start_seconds,
        duration_seconds=config.window_frames / FRAMES_PER_SECOND,
        waveform=_filled(waveform, log_mel.shape[1], config.window_frames),
        log_mel=window[0].numpy(),
        maps=maps,
        directions=member.recurrent.directions,
        states=states[0].numpy(),
        attention=member.pool.weights(states)[0, :, 0].numpy(),
        logits=logits.numpy(),
        probabilities=(logits / config.temperature).softmax(dim=-1).numpy(),
    )


def _filled(waveform: np.ndarray, n_frames: int, window_frames: int) -> np.ndarray:
    """A waveform (channels, samples) of a log-mel of `n_frames`, repeated as that is: its last frame may lack samples.

    Its shape is (channels, window_frames * 914).
    """
    whole = waveform[:, : n_frames * HOP_LENGTH]
    whole = np.pad(whole, ((0, 0), (0, n_frames * HOP_LENGTH - whole.shape[1])))
    return np.tile(whole, -(-window_frames // n_frames))[:, : window_frames * HOP_LENGTH]
