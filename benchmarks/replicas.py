"""Two replicas behind nginx, one of which is killed under load: `python benchmarks/replicas.py [--seconds S]`.

nginx runs with `examples/nginx.conf`, on free ports. Visitors come as in `benchmarks/load.py`; after half of the time a
replica is killed. The exit status is 1 if an answer was wrong or mixed up, if a replica had nothing to do, if nobody
was answered after the end of one, or if somebody lost more than the song that was being heard. Needs nginx.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from tempfile import TemporaryDirectory

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from benchmarks.load import Clip, Record, Server, make_clips, servers, tell, visits  # noqa: E402
from crnn import GenreClassifier  # noqa: E402

PORTS = (7861, 7862)  # of the example


@contextmanager
def nginx(replicas: Sequence[Server]) -> Iterator[str]:
    """The address of nginx, which stands before them."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (ROOT / "examples/nginx.conf").read_text("utf-8").replace("listen 7860", f"listen 127.0.0.1:{port}")
    for number, replica in zip(PORTS, replicas, strict=True):
        text = text.replace(f"127.0.0.1:{number}", replica.url.removeprefix("http://"))
    with TemporaryDirectory() as folder:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        conf = Path(folder) / "nginx.conf"
        user = "user root; " if os.geteuid() == 0 else ""  # else its workers may not write into the folder
        conf.write_text(
            f"{user}daemon off; pid {folder}/pid; error_log {folder}/errors;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{paths}{text}}}\n"
        )
        process = subprocess.Popen(["nginx", "-c", str(conf), "-e", f"{folder}/errors"])
        try:
            while process.poll() is None:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/config", trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


async def visits_with_an_end(
    url: str, replicas: Sequence[Server], clips: Sequence[Clip], n_visitors: int, seconds: float
) -> tuple[Record, int]:
    """What visitors saw, and how many answers there were before the end of the first replica."""
    record = Record()

    async def end() -> int:
        await asyncio.sleep(seconds / 2)
        shares = [replica.cpu_seconds() for replica in replicas]
        n_answers = len(record.seconds)
        for process in [*replicas[0].processes()]:
            process.kill()
        print(
            f"killed after {n_answers} answers; computed so far: {shares[0]:.0f} and {shares[1]:.0f} CPU s", flush=True
        )
        return n_answers

    _, n_before = await asyncio.gather(visits([url], clips, n_visitors, seconds, record), end())
    return record, n_before


def main() -> int:
    """Try and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clip-seconds", type=float, default=30)
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    args = parser.parse_args()
    clips = make_clips(GenreClassifier.from_pretrained(args.model), args.visitors, args.clip_seconds)
    options = ["--model", args.model] if args.model else []
    print(f"{args.visitors} visitors, {args.seconds:.0f} s; load of the machine before: {os.getloadavg()[0]:.1f}")
    with servers(len(PORTS), options) as replicas, nginx(replicas) as url:
        idle = [replica.cpu_seconds() for replica in replicas]
        started = time.monotonic()
        record, n_before = asyncio.run(visits_with_an_end(url, replicas, clips, args.visitors, args.seconds))
        tell(record, time.monotonic() - started)
        worked = replicas[1].cpu_seconds() > idle[1] + 0.1 and n_before > 0
    goes_on = len(record.seconds) > n_before
    return int(not (record.is_sound() and worked and goes_on))


if __name__ == "__main__":
    sys.exit(main())
