"""Decoded frames to blocks of float32 at another rate."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import av
import numpy as np
from av.filter import Graph

# Within 0.1 dB up to 10 kHz, and below -95 dB from 12 kHz on (at 22 050 Hz out).
_RESAMPLER = "filter_size=64:filter_type=kaiser:kaiser_beta=9:cutoff=0.97:internal_sample_fmt=fltp"
_LARGEST_SAMPLE = 2.0**32  # float files are sometimes scaled like 32-bit integers; above this a sample is damage
_BLOCK_SAMPLES = 2**16
_PULLED_SAMPLES = 2**14  # that pass from FFmpeg to NumPy at once: what fits a cache is faster


class AudioFormat(NamedTuple):
    """How the samples of a frame are stored: sample format and channel layout by their names in FFmpeg."""

    sample_format: str
    layout: str
    n_channels: int
    rate_hz: int


def resample(batches: Iterable[list[av.AudioFrame]], audio_format: AudioFormat, to_hz: int) -> Iterator[av.AudioFrame]:
    """Resample frames of one format, all channels alike, to float32: planar if `_is_planar`, else interleaved."""
    sample_format = "fltp" if _is_planar(audio_format.n_channels) else "flt"
    graph = Graph()
    source = graph.add_abuffer(
        format=audio_format.sample_format,
        layout=audio_format.layout,
        sample_rate=audio_format.rate_hz,
        time_base=Fraction(1, audio_format.rate_hz),
    )
    resampler = graph.add("aresample", f"{to_hz}:out_sample_fmt={sample_format}:{_RESAMPLER}")
    collector, sink = graph.add("asetnsamples", f"n={_PULLED_SAMPLES}:p=0"), graph.add("abuffersink")
    graph.link_nodes(source, resampler, collector, sink).configure()
    for batch in chain(batches, [[None]]):  # None flushes the filter
        for frame in batch:
            source.push(frame)
        while (pulled := _pull(sink)) is not None:
            yield pulled


def join(frames: Iterable[av.AudioFrame], n_channels: int) -> Iterator[np.ndarray]:
    """Join what `resample` gives to blocks of `_BLOCK_SAMPLES` or some more, the last of fewer: (channels, samples)."""
    collected, n_samples = [], 0
    for frame in frames:
        collected.append(frame)
        n_samples += frame.samples
        if n_samples >= _BLOCK_SAMPLES:
            yield _to_block(collected, n_channels, n_samples)
            collected, n_samples = [], 0
    if collected:
        yield _to_block(collected, n_channels, n_samples)


def silence(n_channels: int, n_samples: int) -> Iterator[np.ndarray]:
    """So many zeros for each channel, in blocks of `_BLOCK_SAMPLES`, the last of fewer: (channels, samples)."""
    for start in range(0, n_samples, _BLOCK_SAMPLES):
        yield np.zeros((n_channels, min(_BLOCK_SAMPLES, n_samples - start)), np.float32)


def with_channels(block: np.ndarray, n_channels: int) -> np.ndarray:
    """Channels that are too many are averaged in turn; those that are too few repeat themselves."""
    if len(block) == n_channels:
        return block
    if len(block) < n_channels:
        return block[np.arange(n_channels) % len(block)]
    return np.stack([block[channel::n_channels].mean(axis=0) for channel in range(n_channels)])


def mend(samples: np.ndarray) -> np.ndarray:
    """0 in place of NaN, infinity and what is too large to be sound, in place."""
    _n_mended(samples)
    return samples


def mend_frame(frame: av.AudioFrame) -> bool:
    """`mend` a frame of floats, in place, before what is damaged spreads in the resampler.

    Returns whether it was more than half of the samples.
    """
    n_lost = n_samples = 0
    if frame.format.name.startswith(("flt", "dbl")):
        frame.make_writable()
        for plane in frame.planes[: frame.layout.nb_channels if frame.format.is_planar else 1]:
            samples = np.frombuffer(plane, np.float32 if frame.format.name.startswith("flt") else np.float64)
            n_lost += _n_mended(samples)
            n_samples += len(samples)
    return n_lost > n_samples / 2


def _n_mended(samples: np.ndarray) -> int:
    """How many samples there were to `mend`."""
    if not samples.size or (samples.max() < _LARGEST_SAMPLE and samples.min() > -_LARGEST_SAMPLE):  # False for NaN
        return 0
    is_lost = ~(np.abs(samples) < _LARGEST_SAMPLE)
    samples[is_lost] = 0
    return np.count_nonzero(is_lost)


def _is_planar(n_channels: int) -> bool:
    return n_channels < 8  # PyAV counts the planes of more wrongly


def _pull(sink: "av.filter.context.FilterContext") -> av.AudioFrame | None:
    try:
        return sink.pull()
    except (av.error.BlockingIOError, av.error.EOFError):  # wants more, or is done
        return None


def _to_block(frames: list[av.AudioFrame], n_channels: int, n_samples: int) -> np.ndarray:
    block = np.empty((n_channels, n_samples), np.float32)
    start = 0
    for frame in frames:
        piece = block[:, start : start + frame.samples]
        if _is_planar(n_channels):
            for channel, plane in zip(piece, frame.planes, strict=True):
                channel[:] = np.frombuffer(plane, np.float32, frame.samples)
        else:
            piece[:] = np.frombuffer(frame.planes[0], np.float32, frame.samples * n_channels).reshape(-1, n_channels).T
        start += frame.samples
    return block
