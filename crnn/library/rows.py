"""What a table of genre-crnn says, row by row: csv, jsonl or parquet."""

import csv
import json
import math
import os
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from crnn.terminal import complain, valid

PROBABILITY_OF = "probability_of_"  # begins the names of the columns of genres
TEXTS, NUMBERS = ("path", "model", "genre"), ("probability", "duration_seconds")
COUNTS = ("size_bytes", "modified_ns")
MAY_BE_EMPTY = {"notices", "error", "timeline", "embedding"}  # the last columns, which other programs may leave out
ALIKE_NS = 10_000  # spreadsheets save 15 digits of a number


class File(NamedTuple):
    """A song as it is now; without size and time of change if it cannot be looked at."""

    path: Path
    size_bytes: int | None = None
    modified_ns: int | None = None
    status_changed_ns: int | None = None  # also by rights, which say nothing of the sound, but whether it can be read

    @classmethod
    def of(cls, path: Path) -> "File":
        """What the file system says."""
        try:
            status = path.stat()
        except (OSError, ValueError):
            return cls(path)
        modified_ns = min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1)  # what parquet can hold
        return cls(path, status.st_size, modified_ns, status.st_ctime_ns)


class LibraryError(ValueError):
    """A table or a playlist that cannot be had; the message is one sentence."""


def read_rows(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[dict]:
    """These columns of each row as `_cell` gives them, None where there is nothing.

    `genres`, which is no column, has those of the model; none where there may be the most probable ones alone.
    Raises LibraryError, also if there is no column that is `needed`.
    """
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in READERS:
        names = ", ".join(READERS)
        raise LibraryError(f"{path} is no table: its name must end with {names}, or be that of a folder of --ray.")
    try:
        for row in READERS[suffix](path, columns, needed):
            yield {name: _cell(name, value) for name, value in row.items()}
    except LibraryError:
        raise
    except KeyError as error:
        how = " --embeddings" if error.args == ("embedding",) else ""
        raise LibraryError(f"{path} has no {error}: make it with genre-crnn{how} --out.") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error) as error:
        raise LibraryError(f"{path} is damaged, or no table of genre-crnn.") from error


def _cell(name: str, value: object) -> object:
    """What a column has, as it should be: probability and duration as float, size and time of change as int, an
    embedding as float32 (features,).

    Raises ValueError, TypeError or OverflowError if it is something else.
    """
    if value is None and name != "path":
        return None
    if name in COUNTS:
        return count_of(value)
    if name in NUMBERS:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(name)
        return number
    if name == "embedding":
        import numpy as np  # noqa: PLC0415 (which other columns do without)

        with np.errstate(over="ignore"):
            vector = np.asarray(value, np.float32)
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise ValueError(name)
        return vector
    if name in TEXTS and not isinstance(value, str):
        raise TypeError(name)
    return value


def _of_parquet(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[dict]:
    import pyarrow.compute as pc  # noqa: PLC0415 (half a second that other tables do without)
    import pyarrow.parquet as pq  # noqa: PLC0415
    from pyarrow import ArrowException  # noqa: PLC0415

    try:
        if path.is_dir():  # of a cluster, which writes its parts in any order
            files, by_age = sorted(path.rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns), ["modified_ns"]
        else:
            parts = parts_in(path)  # while it grows
            files, by_age = [path, *parts] if path.is_file() or not parts else parts, []
        if not files:
            raise LibraryError(f"{path} is a folder without parquet files, and no table.")
        files[0].stat()  # pyarrow does not say why there is none
        files = [*map(str, files)]
        names = pq.ParquetDataset(files).schema.names
        _check(names, [*needed, *by_age])
        genres = _genres(names)
        table = pq.read_table(files, columns=[name for name in names if name in columns or name in by_age])
        if by_age:  # so that the last row of a song is of the newest file, and of those the newest answer
            table = table.take(pc.sort_indices(pc.fill_null(table["modified_ns"], -(2**63))))
        for batch in table.to_batches():
            values = {name: batch[name].to_pylist() for name in batch.schema.names if name != "embedding"}
            vectors = batch["embedding"] if "embedding" in batch.schema.names else []
            for number in range(len(batch)):
                row = {name: column[number] for name, column in values.items()} | {"genres": genres}
                if len(vectors) and vectors[number].is_valid:
                    row["embedding"] = vectors[number].values.to_numpy()
                yield {name: row.get(name) for name in columns}
    except ArrowException as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(str(error)) from error


def _of_jsonl(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[dict]:
    """Its probabilities are an object in the order of their size; tables have that of the first as `probability`."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file)):
            try:
                row = json.loads(line)
            except ValueError:
                if line.endswith("\n") or not number:
                    raise
                tell_of_a_cut(path)
                return
            shares = row.get("probabilities") or {}
            row["genres"] = list(shares) if math.isclose(sum(shares.values()), 1, abs_tol=1e-6) else []
            row.setdefault("probability", next(iter(shares.values()), None))
            if not row.get("error"):
                _check(row, needed)
            yield {name: row.get(name) for name in columns}


def _of_csv(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[dict]:
    csv.field_size_limit(2**31 - 1)
    with path.open("rb") as binary:
        if fault := csv_fault(path, binary.readline()):
            raise LibraryError(fault)
        binary.seek(max(0, binary.seek(0, os.SEEK_END) - 1))
        is_ended = binary.read() in (b"\n", b"\r")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        _check(rows.fieldnames or (), needed)
        genres = _genres(rows.fieldnames or ())
        said = (row for row in rows if any(row.values()))  # spreadsheets leave rows of nothing
        for row, following in pairwise(chain(said, [None])):
            if following is None and _is_cut(row, is_ended):
                tell_of_a_cut(path)
                return
            cells = {name: row.get(name) or None for name in columns}
            if cells.get("embedding"):
                cells["embedding"] = json.loads(cells["embedding"])
            if "genres" in cells:
                cells["genres"] = genres
            yield cells


def is_begun(line: bytes) -> bool:
    """Whether a crash may have left this of a line of JSON that begins with a path."""
    return line[:9] == b'{"path": '[: len(line)] and not line.endswith(b"\n")


def csv_fault(path: Path, first: bytes) -> str:
    """A sentence if another program has saved a csv table, with this first line, as it cannot be read; else ""."""
    how = "in UTF-16" if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else ""
    for sign, name in ((b";", "semicolons"), (b"\t", "tabs")):
        cells = [cell.strip(b'"') for cell in first.removeprefix(BOM_UTF8).rstrip().split(sign)]
        if len(cells) > 1 and b"path" in cells:
            how = f"with {name}"
    return how and f"{path} was saved {how}: save it as CSV UTF-8 with commas."


def _is_cut(row: dict[str, str | None], is_ended: bool) -> bool:
    """Whether a kill has cut the last row of a csv table, of which the last line may be ended.

    Raises ValueError if it is rather several rows.
    """
    lacking = {name for name, cell in row.items() if cell is None}
    if not lacking or (is_ended and lacking <= MAY_BE_EMPTY):
        try:
            json.loads(row.get("embedding") or "null")
        except ValueError:
            return True
        return False
    if holds_rows((line for cell in row.values() for line in (cell or "").split("\n")), [*row]):
        raise ValueError(row)
    return True


def tell_of_a_cut(path: Path) -> None:
    """Of a row that a kill has left."""
    complain(f"The last row of {path} is cut, and left out: the command that made it hears its song again.")


def is_row(cells: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether there is a cell for each column of a csv table, but for last ones that may be empty."""
    return 0 < len(cells) <= len(columns) and MAY_BE_EMPTY.issuperset(columns[len(cells) :])


def holds_rows(lines: Iterable[str], columns: Sequence[str]) -> bool:
    """Whether one of these lines of csv, of one row, is a row by itself: somebody has opened a quotation mark."""
    for line in lines:
        try:
            cells = next(csv.reader([line], strict=True), ())
        except csv.Error:
            continue
        if is_row(cells, columns):
            return True
    return False


def _genres(columns: Sequence[str]) -> list[str]:
    return [name.removeprefix(PROBABILITY_OF) for name in columns if name.startswith(PROBABILITY_OF)]


def _check(names: object, needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            raise KeyError(name)


def is_address(path: str) -> bool:
    """Whether it is one of an object store or the like, such as s3://bucket/folder."""
    return "://" in path


def local(name: str) -> str:
    """The path of a file: address of this computer, as file managers give them (RFC 8089); all else as it is."""
    if not (scheme := re.match(r"file:(//(localhost)?|(?!//))(?=/)", name, re.IGNORECASE)):
        return name
    path = name[scheme.end() :]
    unquoted = unquote_to_bytes(path)
    if b"\0" in unquoted:
        return name
    if os.name != "nt":
        return os.fsdecode(unquoted)
    from urllib.request import url2pathname  # noqa: PLC0415 (which imports what fetches from servers)

    try:
        return url2pathname(path)
    except OSError:  # more colons than that of a drive
        return name


def absolute(path: str | os.PathLike) -> str:
    """Where a path leads, as tables may have it: links stay, and the name is `valid`."""
    return valid(os.path.abspath(path))  # noqa: PTH100


def file_at(path: str) -> str | None:
    """Where the file of a row is, whose name may have the bytes that `valid` has changed; None if there is none."""
    unescaped = re.sub(r"\\udc([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), path)
    places = [path, unescaped]
    with suppress(UnicodeEncodeError):  # as in `valid`
        places.append(os.fsdecode(unescaped.encode("utf-8", "surrogateescape")))
    return next(filter(os.path.isfile, places), None)  # a name may be too long to look at


def count_of(value: object) -> int | None:
    """What a column of counts has, which others may have made floating-point numbers. Raises what `int` raises."""
    if value in (None, ""):
        return None
    return int(value) if str(value).removeprefix("-").isdecimal() else int(float(value))


def are_alike(one_ns: int | None, other_ns: int | None) -> bool:
    """Whether two times of change are the same, as far as tables tell that other programs have saved."""
    return one_ns == other_ns or (None not in (one_ns, other_ns) and abs(one_ns - other_ns) < ALIKE_NS)


def is_as_heard(heard: File) -> bool:
    """Whether a song is as it was; of times, a table that others have saved has 15 digits."""
    now = File.of(heard.path)
    if None in (heard.size_bytes, heard.modified_ns, now.size_bytes):
        return False
    return now.size_bytes == heard.size_bytes and are_alike(now.modified_ns, heard.modified_ns)


def same_model(name: str) -> str:
    """What the names of a model have in common: of one in a folder its digest, however the folder was typed."""
    return name.rpartition(" ")[2] if re.search(r" \(folder\) [0-9a-f]{7}$", name) else name


def parts_of(table: Path) -> Path:
    """The folder of what of a parquet table is written while it grows."""
    return table.with_name(table.name + ".parts")


def parts_in(table: Path) -> list[Path]:
    """What stands there, in its order, without what file servers and systems put into folders of others."""
    return sorted(part for part in parts_of(table).glob("[!.]*.parquet") if part.is_file())


READERS = {".csv": _of_csv, ".jsonl": _of_jsonl, ".parquet": _of_parquet}
