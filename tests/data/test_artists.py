"""Tables of artists as people and spreadsheets write them."""

import csv
from pathlib import Path

import pytest

from crnn.data.artists import read_artists
from crnn.data.features import DatasetError

TRACKS = ["rock/café 1.wav", "rock/café 2.wav", "jazz/a.wav"]
ROWS = [("track_id", "artist"), (TRACKS[0], "Ann, Bob; Co"), (TRACKS[1], "Ben"), (TRACKS[2], "Cem")]


def table(separator: str = ",", end: str = "\n", rows: list = ROWS) -> str:
    return "".join(separator.join(f'"{cell}"' for cell in row) + end for row in rows)


@pytest.mark.parametrize(
    "content",
    [
        table().encode(),
        table(end="\r\n").encode("utf-8-sig"),
        table(";").encode("cp1252"),
        ("sep=;\r\n" + table(";", "\r\n")).encode(),
        table("\t").encode("utf-16"),
        table("\t").encode("utf-16-be"),
        table("\t").encode("utf-16-le"),
        table("|").encode(),
        table(rows=[(*row, "a 12 inch\none, with a line\nbreak") for row in ROWS]).encode(),
        table(rows=[("comment", *ROWS[0]), *(("one\nand\ntwo", *row) for row in ROWS[1:])], end="\r\n").encode(),
        table(rows=[(" Track_ID ", "ARTIST"), *ROWS[1:]]).encode(),
        table(rows=[(f"./{track}".replace("/", "\\"), artist) for track, artist in ROWS])
        .replace(".\\track_id", "track_id")
        .encode(),
        table().replace("é", "e\u0301").encode(),
        (table(rows=[(*row, "more") for row in ROWS]) + '"rock/short row"\n\n').encode(),
        table(rows=[(*row, "First line\nOh, baby, baby\nlast") for row in ROWS]).encode(),
        table(rows=[("comment", *ROWS[0]), *(("First\nsecond", *row) for row in ROWS[1:])])
        .replace('second",', 'second" ,')
        .encode(),
    ],
)
def test_what_spreadsheets_write_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "artists.csv").write_bytes(content)
    assert read_artists(tmp_path / "artists.csv", TRACKS) == ["Ann, Bob; Co", "Ben", "Cem"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"track_id;performer\na;b\n", "lacks the column artist; its first line has: track_id, performer"),
        (b"file,title\na,b\n", "lacks the columns track_id and artist; its first line has: file, title"),
        (b"", "is empty"),
        (b"PK\3\4 and so on", "workbook .* as CSV"),
        (b"track_id,artist\n", r"knows the artists of 0 of 3 tracks; 'rock/café 1.wav' is not in it: mend"),
        (
            "track_id,artist\nrock/café 1.wav,Ann\njazz/b,Cem\n".encode(),
            r"1 of 3 .* \(the table has 'jazz/b', for one\)",
        ),
        (
            b'track_id\tartist\nrock/a.mp3\t"12 inch\njazz/b.mp3\tBen\n',
            "mark that is not closed, in the row of 'rock/a.mp3'",
        ),
        (b'track_id,artist,title\nrock/a.mp3,Ann,"12 inch\njazz/b.mp3,Ben,x\njazz/c.mp3,Ben,x\n', "of 'rock/a.mp3'"),
        (b'track_id,title,artist\nrock/a.mp3,"12 inch,Ann\njazz/b.mp3,"Song",Ben\n', "of 'rock/a.mp3': double it"),
        (b"track_id,artist,Artist\nrock/a.mp3,Ann,\n", "columns that read alike, 'artist' and 'Artist': rename"),
        (b'track_id,title,artist\nrock/d,"12 inch,Ann\njazz/a,Song,Ben\nx,7",Ben\n', "in the row of 'rock/d'"),
        (b"track_id,artist\n" + b'"' + b"x" * 200_000, "is not a table: field larger"),
    ],
)
def test_what_is_wrong_with_a_table(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "artists.csv").write_bytes(content)
    csv.field_size_limit(131_072)  # the module's own, which tables of songs raise
    with pytest.raises(DatasetError, match=message):
        read_artists(tmp_path / "artists.csv", TRACKS)


@pytest.mark.parametrize(
    "content",
    [
        "\r\n,,\r\n" + table(end="\r\n"),
        '"sep=;"\r' + table(";", "\r"),
        table(end="\r"),
        table(",  "),
        table(rows=[("Track ID", "Artist"), *ROWS[1:]]),
        table(
            rows=[ROWS[0], *((f"C:\\My Music\\{track.replace('/', chr(92))}", artist) for track, artist in ROWS[1:])]
        ),
        table(rows=[ROWS[0], *((f"/home/me/music/{track}", artist) for track, artist in ROWS[1:])]),
        table(rows=[ROWS[0], *((track.removesuffix(".wav"), artist) for track, artist in ROWS[1:])]),
    ],
)
def test_what_people_write_is_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "artists.csv").write_bytes(content.encode())
    assert read_artists(tmp_path / "artists.csv", TRACKS) == ["Ann, Bob; Co", "Ben", "Cem"]


def test_tracks_of_a_split_and_of_gtzan_are_found_by_their_usual_names(tmp_path: Path) -> None:
    rows = [
        ("track_id", "artist"),
        ("rock/1.wav", "Ann"),
        ("blues.00000", "Ben"),
        ("genres/jazz/jazz.00001.wav", "Cem"),
    ]
    (tmp_path / "artists.csv").write_text(table(rows=rows))
    tracks = ["train/rock/1.wav", "test/blues/blues.00000.wav", "jazz.00001", "rock/train/1.wav", "rock/Queen/1.wav"]
    assert read_artists(tmp_path / "artists.csv", tracks) == ["Ann", "Ben", "Cem", "Ann", None]


def test_a_name_that_two_artists_could_have_is_nobodys(tmp_path: Path) -> None:
    rows = [("track_id", "artist"), ("x/rock/1.wav", "Ann"), ("y/rock/1.wav", "Ben"), ("y/rock/2.wav", "Ben")]
    (tmp_path / "artists.csv").write_text(table(rows=rows))
    assert read_artists(tmp_path / "artists.csv", ["rock/1.wav", "rock/2.wav"]) == [None, "Ben"]


def test_artists_of_one_track_are_one_wherever_they_are(tmp_path: Path) -> None:
    tracks = [f"pop/{number}.wav" for number in range(6)]
    rows = [("track_id", "artist"), *zip(tracks, ["Ann", "Ben", "Cem", "Dee", "Eve", "Fay"], strict=True)]
    rows += [("m/pop/1.wav", "Ben"), ("m/pop/1.wav", "Cem"), ("pop/2.wav", "Unknown"), ("pop/2.wav", "ann")]
    rows += [("old/pop/5.wav", "Guy"), ("x", "Dee"), ("x", "Eve")]
    (tmp_path / "artists.csv").write_text(table(rows=rows))
    assert read_artists(tmp_path / "artists.csv", tracks) == ["Ben", "Ben", "Ben", "Dee", "Eve", "Fay"]


def test_who_is_unknown_is_no_artist(tmp_path: Path) -> None:
    names = ["Unknown", "Various  Artists", "[unknown]", "Unbekannter Interpret", "Artistes varie\u0301s"]
    names += ["Artista desconocido", "Vários intérpretes", "群星", "[unknown artist]", "[no artist]", "<Unbekannt>"]
    names += ["Unknown Artists", "unknown_artist", "Various Artist", "V/A", "v. a.", "(Artista sconosciuto)", "?", "-"]
    names += ["Неизвестный исполнитель", "【群星】", "Ann\n", "!!!", "The Unknown", "Various Cruelties"]
    tracks = [f"pop/{number}.wav" for number, _ in enumerate(names)]
    (tmp_path / "artists.csv").write_text(table(rows=[ROWS[0], *zip(tracks, names, strict=True)]), encoding="utf-8")
    assert read_artists(tmp_path / "artists.csv", tracks, ["few-artists"]) == [
        *[None] * (len(names) - 4),
        *("Ann", "!!!", "The Unknown", "Various Cruelties"),
    ]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *(("cp1251", "песня"), ("cp1250", "píseň"), ("gb18030", "歌曲"), ("cp932", "うた"), ("big5", "蘇打綠")),
        *(("cp949", "노래"), ("cp1252", "chanson d'été"), ("utf-32", "歌曲")),
    ],
)
def test_tables_in_other_code_pages_are_read(encoding: str, name: str, tmp_path: Path) -> None:
    tracks = [f"rock/{name} {number}.wav" for number in range(3)]
    rows = [ROWS[0], *((track.replace("/", "\\"), f"{name} & Co") for track in tracks)]
    (tmp_path / "artists.csv").write_bytes(table(rows=rows).encode(encoding))
    assert read_artists(tmp_path / "artists.csv", tracks) == [f"{name} & Co"] * 3


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["песня", "歌曲", "노래", "أغنية", "song"])
def test_utf_16_without_a_mark_is_read_in_any_script(encoding: str, name: str, tmp_path: Path) -> None:
    tracks = [f"{name}/{name} {name} {number}.wav" for number in range(30)]
    (tmp_path / "artists.csv").write_bytes(
        table("\t", "\r\n", [ROWS[0], *((track, name) for track in tracks)]).encode(encoding)
    )
    assert read_artists(tmp_path / "artists.csv", tracks) == [name] * 30


def test_an_encoding_that_cannot_be_told_is(tmp_path: Path) -> None:
    (tmp_path / "artists.csv").write_bytes(table(rows=[ROWS[0], ("rock/ш.wav", "Ann")]).encode("cp866"))
    with pytest.raises(DatasetError, match=r"in it .*: save it as CSV UTF-8, which it is not, or mend its column"):
        read_artists(tmp_path / "artists.csv", ["rock/ш.wav"])


def test_ways_to_write_a_name_are_one_artist(tmp_path: Path) -> None:
    names = ["Beyoncé", "The Beatles", "Beyonce\u0301", "the  beatles ", "Beyonce"]
    tracks = [f"pop/{number}.wav" for number in range(5)]
    rows = [("track_id", "artist"), *zip(tracks, names, strict=True)]
    (tmp_path / "artists.csv").write_text(table(rows=rows), encoding="utf-8")
    assert read_artists(tmp_path / "artists.csv", tracks) == [*names[:2], *names[:2], "Beyonce"]


def test_few_artists_can_be_accepted_but_not_none(tmp_path: Path) -> None:
    (tmp_path / "artists.csv").write_text("track_id,artist\njazz/a.wav,Cem\nrock/x.wav,\n")
    assert read_artists(tmp_path / "artists.csv", TRACKS, ["few-artists"]) == [None, None, "Cem"]
    with pytest.raises(DatasetError, match="0 of 1"):
        read_artists(tmp_path / "artists.csv", TRACKS[:1], ["few-artists"])
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        read_artists(tmp_path / "none.csv", TRACKS)
