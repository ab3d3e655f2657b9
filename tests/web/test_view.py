"""The drawing's data: its pictures are the spectrogram, its curves the answers of the windows, all on one time axis."""

import base64
import io
import json
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from crnn.audio import SAMPLE_RATE
from crnn.features import FRAMES_PER_SECOND, LogMel, to_levels
from crnn.inference import NO_MUSIC, GenreClassifier, Prediction
from crnn.insight.explain import BAND_EDGES, Explanation
from crnn.network.model import CRNN
from crnn.plots import genre_colours
from crnn.sources import Origin
from crnn.web.view import (
    COURSE_POINTS,
    MOST_FRAMES,
    MOST_PEAKS,
    MOST_SILENCES,
    PALETTE,
    SPOKE_AGAINST,
    SPOKE_FOR,
    course,
    envelope,
    overlay,
    song_view,
    tiles,
)

GENRES = ("rock", "jazz", "disco")


def decoded(tile: dict) -> np.ndarray:
    """The pixels of a tile, the lowest band first: palette levels or RGBA."""
    head, code = tile["href"].split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))[::-1]


def windows_of(
    timeline: Sequence[Sequence[float]], starts_seconds: Sequence[float], duration: float, window: float = 10.0
) -> Prediction:
    """A prediction from its windows."""
    shares, starts = np.float32(timeline).reshape(-1, len(GENRES)), np.float64(starts_seconds)
    n_frames = 1 + int(duration * FRAMES_PER_SECOND)
    into_window = np.arange(n_frames) / FRAMES_PER_SECOND - starts[:, None]
    sounds = (into_window >= 0) & (into_window <= window)
    by_genre = zip(GENRES, shares.mean(axis=0).tolist() if len(shares) else (), strict=False)
    probabilities = dict(sorted(by_genre, key=lambda item: -item[1]))
    return Prediction(
        verdict=next(iter(probabilities), NO_MUSIC),
        probabilities=probabilities,
        genres=GENRES,
        timeline=shares,
        starts_seconds=starts,
        ends_seconds=np.minimum(starts + window, duration),
        log_mel=np.full((128, n_frames), -40, np.float32),
        sounds=sounds.any(axis=0),
        peaks=np.zeros(2 * n_frames, np.float32),
        duration_seconds=duration,
    )


@pytest.mark.parametrize("n_frames", [1, 25, 2_048, 2_049, 5_000])
def test_tiles_together_are_the_picture(n_frames: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (128, n_frames), np.uint8)
    pictures = list(tiles(levels))
    np.testing.assert_array_equal(np.hstack([decoded(tile) for tile in pictures]), levels)
    assert len(pictures) == -(-n_frames // 2_048)
    assert sum(tile["width"] for tile in pictures) == pytest.approx(1)
    ends = np.cumsum([0.0, *(tile["width"] for tile in pictures)])
    assert [tile["start"] for tile in pictures] == pytest.approx(ends[:-1])


def test_the_colours_of_a_tile_are_those_of_its_levels() -> None:
    levels = np.tile(np.arange(256, dtype=np.uint8), (128, 1))
    [tile] = tiles(levels)
    picture = Image.open(io.BytesIO(base64.b64decode(tile["href"].split(",")[1]))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(picture)[0], PALETTE)
    brightness = PALETTE @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) >= -1).all()
    assert (brightness[0], brightness[-1]) == pytest.approx((0.3, 250), abs=2)


def test_levels_are_decibels() -> None:
    log_mel = np.float32([[-80, -60, -40, -20, 0, -100, 1]])
    assert to_levels(torch.from_numpy(log_mel)).tolist() == [[0, 64, 128, 191, 255, 0, 255]]


def test_the_envelope_shows_a_click_where_it_is() -> None:
    peaks = np.zeros(MOST_PEAKS * 100, np.float32)
    peaks[12_345], peaks[50_000] = 0.5, 0.125
    expected = np.zeros(MOST_PEAKS)
    expected[123], expected[500] = 1, 0.25
    np.testing.assert_array_equal(envelope(peaks), expected)


@pytest.mark.parametrize("n_peaks", [1, 3, MOST_PEAKS, MOST_PEAKS + 1, 22_050])
def test_the_envelope_of_any_length(n_peaks: int) -> None:
    """No peak is left out, and silence divides by nothing."""
    assert envelope(np.zeros(n_peaks, np.float32)).tolist() == [0] * min(n_peaks, MOST_PEAKS)
    for place in {0, n_peaks // 2, n_peaks - 1}:
        peaks = np.full(n_peaks, 0.1, np.float32)
        peaks[place] = 0.4
        drawn = envelope(peaks)
        assert drawn.shape == (min(n_peaks, MOST_PEAKS),)
        assert (drawn == 1).sum() == 1
        assert drawn[drawn < 1] == pytest.approx(0.25)


def test_the_pictures_of_a_long_song_are_bounded() -> None:
    """Two hours: columns of several frames, in which a moment is still seen."""
    prediction = windows_of([[1.0, 0.0, 0.0]], [0.0], 7_200.0)
    prediction.log_mel[:, 100_000] = 0
    view = song_view("a.wav", prediction)
    picture = np.hstack([decoded(tile) for tile in view["tiles"]])
    assert picture.shape == (128, MOST_FRAMES)
    assert (picture == 255).all(axis=0).nonzero()[0] / MOST_FRAMES == pytest.approx(
        [100_000 / len(prediction.sounds)], abs=1e-4
    )
    assert view["spectrogram_seconds"] == pytest.approx(7_200, abs=0.1)


def test_the_course_runs_straight_between_the_middles_of_windows() -> None:
    prediction = windows_of([[0.8, 0.2, 0.0], [0.4, 0.2, 0.4]], [0.0, 5.0], 15.0)
    shares = prediction.course(np.array([0.0, 5.0, 6.25, 7.5, 10.0, 15.0]))
    np.testing.assert_allclose(shares[:, 0], [0.8, 0.8, 0.7, 0.6, 0.4, 0.4], atol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)


def test_the_course_of_a_song_shorter_than_its_window() -> None:
    prediction = windows_of([[0.8, 0.2, 0.0]], [0.0], 3.0)
    np.testing.assert_allclose(prediction.course(np.array([0.0, 1.5, 3.0])), [[0.8, 0.2, 0.0]] * 3, atol=1e-6)


def test_silence_leaves_a_gap() -> None:
    prediction = windows_of([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], [2.0, 20.0], 40.0)
    seconds = np.array([0.0, 1.9, 2.1, 11.9, 12.1, 19.9, 20.1, 29.9, 30.1, 40.0])
    shares = prediction.course(seconds)
    assert np.isnan(shares).all(axis=1).tolist() == [True, True, False, False, True, True, False, False, True, True]
    assert np.isnan(shares).any(axis=1).tolist() == np.isnan(shares).all(axis=1).tolist()
    view = song_view("gap.wav", prediction)
    for seconds, *shares in zip(view["seconds"], *(genre["shares"] for genre in view["genres"]), strict=True):
        if 2.1 < seconds < 11.9 or 20.1 < seconds < 29.9:
            assert sum(shares) == pytest.approx(1, abs=2e-3)
        elif not (1.9 <= seconds <= 12.1 or 19.9 <= seconds <= 30.1):
            assert shares == [None, None, None]


def test_what_sounds_for_seconds_in_hours_has_its_place() -> None:
    prediction = windows_of([[0.7, 0.2, 0.1]], [5_400.5], 10_800.0, window=3.0)
    view = song_view("a.wav", prediction)
    heard = [second for second, share in zip(view["seconds"], view["genres"][0]["shares"], strict=True) if share]
    assert (heard[0], heard[-1]) == pytest.approx((5_400.5, 5_403.5), abs=1.5 / FRAMES_PER_SECOND)
    silent = [second for second in view["seconds"] if second not in heard]
    assert max(second for second in silent if second < heard[0]) == pytest.approx(heard[0], abs=0.05)
    assert min(second for second in silent if second > heard[-1]) == pytest.approx(heard[-1], abs=0.05)


def test_of_silences_without_number_the_longest_are_seen() -> None:
    prediction = windows_of([[0.7, 0.2, 0.1]], [0.0], 10_800.0, window=10_800.0)
    starts = np.arange(24, len(prediction.sounds) - 48, 60)  # thousands of them
    for start in starts:
        prediction.sounds[start : start + 24] = False
    prediction.sounds[starts[1_000] : starts[1_000] + 40] = False
    seconds, shares = course(prediction)
    assert (np.diff(seconds) > 0).all()
    assert len(seconds) == len(shares) <= COURSE_POINTS + 4 * MOST_SILENCES
    is_silent = np.isnan(shares).all(axis=1)
    edges = np.flatnonzero(np.diff(is_silent))
    assert len(edges) == 2 * MOST_SILENCES
    assert np.diff(seconds)[edges].max() < 1.01 / FRAMES_PER_SECOND
    starts_seconds = seconds[edges[::2]] + 0.5 / FRAMES_PER_SECOND
    assert np.abs(starts_seconds - starts[1_000] / FRAMES_PER_SECOND).min() < 0.5 / FRAMES_PER_SECOND


def test_a_silent_song_has_a_picture_and_no_genres() -> None:
    prediction = windows_of([], [], 3.0)
    assert np.isnan(prediction.course(np.array([0.0, 1.0]))).all()
    view = json.loads(json.dumps(song_view("a.wav", prediction), allow_nan=False))
    assert view["genres"] == []
    assert set(view["peaks"]) == {0}
    assert decoded(view["tiles"][0]).shape == (128, 73)


def test_genres_come_most_probable_first_in_the_colours_of_the_model() -> None:
    prediction = windows_of([[0.1, 0.7, 0.2], [0.2, 0.5, 0.3]], [0.0, 5.0], 15.0)
    view = song_view("song.mp3", prediction)
    assert [(genre["name"], genre["colour"]) for genre in view["genres"]] == [
        (name, genre_colours(GENRES)[name]) for name in ("jazz", "disco", "rock")
    ]
    assert [genre["share"] for genre in view["genres"]] == pytest.approx([0.6, 0.25, 0.15])
    assert [genre["shares"][0] for genre in view["genres"]] == pytest.approx([0.7, 0.2, 0.1])
    assert [genre["shares"][-1] for genre in view["genres"]] == pytest.approx([0.5, 0.3, 0.2])


@pytest.mark.parametrize("seconds", [1.0, 6.3, 100.0])
def test_a_real_prediction_is_drawn_whole(tiny_model: CRNN, tone: Callable[..., np.ndarray], seconds: float) -> None:
    waveform = tone(seconds)
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict_waveform(waveform)
    name = 'a "b" </script>\u2028.mp3'
    view = json.loads(json.dumps(song_view(name, prediction), allow_nan=False))
    assert view["name"] == name
    assert (view["seconds"][0], view["seconds"][-1]) == (0, pytest.approx(seconds, abs=0.006))
    assert view["duration_seconds"] == prediction.duration_seconds
    assert [genre["name"] for genre in view["genres"]] == list(prediction.probabilities)
    shares = np.array([genre["shares"] for genre in view["genres"]], float)
    assert shares.shape == (3, len(view["seconds"]))
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=2e-3)
    picture = np.hstack([decoded(tile) for tile in view["tiles"]])
    np.testing.assert_allclose(-80 * (1 - picture / 255), prediction.log_mel, atol=0.16)
    assert view["spectrogram_seconds"] == pytest.approx(seconds, abs=1 / FRAMES_PER_SECOND)
    assert len(json.dumps(view)) < 60_000 + 3_500 * seconds


def test_each_tick_is_at_the_loudest_band_of_its_tone() -> None:
    view = song_view("a.wav", windows_of([[1, 0, 0]], [0.0], 10.0))
    assert [hz for hz, _ in view["ticks_hz"]] == [500, 1_000, 2_000, 4_000, 8_000]
    for hz, height in view["ticks_hz"]:
        tone = torch.sin(2 * torch.pi * hz * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
        loudest = LogMel()(tone).mean(dim=1).argmax().item()
        assert 128 * height == pytest.approx(loudest + 0.5, abs=1), hz


def test_the_key_to_the_colours_goes_from_quiet_to_loud() -> None:
    view = song_view("a.wav", windows_of([[1, 0, 0]], [0.0], 10.0))
    assert view["floor_db"] == -80
    assert view["colours"] == ["#" + bytes(PALETTE[level]).hex() for level in range(0, 256, 16)]


def test_the_overlay_is_orange_for_and_blue_against() -> None:
    evidence = np.zeros((8, 3), np.float32)
    evidence[0, 0], evidence[7, 1], evidence[3, 2] = 2.0, -2.0, 0.5
    edges = np.array([0, 10, 30, 2_100])
    pictures = overlay(Explanation("rock", evidence, edges))
    assert len(pictures) == 2
    picture = np.hstack([decoded(tile) for tile in pictures])
    assert picture.shape == (128, 2_100, 4)
    colours, opacity = picture[..., :3], picture[..., 3].astype(int)
    bass, treble = np.s_[: BAND_EDGES[1], :10], np.s_[BAND_EDGES[7] :, 10:30]
    middle = np.s_[BAND_EDGES[3] : BAND_EDGES[4], 30:]
    assert (colours[bass] == SPOKE_FOR).all()
    assert (colours[middle] == SPOKE_FOR).all()
    assert (colours[treble] == SPOKE_AGAINST).all()
    for place in (bass, middle, treble):
        assert np.ptp(opacity[place]) == 0
        assert opacity[place].min() > 0
        opacity[place] = 0 if place is middle else opacity[place]
    assert np.count_nonzero(opacity) == 8 * 10 + (128 - BAND_EDGES[7]) * 20


def test_the_overlay_is_the_stronger_the_more_was_said() -> None:
    evidence = np.float32(np.outer(np.ones(8), [0.0, 0.1, -0.2, 0.4, -0.8, 1.6]))
    [tile] = overlay(Explanation("rock", evidence, np.arange(0, 70, 10)[:7]))
    opacity = decoded(tile)[0, ::10, 3].astype(int)
    assert opacity[0] == 0
    assert (np.diff(opacity) > 0).all()
    assert 128 < opacity[-1] <= 255
    [again] = overlay(Explanation("rock", 1_000 * evidence, np.arange(0, 70, 10)[:7]))
    np.testing.assert_array_equal(decoded(again), decoded(tile))


def test_the_overlay_of_hours_takes_little_memory() -> None:
    edges = np.linspace(0, round(3 * 3600 * FRAMES_PER_SECOND), 2_001).astype(np.int64)
    explanation = Explanation("rock", np.random.default_rng(0).normal(size=(8, 2_000)).astype(np.float32), edges)
    tracemalloc.start()
    try:
        assert sum(tile["width"] for tile in overlay(explanation)) == pytest.approx(1)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_where_nothing_was_said_nothing_is_laid_over() -> None:
    [tile] = overlay(Explanation("rock", np.zeros((8, 2), np.float32), np.array([0, 5, 10])))
    assert not decoded(tile)[..., 3].any()
