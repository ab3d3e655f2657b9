"""Broken files against decoder, workers, command line and page: `python benchmarks/torture/run.py`, or `make torture`.

Each file has to be answered or refused with a sentence, within SECONDS of computing and MEGABYTES of memory of any one
process; none may crash, hang, print a traceback or open a connection. `--count N` files of `--seed S`, beginning with
the traps or with number `--first F`, for at most `--seconds S` a way, through some `--ways` only, of which as many run
at once as there are cores. A line a way tells how many of the files it came to. The exit status says whether each came
to some and all of that held. It needs Linux.
"""

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from socket import create_server, socket
from tempfile import TemporaryDirectory
from threading import Thread, Timer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from benchmarks.torture.corpus import Case, case, whole  # noqa: E402
from crnn.audio import AudioError, Opener, open_audio  # noqa: E402
from crnn.decoding import Decoders  # noqa: E402
from crnn.machine import n_cores  # noqa: E402
from crnn.walk import is_song  # noqa: E402

SECONDS, MEGABYTES = 10.0, 1_000
HANG_SECONDS = 300.0  # by the clock, for machines that are busy with something else
AT_ONCE = 100  # files that a command gets
TICKS = os.sysconf("SC_CLK_TCK")
HEAD = f"{'way':8} {'files':>12} {'answered':>9} {'refused':>8} {'faults':>7}  most seconds, most MB"


@dataclass
class Result:
    """What came of one way that was to go through `total` files."""

    way: str
    total: int = 0
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
        count = f"{self.answered + self.refused} of {self.total}"
        line = f"{self.way:8} {count:>12} {self.answered:9} {self.refused:8} {len(self.faults):7}"
        line += f"  {self.most_seconds:.1f} ({self.slowest}), {self.most_megabytes:.0f} ({self.largest})"
        return "\n".join([line, *(f"    {fault}" for fault in self.faults[:40])])


class Family:
    """What a process and those it has started compute and take, from one `step` to the next."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._computed = 0.0
        self.step()

    def step(self) -> tuple[float, float]:
        """Seconds of computing since the last one, and the megabytes that the largest process took."""
        computed, largest = 0.0, 0.0
        for pid in self._members(self._pid):
            with suppress(OSError, ValueError):  # it has ended meanwhile
                # Of itself and of children that it has waited for.
                numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
                computed += sum(map(int, numbers)) / TICKS
                status = Path(f"/proc/{pid}/status").read_text().split()
                largest = max(largest, int(status[status.index("VmHWM:") + 1]) / 1e3)
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        seconds, self._computed = computed - self._computed, computed
        return max(0.0, seconds), largest

    def _members(self, pid: int) -> Iterator[int]:
        yield pid
        for children in Path("/proc").glob(f"{pid}/task/*/children"):
            with suppress(OSError):
                for child in children.read_text().split():
                    yield from self._members(int(child))


class Corpus:
    """The files of a seed, of which each lies on disk while it is used."""

    def __init__(self, folder: Path, seed: int, numbers: range, seconds: float, host: str) -> None:
        self.folder, self.seed, self.numbers, self.seconds, self.host = folder, seed, numbers, seconds, host
        self.secret = folder / "secret.wav"
        self.secret.write_bytes(whole("wav"))

    @contextmanager
    def files(self, numbers: Sequence[int]) -> Iterator[list[tuple[Case, Path]]]:
        """Some of them, without their bytes, each in a folder with its number for a name."""
        made = []
        with TemporaryDirectory(dir=self.folder) as folder:
            for number in numbers:
                file = case(self.seed, number, self.host, str(self.secret))
                path = Path(folder, str(number), file.name)
                path.parent.mkdir()
                path.write_bytes(file.content)
                made.append((replace(file, content=b""), path))
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


def serve(connection: Connection, in_workers: bool) -> None:
    """In a process of its own: decode, as the page's workers do or as all others, and say how that went."""
    with Decoders(1) if in_workers else nullcontext() as decoders:
        opener = decoders.open_audio if decoders else open_audio
        while True:
            path = connection.recv()
            try:
                connection.send(hear(path, opener))
            except Exception:
                connection.send(traceback.format_exc())


def through_decoder(corpus: Corpus, way: str = "decoder") -> Result:
    """As the command line decodes, or the page, without the rest of it."""
    result, process, connection, family = Result(way, len(corpus.numbers)), None, None, None
    for numbers in corpus.parts(1):
        with corpus.files(numbers) as [(file, path)]:
            if process is None:
                connection, its_end = get_context("spawn").Pipe()
                process = get_context("spawn").Process(target=serve, args=(its_end, way == "workers"))
                process.start()
                its_end.close()
                connection.send(corpus.secret)  # when that is heard, all is imported
            try:
                if family is None:
                    _received(connection)
                    family = Family(process.pid)
                connection.send(path)
                outcome = _received(connection)
                seconds, megabytes = family.step()
            except (EOFError, TimeoutError, OSError) as error:
                process.kill()
                process.join()
                result.faults.append(f"{file.label} (number {numbers[0]}): {error!r}, exit status {process.exitcode}")
                process = family = None
                continue
            if isinstance(outcome, str):
                result.faults.append(f"{file.label} (number {numbers[0]}): {outcome}")
            else:
                result.note(file, outcome, seconds, megabytes)
    if process is not None:
        process.kill()
    return result


def _received(connection: Connection) -> bool | str:
    if not connection.poll(HANG_SECONDS):
        raise TimeoutError
    return connection.recv()


def through_workers(corpus: Corpus) -> Result:
    """As the page decodes, without the page."""
    return through_decoder(corpus, "workers")


def through_command(corpus: Corpus) -> Result:
    """`genre-crnn FOLDER`, one song at a time, and by name what a folder would not show to it."""
    result, model = Result("command", len(corpus.numbers)), tiny_model(corpus.folder / "model of the command")
    for numbers in corpus.parts(AT_ONCE):
        with corpus.files(numbers) as files:
            folder = files[0][1].parents[1]
            good = folder / "!" / "good.wav"  # the first one: when that is heard, all is imported
            good.parent.mkdir()
            good.write_bytes(whole("wav"))
            others = [path for _, path in files if not is_song(path)]
            command = [sys.executable, "-m", "crnn", "--json", "--jobs", "1", "--model", model, "--", folder, *others]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            alarm = Timer(HANG_SECONDS * AT_ONCE / 10, process.kill)
            alarm.start()
            with process:
                told, complaints, measured = _told(process, [*map(str, numbers)])
            alarm.cancel()
            if process.returncode not in (0, 1) or "Traceback" in complaints or "!" not in told:
                result.faults.append(f"numbers {numbers}: exit status {process.returncode}, {complaints[-1_000:]}")
            for number, (file, _) in zip(map(str, numbers), files, strict=True):
                if number in told:
                    result.note(file, told[number], *measured[number])
                else:
                    result.faults.append(f"{file.label} (number {number}): neither an answer nor a sentence")
    return result


def _told(process: subprocess.Popen, numbers: Sequence[str]) -> tuple[dict[str, bool], str, dict[str, list[float]]]:
    """What a command says of each number: whether that is an answer; all else; seconds and megabytes until then."""
    told, complaints, measured = {}, "", {number: [0.0, 0.0] for number in [*numbers, "!"]}
    family = Family(process.pid)
    for line in process.stdout:
        text = line.decode(errors="replace")
        number = next((part for part in text.split("/") if part in measured), None)
        if number is None:
            complaints += text
            continue
        seconds, megabytes = family.step()
        measured[number] = [measured[number][0] + seconds, max(measured[number][1], megabytes)]
        told[number] = told.get(number, False) or text.startswith("{")
    return told, complaints, measured


def through_page(corpus: Corpus) -> Result:
    """The page, as programs use it: an upload and `classify` for each."""
    from gradio_client import Client, handle_file  # noqa: PLC0415 (takes a second)
    from gradio_client.exceptions import AppError  # noqa: PLC0415
    from httpx import HTTPStatusError  # noqa: PLC0415

    result, model = Result("page", len(corpus.numbers)), tiny_model(corpus.folder / "model of the page")
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
        client.predict(handle_file(corpus.secret), api_name="/classify")
        family = Family(process.pid)
        for numbers in corpus.parts(1):
            with corpus.files(numbers) as [(file, path)]:
                # No browser and no client sends a name that is no text.
                sent = path.rename(path.with_name(path.name.encode(errors="replace").decode()))
                try:
                    client.submit(handle_file(sent), api_name="/classify").result(HANG_SECONDS)
                    is_answer = True
                except (AppError, HTTPStatusError):  # a sentence, or too large to be uploaded
                    is_answer = False
                result.note(file, is_answer, *family.step())
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
    from crnn.network.config import CRNNConfig  # noqa: PLC0415
    from crnn.network.model import CRNN  # noqa: PLC0415

    sizes = {"channels": (4, 6), "mel_pools": (4, 8), "time_pools": (2, 4), "recurrent_size": 5, "window_frames": 48}
    save(CRNN(CRNNConfig(genres=("rock", "jazz"), **sizes)).eval(), folder, "")
    return folder


def count_connections(server: socket, made: list) -> None:
    """Note who connects to an address that only playlists know."""
    with suppress(OSError):  # it is closed in the end
        while True:
            connection, peer = server.accept()
            made.append(peer)
            connection.close()


WAYS: dict[str, Callable[[Corpus], Result]] = {
    "decoder": through_decoder,
    "workers": through_workers,
    "command": through_command,
    "page": through_page,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=450.0, help="longest time for each way")
    parser.add_argument("--at-once", type=int, default=n_cores(), help="number of ways that run at once")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args(argv)
    made: list = []
    n_faults = 0
    with TemporaryDirectory() as folder, create_server(("127.0.0.1", 0)) as server:
        Thread(target=count_connections, args=(server, made), daemon=True).start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        corpus = Corpus(Path(folder), args.seed, range(args.first, args.first + args.count), args.seconds, host)
        print(HEAD)
        with ProcessPoolExecutor(args.at_once, get_context("spawn")) as processes:
            for result in processes.map(run_way, args.ways, [corpus] * len(args.ways)):
                if not (result.answered or result.refused or result.faults):
                    result.faults.append("nothing was tried")
                n_faults += len(result.faults)
                print(result, flush=True)
    print(f"connections opened: {len(made)}")
    return 1 if n_faults or made else 0


def run_way(way: str, corpus: Corpus) -> Result:
    """In a process of its own."""
    return WAYS[way](corpus)


if __name__ == "__main__":
    sys.exit(main())
