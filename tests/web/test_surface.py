"""What strangers send to the running page: what is not theirs is refused, and nothing is fetched for them."""

import asyncio
import base64
import errno
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
import torch
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

import app
from crnn import files
from crnn.inference import GenreClassifier
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.web import gate, server
from crnn.web.uploads import LOCK_FILE

MARKUP = "<img src=x onerror=alert(1)>"
META = {"_type": "gradio.FileData"}
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n1\r\n--b--\r\n'


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def demo(uploads: Path) -> Iterator[gr.Blocks]:
    """The page, served with a tiny model of a stranger."""
    torch.manual_seed(0)
    config = CRNNConfig(
        genres=(MARKUP, "jazz"), channels=(4, 4), mel_pools=(8, 16), time_pools=(4, 4), recurrent_size=4
    )
    classifier = GenreClassifier(CRNN(config).eval(), Origin(MARKUP, MARKUP, card=MARKUP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("NO_PROXY", "127.0.0.1")
        demo = app.build_demo(classifier)
        options = {"server_name": "127.0.0.1", "prevent_thread_lock": True, "quiet": True}
        demo.launch(**app.launch_options(), **options)
        yield demo
        demo.close()


@pytest.fixture(scope="module")
def client(demo: gr.Blocks) -> Iterator[httpx.Client]:
    """What asks the page."""
    with httpx.Client(base_url=demo.local_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def inside() -> Iterator["Inside"]:
    """A server that is not to be reached from outside."""
    server = Inside(("127.0.0.1", 0), Asked)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Inside(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}/a.wav"


class Asked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a secret")

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def song(tmp_path: Path, write_wav: Callable, tone: Callable) -> bytes:
    return write_wav(tmp_path / "song.wav", tone(2)).read_bytes()


def ask(client: httpx.Client, *data: object, name: str = "classify") -> tuple[str, object]:
    """How a question to the API ends, "complete" or "error", and what is answered."""
    asked = client.post(f"/gradio_api/call/{name}", json={"data": data})
    told = client.get(f"/gradio_api/call/{name}/{asked.json()['event_id']}").text
    event, _, answer = told.strip().split("\n\n")[-1].partition("\n")
    return event.removeprefix("event: "), json.loads(answer.strip().removeprefix("data: "))


def upload(client: httpx.Client, content: bytes, name: str = "song.wav") -> str:
    """The path that an upload gets."""
    return client.post("/gradio_api/upload", files={"files": (name, content)}).json()[0]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        f"/gradio_api/file={app.__file__}",
        f"/gradio_api/file={app.EXAMPLES}/../models/crnn-transfer/config.json",
        f"/gradio_api/file={app.EXAMPLES}/%2e%2e/models/crnn-transfer/config.json",
        "/gradio_api/file=/etc/passwd%00.mp3",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/file//etc/passwd",
        "/gradio_api/deep_link?session_hash=x",
        "/static/..%2f..%2froutes.py",
        "/assets/..%2f..%2f..%2froutes.py",
        "/svelte/..%2f..%2f..%2fetc%2fpasswd",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/run-history/buckets",
        "/gradio_api/vibe-code",
        "/gradio_api/dev/reload",
        "/gradio_api/token",
        "/gradio_api/user",
        "/gradio_api/login_check",
        "/gradio_api/queue/status",
    ],
)
def test_nothing_but_uploads_and_examples_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 403, 404)
    assert "root:" not in answer.text
    example = next(app.EXAMPLES.glob("*.mp3"))
    assert client.get(f"/gradio_api/file={example}").content == example.read_bytes()


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.png", "a.webp", "a.svg", "a.html", "a", "a.mp3"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}])
def test_uploads_are_served_as_sounds_or_as_downloads(client: httpx.Client, name: str, headers: dict[str, str]) -> None:
    answer = client.get(f"/gradio_api/file={upload(client, MARKUP.encode(), name)}", headers=headers)
    assert answer.content == MARKUP.encode()[: 4 if headers else None]
    way = "inline" if name == "a.mp3" else "attachment"
    assert answer.headers["content-disposition"].partition(";")[0] == way


@pytest.mark.parametrize("wanted", ["0-1,4-5", "0-,0-", "1-2-3", "x-y", "²-³", "5-2", f"{'9' * 5_000}-"])
def test_who_wants_other_than_one_part_of_a_file_gets_all(client: httpx.Client, song: bytes, wanted: str) -> None:
    path = f"/gradio_api/file={upload(client, song)}"
    answer = client.get(path, headers={"Range": f"bytes={wanted}".encode()})
    assert (answer.status_code, answer.content) == (200, song)
    for one, part in (("4-7", song[4:8]), ("4-", song[4:]), ("-4", song[-4:])):
        answer = client.get(path, headers={"Range": f"bytes={one}"})
        assert (answer.status_code, answer.content) == (206, part)
    assert client.get(path, headers={"Range": f"bytes={len(song)}-{len(song)}"}).status_code == 416


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-3"}, {"Range": "bytes=4-"}, {"Range": "bytes=-4"}])
def test_a_file_comes_with_its_own_headers_and_none_of_the_question(
    client: httpx.Client, song: bytes, asked: dict[str, str]
) -> None:
    """A proxy puts secrets into these, and another site could let its own script read them."""
    path = f"/gradio_api/file={upload(client, song)}"
    names = ["Cookie", "Authorization", "X-Auth-Request-Access-Token", "X-Forwarded-For", "Set-Cookie", "Location"]
    names += ["Content-Type", "Content-Encoding", "Cache-Control", "ETag", "Access-Control-Expose-Headers"]
    names += ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "User-Agent"]
    answer = client.get(path, headers=asked | dict.fromkeys(names, "secret"))
    assert "secret" not in str(answer.headers.raw)
    own = {"content-type", "content-disposition", "content-length", "accept-ranges", "last-modified", "etag"}
    own |= {"x-content-type-options", "date", "server"} | ({"content-range"} if asked else set())
    assert {*answer.headers} == own
    assert client.get(path, headers=asked | {"If-Range": '"another"'}).content == song
    assert client.get(path, headers=asked | {"If-Range": answer.headers["etag"]}).content == answer.content


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/?page=2", {}),
        ("POST", "/gradio_api/call/nope", {"json": {"data": []}}),
        ("POST", "/gradio_api/run/nope", {"json": {"data": []}}),
        ("POST", "/gradio_api/call/v2/nope", {"json": {}}),
        ("POST", "/gradio_api/call/v2/classify", {"json": {}}),
        ("POST", "/gradio_api/queue/join", {"json": {"data": [], "fn_index": 99, "session_hash": "x"}}),
        ("POST", "/gradio_api/queue/join", {"json": {"data": [], "fn_index": -1, "session_hash": "x"}}),
        ("POST", "/gradio_api/upload", {"content": FIELD, "headers": BOUNDARY}),
        ("POST", "/gradio_api/upload", {"headers": {"Content-Type": f"multipart/form-data; boundary={'b' * 300}"}}),
    ],
)
def test_what_gradio_has_no_answer_to_gets_a_sentence(
    client: httpx.Client, capfd: pytest.CaptureFixture[str], method: str, path: str, sent: dict
) -> None:
    """And the host a line."""
    answer = client.request(method, path, **sent)
    assert (answer.status_code, answer.text) == (400, gate.NOT_UNDERSTOOD)
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{method} {path.partition('?')[0]}: " in line


@pytest.mark.parametrize(
    "data",
    [
        ["song.wav"],
        ["data:audio/wav;base64,UklGRg=="],
        [{"path": "x"}],
        [{"path": "/etc/passwd", "meta": META}],
        [["song.wav"]],
        [7],
        [],
    ],
)
@pytest.mark.parametrize("name", ["classify", "classify_batch"])
def test_a_question_without_an_upload_is_told_how_to_ask(
    client: httpx.Client, capfd: pytest.CaptureFixture[str], name: str, data: list
) -> None:
    event, told = ask(client, *data, name=name)
    is_shape_wrong = data and isinstance(data[0], list if name == "classify" else dict)
    assert (event, told["error"]) == ("error", server.WRONG_SHAPE if is_shape_wrong else server.NO_SONG)
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["classify", "classify_batch"])
def test_uploads_in_another_shape_are_told_which_endpoint_takes_them(
    client: httpx.Client, song: bytes, name: str
) -> None:
    file = {"path": upload(client, song), "meta": META}
    event, told = ask(client, [file] if name == "classify" else file, name=name)
    assert (event, told["error"]) == ("error", server.WRONG_SHAPE)


def test_what_the_page_would_not_ask_is_told_as_that(
    demo: gr.Blocks, client: httpx.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    number = next(fn._id for fn in demo.fns.values() if fn.name == "hear_many")
    asked = {"fn_index": number, "data": ["song.wav", None, None], "session_hash": "odd"}
    client.post("/gradio_api/queue/join", json=asked)
    assert server.OUT_OF_DATE in client.get("/gradio_api/queue/data?session_hash=odd").text
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_uploads_cannot_be_listed_or_guessed(client: httpx.Client, uploads: Path, song: bytes) -> None:
    """Their folders have names of 64 signs that depend on a number which the server has drawn."""
    path = Path(upload(client, song))
    assert client.get(f"/gradio_api/file={path}").content == song
    assert len(path.parent.name) == 64
    for folder in (uploads, path.parent, path.parent.parent):
        assert client.get(f"/gradio_api/file={folder}/").status_code == 403


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "file:///etc/passwd", app.__file__, "{uploads}/../x", "", "concat:/etc/passwd"]
)
def test_only_what_was_uploaded_is_heard(client: httpx.Client, uploads: Path, path: str) -> None:
    file = {"path": path.format(uploads=uploads), "meta": META}
    for data, name in ((file, "classify"), ([file], "classify_batch"), ({**file, "is_stream": True}, "classify")):
        assert ask(client, data, name=name)[0] == "error"


def test_nothing_is_fetched_for_a_visitor(
    client: httpx.Client, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where Gradio would take the address for a public one."""
    monkeypatch.setattr("safehttpx.is_public_ip", lambda _: True)
    for url in (inside.url, inside.url.replace("127.0.0.1", "localhost"), inside.url.replace("http:", "HTTP:")):
        for file in ({"path": url}, {"path": "x", "url": url}, {"path": url, "is_stream": True}):
            assert ask(client, {**file, "meta": META})[0] == "error"
            assert ask(client, [{**file, "meta": META}], name="classify_batch")[0] in ("error", "complete")
        answer = client.get(f"/gradio_api/file={url}")
        assert (answer.status_code, answer.text) == (403, gate.NO_ADDRESSES)
        assert client.get(f"/gradio_api/file/{url}").status_code == 404
    event, told = ask(client, {"path": inside.url, "meta": META})
    assert (event, told["error"]) == ("error", gate.NO_ADDRESSES)
    assert not inside.asked
    httpx.get(inside.url, trust_env=False)
    assert inside.asked  # it would have noticed


def test_no_program_of_the_machine_runs_on_what_is_sent(
    client: httpx.Client, uploads: Path, song: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio takes ffmpeg where there is one, outside of what bounds decoding."""
    for name in ("ffmpeg", "ffprobe"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/it-ran\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    before = files_in(uploads)
    answer = client.post("/gradio_api/process_recording", files={"video": ("a.mp4", song)})
    assert (answer.status_code, answer.text) == (404, gate.NOTHING_THERE)
    assert files_in(uploads) == before
    path = upload(client, song, "song.aiff")
    assert app.song_input().postprocess(path).path == path
    assert not (tmp_path / "it-ran").exists()


def test_a_list_of_songs_leaves_no_files_and_answers_each_once(
    client: httpx.Client, uploads: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    predict = GenreClassifier.predict
    monkeypatch.setattr(
        GenreClassifier, "predict", lambda self, path, **how: heard.append(path) or predict(self, path, **how)
    )
    path = upload(client, song)
    before = files_in(uploads)
    event, (answers,) = ask(client, [{"path": path, "meta": META}] * 5, name="classify_batch")
    assert (event, len(answers), heard) == ("complete", 5, [path])
    assert answers[0] == answers[4]
    assert files_in(uploads) == before


def test_a_language_model_names_an_upload_but_no_other_address(
    client: httpx.Client, inside: Inside, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safehttpx.is_public_ip", lambda _: True)
    path = upload(client, song)
    own = f"{client.base_url}gradio_api/file={path}"
    foreign = f"{client.base_url}gradio_api/file={app.__file__}"

    async def ask_tools() -> list:
        async with (
            streamablehttp_client(f"{client.base_url}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            urls = own, inside.url, foreign, path, "data:x"
            one = [await session.call_tool("classify", {"song": url}) for url in urls]
            return one + [await session.call_tool("classify_batch", {"songs": [own, url]}) for url in urls]

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(asyncio.run, ask_tools()).result()
    one, many = answers[: len(answers) // 2], answers[len(answers) // 2 :]
    for answered, *refused in (one, many):
        assert not answered.isError
        assert "probabilities" in str(json.loads(answered.content[0].text))
        assert {(answer.isError, answer.content[0].text) for answer in refused} == {(True, gate.NO_ADDRESSES)}
    assert not inside.asked


def test_what_a_language_model_sends_is_kept_with_the_uploads(
    demo: gr.Blocks, client: httpx.Client, uploads: Path, song: bytes
) -> None:
    """Both what Gradio makes of it and what it sends to itself; as it was imported, the first belonged elsewhere."""
    before = files_in(uploads)
    answer = ask_tool(client, "classify_batch", songs=[sent(song)])
    assert "probabilities" in answer["content"][0]["text"]
    kept = files_in(uploads) - before
    assert [path.name for path in kept] == ["file.wav"] * 2
    assert {*map(str, kept)} <= demo.upload_file_set


def test_what_is_wrong_with_a_question_of_a_language_model_is_told_in_short(client: httpx.Client, song: bytes) -> None:
    """And not with the whole song that it has sent."""
    for asked in ({"songs": sent(song)}, {"songs": {"a": sent(song)}}):
        answer = ask_tool(client, "classify_batch", **asked)
        (told,) = answer["content"]
        assert answer["isError"]
        assert told["text"].endswith("is not of type 'array'")
        assert len(told["text"]) < 500


def sent(song: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(song).decode()}"


def ask_tool(client: httpx.Client, name: str, **arguments: object) -> dict:
    """What a tool for language models answers."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    answer = client.post("/gradio_api/mcp/", json=asked, headers={"Accept": "application/json, text/event-stream"})
    return json.loads(answer.text.partition("data: ")[2])["result"]


def test_a_body_without_end_is_not_read(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_BODY", 2**20)
    body = b'{"data": ["' + b"a" * 2**20 + b'"]}'
    answer = client.post("/gradio_api/call/classify", content=body)
    assert (answer.status_code, answer.text) == (413, "This is too large: at most 1 MB are read.")
    unannounced = iter([body])
    assert client.post("/gradio_api/call/classify", content=unannounced).status_code in (400, 413)
    assert client.post("/gradio_api/call/classify", json={"data": [None]}).status_code == 200


def test_a_flood_of_headers_is_refused(client: httpx.Client) -> None:
    for headers in (b"X: " + b"a" * 2**20, b"\r\n".join(b"X-%d: a" % n for n in range(50_000))):
        answer = say(client, b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")) or not answer  # or cut off


def say(client: httpx.Client, request: bytes) -> bytes:
    """The first bytes of what is answered to these, none if the connection is cut."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        try:
            connection.sendall(request)
            return connection.recv(100)
        except OSError:
            return b""


def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.Client, uploads: Path) -> None:
    before = files_in(uploads)
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
    head += b"".join(f"{name}: {value}\r\n".encode() for name, value in BOUNDARY.items())
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head + b"\r\n" + PART + b"a" * 2**20)
        wait_until(lambda: files_in(uploads) != before)
    wait_until(lambda: files_in(uploads) == before)


@pytest.mark.parametrize(
    "path", ["gradio_api/component_server", "gradio_api/component_server/", "gradio_api/process_recording", "login"]
)
def test_nothing_is_taken_by_what_the_page_does_not_use(
    demo: gr.Blocks,
    client: httpx.Client,
    uploads: Path,
    song: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """Neither a file, here or among the temporary ones of the machine, nor a visit."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = files_in(uploads), files_in(tmp_path), len(demo.state_holder.session_data)
    question = {"session_hash": "new", "component_id": "1", "fn_name": "x"}
    for sent in ({"json": question | {"data": None}}, {"data": question, "files": {"file": ("a.wav", song)}}):
        answer = client.post(f"/{path}", **sent)
        assert (answer.status_code, answer.text) == (404, gate.NOTHING_THERE)
    assert (files_in(uploads), files_in(tmp_path), len(demo.state_holder.session_data)) == before


def test_what_gradio_makes_of_a_wrong_upload_goes_with_time(
    demo: gr.Blocks, client: httpx.Client, uploads: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps a file under another name, and, for who follows the upload, one that a field comes after."""
    before = files_in(uploads)
    client.post("/gradio_api/upload", files={"others": ("song.wav", song)})
    field = b'\r\n--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    answer = client.post("/gradio_api/upload?upload_id=followed", content=PART + song + field, headers=BOUNDARY)
    assert answer.status_code == 400
    assert len(files_in(uploads) - before) == 2
    monkeypatch.setattr(demo.uploads, "folder", uploads)
    monkeypatch.setattr(demo.uploads, "is_own", True)
    demo.uploads.sweep()
    assert len(files_in(uploads) - before) == 3
    now = time.monotonic()
    monkeypatch.setattr("crnn.web.uploads.time", SimpleNamespace(monotonic=lambda: now + 3_601))  # not the server's
    demo.uploads.sweep()
    assert files_in(uploads) <= before | {uploads / LOCK_FILE}


def test_uploads_that_nobody_follows_to_their_end_are_forgotten(
    client: httpx.Client, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crnn.web.server.MOST_FOLLOWED", 3)
    for number in range(8):
        client.post(f"/gradio_api/upload?upload_id={number}", files={"files": ("song.wav", song)})
    followed = gr.routes.file_upload_statuses
    assert [*followed._statuses] == ["5", "6", "7"]
    assert '"msg": "done"' in client.get("/gradio_api/upload_progress?upload_id=7").text
    assert [*followed._statuses] == ["5", "6"]
    assert client.get("/gradio_api/upload_progress?upload_id=none").status_code == 404
    assert len(followed._signals) <= 3


def test_the_path_under_which_a_proxy_shows_the_page_opens_no_door(
    demo: gr.Blocks, client: httpx.Client, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routes are found with and without it, so that what is closed is closed with and without it."""
    monkeypatch.setattr(demo.app, "root_path", "/genres")
    monkeypatch.setattr(files, "KEPT_FREE", 2**60)
    for root in ("", "/genres"):
        assert client.post(f"{root}/gradio_api/process_recording").status_code == 404
        assert client.get(f"{root}/gradio_api/stream/x").text == gate.NOTHING_THERE
        assert client.get(f"{root}/gradio_api/dev/reload").text == gate.NOTHING_THERE
        assert client.get(f"{root}/gradio_api/info").is_success
        assert client.get(f"{root}/gradio_api/file=http://elsewhere.example/a.wav").status_code == 403
        assert client.post(f"{root}/gradio_api/upload", files={"files": ("song.wav", song)}).status_code == 507


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_uploads_do_not_fill_the_disk(
    client: httpx.Client, uploads: Path, song: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The host hears of it at the start, and not each time."""
    monkeypatch.setattr(files, "KEPT_FREE", 2**60)
    answer = client.post("/gradio_api/upload", files={"files": ("song.wav", song)})
    assert answer.status_code == 507
    assert "no room" in answer.text
    capsys.readouterr()
    assert not gate.Gate(None, uploads).has_room(0)
    said = f"app.py: Songs are refused, as the disk of {uploads.parent} has to keep a gigabyte free: GRADIO_TEMP_DIR "
    logged = capsys.readouterr().err
    assert logged.startswith(said)
    assert logged.count("\n") == 1
    monkeypatch.undo()
    assert upload(client, song)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_that_has_the_log_too_refuses_songs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "KEPT_FREE", 2**60)
    with Path("/dev/full").open("w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        assert not gate.Gate(None, tmp_path).has_room(0)


def test_a_disk_that_fills_in_an_upload_keeps_nothing_of_it(
    client: httpx.Client, uploads: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, asked = files_in(uploads), iter([True, True])
    monkeypatch.setattr(gate.Gate, "has_room", lambda *_: next(asked, False))

    def body() -> Iterator[bytes]:
        yield PART + song[:1_000]
        yield b"a" * 2**20

    answer = client.post("/gradio_api/upload", content=body(), headers=BOUNDARY)
    assert answer.status_code == 400
    assert answer.text == gate.NO_ROOM
    assert files_in(uploads) == before
    monkeypatch.undo()
    assert upload(client, song)


def test_other_sites_do_not_read_the_page_of_ones_own_computer(client: httpx.Client) -> None:
    answer = client.get("/config", headers={"Origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers
    for host in ("localhost", "x.localhost", "LOCALHOST.", "[::1]", "127.0.0.1.", "a-name-of-it.example"):
        asked = {"Host": f"{host}:7860", "Origin": "http://elsewhere.example"}
        for origin in (asked, asked | {"Origin": "null"}):
            assert "access-control-allow-origin" not in client.get("/config", headers=origin).headers
        before = asked | {"Access-Control-Request-Method": "POST"}
        answer = client.options("/gradio_api/call/classify", headers=before)
        assert not {"access-control-allow-origin", "access-control-allow-credentials"} & {*answer.headers}
    near = client.get("/config", headers={"Origin": "http://localhost:3000"})
    assert near.headers["access-control-allow-origin"] == "http://localhost:3000"
    form = {"Origin": "http://elsewhere.example", "Content-Type": "text/plain"}  # what needs no leave from the browser
    assert client.post("/gradio_api/call/classify", content=b'{"data": [null]}', headers=form).status_code == 422


@pytest.mark.parametrize(
    ("address", "host", "may_read"),
    [
        ("192.0.2.1", "genres.example", True),
        ("192.0.2.1", "127.0.0.1.example", True),
        ("192.0.2.1", "x.localhost:7860", False),  # a container's address, asked on its computer
        ("::ffff:127.0.0.1", "genres.example", False),
        ("::1", "genres.example", False),
    ],
)
def test_other_sites_read_a_public_page_alone(address: str, host: str, may_read: bool) -> None:
    sent = []

    async def answer(_: object, __: object, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def note(message: dict) -> None:
        sent.append(dict(message["headers"]))

    headers = [(b"host", host.encode()), (b"origin", b"http://elsewhere.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "server": (address, 7860)}
    asyncio.run(server.CrossOrigin(answer)(scope, None, note))
    assert (b"access-control-allow-origin" in sent[0]) == may_read
    assert b"access-control-allow-credentials" not in sent[0]  # to no site is it its visitor's


@pytest.mark.parametrize("name", ["../../evil.wav", "/etc/evil.wav", f"{MARKUP}.wav", "evil.html", "..\\..\\evil.wav"])
def test_no_name_leads_elsewhere_or_becomes_a_page(client: httpx.Client, uploads: Path, name: str) -> None:
    path = Path(upload(client, MARKUP.encode(), name))
    assert path.resolve().is_relative_to(uploads)
    answer = client.get(f"/gradio_api/file={path}")
    kind, sniffing = answer.headers["content-type"], answer.headers["x-content-type-options"]
    assert "html" not in kind
    assert sniffing == "nosniff"


def test_a_strangers_model_says_no_markup(client: httpx.Client, song: bytes) -> None:
    """Its genres, name and notice in what the page is made of; the card is Markdown without HTML."""
    config = client.get("/config").json()
    values = [component["props"].get("value") for component in config["components"]]
    assert any(isinstance(value, str) and "&lt;img src=x onerror" in value for value in values)
    assert not any(isinstance(value, str) and "<img src=x" in value for value in values)
    event, (answer,) = ask(client, {"path": upload(client, song), "meta": META})
    assert event == "complete"
    assert MARKUP in answer["probabilities"]  # data, for programs


def test_what_the_server_lacks_is_no_fault_of_who_asks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    told: list[dict] = []

    async def send(message: dict) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(gate.Gate(full, tmp_path)(scope, None, send))
    assert told[0]["status"] == 503
    assert told[1]["body"].decode() == gate.OWN_TROUBLE
    assert "Too many open files" in capfd.readouterr().err
