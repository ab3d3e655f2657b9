"""Many visitors at once: `python benchmarks/load.py [--visitors N] [--seconds S] [--url URL ...]`.

Each visitor has an address, a session and a clip of his own, whose answer is known beforehand: the same classifier
gives it here. He uploads his clip, waits in the queue, compares the answer, and begins anew, all as the page and
gradio_client do. Told are answers a second, how long they took from the upload on, what was refused and with which
sentence, what was mixed up, how many were told their place and time while they waited; and of the server, which is
started for this, its computing for an answer, its memory and the files of its visitors.

With `--url` a page that runs already, or several, between which visitors change when theirs is gone; whoever loses an
answer uploads his clip again. Visitors have addresses of their own where the page is on this computer and it is Linux.
The exit status is 1 if there was no answer, if one was wrong or mixed up, or if somebody lost more than the song that
was being heard.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import av
import httpx
import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.audio import load_audio  # noqa: E402

RATE_HZ = 44_100
SAME = 1e-2  # that probabilities of one clip may differ by: with other numbers of threads bfloat16 is rounded otherwise
START_SECONDS, ANSWER_SECONDS = 600.0, 600.0
WARM_UP = 20  # songs, before memory is measured for the first time
MEGABYTE = 2**20
GONE = (httpx.TransportError, httpx.HTTPStatusError, EOFError, LookupError)  # a server, or what it knew


class Refused(Exception):  # noqa: N818 - it is no error
    """The server says why there is no answer."""


@dataclass
class Clip:
    """A file and what is to be answered to it."""

    content: bytes
    probabilities: dict[str, float]

    def is_answered_by(self, probabilities: dict[str, float]) -> bool:
        """Whether these are the probabilities of this clip."""
        return probabilities.keys() == self.probabilities.keys() and all(
            abs(probabilities[genre] - share) < SAME for genre, share in self.probabilities.items()
        )


@dataclass
class Record:
    """What all visitors saw."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    refused: Counter = field(default_factory=Counter)  # by sentence
    mixed_up: int = 0
    wrong: int = 0
    waited: int = 0  # who heard of a place in the queue
    told: int = 0  # and of the time that it takes
    lost: int = 0  # answers, with a server
    most_lost: int = 0  # by one visitor, one after the other

    def is_sound(self) -> bool:
        """Whether there were answers, all to the right visitor and right, and nobody lost more than one in a row."""
        return bool(self.seconds) and not self.mixed_up + self.wrong and self.most_lost <= 1


def make_clips(classifier: GenreClassifier, n_clips: int, seconds: float) -> list[Clip]:
    """Mixtures of two examples each, as stereo mp3 of 192 kbit/s, no two of which have one answer."""
    examples = sorted(path for path in (ROOT / "assets/examples").iterdir() if path.suffix in (".mp3", ".ogg", ".m4a"))
    sounds = [np.resize(load_audio(path, RATE_HZ), int(seconds * RATE_HZ)) for path in examples]
    random, clips = np.random.default_rng(0), []
    while len(clips) < n_clips:
        first, second = random.choice(len(sounds), 2, replace=False)
        share = random.uniform(0.1, 0.9)
        mixed = share * np.roll(sounds[first], random.integers(RATE_HZ)) + (1 - share) * sounds[second]
        content = mp3(np.stack([mixed, np.roll(mixed, 30)]))
        clip = Clip(content, classifier.predict(content).probabilities)
        if not any(other.is_answered_by(clip.probabilities) for other in clips):
            clips.append(clip)
    return clips


def mp3(waveform: np.ndarray) -> bytes:
    """A file of a waveform (2, samples)."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as output:
        stream = output.add_stream("libmp3lame", rate=RATE_HZ, layout="stereo", bit_rate=192_000)
        frame = av.AudioFrame.from_ndarray(waveform.astype(np.float32), format="fltp", layout="stereo")
        frame.sample_rate = RATE_HZ
        output.mux(stream.encode(frame) + stream.encode(None))
    return file.getvalue()


class Visitor:
    """Someone who wants one clip heard, again and again."""

    def __init__(self, number: int, urls: Sequence[str], clips: Sequence[Clip], record: Record) -> None:
        self.urls = [*urls[number % len(urls) :], *urls[: number % len(urls)]]
        self.clips, self.clip, self.record = clips, clips[number % len(clips)], record
        self.session = secrets.token_hex(6)
        here = urlsplit(urls[0]).hostname in ("127.0.0.1", "localhost") and sys.platform == "linux"
        address = f"127.{1 + number // 250}.{1 + number % 250}.1" if here else None
        transport = httpx.AsyncHTTPTransport(local_address=address)
        self.client = httpx.AsyncClient(transport=transport, timeout=ANSWER_SECONDS, trust_env=False)
        self.opens_page = number % 2 == 0  # and gets the cookie of a proxy; the others are programs

    async def visit(self, until: float) -> None:
        """Have the clip heard until it is time to go."""
        async with self.client:
            n_lost = 0
            while time.monotonic() < until:
                started = time.monotonic()
                try:
                    probabilities = await self.ask(self.urls[0])
                except Refused as refused:
                    self.record.refused[str(refused)] += 1
                    await asyncio.sleep(1)
                    continue
                except GONE:
                    n_lost += 1
                    self.record.lost += 1
                    self.record.most_lost = max(self.record.most_lost, n_lost)
                    self.urls.append(self.urls.pop(0))
                    await asyncio.sleep(0.2)
                    continue
                n_lost = 0
                self.record.seconds.append(time.monotonic() - started)
                if not self.clip.is_answered_by(probabilities):
                    is_other = any(clip.is_answered_by(probabilities) for clip in self.clips)
                    self.record.mixed_up += is_other
                    self.record.wrong += not is_other

    async def ask(self, url: str) -> dict[str, float]:
        """The probabilities of the clip. Raises Refused, or one of GONE."""
        api = f"{url.rstrip('/')}/gradio_api"
        if self.opens_page:
            checked(await self.client.get(url))
            self.opens_page = False
        sent = await self.client.post(f"{api}/upload", files={"files": ("song.mp3", self.clip.content)})
        checked(sent)
        file = {"path": sent.json()[0], "orig_name": "song.mp3", "meta": {"_type": "gradio.FileData"}}
        question = {"data": [file], "fn_index": await function(self.client, url), "session_hash": self.session}
        joined = await self.client.post(f"{api}/queue/join", json=question)
        checked(joined)
        has_waited = is_told = False
        async for message in self.messages(api):
            if message["msg"] == "estimation":
                has_waited = True
                is_told |= message["rank_eta"] is not None
            elif message["msg"] == "process_completed":
                self.record.waited += has_waited
                self.record.told += is_told
                if not message["success"]:
                    said = message["output"]["error"] or "(no sentence)"
                    raise LookupError if "Cannot find" in said or "not uploaded" in said else Refused(said)
                return message["output"]["data"][0]["probabilities"]
        raise EOFError

    async def messages(self, api: str) -> AsyncIterator[dict]:
        """What the server tells this session."""
        async with self.client.stream("GET", f"{api}/queue/data", params={"session_hash": self.session}) as told:
            checked(told)
            async for line in told.aiter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "unexpected_error":
                        raise EOFError
                    yield message


def checked(answer: httpx.Response) -> None:
    """Raises HTTPStatusError for a server that is gone, Refused for one that says why it does not answer."""
    if answer.status_code in (429, 503, 507):
        raise Refused(f"{answer.status_code} {answer.text.strip()[:200]}")
    answer.raise_for_status()


FUNCTIONS: dict[str, int] = {}


async def function(client: httpx.AsyncClient, url: str) -> int:
    """The number of the endpoint /classify."""
    if url not in FUNCTIONS:
        config = (await client.get(f"{url.rstrip('/')}/config")).json()
        FUNCTIONS[url] = next(number["id"] for number in config["dependencies"] if number["api_name"] == "classify")
    return FUNCTIONS[url]


async def visits(
    urls: Sequence[str], clips: Sequence[Clip], n_visitors: int, seconds: float, record: Record | None = None
) -> Record:
    """Let visitors come all at once and go after some seconds, each when he has the answer that he waits for."""
    record, until = record or Record(), time.monotonic() + seconds
    await asyncio.gather(*(Visitor(number, urls, clips, record).visit(until) for number in range(n_visitors)))
    return record


class Server:
    """A page in a process of its own, its folder of uploads, and what both take."""

    def __init__(self, folder: Path, options: Sequence[str], environment: dict[str, str] | None = None) -> None:
        with create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.folder, self.url, self.log = folder, f"http://127.0.0.1:{port}", folder.with_suffix(".log")
        own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(folder)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "app.py"), *options],
                env=os.environ | own | (environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.most_bytes = self.most_on_disk = 0

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError if it ends instead."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url, trust_env=False).is_success:
                    return
            time.sleep(0.2)
        raise RuntimeError(self.log.read_text())

    def processes(self) -> Iterator[psutil.Process]:
        """It and those that decode for it."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            yield from [process, *process.children(recursive=True)]

    def n_bytes(self) -> int:
        """Its memory; what processes share counts once."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def cpu_seconds(self) -> float:
        """What it has computed so far."""
        return sum(sum(process.cpu_times()[:4]) for process in [*self.processes()][:1]) + sum(
            sum(process.cpu_times()[:2]) for process in [*self.processes()][1:]
        )

    def on_disk(self) -> tuple[int, int]:
        """Files of visitors, and their bytes."""
        sizes = []
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    async def watch(self) -> None:
        """Note the most that it takes, until this is cancelled."""
        while True:
            self.most_bytes = max(self.most_bytes, self.n_bytes())
            self.most_on_disk = max(self.most_on_disk, self.on_disk()[1])
            await asyncio.sleep(1)

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def servers(n_servers: int, options: Sequence[str]) -> Iterator[list[Server]]:
    """Pages that are ready to answer."""
    with TemporaryDirectory() as folder:
        started = [Server(Path(folder) / str(number), options) for number in range(n_servers)]
        try:
            for server in started:
                server.wait()
            yield started
        finally:
            for server in started:
                server.end()


def tell(record: Record, seconds: float) -> None:
    """Print what the visitors saw."""
    print(f"answers             {len(record.seconds)}, {len(record.seconds) / seconds:.2f} a second")
    if record.seconds:
        shares = np.percentile(record.seconds, [50, 95, 99])
        print("seconds to answer   " + ", ".join(f"p{n} {s:.1f}" for n, s in zip((50, 95, 99), shares, strict=True)))
    print(f"waited in the queue {record.waited}, told place and time {record.told}")
    print(f"refused             {sum(record.refused.values())}")
    for sentence, count in record.refused.most_common(5):
        print(f"    {count} times: {sentence}")
    print(f"mixed up            {record.mixed_up}; wrong {record.wrong}")
    print(f"lost with a server  {record.lost}, of one visitor at most {record.most_lost} in a row")


async def load_server(server: Server, clips: Sequence[Clip], n_visitors: int, seconds: float, rest: float) -> Record:
    """Visits to a server of ours, with what they cost it."""
    n_warm = max(2, WARM_UP // n_visitors)
    for _ in range(n_warm):
        await visits([server.url], clips, min(n_visitors, WARM_UP), 0.01)
    before, cpu = server.n_bytes(), server.cpu_seconds()
    disk = server.on_disk()
    watch = asyncio.create_task(server.watch())
    started = time.monotonic()
    record = await visits([server.url], clips, n_visitors, seconds)
    lasted = time.monotonic() - started
    cpu = server.cpu_seconds() - cpu
    disk_then = server.on_disk()
    tell(record, lasted)
    watch.cancel()
    print(f"computing           {cpu / max(1, len(record.seconds)):.3f} CPU s an answer, {cpu / lasted:.2f} cores")
    sys.stdout.flush()
    await asyncio.sleep(rest)
    after, disk_after = server.n_bytes(), server.on_disk()
    print(
        f"memory, MB          before {before / MEGABYTE:.0f}, most {server.most_bytes / MEGABYTE:.0f}, "
        f"{rest:.0f} s after {after / MEGABYTE:.0f} ({after / before - 1:+.1%})"
    )
    print(
        f"uploads, MB         before {disk[1] / MEGABYTE:.0f}, most {server.most_on_disk / MEGABYTE:.0f}, "
        f"at the end {disk_then[1] / MEGABYTE:.0f} ({disk_then[0]} files), "
        f"{rest:.0f} s after {disk_after[1] / MEGABYTE:.0f} ({disk_after[0]} files)"
    )
    return record


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clip-seconds", type=float, default=30)
    parser.add_argument(
        "--rest", type=float, default=60, help="seconds to wait before memory is measured for the last time"
    )
    parser.add_argument(
        "--url", action="append", help="the address of a page that already runs; may be given several times"
    )
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--app", default="", help="further options for app.py, as one argument")
    args = parser.parse_args()
    classifier = GenreClassifier.from_pretrained(args.model, precision="fastest")
    clips = make_clips(classifier, args.visitors, args.clip_seconds)
    print(f"{classifier.origin.name}, {os.cpu_count()} cores, {args.visitors} visitors, {args.seconds:.0f} s")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    if args.url:
        started = time.monotonic()
        record = asyncio.run(visits(args.url, clips, args.visitors, args.seconds))
        tell(record, time.monotonic() - started)
    else:
        options = [*(["--model", args.model] if args.model else []), *args.app.split()]
        with servers(1, options) as (server,):
            record = asyncio.run(load_server(server, clips, args.visitors, args.seconds, args.rest))
    return int(not record.is_sound())


if __name__ == "__main__":
    sys.exit(main())
