"""Processes of their own, for what takes long or may crash: on Linux each begins with PyTorch imported."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import reduction, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock

ROOMS = ("crnn.data.", "crnn.training.")  # whose modules such processes work with; none asks for a GPU when imported

_one_at_a_time = Lock()  # since a start changes the environment


def started(target: Callable[..., None], arguments: Sequence[object], preload: Sequence[str] = ()) -> BaseProcess:
    """A daemon that calls `target` with what was pickled of `arguments`; it leaves Ctrl-C to this process.

    On Linux, all are forked from one that imports once what they need, and the modules `preload`: they start in no
    time and share its memory.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        ours = [name for name in list(sys.modules) if name.startswith(ROOMS)]  # other threads import meanwhile
        context.set_forkserver_preload([*ours, *preload])
    resource_tracker.ensure_running()  # by itself it would start with the process, and let interrupts through
    with _one_at_a_time:
        process = context.Process(target=_call, args=(_Surroundings(), target, *arguments), daemon=True)
        with _interrupts_held(), _modules_found():
            process.start()
    return process


def _call(_: None, target: Callable[..., None], *arguments: object) -> None:
    target(*arguments)


class _Surroundings:
    """The environment and the outputs of this process; what has unpickled it has the same, whoever forked it."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)

    def __reduce__(self) -> tuple:
        outputs = [number for number in (1, 2) if sys.platform == "linux" and Path(f"/proc/self/fd/{number}").exists()]
        return _move, (self.environment, {number: reduction.DupFd(number) for number in outputs})


def _move(environment: dict[str, str], outputs: dict[int, object]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, output in outputs.items():
        theirs = output.detach()
        os.dup2(theirs, number)
        os.close(theirs)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C to their parent."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _modules_found() -> Iterator[None]:
    """The process that imports for the others finds modules where this one does, and nowhere else."""
    told = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
