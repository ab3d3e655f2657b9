"""A library on a cluster: each song once, whatever becomes of the workers; from and to an object store."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from crnn import __main__ as command
from crnn.checkpoint import save
from crnn.library import cluster
from crnn.network.model import CRNN

REASON = "a cluster needs pip install 'ray[data]' s3fs 'moto[server]' psutil, 500 MB that other tests do without"
psutil, ray, s3fs, moto_server, ds = (
    pytest.importorskip(name, reason=REASON) for name in ("psutil", "ray", "s3fs", "moto.server", "pyarrow.dataset")
)

N_SONGS = 24
Store = s3fs.S3FileSystem


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An object store with an empty bucket "music", which the workers find by their environment."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("NO_PROXY", "127.0.0.1"),
        ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0"),
    ):
        monkeypatch.setenv(name, value)
    Store.clear_instance_cache()
    store = Store(use_listings_cache=False)
    store.mkdir("music")
    yield store
    Store.clear_instance_cache()
    server.stop()


@pytest.fixture
def two_workers(store: Store) -> Iterator[None]:
    """A cluster of this machine, with the environment of the store."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def rows_of(store: Store, folder: str) -> list[dict]:
    return ds.dataset(folder, filesystem=store, format="parquet").to_table().to_pylist()


def kill_an_actor_when(is_time: Callable[[], bool], killed: list[int]) -> None:
    """Kill one of those that hear, as a machine that is taken away does."""
    while not is_time():
        time.sleep(0.05)
    raylet = psutil.Process().children(recursive=True)
    actors = [process.pid for process in raylet if "Hearer" in " ".join(process.cmdline())]
    os.kill(actors[0], signal.SIGKILL)
    killed.append(actors[0])


def test_a_lost_worker_loses_nothing_and_nothing_is_written_twice(
    store: Store,
    two_workers: None,
    tiny_model: CRNN,
    tone: Callable[..., np.ndarray],
    write_wav: Callable[[Path, np.ndarray], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(cluster, "PART_SONGS", (2, 2))
    save(tiny_model, tmp_path / "model", "")
    for number in range(N_SONGS):
        song = write_wav(tmp_path / "song.wav", tone(2.0 + number / 10))
        store.put_file(str(song), f"music/in/...{number % 3}/...{number:02}.wav")
    store.pipe_file("music/in/broken.mp3", b"this is no sound")
    store.pipe_file("music/in/notes.txt", b"nor is this")
    argv = ["s3://music/in", "--out", "s3://music/out", "--ray", "--model", str(tmp_path / "model")]
    killed: list[int] = []
    killer = Thread(target=kill_an_actor_when, args=(lambda: len(store.find("music/out")) >= 3, killed))
    killer.start()
    assert command.main(argv) == 1  # as one is broken
    killer.join()
    assert killed
    rows = rows_of(store, "music/out")
    assert sorted(row["path"] for row in rows) == sorted(
        f"s3://{name}" for name in store.find("music/in") if not name.endswith(".txt")
    )
    assert [row["path"] for row in rows if row["error"]] == ["s3://music/in/broken.mp3"]
    assert all(row["genre"] for row in rows if not row["error"])
    assert "broken.mp3" in capsys.readouterr().err

    store.put_file(str(tmp_path / "song.wav"), "music/in/new.wav")
    parts = set(store.find("music/out"))
    assert command.main(argv) == 1  # as the broken one is not heard again
    assert len(set(store.find("music/out")) - parts) == 1
    assert len(rows_of(store, "music/out")) == N_SONGS + 2
    assert "1 songs heard, 0 failed, 25 were there before, 1 of them as failed" in capsys.readouterr().err


def test_without_ray_or_without_a_folder_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert command.main([str(tmp_path), "--ray"]) == 2
    assert "--out" in capsys.readouterr().err
    assert command.main([str(tmp_path), "--ray", "--watch", "--out", str(tmp_path)]) == 2
    assert "--watch" in capsys.readouterr().err
    assert command.main(["s4://nowhere", "--ray", "--model", "crnn-scratch", "--out", str(tmp_path)]) == 2
    assert "s4" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    assert command.main([str(tmp_path), "--ray", "--out", str(tmp_path)]) == 2
    assert "pip install" in capsys.readouterr().err
