"""`genre-crnn tag SONG...`: write the genres of songs into their files."""

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.arguments import pathname, share
from crnn.library import DEFAULT_UNDO
from crnn.library.choosing import (
    Report,
    add_hearing,
    add_songs,
    check_device,
    given_hearing,
    named_songs,
    passages_of,
)
from crnn.library.rows import File, LibraryError, absolute, is_as_heard, read_rows
from crnn.machine import n_cores
from crnn.terminal import complain, printable, valid

if TYPE_CHECKING:
    from crnn.audio import AudioError
    from crnn.inference import Prediction
    from crnn.library.tags import Genre, Places
    from crnn.library.undo import Undo

DESCRIPTION = (
    "Write the genres of songs into their files (mp3, flac, ogg, opus, m4a, wav, aiff, wma, ape, wv, mpc, tak, tta, "
    "dsf), where the model is sure and the file has no genre yet. Sound, other tags and pictures stay as they are; "
    "genre-crnn untag takes all of it back."
)

NEEDS = ("crnn.library.job",)
TABLE_COLUMNS = ("path", "size_bytes", "modified_ns", "genre", "probability")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_songs(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    parser.add_argument(
        "--threshold",
        type=share,
        default=0.0,
        metavar="P",
        help="write only genres with at least this probability, from 0 to 1 (default: all of which the model is sure); "
        "where it is unsure, nothing is ever written",
    )
    parser.add_argument(
        "--from",
        dest="table",
        type=pathname,
        metavar="TABLE",
        help="take the answers from a table that genre-crnn --out wrote, instead of hearing the songs again",
    )
    parser.add_argument("--overwrite", action="store_true", help="also replace genres that files already have")
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="GENRE",
        help="replace this genre, such as Other or Unknown; may be given several times",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        type=_renaming,
        metavar="GENRE=NAME",
        help="write a genre of the model under this name, or never write it if the name is empty; may be given "
        "several times (default: the standard names, such as Hip-Hop for hiphop)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no summary; files that fail are still reported")
    parser.add_argument("--keep-times", action="store_true", help="keep the modification times of the files")
    parser.add_argument(
        "--undo",
        type=pathname,
        default=DEFAULT_UNDO,
        metavar="FILE",
        help="the file that records the earlier genres (default: %(default)s)",
    )
    add_hearing(parser)


def _renaming(text: str) -> tuple[str, str]:
    genre, equals, name = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"this takes a genre, = and the name to write, not {text!r}")
    if valid(name) != name:
        raise argparse.ArgumentTypeError(f"this takes a name that is text, not {text!r}")
    return genre.strip(), name.strip()


def run(args: argparse.Namespace) -> int:
    """Write the genres; returns the exit status: 1 if a file failed, 2 if nothing can be done.

    Raises CheckpointError.
    """
    from crnn.library.job import Hearing, at_work, hear  # noqa: PLC0415 (after --help, which has no use for PyTorch)
    from crnn.library.undo import Undo, UndoError  # noqa: PLC0415

    if args.table and (given := given_hearing(args)):
        complain(f"--from takes the answers from a table, and hears no song: leave out {', '.join(given)}.")
        return 2
    hearing = Hearing(args.model, passages_of(args), args.quick, args.device, args.precision)
    jobs, report = args.jobs or n_cores(), Report(args)
    try:
        check_device(args.device)
        walk = report.walk(named_songs(args))
        undo = Undo(args.undo, only_try=args.dry_run)
        if args.dry_run:
            undo.close()
            undo = None
        tagger = Tagger(args, undo)
        try:
            if args.table:
                tagger.tag_from(args.table, walk)
            else:
                with at_work(hearing, tagger.without_genre(walk), jobs) as (classifier, files):
                    if classifier.origin.notice:
                        complain(classifier.origin.notice)
                    tagger.check(classifier.genres)
                    for file, answer in hear(files, classifier, hearing, jobs, in_order=True):
                        tagger.tag(file, answer)
            report.walked(walk)
        finally:
            if undo:
                undo.close()
            tagger.summarise()
    except (UndoError, LibraryError, argparse.ArgumentTypeError) as error:
        complain(error)
        return 2
    return 1 if tagger.n_failed or walk.faults() else 0


class Tagger:
    """Writes into songs what a model is sure of; with `undo` None, it only says what it would write."""

    def __init__(self, args: argparse.Namespace, undo: "Undo | None") -> None:
        self.args, self.undo = args, undo
        self.replaced = {genre.casefold() for genre in args.replace}
        self.renamed = dict(args.name)
        self.there: dict[Path, tuple[str, ...]] = {}  # genres of the songs that are heard
        self.written: Counter[str] = Counter()  # by the name of the genre
        self.left: Counter[str] = Counter()  # by the reason
        self.n_failed = 0

    def without_genre(self, paths: Iterable[Path]) -> Iterator[File]:
        """The songs to hear, links to one of them left out: those whose genre may be written."""
        from crnn.library.retag import read_genre  # noqa: PLC0415
        from crnn.library.tags import SUFFIXES, OtherKindError, TagError  # noqa: PLC0415

        places: set[str] = set()
        for path in paths:
            if (place := os.path.realpath(path)) in places:
                self.left["named already, by another name"] += 1
                continue
            places.add(place)
            try:
                there = read_genre(path).names
            except TagError as error:
                suffix = path.suffix.lower()
                if isinstance(error, OtherKindError) and suffix not in SUFFIXES:
                    self.left[f"whose tags cannot be written ({suffix or 'without suffix'})"] += 1
                else:
                    self._fail(path, error)
                continue
            if there and not (self.args.overwrite or self.replaced.issuperset(name.casefold() for name in there)):
                self.left["with a genre already"] += 1
                continue
            self.there[path] = there
            yield File.of(path)

    def check(self, genres: Sequence[str]) -> None:
        """Raises LibraryError if the model does not know a genre that is to have another name."""
        if strangers := self.renamed.keys() - set(genres):
            raise LibraryError(f"The model knows no genre {strangers.pop()!r}; it knows {', '.join(genres)}.")

    def _check_by(self, table: Path, rows: Collection[dict]) -> None:
        """The same by what a table tells of the model; where that may not be all, what its songs lack is told alone."""
        from crnn.inference import NO_MUSIC, UNSURE  # noqa: PLC0415

        known = {frozenset(row["genres"]) for row in rows if row["probability"] is not None}
        if len(known) == 1 and all(known):
            self.check(sorted(*known))
            return
        answers = {row["genre"] for row in rows} - {None, UNSURE, NO_MUSIC}
        for genre in sorted(self.renamed.keys() - answers):
            complain(f"No song of {table} has the genre {genre!r}; they have {', '.join(sorted(answers)) or 'none'}.")

    def tag_from(self, table: Path, paths: Iterable[Path]) -> None:
        """Write the genres that a table has for songs that are still as they were then. Raises LibraryError."""
        rows = {}
        for row in read_rows(table, (*TABLE_COLUMNS, "genres"), needed=TABLE_COLUMNS):
            rows[absolute(row["path"])] = row
        self._check_by(table, rows.values())
        for file in self.without_genre(paths):
            row = rows.get(absolute(file.path))
            if row is None or row["genre"] is None:
                self.left["that the table has no answer for"] += 1
            else:
                heard = file._replace(size_bytes=row["size_bytes"], modified_ns=row["modified_ns"])
                self._tag(heard, row["genre"], row["probability"] or 0.0)

    def tag(self, file: File, answer: "Prediction | AudioError") -> None:
        """Write the genre of a song, if the answer is sure of one; `file` is as it was when it was heard."""
        from crnn.audio import AudioError  # noqa: PLC0415

        if isinstance(answer, AudioError):
            del self.there[file.path]
            self._fail(file.path, answer)
        else:
            self._tag(file, answer.verdict, next(iter(answer.probabilities.values()), 0.0))

    def _tag(self, heard: File, verdict: str, share: float) -> None:
        from crnn.library.tags import TagError  # noqa: PLC0415

        there = self.there.pop(heard.path)
        if not is_as_heard(heard):
            self.left["changed since they were heard"] += 1
        elif name := self._sure_name(verdict, share):
            try:
                self._write(heard.path, name, there, share)
            except TagError as error:
                self._fail(heard.path, error)

    def _fail(self, path: Path, error: ValueError) -> None:
        complain(f"{path}: {error}")
        self.n_failed += 1

    def _sure_name(self, verdict: str, share: float) -> str:
        """The name to write, "" if nothing is to be written."""
        from crnn.inference import NO_MUSIC, UNSURE  # noqa: PLC0415
        from crnn.library.tags import usual_name  # noqa: PLC0415

        if verdict in (UNSURE, NO_MUSIC):
            self.left["that the model is unsure about" if verdict == UNSURE else "without music"] += 1
        elif share < self.args.threshold:
            self.left[f"below {self.args.threshold:.0%}"] += 1
        elif name := self.renamed.get(verdict, usual_name(verdict)):
            return name
        else:
            self.left[f"of {verdict}, which is not to be written"] += 1
        return ""

    def _write(self, path: Path, name: str, there: tuple[str, ...], share: float) -> None:
        from crnn.library.retag import write_genre  # noqa: PLC0415
        from crnn.library.undo import Change  # noqa: PLC0415

        def note(genre: "Genre", later: "Places", sound: str) -> None:
            place = os.path.abspath(path)  # noqa: PTH100 - links stay
            self.undo.add(Change(place, name, genre.places, later, genre.has_tag, sound))

        if there == (name,):
            self.left["with this genre already"] += 1
            return
        n_links = 1
        with suppress(OSError):  # as writing will find, too
            n_links = path.stat().st_nlink
        write_genre(path, name, self.args.keep_times, there, note, only_try=self.undo is None)
        self.written[name] += 1
        print(printable(f"{path}: {', '.join(there) or 'no genre'} → {name} ({share:.0%})"), flush=True)
        if n_links > 1 and self.undo:
            complain(f"{path}: of its {n_links} names (hard links), the others keep the file as it was.")

    def summarise(self) -> None:
        """Say what came of it."""
        if self.args.quiet:
            return
        verb = "Written" if self.undo else "Would be written"
        each = ", ".join(f"{count} {name}" for name, count in self.written.most_common())
        complain(f"{verb}: {self.written.total()}{f' ({each})' if each else ''}.")
        if self.left:
            complain(f"Left as they are: {', '.join(f'{count} {why}' for why, count in self.left.most_common())}.")
        if self.n_failed:
            complain(f"Failed: {self.n_failed}, each with its reason above.")
        if self.undo and self.written:
            complain(f"To take it back: genre-crnn untag {shlex.quote(str(self.args.undo))}")
