"""Inference: one answer for one sound, whatever the way in, the batch size, the level and the number of threads."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from crnn.audio import SAMPLE_RATE, AudioError, Notice, Passages, load_audio, open_audio
from crnn.decoding import Decoders
from crnn.features import FRAMES_PER_SECOND, LogMel
from crnn.inference import LISTENING_SHARE, MOST_WINDOWS, NO_MUSIC, UNSURE, GenreClassifier, Prediction
from crnn.network.layers import window_weights
from crnn.network.model import CRNN
from crnn.network.songs import hear, window_logits
from crnn.sources import Origin
from crnn.training.metrics import mean_probabilities

Tone = Callable[..., np.ndarray]


@pytest.fixture
def classifier(tiny_model: CRNN) -> GenreClassifier:
    """The tiny model, in use."""
    return GenreClassifier(tiny_model, Origin("tiny"))


def configured(model: CRNN, **changes: object) -> GenreClassifier:
    """A model with other settings and the same weights, in use."""
    changed = CRNN(replace(model.config, **changes))
    changed.load_state_dict(model.state_dict())
    return GenreClassifier(changed, Origin("tiny"))


def assert_close(prediction: Prediction, expected: Prediction, atol: float = 0.0) -> None:
    """The same answer in every part."""
    assert prediction.verdict == expected.verdict
    assert prediction.genres == expected.genres
    assert list(prediction.probabilities) == list(expected.probabilities)
    assert prediction.probabilities == pytest.approx(expected.probabilities, abs=atol, rel=0)
    np.testing.assert_allclose(prediction.timeline, expected.timeline, rtol=0, atol=atol)
    np.testing.assert_array_equal(prediction.starts_seconds, expected.starts_seconds)
    np.testing.assert_allclose(prediction.log_mel, expected.log_mel, rtol=0, atol=100 * atol)
    assert prediction.duration_seconds == expected.duration_seconds


def test_a_file_its_bytes_and_its_waveform_give_the_same(
    classifier: GenreClassifier, tone: Tone, write_wav: Callable[[Path, np.ndarray], Path], tmp_path: Path
) -> None:
    waveform = tone(5.3)
    path = write_wav(tmp_path / "song.wav", waveform)
    expected = classifier.predict_waveform(waveform)
    for source in (path, str(path), path.read_bytes()):
        assert_close(classifier.predict(source), expected, atol=1e-6)  # as other blocks are rounded otherwise


def test_a_clear_part_of_a_song_does_not_answer_for_another_clear_one() -> None:
    """Only what speaks clearly for no genre counts less: here for a rock of three windows against a jazz of one."""
    logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 8.0], [-1.0, 1.0]])
    energies = logits.logsumexp(dim=1)
    weights = window_weights(energies, 2.0)
    assert weights[:4].tolist() == pytest.approx([weights[0].item()] * 4)
    assert weights[4] < weights[0] / 5
    [[rock, _]] = mean_probabilities([logits], evidence=2.0)
    assert rock > 0.7


@pytest.mark.parametrize("evidence", [0.0, 3.0])
def test_windows_count_by_what_speaks_for_any_genre_in_them(tiny_model: CRNN, tone: Tone, evidence: float) -> None:
    """As the figures of a training have it."""
    classifier = configured(tiny_model, evidence=evidence)
    recording = classifier._listen([np.concatenate([tone(6), 0.1 * tone(6, 3_000)])[None]])
    (prediction,) = classifier.answer([recording])
    plan, _ = classifier._windows(recording)
    (windows,) = hear(classifier.model, [plan])
    weights = (evidence * windows.logits.logsumexp(dim=1)).exp()
    weights = (weights / weights.sum()).detach().numpy()
    by_column = [prediction.probabilities[genre] for genre in prediction.genres]
    np.testing.assert_allclose(by_column, weights @ prediction.timeline, atol=1e-6)
    assert (np.ptp(weights) > 1e-3) == bool(evidence)
    config = classifier.model.config
    shares = mean_probabilities([windows.logits.detach()], config.temperature, config.evidence)
    np.testing.assert_allclose(shares[0], by_column, atol=1e-6)


@pytest.mark.parametrize("genres", [("rock", "jazz", "disco"), ("disco", "jazz", "rock")])
def test_the_answer_is_the_mean_over_windows(tiny_model: CRNN, tone: Tone, genres: tuple[str, ...]) -> None:
    classifier = configured(tiny_model, genres=genres)
    prediction = classifier.predict_waveform(tone(9))
    assert prediction.timeline.shape == (len(prediction.starts_seconds), 3)
    assert prediction.timeline.dtype == np.float32
    np.testing.assert_allclose(prediction.timeline.sum(axis=1), 1, atol=1e-6)
    assert (prediction.timeline >= 0).all()
    assert prediction.timeline.std(axis=0).max() > 1e-4  # the windows differ, so that their mean says something
    by_column = [prediction.probabilities[genre] for genre in prediction.genres]
    np.testing.assert_allclose(by_column, prediction.timeline.mean(axis=0), atol=1e-6)
    assert sum(by_column) == pytest.approx(1, abs=1e-6)
    assert list(prediction.probabilities.values()) == sorted(by_column, reverse=True)
    assert prediction.verdict == next(iter(prediction.probabilities))
    assert prediction.genres == classifier.genres == genres


def test_the_answer_is_that_of_the_model(classifier: GenreClassifier, tone: Tone) -> None:
    """One window, by hand: the log-mel through the model, then softmax."""
    waveform = tone(1.98)
    log_mel = classifier.front_end(torch.from_numpy(waveform))
    assert log_mel.shape[1] == classifier.model.config.window_frames
    with torch.no_grad():
        expected = classifier.model(log_mel[None]).softmax(dim=1)
    np.testing.assert_allclose(classifier.predict_waveform(waveform).timeline[:1], expected, atol=1e-6)


def test_other_sounds_give_other_answers(classifier: GenreClassifier, tone: Tone) -> None:
    low, high = (classifier.predict_waveform(tone(4, hz)).probabilities for hz in (110, 3_000))
    assert max(abs(low[genre] - high[genre]) for genre in low) > 1e-3


@pytest.mark.parametrize("seconds", [1.0, 1.03, 1.99, 2.0, 2.01, 5.4, 30.0, 180.0])
def test_the_timeline_covers_the_whole_clip(classifier: GenreClassifier, tone: Tone, seconds: float) -> None:
    prediction = classifier.predict_waveform(tone(seconds))
    rows = prediction.as_dict()["timeline"]
    assert len(rows) <= MOST_WINDOWS + 2
    assert rows[0]["start_seconds"] == 0
    assert rows[-1]["end_seconds"] == pytest.approx(seconds, abs=1e-4)
    for row, following in pairwise(rows):
        assert row["start_seconds"] < following["start_seconds"] < row["end_seconds"] <= following["end_seconds"]
    longest = 48 * 914 / SAMPLE_RATE
    assert all(row["end_seconds"] - row["start_seconds"] <= longest + 1e-9 for row in rows)
    assert prediction.log_mel.shape == (128, 1 + round(seconds * SAMPLE_RATE) // 914)
    assert prediction.duration_seconds == pytest.approx(seconds, abs=1e-4)


def test_all_of_a_long_set_is_heard(
    tiny_model: CRNN, tone: Tone, write_wav: Callable[[Path, np.ndarray], Path], tmp_path: Path
) -> None:
    """Five minutes of one sound, fifteen of another, by a model that tells them apart."""
    sounds = tone(2, 110), tone(2, 3_000)
    sample = torch.from_numpy(np.concatenate([np.tile(sounds[0], 5), np.tile(sounds[1], 15)]))
    linear = tiny_model.members[0].classifier.linear
    with torch.no_grad():
        logits, starts = window_logits(tiny_model, LogMel()(sample))
        seconds = np.array(starts) / FRAMES_PER_SECOND
        low, high = logits[seconds < 7].mean(dim=0), logits[seconds > 11].mean(dim=0)
        linear.bias -= (low + high) / 2
        linear.bias *= 50
        linear.weight *= 50
    first, second = (tiny_model.config.genres[int(there)] for there in ((low - high).argmax(), (high - low).argmax()))
    song = np.concatenate([np.tile(sound, repeats) for sound, repeats in zip(sounds, (150, 450), strict=True)])
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(write_wav(tmp_path / "set.wav", song))
    assert prediction.duration_seconds == 1_200
    assert prediction.notices == ()
    assert prediction.starts_seconds[0] == 0
    assert prediction.ends_seconds[-1] == pytest.approx(1_200, abs=1e-3)
    assert len(prediction.timeline) <= MOST_WINDOWS + 2
    assert np.diff(prediction.starts_seconds).max() < 1_200 / MOST_WINDOWS + 1
    tops = np.array(prediction.genres)[prediction.timeline.argmax(axis=1)]
    assert set(tops[prediction.ends_seconds < 299]) == {first}
    assert set(tops[prediction.starts_seconds > 301]) == {second}
    assert prediction.verdict == second
    assert prediction.probabilities[first] == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_how_much_of_a_song_is_done_is_told_and_what_listens_may_end_it(
    tiny_model: CRNN, tone: Tone, write_wav: Callable[[Path, np.ndarray], Path], tmp_path: Path, elsewhere: bool
) -> None:
    path, shares = write_wav(tmp_path / "song.wav", tone(30.0)), []

    def stop(share: float) -> None:
        shares.append(share)
        raise KeyError("enough")

    with Decoders(1) if elsewhere else nullcontext() as decoders:
        classifier = GenreClassifier(tiny_model, Origin("tiny"), opener=decoders.open_audio if decoders else open_audio)
        with pytest.raises(KeyError, match="enough"):
            classifier.predict(path, report=stop)
        assert len(shares) == 1
        expected = classifier.predict(path)  # nor is a decoder lost
        shares.clear()
        assert_close(classifier.predict(path, report=shares.append), expected)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert sum(share < LISTENING_SHARE for share in shares) > 5
    assert shares[-1] == 1


def test_short_passages_are_heard_in_windows_as_long_as_the_model_knows(
    tiny_model: CRNN, tone: Tone, tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    """Two seconds: the four passages of a second each are two windows."""
    song = write_wav(tmp_path / "song.wav", tone(40))
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song, Passages(4, 1.0))
    np.testing.assert_allclose(prediction.starts_seconds, [5 - 0.5, 25 - 0.5], atol=0.1)
    np.testing.assert_allclose(prediction.ends_seconds, [15 + 0.5, 35 + 0.5], atol=0.1)
    with torch.no_grad():
        logits = tiny_model(torch.stack(torch.from_numpy(prediction.log_mel).chunk(2, dim=1)))
    np.testing.assert_allclose(prediction.timeline, logits.softmax(dim=-1).numpy(), atol=1e-5)


def test_what_is_between_passages_is_not_told(
    classifier: GenreClassifier, tone: Tone, tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    song = write_wav(tmp_path / "song.wav", tone(40))
    answer = classifier.predict(song).as_dict()
    assert (answer["duration_seconds"], answer["heard_seconds"]) == (40, None)
    prediction = classifier.predict(song, Passages(4, 1.0))
    answer = prediction.as_dict()
    assert (answer["duration_seconds"], answer["heard_seconds"]) == pytest.approx((40, 4), abs=0.1)
    with pytest.raises(ValueError, match="Only passages of this song were heard"):
        prediction.course(np.array([0.0, 20.0]))


@pytest.mark.parametrize("kind", ["flac", "mp3", "wav"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_song_that_is_cut_is_heard_as_a_whole(
    tiny_model: CRNN, tone: Tone, tmp_path: Path, kind: str, share: float
) -> None:
    """Else a table of broken songs would call them whole."""
    path = tmp_path / f"song.{kind}"
    soundfile.write(path, tone(60), SAMPLE_RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    classifier = GenreClassifier(tiny_model, Origin("tiny"))
    expected, given = classifier.predict(path), classifier.predict(path, Passages(4, 1.0))
    assert "Its end is missing" in expected.notices[0].message
    assert given.notices == expected.notices
    assert given.duration_seconds == expected.duration_seconds
    np.testing.assert_array_equal(given.timeline, expected.timeline)


def test_a_song_that_is_silent_in_its_passages_is_heard_as_a_whole(
    tiny_model: CRNN, tone: Tone, tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    song = write_wav(tmp_path / "song.wav", np.concatenate([tone(4), np.zeros(60 * SAMPLE_RATE)]))
    classifier = GenreClassifier(tiny_model, Origin("tiny"))
    expected, given = classifier.predict(song), classifier.predict(song, Passages(4, 1.0))
    assert expected.verdict != NO_MUSIC
    assert given.verdict == expected.verdict
    silent = write_wav(tmp_path / "silent.wav", np.zeros(60 * SAMPLE_RATE))
    assert classifier.predict(silent, Passages(4, 1.0)).verdict == NO_MUSIC


def test_an_answer_to_passages_is_in_doubt_where_the_whole_song_may_say_otherwise(
    tiny_model: CRNN, tone: Tone, tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    song = write_wav(tmp_path / "song.wav", tone(40))
    classifier = GenreClassifier(tiny_model, Origin("tiny"), unsure_below=0.6)
    given = replace(classifier.predict(song, Passages(4, 1.0)), energy=5.0)

    def in_doubt(first: float, second: float, energy: float = 5.0) -> bool:
        verdict = UNSURE if first < classifier.unsure_below or energy < classifier.strange_below else "high"
        shares = {"high": first, "low": second}
        return classifier.is_in_doubt(replace(given, probabilities=shares, verdict=verdict, energy=energy))

    assert [in_doubt(first, 0.0) for first in (0.3, 0.55, 0.62, 0.9, 1.0)] == [False, True, True, False, False]
    classifier.unsure_below = 0.0  # the first genre is always the answer
    assert [in_doubt(*shares) for shares in ((0.5, 0.5), (0.6, 0.4), (0.9, 0.1))] == [True, False, False]
    assert not in_doubt(1.0000001, 0.0)  # as a sum of float32
    assert in_doubt(1.0000001, 0.0, energy=classifier.strange_below + 0.01)
    classifier.unsure_below = 1.0
    assert not in_doubt(0.9, 0.1)
    classifier.unsure_below, classifier.strange_below = 0.6, 2.0
    assert [in_doubt(0.9, 0.1, energy) for energy in (1.0, 1.9, 2.1, 3.0)] == [False, True, True, False]
    assert [in_doubt(0.3, 0.1, energy) for energy in (1.9, 2.1)] == [False, False]  # with more energy, unsure as well
    border = classifier.predict(song, Passages(4, 1.0))
    classifier.strange_below, classifier.unsure_below = border.energy, 0.0
    whole = classifier.predict(song)
    assert not classifier.is_in_doubt(whole)
    assert_close(classifier.predict(song, Passages(4, 1.0), whole_in_doubt=True), whole)
    classifier.strange_below = border.energy - 1.0
    classifier.unsure_below = 1.0
    assert_close(classifier.predict(song, Passages(4, 1.0), whole_in_doubt=True), border)


def test_the_tail_counts(classifier: GenreClassifier, tone: Tone) -> None:
    """What sounds in the last half second only is in the last window only."""
    waveform = tone(10.3)
    changed = waveform.copy()
    changed[-SAMPLE_RATE // 2 :] = 0.1 * np.sign(tone(0.5, 2_000))
    before, after = classifier.predict_waveform(waveform), classifier.predict_waveform(changed)
    moved = np.abs(before.timeline - after.timeline).max(axis=1) > 1e-3
    assert moved[-1]
    assert not moved[before.ends_seconds < 9.7].any()


def test_the_embedding_is_what_the_classifiers_read(classifier: GenreClassifier, tone: Tone) -> None:
    """From that of a song of one window, its probabilities follow."""
    prediction = classifier.predict_waveform(tone(1.9))
    (member,) = classifier.model.members
    assert prediction.embedding.shape == (member.classifier.linear.in_features,)
    assert prediction.embedding.dtype == np.float32
    with torch.inference_mode():
        logits = member.classifier(torch.from_numpy(prediction.embedding))
    shares = (logits / classifier.model.config.temperature).softmax(dim=-1)
    np.testing.assert_allclose(shares, prediction.timeline[0], atol=1e-5)
    several = classifier.predict_waveform(np.concatenate([tone(5), tone(5, 2_000)]))
    assert len(several.timeline) > 1
    assert several.embedding.shape == prediction.embedding.shape
    assert not np.allclose(several.embedding, prediction.embedding, atol=1e-3)


@pytest.mark.parametrize("sound", ["zeros", "-70 dB noise", "constant"])
def test_silence_is_no_music(classifier: GenreClassifier, sound: str) -> None:
    waveform = np.zeros(6 * SAMPLE_RATE, np.float32)
    if sound == "-70 dB noise":
        waveform += 10 ** (-70 / 20) * np.random.default_rng(0).standard_normal(waveform.size, np.float32)
    elif sound == "constant":
        waveform += 0.3
    prediction = classifier.predict_waveform(waveform)
    assert prediction.verdict == NO_MUSIC
    assert prediction.probabilities == {}
    assert prediction.timeline.shape == (0, 3)
    assert prediction.starts_seconds.shape == prediction.embedding.shape == (0,)
    assert prediction.summary() == "no music: the recording is silent"
    assert replace(prediction, notices=(Notice("Cut."),)).summary() == "no music: what is heard is silent"
    answer = prediction.as_dict()
    assert (answer["genre"], answer["probabilities"], answer["timeline"]) == ("no music", {}, [])
    assert answer["duration_seconds"] == 6


def test_a_steady_tone_is_no_music(classifier: GenreClassifier, tone: Tone) -> None:
    hum = 0.2 * np.sin(2 * np.pi * 120 * np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    prediction = classifier.predict_waveform(hum)
    assert prediction.verdict == NO_MUSIC
    assert prediction.summary() == "no music: the recording is nothing but steady tones"
    music = tone(12.0)
    behind = classifier.predict_waveform(np.concatenate([hum, music]))
    assert behind.starts_seconds[0] == pytest.approx(8, abs=1)
    alone = classifier.predict_waveform(music)
    assert behind.probabilities == pytest.approx(alone.probabilities, abs=0.05)


@pytest.mark.parametrize(("seconds", "told"), [(0.01, "0.1"), (0.5, "0.5"), (0.8, "0.8")])
def test_what_sounds_for_less_than_a_second_is_not_answered(
    classifier: GenreClassifier, tone: Tone, write_wav: Callable[[Path, np.ndarray], Path], tmp_path: Path,
    seconds: float, told: str,
) -> None:  # fmt: skip
    silence = np.zeros(20 * SAMPLE_RATE, np.float32)
    waveform = np.concatenate([silence, tone(seconds), silence])
    song = write_wav(tmp_path / "brief.wav", waveform)
    for ask in (
        lambda: classifier.predict_waveform(waveform),
        lambda: classifier.predict(song),
        lambda: classifier.predict(song, Passages(3, 4.0)),  # the middle one has all that sounds
    ):
        with pytest.raises(AudioError, match=rf"^Only {told} s of it sounds: at least 1 s is needed\.$"):
            ask()


@pytest.mark.parametrize("silent_seconds", [0, 0.3, 5])
def test_what_sounds_for_a_second_is_answered(classifier: GenreClassifier, tone: Tone, silent_seconds: float) -> None:
    silence = np.zeros(round(silent_seconds * SAMPLE_RATE), np.float32)
    for sound in ([tone(1)], [tone(0.4), np.zeros(2 * SAMPLE_RATE, np.float32), tone(0.6)]):
        waveform = np.concatenate([silence, *sound, silence])
        assert classifier.predict_waveform(waveform).verdict in classifier.genres


def test_quiet_music_is_music(classifier: GenreClassifier, tone: Tone) -> None:
    assert classifier.predict_waveform(10 ** (-30 / 20) * tone(3)).verdict in classifier.genres


@pytest.mark.parametrize("music_first", [True, False])
def test_a_silent_half_is_left_out(classifier: GenreClassifier, tone: Tone, music_first: bool) -> None:
    music, silence = tone(6), np.zeros(6 * SAMPLE_RATE, np.float32)
    prediction = classifier.predict_waveform(np.concatenate([music, silence] if music_first else [silence, music]))
    whole = classifier.predict_waveform(np.concatenate([music, music]))
    frame = 0.1
    assert (prediction.ends_seconds < 6 + frame).all() if music_first else (prediction.starts_seconds > 6 - frame).all()
    assert prediction.sounds.mean() == pytest.approx(0.5, abs=0.01)
    assert 0.4 * len(whole.timeline) < len(prediction.timeline) < 0.7 * len(whole.timeline)
    by_column = [prediction.probabilities[genre] for genre in prediction.genres]
    np.testing.assert_allclose(by_column, prediction.timeline.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("seconds", [2, 10])
def test_a_pause_changes_nothing(tone: Tone, seconds: float) -> None:
    classifier = GenreClassifier.from_pretrained("crnn-scratch")
    first, then, pause = tone(6), tone(6, 2_000), np.zeros(seconds * SAMPLE_RATE, np.float32)
    expected = classifier.predict_waveform(np.concatenate([first, then])).probabilities
    given = classifier.predict_waveform(np.concatenate([first, pause, then])).probabilities
    assert given == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("decibels", [-12, 12])
def test_the_level_changes_nothing(classifier: GenreClassifier, tone: Tone, decibels: float) -> None:
    waveform = tone(5.7)
    assert_close(
        classifier.predict_waveform(np.float32(10 ** (decibels / 20)) * waveform),
        classifier.predict_waveform(waveform),
        atol=2e-5,  # as the high-pass is rounded to float32
    )


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_the_batch_size_changes_nothing(classifier: GenreClassifier, tone: Tone, batch_size: int) -> None:
    waveform = tone(12)
    expected = classifier.predict_waveform(waveform)
    assert len(expected.timeline) > classifier.batch_size
    other = GenreClassifier(classifier.model, classifier.origin, batch_size=batch_size)
    assert_close(other.predict_waveform(waveform), expected, atol=1e-6)


def test_threads_may_share_a_classifier(classifier: GenreClassifier, tone: Tone) -> None:
    songs = [tone(2 + number / 5, hz=100 + 300 * number) for number in range(8)]
    expected = [classifier.predict_waveform(song) for song in songs]
    with ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(classifier.predict_waveform, 3 * songs))
    for prediction, one_thread in zip(predictions, 3 * expected, strict=True):
        assert_close(prediction, one_thread, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_forked_processes_may_share_a_classifier(classifier: GenreClassifier, tone: Tone) -> None:
    """PyTorch's threads, which have begun here, are not there: one that waits for them is ended by the alarm."""
    before, waveform = torch.get_num_threads(), tone(30)
    torch.set_num_threads(2)
    try:
        expected = classifier.predict_waveform(waveform)
        if not (child := os.fork()):
            signal.alarm(20)
            try:
                assert_close(classifier.predict_waveform(waveform), expected, atol=1e-5)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


def test_a_call_leaves_nothing_behind(tiny_model: CRNN, tone: Tone) -> None:
    classifier = GenreClassifier(tiny_model.train(), Origin("tiny"))  # dropout would make two answers differ
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    waveform = tone(4)
    before = waveform.copy()
    assert_close(classifier.predict_waveform(waveform), classifier.predict_waveform(waveform))
    np.testing.assert_array_equal(waveform, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.filterwarnings("error")
def test_any_layout_of_a_waveform(classifier: GenreClassifier, tone: Tone) -> None:
    waveform = tone(3)
    expected = classifier.predict_waveform(waveform)
    frozen = waveform.copy()
    frozen.flags.writeable = False
    for other in (waveform.astype(np.float64), frozen, waveform[::-1].copy()[::-1], waveform.tolist()):
        assert_close(classifier.predict_waveform(other), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["uint8", "int16", ">i2", "int32", "float16", "longdouble"])
def test_any_samples_of_sound_files(classifier: GenreClassifier, tone: Tone, kind: str) -> None:
    """Integers as a file with them is heard: those of eight bits about 128."""
    bits, levels = 8 * min(np.dtype(kind).itemsize, 4), tone(3)
    levels = np.round(levels * 2.0**7) / 2.0**7
    middle = 128 if kind == "uint8" else 0
    samples = levels if np.dtype(kind).kind == "f" else levels * 2.0 ** (bits - 1) + middle
    assert_close(classifier.predict_waveform(samples.astype(kind)), classifier.predict_waveform(levels))


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_channels_in_turns_are_heard_one_behind_the_other(
    kind: str, classifier: GenreClassifier, tone: Tone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries that read sound files give them: what then goes through them in steps takes twice as long."""
    heard, of_blocks = [], classifier.front_end.of_blocks
    monkeypatch.setattr(
        classifier.front_end, "of_blocks", lambda blocks: of_blocks(heard.append(block) or block for block in blocks)
    )
    in_turns = np.stack([2.0**14 * tone(3)] * 2, axis=1).astype(kind)
    classifier.predict_waveform(in_turns.T)
    assert [block.flags.c_contiguous for block in heard] == [True]


def test_samples_that_are_hardly_any_are_silence_in_integers_too(classifier: GenreClassifier) -> None:
    dither = np.random.default_rng(0).integers(-1, 2, 3 * SAMPLE_RATE).astype(np.int16)
    for samples in (dither, dither / 32_768):
        assert classifier.predict_waveform(samples).verdict == NO_MUSIC


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int16])
def test_any_tensor_of_samples(classifier: GenreClassifier, tone: Tone, dtype: torch.dtype) -> None:
    levels = torch.from_numpy(np.round(tone(3) * 2.0**7) / 2.0**7)
    samples = levels.to(dtype).requires_grad_() if dtype.is_floating_point else (levels * 2.0**15).to(dtype)
    assert_close(classifier.predict_waveform(samples), classifier.predict_waveform(levels.numpy()))


@pytest.mark.parametrize(
    ("waveform", "kind"),
    [
        (np.zeros(3 * SAMPLE_RATE, complex), "complex128"),
        (np.zeros(3 * SAMPLE_RATE, "m8[s]"), r"timedelta64\[s\]"),
        (np.zeros(3 * SAMPLE_RATE, int), "int64"),  # of which nobody knows the full scale
        (np.zeros(3 * SAMPLE_RATE, bool), "bool"),
        (torch.zeros(3 * SAMPLE_RATE, dtype=torch.complex64), "complex64"),
        (torch.zeros(3 * SAMPLE_RATE, device="meta"), "Tensor"),
        ([[0.0] * 3 * SAMPLE_RATE, [0.0]], "list"),
        ("song.mp3", "str"),
        (b"RIFF", "bytes"),
        (None, "object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_are_no_samples_is_refused(classifier: GenreClassifier, waveform: object, kind: str) -> None:
    with pytest.raises(AudioError, match=rf"must be an array of floats .*, not {kind}\d*\.$"):
        classifier.predict_waveform(waveform)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(0), "at least 1 s"),
        (np.zeros(SAMPLE_RATE - 1), "at least 1 s"),
        (np.zeros((2, SAMPLE_RATE - 1)), "at least 1 s"),
        (np.zeros((0, 3 * SAMPLE_RATE)), "channels"),
        (np.zeros((1, 2, 3 * SAMPLE_RATE)), "channels"),
        (np.zeros((3 * SAMPLE_RATE, 1)), "channels"),
        (np.float32(1), "channels"),
        (np.where(np.arange(3 * SAMPLE_RATE) == 30_000, np.nan, 0.1), "NaN"),
        (np.where(np.arange(3 * SAMPLE_RATE) == 66_149, -np.inf, 0.1), "infinite"),
        (np.where(np.arange(3 * SAMPLE_RATE) == 0, np.inf, 0.1), "infinite"),
        (np.where(np.arange(3 * SAMPLE_RATE) == 30_000, 1e30, 0.1), "huge"),
        (np.where(np.arange(3 * SAMPLE_RATE) == 30_000, 1e300, 0.1), "huge"),
        (np.full((2, 3 * SAMPLE_RATE), (-1.0) ** np.arange(3 * SAMPLE_RATE)) * [[3e38], [2e38]], "huge"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_waveform_is_refused(classifier: GenreClassifier, waveform: np.ndarray, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        classifier.predict_waveform(waveform)


def test_what_is_no_sound_is_refused(classifier: GenreClassifier, tmp_path: Path) -> None:
    for source in (b"", b"no sound at all", tmp_path / "missing.mp3"):
        with pytest.raises(AudioError):
            classifier.predict(source)


def test_temperature_flattens(tiny_model: CRNN, tone: Tone) -> None:
    """At temperature 2 the probabilities of a window are the square roots of those at 1, scaled to a sum of 1."""
    waveform = tone(5)
    sharp, flat, plain = (
        configured(tiny_model, temperature=temperature).predict_waveform(waveform) for temperature in (0.25, 2.0, 1.0)
    )
    roots = np.sqrt(plain.timeline)
    np.testing.assert_allclose(flat.timeline, roots / roots.sum(axis=1, keepdims=True), atol=1e-6)
    tops = [max(prediction.probabilities.values()) for prediction in (flat, plain, sharp)]
    assert tops[0] < tops[1] < tops[2]


def test_below_the_threshold_it_is_unsure(tiny_model: CRNN, tone: Tone) -> None:
    waveform = tone(3)
    plain = GenreClassifier(tiny_model, Origin("tiny")).predict_waveform(waveform)
    top = max(plain.probabilities.values())
    above, below = (
        configured(tiny_model, unsure_below=threshold).predict_waveform(waveform) for threshold in (top, top + 1e-6)
    )
    assert above.verdict == plain.verdict
    assert above.summary() == plain.summary()
    assert below.verdict == UNSURE
    assert below.probabilities == plain.probabilities
    assert re.fullmatch(r"unsure: (\w+ \d+%, ){2}\w+ \d+%", below.summary())
    assert below.as_dict()["genre"] == "unsure"


@pytest.mark.parametrize(("n_genres", "is_strange"), [(3, False), (10, True)])
def test_it_is_unsure_between_two_genres_or_knows_nothing_like_it(
    tiny_model: CRNN, tone: Tone, n_genres: int, is_strange: bool
) -> None:
    """An untrained model finds all genres about as probable: two of three have most of it, two of ten a fifth."""
    genres = tuple(f"g{number}" for number in range(n_genres))
    model = CRNN(replace(tiny_model.config, genres=genres, unsure_below=0.9))
    prediction = GenreClassifier(model, Origin("")).predict_waveform(tone(2))
    assert prediction.verdict == UNSURE
    assert prediction.is_strange == is_strange
    assert prediction.summary().startswith("unsure, like nothing it knows: g" if is_strange else "unsure: g")
    assert not replace(prediction, verdict=genres[0]).is_strange


def test_a_song_without_energy_is_like_nothing_it_knows(tiny_model: CRNN, tone: Tone) -> None:
    plain = GenreClassifier(tiny_model, Origin("")).predict_waveform(tone(2))
    for offset, lacks_energy in ((-0.01, False), (0.01, True)):
        model = deepcopy(tiny_model)
        model.config = replace(tiny_model.config, unsure_below=0.0, strange_below=plain.energy + offset)
        prediction = GenreClassifier(model, Origin("")).predict_waveform(tone(2))
        assert prediction.probabilities == plain.probabilities
        assert prediction.lacks_energy == prediction.is_strange == (prediction.verdict == UNSURE) == lacks_energy
        model.config = replace(model.config, unsure_below=1.0)
        given = GenreClassifier(model, Origin(""), unsure_below=0.0).predict_waveform(tone(2))
        assert (given.verdict, given.is_strange) == (prediction.verdict, lacks_energy)


@pytest.mark.parametrize(
    ("n_genres", "pattern"),
    [
        (2, r"g\d \d+%, then g\d \d+%"),
        (3, r"g\d \d+%, then g\d \d+%, g\d \d+%"),
        (5, r"g\d \d+%, then g\d \d+%, g\d \d+%"),
    ],
)
def test_summary(tiny_model: CRNN, tone: Tone, n_genres: int, pattern: str) -> None:
    genres = tuple(f"g{number}" for number in range(n_genres))
    prediction = GenreClassifier(CRNN(replace(tiny_model.config, genres=genres)), Origin("")).predict_waveform(tone(2))
    summary = prediction.summary()
    assert re.fullmatch(pattern, summary)
    assert summary.startswith(f"{prediction.verdict} {prediction.probabilities[prediction.verdict]:.0%}, then")


@pytest.mark.parametrize("most", [0, -1])
@pytest.mark.parametrize("seconds", [0, 2])
def test_a_summary_names_one_genre_at_least(classifier: GenreClassifier, tone: Tone, most: int, seconds: int) -> None:
    prediction = classifier.predict_waveform(np.concatenate([tone(seconds), np.zeros(2 * SAMPLE_RATE)]))
    assert "," not in prediction.summary(1)
    with pytest.raises(ValueError, match=f"from 1 up, not {most}"):
        prediction.summary(most)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seconds", [0, 3])
def test_the_course_at_one_time_or_at_many(classifier: GenreClassifier, tone: Tone, seconds: int) -> None:
    prediction = classifier.predict_waveform(np.concatenate([tone(seconds), np.zeros(2 * SAMPLE_RATE)]))
    shares = prediction.course([-np.inf, 1, 1.5, np.nan, np.inf])
    assert shares.shape == (5, 3)
    assert np.isnan(shares).all(axis=1).tolist() == [not seconds, not seconds, not seconds, True, True]
    np.testing.assert_array_equal(prediction.course(1), shares[1])
    np.testing.assert_array_equal(prediction.course([[1], [1.5]]), shares[1:3, None])


def test_the_answer_survives_json(classifier: GenreClassifier, tone: Tone) -> None:
    prediction = classifier.predict_waveform(tone(5))
    answer = json.loads(json.dumps(prediction.as_dict(), allow_nan=False))
    assert answer["genre"] == prediction.verdict
    assert answer["probabilities"] == prediction.probabilities
    assert list(answer["probabilities"]) == list(prediction.probabilities)
    assert answer["duration_seconds"] == 5
    assert [row["start_seconds"] for row in answer["timeline"]] == prediction.starts_seconds.tolist()
    for row, shares in zip(answer["timeline"], prediction.timeline, strict=True):
        assert list(row["probabilities"]) == list(prediction.genres)
        np.testing.assert_array_equal(list(row["probabilities"].values()), shares)


def speech() -> np.ndarray:
    """A sentence that espeak-ng speaks; the models were trained on no voice but their own simple one."""
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    sentence = (
        "Good evening, and welcome. Tonight we talk about the weather of the week and about a railway bridge. " * 2
    )
    return load_audio(subprocess.run(["espeak-ng", "--stdout", sentence], capture_output=True, check=True).stdout)


def white_noise() -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, 12 * SAMPLE_RATE)


def pure_tone() -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE)


def silence() -> np.ndarray:
    return np.zeros(12 * SAMPLE_RATE)


@pytest.mark.parametrize("sound", [silence, white_noise, pure_tone, speech], ids=lambda sound: sound.__name__)
@pytest.mark.parametrize("model", ["crnn-transfer", "crnn-scratch"])
def test_the_bundled_models_find_no_genre_where_there_is_no_music(model: str, sound: Callable[[], np.ndarray]) -> None:
    prediction = GenreClassifier.from_pretrained(model).predict_waveform(sound())
    assert prediction.verdict == (NO_MUSIC if sound in (silence, pure_tone) else UNSURE)


def test_a_model_without_numbers_is_reported(tiny_model: CRNN, tone: Tone) -> None:
    classifier = configured(tiny_model)
    torch.nn.init.constant_(classifier.model.members[0].classifier.linear.bias, float("nan"))
    with pytest.raises(AudioError, match="tiny gives no valid probabilities"):
        classifier.predict_waveform(tone(3))


@pytest.mark.parametrize(("setting", "value"), [("temperature", 0.001), ("evidence", 10.0)])
def test_logits_that_overflow_on_their_way_are_no_answer(
    tiny_model: CRNN, tone: Tone, setting: str, value: float
) -> None:
    classifier = configured(tiny_model, **{setting: value})
    torch.nn.init.constant_(classifier.model.members[0].classifier.linear.bias, -1e38)
    with pytest.raises(AudioError, match="tiny gives no valid probabilities"):
        classifier.predict_waveform(tone(3))


def test_an_embedding_that_overflows_is_no_answer(
    tiny_model: CRNN, tone: Tone, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = configured(tiny_model)
    (heard,) = hear(classifier.model, [classifier._windows(classifier._listen([tone(3)[None]]))[0]])
    huge = heard._replace(embeddings=torch.full_like(heard.embeddings, 3e38))
    monkeypatch.setattr("crnn.inference.hear", lambda *_, **__: [huge])
    with pytest.raises(AudioError, match="tiny gives no valid probabilities"):
        classifier.predict_waveform(tone(3))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("precision", "bf16", "There is no precision 'bf16': try float32, bfloat16, fastest."),
        ("precision", None, "There is no precision None"),
        ("batch_size", 0, "from 1 up, not 0"),
        ("batch_size", -1, "from 1 up, not -1"),
        ("batch_size", 2.5, "from 1 up, not 2.5"),
        ("unsure_below", 80, "from 0 to 1, or None, not 80"),
        ("unsure_below", float("nan"), "not nan"),
        ("unsure_below", "0.5", "not '0.5'"),
        ("device", "gpu", "There is no device gpu here on which PyTorch computes: try cpu."),
        ("device", "cpu:7", "There is no device cpu:7 here"),
        ("device", None, "There is no device None here"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tiny_model: CRNN, option: str, value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        GenreClassifier(tiny_model, Origin("tiny"), **{option: value})


def test_options_may_be_numbers_of_numpy(tiny_model: CRNN) -> None:
    options = {"batch_size": np.int64(3), "unsure_below": np.float32(0.5), "device": torch.device("cpu")}
    assert GenreClassifier(tiny_model, Origin("tiny"), **options).unsure_below == 0.5
