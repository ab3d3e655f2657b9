"""The wheel, built and installed where the repository is out of sight."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are run, with `bin/` beside it: a fresh environment that borrows the packages of this one."""
    place = tmp_path_factory.mktemp("installed")
    build = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run([*PIP, *build], check=True)
    (wheel,) = place.glob("genre_crnn-*.whl")
    venv.create(place / "venv", symlinks=os.name == "posix")
    python = place / "venv" / "bin" / "python"
    subprocess.run([*PIP, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / "elsewhere").mkdir()
    return place / "elsewhere"


def run(folder: Path, program: str, *arguments: str) -> str:
    """What a program of the fresh environment prints; it has to succeed."""
    command = [str(folder.parent / "venv" / "bin" / program), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_answers_with_the_bundled_models(folder: Path) -> None:
    song = ROOT / "assets" / "examples" / "metal.mp3"
    for model in ("crnn-scratch", "crnn-transfer"):
        assert re.match(
            re.escape(str(song)) + r": .*metal \d+%", run(folder, "genre-crnn", "--model", model, str(song))
        )


def test_the_other_programs_are_there(folder: Path) -> None:
    assert "usage: genre-crnn page" in run(folder, "genre-crnn", "page", "--help")
    assert "usage: genre-crnn train compare" in run(folder, "genre-crnn", "train", "compare", "--help")


def test_the_page_finds_its_parts(folder: Path) -> None:
    code = (
        "from crnn.__main__ import script; from crnn import GenreClassifier, bundle; app = script('app.py');"
        "print(bundle.ROOT, len(app.build_demo(GenreClassifier.from_pretrained('crnn-scratch')).config) > 0)"
    )
    assert re.match(rf"{folder.parent / 'venv'}.*/crnn/bundled True", run(folder, "python", "-c", code))


def test_what_it_needs_is_what_requirements_txt_says(folder: Path) -> None:
    code = "from importlib.metadata import requires; print('\\n'.join(requires('genre-crnn')))"
    needed = {
        re.match(r"[\w-]+", line)[0].lower()
        for line in run(folder, "python", "-c", code).splitlines()
        if ";" not in line
    }
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    listed = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in lines if line and line[0] != "#"}
    assert needed == listed


def test_it_names_the_licence_of_each_example_and_has_every_notice(folder: Path) -> None:
    code = (
        "from importlib.metadata import files, metadata; about = metadata('genre-crnn');"
        "print(about['License-Expression'], *about.get_all('License-File'), *files('genre-crnn'), sep='\\n')"
    )
    expression, *lines = run(folder, "python", "-c", code).splitlines()
    names = {licence.removesuffix("-or-later").removesuffix(".0") for licence in expression.split(" AND ")}
    credits_ = json.loads((ROOT / "assets/examples/credits.json").read_text("utf-8")).values()
    used = {credit.rpartition(", ")[2].replace(" ", "-").removesuffix(".0") for credit in credits_}
    assert used | {"MIT", "ISC", "CC0-1", "CC-BY-4"} == names
    notices = [ROOT / "LICENSE", ROOT / "assets/examples/README.md", *(ROOT / "assets/examples/licences").iterdir()]
    notices += [path for name in ("NOTICE*", "LICEN[CS]E*") for path in (ROOT / "assets").rglob(name)]
    for name in (path.relative_to(ROOT).as_posix() for path in notices):
        assert name in lines
        assert any(line.endswith(f".dist-info/licenses/{name}") for line in lines)
