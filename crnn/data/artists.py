"""The artists of tracks, from a table as people and spreadsheets write it."""

import codecs
import csv
import io
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from crnn.features import DatasetError

COLUMNS = ("track_id", "artist")
LEAST_SHARE = 0.5  # of the tracks, for which a table must know the artist
UTF_16 = ((codecs.BOM_UTF16_LE, "utf-16-le", 1), (codecs.BOM_UTF16_BE, "utf-16-be", 0))  # where English has zeros


def read_artists(path: Path, track_ids: Sequence[str], accepted: Collection[str] = ()) -> list[str | None]:
    """The artist of each track, None where it is not known, from a table with the columns track_id and artist.

    Its separator may be a comma, a semicolon, a tab or a bar, its encoding UTF-8 or UTF-16, with a byte-order mark or
    without, or that of Windows. Names of tracks may be in another of Unicode's forms, and with backslashes. If an
    artist's name is written in several ways, in case, spaces or Unicode's forms, the first is taken for all.

    Raises DatasetError if the file is missing or has other columns, or knows the artists of less than half of the
    tracks; with "few-artists" in `accepted` one is enough.
    """
    rows = _rows(path, _text(path))
    names: dict[str, str] = {}
    artists = {
        _plain(track): names.setdefault(_without_case(artist), artist.strip())
        for track, artist in rows
        if track and artist and artist.strip()
    }
    found = [artists.get(_plain(track)) for track in track_ids]
    n_found = sum(artist is not None for artist in found)
    if n_found < (LEAST_SHARE * len(found) if "few-artists" not in accepted else 1):
        missing = next(track for track, artist in zip(track_ids, found, strict=True) if artist is None)
        known = {_plain(track) for track in track_ids}
        other = next((track for track, _ in rows if track and _plain(track) not in known), None)
        instead = f" (the table has {other!r}, for one)" if other else ""
        waiver = ", or give --accept few-artists to take each of the others for an artist of its own" if n_found else ""
        raise DatasetError(
            f"{path} knows the artists of {n_found} of {len(found)} tracks; {missing!r} is not in it{instead}: mend "
            f"its column track_id{waiver}."
        )
    return found


def _text(path: Path) -> str:
    """The text of a table, however it is encoded. Raises DatasetError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    if content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise DatasetError(f"{path} is a workbook of a spreadsheet program: save the table as CSV.")
    for mark, encoding, offset in UTF_16:
        half = content[:400][offset::2]
        if content.startswith(mark) or half.count(0) > 0.7 * max(1, len(half)):
            return content.decode(encoding, "replace").removeprefix("\ufeff")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _rows(path: Path, text: str) -> list[tuple[str | None, str | None]]:
    """Track and artist of each row. Raises DatasetError, naming what is missing."""
    first, _, rest = text.partition("\n")
    if first.strip().casefold().startswith("sep="):  # what Excel writes for itself
        text = rest
    headers = []
    for separator in ",;\t|":
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            names = {(name or "").strip().casefold(): name for name in table.fieldnames or []}
            if names.keys() >= set(COLUMNS):
                return [tuple(row[names[column]] for column in COLUMNS) for row in table]
        except csv.Error as error:
            raise DatasetError(f"{path} is not a table: {error}.") from error
        headers.append([name for name in names if name])
    header = max(headers, key=lambda names: (len(names), COLUMNS[0] in names))
    if not header:
        raise DatasetError(f"{path} is empty; it needs the columns {' and '.join(COLUMNS)}.")
    missing = " and ".join(column for column in COLUMNS if column not in header)
    shown = ", ".join(name[:40] for name in header[:8])
    raise DatasetError(
        f"{path} lacks the column{'s' if ' and ' in missing else ''} {missing}; its first line has: {shown}."
    )


def _plain(track: str) -> str:
    """The name of a track whoever wrote it."""
    return unicodedata.normalize("NFC", track.strip().replace("\\", "/")).removeprefix("./")


def _without_case(artist: str) -> str:
    """The name of an artist whoever wrote it."""
    return " ".join(unicodedata.normalize("NFC", artist.casefold()).split())
