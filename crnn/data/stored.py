"""Feature files as data to train on: tracks that say their genre, and clips in which something sounds."""

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from crnn.data.features import DatasetError, Features
from crnn.data.names import check_folders, listed, lost_places, own_split, slashed

_WITH_GENRE = re.compile(r"(?!\.\.?/|[a-z]:/)[^/]+/.*|[^/]+\.\d+(\.\w+)?", re.IGNORECASE | re.DOTALL)


def load_features(
    path: Path,
    notice: Callable[[str], None],
    accepted: Collection[str] = (),
    is_split: bool = True,
    measured: str | None = None,
) -> Features:
    """The clips of a feature file that are not silent; `notice` is told of those that are.

    Raises DatasetError as `Features.load` does, where a track does not say its genre, and where, unless that is in
    `accepted`, folders in their names seem none of genres or all clips of a genre are silent, or of one in a part of
    their own split. `is_split`: whether that is used; `measured`: the part of it that alone is asked for.
    """
    features = Features.load(path, notice)
    tracks = [slashed(track) for track in features.track_id.tolist()]
    if odd := [track for track in tracks if not _WITH_GENRE.fullmatch(track)]:
        raise DatasetError(
            f"{path} has the track_id {odd[0]!r}, which says no genre: each must look like rock/song.mp3, or like "
            "GTZAN's rock.00000."
        )
    if twice := [track for track, count in Counter(tracks).items() if count > 1]:
        raise DatasetError(f"{path} has {listed(twice)} more than once, written otherwise: take all but one out.")
    check_folders(tracks, path, accepted)
    features = replace(features, track_id=np.array(tracks))
    sounds = np.array([features.logmel[n, :, :end].any() for n, end in enumerate(features.n_frames)])
    if sounds.all():
        return features
    if not sounds.any():
        raise DatasetError(f"All clips of {path} are silent.")
    silent = features.track_id[~sounds].tolist()
    notice(f"Left out {listed(silent)}, which {'are' if len(silent) > 1 else 'is'} silent.")
    split = own_split(tracks) if is_split else {}
    lost = lost_places(tracks, features.track_id[sounds].tolist(), split, measured)
    if lost and "empty" not in accepted:
        raise DatasetError(
            f"All clips of {listed(lost)} in {path} are silent: put others there, take these out, or give --accept "
            "empty to go on without them."
        )
    return features.select(np.flatnonzero(sounds))
