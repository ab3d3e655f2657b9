"""Decoding in processes of its own: a file that crashes or hangs native code takes nothing with it but itself."""

import errno
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import LifoQueue
from shutil import copyfileobj
from threading import Lock
from typing import BinaryIO

import numpy as np

from crnn.audio import SAMPLE_RATE, AudioError, Notice, Passages, not_now, open_file, open_sound

STALL_SECONDS = 8.0  # that a worker may take to the next block, each of which lasts about three seconds
START_SECONDS = 60.0  # and to start, on a machine that is busy
CPU_SECONDS = 180  # and compute for one song, or for one block of a song that may be as long as it likes
MEMORY_BYTES = 2**30  # of its address space, of which 0.2 GB are code
MOST_WORKERS = 8
SHORTAGE = "the machine is short of memory or time"
ENDING = "the program is ending"

_HEAD = struct.Struct("!cHI")  # of a message: its kind, the channels, and the samples of each or bytes
_READY, _LENGTH, _BLOCK, _END, _ERROR = b"r", b"l", b"b", b"e", b"x"
_ASK, _STOP = b"?", b"."
_MOST_CHANNELS, _MOST_SAMPLES = 1_024, 2**24
_PROGRAM = "from crnn.decoding import work; work()"
_STARTED_AT_ONCE = 2
_WORKING_SHARE = 0.1  # of the time that a block is waited for: who computes less is kept from it by the machine
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # neither secrets nor more memory than needed


class Decoders:
    """A pool of processes, each of which decodes one song at a time; one that dies is replaced.

    Two are started at once, another when a song comes while all are at work. A process imports no PyTorch, takes 20 MB,
    gets files that are open already, and can write none. Threads may share a pool: while all processes are at work, who
    asks for the blocks of another song waits. Windows has none, as its sockets pass no files on.

    Args:
        n_workers: how many processes at most; else one for each core, from 2 to MOST_WORKERS.
        stall_seconds: how long a process may take to the next block.
        own_songs: a song may take any time to decode, as an hour of DSD does, while blocks of it come. Else it may take
            CPU_SECONDS, so that no stranger's keeps a process for hours.
    """

    def __init__(
        self, n_workers: int | None = None, stall_seconds: float = STALL_SECONDS, own_songs: bool = False
    ) -> None:
        n_workers = n_workers or max(2, min(MOST_WORKERS, os.cpu_count() or 1))
        self._own_songs = own_songs
        self._workers = [_Worker(stall_seconds) for _ in range(n_workers)]
        self._idle: LifoQueue[_Worker] = LifoQueue()
        for worker in reversed(self._workers):  # those that run are asked first
            self._idle.put(worker)
        try:
            for worker in self._workers[:_STARTED_AT_ONCE]:
                worker.be_there()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them for good: a song at work, and one that is opened later, raises AudioError."""
        for worker in self._workers:
            worker.close()

    @contextmanager
    def open_audio(
        self, source: str | os.PathLike | bytes, sample_rate: int = SAMPLE_RATE, passages: Passages | None = None
    ) -> Iterator["DecodedSound"]:
        """As `crnn.audio.open_audio`, but what is wrong with a sound may be said only when its blocks are read.

        Raises:
            AudioError: also for a file that breaks the decoder, or on which it goes on without end.
        """
        with open_file(source) as (file, name):
            sound = DecodedSound(self._idle, file, name, [sample_rate, passages, self._own_songs])
            try:
                yield sound
            finally:
                sound.close()


class DecodedSound:
    """A file that `Decoders.open_audio` has opened; like `crnn.audio.Sound`."""

    def __init__(self, idle: "LifoQueue[_Worker]", file: BinaryIO, name: str, how: list) -> None:
        self.sample_rate = how[0]
        self.expected_seconds = 0.0  # known with the first block
        self.notices: tuple[Notice, ...] = ()
        self.starts_seconds: tuple[float, ...] = ()
        self.duration_seconds: float | None = None
        self._idle, self._file, self._name, self._how = idle, file, name, how
        self._blocks: Iterator[np.ndarray] | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """As `crnn.audio.Sound.blocks`. Raises AudioError."""
        if self._blocks is not None:
            raise RuntimeError("the blocks of a sound are read once: open it again")
        self._blocks = self._received_blocks()
        return self._blocks

    def close(self) -> None:
        """Give the worker back, if it is still at work."""
        if self._blocks is not None:
            self._blocks.close()

    def _received_blocks(self) -> Iterator[np.ndarray]:
        worker = self._idle.get()
        is_clean = False
        try:
            with self._ready(worker) as file:
                worker.ask(file, self._name, self._how)
            while True:
                kind, content = worker.receive()
                if kind == _BLOCK:
                    yield content
                    continue
                if kind == _LENGTH:
                    self.expected_seconds = float(content)
                    continue
                is_clean = True
                if kind == _ERROR:
                    raise AudioError(content["message"], **content["values"])
                notices, starts_seconds, self.duration_seconds = content
                self.notices = tuple(Notice(message, values) for message, values in notices)
                self.starts_seconds = tuple(starts_seconds)
                return
        except AudioError:
            raise
        except (OSError, EOFError, LookupError, ValueError, TypeError) as error:
            raise self._blamed(worker, error) from error
        except GeneratorExit:  # nobody wants the rest
            is_clean = worker.stop()
            raise
        finally:
            if not is_clean:
                worker.restart()
            self._idle.put(worker)

    def _blamed(self, worker: "_Worker", error: Exception) -> AudioError:
        """What is told where a worker fails with an `error`: a fault of the machine, or else of the song."""
        is_late = isinstance(error, TimeoutError)
        signal_number = None if is_late else worker.ended_by()
        is_stopped = is_late and not worker.is_working()
        is_killed = signal_number == signal.SIGKILL  # by the system, where memory runs out
        if worker.is_closed:
            return not_now(self._name, ENDING)
        if not worker.is_ready or is_stopped or is_killed:
            return not_now(self._name, SHORTAGE)
        if is_late or signal_number == signal.SIGXCPU:
            return AudioError("{name} takes too long to decode: save it as flac or mp3 first.", name=self._name)
        return AudioError("{name} breaks the decoder: it is damaged, so fetch or export it again.", name=self._name)

    @contextmanager
    def _ready(self, worker: "_Worker") -> Iterator[BinaryIO]:
        """The file as a worker takes it, which is there. Raises AudioError for a fault of the machine."""
        with ExitStack() as stack:
            try:
                worker.be_there()
                file = stack.enter_context(_file_with_number(self._file))
            except OSError as error:
                raise not_now(self._name, error.strerror) from error
            yield file


class _Worker:
    """A process that runs `work`, and the socket to it."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._process: subprocess.Popen | None = None
        self._cpu_seconds = 0.0  # before what is waited for now
        self._lock = Lock()  # for nobody to start it while another thread closes it
        self.is_ready = self.is_closed = False

    def be_there(self) -> None:
        """Have it run, also if it has died while it had nothing to do. Raises OSError where none can be started."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._start()

    def ask(self, file: BinaryIO, name: str, how: list) -> None:
        """Let it decode a file that has a number. Raises OSError or EOFError where it dies or does not start."""
        if not self.is_ready:
            self._connection.settimeout(START_SECONDS)
            if self.receive()[0] != _READY:
                raise EOFError
            self.is_ready = True
        self._connection.settimeout(self._stall_seconds)
        request = json.dumps([name, *how]).encode()
        socket.send_fds(self._connection, [_ASK], [file.fileno()])
        self._connection.sendall(_HEAD.pack(_ASK, 0, len(request)) + request)

    def receive(self) -> tuple[bytes, object]:
        """The next message: its kind, and a block or what else it says. Nothing in it is unpickled.

        Raises TimeoutError where it takes too long, OSError or EOFError where it dies, ValueError for nonsense.
        """
        self._cpu_seconds = _cpu_seconds_of(self._process.pid)
        kind, n_channels, size = _HEAD.unpack(_receive(self._connection, _HEAD.size))
        if size > _MOST_SAMPLES or n_channels > _MOST_CHANNELS:
            raise ValueError("a decoder says nonsense")
        if kind == _BLOCK:
            block = np.empty((n_channels, size), np.float32)
            _receive_into(self._connection, memoryview(block).cast("B"))
            return kind, block
        return kind, json.loads(_receive(self._connection, size) or b"null")

    def stop(self) -> bool:
        """End the song before its end; whether that is done."""
        try:
            self._connection.sendall(_STOP)
            while self.receive()[0] == _BLOCK:
                pass
        except (OSError, EOFError, ValueError):
            return False
        return True

    def ended_by(self) -> int | None:
        """The signal that has ended it, SIGXCPU where it has computed for as long as it may; None if it goes on."""
        with suppress(subprocess.TimeoutExpired):
            return -self._process.wait(1.0)
        return None

    def is_working(self) -> bool:
        """Whether it computes what is waited for, rather than be stopped or wait for a disk; True if nobody knows."""
        seconds = _cpu_seconds_of(self._process.pid)
        return seconds == 0 or seconds - self._cpu_seconds >= _WORKING_SHARE * self._stall_seconds

    def restart(self) -> None:
        """Another process in its place, now or, if the machine has no room for it, when it is asked next."""
        with self._lock, suppress(OSError):
            self._end()
            self._start()

    def close(self) -> None:
        """Kill it, if it runs, and start none in its place."""
        with self._lock:
            self.is_closed = True
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()

    def _start(self) -> None:
        """Not by `multiprocessing`, whose children import the main module, and with it PyTorch and Gradio."""
        if self.is_closed:
            raise OSError(errno.ECANCELED, ENDING)
        self._connection, its_end = socket.socketpair()
        self.is_ready = False
        code = f"import sys; sys.path[:] = {sys.path!r}; {_PROGRAM}"
        libraries = {name: value for name, value in os.environ.items() if name.startswith(("LD_", "DYLD_"))}
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=its_end,
                stdout=subprocess.DEVNULL,
                env=_ENVIRONMENT | libraries,
                start_new_session=True,  # Ctrl-C is for whoever started it
            )


def _cpu_seconds_of(pid: int) -> float:
    """What a process has computed so far, in all its threads; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user's and system's: man 5 proc


def work() -> None:
    """What a worker does: decode one song after another for whoever holds the other end of its standard input."""
    nowhere = os.open(os.devnull, os.O_WRONLY)  # first, as standard error may be closed
    connection = socket.socket(fileno=os.dup(0))
    _limit("RLIMIT_AS", MEMORY_BYTES)
    _limit("RLIMIT_FSIZE", 0)
    _limit("RLIMIT_CORE", 0)
    with suppress(OSError, EOFError):  # nobody is there any more
        _send(connection, _READY)
        os.dup2(nowhere, 2)  # what nobody has thought of is told as a fault of the song
        while True:
            _decode_next(connection)


def _decode_next(connection: socket.socket) -> None:
    number = None
    while number is None:
        kind, numbers, *_ = socket.recv_fds(connection, 1, 1)
        if not kind:
            raise EOFError
        number = numbers[0] if kind == _ASK else None  # a _STOP may come when a song is over
    *_, size = _HEAD.unpack(_receive(connection, _HEAD.size))
    name, sample_rate, passages, is_own = json.loads(_receive(connection, size))
    _limit("RLIMIT_CPU", int(time.process_time()) + CPU_SECONDS)
    with os.fdopen(number, "rb") as file:
        file.seek(0)
        try:
            with open_sound(file, name, sample_rate, passages and Passages(*passages)) as sound:
                _send(connection, _LENGTH, sound.expected_seconds)
                for block in sound.blocks():
                    if select.select([connection], [], [], 0)[0]:  # a _STOP
                        break
                    if is_own:
                        _limit("RLIMIT_CPU", int(time.process_time()) + CPU_SECONDS)
                    connection.sendall(_HEAD.pack(_BLOCK, *block.shape))
                    connection.sendall(memoryview(block).cast("B"))
            notices = [(notice.message, notice.values) for notice in sound.notices]
            _send(connection, _END, [notices, sound.starts_seconds, sound.duration_seconds])
        except AudioError as error:
            _send(connection, _ERROR, {"message": error.message, "values": error.values})


def _limit(name: str, most: int) -> None:
    """A limit that may be changed again; there are systems that do not have each."""
    import resource  # noqa: PLC0415 (Unix alone has it)

    with suppress(AttributeError, ValueError, OSError):
        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _send(connection: socket.socket, kind: bytes, content: object = None) -> None:
    message = json.dumps(content).encode()
    connection.sendall(_HEAD.pack(kind, 0, len(message)) + message)


def _receive(connection: socket.socket, n_bytes: int) -> bytes:
    message = bytearray(n_bytes)
    _receive_into(connection, memoryview(message))
    return bytes(message)


def _receive_into(connection: socket.socket, place: memoryview) -> None:
    while place:
        n_bytes = connection.recv_into(place)
        if not n_bytes:
            raise EOFError
        place = place[n_bytes:]


@contextmanager
def _file_with_number(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file itself, or one on disk with the same bytes that the kernel can pass on."""
    if not hasattr(file, "getbuffer"):
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        copyfileobj(file, copy)
        copy.seek(0)
        yield copy
