"""Files that are written whole or not at all."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from crnn import files
from crnn.files import check_writable, whole_file


def write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def test_what_fails_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"
    write(path, b"one")
    with pytest.raises(TypeError):
        write(path, "no bytes")
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [("a", b"one")]


@pytest.mark.skipif(sys.platform == "win32", reason="there whole paths have a limit")
@pytest.mark.parametrize("name", [251 * "a" + ".csv", 62 * "💿" + ".jsonl"], ids=["narrow", "wide"])
def test_a_name_may_be_as_long_as_the_disk_takes_it(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, b"one")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [(name, b"one")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write(tmp_path / "link", b"one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"one"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such rights")
def test_a_new_file_has_the_rights_of_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, b"one")
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1, 2)
    before = path.stat()
    write(path, b"two")
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert path.read_bytes() == b"two"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such rights")
def test_a_file_that_may_not_be_written_is_not_replaced(as_somebody: Callable, tmp_path: Path) -> None:
    write(Path("a"), b"one")
    Path("a").chmod(0o444)
    with as_somebody(), pytest.raises(PermissionError):
        write(Path("a"), b"two")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a", b"one")]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such rights")
def test_what_could_not_be_written_is_known_beforehand(as_somebody: Callable, tmp_path: Path) -> None:
    for name in ("folder", "closed"):
        Path(name).mkdir()
    Path("file").touch()
    Path("closed").chmod(0o555)
    Path("link").symlink_to(Path("closed", "new"))
    os.mkfifo("pipe")
    before = sorted(tmp_path.rglob("*"))
    with as_somebody():
        for path in (Path("new"), Path("folders", "that are", "new"), Path("pipe"), Path(os.devnull)):
            check_writable(path)
        for name, named in (
            ("folder", "folder"),
            ("file/new", "file"),
            ("closed/new/new", "closed"),
            ("link", tmp_path / "closed"),
        ):
            with pytest.raises(OSError, match=str(named)):
                check_writable(Path(name))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("n_bytes", [2_000, 2_000_000], ids=["at its end", "on the way"])
def test_what_cannot_be_written_is_named(n_bytes: int, tmp_path: Path, limited: Callable) -> None:
    write(tmp_path / "a", b"one")
    with limited("RLIMIT_FSIZE", 1_000), pytest.raises(OSError, match="File too large") as error:
        write(tmp_path / "a", n_bytes * b"2")
    assert error.value.filename == str(tmp_path / "a")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a", b"one")]


def test_copies_that_killed_programs_have_left_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those that are still worked at, nor those of other files, nor folders."""
    left, folder = tmp_path / "a[1].csv.99999999.partial", tmp_path / "a[1].csv.2024.partial"
    names = ("b.csv.99999999", "a[1].csv.1.csv.99999999", f"a[1].csv.{os.getppid()}")
    others = [folder, *(tmp_path / f"{name}.partial" for name in names)]
    folder.mkdir()
    for path in (left, *others[1:]):
        path.touch()
    write(tmp_path / "a[1].csv", b"one")
    assert left.exists()
    monkeypatch.setattr(files, "LEFT_SECONDS", -1)
    write(tmp_path / "a[1].csv", b"one")
    assert {*tmp_path.iterdir()} == {tmp_path / "a[1].csv", *others}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_device_is_named() -> None:
    with pytest.raises(OSError, match="No space left") as error:
        write(Path("/dev/full"), b"one")
    assert error.value.filename == "/dev/full"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such pipes")
def test_a_pipe_stays_one(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"one")
    reader.join()
    assert read == [b"one"]
    assert pipe.is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such links")
def test_the_output_of_a_program_is_one() -> None:
    reads, writes = os.pipe()
    write(Path(f"/proc/self/fd/{writes}"), b"one")
    os.close(writes)
    with os.fdopen(reads, "rb") as file:
        assert file.read() == b"one"
