"""Work of an iterator that a thread does before it is asked for."""

from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

_AHEAD = 3  # items that may wait

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items while a thread computes up to `_AHEAD` more; without a thread, one by one.

    It pays for FFmpeg and NumPy, which release Python's lock meanwhile. Errors of `items` are raised here.
    """
    made, room = SimpleQueue(), Semaphore(_AHEAD)
    is_over = False

    def make() -> None:
        with closing(items):
            try:
                for item in items:
                    made.put((item, None))
                    room.acquire()
                    if is_over:
                        return
                made.put((None, None))
            except BaseException as error:  # raised in the thread that waits
                made.put((None, error))

    thread = Thread(target=make, name="decoding", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system gives no more of them
        with closing(items):
            yield from items
        return
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            room.release()
    finally:
        is_over = True
        room.release()
        thread.join()
