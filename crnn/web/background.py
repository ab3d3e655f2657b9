"""Work that tells how far it is and that can be stopped."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from crnn.network.model import Report

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - it is no error
    """Raised inside work that nobody waits for any more, by its next report."""


def in_steps(work: Callable[[Report], T]) -> Iterator[float | T]:
    """Run `work(report)` in a thread; yields the shares of it that it reports as done and, last, its result.

    Who closes the iterator stops the work at its next report. What the work raises is raised here.
    """
    news: SimpleQueue = SimpleQueue()
    stop = Event()

    def report(share: float) -> None:
        if stop.is_set():
            raise Stopped
        news.put(("share", share))

    def run() -> None:
        try:
            news.put(("result", work(report)))
        except Stopped:
            pass
        except BaseException as error:
            news.put(("error", error))

    Thread(target=run, daemon=True).start()
    try:
        while True:
            kind, value = news.get()
            if kind == "error":
                raise value
            yield value
            if kind == "result":
                return
    finally:
        stop.set()
