"""What the environment says before the page is there: a sentence, or nothing that matters."""

import os
import shlex
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import proxy_bypass_environment

import httpx
import pytest

from crnn.bundle import ROOT
from crnn.terminal import INTERRUPTED
from crnn.web.environment import WITHOUT_PROXY, fault


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("GRADIO_SERVER_PORT", "abc", "GRADIO_SERVER_PORT must be a number from 1 to 65535, not 'abc'."),
        ("GRADIO_SERVER_PORT", "", "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_SERVER_PORT", "99999", "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_SERVER_PORT", "9" * 5_000, "GRADIO_SERVER_PORT must be a number"),
        ("GRADIO_NUM_PORTS", "-1", "GRADIO_NUM_PORTS must be a number"),
        ("ALL_PROXY", "socks4://127.0.0.1:9", "A proxy that the environment names cannot be used (ALL_PROXY"),
    ],
)
def test_what_cannot_be_is_named(name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert fault().startswith(sentence)


def test_what_is_usual_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7860")
    monkeypatch.setenv("MPLBACKEND", "nonsense")
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


@pytest.mark.processes
def test_a_fault_is_all_that_is_said() -> None:
    environment = {**os.environ, "GRADIO_SERVER_PORT": "abc"}
    for command in (["app.py"], ["-m", "crnn", "page"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "app.py: GRADIO_SERVER_PORT must be a number from 1 to 65535, not 'abc'.\n"


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="its shell is another one")
def test_a_training_starts_whatever_is_closed_or_shows_figures() -> None:
    command = f"exec {shlex.quote(sys.executable)} train.py compare nowhere >&-"
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: ")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="its shell is another one")
def test_a_page_is_served_without_an_output(model: Path, tmp_path: Path) -> None:
    """By an address of IPv6 where there is one."""
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
    page.terminate()
    said = page.communicate(timeout=60)[1]
    assert page.returncode in (0, INTERRUPTED)
    assert "Traceback" not in said


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        return True
    return False
