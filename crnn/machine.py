"""What there is of the machine."""

import os

NO_THREADS = "This cannot go on: the system starts no more threads (ulimit -u)."


def lacks_threads(error: RuntimeError) -> bool:
    """Whether Python says so of a thread that was to be started."""
    return "can't start new thread" in str(error)


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def let_threads_rest() -> None:
    """Let threads of PyTorch keep a core for some 0.1 ms (GNU's OpenMP) or 1 ms (LLVM's) after each product.

    To be called before PyTorch is imported. By default it is 3 ms or 200, in which nothing else is decoded there; where
    they let go at once (OMP_WAIT_POLICY=passive), each product waits for them to wake up, and a song takes half as long
    again.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        os.environ.setdefault("KMP_BLOCKTIME", "1")
