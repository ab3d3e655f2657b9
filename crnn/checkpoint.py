"""A checkpoint: the folder of a model, how it is read, checked and written."""

import csv
import json
import math
import os
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_origin

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from crnn.features import FEATURE_SETTINGS, N_MELS
from crnn.files import take_away_copies
from crnn.network.config import CONFIG_VERSION, CRNNConfig
from crnn.network.devices import lacks_memory
from crnn.network.fronts import front_of
from crnn.network.layers import CLEAR_ENERGY, energy, window_weights
from crnn.network.licences import NOTICE_FILE, notice_before
from crnn.network.model import CRNN
from crnn.network.songs import window_logits

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.csv"
OPTIONAL_FILES = (CARD_FILE, METRICS_FILE, HISTORY_FILE)  # what a model may have beside it, for its page
MOST_BYTES = {
    WEIGHTS_FILE: 64_000_000,  # the bundled ones have 8 MB at most
    CONFIG_FILE: 100_000,
    CARD_FILE: 200_000,
    NOTICE_FILE: 200_000,
    METRICS_FILE: 1_000_000,
    HISTORY_FILE: 1_000_000,
}
# What a record raises that others than `train.py` wrote, or that is damaged.
UNFIT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, csv.Error)
MOST_HEADER_BYTES = 1_000_000  # of the weights: its list of tensors, which takes long to read if it is long


class CheckpointError(ValueError):
    """A model that cannot be had or used; the message is one sentence that says why and what would work."""


class UnfitError(CheckpointError):
    """Of a file in `folder` that can be read, but is damaged or no model of this program."""

    def __init__(self, message: str, folder: Path | None = None) -> None:  # pickle gives the message alone
        super().__init__(message)
        self.folder = folder


def optional_text(folder: Path, file: str) -> str:
    """The text of a file beside a model; "" if there is none, or `content_beside` refuses it."""
    try:
        return text_beside(folder, file)
    except CheckpointError:
        return ""


def text_beside(folder: Path, file: str) -> str:
    """The text of a file beside a model; "" if there is none. Raises CheckpointError as `content_beside` does."""
    return (content_beside(folder, file) or b"").decode("utf-8", "replace")


def content_beside(folder: Path, file: str, most_bytes: int | None = None) -> bytes | None:
    """What is in a file of at most MOST_BYTES, or `most_bytes`, beside a model; None if there is none.

    Raises CheckpointError if it is too large, unreadable, no regular file, or a link to a file elsewhere than in that
    folder or, as in the cache of the Hub's client, in the one of a repository's files: others than the model's author
    may read what is in it.
    """
    place, most_bytes = folder / file, most_bytes or MOST_BYTES[file]
    if not os.path.lexists(place):
        return None
    try:
        path = place.resolve()
        if not (path.is_relative_to(folder.resolve()) or path.parent == (folder.parent.parent / "blobs").resolve()):
            raise CheckpointError(f"{place} is a link to a file elsewhere: put the file itself there, or nothing.")
        if not path.is_file():
            raise CheckpointError(f"{place} is not a regular file: remove it.")
        with path.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    except (OSError, RuntimeError) as error:  # the latter of a link to itself
        raise CheckpointError(f"{place} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if len(content) > most_bytes:
        raise CheckpointError(f"{place} is larger than {most_bytes / 1e6:g} MB: make it smaller.")
    return content


def brief(text: str, most: int = 200) -> str:
    """A text that somebody else wrote, in one line of at most `most` characters, to be part of a message."""
    text = "".join(character if character.isprintable() else "?" for character in text[:most])
    return text if len(text) < most else f"{text[: most - 1]}…"


def own_parts(trained_on: str) -> str:
    """The parts of its split that a model's own training has heard, "train+valid", not those of models before it."""
    return trained_on.partition("; ")[0].rpartition(": ")[2]


def read(folder: Path, name: str) -> CRNN:
    """Rebuild the model in a folder of config.json and model.safetensors, and try it; nothing is unpickled.

    Raises CheckpointError, which calls the model by `name`.
    """
    config = read_config(folder, name)
    check_size(size_of(folder / WEIGHTS_FILE), WEIGHTS_FILE, name)
    try:
        weights = read_weights(folder / WEIGHTS_FILE, config)
        model = CRNN(config).eval()
        model.load_state_dict(weights, strict=True)
        with torch.no_grad():
            logits, _ = window_logits(model, torch.zeros(N_MELS, config.window_frames + 1))
        shares = window_weights(energy(logits), config.evidence)
        if not all(numbers.isfinite().all() for numbers in (logits / config.temperature, shares)):
            raise ValueError("the weights give no numbers")
    except FileNotFoundError as error:
        raise CheckpointError(f"The model {name} has no {WEIGHTS_FILE}.") from error
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError, MemoryError) as error:
        if lacks_memory(error):
            raise CheckpointError(
                f"There is not enough memory for the model {name} just now: try again later."
            ) from error
        why = f"The {WEIGHTS_FILE} of {name} is damaged or does not fit its {CONFIG_FILE}: download or train it again."
        is_unfit = isinstance(error, ValueError | SafetensorError)
        raise (UnfitError(why, folder) if is_unfit else CheckpointError(why)) from error
    return model


def read_weights(path: Path, config: CRNNConfig) -> dict[str, Tensor]:
    """The tensors of a file that are exactly those of a model of this configuration.

    So a model takes at most twice the memory of its file. Raises ValueError, and what reading raises.
    """
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MOST_HEADER_BYTES:
            raise ValueError("its header is too long")
    with torch.device("meta"):  # shapes without memory
        expected = CRNN(config).state_dict()
    with safe_open(path, "pt") as file:  # nor is any spent before they are known to be the same
        if set(file.keys()) != expected.keys() or any(
            file.get_slice(name).get_shape() != list(tensor.shape) for name, tensor in expected.items()
        ):
            raise ValueError("its tensors are not those of the configuration")
    weights, stored_in = load_file(path), front_of(config.front).stored_in
    if any(
        weights[name].dtype != (stored_in if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in expected.items()
    ):
        raise ValueError("its tensors are not those of the configuration")
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError("its weights are no numbers")
    return {name: tensor.to(expected[name].dtype) for name, tensor in weights.items()}


def size_of(path: Path) -> int | None:
    """Size in bytes; 0 if it cannot be looked at (reading it will give the error); None for a pipe or device."""
    try:
        return path.stat().st_size if path.is_file() or path.is_dir() or not path.exists() else None
    except OSError:
        return 0


def check_size(size: int | None, file: str, name: str) -> None:
    """Raises CheckpointError, which calls the model by `name`, if this many bytes are too many for a file of it."""
    if size is None or size > MOST_BYTES[file]:
        raise CheckpointError(
            f"The {file} of {name} is larger than {MOST_BYTES[file] / 1e6:g} MB or of unknown size: it is not loaded."
        )


def read_config(folder: Path, name: str) -> CRNNConfig:
    """The checked configuration of a model folder. Raises CheckpointError, which calls the model by `name`."""
    check_size(size_of(folder / CONFIG_FILE), CONFIG_FILE, name)
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        is_run = size_of(folder / "model" / CONFIG_FILE)
        but = f", but {Path(name) / 'model'} has: it may be what you mean" if is_run else ""
        raise CheckpointError(f"{name} is not a model folder: it has no {CONFIG_FILE}{but}.") from error
    except (OSError, ValueError, RecursionError) as error:
        why = f"The {CONFIG_FILE} of {name} is damaged: download or train it again."
        raise (CheckpointError(why) if isinstance(error, OSError) else UnfitError(why, folder)) from error
    if not isinstance(values, dict) or not {"genres", "features", "version"} <= set(values):
        raise CheckpointError(f"{name} is no model of this program: its {CONFIG_FILE} describes something else.")
    version = values["version"]
    if version != CONFIG_VERSION:
        raise CheckpointError(
            f"The model {name} is of version {brief(repr(version))}; this program reads version {CONFIG_VERSION}."
        )
    if values["features"] != FEATURE_SETTINGS:
        raise CheckpointError(
            f"The model {name} was trained on other spectrograms than this program makes; "
            f"what they were stands under features in its {CONFIG_FILE}."
        )
    try:
        types = {field.name: field.type for field in fields(CRNNConfig)}
        if wrong := sorted(key for key in values if key not in types or not fits(values[key], types[key])):
            raise ValueError(f"{', '.join(wrong)} is unknown or has no fitting value")
        return CRNNConfig(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"The {CONFIG_FILE} of {name} does not describe a model: {brief(str(error))}.") from error


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of a field's type.

    Whole numbers are counts, so positive, the others finite; text can be printed.
    """
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is not int or value > 0) and (kind is not str or value.isprintable())


def digest(model: CRNN) -> str:
    """Sixteen hexadecimal digits that tell a model's weights, and what makes answers of them, from those of others."""
    config = model.config
    facts = (config.genres, config.temperature, config.unsure_below, config.strange_below)
    of_all = sha256(repr(facts + ((config.evidence, CLEAR_ENERGY) if config.evidence else ())).encode())
    for value in model.state_dict().values():
        of_all.update(value.cpu().contiguous().numpy().data)
    return of_all.hexdigest()[:16]


def check_loadable(model: CRNN) -> None:
    """Raises CheckpointError if its weights are more than `load_checkpoint` would read again."""
    stored_in = front_of(model.config.front).stored_in
    values = model.state_dict().values()  # the header of the file takes a thousandth more
    sizes = (stored_in.itemsize if value.is_floating_point() else value.element_size() for value in values)
    size_bytes = 1.002 * sum(value.numel() * size for value, size in zip(values, sizes, strict=True))
    if size_bytes > MOST_BYTES[WEIGHTS_FILE]:
        raise CheckpointError(
            f"This network has weights of {size_bytes / 1e6:.0f} MB, and what has more than "
            f"{MOST_BYTES[WEIGHTS_FILE] / 1e6:g} MB is not loaded: take fewer --members, or smaller layers."
        )


def notice_beside(model: CRNN, folder: Path) -> str:
    """What the licences of published nets ask for, before what else the NOTICE of a folder says; "" for nothing.

    Raises CheckpointError if that cannot be read as a whole.
    """
    return notice_before(front_of(model.config.front).sources, text_beside(folder, NOTICE_FILE))


def card_bytes(card: str) -> bytes:
    """A model card as `save` writes it; paths in it need not be text."""
    return card.encode("utf-8", "backslashreplace")


def save(model: CRNN, folder: Path, card: str) -> None:
    """Write config.json, model.safetensors and the model card README.md into `folder`, and NOTICE if there is one.

    Licences of published nets ask for that notice; what somebody has added to it stays. Each file takes its place when
    all are written, so that a full disk leaves a model that is there as it was. Raises OSError or SafetensorError, and
    CheckpointError if what the NOTICE says cannot be kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    take_away_copies(folder, r"\.saving-.*\.partial", are_folders=True)
    with TemporaryDirectory(".partial", ".saving-", folder) as name:
        whole = Path(name)
        (whole / CARD_FILE).write_bytes(card_bytes(card))
        notice = text_beside(folder, NOTICE_FILE) if front_of(model.config.front).sources else ""
        if notice:
            (whole / NOTICE_FILE).write_text(notice, encoding="utf-8")
        model.save_pretrained(whole)  # which puts what they ask for before that
        files = [CARD_FILE, WEIGHTS_FILE, CONFIG_FILE]
        if optional_text(whole, NOTICE_FILE) != notice:
            files.insert(0, NOTICE_FILE)
        for file in files:
            (whole / file).replace(folder / file)
