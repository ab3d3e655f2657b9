"""Each augmentation does what it says, alone; and nothing where it is switched off."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from benchmarks.robustness import coloured_noise
from crnn.audio import SAMPLE_RATE
from crnn.data.features import Features
from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, N_MELS, LogMel
from crnn.training import augment
from crnn.training.augment import AUGMENTATIONS, MASK_BANDS, Augmentation, Augmenter, ClipStore
from crnn.training.recipes import RECIPES
from crnn.training.values import describe, strength
from tests.training.test_fit import NO_AUGMENTATION

WINDOW = 100
STEP_DB = 80 / 255  # from one of the levels that clips are kept in to the next; -64, -32 and -16 dB are such levels
TARGETS = torch.eye(4)
# Those whose strength says how many windows they change.
SHARES = ("band_limit", "reverberation", "distortion", "clipping", "crackle")


Draw = Callable[[list[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def augmenter(augmentation: Augmentation) -> Draw:
    """From log-mels and targets to a batch of all of them."""

    def draw(log_mels: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        names = [f"clip {number}" for number in range(len(log_mels))]
        store = ClipStore(Features.from_log_mels(log_mels, names))
        return Augmenter(augmentation, WINDOW)(store, torch.arange(len(store)), targets)

    return draw


def only(name: str, value: float | None = None) -> Draw:
    default = getattr(Augmentation(mixup=0.3), name)
    changes = {"probability": 1.0, name: default if value is None else value}
    return augmenter(replace(NO_AUGMENTATION, **changes))


@pytest.fixture
def clips() -> list[torch.Tensor]:
    """Smooth log-mels of different lengths; one is shorter than the window."""
    torch.manual_seed(0)
    rough = FLOOR_DB * torch.rand(4, 1, 16, 30)
    smooth = torch.nn.functional.interpolate(rough, size=(N_MELS, 300), mode="bilinear")[:, 0]
    return [smooth[0], smooth[1, :, :250], smooth[2, :, :60], smooth[3]]


@pytest.mark.parametrize("augmentation", [Augmentation(), *(recipe.augmentation for recipe in RECIPES.values())])
def test_what_recipes_say_can_be_asked_for(augmentation: Augmentation) -> None:
    assert dict(map(strength, describe(augmentation).split())) == asdict(augmentation)


def test_nothing_on_means_the_middle_of_the_clip(clips: list[torch.Tensor]) -> None:
    batch, targets = augmenter(NO_AUGMENTATION)(clips, TARGETS)
    torch.testing.assert_close(batch[0], clips[0][:, 100:200], atol=0.51 * STEP_DB, rtol=0)
    torch.testing.assert_close(batch[2], torch.cat([clips[2], clips[2][:, :40]], dim=1), atol=0.51 * STEP_DB, rtol=0)
    assert torch.equal(targets, TARGETS)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "probability"])
def test_each_changes_the_batch_and_keeps_its_shape(name: str, clips: list[torch.Tensor]) -> None:
    plain, _ = augmenter(NO_AUGMENTATION)(clips, TARGETS)
    batch, targets = only(name, 1.0 if name in SHARES else None)(clips, TARGETS)
    assert batch.shape == plain.shape == (4, N_MELS, WINDOW)
    assert (batch - plain).abs().mean() > 0.1
    assert torch.isfinite(batch).all()
    assert batch.min() >= FLOOR_DB - 1e-3
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))


def test_everything_on_is_repeatable(clips: list[torch.Tensor]) -> None:
    draw = augmenter(Augmentation(mixup=0.3))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(draw(clips, TARGETS)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_window_position_reaches_both_ends() -> None:
    ramp = torch.linspace(FLOOR_DB, 0, 300).expand(N_MELS, -1)
    batch, _ = only("window_position")([ramp] * 200, torch.eye(200))
    first, last = batch[:, 0, 0], batch[:, 0, -1]
    assert first.min() < FLOOR_DB + 2
    assert last.max() > -2
    torch.testing.assert_close(last - first, torch.full((200,), 99 * 80 / 299), atol=1.01 * STEP_DB, rtol=0)


def test_time_stretch_changes_the_tempo_both_ways() -> None:
    ramp = torch.linspace(FLOOR_DB, 0, 300).expand(N_MELS, -1)
    batch, _ = only("time_stretch", 0.2)([ramp] * 200, torch.eye(200))
    rate = (batch[:, 0, 80] - batch[:, 0, 20]) / (60 * 80 / 299)
    assert 0.80 < rate.min() < 0.86
    assert 1.14 < rate.max() < 1.23


def test_mel_shift_moves_bands_by_at_most_what_it_says() -> None:
    tone = torch.full((N_MELS, WINDOW), FLOOR_DB)
    tone[60] = 0
    batch, _ = only("mel_shift", 4.0)([tone] * 200, torch.eye(200))
    peak = batch[:, :, 50].argmax(dim=1)
    assert peak.min() in (56, 57)
    assert peak.max() in (63, 64)


def test_equaliser_is_constant_over_time_and_smooth_over_bands(clips: list[torch.Tensor]) -> None:
    loud = [torch.full((N_MELS, WINDOW), -32.0)] * 4
    batch, _ = only("equaliser_db", 6.0)(loud, TARGETS)
    curve = batch[:, :, :1] + 32
    torch.testing.assert_close(batch + 32, curve.expand_as(batch), atol=1e-4, rtol=0)
    assert 0.5 < curve.abs().max() <= 6
    assert curve.diff(dim=1).abs().max() <= 12 / (N_MELS - 1) * 5 + 1e-3


def test_band_limit_takes_bass_and_treble_and_keeps_the_level_of_the_rest() -> None:
    music = torch.linspace(-16.0, -48.0, N_MELS)[:, None].expand(-1, WINDOW)  # bass is the loudest, as it mostly is
    batch, _ = only("band_limit", 1.0)([music] * 100, torch.eye(100))
    profile = batch[:, :, 0]
    torch.testing.assert_close(batch, profile[:, :, None].expand_as(batch), atol=1e-4, rtol=0)
    torch.testing.assert_close(profile.amax(dim=1), torch.full((100,), -16.0), atol=1e-4, rtol=0)
    slope = profile[:, 25:70].diff(dim=1)
    torch.testing.assert_close(
        slope, torch.full_like(slope, -32 / (N_MELS - 1)), atol=1.01 * STEP_DB, rtol=0
    )  # as it was
    assert (profile[:, 0] < -46).float().mean() > 0.5
    assert (profile[:, -1] < -75).float().mean() > 0.5

    share = (only("band_limit", 0.3)([music] * 400, torch.eye(400))[0][:, 0, 0] < -17).float().mean()
    assert 0.2 < share < 0.37


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "probability"])
def test_a_strength_of_nothing_leaves_all_as_it_is(name: str, clips: list[torch.Tensor]) -> None:
    plain, _ = augmenter(NO_AUGMENTATION)(clips, TARGETS)
    assert torch.equal(only(name, 0)(clips, TARGETS)[0], plain)


def in_a_room(log_mel: torch.Tensor, monkeypatch: pytest.MonkeyPatch, seconds: float, decibels: float) -> torch.Tensor:
    """Two hundred windows of the same in rooms that are alike but for chance, as power (200, 128, frames)."""
    monkeypatch.setattr(augment, "REVERBERATION_SECONDS", (seconds, seconds))
    monkeypatch.setattr(augment, "REVERBERATION_DB", (decibels, decibels))
    batch, _ = only("reverberation", 1.0)([log_mel] * 200, torch.eye(200))
    return 10 ** (0.1 * batch)


@pytest.mark.parametrize("seconds", [0.3, 0.6, 2.0])
def test_a_click_in_a_room_has_a_tail_that_falls_in_a_straight_line(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    click = torch.full((N_MELS, WINDOW), FLOOR_DB)
    click[:, 20] = 0
    power = in_a_room(click, monkeypatch, seconds, 3)
    before = 10 * torch.log10(power[:, :, :20])
    assert (before <= FLOOR_DB + 20).all()  # nothing but the floor and its own room before the cause
    mean = 10 * torch.log10(power.mean(dim=(0, 1)))
    falls = -mean[21:27].diff() * FRAMES_PER_SECOND
    torch.testing.assert_close(falls, torch.full_like(falls, 60 / seconds), atol=0, rtol=0.15)


def test_what_lasts_is_as_loud_in_a_room_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    power = in_a_room(torch.full((N_MELS, WINDOW), -32.0), monkeypatch, 0.3, 0)[:, :, 50:]
    torch.testing.assert_close(power.mean(), torch.tensor(10**-3.2), atol=0, rtol=0.03)


def test_the_closer_the_room_the_more_it_moves_and_narrow_bands_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def deviation(decibels: float) -> torch.Tensor:
        power = in_a_room(torch.full((N_MELS, WINDOW), -32.0), monkeypatch, 0.3, decibels)[:, :, 50:]
        return power.std(dim=(0, 2)) / power.mean(dim=(0, 2))  # by band

    far, near = deviation(0), deviation(-15)
    assert (near < far).all()
    # Of a steady sound of power 1 and a room of power r in n bins: (2 r + r^2) / n, and r = 1 here, over (1 + r)^2.
    expected = (3 / (4 * torch.tensor(augment.BINS))).sqrt()
    torch.testing.assert_close(far, expected, atol=0, rtol=0.25)


def test_distortion_adds_a_floor_that_follows_the_loudest_cell_of_each_frame() -> None:
    ramp = torch.linspace(-32.0, 0.0, WINDOW)
    music = torch.full((N_MELS, WINDOW), FLOOR_DB)
    music[10] = ramp
    batch, _ = only("distortion", 1.0)([music] * 200, torch.eye(200))
    plain, _ = augmenter(NO_AUGMENTATION)([music], torch.eye(1))
    torch.testing.assert_close(batch[:, 10], plain[:, 10].expand(200, -1), atol=0, rtol=0)
    others = [band for band in range(N_MELS) if band != 10]
    below = batch[:, others] - batch[:, 10:11]
    torch.testing.assert_close(below, below[:, :1, :1].expand_as(below), atol=1e-3, rtol=0)
    assert -45 - 1e-3 <= below.min() < -43
    assert -17 < below.max() <= -15 + 1e-3


def test_a_crackle_is_clicks_of_all_frequencies_and_leaves_the_frames_between() -> None:
    music = torch.full((N_MELS, WINDOW), -64.0)
    music[10] = 0
    batch, _ = only("crackle", 1.0)([music] * 200, torch.eye(200))
    soft = [band for band in range(N_MELS) if band != 10]
    rise = (batch + 64)[:, soft]
    torch.testing.assert_close(rise, rise[:, :1].expand_as(rise), atol=1e-3, rtol=0)
    share = (rise[:, 0] > 1e-3).float().mean(dim=1)
    assert share.min() < 0.1
    assert 0.35 < share.max() < 0.65
    assert 45 < rise.max() <= 49 + 1e-3  # -15 dB below the loudest cell
    assert (batch[:, 10].abs() < 0.15).all()


def test_a_level_comes_and_goes_alike_in_all_bands() -> None:
    batch, _ = only("swell", 1.0)([torch.full((N_MELS, WINDOW), -32.0)] * 200, torch.eye(200))
    swell = batch + 32
    torch.testing.assert_close(swell, swell[:, :1].expand_as(swell), atol=1e-4, rtol=0)
    swell = swell[:, 0]
    assert swell.max() <= 1e-4
    depth = swell.amax(dim=1) - swell.amin(dim=1)
    assert depth.min() < 1
    assert depth.max() > 20
    assert swell.diff().abs().amax(dim=1).max() > 6  # some a few times a second


def test_a_level_that_comes_and_goes_is_heard_as_on_a_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    rate_hz, depth, n_frames = 3.0, 0.8, 200
    noise = coloured_noise(9 * SAMPLE_RATE)
    gain = 1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate_hz * np.arange(len(noise)) / SAMPLE_RATE))
    plain, changed = (next(LogMel().powers([sound[None].astype(np.float32)])) for sound in (noise, noise * gain))

    def fixed(_: torch.Tensor, *shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        return torch.full(shape, 0.0 if low < 0 else high)  # begins with the sine, and is as deep as it may be

    monkeypatch.setattr(augment, "_uniform", fixed)
    monkeypatch.setattr(augment, "SWELLS_PER_SECOND", (rate_hz, rate_hz))
    made = Augmenter(replace(NO_AUGMENTATION, swell=depth), n_frames)._swell(
        torch.zeros(1, N_MELS, n_frames), torch.ones(1, 1, 1)
    )
    heard = torch.from_numpy(10 * np.log10(changed / plain)).mean(dim=0)[:n_frames]
    assert (made[0, 0] - heard)[2:].abs().max() < 1.5  # of 14 dB; the first frames begin before the sound
    assert heard.min() < -9


@pytest.mark.parametrize("name", SHARES[1:])
def test_accidents_are_for_a_share_of_the_windows(name: str) -> None:
    music = torch.full((N_MELS, WINDOW), FLOOR_DB)
    music[10, ::20] = 0
    plain, _ = augmenter(NO_AUGMENTATION)([music], torch.eye(1))
    changed = (only(name, 0.3)([music] * 400, torch.eye(400))[0] != plain).any(dim=2).any(dim=1)
    assert 0.2 < changed.float().mean() < 0.4


def test_gain_and_noise_floor_stay_in_their_range() -> None:
    quiet = [torch.full((N_MELS, WINDOW), -64.0)] * 100
    gain = only("gain_db", 6.0)(quiet, torch.eye(100))[0][:, 0, 0] + 64
    assert -6 <= gain.min() < -4
    assert 4 < gain.max() <= 6
    floor = only("noise_floor_db", 30.0)([torch.full((N_MELS, WINDOW), FLOOR_DB)] * 100, torch.eye(100))[0]
    assert -52 < floor.max() <= -50
    assert floor.min() < -78


def test_spec_augment_masks_whole_bands_and_frames(clips: list[torch.Tensor]) -> None:
    plain, _ = augmenter(NO_AUGMENTATION)([clips[0]] * 50, torch.eye(50))
    changed = (only("spec_augment", 1)([clips[0]] * 50, torch.eye(50))[0] - plain).abs() > 1e-3
    bands = changed.float().mean(dim=2) > 0.9  # (batch, mels)
    frames = changed.float().mean(dim=1) > 0.9
    assert bands.any()
    assert frames.any()
    assert bands.sum(dim=1).max() <= MASK_BANDS + 1
    assert frames.sum(dim=1).max() <= 0.12 * WINDOW + 1
    assert changed.float().mean() < 0.3


def test_mixup_mixes_clips_and_targets_alike() -> None:
    levels = torch.tensor([-80.0, -64.0, -32.0, -16.0])
    clips = [torch.full((N_MELS, WINDOW), level) for level in levels.tolist()]
    torch.manual_seed(3)
    batch, targets = only("mixup", 1.0)(clips, TARGETS)
    torch.testing.assert_close(batch[:, 0, 0], targets @ levels, atol=1e-3, rtol=0)
    assert ((targets > 0.01) & (targets < 0.99)).any()


def test_probability_is_the_share_of_windows_that_change() -> None:
    loud = [torch.full((N_MELS, WINDOW), -32.0)] * 400
    augmentation = replace(Augmentation(), probability=0.75)
    batch, _ = augmenter(augmentation)(loud, torch.eye(400))
    unchanged = ((batch + 32).abs().amax(dim=(1, 2)) < 1e-3).float().mean()
    assert 0.17 < unchanged < 0.33
