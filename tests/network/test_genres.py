"""Names of genres in their spellings."""

import pytest

from crnn.network.genres import known_as, spelling


@pytest.mark.parametrize(
    ("one", "other"),
    [("Drum & Bass", "drum and bass"), ("Ｒｏｃｋ", "rock"), ("Straße", "STRASSE"), ("neo_soul", "Neo-Soul")],
)
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert spelling(one) == spelling(other)


@pytest.mark.parametrize(("one", "other"), [("か", "が"), ("rock", "rocks"), ("!!!", "???"), ("C#", "C"), ("$", "€")])
def test_names_that_are_different(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)


def test_genres_are_known_in_other_spellings_and_first_in_their_own() -> None:
    known, called = ("hiphop", "Rock", "rock", "jazz"), {"Hip-Hop": "hiphop", "rock": "rock", "ROCK": "rock"}
    assert known_as([*called, "polka"], known) == called
