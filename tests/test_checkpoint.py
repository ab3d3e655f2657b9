"""Checkpoints: exact round trips, and refusals that a person understands."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from models import assert_same, edit, refusal, truncate
from safetensors.torch import load_file, save_file

from crnn import checkpoint, files
from crnn.checkpoint import (
    CONFIG_FILE,
    MOST_BYTES,
    MOST_HEADER_BYTES,
    NOTICE_FILE,
    WEIGHTS_FILE,
    UnfitError,
    save,
)
from crnn.network.config import NOTHING_STRANGE, NOTHING_SURE, CRNNConfig
from crnn.network.fronts import front_of
from crnn.network.licences import notice_of
from crnn.network.model import CRNN
from crnn.sources import load_checkpoint

Damage = Callable[[Path], object]


# Round trip


def test_round_trip_bit_for_bit(tiny_model: CRNN, tmp_path: Path) -> None:
    with torch.no_grad():
        for tensor in tiny_model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) / 3 + 1e-3)
        tiny_model.members[0].classifier.linear.bias[0] = 1e-42  # a subnormal number
        tiny_model.members[0].classifier.linear.bias[1] = -0.0
    tiny_model.config = replace(
        tiny_model.config, genres=("forró", "rock 'n' roll", "大衆"), temperature=1 / 3, unsure_below=0.1 + 0.2
    )
    save(tiny_model.train(), tmp_path / "a" / "b", card="# Karte für Ü\n")
    model, origin = load_checkpoint(tmp_path / "a" / "b")
    assert_same(model, tiny_model)
    assert not model.training
    assert origin.name == f"{tmp_path / 'a' / 'b'} (folder)"
    assert origin.notice is None
    assert (tmp_path / "a" / "b" / "README.md").read_text(encoding="utf-8") == "# Karte für Ü\n"


def test_saving_replaces_an_older_model(folder: Path, tiny_model: CRNN) -> None:
    tiny_model.config = replace(tiny_model.config, genres=("x", "y", "z"))
    tiny_model.members[0].classifier.linear.weight.data.zero_()
    save(tiny_model, folder, card="new\n")
    assert_same(load_checkpoint(folder)[0], tiny_model)
    assert (folder / "README.md").read_text() == "new\n"


def test_the_configuration_says_all_that_a_model_needs(folder: Path, tiny_model: CRNN) -> None:
    values = json.loads((folder / CONFIG_FILE).read_text())
    assert values["genres"] == ["rock", "jazz", "disco"]
    assert values["version"] == 2
    assert values["temperature"] == 1.0
    assert values["features"]["sample_rate"] == 22_050
    assert values["features"]["hop_length"] == 914
    assert values == json.loads(json.dumps(asdict(tiny_model.config)))


def test_the_library_reads_the_same_folder(folder: Path, tiny_model: CRNN) -> None:
    assert_same(CRNN.from_pretrained(folder, strict=True), tiny_model)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("crnn.checkpoint.CRNN.load_state_dict", MemoryError()),
        ("crnn.checkpoint.CRNN.load_state_dict", RuntimeError("could not create a primitive")),
        (
            "crnn.checkpoint.load_file",
            RuntimeError("unable to mmap 3823892 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        ),
    ],
)
def test_a_machine_short_of_memory_is_no_damage(
    what: str, error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(what, short)
    assert refusal(folder) == f"There is not enough memory for the model {folder} just now: try again later."


def test_what_a_killed_program_has_left_of_a_model_is_taken_away(
    tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".saving-abcd1234.partial"
    left.mkdir()
    (left / "README.md").touch()
    monkeypatch.setattr(files, "LEFT_SECONDS", -1)
    save(tiny_model, tmp_path, card="")
    assert not left.exists()


def test_the_library_writes_the_same_files(tmp_path: Path) -> None:
    """Half as large as the model where its front wants that, and configured as it is now."""
    model, given, expected = CRNN(CRNNConfig(genres=("a", "b"), front="mn04-kinds")), tmp_path / "a", tmp_path / "b"
    model.config = replace(model.config, temperature=0.5)
    save(model, expected, card="")
    model.save_pretrained(given)  # as `push_to_hub` does
    for name in (CONFIG_FILE, WEIGHTS_FILE, NOTICE_FILE):
        assert (given / name).read_bytes() == (expected / name).read_bytes()
    if os.name == "posix":
        assert (given / WEIGHTS_FILE).stat().st_mode & 0o777 == 0o644
    assert load_checkpoint(given)[0].config == model.config


def test_a_loaded_model_can_be_trained_on(folder: Path) -> None:
    model, _ = load_checkpoint(folder)
    model.train()(torch.zeros(2, 128, 48)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_full_disk_leaves_the_model_that_is_there(
    folder: Path, tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: CRNN, place: Path, **more: object) -> None:
        (Path(place) / "config.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(CRNN, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save(CRNN(tiny_model.config), folder, card="# Another\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_of_published_nets_has_their_notice_and_keeps_what_was_added(folder: Path, tmp_path: Path) -> None:
    assert not (folder / NOTICE_FILE).exists()  # its convolutions are its own
    model, notice = CRNN(CRNNConfig(genres=("rock", "jazz"), front="mn04-kinds")), tmp_path / "of others" / NOTICE_FILE
    save(model, notice.parent, card="")
    assert notice.read_text("utf-8") == notice_of(front_of("mn04-kinds").sources)
    added = "With thanks.\n\n" + notice.read_text("utf-8")
    notice.write_text(added, "utf-8")
    save(model, notice.parent, card="")
    assert notice.read_text("utf-8") == added
    notice.write_text("Of somebody else.\n", "utf-8")
    save(model, notice.parent, card="")
    assert notice.read_text("utf-8") == f"{notice_of(front_of('mn04-kinds').sources)}\nOf somebody else.\n"


def test_a_card_may_name_paths_that_are_no_text(tiny_model: CRNN, tmp_path: Path) -> None:
    save(tiny_model, tmp_path, card=os.fsdecode(b"caf\xe9\n"))
    assert (tmp_path / "README.md").read_text("utf-8") == "caf\\udce9\n"


# Refusals


def flip_header(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[:8] = b"\xff" * 8
    path.write_bytes(bytes(content))


def reshape(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    weights["members.0.classifier.linear.bias"] = torch.zeros(7)
    save_file(weights, folder / WEIGHTS_FILE)


def drop_tensor(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    del weights["stem.mean"]
    save_file(weights, folder / WEIGHTS_FILE)


def add_tensor(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS_FILE) | {"extra": torch.zeros(1)}, folder / WEIGHTS_FILE)


def halve(folder: Path) -> None:
    save_file({name: tensor.half() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}, folder / WEIGHTS_FILE)


def lengthen_header(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE, {"note": "x" * MOST_HEADER_BYTES})


def claim_much(folder: Path) -> None:
    header = {"stem.mean": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    content = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(content).to_bytes(8, "little") + content)


def put_nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    weights["members.0.classifier.linear.bias"][0] = torch.nan
    save_file(weights, folder / WEIGHTS_FILE)


def put_infinity_where_it_is_not_heard(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    weights["members.0.recurrent.gru.bias_ih_l0"][0] = torch.inf
    save_file(weights, folder / WEIGHTS_FILE)


def speak_for_nothing(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    weights["members.0.classifier.linear.bias"].fill_(-1e38)
    save_file(weights, folder / WEIGHTS_FILE)


def overflow_by_the_temperature(folder: Path) -> None:
    speak_for_nothing(folder)
    edit(folder, temperature=0.001)


def overflow_by_the_evidence(folder: Path) -> None:
    speak_for_nothing(folder)
    edit(folder, evidence=10.0)


def rename_tensor(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    weights["../../stem.mean"] = weights.pop("stem.mean")
    save_file(weights, folder / WEIGHTS_FILE)


def header(folder: Path, tensors: dict, n_bytes: int) -> None:
    content = json.dumps(tensors).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(content).to_bytes(8, "little") + content + bytes(n_bytes))


def have_many_tensors(folder: Path) -> None:
    header(folder, {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(15_000)}, 0)


def have_huge_empty_tensors(folder: Path) -> None:
    header(folder, {"stem.mean": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, 0)


def overflow(folder: Path) -> None:
    header(folder, {"stem.mean": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}, 0)


def overlap(folder: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header(folder, {"stem.mean": tensor, "stem.std": tensor}, 8)


def nest_deeply(folder: Path) -> None:
    content = b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"
    (folder / WEIGHTS_FILE).write_bytes(len(content).to_bytes(8, "little") + content)


def store_in_odd_numbers(folder: Path) -> None:
    header(folder, {"stem.mean": {"dtype": "F8_E8M0", "shape": [16], "data_offsets": [0, 16]}}, 16)


def make_directory(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_header,
        reshape,
        drop_tensor,
        add_tensor,
        halve,
        lengthen_header,
        claim_much,
        put_nan,
        put_infinity_where_it_is_not_heard,
        overflow_by_the_temperature,
        overflow_by_the_evidence,
        rename_tensor,
        have_many_tensors,
        have_huge_empty_tensors,
        overflow,
        overlap,
        nest_deeply,
        store_in_odd_numbers,
        make_directory,
    ],
    ids=lambda f: f.__name__,
)
def test_damaged_or_mismatched_weights_are_refused(folder: Path, damage: Damage) -> None:
    damage(folder)
    message = refusal(folder)
    assert f"The {WEIGHTS_FILE} of {folder} is damaged or does not fit" in message
    assert "download or train it again" in message


def test_a_refusal_is_the_same_from_another_process(folder: Path) -> None:
    truncate(folder)
    with pytest.raises(UnfitError) as caught:
        load_checkpoint(folder)
    given = pickle.loads(pickle.dumps(caught.value))
    assert (str(given), given.folder) == (str(caught.value), folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    assert refusal(folder) == f"The model {folder} has no {WEIGHTS_FILE}."
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == f"{tmp_path / 'empty'} is not a model folder: it has no {CONFIG_FILE}."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b'{"genres": [', "is damaged"),
        (b"\xff\xfe{}", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[1, 2]", "describes something else"),
        (b'"genres features version"', "describes something else"),
        (b"null", "describes something else"),
        (b'{"model_type": "bert", "hidden_size": 768}', "describes something else"),
    ],
)
def test_a_damaged_or_foreign_configuration_is_refused(folder: Path, content: bytes, words: str) -> None:
    (folder / CONFIG_FILE).write_bytes(content)
    message = refusal(folder)
    assert words in message
    assert str(folder) in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": 1}, "is of version 1; this program reads version 2"),
        ({"version": "2"}, "is of version '2'; this program reads version 2"),
        ({"features": {"sample_rate": 16_000}}, "other spectrograms"),
        ({"features": []}, "other spectrograms"),
        ({"surprise": 1}, "surprise is unknown"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature is unknown or has no fitting value"),
        ({"temperature": float("inf")}, "temperature is unknown or has no fitting value"),
        ({"temperature": "1.0"}, "temperature is unknown or has no fitting value"),
        ({"temperature": True}, "temperature is unknown or has no fitting value"),
        ({"unsure_below": "0.3"}, "unsure_below is unknown or has no fitting value"),
        ({"genres": None}, "describes something else"),
        ({"genres": "rock"}, "genres is unknown or has no fitting value"),
        ({"genres": [1, 2, 3]}, "genres is unknown or has no fitting value"),
        ({"genres": ["rock", ["jazz"], "disco"]}, "genres is unknown or has no fitting value"),
        ({"genres": ["rock", "jazz"]}, "does not fit"),
        ({"channels": [4, 8]}, "does not fit"),
        ({"mel_pools": [0, 8]}, "mel_pools is unknown or has no fitting value"),
        ({"time_pools": [2.5, 4]}, "time_pools is unknown or has no fitting value"),
        ({"recurrent_size": 0}, "recurrent_size is unknown or has no fitting value"),
        ({"recurrent_size": 6}, "does not fit"),
        ({"window_frames": -48}, "window_frames is unknown or has no fitting value"),
    ],
    ids=str,
)
def test_a_contradictory_configuration_is_refused(folder: Path, values: dict, words: str) -> None:
    edit(folder, **values)
    message = refusal(folder)
    assert words in message
    assert str(folder) in message


def test_borders_that_calibration_writes_where_nothing_is_sure_are_read(folder: Path) -> None:
    edit(folder, unsure_below=NOTHING_SURE, strange_below=NOTHING_STRANGE)
    assert load_checkpoint(folder)[0].config.unsure_below == float(np.nextafter(np.float32(1), np.float32(2)))


@pytest.mark.parametrize(
    "values",
    [
        {"members": 10**9},
        {"mel_pools": [10**4_000] * 20},
        {"temperature": 10**4_000},
        {"genres": ["same"] * 10_000},
        {"genres": ["rock", "x" * 90_000]},
        {"genres": ["rock", "\x1b[2J\n\r\0", "disco"]},
        {"front": "x" * 90_000},
        {"front": "\n\n"},
        {"version": "x\n" * 30_000},
        {"version": [[[1] * 10_000]]},
        {"x" * 90_000: 1},
        {"\x1b[2J\n": 1},
        {"genres": [str(number) for number in range(1_000_000)]},
        {"trained_on": "x" * 1_000_000},
        {"trained_on": "x\ud800y"},
        {"heard": "\x1b[2J"},
    ],
    ids=lambda values: f"{str(values)[:30]!a}",
)
def test_a_hostile_configuration_is_refused_at_once(
    folder: Path, values: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, **values)
    monkeypatch.setattr(checkpoint, "read_weights", lambda *_: pytest.fail("read"))
    message = refusal(folder)
    assert message.isprintable()
    assert len(message) < 400 + len(str(folder))


def test_no_model_is_built_that_its_file_does_not_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder, members=16, recurrent_size=512)
    monkeypatch.setattr(torch.nn.init, "uniform_", lambda tensor, *_, **__: tensor.is_meta or pytest.fail("built"))
    assert "does not fit" in refusal(folder)


@pytest.mark.parametrize("damage", [have_many_tensors, reshape, drop_tensor, add_tensor], ids=lambda f: f.__name__)
def test_no_tensor_is_read_that_is_not_one_of_the_model(
    folder: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder)
    monkeypatch.setattr(checkpoint, "load_file", lambda _: pytest.fail("read"))
    assert "does not fit" in refusal(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_not_waited_for(folder: Path, name: str, target: str) -> None:
    (folder / name).unlink()
    if target == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(target)
    assert f"The {name} of {folder} is larger than" in refusal(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_file_that_is_too_large_is_not_read(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(MOST_BYTES[name] + 1)  # takes no space on the disk
    what, reads = (checkpoint, "read_weights") if name == WEIGHTS_FILE else (Path, "read_text")
    monkeypatch.setattr(what, reads, lambda *_, **__: pytest.fail("read"))
    assert f"The {name} of {folder} is larger than {MOST_BYTES[name] / 1e6:g} MB" in refusal(folder)


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", WEIGHTS_FILE])
def test_nothing_is_unpickled(folder: Path, tmp_path: Path, hub: HubServer, name: str) -> None:
    (folder / WEIGHTS_FILE).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert WEIGHTS_FILE in refusal(folder)
    hub.push("someone/tiny", folder)
    assert WEIGHTS_FILE in refusal("someone/tiny")
    assert not any("pytorch_model" in request for request in hub.requests)
    assert not (tmp_path / "exploded").exists()
    pickle.loads((folder / name).read_bytes())
    assert (tmp_path / "exploded").exists()
