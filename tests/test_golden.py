"""The bundled models answer as they did, on every supported Python, with every allowed version and on any CPU."""

import json

import pytest
from golden import CLIPS, FILE, answers

from crnn.inference import GenreClassifier
from crnn.sources import bundled_names

GOLDEN = json.loads(FILE.read_text("utf-8"))

# Python, the versions of the libraries and the processor's instructions move them by 1e-6. This leaves room for other
# decoders, and is less than another resampler (6e-2 and 7e-3) does.
TOLERANCE = 1e-3
TOLERANCE_IN_BFLOAT16 = 2e-2  # 217 songs of other collections moved by 1.4e-2 at most


def test_there_is_one_of_each() -> None:
    assert sorted(GOLDEN) == bundled_names()
    assert len(CLIPS) == 5


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", TOLERANCE), ("bfloat16", TOLERANCE_IN_BFLOAT16)])
@pytest.mark.parametrize("name", GOLDEN)
def test_the_answers_stay(name: str, precision: str, tolerance: float) -> None:
    given = answers(GenreClassifier.from_pretrained(name, precision=precision))
    assert given.keys() == GOLDEN[name].keys()
    for clip, expected in GOLDEN[name].items():
        assert given[clip]["probabilities"] == pytest.approx(expected["probabilities"], abs=tolerance, rel=0), clip
        assert given[clip]["verdict"] == expected["verdict"], clip
