"""A small part of `make torture`: traps that are quick to make, and changed files of every kind."""

import itertools
import threading
from pathlib import Path
from socket import create_server

import numpy as np
import pytest

from benchmarks.torture import run
from benchmarks.torture.corpus import CHANGES, KINDS, TRAPS, Case, case, whole
from crnn.audio import load_audio, open_audio

# Large, or many.
SLOW = ("hours of", "minutes of", "a million", " MB", "thousand", "bomb", "slow", "192 kHz", "60 tracks", "every kind")
QUICK = [n for n, label in enumerate(TRAPS) if not any(word in label for word in SLOW)]


def test_every_kind_is_one_before_it_is_broken() -> None:
    for kind in KINDS:
        assert load_audio(whole(kind)).shape[0] == 2, kind


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    before = [case(3, n) for n in range(300, 310)], [whole(kind) for kind in KINDS]
    whole.cache_clear()  # as in another process
    assert ([case(3, n) for n in range(300, 310)], [whole(kind) for kind in KINDS]) == before
    assert case(3, 300) != case(4, 300)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_changes_something(change) -> None:
    changed = {change(whole("mp3"), np.random.default_rng(seed)) for seed in range(10)}
    assert len(changed | {whole("mp3")}) > 5


def test_broken_files_are_answered_or_refused(tmp_path: Path) -> None:
    """And nothing that is named in them is opened."""
    made, result = [], run.Result("decoder")
    with create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=run.count_connections, args=(server, made), daemon=True).start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        corpus = run.Corpus(tmp_path, 0, range(0), 0, host)
        for number in itertools.chain(QUICK, range(len(TRAPS), len(TRAPS) + 2 * len(KINDS))):
            with corpus.files([number]) as [(file, path)]:
                result.note(file, run.hear(path, open_audio))
    assert result.faults == []
    assert made == []
    assert result.answered > 20
    assert result.refused > 100


def test_what_breaks_a_promise_is_noted() -> None:
    result = run.Result("decoder")
    playlist = Case("a playlist", "a.mp3", b"", is_refused=True)
    result.note(playlist, False, 1.0, 100)
    assert result.faults == []
    result.note(playlist, True)
    result.note(playlist, False, run.SECONDS + 1, 100)
    result.note(playlist, False, 1.0, run.MEGABYTES + 1)
    assert len(result.faults) == 3


def test_a_decoder_that_crashes_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "serve", crash)
    monkeypatch.setattr(run, "case", lambda *_: Case("any", "a.wav", whole("wav")))
    result = run.through_decoder(run.Corpus(tmp_path, 0, range(2), 60, ""))
    assert len(result.faults) == 2
    assert "exit status" in result.faults[0]


def crash(connection, _) -> None:
    """In place of `run.serve`."""
    connection.recv()
    raise SystemExit(7)


@pytest.mark.parametrize(("options", "tried"), [([], [0, 1]), (["--first", "7"], [7, 8])])
def test_torture_begins_with_the_first_and_counts_from_there(
    options: list[str], tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []

    def noted(corpus: run.Corpus) -> run.Result:
        numbers.extend(corpus.numbers)
        return run.Result("decoder", len(corpus.numbers), answered=len(corpus.numbers))

    monkeypatch.setattr(run, "WAYS", {"decoder": noted})
    monkeypatch.setattr(run, "ProcessPoolExecutor", InThisProcess)
    assert run.main(["--count", "2", *options]) == 0
    assert numbers == tried
    assert run.main(["--count", "0", *options]) == 1


class InThisProcess:
    """In place of `ProcessPoolExecutor`."""

    map = staticmethod(map)

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass
