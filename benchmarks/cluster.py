"""How fast a Ray cluster of this machine hears a library: `python benchmarks/cluster.py [--songs N] [--workers 1 2]`.

Songs of 30 s are cut from the examples. Counted are those behind each worker's first part, so that neither the start of
Ray nor that of the workers is in it; the share of a core that the workers got says how idle the machine was. It needs
`pip install 'ray[data]'`.
"""

import argparse
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn.audio import SUFFIXES  # noqa: E402
from crnn.library import cluster  # noqa: E402
from crnn.library.job import Hearing  # noqa: E402
from crnn.library.table import Columns  # noqa: E402

PART_SONGS = 4


def cpu_seconds() -> float:
    """What all processes below this one have computed."""
    return sum(sum(process.cpu_times()[:2]) for process in psutil.Process().children(recursive=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    args = parser.parse_args()
    if not find_spec("ray") or not find_spec("pyarrow"):
        sys.exit("This needs packages that are not installed: pip install 'ray[data]'.")
    import ray  # noqa: PLC0415

    cluster.PART_SONGS = (PART_SONGS, PART_SONGS)
    examples = sorted((ROOT / "assets" / "examples").glob("*.mp3"))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.songs):
            shutil.copy(examples[number % len(examples)], Path(folder, f"{number:06}.mp3"))
        files, _ = cluster.found_at([folder], SUFFIXES)
        for workers in args.workers:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
            since, computed, songs = 0.0, 0.0, 0
            hearing = Hearing(args.model, device="cpu", precision="fastest")
            columns = Columns(hearing.classifier().genres, hearing.top, hearing.timeline, hearing.embeddings)
            parts = cluster.parts_heard(files, f"{folder}/out-{workers}", columns, hearing, workers)
            for heard, part in enumerate(parts, start=1):
                if heard == workers:
                    since, computed = time.perf_counter(), cpu_seconds()
                elif heard > workers:
                    songs += part["songs"]
            seconds, computed = time.perf_counter() - since, cpu_seconds() - computed
            print(
                f"{workers} workers: {songs / seconds:.2f} songs a second, {computed / songs:.2f} core seconds a song, "
                f"{computed / seconds:.2f} cores at work",
                flush=True,
            )
            ray.shutdown()


if __name__ == "__main__":
    main()
