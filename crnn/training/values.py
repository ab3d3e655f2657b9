"""Values of the training command's options, for argparse: what cannot be one is refused in a sentence."""

import argparse
from dataclasses import asdict
from typing import Any

from crnn.arguments import filled, number_of, share
from crnn.network.devices import is_here
from crnn.network.fronts import front_of
from crnn.training.augment import AUGMENTATIONS, LARGEST, Augmentation
from crnn.training.recipes import NETWORK


def device(text: str) -> str:
    """An argparse type for a device that is there."""
    if not is_here(filled(text)):
        raise argparse.ArgumentTypeError(f"there is no device {text} here on which PyTorch computes")
    return text


def unknown_share(text: str) -> float:
    """An argparse type for a share of songs of no genre that a model knows, beside which there are others."""
    value = share(text)
    if value == 1:
        raise argparse.ArgumentTypeError(f"{text} leaves no songs of the genres that the model knows")
    return value


def describe(augmentation: Augmentation) -> str:
    """An augmentation as the command line takes it."""
    return " ".join(f"{name}={value:g}" for name, value in asdict(augmentation).items())


def strength(text: str) -> tuple[str, float]:
    """An argparse type for `mixup=0.3`: the name and the strength of an augmentation."""
    name, _, value = text.partition("=")
    if name not in AUGMENTATIONS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(AUGMENTATIONS)}")
    number = number_of(type(getattr(Augmentation(), name)), value, name)
    if not 0 <= number <= LARGEST[name]:
        raise argparse.ArgumentTypeError(f"the strength of {name} is from 0 to {LARGEST[name]:g}, not {value}")
    return name, number


def front(text: str) -> str:
    """An argparse type for the name of a front, or of several."""
    try:
        front_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def network_field(text: str) -> tuple[str, Any]:
    """An argparse type for `channels=16,48,96,192`: the name and the value of a field of CRNNConfig."""
    name, _, value = text.partition("=")
    if name not in NETWORK:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(NETWORK)}")
    kind = type(NETWORK[name])
    if kind is tuple:
        return name, tuple(number_of(int, part, name) for part in value.split(","))
    if kind is bool:
        return name, _truth_of(name, value)
    return name, number_of(kind, value, name)


def _truth_of(name: str, text: str) -> bool:
    """What `text` says as a yes or a no."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{name} takes true or false, not {text!r}")
    return text.lower() == "true"
