"""What commands say and how they end."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from threading import enumerate as threads
from typing import TextIO
from unicodedata import category, east_asian_width

from crnn.machine import lack_of_memory

PROGRAM = "genre-crnn"
# What shells report for SIGHUP, SIGINT, SIGPIPE and SIGTERM.
HUNG_UP, INTERRUPTED, BROKEN_PIPE, TERMINATED = 129, 130, 141, 143
ENDINGS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}  # by signal, the exit status
if hasattr(signal, "SIGHUP"):  # a terminal that is closed; Windows has none
    ENDINGS[signal.SIGHUP] = HUNG_UP
# Categories and signs that would break a line, stand for nothing, or turn the order of what is read (Bidi_Control).
UNPRINTABLE = frozenset(["Cc", "Cn", "Co", "Cs", "Zl", "Zp"])
TURNING = frozenset(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def called_as(script: str) -> str:
    """By what name a program that stands beside the package goes: that of its file, or the installed command's."""
    return sys.argv[0] if sys.argv[0].startswith(f"{PROGRAM} ") else script


def open_streams() -> None:
    """Standard streams for a program whose starter has closed them, and an output that any name can be written to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - until the end
    if hasattr(sys.stdout, "reconfigure"):  # as a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # for genres and file names that its encoding lacks


def forget_windows() -> None:
    """Let matplotlib not ask, when it is imported, for what shows figures: none are here, but in a notebook."""
    if not os.environ.get("MPLBACKEND", "").startswith("module://"):
        os.environ.pop("MPLBACKEND", None)


def printable(text: object) -> str:
    """On one line of any terminal, as it stands: control signs, and bytes of a name that are no text, become escapes.

    Wide and hard spaces and joiners are in ordinary names, and stay.
    """
    return "".join(sign.encode("unicode_escape").decode() if _is_control(sign) else sign for sign in str(text))


def _is_control(sign: str) -> bool:
    return category(sign) in UNPRINTABLE or sign in TURNING


def cells(text: str) -> int:
    """How wide a terminal shows it: signs of East Asian scripts are two wide, accents and joiners lie on others."""
    return sum(
        0 if category(sign) in ("Mn", "Me", "Cf") else 2 if east_asian_width(sign) in "WF" else 1 for sign in text
    )


def aligned(text: str, width: int, is_right: bool = False) -> str:
    """It with blanks up to a width in a terminal, before it if it is to end at the right."""
    blanks = " " * (width - cells(text))
    return blanks + text if is_right else text + blanks


def fitting(text: str, most: int) -> str:
    """As much of it as is no wider in a terminal."""
    if cells(text) <= most:
        return text
    return f"{next(text[:end] for end in range(len(text), -1, -1) if cells(text[:end]) < most)}…"


def valid(text: str) -> str:
    """Text that every file can hold: bytes of a name become what they are in UTF-8, whatever the locale, or escapes."""
    if text.isascii():
        return text
    with suppress(UnicodeEncodeError):  # by what no name has, but JSON may
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return text.encode("utf-8", "backslashreplace").decode()


def complain(message: object, program: str = PROGRAM) -> None:
    """Tell the person, on standard error, as long as that can be written: a terminal may go, a disk become full."""
    try:
        print(printable(f"{program}: {message}"), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        _let_go(sys.stderr)


@contextmanager
def ended_without_memory(script: str) -> Iterator[None]:
    """Let what is imported here end a program that stands beside the package in a sentence where it has no room."""
    try:
        yield
    except (ImportError, OSError, MemoryError) as error:
        if not (sentence := lack_of_memory(error)):
            raise
        complain(sentence, called_as(script))
        sys.exit(2)


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
    _let_go(sys.stdout)
    return BROKEN_PIPE


def _let_go(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[None]:
    """Signals in the hands of a handler, but for those that are ignored, as SIGHUP is below nohup."""
    is_main = current_thread() is main_thread()
    heeded = [number for number in numbers if is_main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let these signals end the program at once, where nothing is open: what they raise, imports may swallow."""
    with handled(ENDINGS, lambda number, _: os._exit(ENDINGS[number])):
        yield


@contextmanager
def ended_like_ctrl_c() -> Iterator[list[int]]:
    """Let the others end what is done here as Ctrl-C does, so that nothing is left half done; gives which came."""
    came: list[int] = []

    def end(number: int, _: object) -> None:
        if ENDINGS[number] == HUNG_UP:  # which comes from the shell and from the system
            signal.signal(number, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    with handled(ENDINGS.keys() - {signal.SIGINT}, end):
        try:
            yield came
        except KeyboardInterrupt:
            if not came:
                raise


def leave(status: int) -> int:
    """The exit status, for who ends the program with it; where songs are still being heard it ends here.

    A thread that comes out of native code while the interpreter is being taken down would abort the program.
    """
    if any(thread.daemon for thread in threads()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
