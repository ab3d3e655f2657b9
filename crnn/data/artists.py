"""The artists of tracks, from a table as people and spreadsheets write it."""

import codecs
import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from crnn.data.features import DatasetError
from crnn.data.names import GTZAN_TRACK, listed, part_in_genre, part_of_folder, slashed
from crnn.walk import is_song

COLUMNS = ("track_id", "artist")
NOBODY = {"unknown", "unknown artist", "various", "various artists", "va", "v.a.", "n/a", "none", "null", "nan"}
NOBODY |= {"no artist", "anonymous", "-", "?"}
NOBODY |= {"unbekannt", "unbekannter interpret", "unbekannter künstler"}  # as programs write it in other languages
NOBODY |= {"verschiedene interpreten", "verschiedene künstler", "diverse interpreten", "diverse künstler", "diverse"}
NOBODY |= {"inconnu", "artiste inconnu", "interprète inconnu", "artistes inconnus"}
NOBODY |= {"artistes variés", "artistes divers", "interprètes divers", "interprètes variés", "multi-interprètes"}
NOBODY |= {"desconocido", "artista desconocido", "intérprete desconocido"}
NOBODY |= {"varios artistas", "varios intérpretes", "artistas varios", "intérpretes varios"}
NOBODY |= {"desconhecido", "artista desconhecido", "intérprete desconhecido"}
NOBODY |= {"vários artistas", "vários intérpretes", "artistas vários", "intérpretes vários"}
NOBODY |= {"未知", "未知艺术家", "未知艺人", "未知歌手", "未知藝術家", "未知藝人", "未知演出者", "不明演出者"}
NOBODY |= {"群星", "多位艺术家", "多位藝人", "多位演出者", "各种艺术家", "各种艺人", "合辑", "合輯"}
NOBODY |= {"sconosciuto", "artista sconosciuto", "interprete sconosciuto", "artisti vari", "interpreti vari"}
NOBODY |= {"неизвестен", "неизвестный", "неизвестный исполнитель", "неизвестный артист", "разные исполнители"}
LEAST_SHARE = 0.5  # of the tracks, for which a table must know the artist
EXCELS_LINE = re.compile(r"\A\s*\"?sep=.?\"?[ \t]*(\r\n?|\n)", re.IGNORECASE)  # which Excel writes for itself
EMPTY_LINES = re.compile(r"\A[\s,;|\"]*[\r\n]")  # before the header
CODE_PAGES = ("cp1250", "cp1251", "gb18030", "cp932", "big5", "cp949")  # of Windows elsewhere
MOST_SOUGHT = 100  # names, to tell which of them a table is in


def read_artists(path: Path, track_ids: Sequence[str], accepted: Collection[str] = ()) -> list[str | None]:
    """The artist of each track, None where it is not known, from a table with the columns track_id and artist.

    Its separator may be a comma, a semicolon, a tab or a bar, its encoding UTF-8 or UTF-16, with a byte-order mark or
    without, UTF-32 with one, or a code page of Windows, that in which most tracks are found. Names of tracks may be in
    another of Unicode's forms, and with backslashes; they may lack the folder of a part of a split or the ending, have
    folders before them, or be those of GTZAN. If an artist's name is written in several ways, in case, spaces or
    Unicode's forms, the first is taken for all; "Unknown" or "Various Artists", in several languages and whatever signs
    are around or between, is none. Artists of whom a track has several rows count as one, on all tracks.

    Raises DatasetError if the file is missing, has other columns or a quotation mark that is not closed, or knows the
    artists of less than half of the tracks; with "few-artists" in `accepted` one is enough.
    """
    names_of = [_names(track) for track in track_ids]
    known = {name for several in names_of for name in several}
    text, is_certain = _text(path, known)
    rows = _rows(path, text, known)
    names: dict[str, str] = {}
    artists: dict[str, dict[str, None]] = defaultdict(dict)  # in the order of the table
    for track, artist in rows:
        if track and artist and artist.strip() and not _is_nobody(artist):
            artists[_plain(track)][names.setdefault(_without_case(artist), artist.strip())] = None
    ends = {track: common for track in artists if (common := known.intersection(_ends(track)))}
    together = _together(artists[track] for track in ends)
    artist_of = {track: together[next(iter(artists[track]))] for track in ends}
    by_end: dict[str, set[str]] = defaultdict(set)
    for track, common in ends.items():
        for name in common:
            by_end[name].add(artist_of[track])
    found = [artist_of.get(names[0]) or _only_one(by_end[name] for name in names) for names in names_of]
    n_found = sum(artist is not None for artist in found)
    if n_found < (LEAST_SHARE * len(found) if "few-artists" not in accepted else 1):
        missing = next(track for track, artist in zip(track_ids, found, strict=True) if artist is None)
        other = next((track for track, _ in rows if track and known.isdisjoint(_ends(_plain(track)))), None)
        instead = f" (the table has {other!r}, for one)" if other else ""
        waiver = ", or give --accept few-artists to take each of the others for an artist of its own" if n_found else ""
        encoding = "" if is_certain else "save it as CSV UTF-8, which it is not, or "
        raise DatasetError(
            f"{path} knows the artists of {n_found} of {len(found)} tracks; {missing!r} is not in it{instead}: "
            f"{encoding}mend its column track_id{waiver}."
        )
    return found


def _text(path: Path, known: Collection[str]) -> tuple[str, bool]:
    """The text of a table, however it is encoded, and whether that is certain. Raises DatasetError.

    `known` is what the tracks of the data may be called.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    if content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise DatasetError(f"{path} is a workbook of a spreadsheet program: save the table as CSV.")
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return content.decode("utf-32", "replace"), True
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace"), True
    if content[:400].count(0) >= len("".join(COLUMNS)):  # as many as UTF-16 has in the header alone
        texts = [content.decode(encoding, "replace") for encoding in ("utf-16-le", "utf-16-be")]
        return max(texts, key=lambda text: sum("\0" < sign < "\x7f" for sign in text[:200])), True
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return _of_code_pages(content, known), False


def _of_code_pages(content: bytes, known: Collection[str]) -> str:
    """A text in the code page in which most names are found that not all pages have alike; else in that of the West."""
    sought = sorted(name for name in {*known, *NOBODY} if not name.isascii())[:MOST_SOUGHT]
    texts = [content.decode("cp1252", "replace")]
    for page in CODE_PAGES:
        with suppress(UnicodeDecodeError):
            texts.append(content.decode(page))

    def n_found(text: str) -> int:
        plain = _plain(text)
        return sum(name in plain for name in sought)

    return max(texts, key=n_found)


def _rows(path: Path, text: str, known: Collection[str]) -> list[tuple[str | None, str | None]]:
    """Track and artist of each row. Raises DatasetError, naming what is missing.

    `known` is what the tracks of the data may be called.
    """
    text = text if "\n" in text else text.replace("\r", "\n")
    text = EMPTY_LINES.sub("", EXCELS_LINE.sub("", text, count=1))
    lines = list(io.StringIO(text, newline=""))
    headers = []
    for separator in ",;\t|":
        style = {"delimiter": separator, "skipinitialspace": separator != "\t"}
        try:
            header = next(csv.reader(lines, **style), [])
            names = [_header(name) for name in header]
            if {*names} >= {*COLUMNS}:
                _check_header(path, header)
                places = [names.index(column) for column in COLUMNS]
                return [
                    tuple(row[place] if place < len(row) else None for place in places)
                    for row in _whole_rows(path, lines, style, places, known)
                ]
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


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raises DatasetError if two names of columns read alike, so that one of them would be passed over."""
    for column in COLUMNS:
        if len(alike := [name for name in header if _header(name) == column]) > 1:
            raise DatasetError(f"{path} has columns that read alike, {listed(alike)}: rename one, or take it away.")


def _whole_rows(
    path: Path, lines: Sequence[str], style: Mapping[str, Any], places: Sequence[int], known: Collection[str]
) -> Iterator[list[str]]:
    """The rows below the header, in which `places` are those of COLUMNS.

    Raises DatasetError where a quotation mark is not closed, so that a cell has swallowed rows.
    """
    table = csv.reader(lines, **style)
    header, start = next(table), table.line_num

    def is_row(cells: Sequence[str]) -> bool:  # a line of a song's text may have as many commas
        return len(cells) == len(header) and (
            is_song(cells[places[0]]) or not known.isdisjoint(_ends(_plain(cells[places[0]])))
        )

    for row in table:
        if table.line_num > start + 1:
            here = [row[place].strip() for place in places if place < len(row)]
            inner = [line for cell in row for line in cell.strip().split("\n")[1:]]
            is_broken = any("\n" in cell for cell in here) or any(map(is_row, csv.reader(inner, **style)))
            if is_broken or (inner and _goes_on_behind_a_mark(lines[start : table.line_num], style)):
                raise DatasetError(
                    f"{path} has a quotation mark that is not closed, in the row of {''.join(here[:1])[:60]!r}: double "
                    "it, or take it away."
                )
        start = table.line_num
        if row:
            yield row


def _goes_on_behind_a_mark(lines: Iterable[str], style: Mapping[str, Any]) -> bool:
    """Whether the quotation mark that ends a cell of a row is rather the first one of another, or there is none.

    Blanks may be between it and the separator.
    """
    blanks = re.compile(rf'" +(?={re.escape(style["delimiter"])}|[\r\n]|\Z)')
    try:
        list(csv.reader((blanks.sub('"', line) for line in lines), strict=True, **style))
    except csv.Error:
        return True
    return False


def _header(name: str) -> str:
    """The name of a column whoever wrote it."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _names(track: str) -> list[str]:
    """What a track of the data may be called in a table, besides its own name."""
    outer, _, inner = (plain := _plain(track)).partition("/")
    middle, _, rest = inner.partition("/")
    if part_of_folder(outer):
        unsplit = _without_ending(inner)
    elif rest and part_in_genre(outer, middle):
        unsplit = _without_ending(f"{outer}/{rest}")
    else:
        unsplit = []
    return [*_without_ending(plain), *unsplit, *_of_gtzan(plain)]


def _ends(track: str) -> Iterator[str]:
    """What a track of a table may be called in the data: also without folders around it, and without its ending."""
    yield track
    parts = track.split("/")
    for number in range(len(parts) - 1):
        yield from _without_ending("/".join(parts[number:]))
    yield from _of_gtzan(track)


def _of_gtzan(track: str) -> list[str]:
    """The name that a file of GTZAN has in its lists."""
    name = track.rpartition("/")[2]
    return [stem] if GTZAN_TRACK.fullmatch(stem := name.rpartition(".")[0]) and is_song(name) else []


def _without_ending(track: str) -> list[str]:
    """A name with and without the ending of a sound."""
    return [track, track.rpartition(".")[0]] if is_song(track) else [track]


def _together(several: Iterable[Iterable[str]]) -> dict[str, str]:
    """For each name one of all that stand together with it, be it by way of others: the same for them all."""
    groups: dict[str, list[str]] = {}
    for names in several:
        first, *others = {id(group): group for name in names for group in [groups.setdefault(name, [name])]}.values()
        for group in others:
            first += group
            groups |= dict.fromkeys(group, first)
    return {name: group[0] for name, group in groups.items()}


def _only_one(kinds: Iterable[Collection[str]]) -> str | None:
    """The only member of the first collection that has just one."""
    return next((next(iter(kind)) for kind in kinds if len(kind) == 1), None)


def _plain(track: str) -> str:
    """The name of a track whoever wrote it."""
    return unicodedata.normalize("NFC", slashed(track.strip()))


def _without_case(artist: str) -> str:
    """The name of an artist whoever wrote it."""
    return " ".join(unicodedata.normalize("NFC", artist.casefold()).split())


def _is_nobody(artist: str) -> bool:
    """Whether this says that the artist is not known, or not one."""
    return _without_signs(artist) in _nobody()


@cache
def _nobody() -> set[str]:
    return set(map(_without_signs, NOBODY))


def _without_signs(artist: str) -> str:
    """The words of an artist's name, each without the s of a plural; the name itself where there are none, "!!!"."""
    name = _without_case(artist)
    return " ".join(word.rstrip("s") for word in re.split(r"[\W_]+", name) if word) or name
