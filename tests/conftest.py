"""What several test modules share: a tiny model, synthetic sound and a Hub."""

import os
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from gradio import http_server
from hub_server import HubServer
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock

from crnn import sources
from crnn.audio import SAMPLE_RATE
from crnn.bundle import MODEL_VARIABLE
from crnn.checkpoint import save
from crnn.data.weights import FOLDER_VARIABLE
from crnn.features import n_frames_of
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.web.uploads import own_folder

# With the weights that others published, for the tests that hold their true files against something.
PRETRAINED_FOLDER = Path(os.environ.get(FOLDER_VARIABLE) or Path(__file__).parents[2] / "shared" / "pretrained")


def pytest_configure(config: pytest.Config) -> None:
    """Where several workers share the cores: one each, also for the commands that they start, and code of their own.

    numba does not lock its cache: two that compile librosa's beat tracker at once would leave one that crashes.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["NUMBA_CACHE_DIR"] = str(config.rootpath / ".pytest_cache" / f"numba-{worker}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first, so that at the end there are short ones for every worker that would else be idle."""
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models on one core each: on busy machines, more threads mostly wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_uploads() -> Iterator[None]:
    """The songs that the pages of this worker are sent are none of another's."""
    with own_folder():
        yield


@pytest.fixture(scope="session", autouse=True)
def own_ports(worker_id: str) -> None:
    """Of two pages that start on one port at once, Gradio starts the second on none.

    A port that the environment names begins the range of those that are served here, and is no other page's.
    """
    os.environ.pop("GRADIO_SERVER_PORT", None)
    http_server.INITIAL_PORT_VALUE += 100 * int(worker_id.removeprefix("gw")) if worker_id != "master" else 0


@pytest.fixture(autouse=True)
def no_folder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folder of published weights the environment or a command names, the next test does not know it."""
    monkeypatch.setenv(FOLDER_VARIABLE, "")


@pytest.fixture(autouse=True)
def no_name_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever name a program shows itself, the next test has another."""
    monkeypatch.setattr(sys, "argv", [*sys.argv])


@pytest.fixture(scope="session")
def compiled() -> None:
    """What numba compiles of librosa for twenty seconds: by the first worker that needs it, for the others to copy."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        return
    from crnn.insight.analysis import Waveform
    from crnn.plots import FEATURES

    own = Path(os.environ["NUMBA_CACHE_DIR"])
    own.mkdir(parents=True, exist_ok=True)
    shared, is_whole = own.with_name("numba"), own / "whole"
    with WeakFileLock(own.with_name("numba.lock")):
        if shared.is_dir() and not is_whole.exists():
            shutil.copytree(shared, own, dirs_exist_ok=True)
        clicks = Waveform(np.tile(np.float32([1.0] + [0.0] * 11_024), 20))
        for feature in FEATURES:
            feature.compute(clicks)
        is_whole.touch()
        if not shared.is_dir():
            partial = own.with_name("numba.partial")
            shutil.copytree(own, partial, dirs_exist_ok=True)
            partial.rename(shared)


@pytest.fixture
def pretrained_folder() -> Path:
    """The folder with the weights that others published; without them the test is skipped."""
    if not PRETRAINED_FOLDER.is_dir():
        pytest.skip("the published weights are not here")
    return PRETRAINED_FOLDER


@pytest.fixture
def tiny_model() -> CRNN:
    """A model of three genres and windows of two seconds; its weights are random, the same each time."""
    config = CRNNConfig(
        genres=("rock", "jazz", "disco"),
        channels=(4, 6),
        mel_pools=(4, 8),
        time_pools=(2, 4),
        recurrent_size=5,
        window_frames=n_frames_of(2.0),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CRNN(config).eval()
    model.stem.mean.fill_(-50)
    model.stem.std.fill_(20)
    return model


@pytest.fixture
def folder(tiny_model: CRNN, tmp_path: Path) -> Path:
    """A saved model."""
    save(tiny_model, tmp_path / "saved", card="# A card\n")
    return tmp_path / "saved"


@pytest.fixture
def model(tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model, named by the environment."""
    save(tiny_model, tmp_path / "model", card="")
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """`tone(seconds, hz)`: a waveform (samples,) that rises by an octave and sounds in pulses.

    Its samples are 16-bit numbers, so that a WAV file holds it exactly.
    """

    def make(seconds: float, hz: float = 440.0) -> np.ndarray:
        t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        phase = 2 * np.pi * hz * t * (1 + t / (2 * seconds))
        waveform = 0.2 * np.sin(phase) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
        return (np.round(waveform * 32_768) / 32_768).astype(np.float32)

    return make


@pytest.fixture
def write_wav() -> Callable[[Path, np.ndarray], Path]:
    """`write_wav(path, waveform)`: write a mono 16-bit WAV file at the model's rate."""

    def write(path: Path, waveform: np.ndarray) -> Path:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.round(waveform * 32_768).astype("<i2").tobytes())
        return path

    return write


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub for the real client, which gets an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(sources, "HUB_TIMEOUT_SECONDS", 1.0)
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        huggingface_hub.close_session()
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def limited() -> Callable[[str, int], AbstractContextManager]:
    """`with limited("RLIMIT_FSIZE", 1_000):` the system gives this process no more, as if a disk were full."""

    @contextmanager
    def with_limit(name: str, most: int) -> Iterator[None]:
        resource = pytest.importorskip("resource", reason="there are no limits here")
        kind = getattr(resource, name)
        before = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(kind, before)

    return with_limit


@pytest.fixture
def as_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager]:
    """`with as_somebody():` rights bind, as they do not bind root. The working folder is that of the test."""
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def no_longer_root() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            tmp_path.chmod(0o777)
            os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(before)

    return no_longer_root
