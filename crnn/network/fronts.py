"""The fronts that a model may have, by the name that its configuration gives."""

from crnn.network.choi import Choi, ChoiCrnn, LeanChoiCrnn
from crnn.network.efficientat import EfficientAT, EfficientATKinds
from crnn.network.front import FrontKind
from crnn.network.joined import Joined
from crnn.network.musicnn import Musicnn
from crnn.network.small import Small
from crnn.network.won import LeanWon, Won

FRONTS: dict[str, FrontKind] = {
    "small": Small(),
    "musicnn": Musicnn(),
    "choi": Choi(),
    "choi-crnn": ChoiCrnn(),
    "lean-choi-crnn": LeanChoiCrnn(),
    "mn04": EfficientAT(),
    "mn04-kinds": EfficientATKinds(),
    "won": Won(),
    "lean-won": LeanWon(),
}


def front_of(name: str) -> FrontKind:
    """The front of that name, or several joined by "+". Raises ValueError if there is none."""
    names = name.split("+")
    if len(set(names)) < len(names) or not set(names) <= set(FRONTS):
        raise ValueError(f"front is one of {', '.join(FRONTS)}, or different ones joined by +, not {name!r}")
    return FRONTS[name] if len(names) == 1 else Joined([FRONTS[part] for part in names])
