"""Broken files against decoder, workers, command line and page: `python benchmarks/torture/run.py`, or `make torture`.

Each file has to be answered or refused with a sentence, within SECONDS of computing and MEGABYTES of memory; no process
may crash, hang, print a traceback or open a connection. `--count N` files of `--seed S`, beginning with the traps, for
at most `--seconds S` a way, through some `--ways` only. The exit status says whether all of that held.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from socket import create_server, socket
from tempfile import TemporaryDirectory
from threading import Thread

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from benchmarks.torture.corpus import Case, case, whole  # noqa: E402
from crnn.audio import AudioError, Opener, open_audio  # noqa: E402
from crnn.decoding import Decoders  # noqa: E402

SECONDS, MEGABYTES = 10.0, 1_000
HANG_SECONDS = 300.0  # by the clock, for machines that are busy with something else
AT_ONCE = 25  # files that command line and page get


@dataclass
class Result:
    """What came of one way."""

    way: str
    answered: int = 0
    refused: int = 0
    most_seconds: float = 0.0
    slowest: str = ""
    most_megabytes: float = 0.0
    largest: str = ""
    faults: list[str] = field(default_factory=list)

    def note(self, case: Case, is_answer: bool, seconds: float = 0.0, megabytes: float = 0.0) -> None:
        """A file that came to its end."""
        self.answered += is_answer
        self.refused += not is_answer
        if is_answer and case.is_refused:
            self.faults.append(f"{case.label}: answered")
        if seconds > self.most_seconds:
            self.most_seconds, self.slowest = seconds, case.label
        if megabytes > self.most_megabytes:
            self.most_megabytes, self.largest = megabytes, case.label
        if seconds > SECONDS or megabytes > MEGABYTES:
            self.faults.append(f"{case.label}: {seconds:.1f} s, {megabytes:.0f} MB")

    def __str__(self) -> str:
        line = f"{self.way:10} {self.answered + self.refused:6} files: {self.answered} answered, {self.refused} refused"
        if self.most_seconds:
            line += f"; at most {self.most_seconds:.1f} s ({self.slowest})"
        if self.most_megabytes:
            line += f", {self.most_megabytes:.0f} MB ({self.largest})"
        return "\n".join([f"{line}; {len(self.faults)} faults", *(f"    {fault}" for fault in self.faults[:40])])


class Corpus:
    """The files of a seed, of which each lies on disk while it is used."""

    def __init__(self, folder: Path, seed: int, numbers: range, seconds: float, host: str) -> None:
        self.folder, self.seed, self.numbers, self.seconds, self.host = folder, seed, numbers, seconds, host
        self.secret = folder / "secret.wav"
        self.secret.write_bytes(whole("wav"))

    @contextmanager
    def files(self, numbers: Sequence[int]) -> Iterator[list[tuple[Case, Path]]]:
        """Some of them, each in a folder with its number for a name."""
        made = []
        with TemporaryDirectory(dir=self.folder) as folder:
            for number in numbers:
                made.append((case(self.seed, number, self.host, str(self.secret)), None))
                path = Path(folder, str(number), made[-1][0].name)
                path.parent.mkdir()
                path.write_bytes(made[-1][0].content)
                made[-1] = made[-1][0], path
            yield made

    def parts(self, at_once: int) -> Iterator[Sequence[int]]:
        """Numbers of files until the time is over."""
        end = time.monotonic() + self.seconds
        for first in range(0, len(self.numbers), at_once):
            if time.monotonic() > end:
                return
            yield self.numbers[first : first + at_once]


def hear(path: Path, opener: Opener) -> bool:
    """Decode all of a file; whether there was an answer."""
    try:
        with opener(path) as sound:
            for _ in sound.blocks():
                pass
    except AudioError as error:
        str(error)
        return False
    return True


def serve(connection: Connection) -> None:
    """In a process of its own: decode, and say how that went, how long it computed and how much memory it took."""
    while True:
        path = connection.recv()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = time.process_time()
        try:
            outcome = hear(path, open_audio)
        except Exception:
            outcome = traceback.format_exc()
        status = Path("/proc/self/status").read_text().split()
        connection.send((outcome, time.process_time() - before, int(status[status.index("VmHWM:") + 1]) / 1e3))


def through_decoder(corpus: Corpus) -> Result:
    """As the command line decodes."""
    result, process, connection = Result("decoder"), None, None
    for numbers in corpus.parts(1):
        with corpus.files(numbers) as [(file, path)]:
            if process is None:
                connection, its_end = get_context("spawn").Pipe()
                process = get_context("spawn").Process(target=serve, args=(its_end,), daemon=True)
                process.start()
                its_end.close()
            connection.send(path)
            try:
                if not connection.poll(HANG_SECONDS):
                    raise TimeoutError
                outcome, seconds, megabytes = connection.recv()
            except (EOFError, TimeoutError, OSError) as error:
                process.kill()
                process.join()
                result.faults.append(f"{file.label} (number {numbers[0]}): {error!r}, exit status {process.exitcode}")
                process = None
                continue
            if isinstance(outcome, str):
                result.faults.append(f"{file.label} (number {numbers[0]}): {outcome}")
            else:
                result.note(file, outcome, seconds, megabytes)
    if process is not None:
        process.kill()
    return result


def through_workers(corpus: Corpus) -> Result:
    """As the page decodes, without the page."""
    result = Result("workers")
    with Decoders() as decoders:
        for numbers in corpus.parts(1):
            with corpus.files(numbers) as [(file, path)]:
                try:
                    result.note(file, hear(path, decoders.open_audio))
                except Exception:
                    result.faults.append(f"{file.label} (number {numbers[0]}): {traceback.format_exc()}")
    return result


def through_command(corpus: Corpus, model: Path) -> Result:
    """`python -m crnn`, with some files at once."""
    result = Result("command")
    for numbers in corpus.parts(AT_ONCE):
        with corpus.files(numbers) as files:
            command = [sys.executable, "-m", "crnn", "--json", "--model", model, "--", *(path for _, path in files)]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, capture_output=True, timeout=HANG_SECONDS * AT_ONCE, check=False
                )
            except subprocess.TimeoutExpired:
                result.faults.append(f"numbers {numbers}: hangs")
                continue
            told, complaints = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
            if done.returncode not in (0, 1) or "Traceback" in complaints:
                result.faults.append(f"numbers {numbers}: exit status {done.returncode}, {complaints[-1_000:]}")
                continue
            answers = [json.loads(line)["path"] for line in told.splitlines()]
            for number, (file, path) in zip(numbers, files, strict=True):
                is_answer = any(f"/{number}/" in answer for answer in answers)
                result.note(file, is_answer)
                if not is_answer and f"{path.parent.name}/" not in complaints:
                    result.faults.append(f"{file.label} (number {number}): neither an answer nor a sentence")
    return result


def through_page(corpus: Corpus, model: Path) -> Result:
    """The page, as programs use it: upload and `classify_batch`."""
    from gradio_client import Client, handle_file  # noqa: PLC0415 (takes a second)

    result = Result("page")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    log = corpus.folder / "page.log"
    with log.open("wb") as output:
        command = [sys.executable, "app.py", "--fixed", "--model", str(model)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        client = _when_it_answers(lambda: Client(f"http://127.0.0.1:{port}", verbose=False), process)
        for numbers in corpus.parts(AT_ONCE):
            with corpus.files(numbers) as files:
                sent = [(file, path) for file, path in files if path.stat().st_size < 100e6]
                songs = [handle_file(path) for _, path in sent]
                answers = client.submit(songs, api_name="/classify_batch").result(HANG_SECONDS * AT_ONCE)
                for (file, _), answer in zip(sent, answers, strict=True):
                    result.note(file, "error" not in answer)
        if "Traceback" in (said := log.read_text(errors="replace")):
            result.faults.append(said[-2_000:])
    except Exception:
        result.faults.append(f"{traceback.format_exc()}\n{log.read_text(errors='replace')[-2_000:]}")
    finally:
        process.terminate()
        process.wait()
    return result


def _when_it_answers(connect, process: subprocess.Popen):
    end = time.monotonic() + HANG_SECONDS
    while True:
        try:
            return connect()
        except Exception:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.5)


def tiny_model(folder: Path) -> Path:
    """A model with random weights: the files are what is tried."""
    from crnn.checkpoint import save  # noqa: PLC0415 (PyTorch takes seconds)
    from crnn.network.model import CRNN, CRNNConfig  # noqa: PLC0415

    sizes = {"channels": (4, 6), "mel_pools": (4, 8), "time_pools": (2, 4), "recurrent_size": 5, "window_frames": 48}
    save(CRNN(CRNNConfig(genres=("rock", "jazz"), **sizes)).eval(), folder, "")
    return folder


def count_connections(server: socket, made: list) -> None:
    """Note who connects to an address that only playlists know."""
    while True:
        connection, peer = server.accept()
        made.append(peer)
        connection.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit status."""
    ways = {
        "decoder": through_decoder,
        "workers": through_workers,
        "command": lambda corpus: through_command(corpus, tiny_model(corpus.folder / "model")),
        "page": lambda corpus: through_page(corpus, tiny_model(corpus.folder / "model")),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each way")
    parser.add_argument("--ways", nargs="+", choices=ways, default=list(ways))
    args = parser.parse_args(argv)
    made: list = []
    n_faults = 0
    with TemporaryDirectory() as folder, create_server(("127.0.0.1", 0)) as server:
        Thread(target=count_connections, args=(server, made), daemon=True).start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        for way in args.ways:
            corpus = Corpus(Path(folder), args.seed, range(args.first, args.count), args.seconds, host)
            result = ways[way](corpus)
            n_faults += len(result.faults)
            print(result, flush=True)
    print(f"connections opened: {len(made)}")
    return 1 if n_faults or made else 0


if __name__ == "__main__":
    sys.exit(main())
