"""Weights that others published: from a folder of the person's, from an earlier download, or from their authors."""

import os
from pathlib import Path

from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status

from crnn.data.download import (
    TIMEOUT_SECONDS,
    NotTheFileError,
    complete,
    one_at_a_time,
    patiently,
    reason_of,
    sha256_of,
)
from crnn.data.features import DatasetError
from crnn.network.front import Weights

FOLDER_VARIABLE = "GENRE_CRNN_PRETRAINED"  # the environment's, so that all processes of a training know it
CACHE = Path("data") / "pretrained"  # beside all else that train.py fetches


def find_weights(weights: Weights) -> Path:
    """The file of these weights, whose SHA-256 is theirs.

    It is taken from the folder that the variable GENRE_CRNN_PRETRAINED names; without one from CACHE, downloaded to
    there if need be. One process downloads, others wait for it; a download that broke off goes on at its last byte.

    Raises DatasetError if it cannot be had or is another file.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        path = Path(folder) / weights.name
        if not path.is_file():
            raise DatasetError(f"{folder} has no {weights.name}, which is the file at {weights.url}.")
        check(path, weights)
        return path
    path = CACHE / weights.name
    if not path.is_file():
        try:
            CACHE.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(CACHE / f"{weights.name}.lock", weights.name):
                if not path.is_file():
                    download(weights, path)
        except OSError as error:
            raise DatasetError(f"{CACHE} cannot be written ({error.strerror or error}).") from error
    check(path, weights)
    return path


def check(path: Path, weights: Weights) -> None:
    """Raises DatasetError if a file cannot be read or is another than these weights."""
    try:
        is_theirs = sha256_of(path) == weights.sha256
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not is_theirs:
        raise DatasetError(f"{path} is damaged or another file than that at {weights.url}: delete or replace it.")


def download(weights: Weights, path: Path) -> None:
    """Fetch these weights from their authors. Raises DatasetError if that fails or they come damaged."""
    partial = path.with_name(f"{path.name}.{weights.sha256[:16]}.partial")  # of this version only
    by_hand = f"with {weights.name}, the file at {weights.url}, in a folder, --pretrained FOLDER needs no download"
    try:
        complete(partial, weights.url, patiently(lambda: size_at(weights.url)), weights.name)
        is_whole = sha256_of(partial) == weights.sha256
    except Exception as error:  # the client, its HTTP library and the disk have errors of their own
        raise DatasetError(
            f"{weights.name} could not be downloaded ({reason_of(error)}); the same command goes on where it "
            f"stopped, or {by_hand}."
        ) from error
    if not is_whole:
        partial.unlink()
        raise DatasetError(
            f"{weights.name} was downloaded damaged and is deleted; the same command tries again, or {by_hand}."
        )
    partial.replace(path)


def size_at(url: str) -> int:
    """How many bytes the file at an address has. Raises NotTheFileError, and what the client does."""
    answer = get_session().head(
        url, headers={"Accept-Encoding": "identity"}, follow_redirects=True, timeout=TIMEOUT_SECONDS
    )
    hf_raise_for_status(answer)
    if not (size := int(answer.headers.get("Content-Length", 0))):
        raise NotTheFileError
    return size
