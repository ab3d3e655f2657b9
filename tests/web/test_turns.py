"""Many visitors at once: turns, limits, place and time, no answers that are mixed up, and uploads that go."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from starlette.requests import Request

import app
from crnn.inference import GenreClassifier
from crnn.network.model import CRNN
from crnn.network.songs import to_nobody
from crnn.sources import Origin
from crnn.web import server, turns, uploads
from crnn.web.cores import Cores
from crnn.web.songs import Row, Visit
from crnn.web.turns import visitor_of

META = {"_type": "gradio.FileData"}


class Slow(GenreClassifier):
    """Answers when it may; notes the names of the files in the order in which it begins with them."""

    may_answer, begun = Event(), []

    def listen(self, source, passages=None, report=to_nobody):
        self.begun.append(Path(source).name)
        assert self.may_answer.wait(60)
        return super().listen(source, passages, report)


@pytest.fixture
def classifier(tiny_model: CRNN) -> Slow:
    torch.nn.init.normal_(tiny_model.members[0].classifier.linear.weight)
    slow = Slow(tiny_model, Origin("a tiny model"))
    slow.may_answer, slow.begun = Event(), []
    slow.may_answer.set()
    return slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def url(served: tuple[str, gr.Blocks]) -> str:
    return served[0]


@pytest.fixture
def served(
    classifier: Slow, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[str, gr.Blocks]]:
    """A page that hears one song at a time, or as many as the test says, and its address."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(app.SONG, "concurrency_limit", getattr(request, "param", 1))
    demo = app.build_demo(classifier)
    options = {"server_name": "127.0.0.1", "prevent_thread_lock": True, "quiet": True}
    _, url, _ = demo.launch(**app.launch_options(), **options)
    yield url, demo
    classifier.may_answer.set()
    demo.close()


@pytest.fixture
def songs(tmp_path: Path, write_wav: Callable, tone: Callable) -> list[Path]:
    return [write_wav(tmp_path / f"{n}.wav", tone(2, 200 + 100 * n)) for n in range(8)]


class Visitor:
    """Who asks through HTTP, from an address of his own, as a proxy on this computer tells it."""

    def __init__(self, url: str, number: int) -> None:
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
        self.session = f"session-{number}"
        self.number = next(
            function["id"]
            for function in self.client.get("/config").json()["dependencies"]
            if function["api_name"] == "classify"
        )

    def ask(self, song: Path) -> httpx.Response:
        path = self.client.post("/gradio_api/upload", files={"files": (song.name, song.read_bytes())}).json()[0]
        data = [{"path": path, "orig_name": song.name, "meta": META}]
        return self.client.post(
            "/gradio_api/queue/join", json={"data": data, "fn_index": self.number, "session_hash": self.session}
        )

    def messages(self, until: str = "process_completed") -> list[dict]:
        """What the session is told, up to a message of this kind."""
        told = []
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    told.append(json.loads(line[5:]))
                    if told[-1]["msg"] == until:
                        break
        return told


def when(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_answers_of_many_at_once_are_not_mixed_up(url: str, songs: list[Path], classifier: Slow) -> None:
    expected = [classifier.predict(song).probabilities for song in songs]
    assert len({tuple(shares.values()) for shares in expected}) == len(songs)

    def answer(number: int) -> dict:
        visitor = Visitor(url, number)
        assert visitor.ask(songs[number]).status_code == 200
        return visitor.messages()[-1]["output"]["data"][0]["probabilities"]

    with ThreadPoolExecutor(len(songs)) as pool:
        for given, shares in zip(pool.map(answer, range(len(songs))), expected, strict=True):
            assert given == pytest.approx(shares, abs=1e-4)


def test_who_waits_is_told_place_and_time_and_the_others_come_first(
    url: str, songs: list[Path], classifier: Slow
) -> None:
    greedy, modest = Visitor(url, 1), Visitor(url, 2)
    greedy.ask(songs[0])
    greedy.messages()  # from now on it is known how long one takes
    classifier.begun.clear()
    classifier.may_answer.clear()
    for song in songs[:3]:
        greedy.ask(song)
    when(lambda: classifier.begun)
    modest.ask(songs[3])
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(modest.messages)
        time.sleep(0.1)
        classifier.may_answer.set()
        places = [message for message in told.result() if message["msg"] == "estimation"]
    assert places[-1]["rank"] == 0
    assert places[-1]["queue_size"] == 3
    assert places[-1]["rank_eta"] > 0
    when(lambda: len(classifier.begun) == 4)
    assert classifier.begun == ["0.wav", "3.wav", "1.wav", "2.wav"]


@pytest.mark.parametrize("served", [turns.SHARED_PLACES], indirect=True)
def test_one_address_does_not_get_the_last_place(url: str, songs: list[Path], classifier: Slow) -> None:
    greedy, modest = Visitor(url, 1), Visitor(url, 2)
    classifier.may_answer.clear()
    for song in songs[:5]:
        greedy.ask(song)
    when(lambda: len(classifier.begun) == turns.SHARED_PLACES - 1)
    time.sleep(0.3)  # in which the next one would begin
    modest.ask(songs[5])
    when(lambda: len(classifier.begun) == turns.SHARED_PLACES)
    assert classifier.begun[-1] == "5.wav"
    classifier.may_answer.set()
    when(lambda: len(classifier.begun) == 6)


def test_who_waits_by_plain_http_is_told_too(
    url: str, songs: list[Path], classifier: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradio.utils.get_heartbeat_rate", lambda: 0.2)
    first, second = Visitor(url, 1), Visitor(url, 2)
    first.ask(songs[0])
    first.messages()  # from now on it is known how long one takes
    classifier.begun.clear()
    classifier.may_answer.clear()
    first.ask(songs[1])
    when(lambda: classifier.begun)
    first.ask(songs[2])
    path = second.client.post("/gradio_api/upload", files={"files": ("3.wav", songs[3].read_bytes())}).json()[0]
    data = [{"path": path, "meta": META}]
    number = second.client.post("/gradio_api/call/classify", json={"data": data}).json()["event_id"]
    told = []
    with second.client.stream("GET", f"/gradio_api/call/classify/{number}") as stream:
        for line in stream.iter_lines():
            told += [line.removeprefix("event: ")] if line.startswith("event: ") else []
            if line.startswith("data: ") and told[-1] == "estimation":
                place = json.loads(line.removeprefix("data: "))
                assert (place["rank"], place["queue_size"]) == (0, 2)
                assert place["rank_eta"] > 0
            if told.count("estimation") == 3:
                classifier.may_answer.set()
    assert told[0] == "estimation"
    assert told[-1] == "complete"


def test_a_visitor_has_a_limit_and_the_others_are_answered(
    url: str, songs: list[Path], classifier: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST_OF_ONE", 2)
    greedy, modest = Visitor(url, 1), Visitor(url, 2)
    classifier.may_answer.clear()
    for song in songs[:2]:
        assert greedy.ask(song).status_code == 200
    when(lambda: classifier.begun)
    greedy.session = "another one, from the same address"
    assert greedy.ask(songs[2]).status_code == 200
    *_, refused = greedy.messages()
    assert not refused["success"]
    said = "2 questions from your address wait here already: ask again when one is answered."
    assert refused["output"]["error"] == said
    assert modest.ask(songs[3]).status_code == 200
    classifier.may_answer.set()
    assert modest.messages()[-1]["success"]
    when(lambda: len(classifier.begun) == 3)
    assert greedy.ask(songs[2]).status_code == 200
    assert greedy.messages()[-1]["success"]


def test_a_full_queue_says_how_long_it_is_in_every_client(
    url: str, songs: list[Path], classifier: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    Visitor(url, 1).ask(songs[0])
    when(lambda: len(classifier.begun) == 1)
    classifier.may_answer.clear()
    Visitor(url, 2).ask(songs[1])
    when(lambda: len(classifier.begun) == 2)
    Visitor(url, 3).ask(songs[2])
    monkeypatch.setattr(turns, "MOST_WAITING", 1)
    with pytest.raises(AppError, match=r"^1 questions wait here already, which takes about \d+ s: try again then\.$"):
        Client(url, verbose=False).predict(handle_file(songs[3]), api_name="/classify")
    curl = httpx.Client(base_url=url, timeout=60, trust_env=False)
    number = curl.post("/gradio_api/call/classify", json={"data": [None]}).json()["event_id"]
    assert "1 questions wait here already" in curl.get(f"/gradio_api/call/classify/{number}").text
    monkeypatch.setattr(turns, "MOST_SESSIONS", 1)  # then nothing is kept for who is refused
    assert curl.post("/gradio_api/call/classify", json={"data": [None]}).status_code == 429


def test_nobody_passes_by_the_queue(url: str) -> None:
    for path in ("run/classify", "api/classify"):
        assert httpx.post(f"{url}gradio_api/{path}", json={"data": [None]}, trust_env=False).status_code == 404


def test_the_queue_forgets_who_waits_for_nothing(
    served: tuple, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST_SESSIONS", 4)
    url, demo = served
    for number in range(8):
        visitor = Visitor(url, number)
        visitor.ask(songs[0])
        assert visitor.messages()[-1]["success"]
        assert len(demo._queue.pending_messages_per_session) <= 4
        assert len(demo._queue.pending_event_ids_session) <= 4
    when(lambda: not demo.state_holder.session_data)


def test_a_song_that_nobody_waits_for_any_more_is_heard_no_further(
    served: tuple[str, gr.Blocks], songs: list[Path], classifier: Slow
) -> None:
    url, demo = served
    classifier.may_answer.clear()
    gone, other = Visitor(url, 1), Visitor(url, 2)
    gone.ask(songs[0])
    with gone.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": gone.session}):
        when(lambda: classifier.begun)
    when(lambda: not any(job.alive for jobs in demo._queue.active_jobs for job in jobs or ()))
    listen, heard = classifier.answer, []
    classifier.answer = lambda recordings, report: heard.append(recordings) or listen(recordings, report)
    classifier.may_answer.set()
    other.ask(songs[1])
    assert other.messages()[-1]["success"]
    assert (classifier.begun, len(heard)) == (["0.wav", "1.wav"], 1)


@pytest.mark.parametrize("asks", [True, False])
def test_a_page_whose_connection_broke_once_keeps_what_it_knows_while_it_asks(
    served: tuple, songs: list[Path], asks: bool
) -> None:
    url, demo = served
    visitor, long_ago = Visitor(url, 1), datetime.now() - timedelta(hours=2)
    state = demo.state_holder[visitor.session]
    own = next(block._id for block in demo.blocks.values() if isinstance(block, gr.State))
    state[own] = "another model"
    state._state_ttl[own] = (state._state_ttl[own][0], long_ago)
    state.is_closed = True
    if asks:
        visitor.ask(songs[0])
        visitor.messages()
    demo.state_holder.delete_all_expired_state()
    assert (own in state.state_data) == asks


def test_the_song_of_a_program_goes_soon_after_its_answer(
    url: str, songs: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> list[Path]:
        songs = folder.glob("*[0-9]*")  # beside them is Gradio's vibe_edit_history
        return [path for song in songs for path in (song, *song.glob("*")) if path.is_file() or not any(path.iterdir())]

    asked_by = {"X-Forwarded-For": "192.0.2.7"}

    async def ask_tool() -> object:
        async with (
            streamablehttp_client(f"{url}gradio_api/mcp/", headers=asked_by) as (
                reading,
                writing,
                _,
            ),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            code = base64.b64encode(songs[1].read_bytes()).decode()
            return await session.call_tool("classify", {"song": f"data:audio/wav;base64,{code}"})

    visitors = []

    def noted(request: Request) -> str:
        visitors.append(visitor_of(request))
        return visitors[-1]

    monkeypatch.setattr(turns, "visitor_of", noted)
    monkeypatch.setattr(uploads, "ANSWERED_SECONDS", 1.0)
    monkeypatch.setattr(server, "ANSWERED_SECONDS", 1.0)
    Visitor(url, 1).ask(songs[0])
    assert not Thread(target=asyncio.run, args=[ask_tool()]).start()
    when(lambda: len([path for path in kept() if path.is_file()]) >= 2)
    when(lambda: not kept())
    assert {"192.0.2.1", "192.0.2.7"} <= {*visitors}  # not those who ask for them


def test_a_song_that_others_need_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {str(tmp_path / name / "song") for name in ("answered", "shown", "asked", "new", "old")}
    for path in map(Path, paths):
        path.parent.mkdir()
        path.touch()
    asked = []
    kept = uploads.Uploads(paths, 3_600.0, lambda path: path in asked)
    for name in ("answered", "shown", "asked"):
        kept.answered(str(tmp_path / name / "song"))
    kept.shown(str(tmp_path / "shown" / "song"))
    asked.append(str(tmp_path / "asked" / "song"))
    kept.sweep()
    assert len(paths) == 5
    now, by_the_wall = time.monotonic(), time.time()
    for jump in (-86_400, 86_400):
        monkeypatch.setattr(time, "time", lambda jump=jump: by_the_wall + jump)
        kept.sweep()
        assert len(paths) == 5
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * uploads.ANSWERED_SECONDS)
    kept.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"shown", "asked", "new", "old"}
    asked.clear()
    kept.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"shown", "new", "old"}
    monkeypatch.setattr(time, "monotonic", lambda: now + 3_601)
    kept.sweep()
    assert not [*tmp_path.iterdir()]
    assert not paths


def test_what_is_left_goes_whatever_was_asked_and_went_wrong_meanwhile(
    served: tuple, songs: list[Path], classifier: Slow, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question may be nested more deeply than Python goes, and a look at the disk fail."""
    url, demo = served
    monkeypatch.setattr(uploads, "ANSWERED_SECONDS", 1.0)
    monkeypatch.setattr(server, "ANSWERED_SECONDS", 1.0)
    classifier.may_answer.clear()
    visitor, asker = Visitor(url, 1), httpx.Client(base_url=url, timeout=60, trust_env=False)
    visitor.ask(songs[0])
    when(lambda: classifier.begun)
    path = next(iter(demo.upload_file_set))
    deep = '{"data": [[' + "[" * 800 + "]" * 800 + f', {{"path": "{path}"}}]]}}'
    kind = {"Content-Type": "application/json"}
    assert asker.post("/gradio_api/call/classify", content=deep, headers=kind).status_code == 200
    assert demo._queue.asked_about(path)
    assert not demo._queue.asked_about("another")
    faults, sweep = [OSError("the disk is ill")] * 2, demo.uploads.sweep

    def fail_twice() -> None:
        if faults:
            raise faults.pop()
        sweep()

    monkeypatch.setattr(demo.uploads, "sweep", fail_twice)
    classifier.may_answer.set()
    when(lambda: not faults and not any(path.is_file() for path in folder.rglob("*")))


@pytest.mark.parametrize("path", ["queue/join", "call/classify", "run/classify"])
def test_nothing_is_kept_of_who_calls_himself_by_a_book(served: tuple, path: str) -> None:
    url, demo = served
    visitor = Visitor(url, 1)
    question = {"data": [None], "fn_index": visitor.number}
    answers = [
        visitor.client.post(f"/gradio_api/{path}", json={**question, "session_hash": "x" * n_signs})
        for n_signs in (turns.MOST_OF_NAME + 1, 2**20)
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert "64 characters at most" in answers[0].text
    for kept in (demo._queue.pending_messages_per_session, demo._queue.pending_event_ids_session):
        assert not any(len(session) > turns.MOST_OF_NAME for session in kept)
    assert not demo.state_holder.session_data


def test_who_opens_the_page_often_makes_it_forget_his_own_visits_alone(
    url: str, served: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, demo = served
    kept = demo.state_holder
    monkeypatch.setattr(kept, "capacity", 6)
    number = next(fn._id for fn in demo.fns.values() if fn.api_visibility != "public" and fn.queue)
    n_inputs = len(demo.fns[number].inputs)

    def look(who: Visitor, session: str) -> None:
        question = {"data": [None] * n_inputs, "fn_index": number, "session_hash": session}
        assert who.client.post("/gradio_api/queue/join", json=question).status_code == 200
        who.session = session
        who.messages()

    first, second, greedy = (Visitor(url, number) for number in (1, 2, 3))
    look(first, "first")
    look(second, "second")
    visit = next(block._id for block in demo.blocks.values() if isinstance(getattr(block, "value", None), Visit))
    for page in range(12):
        look(greedy, f"greedy-{page}")
        if page == 1:
            kept["greedy-1"][visit] = Visit()
            kept["greedy-1"][visit].add(Row("song.mp3", "a model", fault=("It is damaged.", {})))
    pages = {"greedy-1", "greedy-9", "greedy-10", "greedy-11"}  # that with songs, and the newest
    assert {*kept.session_data} == {"first", "second"} | pages
    for page in range(12):  # which nobody is known to have made
        greedy.client.post("/gradio_api/run/classify", json={"data": [], "session_hash": f"nobody-{page}"})
    assert {"first", "second"} < {*kept.session_data}
    assert {*kept.visitors} <= {*kept.session_data}
    assert len(kept.session_data) == 6


def test_what_a_page_shows_is_kept_of_no_visit(served: tuple) -> None:
    url, demo = served
    number = next(fn._id for fn in demo.fns.values() if fn.name == "about")
    visitor = Visitor(url, 1)
    question = {"data": [None], "fn_index": number, "session_hash": visitor.session}
    assert visitor.client.post("/gradio_api/queue/join", json=question).status_code == 200
    facts, *_ = visitor.messages()[-1]["output"]["data"]
    assert "a tiny model" in facts
    assert "a tiny model" not in str([*demo.state_holder[visitor.session].components])


def test_properties_of_what_a_page_shows_are_kept_of_no_visit(served: tuple) -> None:
    """As the overlay of a song is one."""
    _, demo = served
    why = next(fn for fn in demo.fns.values() if fn.name == "why")
    overlay, reasons, stop = gr.update(overlay="the overlay"), "why", gr.update(visible=True)
    visit = demo.state_holder["one"]
    sent = asyncio.run(demo.postprocess_data(why, [overlay, reasons, stop], visit))
    assert sent[0]["props"]["overlay"] == "the overlay"
    assert sent[2]["visible"]
    shown = [vars(block) for block in visit.blocks_config.blocks.values()]
    assert "the overlay" not in f"{shown} {[*visit.components]}"


def test_a_clock_that_is_set_does_not_change_what_the_next_ones_are_told(served: tuple, songs: list[Path]) -> None:
    url, demo = served
    visitor = Visitor(url, 1)
    visitor.ask(songs[0])
    visitor.messages()
    when(lambda: demo._queue.process_time_per_fn)
    [times] = demo._queue.process_time_per_fn.values()
    before = times.avg_time
    for jump in (-86_400, 86_400):
        times.add(jump)
    assert times.avg_time == before > 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_an_address_is_a_visitor(one: str, other: str, is_same: bool) -> None:
    def visitor(host: str) -> str:
        return visitor_of(Request({"type": "http", "client": (host, 1)}))

    assert (visitor(one) == visitor(other)) == is_same


def test_songs_that_are_heard_at_once_share_the_cores() -> None:
    cores, threads = Cores(), []
    cores.n_cores = 2

    def hear(is_first: Event, is_second: Event) -> None:
        with cores.share():
            threads.append(torch.get_num_threads())
            is_first.set()
            assert is_second.wait(60)

    first, second = Event(), Event()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(hear, first, second)
        assert first.wait(60)
        other = pool.submit(hear, second, second)
        one.result()
        other.result()
    torch.set_num_threads(1)
    assert threads == [2, 1]
