"""What the bundled models answer for five of the bundled clips: kept in golden.json, held to it by test_golden.py.

    python -m tests.golden

writes it anew after a change that is meant to move them.
"""

import json
from pathlib import Path

from crnn.bundle import ROOT
from crnn.inference import GenreClassifier
from crnn.sources import bundled_names

FILE = Path(__file__).with_suffix(".json")
CLIPS = ("classical.mp3", "hiphop.mp3", "jazz.ogg", "pop.m4a", "rock.mp3")  # of each way of coding


def answers(classifier: GenreClassifier) -> dict[str, dict]:
    """By clip: the verdict, and the probabilities by genre."""
    given = {clip: classifier.predict(ROOT / "assets" / "examples" / clip) for clip in CLIPS}
    return {
        clip: {
            "verdict": prediction.verdict,
            "probabilities": {genre: round(share, 6) for genre, share in prediction.probabilities.items()},
        }
        for clip, prediction in given.items()
    }


if __name__ == "__main__":
    golden = {name: answers(GenreClassifier.from_pretrained(name)) for name in bundled_names()}
    FILE.write_text(json.dumps(golden, indent=2) + "\n", "utf-8")
