"""Clips that a model has heard are known again, and no others."""

from dataclasses import replace

import pytest
import torch

from crnn.data import heard
from crnn.data.features import Features
from crnn.data.gtzan import LEAK, has_heard, make_dataset
from crnn.data.heard import n_heard, record_of
from crnn.features import N_MELS
from crnn.network.model import CRNN
from crnn.training.recipes import RECIPES, Base


def clips(*seeds: int, longest: int = 0) -> Features:
    """A clip for each seed, of ten frames more for each."""
    log_mels = [
        -80 * torch.rand(N_MELS, 30 + 10 * seed, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    names = [f"{'ab'[seed % 2]}/{seed}" for seed in seeds]
    if longest:  # beside which the others are padded
        return Features.from_log_mels([*log_mels, torch.zeros(N_MELS, longest)], [*names, "a/long"])
    return Features.from_log_mels(log_mels, names)


def test_clips_are_known_whatever_they_are_called_and_lie_beside() -> None:
    record = record_of(clips(0, 1, 2))
    renamed = clips(2, 5, 0, longest=300)
    renamed = replace(renamed, track_id=renamed.track_id[::-1].copy())
    assert n_heard(record, renamed) == 2
    assert n_heard(record, clips(3, 4)) == 0


def test_what_a_base_has_heard_is_not_forgotten() -> None:
    both = record_of(clips(2, 3), record_of(clips(0, 1)))
    assert n_heard(both, clips(0, 3, 5)) == 2
    assert both == record_of(clips(0, 1, 2, 3))


def test_of_too_many_there_is_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "MOST_HEARD", 3)
    assert record_of(clips(0, 1, 2))
    assert record_of(clips(3), record_of(clips(0, 1, 2))) == ""


@pytest.mark.parametrize("record", ["", "?", "ünsinn", "AAA", "A" * 999])
def test_a_record_that_is_none_knows_nothing(record: str) -> None:
    assert n_heard(record, clips(0, 1)) == 0


def test_own_songs_are_known_by_their_record_and_not_by_the_words_of_their_split(tiny_model: CRNN) -> None:
    """A folder may be split otherwise, and other folders in the same words."""
    first = make_dataset(clips(*range(40)))
    learned = first.clips("train").features
    tiny_model.config = replace(tiny_model.config, trained_on=f"{first.protocol}: train", heard=record_of(learned))
    parts = ("train", "valid", "test", "all")
    assert [first.is_heard_by(tiny_model, part) for part in parts] == [True, False, False, True]
    by_artist = make_dataset(clips(*range(40)), artists=[f"{seed % 20}" for seed in range(40)])
    assert by_artist.protocol != first.protocol
    assert by_artist.is_heard_by(tiny_model, "test")  # which by its words is none of what was heard
    for part in parts:
        again = set(by_artist.clips(part).features.track_id) & set(learned.track_id)
        assert by_artist.is_heard_by(tiny_model, part) == bool(again)
    others = make_dataset(clips(*range(100, 140)))
    assert others.protocol == first.protocol
    assert not any(others.is_heard_by(tiny_model, part) for part in parts)
    tiny_model.config = replace(tiny_model.config, heard="")  # as models of earlier versions
    assert others.is_heard_by(tiny_model, "train")


@pytest.mark.parametrize(
    ("trained_on", "record", "is_known"),
    [
        ("", "", True),
        ("fault-filtered split of GTZAN: train+valid", "", True),  # which its words tell
        ("random split by track, stratified by genre: train", "", False),
        ("random split by track, stratified by genre: train", record_of(clips(5)), True),
        ("fault-filtered split of GTZAN: train; random split by track, stratified by genre: train", "", False),
    ],
)
def test_a_record_is_of_all_or_there_is_none(tiny_model: CRNN, trained_on: str, record: str, is_known: bool) -> None:
    """Else what the base heard of one's own would be taken for new."""
    tiny_model.config = replace(tiny_model.config, trained_on=trained_on, heard=record)
    recipe = replace(RECIPES["scratch"], base=Base(tiny_model, "tiny"))
    assert bool(recipe.heard(clips(0, 1))) == is_known
    assert n_heard(recipe.heard(clips(0, 1)), clips(5)) == bool(record)


def test_segments_of_songs_that_were_heard_are_heard(tiny_model: CRNN) -> None:
    protocol = LEAK.format("")
    tiny_model.config = replace(tiny_model.config, trained_on=f"{protocol}: train", heard=record_of(clips(0)))
    assert has_heard(tiny_model, protocol, "test", clips(1))


def test_songs_that_were_heard_are_heard_in_segments(tiny_model: CRNN) -> None:
    songs, others = clips(*range(70, 90)), clips(*range(30, 50))
    tiny_model.config = replace(
        tiny_model.config, trained_on="random split by track, stratified by genre: train", heard=record_of(songs)
    )
    parts = ("train", "valid", "test", "all")
    assert len(make_dataset(songs, "segments").features) > len(songs)
    assert all(make_dataset(songs, "segments").is_heard_by(tiny_model, part) for part in parts)
    assert not any(make_dataset(others, "segments").is_heard_by(tiny_model, part) for part in parts)
