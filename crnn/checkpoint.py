"""Where a model comes from (the Hub, a folder, the bundled ones) and how it is saved."""

import errno
import json
import math
import os
import re
import warnings
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields
from hashlib import sha256
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, get_args, get_origin

import torch
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    scan_cache_dir,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from crnn.bundle import ASSETS, DEFAULT_MODEL, MODEL_VARIABLE
from crnn.features import FEATURE_SETTINGS, N_MELS
from crnn.files import has_room
from crnn.hub import SILENT, why_unreached
from crnn.network.config import CONFIG_VERSION, CRNNConfig
from crnn.network.fronts import front_of
from crnn.network.layers import CLEAR_ENERGY, energy, window_weights
from crnn.network.licences import notice_of
from crnn.network.model import CRNN

BUNDLED = ASSETS / "models"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
NOTICE_FILE = "NOTICE"  # of the licences of published nets that a model is made from
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
MOST_HEADER_BYTES = 1_000_000  # of the weights: its list of tensors, which takes long to read if it is long
KEPT_FOR_SONGS = 2**30  # bytes of the disk that strangers' models, which stay, leave to songs, which go
MOST_NAME = 200  # characters of a model that a stranger names
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # some come without a file's name
HUB_ADDRESS = "https://huggingface.co/"
HUB_TIMEOUT_SECONDS = 4.0  # for the Hub's first answer; its client alone would go on trying for 23 s and more

warnings.filterwarnings("ignore", "Not enough free disk space", UserWarning)  # the error that follows is told

_PART = r"\w[\w.+-]*"  # starts with no dot, so that no path leads upwards
HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}(?:/{_PART})*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


class CheckpointError(ValueError):
    """A model that cannot be had or used; the message is one sentence that says why and what would work."""


class UnfitError(CheckpointError):
    """Of a file that is whole, but no model of this program."""


@dataclass(frozen=True)
class Origin:
    """Which model answers: where it came from, in words, and what the user should know about that.

    Whoever made the model wrote the card and what else is in the folder, so nothing in them is to be trusted.
    """

    name: str
    notice: str | None = None
    repo: str | None = None  # user/name of a Hub model
    revision: str | None = None  # its full commit
    folder: Path | None = None  # of the model's files; see `optional_text`
    card: str = field(default="", repr=False)  # the text of README.md


def load_checkpoint(source: str | PathLike | None = None, fallback: bool = False) -> tuple[CRNN, Origin]:
    """Load a model, in evaluation mode on the CPU, and say where it came from.

    `source` is a folder, the name of a bundled model, a Hub id with an optional "@revision", or None for what the
    environment variable GENRE_CRNN_MODEL names, else the default bundled model. When the Hub does not answer, the copy
    in its cache serves; with `fallback`, whatever else goes wrong leads to the default bundled model with a notice.

    Raises CheckpointError if the model is missing, damaged or not made for this program.
    """
    name = str(source or os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL)
    try:
        folder, origin = locate(name)
        return read(folder, name), origin
    except CheckpointError as error:
        if not fallback or name == DEFAULT_MODEL:
            raise
        notice = f"{error} The bundled model {DEFAULT_MODEL} answers instead."
        return read(BUNDLED / DEFAULT_MODEL, DEFAULT_MODEL), bundled_origin(DEFAULT_MODEL, notice)


def load_public(name: str) -> tuple[CRNN, Origin]:
    """Load a model that a stranger names, in evaluation mode on the CPU, and say where it came from.

    `name` is that of a bundled model or a Hub id with an optional "@revision" or the address of its page, never a
    folder. The Hub is asked as anybody may ask it, without this machine's token, and its cache serves nothing that the
    Hub has not just shown: it may hold private models.

    Raises CheckpointError if the model is missing, not public, damaged or not made for this program, or if the Hub does
    not answer; the message says nothing about this machine.
    """
    name = name.strip()
    if name in bundled_names():
        return read(BUNDLED / name, name), bundled_origin(name)
    hub_id = None
    if len(name) <= MOST_NAME:
        hub_id = HUB_ID.fullmatch(name.removeprefix(HUB_ADDRESS).removesuffix("/").replace("/tree/", "@", 1))
    if not hub_id:
        raise CheckpointError(
            f"There is no model {brief(repr(name[:MOST_NAME]), 60)}: give a public model of the Hub, user/name or "
            f"user/name@revision, or a bundled model ({', '.join(bundled_names()) or 'there is none'})."
        )
    folder, origin = download(hub_id["repo"], hub_id["revision"], public=True)
    try:
        return read(folder, hub_id["repo"]), origin
    except UnfitError:
        forget(folder)
        raise


def forget(folder: Path) -> None:
    """Delete the files of a commit from the cache of the Hub's client, as far as that can be done."""
    with suppress(OSError, ValueError):
        scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(folder.name).execute()


def locate(name: str) -> tuple[Path, Origin]:
    """The folder of the model that `name` stands for, downloaded if need be. Raises CheckpointError."""
    if name in bundled_names():
        return BUNDLED / name, bundled_origin(name)
    try:
        if Path(name).is_dir():
            return Path(name), Origin(f"{name} (folder)", folder=Path(name), card=optional_text(Path(name), CARD_FILE))
    except OSError:  # a name too long for a path, or behind a closed door
        pass
    hub_id = HUB_ID.fullmatch(name)
    if hub_id:
        return download(hub_id["repo"], hub_id["revision"])
    raise CheckpointError(
        f"There is no model {name!r}: give a folder, a Hub id such as user/name or user/name@revision, "
        f"or a bundled model ({', '.join(bundled_names()) or 'there is none'})."
    )


def bundled_names() -> list[str]:
    """The names of the bundled models."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_FILE}"))


def bundled_origin(name: str, notice: str | None = None) -> Origin:
    """Where the bundled model of a name comes from."""
    folder = BUNDLED / name
    return Origin(f"{name} (bundled)", notice, folder=folder, card=optional_text(folder, CARD_FILE))


def hub_origin(folder: Path, repo: str, notice: str | None = None) -> Origin:
    """Where a Hub model comes from, alike from the Hub and its cache; its folder has the name of its commit."""
    return Origin(
        f"{repo}@{folder.name[:7]} (Hub)", notice, repo, folder.name, folder, optional_text(folder, CARD_FILE)
    )


def optional_text(folder: Path, file: str) -> str:
    """The text of a file of MOST_BYTES beside a model; "" if there is none, or it is unreadable or too large.

    So it is if it is a link to a file elsewhere than in that folder or, as in the cache of the Hub's client, in the one
    of a repository's files: others than the model's author may read the text.
    """
    try:
        path = (folder / file).resolve()
        is_here = path.is_relative_to(folder.resolve()) or path.parent == (folder.parent.parent / "blobs").resolve()
        if not (is_here and path.is_file()):
            return ""
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES[file] + 1)
    except (OSError, RuntimeError):  # the latter of a link to itself
        return ""
    return content.decode("utf-8", "replace") if len(content) <= MOST_BYTES[file] else ""


def brief(text: str, most: int = 200) -> str:
    """A text that somebody else wrote, in one line of at most `most` characters, to be part of a message."""
    text = "".join(character if character.isprintable() else "?" for character in text[:most])
    return text if len(text) < most else f"{text[: most - 1]}…"


def own_parts(trained_on: str) -> str:
    """The parts of its split that a model's own training has heard, "train+valid", not those of models before it."""
    return trained_on.partition("; ")[0].rpartition(": ")[2]


def download(repo: str, revision: str | None, public: bool = False) -> tuple[Path, Origin]:
    """The folder of a Hub model, from the network or, where the Hub does not answer, from its cache.

    A full commit hash that is in the cache needs no network. With `public`, the Hub is always asked, and without a
    token: what it does not show to everybody is not there. Raises CheckpointError.
    """
    wanted = f"{repo}@{revision}" if revision else repo
    token = False if public else None  # None is this machine's own, if it has one
    try:
        folder = cached(repo, revision) if not public and revision and COMMIT.fullmatch(revision) else None
        if folder is None:
            commit = ask_commit(repo, revision, token)
            if public and not has_room(Path(constants.HF_HUB_CACHE), MOST_BYTES[WEIGHTS_FILE] + KEPT_FOR_SONGS):
                raise CheckpointError("There is no room for another model here just now: take a bundled one.")
            folder = fetch(repo, commit if public else revision, commit, token)
        return folder, hub_origin(folder, repo)
    except CheckpointError:
        raise
    except (RepositoryNotFoundError, HFValidationError) as error:  # or private, or gated: the Hub does not tell
        if public:
            raise CheckpointError(f"There is no public model {repo} on the Hub: check the name.") from error
        raise CheckpointError(
            f"There is no folder {wanted} here and no public model {repo} on the Hub: "
            "check the name, or log in with `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"The model {repo} on the Hub has no revision {revision}.") from error
    except RemoteEntryNotFoundError as error:
        raise CheckpointError(
            f"{wanted} on the Hub is no model of this program: it lacks {CONFIG_FILE} or {WEIGHTS_FILE}."
        ) from error
    except Exception as error:  # the client, its HTTP library and its downloader each have errors of their own
        if public:
            raise CheckpointError(
                f"{trouble(error, 'The cache')}: try again later, or take a bundled model."
            ) from error
        folder = cached(repo, revision)
        if folder is None:
            raise CheckpointError(f"{trouble(error)}, and {wanted} has not been downloaded before.") from error
        return folder, hub_origin(folder, repo, f"{trouble(error)}; this is the copy of {wanted} kept here.")


def trouble(error: Exception, place: str | None = None) -> str:
    """Why a download failed, as the first half of a sentence.

    `place` stands for a path that nobody should see, nor anything else of this machine.
    """
    if isinstance(error, HfHubHTTPError):
        return f"The Hub answers {error.response.status_code} {error.response.reason_phrase}".rstrip()
    if isinstance(error, OSError) and (error.filename or error.errno in DISK_ERRORS):
        return f"{place or error.filename or 'The cache'} cannot be written ({error.strerror})"
    return SILENT.format(host="The Hub") if place else why_unreached(error, "The Hub")


def ask_commit(repo: str, revision: str | None, token: bool | None = None) -> str:
    """Ask the Hub which commit a revision is, for HUB_TIMEOUT_SECONDS at most; raises whatever went wrong.

    The client's own timeout does not bound it: that counts anew for each address of the Hub and each packet, and not
    while a name is being resolved. So it asks in a thread, which is left behind when the time is over.
    """
    url = hf_hub_url(repo, CONFIG_FILE, revision=revision)
    answer: Future[str | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(get_hf_file_metadata(url, token=token, timeout=HUB_TIMEOUT_SECONDS).commit_hash)
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    commit = answer.result(HUB_TIMEOUT_SECONDS)
    if not COMMIT.fullmatch(commit or ""):
        raise ConnectionError(f"{url} is answered by something that is no Hub")
    return commit


def fetch(repo: str, revision: str | None, commit: str, token: bool | None = None) -> Path:
    """The folder of the cache that holds the files of a Hub model, downloaded where they are missing.

    Only at the end is the configuration asked for by its revision: with it the cache learns which commit the revision
    is, so that it only ever points at complete models. Raises what the client does, and CheckpointError if a file is
    too large or the configuration is that of something else: then no weights are fetched.
    """
    config = fetch_file(repo, CONFIG_FILE, commit, token)
    read_config(Path(config).parent, repo)
    fetch_file(repo, WEIGHTS_FILE, commit, token)
    if revision != commit:
        config = hf_hub_download(repo, CONFIG_FILE, revision=revision, etag_timeout=HUB_TIMEOUT_SECONDS, token=token)
    commit = Path(config).parent.name  # another one only if the revision moved meanwhile
    folder = Path(fetch_file(repo, WEIGHTS_FILE, commit, token)).parent
    for file in OPTIONAL_FILES:
        try:
            fetch_file(repo, file, commit, token)
        except (RemoteEntryNotFoundError, CheckpointError):  # there is none, or it is too large
            continue
        except Exception:  # the Hub is in trouble, and the model is complete
            break
    return folder


def fetch_file(repo: str, file: str, commit: str, token: bool | None) -> str:
    """The path in the cache of one file of a commit, downloaded if it is missing and not too large."""
    path = try_to_load_from_cache(repo, file, revision=commit)
    if isinstance(path, str):
        return path
    url = hf_hub_url(repo, file, revision=commit)
    check_size(get_hf_file_metadata(url, token=token, timeout=HUB_TIMEOUT_SECONDS).size, file, repo)
    return hf_hub_download(repo, file, revision=commit, etag_timeout=HUB_TIMEOUT_SECONDS, token=token)


def cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a Hub model that is complete in the cache, found without the network."""
    try:
        folder = Path(hf_hub_download(repo, WEIGHTS_FILE, revision=revision, local_files_only=True)).parent
    except LocalEntryNotFoundError:
        return None
    except RuntimeError as error:  # of pathlib: neither the environment nor the system knows a home for its cache
        raise CheckpointError("There is no home folder to keep models of the Hub in: HF_HOME may name one.") from error
    return folder if (folder / CONFIG_FILE).is_file() else None


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
            logits, _ = model.window_logits(torch.zeros(N_MELS, config.window_frames + 1))
        shares = window_weights(energy(logits), config.evidence)
        if not all(numbers.isfinite().all() for numbers in (logits / config.temperature, shares)):
            raise ValueError("the weights give no numbers")
    except FileNotFoundError as error:
        raise CheckpointError(f"The model {name} has no {WEIGHTS_FILE}.") from error
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        kind = UnfitError if isinstance(error, ValueError | SafetensorError) else CheckpointError
        raise kind(
            f"The {WEIGHTS_FILE} of {name} is damaged or does not fit its {CONFIG_FILE}: download or train it again."
        ) from error
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
    if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != {
        name: (tensor.shape, stored_in if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in expected.items()
    }:
        raise ValueError("its tensors are not those of the configuration")
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError("its weights are no numbers")
    return {name: tensor.to(expected[name].dtype) for name, tensor in weights.items()}


def size_of(path: Path) -> int | None:
    """Bytes of a file, 0 where there is none to be had, which reading it says, and None for a pipe or a device."""
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
        raise CheckpointError(f"{name} is not a model folder: it has no {CONFIG_FILE}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The {CONFIG_FILE} of {name} is damaged: download or train it again.") from error
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
    """What the licences of published nets ask for, before what else the NOTICE of a folder says; "" for nothing."""
    asked, there = notice_of(front_of(model.config.front).sources), optional_text(folder, NOTICE_FILE)
    return there if asked in there else "\n".join(filter(None, [asked, there]))


def save(model: CRNN, folder: Path, card: str) -> None:
    """Write config.json, model.safetensors and the model card README.md into `folder`, and NOTICE if there is one.

    Licences of published nets ask for that notice; what somebody has added to it stays. Each file takes its place when
    all are written, so that a full disk leaves a model that is there as it was. Raises OSError or SafetensorError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = deepcopy(model).to(front_of(model.config.front).stored_in, memory_format=torch.contiguous_format)
    with TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        whole = Path(name)
        (whole / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")  # paths need not be text
        stored.save_pretrained(whole, config=model.config)
        (whole / WEIGHTS_FILE).chmod(0o644)  # safetensors keeps it to its owner, and a server is often somebody else
        files = [CARD_FILE, WEIGHTS_FILE, CONFIG_FILE]
        if (notice := notice_beside(model, folder)) != optional_text(folder, NOTICE_FILE):
            (whole / NOTICE_FILE).write_text(notice, encoding="utf-8")
            files.insert(0, NOTICE_FILE)
        for file in files:
            (whole / file).replace(folder / file)
