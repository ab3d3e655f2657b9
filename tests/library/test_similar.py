"""Songs that sound alike: found in tables of every kind, put on a playlist, laid out on a map."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from crnn.__main__ import main
from crnn.bundle import MODEL_VARIABLE
from crnn.checkpoint import save
from crnn.inference import GenreClassifier
from crnn.library.likeness import lay_out, nearest, unit
from crnn.library.similar import Library, find, write_playlist
from crnn.network.model import CRNN
from crnn.terminal import valid

Table = Callable[..., Path]
SUFFIXES = [".csv", ".jsonl", ".parquet"]


@pytest.fixture
def vectors() -> np.ndarray:
    """Forty embeddings in four groups, float32 (40, 12)."""
    generator = np.random.default_rng(0)
    return (np.repeat(generator.normal(size=(4, 12)), 10, axis=0) + 0.3 * generator.normal(size=(40, 12))).astype("f4")


@pytest.fixture
def write_table(tmp_path: Path) -> Table:
    """`write_table(suffix, rows)`: a table as genre-crnn writes it, and what else is in a row."""

    def write(suffix: str, rows: list[dict]) -> Path:
        path = tmp_path / f"genres{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, rows[0].keys())
                table.writeheader()
                for row in rows:
                    cells = {name: "" if cell is None else cell for name, cell in row.items()}
                    table.writerow(cells | {"embedding": json.dumps(row["embedding"]) if row["embedding"] else ""})
        else:
            pa = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet")
            schema = pa.schema([(name, pa.string()) for name in rows[0]])
            schema = schema.set(schema.get_field_index("embedding"), pa.field("embedding", pa.list_(pa.float32())))
            seconds = schema.get_field_index("duration_seconds")
            schema = schema.set(seconds, pa.field("duration_seconds", pa.float64()))
            for count in {"size_bytes", "modified_ns"} & {*rows[0]}:
                schema = schema.set(schema.get_field_index(count), pa.field(count, pa.int64()))
            pa.parquet.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=7)
        return path

    return write


@pytest.fixture
def songs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The songs of `rows_of`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    songs = [Path(f"song {number}.mp3") for number in range(40)]
    for song in songs:
        song.write_bytes(b"sound")
    return songs


def rows_of(vectors: np.ndarray, model: str = "a") -> list[dict]:
    """Rows of songs with these embeddings, and of one without music and one with a fault."""
    rows = [
        {"path": f"song {n}.mp3", "model": model, "genre": "jazz", "duration_seconds": 100.0 + n, "embedding": row}
        for n, row in enumerate(vectors.tolist())
    ]
    silent = {"path": "silent.mp3", "model": model, "genre": "no music", "duration_seconds": 5.0, "embedding": None}
    broken = {"path": "broken.mp3", "model": model, "genre": None, "duration_seconds": None, "embedding": None}
    return [*rows, silent, broken]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_most_alike_songs_of_a_table_are_found(
    vectors: np.ndarray, write_table: Table, songs: list[Path], suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_table(suffix, [*rows_of(vectors[::-1])[:1], *rows_of(vectors)])  # a later row counts
    assert main(["similar", "song 13.mp3", "--in", str(table), "--top", "9", "--json"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    cosine = unit(vectors) @ unit(vectors)[13]
    expected = [n for n in np.argsort(-cosine) if n != 13][:9]
    assert [song["path"] for song in found] == [f"song {n}.mp3" for n in expected]
    assert {n // 10 for n in expected} == {1}
    np.testing.assert_allclose([song["likeness"] for song in found], cosine[expected], atol=1e-4)
    assert found[0]["genre"] == "jazz"
    for name in ("./song 13.mp3", songs[13].resolve().as_uri()):
        assert main(["similar", name, "--in", str(table), "--top", "1"]) == 0
        assert capfd.readouterr().out == f"{cosine[expected[0]]:.2f}  song {expected[0]}.mp3  (jazz)\n"


def test_songs_that_are_gone_take_no_place(
    vectors: np.ndarray, write_table: Table, songs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(vectors)
    rows[3]["path"] = "s3://bucket/song 3.mp3"  # of which only the store knows
    table = write_table(".jsonl", rows)
    for song in (songs[number] for number in range(1, 10) if number not in (3, 7)):
        song.unlink()
    command = ["similar", "song 0.mp3", "--in", str(table), "--json"]
    assert main([*command, "--top", "3", "--m3u", "like.m3u8"]) == 0
    out, err = capfd.readouterr()
    found = [json.loads(line)["path"] for line in out.splitlines()]
    assert set(found[:2]) == {"s3://bucket/song 3.mp3", "song 7.mp3"}
    assert len(found) == 3
    assert "7 are no longer there, and left out" in err
    listed = [line for line in Path("like.m3u8").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert listed == ["song 0.mp3", *found]
    rows[3]["path"] = "song 3.mp3"
    write_table(".jsonl", rows)
    for song in songs[1:]:
        song.unlink(missing_ok=True)
    assert main([*command, "--top", "3"]) == 0
    out, err = capfd.readouterr()
    assert "None of the other songs of" in err  # as of a cluster whose workers alone see them
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "content", "is_taken"),
    [
        ("song 1.mp3", None, False),
        ("genres.jsonl", None, False),
        ("link.m3u8", "song 1.mp3", False),
        ("pattern.m3u8", "song 0.mp3", False),
        ("new", None, True),
        ("old.m3u", b"a.mp3", True),
        ("old.txt", b"a.mp3", False),
        ("old", b"#EXTM3U\na.mp3", True),
        ("empty.txt", b"", True),
    ],
)
def test_a_playlist_is_written_over_playlists_alone(
    name: str,
    content: bytes | str | None,
    is_taken: bool,
    vectors: np.ndarray,
    write_table: Table,
    songs: list[Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    table = write_table(".jsonl", rows_of(vectors))
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif content:
        Path(name).symlink_to(content)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert main(["similar", "song 0.mp3", "--in", str(table), "--m3u", name]) == (0 if is_taken else 2)
    out, err = capfd.readouterr()
    assert bool(out) == is_taken
    assert is_taken or f"{name} is there and is no playlist" in err
    changed = [path for path in Path().iterdir() if path.read_bytes() != before.get(path)]
    assert changed == [Path(name)] * is_taken


def test_a_playlist_that_cannot_be_written_is_told_before_anything_is_found(
    vectors: np.ndarray, write_table: Table, songs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_table(".jsonl", rows_of(vectors))
    Path("folder").mkdir()
    for name in ("folder", "song 1.mp3/like.m3u8"):
        assert main(["similar", "song 0.mp3", "--in", str(table), "--m3u", name]) == 2
        out, err = capfd.readouterr()
        assert not out
        assert f"{name} cannot be written (" in err


def test_several_songs_are_one_pattern(vectors: np.ndarray, write_table: Table) -> None:
    library = Library.read(write_table(".jsonl", rows_of(vectors)))
    found = [number for number, _ in islice(find(library, vectors[[3, 33]], {3, 33}), 18)]
    assert {number // 10 for number in found} == {0, 3}
    assert not {3, 33} & set(found)


def out_of_memory(*_: object) -> None:
    raise RuntimeError("could not create a primitive")


@pytest.fixture
def classifier(tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GenreClassifier:
    """The one that the command takes."""
    save(tiny_model, tmp_path / "model", card="")
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "model"))
    return GenreClassifier.from_pretrained()


def test_a_song_that_the_table_lacks_is_heard_first(
    vectors: np.ndarray,
    write_table: Table,
    songs: list[Path],
    write_wav: Callable[[Path, np.ndarray], Path],
    tone: Callable[..., np.ndarray],
    classifier: GenreClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    song, silence = write_wav(tmp_path / "new.wav", tone(3)), write_wav(tmp_path / "silence.wav", 0 * tone(3))
    heard = classifier.predict(song).embedding
    rows = rows_of(np.stack([heard, heard + np.float32(1), -heard]), classifier.name)
    table = write_table(".jsonl", rows)
    assert main(["similar", str(song), "--in", str(table), "--json"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [song["path"] for song in found] == ["song 0.mp3", "song 1.mp3", "song 2.mp3"]
    assert (found[0]["likeness"], found[2]["likeness"]) == (pytest.approx(1), pytest.approx(-1))
    assert main(["similar", str(silence), "--in", str(table)]) == 2
    assert "no music in" in capfd.readouterr().err
    assert main(["similar", str(tmp_path / "missing.mp3"), "--in", str(table)]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(GenreClassifier, "predict", out_of_memory)
        assert main(["similar", str(song), "--in", str(table)]) == 1
    assert "new.wav cannot be heard just now (there is not enough memory)" in capfd.readouterr().err
    table = write_table(".jsonl", rows_of(vectors, "another model"))
    assert main(["similar", str(song), "--in", str(table)]) == 2
    assert "is by another model" in capfd.readouterr().err


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_song_that_has_changed_since_is_heard_first(
    write_table: Table,
    songs: list[Path],
    suffix: str,
    write_wav: Callable[[Path, np.ndarray], Path],
    tone: Callable[..., np.ndarray],
    classifier: GenreClassifier,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of others that have, which may be no more than their tags, the number is told.

    So may be its own change, and by another model's table it is taken as it was; one that this lacks is refused.
    """
    heard = classifier.predict(write_wav(songs[0], tone(3))).embedding

    def write(model: str, size: int, modified_ns: int) -> Path:
        facts = [(size, modified_ns), (songs[1].stat().st_size, 0), (songs[2].stat().st_size, 0), *2 * [(None, None)]]
        rows = zip(rows_of(np.stack([-heard, heard, -heard]), model), facts, strict=True)
        return write_table(suffix, [row | {"size_bytes": size, "modified_ns": ns} for row, (size, ns) in rows])

    for song in songs[2:]:
        os.utime(song, ns=(0, 0))
    status = songs[0].stat()
    command = ["similar", str(songs[0]), "--json", "--in"]
    for size, modified_ns, first in (
        (status.st_size, status.st_mtime_ns, "song 2.mp3"),
        (status.st_size, 0, "song 1.mp3"),
        (9, status.st_mtime_ns, "song 1.mp3"),
    ):
        table = write(classifier.name, size, modified_ns)
        assert main([*command, str(table)]) == 0
        out, err = capfd.readouterr()
        assert json.loads(out.splitlines()[0])["path"] == first
        assert "Of these songs, 1 changed after" in err
    table = str(write("another model", 9, 0))
    for more in ([], ["song 1.mp3"]):
        assert main([*command, table, *more]) == 0
        out, err = capfd.readouterr()
        assert json.loads(out.splitlines()[0])["path"] == "song 2.mp3"
        assert err.count(f"changed after {table} was made, and is taken as it was then") == 1 + len(more)
    assert main([*command, table, "song 30.mp3"]) == 2
    assert "song 30.mp3 is not in it" in capfd.readouterr().err


def test_a_song_is_known_by_what_its_name_leads_to(
    vectors: np.ndarray, write_table: Table, songs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither it nor a neighbour is found or listed twice, whichever of them is a link."""
    Path("link.mp3").symlink_to("song 13.mp3")
    songs[11].unlink()
    songs[11].symlink_to("song 12.mp3")
    table = write_table(".jsonl", rows_of(vectors))
    command = ["similar", "--in", str(table), "--top", "12", "--json", "--m3u", "like.m3u8"]
    answers = []
    for named in (["song 13.mp3"], ["link.mp3"], ["song 13.mp3", "link.mp3", "./song 13.mp3"]):
        assert main([*command, *named]) == 0
        out, _ = capfd.readouterr()
        answers.append([json.loads(line) for line in out.splitlines()])
        listed = [line for line in Path("like.m3u8").read_text("utf-8").splitlines() if not line.startswith("#")]
        assert len({os.path.realpath(song) for song in listed}) == len(listed) == 13
    assert answers[0] == answers[1] == answers[2]


def test_of_the_rows_of_a_song_the_last_counts_however_its_path_was_typed(
    vectors: np.ndarray, write_table: Table, songs: list[Path]
) -> None:
    rows = rows_of(vectors)
    rows[1]["path"] = str(songs[0].absolute())
    library = Library.read(write_table(".jsonl", rows))
    assert [library.index(song) for song in (songs[0], songs[0].absolute(), songs[1], songs[2])] == [1, 1, None, 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_songs_that_another_model_heard_are_left_out(
    vectors: np.ndarray, write_table: Table, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(vectors)
    for row in rows[:3]:  # gone before the others were heard anew
        row["model"] = "earlier"
    rows[3]["embedding"] = rows[3]["embedding"][:5]
    library = Library.read(write_table(suffix, rows))
    assert library.paths == [row["path"] for row in rows[4:40]]
    assert (library.model, library.embeddings.shape) == ("a", (36, 12))
    assert "4 of the 40 songs of" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.csv", None, "cannot be read"),
        ("table.txt", "", r"must end with \.csv, \.jsonl, \.parquet"),
        ("empty.jsonl", "", "no song with an embedding"),
        ("without.csv", "path,model,genre\na.mp3,m,jazz\n", "has no 'embedding'"),
        ("without.jsonl", '{"path": "a.mp3", "model": "m", "error": null}\n', "has no 'embedding'"),
        ("missing.parquet", None, r"cannot be read \(No such file"),
        ("genres", None, "or be that of a folder"),
        ("torn.jsonl", '{"path": "a.mp3"', "is damaged"),
        ("text.parquet", "no table", "is damaged"),
    ],
)
def test_tables_that_cannot_be_used_are_one_sentence(
    tmp_path: Path, name: str, text: str | None, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["similar", "song.mp3", "--in", str(tmp_path / name)]) == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)


def test_a_folder_without_parts_is_no_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    assert main(["similar", "song.mp3", "--in", str(tmp_path)]) == 2
    assert "is a folder without parquet files" in capfd.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_last_line_that_a_kill_has_cut_is_left_out(
    vectors: np.ndarray, write_table: Table, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    table = write_table(suffix, rows_of(vectors)[:40])
    table.write_bytes(table.read_bytes()[:-20])
    assert len(Library.read(table).paths) == 39
    assert "is cut, and left out" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_a_name_that_is_no_text_comes_from_a_table_onto_the_playlist(tmp_path: Path) -> None:
    song = tmp_path / os.fsdecode(b"caf\xe9.mp3")
    song.touch()
    (tmp_path / r"\udce9.mp3").touch()  # is text as it is
    write_playlist(tmp_path / "like.m3u8", [(valid(str(song)), None), (str(tmp_path / r"\udce9.mp3"), None)])
    lines = (tmp_path / "like.m3u8").read_bytes().splitlines()
    assert [line for line in lines if not line.startswith(b"#")] == [b"caf\xe9.mp3", rb"\udce9.mp3"]


def test_a_playlist_is_read_from_its_own_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    music, lists = tmp_path / "music", tmp_path / "lists"
    (music / "Ärzte").mkdir(parents=True)
    names = ["Ärzte/Männer sind.mp3", "#1.mp3", "two\nlines.mp3", " before.mp3"]
    for name in names:
        (music / name).touch()
    songs = [(str(music / name), seconds) for name, seconds in zip(names, [61.6, None, 3.0, None], strict=True)]
    write_playlist(lists / "like.m3u8", [*songs, (str(music / "gone.mp3"), 1.0), ("x" * 5_000, 1.0)])
    text = (lists / "like.m3u8").read_bytes().decode("utf-8")
    assert text == (
        "#EXTM3U\n#EXTINF:62,Männer sind\n../music/Ärzte/Männer sind.mp3\n#EXTINF:-1,#1\n../music/#1.mp3\n"
        "#EXTINF:-1, before\n../music/ before.mp3\n"
    )
    assert all((lists / line).is_file() for line in text.splitlines() if not line.startswith("#"))
    err = capfd.readouterr().err
    assert "gone.mp3 is not there" in err
    assert "line break" in err
    (tmp_path / "far" / "away").mkdir(parents=True)
    (music / "linked").symlink_to(tmp_path / "far" / "away")
    write_playlist(music / "linked" / "like.m3u8", songs[:1])  # where ".." is another folder than it looks like
    assert (music / "linked" / "like.m3u8").read_text("utf-8").splitlines()[-1] == songs[0][0]
    write_playlist(music / "here.m3u8", songs[1:2])
    assert (music / "here.m3u8").read_text("utf-8").splitlines()[-1] == "./#1.mp3"
    write_playlist(music / "here.m3u8", songs[3:])
    assert (music / "here.m3u8").read_text("utf-8").splitlines()[-1] == "./ before.mp3"


def test_neighbours_on_the_map_are_alike(vectors: np.ndarray) -> None:
    near = nearest(vectors, 3)
    assert near.shape == (40, 3)
    assert not (near == np.arange(40)[:, None]).any()
    assert (near // 10 == np.arange(40)[:, None] // 10).all()
    assert nearest(vectors[:2], 3).tolist() == [[1], [0]]
    names = [str(n) for n in range(40)]
    places = lay_out(names, vectors, {})
    assert places == lay_out(names, vectors, {})
    at = np.array([places[name] for name in names])
    group = at.reshape(4, 10, 2)
    within = np.linalg.norm(group - group.mean(axis=1, keepdims=True), axis=-1).mean()
    assert within < 0.4 * np.linalg.norm(group.mean(axis=1) - at.mean(axis=0), axis=-1).mean()


def test_songs_stay_where_they_are_on_the_map_when_one_is_added(vectors: np.ndarray) -> None:
    """Though components change their signs and their order."""
    shuffled = np.random.default_rng(1).permutation(40)
    names = [str(n) for n in shuffled]
    places = {}
    for n in range(3, 41):
        before, places = places, lay_out(names[:n], vectors[shuffled[:n]], places)
        if n > 10:
            moved = np.mean([np.hypot(*np.subtract(places[name], before[name])) for name in before])
            assert moved < 0.15
    assert len(places) == 40


def test_a_map_of_songs_that_are_all_alike_has_them_in_one_place() -> None:
    places = lay_out(["a", "b", "c"], np.ones((3, 5), np.float32), {})
    assert np.allclose(list(places.values()), 0, atol=1e-6)
    assert all(np.isfinite(place).all() for place in lay_out(["a"], np.zeros((1, 5), np.float32), {}).values())
