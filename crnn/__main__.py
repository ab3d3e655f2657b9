"""The commands of `genre-crnn`, which is `python -m crnn` too."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from crnn.bundle import ROOT
from crnn.machine import (
    NO_THREADS,
    forget_empty,
    import_fault,
    lack_of_memory,
    lacks_threads,
    leave_threads_to_pytorch,
    let_the_hub_be_silent,
    let_threads_rest,
)
from crnn.terminal import (
    ENDINGS,
    INTERRUPTED,
    PROGRAM,
    complain,
    ended_at_once,
    ended_like_ctrl_c,
    explain,
    leave,
    leave_broken_pipe,
    open_streams,
)

# Each command is a module with DESCRIPTION, `add_arguments(parser)` and `run(args) -> int`, the exit status. It is
# imported when it is asked for, and what takes long, PyTorch above all, in `run`, or before it if NEEDS names it.
DEFAULT = "crnn.library.classify"
COMMANDS: dict[str, tuple[str, str]] = {  # by name: the module, and what stands in --help
    "tag": ("crnn.library.tag", "write the genres of songs into their files"),
    "untag": ("crnn.library.untag", "undo what tag wrote"),
    "similar": ("crnn.library.similar", "find the songs of a table that sound most like a given one"),
}
SCRIPTS = {  # the same for programs of their own, with `main(argv) -> int`
    "page": ("app.py", "serve the web page"),
    "train": ("train.py", "train, evaluate, cross-validate, compare and publish models"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status, 2 for a fault in them or in the model that they name."""
    argv = sys.argv[1:] if argv is None else list(argv)
    forget_empty()
    let_the_hub_be_silent()
    try:
        if argv and argv[0] in SCRIPTS:
            return run_script(argv[0], argv[1:])
        return run_command(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    except (ImportError, OSError, MemoryError) as error:
        if sentence := lack_of_memory(error):
            complain(sentence)
        elif isinstance(error, ImportError):
            raise
        else:
            return explain(error)
    except RuntimeError as error:
        if not lacks_threads(error):
            raise
        complain(NO_THREADS)
    except ValueError as error:
        if "CheckpointError" not in {kind.__name__ for kind in type(error).mro()}:  # whose module takes long to import
            raise
        complain(error)
    return 2


def check_folder() -> None:
    """Raises OSError where the working folder is gone, without which PyTorch's libraries end the program."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise OSError(error.errno, f"go to another folder, this one cannot be had ({error.strerror})") from error


def run_command(argv: Sequence[str]) -> int:
    """Run a command, or the default one if none is named."""
    name = argv[0] if argv and argv[0] in COMMANDS else ""
    command = import_module(COMMANDS[name][0] if name else DEFAULT)
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}".strip(),
        description=command.DESCRIPTION,
        epilog=None if name else others(),
        formatter_class=argparse.HelpFormatter if name else argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    given = without_dashes(argv[1:] if name else argv)
    is_for_help = not {"-h", "--help"}.isdisjoint(given)  # which the other way, options between songs, cannot print
    args = (parser.parse_args if is_for_help else parser.parse_intermixed_args)(given)
    needs = getattr(command, "NEEDS", ())
    if needs and (sentence := import_fault()):
        complain(sentence)
        return 2
    check_folder()
    let_threads_rest()
    leave_threads_to_pytorch()
    with ended_at_once():
        for needed in needs:
            import_module(needed)
    with ended_like_ctrl_c() as came:
        status = command.run(args)
    return ENDINGS[came[0]] if came else status


def without_dashes(given: Sequence[str]) -> list[str]:
    """Arguments without the `--` before names that may begin with a dash, which argparse loses between options."""
    if "--" not in given:
        return [*given]
    place = given.index("--")
    return [*given[:place], *(f"./{name}" if name.startswith("-") else name for name in given[place + 1 :])]


def others() -> str:
    """What the other commands do, for the end of --help."""
    lines = [f"  {name:10} {what}" for name, (_, what) in {**COMMANDS, **SCRIPTS}.items()]
    return "\n".join(["other commands, each with its own --help:", *lines])


def run_script(name: str, argv: list[str]) -> int:
    """Run one of the programs that stand beside the package."""
    sys.argv[0] = f"{PROGRAM} {name}"  # as which it shows itself
    if sentence := import_fault():
        complain(sentence, sys.argv[0])
        return 2
    check_folder()
    with ended_at_once():
        module = script(SCRIPTS[name][0])
    return module.main(argv)


def script(file: str) -> ModuleType:
    """A program that stands beside the package, imported under its own name."""
    name = file.removesuffix(".py")
    if getattr(sys.modules.get(name), "__file__", None) == str(ROOT / file):
        return sys.modules[name]
    spec = spec_from_file_location(name, ROOT / file)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cli() -> int:
    """The installed command."""
    open_streams()
    return leave(main())


if __name__ == "__main__":
    sys.exit(cli())
