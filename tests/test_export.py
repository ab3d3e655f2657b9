"""Export: a runtime without this code gives the same probabilities, whatever the length and the loudness."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from crnn.audio import SAMPLE_RATE
from crnn.checkpoint import save
from crnn.export import FACTS_FILE, MelPower, WholeHighPass, export, facts, is_onnx, is_program
from crnn.features import N_MELS, LogMel, n_frames_of
from crnn.highpass import BLOCK
from crnn.inference import GenreClassifier
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import Origin

Tone = Callable[..., np.ndarray]
SECONDS = (1, 1.7, 2, 2.2, 3.1, 5.03, 9, 31, 70)  # about a window, two pieces, more windows than MOST_WINDOWS


def sounds(tone: Tone) -> dict[str, np.ndarray]:
    """Waveforms (channels, samples) of all kinds."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(31 * SAMPLE_RATE, np.float32)
    long = np.concatenate([tone(26.0), tone(13.0, 110.0), noise])[None]
    rest = np.zeros((1, 3 * SAMPLE_RATE), np.float32)
    hum = np.sin(2 * np.pi * 50 * np.arange(5 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE)[None]
    return {
        **{f"{seconds} s": long[:, : round(seconds * SAMPLE_RATE)] for seconds in SECONDS},
        "whole blocks of the high-pass": long[:, : 1_000 * BLOCK],
        "silent ends": np.concatenate([rest, long[:, : 4 * SAMPLE_RATE], rest], axis=1),
        "a short sound": np.concatenate([rest, long[:, : round(1.1 * SAMPLE_RATE)], rest], axis=1),
        "a rest": np.concatenate([long[:, : 3 * SAMPLE_RATE], rest, long[:, -3 * SAMPLE_RATE :]], axis=1),
        "silence": rest,
        "a steady tone": 0.3 * hum,
        "a song behind one that is louder": np.concatenate([hum, 0.05 * long[:, : 4 * SAMPLE_RATE]], axis=1),
        "quiet": 1e-3 * long,
        "off centre": 0.5 + long,
        "two channels": np.stack([long[0, : 6 * SAMPLE_RATE], long[0, -6 * SAMPLE_RATE :]]),
        "out of phase": np.concatenate([long, -long, 0.5 * long])[:, : 5 * SAMPLE_RATE],
    }


@pytest.fixture(scope="module")
def classifier() -> GenreClassifier:
    """A small model of two members with a border and a temperature."""
    config = CRNNConfig(
        genres=("rock", "jazz", "Chansón"),
        members=2,
        channels=(4, 6),
        mel_pools=(4, 8),
        time_pools=(2, 4),
        recurrent_size=5,
        summary=True,
        window_frames=n_frames_of(2.0) + 1,
        evidence=1.5,
        temperature=0.5,
        unsure_below=0.4,
        strange_below=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CRNN(config).eval()
    model.stem.mean.fill_(-50)
    model.stem.std.fill_(20)
    for member in model.members:  # so that windows differ, some of them clear, whose energy is above CLEAR_ENERGY
        member.classifier.linear.weight.data *= 10
        member.classifier.linear.bias.data += 0.7
    return GenreClassifier(model, Origin("tiny"))


@pytest.fixture(scope="module")
def files(classifier: GenreClassifier, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the command writes: an ONNX file and a program of PyTorch."""
    pytest.importorskip("onnxscript", reason="the packages of the extra `onnx` are not installed")
    folder = tmp_path_factory.mktemp("exported")
    save(classifier.model, folder / "model", "")
    onnx, pt2 = folder / "tiny.onnx", folder / "tiny.pt2"
    assert train.main(["export", "--model", str(folder / "model"), "--onnx", str(onnx), "--pt2", str(pt2)]) == 0
    return onnx, pt2


def assert_same(classifier: GenreClassifier, answers: Callable[[np.ndarray], Sequence], tone: Tone) -> None:
    """The same probabilities and energy as the classifier's, to a hundredth of what counts as the same."""
    seen = []
    for name, waveform in sounds(tone).items():
        prediction = classifier.predict_waveform(waveform)
        expected = [prediction.probabilities.get(genre, 0.0) for genre in classifier.genres]
        given, energy = answers(np.ascontiguousarray(waveform, np.float32))
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5, err_msg=name)
        if prediction.probabilities:
            assert energy == pytest.approx(prediction.energy, abs=1e-5), name
        seen.append(expected)
    assert np.ptp(seen, axis=0).max() > 0.1  # what is the same for all proves nothing


def test_onnxruntime_gives_the_same_probabilities(
    classifier: GenreClassifier, files: tuple[Path, Path], tone: Tone
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the packages of the extra `onnx` are not installed")
    session = runtime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    assert_same(classifier, lambda waveform: session.run(None, {"waveform": waveform}), tone)


def test_the_onnx_file_says_what_it_needs_and_gives(classifier: GenreClassifier, files: tuple[Path, Path]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the packages of the extra `onnx` are not installed")
    session = runtime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["genres"]) == list(classifier.genres)
    assert (float(told["unsure_below"]), int(told["sample_rate"])) == (0.4, SAMPLE_RATE)
    assert float(told["strange_below"]) == 0.1
    assert [(given.name, given.type, len(given.shape)) for given in session.get_inputs()] == [
        ("waveform", "tensor(float)", 2)
    ]
    assert [given.name for given in session.get_outputs()] == ["probabilities", "energy"]


def test_a_file_of_published_nets_has_their_notice(classifier: GenreClassifier) -> None:
    assert facts(classifier)["notice"] == ""
    of_others = CRNN(CRNNConfig(genres=("rock", "jazz"), front="mn04")).eval()
    assert "Copyright (c) 2022 Florian Schmid\n" in facts(GenreClassifier(of_others, Origin("tiny")))["notice"]


def test_the_program_gives_the_same_probabilities_and_facts(
    classifier: GenreClassifier, files: tuple[Path, Path], tone: Tone
) -> None:
    extra = {FACTS_FILE: ""}
    program = torch.export.load(files[1], extra_files=extra).module()
    with torch.inference_mode():
        assert_same(classifier, lambda waveform: program(torch.from_numpy(waveform)), tone)
    assert json.loads(json.loads(extra[FACTS_FILE])["genres"]) == list(classifier.genres)


@pytest.mark.parametrize("sample", [np.nan, np.inf])
def test_what_is_not_finite_is_no_silence(
    classifier: GenreClassifier, files: tuple[Path, Path], tone: Tone, sample: float
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the packages of the extra `onnx` are not installed")
    session = runtime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    program = torch.export.load(files[1]).module()
    waveform = tone(2.0)[None].astype(np.float32)
    waveform[0, SAMPLE_RATE] = sample
    for probabilities, energy in (
        session.run(None, {"waveform": waveform}),
        program(torch.from_numpy(waveform)),
    ):
        assert np.isnan(probabilities).all()
        assert np.isnan(energy)
    assert "finite" in facts(classifier)["input"]


def test_the_high_pass_is_that_of_the_front_end() -> None:
    loud = np.random.default_rng(0).standard_normal((2, 3 * SAMPLE_RATE + 77)).astype(np.float32)
    high_pass = LogMel().high_pass
    expected = np.concatenate([*high_pass([loud])], axis=1)
    np.testing.assert_allclose(WholeHighPass(high_pass)(torch.from_numpy(loud)), expected, rtol=0, atol=2e-6)


def test_the_mel_power_is_that_of_the_front_end() -> None:
    front_end = LogMel()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32))
    padded = torch.nn.functional.pad(noise, (1_024, 1_024))
    expected = torch.from_numpy(front_end.power(padded.numpy()))
    torch.testing.assert_close(MelPower(front_end)(noise), expected, rtol=1e-4, atol=0)


def test_recurrent_layers_of_a_front_follow_a_song_through_all_pieces(tmp_path: Path, tone: Tone) -> None:
    """In the graph a loop goes through the pieces of a song; what is remembered comes from all of it."""
    config = CRNNConfig(
        genres=("rock", "jazz"),
        front="choi-crnn",
        bottleneck=5,
        recurrent_size=4,
        summary=True,
        summary_channels=True,
        summary_components=7,
        window_frames=96,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CRNN(config).eval()
        model.fit([-80 * torch.rand(N_MELS, 200) for _ in range(4)])
    classifier, path = GenreClassifier(model, Origin("tiny")), tmp_path / "tiny.pt2"
    export(classifier, pt2=path)
    program = torch.export.load(path).module()
    long = np.concatenate([tone(19.0), tone(21.0, 110.0)])
    for seconds in (1.5, 6, 20, 40):
        waveform = long[None, : round(seconds * SAMPLE_RATE)].astype(np.float32)
        expected = classifier.predict_waveform(waveform).probabilities
        given, _ = program(torch.from_numpy(waveform))
        np.testing.assert_allclose(given, [expected[genre] for genre in config.genres], atol=1e-5, rtol=0)


def test_exporting_leaves_the_model_as_it_was(classifier: GenreClassifier, files: tuple[Path, Path]) -> None:
    assert all(value.requires_grad for value in classifier.model.parameters())


@pytest.mark.parametrize("name", ["file/model.pt2", "folder"])
def test_what_cannot_be_written_is_told_in_a_sentence_before_anything_is_computed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("It began."))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert train.main(["export", "--model", "crnn-scratch", "--pt2", str(tmp_path / name)]) == 2
    assert (error := capsys.readouterr().err).count("\n") == 1
    assert "cannot be written" in error


@pytest.mark.parametrize("option", ["--onnx", "--pt2"])
def test_nothing_but_an_earlier_export_is_written_over(
    option: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, (onnx, pt2) = files[0].parent, files
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("It began."))
    song = folder / "song.mp3"
    song.write_bytes(b"ID3\4" + bytes(1_000))
    other = pt2 if option == "--onnx" else onnx
    for path, why in (
        (song, f"is there and was not written by {option}"),
        (other, f"is there and was not written by {option}"),
        (folder / "model" / "model.safetensors", "is in the folder of the model itself"),
        (folder / "model" / "new", "is in the folder of the model itself"),
    ):
        before = path.read_bytes() if path.exists() else None
        assert train.main(["export", "--model", str(folder / "model"), option, str(path)]) == 2
        assert f"{path} {why}" in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == before
    os.truncate(song, 2**42)  # more than can be read as a whole
    assert not is_onnx(song)
    assert not is_program(song)
    assert is_onnx(onnx)
    assert is_program(pt2)


def test_until_all_is_computed_nothing_is_written(
    classifier: GenreClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends the program meanwhile leaves neither a part of a file nor a folder."""

    def look(*_: object, **__: object) -> None:
        assert not list(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.export, "export", look)
    with pytest.raises(KeyboardInterrupt):
        export(classifier, pt2=tmp_path / "new" / "tiny.pt2")
    assert not list(tmp_path.iterdir())


def test_two_kinds_do_not_go_into_one_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["export", "--onnx", str(tmp_path / "a"), "--pt2", str(tmp_path / "b" / ".." / "a")])
    assert "--onnx and --pt2 name the same file" in capsys.readouterr().err


def test_export_needs_a_file(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["export"])
    assert "--onnx" in capsys.readouterr().err
