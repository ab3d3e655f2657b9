"""Fetching GTZAN: downloads that break, archives that hold other things, and what is left when it goes wrong."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hub_server import HubServer
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import WeakFileLock

from crnn.data import download
from crnn.data.download import download_gtzan, sha256_of, unpack
from crnn.data.features import DatasetError
from crnn.data.look import find_tracks

REPO = "datasets/marsyas/gtzan"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small archive like GTZAN's, with what has no business in it."""
    path = tmp_path / "genres.tar.gz"
    with tarfile.open(path, "w:gz") as tar:

        def add(name: str, content: bytes = b"RIFF", **attributes: object) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        add("genres/blues/blues.00000.wav", b"blue")
        add("genres/rock/rock.00001.wav", b"rock")
        add("genres/blues/._blues.00000.wav")
        add("genres/rock/blues.00003.wav")
        add("genres/blues/blues.00002.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("../blues/blues.00004.wav")
        add("/genres/blues/blues.00005.wav")
        add("genres/blues/../../../blues.00006.wav")
        add("genres/bextract_single.mf")
        add("./genres/jazz/jazz.00000.au", b"jazz")
    return path


@pytest.fixture
def large_archive(tmp_path: Path) -> Path:
    """An archive of 1 MB, which does not compress, in a folder as the Hub has it."""
    path = tmp_path / "repo" / "data" / "genres.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("genres/blues/blues.00000.wav")
        info.size = 1_000_000
        tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(info.size)))
    return path


def test_unpack_takes_the_clips_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "data" / "genres")
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.wav")}
    assert files == {"data/genres/blues/blues.00000.wav": b"blue", "data/genres/rock/rock.00001.wav": b"rock"}
    assert (tmp_path / "data" / "genres" / "jazz" / "jazz.00000.au").read_bytes() == b"jazz"
    assert len([path for path in (tmp_path / "data").rglob("*") if path.is_file()]) == 3
    assert not list(tmp_path.rglob("*.partial"))


def test_cut_archive_leaves_no_folder_that_looks_whole(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:150])
    with pytest.raises(DatasetError, match="could not be unpacked"):
        unpack(archive, tmp_path / "genres")
    assert not (tmp_path / "genres").exists()


def test_interrupted_unpacking_is_done_again(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(source: object, file: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, tmp_path / "genres")
    assert not (tmp_path / "genres").exists()
    stale = tmp_path / "genres.partial" / "rock" / "rock.00099.wav"
    stale.parent.mkdir()
    stale.touch()
    unpack(archive, tmp_path / "genres")
    assert (tmp_path / "genres" / "blues" / "blues.00000.wav").read_bytes() == b"blue"
    assert [path.name for path in (tmp_path / "genres" / "rock").iterdir()] == ["rock.00001.wav"]


@pytest.mark.parametrize("position", [0, 30, 500_000, -6])
def test_damaged_archive(position: int, large_archive: Path, tmp_path: Path) -> None:
    content = bytearray(large_archive.read_bytes())
    content[position] ^= 0xE0
    large_archive.write_bytes(content)
    with pytest.raises(DatasetError, match=r"could not be unpacked .* delete .*genres\.tar\.gz"):
        unpack(large_archive, tmp_path / "genres")
    assert not (tmp_path / "genres").exists()


def test_archive_without_clips(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz"):
        pass
    with pytest.raises(DatasetError, match="has no clips"):
        unpack(tmp_path / "other.tar.gz", tmp_path / "genres")


def test_download_unpacks_once_and_tells_of_another_archive(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "fetch_archive", lambda folder: archive)
    notices: list[str] = []
    folder = download_gtzan(tmp_path / "data", notices.append)
    assert len(find_tracks(folder)) == 3
    assert len(notices) == 1
    assert "not GTZAN's original archive" in notices[0]
    assert download_gtzan(tmp_path / "data", notices.append) == folder
    assert len(notices) == 1

    monkeypatch.setattr(download, "ARCHIVE_SHA256", sha256_of(archive))
    download_gtzan(tmp_path / "again", notices.append)
    assert len(notices) == 1


def test_two_who_download_at_once_have_one_whole_copy(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_go_on = [], Event()

    def fetch(folder: Path) -> Path:
        asked.append(folder)
        may_go_on.wait(5)
        return archive

    monkeypatch.setattr(download, "fetch_archive", fetch)
    with ThreadPoolExecutor() as pool:
        folders = [pool.submit(download_gtzan, tmp_path / "data", lambda _: None) for _ in range(2)]
        time.sleep(0.3)
        may_go_on.set()
        assert [folder.result() for folder in folders] == 2 * [tmp_path / "data" / "genres"]
    assert len(asked) == 1
    assert len(find_tracks(tmp_path / "data" / "genres")) == 3


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(url: str, token: bool | None) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(download, "get_hf_file_metadata", ask)
    with pytest.raises(DatasetError, match=r"could not be downloaded .* --data"):
        download_gtzan(tmp_path)


def test_a_login_that_cannot_be_read_is_not_needed(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    hub.push(REPO, tmp_path / "repo")
    assert download_gtzan(tmp_path / "data", lambda text: None).is_dir()
    assert hub.tokens == {None}


@pytest.mark.parametrize("resets", [False, True])
def test_broken_download_goes_on_where_it_broke(
    resets: bool, hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    hub.push(REPO, tmp_path / "repo")
    hub.cuts, hub.resets = [400_000, 200_000, 0, 0], resets
    folder = download_gtzan(tmp_path / "data", lambda text: None)
    assert (folder / "blues" / "blues.00000.wav").stat().st_size == 1_000_000
    assert hub.starts == [0, 400_000, 600_000, 600_000, 600_000]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"genres", "genres.lock"}


def test_the_next_run_goes_on_where_this_one_gave_up(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    hub.push(REPO, tmp_path / "repo")
    hub.cuts = [300_000, 0, 0]
    with pytest.raises(DatasetError, match=r"could not be downloaded .* goes on where it stopped"):
        download_gtzan(tmp_path / "data")
    download_gtzan(tmp_path / "data", lambda text: None)
    assert hub.starts == [0, 300_000, 300_000, 300_000]
    assert find_tracks(tmp_path / "data").keys() == {"blues.00000"}


def test_a_killed_download_goes_on(hub: HubServer, large_archive: Path, tmp_path: Path) -> None:
    """A process of its own, killed while the Hub has it wait in the middle of the file."""
    hub.push(REPO, tmp_path / "repo")
    hub.cuts, hub.stalls = [500_000], True
    code = "from pathlib import Path; from crnn.data.download import download_gtzan; download_gtzan(Path('data'))"
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.glob("data/*.partial")) < 400_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = next((tmp_path / "data").glob("*.partial")).stat().st_size
    download_gtzan(tmp_path / "data", lambda text: None)
    assert hub.starts == [0, kept]
    assert find_tracks(tmp_path / "data").keys() == {"blues.00000"}


def test_a_server_without_ranges_starts_over(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    hub.push(REPO, tmp_path / "repo")
    hub.cuts, hub.knows_ranges = [400_000], False
    download_gtzan(tmp_path / "data", lambda text: None)
    assert hub.starts == [0, 0]


def pushed(hub: HubServer, tmp_path: Path) -> str:
    """The address of the archive on a hub that has it."""
    hub.push(REPO, tmp_path / "repo")
    return f"{hub.url}/{REPO}/resolve/main/data/genres.tar.gz"


@pytest.mark.parametrize("start", [0, 400_000])
@pytest.mark.parametrize("how", ["page", "page of no length", "another part", "busy"])
def test_what_is_not_the_file_is_no_part_of_it(
    how: str, start: int, hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    content, url = large_archive.read_bytes(), pushed(hub, tmp_path)
    hub.strange = [how, how]
    partial = tmp_path / "partial"
    partial.write_bytes(content[:start])
    download.complete(partial, url, len(content), "archive")
    assert partial.read_bytes() == content
    assert hub.starts == [start]
    assert pauses == ([7, 7] if how == "busy" else [2, 4])


def test_a_proxy_may_hide_how_long_the_file_is(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing that has come is thrown away for what is not known to be the same file."""
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    content, url, partial = large_archive.read_bytes(), pushed(hub, tmp_path), tmp_path / "partial"
    hub.tells_lengths, hub.knows_ranges = False, False
    download.complete(partial, url, len(content), "archive")
    assert partial.read_bytes() == content
    partial.write_bytes(content[:400_000])
    with pytest.raises(download.NotTheFileError):
        download.complete(partial, url, len(content), "archive")
    assert partial.read_bytes() == content[:400_000]


def test_a_busy_hub_is_asked_again_what_it_has(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    hub.push(REPO, tmp_path / "repo")
    hub.n_busy = 2
    download_gtzan(tmp_path / "data", lambda _: None)
    assert hub.starts == [0]


def test_a_file_that_comes_whole_again_is_whole(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on from what came of it: `truncate` alone leaves the end where it was."""
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    content, url = large_archive.read_bytes(), pushed(hub, tmp_path)
    hub.cuts, hub.knows_ranges = [300_000, 0, 500_000], False
    partial = tmp_path / "partial"
    download.complete(partial, url, len(content), "archive")
    assert partial.read_bytes() == content


def test_a_page_in_place_of_what_the_hub_says_is_no_archive(hub: HubServer, tmp_path: Path) -> None:
    hub.is_portal = True
    with pytest.raises(DatasetError, match=r"could not be downloaded .*\(what it answers is not the file\).* --data"):
        download_gtzan(tmp_path / "data")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_found_before_the_download(kind: str, hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "genres"
    target.touch() if kind == "file" else target.symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"genres is no folder, or a link to one that is not here"):
        download_gtzan(tmp_path)
    assert hub.requests == []


def test_who_waits_for_another_download_says_so_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(download, "fetch_archive", lambda folder: archive)
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.05)
    with ThreadPoolExecutor() as pool:
        with WeakFileLock(tmp_path / "genres.lock"):
            waiting = pool.submit(download_gtzan, tmp_path, lambda _: None)
            time.sleep(0.3)
            assert not waiting.done()
        waiting.result()
    assert capsys.readouterr().err.count("Another process is fetching GTZAN; this one waits for it.\n") == 1


def test_another_version_of_the_archive_is_no_continuation(
    hub: HubServer, large_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    hub.push(REPO, tmp_path / "repo")
    hub.cuts = [300_000, 0]
    with pytest.raises(DatasetError):
        download_gtzan(tmp_path / "data")
    large_archive.write_bytes(gzip.compress(gzip.decompress(large_archive.read_bytes()), mtime=1))
    hub.push(REPO, tmp_path / "repo")
    download_gtzan(tmp_path / "data", lambda text: None)
    assert hub.starts[-1] == 0


def test_what_the_hubs_cache_has_is_not_downloaded(hub: HubServer, large_archive: Path, tmp_path: Path) -> None:
    hub.push(REPO, tmp_path / "repo")
    cached = Path(hf_hub_download("marsyas/gtzan", "data/genres.tar.gz", repo_type="dataset"))
    hub.stop()
    download_gtzan(tmp_path / "data", lambda text: None)
    assert find_tracks(tmp_path / "data").keys() == {"blues.00000"}
    assert cached.is_file()


@pytest.mark.parametrize("status", [404, 403])
def test_a_hub_without_the_archive(status: int, hub: HubServer, tmp_path: Path) -> None:
    hub.status = status
    with pytest.raises(DatasetError, match=rf"could not be downloaded .*answers {status}.* --data"):
        download_gtzan(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["genres.lock"]


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()
