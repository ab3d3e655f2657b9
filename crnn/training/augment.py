"""Random changes of log-mels in training: the same music in another key, tempo, room or mix keeps its genre."""

from dataclasses import dataclass, fields
from math import log, pi, sin

import torch
import torch.nn.functional as F
from torch import Tensor

from crnn.audio import SAMPLE_RATE
from crnn.data.features import Features
from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, N_FFT, N_MELS, hz_of_band, to_decibels
from crnn.training.clipping import clipped


@dataclass(frozen=True)
class Augmentation:
    """How far each change may go; zero switches it off. Every number is the edge of a uniform range unless said."""

    window_position: float = 1.0  # share of a clip's positions a window may start at: every part of a song counts
    time_stretch: float = 0.15  # share of the tempo: a genre has many tempi
    mel_shift: float = 4.0  # bands up or down: another key, another singer
    equaliser_db: float = 6.0  # a smooth curve over the bands: the record company's sound is not the genre
    gain_db: float = 6.0  # the level against the loudest cell: quiet passages, long songs
    band_limit: float = 0.3  # share of windows without what small speakers and telephones lose, bass and treble
    reverberation: float = 0.2  # share of windows in a room: phones, halls
    distortion: float = 0.2  # share of windows with noise that follows the music: codecs
    clipping: float = 0.2  # share of windows recorded at too high a level: phones at concerts, amplifiers
    crackle: float = 0.1  # share of windows with clicks: records, bad contacts
    swell: float = 1.0  # share of the level that may come and go, a few times a second or a minute: fans, faders
    noise_floor_db: float = 30.0  # how far above -80 dB the quietest cells may be buried: tapes, rooms, phones
    spec_augment: int = 2  # masks over bands and over time each (SpecAugment): no answer may hang on one detail
    mixup: float = 0.0  # alpha of the Beta distribution of a second clip's share (mixup): smoother borders
    probability: float = 1.0  # that a window is changed at all, position and mixup aside: clips in use are not


AUGMENTATIONS = tuple(field.name for field in fields(Augmentation))
LARGEST = dict.fromkeys(AUGMENTATIONS, 1.0) | {  # that make sense
    "mel_shift": N_MELS,
    "equaliser_db": -FLOOR_DB,
    "gain_db": -FLOOR_DB,
    "noise_floor_db": -FLOOR_DB,
    "spec_augment": 16,
    "mixup": 100.0,
}
LOWEST_BANDS, HIGHEST_BANDS = (0, 20), (70, N_MELS)  # where a band limit may begin and end: to 530 Hz, from 2.4 kHz
LIMIT_DB = (1.0, 30.0)  # a band, beyond a limit: from a small speaker to the filter of a telephone
REVERBERATION_SECONDS = (0.3, 2.0)  # in which a sound in a room fades by 60 dB
REVERBERATION_DB = (-15.0, 3.0)  # of the room against the sound itself: from an arm's length to the other wall
REVERBERATION_FRAMES = 48  # 2 s
ECHO_HZ = 18.0  # bins of the spectrogram further apart hear other sums of the echoes
LASTING_ECHOES = 0.2  # the share of their power that is the same at all times
DISTORTION_DB = (-45.0, -15.0)  # of the noise that follows the music, against the loudest cell of each frame
CLIPPING_DB = (3.0, 21.0)  # of the peak beyond full scale; with phases of chance it is 3 dB higher than in music
CRACKLE_SHARE = (0.02, 0.5)  # of the frames
CRACKLE_DB = (-60.0, -15.0)  # of a click, against the loudest cell
SWELLS_PER_SECOND = (0.1, 6.0)
WINDOW_SECONDS = [(n / 8 - 0.5) * N_FFT / SAMPLE_RATE for n in range(1, 8)]  # about the middle of a frame
WINDOW_POWER = [sin(pi * n / 8) ** 4 / 3 for n in range(1, 8)]  # of the Hann window there, 1 in all
NEPERS = log(10) / 10  # of power, a decibel
BINS = tuple(max(1.0, (hz_of_band(band + 0.5) - hz_of_band(band - 0.5)) / ECHO_HZ) for band in range(N_MELS))
MASK_BANDS = 16  # at most, in one mask
MASK_SHARE = 0.12  # of the window's frames at most, in one mask


class ClipStore:
    """The log-mels of clips on a device, as the 8-bit levels that they are kept in, a quarter of float32."""

    def __init__(self, features: Features, device: torch.device | str = "cpu") -> None:
        self.levels = torch.from_numpy(features.logmel).to(device)  # (clips, 128, frames)
        self.floor_db = torch.from_numpy(features.floor_db).to(device)
        self.n_frames = torch.from_numpy(features.n_frames).long().to(device)
        self.lengths = features.n_frames.tolist()  # the same where no device has to be asked

    def __len__(self) -> int:
        return len(self.levels)

    def log_mel(self, index: int) -> Tensor:
        """All of one clip: (128, frames), float32 dB."""
        return to_decibels(self.levels[index, :, : self.lengths[index]], self.floor_db[index])

    def cut(self, index: Tensor, position: Tensor, n_frames: int) -> Tensor:
        """Cut `n_frames` out of each of the clips at `index` (batch,): (batch, 128, n_frames), float32 dB.

        `position` (batch,) is from 0, at the start of a clip, to 1, at its end. Shorter clips are repeated.
        """
        length = self.n_frames[index]
        start = torch.round(position * (length - n_frames).clamp_min(0)).long()
        frame = (start[:, None] + torch.arange(n_frames, device=index.device)) % length[:, None]
        levels = self.levels[index].gather(2, frame[:, None].expand(-1, N_MELS, -1))
        return to_decibels(levels, self.floor_db[index, None, None])


class Augmenter:
    """Draws training batches: a window of each clip, changed at random, on the device where the clips are.

    Randomness comes from torch's global generators, so `torch.manual_seed` fixes it together with dropout.
    """

    def __init__(self, augmentation: Augmentation, window_frames: int) -> None:
        self.augmentation = augmentation
        self.window_frames = window_frames

    def __call__(self, clips: ClipStore, index: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The clips at `index` (batch,) and their targets (batch, n_genres) to one batch of both.

        Returns log-mels (batch, 128, window_frames) and targets (batch, n_genres); each row of these still sums to one.
        """
        around_middle = torch.rand(len(index), device=index.device) - 0.5
        position = 0.5 + self.augmentation.window_position * around_middle
        log_mel = clips.cut(index, position, self._cut_frames)
        dose = (torch.rand(len(log_mel), device=log_mel.device) < self.augmentation.probability).float()
        log_mel = self._colour(self._place(log_mel, dose), dose)
        if self.augmentation.mixup:
            log_mel, targets = mixed(self.augmentation.mixup, log_mel, targets)
        return self._mask(log_mel, dose), targets

    @property
    def _cut_frames(self) -> int:
        """Frames that the fastest stretch needs to fill a window."""
        return round(self.window_frames * (1.0 + self.augmentation.time_stretch))

    def _place(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """Time stretch and mel shift in one bilinear resampling; what comes in from outside the bands is floor."""
        batch, n_mels, n_frames = log_mel.shape
        stretch, shift = self.augmentation.time_stretch, self.augmentation.mel_shift
        rate = torch.exp(stretch * dose * _uniform(log_mel, batch)).clamp(max=n_frames / self.window_frames)
        affine = torch.zeros(batch, 2, 3, device=log_mel.device)
        affine[:, 0, 0] = rate * self.window_frames / n_frames  # the share of the cut that fills the window
        affine[:, 1, 1] = 1.0
        affine[:, 1, 2] = 2.0 * shift * dose * _uniform(log_mel, batch) / n_mels
        grid = F.affine_grid(affine, [batch, 1, n_mels, self.window_frames], align_corners=False)
        above_floor = (log_mel - FLOOR_DB).unsqueeze(1)
        return F.grid_sample(above_floor, grid, align_corners=False).squeeze(1) + FLOOR_DB

    def _colour(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """All that colours a sound on its way, in the order that it is here; nothing falls below the floor."""
        batch, n_mels, _ = log_mel.shape
        dose = dose[:, None, None]
        on_the_way = {
            "reverberation": self._reverberate,
            "swell": self._swell,
            "clipping": self._clip,
            "crackle": self._crackle,
            "distortion": self._distort,
            "band_limit": self._limit,
        }
        for name, change in on_the_way.items():
            if getattr(self.augmentation, name):
                log_mel = change(log_mel, dose)
        points = self.augmentation.equaliser_db * _uniform(log_mel, batch, 1, 6)
        curve = F.interpolate(points, size=n_mels, mode="linear", align_corners=True).transpose(1, 2)
        gain = self.augmentation.gain_db * _uniform(log_mel, batch, 1, 1)
        noise = FLOOR_DB + self.augmentation.noise_floor_db * _uniform(log_mel, batch, 1, 1, low=0.0)
        return torch.maximum(log_mel + dose * (curve + gain), FLOOR_DB + dose * (noise - FLOOR_DB))

    def _reverberate(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """Every sound fades in a straight line of decibels, as in a room (Sabine), and its echoes interfere with it.

        A sound of the power p in a room of the power r gives |sqrt(p) + sqrt(r) z|^2, where a part of z is the same at
        all times. What lasts is as loud as it was before.
        """
        batch, _, n_frames = log_mel.shape
        seconds = _uniform(log_mel, batch, 1, low=REVERBERATION_SECONDS[0], high=REVERBERATION_SECONDS[1])
        ratio = 10 ** (0.1 * _uniform(log_mel, batch, 1, 1, low=REVERBERATION_DB[0], high=REVERBERATION_DB[1]))
        frame = torch.arange(REVERBERATION_FRAMES - 1, -1, -1, device=log_mel.device)
        echoes = 10 ** (-6.0 / FRAMES_PER_SECOND / seconds * frame)  # (batch, frames), the last is the sound itself
        echoes = echoes / echoes.sum(dim=1, keepdim=True)
        power = 10 ** (0.1 * log_mel)
        before = F.pad(power.transpose(0, 1), (REVERBERATION_FRAMES - 1, 0))  # (n_mels, batch, frames)
        room = ratio * F.conv1d(before, echoes[:, None], groups=batch).transpose(0, 1)
        lasting, passing = (_interference(log_mel, n) for n in (1, n_frames))
        z = LASTING_ECHOES**0.5 * lasting + (1 - LASTING_ECHOES) ** 0.5 * passing
        heard = power + 2 * (power * room).sqrt() * z[0] + room * _power_of(z)
        heard = 10 * torch.log10(heard.clamp_min(10 ** (0.1 * FLOOR_DB)) / (1 + ratio))
        is_in_room = _uniform(log_mel, batch, 1, 1, low=0.0) < dose * self.augmentation.reverberation
        return torch.where(is_in_room, heard, log_mel)

    def _swell(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """The level comes and goes as a sine; a frame has the mean power over its window."""
        batch, _, n_frames = log_mel.shape
        slowest, fastest = (log(rate) for rate in SWELLS_PER_SECOND)
        rate = torch.exp(_uniform(log_mel, batch, 1, 1, low=slowest, high=fastest))
        frames = torch.arange(n_frames, device=log_mel.device)[:, None] / FRAMES_PER_SECOND
        seconds = frames + torch.tensor(WINDOW_SECONDS, device=log_mel.device)
        wave = torch.sin(2 * pi * (rate * seconds + _uniform(log_mel, batch, 1, 1)))
        depth = dose * self.augmentation.swell * _uniform(log_mel, batch, 1, 1, low=0.0)
        power = (1 - depth * (0.5 + 0.5 * wave)).square() @ torch.tensor(WINDOW_POWER, device=log_mel.device)
        return log_mel + 10 * torch.log10(power.clamp_min(10 ** (0.1 * FLOOR_DB)))[:, None]

    def _clip(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """A recording level that is too high."""
        chosen = _uniform(log_mel, len(log_mel), low=0.0) < dose[:, 0, 0] * self.augmentation.clipping
        if not chosen.any():
            return log_mel
        loud = log_mel[chosen]
        drive_db = _uniform(log_mel, len(loud), 1, low=CLIPPING_DB[0], high=CLIPPING_DB[1])
        return log_mel.index_put((chosen,), clipped(loud, drive_db))

    def _crackle(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """Clicks, which have all frequencies."""
        batch, _, n_frames = log_mel.shape
        share = _uniform(log_mel, batch, 1, 1, low=CRACKLE_SHARE[0], high=CRACKLE_SHARE[1])
        share = share * (_uniform(log_mel, batch, 1, 1, low=0.0) < dose * self.augmentation.crackle)
        loud = log_mel.amax(dim=(1, 2), keepdim=True)
        loud = loud + _uniform(log_mel, batch, 1, n_frames, low=CRACKLE_DB[0], high=CRACKLE_DB[1])
        clicks = _uniform(log_mel, batch, 1, n_frames, low=0.0) < share
        return torch.where(clicks, torch.logaddexp(log_mel * NEPERS, loud * NEPERS) / NEPERS, log_mel)

    def _distort(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """What codecs add is broad noise, the louder the louder the music is."""
        batch = len(log_mel)
        noise = log_mel.amax(dim=1, keepdim=True)
        noise = noise + _uniform(log_mel, batch, 1, 1, low=DISTORTION_DB[0], high=DISTORTION_DB[1])
        is_distorted = _uniform(log_mel, batch, 1, 1, low=0.0) < dose * self.augmentation.distortion
        return torch.where(is_distorted, torch.maximum(log_mel, noise), log_mel)

    def _limit(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """Bands below and above two limits fade; what is left is as loud as the whole was before."""
        batch, n_mels, _ = log_mel.shape
        band = torch.arange(n_mels, device=log_mel.device)[:, None]
        beyond = torch.zeros_like(log_mel[..., :1])
        for (low, high), sign in ((LOWEST_BANDS, -1), (HIGHEST_BANDS, 1)):
            limit = _uniform(log_mel, batch, 1, 1, low=low, high=high)
            slope = _uniform(log_mel, batch, 1, 1, low=LIMIT_DB[0], high=LIMIT_DB[1])
            beyond = beyond + slope * (sign * (band - limit)).clamp_min(0)
        is_limited = _uniform(log_mel, batch, 1, 1, low=0.0) < dose * self.augmentation.band_limit
        limited = log_mel - beyond
        limited = limited + (log_mel.amax(dim=(1, 2), keepdim=True) - limited.amax(dim=(1, 2), keepdim=True))
        return torch.where(is_limited, limited, log_mel)

    def _mask(self, log_mel: Tensor, dose: Tensor) -> Tensor:
        """SpecAugment (Park et al. 2019, arXiv:1904.08779): bands and times are set to the window's mean."""
        for axis, widest in ((1, MASK_BANDS), (2, round(MASK_SHARE * self.window_frames))):
            size = log_mel.shape[axis]
            position = torch.arange(size, device=log_mel.device)
            for _ in range(self.augmentation.spec_augment):
                width = widest * dose[:, None] * _uniform(log_mel, len(log_mel), 1, low=0.0)
                start = (size - width) * _uniform(log_mel, len(log_mel), 1, low=0.0)
                masked = (position >= start) & (position < start + width)  # (batch, size)
                masked = masked.unsqueeze(3 - axis)
                log_mel = torch.where(masked, log_mel.mean(dim=(1, 2), keepdim=True), log_mel)
        return log_mel


def mixed(alpha: float, *batches: Tensor) -> list[Tensor]:
    """Each row with a share of another, the same in all of the batches (batch, ...): decibels or steps, and targets.

    Mixup (Zhang et al. 2018, arXiv:1710.09412); `alpha` is that of the Beta distribution of the share.
    """
    n, device = len(batches[0]), batches[0].device
    share = torch.distributions.Beta(alpha, alpha).sample((n,)).to(device)
    other = torch.randperm(n, device=device)
    return [torch.lerp(batch[other], batch, share.view(n, *[1] * (batch.ndim - 1))) for batch in batches]


def _uniform(like: Tensor, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.empty(shape, device=like.device).uniform_(low, high)


def _interference(like: Tensor, n_frames: int) -> Tensor:
    """Sums of many independent waves in each band of log-mels (batch, n_mels, frames), of unit power in each bin.

    Real and imaginary part of the mean over a band's bins: (2, batch, n_mels, n_frames), Gaussian (Schroeder 1962).
    """
    bins = torch.tensor(BINS, device=like.device)[:, None]
    return torch.randn(2, *like.shape[:2], n_frames, device=like.device) / (2 * bins) ** 0.5


def _power_of(waves: Tensor) -> Tensor:
    """The mean power over the bins of each band of what `_interference` gives, without its first dimension."""
    return 1 - 1 / torch.tensor(BINS, device=waves.device)[:, None] + waves.square().sum(dim=0)
