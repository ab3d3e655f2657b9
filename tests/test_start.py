"""What starts without PyTorch: a second or two that --help has no use for."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from crnn.__main__ import COMMANDS
from crnn.machine import let_the_hub_be_silent

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "av", "pyarrow", "huggingface_hub", "tqdm")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys\nfrom crnn.__main__ import main\n"
        f"try: main([*{[name] if name else []}, '--help'])\n"
        f"except SystemExit: print('imported:', *[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {' '.join(['genre-crnn', name]).strip()} ")
    assert done.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize(
    ("start", "given", "level"),
    [
        ("import crnn.sources", None, "WARNING"),
        ("from crnn.__main__ import main; main(['missing.wav'])", None, "ERROR"),
        ("from crnn.__main__ import main; main(['missing.wav'])", "info", "INFO"),
        ("import app", None, "ERROR"),
        ("import runpy, sys; sys.argv[1:] = ['push']; runpy.run_path('train.py', run_name='__main__')", None, "ERROR"),
    ],
)
def test_the_client_of_the_hub_warns_in_other_programs_and_where_it_is_asked_to(
    start: str, given: str | None, level: str
) -> None:
    names = ("HF_HUB_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {} if given is None else {"HF_HUB_VERBOSITY": given}
    code = (
        f"import logging\ntry: {start}\nexcept SystemExit: pass\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "print(logging.getLevelName(logging.getLogger('huggingface_hub').level), are_progress_bars_disabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    is_program = start != "import crnn.sources"
    assert done.stdout.splitlines()[-1] == f"{level} {is_program}"  # standard error is no terminal here


def test_the_client_of_the_hub_has_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "HF_HUB_DISABLE_PROGRESS_BARS"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    let_the_hub_be_silent()
    assert name not in os.environ
    monkeypatch.setattr(sys, "stderr", None)
    let_the_hub_be_silent()
    assert os.environ.pop(name) == "1"


def test_help_names_the_other_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crnn", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in (*COMMANDS, "page", "train"):
        assert f"\n  {name} " in done.stdout
