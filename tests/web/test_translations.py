"""The languages of the page: each has every text, and nothing is lost on the way."""

import ast
import re
from html import unescape
from pathlib import Path

import pytest

import app
from crnn import plots
from crnn.audio import foreign
from crnn.network.audioset import KINDS
from crnn.web import about, handlers

ROOT = Path(app.__file__).parent
HINTS = handlers.NO_LONGER, handlers.NO_SONG, handlers.STILL_HEARD, handlers.NO_ANSWER
SPEAKING = ("say", "hint", "text", "Fault", "Notice")  # the functions that take a text


def texts():
    """The fixed texts that the sources show where they stand."""
    for path in (
        ROOT / "app.py",
        ROOT / "crnn" / "decoding.py",
        *(ROOT / "crnn" / "audio").glob("*.py"),
        *(ROOT / "crnn" / "web").glob("*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None))
            # Elsewhere an AudioError is of paths and of passages of a recording, which no visitor gives by hand.
            is_of_a_decoder = name == "AudioError" and path.name == "decoding.py"
            if (name in SPEAKING or is_of_a_decoder) and node.args and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
    for path in (ROOT / "assets" / "page").glob("*.html"):
        yield from map(unescape, re.findall(r'data-say(?:-label)?="([^"]+)"', path.read_text("utf-8")))
    for path in (ROOT / "assets" / "page").glob("*.js"):
        yield from re.findall(
            r"(?:message\(|translate\(|'data-say': |\bsay: |say\(\w+, )'([^']+)'", path.read_text("utf-8")
        )
    for title, meaning, _ in about.TRAINING_FIGURES:
        yield from (title, meaning)
    yield from foreign.MESSAGES
    yield from (f"kind: {kind.name}" for kind in KINDS)  # which a sentence says as its {kind}
    for shown in (*plots.FEATURES, *plots.STEPS):
        yield from (shown.title, shown.meaning)


@pytest.mark.parametrize("code", sorted(app.TRANSLATIONS))
def test_every_text_is_translated(code):
    words = app.TRANSLATIONS[code]
    assert not {*texts(), app.HUB_ID_HINT, *HINTS} - words.keys()
    assert words.keys() == app.TRANSLATIONS["de"].keys()
    assert all(translation.strip() for translation in words.values())


def test_no_translation_has_lost_its_text():
    """What is translated is somewhere in the sources, in one piece; layers have their numbers from elsewhere."""
    shown = [unescape(path.read_text("utf-8")) for path in (ROOT / "assets" / "page").iterdir()]
    for path in (ROOT / "app.py", *(ROOT / "crnn").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        shown += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    everything = "\n".join(shown)
    pieces = [text.rstrip("0123456789").removeprefix("kind: ") for text in app.ENGLISH]
    assert [piece for piece in pieces if piece not in everything] == []


@pytest.mark.parametrize("code", sorted(app.TRANSLATIONS))
def test_translations_have_the_values_of_the_text(code):
    for message, translation in app.TRANSLATIONS[code].items():
        assert sorted(re.findall(r"\{\w*\}", translation)) == sorted(re.findall(r"\{\w*\}", message)), message


def test_page_offers_the_languages_that_it_has():
    assert {code.split("-")[0] for code in app.LANGUAGES} == {"en", *app.TRANSLATIONS}
    assert len(app.LANGUAGES) >= 5
