"""`genre-crnn SONG...`: the genres of songs and folders of songs."""

import argparse
import json
import os
import re
import sys
import time
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from crnn.arguments import add_model, positive, share
from crnn.machine import n_cores
from crnn.terminal import INTERRUPTED, complain, printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from crnn.audio import Passages
    from crnn.inference import GenreClassifier, Prediction
    from crnn.library.job import File, Hearing
    from crnn.library.table import Table
    from crnn.walk import Walk

DESCRIPTION = "Name the genre of songs: a line each, or a table of a whole library."
NEEDS = ("crnn.library.job", "crnn.library.table")
STANDARD_INPUT = "-"
WATCH_SECONDS = 10.0  # between two looks at the folders
SETTLED_SECONDS = 5.0  # without a change, then a file is no longer being written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_songs(parser)
    parser.add_argument("--watch", action="store_true", help="when all are heard, wait for new and changed ones")
    add_hearing(parser)
    output = parser.add_argument_group("what to write")
    output.add_argument(
        "--out",
        metavar="FILE",
        help="a table, csv, jsonl or parquet by its ending; the same command goes on with it where it was",
    )
    output.add_argument(
        "--ray",
        nargs="?",
        const="here",
        type=_cluster,
        metavar="ADDRESS",
        help="hear on a Ray cluster (default: one of this machine); SONG and --out, a folder, may be addresses such as "
        "s3://bucket/music (pip install 'ray[data]' s3fs)",
    )
    output.add_argument("--json", action="store_true", help="print one JSON object a line")
    output.add_argument("--top", type=positive(int), metavar="K", help="only the K most probable genres")
    output.add_argument(
        "--threshold", type=share, metavar="P", help="unsure below this probability (default: the model's own border)"
    )
    output.add_argument("--timeline", action="store_true", help="also the genres of each window of the song")
    output.add_argument(
        "--embeddings",
        action="store_true",
        help="also what the classifier reads: songs that sound alike have alike ones",
    )
    output.add_argument("--quiet", action="store_true", help="no progress, no notices and no summary; errors are told")


def add_songs(parser: argparse.ArgumentParser) -> None:
    """Which songs, for `named_songs` and `Walk`."""
    parser.add_argument(
        "songs",
        nargs="+",
        type=_name,
        metavar="SONG",
        help="an audio file, a folder of them, or - for a list of both on standard input, one a line",
    )
    parser.add_argument("-0", "--null", action="store_true", help="the list has NUL signs between its paths")
    parser.add_argument("--no-recursive", dest="recursive", action="store_false", help="leave out folders in folders")
    parser.add_argument(
        "--extensions", metavar="LIST", type=suffixes, help="look for these in folders alone, such as mp3,flac"
    )


def _name(text: str) -> str:
    if not text:  # as of a variable that is not set; as a path it would be the folder where one is
        raise argparse.ArgumentTypeError("this takes the name of a song or a folder, not an empty one")
    return text


def _cluster(text: str) -> str:
    if not re.fullmatch(r"here|auto|local|[^/\s]+:\d+/?|(ray|anyscale)://\S+", text):  # else it takes a song for one
        raise argparse.ArgumentTypeError(f"this takes a cluster, as HOST:PORT, not {text!r}: songs stand before it")
    return text


def add_hearing(parser: argparse.ArgumentParser) -> None:
    """How they are heard, for `passages_of` and others."""
    hearing = parser.add_argument_group("how to hear")
    add_model(hearing)
    parts = hearing.add_mutually_exclusive_group()
    parts.add_argument(
        "--quick",
        action="store_true",
        help="hear four passages of 4 s, spread over each song, and all of those whose genre they leave open",
    )
    parts.add_argument(
        "--seconds", type=positive(float), metavar="S", help="hear so many seconds, in passages spread over each song"
    )
    hearing.add_argument("--jobs", type=positive(int), help="songs at a time (default: one for each core)")
    hearing.add_argument("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    hearing.add_argument(
        "--precision",
        default="fastest",
        choices=("float32", "bfloat16", "fastest"),
        help="of the network (default: the fastest, which moves probabilities by some 0.01)",
    )


def suffixes(text: str) -> frozenset[str]:
    """mp3,flac or .mp3,.flac or *.mp3,*.flac. Raises ArgumentTypeError if there is none, which would take all files."""
    names = (part.strip().lstrip("*.").lower() for part in text.split(","))
    if not (given := frozenset(f".{name}" for name in names if name)):
        raise argparse.ArgumentTypeError(f"this takes ends of names, such as mp3,flac, not {text!r}")
    return given


def run(args: argparse.Namespace) -> int:
    """Hear all of them; returns the exit status: 1 if a song failed or there was none, 2 if the table cannot be had.

    Raises CheckpointError.
    """
    from crnn.library.job import File, at_work  # noqa: PLC0415 (after --help, which has no use for PyTorch)
    from crnn.library.table import TableError, unwritable  # noqa: PLC0415

    if args.ray:
        from crnn.library import cluster  # noqa: PLC0415 (an optional package)

        return cluster.run(args, hearing_of(args))
    if fault := _contradiction(args):
        complain(fault)
        return 2
    args.out = None if args.out is None else Path(args.out)
    report = Report(args)
    hearing = hearing_of(args)
    jobs = args.jobs or n_cores()
    try:
        check_device(args.device)
        named = named_songs(args)
        walk = report.walk(named)
        with at_work(hearing, map(File.of, walk), jobs, args.watch) as (classifier, files):
            if classifier.origin.notice:
                complain(classifier.origin.notice)
            with Output(args, hearing, classifier) as output:
                work(output, report, files, jobs)
                report.walked(walk)
                while args.watch:
                    output.flush()
                    time.sleep(WATCH_SECONDS)
                    walk = report.walk([path for path in named if os.path.lexists(path)])  # a disk may be away
                    work(output, report, filter(is_settled, map(File.of, walk)), jobs)
                    report.walked(walk)
    except (TableError, argparse.ArgumentTypeError) as error:
        complain(error)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        if args.out is None:
            raise
        complain(unwritable(args.out, error))
        return 2
    except KeyboardInterrupt:
        report.summary()
        return INTERRUPTED
    report.summary()
    return report.status


def _contradiction(args: argparse.Namespace) -> str:
    """Why the options do not go together, in a sentence; "" if they do."""
    if args.json and args.out:
        return "--json prints the answers and --out writes them: leave out one of both."
    if args.embeddings and not (args.json or args.out):
        return "--embeddings are numbers for programs: --json prints them, --out writes them."
    return ""


def hearing_of(args: argparse.Namespace) -> "Hearing":
    """What the options say of it."""
    from crnn.library.job import Hearing  # noqa: PLC0415

    return Hearing(
        args.model,
        passages_of(args),
        args.quick,
        args.device,
        args.precision,
        args.threshold,
        args.top,
        args.timeline,
        args.embeddings,
    )


def passages_of(args: argparse.Namespace) -> "Passages | None":
    """How much of each song the options ask for."""
    from crnn.audio import Passages  # noqa: PLC0415
    from crnn.library.job import PASSAGE_SECONDS, QUICK  # noqa: PLC0415

    if not args.seconds:
        return QUICK if args.quick else None
    count = max(1, round(args.seconds / PASSAGE_SECONDS))
    return Passages(count, max(1.0, args.seconds / count))


def named_songs(args: argparse.Namespace) -> list[Path]:
    """The files and folders that are named. Raises ArgumentTypeError."""
    return [Path(name) for name in typed(args)]


def typed(args: argparse.Namespace) -> list[str]:
    """The same as it was typed or listed; with `--ray`, addresses too. Raises ArgumentTypeError."""
    return [name for song in args.songs for name in (listed(args.null) if song == STANDARD_INPUT else [song])]


def check_device(name: str | None) -> None:
    """Raises ArgumentTypeError if PyTorch does not have it here; that is known after the options are read."""
    from crnn.network.devices import is_here  # noqa: PLC0415

    if name and not is_here(name):
        raise argparse.ArgumentTypeError(f"There is no device {name} here on which PyTorch computes: try cpu.")


def listed(by_null: bool) -> list[str]:
    """The paths on standard input. Raises ArgumentTypeError if what is between them is something else."""
    given = sys.stdin.buffer.read().removeprefix(BOM_UTF8)
    if b"\0" in given and not by_null:  # which is in no path
        raise argparse.ArgumentTypeError("The list on standard input has NUL signs: add -0 if they end its paths.")
    names = given.split(b"\0") if by_null else (name.removesuffix(b"\r") for name in given.split(b"\n"))
    paths = [os.fsdecode(name) for name in names if name]
    if not paths:
        complain("There is no path in the list on standard input.")
    return paths


def is_settled(file: "File") -> bool:
    """Whether a file has not been changed just now; one from the future, by a clock that was set back, has not."""
    return file.modified_ns is None or abs(time.time() - file.modified_ns / 1e9) > SETTLED_SECONDS


def work(output: "Output", report: "Report", files: Iterable["File"], jobs: int) -> None:
    """Hear the files that are not in the table yet, and write and tell what comes of them."""
    from crnn.library.job import hear  # noqa: PLC0415

    new = report.new_ones(files, output)
    with report.bar() as bar:
        for file, answer in hear(new, output.classifier, output.hearing, jobs, in_order=output.table is None):
            output.write(file, answer)
            report.heard(file, answer, bar)


class Output:
    """Where answers go: the table, or lines on standard output."""

    def __init__(self, args: argparse.Namespace, hearing: "Hearing", classifier: "GenreClassifier") -> None:
        self.hearing, self.classifier = hearing, classifier
        self.table: Table | None = None
        self._out, self._as_json = args.out, args.json
        self._seen: set[tuple] = set()  # what the table does not tell: all without one, else what failed in this run

    def __enter__(self) -> "Output":
        from crnn.library.table import Columns, open_table  # noqa: PLC0415

        if self._out is not None:
            hearing = self.hearing
            columns = Columns(self.classifier.genres, hearing.top, hearing.timeline, hearing.embeddings)
            self.table = open_table(self._out, columns)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.table is None:
            return
        try:
            self.table.close()
        except (OSError, ValueError):
            if kind is None or not issubclass(kind, OSError):  # else that is to be told, of which this comes
                raise

    def flush(self) -> None:
        """Leave nothing that is heard in memory alone. Raises OSError."""
        if self.table is not None:
            self.table.flush()

    def has(self, file: "File") -> bool:
        """Whether it is there already."""
        if self.table is None or file in self._seen:
            return file in self._seen
        from crnn.audio import AudioError  # noqa: PLC0415

        return self.table.has(self.hearing.row(file, AudioError(""), self.classifier))

    def write(self, file: "File", answer: "Prediction | ValueError") -> None:
        """Write it; what cannot be looked at keeps the row that it has, and gets none."""
        if self.table is None or isinstance(answer, ValueError):
            self._seen.add(file)
        if self.table is not None:
            if not isinstance(answer, ValueError) or file.size_bytes is not None:  # else it is away, or mistyped
                row = self.hearing.row(file, answer, self.classifier)
                self.table.write(row | {"path": os.path.abspath(row["path"])})  # noqa: PTH100 - links stay
            return
        if isinstance(answer, ValueError):
            return
        if self._as_json:
            print(json.dumps(self._object(file, answer)), flush=True)
        else:
            print(printable(f"{file.path}: {answer.summary(self.hearing.top or 3)}"), flush=True)
            for line in windows_of(answer) if self.hearing.timeline else ():
                print(printable(line), flush=True)

    def _object(self, file: "File", answer: "Prediction") -> dict:
        given = {"path": str(file.path), **answer.as_dict()}
        given["probabilities"] = dict(islice(given["probabilities"].items(), self.hearing.top))
        return given | ({"embedding": answer.embedding.tolist() or None} if self.hearing.embeddings else {})


def windows_of(answer: "Prediction") -> Iterator[str]:
    """A line for each window: where it is in the song, and the most probable genre in it."""
    for start, end, shares in zip(answer.starts_seconds, answer.ends_seconds, answer.timeline, strict=True):
        times = "–".join(f"{int(seconds) // 60}:{int(seconds) % 60:02d}" for seconds in (start, end))
        yield f"    {times} {answer.genres[shares.argmax()]} {shares.max():.0%}"


class Report:
    """What the person is told: progress, notices, errors, and the sum of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._counts: Counter[str] = Counter()
        self._since = time.monotonic()
        self._named: list[Path] = []
        self._total: int | None = None  # of the songs, as soon as they are counted
        self._is_watching = False
        self._told: set[str] = set()  # what was wrong with folders at the last look

    def walk(self, named: list[Path]) -> "Walk":
        """The songs at these paths."""
        from crnn.audio import SUFFIXES  # noqa: PLC0415
        from crnn.walk import Walk  # noqa: PLC0415

        self._named = named
        return Walk(named, self._args.recursive, self._args.extensions or SUFFIXES)

    def new_ones(self, files: Iterable["File"], output: Output) -> Iterator["File"]:
        """Those that are not there already."""
        for file in files:
            if output.has(file):
                self._counts["before"] += not self._is_watching
            else:
                yield file

    def bar(self) -> "tqdm":
        """The progress, if it would not stand between answers."""
        from tqdm import tqdm  # noqa: PLC0415

        is_in_the_way = self._args.quiet or self._is_watching or (self._args.out is None and sys.stdout.isatty())
        bar = tqdm(unit=" songs", disable=True if is_in_the_way else None, dynamic_ncols=True, smoothing=0.05)
        if not bar.disable:  # how many there are is found out meanwhile
            Thread(target=self._count, name="counting", daemon=True).start()
        return bar

    def _count(self) -> None:
        self._total = sum(1 for _ in self.walk(self._named))

    def heard(self, file: "File", answer: "Prediction | ValueError", bar: "tqdm") -> None:
        """One more."""
        with bar.external_write_mode(sys.stderr):
            if isinstance(answer, ValueError):
                self._counts["failed"] += 1
                complain(f"{file.path}: {answer}")
            else:
                self._counts["heard"] += 1
                for notice in () if self._args.quiet else answer.notices:
                    complain(f"{file.path}: {notice}")
        bar.total = self._total and self._total - self._counts["before"]
        bar.update()

    def walked(self, walk: "Walk") -> None:
        """What was in the folders beside songs, unless it is told already; from now on they are watched, if at all."""
        for fault in walk.faults():
            if fault not in self._told:
                self._counts["failed folders"] += 1
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
        complain(f"{counts['heard']} songs heard{rate}, {counts['failed']} failed{before}: {self._args.out}")

    @property
    def status(self) -> int:
        """0 if there were songs and nothing failed."""
        counts = self._counts
        is_good = counts["heard"] + counts["before"] and not (counts["failed"] or counts["failed folders"])
        return 0 if is_good else 1
