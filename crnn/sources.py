"""Where a model comes from: the Hub, a folder, the bundled ones."""

import errno
import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from os import PathLike
from pathlib import Path
from threading import Thread
from traceback import clear_frames

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

from crnn.bundle import ASSETS, DEFAULT_MODEL, MODEL_VARIABLE
from crnn.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    MOST_BYTES,
    OPTIONAL_FILES,
    WEIGHTS_FILE,
    CheckpointError,
    UnfitError,
    brief,
    check_size,
    optional_text,
    read,
    read_config,
)
from crnn.files import has_room
from crnn.hub import BROKEN_OFF, SILENT, causes, implicit_token, why_unreached
from crnn.network.model import CRNN
from crnn.walk import is_folder

BUNDLED = ASSETS / "models"
KEPT_FOR_SONGS = 2**30  # bytes of the disk that strangers' models, which stay, leave to songs, which go
MOST_NAME = 200  # characters of a model that a stranger names
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # some come without a file's name
HUB_TIMEOUT_SECONDS = 4.0  # for the Hub's first answer; its client alone would go on trying for 23 s and more

warnings.filterwarnings("ignore", "Not enough free disk space", UserWarning)  # the error that follows is told

_PART = r"\w[\w.+-]*"  # starts with no dot, so that no path leads upwards
HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}(?:/{_PART})*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


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
        return load(name)
    except CheckpointError as error:
        if not fallback or name == DEFAULT_MODEL:
            raise
        notice = f"{error} The bundled model {DEFAULT_MODEL} answers instead."
        return read(BUNDLED / DEFAULT_MODEL, DEFAULT_MODEL), bundled_origin(DEFAULT_MODEL, notice)


def load_public(name: str, check: Callable[[str], None] = lambda _: None) -> tuple[CRNN, Origin]:
    """Load a model that a stranger names, in evaluation mode on the CPU, and say where it came from.

    `name` is that of a bundled model or a Hub id with an optional "@revision" or the address of its page, never a
    folder. `check` is called with a model's repo before the Hub is asked for it, and what it raises is not caught. The
    Hub is asked as anybody may ask it, without this machine's token, and its cache serves nothing that the Hub has not
    just shown: it may hold private models.

    Raises CheckpointError if the model is missing, not public, damaged or not made for this program, or if the Hub does
    not answer; the message says nothing about this machine.
    """
    name = name.strip()
    if name in bundled_names():
        return read(BUNDLED / name, name), bundled_origin(name)
    hub_id = None
    if len(name) <= MOST_NAME:
        path = name.removeprefix(page_of("")).removeprefix(constants.HUGGINGFACE_CO_URL_HOME)
        hub_id = HUB_ID.fullmatch(path.removesuffix("/").replace("/tree/", "@", 1))
    if not hub_id:
        raise CheckpointError(
            f"There is no model {brief(repr(name[:MOST_NAME]), 60)}: give a public model of the Hub, user/name or "
            f"user/name@revision, or a bundled model ({', '.join(bundled_names()) or 'there is none'})."
        )
    check(hub_id["repo"])
    return load_from_hub(hub_id["repo"], hub_id["revision"], hub_id["repo"], public=True)


def load_from_hub(
    repo: str, revision: str | None, name: str, public: bool = False, anew: bool = False
) -> tuple[CRNN, Origin]:
    """Load a model as `download` finds it; once more, anew, if the cache has altered it. Raises CheckpointError."""
    try:
        folder, origin = download(repo, revision, public, anew)
        return read(folder, name), origin
    except UnfitError as error:
        for cause in causes(error):
            clear_frames(cause.__traceback__)  # they map the file, which Windows then neither replaces nor deletes
        may_be_altered = any(is_altered(error.folder / file) for file in (CONFIG_FILE, WEIGHTS_FILE))
        if public:
            forget(error.folder)
        if anew or not may_be_altered:
            raise
    return load_from_hub(repo, revision, name, public, anew=True)


def is_altered(path: Path) -> bool:
    """Whether a file of the cache may be another than the Hub's, by whose digest it is called, where links can be."""
    try:
        name, content = path.resolve().name, path.read_bytes()
    except OSError:  # it is not there, or it is no file's content that is wrong
        return False
    of_git = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)  # of small files
    return name not in (sha256(content).hexdigest(), of_git.hexdigest())


def forget(folder: Path) -> None:
    """Delete the files of a commit from the cache of the Hub's client, as far as that can be done."""
    with suppress(OSError, ValueError):
        scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(folder.name).execute()


def load(name: str) -> tuple[CRNN, Origin]:
    """The model that `name` stands for, downloaded if need be. Raises CheckpointError."""
    if name in bundled_names():
        return read(BUNDLED / name, name), bundled_origin(name)
    folder = Path(name)
    if is_folder(folder):
        return read(folder, name), Origin(f"{name} (folder)", folder=folder, card=optional_text(folder, CARD_FILE))
    hub_id = HUB_ID.fullmatch(name)
    if hub_id:
        return load_from_hub(hub_id["repo"], hub_id["revision"], name)
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


def page_of(repo: str, revision: str | None = None) -> str:
    """The address of a model's page on the Hub that is asked, which HF_ENDPOINT may name."""
    return f"{constants.ENDPOINT}/{repo}" + (f"/tree/{revision}" if revision else "")


def hub_origin(folder: Path, repo: str, notice: str | None = None) -> Origin:
    """Where a Hub model comes from, alike from the Hub and its cache; its folder has the name of its commit."""
    return Origin(
        f"{repo}@{folder.name[:7]} (Hub)", notice, repo, folder.name, folder, optional_text(folder, CARD_FILE)
    )


def download(repo: str, revision: str | None, public: bool = False, anew: bool = False) -> tuple[Path, Origin]:
    """The folder of a Hub model, from the network or, where the Hub does not answer, from its cache.

    A full commit hash that is in the cache needs no network. With `public`, the Hub is always asked, and without a
    token: what it does not show to everybody is not there. `anew` takes nothing from the cache that may be altered; it
    stays there until another has come. Raises CheckpointError.
    """
    commit = None
    wanted = f"{repo}@{revision}" if revision else repo
    try:
        is_fixed = revision and COMMIT.fullmatch(revision)
        folder = cached(repo, revision) if is_fixed and not (public or anew) else None
        if folder is None:
            token = False if public else implicit_token()
            commit = ask_commit(repo, revision, token)
            if public and not has_room(Path(constants.HF_HUB_CACHE), MOST_BYTES[WEIGHTS_FILE] + KEPT_FOR_SONGS):
                full = OSError(errno.ENOSPC, "a gigabyte beside the songs' stays free", constants.HF_HUB_CACHE)
                raise CheckpointError("There is no room for another model here just now: take a bundled one.") from full
            folder = fetch(repo, commit if public else revision, commit, token, anew)
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
        why = trouble(error, BROKEN_OFF if commit else SILENT, public)
        if public:
            raise CheckpointError(f"{why}: try again later, or take a bundled model.") from error
        if anew:
            raise CheckpointError(
                f"{why}, and the copy of {wanted} kept here is damaged: the same command later downloads it again."
            ) from error
        folder = cached(repo, revision)
        if folder is None:
            if is_of_disk(error):
                advice = f"make room there, or let {cache_variable()} name another folder"
                raise CheckpointError(f"{why}: {advice}.") from error
            partly, never = "was only partly downloaded: the same command goes on", "has not been downloaded before"
            raise CheckpointError(f"{why}, and {wanted} {partly if commit else never}.") from error
        return folder, hub_origin(folder, repo, f"{why}; this is the copy of {wanted} kept here.")


def trouble(error: Exception, else_why: str = SILENT, public: bool = False) -> str:
    """Why the Hub or its cache failed, as the first half of a sentence, if `public` without a word of this machine."""
    if isinstance(error, HfHubHTTPError):
        return f"The Hub answers {error.response.status_code} {error.response.reason_phrase}".rstrip()
    if is_of_disk(error):
        place = "The cache" if public else error.filename or f"The cache {constants.HF_HUB_CACHE}"
        return f"{place} cannot be written ({error.strerror})"
    return else_why.format(host="The Hub") if public else why_unreached(error, "The Hub", else_why)


def is_of_disk(error: Exception) -> bool:
    """Whether a file is in trouble rather than the network."""
    return isinstance(error, OSError) and bool(error.filename or error.errno in DISK_ERRORS)


def cache_variable() -> str:
    """The variable that can name another folder for the Hub's cache: HF_HUB_CACHE, where it is set, has precedence."""
    return "HF_HOME" if Path(constants.HF_HUB_CACHE) == Path(constants.default_cache_path) else "HF_HUB_CACHE"


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


def fetch(repo: str, revision: str | None, commit: str, token: bool | None = None, anew: bool = False) -> Path:
    """The folder of the cache that holds the files of a Hub model, downloaded where missing or, `anew`, altered.

    Only at the end is the configuration asked for by its revision: with it the cache learns which commit the revision
    is, so that it only ever points at complete models. Raises what the client does, and CheckpointError if a file is
    too large or the configuration is that of something else: then no weights are fetched.
    """
    config = fetch_file(repo, CONFIG_FILE, commit, token, anew)
    read_config(Path(config).parent, repo)
    fetch_file(repo, WEIGHTS_FILE, commit, token, anew)
    if revision != commit:
        config = hf_hub_download(repo, CONFIG_FILE, revision=revision, etag_timeout=HUB_TIMEOUT_SECONDS, token=token)
    commit = Path(config).parent.name  # another one only if the revision moved meanwhile
    folder = Path(fetch_file(repo, WEIGHTS_FILE, commit, token)).parent
    for file in OPTIONAL_FILES:
        try:
            fetch_file(repo, file, commit, token, anew)
        except (RemoteEntryNotFoundError, CheckpointError):  # there is none, or it is too large
            continue
        except Exception:  # the Hub is in trouble, and the model is complete
            break
    return folder


def fetch_file(repo: str, file: str, commit: str, token: bool | None, anew: bool = False) -> str:
    """The path in the cache of one file of a commit, downloaded if it is missing and not too large.

    With `anew`, also if it may be altered, and over what another commit has of it.
    """
    path = try_to_load_from_cache(repo, file, revision=commit)
    if isinstance(path, str) and not (anew and is_altered(Path(path))):
        return path
    url = hf_hub_url(repo, file, revision=commit)
    check_size(get_hf_file_metadata(url, token=token, timeout=HUB_TIMEOUT_SECONDS).size, file, repo)
    options = {"etag_timeout": HUB_TIMEOUT_SECONDS, "token": token, "force_download": anew}
    return hf_hub_download(repo, file, revision=commit, **options)


def cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a Hub model that is complete in the cache, found without the network. Raises CheckpointError."""
    try:
        path = hf_hub_download(repo, WEIGHTS_FILE, revision=revision, local_files_only=True, token=False)
    except LocalEntryNotFoundError:
        return None
    except OSError as error:
        place = error.filename or constants.HF_HUB_CACHE
        raise CheckpointError(f"{place} cannot be read ({error.strerror or error}).") from error
    except RuntimeError as error:  # of pathlib: neither the environment nor the system knows a home for its cache
        raise CheckpointError(
            f"There is no home folder to keep models of the Hub in: {cache_variable()} may name one."
        ) from error
    folder = Path(path).parent
    return folder if (folder / CONFIG_FILE).is_file() else None
