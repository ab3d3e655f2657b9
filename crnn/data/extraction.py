"""From audio files to log-mels on all cores: nothing is computed twice, and no file can stop the others."""

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from crnn.audio import AudioError, open_audio
from crnn.data.features import DAMAGE, DatasetError, Features
from crnn.data.workers import started
from crnn.features import FEATURE_SETTINGS, FLOOR_DB, N_MELS, LogMel, n_frames_of, to_levels
from crnn.files import whole_file
from crnn.machine import n_cores

EXCERPT_SECONDS = 60.0  # of a longer song, its middle, so that a collection of songs fits into memory
MOST_SECONDS = 300.0  # for one file; a quarter of an hour of music takes about ten
CLIPS_A_WORKER = 8  # to start a process for fewer takes longer than they do


def extract_features(
    tracks: dict[str, Path],
    cache: Path,
    notice: Callable[[str], None] = tqdm.write,
    most_seconds: float = MOST_SECONDS,
) -> Features:
    """The log-mels of audio files by track; of a song longer than a minute, those of its middle minute.

    Each is kept in the folder `cache` as soon as it is there, so that a run that was stopped goes on where it was and
    the next one begins at once; a file that has changed is decoded again. A file that cannot be decoded, takes more
    than `most_seconds` or crashes the decoder is left out with a notice.

    Raises DatasetError if none can be decoded, a file has vanished or `cache` cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        places = {track: cache / _key(path) for track, path in tracks.items()}
        levels = {track: _load(place) for track, place in places.items()}
        jobs = [(track, tracks[track], places[track]) for track in tracks if levels[track] is None]
        with tqdm(total=len(tracks), initial=len(tracks) - len(jobs), unit="clip", desc="log-mels") as bar:
            for track, problem in _extract(jobs, most_seconds):
                levels[track] = _load(places[track])
                if problem:
                    notice(f"Left out {track}: {problem}")
                bar.update()
    except OSError as error:
        raise DatasetError(
            f"{error.filename or cache} cannot be read or written ({error.strerror or error}); "
            "when that is mended, the same command goes on where it stopped."
        ) from error
    done = [track for track in tracks if levels[track] is not None]
    if not done:
        raise DatasetError("None of the files could be decoded.")
    return Features.from_levels([levels[track] for track in done], done)


def _key(path: Path) -> str:
    """The name in the cache for a file as it is now."""
    status = path.stat()
    facts = (str(path.resolve()), status.st_size, status.st_mtime_ns, EXCERPT_SECONDS, FEATURE_SETTINGS)
    return sha256(repr(facts).encode()).hexdigest()[:32] + ".npy"


def _load(place: Path) -> np.ndarray | None:
    """The levels (128, frames) in a file of the cache; None where there is none or it is damaged."""
    try:
        levels = np.load(place)
        is_whole = levels.dtype == np.uint8 and levels.ndim == 2 and len(levels) == N_MELS and levels.size
    except (FileNotFoundError, MemoryError, *DAMAGE):  # by its size, damage may ask for any memory
        return None
    return levels if is_whole else None


Job = tuple[str, Path, Path]  # track, audio file, place in the cache


def _extract(jobs: list[Job], most_seconds: float) -> Iterator[tuple[str, str | None]]:
    """Do all jobs; yields each track when it is done, with what is wrong with it. Raises OSError."""
    queue = jobs[::-1]
    workers = [_Worker() for _ in range(min(n_cores(), -(-len(jobs) // CLIPS_A_WORKER)))]
    try:
        for worker in workers:
            worker.give(queue.pop())
        while busy := [worker for worker in workers if worker.job]:
            wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                track = worker.job[0]
                if worker.connection.poll():
                    problem = worker.answer()
                elif time.monotonic() - worker.since > most_seconds:
                    problem = f"it was not decoded within {most_seconds:g} s."
                    worker.restart()
                else:
                    continue
                worker.give(queue.pop() if queue else None)
                yield track, problem
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that decodes one file after the other; what a file does to it happens to no other file."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        self.process = started(_work, [theirs])
        theirs.close()  # so that the end of the process is the end of the connection

    def give(self, job: Job | None) -> None:
        self.job, self.since = job, time.monotonic()
        if job:
            with suppress(ConnectionError):  # it has died already, which `answer` finds out
                self.connection.send(job[1:])

    def answer(self) -> str | None:
        """What was wrong with the file of the job, if anything; raises OSError if it lies with the cache."""
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            self.restart()
            return "it crashes the decoder."
        if isinstance(answer, OSError):
            raise answer
        return answer

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection) -> None:
    """Decode the files that are asked for until the parent is gone."""
    torch.set_num_threads(1)
    front_end = LogMel()
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(_extract_one(front_end, *connection.recv()))


def _extract_one(front_end: LogMel, path: Path, place: Path) -> str | OSError | None:
    """Write the levels (128, frames) of a file to the cache.

    Returns what is wrong with the file, or an OSError if it is gone or the cache cannot be written.
    """
    try:
        with open_audio(path) as sound:
            log_mel = front_end.of_blocks(sound.blocks())
    except AudioError as error:
        return str(error) if path.exists() else FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if log_mel.max() <= FLOOR_DB:
        return f"{path.name} is silent."
    content = io.BytesIO()  # NumPy's own writer does not say why a file cannot be written
    most = n_frames_of(EXCERPT_SECONDS)
    start = max(0, log_mel.shape[-1] - most) // 2
    sounding = np.flatnonzero((log_mel > FLOOR_DB).any(axis=0))
    if not ((start <= sounding) & (sounding < start + most)).any():  # a silence before a hidden song
        start = max(0, int(sounding[len(sounding) // 2]) - most // 2)
    try:
        np.save(content, to_levels(log_mel[:, start : start + most]))
        with whole_file(place) as file:
            file.write(content.getvalue())
    except OSError as error:
        return error
    return None
