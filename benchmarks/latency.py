"""How long a song takes to its answer: `python benchmarks/latency.py [SONG] [--model M] [--runs N]`.

Prints the median of each step over the runs, after one warm-up run, in milliseconds; without a song, of an example.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.audio import load_audio  # noqa: E402
from crnn.web.view import song_view  # noqa: E402


def timed(step: Callable[[], object]) -> tuple[float, object]:
    """The milliseconds that `step` takes, and its result."""
    started = time.perf_counter()
    result = step()
    return 1_000 * (time.perf_counter() - started), result


def measure(classifier: GenreClassifier, song: Path) -> dict[str, float]:
    """Milliseconds of each step from the file to the page."""
    decode, waveform = timed(lambda: load_audio(song))
    log_mel, _ = timed(lambda: classifier.front_end(torch.from_numpy(waveform)))
    predict, prediction = timed(lambda: classifier.predict_waveform(waveform))
    drawing, _ = timed(lambda: json.dumps(song_view(song.name, prediction, waveform)))
    return {
        "decode": decode,
        "log-mel": log_mel,
        "model": predict - log_mel,
        "song to answer": decode + predict,
        "data of the page's drawing": drawing,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, default=ROOT / "assets" / "examples" / "rock.mp3")
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    classifier = GenreClassifier.from_pretrained(args.model)
    first = measure(classifier, args.song)
    runs = [measure(classifier, args.song) for _ in range(args.runs)]
    seconds = classifier.predict(args.song).duration_seconds
    print(f"{args.song.name} ({seconds:.1f} s), {classifier.origin.name}, {torch.get_num_threads()} threads")
    for step in first:
        print(f"{step:27} {statistics.median(run[step] for run in runs):7.1f} ms  (first time {first[step]:.0f} ms)")


if __name__ == "__main__":
    main()
