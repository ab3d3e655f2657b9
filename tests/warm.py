"""`train.py` as a command in a process of its own which starts in no time: what it imports is there already."""

import os
import runpy
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe, forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from crnn.data.workers import started

ROOT = Path(__file__).parents[1]
PRELOAD = ["train", "torch._dynamo", "tests.preloaded"]  # an optimiser imports the second


class Command:
    """What `subprocess.Popen` gives of a script with both its outputs piped, or as much of it as the tests ask for."""

    forked_by = 0  # the number of a process

    def __init__(self, *arguments: str, script: str = "train.py", environment: dict[str, str] | None = None) -> None:
        (out, its_out), (err, its_err) = Pipe(duplex=False), Pipe(duplex=False)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        if forkserver._forkserver._forkserver_pid != self.forked_by:  # none yet, or one that has less
            forkserver._forkserver._stop()
        self.process = started(_run, [[script, *arguments], variables, its_out, its_err], PRELOAD)
        Command.forked_by = forkserver._forkserver._forkserver_pid
        for theirs in (its_out, its_err):
            theirs.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(ours.fileno()), encoding="utf-8") for ours in (out, err))

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self.process.join()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        with ThreadPoolExecutor() as pool:
            reading = [pool.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            self.process.join(timeout)
            if self.process.is_alive():
                self.process.kill()
                raise TimeoutError
            return reading[0].result(), reading[1].result()


def pair(*arguments: str, script: str = "train.py") -> list[Command]:
    """Two processes that train together, with what a launcher tells them in their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return [Command(*arguments, script=script, environment={**address, **own}) for own in ranks]


def _run(command: Sequence[str], environment: dict[str, str], out: Connection, err: Connection) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, encoding="utf-8") for n in (1, 2))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = list(command)
    torch.set_num_threads(1)
    runpy.run_path(command[0], run_name="__main__")
