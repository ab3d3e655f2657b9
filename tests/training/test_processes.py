"""Several processes that train together on the CPU; those that are stopped are started as a person would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from crnn.data.features import Features
from crnn.features import N_MELS
from crnn.network.model import CRNN
from crnn.training.options import parse_args, recipe_of
from crnn.training.processes import silent
from crnn.training.trainer import Trainer, TrainingConfig
from tests.training.test_fit import CONFIG, NO_AUGMENTATION, make_clips
from tests.training.thaw_worker import course
from tests.warm import ROOT, pair
from train import main

pytestmark = pytest.mark.processes

LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
NETWORK = ["channels=4,8", "mel_pools=8,4", "time_pools=4,2", "recurrent_size=8"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a short training on clips that are not easy to tell apart: their loudness differs more than their genres."""
    generator = torch.Generator().manual_seed(0)
    tracks = [f"{genre}/{number}" for genre in ("high", "low") for number in range(120)]
    log_mels = []
    for track in tracks:
        log_mel = -40 + 8 * torch.randn(N_MELS, 40, generator=generator)
        log_mel[64:] += (3 if track.startswith("high") else -3) + 3 * torch.randn((), generator=generator)
        log_mels.append(log_mel.clamp(-80, 0))
    path = tmp_path_factory.mktemp("features") / "features.npz"
    Features.from_log_mels(log_mels, tracks).save(path)
    training = ["--epochs", "5", "--batch-size", "15", "--lr", "0.01", "--accumulation", "2", "--no-refit"]
    changes = ["--members", "1", "--augment", "equaliser_db=0", "gain_db=0", "band_limit=0", "--set", *NETWORK]
    return ["--features", str(path), "--config", "scratch", "--device", "cpu", *training, *changes]


def launch(*arguments: str) -> subprocess.Popen:
    """Start `train.py` in two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *LAUNCHER, "train.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def finish(*arguments: str, script: str = "train.py") -> str:
    """What the first of two processes says, once both have ended well; they are told what a launcher tells them."""
    both = pair(*arguments, script=script)
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return said[0][0]


@pytest.fixture(scope="module")
def together(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a training in two processes."""
    out = tmp_path_factory.mktemp("together") / "run"
    return out, finish(*options, "--out", str(out))


def accuracy(out: Path) -> tuple[float, float]:
    """On the validation clips, and its standard error."""
    figures = json.loads((out / "metrics.json").read_text())["valid"]
    return figures["accuracy"], figures["accuracy_error"]


def test_two_processes_are_as_good_as_one(options: list[str], together: tuple[Path, str], tmp_path: Path) -> None:
    """To within the seeds and the error of so few clips."""
    alone = []
    for seed in ("1", "2", "3"):
        assert main([*options, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
        alone.append(accuracy(tmp_path / seed)[0])
    both, error = accuracy(together[0])
    assert min(alone) > 0.7  # where chance is 0.5
    assert min(alone) - error <= both <= max(alone) + error
    assert json.loads((together[0] / "metrics.json").read_text())["processes"] == 2


def test_one_of_them_speaks_and_knows_how_to_go_on(together: tuple[Path, str]) -> None:
    out, output = together
    lines = output.splitlines()
    resume = f"accelerate launch --multi_gpu --num_processes 2 train.py --resume {out}"
    assert lines[1] == f"If it is stopped, {resume}, launched as before, goes on."
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1", "2", "3", "4", "5"]
    assert sum(line.startswith("valid: ") for line in lines) == 1


def test_when_one_is_killed_all_end_and_go_on_to_the_same(
    options: list[str], together: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "broken"
    with launch(*options, "--out", str(out)) as process:
        while line := process.stdout.readline():
            if line.startswith("epoch   2"):
                break
        for child in psutil.Process(process.pid).children(recursive=True):
            if child.environ().get("RANK") == "1":
                child.kill()
        _, error = process.communicate(timeout=300)
    assert process.returncode != 0
    assert (
        "Another process of this training has ended" in error or "[rank0]" not in error
    )  # unless it was ended at once
    assert {path.name for path in out.iterdir()} == {"unfinished"}
    assert main(["--resume", str(out)]) == 2
    assert "processes 2 there, 1 here" in capsys.readouterr().err

    epochs = [line.split()[1] for line in finish("--resume", str(out)).splitlines() if line[:5] == "epoch"]
    assert epochs in (["3", "4", "5"], ["4", "5"])
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (out, together[0])]
    assert weights[0] == weights[1]


def test_pretrained_weights_rest_as_long_as_in_one(tmp_path: Path) -> None:
    """Also those whose gradients are missing in the epochs in which copies are heard instead."""
    script = str(Path(__file__).with_name("thaw_worker.py"))
    finish("0.5", str(tmp_path), script=script)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    alone = course(0.5, copies=2)
    assert {**alone, "sum": first["sum"]} == first


def test_what_stops_them_is_said_once(tmp_path: Path) -> None:
    with launch("--features", str(tmp_path / "nowhere.npz"), "--device", "cpu") as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode != 0
    assert error.count("train.py: There is no feature file") == 1
    assert "[rank" not in error


def test_the_parts_of_a_batch_add_up_to_its_gradient() -> None:
    given = []
    for parts in (1, 3):
        torch.manual_seed(0)
        config = TrainingConfig(epochs=1, batch_size=8, lr=1e-2, ema_decay=0.5, accumulation=parts, outlier_share=0.0)
        trainer = Trainer(CRNN(CONFIG), make_clips(8), config, NO_AUGMENTATION)
        trainer.model.eval()  # normalise by the same numbers whatever the parts
        before = trainer.model.members[0].classifier.linear.weight.clone()
        loss, hits, seen = trainer.step(torch.arange(8)).tolist()
        assert seen == 8
        assert not torch.equal(trainer.model.members[0].classifier.linear.weight, before)
        given.append((loss, hits, {name: value.grad for name, value in trainer.model.named_parameters()}))
    (loss, hits, one), (other_loss, other_hits, three) = given
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert other_hits == hits
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("size", "n_processes"), [(8, 2), (7, 2), (7, 3), (2, 4)])
def test_processes_share_a_batch_evenly(size: int, n_processes: int) -> None:
    config = TrainingConfig(epochs=1, batch_size=8, lr=1e-2, ema_decay=0.5, outlier_share=0.0)
    trainer = Trainer(CRNN(CONFIG), make_clips(8), config, NO_AUGMENTATION)
    trainer.n_processes = n_processes
    shares = []
    for trainer.rank in range(n_processes):
        shares.append(trainer.share(torch.arange(size)).tolist())
    assert len(set(map(len, shares))) == 1
    assert set().union(*shares) == set(range(size))
    assert sum(map(len, shares)) < size + n_processes


def test_the_launcher_decides_precision_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    training = recipe_of(parse_args([])).training
    assert (training.precision, training.accumulation) == ("bfloat16", 4)
    training = recipe_of(parse_args(["--precision", "float32", "--accumulation", "2"])).training
    assert (training.precision, training.accumulation) == ("float32", 2)


@pytest.mark.parametrize(
    ("name", "value", "arguments", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp16", [], "There is no training in fp16 here"),
        ("WORLD_SIZE", "2", ["compare", "nowhere"], "Only a training can be launched in several processes"),
    ],
)
def test_what_cannot_be_launched_is_a_sentence(
    name: str,
    value: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv(name, value)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_others_are_silent(capsys: pytest.CaptureFixture) -> None:
    with silent(True):
        print("twice")
    with silent(False):
        print("once")
    assert capsys.readouterr().out == "once\n"
