"""Name the genre of songs: `python -m crnn SONG...`, where a song may be a folder of songs."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from crnn.audio import SUFFIXES, AudioError
from crnn.checkpoint import MODEL_VARIABLE, CheckpointError
from crnn.inference import GenreClassifier

INTERRUPTED, BROKEN_PIPE = 130, 141  # what shells report for SIGINT and SIGPIPE


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m crnn", description="Name the genre of songs.")
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="an audio file, or a folder of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--model", help=f"a folder, a bundled model or a Hub id with an optional @revision (default: ${MODEL_VARIABLE})"
    )
    return parser.parse_args(argv)


def files(song: Path) -> Iterator[Path]:
    """The song, or the audio files in the folder and below; hidden ones are no songs."""
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


def printable(text: object) -> str:
    """On one line of any terminal: control signs, and bytes of a file name that are no text, become escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def complain(message: object) -> None:
    """Tell the person, on standard error."""
    print(printable(f"crnn: {message}"), file=sys.stderr, flush=True)


def leave_broken_pipe() -> int:
    """The exit status for a reader of standard output that has gone; nor may the flush at exit find out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def classify(songs: Sequence[Path], model: str | None, as_json: bool) -> int:
    """Print a line for each song; returns the exit status."""
    classifier = GenreClassifier.from_pretrained(model)
    if classifier.origin.notice:
        complain(classifier.origin.notice)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Classify what the arguments name; returns the exit status: 1 if a song failed, 2 if no model could be had."""
    args = parse_args(argv)
    try:
        return classify(args.songs, args.model, args.json)
    except CheckpointError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for genres and file names that its encoding lacks
    sys.exit(main())
