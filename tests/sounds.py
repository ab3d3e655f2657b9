"""Sound files of every kind, made from a known sound."""

import functools
import io
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from crnn.audio import SAMPLE_RATE, AudioError, load_audio, open_audio

SAMPLE_FORMATS = {  # of the encoders; else fltp
    "libopus": "flt",
    "flac": "s16",
    "alac": "s16p",
    "pcm_s16le": "s16",
    "adpcm_ms": "s16",
    "g722": "s16",
    "mp2": "s16",
    "tta": "s16",
    "wavpack": "s16p",
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def melody(rate_hz: int, seconds: float = 2.0) -> np.ndarray:
    """The same sound at any rate, shape (samples,): tones up to 3 kHz under an envelope that never repeats."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 1_000, 3_000))
    return (0.15 * tones * (1 + np.sin(2 * np.pi * (0.7 * t + 0.9 * t**2)))).astype(np.float32)


def tone(hz: float, rate_hz: int, seconds: float = 2.0) -> np.ndarray:
    """A sine of amplitude 0.5, shape (samples,)."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def mono(source, *args, **options) -> np.ndarray:
    """The mean of the channels, shape (samples,)."""
    return load_audio(source, *args, **options).mean(axis=0)


def heard(source, **options) -> tuple[np.ndarray, list[str]]:
    """The waveform, shape (channels, samples), and the notices."""
    with open_audio(source, **options) as sound:
        return np.concatenate(list(sound.blocks()), axis=1), [str(notice) for notice in sound.notices]


def level_db(waveform: np.ndarray) -> float:
    """Level against `tone`'s, away from both ends, where every encoder and resampler has its own way."""
    middle = waveform[waveform.size // 8 : -waveform.size // 8].astype(np.float64)
    return 10 * np.log10(np.mean(middle**2) / 0.125 + 1e-20)


def spectrum_peak_hz(waveform: np.ndarray) -> float:
    return np.abs(np.fft.rfft(waveform)).argmax() * SAMPLE_RATE / waveform.size


def delay_and_match(decoded: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """How many seconds `decoded` lags, the normalised correlation at that delay (1 = equal), and the level ratio."""
    size = decoded.size + reference.size
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(reference, size).conj(), size)
    delay = int(correlation.argmax())
    norms = np.linalg.norm(decoded), np.linalg.norm(reference)
    delay_seconds = (delay - size if delay > size // 2 else delay) / SAMPLE_RATE
    return delay_seconds, correlation[delay] / (norms[0] * norms[1]), norms[0] / norms[1]


def write(samples: np.ndarray, rate_hz: int, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Encode shape (samples,) or (samples, channels) with libsndfile."""
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def add_track(output, codec: str, samples: np.ndarray, rate_hz: int, begins_seconds: float = 0.0, **options: str):
    """Add an audio track to a container that PyAV writes, and return what encodes shape (samples, channels) into it."""
    stream = output.add_stream(codec, rate=rate_hz, options=options)
    stream.codec_context.bit_rate = 160_000
    stream.codec_context.format = SAMPLE_FORMATS.get(codec, "fltp")
    stream.codec_context.layout = layout = LAYOUTS[samples.shape[1]]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), round(begins_seconds * rate_hz)
    return lambda: [output.mux(stream.encode(part)) for part in (frame, None)]


def add_pictures(output, codec: str, n_frames: int = 5, pixels: str = "yuv420p"):
    """The same for a video track of grey pictures, ten a second."""
    stream = output.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
    frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24") for i in range(n_frames)]
    return lambda: [output.mux(stream.encode(part)) for part in (*frames, None)]


def picture(codec: str, pixels: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as output:
        add_pictures(output, codec, 1, pixels)()
    return buffer.getvalue()


def encode(
    container: str,
    codec: str,
    samples: np.ndarray,
    rate_hz: int,
    *,
    video="",
    encoder=None,
    begins_seconds=0.0,
    **options,
) -> bytes:
    """Encode shape (samples,) or (samples, channels) with FFmpeg; `options` are the container's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")  # the muxer rereads it where the index goes to the front
        with av.open(path, "w", format=container, options=options) as output:
            tracks = [add_pictures(output, video)] if video else []
            samples = samples.reshape(len(samples), -1)
            tracks.append(add_track(output, codec, samples, rate_hz, begins_seconds, **(encoder or {})))
            for encode_track in tracks:
                encode_track()
        return path.read_bytes()


def patch(file: bytes, at: int, *values: bytes) -> bytes:
    data = b"".join(values)
    return file[:at] + data + file[at + len(data) :]


def pages_of(ogg: bytes) -> list[bytes]:
    return [b"OggS" + page for page in ogg.split(b"OggS")[1:]]


def wav_header(rate_hz: int, n_channels: int, n_data_bytes: int) -> bytes:
    """Of 16-bit PCM, taking any claim."""
    block = 2 * n_channels
    sizes = 16, 1, n_channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block & 0xFFFF, 16
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + n_data_bytes, b"WAVEfmt ", *sizes, b"data", n_data_bytes)


LIBSNDFILE = {  # container, subtype
    "wav 8 bit": ("WAV", "PCM_U8"),
    "wav 16 bit": ("WAV", "PCM_16"),
    "wav 24 bit": ("WAV", "PCM_24"),
    "wav 32 bit": ("WAV", "PCM_32"),
    "wav float": ("WAV", "FLOAT"),
    "wav double": ("WAV", "DOUBLE"),
    "wav extensible": ("WAVEX", "PCM_24"),
    "aiff 16 bit": ("AIFF", "PCM_16"),
    "aiff 24 bit": ("AIFF", "PCM_24"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac 16 bit": ("FLAC", "PCM_16"),
    "flac 24 bit": ("FLAC", "PCM_24"),
    "mp3": ("MP3", None),
    "ogg vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
FFMPEG = {  # container, codec, options of the container or the video codec
    "alac m4a": ("ipod", "alac", {}),
    "tta": ("tta", "tta", {}),
    "wavpack": ("wv", "wavpack", {}),
    "flac mka": ("matroska", "flac", {}),
    "mp3 of ffmpeg": ("mp3", "libmp3lame", {}),
    "mp3 without its header": ("mp3", "libmp3lame", {"write_xing": "0"}),
    "aac": ("adts", "aac", {}),
    "m4a": ("ipod", "aac", {}),
    "m4a for the web": ("ipod", "aac", {"movflags": "faststart"}),
    "m4a in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}),
    "opus of ffmpeg": ("ogg", "libopus", {}),
    "webm": ("webm", "libopus", {}),
    "webm recorded live": ("webm", "libopus", {"live": "1"}),
    "wma": ("asf", "wmav2", {}),
    "mp4 video": ("mp4", "aac", {"video": "libx264"}),
    "webm video": ("webm", "libopus", {"video": "libvpx"}),
    "mkv video": ("matroska", "libmp3lame", {"video": "mpeg4"}),
    "avi video": ("avi", "libmp3lame", {"video": "mpeg4"}),
    "mpeg-ts video": ("mpegts", "aac", {"video": "mpeg4"}),
    "ac3": ("ac3", "ac3", {}),
    "eac3": ("eac3", "eac3", {}),
    "mp2": ("mp2", "mp2", {}),
    "m4b": ("ipod", "aac", {"brand": "M4B "}),
    "3gp": ("3gp", "aac", {}),
    "mka": ("matroska", "libopus", {}),
    "rm": ("rm", "ac3", {}),
    "flv": ("flv", "libmp3lame", {}),
}
EVERY_KIND = [*LIBSNDFILE, *FFMPEG]
LOSSLESS = [*list(LIBSNDFILE)[:15], "alac m4a", "tta", "wavpack", "flac mka"]
OPUS = [kind for kind in EVERY_KIND if "opus" in kind or "webm" in kind or kind == "mka"]
DOLBY = ["ac3", "eac3", "rm"]  # these know 48 kHz and its divisors, and at least 32 kHz
# These do not say how long they should be, or only where this is not worth the code.
WITHOUT_LENGTH = {
    "aac",
    "ac3",
    "eac3",
    "mp2",
    "flv",
    "mp3 without its header",
    "webm recorded live",
    "mpeg-ts video",
}


def make(kind: str, samples: np.ndarray, rate_hz: int) -> bytes:
    if kind in LIBSNDFILE:
        return write(samples, rate_hz, *LIBSNDFILE[kind])
    container, codec, options = FFMPEG[kind]
    return encode(container, codec, samples, rate_hz, **options)


@functools.cache
def song(kind: str) -> bytes:
    """Two seconds of `melody` in stereo as a file of one of these kinds."""
    rate_hz = 48_000 if kind in OPUS else 44_100
    return make(kind, np.stack([melody(rate_hz)] * 2, axis=1), rate_hz)


@functools.cache
def long_song(kind: str) -> bytes:
    """Twelve seconds in mono, of which 5 % are more than encoders' padding."""
    rate_hz = 24_000 if kind in OPUS else 22_050 if kind not in {*LOSSLESS, *DOLBY} else 44_100  # for speed
    return make(kind, melody(rate_hz, 12), rate_hz)


def refusal(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        mono(source, **options)
    return str(caught.value)
