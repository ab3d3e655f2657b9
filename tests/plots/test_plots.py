"""Figures: what they show, at which place, and that they are readable as text."""

import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from crnn import plots
from crnn.audio import SAMPLE_RATE
from crnn.features import F_MAX, FLOOR_DB, FRAMES_PER_SECOND, LogMel, band_of_hz, hz_of_band
from crnn.plots import style
from crnn.plots.audio import PICTURE_COLUMNS

GENRES = ("blues", "jazz", "rock")


def texts(figure):
    """All texts that a figure shows."""
    svg = ElementTree.fromstring(plots.to_svg(figure, ""))
    return [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]


def luminance(colour):
    """The relative luminance of WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return np.dot((0.2126, 0.7152, 0.0722), linear)


def test_colours_are_stable_all_different_and_neither_white_nor_black():
    names = [f"genre {number}" for number in range(200)]
    colours = plots.genre_colours(names)
    assert [colours[name] for name in names[:10]] == list(plots.PALETTE)
    assert len({*colours.values()}) == 200
    shades = [luminance(colour) for colour in colours.values()]
    assert 1.05 / (max(shades) + 0.05) > 1.25  # as much contrast to white as the second round had
    assert (min(shades) + 0.05) / 0.05 > 1.25
    assert plots.genre_colours(names[:3]) == {name: colours[name] for name in names[:3]}


@pytest.mark.parametrize("hz", [440, 1_000, 5_000])
def test_a_tone_lies_at_its_frequency(hz):
    tone = torch.sin(2 * torch.pi * hz * torch.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)
    loudest_band = LogMel()(tone).mean(dim=1).argmax().item()
    assert band_of_hz(hz) == pytest.approx(loudest_band, abs=1)


def test_mel_bands_and_frequencies_are_inverse():
    for hz in (50.0, 999.0, 1_001.0, F_MAX):
        assert hz_of_band(band_of_hz(hz)) == pytest.approx(hz)


def test_columns_are_means_of_what_is_not_masked():
    values = np.ma.masked_greater(np.tile([1.0, 3.0, 100.0, 100.0], 720), 50)
    values[:8] = np.ma.masked
    columns = style.columns(values)
    assert columns.shape == (style.MAX_COLUMNS,)
    assert columns.mask.tolist() == [True, True] + [False] * 718
    assert set(columns.compressed()) == {2.0}


def test_spectrogram_keeps_short_events_of_a_long_song():
    log_mel = np.full((128, 21_700), FLOOR_DB, np.float32)
    log_mel[64, 10_850] = 0.0
    axes = plots.mel_spectrogram(log_mel).axes[0]
    picture = axes.images[0].get_array()
    assert picture.shape == (128, style.MAX_COLUMNS)
    assert np.argwhere(picture == 0.0).tolist() == [[64, style.MAX_COLUMNS // 2]]
    assert axes.get_xlim() == (0, 21_700 / FRAMES_PER_SECOND)


def test_spectrogram_of_one_second():
    figure = plots.mel_spectrogram(np.full((128, 25), FLOOR_DB, np.float32))
    assert figure.axes[0].images[0].get_array().shape == (128, 25)


def test_spectrograms_of_several_songs_share_their_time():
    log_mels = {"A$B": np.full((128, 25), FLOOR_DB, np.float32), "c$d": np.full((128, 2_000), -20, np.float32)}
    figure = plots.mel_spectrograms(log_mels)
    upper, lower, _ = figure.axes
    assert upper.get_xlim() == lower.get_xlim() == (0, 2_000 / FRAMES_PER_SECOND)
    assert upper.images[0].get_extent()[:2] == [0, 25 / FRAMES_PER_SECOND]
    assert [axes.images[0].get_array().shape for axes in (upper, lower)] == [(128, 25), (128, PICTURE_COLUMNS)]
    assert {"A$B", "c$d", "2000 Hz", "minutes:seconds"} <= set(texts(figure))


def test_the_timeline_stacks_genres_and_names_them_where_there_is_room():
    shares = np.tile([0.05, 0.6, 0.35], (100, 1))
    shares[:40, 1], shares[:40, 2] = 0.9, 0.05
    shares[50:60] = np.nan
    [axes] = plots.timeline(np.linspace(0, 20, 100), shares, GENRES).axes
    heights = [area.get_paths()[0].get_extents().y1 for area in axes.collections]
    assert heights == pytest.approx([0.9, 0.95, 1.0])
    assert [text.get_text() for text in axes.texts] == ["jazz", "rock"]
    assert all(len(area.get_paths()) == 2 for area in axes.collections)  # a gap between them
    jazz, rock = (text.get_position() for text in axes.texts)
    assert jazz[0] < 10 < rock[0]
    assert jazz[1] == pytest.approx(0.45)


def test_the_timeline_shows_what_sounds_for_seconds_in_hours():
    seconds = np.array([0, 3_599.9, 3_600.1, 3_603.9, 3_604.1, 7_200])
    shares = np.full((6, 3), np.nan)
    shares[2:4] = [0.1, 0.7, 0.2]
    [axes] = plots.timeline(seconds, shares, GENRES).axes
    places = [area.get_paths()[0].get_extents() for area in axes.collections]
    assert [(place.x0, place.x1) for place in places] == [(3_600.1, 3_603.9)] * 3
    assert [place.y1 for place in places] == pytest.approx([0.7, 0.9, 1.0])


def test_the_timeline_of_silence_is_empty():
    figure = plots.timeline(np.linspace(0, 30, 300), np.full((300, 3), np.nan), GENRES)
    assert not figure.axes[0].texts
    assert "seconds" in texts(figure)


@pytest.mark.parametrize(
    ("duration_seconds", "expected"),
    [(30.0, {"10", "seconds"}), (900.0, {"6:00", "minutes:seconds"}), (9_000.0, {"1:30", "hours:minutes"})],
)
def test_time_axis(duration_seconds, expected):
    log_mel = np.full((128, round(duration_seconds * FRAMES_PER_SECOND)), FLOOR_DB, np.float32)
    assert expected <= set(texts(plots.mel_spectrogram(log_mel)))


def test_names_on_areas_are_readable():
    for colour in plots.genre_colours([str(number) for number in range(200)]).values():
        shade = luminance(colour)
        contrast = (shade + 0.05) / 0.05 if style.readable_on(colour) == "black" else 1.05 / (shade + 0.05)
        assert contrast >= 4.5


def test_curves_show_training_and_validation():
    rows = [(1, 2.0, 0.2), (2, 1.1, 0.5), (3, 1.4, 0.6)]
    keys = ("lr", "train_loss", "train_accuracy", "seconds")
    history = [
        {"epoch": e, "valid_loss": loss, "valid_accuracy": share, **dict.fromkeys(keys, 0.5)} for e, loss, share in rows
    ]
    figure = plots.curves(history)
    assert [list(axes.lines[1].get_ydata()) for axes in figure.axes] == [[2.0, 1.1, 1.4], [0.2, 0.5, 0.6]]


def test_a_training_of_one_epoch_has_no_halves_of_one():
    keys = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    history = [{"epoch": 1, **dict.fromkeys(keys, 0.5)}]
    for figure in (plots.curves(history), plots.compared({"a": history, "b": history})):
        figure.draw_without_rendering()
        for axes in figure.axes:
            first, last = axes.get_xlim()
            labels = [label for label in axes.get_xticklabels() if first <= label.get_position()[0] <= last]
            assert [label.get_text() for label in labels] == ["1"]


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


def test_reliability_of_many_clips_has_no_larger_discs_than_that_of_few():
    bins = [{"n": n, "confidence": 0.5, "accuracy": 0.5} for n in (4_000, 1_000, 10)]
    large, medium, small = plots.reliability(bins).axes[0].collections[-1].get_sizes()
    assert large < 300
    assert large > 2 * medium > 4 * small > 0


def test_reliability_of_no_clips_is_the_diagonal_alone():
    axes = plots.reliability([]).axes[0]
    assert len(axes.lines) == 1
    assert not axes.texts


def test_svg_takes_the_colour_of_the_page_and_says_what_it_shows():
    figure = plots.confusion_matrix([[6, 4], [0, 3]], ("R$B & <x>", "a$b"))
    svg = plots.to_svg(figure, 'a "song" & <more>')
    assert ElementTree.fromstring(svg).get("aria-label") == 'a "song" & <more>'
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert len(svg) < 200_000


def test_a_genre_that_is_called_like_the_colour_of_text_keeps_its_name():
    figure = plots.confusion_matrix([[6, 4], [0, 3]], (plots.INK, f'style="{plots.INK}">'))
    assert {plots.INK, f'style="{plots.INK}">'} <= set(texts(figure))


def test_threads_can_draw_at_once():
    def draw(_):
        return plots.to_svg(plots.reliability([{"n": 30, "confidence": 0.55, "accuracy": 0.4}]), "")

    def without_random_ids(svg):
        return re.sub(r'(id="|#)[pm][0-9a-f]{10}', "", svg)

    with ThreadPoolExecutor(4) as pool:
        assert len({without_random_ids(svg) for svg in pool.map(draw, range(12))}) == 1


@pytest.mark.parametrize("genre", ["rock " * 12, "ดนตรีลูกทุ่งอีสาน", "caf\udce9\x1b\t"])
@pytest.mark.parametrize("n_genres", [2, 10])
def test_a_long_name_leaves_room_for_the_matrix(genre, n_genres, tmp_path):
    genres = [genre, *map(str, range(1, n_genres))]
    figure = plots.confusion_matrix(np.eye(n_genres, dtype=int), genres)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save_picture(figure, tmp_path / "confusion.png")
    box = figure.axes[0].get_window_extent()
    assert box.width > 0.3 * figure.bbox.width
    for label in (*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()):
        place = label.get_window_extent()
        assert min(place.x0, place.y0) >= 0


def test_a_picture_that_cannot_be_written_leaves_the_earlier_one(tmp_path, limited):
    path = tmp_path / "new" / "confusion.png"
    plots.save_picture(plots.confusion_matrix(np.eye(3, dtype=int), GENRES), path)
    before = path.read_bytes()
    with limited("RLIMIT_FSIZE", 1_000), pytest.raises(OSError, match=re.escape(str(path))):
        plots.save_picture(plots.confusion_matrix(np.eye(3, dtype=int), GENRES), path)
    assert path.read_bytes() == before


def test_pictures_have_a_font_for_every_script_or_escapes(tmp_path, monkeypatch):
    """A font of one sign is made, and is found; for another sign there is none."""
    builder = FontBuilder(1_000)
    builder.setupGlyphOrder([".notdef", "music"])
    builder.setupCharacterMap({ord("楽"): "music"})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 700))
    pen.lineTo((700, 0))
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "music": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "music": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Sign", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    manager = font_manager.fontManager
    ours = [font for font in manager.ttflist if "DejaVu" in font.name or "Last Resort" in font.name]
    gone = font_manager.FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")
    monkeypatch.setattr(manager, "ttflist", [gone, *ours])
    manager.addfont(tmp_path / "one.ttf")
    style._family_of.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.confusion_matrix([[8, 2], [0, 3]], ("楽 $x$", "古 été"))
        svg = plots.to_svg(figure, "")
        plots.save_picture(figure, tmp_path / "confusion.png")
    assert "楽 $x$" in svg
    assert "古 été" in svg  # a browser has fonts of its own
    labels = {label.get_text(): label.get_fontfamily() for label in figure.axes[0].get_xticklabels()}
    assert labels == {"楽 $x$": ["DejaVu Sans", "One Sign"], "\\u53e4 été": ["sans-serif"]}
    style._family_of.cache_clear()


@pytest.mark.parametrize(
    ("start", "end"),
    [(60.0, 63.0), (59.0, 61.4), (0.0, 600.0), (55.0, 65.0), (3_590.0, 3_610.0), (0.0, 3_700.0), (0.0, 9e4)],
)
def test_no_two_times_of_an_axis_are_the_same(start: float, end: float) -> None:
    figure, _ = style.over_time([1.0], end, start)
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert len(labels) > 2
    assert len(set(labels)) == len(labels)
    assert not any(":6" in label for label in labels)
    assert len(labels) < 10


def test_a_picture_without_an_ending_gets_that_of_a_png(tmp_path: Path) -> None:
    plots.save_picture(Figure(), tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
