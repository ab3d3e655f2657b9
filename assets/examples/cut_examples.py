"""The example clips that are other people's recordings, cut from the files of Debian packages.

Needs ffmpeg, numpy, which the project has anyway, and the packages named under RECORDINGS, installed or only unpacked:

    apt download lincity-ng-data freedink-data colobot-common-sounds fretsonfire-songs-muldjord openclonk-data
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
    python assets/examples/cut_examples.py --root unpacked   # or only some: cut_examples.py --root unpacked jazz metal

Which recordings these are was decided by the rule in README.md, and every clip begins after a quarter of its recording.
"""

from __future__ import annotations

import argparse
import functools
import operator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from make_examples import PEAK_DB, SAMPLE_RATE, encode, through_ffmpeg

SECONDS = 29
BEGINS_AT = 0.25  # of the recording's length
FADE_IN_SECONDS, FADE_OUT_SECONDS = 0.1, 1.5
NOTICE = "29 seconds, cut and faded. See assets/examples/README.md"


@dataclass(frozen=True)
class Recording:
    format: str
    title: str
    artist: str
    licence: str
    folder: str  # below the root that the packages are unpacked in
    files: tuple[str, ...]  # more than one: stems that play together


RECORDINGS = {
    "blues": Recording(
        "mp3", "City Blues", "Robert van Herk", "GPL-2.0-or-later",
        "usr/share/games/lincity-ng/music/default", ("02 - Robert van Herk - City Blues.ogg",),
    ),
    "classical": Recording(
        "mp3", "Ave Maria (Bach, Gounod)", "John Michel, cello", "CC BY-SA 3.0",
        "usr/share/games/dink/dink/Sound", ("1.ogg",),
    ),
    "jazz": Recording(
        "ogg", "Jazz Buzzing EasterEgg", "Daniel Roux", "GPL-3.0-or-later",
        "usr/share/games/colobot/music", ("music013.ogg",),
    ),
    "metal": Recording(
        "mp3", "Armygeddon", "Muldjord", "CC BY-SA 3.0",
        "usr/share/games/fretsonfire/data/songs/muldjord/armygeddon", ("song.ogg", "guitar.ogg"),
    ),
    "reggae": Recording(
        "mp3", "Island Dreams", "Martin Strohmeier (K-Pone)", "CC BY 3.0",
        "usr/share/games/openclonk/Music.ocg", ("IslandDreams.ogg",),
    ),
    "rock": Recording(
        "mp3", "Motorway", "Martin Strohmeier (K-Pone)", "CC BY 3.0",
        "usr/share/games/openclonk/Music.ocg", ("Motorway.ogg",),
    ),
}  # fmt: skip


def cut(recording: Recording, root: Path) -> np.ndarray:
    """The clip with its fades, (samples, 2)."""
    stems = [through_ffmpeg(["-i", str(root / recording.folder / name)]) for name in recording.files]
    n_samples = min(map(len, stems))
    start = round(BEGINS_AT * n_samples)
    clip = functools.reduce(operator.add, (stem[start : start + SECONDS * SAMPLE_RATE] for stem in stems)).copy()
    n_in, n_out = round(FADE_IN_SECONDS * SAMPLE_RATE), round(FADE_OUT_SECONDS * SAMPLE_RATE)
    clip[:n_in] *= np.linspace(0, 1, n_in, dtype=np.float32)[:, None]
    clip[-n_out:] *= np.linspace(1, 0, n_out, dtype=np.float32)[:, None]
    return clip * (10 ** (PEAK_DB / 20) / np.abs(clip).max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Cut the example clips from the recordings in Debian's packages.")
    parser.add_argument("genres", nargs="*", default=sorted(RECORDINGS), help="which ones (default: all)")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are unpacked (default: /)")
    arguments = parser.parse_args(argv)
    for genre in arguments.genres:
        if genre not in RECORDINGS:
            parser.error(f"no recording for {genre!r}; there are {', '.join(sorted(RECORDINGS))}")
        recording = RECORDINGS[genre]
        tags = {"title": recording.title, "artist": recording.artist, "genre": genre, "copyright": recording.licence}
        path = encode(cut(recording, arguments.root), genre, recording.format, tags | {"comment": NOTICE})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
