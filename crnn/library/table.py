"""The table of a library, which is written song by song and goes on where it was: csv, jsonl or parquet."""

import csv
import json
import os
import re
import time
from abc import ABC, abstractmethod
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from crnn.files import lock, whole_file, writable_state
from crnn.library.rows import (
    PROBABILITY_OF,
    absolute,
    are_alike,
    count_of,
    csv_fault,
    holds_rows,
    is_begun,
    is_row,
    parts_in,
    parts_of,
    same_model,
    tell_of_a_cut,
)
from crnn.terminal import valid

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

PART_ROWS, PART_SECONDS = 1_000, 30.0  # after which the next of parquet's rows brings them to the disk
# A spreadsheet would compute a cell that begins with one of these signs; in some countries it ends at a semicolon.
FORMULA = re.compile(r"(^|;)(?=[ \"]*[=+\-@\t\r\n])")
MARKS = re.compile('[",;\r\n]')
UNLIKE_A_ROW = (LookupError, TypeError, AttributeError, RecursionError)  # what JSON of others comes to


class TableError(ValueError):
    """A table that cannot be gone on with or written; the message is one sentence."""


class Columns:
    """The columns of flat tables, for a model with these genres.

    path, size_bytes, modified_ns, model, heard; genre, its probability, is_strange, sounds_like; probabilities of all
    genres, or with `top` that many pairs of genre and probability; duration_seconds, notices, error; timeline and
    embedding if asked.
    """

    def __init__(self, genres: Iterable[str], top: int | None, timeline: bool, embeddings: bool) -> None:
        self.genres, self.top = tuple(genres), top
        self._known = frozenset(self.genres)
        self.more = ("timeline",) * timeline + ("embedding",) * embeddings
        self.n_shares = len(self.genres[:top])
        self.shares, self.ranked = [PROBABILITY_OF + genre for genre in self.genres], []
        if top:
            ranks = range(1, self.n_shares + 1)
            self.shares = [name for n in ranks for name in (f"genre_{n}", f"probability_{n}")]
            self.ranked = self.shares[::2]  # those that hold genres
        facts = ("path", "size_bytes", "modified_ns", "model", "heard")
        answer = ("genre", "probability", "is_strange", "sounds_like")
        self.names = [*facts, *answer, *self.shares, "duration_seconds", "notices", "error", *self.more]

    def are_known(self, genres: Iterable[str | None]) -> bool:
        """Whether what `ranked` columns or probabilities have, but for what is empty, are genres of the model."""
        return all(not genre or genre in self._known for genre in genres)

    def flat(self, row: dict) -> dict:
        """A row as `Hearing.row` gives it to the cells of these columns, some None."""
        shares = row["probabilities"]
        if self.top:
            cells = [cell for pair in shares.items() for cell in pair]
            given = dict(zip(self.shares, cells, strict=False))
        else:
            given = {PROBABILITY_OF + genre: share for genre, share in shares.items()}
        given["probability"] = next(iter(shares.values()), None)
        given["notices"] = " ".join(row["notices"]) or None
        return {name: given[name] if name in given else row.get(name) for name in self.names}


def open_table(path: Path, columns: Columns) -> "Table":
    """A new table, or the one that is there. Raises TableError."""
    if path.suffix.lower() not in KINDS:
        *others, last = KINDS
        raise TableError(f"{path} must end with {', '.join(others)} or {last}, which says what is written.")
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for who reads it
            raise TableError(f"{path} is a folder or a device, and a table is a file: give another --out.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return KINDS[path.suffix.lower()](path, columns)
    except OSError as error:
        raise TableError(unwritable(path, error)) from error


def unwritable(path: Path, error: OSError) -> str:
    """A sentence for a person whose disk is full, or whose folder is somebody else's."""
    why = error.strerror or error
    return f"{error.filename or path} cannot be read or written ({why}); when that is mended, the same command goes on."


class Table(ABC):
    """Rows of songs, in the end one a song, however its path was typed.

    All methods raise OSError; opening it, TableError too, and so do writing and closing if others have saved it.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self._begin()

    def _begin(self) -> None:
        """Read what is there."""
        self._answered: dict[int, tuple] = {}  # by path, the song as it was and as it was heard
        self._paths: set[int] = set()
        self._is_done = True  # whether it is as it should be in the end
        for row in self._rows():
            try:
                if not isinstance(row["path"], str) or not self.columns.are_known(map(row.get, self.columns.ranked)):
                    raise ValueError(row["path"])
                self._note(row)
            except (ValueError, TypeError, OverflowError) as error:  # a size that is none, too
                raise self._other_columns() from error

    def has(self, row: dict) -> bool:
        """Whether there is an answer for this song, as it is now and heard likewise; `Hearing.facts` will do."""
        key, modified_ns = self._answered.get(digest(absolute(row["path"])), (None, None))
        return key == _without_time(row) and are_alike(modified_ns, count_of(row["modified_ns"]))

    def write(self, row: dict) -> None:
        """Add a row, in place of an earlier one of the same path."""
        self._append(row)
        self._note(row)

    def flush(self) -> None:  # noqa: B027 - most write each row at once
        """Write what waits to be written."""

    def close(self) -> None:
        """Leave it whole, with one row a path, the last."""
        if not self._is_done:
            last = {digest(absolute(row["path"])): number for number, row in enumerate(self._rows())}
            kept = set(last.values())
            self._replace(row for number, row in enumerate(self._rows()) if number in kept)

    def _note(self, row: dict) -> None:
        path = digest(absolute(row["path"]))
        self._is_done = self._is_done and path not in self._paths
        self._paths.add(path)
        if row["error"]:
            self._answered.pop(path, None)
        else:
            self._answered[path] = _without_time(row), count_of(row["modified_ns"])

    def _other_columns(self) -> TableError:
        return other_columns(self.path)

    def _other_line(self, number: int) -> TableError:
        return TableError(f"Line {number} of {self.path} is not one of this program: give another --out.")

    @abstractmethod
    def _rows(self) -> Iterator[dict]:
        """The rows on the disk, as they are written there. Raises TableError."""

    @abstractmethod
    def _append(self, row: dict) -> None:
        """Add a row at the end."""

    @abstractmethod
    def _replace(self, rows: Iterable[dict]) -> None:
        """Put rows, as they are written, in place of all."""


class LinesTable(Table):
    """A text to which lines are added, each at once; what a crash has left of a last one is taken away.

    A program that saves the table meanwhile may put another file in its place: that is gone on with.
    """

    def _begin(self) -> None:
        self._file = self._open(self.path)
        try:
            self._go_on()
        except BaseException:  # what is there may be another's, to which nothing is written any more
            self._let_go()
            raise

    def _go_on(self) -> None:
        """Read what is there, and leave it as rows can be added to it. Raises TableError."""
        with self.path.open("rb") as file:
            first = self._first_of(file)
        is_ours = not first or self._is_ours(first)
        if b"\r" in first.rstrip(b"\r\n"):
            raise TableError(f"The lines of {self.path} end with carriage returns alone: save it with line feeds.")
        if not is_ours:
            raise self._other_columns()
        _end_with_a_line(self.path)
        super()._begin()
        if not self._is_done:
            super().close()
            self._let_go()
            self._file, self._is_done = self._open(self.path), True
        self._size = os.fstat(self._file).st_size
        if not self._size:
            self._put(self._head())

    @staticmethod
    def _open(path: Path) -> int:
        while True:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _lock(file, path)
            except TableError:
                os.close(file)
                raise
            if is_at(path, file):
                return file
            os.close(file)  # who had it before has put another in its place

    def close(self) -> None:
        """Leave it whole, with one row a path, the last."""
        try:
            if self._file is None:
                return
            if self._is_as_left():
                super().close()
            elif self.path.exists():
                self._let_go()
                with suppress(TableError):  # it is another's now
                    self._begin()
        finally:
            self._let_go()

    def _is_as_left(self) -> bool:
        """Whether nobody has saved it meanwhile."""
        return is_at(self.path, self._file) and os.fstat(self._file).st_size == self._size

    def _let_go(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _append(self, row: dict) -> None:
        if not self._is_as_left():
            self._let_go()
            self._begin()
        self._put(self._line(self._cells(row)))

    def _put(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(self._file, data) :]
        self._size = os.fstat(self._file).st_size

    def _replace(self, rows: Iterable[dict]) -> None:
        with whole_file(self.path) as file:
            file.write(self._head().encode())
            for row in rows:
                file.write(self._line(row).encode("utf-8", "surrogateescape"))

    def _head(self) -> str:
        """What stands before all rows."""
        return ""

    def _first_of(self, file: BinaryIO) -> bytes:
        """The line that tells whose a file is; none of one without."""
        return file.readline()

    @abstractmethod
    def _is_ours(self, first: bytes) -> bool:
        """Whether a table with these columns begins with this line, which may be cut; files of others are left alone.

        Raises TableError where there is more to say.
        """

    @abstractmethod
    def _cells(self, row: dict) -> dict:
        """A row of `Hearing.row` as it is written."""

    @abstractmethod
    def _line(self, cells: dict) -> str:
        """The line of a row as it is written."""


class JsonTable(LinesTable):
    """An object a line, as `Hearing.row` gives it."""

    def _first_of(self, file: BinaryIO) -> bytes:
        return next(filter(bytes.strip, file), b"")

    def _is_ours(self, first: bytes) -> bool:
        try:
            _read_json(first)
        except ValueError:  # only a crash leaves a part of a line
            return is_begun(first)
        except UNLIKE_A_ROW:
            return False
        return True

    def _cells(self, row: dict) -> dict:
        return row

    def _line(self, cells: dict) -> str:
        return json.dumps(cells) + "\n"  # in ASCII, so that names that are no text come back as they were

    def _rows(self) -> Iterator[dict]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():  # which editors leave
                    self._is_done = False
                    continue
                try:
                    row = _read_json(line)
                    shares = row.get("probabilities") or ()
                    has_shares = len(shares) in (0, self.columns.n_shares) and self.columns.are_known(shares)
                except (ValueError, *UNLIKE_A_ROW) as error:
                    raise self._other_line(number) from error
                has_more = {"timeline", "embedding"} & row.keys() == set(self.columns.more)
                if not row["error"] and not (has_shares and has_more):
                    raise self._other_columns()
                yield row


class CsvTable(LinesTable):
    """Comma-separated values (RFC 4180) in UTF-8, a name that is no text as its bytes."""

    def _begin(self) -> None:
        self._is_cut = False
        super()._begin()
        if self._is_cut:
            tell_of_a_cut(self.path)

    def _head(self) -> str:
        return _csv_line(self.columns.names)

    def _is_ours(self, first: bytes) -> bool:
        if fault := csv_fault(self.path, first):
            raise TableError(fault)
        first = first.removeprefix(BOM_UTF8)
        if not first.endswith(b"\n") and self._head().encode().startswith(first):  # a crash has cut it
            return True
        try:
            return next(csv.reader([first.decode("utf-8", "surrogateescape")]), None) == self.columns.names
        except csv.Error:
            return False

    def _cells(self, row: dict) -> dict:
        cells = {name: _csv_cell(cell) for name, cell in self.columns.flat(row).items()}
        return cells | {name: harmless(cells[name]) for name in ("notices", "error")}  # others are looked up

    def _line(self, cells: dict) -> str:
        return _csv_line(cells[name] for name in self.columns.names)

    def _rows(self) -> Iterator[dict]:
        csv.field_size_limit(2**31 - 1)  # timelines of long songs
        with self._text() as file:
            rows = csv.reader(file, strict=True)
            next(rows, None)
            start = rows.line_num
            try:
                for cells in rows:
                    if not any(cells):  # which spreadsheets leave
                        self._is_done = False
                    elif is_row(cells, self.columns.names):
                        yield dict(zip_longest(self.columns.names, cells, fillvalue=""))
                    else:
                        self._leave_out(start, rows.line_num)
                    start = rows.line_num
            except csv.Error:
                self._leave_out(start, rows.line_num, '"')

    def _leave_out(self, start: int, end: int, mark: str = "") -> None:
        """Take lines from `start` to before `end`, and a mark that ends them, for what a kill has left of the last row.

        It may have cut a cell with line breaks. Raises TableError if the lines cannot be that.
        """
        with self._text() as file:
            lines = list(islice(file, start, end))
        try:
            list(csv.reader([*lines, mark], strict=True))
        except csv.Error as error:
            raise self._other_line(end) from error
        is_ended = not mark and lines[-1].endswith(("\n", "\r"))
        if is_ended or holds_rows(lines[1:], self.columns.names):
            raise self._other_line(start + 1)
        self._is_done, self._is_cut = False, True

    def _text(self) -> TextIO:
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class ParquetTable(Table):
    """Parquet in row groups. While it is written they are files in a folder beside it, which is a data set too."""

    def __init__(self, path: Path, columns: Columns) -> None:
        writable_state(path)  # what could not be replaced in the end is told now
        self._parts = parts_of(path)
        self._parts.mkdir(exist_ok=True)
        self._lock = os.open(self._parts, os.O_RDONLY) if os.name == "posix" else None
        self._waiting: list[dict] = []
        self._since = time.monotonic()
        with ExitStack() as opened:
            if self._lock is not None:
                opened.callback(os.close, self._lock)
            _lock(self._lock, path)
            opened.callback(self._leave_parts)
            super().__init__(path, columns)
            if self._own_parts():  # of one that was killed
                self._join()
            self._opened = opened.pop_all()

    def _join(self) -> None:
        """Put all that is in parts into the table, with one row a path, the last."""
        self._is_done = self._is_done and not self._own_parts() and self.path.exists()
        super().close()
        for part in self._own_parts():
            part.unlink()
        self._is_done = True

    def _own_parts(self) -> list[Path]:
        """What of the folder is ours, with what a kill has left of one."""
        return parts_in(self.path) + sorted(self._parts.glob("[0-9]*.parquet.*.partial"))

    def _leave_parts(self) -> None:
        with suppress(OSError):  # it is not empty: what others have put there stays
            self._parts.rmdir()

    def close(self) -> None:
        """Leave it whole, with one row a path, the last, and no folder beside it."""
        with self._opened:
            self.flush()
            self._join()

    def _append(self, row: dict) -> None:
        self._waiting.append(parquet_cells(self.columns.flat(row)))
        if len(self._waiting) >= PART_ROWS or time.monotonic() - self._since > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        if self._waiting:
            numbers = (int(part.stem) for part in parts_in(self.path) if part.stem.isdecimal())
            number = 1 + max(numbers, default=0)
            self._write(self._parts / f"{number:06}.parquet", self._waiting)
        self._waiting, self._since = [], time.monotonic()

    def _rows(self) -> Iterator[dict]:
        for path in self._files():
            with self._reading(path) as file:
                if file.schema_arrow.names != self.columns.names:
                    raise self._other_columns()
                for batch in file.iter_batches(PART_ROWS):
                    yield from batch.to_pylist()

    def _files(self) -> list[Path]:
        return [self.path] * self.path.exists() + parts_in(self.path)

    @contextmanager
    def _reading(self, path: Path) -> "Iterator[ParquetFile]":
        """Raises TableError if it is none, or damaged."""
        import pyarrow.parquet as pq  # noqa: PLC0415 (half a second that other tables do without)
        from pyarrow import ArrowException  # noqa: PLC0415

        try:
            with pq.ParquetFile(path) as file:
                yield file
        except ArrowException as error:
            raise TableError(f"{path} is no table of this program, or damaged: give another --out.") from error

    def _replace(self, rows: Iterable[dict]) -> None:
        self._write(self.path, rows)

    def _write(self, path: Path, rows: Iterable[dict]) -> None:
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        rows, schema = iter(rows), schema_of(self.columns)
        with whole_file(path) as file, pq.ParquetWriter(file, schema) as writer:
            while group := list(islice(rows, PART_ROWS)):
                writer.write_table(pa.Table.from_pylist(group, schema))


def schema_of(columns: Columns) -> "pyarrow.Schema":
    import pyarrow as pa  # noqa: PLC0415

    kinds = dict.fromkeys(("size_bytes", "modified_ns"), pa.int64()) | {"duration_seconds": pa.float64()}
    kinds |= {"is_strange": pa.bool_()}
    kinds |= {name: pa.float32() for name in columns.names if name.startswith("probability")}
    kinds |= {"embedding": pa.list_(pa.float32())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns.names])


def parquet_cells(cells: dict) -> dict:
    """Text that parquet can hold: valid UTF-8, and JSON for what has parts."""
    cells = {name: valid(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}
    return cells | {"timeline": json.dumps(cells["timeline"])} if cells.get("timeline") is not None else cells


def _read_json(line: bytes) -> dict:
    """A line of a jsonl table. Raises ValueError if it is no JSON, and UNLIKE_A_ROW if it is of something else."""
    row = json.loads(line)
    key_of(row), row["error"]
    return row


def _csv_cell(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell)


def _csv_line(cells: Iterable[str]) -> str:
    """As `csv.writer` writes it; but a semicolon, too, which ends cells in some countries, stands between quotes."""
    doubled = ((cell, cell.replace('"', '""')) for cell in cells)
    return ",".join(f'"{twice}"' if MARKS.search(cell) else cell for cell, twice in doubled) + "\r\n"


def harmless(text: str) -> str:
    """A cell that a spreadsheet does not compute, wherever it takes it to begin."""
    return FORMULA.sub(r"\1'", text)


def _end_with_a_line(path: Path) -> None:
    """Cut off what is behind the last line break."""
    with path.open("rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                end = start + place + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def is_at(path: Path, file: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: int | None, path: Path) -> None:
    """Raises TableError if another process writes to the table."""
    if not lock(file):
        raise TableError(f"Another process writes to {path} just now.")


def other_columns(out: object) -> TableError:
    """What to say of a table, or a data set, that has."""
    return TableError(
        f"{out} was written by another program or model, or with other options: give another --out, or delete it."
    )


def _without_time(row: dict) -> int:
    return digest(count_of(row["size_bytes"]), same_model(str(row["model"])), row["heard"])


def digest(*values: object) -> int:
    text = valid("\0".join(map(str, values)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def key_of(row: dict) -> int:
    facts = (row[name] for name in ("path", "size_bytes", "modified_ns", "heard"))
    return digest(same_model(str(row["model"])), *facts)


KINDS: dict[str, type[Table]] = {".csv": CsvTable, ".jsonl": JsonTable, ".parquet": ParquetTable}
