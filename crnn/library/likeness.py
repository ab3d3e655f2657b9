"""Which songs sound alike: the cosine between their embeddings, by one model; and where they lie on a map."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import orthogonal_procrustes

Place = tuple[float, float]


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, features) at length 1, float32, so that the inner product of two is their cosine likeness."""
    embeddings = np.asarray(embeddings, np.float32)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def nearest(embeddings: np.ndarray, k: int) -> np.ndarray:
    """For each of a few songs (n, features) the `k` others that sound most like it, most alike first: int (n, k)."""
    vectors = unit(embeddings)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, : min(k, len(vectors) - 1)]


def lay_out(names: Sequence[str], embeddings: np.ndarray, earlier: Mapping[str, Place]) -> dict[str, Place]:
    """A place for each of a few songs on a map on which alike ones lie near each other.

    These are the first two principal components of the embeddings (n, features) at length 1, which is classical scaling
    of their distances (Torgerson 1952), turned and mirrored so that songs stay where they were on the `earlier` map, as
    far as can be (Schönemann 1966).
    """
    vectors = unit(embeddings)
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(names), 2))
    places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    known = [number for number, name in enumerate(names) if name in earlier]
    if len(known) > 1:
        before = np.array([earlier[names[number]] for number in known])
        now = places[known]
        turn, _ = orthogonal_procrustes(now - now.mean(axis=0), before - before.mean(axis=0))
        places = (places - now.mean(axis=0)) @ turn + before.mean(axis=0)
    else:  # the signs of components mean nothing
        places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return {name: (float(x), float(y)) for name, (x, y) in zip(names, places, strict=True)}
