"""How often passages have the whole song's verdict: `python benchmarks/agreement.py FEATURES [--songs N] [--model M]`.

FEATURES is a feature file. No song is heard as its authors left it: what is called a song here is a minute put together
from parts of one clip, which last 4 to 12 s and come in any order, some more than once. Nothing is decoded, so that
many can be asked; clips in which nothing sounds are left out. Printed are the share with the verdict of the whole, that
with the same most probable genre, how many songs are answered at all, and how many are heard as a whole as well, which
`--quick` does with those in doubt. The more of the clips the model was not trained on, the more this says.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.arguments import positive  # noqa: E402
from crnn.audio import Passages  # noqa: E402
from crnn.data.features import Features  # noqa: E402
from crnn.features import FRAMES_PER_SECOND, n_frames_of, sounding_frames, stand_on_level  # noqa: E402
from crnn.inference import UNSURE, Recording  # noqa: E402
from crnn.library.job import QUICK  # noqa: E402

SONG_SECONDS = 60.0
OR_WHOLE = " or whole"


def song_of(log_mel: torch.Tensor, seed: int) -> torch.Tensor:
    """A log-mel (128, frames) of a minute, of parts of a clip's. Raises ValueError if that has no frame."""
    if not log_mel.shape[1]:
        raise ValueError("nothing sounds in this clip")
    random_, parts, length = random.Random(seed), [], 0
    while length < n_frames_of(SONG_SECONDS):
        part = n_frames_of(random_.uniform(4, 12))
        start = random_.randrange(max(1, log_mel.shape[1] - part))
        parts.append(log_mel[:, start : start + part])
        length += parts[-1].shape[1]
    return torch.cat(parts, dim=1)[:, : n_frames_of(SONG_SECONDS)]


def recording_of(parts: list[torch.Tensor], starts_seconds: tuple[float, ...] = ()) -> Recording:
    """What is heard of a song: these log-mels (128, frames), on one level."""
    log_mel = stand_on_level(torch.cat(parts, dim=1))
    lengths = tuple(part.shape[1] for part in parts)
    heard_seconds = log_mel.shape[1] / FRAMES_PER_SECOND
    return Recording(
        log_mel, sounding_frames(log_mel), np.zeros(1), SONG_SECONDS, heard_seconds, lengths, starts_seconds
    )


def passages_of(song: torch.Tensor, passages: Passages) -> Recording:
    """As `crnn.audio.open_audio` takes them."""
    starts = passages.starts_seconds(SONG_SECONDS)
    length = n_frames_of(passages.seconds) + 1
    return recording_of([song[:, n_frames_of(start) :][:, :length] for start in starts], starts)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--songs", type=positive(int), help="number of songs, drawn at random (default: all)")
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument(
        "--passages", nargs="*", default=[], help="other passages to try besides those of --quick, such as 3x5"
    )
    args = parser.parse_args(argv)
    ways = {f"{QUICK.count}x{QUICK.seconds:g}": QUICK}
    for text in args.passages:
        count, seconds = text.split("x")
        ways[text] = Passages(int(count), float(seconds))
    names = [f"{text}{doubt}" for text in ways for doubt in ("", OR_WHOLE)]
    classifier = GenreClassifier.from_pretrained(args.model, precision="fastest")
    features = Features.load(args.features)
    numbers = list(range(len(features)))
    random.Random(0).shuffle(numbers)
    counts: Counter[tuple[str, str]] = Counter()
    n_songs = 0
    for number in numbers[: args.songs]:
        log_mel = stand_on_level(features.decibels(number))
        try:
            song = song_of(log_mel[:, sounding_frames(log_mel)], number)
        except ValueError:
            continue
        n_songs += 1
        whole, *parts = classifier.answer([recording_of([song]), *(passages_of(song, part) for part in ways.values())])
        counts["thorough", "answered"] += whole.verdict != UNSURE
        heard = [given for part in parts for given in (part, whole if classifier.is_in_doubt(part) else part)]
        for name, part in zip(names, heard, strict=True):
            counts[name, "whole"] += part is whole
            counts[name, "verdict"] += part.verdict == whole.verdict
            counts[name, "genre"] += next(iter(part.probabilities), "") == next(iter(whole.probabilities), "")
            counts[name, "answered"] += part.verdict != UNSURE
    if not n_songs:
        parser.error(f"nothing sounds in the clips of {args.features}")
    print(f"{n_songs} songs\n{'':14} same verdict   same genre   answered   heard as a whole")
    print(f"{'thorough':14} {'':12} {'':12} {counts['thorough', 'answered'] / n_songs:10.1%}")
    for name in names:
        shares = [counts[name, what] / n_songs for what in ("verdict", "genre", "answered", "whole")]
        print("{:14} {:12.1%} {:12.1%} {:10.1%} {:18.1%}".format(name, *shares))


if __name__ == "__main__":
    main()
