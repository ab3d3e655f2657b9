"""How the bundled models were made, by name: what `train.py` does unless it is told otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from crnn.augment import Augmentation
from crnn.model import CRNN, CRNNConfig
from crnn.trainer import TrainingConfig

NETWORK = {  # the fields of CRNNConfig that a recipe may change, and what they are otherwise
    field.name: field.default
    for field in fields(CRNNConfig)
    if field.name
    not in ("genres", "front", "members", "temperature", "unsure_below", "trained_on", "features", "version")
}


@dataclass(frozen=True)
class Recipe:
    """A front, the number of networks behind it, their schedule and their augmentation."""

    front: str
    members: int
    training: TrainingConfig
    augmentation: Augmentation
    network: Mapping[str, Any] = field(default_factory=dict)  # of NETWORK, what is not as there

    def config(self, genres: tuple[str, ...]) -> CRNNConfig:
        """The configuration of a model of these genres. Raises ValueError if its fields contradict each other."""
        return CRNNConfig(genres=genres, front=self.front, members=self.members, **self.network)

    def build(self, genres: tuple[str, ...]) -> CRNN:
        """A model of these genres before its training; the seed of the schedule fixes its first weights."""
        torch.manual_seed(self.training.seed)
        model = CRNN(self.config(genres))
        model.load_pretrained()
        return model


RECIPES = {
    "transfer": Recipe(
        front="musicnn",
        members=3,
        training=TrainingConfig(epochs=15, batch_size=32, lr=2e-3, ema_decay=0.99),
        augmentation=Augmentation(spec_augment=0, probability=0.8),  # fixed filters cannot learn to see past holes
    ),
    "scratch": Recipe(
        front="small",
        members=1,
        training=TrainingConfig(epochs=150, batch_size=16, lr=1e-3, ema_decay=0.995),
        augmentation=Augmentation(band_limit=0.2),
    ),
}


def best_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(front: str) -> str:
    """The faster one: bfloat16 where the hardware computes in it, but not for musicnn's large kernels on a CPU."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float32"
    return "bfloat16" if front == "small" and torch.cpu._is_avx512_bf16_supported() else "float32"
