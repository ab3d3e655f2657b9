"""An exported model beside PyTorch: `python benchmarks/export.py [SONG...] [--model M] [--runs N] [--threads T]`.

Exports the model, then lets ONNX Runtime and PyTorch hear the same songs in turn, without decoding: the whole songs,
their first second, 30 s and 4 min of them, a hundredth as loud, and with silence at both ends. Prints the largest
difference of a probability, and medians over the runs in milliseconds. Without a song, the examples. It needs
`pip install onnx onnxscript onnxruntime`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.audio import SAMPLE_RATE, open_audio  # noqa: E402
from crnn.export import export  # noqa: E402

EXAMPLES = ROOT / "assets" / "examples"
LENGTHS_SECONDS = (1, 10, 30, 240)  # of which the speed is measured, on the first song, repeated


def waveform_of(path: Path) -> np.ndarray:
    """Samples (channels, samples) at the model's rate."""
    with open_audio(path) as sound:
        return np.concatenate(list(sound.blocks()), axis=1)


def kinds(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """A song as it is, and what else people have."""
    rest = np.zeros((len(waveform), 5 * SAMPLE_RATE), np.float32)
    yield waveform
    yield waveform[:, :SAMPLE_RATE]
    yield waveform * np.float32(0.01)
    yield np.concatenate([rest, waveform[:, : 15 * SAMPLE_RATE], rest], axis=1)
    yield np.resize(waveform, (len(waveform), 240 * SAMPLE_RATE))


def milliseconds(step: Callable[[], object], runs: int) -> float:
    """The median after one warm-up."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        step()
        times.append(1_000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", nargs="*", type=Path)
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if not find_spec("onnxscript") or not find_spec("onnxruntime"):
        sys.exit("This needs packages that are not installed: pip install onnx onnxscript onnxruntime.")
    import onnxruntime  # noqa: PLC0415

    torch.set_num_threads(args.threads)
    classifier = GenreClassifier.from_pretrained(args.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export(classifier, path)
        megabytes = path.stat().st_size / 1e6
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    print(f"{classifier.origin.name}, {megabytes:.1f} MB, {args.threads} threads")
    waveforms = [waveform_of(song) for song in args.songs or sorted(EXAMPLES.glob("*.mp3"))]
    differences = []
    for waveform in (kind for song in waveforms for kind in kinds(song)):
        given = session.run(None, {"waveform": waveform})[0]
        expected = classifier.predict_waveform(waveform).probabilities
        differences.append(max(abs(given[n] - expected.get(g, 0.0)) for n, g in enumerate(classifier.genres)))
    print(f"largest difference of a probability in {len(differences)} sounds: {max(differences):.1e}\n")
    print("            PyTorch  ONNX Runtime")
    for seconds in LENGTHS_SECONDS:
        waveform = np.resize(waveforms[0][:1], (1, seconds * SAMPLE_RATE))
        torch_ms = milliseconds(lambda w=waveform: classifier.predict_waveform(w), args.runs)
        onnx_ms = milliseconds(lambda w=waveform: session.run(None, {"waveform": w}), args.runs)
        print(f"{seconds:5} s  {torch_ms:9.1f} ms  {onnx_ms:9.1f} ms")


if __name__ == "__main__":
    main()
