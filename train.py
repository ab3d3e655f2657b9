"""Train and measure: `python train.py` reproduces the bundled model, `python train.py evaluate` measures one.

`python train.py --help` and `python train.py evaluate --help` list the options.
"""

import argparse
import csv
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from crnn import plots
from crnn.__main__ import INTERRUPTED, leave_broken_pipe
from crnn.augment import AUGMENTATIONS, Augmentation
from crnn.card import model_card
from crnn.checkpoint import CheckpointError, load_checkpoint, save
from crnn.features import DatasetError, Features
from crnn.gtzan import Dataset, download_gtzan, extract_features, find_tracks, make_dataset
from crnn.model import CRNN, CRNNConfig
from crnn.musicnn import MusicnnFront
from crnn.training import Epoch, TrainingConfig, TrainingError, evaluate, fit

COMMANDS = ("train", "evaluate")
DATA = Path("data")
PACKAGES = ("torch", "torchaudio", "numpy", "scikit-learn", "av")


@dataclass(frozen=True)
class Recipe:
    """How the bundled model of a name was made: its front, its schedule and its augmentation."""

    front: str
    training: TrainingConfig
    augmentation: Augmentation


RECIPES = {
    "transfer": Recipe(
        "musicnn",
        TrainingConfig(epochs=20, batch_size=32, lr=2e-3, ema_decay=0.99),
        Augmentation(spec_augment=0, probability=0.8),  # fixed filters cannot learn to see past holes
    ),
    "scratch": Recipe(
        "small", TrainingConfig(epochs=150, batch_size=16, lr=1e-3, ema_decay=0.995), Augmentation(spec_augment=2)
    ),
}


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without the name of a command it is `train`."""
    if not argv or (argv[0] not in COMMANDS and argv[0] not in ("-h", "--help")):
        argv = ["train", *argv]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    add_train_options(commands)
    add_evaluate_options(commands)
    return parser.parse_args(argv)


def add_train_options(commands: argparse._SubParsersAction) -> None:
    """Options of `train`; what they leave open follows the recipe."""

    def by_recipe(name: str) -> str:
        return ", ".join(f"{getattr(recipe.training, name):g} for {key}" for key, recipe in RECIPES.items())

    train = commands.add_parser(
        "train",
        help="train a model (the default command)",
        description="Train a CRNN and write model, metrics, history and figures. Without options: GTZAN, from the Hub.",
    )
    add_data_options(train)
    train.add_argument("--out", type=Path, help="a new folder for the results (default: runs/<date and time>)")
    train.add_argument(
        "--config", choices=RECIPES, default="transfer", help="the recipe of a bundled model (default: %(default)s)"
    )
    for name, kind, meaning in (
        ("epochs", int, "passes over the training clips"),
        ("batch_size", int, "clips in a batch"),
        ("lr", float, "highest learning rate of the cycle"),
    ):
        option, text = f"--{name.replace('_', '-')}", f"{meaning} (default: {by_recipe(name)})"
        train.add_argument(option, type=positive(kind), default=argparse.SUPPRESS, help=text)
    train.add_argument("--seed", type=int, default=0, help="fixes everything that is random (default: %(default)s)")
    train.add_argument(
        "--augment",
        nargs="+",
        type=strength,
        default=[],
        metavar="NAME=STRENGTH",
        help="change augmentations, 0 switches one off; without this option: "
        + "; ".join(f"{key} {describe(recipe.augmentation)}" for key, recipe in RECIPES.items()),
    )
    train.add_argument("--device", default=best_device(), help="cpu, cuda or mps (default here: %(default)s)")
    train.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=argparse.SUPPRESS,
        help="of the convolutions in training (default: the faster one on this machine)",
    )


def add_evaluate_options(commands: argparse._SubParsersAction) -> None:
    """Options of `evaluate`."""
    measure = commands.add_parser(
        "evaluate",
        help="measure a model",
        description="Print accuracy, macro-F1, negative log-likelihood, expected calibration error, recall and "
        "confusion matrix at clip level (the mean of the probabilities over a clip's windows).",
    )
    measure.add_argument("--model", help="a folder, a bundled model or a Hub id (default: the bundled model)")
    add_data_options(measure)
    measure.add_argument(
        "--split",
        choices=("test", "valid", "train", "all"),
        default="test",
        help="part of the data (default: %(default)s)",
    )
    measure.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file too")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where the clips come from."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--features", type=Path, metavar="FILE", help="a feature file (.npz)")
    source.add_argument("--data", type=Path, metavar="DIR", help="a folder of genre folders with audio files")


def positive(kind: type) -> type:
    """An argparse type that accepts only positive numbers."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


def describe(augmentation: Augmentation) -> str:
    """An augmentation as the command line takes it."""
    return " ".join(f"{name}={value:g}" for name, value in asdict(augmentation).items())


def strength(text: str) -> tuple[str, float]:
    """An argparse type for `mixup=0.3`: the name and the strength of an augmentation."""
    name, _, value = text.partition("=")
    if name not in AUGMENTATIONS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(AUGMENTATIONS)}")
    kind = type(getattr(Augmentation(), name))
    if not 0 <= (number := kind(value)) < float("inf"):
        raise argparse.ArgumentTypeError(f"the strength of {name} is not 0 or more")
    return name, number


def best_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(front: str) -> str:
    """The faster one: bfloat16 where the hardware computes in it, but not for musicnn's large kernels on a CPU."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float32"
    return "bfloat16" if front == "small" and torch.cpu._is_avx512_bf16_supported() else "float32"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 for a fault in what it was given."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    try:
        if args.command == "evaluate":
            run_evaluate(args)
        else:
            run_train(args, command=shlex.join(["python", "train.py", *argv]))
    except (DatasetError, CheckpointError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    return 0


def load_dataset(args: argparse.Namespace) -> Dataset:
    """The data that the options name; features of GTZAN itself are made once and kept in data/."""
    if args.features:
        return make_dataset(Features.load(args.features))
    if args.data:
        return make_dataset(extract_features(find_tracks(args.data)))
    cache = DATA / "gtzan-logmel.npz"
    if not cache.is_file():
        extract_features(find_tracks(download_gtzan(DATA))).save(cache)
    return make_dataset(Features.load(cache))


def run_train(args: argparse.Namespace, command: str) -> None:
    """Train, evaluate and write everything about it into one folder."""
    out = args.out or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty; give another --out.")
    dataset = load_dataset(args)
    parts = {part: dataset.clips(part) for part in ("train", "valid", "test") if len(dataset.splits[part])}
    counts = ", ".join(f"{len(clips)} {part}" for part, clips in parts.items())
    print(f"{len(dataset.genres)} genres, {counts} clips ({dataset.protocol})")

    torch.manual_seed(args.seed)  # of the first weights; `fit` seeds the rest
    recipe = RECIPES[args.config]
    model = CRNN(CRNNConfig(genres=dataset.genres, front=recipe.front))
    if isinstance(model.front, MusicnnFront):
        model.front.load_pretrained()
    given = {field.name: getattr(args, field.name) for field in fields(TrainingConfig) if field.name in args}
    config = replace(recipe.training, **{"precision": best_precision(recipe.front), **given})
    started = time.perf_counter()
    model, history = fit(
        model, parts["train"], parts["valid"], config, replace(recipe.augmentation, **dict(args.augment)), report
    )
    best = min(history, key=lambda epoch: epoch.valid_loss)
    figures = {part: evaluate(model, clips) for part, clips in parts.items() if part != "train"}
    record = {
        **figures,
        "protocol": dataset.protocol,
        "clips": {part: len(clips) for part, clips in parts.items()},
        "best_epoch": best.epoch,
        "epochs": config.epochs,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "command": command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    write_run(out, model, history, record)
    for part, figure in figures.items():
        print_figures(part, figure)
    if "test" not in parts:
        print("The data has no test part; validation selected the epoch, so its figures are a little too good.")
    print(f"{out / 'model'} is the model of epoch {best.epoch}.")


def report(epoch: Epoch) -> None:
    """One line an epoch, above the progress bar."""
    tqdm.write(
        f"epoch {epoch.epoch:3d}  lr {epoch.lr:.1e}"
        f"  train loss {epoch.train_loss:.3f} accuracy {epoch.train_accuracy:.3f}"
        f"  valid loss {epoch.valid_loss:.3f} accuracy {epoch.valid_accuracy:.3f}  {epoch.seconds:.1f} s",
        file=sys.stdout,
    )
    sys.stdout.flush()


def write_run(out: Path, model: CRNN, history: list[Epoch], record: dict) -> None:
    """Write model/, metrics.json, history.csv, curves.png and confusion-*.png."""
    save(model, out / "model", model_card(model, record))
    (out / "metrics.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with (out / "history.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        rows.writeheader()
        rows.writerows(asdict(epoch) for epoch in history)
    plots.curves([asdict(epoch) for epoch in history]).savefig(out / "curves.png")
    for part in {"valid", "test"} & record.keys():
        figure = plots.confusion_matrix(record[part]["confusion"], record[part]["genres"])
        figure.savefig(out / f"confusion-{part}.png")


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a model on one part of the data."""
    model, origin = load_checkpoint(args.model)
    if origin.notice:
        print(f"train.py: {origin.notice}", file=sys.stderr)
    figures = evaluate(model, load_dataset(args).clips(args.split, model.config.genres))
    print(origin.name)
    print_figures(args.split, figures)
    print_confusion(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def print_figures(part: str, figures: dict) -> None:
    """The figures of one evaluation, readable."""
    print(
        f"{part}: {figures['n']} clips, accuracy {figures['accuracy']:.3f}, macro-F1 {figures['macro_f1']:.3f}, "
        f"negative log-likelihood {figures['nll']:.3f}, expected calibration error {figures['ece']:.3f}"
    )
    recall = (f"{genre} {value:.2f}" for genre, value in figures["per_genre"].items() if value is not None)
    print(f"recall: {', '.join(recall)}")


def print_confusion(figures: dict) -> None:
    """The confusion matrix as a table: a row is a true genre, a column an answer."""
    width = max(5, *(len(genre) for genre in figures["genres"])) + 1
    print("confusion".ljust(width) + "".join(genre.rjust(width) for genre in figures["genres"]))
    for genre, row in zip(figures["genres"], figures["confusion"], strict=True):
        print(genre.ljust(width) + "".join(str(count).rjust(width) for count in row))


if __name__ == "__main__":
    sys.exit(main())
