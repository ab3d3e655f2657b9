"""What the environment says before the page is there: a sentence, or nothing that matters."""

import errno
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.request import proxy_bypass_environment

import gradio as gr
import httpx
import pytest
from gradio import http_server

import app
from crnn.__main__ import main
from crnn.bundle import ROOT
from crnn.machine import MAY_BE_EMPTY
from crnn.terminal import INTERRUPTED
from crnn.web.environment import FOREIGN, ROOT_PATH, WITHOUT_PROXY, fault
from crnn.web.server import own_place


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("GRADIO_SERVER_PORT", "abc", "GRADIO_SERVER_PORT must be a number from 1 to 65535, not 'abc'."),
        ("GRADIO_SERVER_PORT", "", "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_SERVER_PORT", "99999", "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_SERVER_PORT", "9" * 5_000, "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_NUM_PORTS", "-1", "GRADIO_NUM_PORTS must be a number"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "30s", "HF_HUB_DOWNLOAD_TIMEOUT must be a number"),
        ("HF_HUB_ETAG_TIMEOUT", "-1", "HF_HUB_ETAG_TIMEOUT must be a number"),
        ("TQDM_MININTERVAL", "abc", "TQDM_MININTERVAL must be a number, not 'abc'."),
        ("TQDM_NCOLS", "1.5", "TQDM_NCOLS must be a whole number, not '1.5'."),
        ("OMP_NUM_THREADS", "4,x", "OMP_NUM_THREADS must be a number from 1 to 1024, not '4,x'."),
        ("OMP_NUM_THREADS", "all", "OMP_NUM_THREADS must be a number from 1 to 1024, not 'all'."),
        ("HF_ENDPOINT", "hub.example", "HF_ENDPOINT must be an address such as https://huggingface.co, not 'hub.exam"),
        ("HF_ENDPOINT", "http://[::1", "HF_ENDPOINT must be an address"),
        ("HF_ENDPOINT", "http://127.0.0.1:99999", "HF_ENDPOINT must be an address"),
        ("HF_ENDPOINT", "ftp://hub.example", "HF_ENDPOINT must be an address"),
        ("HF_ENDPOINT", "https://hub..example", "HF_ENDPOINT must be an address"),
        ("HF_ENDPOINT", "https://hub example", "HF_ENDPOINT must be an address"),
        ("HF_ENDPOINT", "https://", "HF_ENDPOINT must be an address"),
        ("ALL_PROXY", "socks4://127.0.0.1:9", "A proxy that the environment names cannot be used (ALL_PROXY"),
    ],
)
def test_what_cannot_be_is_named(name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert fault().startswith(sentence)


@pytest.mark.parametrize("address", ["https://huggingface.co/", "http://[::1]:8080/hub", "http://hub_2.example"])
def test_an_address_of_a_hub_is_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert fault() is None


@pytest.mark.parametrize("name", MAY_BE_EMPTY)
@pytest.mark.parametrize("start", [fault, partial(main, ["missing.wav"])])
def test_an_empty_variable_is_as_none(
    start: Callable[[], object], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """As a compose file sets it by ${NAME:-}, for page and commands."""
    monkeypatch.setenv(name, " ")
    start()
    assert name not in os.environ
    assert name not in capfd.readouterr().err


@pytest.mark.parametrize("threads", ["2", " 4, 2"])
def test_what_is_usual_is_taken(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7860")
    monkeypatch.setenv("MPLBACKEND", "module:nonsense")
    for name in WITHOUT_PROXY:
        monkeypatch.setenv(name, "localhost,[::1],elsewhere.example, [fe80::1]")
    assert fault() is None
    httpx.Client().close()
    assert proxy_bypass_environment("elsewhere.example")
    assert os.environ["NO_PROXY"] == "localhost,::1,elsewhere.example, fe80::1"
    assert "MPLBACKEND" not in os.environ
    notebooks = "module://matplotlib_inline.backend_inline"
    monkeypatch.setenv("MPLBACKEND", notebooks)
    assert fault() is None
    assert os.environ["MPLBACKEND"] == notebooks


def test_what_gradio_has_for_other_pages_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that serve files without the Gate, and numbers that would end the start."""
    for name in FOREIGN:
        monkeypatch.setenv(name, "2" if name == "GRADIO_NUM_WORKERS" else "none")
    assert fault() is None
    assert not {*FOREIGN} & os.environ.keys()


def test_a_page_is_neither_reloaded_nor_edited_by_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_WATCH_DIRS", "GRADIO_WATCH_DEMO_NAME", "GRADIO_WATCH_DEMO_PATH", "GRADIO_VIBE_MODE"):
        monkeypatch.setenv(name, "1")
    assert fault() is None
    page = gr.Blocks()
    assert (page.dev_mode, page.vibe_mode) == (False, False)


@pytest.mark.parametrize(
    ("named", "taken"),
    [("genres", "/genres"), ("/genres", "/genres"), ("https://x.example/genres", "https://x.example/genres"), ("", "")],
)
def test_the_path_of_a_proxy_begins_with_a_slash(named: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_PATH, named)
    assert fault() is None
    assert os.environ[ROOT_PATH] == taken


@pytest.fixture
def gradio_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Gradio looks for a free port is put back."""
    monkeypatch.setattr(http_server, "LOCALHOST_NAME", http_server.LOCALHOST_NAME)


@pytest.mark.usefixtures("gradio_looks")
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1", "Port {port} is in use: GRADIO_SERVER_PORT may name another one."),
        ("", "Port {port} is in use: GRADIO_SERVER_PORT may name another one."),
        ("a..b", "The page cannot listen at a..b: GRADIO_SERVER_NAME must name an address"),
        ("192.0.2.1", "The page cannot listen at 192.0.2.1: GRADIO_SERVER_NAME must name an address"),
    ],
)
def test_a_place_that_cannot_be_had_ends_the_start(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Rather than be exchanged for the next port, where a proxy does not look."""
    monkeypatch.setenv("GRADIO_SERVER_NAME", address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
        assert app.main([]) == 2
    assert capsys.readouterr().err.startswith(f"app.py: {sentence.format(port=port)}")


@pytest.mark.usefixtures("gradio_looks")
def test_the_page_is_called_as_it_was(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "a..b")
    monkeypatch.setattr(sys, "argv", ["/anywhere/bin/genre-crnn"])
    assert main(["page"]) == 2
    assert capsys.readouterr().err.startswith("genre-crnn page: The page cannot listen at a..b: ")


@pytest.mark.usefixtures("gradio_looks")
def test_a_port_that_needs_rights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    monkeypatch.setenv("GRADIO_SERVER_PORT", "80")
    with pytest.raises(OSError, match=r"^Port 80 needs rights"):
        own_place()


@pytest.mark.usefixtures("gradio_looks")
def test_gradio_looks_for_a_port_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert own_place() == {"server_name": "127.0.0.1", "server_port": None}


@pytest.mark.processes
def test_a_fault_is_all_that_is_said() -> None:
    environment = {**os.environ, "GRADIO_SERVER_PORT": "abc"}
    for name, *command in (["app.py", "app.py"], ["genre-crnn page", "-m", "crnn", "page"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"{name}: GRADIO_SERVER_PORT must be a number from 1 to 65535, not 'abc'.\n"


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="its shell is another one")
def test_a_page_is_served_without_an_output(model: Path, tmp_path: Path) -> None:
    """By an address of IPv6 where there is one, at which the image looks whether it is well, too."""
    address, kind = ("::1", socket.AF_INET6) if has_ipv6() else ("127.0.0.1", socket.AF_INET)
    with socket.socket(kind) as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    given = {"GRADIO_SERVER_NAME": address, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(tmp_path / "up")}
    command = f"exec {shlex.quote(sys.executable)} app.py >&-"
    page = subprocess.Popen(
        command, shell=True, cwd=ROOT, env={**os.environ, **given}, stderr=subprocess.PIPE, text=True
    )
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    for _ in range(600):
        with suppress(httpx.TransportError):
            assert httpx.get(url, trust_env=False).status_code == 200
            break
        assert page.poll() is None, page.stderr.read()
        time.sleep(0.1)
    command = json.loads(re.search(r"^HEALTHCHECK .*\n +CMD (.*)$", (ROOT / "Dockerfile").read_text("utf-8"), re.M)[1])
    asked = subprocess.run([sys.executable, *command[1:]], env={**os.environ, **given}, check=False)
    page.terminate()
    said = page.communicate(timeout=60)[1]
    assert asked.returncode == 0
    assert page.returncode in (0, INTERRUPTED)
    assert "Traceback" not in said


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        return True
    return False
