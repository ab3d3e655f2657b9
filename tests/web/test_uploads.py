"""The folder that a page has for its visitors' songs."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from crnn.bundle import ROOT
from crnn.terminal import INTERRUPTED
from crnn.web.uploads import FOLDER_VARIABLE, LOCK_FILE, OF_PAGES, Uploads, own_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the environment wants uploads to be; it is not there yet."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "uploads"))
    return tmp_path / "uploads"


def named() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def test_pages_have_a_folder_each_that_goes_with_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_folder():
        first = named()
        (first / "song.mp3").write_bytes(b"")
        monkeypatch.setenv(FOLDER_VARIABLE, str(place))  # as another process has it
        with own_folder():
            second = named()
            assert {folder for folder in place.iterdir() if folder.is_dir()} == {first, second}
        assert named() == place
        assert not second.exists()
        assert (first / "song.mp3").exists()
    assert not any(place.iterdir())


def test_what_a_killed_page_left_goes_when_the_next_one_starts(place: Path) -> None:
    left = place / f"{OF_PAGES}left"
    (left / "hash").mkdir(parents=True)
    (left / "hash" / "song.mp3").write_bytes(b"")
    (left / LOCK_FILE).write_bytes(b"")
    others = place / "hash"
    others.mkdir()
    with own_folder():
        assert not left.exists()
        assert others.exists()


def test_without_a_wish_it_is_among_the_temporary_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with own_folder():
        assert named().parent == tmp_path
    assert FOLDER_VARIABLE not in os.environ


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match=rf"^Songs cannot be kept in .*/file .*{FOLDER_VARIABLE}\.$"), own_folder():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="nobody takes an open file there")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_a_cleaner_took_is_private_and_locked_again(place: Path, is_there: bool) -> None:
    with own_folder():
        kept = Uploads(set(), 3_600.0, lambda _: False, named())
        shutil.rmtree(place)
        if is_there:  # as Gradio makes it for the next song
            named().mkdir(parents=True, mode=0o755)
        kept.sweep()
        assert named().stat().st_mode & 0o777 == 0o700
        with pytest.raises(Timeout), FileLock(named() / LOCK_FILE, blocking=False):
            pass
    assert not any(place.iterdir())


@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_page_that_is_told_to_end_leaves_nothing(name: str, place: Path, model: Path) -> None:
    """As by who stops a container, or closes a terminal."""
    number = getattr(signal, name, None)
    if number is None or signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("there is no such signal here, or it is ignored")
    page = subprocess.Popen(
        [sys.executable, ROOT / "app.py"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed = next(line for line in page.stdout if "Running on" in line)
    assert len([*place.glob(f"{OF_PAGES}*/{LOCK_FILE}")]) == 1
    page.send_signal(number)
    try:
        printed += page.communicate(timeout=60)[0]
    finally:
        page.kill()
    assert page.returncode in (0, INTERRUPTED)
    assert "Traceback" not in printed
    assert not any(place.iterdir())
