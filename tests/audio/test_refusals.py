"""What is no sound is called by its name, and nothing that it names is opened."""

import errno
import io
import os
import pickle
import socket
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from sounds import add_pictures, mono, picture, refusal, song

from crnn.audio import AudioError, faults, foreign, track


def test_no_file(tmp_path):
    assert refusal(tmp_path / "song.mp3") == "song.mp3 was not found: check its path."


def test_a_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path.name} is a directory or a device: give the path of one sound file."


def test_an_empty_file(tmp_path):
    (tmp_path / "song.mp3").touch()
    assert refusal(tmp_path / "song.mp3").startswith("song.mp3 is empty")
    assert refusal(b"").startswith("The audio is empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_special_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.wav", tmp_path / "link.wav", "/dev/zero", "/dev/stdin"):
        assert "is a directory or a device" in refusal(path)


def test_a_path_that_the_system_refuses():
    assert "cannot be opened (File name too long)" in refusal("x" * 5_000)


def test_a_machine_that_opens_no_more_files_is_no_fault_of_the_song(tmp_path, limited):
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with limited("RLIMIT_NOFILE", lowest_free):
        said = refusal(tmp_path / "song.wav")
    assert said == f"song.wav cannot be decoded just now ({os.strerror(errno.EMFILE)}): try again later."


@pytest.mark.parametrize("at", ["opened", "decoded"])
@pytest.mark.parametrize("error", [MemoryError(), av.error.MemoryError(errno.ENOMEM, os.strerror(errno.ENOMEM))])
def test_only_a_machine_short_of_memory_says_to_try_again(tmp_path, monkeypatch, at, error):
    """Elsewhere it is the file that claims to be huge."""

    def short(*_, **__):
        raise error

    path = tmp_path / "song.mp3"
    path.write_bytes(song("mp3"))
    if at == "opened":
        monkeypatch.setattr(av, "open", short)
    else:
        monkeypatch.setattr(track.Track, "_decode", short)
    assert "damaged or incomplete" in refusal(path)
    monkeypatch.setattr(faults, "ROOM_BYTES", 2**62)
    assert refusal(path) == f"song.mp3 cannot be decoded just now ({os.strerror(errno.ENOMEM)}): try again later."


@pytest.mark.parametrize(
    "file",
    [
        b"\0" * 100_000,
        np.random.default_rng(0).bytes(100_000),
    ],
    ids=["zeros", "noise"],
)
def test_no_sound_under_a_sound_files_name(tmp_path, file):
    (tmp_path / "song.mp3").write_bytes(file)
    for source in (tmp_path / "song.mp3", file):
        assert "wav, mp3, flac" in refusal(source)
    assert str(tmp_path) not in refusal(tmp_path / "song.mp3")


@pytest.mark.parametrize(("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p")])
def test_a_picture(tmp_path, codec, pixels):
    (tmp_path / "cover.jpg").write_bytes(picture(codec, pixels))
    kind = {"png": "PNG", "mjpeg": "JPEG"}[codec]
    assert refusal(tmp_path / "cover.jpg").startswith(f"cover.jpg is a picture ({kind}), which holds no sound")


@pytest.mark.parametrize(
    ("message", "kind", "file"),
    [
        (foreign.NOTES, "MIDI", b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\0\0\0\x04\0\xff\x2f\0"),
        (foreign.NOTES, "MIDI", b"RIFF\x40\0\0\0RMIDdata\x34\0\0\0MThd" + bytes(48)),
        (foreign.NOTES, "MOD", bytes(1_080) + b"M.K." + bytes(3_000)),
        (foreign.NOTES, "MusicXML", b'<?xml version="1.0"?>\n<!DOCTYPE score-partwise PUBLIC "x">\n<score-partwise/>'),
        (foreign.PROJECT, "FL Studio", b"FLhd\6\0\0\0" + bytes(1_000)),
        (foreign.PICTURE, "GIF", b"GIF89a" + bytes(1_000)),
        (foreign.PICTURE, "SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
        (foreign.PICTURE, "HEIC", b"\0\0\0\x18ftypheic" + bytes(1_000)),
        (foreign.DOCUMENT, "PDF", b"%PDF-1.7\n" * 100),
        (foreign.DOCUMENT, "TXT", b"These are the words of a song.\n" * 300),
        (foreign.DOCUMENT, "TXT", "Noël où les élèves\n".encode("latin-1") * 10),
        (foreign.DOCUMENT, "TXT", "歌词\n".encode("utf-16") * 10),
        (foreign.DOCUMENT, "Microsoft Office", b"PK\3\4\x14\0" + bytes(24) + b"[Content_Types].xml" + bytes(99)),
        (foreign.ARCHIVE, "ZIP", b"PK\3\4\x14\0" + bytes(24) + b"song.mp3" + bytes(1_000)),
        (foreign.ARCHIVE, "RAR", b"Rar!\x1a\7\1\0" + bytes(1_000)),
        (foreign.WEB_PAGE, "HTML", b"\n<!DOCTYPE html><html><title>404 Not Found</title></html>"),
        (foreign.LINK, "M3U", b"#EXTM3U\n#EXTINF:3,Song\nsong.mp3\n"),
        (foreign.LINK, "M3U", b"Music/Band/Song.mp3\nMusic/Band/Next.mp3\n"),
        (foreign.LINK, "CUE", b'REM GENRE Jazz\nFILE "set.flac" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'),
        (foreign.LINK, "torrent", b"d8:announce35:http://tracker.example/announce4:infod6:lengthi1eee"),
        (foreign.UNREAD, "OptimFROG", b"OFR \x0f\0\0\0" + bytes(1_000)),
        (
            foreign.UNREAD,
            "RIFX",
            b"RIFX\0\1\0\x24WAVEfmt \0\0\0\x10\0\1\0\1\0\0\x56\x22\0\0\xac\x44\0\2\0\x10data\0\1\0\0" + bytes(65_536),
        ),
        (foreign.PROTECTED, "Audible", b"\0\x10\0\0\x57\x90\x75\x36" + bytes(1_000)),
    ],
)
def test_what_holds_no_sound_is_called_by_its_name(tmp_path, message, kind, file):
    (tmp_path / "song.mp3").write_bytes(file)
    assert refusal(tmp_path / "song.mp3") == message.format(name="song.mp3", kind=kind)


@pytest.mark.parametrize(("tag", "kind"), [(b"drms", "FairPlay"), (b"enca", "Common Encryption"), (b"aavd", "Audible")])
def test_copy_protection_of_an_mp4(tag, kind):
    assert f"protected against copying ({kind})" in refusal(song("m4a").replace(b"mp4a", tag))


def test_copy_protection_of_a_wma():
    file, encryption = song("wma"), bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    n_header_bytes, n_objects = struct.unpack("<QI", file[16:28])
    header = struct.pack("<QI", n_header_bytes + 40, n_objects + 1)
    protected = file[:16] + header + file[28:30] + encryption + struct.pack("<Q", 40) + bytes(16) + file[30:]
    assert "protected against copying (Windows Media DRM)" in refusal(protected)


def test_a_silent_film():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        add_pictures(output, "libx264")()
    assert refusal(buffer.getvalue()).startswith("The audio has no audio track")


@pytest.fixture
def visits():
    """A web server's address, and the list of who has called there."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:  # closed
                    return
                connection.close()
                callers.append(caller)

        threading.Thread(target=listen, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["http", "rtsp", "hls+http", "tcp", "concat:http", "subfile,,start,0,end,0,,:http"])
def test_an_address_is_never_called(visits, scheme):
    address, callers = visits
    assert "was not found: an address is no file" in refusal(f"{scheme}://{address}/song.mp3")
    assert callers == []


@pytest.mark.parametrize("target", ["file", "address"])
@pytest.mark.parametrize(
    "name", ["hls.m3u8", "concat.txt", "session.sdp", "dash.mpd", "list.m3u", "list.pls", "song.wav"]
)
def test_nothing_inside_a_playlist_is_opened(tmp_path, visits, name, target):
    address, callers = visits
    (tmp_path / "real.ts").write_bytes(song("mpeg-ts video"))
    entry = (tmp_path / "real.ts").as_posix() if target == "file" else f"http://{address}/real.ts"
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{entry}\n#EXT-X-ENDLIST\n"
    texts = {
        "hls.m3u8": hls,
        "song.wav": hls,
        "concat.txt": f"ffconcat version 1.0\nfile '{entry}'\n",
        "session.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=audio {address.split(':')[1]} RTP/AVP 0\n",
        "dash.mpd": f"<MPD><Period><AdaptationSet><Representation><BaseURL>{entry}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "list.m3u": f"{entry}\n",
        "list.pls": f"[playlist]\nFile1={entry}\n",
    }
    (tmp_path / name).write_text(texts[name])
    for source in (tmp_path / name, texts[name].encode()):
        assert "only says where a sound is: choose the sound itself" in refusal(source)
    assert callers == []


def test_an_error_comes_from_one_process_to_another(tmp_path: Path) -> None:
    (tmp_path / "{0} {name}.wav").touch()
    with pytest.raises(AudioError) as error:
        mono(tmp_path / "{0} {name}.wav")
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value) == "{0} {name}.wav is empty (0 bytes): record, fetch or export it again."
    assert (again.message, again.values) == (error.value.message, error.value.values)
