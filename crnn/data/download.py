"""Downloads that go on where they stopped; GTZAN itself, its archive from the Hugging Face Hub, unpacked."""

import gzip
import hashlib
import re
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from filelock import Timeout
from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status
from tqdm import tqdm

from crnn.data.features import DatasetError
from crnn.data.names import GENRES
from crnn.hub import implicit_token, why_unreached

HUB_DATASET = "marsyas/gtzan"
ARCHIVE = "data/genres.tar.gz"
ARCHIVE_SHA256 = "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6"  # of the original, as in torchaudio
ARCHIVE_MEMBER = re.compile(rf"(?:\./)?genres/(({'|'.join(GENRES)})/\2\.\d{{5}}\.(?:wav|au))")
ATTEMPTS = 5  # in a row that bring nothing; the pauses between them grow from this one
PAUSE_SECONDS = 1.0
MOST_PAUSE_SECONDS = 60.0  # of those that a server asks for
TIMEOUT_SECONDS = 20.0  # without a byte
WAIT_SECONDS = 1.0  # for another process, after which the person is told

Answer = TypeVar("Answer")


class NotTheFileError(Exception):
    """An answer that is something else than the file, such as the page of a portal; the message is a clause."""

    def __init__(self, reason: str = "what it answers is not the file") -> None:
        super().__init__(reason)


def download_gtzan(folder: Path, notice: Callable[[str], None] = print) -> Path:
    """Fetch GTZAN's archive (1.2 GB) from the Hub and unpack its 1000 clips under `folder`.

    Returns the folder of genre folders. What was interrupted goes on where it was: the download at its last byte, the
    unpacking from its start. Where another process is at it, it is waited for. An archive that is not the original is
    used with a notice. Raises DatasetError if it cannot be had, has no clips or something else is in its place.
    """
    target = folder / "genres"
    if target.is_dir():
        return target
    if target.is_symlink() or target.is_file():
        raise DatasetError(f"{target} is no folder, or a link to one that is not here: mend it, or take it away.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / "genres.lock", "GTZAN"):
            if not target.is_dir():
                _fetch_and_unpack(folder, target, notice)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error.strerror or error}).") from error
    return target


@contextmanager
def one_at_a_time(lock_file: Path, name: str) -> Iterator[None]:
    """Keep other processes from fetching what this one does; if one is waited for, the person is told."""
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock_file, timeout=WAIT_SECONDS))
        except Timeout:
            print(f"Another process is fetching {name}; this one waits for it.", file=sys.stderr, flush=True)
            stack.enter_context(WeakFileLock(lock_file))
        yield


def _fetch_and_unpack(folder: Path, target: Path, notice: Callable[[str], None]) -> None:
    archive = fetch_archive(folder)
    if sha256_of(archive) != ARCHIVE_SHA256:
        notice(f"{ARCHIVE} is not GTZAN's original archive; going on with what it holds.")
    unpack(archive, target)
    if archive.parent == folder:
        archive.unlink()  # its clips are all there


def fetch_archive(folder: Path) -> Path:
    """The archive in the Hub's cache or, downloaded if need be, in `folder`. Raises DatasetError.

    The Hub's client throws away what it has when it is stopped, so that only its requests are used here.
    """
    cached = try_to_load_from_cache(HUB_DATASET, ARCHIVE, repo_type="dataset")
    archive = Path(cached) if isinstance(cached, str) else folder / "genres.tar.gz"
    if archive.is_file():
        return archive
    try:
        url = hf_hub_url(HUB_DATASET, ARCHIVE, repo_type="dataset")
        token = implicit_token()
        metadata = patiently(lambda: get_hf_file_metadata(url, token=token))
        if not (metadata.etag and metadata.size):
            raise NotTheFileError
        partial = folder / f"genres.{metadata.etag[:16]}.partial"  # of this version only
        complete(partial, url, metadata.size, "genres.tar.gz", build_hf_headers(token=token))
        partial.replace(archive)
    except Exception as error:  # the client, its HTTP library and the disk have errors of their own
        raise DatasetError(
            f"GTZAN could not be downloaded from the Hub ({reason_of(error)}); the same command goes on where it "
            "stopped, or give a copy of your own with --data."
        ) from error
    return archive


def reason_of(error: Exception) -> str:
    """Why a download came to an end, for the person."""
    if isinstance(error, NotTheFileError):
        return str(error)
    if isinstance(error, HfHubHTTPError):
        return f"it answers {error.response.status_code}"
    return getattr(error, "strerror", None) or why_unreached(error, "it")


def complete(partial: Path, url: str, size: int, name: str, headers: Mapping[str, str] | None = None) -> None:
    """Download what a file lacks of `size` bytes; `name` stands beside the bar, `headers` go to no other host.

    Gives up, with whatever went wrong, after ATTEMPTS that brought nothing. What is there of the file stays, unless the
    server knows no ranges and sends all of it again.
    """
    failures = 0
    start = partial.stat().st_size if partial.is_file() else 0
    if start > size:
        raise NotTheFileError(
            f"what it answers has {size} bytes, fewer than came of the file before; if that stays so, delete {partial}"
        )
    bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=name)
    with partial.open("ab") as file, bar:
        while (start := file.tell()) < size:
            bar.n = start
            try:
                _append(file, url, size, bar, headers or {})
                if file.tell() <= start:
                    raise EOFError("nothing came")
            except Exception as error:
                if isinstance(error, OSError) and not _is_busy(error):  # the disk is in trouble, or the server says no
                    raise
                bar.set_postfix_str(f"{reason_of(error)}, trying again")
                failures = 0 if file.tell() > start else failures + 1
                if failures == ATTEMPTS:
                    raise
                _pause(failures, error)


def patiently(ask: Callable[[], Answer]) -> Answer:
    """What a server answers, who is asked again while it is busy. Raises what `ask` raises."""
    for failures in range(1, ATTEMPTS):
        try:
            return ask()
        except HfHubHTTPError as error:
            if not _is_busy(error):
                raise
            _pause(failures, error)
    return ask()


def _is_busy(error: OSError) -> bool:
    """Whether a server says that it cannot answer now, rather than that it will not."""
    if not isinstance(error, HfHubHTTPError):
        return False
    status = error.response.status_code
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _pause(failures: int, error: Exception) -> None:
    """Wait after so many failures in a row: longer each time, and as long as a server asks, within reason."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    asked_seconds = min(float(asked), MOST_PAUSE_SECONDS) if re.fullmatch(r"[0-9]+", asked) else 0.0  # or it is a date
    time.sleep(max(PAUSE_SECONDS * 2**failures, asked_seconds))


def _append(file: BinaryIO, url: str, size: int, bar: tqdm, headers: Mapping[str, str]) -> None:
    """Download from the end of a file on; from its start where the server knows no ranges.

    A proxy may take away how long the whole is: then it is written where nothing is yet.
    Raises NotTheFileError, and leaves the file as it is, if another file or another part of it comes.
    """
    start = file.tell()
    headers = {**headers, "Range": f"bytes={start}-", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS) as response:
        hf_raise_for_status(response)
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            if not re.fullmatch(rf"bytes {start}-\d+/({size}|\*)", response.headers.get("Content-Range", "")):
                raise NotTheFileError
        elif "Content-Length" not in response.headers:
            if start or response.headers.get("Content-Type", "").startswith("text/html"):
                raise NotTheFileError
        elif response.headers["Content-Length"] != str(size):
            raise NotTheFileError
        else:
            file.seek(0)
            file.truncate()
            bar.n = 0
        for chunk in response.iter_bytes():
            file.write(chunk)
            bar.update(len(chunk))


def unpack(archive: Path, target: Path) -> None:
    """Unpack the clips of GTZAN's archive, and nothing else of it: no links, no paths outside, no hidden files.

    `target` appears only when all clips are there. Raises DatasetError if there are none or the archive is damaged.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
    try:
        # A member's own path is never used, so that this is as safe without tarfile's filters, which came to Python
        # with 3.10.12 and 3.11.4.
        with gzip.open(archive) as content, tarfile.open(fileobj=content, mode="r:") as tar:
            for member in tqdm(tar, unit="file", desc="unpacking"):
                name = ARCHIVE_MEMBER.fullmatch(member.name)
                if name and member.isfile():
                    path = partial / PurePosixPath(name[1])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with tar.extractfile(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file)
            while content.read(1 << 20):  # on to the checksum at the end
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DatasetError(
            f"GTZAN's archive could not be unpacked ({error}); make room if the disk is full, else delete {archive} "
            "and start again."
        ) from error
    if not partial.is_dir():
        raise DatasetError(f"{archive.name} has no clips such as genres/blues/blues.00000.wav in it.")
    partial.replace(target)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
