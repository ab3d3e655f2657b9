"""Songs at addresses and what is written to one: as on a disk, whatever their names are; a cluster is not needed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from crnn.__main__ import main
from crnn.audio import SUFFIXES
from crnn.checkpoint import save
from crnn.library import cluster
from crnn.library.cluster import answered, found_at, make_folder, source_of, write_part
from crnn.library.job import Hearing
from crnn.library.table import Columns, TableError, key_of
from crnn.network.model import CRNN

fsspec = pytest.importorskip("fsspec", reason="object stores need pip install '.[ray]'")


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An object store with songs, in this process's memory."""
    store = fsspec.filesystem("memory")
    for name in ("a.mp3", "b::c.mp3", "deep/d.wav", ".trash/e.mp3", "@Recycle/g.mp3", "deep/.f.mp3", "notes.txt"):
        store.pipe_file(f"/music/{name}", name.encode())
    store.pipe_file("/music.mp3", b"beside the folder")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def names(*songs: str, recursive: bool = True) -> list[str]:
    found, problems = found_at(songs, SUFFIXES, recursive)
    assert not problems
    return [file.path.removeprefix("memory:///") for file in found]


def test_a_store_is_walked_as_a_disk(store: fsspec.AbstractFileSystem) -> None:
    assert names("memory://music") == ["music/a.mp3", "music/b::c.mp3", "music/deep/d.wav"]
    assert names("memory://music", recursive=False) == ["music/a.mp3", "music/b::c.mp3"]
    assert names("memory://music/.trash") == ["music/.trash/e.mp3"]


@pytest.mark.parametrize("recursive", [True, False])
def test_a_song_is_named_whatever_its_name_and_has_its_size(store: fsspec.AbstractFileSystem, recursive: bool) -> None:
    ((file,), problems) = found_at(["memory://music/notes.txt"], SUFFIXES, recursive)
    assert (file.path, file.size_bytes, problems) == ("memory:///music/notes.txt", 9, [])


def test_what_is_named_twice_is_found_once(store: fsspec.AbstractFileSystem) -> None:
    given = ["memory://music", "memory://music/deep/", "memory://music/a.mp3", "memory://music"]
    assert names(*given) == ["music/a.mp3", "music/b::c.mp3", "music/deep/d.wav"]
    assert names("memory://music.mp3", "memory://music.mp3") == ["music.mp3"]


def test_where_nothing_is_is_told(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    (tmp_path / "empty").mkdir()
    given = ["memory://musik", "memory://music/a.mp3", *(str(tmp_path / name) for name in ("a.mp3", "b.mp3", "empty"))]
    found, problems = found_at(given, SUFFIXES)
    assert [file.path for file in found] == ["memory:///music/a.mp3", str(tmp_path / "a.mp3")]
    assert problems == [
        "memory://musik: there are no audio files at this address.",
        f"{tmp_path}/b.mp3: there is nothing at this path that can be looked at.",
        f"{tmp_path}/empty: there are no audio files in this folder.",
    ]
    _, problems = found_at(["memory://music"], {".flac"})
    assert problems == ["memory://music: there are no files with these extensions at this address."]


def test_names_with_two_colons_are_names(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    assert source_of("memory:///music/b::c.mp3") == b"b::c.mp3"
    pytest.importorskip("pyarrow.dataset")
    columns = Columns(("rock", "pop"), None, timeline=False, embeddings=False)
    facts = {"size_bytes": 1, "modified_ns": 2, "model": "m", "heard": "all", "genre": "rock", "notices": []}
    row = facts | {"path": "memory:///music/b::c.mp3", "probabilities": {"rock": 0.9, "pop": 0.1}, "error": None}
    for out in (f"{tmp_path}/a::b", "memory://out::side/genres"):
        write_part(out, [row], columns)
        assert answered(out, columns) == {key_of(row): False}
    assert [path.name for path in tmp_path.iterdir()] == ["a::b"]


def test_addresses_may_be_chained(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    ((file,), problems) = found_at([f"simplecache::file://{tmp_path}"], SUFFIXES)
    assert (file.path, problems) == (f"file://{tmp_path}/a.mp3", [])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The columns of each run of a cluster, which is this process."""
    told = []

    def parts_heard(files: list, out: str, columns: Columns, hearing: Hearing, jobs: int | None) -> list[dict]:
        told.append(columns.names)
        hearer = cluster.Hearer(hearing, out, columns)
        try:
            return [hearer({"files": json.dumps(files)})]
        finally:
            hearer.decoders.close()

    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    monkeypatch.setattr(cluster, "parts_heard", parts_heard)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    return told


@pytest.mark.parametrize("scheme", ["file://", "file:", "file://localhost", "FILE://"])
def test_a_folder_that_was_written_of_file_addresses_is_continued(
    scheme: str, told: list[list[str]], tiny_model: CRNN, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way they are written; rows have them unescaped, as fsspec does."""
    ds = pytest.importorskip("pyarrow.dataset")
    save(tiny_model, tmp_path / "model", "")
    (tmp_path / "bad 50 %.mp3").write_bytes(b"no sound at all")
    address = scheme + quote(str(tmp_path / "bad 50 %.mp3"))
    assert main([address, "--out", str(tmp_path / "out"), "--ray", "--model", str(tmp_path / "model")]) == 1
    plain = f"file://{tmp_path}/bad 50 %.mp3"
    assert ds.dataset(tmp_path / "out").to_table(["path"]).to_pylist() == [{"path": plain}]
    assert plain in capsys.readouterr().err
    assert len(told) == 1


def test_what_failed_is_said_again_though_it_is_not_heard_again(
    told: list[list[str]], tiny_model: CRNN, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow.dataset")
    save(tiny_model, tmp_path / "model", "")
    (tmp_path / "bad.mp3").write_bytes(b"no sound at all")
    command = [str(tmp_path / "bad.mp3"), "--out", str(tmp_path / "out"), "--ray", "--model", str(tmp_path / "model")]
    for said in ("1 failed, 0 were there before", "0 failed, 1 were there before, 1 of them as failed"):
        assert main(command) == 1
        assert said in capsys.readouterr().err
    assert len(told) == 1


@pytest.mark.parametrize("is_in_store", [True, False])
def test_a_song_that_cannot_be_looked_at_when_it_is_heard_gets_no_row(
    is_in_store: bool, told: list[list[str]], tiny_model: CRNN, store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    """And another failed one does."""
    pytest.importorskip("pyarrow.dataset")
    save(tiny_model, tmp_path / "model", "")
    folder = "memory:///music" if is_in_store else str(tmp_path)
    (tmp_path / "a.mp3").write_bytes(b"no sound at all")
    columns = Columns(tiny_model.config.genres, None, timeline=False, embeddings=False)
    hearer = cluster.Hearer(Hearing(str(tmp_path / "model")), str(tmp_path / "out"), columns)
    (tmp_path / "out").mkdir()
    for names, n_rows in ((["gone.mp3"], 0), (["a.mp3", "gone.mp3"], 1)):
        heard = hearer({"files": json.dumps([[f"{folder}/{name}", 1, 2] for name in names])})
        assert (heard["songs"], len(json.loads(heard["errors"]))) == (len(names), len(names))
        assert len(answered(str(tmp_path / "out"), columns)) == n_rows
    hearer.decoders.close()


def test_a_store_is_made_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "memory", {"skip_instance_cache": True, "asked": "for"})
    store, _ = cluster._store("memory://music")
    assert store.storage_options["asked"] == "for"


@pytest.mark.parametrize("name", ["song.mp3", "song.mp3/genres"])
def test_a_folder_that_cannot_be_made_is_told_before_songs_are_heard(name: str, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").touch()
    with pytest.raises(TableError, match=r"song\.mp3.* (is a file, and|cannot be read or written)"):
        make_folder(tmp_path / name)
    make_folder(tmp_path / "new" / "genres")
    make_folder(tmp_path / "new" / "genres")


@pytest.mark.parametrize(("device", "address"), [("abacus", "head:1"), ("cuda:99", "local")])
def test_a_device_that_no_worker_has_is_told_before_songs_are_heard(
    device: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--device", device, "--ray", address]) == 2
    assert f"There is no device {device}" in capsys.readouterr().err
