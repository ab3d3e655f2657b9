"""Whether songs that sound alike share a genre: `python benchmarks/similar.py MUSIC... [--artists CSV] [--model M]`.

MUSIC is a folder of genre folders, or a feature file whose tracks are called GENRE.NUMBER. For each clip, the five
nearest other clips are looked up, none of the same artist if the table knows the artist. Counted is how many of them
have the clip's genre: by the embedding, by plain statistics of the log-mel (mean and standard deviation of each band)
and by chance. Silent clips are left out. For clips that the model has learned from, the figure says little. Then a
look-up among 100,000 songs is timed.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.audio import AudioError  # noqa: E402
from crnn.data.artists import read_artists  # noqa: E402
from crnn.data.features import DatasetError, Features  # noqa: E402
from crnn.data.look import find_tracks  # noqa: E402
from crnn.data.names import genre_of  # noqa: E402
from crnn.features import without_silence  # noqa: E402
from crnn.library.likeness import unit  # noqa: E402
from crnn.library.similar import Library, find  # noqa: E402
from crnn.network.songs import hear, plan_of  # noqa: E402

NEAREST = 5
MANY = 100_000


def clips(source: Path, classifier: GenreClassifier) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The track, its embedding (features,) and the statistics of its log-mel (256,); nothing (0,) in silence."""
    if source.is_dir():
        for track, path in tqdm(find_tracks(source).items(), desc=source.name, leave=False):
            try:
                prediction = classifier.predict(path)
            except AudioError as error:
                print(error, file=sys.stderr)
                continue
            sounds = prediction.log_mel[:, prediction.sounds]
            yield track, prediction.embedding, statistics(sounds) if prediction.embedding.size else np.zeros(0)
        return
    model, features = classifier.model, Features.load(source)
    for index in tqdm(range(len(features)), desc=source.name, leave=False):
        track, log_mel = str(features.track_id[index]), without_silence(features.decibels(index))
        if not log_mel.shape[1]:
            yield track, np.zeros(0), np.zeros(0)
            continue
        with torch.inference_mode():
            (windows,) = hear(model, [plan_of(model, log_mel, model.config.hop_frames)])
        yield track, windows.embeddings.mean(dim=0).numpy(), statistics(log_mel.numpy())


def statistics(log_mel: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each band of a log-mel (128, frames)."""
    return np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)])


def precision(vectors: np.ndarray, genres: np.ndarray, artists: np.ndarray) -> float:
    """The share of the NEAREST of each clip, by cosine, that have its genre."""
    likeness = unit(vectors) @ unit(vectors).T
    likeness[artists[:, None] == artists] = -np.inf  # itself, too
    others = np.argsort(-likeness, axis=1)[:, :NEAREST]
    return float((genres[others] == genres[:, None]).mean())


def chance(genres: np.ndarray, artists: np.ndarray) -> float:
    """The same where all others are as near."""
    other = artists[:, None] != artists
    same = genres[:, None] == genres
    return float(((same & other).sum(axis=1) / other.sum(axis=1)).mean())


def report(source: Path, classifier: GenreClassifier, artists_file: Path | None) -> None:
    """Print a line about a collection. Raises DatasetError if nothing sounds in it or the table is not of it."""
    heard = [*clips(source, classifier)]
    known = read_artists(artists_file, [track for track, *_ in heard]) if artists_file else [None] * len(heard)
    sounding = [(artist or track, track, *of_clip) for artist, (track, *of_clip) in zip(known, heard, strict=True)]
    sounding = [row for row in sounding if row[2].size]
    if silent := len(heard) - len(sounding):
        print(f"{source.name}: nothing sounds in {silent} of {len(heard)} clips, which are left out", file=sys.stderr)
    if not sounding:
        raise DatasetError(f"{source} has nothing to compare.")
    artists, tracks, embeddings, mels = map(list, zip(*sounding, strict=True))
    artists, genres = np.array(artists), np.array([genre_of(track) for track in tracks])
    mels = np.stack(mels)
    figures = {
        "embedding": precision(np.stack(embeddings), genres, artists),
        "log-mel": precision((mels - mels.mean(axis=0)) / mels.std(axis=0), genres, artists),
        "chance": chance(genres, artists),
    }
    shown = ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items())
    print(f"{source.name}: {len(tracks)} clips, {len(Counter(genres))} genres: {shown}")


def time_look_up(n_features: int) -> None:
    """Print how long one look-up among MANY takes, here and by scikit-learn."""
    vectors = np.random.default_rng(0).standard_normal((MANY, n_features), dtype=np.float32)
    library = Library([str(n) for n in range(MANY)], [""] * MANY, [None] * MANY, "", vectors)
    pattern = vectors[:1] + 0.1
    started = time.perf_counter()
    found = [number for number, _ in islice(find(library, pattern, set()), 10)]
    own = time.perf_counter() - started
    started = time.perf_counter()
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 (its import counts)

    index = NearestNeighbors(n_neighbors=10, metric="cosine").fit(vectors)
    theirs = index.kneighbors(pattern, return_distance=False)[0].tolist()
    other = time.perf_counter() - started
    assert found == theirs
    print(f"one look-up among {MANY:,} with {n_features} features: {own:.2f} s; scikit-learn with import {other:.2f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", type=Path, metavar="MUSIC")
    parser.add_argument("--artists", type=Path, metavar="CSV", help="a table with the columns track_id and artist")
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id with an optional @revision")
    args = parser.parse_args(argv)
    classifier = GenreClassifier.from_pretrained(args.model)
    print(f"{classifier.origin.name}, trained on {classifier.model.config.trained_on or 'what it does not say'}:")
    print(f"of the nearest {NEAREST}, the share with the same genre")
    for source in args.music:
        try:
            report(source, classifier, args.artists)
        except DatasetError as error:
            parser.error(str(error))
    time_look_up(sum(member.embedding_size for member in classifier.model.members))


if __name__ == "__main__":
    main()
