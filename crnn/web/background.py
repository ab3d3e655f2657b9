"""Work that tells how far it is and that can be stopped."""

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from crnn.network.songs import Report
from crnn.web.turns import is_awaited

PATIENCE_SECONDS = 2.0  # after which one is told how far work is

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - it is no error
    """Raised inside work that nobody waits for any more, by its next report."""


def as_long_as(is_wanted: Callable[[], bool] = lambda: True, progress: Report | None = None) -> Report:
    """A report that raises Stopped as soon as what is reported is not wanted any more, or whoever asked has gone.

    Else `progress` shows the shares after PATIENCE_SECONDS.
    """
    since = time.monotonic()

    def report(share: float) -> None:
        if not (is_wanted() and is_awaited()):
            raise Stopped
        if progress is not None and time.monotonic() - since > PATIENCE_SECONDS:
            progress(share)

    return report


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
