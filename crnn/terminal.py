"""What commands say and how they end."""

import os
import sys
from threading import enumerate as threads

PROGRAM = "genre-crnn"
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # what shells report for SIGINT, SIGPIPE and SIGTERM


def open_streams() -> None:
    """Standard streams for a program whose starter has closed them, and an output that any name can be written to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - until the end
    if hasattr(sys.stdout, "reconfigure"):  # as a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # for genres and file names that its encoding lacks


def forget_windows() -> None:
    """Let matplotlib not ask, when it is imported, for what shows figures: none are here, but in a notebook."""
    if not os.environ.get("MPLBACKEND", "").startswith("module:"):
        os.environ.pop("MPLBACKEND", None)


def printable(text: object) -> str:
    """On one line of any terminal: control signs, and bytes of a file name that are no text, become escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def valid(text: str) -> str:
    """Text that every file can hold: bytes of a name that are none become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def complain(message: object) -> None:
    """Tell the person, on standard error."""
    print(printable(f"{PROGRAM}: {message}"), file=sys.stderr, flush=True)


def explain(error: OSError) -> int:
    """Tell of a disk or a file that does not do what it should; the exit status."""
    where = "" if error.filename is None else f" ({error.filename})"
    complain(f"This cannot go on: {error.strerror or error}{where}.")
    try:
        sys.stdout.flush()
    except OSError:  # it is standard output itself
        leave_broken_pipe()
    return 2


def leave_broken_pipe() -> int:
    """The exit status for a reader of standard output that has gone; nor may the flush at exit find out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def leave(status: int) -> int:
    """The exit status, for who ends the program with it; where songs are still being heard it ends here.

    A thread that comes out of native code while the interpreter is being taken down would abort the program.
    """
    if any(thread.daemon for thread in threads()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
