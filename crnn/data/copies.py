"""Copies of a song among clips, by their sound."""

from collections.abc import Iterable, Sequence

import numpy as np

from crnn.data.features import Features
from crnn.features import FLOOR_DB, n_frames_of

LIKE = 0.8  # correlation of the courses of two clips from which on they are the same song
LEAST_SECONDS = 10.0  # for that: shorter ones have too little of a course, as loops and hits, and must be equal
EQUAL_DB = 0.5  # mean difference of cells that sound, up to which clips are
MOST_SECONDS_APART = 2.0
N_BANDS, GROUP = 88, 8  # up to 4 kHz, which every encoder keeps; in groups
NEAR_DB = 2.2  # in mean or spread of a group, up to which clips are compared at all
STEADY_DB = 2.0  # a sound that swings by less, noise or a hum, has no course


def copies_of(features: Features) -> np.ndarray:
    """For each track the number of its song, int (tracks,): the same for copies, whatever they are called.

    Copies sound alike: the same file, the same recording in another container, lossily encoded again, at another level,
    or cut up to two seconds earlier or later. Files that are equal byte for byte are a special case of that, and their
    log-mels, which are here anyway, tell the others too. Another part of a song, a cover and a song at another speed
    are not found.

    Clips that are near in mean and spread of their bands are compared by the correlation of their courses, the
    log-mels in groups of bands less the mean of each. Of the 639 clips of GTZAN's training and validation part no two
    come to 0.6; of 14 of them as mp3 (32 to 128 kbit/s), opus (48) and aac (96) all stay above 0.84.
    """
    return _joined(len(features), (pair for pair in _near(features) if _is_copy(features, *pair)))


def keep_together(names: Sequence[str], copies: np.ndarray) -> list[str]:
    """For each track the name of the group that may not be parted: of equal names, and of copies of a song.

    `names` are those of artists, or of the tracks themselves; `copies` is what `copies_of` gives.
    """
    firsts: dict[object, int] = {}
    pairs = [(number, firsts.setdefault(name, number)) for number, name in enumerate(names)]
    pairs += [(number, firsts.setdefault(song, number)) for number, song in enumerate(copies.tolist())]
    groups = _joined(len(names), pairs).tolist()
    name_of: dict[int, str] = {}
    for group, name in zip(groups, names, strict=True):
        name_of[group] = min(name_of.get(group, name), name)
    return [name_of[group] for group in groups]


def _joined(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """For each of `n` the lowest number that pairs connect it with, int (n,)."""
    above = np.arange(n)

    def top(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    for one, other in pairs:
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return np.array([top(number) for number in range(n)], dtype=int)


def _near(features: Features) -> list[tuple[int, int]]:
    """Pairs of clips whose bands have nearly the same mean and spread; silence is like nothing."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 (processes that only decode or train have no use for it)

    places, index = [], []
    for number in range(len(features)):
        course = _course(features, number)
        if course.max() > course.min():
            places.append(np.concatenate([course.mean(axis=1), course.std(axis=1)]))
            index.append(number)
    pairs = cKDTree(np.array(places)).query_pairs(NEAR_DB, p=np.inf) if places else []
    return sorted((index[one], index[other]) for one, other in pairs)


def _levels_db(features: Features, number: int) -> np.ndarray:
    """Decibels (88, frames) above the floor, float32, without the frames into which the ends were padded."""
    levels = features.logmel[number, :N_BANDS, : features.n_frames[number]]
    levels = levels[:, 2:-2] if levels.shape[1] > 8 else levels
    return levels * np.float32(-FLOOR_DB / 255.0)


def _course(features: Features, number: int) -> np.ndarray:
    """The same in groups of bands, (11, frames)."""
    levels = _levels_db(features, number)
    return levels.reshape(N_BANDS // GROUP, GROUP, -1).mean(axis=1)


def _is_copy(features: Features, one: int, other: int) -> bool:
    lengths = features.n_frames[[one, other]]
    if lengths.min() < n_frames_of(LEAST_SECONDS):
        return _are_equal(_levels_db(features, one), _levels_db(features, other))
    courses = [_course(features, number) for number in (one, other)]
    swings = [course - course.mean(axis=1, keepdims=True) for course in courses]
    if min(swing.std() for swing in swings) < STEADY_DB:
        return _are_equal(_levels_db(features, one), _levels_db(features, other))
    return _correlation(*swings) >= LIKE


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether levels are the same but for the rounding of a good encoder, and of a frame at the end."""
    n_frames = min(one.shape[1], other.shape[1])
    if max(one.shape[1], other.shape[1]) - n_frames > n_frames_of(0.1):
        return False
    one, other = one[:, :n_frames], other[:, :n_frames]
    sounds = np.maximum(one, other) > 0
    return bool(np.abs(one - other)[sounds].mean() <= EQUAL_DB) if sounds.any() else False


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation of courses (groups, frames) that are moved against each other."""
    most, size = n_frames_of(MOST_SECONDS_APART), 1 << (one.shape[1] + other.shape[1]).bit_length()
    products = np.fft.irfft((np.fft.rfft(one, size) * np.fft.rfft(other, size).conj()).sum(axis=0), size)
    power, power_of_other = (np.cumsum([0.0, *(course**2).sum(axis=0)]) for course in (one, other))
    lags = np.arange(-most, most + 1)
    start, end = np.maximum(0, lags), np.minimum(one.shape[1], other.shape[1] + lags)
    common = (power[end] - power[start]) * (power_of_other[end - lags] - power_of_other[start - lags])
    return float((products[lags] / np.sqrt(np.maximum(common, 1e-9))).max())
