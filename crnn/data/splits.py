"""Parting tracks into those for training, validation and testing, so that no song, and no artist, is on two sides."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

from crnn.data.names import genre_of, listed

VALID_SHARE = TEST_SHARE = 0.15
COMMON_SHARE = 1 / 3  # of all tracks, from which on it is told who has them


def random_split(
    tracks: Iterable[str],
    groups: Mapping[str, str] | None = None,
    by_artist: bool = False,
    test_share: float = TEST_SHARE,
) -> dict[str, list[str]]:
    """About 70 % of each genre's tracks for training, 15 % for validation, 15 % for testing (none of less than 7).

    With the group of each track, such as its artist, groups stay whole; `by_artist` puts validation before testing, as
    artists may be few. The only group of a genre is for training.
    """
    by_genre: dict[str, dict[str, list[str]]] = {}
    named = ((groups[track] if groups else track, track) for track in tracks)
    for group, track in sorted(named, key=lambda names: [*map(_lot, names)]):
        by_genre.setdefault(genre_of(track), {}).setdefault(group, []).append(track)
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    order = ("valid", "test") if by_artist else ("test", "valid")
    only = (group for by_group in by_genre.values() if len(by_group) == 1 for group in by_group)
    part_of = dict.fromkeys(only, "train")  # group: part, in all genres
    for by_group in by_genre.values():
        sizes = [len(members) for members in by_group.values()]
        room = {"test": int(test_share * sum(sizes)), "valid": max(round(VALID_SHARE * sum(sizes)), min(sizes))}
        for group, members in by_group.items():
            fitting = (part for part in order if len(members) <= room[part])
            part = part_of.setdefault(group, next(fitting, "train"))
            if part in room:
                room[part] -= len(members)
    for by_group in by_genre.values():
        if "train" not in map(part_of.get, by_group):  # nothing would teach this genre
            part_of[max(by_group, key=lambda group: len(by_group[group]))] = "train"
    for by_group in by_genre.values():
        for group, members in by_group.items():
            parts[part_of[group]] += members
    return parts


def with_validation(parts: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """The parts of a random split, in which every genre that can has clips to validate on.

    Where all groups of a genre are larger than its share, the smallest of those for training goes there, if no genre
    has no other one to train on.
    """
    train: dict[str, list[str]] = {}
    for track in parts["train"]:
        train.setdefault(groups[track], []).append(track)
    genres_of = {group: {*map(genre_of, members)} for group, members in train.items()}
    n_groups = Counter(name for names in genres_of.values() for name in names)
    valid = list(parts["valid"])
    validated = {*map(genre_of, valid)}
    for genre in dict.fromkeys(map(genre_of, parts["train"])):
        if genre in validated:
            continue
        spare = [group for group in train if genre in genres_of[group] and min(map(n_groups.get, genres_of[group])) > 1]
        if spare:
            group = min(spare, key=lambda group: len(train[group]))
            valid += train.pop(group)
            validated |= genres_of[group]
            n_groups.subtract(genres_of[group])
    left = {*parts["train"]}.difference(valid)
    return {**parts, "train": [track for track in parts["train"] if track in left], "valid": valid}


def _lot(name: str) -> bytes:
    """A random place in an order, always the same for a name."""
    return sha256(name.encode(errors="surrogatepass")).digest()


def without_copies(parts: Mapping[str, Sequence[str]], song_of: Mapping[str, int]) -> dict[str, list[str]]:
    """The parts of a split, less the tracks of which there are copies in a part that measures what they are for.

    The test part stays whole, so that its figures can be compared with others' on it.
    """
    measured: set[int] = set()
    kept = {}
    for part in ("test", "valid", "train"):
        if part in parts:
            kept[part] = [track for track in parts[part] if song_of[track] not in measured]
            measured |= {song_of[track] for track in parts[part]}
    return kept


def about_artists(
    tracks: Sequence[str], artists: Sequence[str | None] | None, parts: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What to know of the artists of tracks, where they are to be kept apart."""
    artist_of = {track: artist for track, artist in zip(tracks, artists or [], strict=False) if artist}
    if artists and (unknown := [track for track in tracks if track not in artist_of]):
        yield (
            f"The artists of {len(artist_of)} of {len(tracks)} clips are known; each of the others, such as "
            f"{unknown[0]!r}, counts as an artist of its own."
        )
    if parted := _parted(artist_of, parts):
        yield f"{_count(parted, 'artist')} in more than one part, so that its figures are better than for new ones."
    else:
        yield from about_commonest(tracks, artists)


def about_commonest(tracks: Sequence[str], artists: Sequence[str | None] | None) -> Iterator[str]:
    """What to know of the artist of most tracks, where these are so many that it is hardly one."""
    genres_of = defaultdict(list)
    for track, artist in zip(tracks, artists or [], strict=False):
        if artist:
            genres_of[artist].append(genre_of(track))
    artist, genres = max(genres_of.items(), key=lambda item: len(item[1]), default=("", []))
    if len(set(genres)) > 1 and len(genres) >= COMMON_SHARE * len(tracks):
        yield (
            f"{artist!r} has {len(genres)} of {len(tracks)} clips, in {len(set(genres))} genres, which all stay "
            "together: if that is no artist, leave these cells of the table empty."
        )


def about_copies(song_of: Mapping[str, int], parts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What to know of copies among tracks, of which the song is given."""
    songs = defaultdict(list)
    for track, song in song_of.items():
        songs[song].append(track)
    if not (copies := [tracks for tracks in songs.values() if len(tracks) > 1]):
        return
    n_copies, parted = sum(map(len, copies)) - len(copies), _parted(song_of, parts)
    yield (
        f"{n_copies} of {len(song_of)} clips {'are copies' if n_copies > 1 else 'is a copy'} of others by the sound, "
        f"such as {copies[0][1]!r} of {copies[0][0]!r}" + ("." if parted else "; all copies of a song are in one part.")
    )
    if parted:
        yield f"{_count(parted, 'song')} in more than one part, so that its figures are better than for new ones."
    kept = {track for tracks in parts.values() for track in tracks}
    if left_out := sum(len(tracks) - len(kept.intersection(tracks)) for tracks in copies if kept.intersection(tracks)):
        yield f"{left_out} of these copies are left out, as others of the song are in a part that is measured with."
    in_genres = [named for tracks in copies if len(named := {genre_of(track): track for track in tracks}) > 1]
    if in_genres:
        shown = "; ".join(listed(sorted(named.values())) for named in in_genres[:3])
        more = f"; {len(in_genres) - 3} more" if len(in_genres) > 3 else ""
        yield f"{_count(len(in_genres), 'song')} in more than one genre, which teaches all of them: {shown}{more}."


def _parted(group_of: Mapping[str, Hashable], parts: Mapping[str, Sequence[str]]) -> int:
    """How many groups are in more than one part."""
    where = defaultdict(set)
    for part, tracks in parts.items():
        for track in tracks:
            if track in group_of:
                where[group_of[track]].add(part)
    return sum(len(found) > 1 for found in where.values())


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}s are" if number > 1 else f"One {kind} is"
