"""Where a model comes from (the Hub, a folder, the bundled ones) and how it is saved."""

import json
import math
import os
import re
from concurrent.futures import Future
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from threading import Thread
from typing import Any, get_args, get_origin

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_model

from crnn.features import FEATURE_SETTINGS, N_MELS
from crnn.model import CONFIG_VERSION, CRNN, CRNNConfig

BUNDLED = Path(__file__).parent.parent / "assets" / "models"
DEFAULT_MODEL = "crnn-transfer"
MODEL_VARIABLE = "GENRE_CRNN_MODEL"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
HUB_TIMEOUT_SECONDS = 4.0  # for the Hub's first answer; its client alone would go on trying for 23 s and more

_PART = r"\w[\w.+-]*"  # starts with no dot, so that no path leads upwards
HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}(?:/{_PART})*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


class CheckpointError(ValueError):
    """A model that cannot be had or used; the message is one sentence that says why and what would work."""


@dataclass(frozen=True)
class Origin:
    """Which model answers: where it came from, in words, and what the user should know about that."""

    name: str
    notice: str | None = None


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
        return read(BUNDLED / DEFAULT_MODEL, DEFAULT_MODEL), Origin(f"{DEFAULT_MODEL} (bundled)", notice)


def locate(name: str) -> tuple[Path, Origin]:
    """The folder of the model that `name` stands for, downloaded if need be. Raises CheckpointError."""
    bundled = sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_FILE}"))
    if name in bundled:
        return BUNDLED / name, Origin(f"{name} (bundled)")
    try:
        if Path(name).is_dir():
            return Path(name), Origin(f"{name} (folder)")
    except OSError:  # a name too long for a path, or behind a closed door
        pass
    hub_id = HUB_ID.fullmatch(name)
    if hub_id:
        return download(hub_id["repo"], hub_id["revision"])
    raise CheckpointError(
        f"There is no model {name!r}: give a folder, a Hub id such as user/name or user/name@revision, "
        f"or a bundled model ({', '.join(bundled) or 'there is none'})."
    )


def download(repo: str, revision: str | None) -> tuple[Path, Origin]:
    """The folder of a Hub model, from the network or, where the Hub does not answer, from its cache.

    A full commit hash that is in the cache needs no network. Raises CheckpointError.
    """
    wanted = f"{repo}@{revision}" if revision else repo
    try:
        folder = cached(repo, revision) if revision and COMMIT.fullmatch(revision) else None
        folder = folder or fetch(repo, revision, commit=ask_commit(repo, revision))
        return folder, Origin(f"{repo}@{folder.name[:7]} (Hub)")
    except (RepositoryNotFoundError, HFValidationError) as error:  # or private, or gated: the Hub does not tell
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
        folder = cached(repo, revision)
        if folder is None:
            raise CheckpointError(f"{trouble(error)}, and {wanted} has not been downloaded before.") from error
        return folder, Origin(f"{wanted} (Hub, cached)", f"{trouble(error)}; this is the copy of {wanted} kept here.")


def trouble(error: Exception) -> str:
    """Why a download failed, as the first half of a sentence."""
    if isinstance(error, HfHubHTTPError):
        return f"The Hub answers {error.response.status_code} {error.response.reason_phrase}".rstrip()
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be written ({error.strerror})"
    return "The Hub does not answer"


def ask_commit(repo: str, revision: str | None) -> str:
    """Ask the Hub which commit a revision is, for HUB_TIMEOUT_SECONDS at most; raises whatever went wrong.

    The client's own timeout does not bound it: that counts anew for each address of the Hub and each packet, and not
    while a name is being resolved. So it asks in a thread, which is left behind when the time is over.
    """
    url = hf_hub_url(repo, CONFIG_FILE, revision=revision)
    answer: Future[str | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(get_hf_file_metadata(url, timeout=HUB_TIMEOUT_SECONDS).commit_hash)
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    commit = answer.result(HUB_TIMEOUT_SECONDS)
    if not COMMIT.fullmatch(commit or ""):
        raise ConnectionError(f"{url} is answered by something that is no Hub")
    return commit


def fetch(repo: str, revision: str | None, commit: str) -> Path:
    """The folder of the cache that holds both files of a Hub model, downloaded where they are missing.

    The configuration comes last and by its revision: with it the cache learns which commit the revision is, so that it
    only ever points at complete models.
    """
    hf_hub_download(repo, WEIGHTS_FILE, revision=commit, etag_timeout=HUB_TIMEOUT_SECONDS)
    config = hf_hub_download(repo, CONFIG_FILE, revision=revision, etag_timeout=HUB_TIMEOUT_SECONDS)
    commit = Path(config).parent.name  # another one only if the revision moved meanwhile
    return Path(hf_hub_download(repo, WEIGHTS_FILE, revision=commit, etag_timeout=HUB_TIMEOUT_SECONDS)).parent


def cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a Hub model that is complete in the cache, found without the network."""
    try:
        folder = Path(hf_hub_download(repo, WEIGHTS_FILE, revision=revision, local_files_only=True)).parent
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / CONFIG_FILE).is_file() else None


def read(folder: Path, name: str) -> CRNN:
    """Rebuild the model in a folder of config.json and model.safetensors, and try it; nothing is unpickled.

    Raises CheckpointError, which calls the model by `name`.
    """
    config = read_config(folder, name)
    try:
        model = CRNN(config).eval()
        load_model(model, folder / WEIGHTS_FILE, strict=True)
        with torch.no_grad():
            logits, _ = model.window_logits(torch.zeros(N_MELS, config.window_frames + 1))
        if not logits.isfinite().all():
            raise ValueError("the weights give no numbers")
    except FileNotFoundError as error:
        raise CheckpointError(f"The model {name} has no {WEIGHTS_FILE}.") from error
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise CheckpointError(
            f"The {WEIGHTS_FILE} of {name} is damaged or does not fit its {CONFIG_FILE}: download or train it again."
        ) from error
    return model


def read_config(folder: Path, name: str) -> CRNNConfig:
    """The checked configuration of a model folder. Raises CheckpointError, which calls the model by `name`."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{name} is not a model folder: it has no {CONFIG_FILE}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The {CONFIG_FILE} of {name} is damaged: download or train it again.") from error
    if not isinstance(values, dict) or not {"genres", "features", "version"} <= set(values):
        raise CheckpointError(f"{name} is no model of this program: its {CONFIG_FILE} describes something else.")
    if values["version"] != CONFIG_VERSION:
        raise CheckpointError(
            f"The model {name} is of version {values['version']!r}; this program reads version {CONFIG_VERSION}."
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
        raise CheckpointError(f"The {CONFIG_FILE} of {name} does not describe a model: {error}.") from error


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of a field's type; whole numbers are counts, so positive, the others finite."""
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is not int or value > 0)


def save(model: CRNN, folder: Path, card: str) -> None:
    """Write config.json, model.safetensors and the model card README.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(card, encoding="utf-8")
    model.save_pretrained(folder, config=model.config)
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors keeps it to its owner, and a server is often somebody else
