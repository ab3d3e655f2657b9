"""The table of speed: `python benchmarks/speed.py [--short] [--model M] [--runs N] [--songs N]`, as Markdown.

Each row stands beside its limit or a peer, measured in the same run, one time the one and one time the other: medians
of seconds, and how many times as long it takes. Limits are decoding and doing nothing else, a matrix product with as
many multiply-adds, the start of Python and the import of PyTorch, a page of Gradio with nothing on it. Peers are what
tutorials do for the same task: the forward pass of DistilHuBERT (`pip install transformers`; random weights cost the
same), librosa's features with a support vector machine (scikit-learn), and musicnn as it was published.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn.machine import let_threads_rest, n_cores  # noqa: E402

let_threads_rest()  # as the commands do, before PyTorch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks import latency, library  # noqa: E402
from crnn import GenreClassifier  # noqa: E402
from crnn.audio import SAMPLE_RATE, load_audio  # noqa: E402
from crnn.features import without_silence  # noqa: E402
from crnn.library.job import QUICK, File, Hearing  # noqa: E402
from crnn.network.devices import best_precision  # noqa: E402
from crnn.network.songs import window_logits  # noqa: E402

CLIP_SECONDS, SONG_SECONDS, HOUR_SECONDS = 30, 240, 3_600
MATRIX = 2_048  # rows and columns of the product whose multiply-adds a second count as the machine's peak
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """A line of the table; without times it says why."""

    what: str
    beside: str  # its limit or peer
    seconds: float | None = None
    beside_seconds: float | None = None
    why: str = ""  # it was not measured

    def __str__(self) -> str:
        takes = "not measured" if self.seconds is None else shown(self.seconds)
        beside = f"{self.beside}: {self.why or shown(self.beside_seconds)}"
        times = f"{self.seconds / self.beside_seconds:.2f}" if self.seconds and self.beside_seconds else ""
        return f"| {self.what} | {takes} | {beside} | {times} |"


def shown(seconds: float) -> str:
    """A duration with three digits or so."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1_000 * seconds:.3g} ms"


def alternately(steps: list[Callable[[], object]], runs: int, warm_ups: int = 1) -> list[float]:
    """The median seconds of each step, by turns, after as many rounds that do not count."""
    rounds = [[latency.timed(step)[0] / 1_000 for step in steps] for _ in range(warm_ups + runs)]
    return [statistics.median(times) for times in zip(*rounds[warm_ups:], strict=True)]


def compared(what: str, step: Callable[[], object], beside: str, other: Callable[[], object], runs: int) -> Row:
    """The row of a step and of what stands beside it."""
    return Row(what, beside, *alternately([step, other], runs))


def precisions(classifier: GenreClassifier) -> list[str]:
    """Those that are worth their rows here."""
    return ["float32"] + (["bfloat16"] if best_precision(classifier.model.config.front, "cpu") == "bfloat16" else [])


def songs(classifiers: list[GenreClassifier], folder: Path, lengths: dict[str, int], runs: int) -> Iterator[Row]:
    """From a stereo mp3 to the answer, for lengths in seconds by their names, beside decoding it."""
    for name, seconds in lengths.items():
        path = folder / f"{seconds}.mp3"
        path.write_bytes(latency.stereo_mp3(seconds))
        steps = [*(partial(classifier.predict, path) for classifier in classifiers), partial(decode, path)]
        *times, decoding = alternately(steps, *((1, 0) if seconds >= HOUR_SECONDS else (runs, 1)))
        for classifier, taken in zip(classifiers, times, strict=True):
            yield Row(f"song to answer, {name}, {classifier.precision}", "decoding it, no more", taken, decoding)


def decode(path: Path) -> None:
    """Decode a file and do nothing."""
    library.decode(File.of(path))


def whole_library(model: str | None, folder: Path, count: int, seconds: int, jobs: int) -> Iterator[Row]:
    """A song of a library, where all cores are at work, beside decoding all of it as they do."""
    music = folder / "library"
    music.mkdir()
    library.make_songs(music, count, seconds)
    files = [File.of(path) for path in sorted(music.iterdir())]
    ways = {
        "thorough": Hearing(model, precision="fastest"),
        "--quick": Hearing(model, QUICK, whole_in_doubt=True, precision="fastest"),
    }
    library.all_decoded(files, jobs)
    for name, hearing in ways.items():
        decoding, _ = latency.timed(lambda: library.all_decoded(files, jobs))
        hear = library.heard(files, hearing, jobs)
        hearing_ms, _ = latency.timed(hear)
        yield Row(
            f"a song of a library, {seconds} s, {name}, {jobs} at a time",
            "decoding all of it, no more, likewise",
            hearing_ms / 1_000 / count,
            decoding / 1_000 / count,
        )


def multiply_adds(step: Callable[[], object]) -> int:
    """How many the matrix products and convolutions of a step have, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


def network(classifier: GenreClassifier, log_mel: torch.Tensor) -> Callable[[], object]:
    """The network alone on a log-mel (128, frames), in the classifier's precision."""

    def step() -> object:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=classifier.precision == "bfloat16"):
            return window_logits(classifier.model, log_mel)

    return step


def networks(classifiers: list[GenreClassifier], seconds: int, runs: int, size: int = MATRIX) -> Iterator[Row]:
    """The network alone, beside a matrix product with as many multiply-adds."""
    log_mel = without_silence(classifiers[0].front_end(torch.from_numpy(sound(seconds))))
    count = multiply_adds(network(classifiers[0], log_mel))
    for classifier in classifiers:
        matrix = torch.randn(size, size).to(PRECISIONS[classifier.precision])
        step, product = network(classifier, log_mel), lambda m=matrix: torch.mm(m, m)
        taken, product_taken = alternately([step, product], runs)
        peak = size**3 / product_taken
        yield Row(
            f"the network alone, {seconds} s, {classifier.precision}: {count / taken / 1e9:.0f} billion multiply-adds "
            "a second",
            f"as many in one matrix product, {peak / 1e9:.0f} billion a second",
            taken,
            count / peak,
        )


def sound(seconds: int) -> np.ndarray:
    """Samples (channels, samples) of an example, repeated."""
    waveform = load_audio(latency.EXAMPLE)
    return np.resize(waveform[:1], (1, seconds * SAMPLE_RATE))


def peers(classifier: GenreClassifier, folder: Path, seconds: int, runs: int) -> Iterator[Row]:
    """The same clip as others do it."""
    path = folder / "clip.mp3"
    path.write_bytes(latency.stereo_mp3(seconds))
    log_mel = without_silence(classifier.front_end(torch.from_numpy(sound(seconds))))
    what, name = f"the network alone, {seconds} s, {classifier.precision}", "DistilHuBERT's forward pass"
    if forward := latency.peer(seconds):
        yield compared(what, network(classifier, log_mel), name, forward, runs)
    else:
        yield Row(what, name, why="pip install transformers")
    what = f"song to answer, {seconds} s, {classifier.precision}"
    name = "librosa's MFCC, chroma and spectral features, their means and deviations, SVM"
    yield compared(what, lambda: classifier.predict(path), name, features_and_svm(path), runs)
    name = "musicnn as published"
    if find_spec("musicnn"):
        from musicnn.extractor import extractor  # noqa: PLC0415

        theirs = lambda: extractor(str(path), model="MSD_musicnn", extract_features=False)  # noqa: E731
        yield compared(what, lambda: classifier.predict(path), name, theirs, runs)
    else:
        yield Row(what, name, why="the package musicnn is not installed; it asks for numpy below 1.17, so Python 3.7")


def features_and_svm(path: Path) -> Callable[[], object]:
    """What tutorials do: features by librosa, standardised, and a support vector machine; trained on noise here."""
    import librosa  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    def features() -> np.ndarray:
        waveform, rate = librosa.load(path)
        of = librosa.feature
        rows = np.concatenate(
            [
                of.mfcc(y=waveform, sr=rate, n_mfcc=20),
                of.chroma_stft(y=waveform, sr=rate),
                of.spectral_centroid(y=waveform, sr=rate),
                of.spectral_bandwidth(y=waveform, sr=rate),
                of.spectral_rolloff(y=waveform, sr=rate),
                of.zero_crossing_rate(waveform),
                of.rms(y=waveform),
            ]
        )
        return np.concatenate([rows.mean(axis=1), rows.std(axis=1)])

    random = np.random.default_rng(0)
    machine = make_pipeline(StandardScaler(), SVC())
    machine.fit(random.standard_normal((443, len(features()))), np.arange(443) % 10)  # clips and genres of GTZAN
    return lambda: machine.predict(features()[None])


def starts(model: str | None) -> Iterator[Row]:
    """Commands that are started anew, the best of three, beside what each of them cannot do without."""
    with_model = ["--model", model] if model else []
    for what, arguments, beside, code in (
        ("`genre-crnn --help`", ["--help"], "Python, nothing else", "pass"),
        ("first answer of a cold command, 30 s", [str(latency.EXAMPLE), *with_model], "`import torch`", "import torch"),
    ):
        taken, _ = library.started("-m", "crnn", *arguments)
        yield Row(what, beside, taken, library.started("-c", code)[0])


def paints(model: str | None, runs: int) -> Iterator[Row]:
    """First visits of the page, beside a page of Gradio that has a line of text alone."""
    what, beside = "first paint of the page", "a line of text in Gradio"
    if not find_spec("playwright"):
        yield Row(what, beside, why="pip install playwright")
        return
    from benchmarks import page  # noqa: PLC0415

    try:
        with (
            redirect_stdout(sys.stderr),  # the servers say where they are
            page.page_and_browser(model) as (url, browser),
            empty_page() as empty_url,
        ):
            times = []
            for number in range(runs + 1):
                pair = []
                for address, ready in ((url, "#song input[type=file]"), (empty_url, "#line")):
                    context = browser.new_context(viewport={"width": 1280, "height": 900})
                    pair.append(page.arrive(context.new_page(), address, ready)["first paint"] / 1_000)
                    context.close()
                times += [pair] if number else []  # the first visitor of a server waits longer
    except SystemExit as reason:
        yield Row(what, beside, why=str(reason))
        return
    yield Row(what, beside, *map(statistics.median, zip(*times, strict=True)))


@contextmanager
def empty_page() -> Iterator[str]:
    """The address of the least that Gradio serves."""
    import gradio  # noqa: PLC0415

    with gradio.Blocks() as blocks:
        gradio.Markdown("A line.", elem_id="line")
    _, url, _ = blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    blocks.close()


def machine() -> str:
    """What all of it was measured on."""
    information = Path("/proc/cpuinfo")
    models = information.read_text().splitlines() if information.exists() else []
    name = next((line.partition(": ")[2] for line in models if line.startswith("model name")), platform.processor())
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{name or platform.machine()}, {n_cores()} cores, {torch.get_num_threads()} threads of PyTorch "
        f"{torch.__version__}, Python {platform.python_version()}{load}"
    )


def rows(model: str | None, runs: int, count: int, lengths: dict[str, int], folder: Path) -> Iterator[Row]:
    """All of the table."""
    first = GenreClassifier.from_pretrained(model)
    classifiers = [GenreClassifier.from_pretrained(model, precision=name) for name in precisions(first)]
    clip, song = list(lengths.values())[:2]
    yield from songs(classifiers, folder, lengths, runs)
    yield from whole_library(model, folder, count, song, n_cores())
    yield from networks(classifiers, clip, runs)
    yield from peers(classifiers[0], folder, clip, runs)
    yield from starts(model)
    yield from paints(model, runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--songs", type=int, default=20, help="number of songs in the library")
    parser.add_argument(
        "--short", action="store_true", help="short songs and a single run, to check that everything works"
    )
    args = parser.parse_args()
    lengths = {"30 s": CLIP_SECONDS, "4 minutes": SONG_SECONDS, "an hour": HOUR_SECONDS}
    if args.short:
        args.runs, args.songs, lengths = 1, 2, {"5 s": 5, "20 s": 20}
    print(f"{GenreClassifier.from_pretrained(args.model).origin.name} on {machine()}\n")
    print("| what | takes | limit or peer | times |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(args.model, args.runs, args.songs, lengths, Path(folder)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
