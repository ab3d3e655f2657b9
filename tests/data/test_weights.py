"""Weights of others: whence they are taken, downloads that break, and files that are not what they should be."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants

import train
from crnn.data import download, weights
from crnn.data.features import DatasetError, Features
from crnn.data.weights import FOLDER_VARIABLE, find_weights
from crnn.features import N_MELS
from crnn.network.choi import Choi, ChoiCrnnStem, ChoiStem
from crnn.network.efficientat import EfficientATStem
from crnn.network.front import Weights
from crnn.network.published import PublishedStem
from crnn.network.won import WonStem

ROOT = Path(__file__).parents[2]
CONTENT = np.random.default_rng(0).bytes(1_000_000)
NAME, REPO = "net.pt", "someone/nets"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no time lost between attempts."""
    monkeypatch.setattr(weights, "CACHE", tmp_path / "data" / "pretrained")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    return weights.CACHE


@pytest.fixture
def published(hub: HubServer) -> Weights:
    """A file of 1 MB at a host that is not the Hub."""
    commit = hub.commit(REPO, {NAME: CONTENT})
    return Weights(NAME, f"{hub.url}/{REPO}/resolve/{commit}/{NAME}", sha256(CONTENT).hexdigest())


def test_they_are_downloaded_once(hub: HubServer, published: Weights, cache: Path) -> None:
    path = find_weights(published)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    hub.stop()
    assert find_weights(published) == path
    assert hub.starts == [0]
    assert not list(cache.glob("*.partial"))


def test_the_token_for_the_hub_stays_at_home(
    hub: HubServer, published: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_someone")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    assert "authorization" in download.build_hf_headers()
    find_weights(published)
    assert hub.tokens == {None}


def test_a_token_for_the_hub_that_cannot_be_sent_is_no_matter_of_other_hosts(
    published: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sóme")
    with pytest.raises(DatasetError, match=r"could not be downloaded \(it does not answer\)"):
        find_weights(replace(published, url=published.url + os.fsdecode(b"\xe9")))


@pytest.mark.parametrize("resets", [False, True])
def test_a_download_goes_on_where_it_broke(resets: bool, hub: HubServer, published: Weights) -> None:
    hub.cuts, hub.resets = [400_000, 200_000, 0], resets
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [0, 400_000, 600_000, 600_000]


def test_the_next_run_goes_on_where_this_one_gave_up(
    hub: HubServer, published: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    hub.cuts = [300_000, 0]
    with pytest.raises(DatasetError, match="goes on where it stopped"):
        find_weights(published)
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [0, 300_000, 300_000]


def test_what_was_stopped_between_download_and_check_is_not_fetched_again(
    hub: HubServer, published: Weights, cache: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.{published.sha256[:16]}.partial").write_bytes(CONTENT)
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == []


def test_a_server_without_ranges_starts_over(hub: HubServer, published: Weights) -> None:
    hub.cuts, hub.knows_ranges = [400_000], False
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [0, 0]


def told(error: pytest.ExceptionInfo, published: Weights) -> str:
    """What an error says: one sentence that names the file, its address and what to do without it."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    for part in (NAME, published.url, "--pretrained"):
        assert part in text
    return text


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_says_no(status: int, hub: HubServer, published: Weights, cache: Path) -> None:
    hub.status = status
    with pytest.raises(DatasetError) as error:
        find_weights(published)
    assert f"it answers {status}" in told(error, published)
    assert not (cache / NAME).exists()


def test_a_busy_server_is_asked_again_how_long_the_file_is(hub: HubServer, published: Weights) -> None:
    hub.n_busy = 3
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [0]


def test_offline(hub: HubServer, published: Weights, cache: Path) -> None:
    hub.stop()
    with pytest.raises(DatasetError) as error:
        find_weights(published)
    assert "could not be downloaded" in told(error, published)
    assert not (cache / NAME).exists()


def test_a_page_in_place_of_the_file_is_no_weights(hub: HubServer, published: Weights, cache: Path) -> None:
    """As the login page of a hotel; what it left stands in nobody's way."""
    hub.is_portal = True
    with pytest.raises(DatasetError):
        find_weights(published)
    hub.is_portal = False
    assert find_weights(published).read_bytes() == CONTENT


def test_a_page_in_place_of_the_file_leaves_what_came_of_it(hub: HubServer, published: Weights, cache: Path) -> None:
    cache.mkdir(parents=True)
    partial = cache / f"{NAME}.{published.sha256[:16]}.partial"
    partial.write_bytes(CONTENT[:400_000])
    hub.is_portal = True
    with pytest.raises(DatasetError) as error:
        find_weights(published)
    assert f"has 14 bytes, fewer than came of the file before; if that stays so, delete {partial}" in told(
        error, published
    )
    hub.is_portal = False
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [400_000]


@pytest.mark.parametrize("kept", [0, 400_000, 1_000_000])
def test_a_damaged_download_is_deleted_and_said(kept: int, hub: HubServer, published: Weights, cache: Path) -> None:
    """Whatever of it was there before."""
    cache.mkdir(parents=True)
    partial = cache / f"{NAME}.{published.sha256[:16]}.partial"
    partial.write_bytes(bytes(kept))
    wrong = published if kept else Weights(NAME, published.url, "0" * 64)
    with pytest.raises(DatasetError) as error:
        find_weights(wrong)
    assert "damaged and is deleted" in told(error, published)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == ([] if kept else [partial])
    assert find_weights(published).read_bytes() == CONTENT


def test_a_folder_is_enough(
    published: Weights, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stop()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert find_weights(published) == folder / NAME
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_folder_without_it_is_a_sentence_and_no_download(
    published: Weights, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=rf"nowhere has no {NAME}, .* {published.url}\.$"):
        find_weights(published)
    assert hub.requests == []


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_another_file_of_that_name_is_refused_and_kept(
    place: str, published: Weights, hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache if place == "cache" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(CONTENT[:-1])
    if place == "folder":
        monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    with pytest.raises(DatasetError, match="damaged or another file than that at"):
        find_weights(published)
    assert (folder / NAME).read_bytes() == CONTENT[:-1]
    assert hub.requests == []


def test_a_cache_that_cannot_be_made_is_a_sentence(published: Weights, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DatasetError, match="pretrained cannot be written"):
        find_weights(published)


def test_one_process_downloads_and_the_others_wait(hub: HubServer, published: Weights, tmp_path: Path) -> None:
    hub.cuts, hub.resets = [500_000], True  # so that it takes a while
    code = (
        "from crnn.network.front import Weights; from crnn.data.weights import find_weights\n"
        f"print(find_weights({published!r}))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=120)[0].decode().strip() for process in processes}
    assert answers == {str(Path("data/pretrained") / NAME)}
    assert hub.starts == [0, 500_000]


def test_a_killed_download_goes_on(hub: HubServer, published: Weights, tmp_path: Path, cache: Path) -> None:
    """A process of its own, killed while it waits in the middle of the file."""
    hub.cuts, hub.stalls = [500_000], True
    code = (
        "from crnn.network.front import Weights; from crnn.data.weights import find_weights\n"
        f"find_weights({published!r})"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in cache.glob("*.partial")) < 400_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = next(cache.glob("*.partial")).stat().st_size
    assert find_weights(published).read_bytes() == CONTENT
    assert hub.starts == [0, kept]


# What `--pretrained` does, with files as Choi's that hold other numbers.


def write_choi(path: Path) -> None:
    """An HDF5 file with random numbers in the places of Choi's."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number, conv in enumerate(ChoiStem().convs, start=1):
            for layer, part, shape in (
                ("conv", "W", conv.weight.shape),
                ("conv", "b", conv.bias.shape),
                ("bn", "gamma", conv.bias.shape),
                ("bn", "beta", conv.bias.shape),
            ):
                name = f"{layer}{number}"
                file[f"{name}/{name}_{part}_1:0"] = generator.normal(0, 0.1, shape).astype(np.float32)


@pytest.fixture
def choi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with such a file, which is what Choi's front asks for; it has a few channels only."""
    monkeypatch.setattr(ChoiStem, "blocks_channels", (4, 4, 4, 4))
    monkeypatch.setattr(ChoiStem, "nets_channels", ((4,),))
    folder = tmp_path / "nets"
    folder.mkdir()
    path = folder / Choi.file.name
    write_choi(path)
    # an address where nothing listens
    monkeypatch.setattr(
        Choi, "file", Weights(path.name, "http://127.0.0.1:9/choi.h5", sha256(path.read_bytes()).hexdigest())
    )
    return folder


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Of a training of a few seconds."""
    generator = torch.Generator().manual_seed(0)
    log_mels = [-80 * torch.rand(N_MELS, 120, generator=generator) for _ in range(20)]
    Features.from_log_mels(log_mels, [f"{'ab'[i % 2]}/{i}.wav" for i in range(20)]).save(tmp_path / "f.npz")
    training = ["--front", "choi", "--epochs", "1", "--copies", "1", "--members", "1", "--precision", "float32"]
    training += ["--set", "window_frames=48", "recurrent_size=4"]
    return ["--features", str(tmp_path / "f.npz"), "--out", str(tmp_path / "run"), *training]


def test_the_option_names_the_folder(choi: Path, options: list[str], tmp_path: Path) -> None:
    assert train.main([*options, "--no-refit", "--pretrained", str(choi)]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_folds_in_processes_of_their_own_find_it_too(
    options: list[str], tmp_path: Path, pretrained_folder: Path
) -> None:
    """Which want the true file."""
    told = ["--folds", "2", "--jobs", "1", "--front", "mn04", "--pretrained", str(pretrained_folder)]
    assert train.main(["cross-validate", *options, *told]) == 0
    assert (tmp_path / "run" / "fold-2.npz").is_file()


def test_without_the_weights_a_training_is_a_sentence_and_nothing_is_begun(
    choi: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for command in (options, ["cross-validate", *options, "--folds", "2"]):
        assert train.main(command) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"train.py: {Choi.file.name} could not be downloaded")
        assert "--pretrained FOLDER" in said
        assert not (tmp_path / "run").exists()


def test_a_training_that_goes_on_has_its_folder(
    choi: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_measure", stop)
        with pytest.raises(StoppedError):
            train.main([*options, "--no-refit", "--pretrained", str(choi)])
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert train.main(["--resume", str(tmp_path / "run")]) == 0


def test_a_file_that_does_not_hold_the_weights_is_a_sentence(
    choi: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], capsys: pytest.CaptureFixture
) -> None:
    path = choi / Choi.file.name
    with h5py.File(path, "w") as file:
        file["conv1/conv1_W_1:0"] = np.zeros((64, 1, 5, 5), np.float32)
    digest = sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(Choi, "file", Weights(path.name, Choi.file.url, digest))
    assert train.main([*options, "--pretrained", str(choi)]) == 2
    assert capsys.readouterr().err == f"train.py: {path} does not hold the weights that it should.\n"


class Malice:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("stem", [ChoiStem, ChoiCrnnStem, EfficientATStem, WonStem])
@pytest.mark.parametrize("kind", ["nothing", "text", "cut", "list", "numbers", "strings", "pickle", "folder", "gone"])
def test_no_file_does_more_than_raise_value_error(stem: type[PublishedStem], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net"
    if kind in ("nothing", "text"):
        path.write_bytes(b"" if kind == "nothing" else b"<html>Please log in.</html>" * 50)
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        names = ("layer1.conv.weight", "features.0.0.weight")
        content = {
            "list": [torch.zeros(3)],
            "numbers": dict.fromkeys(names, 3.0),
            "strings": dict.fromkeys(names, "x"),
            "pickle": {"x": Malice(tmp_path / "harm")},
        }.get(kind, {name: torch.zeros(64, 1, 3, 3) for name in names})
        torch.save(content, path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"does not hold the weights that it should\.$"):
        stem().load(path)
    assert not (tmp_path / "harm").exists()
