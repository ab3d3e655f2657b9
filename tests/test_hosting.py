"""Hosting: a Space from this repository as it is, and the image for any other host."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from urllib.request import proxy_bypass_environment

import gradio as gr
import httpx
import pytest
import yaml
from hub_server import HubServer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import app
from crnn import bundle
from crnn.inference import GenreClassifier

ROOT = Path(__file__).parents[1]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens when the page starts, in order; it is not served."""
    happened = []
    monkeypatch.delenv(bundle.MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(gr.Blocks, "launch", lambda *_, **__: happened.append("launched"))
    return happened


def test_a_gpu_function_is_named_before_the_page_starts(launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What ZeroGPU insists on; it stays unused."""

    def gpu(function: Callable) -> Callable:
        assert function() is None
        launches.append("named")
        return function

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    assert app.main([]) == 0
    assert launches == ["named", "launched"]


def test_elsewhere_there_is_no_such_module(launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert app.main([]) == 0
    assert launches == ["launched"]


def test_a_host_chooses_the_model_and_a_missing_one_is_no_end(
    launches: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked, build = [], app.build_demo

    def build_demo(classifier: GenreClassifier, choice: bool) -> gr.Blocks:
        asked.append(classifier.origin)
        return build(classifier, choice)

    monkeypatch.setattr(app, "build_demo", build_demo)
    monkeypatch.setenv(bundle.MODEL_VARIABLE, "crnn-scratch")
    assert app.main([]) == 0
    monkeypatch.setenv(bundle.MODEL_VARIABLE, "no-such-model")
    assert app.main([]) == 0
    assert [origin.name for origin in asked] == ["crnn-scratch (bundled)", f"{bundle.DEFAULT_MODEL} (bundled)"]
    assert asked[0].notice is None
    assert asked[1].notice.startswith("There is no model 'no-such-model'")
    assert f"app.py: {asked[1].notice}\n" in capsys.readouterr().err


@pytest.mark.parametrize("excluded", [{}, {"NO_PROXY": "elsewhere.example"}, {"no_proxy": "elsewhere.example"}])
def test_no_proxy_is_asked_for_the_page_itself(
    excluded: dict[str, str], hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio asks its own page whether it is up, by httpx; what is excluded already stays so."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, excluded.get(name, ""))
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(httpx.ConnectError):
        httpx.head(hub.url)
    answers = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda *_, **__: answers.append(httpx.head(hub.url)))
    monkeypatch.delenv(bundle.MODEL_VARIABLE, raising=False)
    assert app.main([]) == 0
    assert len(answers) == 1
    assert proxy_bypass_environment("elsewhere.example") == bool(excluded)


def test_the_readme_configures_a_space() -> None:
    """With what the Hub takes, and with a Gradio that does not contradict requirements.txt."""
    front = yaml.safe_load((ROOT / "README.md").read_text("utf-8").split("---\n")[1])
    requirements = (ROOT / "requirements.txt").read_text("utf-8")
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert len(front["short_description"]) <= 60
    assert (ROOT / front["app_file"]).is_file()
    assert front["sdk"] == "gradio"
    least = re.search(r"^gradio>=([\d.]+),<7$", requirements, re.MULTILINE)[1]
    assert [*map(int, least.split("."))] <= [*map(int, front["sdk_version"].split("."))] < [7]
    assert re.fullmatch(r"3\.1[0-2]\.\d+", front["python_version"])


def locked(name: str, python_version: str) -> dict[str, str]:
    """Package to version of a lock file, for one Python on Linux."""
    text = (ROOT / name).read_text("utf-8")
    pins = re.findall(r"^([^\s#].*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE))
    environment = {
        "python_version": python_version,
        "python_full_version": f"{python_version}.9",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    asked = [Requirement(line) for line, _ in pins]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate(environment)]
    versions = {canonicalize_name(one.name): re.fullmatch(r"==(\S+)", str(one.specifier))[1] for one in asked}
    assert len(versions) == len(asked)
    return versions


@pytest.mark.parametrize("python_version", ["3.10", "3.11", "3.12"])
def test_the_locks_have_one_version_of_each_package_with_its_hashes(python_version: str) -> None:
    """Of those that requirements*.txt name, one that they allow; the page's are those that were tested."""
    versions = locked("requirements-dev.lock", python_version)
    assert locked("requirements.lock", python_version).items() <= versions.items()
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
        for asked in (Requirement(line) for line in lines if line and not line.startswith("-r")):
            assert versions[canonicalize_name(asked.name)] in asked.specifier, asked


def test_the_image_gets_what_the_page_needs_and_no_more(tmp_path: Path) -> None:
    """The page starts from these files alone, whatever proxy the environment names."""
    *_, rules = (ROOT / ".dockerignore").read_text("utf-8").partition("*\n")
    kept = [rule[1:] for rule in rules.splitlines() if rule.startswith("!")]
    left_out = [rule for rule in rules.splitlines() if not rule.startswith("!")]
    for path in (path for name in kept for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file()):
        name = path.relative_to(ROOT)
        if not any(fnmatch(str(place), rule) for place in (name, *name.parents) for rule in left_out):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(path.read_bytes())
    assert not (tmp_path / "tests").exists()
    assert not [*tmp_path.rglob("__pycache__")]
    code = "import app; from crnn import GenreClassifier as G; print(len(app.build_demo(G.from_pretrained()).config))"
    environment = {**os.environ, "ALL_PROXY": "socks5://127.0.0.1:9"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
