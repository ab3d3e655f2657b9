"""Imports go where docs/architecture.md says, and nowhere else."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(
    r"^    ([a-z_.]+)( +[a-z_ ]+)?$",
    (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Who may import whom")[2].partition("##")[0],
    re.MULTILINE,
)
ALLOWED = {room: set(others.split()) for room, others in ROWS}


def sources() -> Iterator[tuple[Path, str]]:
    """Every source file of the program and its room."""
    for name in ("app.py", "train.py"):
        yield ROOT / name, name
    for path in (ROOT / "crnn").rglob("*.py"):
        yield path, path.relative_to(ROOT / "crnn").parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The full names of what a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_imports_only_what_the_table_allows() -> None:
    for path, room in sources():
        for name in imported(path):
            package, _, inner = name.partition(".")
            assert package not in ("app", "train", "tests"), f"{path} imports {name}"
            if package == "crnn":
                other = inner.partition(".")[0]
                assert other in ALLOWED[room] | {room}, f"{path} imports {name}; docs/architecture.md does not allow it"


def test_the_table_has_no_circles_and_only_rooms_that_exist() -> None:
    assert ALLOWED.keys() == {room for _, room in sources()}
    above = set()
    for room, others in ALLOWED.items():
        assert others <= above, f"{room} imports what does not stand above it"
        above.add(room)


def test_modules_have_no_circles_within_a_room_either() -> None:
    """Wherever they import: one that a function puts off is one all the same."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path, _ in sources()}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    order = TopologicalSorter()
    for module, path in modules.items():
        named = ((name, name.rpartition(".")[0]) for name in imported(path))
        others = {next((name for name in pair if name in modules), module) for pair in named}
        order.add(module, *others - {module})
    order.prepare()  # raises CycleError


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "assets/examples"])
def test_what_stands_beside_the_program_imports_what_is_there(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for name in filter(re.compile(r"crnn\.").match, imported(path)):
            module, _, attribute = name.rpartition(".")
            found = importlib.import_module(module)
            is_module = hasattr(found, "__path__") and importlib.util.find_spec(name)
            assert hasattr(found, attribute) or is_module, f"{path} imports {name}"


def test_gradio_stays_at_the_door() -> None:
    doors = {path.relative_to(ROOT).as_posix() for path, _ in sources() if any(map(is_gradio, imported(path)))}
    assert doors == {"app.py", "crnn/web/handlers.py", "crnn/web/server.py", "crnn/web/turns.py"}


def is_gradio(name: str) -> bool:
    """Whether it belongs to the package."""
    return name.partition(".")[0] == "gradio"
