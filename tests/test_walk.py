"""Which files of a folder are songs, whatever is linked to what."""

import os
import sys
from pathlib import Path

import pytest

from crnn.walk import Walk, is_song


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder with songs, a linked album, a loop, and what is none."""
    for name in (
        "b.mp3",
        "a/1.FLAC",
        "a/.hidden.mp3",
        "...z/..1.mp3",
        "a/cover.jpg",
        ".trash/old.mp3",
        "notes",
        "album.mp3/2.m4b",
    ):
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "music" / name).write_bytes(b"")
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "3.mka").write_bytes(b"")
    (tmp_path / "music" / "a" / "linked").symlink_to("../../disk")
    (tmp_path / "music" / "z").symlink_to("../disk")
    (tmp_path / "music" / "loop").symlink_to(".")
    (tmp_path / "music" / "again.mp3").symlink_to("b.mp3")
    (tmp_path / "music" / "gone.mp3").symlink_to("nowhere.mp3")
    os.mkfifo(tmp_path / "music" / "pipe.mp3")
    return tmp_path / "music"


def names(walk: Walk, below: Path) -> list[str]:
    return [path.relative_to(below).as_posix() for path in walk]


def test_all_songs_once_links_last(music: Path) -> None:
    walk = Walk([music])
    assert names(walk, music) == [
        "...z/..1.mp3",
        "a/1.FLAC",
        "again.mp3",
        "album.mp3/2.m4b",
        "b.mp3",
        "a/linked/deep/3.mka",
    ]
    assert walk.no_songs == {".jpg": 1, "without suffix": 1}
    assert walk.passed_over == {
        "hidden": 2,
        "links that lead nowhere, or devices": 2,
        "folders that are named or linked twice": 2,
    }
    assert walk.empty == walk.problems == []
    assert walk.summary().startswith("2 with names that are not those of sounds (.jpg 1, without suffix 1), 2 hidden")


@pytest.mark.parametrize("name", ["#recycle", "@Recycle", "$RECYCLE.BIN", "System volume information", "@eaDir"])
def test_folders_of_systems_are_passed_over_unless_they_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "rock" / name).mkdir(parents=True)
    (tmp_path / "rock" / name / "deleted.mp3").touch()
    (tmp_path / "rock" / "lost+found").touch()  # a file
    walk = Walk([tmp_path])
    assert names(walk, tmp_path) == []
    assert walk.summary() == "1 with names that are not those of sounds (without suffix 1), 1 hidden"
    assert names(Walk([tmp_path / "rock" / name]), tmp_path) == [f"rock/{name}/deleted.mp3"]


def test_one_that_is_passed_over_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "b.mp3").symlink_to("nowhere")
    walk = Walk([tmp_path, tmp_path / "a.mp3"])
    assert len(list(walk)) == 1
    assert walk.summary() == (
        "1 link that leads nowhere, or device, 1 folder that is named or linked twice, 1 song that is named twice"
    )


def test_folders_that_lie_in_each_other_are_walked_once(music: Path) -> None:
    assert len(list(Walk([music, music / "a", music]))) == 6
    assert names(Walk([music / "a", music]), music)[0] == "a/1.FLAC"


def test_what_is_named_is_a_song_whatever_its_name(music: Path) -> None:
    assert names(Walk([music / "notes", music / "not there"]), music) == ["notes", "not there"]


def test_without_the_folders_below(music: Path) -> None:
    """They are counted, and not what is in them."""
    walk = Walk([music], recursive=False)
    assert names(walk, music) == ["again.mp3", "b.mp3"]
    assert "5 folders below" in walk.summary()
    walk = Walk([music / "a"], recursive=False)
    assert names(walk, music) == ["a/1.FLAC"]
    assert walk.summary().endswith(", 1 hidden, 1 folder below")


def test_other_suffixes(music: Path) -> None:
    assert names(Walk([music], suffixes={".jpg"}), music) == ["a/cover.jpg"]


def test_sounds_that_are_not_looked_for_are_sounds_all_the_same(music: Path) -> None:
    walk = Walk([music, music / "album.mp3"], suffixes={".flac", ".txt"})
    assert names(walk, music) == ["a/1.FLAC"]
    others = "2 with names that are not those of sounds (.jpg 1, without suffix 1)"
    left_out = "7 that --extensions leaves out (.mp3 5, .m4b 1, .mka 1)"
    assert walk.summary().startswith(f"{others}, {left_out}, 2 hidden, ")
    album = Walk([music / "album.mp3"], suffixes={".flac"})
    assert list(album) == []
    assert album.faults() == [f"{music / 'album.mp3'}: there are no files with these extensions in this folder."]


def test_a_folder_without_songs_and_one_behind_a_closed_door(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(folder: Path) -> object:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    (music / "empty").mkdir()
    walk = Walk([music / "empty", music / "a"])
    assert list(walk) == []
    assert walk.empty == [music / "empty", music / "a"]
    assert walk.problems == [f"{music / 'a'}: the folder cannot be read (Permission denied)."]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.mp3")
    Path(odd).write_bytes(b"")
    assert list(Walk([tmp_path])) == [Path(odd)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x/a.MP3", True), ("a.m4b", True), ("...a.mp3", True), (".a.mp3", False), ("._a.mp3", False), ("mp3", False)],
)
def test_a_name(name: str, expected: bool) -> None:
    assert is_song(name) == expected


def test_a_folder_that_is_named_beside_its_own_is_not_empty(music: Path) -> None:
    once = len(list(Walk([music])))
    for paths in ([music, music / "a"], [music / "a", music], [music, music]):
        walk = Walk(paths)
        assert len(list(walk)) == once
        assert walk.empty == []


def test_a_song_that_is_named_beside_its_folder_comes_once(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(music)
    for paths in ([music, music / "b.mp3"], [Path("b.mp3"), music, Path("./b.mp3"), music / "a" / ".." / "b.mp3"]):
        walk = Walk(paths)
        assert [path.name for path in walk].count("b.mp3") == 1
        assert walk.passed_over["songs that are named twice"] == len(paths) - 1
    walk = Walk([music / "a" / "1.FLAC", music / "a" / "linked" / "deep" / "3.mka", music / "a"])
    assert [path.name for path in walk] == ["1.FLAC", "3.mka"]
    assert walk.empty == []


def test_what_lies_beyond_a_link_is_another_song(music: Path) -> None:
    (music.parent / "disk" / "b.mp3").write_bytes(b"")
    (music / "y").symlink_to("../disk/deep")
    paths = [music / "b.mp3", music / "y" / ".." / "b.mp3", music / "again.mp3"]
    assert list(Walk([*paths, music.parent / "disk" / "b.mp3"])) == paths


def test_a_path_that_is_named_is_looked_at_when_its_turn_comes(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr("crnn.walk.is_folder", looked.append)
    paths = [music / "b.mp3", music / "notes"]
    songs = iter(Walk(paths))
    next(songs)
    assert looked[:1] == looked
    assert [*songs] == paths[1:]
    assert sorted(set(looked)) == sorted(looked)
