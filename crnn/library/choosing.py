"""What commands for many songs share: which songs, how they are heard, and what the person is told of it."""

import argparse
import os
import sys
import time
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from crnn.arguments import add_model, filled, positive
from crnn.library.rows import local
from crnn.terminal import complain

if TYPE_CHECKING:
    from tqdm import tqdm

    from crnn.audio import Passages
    from crnn.inference import Prediction
    from crnn.library.rows import File
    from crnn.walk import Walk

STANDARD_INPUT = "-"


def add_songs(parser: argparse.ArgumentParser) -> None:
    """Which songs, for `named_songs` and `Walk`."""
    parser.add_argument(
        "songs",
        nargs="+",
        type=filled,
        metavar="SONG",
        help="an audio file, a folder, the file: address of either, or - to read a list of these from standard input, "
        "one per line",
    )
    parser.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="paths in the list are separated by NUL bytes, as by find -print0",
    )
    parser.add_argument("--no-recursive", dest="recursive", action="store_false", help="do not search subfolders")
    parser.add_argument(
        "--extensions",
        metavar="LIST",
        type=suffixes,
        help="inside folders, take only files with these endings, such as mp3,flac; files that you name are always "
        "heard",
    )


def add_hearing(parser: argparse.ArgumentParser) -> None:
    """How they are heard, for `passages_of` and others."""
    hearing = parser.add_argument_group("how to listen")
    add_model(hearing)
    parts = hearing.add_mutually_exclusive_group()
    parts.add_argument(
        "--quick",
        action="store_true",
        help="listen to four passages of 4 s spread over each song, and to the whole song where they leave its genre "
        "open",
    )
    parts.add_argument(
        "--seconds",
        type=positive(float),
        metavar="S",
        help="listen to S seconds of each song, in passages spread over it",
    )
    hearing.add_argument("--jobs", type=positive(int), help="number of songs at a time (default: one per core)")
    hearing.add_argument("--device", type=filled, help="cpu, cuda or mps (default: a GPU where there is one)")
    hearing.add_argument(
        "--precision",
        default="fastest",
        choices=("float32", "bfloat16", "fastest"),
        help="precision of the network (default: %(default)s, which changes probabilities by about 0.01)",
    )


def given_hearing(args: argparse.Namespace) -> list[str]:
    """Those options of `add_hearing` that are not as they are without."""
    parser = argparse.ArgumentParser()
    add_hearing(parser)
    return [f"--{name}" for name, default in vars(parser.parse_args([])).items() if getattr(args, name) != default]


def suffixes(text: str) -> frozenset[str]:
    """mp3,flac or .mp3,.flac or *.mp3,*.flac. Raises ArgumentTypeError if there is none, which would take all files."""
    names = (part.strip().lstrip("*.").lower() for part in text.split(","))
    if not (given := frozenset(f".{name}" for name in names if name)):
        raise argparse.ArgumentTypeError(f"this takes ends of names, such as mp3,flac, not {text!r}")
    return given


def passages_of(args: argparse.Namespace) -> "Passages | None":
    """How much of each song the options ask for."""
    from crnn.audio import Passages  # noqa: PLC0415
    from crnn.library.job import PASSAGE_SECONDS, QUICK  # noqa: PLC0415

    if not args.seconds:
        return QUICK if args.quick else None
    count = max(1, round(args.seconds / PASSAGE_SECONDS))
    return Passages(count, max(1.0, args.seconds / count))


def named_songs(args: argparse.Namespace) -> list[Path]:
    """The files and folders that are named, be it by a file: address. Raises ArgumentTypeError."""
    return [Path(local(name)) for name in typed(args)]


def typed(args: argparse.Namespace) -> list[str]:
    """The same as it was typed or listed; with `--ray`, addresses are of stores. Raises ArgumentTypeError."""
    if args.null and STANDARD_INPUT not in args.songs:
        raise argparse.ArgumentTypeError("-0 says how a list on standard input is written: name that with -, too.")
    return [name for song in args.songs for name in (listed(args.null) if song == STANDARD_INPUT else [song])]


def check_device(name: str | None) -> None:
    """Raises ArgumentTypeError if PyTorch does not have it here; that is known after the options are read."""
    from crnn.network.devices import checked  # noqa: PLC0415

    try:
        checked(name or "cpu")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def listed(by_null: bool) -> list[str]:
    """The paths on standard input. Raises ArgumentTypeError if they cannot be read, or told from each other."""
    try:
        given = sys.stdin.buffer.read()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"The list on standard input cannot be read ({error.strerror}).") from error
    if _is_utf_16(given):
        raise argparse.ArgumentTypeError("The list on standard input is in UTF-16: save it as UTF-8.")
    given = given.removeprefix(BOM_UTF8)
    if b"\0" in given and not by_null:  # which is in no path
        raise argparse.ArgumentTypeError("The list on standard input has NUL bytes: add -0 if they end its paths.")
    names = given.split(b"\0") if by_null else (name.removesuffix(b"\r") for name in given.split(b"\n"))
    paths = [os.fsdecode(name) for name in names if name]
    if not paths:
        complain("There is no path in the list on standard input.")
    return paths


def _is_utf_16(given: bytes) -> bool:
    """Whether a list is, by its mark, or as signs of paths stand alone between NUL bytes; folders A, B, C may."""
    if given.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return True
    *ended, _ = parts = given.split(b"\0")
    are_signs = len(ended) > 1 and all(len(part) < 2 for part in parts)
    return b"\n" in ended or (are_signs and (b"." in parts[1:-3] or not {b"/", b"\\"}.isdisjoint(parts)))


class Report:
    """What the person is told: progress, notices, errors, and the sum of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._counts: Counter[str] = Counter()
        self._since = time.monotonic()
        self._named: list[Path] = []
        self._total: int | None = None  # of the songs, as soon as they are counted
        self._is_watching = False
        self._failed: set[Path] = set()  # the songs that could not be heard when they were last tried
        self._told: set[str] = set()  # what was wrong with folders at the last look

    def walk(self, named: list[Path]) -> "Walk":
        """The songs at these paths."""
        from crnn.audio import SUFFIXES  # noqa: PLC0415
        from crnn.walk import Walk  # noqa: PLC0415

        self._named = named
        return Walk(named, self._args.recursive, self._args.extensions or SUFFIXES)

    def new_ones(self, files: Iterable["File"], is_there: Callable[["File"], bool]) -> Iterator["File"]:
        """Those that are not there already."""
        for file in files:
            if is_there(file):
                self._counts["before"] += not self._is_watching
            else:
                yield file

    def bar(self) -> "tqdm":
        """The progress, if it would not stand between answers."""
        from tqdm import tqdm  # noqa: PLC0415

        is_in_the_way = self._args.quiet or self._is_watching or (self._args.out is None and sys.stdout.isatty())
        bar = tqdm(unit=" songs", disable=True if is_in_the_way else None, dynamic_ncols=True, smoothing=0.05)
        if not bar.disable:  # how many there are is found out meanwhile
            with suppress(RuntimeError):  # or else stays unknown, where the system gives no thread
                Thread(target=self._count, name="counting", daemon=True).start()
        return bar

    def _count(self) -> None:
        self._total = sum(1 for _ in self.walk(self._named))

    def heard(self, file: "File", answer: "Prediction | ValueError", bar: "tqdm") -> None:
        """One more."""
        with bar.external_write_mode(sys.stderr, nolock=True):  # it lets go of a lock that a signal kept it from taking
            if isinstance(answer, ValueError):
                self._failed.add(file.path)
                complain(f"{file.path}: {answer}")
            else:
                self._failed.discard(file.path)
                self._counts["heard"] += 1
                for notice in () if self._args.quiet else answer.notices:
                    complain(f"{file.path}: {notice}")
        bar.total = self._total and self._total - self._counts["before"]
        bar.update()

    def walked(self, walk: "Walk") -> None:
        """What was in the folders beside songs, unless it is told already; from now on they are watched, if at all."""
        for fault in walk.faults():
            if fault not in self._told:
                complain(fault)
        self._told = set(walk.faults())
        if (passed_over := walk.summary()) and not (self._args.quiet or self._is_watching):
            complain(f"passed over: {passed_over}.")
        self._is_watching = True

    def summary(self) -> None:
        """The sum, for a table."""
        if self._args.quiet or self._args.out is None:
            return
        seconds, counts = time.monotonic() - self._since, self._counts
        rate = f" ({counts['heard'] / seconds:.2g} a second)" if counts["heard"] else ""
        before = f", {counts['before']} were there before" if counts["before"] else ""
        complain(f"{counts['heard']} songs heard{rate}, {len(self._failed)} failed{before}: {self._args.out}")

    @property
    def status(self) -> int:
        """0 if there were songs and nothing failed."""
        are_songs = self._counts["heard"] + self._counts["before"]
        return 0 if are_songs and not (self._failed or self._told) else 1
