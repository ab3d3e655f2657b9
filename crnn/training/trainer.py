"""What a training consists of: a model, the batches that it sees, and the optimiser, on any number of devices."""

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from tqdm import tqdm

from crnn.data.clips import Clips
from crnn.data.features import Features
from crnn.features import windows
from crnn.network.model import CRNN
from crnn.training.augment import Augmentation, Augmenter, ClipStore
from crnn.training.copies import StemCopies
from crnn.training.metrics import mean_probabilities
from crnn.training.processes import accelerator
from crnn.training.state import random_state, set_random_state

CLIPS_AT_ONCE = {True: 5, False: 64}  # in validation, on a CPU, whose caches are small, and elsewhere


@dataclass(frozen=True)
class TrainingConfig:
    """How to fit: AdamW with a one-cycle learning rate, and an exponential moving average of the weights."""

    epochs: int
    batch_size: int  # clips in a step of the optimiser, of all processes together
    lr: float  # the peak of the cycle (Smith and Topin 2018, arXiv:1708.07120)
    ema_decay: float  # of the averaged weights, a step
    pretrained_lr: float = 0.1  # of lr, for weights that are trained further (Howard and Ruder 2018, arXiv:1801.06146)
    thaw: float = 0.0  # share of the epochs until which these weights rest, so that new layers do not pull at them
    copies: int = 0  # augmented copies of each clip that published nets hear while they rest; 0: each window anew
    weight_decay: float = 1e-2  # not on biases and normalisation (Loshchilov and Hutter 2019, arXiv:1711.05101)
    label_smoothing: float = 0.1  # Szegedy et al. 2016, arXiv:1512.00567
    outlier_share: float = 0.1  # of a batch, sounds that are no music, for which every genre is as good
    patience: int = 0  # epochs without a lower validation loss after which to stop; 0 trains all epochs
    accumulation: int = 1  # parts in which a process computes its share of a batch, one after the other
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # or "bfloat16", in which convolutions are about twice as fast where hardware has it


class MemberLogits(nn.Module):
    """A model as it is trained: what wraps it for several processes knows `forward` alone."""

    def __init__(self, model: CRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: Tensor | Sequence, is_heard: bool = False) -> Tensor:
        """Log-mel (batch, 128, frames) in dB to the logits of each classifier, (classifiers, batch, n_genres).

        If it `is_heard`, it is what the stem gives of log-mels, others for each member.
        """
        return self.model.logits_of_each(given) if is_heard else self.model.member_logits(given)


class MovingAverage:
    """An exponential moving average of a model that forgets faster at first, so that the random start leaves no trace.

    The decay of update n is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, and the first
    update is a copy. Unlike PyTorch's AveragedModel it asks the device for nothing.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model)
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights and buffers of `model`."""
        n = self.n_updates
        keep = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        averages, values = [], []
        for average, value in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(average)
                values.append(value)
            else:  # how many batches the normalisation has seen
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - keep)
        self.n_updates += 1

    def state_dict(self) -> dict:
        """All that the next update depends on."""
        return {"module": self.module.state_dict(), "n_updates": self.n_updates}

    def load_state_dict(self, state: dict) -> None:
        """Go back to where `state_dict` was called."""
        self.module.load_state_dict(state["module"])
        self.n_updates = state["n_updates"]


class Trainer:
    """A model in training: its optimiser, its schedule, its average, and the batches that it sees.

    Sounds that are no music go into every batch with all genres as their target, so that the model is not sure of
    them: outlier exposure (Hendrycks, Mazeika and Dietterich 2019, arXiv:1812.04606).

    Several processes have a share of each batch each, and the mean of their gradients. They agree on the weights, the
    average and the order of the clips, and differ in the random numbers of augmentation and dropout.
    """

    STATEFUL = ("model", "average", "optimizer", "scheduler")

    def __init__(
        self,
        model: CRNN,
        clips: Clips,
        config: TrainingConfig,
        augmentation: Augmentation,
        valid: Clips | None = None,
        progress: bool = False,
        is_begun: bool = False,
    ) -> None:
        """With `progress`, a bar on a terminal shows what takes minutes before the first epoch.

        One that `is_begun` gets the state of an earlier one.
        """
        self.config = config
        self.accelerator = accelerator(config.device, leaves_out=bool(config.copies))
        self.rank, self.n_processes = self.accelerator.process_index, self.accelerator.num_processes
        self.shows_progress = progress and self.accelerator.is_main_process and sys.stderr.isatty()
        self.device = self.accelerator.device if self.n_processes > 1 else torch.device(config.device)
        torch.manual_seed(config.seed + self.rank)
        # On a CPU, channels_last pays for small convolutions only together with bfloat16.
        fast_format = config.precision == "bfloat16" or bool(model.stem.groups)
        self.model = model.to(
            self.device, memory_format=torch.channels_last if fast_format else torch.contiguous_format
        )
        self.augmenter = Augmenter(augmentation, model.config.window_frames)
        self.n_clips = len(clips)
        self.n_outliers = round(config.outlier_share * min(config.batch_size, self.n_clips))
        outliers = _outliers() if self.n_outliers else ()
        self.clips = ClipStore(_with(outliers, clips.features), self.device)  # the clips, then the outliers
        genres = F.one_hot(torch.from_numpy(clips.labels), len(model.config.genres)).float()
        any_genre = torch.full((len(outliers), genres.shape[1]), 1 / genres.shape[1])
        self.targets = torch.cat([genres, any_genre]).to(self.device)
        self.hears_copies = bool(config.copies and config.thaw and model.stem.groups)
        self.copies: StemCopies | None = None
        if not is_begun:
            self.fit(clips)
        self.published = model.published_parameters()
        self.rests = False  # whether these stay as they are in this epoch
        self.average = MovingAverage(self.model, config.ema_decay)
        self.network = self.accelerator.prepare_model(MemberLogits(self.model), device_placement=False)
        groups = parameter_groups(model, config)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)
        self.steps = config.epochs * math.ceil(len(clips) / config.batch_size)
        rates, rise = [group["lr"] for group in groups], 0.2
        if rise * self.steps > 1:
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rates, self.steps, pct_start=rise)
        else:  # too few to rise and fall in
            self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        self.lr = config.lr  # of the last step
        own = np.array_split(np.arange(len(valid or ())), self.n_processes)[self.rank]
        self.valid = ClipStore(valid.select(own).features, self.device) if valid else None
        self.valid_heard: dict[int, Tensor | tuple[Tensor, ...]] = {}  # what the resting stem gives of some clips

    def fit(self, clips: Clips) -> None:
        """Take what the model has to know of the clips before it learns; with a base, its linear classifier alone."""
        is_new = not self.model.has_base  # else its other layers know their input as it is
        if is_new:
            (self.model.stem if self.hears_copies else self.model).fit(clips.log_mels())
        if self.hears_copies:
            self.copies = self.heard_copies()
            if is_new:
                self.model.fit_layers(self.copies.middles(self.n_clips))
        if self.model.linear:
            self.fit_linear()

    @torch.no_grad()
    def fit_linear(self) -> None:
        """Fit the linear classifier to windows of clips and outliers, and of their copies if they are heard."""
        model = self.model.eval()
        if self.copies:
            rows, counts = zip(*((model.of_channels(stem), count) for stem, count in self.copies.spread()), strict=True)
        else:
            log_mels = [self.clips.log_mel(index) for index in range(len(self.clips))]
            rows, counts = [model.of_channels(model.stem_of_middles(log_mels))], [1.0]
        of_each = torch.ones(len(self.clips), device=self.device)
        of_each[self.n_clips :] = self.config.outlier_share * self.n_clips / max(1, len(self.clips) - self.n_clips)
        counts = torch.tensor(counts, device=self.device)[:, None] * of_each
        model.linear.fit(torch.cat(rows), self.targets.repeat(len(rows), 1), counts.flatten())
        for value in model.linear.parameters():  # each process drew other copies
            value.copy_(broadcast(value.clone()))

    def state_dict(self) -> dict:
        """All that the next epoch depends on, beside what this was made from; every process has to ask."""
        parts = {name: getattr(self, name).state_dict() for name in self.STATEFUL}
        return {**parts, "random": gather_object([random_state(str(self.device))])}

    def load_state_dict(self, state: dict) -> None:
        """Go back to where `state_dict` was called."""
        for name in self.STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.copies = None
        set_random_state(state["random"][self.rank])

    def epoch(self, bar: tqdm) -> tuple[float, float]:
        """One pass over the clips; returns the mean loss and the accuracy on their augmented windows."""
        self.model.train()
        self.rests = self.scheduler.last_epoch < self.config.thaw * self.steps
        if not self.rests:
            self.copies = None
            self.valid_heard.clear()
        elif self.hears_copies and self.copies is None:
            self.copies = self.heard_copies()
            self.model.train()
        if self.n_processes == 1:  # several have to agree on what has gradients, and only leave them unused
            for value in self.published:
                value.requires_grad_(not self.rests)
        sums = torch.zeros(3, device=self.device)
        order = broadcast(torch.randperm(self.n_clips).to(self.device))
        for batch in order.split(self.config.batch_size):
            sums += self.step(batch)
            bar.update()
        for buffer in self.average.module.buffers():  # batch normalisation saw other clips in each process
            broadcast(buffer)
        losses, hits, seen = self.accelerator.reduce(sums).tolist()
        return losses / seen, hits / seen

    def step(self, batch: Tensor) -> Tensor:
        """One step of the optimiser on the clips at `batch`.

        Returns, of this process, the sum of the losses, how many clips it had right, and how many it had. They stay on
        the device: to ask for them would make it wait.
        """
        batch = self.share(batch)
        n_outliers = len(range(self.rank, self.n_outliers, self.n_processes))
        n_others = max(1, len(self.clips) - self.n_clips)
        outliers = self.n_clips + torch.randint(n_others, (n_outliers,), device=self.device)
        index = torch.cat([batch, outliers])
        n_parts = min(self.config.accumulation, len(index))
        loss, hits = torch.zeros((2, 1), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(n_parts):
            part = index[number::n_parts]
            is_last = number == n_parts - 1  # until then each process adds up gradients of its own
            with nullcontext() if is_last else self.accelerator.no_sync(self.network):
                part_loss, part_hits = self.backward(part, len(part) / len(index))
            loss, hits = loss + part_loss, hits + part_hits
        if self.rests:
            for value in self.published:
                value.grad = None
        for part in (self.model.stem, *self.model.members):
            if values := list(part.parameters()):
                nn.utils.clip_grad_norm_(values, 5.0)
        self.optimizer.step()
        self.lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.average.update(self.model)
        n_clips = torch.full_like(loss, len(batch))
        return torch.cat([loss * n_clips, hits, n_clips])

    def share(self, batch: Tensor) -> Tensor:
        """What this process computes of a batch: as much as every other one, so that some clips may come twice."""
        places = torch.arange(math.ceil(len(batch) / self.n_processes), device=batch.device) * self.n_processes
        return batch[(places + self.rank) % len(batch)]

    def backward(self, index: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Add the gradients of some clips and outliers; returns their weighted loss and how many clips were right.

        Of a clip that is the share of the classifiers that were.
        """
        targets = self.targets[index]
        if self.copies:  # of which each member draws its own
            given, targets = zip(*(self.copies.draw(index, targets) for _ in self.model.members), strict=True)
        else:
            given, targets = self.augmenter(self.clips, index, targets)
            targets = [targets]
        with self.autocast():
            logits = self.network(given, bool(self.copies)).float()  # (classifiers, batch, n_genres)
        targets = torch.stack(targets).repeat_interleave(len(logits) // len(targets), dim=0)
        loss = weight * F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(0, 1), label_smoothing=self.config.label_smoothing
        )
        self.accelerator.backward(len(logits) * loss)  # each member learns as if it were alone
        shares_right = (logits.argmax(2) == targets.argmax(2)).float().mean(0)
        return loss.detach(), shares_right[index < self.n_clips].sum()

    @torch.inference_mode()
    def validate(self) -> np.ndarray:
        """Probabilities (clips, n_genres) of the validation clips by the average; every process has to ask.

        Unlike serving's they come from adjoining windows, each heard alone, in the training's precision: four times as
        fast.
        """
        model, rows = self.average.module.eval(), []
        n_frames = model.config.window_frames
        at_once = CLIPS_AT_ONCE[self.device.type == "cpu"]
        for start in range(0, len(self.valid), at_once):
            indices = range(start, min(start + at_once, len(self.valid)))
            clips = [windows(self.valid.log_mel(index), n_frames, n_frames)[0] for index in indices]
            with self.autocast():
                stem = self.valid_heard[start] if start in self.valid_heard else model.stem_of(torch.cat(clips))
                if self.copies:
                    self.valid_heard[start] = stem
                logits = model.answer_of(stem).cpu()
            rows += list(mean_probabilities(logits.split(list(map(len, clips))), evidence=model.config.evidence))
        return np.stack(gather_object(rows))

    def heard_copies(self) -> StemCopies:
        """What the stem gives of augmented clips; where a training goes on, the same as at its beginning."""
        stands = random_state(str(self.device))
        torch.manual_seed(self.config.seed + self.rank)
        self.model.eval()
        copies = StemCopies(
            self.hear,
            self.model.config,
            self.clips,
            self.augmenter.augmentation,
            self.config.copies,
            self.shows_progress,
        )
        set_random_state(stands)
        return copies

    def hear(self, log_mel: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the stem gives of songs from their beginning, in the precision of the training."""
        with self.autocast():
            return self.model.stem(log_mel)

    def autocast(self) -> torch.autocast:
        """The context in which convolutions run in the precision of the training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


def parameter_groups(model: CRNN, config: TrainingConfig) -> list[dict]:
    """Parameters with weight decay (matrices and kernels), without (biases and normalisation), and pretrained ones.

    These are not drawn to zero: what they were is the better start.
    """
    pretrained = model.pretrained_parameters()
    known = set(map(id, pretrained))
    fresh = [value for value in model.parameters() if value.requires_grad and id(value) not in known]
    groups = [
        {"params": [value for value in fresh if value.ndim > 1], "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": [value for value in fresh if value.ndim <= 1], "lr": config.lr, "weight_decay": 0.0},
        {"params": pretrained, "lr": config.lr * config.pretrained_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _outliers() -> tuple[Tensor, ...]:
    from crnn.training.outliers import outlier_log_mels  # noqa: PLC0415 (a second for who has none)

    return outlier_log_mels()


def _with(outliers: Sequence[Tensor], features: Features) -> Features:
    if not outliers:
        return features
    names = [f"outlier {number}" for number in range(len(outliers))]
    return Features.concatenate([features, Features.from_log_mels(outliers, names)])
