"""The processes of a training, one for each device: a launcher starts them, Hugging Face Accelerate lets them talk."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, gather_object

from crnn import terminal
from crnn.terminal import called_as
from crnn.training.state import TrainingError

Work = TypeVar("Work")

SCRIPT = "train.py"
MOST_WAITING = timedelta(days=1)  # of the processes for the one that fetches and decodes the data


def processes(device: str) -> PartialState:
    """This process among those that train together, on "cpu", "cuda" or "mps"; alone if no launcher started it."""
    return PartialState(cpu=device == "cpu", timeout=MOST_WAITING)


def accelerator(device: str, leaves_out: bool = False) -> Accelerator:
    """What computes gradients together with the other processes; precision and accumulation are the trainer's.

    If it `leaves_out` some parameters at times, all processes have to look which, each step.
    """
    processes(device)
    made = Accelerator(
        mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=leaves_out)]
    )
    made.gradient_accumulation_steps = 1
    return made


def launched_with() -> dict[str, Any]:
    """The fields of TrainingConfig that `accelerate launch` was told. Raises TrainingError if they are not for us."""
    told: dict[str, Any] = {}
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise TrainingError(f"There is no training in {precision} here; --mixed_precision can be bf16 or no.")
    if precision == "bf16":
        told["precision"] = "bfloat16"
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "")
    if steps.isdecimal() and int(steps):
        told["accumulation"] = int(steps)
    return told


def any_of_them(flag: bool) -> bool:
    """Whether the flag is set in any of the processes; each has to ask."""
    return any(gather_object([flag]))


def n_launched() -> int:
    """The number of processes that a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that speaks and writes for all of them."""
    return os.environ.get("RANK", "0") == "0"


def complain(message: object) -> None:
    """Tell the person on standard error; what all processes found out is said once."""
    if is_first():
        terminal.complain(message, called_as(SCRIPT))


def one_after_the_other(here: PartialState, work: Callable[[], Work], errors: tuple[type[Exception], ...]) -> Work:
    """What `work` gives, done first by the first process and then by the others.

    If it raises one of `errors` anywhere, the first process raises that, naming whose it is, and the others exit.
    """
    result, told = None, None
    with here.main_process_first():
        try:
            result = work()
        except errors as error:
            if here.num_processes == 1:
                raise
            told = f"{error}" if here.is_main_process else f"{error} (process {here.process_index})"
    if message := next(filter(None, gather_object([told])), None):
        raise TrainingError(message) if here.is_main_process else SystemExit(2)
    return result


def is_loss_of_another(error: RuntimeError) -> bool:
    """Whether an error comes from another process that has ended."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@contextmanager
def silent(quiet: bool) -> Iterator[None]:
    """What several processes would say alike is said by one: nothing is printed by this one if it is `quiet`."""
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
