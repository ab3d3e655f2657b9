"""What bad sound costs: `python benchmarks/robustness.py --data DIR [--model M] [--split valid] [--json OUT]`.

DIR is a folder of genre folders with GTZAN's clips. Each clip of one part of its fault-filtered split is degraded,
written as a file and classified from the file's bytes; so are sounds that are no music. Two runs print the same.
"""

import argparse
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.__main__ import INTERRUPTED, leave_broken_pipe  # noqa: E402
from crnn.audio import SAMPLE_RATE, AudioError, load_audio  # noqa: E402
from crnn.checkpoint import CheckpointError  # noqa: E402
from crnn.data.features import DatasetError  # noqa: E402
from crnn.data.gtzan import FAULT_FILTERED, PROTOCOL, has_heard  # noqa: E402
from crnn.data.look import find_tracks  # noqa: E402
from crnn.data.names import genre_of  # noqa: E402

RT60, PREDELAY = 0.6, 0.005  # seconds: a living room; its reverberation has fallen by 60 dB after RT60
DIRECT_TO_REVERBERANT = 0  # dB: about a metre from the loudspeaker
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
SOUND_SECONDS = (10, 30)  # some sounds are answered only when more windows of them are heard
SOUND_RMS = 0.1  # of full scale, -20 dB
VOICES = ("en-us", "en-us+f3", "en-gb-scotland+m3", "en-gb+f2", "de+m2", "fr-fr+f4", "es+m5", "it+f1")
WITHOUT_VOICES = "skipped: espeak-ng is not installed"
SPOKEN = (
    "Good evening, and welcome to the programme. Tonight we talk about the weather of the coming week, about the new "
    "railway bridge across the river, and about a library that lends out garden tools. The bridge will open in spring, "
    "two years later than planned, and at twice the price. Our reporter asked people at the station what they think."
)


def coloured_noise(n_samples: int, exponent: float = 0, seed: int = 0) -> np.ndarray:
    """Noise (samples,) of unit RMS whose power falls with frequency**exponent: 0 is white, 1 is pink from 20 Hz on."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n_samples))
    spectrum[0] = 0
    hz = np.maximum(np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE), 20)
    return at_level(np.fft.irfft(spectrum * hz ** (-exponent / 2), n_samples), 1)


def rms_of(waveform: np.ndarray) -> float:
    """The root of the mean square of a waveform (samples,)."""
    return np.sqrt(np.mean(np.square(waveform)))


def at_level(waveform: np.ndarray, rms: float = SOUND_RMS) -> np.ndarray:
    """The waveform (samples,) with another RMS, as float32; not for silence."""
    return (waveform * (rms / rms_of(waveform))).astype(np.float32)


def band(waveform: np.ndarray, low_hz: float, high_hz: float, order: int = 6) -> np.ndarray:
    """What sounds between two frequencies; -3 dB there."""
    edges = butter(order, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sosfilt(edges, waveform).astype(np.float32)


def room(waveform: np.ndarray) -> np.ndarray:
    """The sound in a room: itself, and noise that decays, as wide a band as it is."""
    t = np.arange(round(RT60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = coloured_noise(len(t)) * 10 ** (-3 * t / RT60) * (t >= PREDELAY)
    tail *= 10 ** (-DIRECT_TO_REVERBERANT / 20) / np.linalg.norm(tail)
    return (waveform + fftconvolve(waveform, tail)[: len(waveform)]).astype(np.float32)


def with_noise(waveform: np.ndarray, snr_db: float, exponent: float = 0) -> np.ndarray:
    """The sound and noise of that colour, `snr_db` below it in RMS."""
    return under(waveform, coloured_noise(len(waveform), exponent), snr_db)


def gain(waveform: np.ndarray, db: float) -> np.ndarray:
    """Louder or quieter."""
    return waveform * np.float32(10 ** (db / 20))


def clipped(waveform: np.ndarray, drive_db: float) -> np.ndarray:
    """What is left when the peak goes `drive_db` beyond full scale."""
    return np.clip(gain(waveform / max(np.abs(waveform).max(), np.float32(1e-9)), drive_db), -1, 1)


def faster(waveform: np.ndarray, percent: int) -> np.ndarray:
    """Pitch and tempo up together, like a record that turns too fast; down if negative."""
    return resample_poly(waveform, 100, 100 + percent)


def encode(
    waveform: np.ndarray,
    container: str = "wav",
    codec: str = "pcm_f32le",
    rate_hz: int = SAMPLE_RATE,
    bit_rate: int | None = None,
) -> bytes:
    """A waveform (samples,) or (channels, samples) at 22 050 Hz as an audio file.

    PyAV changes the rate, band-limited, where it must.
    """
    waveform = np.ascontiguousarray(np.atleast_2d(waveform), np.float32)
    layout = LAYOUTS[len(waveform)]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout, **({"bit_rate": bit_rate} if bit_rate else {}))
        frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=layout)
        frame.sample_rate = SAMPLE_RATE
        output.mux(stream.encode(frame) + stream.encode(None))
    return file.getvalue()


def knocked(waveform: np.ndarray, seconds: float, db: float = 20) -> np.ndarray:
    """The sound with one low knock, `db` above its RMS, a third of the way in."""
    n_samples = round(seconds * SAMPLE_RATE)
    rms = rms_of(waveform) * 10 ** (db / 20)
    knock = at_level(band(coloured_noise(n_samples, 1), 40, 2_000, 1) * np.hanning(n_samples), rms)
    start = len(waveform) // 3
    return np.concatenate([waveform[:start], waveform[start:][:n_samples] + knock, waveform[start + n_samples :]])


def apart(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """Two channels (2, samples), of which the second hears the sound later: two microphones, a tape head askew."""
    n_samples = round(seconds * SAMPLE_RATE)
    return np.stack(
        [waveform, np.concatenate([np.zeros(n_samples, np.float32), waveform[: len(waveform) - n_samples]])]
    )


def later(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The sound without its beginning, so that its frames lie elsewhere."""
    return waveform[round(seconds * SAMPLE_RATE) :]


def peaking_at(waveform: np.ndarray, dbfs: float) -> np.ndarray:
    """The sound at another level, by its highest peak."""
    return waveform / np.abs(waveform).max() * np.float32(10 ** (dbfs / 20))


def after(waveform: np.ndarray, seconds: float, dbfs: float) -> np.ndarray:
    """The sound at -6 dBFS behind so much hiss of that RMS."""
    hiss = coloured_noise(round(seconds * SAMPLE_RATE)) * np.float32(10 ** (dbfs / 20))
    return np.concatenate([hiss, peaking_at(waveform, -6)])


def shaken(waveform: np.ndarray, hz: float) -> np.ndarray:
    """The sound with a rumble as loud as full scale allows."""
    rumble = 0.5 * np.sin(2 * np.pi * hz * np.arange(len(waveform)) / SAMPLE_RATE)
    return peaking_at(waveform, -6) + rumble.astype(np.float32)


def crackling(waveform: np.ndarray, clicks_per_second: float = 20) -> np.ndarray:
    """The sound at full scale with clicks of up to a millisecond and up to 0.7 of that."""
    rng = np.random.default_rng(0)
    crackle = np.zeros(len(waveform), np.float32)
    for start in rng.integers(len(waveform), size=round(clicks_per_second * len(waveform) / SAMPLE_RATE)):
        crackle[start : start + rng.integers(2, 20)] += rng.uniform(-0.7, 0.7)
    return peaking_at(waveform, 0) + crackle


def levelled(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """What an automatic gain that follows the power of so many seconds makes of a sound."""
    follow = butter(1, 1 / (2 * np.pi * seconds), fs=SAMPLE_RATE, output="sos")
    return peaking_at(waveform / np.sqrt(sosfilt(follow, np.square(waveform)) + 1e-8), 0).astype(np.float32)


def swelling(waveform: np.ndarray, hz: float) -> np.ndarray:
    """The sound between silence and itself, so often a second."""
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * hz * np.arange(len(waveform)) / SAMPLE_RATE)
    return waveform * swell.astype(np.float32)


def under(waveform: np.ndarray, other: np.ndarray, db: float) -> np.ndarray:
    """The sound and another one over it, `db` below it in RMS, from its start again where it is shorter."""
    rms = rms_of(waveform) * 10 ** (-db / 20)
    return waveform + np.resize(at_level(other, rms), len(waveform))


def between(waveform: np.ndarray, other: np.ndarray, is_first: bool = True, seconds: float = 12.0) -> np.ndarray:
    """A sound in place of so many seconds of another one, as loud as that, at its beginning or at its end."""
    n = round(seconds * SAMPLE_RATE)
    loud = at_level(np.resize(other, n), float(rms_of(waveform)))
    return np.concatenate([loud, waveform[: len(waveform) - n]] if is_first else [waveform[: len(waveform) - n], loud])


def passing(waveform: np.ndarray) -> np.ndarray:
    """The sound with white noise as loud as itself over the middle third."""
    third = len(waveform) // 3
    noise = np.pad(at_level(coloured_noise(third), 1), (third, len(waveform) - 2 * third))
    return (waveform + noise * rms_of(waveform)).astype(np.float32)


def tone(waveform: np.ndarray, seconds: float, db: float) -> np.ndarray:
    """A tone of 1 kHz (samples,) of so many seconds, `db` above the RMS of a sound."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return at_level(np.sin(2_000 * np.pi * t), float(rms_of(waveform)) * 10 ** (db / 20))


def signalled(waveform: np.ndarray, seconds: float = 2.0, db: float = 10.0) -> np.ndarray:
    """The sound with such a tone over it, a third of the way in."""
    start = len(waveform) // 3
    signal = np.pad(tone(waveform, seconds, db), (start, len(waveform)))
    return waveform + signal[: len(waveform)]


def scratched(waveform: np.ndarray, turn_seconds: float = 1.8, times: float = 15.0) -> np.ndarray:
    """The sound with a tick of 3 ms in each turn of the record, of so many times its RMS."""
    t = np.arange(round(0.003 * SAMPLE_RATE)) / SAMPLE_RATE
    tick = peaking_at(np.exp(-t / 0.00075) * np.sin(2 * np.pi * t / 0.003), 0) * rms_of(waveform) * times
    ticks = np.zeros_like(waveform)
    ticks[:: round(turn_seconds * SAMPLE_RATE)] = 1
    return (waveform + fftconvolve(ticks, tick)[: len(waveform)]).astype(np.float32)


def turned_down(waveform: np.ndarray, db: float = 20.0) -> np.ndarray:
    """The sound with its second half quieter."""
    half = len(waveform) // 2
    return np.concatenate([waveform[:half], gain(waveform[half:], -db)])


def interrupted(waveform: np.ndarray, times: int = 4, seconds: float = 0.8) -> np.ndarray:
    """The sound with pauses of digital silence put in."""
    gap = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    first, *rest = np.array_split(waveform, times + 1)
    return np.concatenate([first, *(part for piece in rest for part in (gap, piece))])


def hum(n_samples: int, hz: float) -> np.ndarray:
    """What the mains make (samples,): a tone and its overtones."""
    t = np.arange(n_samples) / SAMPLE_RATE
    return at_level(sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 9)))


class Condition(NamedTuple):
    """One way in which a song reaches the classifier: a waveform (samples,) at 22 050 Hz to the bytes of a file."""

    name: str
    why: str
    to_file: Callable[[np.ndarray], bytes]
    is_spoken: bool = False  # takes a voice of espeak-ng


CLEAN = Condition("clean", "the clip as it is, in 32-bit float", encode)
CONDITIONS = (
    CLEAN,
    Condition("bump, 0.3 s", "somebody touches the microphone, 20 dB", lambda x: encode(knocked(x, 0.3))),
    Condition("click, 50 ms", "a switch, 20 dB above the music", lambda x: encode(knocked(x, 0.05))),
    Condition("right inverted", "a wrong cable, surround effects", lambda x: encode(np.stack([x, -x]))),
    Condition("right 0.5 ms late", "two microphones, a tape head askew", lambda x: encode(apart(x, 0.0005))),
    Condition("peaks at -50 dBFS", "recorded far too soft", lambda x: encode(peaking_at(x, -50))),
    Condition("DC of half scale", "a cheap input", lambda x: encode(peaking_at(x, -6) + np.float32(0.5))),
    Condition("hiss first", "two minutes at -50 dBFS, then music", lambda x: encode(after(x, 120, -50))),
    Condition("right 10 ms late", "a microphone further off", lambda x: encode(apart(x, 0.01))),
    Condition("rear inverted, 5.1", "surround effects", lambda x: encode(np.stack([x, x, 0 * x, 0 * x, -x, -x]))),
    Condition("rumble at 12 Hz", "a turntable, wind", lambda x: encode(shaken(x, 12))),
    Condition("silence about it", "half of what is recorded", lambda x: encode(np.pad(x, len(x) // 2))),
    Condition("cut 10 ms later", "another player, another cut", lambda x: encode(later(x, 0.01))),
    Condition("cut 30 ms later", "the same, three quarters of a frame", lambda x: encode(later(x, 0.03))),
    Condition("phone band", "a call: 300-3400 Hz at 8 kHz", lambda x: encode(band(x, 300, 3_400), rate_hz=8_000)),
    Condition("room", "a microphone a metre from the loudspeaker", lambda x: encode(room(x))),
    Condition("white noise, 20 dB", "a cheap microphone", lambda x: encode(with_noise(x, 20))),
    Condition("white noise, 10 dB", "a radio badly tuned", lambda x: encode(with_noise(x, 10))),
    Condition("pink noise, 10 dB", "wind, traffic", lambda x: encode(with_noise(x, 10, exponent=1))),
    Condition("mp3, 32 kbit/s", "old downloads", lambda x: encode(x, "mp3", "libmp3lame", bit_rate=32_000)),
    Condition("opus, 32 kbit/s", "messengers, browsers", lambda x: encode(x, "ogg", "libopus", 48_000, 32_000)),
    Condition("gain +12 dB", "beyond full scale, in float", lambda x: encode(gain(x, 12))),
    Condition("gain -12 dB", "a quiet recording", lambda x: encode(gain(x, -12))),
    Condition("clipping, 12 dB", "a recording level far too high", lambda x: encode(clipped(x, 12))),
    Condition("speed +5 %", "a record that turns too fast", lambda x: encode(faster(x, 5))),
    Condition("speed -5 %", "a tired cassette player", lambda x: encode(faster(x, -5))),
    Condition("crackle", "an old record, 20 clicks a second", lambda x: encode(crackling(x))),
    Condition("automatic gain", "a dictaphone that follows 20 ms", lambda x: encode(levelled(x, 0.02))),
    Condition("swelling, 3 Hz", "a fan before the loudspeaker, a vibrato", lambda x: encode(swelling(x, 3))),
    Condition("crowd, 6 dB below", "a bar", lambda x: encode(under(x, noise_babble(len(x), 0.6), 6))),
    Condition("voice, 10 dB below", "somebody talks over it", lambda x: encode(under(x, speeches()[0], 10)), True),
    Condition("speech first", "an announcement of 12 s", lambda x: encode(between(x, speeches()[0])), True),
    Condition("applause last", "12 s of it at a concert", lambda x: encode(between(x, applause(len(x), 300), False))),
    Condition("hum first", "a cable that has come loose, 12 s", lambda x: encode(between(x, hum(len(x), 50)))),
    Condition("noise over a third", "a train passes, as loud as the music", lambda x: encode(passing(x))),
    Condition("tone first, 2 s", "a horn, 10 dB above", lambda x: encode(np.concatenate([tone(x, 2.0, 10.0), x]))),
    Condition("tone over it, 2 s", "the same in the middle", lambda x: encode(signalled(x))),
    Condition("scratch", "a record that ticks once a turn", lambda x: encode(scratched(x))),
    Condition("half 20 dB softer", "somebody turns it down", lambda x: encode(turned_down(x))),
    Condition("four pauses of 0.8 s", "a pause key, a weak connection", lambda x: encode(interrupted(x))),
)


@cache
def speeches() -> list[np.ndarray]:
    """Some twenty seconds of each voice, or nothing where espeak-ng and its voices are not installed."""
    try:
        commands = (["espeak-ng", "-v", voice, "--stdout", SPOKEN] for voice in VOICES)
        return [at_level(load_audio(subprocess.run(c, capture_output=True, check=True).stdout)[0]) for c in commands]
    except (OSError, subprocess.CalledProcessError):
        return []


def babble(speakers: Sequence[np.ndarray], n_voices: int, n_samples: int) -> np.ndarray:
    """A crowd (samples,): the speakers in turn, each from somewhere else in the text."""
    starts = np.random.default_rng(n_voices).integers(1 << 30, size=n_voices)
    voices = (np.resize(np.roll(speakers[i % len(speakers)], -start), n_samples) for i, start in enumerate(starts))
    return at_level(sum(voices))


def noise_babble(n_samples: int, depth: float) -> np.ndarray:
    """A crowd (samples,) without a voice: bands of noise that swell a few times a second, high ones quieter."""
    total = np.zeros(n_samples)
    edges = np.geomspace(150, 6_000, 11)
    slow = butter(2, 4, fs=SAMPLE_RATE, output="sos")
    for seed, (low, high) in enumerate(pairwise(edges)):
        swell = at_level(sosfilt(slow, coloured_noise(n_samples, seed=100 + seed)), depth)
        tilt = 1 / max(1, low / 500)  # -6 dB an octave above 500 Hz
        total += tilt * np.maximum(1 + swell, 0) * at_level(band(coloured_noise(n_samples, seed=seed), low, high, 2), 1)
    return at_level(total)


def applause(n_samples: int, claps_per_second: int) -> np.ndarray:
    """Claps (samples,) at random moments: bursts of noise about 1.5 kHz, some ten milliseconds long."""
    rng = np.random.default_rng(claps_per_second)
    t = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    total = np.zeros(n_samples)
    for hand in range(8):  # each claps its own way
        moments = (rng.random(n_samples) < claps_per_second / 8 / SAMPLE_RATE) * rng.uniform(0.2, 1, n_samples)
        clap = band(coloured_noise(len(t), seed=hand) * np.exp(-t / 0.004), 700 + 100 * hand, 3_000 + 300 * hand, 1)
        total += fftconvolve(moments, clap)[:n_samples]
    return at_level(total)


def sounds(seconds: float) -> dict[str, list[np.ndarray]]:
    """Waveforms (samples,) that are no music, by what they are; none of those that cannot be made here."""
    n = round(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    speakers = speeches()
    return {
        "silence": [np.zeros(n, np.float32), at_level(coloured_noise(n), 1e-4)],  # the second is a -80 dB hiss
        "white noise": [at_level(coloured_noise(n, 0, seed)) for seed in range(3)],
        "pink noise": [at_level(coloured_noise(n, 1, seed)) for seed in range(3)],
        "pure tones": [at_level(np.sin(2 * np.pi * hz * t)) for hz in (110, 220, 440, 1_000, 3_000)],
        "mains hum": [hum(n, hz) for hz in (50, 60, 120)],
        "applause": [applause(n, claps) for claps in (30, 100, 400)],
        "crowd of noise bands": [noise_babble(n, depth) for depth in (0.3, 0.6, 1)],
        "crowd of voices": [babble(speakers, n_voices, n) for n_voices in (8, 24, 64) if speakers],
        "speech": [np.resize(speech, n) for speech in speakers],
    }


class Answer(NamedTuple):
    """What came back for a file."""

    verdict: str
    top: str | None  # the most probable genre, also where the verdict is not a genre
    probability: float  # of that genre, 0 where there is none


def ask(classifier: GenreClassifier, file: bytes) -> Answer:
    """The classifier's answer to a file's bytes."""
    prediction = classifier.predict(file)
    return Answer(prediction.verdict, *next(iter(prediction.probabilities.items()), (None, 0.0)))


def summarise(genres: Sequence[str], answers: Sequence[Answer], clean: Sequence[Answer]) -> dict[str, float | None]:
    """What a condition costs: shares of the clips, and the paired change against clean with its standard error."""
    right, right_clean = (np.equal([answer.top for answer in each], genres) for each in (answers, clean))
    answered = np.array([answer.verdict == answer.top for answer in answers])
    change, pairs = right.astype(float) - right_clean, [*zip(answers, clean, strict=True)]
    return {
        "accuracy": float(right.mean()),
        "change": float(change.mean()),
        "change_error": float(change.std() / np.sqrt(len(change))),
        "agreement": float(np.mean([answer.top == other.top for answer, other in pairs])),
        "same_verdict": float(np.mean([answer.verdict == other.verdict for answer, other in pairs])),
        "answered": float(answered.mean()),
        "right_of_answered": float(right[answered].mean()) if answered.any() else None,
    }


def measure_conditions(classifier: GenreClassifier, clips: dict[str, Path]) -> dict[str, dict[str, float | None]]:
    """The figures of each condition, over the clips by track id."""
    conditions = [condition for condition in CONDITIONS if speeches() or not condition.is_spoken]
    answers: dict[str, list[Answer]] = {condition.name: [] for condition in conditions}
    for path in tqdm(clips.values(), unit="clip"):
        waveform = load_audio(path)[0]
        for condition in conditions:
            answers[condition.name].append(ask(classifier, condition.to_file(waveform)))
    genres = [genre_of(track) for track in clips]
    return {name: summarise(genres, each, answers[CLEAN.name]) for name, each in answers.items()}


def measure_sounds(classifier: GenreClassifier) -> dict[str, dict]:
    """The verdicts on sounds that are no music, most frequent first, and the highest probability of a genre.

    Each sound is asked about once in every length of SOUND_SECONDS.
    """
    measured, of_lengths = {}, [sounds(seconds) for seconds in SOUND_SECONDS]
    for name in of_lengths[0]:
        answers = [ask(classifier, encode(waveform)) for each in of_lengths for waveform in each[name]]
        measured[name] = {
            "verdicts": dict(Counter(answer.verdict for answer in answers).most_common()),
            "highest_probability": max((answer.probability for answer in answers), default=None),
        }
    return measured


def find_clips(folder: Path, split: str, genres: Sequence[str]) -> dict[str, Path]:
    """The clips of a part of the fault-filtered split, by track id. Raises DatasetError if there are none to judge."""
    tracks = find_tracks(folder)
    clips = {track: tracks[track] for track in FAULT_FILTERED[split] if track in tracks}
    if not clips:
        raise DatasetError(f"{folder} has no clips of the {split} part of GTZAN's fault-filtered split.")
    if unknown := sorted(set(map(genre_of, clips)) - set(genres)):
        raise DatasetError(f"The model knows {', '.join(genres)}, but the data has {', '.join(unknown)} too.")
    return clips


def report(conditions: dict[str, dict[str, float | None]], non_music: dict[str, dict]) -> None:
    """Print both tables and the worst fall."""
    print(
        f"{'condition':20}{'accuracy':>10}{'change, points':>17}{'agrees':>9}{'verdict':>9}{'answered':>10}"
        f"{'right then':>12}  why"
    )
    for condition in CONDITIONS:
        name, row = condition.name, conditions.get(condition.name)
        if row is None:
            print(f"{name:20}  {WITHOUT_VOICES}")
            continue
        change = f"{100 * row['change']:+.1f} ± {100 * row['change_error']:.1f}" if condition is not CLEAN else ""
        right = "-" if row["right_of_answered"] is None else f"{row['right_of_answered']:.1%}"
        print(
            f"{name:20}{row['accuracy']:10.1%}{change:>17}{row['agreement']:9.0%}{row['same_verdict']:9.0%}"
            f"{row['answered']:10.0%}{right:>12}  {condition.why}"
        )
    lengths = " and ".join(f"{seconds} s" for seconds in SOUND_SECONDS)
    print(f"\n{'no music':24}{'highest':>8}  verdicts, on {lengths} of each")
    for name, row in non_music.items():
        verdicts = ", ".join(f"{verdict} {count}" for verdict, count in row["verdicts"].items())
        highest = "" if row["highest_probability"] is None else f"{row['highest_probability']:.0%}"
        print(f"{name:24}{highest:>8}  {verdicts or WITHOUT_VOICES}")
    name, worst = min(conditions.items(), key=lambda item: item[1]["change"])
    fall = f"{name}, {100 * worst['change']:+.1f} ± {100 * worst['change_error']:.1f} points"
    print(f"\nWorst fall: {fall if worst['change'] < 0 else 'none'}")


def run(args: argparse.Namespace) -> None:
    """Measure, print and write the figures."""
    classifier = GenreClassifier.from_pretrained(args.model)
    clips = find_clips(args.data, args.split, classifier.genres)
    print(f"{classifier.origin.name}, {len(clips)} clips of the {args.split} part")
    if has_heard(classifier.model, PROTOCOL, args.split):
        print("It was trained on clips of this part, so the accuracies are too good.")
    print()
    conditions = measure_conditions(classifier, clips)
    non_music = measure_sounds(classifier)
    report(conditions, non_music)
    if args.json:
        figures = {"model": classifier.origin.name, "split": args.split, "n": len(clips)}
        args.json.write_text(json.dumps({**figures, "conditions": conditions, "no_music": non_music}, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit status, 2 for a fault in what it was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of genre folders with GTZAN's clips")
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--split", choices=FAULT_FILTERED, default="valid")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures to this file")
    args = parser.parse_args(argv)
    try:
        run(args)
    except (AudioError, DatasetError, CheckpointError) as error:
        print(f"robustness.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    return 0


if __name__ == "__main__":
    sys.exit(main())
