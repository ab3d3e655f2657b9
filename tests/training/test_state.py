"""The saved state of a training: whole or as it was, its own or refused."""

import errno
import os
from pathlib import Path

import pytest
import torch

from crnn.training.state import TrainingError, differences, random_state, read_state, set_random_state, write_state

SETTINGS = {"model": {"channels": (4, 8)}, "training": {"epochs": 3}, "training clips": "a" * 64}
STATE = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "history": [{"epoch": 1, "valid_loss": None}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_state(tmp_path / "run" / "train.pt", SETTINGS, STATE)
    return tmp_path / "run" / "train.pt"


def test_what_was_written_is_read(path: Path) -> None:
    state = read_state(path, SETTINGS)
    assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
    assert state["history"] == STATE["history"]
    assert [file.name for file in path.parent.iterdir()] == ["train.pt"]


def test_at_first_there_is_none(tmp_path: Path) -> None:
    assert read_state(tmp_path / "train.pt", SETTINGS) is None


def test_other_settings_are_named(path: Path) -> None:
    others = {**SETTINGS, "training": {"epochs": 5}, "training clips": "b" * 64}
    with pytest.raises(TrainingError, match=r"\(epochs 3 there, 5 here, other training clips\)"):
        read_state(path, others)


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ({"base": {"name": "model (folder)", "weights": "a" * 64}}, {}, "base model (folder) there, none here"),
        ({}, {"base": {"name": "model (folder)", "weights": "a" * 64}}, "base none there, model (folder) here"),
        ({"genres": ("blues", "hip hop")}, {"genres": ["jazz"]}, "genres blues,hip hop there, jazz here"),
        ({"training clips": None}, {"training clips": "a" * 64}, "other training clips"),
        ({"training": {}}, {"training": {"patience": None, "lr": 0.1}}, "lr none there, 0.1 here"),
    ],
)
def test_what_differs_is_told_in_words(there: dict, here: dict, said: str) -> None:
    assert ", ".join(text for _, text in differences(there, here)) == said


def test_another_device_is_noticed_and_no_obstacle(path: Path) -> None:
    settings = {**SETTINGS, "training": {"epochs": 3, "device": "cuda", "precision": "bfloat16"}}
    write_state(path, settings, STATE)
    here = {**SETTINGS, "training": {"epochs": 3, "device": "cpu", "precision": "float32"}}
    notices = []
    assert read_state(path, here, notices.append)["history"] == STATE["history"]
    assert notices == [
        "It goes on elsewhere than it began (device cuda there, cpu here, precision bfloat16 there, float32 here), so "
        "that it comes to about the same, not to the bit."
    ]
    read_state(path, settings, notices.append)
    assert len(notices) == 1
    here["training"]["epochs"] = 5
    with pytest.raises(TrainingError, match=r"\(epochs 3 there, 5 here\)"):
        read_state(path, here, notices.append)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_damaged_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(path, SETTINGS)


@pytest.mark.parametrize("keep", [5_000, 12_000, 20_000, 50_000, 100_000])
def test_a_long_file_that_is_cut_is_refused(path: Path, keep: int) -> None:
    """Where PyTorch looks for its end before its beginning."""
    write_state(path, SETTINGS, {"model": {f"weight {n}": torch.rand(500) for n in range(50)}, "history": []})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(path, SETTINGS)


@pytest.mark.parametrize("content", [[SETTINGS], torch.zeros(3)])
def test_a_state_of_another_kind_is_damaged(path: Path, content: object) -> None:
    torch.save(content, path)
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(path, SETTINGS)


def test_a_file_that_cannot_be_read_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises((IsADirectoryError, PermissionError)):
        read_state(tmp_path, SETTINGS)


class Thief:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("stolen",)


def test_nothing_is_unpickled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({"settings": SETTINGS, "model": Thief()}, path)
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(path, SETTINGS)
    assert not (path.parent / "stolen").exists()


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_earlier_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = path.read_bytes()
    monkeypatch.setattr(*(os, "fsync") if fails == "fsync" else (Path, "replace"), fail)
    with pytest.raises(type(error)):
        write_state(path, SETTINGS, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["train.pt"]


def test_generators_of_devices_that_are_not_here_are_left_out() -> None:
    states = random_state("cpu")
    expected = torch.rand(4)
    set_random_state({**states, "cuda:99": torch.zeros(16, dtype=torch.uint8)})
    assert torch.equal(torch.rand(4), expected)


def test_randomness_goes_on_as_it_would_have() -> None:
    states = random_state("cpu")
    expected = torch.rand(4)
    set_random_state(states)
    assert torch.equal(torch.rand(4), expected)
