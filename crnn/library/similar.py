"""`genre-crnn similar SONG --in genres.parquet`: the songs of a table that sound most like one, and a playlist."""

import argparse
import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.files import whole_file
from crnn.terminal import complain, printable

if TYPE_CHECKING:
    import numpy as np

DESCRIPTION = (
    "Find the songs that sound most like one, or like several together, in a table of embeddings (genre-crnn MUSIC "
    "--embeddings --out genres.parquet). The model hears it first if the table lacks it."
)
NEEDED = ("path", "model", "embedding")
COLUMNS = (*NEEDED, "genre", "duration_seconds")


class LibraryError(ValueError):
    """A table or a playlist that cannot be had; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Library:
    """The songs of a table that have an embedding."""

    paths: list[str]
    genres: list[str]
    seconds: list[float | None]
    model: str
    embeddings: "np.ndarray"  # float32 (n, features)

    @classmethod
    def read(cls, path: Path) -> "Library":
        """From csv, jsonl or parquet, by its ending; of several rows with one path the last. Raises LibraryError."""
        import numpy as np  # noqa: PLC0415

        rows: dict[str, dict] = {}
        try:
            for row in READERS[path.suffix.lower()](path):
                if row.get("embedding") is None:
                    rows.pop(row["path"], None)
                else:
                    rows[row["path"]] = row
            embeddings = np.array([row["embedding"] for row in rows.values()], np.float32)
            models = {row["model"] for row in rows.values()}
        except KeyError as error:
            if path.suffix.lower() not in READERS:
                raise LibraryError(f"{path} is no table: its name must end with {', '.join(READERS)}.") from error
            raise LibraryError(f"{path} has no {error}: make it with genre-crnn --embeddings --out.") from error
        except OSError as error:
            raise LibraryError(f"{path} cannot be read ({error.strerror or error}).") from error
        except (ValueError, TypeError) as error:
            raise LibraryError(f"{path} is damaged, or no table of genre-crnn.") from error
        if not rows:
            raise LibraryError(f"{path} has no song with an embedding: make it with genre-crnn --embeddings --out.")
        if len(models) > 1 or embeddings.ndim != 2:
            raise LibraryError(f"{path} is by several models ({', '.join(sorted(models))}), which hear differently.")
        songs = rows.values()
        genres, seconds = ([row.get(name) for row in songs] for name in ("genre", "duration_seconds"))
        return cls([*rows], genres, [second and float(second) for second in seconds], models.pop(), embeddings)

    def index(self, song: Path) -> int | None:
        """Where a song is in it."""
        wanted = os.path.abspath(song)  # noqa: PTH100 - links stay
        if str(song) in self.paths:
            return self.paths.index(str(song))
        return next((n for n, path in enumerate(self.paths) if os.path.abspath(path) == wanted), None)  # noqa: PTH100


def _rows_of_parquet(path: Path) -> Iterator[dict]:
    import pyarrow.parquet as pq  # noqa: PLC0415
    from pyarrow import ArrowException  # noqa: PLC0415

    try:
        names = pq.ParquetDataset(path).schema.names
        if missing := [name for name in NEEDED if name not in names]:
            raise KeyError(missing[0])
        table = pq.read_table(path, columns=[name for name in COLUMNS if name in names])
        for batch in table.to_batches():
            values = {name: batch[name].to_pylist() for name in batch.schema.names if name != "embedding"}
            for number, embedding in enumerate(batch["embedding"]):
                vector = embedding.values.to_numpy() if embedding.is_valid else None
                yield {name: column[number] for name, column in values.items()} | {"embedding": vector}
    except ArrowException as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(str(error)) from error


def _rows_of_jsonl(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if not row.get("error") and "embedding" not in row:
                raise KeyError("embedding")
            yield {name: row.get(name) for name in COLUMNS}


def _rows_of_csv(path: Path) -> Iterator[dict]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            embedding = row["embedding"]
            yield {name: row.get(name) for name in COLUMNS} | {
                "embedding": json.loads(embedding) if embedding else None
            }


READERS = {".csv": _rows_of_csv, ".jsonl": _rows_of_jsonl, ".parquet": _rows_of_parquet}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="one or several songs, as a pattern")
    parser.add_argument(
        "--in", dest="table", type=Path, required=True, metavar="TABLE", help="csv, jsonl or parquet with embeddings"
    )
    parser.add_argument("--top", type=_count, default=10, metavar="K", help="how many songs (default: %(default)s)")
    parser.add_argument("--m3u", type=Path, metavar="FILE", help="write a playlist, SONG first")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--model", help="a folder, a bundled model or a Hub id with an optional @revision (default: $GENRE_CRNN_MODEL)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"this takes a number from 1 on, not {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Print the songs, most alike first; returns the exit status: 1 if a song cannot be heard, 2 without a table.

    Raises CheckpointError.
    """
    from crnn.audio import AudioError  # noqa: PLC0415 (after --help, which has no use for it)

    try:
        library = Library.read(args.table)
        embeddings, seconds = _patterns(args, library)
        found = find(library, embeddings, args.top, {library.index(song) for song in args.songs})
        for number, likeness in found:
            path, genre = library.paths[number], library.genres[number]
            if args.json:
                print(json.dumps({"path": path, "likeness": round(likeness, 4), "genre": genre}), flush=True)
            else:
                print(printable(f"{likeness:.2f}  {path}" + (f"  ({genre})" if genre else "")), flush=True)
        if args.m3u:
            entries = [(library.paths[number], library.seconds[number]) for number, _ in found]
            write_playlist(args.m3u, [*zip(map(str, args.songs), seconds, strict=True), *entries])
    except AudioError as error:
        complain(error)
        return 1
    except LibraryError as error:
        complain(error)
        return 2
    return 0


def _patterns(args: argparse.Namespace, library: Library) -> tuple["np.ndarray", list[float | None]]:
    """The embeddings (songs, features) of the songs that others should be like, and how long they are.

    Raises AudioError, CheckpointError and LibraryError.
    """
    import numpy as np  # noqa: PLC0415

    embeddings, seconds, classifier = [], [], None
    for song in args.songs:
        if (number := library.index(song)) is not None:
            embeddings.append(library.embeddings[number])
            seconds.append(library.seconds[number])
            continue
        if classifier is None:
            from crnn.inference import GenreClassifier  # noqa: PLC0415

            classifier = GenreClassifier.from_pretrained(args.model)
            if (name := classifier.origin.name) != library.model:
                raise LibraryError(
                    f"{args.table} is by {library.model}, and {song} is not in it: {name} would hear it differently, "
                    "so name that model with --model."
                )
        prediction = classifier.predict(song)
        if not len(prediction.embedding):
            raise LibraryError(f"There is no music in {song}.")
        embeddings.append(prediction.embedding)
        seconds.append(prediction.duration_seconds)
    return np.stack(embeddings), seconds


def find(library: Library, patterns: "np.ndarray", k: int, without: set[int | None]) -> list[tuple[int, float]]:
    """The `k` songs most like the patterns (songs, features) together, as numbers, each with its likeness, -1 to 1.

    That is the cosine to the mean of the patterns at length 1. One product with all embeddings is exact, and done
    before an index would be built: 0.1 s for 100,000 songs (`benchmarks/similar.py`).
    """
    import numpy as np  # noqa: PLC0415

    from crnn.library.likeness import unit  # noqa: PLC0415

    pattern = unit(unit(patterns).mean(axis=0))
    lengths = np.sqrt(np.einsum("ij,ij->i", library.embeddings, library.embeddings))
    likeness = library.embeddings @ pattern / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-likeness, kind="stable")[: k + len(without)].tolist()
    return [(number, float(likeness[number])) for number in order if number not in without][:k]


def write_playlist(playlist: Path, songs: Sequence[tuple[str, float | None]]) -> None:
    """Write an extended M3U in UTF-8 of songs (path, seconds), with paths as seen from its folder. Raises LibraryError.

    Songs that are not there, or have line breaks in their names, which M3U cannot hold, are told and left out.
    """
    lines = ["#EXTM3U"]
    for path, seconds in songs:
        if not Path(path).is_file():
            complain(f"{path} is not there, and not on the playlist.")
            continue
        if "\n" in path or "\r" in path:
            complain(f"{path} has a line break in its name, and is not on the playlist.")
            continue
        lines += [f"#EXTINF:{-1 if seconds is None else round(seconds)},{Path(path).stem}", _seen_from(playlist, path)]
    try:
        with whole_file(playlist) as file:
            file.write("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise LibraryError(f"{playlist} cannot be written ({error.strerror or error}).") from error


def _seen_from(playlist: Path, path: str) -> str:
    try:
        relative = os.path.relpath(path, playlist.parent)
    except ValueError:  # on another drive
        return os.path.abspath(path)  # noqa: PTH100 - links stay
    return f".{os.sep}{relative}" if relative.startswith("#") else relative  # else it would be a comment
