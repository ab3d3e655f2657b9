"""The synthesised example clips, rebuilt: FluidSynth plays the scores source/<genre>.ini, ffmpeg and numpy mix them.

Needs three Debian packages, and numpy, which the project has anyway:

    apt install fluidsynth fluid-soundfont-gm ffmpeg
    python assets/examples/make_examples.py               # all four, or only some: make_examples.py disco pop

The notation of the scores is explained in README.md, under "The notation".
"""

from __future__ import annotations

import argparse
import configparser
import random
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SOURCE = HERE / "source"
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")

SAMPLE_RATE = 44_100  # hz
TICKS_PER_BEAT = 480
BEATS_PER_BAR = 4
TAIL_SECONDS = 1.0  # after the last bar, for what still rings
FADE_SECONDS = 2.0
STEM_DB = -18.0  # every part meets its effects, and the mix its master, at this level (RMS)
PEAK_DB = -1.5  # lossy coding adds up to a decibel
TIMING_SECONDS = 0.006  # how far a player strays from the beat, standard deviation
VELOCITY_SPREAD = 5
WIDE = 0.8  # how far apart two takes of one part stand
PCM = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "2"]  # how samples go to ffmpeg and come back

ENCODERS = {
    "mp3": "-c:a libmp3lame -b:a 112k",
    "ogg": "-c:a libvorbis -q:a 3",
    "m4a": "-c:a aac -b:a 112k -movflags +faststart",
}
MASTER = "acompressor=threshold=-18dB:ratio=2:attack=20:release=200,alimiter=limit=0.6:level=disabled"

PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "b": -1}
MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
CHORDS = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "5": (0, 7),
    "sus4": (0, 5, 7),
    "6": (0, 4, 7, 9),
    "m6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "m7b5": (0, 3, 6, 10),
    "9": (0, 4, 7, 10, 14),
    "m9": (0, 3, 7, 10, 14),
    "maj9": (0, 4, 7, 11, 14),
    "13": (0, 4, 7, 10, 14, 21),
}
DRUMS = {
    "kick": 36, "rim": 37, "snare": 38, "clap": 39, "floor": 43, "low": 45, "mid": 47, "high": 50,
    "hat": 42, "foot": 44, "open": 46, "ride": 51, "bell": 53, "crash": 49, "crash2": 57,
    "tambourine": 54, "cowbell": 56, "conga": 63, "tumba": 64, "shaker": 70,
}  # fmt: skip
VELOCITIES = {"!": 114, "": 94, "?": 62}
HITS = {"X": "!", "x": "", "o": "?"}


@dataclass(frozen=True)
class Chord:
    root: int  # pitch class, 0 = C
    tones: tuple[int, ...]  # semitones above the root


@dataclass(frozen=True)
class Note:
    start: float  # beats from the beginning
    length: float  # beats
    pitches: tuple[int, ...]  # MIDI numbers, low to high
    velocity: int
    bend: bool = False  # slides up into the pitch from a tone below


@dataclass(frozen=True)
class Song:
    genre: str
    tempo: float  # beats a minute
    swing: float  # the share of a pair of steps that the first takes: 0.5 is straight
    swing_step: float  # beats, the step that is swung
    bars: list[list[Chord]]
    parts: dict[str, configparser.SectionProxy]
    settings: configparser.SectionProxy

    def seconds(self, beat: float, swung: bool = True) -> float:
        """The time of a beat, the off-beats delayed by the swing."""
        if swung:
            pair = 2 * self.swing_step
            whole, phase = divmod(beat / pair, 1.0)
            phase = phase / 0.5 * self.swing if phase < 0.5 else self.swing + (phase - 0.5) / 0.5 * (1 - self.swing)
            beat = (whole + phase) * pair
        return beat * 60 / self.tempo

    @property
    def duration(self) -> float:
        return len(self.bars) * BEATS_PER_BAR * 60 / self.tempo + TAIL_SECONDS


# Reading a score ------------------------------------------------------------------------------------------------------


def read_song(genre: str) -> Song:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=(";",))
    with (SOURCE / f"{genre}.ini").open(encoding="utf-8") as file:
        parser.read_file(file)
    settings = parser["song"]
    return Song(
        genre=genre,
        tempo=settings.getfloat("tempo"),
        swing=settings.getfloat("swing", 0.5),
        swing_step=settings.getfloat("swing step", 0.5),
        bars=[[read_chord(name) for name in bar.split()] for bar in split_bars(settings["chords"])],
        parts={name: parser[name] for name in parser.sections() if name != "song"},
        settings=settings,
    )


def split_bars(text: str) -> list[str]:
    """Bars stand between `|` or on lines of their own; `%` repeats the bar before."""
    bars: list[str] = []
    for bar in re.split(r"[|\n]", text):
        if bar.strip():
            bars.append(bars[-1] if bar.strip() == "%" else bar.strip())
    return bars


def read_chord(name: str) -> Chord:
    letter, accidental, quality = re.fullmatch(r"([A-G])([#b]?)(.*)", name).groups()
    return Chord((PITCH_CLASSES[letter] + ACCIDENTALS[accidental]) % 12, CHORDS[quality])


def read_pitch(name: str) -> int:
    letter, accidental, octave = re.fullmatch(r"([A-G])([#b]?)(\d)", name).groups()
    return 12 * (int(octave) + 1) + PITCH_CLASSES[letter] + ACCIDENTALS[accidental]


def pitches_of(name: str, chord: Chord, following: Chord, low: int) -> list[int]:
    """What a step asks for: a written pitch, a degree of the chord, the chord, or the way to the next root."""
    root = low + (chord.root - low) % 12
    if name[0] in PITCH_CLASSES:
        return [read_pitch(name)]
    if name == "c":
        return sorted(low + (chord.root + tone - low) % 12 for tone in chord.tones)
    if name == ">":
        target = low + (following.root - low) % 12
        return [target - 1 if target > low else target + 1]
    down, accidental, number = re.fullmatch(r"(,?)([#b]?)(\d+)", name).groups()
    octave, step = divmod(int(number) - 1, 7)
    semitones = MAJOR_SCALE[step]
    if not accidental and step in (2, 4, 6):  # third, fifth and seventh are the chord's own
        own = [tone for tone in chord.tones if tone in (semitones, semitones - 1)]
        semitones = own[0] if own else semitones - (step == 6)
    return [root + semitones + 12 * octave + ACCIDENTALS[accidental] - (12 if down else 0)]


def bars_of(part: configparser.SectionProxy, text: str, n_bars: int) -> Iterator[tuple[int, str]]:
    """The bars of a part with their numbers: its own in turn, over and over, from where it enters, then the last."""
    bars, first = split_bars(text), part.getint("from", 1) - 1
    for number in range(first, n_bars):
        yield number, part["last"] if number == n_bars - 1 and "last" in part else bars[(number - first) % len(bars)]


def read_melody(part: configparser.SectionProxy, song: Song) -> Iterator[tuple[Note, bool]]:
    """The notes of a pitched part, each with whether it follows the swing: triplets do not."""
    low = read_pitch(part.get("low", "C3"))
    for number, bar in bars_of(part, part["play"], len(song.bars)):
        steps = bar.split()
        step_beats = BEATS_PER_BAR / len(steps)
        chords, following = song.bars[number], song.bars[min(number + 1, len(song.bars) - 1)][0]
        for index, step in enumerate(steps):
            if step in ".-":
                continue
            held = next((i for i, later in enumerate(steps[index + 1 :]) if later != "-"), len(steps) - index - 1)
            names, marks = re.fullmatch(r"(.*?)([!?'~]*)", step).groups()
            chord = chords[index * len(chords) // len(steps)]
            pitches = [pitch for name in names.split("+") for pitch in pitches_of(name, chord, following, low)]
            length = (held + 1) * step_beats * (0.4 if "'" in marks else part.getfloat("length", 0.92))
            velocity = VELOCITIES[next((mark for mark in marks if mark in VELOCITIES), "")]
            start = number * BEATS_PER_BAR + index * step_beats
            yield Note(start, length, tuple(sorted(set(pitches))), velocity, "~" in marks), len(steps) % 3 > 0


def read_drums(part: configparser.SectionProxy, song: Song) -> Iterator[tuple[Note, bool]]:
    """The hits of a drum part: one line a drum, one character a step; the line `last` holds for the last bar alone."""
    for voice in part["play"].strip().replace("\n|", " |").splitlines():
        name, _, text = voice.partition(":")
        for number, bar in bars_of(part, text, len(song.bars)):
            if number == len(song.bars) - 1 and "last" in part:
                continue
            for index, step in enumerate(steps := bar.replace(" ", "")):
                if step in HITS:
                    start = (number + index / len(steps)) * BEATS_PER_BAR
                    yield Note(start, 0.2, (DRUMS[name.strip()],), VELOCITIES[HITS[step]]), len(steps) % 3 > 0
    for name in part.get("last", "").split():
        yield Note((len(song.bars) - 1) * BEATS_PER_BAR, 0.2, (DRUMS[name],), VELOCITIES["!"]), False


# Playing it -----------------------------------------------------------------------------------------------------------


def midi_events(part: configparser.SectionProxy, song: Song, rng: random.Random) -> list[tuple[float, bytes]]:
    """The MIDI messages of a part with their times in seconds, played with a human hand."""
    drums = "kit" in part
    channel = 9 if drums else 0
    strum = part.getfloat("strum", 0) / 1000
    events = [
        (0.0, bytes([0xC0 | channel, part.getint("kit" if drums else "program")])),
        (0.0, bytes([0xB0 | channel, 91, part.getint("reverb", 40)])),
    ]
    for note, swung in read_drums(part, song) if drums else read_melody(part, song):
        late = rng.gauss(0, TIMING_SECONDS) + part.getfloat("late", 0) / 1000
        start = max(0.0, song.seconds(note.start, swung) + late)
        end = max(start + 0.05, song.seconds(note.start + note.length, swung))
        velocity = min(127, max(20, note.velocity + round(rng.gauss(0, VELOCITY_SPREAD))))
        if note.bend:
            events += [(start + 0.025 * i, bytes([0xE0 | channel, 0, 8 + 7 * i])) for i in range(9)]
        if "vibrato" in part:
            events += [(start, bytes([0xB0 | channel, 1, 0]))]
            events += [(start + 0.35, bytes([0xB0 | channel, 1, part.getint("vibrato")]))] if end - start > 0.5 else []
        for string, pitch in enumerate(note.pitches):
            events.append((start + string * strum, bytes([0x90 | channel, pitch, velocity])))
            events.append((end, bytes([0x80 | channel, pitch, 0])))
    return sorted(events, key=lambda event: (event[0], event[1][0] & 0xF0 == 0x90))  # note-offs come before note-ons


def midi_file(events: list[tuple[float, bytes]], duration: float) -> bytes:
    """A standard MIDI file of one track at 60 beats a minute, so that a beat is a second."""
    track, now = bytearray(b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")), 0
    for seconds, message in [*events, (duration, b"\xff\x2f\x00")]:
        ticks = round(seconds * TICKS_PER_BEAT)
        track += variable_length(ticks - now) + message
        now = ticks
    header = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (0, 1, TICKS_PER_BEAT))
    return header + b"MTrk" + len(track).to_bytes(4, "big") + bytes(track)


def variable_length(value: int) -> bytes:
    """MIDI's numbers: seven bits a byte, the top bit set on all but the last."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def synthesise(events: list[tuple[float, bytes]], song: Song) -> np.ndarray:
    """The sound of MIDI messages, (samples, 2)."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "part.mid"), Path(folder, "part.wav")
        midi.write_bytes(midi_file(events, song.duration))
        command = f"fluidsynth -ni -q -g 0.5 -r {SAMPLE_RATE} -T wav -O float -F {wav} {SOUNDFONT} {midi}"
        subprocess.run(shlex.split(command), check=True, capture_output=True)
        return through_ffmpeg(["-i", str(wav)])


def sampled(part: configparser.SectionProxy, song: Song, rng: random.Random) -> np.ndarray:
    """The sound of a part that repeats one recorded sample, (samples, 2)."""
    sample = through_ffmpeg(["-i", str(SOURCE / "samples" / part["sample"])])
    stem = np.zeros((round(song.duration * SAMPLE_RATE) + len(sample), 2), np.float32)
    for number, bar in bars_of(part, part["play"], len(song.bars)):
        for index, step in enumerate(steps := bar.replace(" ", "")):
            if step in HITS:
                beat = (number + index / len(steps)) * BEATS_PER_BAR
                start = max(0, round((song.seconds(beat) + rng.gauss(0, TIMING_SECONDS / 2)) * SAMPLE_RATE))
                stem[start : start + len(sample)] += sample * VELOCITIES[HITS[step]] / 127
    return stem


# Mixing ---------------------------------------------------------------------------------------------------------------


def through_ffmpeg(source: list[str], filters: str = "", stdin: np.ndarray | None = None) -> np.ndarray:
    """A file, or an array on ffmpeg's standard input, after a chain of filters, (samples, 2)."""
    chain = ["-af", filters] if filters else []
    command = ["ffmpeg", "-v", "error", *source, *chain, *PCM, "-"]
    data = None if stdin is None else stdin.astype("<f4").tobytes()
    result = subprocess.run(command, check=True, capture_output=True, input=data)
    return np.frombuffer(result.stdout, "<f4").reshape(-1, 2)


def effects(sound: np.ndarray, filters: str) -> np.ndarray:
    return through_ffmpeg([*PCM, "-i", "-"], filters, sound) if filters else sound


def at_level(sound: np.ndarray, level_db: float) -> np.ndarray:
    """The sound with its RMS at a level, measured over the tenths of a second in which it is heard at all."""
    block = SAMPLE_RATE // 10
    blocks = sound[: len(sound) // block * block].reshape(-1, block * 2)
    powers = np.square(blocks, dtype=np.float64).mean(1)
    rms = np.sqrt(powers[powers > powers.max() * 1e-4].mean())
    return sound * (10 ** (level_db / 20) / rms)


def take(name: str, song: Song, number: int) -> np.ndarray:
    """One player's recording of a part, at its level in the mix, (samples, 2)."""
    part, rng = song.parts[name], random.Random(f"{song.genre} {name} {number}")
    sound = sampled(part, song, rng) if "sample" in part else synthesise(midi_events(part, song, rng), song)
    sound = effects(at_level(sound, STEM_DB), part.get("effects", ""))
    return at_level(sound, STEM_DB + part.getfloat("level", 0))


def placed(sound: np.ndarray, pan: float) -> np.ndarray:
    """The sound moved to the left (-1) or to the right (1), at the same power."""
    angle = (pan + 1) * np.pi / 4
    return sound * np.array([np.cos(angle), np.sin(angle)], np.float32) * np.sqrt(2)


def mix(song: Song) -> np.ndarray:
    """All parts together, mastered, with the fade at the end, (samples, 2)."""
    n_samples = round(song.duration * SAMPLE_RATE)
    total = np.zeros((n_samples, 2), np.float32)
    for name, part in song.parts.items():
        wide = part.get("pan", "0") == "wide"
        for number, pan in enumerate((-WIDE, WIDE) if wide else (part.getfloat("pan", 0),)):
            sound = placed(take(name, song, number), pan)[:n_samples]
            total[: len(sound)] += sound
    total = effects(at_level(total, STEM_DB), MASTER)[:n_samples].copy()
    n_fade = round(FADE_SECONDS * SAMPLE_RATE)
    total[-n_fade:] *= np.cos(np.linspace(0, np.pi / 2, n_fade, dtype=np.float32))[:, None] ** 2
    return total * (10 ** (PEAK_DB / 20) / np.abs(total).max())


def encode(sound: np.ndarray, genre: str, form: str, tags: dict[str, str]) -> Path:
    """The clip of a genre written beside this script, in one of the formats of ENCODERS."""
    path = HERE / f"{genre}.{form}"
    metadata = [word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")]
    encoder = shlex.split(ENCODERS[form])
    command = ["ffmpeg", "-v", "error", "-y", *PCM, "-i", "-", *encoder, *metadata, "-fflags", "+bitexact", str(path)]
    subprocess.run(command, check=True, input=sound.astype("<f4").tobytes())
    return path


def make(genre: str) -> Path:
    song = read_song(genre)
    tags = {"title": song.settings["title"], "artist": "Genre CRNN", "genre": genre}
    tags |= {"comment": "Synthesised. See assets/examples/README.md"}
    return encode(mix(song), genre, song.settings["format"], tags)


def main(argv: list[str] | None = None) -> None:
    genres = sorted(path.stem for path in SOURCE.glob("*.ini"))
    parser = argparse.ArgumentParser(description="Rebuild the example clips from their scores.")
    parser.add_argument("genres", nargs="*", default=genres, help="which ones (default: all)")
    for genre in parser.parse_args(argv).genres:
        if genre not in genres:
            parser.error(f"no score for {genre!r}; there are {', '.join(genres)}")
        path = make(genre)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
