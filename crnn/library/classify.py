"""`genre-crnn SONG...`: the genres of songs and folders of songs."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.terminal import complain, printable

if TYPE_CHECKING:
    from crnn.inference import GenreClassifier

DESCRIPTION = "Name the genre of songs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="an audio file, or a folder of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--model", help="a folder, a bundled model or a Hub id with an optional @revision (default: $GENRE_CRNN_MODEL)"
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each song; returns the exit status: 1 if one failed. Raises CheckpointError."""
    from crnn.inference import GenreClassifier  # noqa: PLC0415 (after --help, which has no use for PyTorch)

    classifier = GenreClassifier.from_pretrained(args.model)
    if classifier.origin.notice:
        complain(classifier.origin.notice)
    return classify(classifier, args.songs, args.json)


def classify(classifier: "GenreClassifier", songs: Sequence[Path], as_json: bool) -> int:
    """Print a line for each song; returns the exit status."""
    from crnn.audio import AudioError  # noqa: PLC0415

    status = 0
    for song in songs:
        path = None
        for path in files(song):
            try:
                prediction = classifier.predict(path)
            except AudioError as error:
                complain(f"{path}: {error}")
                status = 1
                continue
            for notice in prediction.notices:
                complain(f"{path}: {notice}")
            if as_json:
                print(json.dumps({"path": str(path), **prediction.as_dict()}), flush=True)
            else:
                print(printable(f"{path}: {prediction.summary()}"), flush=True)
        if path is None:
            complain(f"{song}: there are no audio files in this folder.")
            status = 1
    return status


def files(song: Path) -> Iterator[Path]:
    """The song, or the audio files in the folder and below; hidden ones are no songs."""
    from crnn.audio import SUFFIXES  # noqa: PLC0415

    if not is_folder(song):
        yield song
        return
    for path in sorted(song.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(song).parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden and path.is_file():
            yield path


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; one that cannot be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False
