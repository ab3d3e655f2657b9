"""The names of genres: which of them are the same."""

import re
import unicodedata
from collections.abc import Iterable


def spelling(name: str) -> str:
    """A name without what spellings of it differ in: case, accents, spaces, hyphens, signs for "and", Unicode's forms.

    Accents are those of Latin, Greek and Cyrillic letters; in other scripts, marks make letters of their own.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    plain = re.sub("[\u0300-\u036f]", "", plain)
    plain = re.sub(r"&|\band\b", "n", plain.replace("_", " "))
    return "".join(sign for sign in plain if unicodedata.category(sign)[0] not in "PZC" or sign in "#%@*") or name


def known_as(genres: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """What those of some genres that are among `known` ones, in whatever spelling, are called there."""
    names = {spelling(name): name for name in known} | {name: name for name in known}
    called = {genre: names.get(genre) or names.get(spelling(genre)) for genre in genres}
    return {genre: name for genre, name in called.items() if name}
