"""Figures: what they show, at which place, and that they are readable as text."""

import re
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from crnn import plots
from crnn.audio import SAMPLE_RATE
from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, LogMel

GENRES = ("blues", "jazz", "rock")


def texts(figure):
    """All texts that a figure shows."""
    svg = ElementTree.fromstring(plots.to_svg(figure, ""))
    return [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]


def areas(figure):
    """The heights (n_points,) of the areas of a timeline at its points, from the bottom up; NaN in gaps."""
    heights = []
    for area in figure.axes[0].collections:
        corners = np.concatenate([path.vertices for path in area.get_paths()])
        seconds = np.unique(corners[:, 0])
        heights.append({s: np.ptp(corners[corners[:, 0] == s, 1]) for s in seconds})
    return heights


def test_colours_are_stable_and_all_different():
    names = [f"genre {number}" for number in range(25)]
    colours = plots.genre_colours(names)
    assert len({*colours.values()}) == 25
    assert plots.genre_colours(names[:3]) == {name: colours[name] for name in names[:3]}


@pytest.mark.parametrize("hz", [440, 1_000, 5_000])
def test_a_tone_lies_at_its_frequency(hz):
    tone = torch.sin(2 * torch.pi * hz * torch.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)
    loudest_band = LogMel()(tone).mean(dim=1).argmax().item()
    assert plots._mel_band(hz) == pytest.approx(loudest_band, abs=1)


def test_spectrogram_keeps_short_events_of_a_long_song():
    log_mel = np.full((128, 21_700), FLOOR_DB, np.float32)
    log_mel[64, 10_850] = 0.0
    axes = plots.mel_spectrogram(log_mel).axes[0]
    picture = axes.images[0].get_array()
    assert picture.shape == (128, plots.MAX_COLUMNS)
    assert np.argwhere(picture == 0.0).tolist() == [[64, plots.MAX_COLUMNS // 2]]
    assert axes.get_xlim() == (0, 21_700 / FRAMES_PER_SECOND)


def test_spectrogram_of_one_second():
    figure = plots.mel_spectrogram(np.full((128, 25), FLOOR_DB, np.float32))
    assert figure.axes[0].images[0].get_array().shape == (128, 25)


@pytest.mark.parametrize(
    ("duration_seconds", "expected"), [(30.0, {"10", "seconds"}), (900.0, {"6:00", "minutes:seconds"})]
)
def test_time_axis(duration_seconds, expected):
    figure = plots.timeline(np.array([0.0]), duration_seconds, np.array([[0.2, 0.5, 0.3]]), GENRES, duration_seconds)
    assert expected <= set(texts(figure))


def test_charts_of_a_song_share_their_time_axis():
    spectrogram = plots.mel_spectrogram(np.zeros((128, 724), np.float32))
    timeline = plots.timeline(np.array([0.0]), 30.0, np.array([[0.2, 0.5, 0.3]]), GENRES, 724 / FRAMES_PER_SECOND)
    a, b = spectrogram.axes[0], timeline.axes[0]
    assert spectrogram.get_figwidth() == timeline.get_figwidth()
    assert (a.get_position().x0, a.get_position().x1) == (b.get_position().x0, b.get_position().x1)
    assert a.get_xlim() == b.get_xlim()


def test_timeline_shows_the_probabilities_most_probable_first():
    starts, probabilities = np.array([0.0, 10.0]), np.array([[0.1, 0.7, 0.2], [0.3, 0.5, 0.2]])
    figure = plots.timeline(starts, 10.0, probabilities, GENRES, 20.0)
    jazz, *others = areas(figure)
    assert jazz[0.0] == pytest.approx(0.7)
    assert jazz[20.0] == pytest.approx(0.5)
    assert [sum(area[t] for area in (jazz, *others)) for t in (0.0, 20.0)] == pytest.approx([1.0, 1.0])
    assert "jazz" in texts(figure)


def test_timeline_leaves_a_gap_where_no_window_lies():
    figure = plots.timeline(np.array([0.0, 20.0]), 5.0, np.array([[0.6, 0.3, 0.1]] * 2), GENRES, 25.0)
    seconds = np.array(list(areas(figure)[0]))
    assert not ((seconds > 5.1) & (seconds < 19.9)).any()
    assert ((seconds > 4.8) & (seconds < 5.1)).any()


def test_timeline_of_a_song_shorter_than_its_window_fills_the_axes():
    figure = plots.timeline(np.array([0.0]), 10.0, np.array([[0.6, 0.3, 0.1]]), GENRES, 3.0)
    assert min(areas(figure)[0]) == 0.0
    assert max(areas(figure)[0]) == 3.0


def test_timeline_without_windows_is_empty():
    assert not areas(plots.timeline(np.empty(0), 10.0, np.empty((0, 3), np.float32), GENRES, 30.0))


def test_names_on_areas_are_readable():
    for colour in plots.genre_colours([str(number) for number in range(30)]).values():
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        luminance = np.dot((0.2126, 0.7152, 0.0722), linear)
        contrast = (luminance + 0.05) / 0.05 if plots._readable_on(colour) == "black" else 1.05 / (luminance + 0.05)
        assert contrast >= 4.5


def test_curves_show_training_and_validation():
    rows = [(1, 2.0, 0.2), (2, 1.1, 0.5), (3, 1.4, 0.6)]
    keys = ("lr", "train_loss", "train_accuracy", "seconds")
    history = [
        {"epoch": e, "valid_loss": loss, "valid_accuracy": share, **dict.fromkeys(keys, 0.5)} for e, loss, share in rows
    ]
    figure = plots.curves(history)
    assert [list(axes.lines[1].get_ydata()) for axes in figure.axes] == [[2.0, 1.1, 1.4], [0.2, 0.5, 0.6]]


def test_confusion_matrix_shows_counts_and_colours_recall():
    figure = plots.confusion_matrix([[8, 2, 0], [0, 0, 0], [1, 0, 3]], GENRES)
    assert figure.axes[0].images[0].get_array().tolist() == [[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 0.75]]
    cells = {(*text.get_position(), text.get_text()) for text in figure.axes[0].texts}
    assert cells == {(0, 0, "8"), (1, 0, "2"), (0, 2, "1"), (2, 2, "3")}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{GENRES[0]}  80%", GENRES[1], f"{GENRES[2]}  75%"]


def test_reliability_puts_each_bin_at_its_confidence_and_accuracy():
    bins = [{"n": 30, "confidence": 0.55, "accuracy": 0.4}, {"n": 70, "confidence": 0.9, "accuracy": 0.95}]
    axes = plots.reliability(bins).axes[0]
    assert axes.collections[-1].get_offsets().tolist() == [[0.55, 0.4], [0.9, 0.95]]
    assert [text.get_text() for text in axes.texts] == ["30", "70"]


def test_figures_can_be_saved(tmp_path):
    plots.confusion_matrix([[1, 0], [0, 1]], ("R$B", "a$b")).savefig(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_svg_takes_the_colour_of_the_page_and_says_what_it_shows():
    probabilities = np.array([[0.6, 0.4]])
    svg = plots.to_svg(
        plots.timeline(np.array([0.0]), 30.0, probabilities, ("R$B & <x>", "a$b"), 30.0), 'a "song" & <more>'
    )
    assert ElementTree.fromstring(svg).get("aria-label") == 'a "song" & <more>'
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert len(svg) < 200_000


def test_threads_can_draw_at_once():
    def draw(_):
        return plots.to_svg(plots.timeline(np.array([0.0]), 30.0, np.array([[0.5, 0.3, 0.2]]), GENRES, 30.0), "")

    def without_random_ids(svg):
        return re.sub(r'(id="|#)[pm][0-9a-f]{10}', "", svg)

    with ThreadPoolExecutor(4) as pool:
        assert len({without_random_ids(svg) for svg in pool.map(draw, range(12))}) == 1
