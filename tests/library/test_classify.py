"""The command for whole libraries, as people use it: folders, tables, going on, lists, passages."""

import argparse
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crnn.__main__ import main
from crnn.audio import SAMPLE_RATE, AudioError, Passages, not_now
from crnn.checkpoint import save
from crnn.inference import GenreClassifier, Prediction, Recording
from crnn.library import choosing, classify, cluster, job
from crnn.library.rows import local, read_rows
from crnn.network.config import NOTHING_STRANGE
from crnn.network.model import CRNN
from crnn.sources import Origin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def music(tmp_path: Path, tone: Callable[..., np.ndarray], write_wav: Callable[[Path, np.ndarray], Path]) -> Path:
    """Three songs, a damaged one, and a picture."""
    folder = tmp_path / "music"
    (folder / "album").mkdir(parents=True)
    write_wav(folder / "a.wav", tone(2.5, 110))
    write_wav(folder / "album" / "b.wav", tone(3.5, 2_000))
    write_wav(folder / "c.wav", tone(8.0, 500))
    (folder / "bad.mp3").write_bytes(b"no sound at all")
    (folder / "cover.jpg").write_bytes(b"")
    return folder


def table(path: Path) -> dict[str, dict]:
    """The rows of a csv by the name of the song."""
    with path.open(encoding="utf-8", newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def test_a_folder_becomes_a_table(model: Path, music: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "genres.csv"
    assert main([str(music), "--out", str(out), "--precision", "float32"]) == 1
    rows = table(out)
    assert rows.keys() == {"a.wav", "b.wav", "c.wav", "bad.mp3"}
    for name in ("a.wav", "album/b.wav", "c.wav"):
        prediction = GenreClassifier.from_pretrained(model).predict(music / name)
        row = rows[Path(name).name]
        assert (row["genre"], row["error"], row["heard"]) == (prediction.verdict, "", "all of it")
        for genre, probability in prediction.probabilities.items():
            assert float(row[f"probability_of_{genre}"]) == pytest.approx(probability, abs=1e-4)
        assert float(row["duration_seconds"]) == pytest.approx(prediction.duration_seconds)
    assert rows["bad.mp3"]["error"].startswith("bad.mp3 is a document")
    printed, said = capfd.readouterr()
    assert printed == ""
    assert "passed over: 1 with names that are not those of sounds (.jpg 1)." in said
    assert "3 songs heard" in said
    assert "1 failed" in said


def test_the_same_command_goes_on(
    model: Path, music: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [str(music), "--out", str(tmp_path / "genres.jsonl")]
    assert main(command) == 1
    (music / "a.wav").write_bytes((music / "c.wav").read_bytes())
    os.utime(music / "album" / "b.wav", (1, 1))
    capfd.readouterr()
    heard, listen = [], GenreClassifier.listen
    monkeypatch.setattr(
        GenreClassifier, "listen", lambda self, source, *more: heard.append(source.name) or listen(self, source, *more)
    )
    assert main(command) == 1
    assert sorted(heard) == ["a.wav", "b.wav", "bad.mp3"]
    assert "2 songs heard" in capfd.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "genres.jsonl").read_text("utf-8").splitlines()]
    assert sorted(Path(line["path"]).name for line in lines) == ["a.wav", "b.wav", "bad.mp3", "c.wav"]
    assert next(line for line in lines if line["path"].endswith("a.wav"))["duration_seconds"] == 8.0
    (music / "bad.mp3").unlink()
    heard.clear()
    assert main(command) == 0
    assert heard == []


def test_other_weights_under_the_same_name_hear_all_again(
    model: Path, music: Path, tmp_path: Path, tiny_model: CRNN
) -> None:
    """As after an upgrade: a table is by one model in the end, and says by which."""
    command = [str(music / "c.wav"), str(music / "a.wav"), "--out", str(tmp_path / "genres.csv"), "--model", str(model)]
    names = []
    for weight in (0.0, 0.5):
        with torch.no_grad():
            tiny_model.members[0].classifier.linear.bias[0] = weight
        save(tiny_model, model, card="")
        assert main(command) == 0
        (name,) = {row["model"] for row in table(tmp_path / "genres.csv").values()}
        names.append(name)
    assert names[0] != names[1]
    assert all(name.startswith(f"{model} (folder) ") for name in names)


def test_another_border_is_another_answer(model: Path, music: Path, tmp_path: Path) -> None:
    out = tmp_path / "genres.jsonl"
    for border in ("0", "1"):
        main([str(music / "c.wav"), "--out", str(out), "--threshold", border])
        row = json.loads(out.read_text("utf-8"))
        assert (row["genre"] == "unsure") == (border == "1")


def test_a_border_of_ones_own_leaves_strange_songs_strange(
    model: Path, music: Path, tmp_path: Path, tiny_model: CRNN
) -> None:
    tiny_model.config = replace(tiny_model.config, strange_below=-NOTHING_STRANGE)  # an energy that no song has
    save(tiny_model, model, card="")
    out = tmp_path / "genres.jsonl"
    for border in ("0", "1"):
        assert main([str(music / "c.wav"), "--out", str(out), "--threshold", border]) == 0
        row = json.loads(out.read_text("utf-8"))
        assert (row["genre"], row["is_strange"]) == ("unsure", True)
        assert row["heard"] == f"all of it, unsure below {border}"


def test_answers_are_printed_or_written(model: Path, music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(music / "c.wav"), "--json", "--out", "genres.csv"]) == 2
    assert "leave out one of both" in capfd.readouterr().err
    assert main([str(music / "c.wav"), "--top", "1"]) == 0
    assert capfd.readouterr().out.count("%") == 1


def test_only_some_of_it(model: Path, music: Path, tmp_path: Path) -> None:
    """The options of the table and of the walk."""
    out = tmp_path / "genres.csv"
    options = ["--top", "2", "--threshold", "0.99", "--no-recursive", "--extensions", "wav,.MP3", "--timeline"]
    assert main([str(music), "--out", str(out), *options, "--embeddings", "--quiet", "--jobs", "1"]) == 1
    rows = table(out)
    assert rows.keys() == {"a.wav", "c.wav", "bad.mp3"}
    prediction = GenreClassifier.from_pretrained(model, precision="fastest").predict(music / "a.wav")
    assert rows["a.wav"]["genre"] == "unsure"
    assert [rows["a.wav"][f"genre_{rank}"] for rank in (1, 2)] == list(prediction.probabilities)[:2]
    assert len(json.loads(rows["a.wav"]["timeline"])) == len(prediction.timeline)
    np.testing.assert_allclose(json.loads(rows["a.wav"]["embedding"]), prediction.embedding, atol=2e-2)
    assert rows["bad.mp3"]["embedding"] == ""


def test_a_list_of_paths(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = music / "new\nline.wav"
    odd.write_bytes((music / "a.wav").read_bytes())

    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    given(os.fsencode(music / "c.wav") + b"\r\n\n" + os.fsencode(music / "album"))
    assert main(["--json", "-"]) == 0
    paths = [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()]
    assert paths == [str(music / "c.wav"), str(music / "album" / "b.wav")]
    given(os.fsencode(odd) + b"\0" + os.fsencode(music / "c.wav") + b"\0")
    assert main(["--json", "-0", "-"]) == 0
    paths = [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()]
    assert paths == [str(odd), str(music / "c.wav")]
    given(b"")
    assert main(["-"]) == 1  # nothing was heard
    assert capfd.readouterr().err == "genre-crnn: There is no path in the list on standard input.\n"
    given(b"\xef\xbb\xbf" + os.fsencode(music / "c.wav"))  # as some editors begin a text
    assert main(["-"]) == 0
    capfd.readouterr()
    (music / "album").rename(music / "A")
    (music / "a.wav").rename(music / "B")
    monkeypatch.chdir(music)
    given(b"A\0B\0")  # no letters of one name
    assert main(["--json", "-0", "-"]) == 0
    assert [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()] == ["A/b.wav", "B"]


UTF_16 = "The list on standard input is in UTF-16: save it as UTF-8."


@pytest.mark.parametrize("command", [[], ["tag", "--overwrite"], ["--ray", "--out", "genres"]])
@pytest.mark.parametrize(
    ("options", "given", "said"),
    [
        (["-"], b"a.wav\0c.wav\0", "add -0"),
        (["-"], "a.wav\r\n".encode("utf-16"), UTF_16),  # as PowerShell writes what is sent to a file
        (["-0", "-"], "a.wav\r\n".encode("utf-16"), UTF_16),
        (["-0", "-"], "a.wav\n".encode("utf-16-le"), UTF_16),
        (["-0", "-"], "a.wav\n".encode("utf-16-be"), UTF_16),
        (["-0", "-"], "音/a.wav\n".encode("utf-16-le"), UTF_16),
        (["-", "-0"], "./a".encode("utf-16-le"), UTF_16),
        (["-0", "a.wav"], b"c.wav\0", "name that with -, too"),
        (["-"], None, "cannot be read (Is a directory)"),
    ],
)
def test_a_list_that_is_not_as_it_is_said_to_be_is_refused(
    command: list[str],
    options: list[str],
    given: bytes | None,
    said: str,
    model: Path,
    music: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not a long name, nor each letter one, of which "." and "/" would be folders."""

    def refuse() -> bytes:
        raise IsADirectoryError(21, "Is a directory")

    monkeypatch.chdir(music)
    stream = SimpleNamespace(read=refuse) if given is None else io.BytesIO(given)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    monkeypatch.setattr(cluster, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    assert main([*command, *options]) == 2
    assert said in capfd.readouterr().err


def test_an_address_of_a_file_is_its_path(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = (music / "a.wav").rename(music / "50 % Größe#?.wav")
    address = odd.as_uri()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(f"{address}\r\n".encode())))
    for given in (address, address.replace("file://", "FILE://localhost"), address.replace("file://", "file:"), "-"):
        assert main(["--json", given]) == 0
        assert json.loads(capfd.readouterr().out)["path"] == str(odd)
    for given in (address.replace("file://", "file://nas"), f"{address}%00", f"http://nas{odd}"):
        assert main([given]) == 1
        assert "an address is no file on this computer" in capfd.readouterr().err


def test_an_address_of_a_file_on_windows_is_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    nturl2path = pytest.importorskip("nturl2path")
    with monkeypatch.context() as patch:
        patch.setattr("urllib.request.url2pathname", nturl2path.url2pathname)
        patch.setattr(os, "name", "nt")
        paths = [*map(local, ("file:///C:/Music/a%20b.mp3", "file:/C:/a.mp3", "file:///a:b:c.mp3", "C:/a.mp3"))]
    assert paths == [r"C:\Music\a b.mp3", r"C:\a.mp3", "file:///a:b:c.mp3", "C:/a.mp3"]


@pytest.mark.parametrize("paths", [["", "a.wav"], [".", "a"], ["A", "B", "C"]])
def test_a_list_of_short_names_is_no_utf_16(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given = "".join(f"{path}\0" for path in paths).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
    assert choosing.listed(by_null=True) == [path for path in paths if path]


@pytest.mark.parametrize("address", ["", "MUSIC/", "song.mp3", "s3://bucket/music", "a/b:1"])
def test_a_song_behind_ray_is_no_cluster(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["OTHER/", "--out", "genres", "--ray", address])
    assert caught.value.code == 2
    assert f"this takes a cluster as HOST:PORT, not {address!r}; put songs before --ray" in capfd.readouterr().err


@pytest.mark.parametrize("address", ["auto", "head:1", "[::1]:6379", "ray://head:1/", "ray://head", "anyscale://us/a"])
def test_a_cluster_is_named_as_ray_takes_it(address: str) -> None:
    assert parsed("--ray", address).ray == address
    assert parsed("--ray").ray == cluster.HERE


def test_passages(
    model: Path,
    tmp_path: Path,
    tone: Callable[..., np.ndarray],
    write_wav: Callable[[Path, np.ndarray], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a long song passages, unless they leave its genre open; a short one as a whole."""
    (tmp_path / "music").mkdir()
    write_wav(tmp_path / "music" / "long.wav", tone(40))
    write_wav(tmp_path / "music" / "short.wav", tone(8))

    def heard(*options: str) -> dict[str, dict]:
        out = tmp_path / f"{'-'.join(options)}.jsonl"
        common = ["--timeline", "--precision", "float32", "--out", str(out)]
        assert main([str(tmp_path / "music"), *common, *options]) == 0
        return {Path(row["path"]).name: row for row in map(json.loads, out.read_text().splitlines())}

    rows = heard("--quick", "--threshold", "1")
    spans = [(window["start_seconds"], window["end_seconds"]) for window in rows["long.wav"]["timeline"]]
    assert [start for start, _ in spans] == pytest.approx([5 - 2, 15 - 2, 25 - 2, 35 - 2], abs=0.05)
    assert all(end - start == pytest.approx(4, abs=0.1) for start, end in spans)
    assert rows["long.wav"]["duration_seconds"] == pytest.approx(40)
    policy = "4 passages of 4 s, or all of it in doubt, unsure below 1"
    assert rows["long.wav"]["heard"] == rows["short.wav"]["heard"] == policy
    border = str(next(iter(rows["long.wav"]["probabilities"].values())))
    doubtful, whole = heard("--quick", "--threshold", border)["long.wav"], heard("--threshold", border)["long.wav"]
    assert doubtful["timeline"] == whole["timeline"] != rows["long.wav"]["timeline"]
    assert heard("--seconds", "16", "--threshold", border)["long.wav"]["timeline"] != whole["timeline"]
    whole = GenreClassifier.from_pretrained(model).predict(tmp_path / "music" / "short.wav")
    assert rows["short.wav"]["probabilities"] == pytest.approx(whole.probabilities, abs=1e-4)
    assert classify.hearing_of(parsed("--seconds", "25")).passages == (2, 12.5)
    assert classify.hearing_of(parsed("--seconds", "0.5")).passages == (1, 1.0)


def parsed(*options: str) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    classify.add_arguments(parser)
    return parser.parse_args(["song", *options])


@pytest.mark.parametrize(
    "command",
    [
        ["song.wav"],
        ["song.wav", "--model"],
        ["song.wav", "--device"],
        ["song.wav", "--out"],
        ["tag", "--overwrite", "song.wav"],
        ["tag", "song.wav", "--from"],
        ["tag", "song.wav", "--undo"],
        ["untag"],
        ["similar", "--in", "genres.jsonl"],
        ["similar", "song.wav", "--in"],
        ["similar", "song.wav", "--in", "genres.jsonl", "--m3u"],
    ],
)
def test_an_empty_name_is_not_the_folder_where_one_is(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, ""])
    assert caught.value.code == 2
    assert "this cannot be empty" in capfd.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--top", "0"],
        ["--threshold", "1.5"],
        ["--threshold", "0,95"],
        ["--jobs", "1e1"],
        ["--seconds", "-3"],
        ["--seconds", "inf"],
        ["--quick", "--seconds", "3"],
        ["--extensions", ""],  # as of a variable that is not set
        ["--extensions", " ,"],
    ],
)
def test_options_that_mean_nothing(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["song.wav", *options])
    assert caught.value.code == 2
    assert "error: argument" in (error := capfd.readouterr().err)
    assert "invalid" not in error


def test_windows_are_lines_where_answers_are(model: Path, music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(music / "a.wav"), "--timeline"]) == 0
    answer, *windows = capfd.readouterr().out.splitlines()
    prediction = GenreClassifier.from_pretrained().predict(music / "a.wav")
    assert answer.endswith(prediction.summary())
    assert len(windows) == len(prediction.timeline) > 1
    assert windows[0].startswith("    0:00–0:")
    assert windows[-1].endswith(f"{prediction.timeline[-1].max():.0%}")


def test_embeddings_are_for_programs(model: Path, music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(music / "a.wav"), "--embeddings"]) == 2
    assert "--json prints them, --out writes them" in capfd.readouterr().err
    assert main([str(music / "a.wav"), "--embeddings", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["embedding"]


def test_a_table_that_cannot_be_had_is_status_2(
    model: Path, music: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(music), "--out", str(tmp_path / "genres.xlsx")]) == 2
    assert capfd.readouterr().err.endswith("which says what is written.\n")
    assert main([str(music), "--device", "abacus"]) == 2
    assert capfd.readouterr().err == "genre-crnn: There is no device abacus here on which PyTorch computes: try cpu.\n"
    assert main([str(music), "--out", str(music / "a.wav" / "genres.csv")]) == 2
    assert "cannot be read or written" in capfd.readouterr().err


def test_watching_hears_what_comes_and_what_changes(
    model: Path,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Three looks; a file that is still being written waits for the next one, a bad one is told once."""
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(sorted(table(out)))
        if len(looks) == 1:
            (music / "new.wav").write_bytes((music / "a.wav").read_bytes())
        elif len(looks) == 2:
            os.utime(music / "new.wav", (time.time() - 60, time.time() - 60))
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(classify, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    out = tmp_path / "genres.csv"
    assert main([str(music), "--out", str(out), "--watch"]) == 130
    before = ["a.wav", "b.wav", "bad.mp3", "c.wav"]
    assert looks == [before, before, [*before, "new.wav"]]
    said = capfd.readouterr().err
    assert said.count("bad.mp3 is a document") == 1
    assert "4 songs heard" in said
    assert "1 failed: " in said


@pytest.mark.parametrize("options", [[], ["--out", "genres.jsonl"]])
def test_watching_hears_again_what_has_failed_for_a_reason_that_passes(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """Rights that come change neither size nor time; what is damaged is heard once."""
    monkeypatch.chdir(music)
    predict, clock, heard, looks = GenreClassifier.predict, [0.0], [], []
    for song in music.rglob("*.*"):
        os.utime(song, (1, 1))
    Path("a.wav").chmod(0o200)

    def predicted(self: GenreClassifier, source: Path, *more: object, **options: object) -> Prediction:
        heard.append(source.name)
        if source.name == "a.wav" and not source.stat().st_mode & 0o400:
            raise AudioError("{name} cannot be opened.", name=source.name)
        if source.name == "c.wav" and len(looks) < 4:
            raise not_now(source.name, "Too many open files")
        return predict(self, source, *more, **options)

    def sleep(_: float) -> None:
        looks.append(sorted(heard))
        heard.clear()
        if len(looks) == 2:
            Path("a.wav").chmod(0o600)
        elif len(looks) in (3, 4, 5):
            clock[0] += classify.AGAIN_SECONDS
        elif len(looks) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(GenreClassifier, "predict", predicted)
    monkeypatch.setattr(classify, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=lambda: clock[0]))
    assert main([str(music), "--watch", *options]) == 130
    assert looks == [["a.wav", "b.wav", "bad.mp3", "c.wav"], [], ["a.wav"], ["c.wav"], ["c.wav"], []]
    said = capfd.readouterr()
    assert said.err.count("c.wav cannot be decoded just now") == 2
    assert ("3 songs heard" in said.err and "1 failed: " in said.err) == bool(options)
    rows = Path("genres.jsonl").read_text().splitlines() if options else said.out.splitlines()
    assert sum('"genre": null' not in row for row in rows) == 3


def test_a_killed_command_goes_on_where_it_was(model: Path, music: Path, tmp_path: Path) -> None:
    """The real command, killed after its first rows."""
    for number in range(30):
        (music / f"song {number}.wav").write_bytes((music / "c.wav").read_bytes())
    out = tmp_path / "genres.csv"
    command = [sys.executable, "-m", "crnn", str(music), "--out", str(out), "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and not (out.exists() and out.read_bytes().count(b"\n") > 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = table(out)
    assert 3 <= len(before) < 34
    assert main([str(music), "--out", str(out), "--quiet"]) == 1
    after = table(out)
    assert len(after) == 34
    assert {name: after[name] for name in before if name != "bad.mp3"} == {
        name: row for name, row in before.items() if name != "bad.mp3"
    }


def test_a_disk_that_is_away_costs_no_answers(
    model: Path, music: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    songs = [str(music / name) for name in ("a.wav", "c.wav")]
    command = [*songs, "--out", str(tmp_path / "genres.csv")]
    assert main(command) == 0
    before = table(tmp_path / "genres.csv")
    music.rename(tmp_path / "away")
    assert main([*command, "never.wav"]) == 1
    after = table(tmp_path / "genres.csv")
    assert {name: after[name] for name in before} == before
    said = capfd.readouterr().err
    assert "a.wav was not found" in said
    assert "never.wav was not found" in said
    assert "0 songs heard, 3 failed" in said
    assert "never.wav" not in after  # a name that was mistyped would stay for ever
    (tmp_path / "away").rename(music)
    assert main(command) == 0
    assert "0 songs heard, 0 failed, 2 were there before" in capfd.readouterr().err


def test_a_disk_that_goes_while_songs_are_heard_costs_no_answers(
    model: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Though they were looked up before; when it is back they are heard."""
    songs, out = [music / name for name in ("a.wav", "c.wav")], tmp_path / "genres.csv"
    for song in songs:
        os.utime(song, (1, 1))
    command = [*map(str, songs), "--out", str(out), "--jobs", "1"]
    assert main(command) == 0
    before, tables, listen = table(out), [], GenreClassifier.listen

    def go(self: GenreClassifier, source: Path, *more: object) -> Recording:
        if not tables:
            music.rename(tmp_path / "away")
            tables.append(before)
        return listen(self, source, *more)

    def sleep(_: float) -> None:
        tables.append(table(out))
        if len(tables) == 2:
            (tmp_path / "away").rename(music)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(GenreClassifier, "listen", go)
    monkeypatch.setattr(classify, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    assert main([*command, "--threshold", "1", "--watch"]) == 130
    assert tables[1] == before
    assert {row["genre"] for row in tables[2].values()} == {"unsure"}
    assert "a.wav was not found: check its path." in capfd.readouterr().err


def test_an_error_of_the_system_is_not_blamed_on_the_table(
    model: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    command, told = [str(music / "a.wav"), "--out", str(tmp_path / "genres.csv")], "Resource temporarily unavailable"
    for place, said in (
        ("classify.work", f"This cannot go on: {told}."),
        ("table.Table.write", "genres.csv cannot be"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"crnn.library.{place}", refuse)
            assert main(command) == 2
        assert said in capfd.readouterr().err


def test_an_answer_that_a_fault_has_replaced_is_no_answer(model: Path, music: Path, tmp_path: Path) -> None:
    song, out = music / "a.wav", tmp_path / "genres.csv"
    content, times = song.read_bytes(), (song.stat().st_atime_ns, song.stat().st_mtime_ns)
    for damaged in (False, True, False):
        song.write_bytes(b"no sound" if damaged else content)
        os.utime(song, ns=times)
        assert main([str(song), "--out", str(out)]) == int(damaged)
        assert bool(table(out)["a.wav"]["error"]) == damaged


def test_a_folder_that_is_away_while_it_is_watched_is_no_song(
    model: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    looks = []

    def sleep(_: float) -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            music.rename(tmp_path / "away")
        elif len(looks) == 2:
            (tmp_path / "away").rename(music)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(classify, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    assert main([str(music), "--out", str(tmp_path / "genres.csv"), "--watch"]) == 130
    assert table(tmp_path / "genres.csv").keys() == {"a.wav", "b.wav", "c.wav", "bad.mp3"}
    assert "not found" not in capfd.readouterr().err


def test_songs_of_one_name_in_two_folders_have_a_row_each(
    model: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (music / "a.wav").rename(music / "b.wav")
    for folder in (music, music / "album"):
        monkeypatch.chdir(folder)
        assert main(["b.wav", "--out", str(tmp_path / "genres.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "genres.jsonl").read_text("utf-8").splitlines()]
    assert [row["path"] for row in rows] == [str(music / "b.wav"), str(music / "album" / "b.wav")]


def test_a_song_that_is_named_twice_is_heard_once(
    model: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (music / "bad.mp3").unlink()
    monkeypatch.chdir(music)
    assert main(["a.wav", "./a.wav", str(music)]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    for said in ("3 songs heard", "0 songs heard, 0 failed, 3 were there before"):
        assert main(["a.wav", "a.wav", str(music), "--out", str(tmp_path / "genres.csv")]) == 0
        assert said in capfd.readouterr().err


def test_a_name_may_begin_with_a_dash(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (music / "a.wav").rename(music / "-a.wav")
    monkeypatch.chdir(music)
    assert main(["--quiet", "--", "-a.wav", "c.wav"]) == 0
    assert [line.partition(":")[0] for line in capfd.readouterr().out.splitlines()] == ["-a.wav", "c.wav"]


@pytest.mark.parametrize("year", [1600, 2300])
def test_a_song_of_another_century(year: int, model: Path, music: Path, tmp_path: Path) -> None:
    seconds = (year - 1970) * 365 * 86_400
    os.utime(music / "a.wav", (seconds, seconds))
    out = tmp_path / "genres.parquet"
    for _ in range(2):
        assert main([str(music / "a.wav"), "--out", str(out)]) == 0
    assert len(list(read_rows(out, ("path",), needed=("path",)))) == 1


@pytest.mark.processes
def test_a_list_on_a_closed_standard_input_is_empty() -> None:
    command = f'exec "{sys.executable}" -m crnn - <&-'
    done = subprocess.run(command, shell=True, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_options_may_stand_between_songs(model: Path, music: Path, tmp_path: Path) -> None:
    assert main([str(music / "a.wav"), "--out", str(tmp_path / "genres.csv"), str(music / "c.wav")]) == 0
    assert table(tmp_path / "genres.csv").keys() == {"a.wav", "c.wav"}


@pytest.mark.processes
def test_who_has_closed_standard_output_gets_the_table(model: Path, music: Path, tmp_path: Path) -> None:
    (music / "bad.mp3").unlink()
    command = f'exec "{sys.executable}" -m crnn "{music}" --quiet --out "{tmp_path / "genres.csv"}" >&- 2>&-'
    assert subprocess.run(command, shell=True, cwd=ROOT, check=False).returncode == 0
    assert len(table(tmp_path / "genres.csv")) == 3


@pytest.mark.parametrize("jump_seconds", [-86_400, 86_400])
def test_a_clock_that_jumps_keeps_no_song_from_being_heard(
    jump_seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.wav").write_bytes(b"")
    file = job.File.of(tmp_path / "new.wav")
    assert not classify.is_settled(file)
    later = time.time() + 10 + jump_seconds
    monkeypatch.setattr(classify, "time", SimpleNamespace(time=lambda: later))
    assert classify.is_settled(file)


def test_ends_of_names_may_be_patterns() -> None:
    assert parsed("--extensions", "*.mp3, .FLAC,ogg").extensions == {".mp3", ".flac", ".ogg"}


def test_rows_of_nothing_that_a_spreadsheet_leaves_are_no_songs(model: Path, music: Path, tmp_path: Path) -> None:
    out = tmp_path / "genres.csv"
    assert main([str(music / "a.wav"), "--out", str(out)]) == 0
    before = out.read_bytes()
    n_columns = before.splitlines()[0].count(b",") + 1
    with out.open("ab") as file:
        file.write(2 * (b"," * (n_columns - 1) + b"\r\n"))
    assert [Path(row["path"]).name for row in read_rows(out, ["path"], ["path"])] == ["a.wav"]
    assert main([str(music / "a.wav"), "--out", str(out)]) == 0
    assert out.read_bytes() == before


@pytest.mark.processes
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_an_import_would_swallow_ends_the_command(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    lines = ("import os", "try:", f"    os.kill(os.getpid(), {number:d})", "except BaseException:", "    pass")
    (tmp_path / "swallowing.py").write_text("\n".join(lines))
    program = (
        "import crnn.library.classify as c, crnn.__main__ as m; c.NEEDS = ('swallowing',); print(m.main(['no.wav']))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def interrupt(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("stop", "status"),
    [(interrupt, 130), (subprocess.Popen.terminate, 143), (lambda process: process.stdout.close(), 141)],
    ids=["interrupt", "terminate", "closed pipe"],
)
def test_a_command_that_is_stopped_while_it_hears_says_nothing_and_leaves_whole_rows(
    stop: Callable[[subprocess.Popen], None], status: int, model: Path, music: Path
) -> None:
    """The real command, with several songs in native code at that moment."""
    (music / "bad.mp3").unlink()
    for number in range(400):  # a busy machine may stop the test, and not the command, for seconds
        (music / f"song {number}.wav").write_bytes((music / "c.wav").read_bytes())
    command = [sys.executable, "-m", "crnn", "--json", "--jobs", "4", "--quiet", str(music)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        rows = [process.stdout.readline() for _ in range(3)]
        stop(process)
        if not process.stdout.closed:
            rows += process.stdout.readlines()
        said = process.stderr.read()
    assert (process.returncode, said) == (status, b"")
    assert 3 <= len(rows) < 403
    assert all("genre" in json.loads(row) for row in rows)


@pytest.mark.processes
@pytest.mark.parametrize("is_heeded", [True, False])
def test_a_terminal_that_is_closed_costs_no_answer(is_heeded: bool, model: Path, music: Path, tmp_path: Path) -> None:
    """Nor does it end what nohup keeps from it."""
    pytest.importorskip("pyarrow.parquet")
    n_more = 400 if is_heeded else 10
    for number in range(n_more):
        os.link(music / "a.wav", music / f"song {number}.wav")
    out = tmp_path / "genres.parquet"
    terminal, side = os.openpty()

    heedless = "" if is_heeded else "trap '' HUP;"
    shell = ["sh", "-c", f'{heedless} exec <>{os.ttyname(side)} >&0 2>&0; stty rows 24 cols 80; exec "$@"', "sh"]
    command = [*shell, sys.executable, "-m", "crnn", "--jobs", "1", str(music), "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        said = b""
        while not re.search(rb"[\r ]([3-9]|\d\d+)(/\d+)? (songs )?\[", said):
            said += os.read(terminal, 1_000)
        os.close(side)
        os.close(terminal)
    rows = list(read_rows(out, ("path",), needed=("path",)))
    assert process.returncode == (129 if is_heeded else 1)  # as bad.mp3 is no sound
    assert 3 <= len(rows) < n_more if is_heeded else len(rows) == n_more + 4
    assert not out.with_name("genres.parquet.parts").exists()


def test_side_by_side_keeps_the_order_and_the_bound() -> None:
    begun, given = [], []

    def items() -> object:
        for number in range(50):
            begun.append(number)
            assert len(begun) - len(given) <= 6 * 3 + 1
            yield number

    def work(number: int) -> int:
        time.sleep(0.003 * (number % 4))
        return number * number

    for finished in job.side_by_side(items(), work, 3, in_order=True):
        given += finished
    assert given == [(number, number * number) for number in range(50)]
    assert sorted(pair for part in job.side_by_side(range(20), work, 3) for pair in part) == given[:20]
    before = threading.active_count()
    counted = job.side_by_side([0, 1], lambda _: threading.active_count(), 60)
    assert max(count for part in counted for _, count in part) <= before + 2


def test_what_waits_is_not_begun_where_it_is_broken_off() -> None:
    begun, go_on, before = [], threading.Event(), {*threading.enumerate()}

    def work(number: int) -> None:
        begun.append(number)
        if number:
            go_on.wait()

    answers = job.side_by_side(range(9), work, 2)
    next(answers)
    answers.close()
    go_on.set()
    for thread in {*threading.enumerate()} - before:
        thread.join()
    assert len(begun) <= 3


@pytest.mark.parametrize("n_threads", [0, 1])
def test_it_goes_on_with_the_threads_that_could_be_started(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def start_some(thread: threading.Thread) -> None:
        if len(started) == n_threads:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    answers = job.side_by_side(range(20), str, 4, in_order=True)
    if n_threads:
        assert [answer for part in answers for answer in part] == [(number, str(number)) for number in range(20)]
    else:
        with pytest.raises(RuntimeError, match="can't start"):
            list(answers)


def test_what_no_one_has_thought_of_costs_one_song(
    model: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    listen = GenreClassifier.listen

    def broken(self: GenreClassifier, source: Path, *how: object) -> object:
        if source.name == "a.wav":
            raise ZeroDivisionError("by zero")
        return listen(self, source, *how)

    monkeypatch.setattr(GenreClassifier, "listen", broken)
    assert main([str(music / "a.wav"), str(music / "c.wav")]) == 1
    out, err = capfd.readouterr()
    assert out.startswith(f"{music / 'c.wav'}: ")
    assert err == f"genre-crnn: {music / 'a.wav'}: a.wav cannot be heard: ZeroDivisionError('by zero')\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError((2, 65_536)), RuntimeError("could not create a primitive"), RuntimeError("std::bad_alloc")],
    ids=["numpy", "onednn", "c++"],
)
def test_too_little_memory_for_a_song_is_a_sentence(error: Exception) -> None:
    def listen(*_: object, **__: object) -> None:
        raise error

    cpu = SimpleNamespace(predict=listen, device=torch.device("cpu"))
    (_, answer), *_ = job.hear([job.File(Path("a.wav"))], cpu, job.Hearing(), 1)
    assert str(answer) == "a.wav cannot be heard just now (there is not enough memory): try again later."


def test_a_song_for_which_a_gpu_has_no_room_costs_itself_alone() -> None:
    def answer(recordings: list[str]) -> list[AudioError]:
        if "long.wav" in recordings:
            raise RuntimeError("CUDA out of memory")
        return [AudioError(f"heard {name}") for name in recordings]

    gpu = SimpleNamespace(listen=lambda path, _: path.name, answer=answer, device=SimpleNamespace(type="cuda"))
    files = [job.File(Path(name)) for name in ("a.wav", "long.wav", "b.wav")]
    said = {file.path.name: str(answer) for file, answer in job.hear(files, gpu, job.Hearing(), 1)}
    assert said == {
        "a.wav": "heard a.wav",
        "long.wav": "long.wav cannot be heard just now (there is not enough memory): try again later.",
        "b.wav": "heard b.wav",
    }


@pytest.mark.parametrize("in_order", [True, False])
def test_a_gpu_hears_all_of_the_songs_in_doubt(tiny_model: CRNN, music: Path, in_order: bool) -> None:
    """And not of others."""
    classifier = GenreClassifier(tiny_model, Origin("tiny"))
    heard: list[tuple[str, bool]] = []

    def listen(path: Path, passages: Passages | None) -> Recording:
        heard.append((path.name, passages is None))
        return classifier.listen(path, passages)

    gpu = SimpleNamespace(
        listen=listen,
        answer=classifier.answer,
        is_in_doubt=lambda answer: answer.duration_seconds > 7,
        device=SimpleNamespace(type="cuda"),
    )
    files = [job.File(music / name) for name in ("c.wav", "a.wav", "album/b.wav")]
    passages = Passages(2, 1.0)
    answers = dict(job.hear(files, gpu, job.Hearing(passages=passages, whole_in_doubt=True), 2, in_order))
    assert [*answers] == files if in_order else sorted(answers) == sorted(files)
    assert sorted(heard) == [("a.wav", False), ("b.wav", False), ("c.wav", False), ("c.wav", True)]
    for file, answer in answers.items():
        expected = classifier.predict(file.path, None if answer.duration_seconds > 7 else passages)
        np.testing.assert_allclose(answer.timeline, expected.timeline, atol=1e-5)


def test_several_songs_at_once_have_the_answers_of_each(tiny_model: CRNN, music: Path) -> None:
    """As a GPU hears them."""
    classifier = GenreClassifier(tiny_model, Origin("tiny"))
    recordings = [classifier.listen(music / name) for name in ("a.wav", "album/b.wav", "c.wav")]
    for together, path in zip(classifier.answer(recordings), ("a.wav", "album/b.wav", "c.wav"), strict=True):
        alone = classifier.predict(music / path)
        np.testing.assert_allclose(together.timeline, alone.timeline, atol=1e-5)
        np.testing.assert_allclose(together.embedding, alone.embedding, atol=1e-4)
        assert together.starts_seconds.tolist() == alone.starts_seconds.tolist()
    assert alone.duration_seconds == pytest.approx(8.0, abs=1 / SAMPLE_RATE)
