"""`genre-crnn similar SONG --in genres.parquet`: the songs of a table that sound most like one, and a playlist."""

import argparse
import json
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.arguments import add_model, pathname, positive
from crnn.files import check_writable, whole_file
from crnn.library.rows import (
    File,
    LibraryError,
    absolute,
    file_at,
    is_address,
    is_as_heard,
    local,
    read_rows,
    same_model,
)
from crnn.terminal import complain, printable

if TYPE_CHECKING:
    import numpy as np

    from crnn.inference import GenreClassifier

DESCRIPTION = (
    "Find the songs that sound most like SONG, or like several songs together, in a table of embeddings (made by "
    "genre-crnn MUSIC --embeddings --out genres.parquet). A song that the table lacks, or that has changed since, is "
    "heard first, if --model is the table's."
)
NEEDS = ("numpy",)
COLUMNS = ("path", "size_bytes", "modified_ns", "model", "embedding", "genre", "duration_seconds")


@dataclass(frozen=True, eq=False)
class Library:
    """The songs of a table that have an embedding."""

    paths: list[str]
    genres: list[str | None]
    seconds: list[float | None]
    model: str
    embeddings: "np.ndarray"  # float32 (n, features)
    sizes_bytes: list[int | None] = field(default_factory=list)  # when they were heard; None where nobody knows
    modified_ns: list[int | None] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Library":
        """From csv, jsonl or parquet, by its ending; of several rows with one path the last.

        Of several models, as where songs have gone before the others were heard anew, that of most songs counts; how
        many are left out is said. Raises LibraryError.
        """
        import numpy as np  # noqa: PLC0415

        rows: dict[str, dict] = {}
        for row in read_rows(path, COLUMNS, needed=("path", "model", "embedding")):
            rows.pop(row["path"], None)
            if row["embedding"] is not None:
                rows[row["path"]] = row
        if not rows:
            raise LibraryError(f"{path} has no song with an embedding: make it with genre-crnn --embeddings --out.")
        names = [row["model"] or "an unknown model" for row in rows.values()]
        kinds = [(same_model(name), len(row["embedding"])) for name, row in zip(names, rows.values(), strict=True)]
        most = Counter(kinds).most_common(1)[0][0]
        songs = [row for row, kind in zip(rows.values(), kinds, strict=True) if kind == most]
        model = names[kinds.index(most)]
        if len(songs) < len(rows):
            complain(
                f"{len(rows) - len(songs)} of the {len(rows)} songs of {path} are not by {model}, but by "
                "another model, which hears differently: they are left out."
            )
        columns = {name: [row[name] for row in songs] for name in COLUMNS}
        return cls(
            columns["path"],
            columns["genre"],
            columns["duration_seconds"],
            model,
            np.array(columns["embedding"], np.float32),
            columns["size_bytes"],
            columns["modified_ns"],
        )

    def index(self, song: Path) -> int | None:
        """Where a song is in it, also by the name of what it is a link to."""
        places = absolute(song), absolute(os.path.realpath(song))
        return next((self._numbers[place] for place in places if place in self._numbers), None)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {absolute(path): number for number, path in enumerate(self.paths)}

    def has_changed(self, number: int) -> bool:
        """Whether a song that is there is no longer as it was heard, as far as the table tells."""
        known, place = (self.sizes_bytes[number], self.modified_ns[number]), file_at(self.paths[number])
        return None not in (*known, place) and not is_as_heard(File(Path(place), *known))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "songs",
        nargs="+",
        type=_song,
        metavar="SONG",
        help="one or more songs, or their file: addresses, to compare with",
    )
    parser.add_argument(
        "--in",
        dest="table",
        type=pathname,
        required=True,
        metavar="TABLE",
        help="a csv, jsonl or parquet table with embeddings",
    )
    parser.add_argument(
        "--top", type=positive(int), default=10, metavar="K", help="how many songs to find (default: %(default)s)"
    )
    parser.add_argument("--m3u", type=pathname, metavar="FILE", help="write a playlist that begins with SONG")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_model(parser)


def _song(name: str) -> Path:
    return pathname(local(name))


def run(args: argparse.Namespace) -> int:
    """Print the songs, most alike first; returns the exit status: 1 if a song cannot be heard, 2 without a table.

    Raises CheckpointError.
    """
    from crnn.audio import AudioError  # noqa: PLC0415 (after --help, which has no use for it)

    args.songs = [*{os.path.realpath(song): song for song in args.songs}.values()]  # each once
    try:
        if args.m3u:
            check_playlist(args.m3u, [args.table, *args.songs])
        library = Library.read(args.table)
        embeddings, seconds = _patterns(args, library)
        found = _there(args, library, find(library, embeddings, {library.index(song) for song in args.songs}))
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


def _there(args: argparse.Namespace, library: Library, found: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """As many of the songs as are asked for, each once, and none of those that they should be like.

    Those that have gone are told, and take no place unless all have; so are those that have changed, which may be no
    more than their tags, and stay.
    """
    there, gone, n_changed = [], [], 0
    places = {*map(os.path.realpath, args.songs)}
    for number, likeness in found:
        if len(there) == args.top:
            break
        path = library.paths[number]
        if (place := path if is_address(path) else file_at(path)) is None:
            gone.append((number, likeness))
        elif (real := place if is_address(place) else os.path.realpath(place)) not in places:
            places.add(real)
            there.append((number, likeness))
            n_changed += library.has_changed(number)
    if not there and gone:
        complain(f"None of the other songs of {args.table} is here: these are their names there.")
        return gone[: args.top]
    if gone:
        complain(f"Of the songs of {args.table} that sound most alike, {len(gone)} are no longer there, and left out.")
    if n_changed:
        complain(f"Of these songs, {n_changed} changed after {args.table} was made, and are found as they were then.")
    if not there:
        complain(f"{args.table} has no other song.")
    return there


def _patterns(args: argparse.Namespace, library: Library) -> tuple["np.ndarray", list[float | None]]:
    """The embeddings (songs, features) of the songs that others should be like, and how long they are.

    Raises AudioError, CheckpointError and LibraryError.
    """
    import numpy as np  # noqa: PLC0415

    classifier = cache(partial(_classifier, args.model))
    patterns = [_pattern(song, args.table, library, classifier) for song in args.songs]
    embeddings, seconds = zip(*patterns, strict=True)
    return np.stack(embeddings), [*seconds]


def _classifier(model: str | None) -> "GenreClassifier":
    from crnn.inference import GenreClassifier  # noqa: PLC0415 (which songs that the table has do without)

    return GenreClassifier.from_pretrained(model)


def _pattern(
    song: Path, table: Path, library: Library, classifier: Callable[[], "GenreClassifier"]
) -> tuple["np.ndarray", float | None]:
    """The embedding (features,) of a song and how long it is, as the table has it or the model hears it."""
    number = library.index(song)
    if number is None or library.has_changed(number):
        name = classifier().name
        if same_model(name) == same_model(library.model):
            return _heard(song, classifier())
        if number is None:
            same = name.rpartition(" ")[0] == library.model.rpartition(" ")[0]
            what = "hear the library anew" if same else "name that model with --model"
            raise LibraryError(
                f"{table} is by {library.model}, and {song} is not in it: {name} would hear it differently, so {what}."
            )
        complain(
            f"{song} changed after {table} was made, and is taken as it was then: the table is by {library.model}, "
            f"and {name} would hear it differently."
        )
    return library.embeddings[number], library.seconds[number]


def _heard(song: Path, classifier: "GenreClassifier") -> tuple["np.ndarray", float]:
    from crnn.audio import AudioError  # noqa: PLC0415
    from crnn.library.job import attempt  # noqa: PLC0415

    prediction = attempt(File(song), partial(classifier.predict, song))
    if isinstance(prediction, AudioError):
        raise prediction
    if not len(prediction.embedding):
        raise LibraryError(f"There is no music in {song}.")
    return prediction.embedding, prediction.duration_seconds


def find(library: Library, patterns: "np.ndarray", without: set[int | None]) -> Iterator[tuple[int, float]]:
    """The songs as numbers, each with its likeness, -1 to 1; those most like the patterns (songs, features) come first.

    That is the cosine to the mean of the patterns at length 1. One product with all embeddings is exact, and done
    before an index would be built (`benchmarks/similar.py`).
    """
    import numpy as np  # noqa: PLC0415

    from crnn.library.likeness import unit  # noqa: PLC0415

    pattern = unit(unit(patterns).mean(axis=0))
    lengths = np.sqrt(np.einsum("ij,ij->i", library.embeddings, library.embeddings))
    likeness = library.embeddings @ pattern / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-likeness, kind="stable").tolist()
    return ((number, float(likeness[number])) for number in order if number not in without)


def check_playlist(playlist: Path, others: Sequence[Path]) -> None:
    """Raises LibraryError if it would be written over one of the others or what is no playlist, or cannot be."""
    place = Path(os.path.realpath(playlist))
    is_ours = place.suffix.lower() in (".m3u", ".m3u8") or not place.is_file()
    try:
        if not is_ours:
            with place.open("rb") as file:
                is_ours = file.read(10).removeprefix(BOM_UTF8)[:7] in (b"", b"#EXTM3U")
    except OSError as error:
        raise LibraryError(f"{playlist} cannot be read ({error.strerror or error}).") from error
    if not is_ours or str(place) in map(os.path.realpath, others):
        raise LibraryError(f"{playlist} is there and is no playlist: --m3u takes the name of one, such as like.m3u8.")
    with _writing(playlist):
        check_writable(playlist)


def write_playlist(playlist: Path, songs: Sequence[tuple[str, float | None]]) -> None:
    """Write an extended M3U in UTF-8 of songs (path, seconds), with paths as seen from its folder. Raises LibraryError.

    Songs that are not there, or have line breaks in their names, which M3U cannot hold, are told and left out.
    """
    lines = ["#EXTM3U"]
    for listed, seconds in songs:
        if (path := listed if is_address(listed) else file_at(listed)) is None:
            complain(f"{listed} is not there, and not on the playlist.")
            continue
        if "\n" in path or "\r" in path:
            complain(f"{path} has a line break in its name, and is not on the playlist.")
            continue
        lines += [
            f"#EXTINF:{-1 if seconds is None else round(seconds)},{Path(path).stem}",
            path if is_address(path) else _seen_from(playlist, path),
        ]
    with _writing(playlist), whole_file(playlist) as file:
        file.write("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))


@contextmanager
def _writing(playlist: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LibraryError(f"{playlist} cannot be written ({error.strerror or error}).") from error


def _seen_from(playlist: Path, path: str) -> str:
    folder = os.path.abspath(playlist.parent)  # noqa: PTH100 - links stay
    is_link = folder != os.path.realpath(folder)  # out of which ".." leads elsewhere
    try:
        relative = os.path.abspath(path) if is_link else os.path.relpath(path, folder)  # noqa: PTH100 - links stay
    except ValueError:  # on another drive
        return os.path.abspath(path)  # noqa: PTH100 - links stay
    # Else it would be a comment, or without its white space.
    return f".{os.sep}{relative}" if relative[0] == "#" or relative[0].isspace() else relative
