"""Fit a CRNN to clips, and measure it: knows tensors and labels, not where they come from."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from crnn.augment import Augmentation, Augmenter
from crnn.features import Features
from crnn.model import CRNN, Normalise

ECE_BINS = 15
ANSWERED_RIGHT = 0.9  # of the clips that get an answer, this share should be right


@dataclass(frozen=True)
class Clips:
    """Log-mels with the index of the genre of each."""

    features: Features
    labels: np.ndarray  # int64 (tracks,)

    def __len__(self) -> int:
        return len(self.labels)

    def log_mels(self) -> list[Tensor]:
        """All log-mels (128, frames), float32 dB."""
        return [self.features.decibels(index) for index in range(len(self))]


@dataclass(frozen=True)
class TrainingConfig:
    """How to fit: AdamW with a one-cycle learning rate, and an exponential moving average of the weights."""

    epochs: int
    batch_size: int
    lr: float  # the peak of the cycle (Smith and Topin 2018, arXiv:1708.07120)
    ema_decay: float  # of the averaged weights, a step
    weight_decay: float = 1e-2  # not on biases and normalisation (Loshchilov and Hutter 2019, arXiv:1711.05101)
    label_smoothing: float = 0.1  # Szegedy et al. 2016, arXiv:1512.00567
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # or "bfloat16", in which convolutions are about twice as fast where hardware has it


@dataclass(frozen=True)
class Epoch:
    """One row of a training history; accuracies are shares, the learning rate is the epoch's last."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float  # on augmented windows
    valid_loss: float
    valid_accuracy: float  # on clips
    seconds: float


class TrainingError(RuntimeError):
    """Training that cannot go on; the message is one sentence that says why and what would work."""


def fit(
    model: CRNN,
    train: Clips,
    valid: Clips,
    config: TrainingConfig,
    augmentation: Augmentation,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> tuple[CRNN, list[Epoch]]:
    """Train `model` and return its averaged weights at the epoch with the lowest validation loss, and the history.

    The model returned is calibrated on the validation clips and is on the CPU. Raises TrainingError if the loss is not
    a number any more.
    """
    torch.manual_seed(config.seed)
    fit_normalisation(model, train)
    is_fast_format = config.precision == "bfloat16"  # on a CPU, channels_last pays only together with it
    model.to(config.device, memory_format=torch.channels_last if is_fast_format else torch.contiguous_format)
    average = AveragedModel(model, avg_fn=moving_average(config.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr)
    steps = config.epochs * math.ceil(len(train) / config.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.2)
    augmenter = Augmenter(augmentation, model.config.window_frames)
    log_mels = [log_mel.to(config.device) for log_mel in train.log_mels()]
    targets = F.one_hot(torch.from_numpy(train.labels), len(model.config.genres)).float().to(config.device)

    history: list[Epoch] = []
    best = deepcopy(average.module)
    with tqdm(total=steps, unit="batch", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        for number in range(1, config.epochs + 1):
            started = time.perf_counter()
            losses, hits, seen = 0.0, 0, 0
            model.train()
            for index in torch.randperm(len(train)).split(config.batch_size):
                batch, wanted = augmenter([log_mels[i] for i in index], targets[index])
                with autocast(config):
                    logits = model(batch)
                loss = F.cross_entropy(logits.float(), wanted, label_smoothing=config.label_smoothing)
                if not torch.isfinite(loss):
                    raise TrainingError(f"The loss is not a number in epoch {number}; try a smaller learning rate.")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                scheduler.step()
                average.update_parameters(model)
                losses += loss.item() * len(index)
                hits += (logits.argmax(1) == wanted.argmax(1)).sum().item()
                seen += len(index)
                bar.set_postfix(
                    loss=f"{losses / seen:.3f}",
                    accuracy=f"{hits / seen:.3f}",
                    lr=f"{scheduler.get_last_lr()[0]:.1e}",
                    refresh=False,
                )
                bar.update()
            probabilities = mean_probabilities(clip_logits(average.module, valid, config))
            row = Epoch(
                epoch=number,
                lr=scheduler.get_last_lr()[0],
                train_loss=losses / seen,
                train_accuracy=hits / seen,
                valid_loss=negative_log_likelihood(probabilities, valid.labels),
                valid_accuracy=float((probabilities.argmax(1) == valid.labels).mean()),
                seconds=time.perf_counter() - started,
            )
            if not history or row.valid_loss < min(past.valid_loss for past in history):
                best.load_state_dict(average.module.state_dict())
            history.append(row)
            on_epoch(row)
    best = best.to("cpu", memory_format=torch.contiguous_format).eval()
    calibrate(best, valid)
    return best, history


def fit_normalisation(model: CRNN, train: Clips) -> None:
    """Set the mean and standard deviation of each mel band, where the model has them, from the training clips."""
    for module in model.modules():
        if isinstance(module, Normalise):
            module.fit(torch.cat(train.log_mels(), dim=1))


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An exponential moving average that forgets faster at first, so that the random start leaves no trace.

    The decay of update n is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """

    def update(average: Tensor, value: Tensor, n: Tensor) -> Tensor:
        keep = ((1 + n) / (10 + n)).clamp(max=decay)
        return value + keep * (average - value)

    return update


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters with weight decay (matrices and kernels) and without (biases and normalisation)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def autocast(config: TrainingConfig) -> torch.autocast:
    """The context in which convolutions run in the precision of `config`."""
    return torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bfloat16")


@torch.inference_mode()
def clip_logits(model: CRNN, clips: Clips, config: TrainingConfig | None = None) -> list[Tensor]:
    """Logits (n_windows, n_genres) of each clip, in evaluation mode and on the CPU.

    Without `config` they are exactly what serving computes. With it, for following the training, they come from
    adjoining windows in the training's precision: four times as fast.
    """
    model.eval()
    if config is None:
        return [model.window_logits(log_mel)[0] for log_mel in clips.log_mels()]
    with autocast(config):
        hop_frames = model.config.window_frames
        return [model.window_logits(x.to(config.device), hop_frames)[0].cpu() for x in clips.log_mels()]


def mean_probabilities(logits: Sequence[Tensor], temperature: float = 1.0) -> np.ndarray:
    """Clip probabilities (clips, n_genres): the mean over windows of each clip's softmax(logits / temperature)."""
    return torch.stack([(clip / temperature).softmax(-1).mean(0) for clip in logits]).numpy()


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(true genre), in nats."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def calibrate(model: CRNN, valid: Clips) -> None:
    """Fit the temperature to the validation clips, and the probability under which the answer is "unsure".

    The temperature (Guo et al. 2017, arXiv:1706.04599) is the one with the lowest negative log-likelihood of clips.
    """
    logits = clip_logits(model, valid)
    temperatures = np.geomspace(0.1, 10.0, 231)  # steps of 2 %
    likelihoods = [negative_log_likelihood(mean_probabilities(logits, t), valid.labels) for t in temperatures]
    temperature = float(temperatures[int(np.argmin(likelihoods))])
    threshold = unsure_threshold(mean_probabilities(logits, temperature), valid.labels)
    model.config = replace(model.config, temperature=temperature, unsure_below=threshold)


def unsure_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The lowest top probability from which on the share of right answers is at least ANSWERED_RIGHT.

    Selective classification (Geifman and El-Yaniv 2017, arXiv:1705.08500) without its bound. Where no threshold
    reaches that share, it is the highest top probability: almost everything is unsure then, and says so.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence)
    right = np.cumsum(probabilities.argmax(axis=1)[order] == labels[order]) / np.arange(1, len(labels) + 1)
    enough = np.flatnonzero(right >= ANSWERED_RIGHT)
    return float(confidence[order][enough[-1] if len(enough) else 0])


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean gap between top probability and accuracy over 15 equal bins, weighted by their clips (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(ECE_BINS)]
    return float(sum(gaps) / len(labels))


def metrics(probabilities: np.ndarray, labels: np.ndarray, genres: Sequence[str]) -> dict:
    """All figures of an evaluation at clip level, ready for JSON.

    Keys: n, accuracy, macro_f1, nll (nats), ece, per_genre (recall of each genre, None where it has no clip),
    confusion (rows are true genres, columns the answers) and genres.
    """
    answers, known = probabilities.argmax(axis=1), range(len(genres))
    present = np.unique(labels)
    recall = dict(zip(present.tolist(), recall_score(labels, answers, labels=present, average=None), strict=True))
    return {
        "n": len(labels),
        "accuracy": float(accuracy_score(labels, answers)),
        "macro_f1": float(f1_score(labels, answers, labels=present, average="macro")),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "per_genre": {genre: float(recall[i]) if i in recall else None for i, genre in enumerate(genres)},
        "confusion": confusion_matrix(labels, answers, labels=known).tolist(),
        "genres": list(genres),
    }


def evaluate(model: CRNN, clips: Clips) -> dict:
    """The `metrics` of a model on clips, from the calibrated probabilities that serving gives."""
    probabilities = mean_probabilities(clip_logits(model, clips), model.config.temperature)
    return metrics(probabilities, clips.labels, model.config.genres)
