"""The bundled models answer as they did, on every supported Python, with every allowed version and on any CPU."""

import json

import pytest
from golden import CLIPS, FILE, answers

from crnn.checkpoint import bundled_names
from crnn.inference import GenreClassifier

GOLDEN = json.loads(FILE.read_text("utf-8"))

# Python, the versions of the libraries and the processor's instructions move them by 1e-6. This leaves room for other
# decoders, and is less than computing in bfloat16 (1e-3 and 1e-2) or another resampler (6e-2 and 7e-3) does.
TOLERANCE = 1e-3


def test_there_is_one_of_each() -> None:
    assert sorted(GOLDEN) == bundled_names()
    assert len(CLIPS) == 5


@pytest.mark.parametrize("name", GOLDEN)
def test_the_answers_stay(name: str) -> None:
    given = answers(GenreClassifier.from_pretrained(name))
    assert given.keys() == GOLDEN[name].keys()
    for clip, expected in GOLDEN[name].items():
        assert given[clip]["probabilities"] == pytest.approx(expected["probabilities"], abs=TOLERANCE, rel=0), clip
        assert given[clip]["verdict"] == expected["verdict"], clip
