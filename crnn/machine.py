"""What there is of the machine, and what its environment says."""

import os
import platform
import sys
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

TIMEOUTS = {  # in seconds, of which 0 is the Hub's own
    "HF_HUB_DOWNLOAD_TIMEOUT": range(86_401),
    "HF_HUB_ETAG_TIMEOUT": range(86_401),
}
PROGRESS = {  # of tqdm's bars, the kind of number
    **dict.fromkeys(("TQDM_INITIAL", "TQDM_NCOLS", "TQDM_NROWS", "TQDM_POSITION", "TQDM_UNIT_DIVISOR"), int),
    **dict.fromkeys(("TQDM_DELAY", "TQDM_MAXINTERVAL", "TQDM_MININTERVAL", "TQDM_MINITERS"), float),
    **dict.fromkeys(("TQDM_SMOOTHING", "TQDM_TOTAL"), float),
}
HUB = "HF_ENDPOINT"
MAY_BE_EMPTY = (HUB, *TIMEOUTS, "OMP_NUM_THREADS")  # as a compose file leaves them by ${NAME:-}
NO_ROOM = ("failed to map segment", "cannot map zero-fill pages")  # what the system's loader says of a library
NO_THREADS = "This cannot go on: the system starts no more threads (ulimit -u, ulimit -v)."


def lacks_threads(error: RuntimeError) -> bool:
    """Whether Python says so of a thread that was to be started."""
    return "can't start new thread" in str(error)


def lack_of_memory(error: ImportError | OSError | MemoryError) -> str | None:
    """What to say of an error in which the system has no memory for a library, or for data; None of others."""
    if isinstance(error, MemoryError) and str(error):
        return f"There is not enough memory: {error}."
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_ROOM):
        return "There is not enough memory for PyTorch (ulimit -v)."
    return None


def forget_empty() -> None:
    """Take variables that are empty for none, as the libraries that read them do not.

    To be called before those are imported, and by programs alone: in others the environment is not ours.
    """
    for name in MAY_BE_EMPTY:
        if not os.environ.get(name, "1").strip():
            del os.environ[name]


def import_fault() -> str | None:
    """What is wrong with a variable over which packages that are imported end the program, in a sentence."""
    for name, kind in PROGRESS.items():
        try:
            kind(os.environ.get(name, "1"))
        except ValueError:
            whole = "whole " if kind is int else ""
            return f"{name} must be a {whole}number, not {os.environ[name]!r}."
    if HUB in os.environ and not is_address(os.environ[HUB]):
        return f"{HUB} must be an address such as https://huggingface.co, not {os.environ[HUB]!r}."
    return number_fault(TIMEOUTS)


def is_address(text: str) -> bool:
    """Whether it is one of a server that answers by HTTP."""
    try:
        parts = urlsplit(text)
        is_place = (parts.hostname or "").encode("idna") != b"" and parts.port != 0
    except ValueError:  # of no port either, or of no name that a server may have
        return False
    return is_place and parts.scheme in ("http", "https") and not any(map(str.isspace, text))


def number_fault(numbers: Mapping[str, range], lists: Collection[str] = ()) -> str | None:
    """A sentence about the first variable whose value is out of range, else None; `lists` may have several values."""
    for name, values in numbers.items():
        given = os.environ.get(name, "1").strip()
        parts = map(str.strip, given.split(",")) if name in lists else [given]
        if not all(part.isdecimal() and int(part[:10]) in values for part in parts):
            return f"{name} must be a number from {values[0]} to {values[-1]}, not {given!r}."
    return None


def let_the_hub_be_silent() -> None:
    """Let the Hub's client warn of nothing, which sentences of this program do, unless the environment says otherwise.

    Nor has it bars, which move the cursor, where no terminal shows them. To be called before it is imported, and by
    programs alone: in others it is not ours.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not (sys.stderr and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


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


def leave_threads_to_pytorch() -> None:
    """Let OpenBLAS, which NumPy and SciPy bring, start no threads: where memory runs out meanwhile, it hangs for ever.

    To be called before they are imported, where they have few large products to compute. Elsewhere than on x86, PyTorch
    may compute by OpenBLAS itself.
    """
    if platform.machine() in ("x86_64", "AMD64"):  # as Windows has it
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
