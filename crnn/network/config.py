"""What a CRNN is built from, and what a stranger's may ask for."""

from dataclasses import dataclass, field

from crnn.features import FEATURE_SETTINGS, N_MELS, n_frames_of
from crnn.network.fronts import front_of
from crnn.network.layers import POOLING, RECURRENT

CONFIG_VERSION = 2
UNSURE, NO_MUSIC = VERDICTS = ("unsure", "no music")  # answers that are no genre
NOTHING_STRANGE = -1_000.0  # an energy that no song is below
NOTHING_SURE = 1.0 + 2.0**-23  # a border that no probability reaches: the next number of 32 bits

# What a configuration may ask for: a stranger's may not take the memory and the time of everybody else.
MOST = {
    "members": 16,
    "channels": 1_024,
    "mel_pools": N_MELS,
    "time_pools": 1_024,
    "recurrent_size": 512,
    "bottleneck": 512,
    "summary_components": 512,
    "window_frames": n_frames_of(60.0),
}
MOST_BLOCKS = 12
MOST_GENRES = 200
MOST_EVIDENCE = 10.0
MOST_CHARACTERS = 64  # of a genre's name
MOST_WEIGHTS = 32_000_000  # of all members behind their fronts
MOST_MULTIPLY_ADDS = 10_000_000  # for one frame, of all members; crnn-transfer needs 3.9 million, crnn-scratch 1.2
MOST_FEATURES = 1_000  # of the steps of all members, for one frame; kept of a whole song: 96 of crnn-transfer


@dataclass(frozen=True)
class CRNNConfig:
    """All that is needed to rebuild a CRNN and to use it as it was trained; stored as config.json beside the weights.

    Raises ValueError where the fields contradict each other or ask for too much.
    """

    genres: tuple[str, ...]  # in the order of the logits
    front: str = "small"  # the convolutions, of `crnn.network.fronts`: "small", learned with the rest, or pretrained
    members: int = 1  # CRNNs whose probabilities are averaged; they share what is not learned
    channels: tuple[int, ...] = (16, 48, 96, 192)  # of each convolutional block of the small front
    mel_pools: tuple[int, ...] = (4, 2, 4, 4)  # pooling over mel bands after each block
    time_pools: tuple[int, ...] = (2, 2, 2, 1)  # pooling over time after each block
    recurrent: str = "gru"  # the layer that follows the steps through time: "gru", "lstm" or "none"
    recurrent_size: int = 64  # hidden units in each of the two directions
    pooling: str = "attention+mean"  # over time: "attention", "mean" or both
    bottleneck: int = 64  # principal components of the channels of a published front
    summary: bool = False  # whether the classifier reads mean and maximum of the front's steps beside the pooled ones
    summary_channels: bool = False  # of all channels of published fronts instead, for a classifier of its own
    summary_components: int = 192  # principal components of these channels that it reads
    linear: bool = False  # whether a linear classifier of these components answers beside the members, as much as all
    block_dropout: float = 0.1  # of whole channels, after each convolutional block or bottleneck
    dropout: float = 0.4  # before the classifier
    window_frames: int = n_frames_of(10.0)  # the length that it was trained on
    evidence: float = 0.0  # how much less a window counts in which little speaks for any genre: `window_weights`
    temperature: float = 1.0  # divides the logits, fitted on validation clips (Guo et al. 2017)
    unsure_below: float = 0.0  # a top probability under this is no answer
    strange_below: float = NOTHING_STRANGE  # nor is what it makes of a song with less energy than this
    trained_on: str = ""  # the split and its parts, so that nobody takes what it has heard for a test
    heard: str = ""  # the clips themselves, by `crnn.data.heard`
    features: dict = field(default_factory=lambda: dict(FEATURE_SETTINGS))  # of the log-mel that goes in
    version: int = CONFIG_VERSION

    def __post_init__(self) -> None:
        for name in ("genres", "channels", "mel_pools", "time_pools"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.genres) < 2 or len(set(self.genres)) != len(self.genres):
            raise ValueError(f"a CRNN needs at least two different genres, not {list(self.genres[:10])}")
        front_of(self.front)
        for name, variants in (("recurrent", RECURRENT), ("pooling", POOLING)):
            if getattr(self, name) not in variants:
                raise ValueError(f"{name} is one of {', '.join(variants)}, not {getattr(self, name)!r}")
        self._check_sizes()
        if not all(0 <= share < 1 for share in (self.block_dropout, self.dropout)):
            raise ValueError("dropout and block_dropout are shares from 0 to less than 1")
        if not 0 <= self.evidence <= MOST_EVIDENCE:
            raise ValueError(f"evidence must be from 0 to {MOST_EVIDENCE:g}, not {self.evidence}")
        if not 0.001 <= self.temperature <= 1_000:
            raise ValueError(f"the temperature must be positive, from 0.001 to 1000, not {self.temperature}")
        if not 0 <= self.unsure_below <= NOTHING_SURE:
            raise ValueError(f"unsure_below is a probability, from 0 to 1, not {self.unsure_below}")
        if not abs(self.strange_below) <= -NOTHING_STRANGE:
            raise ValueError(
                f"strange_below is an energy from {NOTHING_STRANGE:g} to {-NOTHING_STRANGE:g}, not {self.strange_below}"
            )
        self._check_cost()

    def _check_sizes(self) -> None:
        """Every number within its bounds, every list no longer than it may be."""
        for name, most in MOST.items():
            value = getattr(self, name)
            if not all(1 <= number <= most for number in (value if isinstance(value, tuple) else [value])):
                raise ValueError(f"{name} must be at least 1 and at most {most}")
        if len(self.channels) > MOST_BLOCKS or len(self.genres) > MOST_GENRES:
            raise ValueError(f"a CRNN has at most {MOST_BLOCKS} convolutional blocks and {MOST_GENRES} genres")
        if not all(name.strip() and name.isprintable() and len(name) <= MOST_CHARACTERS for name in self.genres):
            raise ValueError(f"the name of a genre is a line of 1 to {MOST_CHARACTERS} characters")
        if taken := [name for name in self.genres if name in VERDICTS]:
            raise ValueError(f"no genre can be called {taken[0]!r}, the answer that means that it is none")

    def _check_cost(self) -> None:
        """The time that a window takes, and the memory of the weights, which are used once for a step or a window."""
        cost = front_of(self.front).cost(self)
        if self.window_frames < self.min_frames:
            raise ValueError(f"{self.window_frames} window_frames are fewer than the {self.min_frames} of one step")
        if self.hop_frames < 1:
            raise ValueError(f"{self.window_frames} window_frames are too few to overlap")
        gates = 2 * RECURRENT[self.recurrent].gates  # of a unit, in both directions
        steps = int(self.window_frames / self.step_frames)
        recurrent = gates * self.recurrent_size * (cost.features + self.recurrent_size)
        summary = 2 * cost.features * 2 * self.recurrent_size if self.summary else 0
        classified = cost.features if self.recurrent == "none" else 2 * self.recurrent_size
        classifier = len(self.genres) * (2 * classified + 2 * self.recurrent_size)
        multiply_adds = cost.shared + self.members * (cost.member + recurrent * steps + summary + classifier)
        if multiply_adds > MOST_MULTIPLY_ADDS * self.window_frames:
            raise ValueError("its channels, pools, recurrent_size and members make it too slow")
        if self.members * (recurrent + summary + classifier) > MOST_WEIGHTS:
            raise ValueError("its recurrent_size, summary, genres and members make it too large")
        if self.members * cost.features > MOST_FEATURES * self.step_frames:
            raise ValueError("its channels, pools, bottleneck and members make its steps too many for a long song")

    @property
    def hop_frames(self) -> int:
        """Frames from one window of a song to the next: a quarter of a window."""
        return self.window_frames // 4

    @property
    def min_frames(self) -> int:
        """Frames of the shortest input, which gives one step."""
        return self.step_frames

    @property
    def step_frames(self) -> int:
        """Frames of the log-mel that one step of the recurrent layer spans."""
        return front_of(self.front).step_frames(self)
