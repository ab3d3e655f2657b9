"""What a configuration may ask for."""

import re
import time
from dataclasses import replace

import pytest

from crnn.features import n_frames_of
from crnn.network.config import CRNNConfig
from crnn.network.layers import POOLING, RECURRENT

CONFIG = CRNNConfig(
    genres=("a", "b", "c"), channels=(4, 6), mel_pools=(4, 8), time_pools=(2, 2), recurrent_size=5, window_frames=48
)


def test_an_lstm_costs_more_than_a_gru() -> None:
    wide = replace(CONFIG, channels=(4, 24), recurrent_size=512, members=16)
    with pytest.raises(ValueError, match="too slow"):
        replace(wide, recurrent="lstm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genres": ("a",)}, "two different genres"),
        ({"genres": ("a", "a")}, "two different genres"),
        ({"genres": ("a", "unsure")}, "no genre can be called 'unsure'"),
        ({"genres": ("a", "no music")}, "no genre can be called 'no music'"),
        ({"mel_pools": (4,)}, "one number for each"),
        ({"mel_pools": (3, 5)}, "do not divide"),
        ({"front": "large"}, "one of small, musicnn"),
        ({"recurrent": "no layer"}, f"one of {', '.join(RECURRENT)}, not 'no layer'"),
        ({"pooling": "no pooling"}, f"one of {re.escape(', '.join(POOLING))}, not 'no pooling'"),
        ({"time_pools": (0, 2)}, "at least 1"),
        ({"recurrent_size": 0}, "at least 1"),
        ({"members": 0}, "at least 1"),
        ({"window_frames": 3}, "do not survive"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e-9}, "temperature"),
        ({"evidence": -1.0}, "evidence"),
        ({"evidence": float("nan")}, "evidence"),
        ({"unsure_below": -5.0}, "unsure_below is a probability, from 0 to 1, not -5"),
        ({"unsure_below": 1e308}, r"unsure_below is a probability, from 0 to 1, not 1e\+308"),
        ({"strange_below": -1e308}, r"strange_below is an energy from -1000 to 1000, not -1e\+308"),
        ({"strange_below": 1e308}, r"strange_below is an energy from -1000 to 1000, not 1e\+308"),
        ({"dropout": 2.0}, "dropout and block_dropout are shares"),
    ],
)
def test_contradictory_configuration_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


WIDE = {"summary": True, "recurrent": "none", "recurrent_size": 512, "members": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bottleneck": 10**9}, "bottleneck must be"),
        ({"members": 10**9}, "members must be at least 1 and at most 16"),
        ({"channels": (4, 10**9)}, "channels must be"),
        ({"mel_pools": (4, 10**5_000)}, "mel_pools must be"),
        ({"time_pools": (10**9, 2)}, "time_pools must be"),
        ({"recurrent_size": 10**9}, "recurrent_size must be"),
        ({"window_frames": 10**9}, "window_frames must be"),
        (dict.fromkeys(("channels", "mel_pools", "time_pools"), (1,) * 100_000), "at most 12 convolutional blocks"),
        ({"genres": tuple(map(str, range(1_000_000)))}, "200 genres"),
        ({"genres": ("a", "b" * 1_000_000)}, "name of a genre"),
        ({"genres": ("a", "\x1b[31m")}, "name of a genre"),
        ({"genres": ("a", "b\nc")}, "name of a genre"),
        ({"genres": ("a", "\u202eb")}, "name of a genre"),  # turns round what follows it
        ({"genres": ("a", "\ud800")}, "name of a genre"),
        ({"genres": ("a", " ")}, "name of a genre"),
        ({"channels": (1_024, 1), "window_frames": 1_000}, "too large"),
        ({"channels": (64,), "mel_pools": (1,), "time_pools": (2,), **WIDE}, "too large"),
        ({"channels": (128, 128), "mel_pools": (1, 1), "time_pools": (1, 1)}, "too slow"),
        ({"channels": (128,), "mel_pools": (1,), "time_pools": (1,), "recurrent_size": 1, "members": 16}, "too many"),
        ({"channels": (16, 1_024), "mel_pools": (1, 1), "time_pools": (1, 1), "recurrent_size": 512}, "too"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_configuration_that_asks_for_too_much_is_refused_at_once(change: dict, message: str) -> None:
    start = time.process_time()  # of this process alone, however busy the machine is
    with pytest.raises(ValueError, match=message) as caught:
        replace(CONFIG, **change)
    assert len(str(caught.value)) < 200
    assert time.process_time() - start < 0.5


def test_larger_configurations_than_the_bundled_ones_are_allowed() -> None:
    CRNNConfig(
        genres=tuple(f"genre {number}" for number in range(161)),
        members=5,
        channels=(32, 96, 128, 256),
        recurrent_size=256,
        window_frames=n_frames_of(30.0),
    )
    CRNNConfig(genres=("a", "b"), members=16, front="musicnn", recurrent_size=128)
