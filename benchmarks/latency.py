"""How long a song takes to its answer: `python benchmarks/latency.py [SONG] [--model M] [--runs N]`.

Without a song, 30 seconds and 4 minutes of an example as stereo mp3 of 192 kbit/s. Beside it, in the same runs, what
it takes where a process of its own decodes, as on the page; what decoding alone takes; and what a common peer does: the
forward pass of DistilHuBERT, which the audio course of Hugging Face fine-tunes on GTZAN, on as much sound
(`pip install transformers`; its weights are random, which costs the same).
Medians over the runs, after one warm-up, in milliseconds.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

from crnn import GenreClassifier  # noqa: E402
from crnn.audio import Opener, open_audio  # noqa: E402
from crnn.decoding import Decoders  # noqa: E402
from crnn.features import without_silence  # noqa: E402
from crnn.network.songs import window_logits  # noqa: E402
from crnn.web.view import song_view  # noqa: E402

EXAMPLE = ROOT / "assets" / "examples" / "rock.mp3"
LENGTHS_SECONDS = (30, 240)
PEER_RATE_HZ, PEER_SECONDS = 16_000, 30


def timed(step: Callable[[], object]) -> tuple[float, object]:
    """The milliseconds that `step` takes, and its result."""
    started = time.perf_counter()
    result = step()
    return 1_000 * (time.perf_counter() - started), result


def stereo_mp3(seconds: int) -> bytes:
    """The example, repeated, at 44.1 kHz with a right channel that is a little late."""
    with open_audio(EXAMPLE, 44_100) as sound:
        mono = np.concatenate(list(sound.blocks()), axis=1)[0]
    both = np.stack([mono, np.roll(mono, 30)])
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as output:
        stream = output.add_stream("libmp3lame", rate=44_100, layout="stereo", bit_rate=192_000)
        for start in range(0, seconds * 44_100, len(mono)):
            part = np.ascontiguousarray(both[:, : seconds * 44_100 - start])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate = 44_100
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def songs(folder: Path) -> Iterator[Path]:
    """Files of LENGTHS_SECONDS."""
    for seconds in LENGTHS_SECONDS:
        path = folder / f"{seconds}.mp3"
        path.write_bytes(stereo_mp3(seconds))
        yield path


def decode(song: bytes) -> None:
    """Decode and do nothing, as PyAV's documentation shows it."""
    with av.open(io.BytesIO(song)) as container:
        for _ in container.decode(audio=0):
            pass


def sound_of(song: bytes) -> list[np.ndarray]:
    """What the classifier hears: all channels at its own rate."""
    with open_audio(song) as sound:
        return list(sound.blocks())


def measure(classifier: GenreClassifier, elsewhere: Opener, path: Path) -> dict[str, float]:
    """Milliseconds of each step from the file to the page, where a process of its own decodes (`elsewhere`)."""
    song = path.read_bytes()
    alone, _ = timed(lambda: decode(song))
    decoded, blocks = timed(lambda: sound_of(song))
    spectrogram, log_mel = timed(lambda: classifier.front_end.of_blocks(blocks))
    with torch.inference_mode():
        network, _ = timed(lambda: window_logits(classifier.model, without_silence(log_mel)))
    answer, prediction = timed(lambda: classifier.predict(path))
    classifier.opener = elsewhere
    on_the_page, _ = timed(lambda: classifier.predict(path))
    classifier.opener = open_audio
    drawing, _ = timed(lambda: json.dumps(song_view("song", prediction)))
    return {
        "decoding alone": alone,
        "decode and resample": decoded,
        "log-mel": spectrogram,
        "network": network,
        "song to answer": answer,
        "song to answer on the page": on_the_page,
        "data of the page's drawing": drawing,
    }


def peer(seconds: float = PEER_SECONDS) -> Callable[[], object] | None:
    """DistilHuBERT's forward pass on so much sound, if transformers is installed."""
    if not find_spec("transformers"):
        return None
    from transformers import HubertConfig, HubertModel  # noqa: PLC0415

    model = HubertModel(HubertConfig(num_hidden_layers=2)).eval()
    sound = torch.randn(1, round(seconds * PEER_RATE_HZ))
    return torch.inference_mode()(lambda: model(sound))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path)
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    classifier = GenreClassifier.from_pretrained(args.model)
    print(f"{classifier.origin.name}, {torch.get_num_threads()} threads")
    with TemporaryDirectory() as folder, Decoders() as decoders:
        for song in [args.song] if args.song else songs(Path(folder)):
            first = measure(classifier, decoders.open_audio, song)
            runs = [measure(classifier, decoders.open_audio, song) for _ in range(args.runs)]
            medians = {step: statistics.median(run[step] for run in runs) for step in first}
            print(f"\n{classifier.predict(song).duration_seconds:.1f} s")
            for step, milliseconds in medians.items():
                share = f"{milliseconds / medians['decoding alone']:5.2f} times" if step == "song to answer" else ""
                print(f"{step:27} {milliseconds:7.1f} ms  {share}")
    said, forward = "not measured: pip install transformers", peer()
    if forward:
        said = f"{statistics.median(timed(forward)[0] for _ in range(args.runs + 1)):7.1f} ms"
    print(f"\nDistilHuBERT, {PEER_SECONDS} s{'':10} {said}")


if __name__ == "__main__":
    main()
