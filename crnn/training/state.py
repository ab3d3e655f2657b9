"""Where a training stands, in a file: written whole or not at all, and read without unpickling anything."""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from crnn.files import whole_file
from crnn.network.devices import is_here

# What PyTorch raises of a file that is none, or damaged.
DAMAGE = (
    *(EOFError, pickle.UnpicklingError),
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError),
)
MACHINE = ("device", "precision")  # settings on which the result hardly depends: a training may go on with others


class TrainingError(RuntimeError):
    """Training that cannot go on; the message is one sentence that says why and what would work."""


def write_state(path: Path, settings: dict, state: dict) -> None:
    """Save where a training with these settings stands, as tensors, numbers and texts in dicts and lists.

    Raises OSError if it cannot be written.
    """
    content = io.BytesIO()  # torch's own writer does not say why a file cannot be written
    torch.save({"settings": settings, **state}, content)
    with whole_file(path) as file:
        file.write(content.getvalue())


def read_state(path: Path, settings: dict, notice: Callable[[str], None] = lambda _: None) -> dict | None:
    """The state that was saved there, or None if there is none yet; `notice` is told if it is of another device.

    Raises TrainingError if it is damaged or of another training, and OSError if it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state.pop("settings")
    except FileNotFoundError:
        return None
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.filename:  # without a name it is of a place outside the file
            raise
        raise TrainingError(f"{path} is damaged; train anew, into another folder.") from error
    check_same(path, saved, settings)
    if moved := ", ".join(text for _, text in differences(saved, settings)):
        notice(f"It goes on elsewhere than it began ({moved}), so that it comes to about the same, not to the bit.")
    return state


def check_same(path: Path, saved: object, settings: object) -> None:
    """Raises TrainingError if settings saved in a file are others than these, but for those of the machine."""
    if others := ", ".join(text for name, text in differences(saved, settings) if name not in MACHINE):
        raise TrainingError(
            f"{path} is of a training with other data or options ({others}); go on with the same ones, or train anew, "
            "into another folder."
        )


def differences(saved: object, settings: object, name: str = "") -> Iterator[tuple[str, str]]:
    """The names of settings that are others, and what is other about them."""
    if isinstance(saved, dict) and isinstance(settings, dict):
        for key in {**saved, **settings}:
            yield from differences(saved.get(key), settings.get(key), key)
    elif saved != settings:
        is_hash = any(isinstance(value, str) and len(value) == 64 for value in (saved, settings))
        yield name, f"other {name}" if is_hash else f"{name} {_in_words(saved)} there, {_in_words(settings)} here"


def _in_words(value: object) -> str:
    """A setting for people; of several that belong together their name, as of a model."""
    if isinstance(value, dict):
        value = value.get("name", [*value])
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else "none" if value is None else str(value)


def random_state(device: str) -> dict[str, Tensor]:
    """What the generators of the CPU and of a device will draw next."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type != "cpu":
        module, which = _generators(device)
        states[device] = module.get_rng_state(*which)
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Let them draw what they would have drawn when `random_state` was called, but for devices that are not here."""
    torch.set_rng_state(states["cpu"])
    for device in filter(is_here, states.keys() - {"cpu"}):
        module, which = _generators(device)
        module.set_rng_state(states[device], *which)


def _generators(device: str) -> tuple[ModuleType, list[str]]:
    """The module of a kind of device, and how it names one of several; Apple's has only one."""
    kind = torch.device(device).type
    return torch.get_device_module(kind), [device] if kind == "cuda" else []
