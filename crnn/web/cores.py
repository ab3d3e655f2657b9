"""What the songs that are heard at once take of the machine, and what it gets back."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from threading import Lock
from typing import TypeVar

import torch

M_ARENA_MAX = -8  # of mallopt, in malloc.h
T = TypeVar("T")


class Cores:
    """Parts the cores among the songs that are heard or looked into: one alone has all, more have one each or two.

    PyTorch would give each all of them, whose threads then wait for each other. Of songs that came many at a time one
    is heard at a time, so that they take a single core from those that came alone.
    """

    def __init__(self) -> None:
        self.n_cores = torch.get_num_threads()
        self._n_songs = 0
        self._counting, self._one_of_many = Lock(), Lock()

    @contextmanager
    def share(self, is_of_many: bool = False) -> Iterator[None]:
        """While a song is heard, or looked into, by this thread."""
        with ExitStack() as stack:
            if is_of_many:
                stack.enter_context(self._one_of_many)
            with self._counting:
                self._n_songs += 1
                n_songs = self._n_songs
            torch.set_num_threads(max(1, self.n_cores // n_songs))  # of this thread, and of those that begin
            try:
                yield
            finally:
                with self._counting:
                    self._n_songs -= 1
                torch.set_num_threads(self.n_cores)

    def shared(self, steps: Iterator[T]) -> Iterator[T]:
        """The steps of some work, each on its share in the thread that asks for it; between them, it takes none."""
        step = True
        while step:
            with self.share():
                step = [*islice(steps, 1)]
            yield from step


def keep_memory_together() -> None:
    """Let threads share two parts of the memory: with one for each, as glibc has it, it grows with every new thread.

    To be called before there are threads.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _glibc("mallopt", M_ARENA_MAX, 2)


def give_memory_back() -> None:
    """What is free of the memory of this process goes back to the system, which glibc puts off."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
