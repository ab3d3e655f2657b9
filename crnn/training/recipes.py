"""How models are made: the recipes of the bundled ones, by name, and the model that a fine-tuning starts from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from crnn.checkpoint import UNFIT, CheckpointError, digest, read, save
from crnn.data.features import DatasetError, Features
from crnn.data.heard import record_of
from crnn.data.weights import find_weights
from crnn.files import write_json
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.training.augment import Augmentation
from crnn.training.trainer import TrainingConfig

DEFAULT = "transfer"  # of RECIPES
BASE_FILE = "base.json"
NETWORK = {  # the fields of CRNNConfig that a recipe may change, and what they are otherwise
    field.name: field.default
    for field in fields(CRNNConfig)
    if field.name
    not in (
        "genres",
        "front",
        "members",
        "temperature",
        "unsure_below",
        "strange_below",
        "trained_on",
        "heard",
        "features",
        "version",
    )
}


@dataclass(frozen=True)
class Base:
    """The model that a fine-tuning starts from."""

    model: CRNN
    name: str  # user/name of a Hub model, otherwise its name and kind, "crnn-scratch (bundled)"
    revision: str | None = None  # the full commit of a Hub model

    def settings(self) -> dict[str, str]:
        """What tells it from others."""
        settings = {
            "name": self.name,
            "revision": self.revision,
            "weights": digest(self.model),
            "trained_on": self.model.config.trained_on,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def save(self, folder: Path) -> None:
        """Keep it, whatever becomes of where it came from. Raises OSError."""
        save(self.model, folder, card="")
        write_json(folder / BASE_FILE, [self.name, self.revision])

    @classmethod
    def load(cls, folder: Path) -> "Base":
        """What `save` kept. Raises CheckpointError if it is damaged."""
        try:
            name, revision = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
            return cls(read(folder, name), name, revision)
        except (OSError, *UNFIT) as error:
            raise CheckpointError(f"{folder} is damaged; train anew, into another folder.") from error


@dataclass(frozen=True)
class Recipe:
    """A front, the number of networks behind it, their schedule and their augmentation."""

    front: str
    members: int
    training: TrainingConfig
    augmentation: Augmentation
    network: Mapping[str, Any] = field(default_factory=dict)  # of NETWORK, what is not as there
    base: Base | None = None  # a model with this network to start from, rather than from random weights

    def fine_tuning(self, base: Base) -> "Recipe":
        """The same schedule and augmentation for the network of `base`, starting from it."""
        config = base.model.config
        network = {name: getattr(config, name) for name in NETWORK}
        return replace(self, front=config.front, members=config.members, network=network, base=base)

    def settings(self) -> dict:
        """All of it as JSON can have it."""
        settings = asdict(replace(self, base=None))
        del settings["base"]
        return {**settings, "base": self.base.settings()} if self.base else settings

    def config(self, genres: tuple[str, ...]) -> CRNNConfig:
        """The configuration of a model of these genres. Raises ValueError if its fields contradict each other."""
        return CRNNConfig(genres=genres, front=self.front, members=self.members, **self.network)

    def build(self, genres: tuple[str, ...]) -> CRNN:
        """A model of these genres before its training; the seed of the schedule fixes its first weights.

        What others published for it is fetched if need be. Raises DatasetError if that cannot be had.
        """
        torch.manual_seed(self.training.seed)
        model = CRNN(self.config(genres))
        if self.base:
            model.load_base(self.base.model)
        else:
            try:
                model.load_pretrained(find_weights)
            except ValueError as error:
                raise DatasetError(str(error)) from error
        return model

    def trained_on(self, protocol: str, parts: str) -> str:
        """What a model of this recipe has heard after these parts of a split, its base's own training included."""
        past = self.base.model.config.trained_on.split("; ") if self.base else []
        return "; ".join(dict.fromkeys(filter(None, [f"{protocol}: {parts}", *past])))

    def heard(self, clips: Features) -> str:
        """The record of these clips, and of those that its base has heard; "" if that has no record of its own data."""
        before = self.base.model.config if self.base else None
        if before and not before.heard and any("GTZAN" not in past for past in before.trained_on.split("; ") if past):
            return ""
        return record_of(clips, before.heard if before else "")


RECIPES = {
    "transfer": Recipe(
        front="lean-choi-crnn+mn04-kinds+lean-won",
        members=6,
        training=TrainingConfig(
            epochs=25, batch_size=32, lr=2e-3, ema_decay=0.98, pretrained_lr=0.1, thaw=0.92, copies=12
        ),
        augmentation=Augmentation(
            band_limit=0.5,
            reverberation=0.3,
            distortion=0.3,
            clipping=0.3,
            crackle=0.15,
            spec_augment=0,
            mixup=0.4,
            probability=0.5,
        ),
        network={
            "summary": True,
            "summary_channels": True,
            "linear": True,
            "block_dropout": 0.2,
            "dropout": 0.5,
            "evidence": 2.0,
        },
    ),
    "scratch": Recipe(
        front="small",
        members=3,
        training=TrainingConfig(epochs=150, batch_size=16, lr=1e-3, ema_decay=0.995),
        augmentation=Augmentation(band_limit=0.2, clipping=0, crackle=0, swell=0),
    ),
}
