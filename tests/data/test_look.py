"""A look at training data before anything is decoded: what is used, and what stops a training."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from crnn.data.features import DatasetError
from crnn.data.look import find_tracks, look_at
from crnn.data.names import as_text, check_genres, folders_alike, genre_of, gtzan_name, own_split


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


TWO_GENRES = ("rock/a.mp3", "rock/b.mp3", "jazz/a.mp3", "jazz/b.mp3")


def test_it_says_what_is_there(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, *TWO_GENRES, "jazz/c.wav", "jazz/cover.jpg", "rock/._a.mp3", "alone.ogg"))
    found.check()
    counts, passed_over = found.lines()
    assert counts == f"{tmp_path}: 5 clips, 3 jazz, 2 rock."
    assert "1 sound beside the genre folders" in passed_over
    assert ".jpg 1" in passed_over
    assert "1 hidden" in passed_over


def test_recycle_bins_are_no_genres(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, *TWO_GENRES, "@Recycle/a.mp3", "rock/#recycle/b.mp3"))
    found.check()
    assert found.tracks.keys() == {*TWO_GENRES}
    assert found.passed_over == "2 hidden"


def test_linked_genres_are_found(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "songs/a.mp3", "songs/b.mp3")
    data = fill(tmp_path / "data", "rock/a.mp3")
    (data / "jazz").symlink_to(tmp_path / "elsewhere" / "songs")
    (data / "rock" / "loop").symlink_to(data / "rock")
    assert sorted(find_tracks(data)) == ["jazz/a.mp3", "jazz/b.mp3", "rock/a.mp3"]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train/rock/1.mp3", "test/rock/1.mp3"], {"train": 1, "test": 1}),
        (["Training/rock/1.mp3", "VAL/rock/1.mp3", "testing/rock/a/1.mp3"], {"train": 1, "valid": 1, "test": 1}),
        (["rock/train/1.mp3", "jazz/validation/1.mp3"], {"train": 1, "valid": 1}),
        (["test/rock/1.mp3", "test/jazz/1.mp3"], {"test": 2}),
        (["train/rock/1.mp3", "train/jazz/1.mp3"], {}),  # a folder around it all
        (["rock/Train/Drops of Jupiter.mp3", "rock/Queen/1.mp3", "jazz/1.mp3"], {}),  # a band
        (["rock/1.mp3", "jazz/1.mp3"], {}),
        (["train_set/rock/1.mp3", "Test-Songs 2/rock/1.mp3"], {"train": 1, "test": 1}),
        (["training_split/rock/1.mp3", "holdout/rock/1.mp3", "eval/jazz/1.mp3"], {"train": 1, "test": 2}),
        (["rock/train data/1.mp3", "jazz/valset/1.mp3"], {"train": 1, "valid": 1}),
        (["1_train/rock/1.mp3", "2_held-out/rock/1.mp3"], {"train": 1, "test": 1}),
        (["train_22k/rock/1.mp3", "test_wav/rock/1.mp3"], {"train": 1, "test": 1}),
        (["rock/rock_train/1.mp3", "jazz/Jazz test/1.mp3"], {"train": 1, "test": 1}),
        (["rock/Training Wheels/1.mp3", "jazz/Testament/1.mp3"], {}),
    ],
)
def test_folders_of_a_split(names: list[str], parts: dict[str, int], tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, *names))
    found.check(is_to_train=False)
    assert {part: len(tracks) for part, tracks in own_split(list(found.tracks)).items()} == parts
    assert set(map(genre_of, found.tracks)) <= {"rock", "jazz"}


@pytest.mark.parametrize("layout", ["{part}/{genre}", "{genre}/{part}"])
def test_a_split_of_gtzan_keeps_both_parts(layout: str, tmp_path: Path) -> None:
    names = [
        f"{layout.format(part=part, genre=genre)}/{genre}.0000{number}.wav"
        for part in ("train", "test")
        for genre in ("blues", "metal")
        for number in (range(3) if part == "train" else range(3, 5))
    ]
    tracks = find_tracks(fill(tmp_path, *names))
    assert sorted(tracks) == sorted(names)
    assert {gtzan_name(track) for track in tracks} == {
        f"{genre}.0000{n}" for genre in ("blues", "metal") for n in range(5)
    }
    if layout.startswith("{part}"):
        assert sorted(find_tracks(tmp_path / "test")) == ["blues.00003", "blues.00004", "metal.00003", "metal.00004"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/rock/1.mp3", "test/rock/1.mp3", "more/rock/1.mp3"],
            "'test' and 'train' are named like a part .* 'more'",
        ),
        (
            ["train/rock/1.mp3", "test/rock/1.mp3", "train/intro.mp3"],
            "'train/intro.mp3' is in a part of a split, but in no genre folder there",
        ),
        (
            ["rock/train/1.mp3", "rock/test/1.mp3", "jazz/train/1.mp3", "jazz/test/1.mp3", "jazz/new song.mp3"],
            "'test' and 'train' in genre folders are named like parts .* 'jazz/new song.mp3' is in none",
        ),
        (["fold1/rock/1.mp3", "fold1/jazz/1.mp3", "fold2/rock/1.mp3", "fold2/jazz/1.mp3"], "--accept alike"),
        (["fold_a/rock/1.mp3", "fold_a/jazz/1.mp3", "fold_b/rock/1.mp3", "fold_b/jazz/1.mp3"], "--accept alike"),
        (["audio_train/rock/1.mp3", "audio_train/jazz/1.mp3", "audio_test/jazz/1.mp3"], "--accept alike"),
        (
            ["rock/train/1.mp3", "rock/test/1.mp3", "jazz/1.mp3", "jazz/2.mp3"],
            "'jazz/1.mp3' and 'jazz/2.mp3' are in none",
        ),
        (["train/1.mp3", "test/1.mp3"], "'test' and 'train' are named like a part of a split, not like a genre"),
        (["my train/rock/1.mp3", "my train/jazz/1.mp3", "my test/jazz/1.mp3", "my test/rock/1.mp3"], "--accept alike"),
        (["a/rock/1.mp3", "a/jazz/1.mp3", "b/jazz/1.mp3", "b/rock/1.mp3", "b/ska/1.mp3"], "'a' and 'b' in .* 'jazz'"),
        (["train/rock/1.mp3", "test/rock/1.mp3", "test/jazz/1.mp3"], "train part of .* has no clips of 'jazz'"),
        (["Rock_and_Roll/1.mp3", "Rock & Roll/2.mp3"], "are spellings of one genre"),
        (["archive/rock/1.mp3", "archive/jazz/1.mp3"], "give --data .*archive"),
        *(
            ([f"{part}/{genre}/1.mp3" for part in parts for genre in ("rock", "jazz", "ska")], "--accept alike")
            for parts in (
                ("Trainingsdaten", "Testdaten"),
                ("tr", "te"),
                ("训练集", "测试集"),
                ("entrenamiento", "prueba"),
            )
        ),
        (
            [*(f"{part}/{genre}/1.mp3" for part in ("tr", "te") for genre in ("rock", "jazz")), "tr/ska/1.mp3"],
            "'te' and 'tr' in .* hold the same folders, 'jazz' and 'rock'",
        ),
        (
            [f"{genre}{part}/1.mp3" for part in ("_train", " Test", "-val") for genre in ("rock", "jazz")],
            "'jazz Test', 'jazz-val' and 'jazz_train' are named like parts of one genre, .* as train/rock",
        ),
        (["train_rock/1.mp3", "test_set_rock/1.mp3"], "'test_set_rock' and 'train_rock' are named like parts"),
        (
            [f"{part}/wav/{genre}/1.mp3" for part in ("train", "test") for genre in ("rock", "jazz")],
            "parts of .* have only the folder wav; .* put these into the parts themselves, as in train/rock",
        ),
        (
            [
                f"{part}/{kind}/{genre}/1.{kind}"
                for part in ("train", "test")
                for kind in ("wav", "mp3")
                for genre in ("rock", "jazz")
            ],
            "'mp3' and 'wav' in the parts of .* hold the same folders, 'jazz' and 'rock': .* put the clips of each",
        ),
        (["rock/1.mp3", "Unsure/1.mp3"], "No genre can be called 'Unsure': the answer 'unsure'"),
        (["rock/1.mp3", "no_music/1.mp3"], "No genre can be called 'no_music'"),
        (["Rock/1.mp3", "rock/2.mp3"], "'Rock' and 'rock' are spellings of one genre: put them"),
        (["hip-hop/1.mp3", "Hip Hop/2.mp3", "rock/1.mp3"], "'Hip Hop' and 'hip-hop' are spellings"),
        (["R&B/1.mp3", "r'n'b/2.mp3"], "are spellings of one genre"),
        ([f"{unicodedata.normalize(form, 'Électro')}/1.mp3" for form in ("NFC", "NFD")], r"only computers .*\\u0301"),
        (["a\tb/1.mp3", "rock/1.mp3"], r"No model can have the genre a\\tb: the"),
    ],
)
def test_names_that_would_teach_nonsense(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        look_at(fill(tmp_path, *names)).check()


@pytest.mark.parametrize(
    ("genres", "are_numbers"),
    [
        (["000", "001", "155"], True),
        (["CD1", "CD2"], True),
        (["fold 1", "fold 10"], True),
        (["0a", "ff", "b3"], True),
        (["1980s", "1990s"], False),
        (["dub", "edm"], False),
        (["000", "rock"], False),
        ([*(f"{number:03}" for number in range(155)), "rock"], True),
        (["1", "2", "3", "rock", "jazz", "pop"], False),
        (["U2", "B52"], False),
        (["000-099", "100-199"], True),
        (["CD1 of 2", "CD2 of 2"], True),
        (["Disc One", "Disc Two"], True),
        (["split_1", "split_2"], True),
        (["class_0", "class_1"], True),
        (["DIR001", "DIR002"], True),
        (["01.", "02."], True),
    ],
)
def test_numbered_folders_are_no_genres(genres: Sequence[str], are_numbers: bool) -> None:
    if are_numbers:
        with pytest.raises(DatasetError, match=r"are numbers, .* --accept numbers"):
            check_genres(genres)
    else:
        check_genres(genres)
    check_genres(genres, ["numbers"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["folk/1.wav", "rock/1.wav", "old/gtzan/blues/blues.00000.wav"], "gtzan holds .*folk.1.wav lies outside it"),
        (["fold1/blues/blues.00000.wav", "fold2/blues/blues.00001.wav"], r"'fold1' and 'fold2' in .* --data .*fold1, "),
        (["a/blues/blues.00000.wav", "b/c/blues/blues.00001.wav"], "b.c.blues.blues.00001.wav lies outside"),
        (["genres/rock/1.wav", "jazz/1.wav"], "genres holds the genre folders, it seems, but .*jazz.1.wav lies"),
    ],
)
def test_folders_that_may_not_be_all_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        look_at(fill(tmp_path, *names))


def test_clips_named_as_those_of_gtzan_may_lie_deep_in_a_genre(tmp_path: Path) -> None:
    names = ["blues/blues.00000.wav", "blues/x/blues/blues.00001.wav", "rock/1.wav", ".trash/blues/blues.00000.wav"]
    assert sorted(find_tracks(fill(tmp_path, *names))) == ["blues.00000", "blues.00001", "rock/1.wav"]


def test_a_genre_without_clips_stops_it_unless_that_is_accepted(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, *TWO_GENRES, "blues/notes.txt"))
    with pytest.raises(DatasetError, match=r"'blues' in .* has no clips: .* --accept empty"):
        found.check()
    found.check(["empty"])
    assert "Left out, without clips: blues." in found.lines()


@pytest.mark.parametrize("same", ["rock", "jazz/bebop"])
def test_a_genre_that_is_a_link_to_another_is_called_so(same: str, tmp_path: Path) -> None:
    fill(tmp_path, *TWO_GENRES, "jazz/bebop/c.mp3")
    (tmp_path / "also").symlink_to(same)
    found = look_at(tmp_path)
    with pytest.raises(
        DatasetError, match=f"'also' in .* is the same folder as '{same}', by a link: .* --accept empty"
    ):
        found.check()
    found.check(["empty"])


@pytest.mark.parametrize(
    ("names", "folders", "empty"),
    [
        (
            ["train/rock/1.mp3", "train/jazz/1.mp3"],
            ["test/rock", "test/jazz"],
            "'test/jazz' and 'test/rock' .* have",
        ),
        (["train/rock/1.mp3", "test/rock/1.mp3"], ["valid"], "'valid' in .* has no clips"),
        (["train/rock/1.mp3", "test/rock/1.mp3", "test/jazz/1.mp3"], ["train/jazz"], "train part of .* 'jazz'"),
        (["rock/train/1.mp3", "rock/test/1.mp3", "jazz/train/1.mp3"], ["jazz/test"], "'jazz/test' in .* has no clips"),
    ],
)
def test_a_part_without_clips_stops_it_too(names: list[str], folders: list[str], empty: str, tmp_path: Path) -> None:
    for folder in folders:
        (fill(tmp_path, *names) / folder).mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    with pytest.raises(DatasetError, match=empty):
        look_at(tmp_path).check()


@pytest.mark.parametrize("layout", ["{part}/{genre}", "{genre}/{part}"])
def test_what_another_part_than_the_measured_one_lacks_stops_nothing(layout: str, tmp_path: Path) -> None:
    names = [f"{layout.format(part=part, genre=genre)}/1.mp3" for part in ("train", "test") for genre in "ab"]
    lacks = layout.format(part="train", genre="c")
    (fill(tmp_path, *names, f"{layout.format(part='test', genre='c')}/1.mp3") / lacks).mkdir(parents=True)
    found = look_at(tmp_path)
    kept = [track for track in found.tracks if track != names[0]]
    found.check(is_to_train=False, measured="test")
    found.check_decoded(kept, measured="test")
    for measured in ("train", "all"):
        with pytest.raises(DatasetError, match=f"'{lacks}' in .* has no clips"):
            found.check(is_to_train=False, measured=measured)
        with pytest.raises(DatasetError, match="Nothing of 'train/a' can be decoded"):
            found.check_decoded(kept, measured=measured)


@pytest.mark.parametrize(
    "inner",
    [
        ("80s", "90s"),
        ("Various Artists", "Unknown Artist"),
        ("mp3", "flac"),
        ("Live", "Studio"),
        ("A-F", "G-M"),
        ("male", "female"),
    ],
)
def test_genres_may_hold_folders_of_the_same_names(inner: tuple[str, str], tmp_path: Path) -> None:
    names = [f"{genre}/{folder}/1.mp3" for genre in ("rock", "jazz") for folder in inner]
    found = look_at(fill(tmp_path, *names, "dance/house/1.mp3", "dance/techno/1.mp3"))
    found.check()
    assert set(map(genre_of, found.tracks)) == {"rock", "jazz", "dance"}


def test_genres_that_end_in_a_letter_may_hold_folders_of_the_same_names(tmp_path: Path) -> None:
    names = [f"{genre}/{folder}/1.mp3" for genre in ("R & B", "R & R") for folder in ("Trios", "Choirs")]
    look_at(fill(tmp_path, *names, "R & B/1950s/1.mp3", "R & B/Duos/1.mp3", "R & R/Bands/1.mp3")).check()


@pytest.mark.parametrize(
    "inner", [("80s", "1990's"), ("mp3", "FLAC"), ("01", "02"), ("Queen",), ("Live", "Studio"), ("Albums", "EPs")]
)
@pytest.mark.parametrize("part", ["", "train/"])
def test_genres_may_all_hold_folders_that_can_be_none(part: str, inner: tuple[str, ...], tmp_path: Path) -> None:
    names = [f"{part}{genre}/{folder}/1.mp3" for genre in ("rock", "jazz") for folder in inner]
    look_at(fill(tmp_path, *names)).check()


def test_names_of_many_digits_are_soon_read() -> None:
    """Those of dates, say; by an expression that tries every way to part them it takes years."""
    assert folders_alike([f"{genre}/{100 * '1'} session/1.mp3" for genre in ("rock", "jazz")]) == ([], [])
    check_genres(["1" * 50 + " mixes", "rock"])


def test_what_only_seems_to_be_no_genre_can_be_accepted(tmp_path: Path) -> None:
    names = [f"{genre}/{folder}/1.mp3" for genre in ("rock", "Soul Train") for folder in ("Live", "Studio")]
    look_at(fill(tmp_path, *names, "soul_test/1.mp3")).check(["alike"])


def test_one_genre_may_be_measured_with_folders_of_its_own(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, "test/rock/Queen/1.mp3", "test/rock/Abba/2.mp3", "train/rock/Kiss/1.mp3"))
    with pytest.raises(DatasetError, match=r"have only the folder rock; .* --accept alike takes it"):
        found.check(is_to_train=False, measured="test")
    found.check(["alike"], is_to_train=False, measured="test")


def test_bands_may_be_named_like_parts_of_a_split(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, "rock/Train/1.mp3", "rock/Queen/1.mp3", "punk/Unseen/1.mp3", "punk/2.mp3"))
    found.check()
    assert own_split(list(found.tracks)) == {}


def test_a_genre_that_a_part_lacks_is_told(tmp_path: Path) -> None:
    found = look_at(fill(tmp_path, "train/rock/1.mp3", "train/jazz/1.mp3", "valid/rock/1.mp3", "test/jazz/1.mp3"))
    found.check()
    assert [line for line in found.lines() if "has no clips" in line] == [
        "Its valid part has no clips of jazz, so that its figures say nothing of that.",
        "Its test part has no clips of rock, so that its figures say nothing of that.",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_read_as_text(tmp_path: Path) -> None:
    names = [b"fran\xe7ais/caf\xe9.mp3", "français/café.mp3".encode(), b"rock/\x81.mp3", b"rock/b.mp3"]
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    tracks = find_tracks(tmp_path)
    assert sorted(tracks) == ["français/caf\\xe9.mp3", "français/café.mp3", "rock/\\x81.mp3", "rock/b.mp3"]
    assert sorted(os.fsencode(path.relative_to(tmp_path)) for path in tracks.values()) == sorted(names)
    "".join(tracks).encode()
    assert as_text(os.fsdecode(b"caf\xe9")) == "café"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_no_song_takes_the_place_of_one_whose_name_reads_alike(tmp_path: Path) -> None:
    (tmp_path / "rock").mkdir()
    paths = [tmp_path / "rock" / os.fsdecode(name) for name in (b"\x80.mp3", "€.mp3".encode())]
    for path in paths:
        path.touch()
    assert list(find_tracks(tmp_path).items()) == [("rock/€.mp3", paths[0]), ("rock/€.mp3 (2)", paths[1])]
