"""How fast a library is heard: `python benchmarks/library.py [FOLDER] [--songs N] [--jobs N] [--model M]`.

Without a folder, songs of 4 minutes as stereo mp3 of 192 kbit/s are made from the examples: of each song shuffled parts
of one of them, at a speed of its own. Beside them, in the same run and with as many threads, what it takes to decode
everything and do nothing, as PyAV's documentation shows it. Then how often the verdicts are those of the first row, and
what a cold command takes to start. CPU seconds are those of all processes; other load on the machine moves them less.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn.audio import SUFFIXES, Passages, open_audio  # noqa: E402
from crnn.library.job import QUICK, File, Hearing, at_work, hear, side_by_side  # noqa: E402
from crnn.machine import n_cores  # noqa: E402
from crnn.walk import Walk  # noqa: E402

EXAMPLES = sorted(path for path in (ROOT / "assets" / "examples").iterdir() if path.suffix in SUFFIXES)
SONG_SECONDS, RATE_HZ = 240, 44_100


def make_songs(folder: Path, count: int, seconds: int = SONG_SECONDS) -> None:
    """Write so many songs."""
    for number in range(count):
        random_ = random.Random(number)
        with open_audio(EXAMPLES[number % len(EXAMPLES)], round(RATE_HZ * random_.uniform(0.94, 1.06))) as sound:
            waveform = np.concatenate(list(sound.blocks()), axis=1)[0]
        parts, length = [], 0
        while length < seconds * RATE_HZ:
            part = round(random_.uniform(4, 12) * RATE_HZ)
            start = random_.randrange(max(1, len(waveform) - part))
            parts.append(waveform[start : start + part] * random_.uniform(0.7, 1.0))
            length += len(parts[-1])
        mono = np.concatenate(parts)[: seconds * RATE_HZ].astype(np.float32)
        with av.open(str(folder / f"{number:03}.mp3"), "w") as output:
            stream = output.add_stream("libmp3lame", rate=RATE_HZ, layout="stereo", bit_rate=192_000)
            frame = av.AudioFrame.from_ndarray(np.stack([mono, np.roll(mono, 30)]), format="fltp", layout="stereo")
            frame.sample_rate = RATE_HZ
            output.mux(stream.encode(frame) + stream.encode(None))


def decode(file: File) -> None:
    """Decode and do nothing."""
    with av.open(str(file.path)) as container:
        for _ in container.decode(audio=0):
            pass


def all_decoded(files: Iterable[File], jobs: int) -> dict:
    """The same for all of them."""
    for _ in side_by_side(files, decode, jobs):
        pass
    return {}


def heard(files: Iterable[File], hearing: Hearing, jobs: int) -> Callable[[], dict]:
    """What hears them all, with the model and the decoders ready."""
    stack = ExitStack()
    classifier, files = stack.enter_context(at_work(hearing, files, jobs))
    classifier.predict(EXAMPLES[0])  # what the first one takes longer is part of the start-up

    def all_heard() -> dict:
        with stack:
            answers = hear(files, classifier, hearing, jobs)
            return {file.path: getattr(answer, "verdict", None) for file, answer in answers}

    return all_heard


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def started(*arguments: str) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a Python command, the best of three."""
    runs = []
    for _ in range(3):
        before, since = cpu_seconds(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        runs.append((time.perf_counter() - since, cpu_seconds() - before))
    return min(runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=n_cores())
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument(
        "--passages", nargs="*", default=[], help="other passages to try besides those of --quick, such as 4x5"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        if not args.folder:
            make_songs(folder, args.songs)
        files = [File.of(path) for path in Walk([folder])]
        ways = {
            "thorough, float32": Hearing(args.model),
            "thorough, fastest": Hearing(args.model, precision="fastest"),
            "quick": Hearing(args.model, QUICK, whole_in_doubt=True, precision="fastest"),
            "passages alone": Hearing(args.model, QUICK, precision="fastest"),
        }
        for text in args.passages:
            count, seconds = text.split("x")
            ways[text] = Hearing(args.model, Passages(int(count), float(seconds)), precision="fastest")
        print(f"{len(files)} songs, {args.jobs} jobs\n{'':19} songs/s   CPU s a song   rate/decoding   same verdict")
        first_rate, first_cpu, verdicts = 0.0, 0.0, None
        for name in ["decode, do nothing", *ways]:
            work = heard(files, ways[name], args.jobs) if name in ways else lambda: all_decoded(files, args.jobs)
            before, since = cpu_seconds(), time.perf_counter()
            given = work()
            rate, cpu = len(files) / (time.perf_counter() - since), (cpu_seconds() - before) / len(files)
            first_rate, first_cpu = first_rate or rate, first_cpu or cpu
            verdicts = verdicts or given
            same = f"{sum(given[path] == verdicts[path] for path in given) / len(given):14.0%}" if given else ""
            print(
                f"{name:19} {rate:7.2f} {cpu:14.3f} {rate / first_rate:8.2f} ({first_cpu / cpu:.2f}) {same}", flush=True
            )
    for name, arguments in {"--help": ["--help"], "first answer": [str(EXAMPLES[0])]}.items():
        wall, cpu = started(
            "-m", "crnn", *arguments, *(["--model", args.model] if args.model and name != "--help" else [])
        )
        print(f"{name:19} {wall:7.2f} s {cpu:12.2f} s of CPU")


if __name__ == "__main__":
    main()
