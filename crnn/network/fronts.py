"""The fronts that a model may have, by the name that its configuration gives."""

from crnn.network.front import FrontKind
from crnn.network.musicnn import Musicnn
from crnn.network.small import Small

FRONTS: dict[str, FrontKind] = {"small": Small(), "musicnn": Musicnn()}


def front_of(name: str) -> FrontKind:
    """The front of that name. Raises ValueError if there is none."""
    if name not in FRONTS:
        raise ValueError(f"front is one of {', '.join(FRONTS)}, not {name!r}")
    return FRONTS[name]
