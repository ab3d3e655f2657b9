"""How fast a recipe trains here, and whether its device waits: epochs on synthetic clips, as many as GTZAN has.

Where a recipe lets published nets rest and hear copies of the clips first, that hearing, the epochs while they rest and
those after that are told apart. On a GPU, the busy share is the time in its kernels, from a profiled epoch, over the
time of an epoch without profiler.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project is not installed as a package

from crnn.arguments import positive
from crnn.data.clips import Clips
from crnn.data.features import Features
from crnn.features import N_MELS, n_frames_of
from crnn.network.devices import best_device, best_precision
from crnn.training.copies import StemCopies
from crnn.training.recipes import RECIPES
from crnn.training.trainer import Trainer

GENRES = tuple(f"genre {number}" for number in range(10))
CLIP_SECONDS = 30.0
N_TRAIN, N_VALID = 443, 197  # of the fault-filtered split
STEPS_TO_WARM_UP = 3


def noise(n_clips: int) -> Clips:
    """Clips of random levels."""
    generator = np.random.default_rng(n_clips)
    levels = generator.integers(0, 256, (n_clips, N_MELS, n_frames_of(CLIP_SECONDS)), dtype=np.uint8)
    names = [f"{GENRES[number % len(GENRES)]}/{number}" for number in range(n_clips)]
    return Clips(Features.from_levels(levels, names), np.arange(n_clips) % len(GENRES))


class TimedTrainer(Trainer):
    """A trainer that knows how long the nets took to hear the copies."""

    hearing_seconds = 0.0

    def heard_copies(self) -> StemCopies:
        """The copies, when they are there."""
        started = time.perf_counter()
        copies = super().heard_copies()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.hearing_seconds = time.perf_counter() - started
        return copies


def epoch(trainer: Trainer) -> tuple[float, float]:
    """Seconds of the training and of the validation of one epoch."""
    started = time.perf_counter()
    trainer.epoch(tqdm(disable=True))  # ends with a question to the device, so that its work is done
    trained = time.perf_counter()
    trainer.validate()
    return trained - started, time.perf_counter() - trained


def seconds_in_kernels(trainer: Trainer) -> float:
    """The time in which at least one kernel runs on the GPU during an epoch."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        epoch(trainer)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
    )
    busy_us, until = 0.0, 0.0
    for start, end in spans:
        busy_us += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy_us / 1e6


def measure(trainer: Trainer, n_epochs: int, name: str) -> None:
    """Print how long epochs of a kind take, and what the device does meanwhile."""
    training, validation = map(median, zip(*(epoch(trainer) for _ in range(n_epochs)), strict=True))
    print(f"{name}: {training:.2f} s ({N_TRAIN / training:.0f} clips a second), its validation: {validation:.2f} s")
    if trainer.device.type == "cuda":
        print(f"the GPU is busy for {seconds_in_kernels(trainer) / (training + validation):.0%} of it")
    elif not trainer.copies:  # else no window is changed in an epoch
        started = time.perf_counter()
        for batch in torch.arange(N_TRAIN).split(trainer.config.batch_size):
            trainer.augmenter(trainer.clips, batch, trainer.targets[batch])
        print(f"data and augmentation take {(time.perf_counter() - started) / training:.0%} of the training")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=RECIPES, default="transfer")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--epochs",
        type=positive(int),
        default=3,
        help="epochs of each kind, of which the median counts (default: %(default)s)",
    )
    args = parser.parse_args(argv)

    recipe = RECIPES[args.config]
    config = replace(
        recipe.training,
        epochs=2 * (args.epochs + 1) + 1,  # of both kinds, with one for the profiler each, and to warm up
        thaw=float(recipe.training.thaw > 0),  # they rest until told otherwise
        device=args.device,
        precision=args.precision or best_precision(recipe.front, args.device),
        batch_size=args.batch_size or recipe.training.batch_size,
    )
    trainer = TimedTrainer(recipe.build(GENRES), noise(N_TRAIN), config, recipe.augmentation, noise(N_VALID))
    for batch in torch.arange(N_TRAIN, device=trainer.device).split(config.batch_size)[:STEPS_TO_WARM_UP]:
        trainer.step(batch)
    print(f"{args.config} on {args.device} in {config.precision}, batches of {config.batch_size}")
    if trainer.hears_copies:
        print(f"hearing {config.copies} copies of each clip, once: {trainer.hearing_seconds:.2f} s")
    if config.thaw:
        measure(trainer, args.epochs, "an epoch while published nets rest")
    trainer.config = replace(config, thaw=0.0)
    measure(trainer, args.epochs, "an epoch in which all is trained")


if __name__ == "__main__":
    main()
