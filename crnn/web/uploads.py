"""Visitors' songs on the disk: they go when nobody needs them any more."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from filelock import FileLock, Timeout

from crnn.terminal import TURNING, printable

FOLDER_VARIABLE = "GRADIO_TEMP_DIR"
OF_PAGES = "genre-crnn-page-"  # how the names of their folders begin
LOCK_FILE = "in-use"

ANSWERED_SECONDS = 60.0  # that the song of a program is kept after its answer, for who sent the same one meanwhile
MOST_NAME = 255  # characters of a name, as on disks
SENT_AS = {"%22": '"', "%0A": " ", "%0D": " "}  # quotation marks and ends of lines in names (HTML, multipart/form-data)


class Song(str):
    """The path of an upload, with the name that its visitor's program tells, or "": Gradio's lacks some signs of it."""

    told: str

    def __new__(cls, path: str, told: str | None = None) -> "Song":
        """Of `told` what is text and no name would be longer than."""
        song = super().__new__(cls, path)
        song.told = (told or "")[:MOST_NAME].encode("utf-8", "ignore").decode()
        return song


def name_of(song: str) -> str:
    """The name of a song as its visitor has it, but for signs that would turn a sentence round; of such alone, escapes.

    Mostly, where the path alone tells it: one may have such signs itself, which are sent as they are.
    """
    told = getattr(song, "told", "") or re.sub("|".join(SENT_AS), lambda sign: SENT_AS[sign[0]], Path(song).name)
    return "".join(sign for sign in told if sign not in TURNING) or printable(told)


@contextmanager
def own_folder() -> Iterator[None]:
    """Have Gradio keep uploads in a new folder, in that which the environment names or among the temporary ones.

    Another page would give equal songs the same path and delete them when it needs them no more. The folder goes with
    the page; that of a page which was killed goes when the next one starts. Raises OSError with a sentence.
    """
    before = os.environ.get(FOLDER_VARIABLE)
    place = Path(before or gettempdir()).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        own = TemporaryDirectory(prefix=OF_PAGES, dir=place)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"Songs cannot be kept in {place} ({reason}): name a folder in {FOLDER_VARIABLE}.") from error
    for left in place.glob(f"{OF_PAGES}*/{LOCK_FILE}"):
        with suppress(OSError, Timeout), FileLock(left, blocking=False):
            shutil.rmtree(left.parent)
    with own as folder, FileLock(Path(folder) / LOCK_FILE):
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(FOLDER_VARIABLE)
            os.environ |= {FOLDER_VARIABLE: before} if before else {}


class Uploads:
    """The files that visitors have sent, `paths`, and what became of them; Gradio adds to that set.

    Equal files have one path, so that one may be what several visitors asked about; `asked_about` says of a path
    whether a question that is not answered yet has it. Songs of the page stay for `kept_seconds`, for its player, and
    so does what nobody has asked about. `folder` is where they are: if it is the page's own (`own_folder`), so does
    all else that is in it, such as what Gradio made of half a request, and it is made anew where a cleaner took it.
    """

    def __init__(
        self, paths: set[str], kept_seconds: float, asked_about: Callable[[str], bool], folder: Path | None = None
    ) -> None:
        self.paths, self.kept_seconds, self.asked_about, self.folder = paths, kept_seconds, asked_about, folder
        self.is_own = folder is not None and (folder / LOCK_FILE).is_file()
        # By a clock that nobody sets: when a file was seen first as it is, and when it was answered.
        self._seen: dict[str, tuple[float, float]] = {}
        self._answered: dict[str, float] = {}
        self._shown: set[str] = set()
        self._walked = -inf  # when the folder was

    def answered(self, path: str) -> None:
        """A program has the answer to a song."""
        if path in self.paths:
            self._answered[path] = time.monotonic()

    def shown(self, path: str) -> None:
        """The page has the answer to a song, and may play it."""
        if path in self.paths:
            self._shown.add(path)

    def sweep(self) -> None:
        """Delete what nobody needs any more."""
        now = time.monotonic()
        if self.is_own:
            self._hold()
        if self.is_own and now - self._walked > self.kept_seconds / 12:
            self._walked = now
            others = (path for path in self.folder.rglob("*") if path.name != LOCK_FILE and path.is_file())
            self.paths.update(map(str, others))
        for path in [*self.paths]:
            is_answered = path in self._answered and path not in self._shown
            most_seconds = min(ANSWERED_SECONDS, self.kept_seconds) if is_answered else self.kept_seconds
            try:
                changed = Path(path).stat().st_ctime
            except OSError:  # gone already
                self._delete(path)
                continue
            if path not in self._seen or self._seen[path][0] != changed:
                self._seen[path] = changed, now
            last_seconds = max(self._seen[path][1], self._answered.get(path, 0.0))
            if now - last_seconds > most_seconds and not self.asked_about(path):
                self._delete(path)

    def _hold(self) -> None:
        """Make the folder private and locked again: without both, Gradio makes one that all may read."""
        if (self.folder / LOCK_FILE).is_file():
            return
        with suppress(OSError, Timeout):  # until the next time
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._lock = FileLock(self.folder / LOCK_FILE)
            self._lock.acquire(blocking=False)

    def _delete(self, path: str) -> None:
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
            self.paths.discard(path)
            self._answered.pop(path, None)
            self._seen.pop(path, None)
            self._shown.discard(path)
            Path(path).parent.rmdir()  # that it had for itself
