"""The notebook: what is stored of it, and that it runs from its first cell to its last on a few short sounds."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from crnn.data.features import DatasetError
from crnn.data.gtzan import checked_genres
from crnn.data.look import look_at
from crnn.decoding import Decoders
from crnn.training.options import parse_args, parse_recipe
from crnn.training.state import TrainingError
from crnn.web.uploads import OF_PAGES

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "train_on_gtzan.ipynb"
with_git = pytest.mark.skipif(not shutil.which("git"), reason="the notebook clones the repository, and there is no git")


class ThisPython(AsyncKernelManager):
    """Starts the kernel of the interpreter that runs the tests, whatever other kernels are installed."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


@pytest.fixture
def notebook() -> NotebookNode:
    """The notebook as it is stored."""
    return nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)


@pytest.fixture(autouse=True)
def own_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings of a person's Jupyter nor the network have a part in this."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "PIP_NO_INDEX"):
        monkeypatch.setenv(name, "1")


def code(source: str, name: str) -> NotebookNode:
    """A cell of one's own."""
    return nbformat.v4.new_code_cell(source, id=name)


def execute(notebook: NotebookNode, parameters: str, folder: Path) -> dict[str, NotebookNode]:
    """Run the cells in a folder, with other parameters; returns them by id."""
    [place] = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(place + 1, code(parameters, "other-parameters"))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_manager_class=ThisPython, resources=resources).execute()
    return {cell.id: cell for cell in notebook.cells}


def printed(cell: NotebookNode) -> str:
    """What a cell wrote."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_it_is_stored_without_results(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            compile(TransformerManager().transform_cell(cell.source), cell.id, "exec")


def test_colab_opens_it_with_a_gpu(notebook: NotebookNode) -> None:
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.kernelspec.name == "python3"


def test_from_songs_to_the_answer_for_a_new_one(
    notebook: NotebookNode,
    tone: Callable[..., np.ndarray],
    write_wav: Callable[[Path, np.ndarray], Path],
    tmp_path: Path,
) -> None:
    music, out = tmp_path / "music", tmp_path / "runs" / "first"
    for genre, hz in (("low", 100), ("high", 3_000)):
        (music / genre).mkdir(parents=True)
        for number in range(10):
            write_wav(music / genre / f"{number}.wav", tone(2.0, hz * (1 + number / 20)))
    song = write_wav(tmp_path / "new song.wav", tone(4.0, 110))
    paths = {"DATA": music, "CACHE": tmp_path / "data", "OUT": out, "SONG": song}
    parameters = [f"{name} = Path({str(path)!r})" for name, path in paths.items()]
    parameters += ["RECIPE = '--config scratch --epochs 2 --batch-size 4 --device cpu'", "LOOK_AT_TEST = True"]
    [train] = (cell for cell in notebook.cells if cell.id == "train")
    notebook.cells.append(code(train.source, "train-again"))
    cells = execute(notebook, "\n".join(parameters), NOTEBOOK.parent)

    assert printed(cells["set-up"]) == ""  # nothing is installed
    assert "execute_result" not in [output.output_type for output in cells["imports"].outputs]
    assert printed(cells["data"]) == f"{music}: 20 clips, 10 high, 10 low.\n"
    assert "20/20" in printed(cells["log-mels"])
    assert "{'train': 14, 'valid': 4, 'test': 2}" in printed(cells["split"])
    lines = printed(cells["train"]).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1", "2", "1", "2"]
    assert not any(line.startswith("test") for line in lines)
    assert printed(cells["validation"]).startswith("validation: 4 clips, accuracy ")
    assert printed(cells["test"]).startswith("test: 2 clips, accuracy ")
    answer, _, *shares = printed(cells["song"]).splitlines()
    assert answer.startswith((f"{song}: low", f"{song}: high", f"{song}: unsure"))
    assert {line.split()[1] for line in shares} == {"low", "high"}
    assert "model.safetensors" in printed(cells["publish"])
    assert "holds a finished training" in printed(cells["train-again"])

    pictures = Counter(
        cell.id for cell in cells.values() for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    )
    assert pictures == {"spectrograms": 1, "curves": 1, "validation": 2, "test": 2, "song-figures": 2}
    assert {path.name for path in out.iterdir()} == {
        "model",
        "validated",
        "metrics.json",
        "history.csv",
        "curves.png",
        "confusion-valid.png",
        "reliability-valid.png",
    }


def test_a_genre_of_one_clip_stops_it_before_anything_is_decoded(notebook: NotebookNode, tmp_path: Path) -> None:
    for name in ("rock/1.mp3", "rock/2.mp3", "jazz/1.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    [data] = (cell for cell in notebook.cells if cell.id == "data")
    given = {"Path": Path, "DATA": tmp_path, "ACCEPT": [], "look_at": look_at, "checked_genres": checked_genres}
    with pytest.raises(DatasetError, match="only one clip of jazz"):
        exec(data.source, given)


@with_git
def test_elsewhere_it_gets_the_code_once(notebook: NotebookNode, tmp_path: Path) -> None:
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    (repository / "crnn").mkdir(parents=True)
    elsewhere.mkdir()
    (repository / "crnn" / "__init__.py").write_text("")
    (repository / "requirements.txt").write_text("# nothing\n")
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *command], cwd=repository, check=True)

    [parameters, set_up] = (cell for cell in notebook.cells if cell.id in ("parameters", "set-up"))
    restarted = code(f"%cd {elsewhere}\n{set_up.source}", "restarted")
    again = code(set_up.source, "again")
    works = code("import crnn\nprint(crnn.__file__)", "works")
    notebook.cells = [parameters, set_up, works, again, restarted]
    cells = execute(notebook, f"REPOSITORY = {str(repository)!r}", elsewhere)
    assert "Cloning into" in printed(cells["set-up"])
    assert printed(works).strip() == str(elsewhere / "genre-crnn" / "crnn" / "__init__.py")
    assert printed(again) == ""  # it is in the checkout already
    assert "Cloning into" not in printed(restarted)
    assert "packages" in printed(restarted)  # installed, or found to be there


@with_git
def test_what_fails_on_the_way_to_the_code_is_said_and_tried_again(notebook: NotebookNode, tmp_path: Path) -> None:
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    (elsewhere / "genre-crnn.partial" / ".git").mkdir(parents=True)  # a clone that was killed
    [parameters, set_up] = (cell for cell in notebook.cells if cell.id in ("parameters", "set-up"))
    tries = [code(set_up.source, name) for name in ("no-repository", "no-package", "all-there")]
    for cell in tries[:2]:
        cell.metadata["tags"] = ["raises-exception"]
    make = f"!mkdir -p {repository}/crnn; cd {repository}; git init -q; touch crnn/__init__.py\n"
    make += f"!cd {repository}; echo no-such-package > requirements.txt; git add .; "
    make += "git -c user.name=a -c user.email=a@example.org commit -qm All"
    mend = code("!echo > genre-crnn/requirements.txt", "mend")
    where = code("print(Path.cwd())", "where")
    notebook.cells = [parameters, tries[0], code(make, "make"), tries[1], where, mend, tries[2]]
    cells = execute(notebook, f"REPOSITORY = {str(repository)!r}", elsewhere)
    errors = [output.evalue for cell in tries for output in cell.outputs if output.output_type == "error"]
    assert [error.partition(",")[0] for error in errors] == ["The code did not come", "Packages are missing"]
    assert printed(cells["where"]).strip() == str(elsewhere)
    assert {path.name for path in elsewhere.iterdir()} == {"genre-crnn"}


@pytest.mark.parametrize("option", ["--data music", "--split random", "--tensorboard --init crnn-scratch"])
def test_what_is_none_of_a_recipe_is_named(option: str) -> None:
    with pytest.raises(TrainingError, match=f"leave out {', '.join(re.findall(r'--[a-z]+', option))}\\."):
        parse_recipe(["--config", "scratch", *option.split()])
    options = "--config scratch --epochs 2 --patience 1 --no-refit --seed 3 --set pooling=mean --augment mixup=0"
    assert parse_recipe(options.split()) == parse_args(options.split())


def test_its_page_is_that_of_the_command(notebook: NotebookNode, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder for uploads and decoders of its own for as long as it is served."""
    served = []

    def serve(demo: gr.Blocks) -> None:
        [opener] = {fn.fn.__self__.classifier.opener for fn in demo.fns.values() if fn.api_name == "classify"}
        served.append((Path(gr.utils.get_upload_folder()).name, opener.__self__))

    monkeypatch.setattr(gr.Blocks, "launch", lambda *_, **__: None)
    monkeypatch.setattr(gr.Blocks, "block_thread", serve)
    [page] = (cell for cell in notebook.cells if cell.id == "page")
    exec(page.source, {"OPEN_PAGE": True, "OUT": model.parent})
    [(folder, decoders)] = served
    assert folder.startswith(OF_PAGES)
    assert isinstance(decoders, Decoders)


def test_without_an_address_it_asks_for_one(notebook: NotebookNode, tmp_path: Path) -> None:
    notebook.cells = [cell for cell in notebook.cells if cell.id in ("parameters", "set-up")]
    with pytest.raises(CellExecutionError, match="Give the address of the repository"):
        execute(notebook, "", tmp_path)
