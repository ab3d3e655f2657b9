"""What starts without PyTorch: a second or two that --help has no use for."""

import subprocess
import sys
from pathlib import Path

import pytest

from crnn.__main__ import COMMANDS

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


def test_help_names_the_other_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crnn", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in (*COMMANDS, "page", "train"):
        assert f"\n  {name} " in done.stdout
