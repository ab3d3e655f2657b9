"""What the page says about a model, of which a stranger may have written every word and every number."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from itertools import product
from pathlib import Path

import pytest
from huggingface_hub import constants

from crnn.checkpoint import HISTORY_FILE, METRICS_FILE
from crnn.inference import GenreClassifier
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.web import about

GENRES = ("rock", "jazz", "disco")
CONFUSION = [[8, 2, 0], [0, 5, 0], [1, 0, 3]]
BINS = [{"n": 4, "confidence": 0.55, "accuracy": 0.5}, {"n": 15, "confidence": 0.9, "accuracy": 0.95}]
HEADER = "epoch,lr,train_loss,train_accuracy,valid_loss,valid_accuracy,seconds\n"
HISTORY = HEADER + "1,0.001,2.27,0.2,2.18,0.39,17.9\n2,0.001,1.5,0.5,1.7,0.53,17.4\n"
MATRIX_TITLE, RELIABILITY_TITLE, CURVES_TITLE = TITLES = ["Confusion matrix", "Reliability", "Curves"]
DANGER = re.compile(r"!\[|<[A-Za-z/!?]|```mermaid")  # what would begin a picture, HTML or a diagram


def measured(**changes: object) -> str:
    """The record of a measurement with some of it changed."""
    return json.dumps({"valid": {"confusion": CONFUSION, "reliability": BINS, **changes}})


def with_bin(**changes: object) -> str:
    """The record of a measurement with its first bin changed, and without a matrix, which takes time to draw."""
    return measured(confusion=None, reliability=[{**BINS[0], **changes}, BINS[1]])


@pytest.fixture
def beside(tmp_path: Path) -> Callable[[str, str], Origin]:
    """`beside(metrics, history)`: a model with these files beside it."""

    def write(metrics: str, history: str) -> Origin:
        (tmp_path / METRICS_FILE).write_text(metrics, encoding="utf-8")
        (tmp_path / HISTORY_FILE).write_text(history, encoding="utf-8")
        return Origin("a", folder=tmp_path)

    return write


def titles(figures: list[str]) -> list[str]:
    """What figures are called, by their pictures' labels."""
    return [unescape(re.search(r'<svg data-say-label="([^"]*)"', html)[1]) for html in figures]


def shown(html: str) -> list[str]:
    """The texts of a figure's picture."""
    return [unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", html)]


def test_the_files_of_a_training_give_three_figures(beside: Callable[..., Origin]) -> None:
    figures = list(about.training_figures(beside(measured(), HISTORY), GENRES))
    assert titles(figures) == TITLES
    matrix, reliability, curves = (shown(html) for html in figures)
    assert {"8", "2", "5", "1", "3", "rock  80%", "jazz  100%", "disco  75%"} <= set(matrix)
    assert {"4", "15"} <= set(reliability)
    assert {"training", "validation", "epoch"} <= set(curves)


def test_the_bundled_models_have_their_figures() -> None:
    classifier = GenreClassifier.from_pretrained("crnn-transfer")
    assert titles(list(about.training_figures(classifier.origin, classifier.genres))) == TITLES


def test_a_measurement_on_the_test_part_goes_first(beside: Callable[..., Origin]) -> None:
    record = {"valid": {"confusion": CONFUSION}, "test": {"confusion": [[77, 0, 0], [0, 0, 0], [0, 0, 0]]}}
    [html] = about.training_figures(beside(json.dumps(record), ""), GENRES)
    assert "77" in shown(html)
    assert "8" not in shown(html)


def test_clips_that_a_base_has_heard_give_no_figures(beside: Callable[..., Origin]) -> None:
    record = {**json.loads(measured()), "heard": ["valid"]}
    assert list(about.training_figures(beside(json.dumps(record), HISTORY), GENRES)) == []
    record["test"] = record["valid"]
    assert titles(list(about.training_figures(beside(json.dumps(record), HISTORY), GENRES))) == TITLES[:2]


def test_no_files_no_figures(tmp_path: Path) -> None:
    assert list(about.training_figures(Origin("a", folder=tmp_path), GENRES)) == []
    assert list(about.training_figures(Origin("a"), GENRES)) == []


@pytest.mark.parametrize(
    ("metrics", "left"),
    [
        ("", []),
        ("no JSON", []),
        ("[" * 200_000, []),
        ('{"valid":' * 100_000, []),
        ("9" * 900_000, []),
        ("null", []),
        ('"test"', []),
        ("[1, 2]", []),
        ("{}", []),
        ('{"valid": [1, 2]}', []),
        ('{"test": null, "valid": {}}', []),
        (measured(confusion=None), [RELIABILITY_TITLE]),
        (measured(confusion="8"), [RELIABILITY_TITLE]),
        (measured(confusion=[]), [RELIABILITY_TITLE]),
        (measured(confusion={"rock": 1}), [RELIABILITY_TITLE]),
        (measured(confusion=[[1, 2], [3, 4]]), [RELIABILITY_TITLE]),
        (measured(confusion=[[1], [1, 2], [1, 2, 3]]), [RELIABILITY_TITLE]),
        (measured(confusion=[[[1]] * 3] * 3), [RELIABILITY_TITLE]),
        (measured(confusion=[[-1, 0, 0]] * 3), [RELIABILITY_TITLE]),
        (measured(confusion=[[10**30, 0, 0]] * 3), [RELIABILITY_TITLE]),
        (measured(confusion=[[9 * 10**18, 9 * 10**18, 0]] * 3), [RELIABILITY_TITLE]),
        (measured(confusion=[[float("nan"), 0, 0]] * 3), [RELIABILITY_TITLE]),
        (measured(confusion=[["many", "", None]] * 3), [RELIABILITY_TITLE]),
        (measured(reliability=None), [MATRIX_TITLE]),
        (measured(reliability=[]), [MATRIX_TITLE]),
        (measured(reliability={"n": 1}), [MATRIX_TITLE]),
        (measured(reliability=[[4, 0.5, 0.5]]), [MATRIX_TITLE]),
        (measured(reliability=[{"n": 4}]), [MATRIX_TITLE]),
        (measured(reliability=BINS * 100), [MATRIX_TITLE]),
        *[
            (with_bin(n=n), [])
            for n in (0, -5, 0.5, 10**30, 9 * 10**18, 1e300, float("nan"), float("inf"), "many", None, [4])
        ],
        *[
            (with_bin(**{name: share}), [])
            for name, share in product(("confidence", "accuracy"), (-0.1, 1.1, 1e300, float("nan"), "\ud800", None))
        ],
    ],
    ids=lambda value: value[-50:-2] if isinstance(value, str) else "",
)
def test_a_damaged_measurement_costs_its_own_figures(
    beside: Callable[..., Origin], metrics: str, left: list[str]
) -> None:
    assert titles(list(about.training_figures(beside(metrics, ""), GENRES))) == left


@pytest.mark.parametrize(
    "history",
    [
        "",
        HEADER,
        "no table",
        "epoch,lr\n1,0.1\n",
        HEADER + "1,0.001\n",
        HEADER + "one,0.001,2.27,0.2,2.18,0.39,17.9\n",
        HEADER + "1,0.001,nan,0.2,2.18,0.39,17.9\n",
        HEADER + "1,0.001,2.27,0.2,-inf,0.39,17.9\n",
        HEADER + "1,0.001,-1,0.2,2.18,0.39,17.9\n",
        HEADER + "1e308,0,1e308,0.2,1e308,0.3,1\n-1e308,0,-1e308,0.2,1,0.3,1\n",
        HEADER + "\0,\0,\0,\0,\0,\0,\0\n",
        HEADER + '"' + 900_000 * "x",
        HEADER + 1_000 * "1" + 5 * ",1" + "\n",
        HISTORY + 40_000 * "3,0,1,0.5,1,0.5,1\n",
        HISTORY + 1_000_000 * " ",
    ],
    ids=lambda value: value[-30:] if len(value) < 1_000 else f"{len(value)} characters",
)
def test_a_damaged_history_costs_its_own_figure(beside: Callable[..., Origin], history: str) -> None:
    figures = list(about.training_figures(beside(measured(confusion=None), history), GENRES))
    assert titles(figures) == [RELIABILITY_TITLE]


def test_more_genres_than_can_be_drawn(beside: Callable[..., Origin]) -> None:
    genres = [f"genre {number}" for number in range(200)]
    origin = beside(measured(confusion=[[1] * 200] * 200), HISTORY)
    assert titles(list(about.training_figures(origin, genres))) == [RELIABILITY_TITLE, CURVES_TITLE]


def test_strange_names_of_genres_are_drawn_as_they_are(beside: Callable[..., Origin]) -> None:
    genres = ("<script>alert(1)</script>", "$\\frac{1}$ {0.__class__}", "\"'&lt;")
    [matrix, *_] = about.training_figures(beside(measured(), HISTORY), genres)
    texts = shown(matrix)
    assert all(any(text.startswith(genre) for text in texts) for genre in genres)
    assert "<script" not in matrix


def test_a_card_is_without_its_metadata() -> None:
    assert (
        about.card("---\nlicense: mit\ntags:\n- music\n---\n# A model\n\n---\nText\n").strip()
        == "# A model\n\n---\nText"
    )
    assert about.card("---\nlicense: mit\n---").strip() == ""
    assert about.card("---\n---\nText").strip() == "Text"


@pytest.mark.parametrize(
    "text", ["", "# A model\n\n---\n\na < b, 2! > 1, [a link](https://x.org), `x[0]`", "---\nText", "--- Text"]
)
def test_what_is_neither_metadata_nor_markup_stays(text: str) -> None:
    assert about.card(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "![me](https://evil.example/pixel.png)",
        "!![me](https://evil.example/pixel.png)",
        "!<![me](https://evil.example/pixel.png)",
        "[![badge](https://evil.example/b.svg)](https://evil.example)",
        "![me][1]\n\n[1]: https://evil.example/pixel.png",
        "<img src=https://evil.example/pixel.png>",
        "<<img src=https://evil.example/pixel.png>",
        "<!<img src=x onerror=alert(1)>",
        "</div><style>body { display: none }</style>",
        "<!-- --><script>alert(1)</script>",
        "<?xml?><svg/onload=alert(1)>",
        '```mermaid\nflowchart TD\n  A@{ img: "https://evil.example/pixel.png" }\n```',
        "---\na: b\n---\n<img src=x>",
        "---\n<img src=x>",
    ],
)
def test_a_card_has_no_picture_and_no_html(text: str) -> None:
    assert DANGER.search(text)
    cleaned = about.card(text)
    assert not DANGER.search(cleaned)
    assert cleaned.replace(" ", "") in text.replace(" ", "") + "\n"  # nothing but spaces comes in


def test_no_combination_of_signs_makes_markup() -> None:
    for signs in product("!<[a`", repeat=5):
        text = f"{''.join(signs)}[x](y)"
        assert not DANGER.search(about.card(text)), text
        assert about.card(about.card(text)) == about.card(text)


@pytest.mark.parametrize("part", ["!", "<", "![", "<a", "---\n", "\n", "---\n---\n", "```", "```mermaid", "<!", "!<"])
def test_a_hostile_card_is_cleaned_in_one_pass(part: str) -> None:
    """As long as a card may be: work that grows with the square of its length would not come back."""
    text = "---\n" + part * (200_000 // len(part))
    cleaned = about.card(text)
    assert not DANGER.search(cleaned)
    assert len(cleaned) <= 2 * len(text)


def test_facts_about_a_model(tiny_model: CRNN) -> None:
    model = CRNN(replace(tiny_model.config, unsure_below=0.45, trained_on="a split"))
    html = about.facts(GenreClassifier(model, Origin("tiny (folder)")))
    assert all(f"<td>{value}</td>" in html for value in ("tiny (folder)", "rock, jazz, disco", "a split", "2 s", "45%"))
    parameters = sum(weights.numel() for weights in model.parameters())
    assert f"<td>{parameters:,}</td>".replace(",", "\u202f") in html
    assert "href" not in html


FIGURES = {"n": 197, "accuracy": 0.761, "accuracy_error": 0.0304, "answered": 0.675, "answered_right": 0.8947}


def test_facts_say_how_often_it_is_right(tiny_model: CRNN, beside: Callable[..., Origin]) -> None:
    html = about.facts(GenreClassifier(tiny_model, beside(measured(**FIGURES), "")))
    assert "76% ± 3% of 197" in html
    assert "68%, and right about 89% of these" in html


def test_facts_say_what_has_been_trained_on_since(tiny_model: CRNN, beside: Callable[..., Origin]) -> None:
    record = json.loads(measured(**FIGURES)) | {"trained_on": "a split: train+valid"}
    html = about.facts(GenreClassifier(tiny_model, beside(json.dumps(record), "")))
    assert "trained without them" in html
    assert "it had not heard" not in html


@pytest.mark.parametrize(
    "trained_on",
    [
        "own split by folders, train and valid and test: train",
        "a split: train; fault-filtered split of GTZAN: train+valid",
    ],
)
def test_facts_are_of_the_own_training_alone(tiny_model: CRNN, beside: Callable[..., Origin], trained_on: str) -> None:
    record = json.loads(measured(**FIGURES)) | {"trained_on": trained_on}
    html = about.facts(GenreClassifier(tiny_model, beside(json.dumps(record), "")))
    assert "Right about clips it had not heard" in html


def test_facts_say_what_the_borders_of_the_model_itself_give(tiny_model: CRNN, beside: Callable[..., Origin]) -> None:
    """Those of a calibration, not those that its validation clips were measured with."""
    record = json.loads(measured(**FIGURES)) | {"calibration": {"known": {"answered": 0.651, "answered_right": 0.952}}}
    html = about.facts(GenreClassifier(tiny_model, beside(json.dumps(record), "")))
    assert "65%, and right about 95% of these" in html


@pytest.mark.parametrize("value", [-1, 1e300, "<b>", None, float("nan")])
@pytest.mark.parametrize("name", FIGURES)
def test_what_is_no_figure_is_left_out(
    tiny_model: CRNN, beside: Callable[..., Origin], name: str, value: object
) -> None:
    html = about.facts(GenreClassifier(tiny_model, beside(measured(**FIGURES | {name: value}), "")))
    assert ("76% ± 3% of 197" in html) == name.startswith("answered")
    assert ("right about 89%" in html) == (not name.startswith("answered"))


@pytest.mark.parametrize(
    "record", ["", measured(), json.dumps({**json.loads(measured(**FIGURES)), "heard": ["valid"]})]
)
def test_no_measurement_no_accuracy(tiny_model: CRNN, beside: Callable[..., Origin], record: str) -> None:
    without = about.facts(GenreClassifier(tiny_model, Origin("a")))
    assert about.facts(GenreClassifier(tiny_model, beside(record, ""))) == without


@pytest.mark.parametrize("hub", ["https://huggingface.co", "https://mirror.example"])
def test_a_model_of_the_hub_is_linked_to_its_commit(
    tiny_model: CRNN, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    html = about.facts(GenreClassifier(tiny_model, Origin("me/it", repo="me/it", revision="a" * 40)))
    assert f'<a href="{hub}/me/it/tree/{"a" * 40}" target="_blank" rel="noopener">' in html


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\"'><img src=x>", "{0.__class__} {genres} %s &lt;"])
def test_facts_are_text(tiny_model: CRNN, name: str) -> None:
    def html_of(name: str) -> str:
        model = CRNN(replace(tiny_model.config, genres=(name, "b"), trained_on=name))
        return about.facts(GenreClassifier(model, Origin(name, repo=name, revision=name)))

    hostile, harmless = html_of(name), html_of("a")
    assert re.sub(r'"[^"]*"', '""', "".join(re.findall(r"<[^>]*>", hostile))) == re.sub(
        r'"[^"]*"', '""', "".join(re.findall(r"<[^>]*>", harmless))
    )
    texts = [unescape(text) for text in re.findall(r"<td>([^<]*)</td>", hostile)]
    assert texts.count(name) == 2
    assert f"{name}, b" in texts
