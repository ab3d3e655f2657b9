"""What AudioSet's genres say of a song: whether it sounds like one that a model does not know.

A net that was trained on AudioSet (J. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio
events", ICASSP 2017) tells genres apart that no clip of a model's training is of. The names are AudioSet's, under the
Creative Commons licence CC BY 4.0.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crnn.network.genres import spelling
from crnn.network.lean import of_low_rank

RANK = 128  # of the hidden layer for what it hears
HIDDEN = 512
LEAST_DEVIATION = 0.1  # of the scores of training clips, which may be few or all alike; of GTZAN's it is 1 to 3
MOST_DEVIATIONS = 10.0
STANDS_OUT = 1.0  # standard deviations


class Kind(NamedTuple):
    """One of AudioSet's genres of music."""

    name: str
    number: int  # among the 527 classes
    genres: tuple[str, ...]  # of models, those whose songs are of this kind


KINDS = (
    Kind("pop", 216, ("pop",)), Kind("hip-hop", 217, ("hiphop", "rap")), Kind("rock", 219, ("rock",)),
    Kind("heavy metal", 220, ("metal", "heavymetal")), Kind("punk", 221, ("punk", "punkrock", "rock")),
    Kind("grunge", 222, ("grunge", "rock")), Kind("progressive rock", 223, ("progressiverock", "rock")),
    Kind("rock and roll", 224, ("rockandroll", "rocknroll", "rock")),
    Kind("psychedelic rock", 225, ("psychedelicrock", "rock")),
    Kind("rhythm and blues", 226, ("rhythmandblues", "rhythmnblues", "rnb")), Kind("soul", 227, ("soul",)),
    Kind("reggae", 228, ("reggae",)), Kind("country", 229, ("country",)), Kind("swing", 230, ("swing", "jazz")),
    Kind("bluegrass", 231, ("bluegrass", "country")), Kind("funk", 232, ("funk",)), Kind("folk", 233, ("folk",)),
    Kind("Middle Eastern music", 234, ("middleeastern", "arabic")), Kind("jazz", 235, ("jazz",)),
    Kind("disco", 236, ("disco",)), Kind("classical", 237, ("classical",)),
    Kind("opera", 238, ("opera", "classical")),
    Kind("electronic", 239, ("electronic", "edm", "techno", "house", "trance")),
    Kind("house", 240, ("house", "electronic", "edm")), Kind("techno", 241, ("techno", "electronic", "edm")),
    Kind("dubstep", 242, ("dubstep", "electronic", "edm")),
    Kind("drum and bass", 243, ("drumandbass", "drumnbass", "dnb", "electronic", "edm")),
    Kind("electronica", 244, ("electronica", "electronic", "edm")),
    Kind("electronic dance music", 245, ("electronic", "edm", "techno", "house", "trance")),
    Kind("ambient", 246, ("ambient", "electronic")), Kind("trance", 247, ("trance", "electronic", "edm")),
    Kind("Latin music", 248, ("latin", "salsa")), Kind("salsa", 249, ("salsa", "latin")),
    Kind("flamenco", 250, ("flamenco",)), Kind("blues", 251, ("blues",)),
    Kind("music for children", 252, ("children", "kids")), Kind("new age", 253, ("newage",)),
    Kind("a capella", 255, ("acapella", "acappella")), Kind("African music", 256, ("african",)),
    Kind("Afrobeat", 257, ("afrobeat", "african")), Kind("Christian music", 258, ("christian",)),
    Kind("gospel", 259, ("gospel", "christian")), Kind("Asian music", 260, ("asian",)),
    Kind("Carnatic music", 261, ("carnatic", "asian")), Kind("Bollywood", 262, ("bollywood", "asian")),
    Kind("ska", 263, ("ska", "reggae")), Kind("traditional music", 264, ("traditional", "folk")),
)  # fmt: skip


class KindScores(nn.Module):
    """How much of each of KINDS is in a window, in standard deviations from the mean of the training clips.

    It is the classifier of a net trained on AudioSet, none of which is learned here: its hidden layer is made one of
    low rank for what it hears of the training clips.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        for name, shape in (
            ("narrow", (RANK, inputs)),
            ("hidden", (HIDDEN, RANK)),
            ("hidden_bias", (HIDDEN,)),
            ("scores", (len(KINDS), HIDDEN)),
            ("scores_bias", (len(KINDS),)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self._hidden: Tensor | None = None  # of all ranks, between `load` and `fit`

    def load(self, hidden: tuple[Tensor, Tensor], scores: tuple[Tensor, Tensor]) -> None:
        """Take weights and biases of the two layers of the classifier, of which the second knows 527 classes."""
        numbers = [kind.number for kind in KINDS]
        self._hidden = hidden[0].clone()
        self.hidden_bias.copy_(hidden[1])
        self.scores.copy_(scores[0][numbers])
        self.scores_bias.copy_(scores[1][numbers])

    @torch.no_grad()
    def fit(self, steps: Tensor) -> None:
        """Take what is needed of the training clips, of what the net makes of them: (clips, inputs, steps)."""
        if self._hidden is None:
            return
        rows = steps.transpose(1, 2).flatten(0, 1).double()
        hidden, narrow = of_low_rank(self._hidden, rows.T @ rows / len(rows), RANK)
        self._hidden = None
        self.hidden.copy_(hidden)
        self.narrow.copy_(narrow)
        given = self._unbounded(steps.mean(dim=2))
        scale = given.std(dim=0, correction=0).clamp_min(LEAST_DEVIATION)
        self.scores_bias.sub_(given.mean(dim=0)).div_(scale)
        self.scores.div_(scale[:, None])

    @torch.no_grad()
    def forward(self, means: Tensor) -> Tensor:
        """Mean over a window of what the net makes of it, (batch, inputs), to scores (batch, len(KINDS))."""
        with torch.autocast(means.device.type, enabled=False):
            return self._unbounded(means.float()).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)

    def _unbounded(self, means: Tensor) -> Tensor:
        hidden = F.linear(F.linear(means, self.narrow), self.hidden, self.hidden_bias)
        return F.linear(F.hardswish(hidden), self.scores, self.scores_bias)


def names_in(genre: str) -> set[str]:
    """A genre's name as KINDS have it, its parts and its last word: "Soul/R&B" is soul and rnb, "death metal" metal."""
    parts = re.split(r"[/,;_+]|-(?=r'?[&n]'?b)", genre, flags=re.IGNORECASE)
    whole = spelling(" ".join(parts)).removesuffix("music")
    return {whole, *map(spelling, (*parts, genre.rsplit(maxsplit=1)[-1]))}


class Strangeness:
    """How much more a song sounds like a genre that a model does not know than like one that it knows."""

    def __init__(self, genres: Sequence[str]) -> None:
        known = [{number for number, kind in enumerate(KINDS) if names_in(genre) & {*kind.genres}} for genre in genres]
        # A genre that is none of the kinds may sound like any of them.
        self.known = sorted(set.union(*known)) if all(known) else []
        self.others = [number for number in range(len(KINDS)) if number not in self.known] if self.known else []

    def sounds_like(self, scores: Tensor) -> str:
        """The kind that it does not know of which there is most, by scores (len(KINDS),) of a song.

        Nothing where it is less than STANDS_OUT more than there is of those that it knows, or where it knows none.
        """
        if not len(scores) or not self.others or self(scores[None]).item() < STANDS_OUT:
            return ""
        return KINDS[self.others[int(scores[self.others].argmax())]].name

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores of KINDS (batch, len(KINDS)) to (batch,), in standard deviations.

        All 0 where a genre of the model is none of the kinds, or all are known.
        """
        if not self.others:
            return torch.zeros_like(scores[:, 0])
        return scores[:, self.others].amax(dim=1) - scores[:, self.known].amax(dim=1)
