"""Genres left out, and the border of "unsure" that comes from them."""

import errno
import json
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from crnn.audio import SAMPLE_RATE
from crnn.checkpoint import read, save
from crnn.data.heard import joined
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import load_checkpoint
from crnn.training.card import answered_of_left_out
from crnn.training.crossval import Answers, read_answers
from crnn.training.metrics import Calibration, fit_among_strangers, is_answered, mean_probabilities
from crnn.training.state import TrainingError
from crnn.training.strangers import fit_borders
from train import main

ROOT = Path(__file__).parents[2]
GENRES = ("blues", "metal", "jazz")
SMALL = {"channels": (2, 2), "mel_pools": (16, 8), "time_pools": (2, 2), "recurrent_size": 2, "window_frames": 48}


def answers(genres: tuple[str, ...], truths: list[str], margins: list[float], wrong: int = 0) -> Answers:
    """Each clip as sure as its margin of its own genre, or of the first where that is unknown; some of the next one."""
    rows = []
    for number, (truth, margin) in enumerate(zip(truths, margins, strict=True)):
        place = genres.index(truth) if truth in genres else 0
        row = torch.zeros(1, len(genres))
        row[0, (place + (number < wrong)) % len(genres)] = margin
        rows.append(row)
    return Answers(genres, truths, rows, 1.0)


@pytest.fixture
def model() -> CRNN:
    return CRNN(CRNNConfig(genres=GENRES, **SMALL))


def drawn(n: int, labels: np.ndarray | None, seed: int) -> list[torch.Tensor]:
    """Logits of clips of one window, larger for their genre if they have one."""
    logits = 1.5 * np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    if labels is not None:
        logits[np.arange(n), labels] += 3
    return list(torch.from_numpy(logits)[:, None])


@pytest.mark.parametrize("offset", [0.0, -4.0])
def test_unknown_songs_raise_the_borders_by_their_share(offset: float) -> None:
    """If all logits of theirs are lower, the energy tells them apart, which probabilities cannot."""
    labels = np.random.default_rng(0).integers(3, size=900)
    logits, strange = drawn(900, labels, 1), [clip + offset for clip in drawn(900, None, 2)]
    shares = []
    for share in (0.0, 0.2, 0.5):
        calibration = fit_among_strangers(logits, labels, [strange[n::10] for n in range(10)], share, 0.1)
        answered, taken = is_answered(logits, calibration), is_answered(strange, calibration)
        is_right = mean_probabilities(logits, calibration.temperature).argmax(axis=1) == labels
        right = (1 - share) * (answered & is_right).mean()
        assert right / ((1 - share) * answered.mean() + share * taken.mean()) >= 0.9
        shares.append(answered.mean())
    assert shares[0] > 0.75
    assert shares == sorted(shares, reverse=True)
    assert (shares[2] > 0.75) == (offset < 0)


def test_the_risk_is_kept_among_other_songs_and_other_genres() -> None:
    """Some genres left out look more like known ones than others do; those that will come are not these ten."""
    kept = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        labels = generator.integers(3, size=2300)
        clips, left_out = drawn(2300, labels, 100 + seed), []
        for number, offset in enumerate(generator.normal(-1, 1.5, size=50).tolist()):
            left_out.append([clip + offset for clip in drawn(40, None, 1000 * seed + number)])
        calibration = fit_among_strangers(clips[:300], labels[:300], left_out[:10], 0.2, 0.1)
        answered, taken = (is_answered(songs, calibration) for songs in (clips[300:], [*chain(*left_out[10:])]))
        is_right = mean_probabilities(clips[300:], calibration.temperature).argmax(axis=1) == labels[300:]
        kept.append(0.8 * (answered & is_right).mean() >= 0.9 * (0.8 * answered.mean() + 0.2 * taken.mean()))
        assert answered.mean() > 0.2
    assert np.mean(kept) >= 0.8  # where it is kept on these clips and genres alone, it is in four of ten


def test_a_few_that_are_all_right_are_no_proof() -> None:
    """The surest four of 600 are right, and of the others, as sure as each other, two thirds."""
    labels = np.zeros(600, int)
    clips = [torch.tensor([[9.0, 0.0, 0.0]])] * 4 + [
        torch.tensor([[0.0, 3.0, 0.0] if n % 3 else [3.0, 0.0, 0.0]]) for n in range(596)
    ]
    calibration = fit_among_strangers(clips, labels, [[torch.zeros(1, 3)] * 5] * 10, 0.0, 0.1)
    assert calibration.unsure_below > 1


def test_genres_left_out_count_alike_also_in_what_is_said_of_them() -> None:
    rows = {"blues": {"n": 500, "answered": 0.4}, "jazz": {"n": 20, "answered": 0.0}}
    assert answered_of_left_out({"unknown": rows}) == 0.2


def test_the_border_is_above_what_a_genre_left_out_is_taken_for(model: CRNN) -> None:
    known = answers(GENRES, ["blues", "metal", "jazz"] * 60, [8.0] * 90 + [2.0] * 90)
    unknown = [answers(GENRES[1:], ["blues"] * 20, [4.0] * 20), answers(GENRES[:2], ["jazz"] * 20, [1.0] * 20)]
    figures = fit_borders(model, [known, *unknown], 0.2, 0.1)
    assert figures["unknown"] == {"blues": {"n": 20, "answered": 0.0}, "jazz": {"n": 20, "answered": 0.0}}
    assert figures["known"] == {"n": 180, "answered": 0.5, "answered_right": 1.0}
    assert model.config.unsure_below == figures["unsure_below"]
    assert model.config.temperature == figures["temperature"]


def test_where_no_threshold_keeps_the_risk_nothing_is_answered_and_that_is_said(
    folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Strangers are what it is surest of, as sure as there is."""
    genres = read(folder, "").config.genres
    left_out = [answers((*genres[:n], *genres[n + 1 :]), [genres[n]] * 5, [99.0] * 5) for n in range(10)]
    loud = write(tmp_path / "loud", left_out)
    assert main(["calibrate", "--model", str(folder), validations[0], str(loud)]) == 0
    kept = "keeps 90% of its answers right with a confidence of 95%, so that it gives none"
    assert f"No threshold {kept}: a larger --risk may." in capsys.readouterr().out
    model, card = read(folder, ""), (folder / "README.md").read_text()
    assert f"no threshold {kept}." in card
    assert "90% of its answers are right" not in card
    calibration = Calibration.of(model.config)
    assert not is_answered([clip for fold in left_out for clip in fold.logits], calibration).any()
    assert not is_answered(read_answers(Path(validations[0]))[0].logits, calibration).any()


def test_a_larger_risk_is_advised_only_where_there_is_one(
    folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    genres = read(folder, "").config.genres
    wrong = write(tmp_path / "wrong", [answers(genres, list(genres), [8.0] * 10, wrong=10)])
    assert main(["calibrate", "--model", str(folder), str(wrong), validations[1], "--risk", "1"]) == 0
    assert "so that it gives none.\n" in capsys.readouterr().out


def test_some_songs_are_of_known_genres(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["calibrate", "--model", "run", "one", "--unknown", "1"])
    assert "--unknown: 1 leaves no songs of the genres that the model knows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([answers(GENRES, list(GENRES), [1.0] * 3)], "lack one with --groups genre"),
        ([answers(GENRES[:2], ["jazz"], [1.0])], "lack one with --groups artist"),
        ([answers(("blues", "polka"), ["blues"], [1.0])], "must be of clips of the model's genres, blues, metal, jazz"),
    ],
)
def test_answers_that_say_nothing_are_refused(given: list[Answers], message: str, model: CRNN) -> None:
    with pytest.raises(TrainingError, match=message):
        fit_borders(model, given, 0.2, 0.1)


def write(folder: Path, folds: list[Answers]) -> Path:
    """A finished cross-validation, of the recipe of the bundled model."""
    folder.mkdir()
    recipe = json.loads((ROOT / "assets" / "models" / "crnn-scratch" / "metrics.json").read_text())["recipe"]
    (folder / "metrics.json").write_text(json.dumps({"recipe": recipe, "held_out": ""}))
    n_folds = len(folds) if set(folds[0].truths) <= set(folds[0].genres) else "genres"
    (folder / "settings.json").write_text(json.dumps({"folds": n_folds}))
    for number, fold in enumerate(folds, start=1):
        np.savez(
            folder / f"fold-{number}.npz",
            logits=torch.cat(fold.logits).numpy(),
            windows=[len(clip) for clip in fold.logits],
            genres=fold.genres,
            truths=fold.truths,
            seconds=fold.seconds,
        )
    return folder


def note(folder: str | Path, **changes: object) -> None:
    """Change the record of a cross-validation."""
    record = Path(folder) / "metrics.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model."""
    return Path(shutil.copytree(ROOT / "assets" / "models" / "crnn-scratch", tmp_path / "crnn-scratch"))


@pytest.fixture
def validations(folder: Path, tmp_path: Path) -> list[str]:
    """Cross-validations that speak for its calibration."""
    genres = read(folder, "").config.genres
    known = write(tmp_path / "known", [answers(genres, list(genres) * 20, [8.0] * 100 + [2.0] * 100, wrong=5)])
    left_out = [answers((*genres[:n], *genres[n + 1 :]), [genres[n]] * 5, [4.0] * 5) for n in range(10)]
    return [str(known), str(write(tmp_path / "unknown", left_out))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_calibrate_writes_model_card_and_record(
    folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    former = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(former | {"test": former["valid"]}))
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    printed = capsys.readouterr().out
    assert "of 200 clips of the genres it knows 50.0% are answered, 95.0% of these right" in printed
    assert "test figures of the earlier thresholds are gone" in printed
    assert f"python train.py evaluate --model {folder} --split test, with the data of its training" in printed
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert "are gone" not in capsys.readouterr().out
    record = json.loads((folder / "metrics.json").read_text())
    config = load_checkpoint(folder)[0].config
    assert (config.temperature, config.unsure_below, config.strange_below) == tuple(
        record["calibration"][key] for key in ("temperature", "unsure_below", "strange_below")
    )
    card = (folder / "README.md").read_text()
    assert "come from 200 clips held out in" in card
    assert "95% of its answers are right, and 90% or more with a confidence of 95%.\n  It answered 50% of" in card
    assert (folder / "model.safetensors").read_bytes() == weights

    assert main(["calibrate", "--model", str(folder), str(tmp_path)]) == 2
    assert "holds no finished cross-validation" in capsys.readouterr().err
    (folder / "metrics.json").unlink()
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert "has no metrics.json" in capsys.readouterr().err


def test_the_card_says_how_many_answers_are_right_and_not_how_many_had_to_be(
    folder: Path, validations: list[str]
) -> None:
    """All is answered: of four fifths of the songs 97.5 % right, of the rest none."""
    assert main(["calibrate", "--model", str(folder), *validations, "--risk", "0.3"]) == 0
    card = (folder / "README.md").read_text()
    assert "78% of its answers are right, and 70% or more with a confidence of 95%.\n  It answered 100% of" in card


def test_cross_validations_of_another_front_are_refused(
    folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    note(validations[1], recipe={"front": "musicnn"})
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert "models with the front musicnn" in capsys.readouterr().err


def test_cross_validations_of_another_recipe_are_told(
    folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    recipe = json.loads((folder / "metrics.json").read_text())["recipe"]
    others = recipe | {"members": 1, "training": recipe["training"] | {"epochs": 2, "device": "mps"}}
    for path, noted in zip(validations, (recipe, others), strict=True):
        note(path, recipe=noted)
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    told = "were made otherwise: members 1 there, 3 here; epochs 2 there, 150 here."
    assert told in capsys.readouterr().err
    assert "otherwise than this one: members 1 there, 3 here; epochs" in (folder / "README.md").read_text()
    note(validations[1], recipe=recipe | {"base": {"name": "runs/a/model (folder)", "weights": "a" * 64}})
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert "made otherwise: base runs/a/model (folder) there, none here." in capsys.readouterr().err
    note(validations[1], recipe=recipe)
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert "otherwise" not in capsys.readouterr().err + (folder / "README.md").read_text()


def test_a_card_that_was_edited_is_kept_beside_the_new_one(
    folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    (folder / "README.md.bak").unlink(missing_ok=True)
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert not (folder / "README.md.bak").exists()
    card = (folder / "README.md").read_text() + "\nMy own words.\n"
    (folder / "README.md").write_text(card)
    capsys.readouterr()
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert f"stands in {folder / 'README.md.bak'}" in capsys.readouterr().out
    assert (folder / "README.md.bak").read_text() == card
    assert "My own words" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("content", [b"x" * 300_000, b"caf\xe9\n"])
def test_whatever_card_was_there_is_kept_as_it_was_and_nothing_that_was_kept_before_is_lost(
    content: bytes, folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    (folder / "README.md.bak").write_text("Of somebody.")
    for name in ("README.md.bak2", "README.md.bak3"):
        (folder / "README.md").write_bytes(content)
        assert main(["calibrate", "--model", str(folder), *validations]) == 0
        assert f"stands in {folder / name}" in capsys.readouterr().out
        assert (folder / name).read_bytes() == content
    assert (folder / "README.md.bak").read_text() == "Of somebody."


def test_a_card_that_is_a_link_is_kept_as_one(folder: Path, validations: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("My own words.")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "mine.md")
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert (folder / "README.md.bak").readlink() == tmp_path / "mine.md"
    assert (tmp_path / "mine.md").read_text() == "My own words."
    assert "calibrat" in (folder / "README.md").read_text()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_card_is_where_it_was_if_the_model_cannot_be_written(
    error: BaseException,
    folder: Path,
    validations: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    (folder / "README.md").write_text("My own words.")
    before = contents(folder)
    monkeypatch.setattr(CRNN, "save_pretrained", stop)
    assert main(["calibrate", "--model", str(folder), *validations]) != 0
    assert contents(folder) == before


@pytest.mark.parametrize("content", [b"x" * 300_000, None])
def test_a_notice_that_cannot_be_kept_is_not_written_over(
    content: bytes | None, folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nor does it matter to a model of no published nets, which writes none."""
    of_others = Path(shutil.copytree(ROOT / "assets" / "models" / "crnn-transfer", tmp_path / "crnn-transfer"))
    (tmp_path / "elsewhere").write_text("Of somebody else.")
    for place in (folder / "NOTICE", of_others / "NOTICE"):
        place.unlink(missing_ok=True)
        if content:
            place.write_bytes(content)
        else:
            place.symlink_to(tmp_path / "elsewhere")
    before = contents(of_others)
    recipes = [json.loads((place / "metrics.json").read_text())["recipe"] for place in (of_others, folder)]
    for path in validations:
        note(path, recipe=recipes[0])
    assert main(["calibrate", "--model", str(of_others), *validations]) == 2
    assert str(of_others / "NOTICE") in capsys.readouterr().err
    assert contents(of_others) == before
    notice = contents(folder)["NOTICE"]
    for path in validations:
        note(path, recipe=recipes[1])
    assert main(["calibrate", "--model", str(folder), *validations]) == 0
    assert contents(folder)["NOTICE"] == notice
    assert (folder / "NOTICE").is_symlink() == (not content)


def test_no_clip_is_counted_twice(
    folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Not those of a folder that is named twice, nor those of two ways to fold the same clips."""
    before, genres = contents(folder), read(folder, "").config.genres
    calibrate = ["calibrate", "--model", str(folder), *validations]
    assert main([*calibrate, str(tmp_path / "unknown" / ".." / "known")]) == 2
    assert f"{validations[0]} is there twice" in capsys.readouterr().err
    apart = write(tmp_path / "apart", [answers(genres, list(genres) * 5, [5.0] * 50) for _ in range(2)])
    again = shutil.copytree(validations[1], tmp_path / "again")
    for path, record in (
        (validations[0], "AAAAAAA="),
        (apart, "AAAAAAABAQEBAQ=="),
        (validations[1], "AgICAgI="),
        (again, "AgICAgI="),
    ):
        note(path, held_out=record)
    assert main([*calibrate, str(apart)]) == 2
    assert f"{validations[0]} and {apart} held out 1 of the same clips" in capsys.readouterr().err
    assert main([*calibrate, str(again)]) == 2
    assert f"{validations[1]} and {again} held out 1 of the same clips" in capsys.readouterr().err
    assert contents(folder) == before

    note(apart, held_out="AgICAgI=")
    assert main([*calibrate, str(apart)]) == 0
    assert "of 300 clips of the genres it knows" in capsys.readouterr().out
    record = json.loads((folder / "metrics.json").read_text())
    assert record["calibration"]["held_out"] == joined(["AAAAAAA=", "AgICAgI="])


@pytest.mark.parametrize("missing", ["known/fold-1.npz", "unknown/fold-4.npz", "unknown/fold-10.npz"])
def test_a_cross_validation_that_lacks_a_fold_is_refused(
    missing: str, folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = contents(folder)
    (tmp_path / missing).unlink()
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert "holds no finished cross-validation" in capsys.readouterr().err
    assert contents(folder) == before


def test_a_folder_with_the_name_of_a_bundled_model_is_itself(
    folder: Path, validations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read(folder, "")
    with torch.no_grad():
        next(model.parameters()).zero_()
    save(model, folder, card="")
    weights = (folder / "model.safetensors").read_bytes()
    monkeypatch.chdir(folder.parent)
    assert main(["calibrate", "--model", f"./{folder.name}", *validations]) == 0
    assert (folder / "model.safetensors").read_bytes() == weights


def test_a_full_disk_leaves_the_model_as_it_was(
    folder: Path, validations: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(folder)
    monkeypatch.setattr(os, "fsync", full)
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert "(No space left on device); it stays as it was." in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("file", ["crnn-scratch/metrics.json", "known/settings.json", "unknown/metrics.json"])
def test_a_damaged_record_is_no_traceback(
    file: str, folder: Path, validations: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / file).write_text(400_000 * "[")
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("changes", [{"recipe": None}, {"recipe": {}}, {"held_out": None}])
def test_a_cross_validation_has_to_say_how_and_of_which_clips(
    changes: dict, folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    """Else a clip might count twice, or energies of another front."""
    note(validations[1], **changes)
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert f"{validations[1]} holds no finished cross-validation" in capsys.readouterr().err


@pytest.mark.parametrize("record", ["[]", "{}"])
def test_a_record_of_something_else_is_a_sentence(
    record: str, folder: Path, validations: list[str], capsys: pytest.CaptureFixture
) -> None:
    (folder / "metrics.json").write_text(record)
    before = contents(folder)
    assert main(["calibrate", "--model", str(folder), *validations]) == 2
    assert "is not what a training writes" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.processes
def test_each_genre_is_left_out_once(tmp_path: Path) -> None:
    """Of folders of genres, as the README has it, whose artists nobody has to know."""
    random = np.random.default_rng(0)
    for genre in GENRES:
        (tmp_path / "music" / genre).mkdir(parents=True)
        for number in range(4):
            path = tmp_path / "music" / genre / f"{number}.wav"
            soundfile.write(path, random.normal(0, 0.1, 3 * SAMPLE_RATE), SAMPLE_RATE)
    network = [f"{name}={str(value).strip('()').replace(' ', '')}" for name, value in SMALL.items()]
    options = ["--data", str(tmp_path / "music"), "--out", str(tmp_path / "out")]
    options += ["--groups", "genre", "--config", "scratch"]
    options += ["--epochs", "1", "--batch-size", "4", "--members", "1", "--set", *network]
    command = [sys.executable, str(ROOT / "train.py"), "cross-validate", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines() if "taken for" in line} == set(GENRES)
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for genre, row in record["left_out"].items():
        assert row["n"] == 4
        assert genre not in row["taken_for"]
        assert sum(row["taken_for"].values()) == pytest.approx(1)
    assert [set(GENRES) - set(fold.genres) for fold in read_answers(tmp_path / "out")] == [
        set(fold.truths) for fold in read_answers(tmp_path / "out")
    ]
