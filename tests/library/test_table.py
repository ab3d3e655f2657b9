"""The table of a library: what is in it is found again, whatever ended the run before."""

import csv
import errno
import json
import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from crnn.library.classify import Tabled
from crnn.library.rows import LibraryError, read_rows
from crnn.library.table import Columns, Table, TableError, open_table

GENRES = ("rock", "jazz", "disco")
COLUMNS = Columns(GENRES, None, timeline=True, embeddings=True)
PLAIN = Columns(GENRES, None, timeline=False, embeddings=False)
KINDS = pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])


def row(path: str, error: str | None = None, size: int = 10, jazz: float = 0.75, **more: object) -> dict:
    """As `Hearing.row` gives it."""
    answer = {
        "genre": "jazz",
        "is_strange": False,
        "sounds_like": "",
        "probabilities": {"jazz": jazz, "rock": 0.125, "disco": 0.125},
        "duration_seconds": 4.5,
        "timeline": [{"start_seconds": 0.0, "end_seconds": 4.5, "probabilities": {"rock": 0.25}}],
        "embedding": [0.5, -1.0],
    }
    none = {"genre": None, "is_strange": None, "sounds_like": None, "probabilities": {}, "duration_seconds": None}
    given = {"path": path, "size_bytes": size, "modified_ns": 1_700_000_000_000_000_001, "model": "m", "heard": "all"}
    return given | {"notices": [], "error": error} | (none if error else answer) | more


def read(path: Path) -> list[dict]:
    """The rows of a table, as other programs read it."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    pq = pytest.importorskip("pyarrow.parquet")
    return pq.read_table(path).to_pylist()


def write(path: Path, *rows: dict) -> Table:
    """A table that is left as a kill leaves it."""
    table = open_table(path, COLUMNS)
    for each in rows:
        table.write(each)
    os.close(table._lock if path.suffix == ".parquet" else table._file)
    return table


@KINDS
def test_what_is_written_is_there(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3", notices=["Cut.", "Loud."]))
    table.write(row('b, "c"\nd.mp3', error="is none."))
    table.close()
    first, second = read(path)
    assert [first["path"], second["path"]] == ["a.mp3", 'b, "c"\nd.mp3']
    assert (first["genre"], float(first["duration_seconds"]), second["error"]) == ("jazz", 4.5, "is none.")
    assert int(first["modified_ns"]) == 1_700_000_000_000_000_001
    if kind == "jsonl":
        assert first == row("a.mp3", notices=["Cut.", "Loud."])
    else:
        assert list(first) == COLUMNS.names
        assert [float(first[f"probability_of_{genre}"]) for genre in GENRES] == [0.125, 0.75, 0.125]
        assert (float(first["probability"]), first["notices"]) == (0.75, "Cut. Loud.")
        assert json.loads(first["timeline"]) == row("a.mp3")["timeline"]
        embedding = first["embedding"]
        assert (json.loads(embedding) if kind == "csv" else embedding) == [0.5, -1.0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@KINDS
def test_it_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    rows = [row("a.mp3"), row("b.mp3"), row("bad.mp3", error="bad"), row("grows.mp3", size=10)]
    table = open_table(path, COLUMNS)
    for each in rows:
        table.write(each)
    table.close()
    table = open_table(path, COLUMNS)
    assert table.has(row("a.mp3", error=""))
    assert table.has(row("b.mp3"))
    assert table.has(row(str(Path.cwd() / "b.mp3")))  # the same song, typed otherwise
    assert not table.has(rows[2])  # what failed is tried again
    assert not table.has(row("grows.mp3", size=20))
    assert not table.has(row("a.mp3", heard="3 passages of 5 s"))
    assert not table.has(row("a.mp3", model="another"))
    table.write(row("grows.mp3", size=20))
    table.write(row("bad.mp3", error="still bad"))
    table.write(row("new.mp3"))
    table.write(row(f"../{Path.cwd().name}/new.mp3"))
    table.close()
    found = {each["path"]: each for each in read(path)}
    assert list(found) == ["a.mp3", "b.mp3", "grows.mp3", "bad.mp3", f"../{Path.cwd().name}/new.mp3"]
    assert (int(found["grows.mp3"]["size_bytes"]), found["bad.mp3"]["error"]) == (20, "still bad")
    assert len(read(path)) == 5


@KINDS
def test_a_killed_run_leaves_a_readable_table(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.library.table.PART_ROWS", 2)
    path = tmp_path / f"genres.{kind}"
    write(path, row("a.mp3"), row("b.mp3"))
    left = path if kind != "parquet" else path.with_name("genres.parquet.parts") / "000001.parquet"
    assert [each["path"] for each in read(left)] == ["a.mp3", "b.mp3"]
    table = open_table(path, COLUMNS)
    assert table.has(row("a.mp3"))
    table.write(row("c.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3", "b.mp3", "c.mp3"]


def test_what_a_kill_has_left_of_a_parquet_table_is_read_and_joined_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crnn.library.table.PART_ROWS", 1)
    path = tmp_path / "genres.parquet"
    write(path, row("a.mp3"), row("b.mp3"))
    assert [each["path"] for each in read_rows(path, ("path",), ("path",))] == ["a.mp3", "b.mp3"]
    open_table(path, COLUMNS).close()
    write(path, row("b.mp3", size=11))
    expected = [("a.mp3", 10), ("b.mp3", 10), ("b.mp3", 11)]
    columns = ("path", "size_bytes")
    assert [tuple(each.values()) for each in read_rows(path, columns, columns)] == expected
    left = write(path, row("c.mp3"))  # which joins what there was when it began
    assert [(each["path"], each["size_bytes"]) for each in read(path)] == [expected[0], expected[2]]
    assert len(list(left._parts.iterdir())) == 1


def test_a_refused_parquet_table_leaves_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "genres.parquet"
    open_table(path, COLUMNS).close()
    with pytest.raises(TableError):
        open_table(path, Columns(("jazz",), None, False, False))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_line_that_was_cut_is_taken_away(kind: str, cut: int, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    write(path, row("a.mp3"), row("b.mp3"), row("c\nd.mp3"))
    path.write_bytes(path.read_bytes()[:-cut])
    table = open_table(path, COLUMNS)
    assert (table.has(row("b.mp3")), table.has(row("c\nd.mp3"))) == (True, False)
    table.write(row("e.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3", "b.mp3", "e.mp3"]


@pytest.mark.parametrize("columns", [COLUMNS, PLAIN])
def test_a_row_that_was_cut_in_a_cell_with_line_breaks_swallows_no_other(
    columns: Columns, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, columns)
    for each in (row("a.mp3"), row("b\nc.mp3", error="b\nc.mp3 is damaged.")):
        table.write(each)
    os.close(table._file)
    path.write_bytes(path.read_bytes().rpartition(b"\nc.mp3")[0] + b"\nc.mp")
    table = open_table(path, columns)
    table.write(row("d.mp3", notices=["It is cut, and short."]))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3", "d.mp3"]
    assert capfd.readouterr().err.count("The last row of") == 1


@pytest.mark.parametrize("columns", [COLUMNS, PLAIN])
@pytest.mark.parametrize(("given", "changed"), [(b"0.mp3", b'"0.mp3'), (b"\n999.mp3", b'\n"999.mp3" x')])
def test_a_quote_that_somebody_has_opened_is_told(
    given: bytes, changed: bytes, columns: Columns, tmp_path: Path
) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, columns)
    for number in range(1_000):
        table.write(row(f"{number}.mp3"))
    table.close()
    path.write_bytes(path.read_bytes().replace(given, changed, 1))
    before = path.read_bytes()
    with pytest.raises(TableError, match=r"Line ([23]|1001) of .*genres\.csv is not one of this program"):
        open_table(path, columns)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_lines_that_end_with_carriage_returns_alone_are_told(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    write(path, row("a.mp3"), row("b.mp3"))
    path.write_bytes(before := path.read_bytes().replace(b"\r", b"").replace(b"\n", b"\r"))
    with pytest.raises(TableError, match=r"genres\..* end with carriage returns alone: save it with line feeds"):
        open_table(path, COLUMNS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("columns", [COLUMNS, PLAIN])
def test_rows_without_their_last_empty_cells_are_gone_on_with(columns: Columns, tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, columns)
    rows = [row("a.mp3", embedding=None), row("bad.mp3", error="bad"), row("b.mp3", embedding=None)]
    for each in rows:
        table.write(each)
    table.close()
    whole = read(path)
    lines = path.read_text("utf-8").splitlines()
    path.write_text("".join(line.rstrip(",") + "\n" for line in lines), "utf-8")
    assert path.read_text("utf-8").splitlines() != lines
    found = [*read_rows(path, ("path", "genre"), needed=("path",))]
    assert [(each["path"], each["genre"]) for each in found] == [
        ("a.mp3", "jazz"),
        ("bad.mp3", None),
        ("b.mp3", "jazz"),
    ]
    table = open_table(path, columns)
    assert [table.has(each) for each in rows] == [True, False, True]
    table.write(row("b.mp3", size=20, embedding=None))
    table.close()
    assert read(path) == [*whole[:2], whole[2] | {"size_bytes": "20"}]


@pytest.mark.parametrize("change", [lambda line: line.rpartition(",0.")[0], lambda line: line + ",a note"])
def test_a_row_with_other_cells_is_told_and_stays(change: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, PLAIN)
    for name in ("a.mp3", "b.mp3", "c.mp3"):
        table.write(row(name))
    table.close()
    lines = path.read_text("utf-8").splitlines()
    lines[2] = change(lines[2])
    path.write_text(text := "\n".join([*lines, ""]), "utf-8")
    with pytest.raises(TableError, match=r"Line 3 of .*genres\.csv is not one of this program"):
        open_table(path, PLAIN)
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("save", "how"),
    [
        (lambda text: text.encode("utf-16"), "in UTF-16"),
        (lambda text: text.replace(",", ";").encode("utf-8-sig"), "with semicolons"),
        (lambda text: text.replace(",", "\t").encode(), "with tabs"),
    ],
)
def test_a_csv_that_was_saved_otherwise_is_called_by_its_name(
    save: Callable[[str], bytes], how: str, tmp_path: Path
) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, PLAIN)
    table.write(row("a.mp3"))
    table.close()
    path.write_bytes(saved := save(path.read_text("utf-8")))
    with pytest.raises(TableError, match=f"genres.csv was saved {how}: save it as CSV UTF-8 with commas"):
        open_table(path, PLAIN)
    with pytest.raises(LibraryError, match=f"genres.csv was saved {how}: save it as CSV UTF-8 with commas"):
        list(read_rows(path, ("path",), needed=("path",)))
    assert path.read_bytes() == saved


def test_a_spreadsheet_computes_nothing_of_a_csv(tmp_path: Path) -> None:
    path, name = tmp_path / "genres.csv", "/music/a;=1+1.mp3"
    error = "=cmd|'x'!A0.mp3 is no sound;+1"
    table = open_table(path, PLAIN)
    table.write(row(name, error=error, notices=["\t@it is cut."]))
    table.close()
    assert read(path)[0]["path"] == name
    assert read(path)[0]["error"] == "'=cmd|'x'!A0.mp3 is no sound;'+1"
    assert read(path)[0]["notices"] == "'\t@it is cut."
    assert f'"{name}",' in path.read_text("utf-8")
    open_table(path, PLAIN).close()
    assert read(path)[0]["error"].startswith("'=")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_head_that_was_cut_is_written_as_it_was(mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    path.write_bytes(mark + ",".join(PLAIN.names)[:-10].encode())
    table = open_table(path, PLAIN)
    table.write(row("a.mp3"))
    table.close()
    assert [[*found] for found in read(path)] == [PLAIN.names]


@pytest.mark.parametrize(("kind", "size"), [("csv", 4), ("csv", 60), ("csv", 100_000), ("jsonl", 3), ("jsonl", 30)])
def test_a_first_line_that_was_cut_is_written_anew(kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    write(path, *[row("a.mp3")] * (kind == "jsonl"))
    path.write_bytes(path.read_bytes()[:size].rstrip())
    table = open_table(path, COLUMNS)
    table.write(row("b.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["b.mp3"]


@KINDS
def test_what_is_no_file_is_no_table_and_stays_alone(kind: str, tmp_path: Path) -> None:
    folder, pipe, link = (tmp_path / f"{name}.{kind}" for name in ("folder", "pipe", "link"))
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(folder)
    for path in (folder, pipe, link):
        with pytest.raises(TableError, match="is a folder or a device, and a table is a file"):
            open_table(path, COLUMNS)
    assert sorted(tmp_path.iterdir()) == [folder, link, pipe]
    assert not any(folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="there are no such rights")
@KINDS
def test_a_table_that_may_not_be_written_is_told_at_once(kind: str, as_somebody: Callable, tmp_path: Path) -> None:
    path = Path(f"genres.{kind}")
    open_table(path, COLUMNS).close()
    path.chmod(0o444)
    with as_somebody(), pytest.raises(TableError, match="Permission denied"):
        open_table(path, COLUMNS)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_parts_with_names_of_others_are_gone_on_with(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "genres.parquet"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    table.flush()
    part = table._parts / "000001.parquet"
    (table._parts / "000001 (copy).parquet").write_bytes(part.read_bytes())
    table.write(row("b.mp3"))
    table.close()
    assert {each["path"] for each in read(path)} == {"a.mp3", "b.mp3"}


def test_what_others_put_among_the_parts_stays_and_stops_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "genres.parquet"
    parts = write(path, row("a.mp3"))._parts
    (parts / "@eaDir").mkdir()
    (parts / "folder.parquet").mkdir()
    others = [parts / "._000001.parquet", parts / "notes.txt"]
    for other in others:
        other.write_bytes(b"of others")
    (parts / "000002.parquet.77.partial").write_bytes(b"of a run that was killed")
    for name in ("b.mp3", "c.mp3"):
        table = open_table(path, COLUMNS)
        table.write(row(name))
        table.flush()
        assert {each["path"] for each in read_rows(path, ("path",), ("path",))} >= {name}
        table.close()
    assert [each["path"] for each in read(path)] == ["b.mp3", "c.mp3"]
    assert sorted(parts.iterdir()) == sorted([*others, parts / "@eaDir", parts / "folder.parquet"])


@KINDS
def test_a_name_that_is_no_text(kind: str, tmp_path: Path) -> None:
    path, name = tmp_path / f"genres.{kind}", os.fsdecode(b"caf\xe9.mp3")
    table = open_table(path, COLUMNS)
    table.write(row(name))
    table.close()
    assert read(path)[0]["path"] == (name if kind != "parquet" else r"caf\udce9.mp3")
    table = open_table(path, COLUMNS)
    assert table.has(row(name))
    table.close()


@KINDS
def test_what_waits_can_be_written_at_once(kind: str, tmp_path: Path) -> None:
    table = open_table(tmp_path / f"genres.{kind}", COLUMNS)
    table.write(row("a.mp3"))
    table.flush()
    assert any(path.stat().st_size for path in tmp_path.rglob(f"*.{kind}") if path.is_file())
    table.close()


@KINDS
def test_other_columns_are_refused_and_the_table_stays(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    table.close()
    before = path.read_bytes()
    with pytest.raises(TableError, match="other options: give another --out, or delete it"):
        open_table(path, PLAIN)
    assert path.read_bytes() == before
    open_table(path, COLUMNS).close()  # nor does it stay locked


@KINDS
@pytest.mark.parametrize("top", [None, 2])
def test_other_genres_are_refused_though_they_are_as_many(kind: str, top: int | None, tmp_path: Path) -> None:
    path, asked = tmp_path / f"genres.{kind}", {"timeline": False, "embeddings": False}
    table = open_table(path, Columns(GENRES, top, **asked))
    heard = row("b.mp3", probabilities=dict([*row("b.mp3")["probabilities"].items()][:top]))
    heard = {name: cell for name, cell in heard.items() if name not in ("timeline", "embedding")}
    for each in (row("a.mp3", error="is none."), heard):
        table.write(each)
    table.close()
    before = path.read_bytes()
    with pytest.raises(TableError, match="another program or model"):
        open_table(path, Columns(("rock", "pop", "disco"), top, **asked))
    assert path.read_bytes() == before
    table = open_table(path, Columns(GENRES, top, **asked))
    assert table.has(heard)
    table.close()


@KINDS
def test_a_name_is_the_same_in_whatever_encoding_the_locale_has(kind: str, tmp_path: Path) -> None:
    text, in_ascii = row("/music/Grüße.mp3"), row(os.fsencode("/music/Grüße.mp3").decode("ascii", "surrogateescape"))
    table = open_table(tmp_path / f"genres.{kind}", COLUMNS)
    table.write(in_ascii)
    table.close()
    table = open_table(tmp_path / f"genres.{kind}", COLUMNS)
    assert table.has(in_ascii)
    assert table.has(text)
    table.write(text)
    table.close()
    assert len(read(tmp_path / f"genres.{kind}")) == 1


@KINDS
def test_a_strange_song_is_told_by_what_it_sounds_like(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3", genre="unsure", is_strange=True, sounds_like="techno"))
    table.close()
    (found,) = read(path)
    assert (found["genre"], found["is_strange"] in (True, "true"), found["sounds_like"]) == ("unsure", True, "techno")


def test_the_most_probable_genres_alone(tmp_path: Path) -> None:
    table = open_table(tmp_path / "genres.csv", Columns(GENRES, 2, timeline=False, embeddings=False))
    table.write(row("a.mp3", probabilities={"jazz": 0.75, "rock": 0.125}))
    table.close()
    (found,) = read(tmp_path / "genres.csv")
    assert [found[name] for name in ("genre_1", "probability_1", "genre_2", "probability_2")] == [
        "jazz",
        "0.75",
        "rock",
        "0.125",
    ]
    assert "probability_of_jazz" not in found


@pytest.mark.parametrize("name", ["genres.xlsx", "genres"])
def test_an_ending_that_is_no_kind_of_table(name: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="must end with"):
        open_table(tmp_path / name, COLUMNS)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_file_of_others_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    path.write_text("artist,album\nMiles,Blue")
    with pytest.raises(TableError):
        open_table(path, COLUMNS)
    assert path.read_text() == "artist,album\nMiles,Blue"


@pytest.mark.parametrize("start", ["", "\n \n"])
@pytest.mark.parametrize("end", ["", "\n", '\n{"path": "b.mp3", "bpm": 90}'])
def test_json_of_others_stays_to_its_last_sign(start: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    text = start + '{"path": "a.mp3", "bpm": 120}' + end
    path.write_text(text)
    with pytest.raises(TableError):
        open_table(path, COLUMNS)
    assert path.read_text() == text


def test_lines_of_white_space_alone_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "genres.jsonl"
    write(path, row("a.mp3"), row("b.mp3"))
    path.write_bytes(b"\r\n" + path.read_bytes().replace(b"\n", b"\n\n \t\n"))
    assert [each["path"] for each in read_rows(path, ("path",), needed=("path",))] == ["a.mp3", "b.mp3"]
    table = open_table(path, COLUMNS)
    assert table.has(row("a.mp3"))
    table.write(row("c.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3", "b.mp3", "c.mp3"]


@pytest.mark.parametrize(
    "line",
    [b'{"path": "\xe4"}', b"[" * 100_000, b"5", b'{"path": 5}', b'{"probabilities": 5}', b'{"size_bytes": 0}'],
)
def test_a_line_that_somebody_has_changed_is_told(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "genres.jsonl"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    table.close()
    good = path.read_bytes()
    changed = (
        json.dumps(json.loads(good) | json.loads(line)).encode() if line[-1:] == b"}" and b"\xe4" not in line else line
    )
    path.write_bytes(good + changed + b"\n")
    if line == b'{"size_bytes": 0}':  # is a row all the same
        open_table(path, COLUMNS).close()
    else:
        with pytest.raises(TableError):
            open_table(path, COLUMNS)
        assert path.read_bytes() == good + changed + b"\n"


def test_of_a_full_disk_the_disk_is_told_not_the_row_that_it_cut(tmp_path: Path) -> None:
    hearing = SimpleNamespace(top=None, timeline=True, embeddings=True)
    path, classifier = tmp_path / "genres.jsonl", SimpleNamespace(genres=GENRES)

    def run() -> None:
        with Tabled(hearing, classifier, path) as output:
            for _ in range(2):
                output.table.write(row("a.mp3"))
            output.table._put('{"path": "b.')
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        run()
    assert path.read_text().count("a.mp3") == 2


@KINDS
def test_a_place_that_cannot_be_written(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="cannot be read or written"):
        open_table(tmp_path / "file" / f"genres.{kind}", COLUMNS)


@pytest.mark.skipif(os.name != "posix", reason="there are no such locks")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_table_that_is_saved_meanwhile_is_gone_on_with(kind: str, is_there: bool, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    if is_there:
        (tmp_path / "saved").write_bytes(path.read_bytes())
        (tmp_path / "saved").replace(path)
    else:
        path.unlink()
    table.write(row("b.mp3"))
    table.write(row("b.mp3", size=20))
    assert table.has(row("a.mp3")) == is_there
    table.close()
    assert [each["path"] for each in read(path)] == [*["a.mp3"] * is_there, "b.mp3"]


@pytest.mark.parametrize("change", [lambda text: text.replace("\r\n", "\n"), lambda text: "\ufeff" + text])
def test_a_csv_that_other_programs_saved_is_gone_on_with(change: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    table.close()
    path.write_bytes(change(path.read_bytes().decode()).encode())
    table = open_table(path, COLUMNS)
    assert table.has(row("a.mp3"))
    table.write(row("b.mp3"))
    table.close()
    assert [each["path"] for each in read_rows(path, ("path",), needed=("path",))] == ["a.mp3", "b.mp3"]


@pytest.mark.parametrize("saved", ["1.7000000001234568e+18", "1.70000000012346E+18"])
def test_counts_that_became_floating_point_are_the_same(saved: str, tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3", modified_ns=1_700_000_000_123_456_789))
    table.close()
    text = path.read_text("utf-8").replace(",10,1700000000123456789,", f",10.0,{saved},")
    assert "10.0" in text
    path.write_text(text, "utf-8", newline="")
    table = open_table(path, COLUMNS)
    assert table.has(row("a.mp3", modified_ns=1_700_000_000_123_456_789))
    assert not table.has(row("a.mp3", modified_ns=1_700_000_000_123_476_789))
    table.close()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("is_written_on", [True, False])
def test_a_table_that_is_saved_in_place_is_gone_on_with(kind: str, is_written_on: bool, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    lines = path.read_bytes()
    path.write_bytes(lines + lines.splitlines(keepends=True)[-1])
    if is_written_on:
        table.write(row("b.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3", *["b.mp3"] * is_written_on]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_a_full_disk_has_left_of_a_row_is_taken_away(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(file: int, data: bytes) -> int:
        if path.read_bytes().endswith(b"\n"):
            return write(file, data[:30])
        raise OSError(errno.ENOSPC, "full")

    path, write = tmp_path / f"genres.{kind}", os.write
    table = open_table(path, COLUMNS)
    for size in (10, 20):
        table.write(row("a.mp3", size=size))
    with monkeypatch.context() as full:
        full.setattr(os, "write", write_half)
        with pytest.raises(OSError, match="full"):
            table.write(row("b.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3"]


def test_a_table_that_another_has_taken_meanwhile_is_left_to_him(tmp_path: Path) -> None:
    path = tmp_path / "genres.csv"
    first = open_table(path, COLUMNS)
    first.write(row("a.mp3"))
    first.write(row("a.mp3", size=20))
    path.rename(tmp_path / "old.csv")
    second = open_table(path, COLUMNS)
    with pytest.raises(TableError, match="Another process writes to"):
        first.write(row("b.mp3"))
    first.close()
    second.write(row("c.mp3"))
    second.close()
    assert [each["path"] for each in read(path)] == ["c.mp3"]


@pytest.mark.parametrize(("kind", "is_written_on"), [("csv", True), ("csv", False), ("parquet", True)])
def test_a_table_of_others_that_takes_its_place_meanwhile_stays(kind: str, is_written_on: bool, tmp_path: Path) -> None:
    path, others = tmp_path / f"genres.{kind}", tmp_path / f"others.{kind}"
    table = open_table(path, COLUMNS)
    for size in (10, 20):
        table.write(row("a.mp3", size=size))
    other = open_table(others, Columns(("rock", "jazz", "metal"), None, timeline=True, embeddings=True))
    other.write(row("b.mp3"))
    other.close()
    path.write_bytes(others.read_bytes())
    with pytest.raises(TableError, match="other options") if is_written_on else nullcontext(), closing(table):
        if is_written_on:
            table.write(row("c.mp3"))
    assert path.read_bytes() == others.read_bytes()


def test_a_model_is_the_same_however_its_folder_was_typed(tmp_path: Path) -> None:
    table = open_table(tmp_path / "genres.jsonl", COLUMNS)
    table.write(row("a.mp3", model="runs/a/model (folder) 0bf9b09"))
    assert table.has(row("a.mp3", model="./runs/a/model/ (folder) 0bf9b09"))
    assert not table.has(row("a.mp3", model="runs/a/model (folder) 0bf9b10"))
    table.close()


@KINDS
def test_two_cannot_write_to_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"genres.{kind}"
    table = open_table(path, COLUMNS)
    with pytest.raises(TableError, match="Another process"):
        open_table(path, COLUMNS)
    table.write(row("a.mp3"))
    table.close()
    assert [each["path"] for each in read(path)] == ["a.mp3"]
