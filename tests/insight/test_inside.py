"""The trace of a window against the model itself, and the figures of the way from sound to genre."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from crnn import plots
from crnn.audio import SAMPLE_RATE
from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH, LogMel, n_frames_of
from crnn.insight.inside import trace
from crnn.network.config import CRNNConfig
from crnn.network.front import Maps
from crnn.network.layers import POOLING, RECURRENT
from crnn.network.model import CRNN
from crnn.plots import inside

STEPS = {step.figure.__name__: step for step in plots.STEPS}


@pytest.fixture
def musicnn_model():
    config = CRNNConfig(
        genres=("rock", "jazz", "disco"),
        front="musicnn",
        members=2,
        recurrent_size=6,
        window_frames=n_frames_of(2.0),
        temperature=0.7,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CRNN(config)
    model.load_pretrained(find=None)
    return model.eval()


@pytest.fixture(params=["small", "musicnn"])
def model(request, tiny_model, musicnn_model):
    return tiny_model if request.param == "small" else musicnn_model


@pytest.fixture(params=[*product(RECURRENT, POOLING)], ids=str)
def variant(request, tiny_model, musicnn_model):
    """Models with a recurrent layer and a pooling, one for each front."""
    recurrent, pooling = request.param
    models = []
    for config in (tiny_model.config, musicnn_model.config):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            models.append(CRNN(replace(config, recurrent=recurrent, pooling=pooling)).eval())
    models[0].stem.load_state_dict(tiny_model.stem.state_dict())
    models[1].load_pretrained(find=None)
    return models


@pytest.fixture
def song(tone):
    """A waveform of five seconds and its log-mel."""
    waveform = tone(5.0)
    return waveform, LogMel()(torch.from_numpy(waveform)).numpy()


def texts(figure):
    svg = ElementTree.fromstring(plots.to_svg(figure, ""))
    return [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]


@torch.inference_mode()
def test_trace_agrees_with_the_model(model, song):
    waveform, log_mel = song
    way = trace(model, log_mel[:, 30:], waveform[30 * HOP_LENGTH :], 30 / FRAMES_PER_SECOND)
    window = torch.from_numpy(log_mel[None, :, 30 : 30 + model.config.window_frames])
    assert way.log_mel == pytest.approx(window[0].numpy())
    assert way.logits == pytest.approx(model(window)[0].numpy(), abs=1e-5)
    expected = (model(window)[0] / model.config.temperature).softmax(dim=0)
    assert way.probabilities == pytest.approx(expected.numpy(), abs=1e-6)
    assert way.probabilities.sum() == pytest.approx(1.0)


def logits_of_first_member(model, song):
    """What the member that is drawn says of the first window."""
    return model.member_logits(torch.from_numpy(song[1][None, :, : model.config.window_frames]))[0, 0].numpy()


@torch.inference_mode()
def test_attention_and_states_give_the_logits(model, song):
    """From the drawn arrays alone: what is shown is what counts."""
    way = trace(model, song[1], song[0])
    pooled = np.concatenate([way.states.mean(axis=0), way.attention @ way.states])
    linear = model.members[0].classifier.linear
    expected = linear.weight.numpy() @ pooled + linear.bias.numpy()
    assert logits_of_first_member(model, song) == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_a_trace_of_every_variant_gives_its_logits(variant, song):
    for model in variant:
        way, member = trace(model, song[1], song[0]), model.members[0]
        expected = member.classifier(member.pool(torch.from_numpy(way.states)[None]))[0].numpy()
        assert logits_of_first_member(model, song) == pytest.approx(expected, abs=1e-4)
        assert way.attention.shape == way.states.shape[:1]
        assert way.attention.sum() == pytest.approx(1)


def test_every_variant_can_be_drawn(variant, song):
    for model in variant:
        way = trace(model, song[1], song[0])
        figure = STEPS["recurrent"].figure(way)
        panels = len(way.directions)
        assert set(way.directions) <= set(texts(figure))
        drawn = np.concatenate([axes.images[0].get_array() for axes in figure.axes[:panels]])
        assert sorted(map(tuple, drawn)) == sorted(map(tuple, way.states.T))
        assert figure.axes[0].images[0].get_clim()[1] == pytest.approx(max(1, np.abs(way.states).max()))
        assert figure.axes[panels].patches[0].get_data().values == pytest.approx(way.attention)


def test_shapes_of_the_small_front(tiny_model, song):
    way = trace(tiny_model, song[1], song[0])
    assert [maps.values.shape for maps in way.maps] == [(4, 32, 24), (24, 1, 6)]
    assert [maps.name for maps in way.maps] == ["block 1", "block 2"]
    assert [maps.frame_seconds for maps in way.maps] == pytest.approx([2 / FRAMES_PER_SECOND, 8 / FRAMES_PER_SECOND])
    assert way.states.shape == (6, 10)
    assert way.attention.shape == (6,)


def test_shapes_of_the_musicnn_front(musicnn_model, song):
    way = trace(musicnn_model, song[1], song[0])
    frames = way.maps[0].values.shape[-1]
    assert frames * way.maps[0].frame_seconds == pytest.approx(way.duration_seconds, abs=0.05)
    shapes = [(37, 1, frames), (27, 1, frames), *[(64, 1, frames)] * 3, (12, 1, frames // 32)]
    assert [maps.values.shape for maps in way.maps] == shapes
    assert way.states.shape == (frames // 32, 12)
    assert way.step_seconds == pytest.approx(12 / FRAMES_PER_SECOND)


def test_waveform_and_log_mel_are_of_the_same_moment(tiny_model):
    waveform = 1e-3 * np.random.default_rng(0).standard_normal((2, 5 * SAMPLE_RATE)).astype(np.float32)
    waveform[:, 60 * HOP_LENGTH] = 1.0, -1.0
    log_mel = LogMel()(torch.from_numpy(waveform)).numpy()
    way = trace(tiny_model, log_mel[:, 40:], waveform[:, 40 * HOP_LENGTH :])
    assert np.abs(way.waveform).argmax(axis=1).tolist() == [20 * HOP_LENGTH] * 2
    assert way.loudest_frame == 20
    assert way.duration_seconds == pytest.approx(way.waveform.shape[1] / SAMPLE_RATE)
    assert way.spectrum_db(20).min() > -1  # a click holds all frequencies alike


def test_what_is_longer_than_the_window_is_left_out(tiny_model, song):
    waveform, log_mel = song
    way = trace(tiny_model, log_mel, waveform)
    assert way.log_mel.tolist() == log_mel[:, : tiny_model.config.window_frames].tolist()
    assert way.waveform.tolist() == [waveform[: tiny_model.config.window_frames * HOP_LENGTH].tolist()]


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_of_a_short_song_waveform_and_log_mel_are_repeated_alike(tiny_model, seconds):
    waveform = 1e-3 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    waveform[5 * HOP_LENGTH] = 1.0
    log_mel = LogMel()(torch.from_numpy(waveform)).numpy()
    way = trace(tiny_model, log_mel, waveform)
    assert way.start_seconds == 0.0
    clicks = range(5, tiny_model.config.window_frames, log_mel.shape[1])
    assert np.flatnonzero(way.waveform[0] > 0.5).tolist() == [frame * HOP_LENGTH for frame in clicks]
    assert way.waveform.shape == (1, tiny_model.config.window_frames * HOP_LENGTH)
    assert way.spectrum_db(way.loudest_frame).min() > -3  # a click holds all frequencies alike


def test_spectrum_of_a_tone_peaks_at_its_frequency(tiny_model):
    hz = 1_000.0
    waveform = np.sin(2 * np.pi * hz * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    way = trace(tiny_model, LogMel()(torch.from_numpy(waveform)).numpy(), waveform)
    peak = way.spectrum_db(way.loudest_frame).argmax() * SAMPLE_RATE / 2_048
    assert peak == pytest.approx(hz, abs=SAMPLE_RATE / 2_048)


def test_the_model_is_left_as_it_was(model, song):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, song[1], song[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_threads_can_share_a_model(model, song):
    with ThreadPoolExecutor(4) as pool:
        ways = list(pool.map(lambda _: trace(model, song[1], song[0]), range(8)))
    for way in ways:
        for field in fields(way):
            value = getattr(way, field.name)
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, getattr(ways[0], field.name))


@pytest.mark.parametrize("step", plots.STEPS, ids=lambda step: step.title)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_figures_can_be_drawn(model, song, step, level):
    waveform = level * song[0]
    way = trace(model, LogMel()(torch.from_numpy(waveform)).numpy(), waveform)
    svg = plots.to_svg(step.figure(way), step.title)
    assert ElementTree.fromstring(svg).get("aria-label") == step.title
    assert len(svg) < 300_000
    assert plots.INK not in svg


def test_steps_over_time_share_their_axis(model, song):
    way = trace(model, song[1][:, 30:], song[0][30 * HOP_LENGTH :], 30 / FRAMES_PER_SECOND)
    span = (way.start_seconds, way.start_seconds + way.duration_seconds)
    places = set()
    for key in ("waveform", "log_mel", "convolutions", "recurrent"):
        axes = STEPS[key].figure(way).axes
        over_time = [a for a in axes if a.get_xlim() == pytest.approx(span)]
        assert over_time
        places |= {(a.get_position().x0, a.get_position().x1) for a in over_time}
    assert len(places) == 1


def test_the_log_mel_is_the_one_that_goes_in(tiny_model, song):
    way = trace(tiny_model, song[1], song[0])
    assert STEPS["log_mel"].figure(way).axes[0].images[0].get_array().tolist() == way.log_mel.tolist()


def test_softmax_shows_names_and_percentages_the_most_probable_first(tiny_model, song):
    way = trace(tiny_model, song[1], song[0])
    figure = STEPS["softmax"].figure(way)
    left, right = figure.axes
    order = np.argsort(-way.probabilities)
    assert [label.get_text() for label in left.get_yticklabels()] == [way.genres[i] for i in order]
    assert [text.get_text() for text in right.texts] == [f"{way.probabilities[i]:.0%}" for i in order]
    assert [bar.get_width() for bar in right.patches] == pytest.approx(way.probabilities[order].tolist())
    assert {"logits", "probabilities"} <= set(texts(figure))


def test_softmax_has_room_for_any_genres(song):
    names = tuple(f"genre with a $long$ name {number}" for number in range(40))
    model = CRNN(CRNNConfig(genres=names, channels=(2,), mel_pools=(4,), time_pools=(8,), recurrent_size=1)).eval()
    figure = STEPS["softmax"].figure(trace(model, song[1], song[0]))
    assert len(figure.axes[0].patches) == inside.MOST_GENRES
    assert texts(figure)[0] == "genre with …"


def test_attention_is_drawn_beside_its_mean(model, song):
    way = trace(model, song[1], song[0])
    lower = STEPS["recurrent"].figure(way).axes[2]
    assert lower.lines[0].get_ydata()[0] == pytest.approx(1 / len(way.attention))
    assert lower.patches[0].get_data().values == pytest.approx(way.attention)


def test_no_two_shares_of_attention_read_the_same(tiny_model, song):
    way = replace(trace(tiny_model, song[1], song[0]), attention=np.full(200, 1 / 200, np.float32))
    figure = STEPS["recurrent"].figure(way)
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert len({*labels}) == len(labels) > 2


def test_convolutions_name_their_maps(model, song):
    way = trace(model, song[1], song[0])
    assert {maps.name for maps in way.maps} <= set(texts(STEPS["convolutions"].figure(way)))


def test_rows_are_sorted_by_likeness_and_none_is_lost():
    time = np.linspace(0, 1, 50)
    rows = np.stack([sign * (0.5 + 0.1 * shift * time) for shift in range(5) for sign in (-1, 1)])
    ordered = inside.by_likeness(rows)
    assert sorted(map(tuple, ordered)) == sorted(map(tuple, rows))
    assert np.count_nonzero(np.diff(np.sign(ordered[:, 0]))) == 1
    for shape in ((1, 1), (1, 5), (5, 1)):
        assert inside.by_likeness(np.ones(shape)).shape == shape


def test_the_most_active_channels_are_shown(tiny_model, song):
    way = trace(tiny_model, song[1], song[0])
    values = np.zeros((9, 4, 6), np.float32)
    values[[1, 3, 5, 7], 0, 0] = [4, 1, 3, 2]
    object.__setattr__(way, "maps", (Maps("block 1", values, 0.1),))
    [panel] = STEPS["convolutions"].figure(way).axes
    pictures = [inset.images[0].get_array() for inset in panel.child_axes]
    assert [picture.max() for picture in pictures] == [4, 1, 3, 2]


def test_steps_are_told_in_order():
    assert list(STEPS) == ["waveform", "frames", "spectrum", "log_mel", "convolutions", "recurrent", "softmax"]
    assert all(step.meaning.endswith(".") for step in plots.STEPS)
