"""`genre-crnn SONG...`: the genres of songs and folders of songs."""

import argparse
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.arguments import filled, positive, share
from crnn.library.choosing import Report, add_hearing, add_songs, check_device, named_songs, passages_of
from crnn.library.rows import File
from crnn.machine import n_cores
from crnn.terminal import INTERRUPTED, complain, printable

if TYPE_CHECKING:
    from crnn.audio import AudioError
    from crnn.inference import GenreClassifier, Prediction
    from crnn.library.job import Hearing

DESCRIPTION = "Classify songs by genre: one line per song, or a table of a whole library."
NEEDS = ("crnn.library.job", "crnn.library.table")
WATCH_SECONDS = 10.0  # between two looks at the folders
AGAIN_SECONDS = 600.0  # after which what the machine lacked for a song may be there
SETTLED_SECONDS = 5.0  # without a change, then a file is no longer being written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_songs(parser)
    parser.add_argument("--watch", action="store_true", help="when all songs are heard, wait for new and changed ones")
    add_hearing(parser)
    output = parser.add_argument_group("what to write")
    output.add_argument(
        "--out",
        type=filled,
        metavar="FILE",
        help="write a table: csv, jsonl or parquet, by the ending of its name; if it is interrupted, the same command "
        "continues it",
    )
    output.add_argument(
        "--ray",
        nargs="?",
        const="here",
        type=_cluster,
        metavar="ADDRESS",
        help="run on a Ray cluster (default: one on this machine); --out is then a folder; SONG and --out may be "
        "addresses such as s3://bucket/music (needs: pip install 'ray[data]' s3fs)",
    )
    output.add_argument("--json", action="store_true", help="print one JSON object per line")
    output.add_argument("--top", type=positive(int), metavar="K", help="report only the K most probable genres")
    output.add_argument(
        "--threshold",
        type=share,
        metavar="P",
        help='answer "unsure" below this probability (default: the model\'s own threshold); songs unlike anything it '
        'knows are always "unsure"',
    )
    output.add_argument("--timeline", action="store_true", help="also report the genres of each window of the song")
    output.add_argument(
        "--embeddings",
        action="store_true",
        help="also write each song's embedding; songs that sound alike have similar embeddings",
    )
    output.add_argument("--quiet", action="store_true", help="report only errors: no progress, notices or summary")


def _cluster(text: str) -> str:
    if not re.fullmatch(r"here|auto|local|[^/\s]+:\d+/?|(ray|anyscale)://\S+", text):  # else it takes a song for one
        raise argparse.ArgumentTypeError(f"this takes a cluster as HOST:PORT, not {text!r}; put songs before --ray")
    return text


def run(args: argparse.Namespace) -> int:
    """Hear all of them; returns the exit status: 1 if a song failed or there was none, 2 if the table cannot be had.

    Raises CheckpointError.
    """
    from crnn.library.job import at_work  # noqa: PLC0415 (after --help, which has no use for PyTorch)
    from crnn.library.table import TableError  # noqa: PLC0415

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
            with output_of(args, hearing, classifier) as output:
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


def output_of(args: argparse.Namespace, hearing: "Hearing", classifier: "GenreClassifier") -> "Output":
    """Where the options have answers go. Raises TableError."""
    if args.out is None:
        return Printed(hearing, classifier, args.json)
    return Tabled(hearing, classifier, args.out)


def is_settled(file: File) -> bool:
    """Whether a file has not been changed just now; one from the future, by a clock that was set back, has not."""
    return file.modified_ns is None or abs(time.time() - file.modified_ns / 1e9) > SETTLED_SECONDS


def work(output: "Output", report: "Report", files: Iterable[File], jobs: int) -> None:
    """Hear the files that are not in the table yet, and write and tell what comes of them."""
    from crnn.library.job import hear  # noqa: PLC0415

    new = report.new_ones(files, output.has)
    with report.bar() as bar:
        for file, answer in hear(new, output.classifier, output.hearing, jobs, in_order=output.in_order):
            output.write(file, answer)
            report.heard(file, answer, bar)


class Output(ABC):
    """Where answers go, and which songs have one there."""

    in_order: bool  # whether they go there in the order of the songs

    def __init__(self, hearing: "Hearing", classifier: "GenreClassifier") -> None:
        self.hearing, self.classifier = hearing, classifier
        self._failed: dict[File, float] = {}  # in this run, with the time from which on it is heard again

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:  # noqa: B027 - lines are left as they are
        """End."""

    def flush(self) -> None:  # noqa: B027 - lines are printed at once
        """Leave nothing that is heard in memory alone."""

    def has(self, file: File) -> bool:
        """Whether it is there already, or has failed just now."""
        return time.monotonic() < self._failed.get(file, -inf) or self._is_there(file)

    def write(self, file: File, answer: "Prediction | AudioError") -> None:
        """Write what came of a song."""
        from crnn.library.job import is_passing  # noqa: PLC0415

        if isinstance(answer, ValueError):
            if File.of(file.path).size_bytes is None:
                file = File(file.path)  # as which it is another when it is back
            self._failed[file] = time.monotonic() + AGAIN_SECONDS if is_passing(answer) else inf
        self._put(file, answer)

    @abstractmethod
    def _is_there(self, file: File) -> bool:
        """Whether it has an answer there."""

    @abstractmethod
    def _put(self, file: File, answer: "Prediction | AudioError") -> None:
        """Write it there; a file that cannot be looked at, or no longer, has no size."""


class Printed(Output):
    """Answers as lines on standard output; of failed songs there are none."""

    in_order = True

    def __init__(self, hearing: "Hearing", classifier: "GenreClassifier", as_json: bool) -> None:
        super().__init__(hearing, classifier)
        self._as_json = as_json
        self._heard: set[File] = set()  # without the change of their status

    def _is_there(self, file: File) -> bool:
        return file._replace(status_changed_ns=None) in self._heard

    def _put(self, file: File, answer: "Prediction | AudioError") -> None:
        if isinstance(answer, ValueError):
            return
        self._heard.add(file._replace(status_changed_ns=None))
        if self._as_json:
            print(json.dumps(self._object(file, answer)), flush=True)
        else:
            print(printable(f"{file.path}: {answer.summary(self.hearing.top or 3)}"), flush=True)
            for line in windows_of(answer) if self.hearing.timeline else ():
                print(printable(line), flush=True)

    def _object(self, file: File, answer: "Prediction") -> dict:
        given = {"path": str(file.path), **answer.as_dict()}
        given["probabilities"] = dict(islice(given["probabilities"].items(), self.hearing.top))
        return given | ({"embedding": answer.embedding.tolist() or None} if self.hearing.embeddings else {})


class Tabled(Output):
    """Answers as rows of the table at a path. Raises TableError where that cannot be had, read or written."""

    in_order = False

    def __init__(self, hearing: "Hearing", classifier: "GenreClassifier", path: Path) -> None:
        from crnn.library.table import Columns, open_table  # noqa: PLC0415

        super().__init__(hearing, classifier)
        columns = Columns(classifier.genres, hearing.top, hearing.timeline, hearing.embeddings)
        self.table = open_table(path, columns)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from crnn.library.table import TableError  # noqa: PLC0415

        try:
            with self._named():
                self.table.close()
        except TableError:
            if kind is None or not issubclass(kind, OSError | TableError):  # else that is to be told, it led to this
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Whatever goes wrong with the table is told of it, and nothing else is."""
        from crnn.library.table import TableError, unwritable  # noqa: PLC0415

        try:
            yield
        except OSError as error:
            raise TableError(unwritable(self.table.path, error)) from error

    def flush(self) -> None:
        with self._named():
            self.table.flush()

    def _is_there(self, file: File) -> bool:
        return self.table.has(self.hearing.facts(file, self.classifier))

    def _put(self, file: File, answer: "Prediction | AudioError") -> None:
        if isinstance(answer, ValueError) and file.size_bytes is None:  # it is away, or mistyped: a row it has stays
            return
        row = self.hearing.row(file, answer, self.classifier)
        with self._named():
            self.table.write(row | {"path": os.path.abspath(row["path"])})  # noqa: PTH100 - links stay


def windows_of(answer: "Prediction") -> Iterator[str]:
    """A line for each window: where it is in the song, and the most probable genre in it."""
    for start, end, shares in zip(answer.starts_seconds, answer.ends_seconds, answer.timeline, strict=True):
        times = "–".join(f"{int(seconds) // 60}:{int(seconds) % 60:02d}" for seconds in (start, end))
        yield f"    {times} {answer.genres[shares.argmax()]} {shares.max():.0%}"
