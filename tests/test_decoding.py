"""`crnn.decoding`: the same sound as without it, and what a file does to its own decoder it does to nothing else."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from crnn import decoding
from crnn.audio import AudioError, Passages, Sound, load_audio, open_audio
from crnn.decoding import Decoders
from crnn.inference import GenreClassifier
from crnn.network.model import CRNN
from crnn.sources import Origin

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "assets" / "examples").iterdir() if path.suffix in (".mp3", ".ogg", ".m4a"))
TESTS = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """Two workers as they are on the page."""
    with Decoders(2) as decoders:
        yield decoders


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    """One worker that does what the name of a file says, and that is not waited for long."""
    monkeypatch.setattr(decoding, "_PROGRAM", f"sys.path.append({TESTS!r}); import hostile_decoder")
    with Decoders(1, stall_seconds=1.0) as decoders:
        yield decoders


@pytest.fixture
def song(tone: Callable, write_wav: Callable, tmp_path: Path) -> Callable[[str], Path]:
    """`song(name)`: a file of ten seconds, which are several blocks."""
    return lambda name: write_wav(tmp_path / name, tone(10.0))


def pid_of(decoders: Decoders, number: int = 0) -> int:
    """The process of a worker."""
    return decoders._workers[number]._process.pid


def fault(decoders: Decoders, source: Path | bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source, opener=decoders.open_audio)
    return str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_it_is_the_same_sound(decoders: Decoders, path: Path) -> None:
    expected = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, opener=decoders.open_audio), expected)
    np.testing.assert_array_equal(load_audio(path.read_bytes(), opener=decoders.open_audio), expected)


def test_passages_at_another_rate(decoders: Decoders) -> None:
    heard = []
    for opener in (open_audio, decoders.open_audio):
        with opener(EXAMPLES[0], 16_000, Passages(2, 3.0)) as sound:
            heard.append(np.stack(list(sound.blocks())))
        heard.append((sound.starts_seconds, sound.duration_seconds))
    assert heard[0].shape[2] == 3 * 16_000
    np.testing.assert_array_equal(heard[0], heard[2])
    assert heard[1] == heard[3] != ((), None)


def test_notices_come_with_the_sound(decoders: Decoders, tone: Callable, write_wav: Callable, tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "cut.wav", tone(4.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    notices = []
    for opener in (open_audio, decoders.open_audio):
        with opener(tmp_path / "cut.wav") as sound:
            assert len(list(sound.blocks())) == 1
        notices.append(sound.notices)
    assert notices[0] == notices[1] != ()


@pytest.mark.parametrize("content", [b"", b"Dear all,\n", b"\0" * 1_000, b"#EXTM3U\nhttp://127.0.0.1/a.mp3\n"])
@pytest.mark.parametrize("name", ["a song.mp3", '100 %, "{x}" and a\nline.wav', os.fsdecode(b"\xfc.mp3")])
def test_a_file_is_refused_with_the_same_sentence(
    decoders: Decoders, content: bytes, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert fault(decoders, path) == str(caught.value)


def test_a_path_that_leads_nowhere(decoders: Decoders, tmp_path: Path) -> None:
    assert "was not found" in fault(decoders, tmp_path / "none.mp3")
    assert "is a directory" in fault(decoders, tmp_path)


def test_the_blocks_are_read_once(decoders: Decoders) -> None:
    with decoders.open_audio(EXAMPLES[0]) as sound:
        list(sound.blocks())
        with pytest.raises(RuntimeError):
            sound.blocks()


def test_a_song_that_is_left_early_costs_no_worker(song: Callable) -> None:
    with Decoders(1) as decoders:
        first = pid_of(decoders)
        for _ in range(5):
            load_audio(song("long.wav"), max_seconds=1.0, opener=decoders.open_audio)
            with decoders.open_audio(song("long.wav")) as sound:
                sound.blocks()
        assert load_audio(song("long.wav"), opener=decoders.open_audio).shape == (1, 220_500)
        assert pid_of(decoders) == first


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crash.wav", "breaks the decoder"),
        ("abort.wav", "breaks the decoder"),
        ("nonsense.wav", "breaks the decoder"),
        ("write.wav", "breaks the decoder"),
        ("memory.wav", "breaks the decoder"),
        ("unforeseen.wav", "breaks the decoder"),
        ("loop.wav", "takes too long"),
        ("sleep.wav", "just now" if sys.platform == "linux" else "takes too long"),
    ],
)
def test_a_decoder_that_breaks_costs_one_song(fragile: Decoders, song: Callable, name: str, said: str) -> None:
    expected = load_audio(song("good.wav"))
    assert said in fault(fragile, song(name))
    np.testing.assert_array_equal(load_audio(song("good.wav"), opener=fragile.open_audio), expected)


def test_what_a_worker_has_to_say_reaches_no_terminal(song: Callable) -> None:
    code = (
        "import sys; from crnn import decoding\n"
        f'decoding._PROGRAM = "sys.path.append({TESTS!r}); import hostile_decoder"\n'
        "with decoding.Decoders(1) as decoders, decoders.open_audio(sys.argv[1]) as sound:\n"
        "    try: list(sound.blocks())\n"
        "    except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, song("unforeseen.wav")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "breaks the decoder" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("own_songs", [False, True])
def test_a_song_that_takes_long_is_heard_to_its_end_if_it_is_ones_own(
    own_songs: bool, monkeypatch: pytest.MonkeyPatch, song: Callable
) -> None:
    monkeypatch.setattr(decoding, "_PROGRAM", f"sys.path.append({TESTS!r}); import hostile_decoder")
    with Decoders(1, own_songs=own_songs) as decoders:
        if own_songs:
            assert load_audio(song("slow.wav"), opener=decoders.open_audio).shape == (1, 220_500)
        else:
            assert "takes too long" in fault(decoders, song("slow.wav"))


def test_a_fault_of_the_machine_is_not_told_as_one_of_the_song(song: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with Decoders(1) as decoders:
        os.kill(pid_of(decoders), signal.SIGKILL)
        decoders._workers[0]._process.wait()
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.Popen", refuse)
            said = fault(decoders, song("good.wav"))
            assert said == f"good.wav cannot be decoded just now ({os.strerror(errno.EAGAIN)}): try again later."
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.TemporaryFile", refuse)
            assert "just now" in fault(decoders, song("good.wav").read_bytes())
        assert load_audio(song("good.wav"), opener=decoders.open_audio).shape == (1, 220_500)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP])
def test_a_worker_that_is_killed_in_a_song_costs_that_song(fragile: Decoders, song: Callable, number: int) -> None:
    @contextmanager
    def killing(*args: object) -> Iterator[Sound]:
        with fragile.open_audio(*args) as sound:
            blocks = sound.blocks()
            next(blocks)
            os.kill(pid_of(fragile), number)
            if number == signal.SIGSTOP:
                os.waitpid(pid_of(fragile), os.WUNTRACED)
            _exhaust(fragile)
            yield SimpleNamespace(blocks=lambda: blocks)

    is_of_the_machine = number == signal.SIGKILL or (number == signal.SIGSTOP and sys.platform == "linux")
    with pytest.raises(AudioError, match="just now" if is_of_the_machine else "good.wav"):
        load_audio(song("good.wav"), opener=killing)
    assert load_audio(song("good.wav"), opener=fragile.open_audio).shape == (1, 220_500)


def test_a_worker_that_is_killed_between_songs_costs_nothing(fragile: Decoders, song: Callable) -> None:
    for _ in range(2):
        os.kill(pid_of(fragile), signal.SIGKILL)
        fragile._workers[0]._process.wait()
        assert load_audio(song("good.wav"), opener=fragile.open_audio).shape == (1, 220_500)


@pytest.mark.parametrize("is_left", [False, True])
def test_workers_that_are_closed_stay_so(song: Callable, monkeypatch: pytest.MonkeyPatch, is_left: bool) -> None:
    """Whatever becomes of the song at work: nobody would end a process that is started then."""
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        "subprocess.Popen", lambda *args, **options: started.append(popen(*args, **options)) or started[-1]
    )
    with Decoders(1) as decoders, decoders.open_audio(song("long.wav")) as sound:
        blocks = sound.blocks()
        next(blocks)
        decoders.close()
        if not is_left:
            with pytest.raises(AudioError, match="the program is ending"):
                list(blocks)
    assert "ending" in fault(decoders, song("long.wav"))
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_others_are_answered_meanwhile(monkeypatch: pytest.MonkeyPatch, song: Callable) -> None:
    monkeypatch.setattr(decoding, "_PROGRAM", f"sys.path.append({TESTS!r}); import hostile_decoder")
    faults = []
    with Decoders(2, stall_seconds=3.0) as decoders:
        good = song("good.wav")
        load_audio(good, opener=decoders.open_audio)
        bad = song("sleep.wav")
        thread = threading.Thread(target=lambda: faults.append(fault(decoders, bad)))
        thread.start()
        answers = 0
        while thread.is_alive():
            assert load_audio(good, opener=decoders.open_audio).shape == (1, 220_500)
            answers += 1
        thread.join()
    assert len(faults) == 1
    assert answers > 3


def test_many_songs_at_once(decoders: Decoders) -> None:
    """More than there are workers; none gets the sound of another."""
    expected = {path: load_audio(path) for path in EXAMPLES}
    wrong = []

    def hear(path: Path) -> None:
        for _ in range(2):
            if not np.array_equal(load_audio(path, opener=decoders.open_audio), expected[path]):
                wrong.append(path)

    threads = [threading.Thread(target=hear, args=(path,)) for path in EXAMPLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_more_workers_are_started_than_songs_wait(song: Callable) -> None:
    def n_started() -> int:
        return sum(worker._process is not None for worker in decoders._workers)

    with Decoders(60) as decoders, ExitStack() as stack:
        assert n_started() == 2
        for n_songs in (1, 2, 3):
            sound = stack.enter_context(decoders.open_audio(song("good.wav")))
            next(sound.blocks())
            assert n_started() == max(2, n_songs)
        stack.close()
        for _ in range(4):
            load_audio(song("good.wav"), opener=decoders.open_audio)
        assert n_started() == 3


def test_workers_know_no_pytorch_and_no_secret(monkeypatch: pytest.MonkeyPatch, decoders: Decoders) -> None:
    load_audio(EXAMPLES[0], opener=decoders.open_audio)
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Decoders(1) as others:
        load_audio(EXAMPLES[0], opener=others.open_audio)
        if not Path("/proc/self/maps").exists():
            pytest.skip("no /proc here")
        assert "libtorch" not in Path(f"/proc/{pid_of(others)}/maps").read_text()
        assert b"secret" not in Path(f"/proc/{pid_of(others)}/environ").read_bytes()


def test_workers_end_with_whoever_started_them(song: Callable) -> None:
    """Even if that is killed."""
    code = (
        "import sys; from crnn.decoding import Decoders; d = Decoders(2)\n"
        "print(*(w._process.pid for w in d._workers), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(_is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupt_from_the_terminal_is_not_for_workers(decoders: Decoders) -> None:
    assert os.getsid(pid_of(decoders)) == pid_of(decoders) != os.getsid(0)


def test_a_classifier_that_decodes_elsewhere_answers_the_same(
    decoders: Decoders, tiny_model: CRNN, song: Callable
) -> None:
    here = GenreClassifier(tiny_model, Origin("tiny")).predict(song("a.wav"))
    there = GenreClassifier(tiny_model, Origin("tiny"), opener=decoders.open_audio).predict(song("a.wav"))
    np.testing.assert_array_equal(here.timeline, there.timeline)
    assert here.as_dict() == there.as_dict()


def _exhaust(decoders: Decoders) -> None:
    """Read what a worker had sent before something happened to it, for it not to be the end of the song."""
    connection = decoders._workers[0]._connection
    connection.setblocking(False)
    with suppress(BlockingIOError):
        while connection.recv(2**20):
            pass
    connection.settimeout(decoders._workers[0]._stall_seconds)


def _is_alive(pid: int) -> bool:
    """Also not as a zombie that nobody waits for."""
    try:
        os.kill(pid, 0)
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
