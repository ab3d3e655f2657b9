"""Train and measure: `python train.py` reproduces the bundled model, `evaluate` and `cross-validate` measure.

`python train.py --help` and `python train.py evaluate --help` list the options.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from crnn import plots
from crnn.__main__ import INTERRUPTED, leave_broken_pipe
from crnn.augment import AUGMENTATIONS, Augmentation
from crnn.card import model_card
from crnn.checkpoint import HISTORY_FILE, HUB_ADDRESS, METRICS_FILE, CheckpointError, load_checkpoint, save
from crnn.compare import differences, read_run, table
from crnn.crossval import cross_validate
from crnn.download import download_gtzan
from crnn.extraction import extract_features
from crnn.features import DatasetError, Features
from crnn.gtzan import SPLITS, Dataset, find_tracks, has_heard, make_dataset, read_artists
from crnn.metrics import cross_fitted_metrics, fit_calibration
from crnn.model import CRNN, POOLING, RECURRENT, CRNNConfig
from crnn.publish import prepare, push
from crnn.recipes import RECIPES, Recipe, best_device, best_precision
from crnn.state import write_whole
from crnn.training import (
    Clips,
    Epoch,
    TrainingConfig,
    TrainingError,
    best_epoch,
    calibrated,
    clip_logits,
    evaluate,
    fit,
)

COMMANDS = ("train", "evaluate", "cross-validate", "compare", "push")
DATA = Path("data")
UNFINISHED = "unfinished"  # the folder in a run's folder that holds where it stands, until it is complete
COMMAND_FILE = "command.json"
NETWORK = {  # what --set may change, and what it is otherwise
    field.name: field.default
    for field in fields(CRNNConfig)
    if field.name
    not in ("genres", "front", "members", "temperature", "unsure_below", "trained_on", "features", "version")
}
SMALL_FRONT = {"channels", "mel_pools", "time_pools", "block_dropout"}
PACKAGES = ("torch", "torchaudio", "numpy", "scikit-learn", "av")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without the name of a command it is `train`."""
    if not argv or (argv[0] not in COMMANDS and argv[0] not in ("-h", "--help")):
        argv = ["train", *argv]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    add_train_options(commands)
    add_evaluate_options(commands)
    add_cross_validate_options(commands)
    add_compare_options(commands)
    add_push_options(commands)
    return parser.parse_args(argv)


def add_train_options(commands: argparse._SubParsersAction) -> None:
    """Options of `train`."""
    train = commands.add_parser(
        "train",
        help="train a model (the default command)",
        description="Train a CRNN and write model, metrics, history and figures. Without options: GTZAN, from the Hub.",
    )
    add_data_options(train)
    add_split_options(train, "--split")
    train.add_argument("--out", type=Path, help="a new folder for the results (default: runs/<date and time>)")
    train.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with the unfinished training in this folder; it needs no other options",
    )
    train.add_argument(
        "--patience",
        type=positive(int),
        default=argparse.SUPPRESS,
        metavar="N",
        help="stop when the validation loss has not fallen for N epochs and take the best epoch (default: train all)",
    )
    train.add_argument(
        "--tensorboard",
        action="store_true",
        help="log the epochs in OUT/tensorboard too (needs: pip install tensorboard)",
    )
    train.add_argument(
        "--no-refit",
        dest="refit",
        action="store_false",
        help="keep the model that was validated; the default is to train it anew on training and validation clips",
    )
    add_recipe_options(train)


def add_cross_validate_options(commands: argparse._SubParsersAction) -> None:
    """Options of `cross-validate`."""
    validate = commands.add_parser(
        "cross-validate",
        help="measure a recipe by cross-validation",
        description="Train a model for each fold of the training and validation clips and measure it on the clips held "
        "out. The folds run side by side; the same command goes on where it was stopped.",
    )
    add_data_options(validate)
    validate.add_argument("--folds", type=positive(int), default=5, help="number of folds (default: %(default)s)")
    validate.add_argument(
        "--groups",
        choices=("artist", "none"),
        default="none",
        help="artist keeps all clips of an artist in one fold; none shows what it does to the figures if they are not "
        "(default: %(default)s)",
    )
    validate.add_argument("--artists", type=Path, metavar="CSV", help="a table with the columns track_id and artist")
    validate.add_argument(
        "--jobs", type=positive(int), help="folds at a time (default: one for each core, or one on a GPU)"
    )
    validate.add_argument("--out", type=Path, help="a folder (default: runs/cross-validate-<config>-<groups>)")
    add_recipe_options(validate)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """How to train; what these options leave open follows the recipe."""

    def by_recipe(name: str) -> str:
        return ", ".join(f"{getattr(recipe.training, name):g} for {key}" for key, recipe in RECIPES.items())

    parser.add_argument(
        "--config", choices=RECIPES, default="transfer", help="the recipe of a bundled model (default: %(default)s)"
    )
    for name, kind, meaning in (
        ("epochs", int, "passes over the training clips"),
        ("batch_size", int, "clips in a batch"),
        ("lr", float, "highest learning rate of the cycle"),
    ):
        option, text = f"--{name.replace('_', '-')}", f"{meaning} (default: {by_recipe(name)})"
        parser.add_argument(option, type=positive(kind), default=argparse.SUPPRESS, help=text)
    parser.add_argument(
        "--members",
        type=positive(int),
        help="networks whose probabilities are averaged (default: "
        + ", ".join(f"{recipe.members} for {key}" for key, recipe in RECIPES.items())
        + ")",
    )
    parser.add_argument("--seed", type=int, default=0, help="fixes everything that is random (default: %(default)s)")
    parser.add_argument(
        "--augment",
        nargs="+",
        type=strength,
        default=[],
        metavar="NAME=STRENGTH",
        help="change augmentations, 0 switches one off; without this option: "
        + "; ".join(f"{key} {describe(recipe.augmentation)}" for key, recipe in RECIPES.items()),
    )
    parser.add_argument(
        "--set",
        nargs="+",
        type=network_field,
        default=[],
        metavar="NAME=VALUE",
        dest="network",
        help=f"change the network; recurrent: {', '.join(RECURRENT)}; pooling: {', '.join(POOLING)}; "
        "without this option: "
        + " ".join(f"{name}={str(value).strip('()').replace(' ', '')}" for name, value in NETWORK.items()),
    )
    parser.add_argument("--device", default=best_device(), help="cpu, cuda or mps (default here: %(default)s)")
    parser.add_argument(
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
    add_split_options(measure, "--protocol")
    measure.add_argument(
        "--split",
        choices=("test", "valid", "train", "all"),
        default="test",
        help="part of the data (default: %(default)s)",
    )
    measure.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file too")


def add_compare_options(commands: argparse._SubParsersAction) -> None:
    """Options of `compare`."""
    compare = commands.add_parser(
        "compare",
        help="set finished runs side by side",
        description="Print the figures of finished runs and what was different about them, and draw their validation "
        "curves. Minutes are those of the training that was validated.",
    )
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run or of a model")
    compare.add_argument(
        "--out",
        type=Path,
        default=Path("runs") / "comparison.png",
        metavar="PNG",
        help="the curves (default: %(default)s)",
    )


def add_push_options(commands: argparse._SubParsersAction) -> None:
    """Options of `push`."""
    publish = commands.add_parser(
        "push",
        help="publish a model on the Hub",
        description="Send a model with its card, figures and history to the Hugging Face Hub, in one commit.",
    )
    publish.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model's folder: runs/<name>/model")
    publish.add_argument("--repo", required=True, metavar="USER/NAME", help="where to; it is made if it is missing")
    publish.add_argument("--private", action="store_true", help="a repo that is made is for its owner alone")
    publish.add_argument("--revision", metavar="BRANCH", help="a branch, made if it is missing (default: main)")
    publish.add_argument("--message", default="Publish a model", help="of the commit (default: %(default)s)")
    publish.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where the clips come from."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--features", type=Path, metavar="FILE", help="a feature file (.npz)")
    source.add_argument("--data", type=Path, metavar="DIR", help="a folder of genre folders with audio files")


def add_split_options(parser: argparse.ArgumentParser, option: str) -> None:
    """How the clips are parted into those for training, for validation and for testing."""
    parser.add_argument(
        option,
        choices=SPLITS,
        dest="protocol",
        help="how the clips were split: fault-filtered, GTZAN's published lists; random, by track and stratified by "
        "genre; segments, with segments of a track in all parts, only to show how worthless good figures can be "
        "(default: fault-filtered for GTZAN, random otherwise)",
    )
    parser.add_argument(
        "--groups",
        choices=("artist", "none"),
        help="artist keeps all clips of an artist in one part of a random split (default: artist with --artists)",
    )
    parser.add_argument("--artists", type=Path, metavar="CSV", help="a table with the columns track_id and artist")


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


def network_field(text: str) -> tuple[str, Any]:
    """An argparse type for `channels=16,48,96,192`: the name and the value of a field of CRNNConfig."""
    name, _, value = text.partition("=")
    if name not in NETWORK:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(NETWORK)}")
    kind = type(NETWORK[name])
    return name, tuple(map(int, value.split(","))) if kind is tuple else kind(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 for a fault in what it was given."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    try:
        if args.command == "evaluate":
            run_evaluate(args)
        elif args.command == "cross-validate":
            run_cross_validate(args, command_of(argv))
        elif args.command == "compare":
            run_compare(args)
        elif args.command == "push":
            run_push(args)
        elif args.resume:
            run_train(*resumed(args))
        else:
            run_train(args, argv)
    except (DatasetError, CheckpointError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"train.py: {str(stop) or 'stopped.'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    return 0


def command_of(argv: Sequence[str]) -> str:
    """What was typed."""
    return shlex.join(["python", "train.py", *argv])


def load_dataset(args: argparse.Namespace) -> Dataset:
    """The data that the options name, split as they say."""
    features = load_features(args)
    if args.command == "cross-validate" or args.groups == "none" or not (args.groups or args.artists):
        return make_dataset(features, getattr(args, "protocol", None))
    return make_dataset(features, args.protocol, artists_of(args, features))


def load_features(args: argparse.Namespace) -> Features:
    """The log-mels that the options name; they are computed once and kept in data/."""
    if args.features:
        return Features.load(args.features)
    if args.data:
        return extract_features(find_tracks(args.data), DATA / "log-mels")
    cache = DATA / "gtzan-logmel.npz"
    if not cache.is_file():
        extract_features(find_tracks(download_gtzan(DATA)), DATA / "log-mels").save(cache)
    return Features.load(cache)


def artists_of(args: argparse.Namespace, features: Features) -> list[str]:
    """The artist of each clip."""
    if not args.artists:
        raise DatasetError("To group by artist, give --artists, a CSV with the columns track_id and artist.")
    return read_artists(args.artists, features.track_id.tolist())


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the options name, with their changes. Raises TrainingError if there is no such network."""
    recipe = RECIPES[args.config]
    if recipe.front != "small" and (useless := SMALL_FRONT & dict(args.network).keys()):
        raise TrainingError(f"{', '.join(sorted(useless))} can be set for --config scratch only.")
    given = {field.name: getattr(args, field.name) for field in fields(TrainingConfig) if field.name in args}
    recipe = replace(
        recipe,
        members=args.members or recipe.members,
        training=replace(recipe.training, **{"precision": best_precision(recipe.front), **given}),
        augmentation=replace(recipe.augmentation, **dict(args.augment)),
        network=dict(args.network),
    )
    try:
        with torch.device("meta"):  # without memory
            CRNN(recipe.config(("one genre", "another")))
    except ValueError as error:
        raise TrainingError(f"There is no such network: {error}.") from error
    return recipe


def run_train(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Train, evaluate and write everything about it into one folder; what is done there already is not done again.

    Raises KeyboardInterrupt, with a sentence for the person, if it is stopped.
    """
    out = args.resume or args.out or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    go_on = f"{command_of(['--resume', str(out)])} goes on"
    unfinished = out / UNFINISHED
    if not args.resume and out.exists() and any(out.iterdir()):
        hint = f"{go_on} with the training there, or " if unfinished.exists() else ""
        raise DatasetError(f"{out} is not empty; {hint}give another --out.")
    if args.tensorboard and not find_spec("tensorboard"):
        raise TrainingError("--tensorboard needs a package that is not installed: pip install tensorboard.")
    recipe, dataset = recipe_of(args), load_dataset(args)
    counts = ", ".join(f"{size} {part}" for part, size in clips_by_part(dataset).items())
    print(f"{len(dataset.genres)} genres, {counts} clips ({dataset.protocol})")
    for warning in dataset.warnings():
        print(f"train.py: {warning}", file=sys.stderr)
    try:
        if not args.resume:
            write_whole(unfinished / COMMAND_FILE, json.dumps(list(argv)).encode())
            print(f"If it is stopped, {go_on}.")
        train_and_measure(recipe, dataset, args, out, command_of(argv))
        shutil.rmtree(unfinished)
    except BrokenPipeError:
        raise
    except (OSError, SafetensorError) as error:
        place, reason = (getattr(error, name, None) for name in ("filename", "strerror"))
        raise TrainingError(
            f"{place or out} cannot be read or written ({reason or error}); when that is mended, {go_on}."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {go_on}.") from None


def resumed(args: argparse.Namespace) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments, that an unfinished training was started with.

    Raises TrainingError if there is none in the folder, or if it was given other options.
    """
    run = args.resume
    try:
        argv = json.loads((run / UNFINISHED / COMMAND_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} holds no unfinished training.") from error
    before = parse_args(argv)
    here = {"out": before.out, "resume": None}
    if {**vars(args), **here} not in (vars(before), {**vars(parse_args([])), **here}):
        raise TrainingError(f"{run} was started with {command_of(argv)}; go on with --resume alone.")
    before.resume = run
    return before, argv


def clips_by_part(dataset: Dataset) -> dict[str, int]:
    """The number of clips of each part that has any."""
    return {part: len(index) for part, index in dataset.splits.items() if len(index)}


def train_and_measure(recipe: Recipe, dataset: Dataset, args: argparse.Namespace, out: Path, command: str) -> None:
    """Validate a recipe, train it again on all clips if it is to be refitted, and write what came of it."""
    sizes = clips_by_part(dataset)
    record = {
        "protocol": dataset.protocol,
        "clips": sizes,
        "epochs": recipe.training.epochs,
        **provenance(command, recipe),
    }
    valid = dataset.clips("valid")
    logs = out / "tensorboard" if args.tensorboard else None
    model, history = fit_recipe(recipe, dataset, "train", out, logs, valid)
    if recipe.training.patience:
        record["chosen_epoch"] = best_epoch(history)
    logits = clip_logits(model, valid)
    calibration = fit_calibration(logits, valid.labels)
    record["valid"] = cross_fitted_metrics(logits, valid.labels, dataset.genres)
    write_run(out, "validated" if args.refit else "model", calibrated(model, calibration), record, history)
    print_figures("valid", record["valid"])
    if args.refit:
        print("The same on training and validation clips:")
        model, _ = fit_recipe(recipe, dataset, "train+valid", out, logs, stop_after=record.get("chosen_epoch"))
        model = calibrated(model, calibration)
    if "test" in sizes:
        record["test"] = evaluate(model, dataset.clips("test"))
        print_figures("test", record["test"])
    write_run(out, "model", model, record, history)
    print(f"{out / 'model'} is the model.")


def fit_recipe(
    recipe: Recipe,
    dataset: Dataset,
    parts: str,
    out: Path,
    logs: Path | None,
    valid: Clips | None = None,
    stop_after: int | None = None,
) -> tuple[CRNN, list[Epoch]]:
    """Train a recipe on some parts of the data, from where it stands in the folder of the run."""
    with stopping_after_the_epoch() as stop_if_asked, logging_to(logs and logs / parts) as log:

        def on_epoch(epoch: Epoch) -> None:
            report(epoch)
            log(epoch)
            stop_if_asked()

        model, history = fit(
            recipe.build(dataset.genres),
            dataset.clips(parts),
            recipe.training,
            recipe.augmentation,
            valid,
            on_epoch,
            state=out / UNFINISHED / f"{parts}.pt",
            stop_after=stop_after,
        )
    model.config = replace(model.config, trained_on=f"{dataset.protocol}: {parts}")
    return model, history


@contextmanager
def logging_to(folder: Path | None) -> Iterator[Callable[[Epoch], None]]:
    """A function that logs an epoch for TensorBoard; without a folder it does nothing."""
    if folder is None:
        yield lambda _: None
        return
    with import_module("torch.utils.tensorboard").SummaryWriter(folder) as writer:

        def log(epoch: Epoch) -> None:
            for name, value in asdict(epoch).items():
                part, _, figure = name.rpartition("_")
                if value is not None and name != "epoch":
                    writer.add_scalar(f"{figure}/{part}" if part else name, value, epoch.epoch)
            writer.flush()

        yield log


@contextmanager
def stopping_after_the_epoch() -> Iterator[Callable[[], None]]:
    """Until the block is left, the first Ctrl-C makes only the function that it gives raise KeyboardInterrupt.

    The second Ctrl-C does so at once.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\ntrain.py: stopping after this epoch; Ctrl-C again stops at once.\n")  # print may be interrupted

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, before)


def provenance(command: str, recipe: Recipe) -> dict:
    """What made a result: the command, the recipe and the versions."""
    return {
        "command": command,
        "recipe": {**asdict(recipe), "network": {**NETWORK, **recipe.network}},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def report(epoch: Epoch) -> None:
    """One line an epoch, above the progress bar."""
    valid = (
        f"  valid loss {epoch.valid_loss:.3f} accuracy {epoch.valid_accuracy:.3f}"
        if epoch.valid_loss is not None
        else ""
    )
    tqdm.write(
        f"epoch {epoch.epoch:3d}  lr {epoch.lr:.1e}"
        f"  train loss {epoch.train_loss:.3f} accuracy {epoch.train_accuracy:.3f}{valid}  {epoch.seconds:.1f} s",
        file=sys.stdout,
    )
    sys.stdout.flush()


def report_fold(number: int, epoch: Epoch) -> None:
    """The same of one fold among others."""
    print(f"fold {number + 1}  ", end="")
    report(epoch)


def run_cross_validate(args: argparse.Namespace, command: str) -> None:
    """Measure a recipe by cross-validation over the training and validation clips; the test clips stay out."""
    recipe, dataset = recipe_of(args), load_dataset(args)
    clips = dataset.clips("train+valid")
    groups = artists_of(args, clips.features) if args.groups == "artist" else None
    out = args.out or Path("runs") / f"cross-validate-{args.config}-{args.groups}"
    jobs = args.jobs or (os.cpu_count() if args.device == "cpu" else 1)
    figures = cross_validate(clips, dataset.genres, groups, recipe, args.folds, out, jobs, report_fold)
    record = {"valid": figures, "groups": args.groups, **provenance(command, recipe)}
    (out / METRICS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_figures(out, "cross-validation", figures)
    print("fold  clips  accuracy  negative log-likelihood  minutes")
    for number, fold in enumerate(figures["folds"], start=1):
        print(f"{number:4}  {fold['n']:5}  {fold['accuracy']:8.3f}  {fold['nll']:23.3f}  {fold['seconds'] / 60:7.1f}")
    print_figures("all folds", figures)
    print(f"spread: the folds' accuracies have a standard deviation of {figures['spread']:.3f}")


def run_compare(args: argparse.Namespace) -> None:
    """Print the figures of runs and what differs between them, and draw the curves of those that have any."""
    if unfinished := next((run for run in args.runs if (run / UNFINISHED).exists()), None):
        raise TrainingError(f"{unfinished} is unfinished; {command_of(['--resume', str(unfinished)])} goes on.")
    runs = [read_run(folder) for folder in args.runs]
    print("\n".join(table(runs)))
    if lines := differences(runs):
        print("", "What differs, run by run:", *lines, sep="\n")
    if histories := {run.name: run.history for run in runs if run.history}:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        plots.compared(histories).savefig(args.out)
        print(f"\n{args.out} shows the validation curves.")


def write_run(out: Path, name: str, model: CRNN, record: dict, history: list[Epoch]) -> None:
    """Write a model with its card, metrics.json, history.csv and the figures of what was measured so far."""
    record = {
        **record,
        "trained_on": model.config.trained_on,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    save(model, out / name, model_card(model, record))
    for folder in (out, out / name):  # beside the model, too, for the page that shows where it comes from
        (folder / METRICS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_history(folder, history)
    plots.curves([asdict(epoch) for epoch in history]).savefig(out / "curves.png")
    for part in {"valid", "test"} & record.keys():
        write_figures(out, part, record[part])


def write_history(folder: Path, history: list[Epoch]) -> None:
    """Write history.csv."""
    with (folder / HISTORY_FILE).open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        rows.writeheader()
        rows.writerows(asdict(epoch) for epoch in history)


def write_figures(out: Path, part: str, figures: dict) -> None:
    """Draw confusion-<part>.png and reliability-<part>.png."""
    plots.confusion_matrix(figures["confusion"], figures["genres"]).savefig(out / f"confusion-{part}.png")
    plots.reliability(figures["reliability"]).savefig(out / f"reliability-{part}.png")


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a model on one part of the data."""
    model, origin = load_checkpoint(args.model)
    if origin.notice:
        print(f"train.py: {origin.notice}", file=sys.stderr)
    dataset = load_dataset(args)
    if has_heard(model, dataset.protocol, args.split):
        notice = f"{origin.name} was trained on clips of this part, so these figures say nothing about other songs."
        print(f"train.py: {notice}", file=sys.stderr)
    figures = evaluate(model, dataset.clips(args.split, model.config.genres))
    print(origin.name)
    print_figures(args.split, figures)
    print_confusion(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run_push(args: argparse.Namespace) -> None:
    """Publish a model, or show what that would send."""
    upload = prepare(args.model, args.repo)
    if args.dry_run:
        print(f"{upload}\nThis is a dry run: nothing was sent.")
    else:
        commit = push(upload, args.message, args.private, args.revision)
        print(f"{HUB_ADDRESS}{args.repo} has the model: --model {args.repo}@{commit} uses exactly this one.")


def print_figures(part: str, figures: dict) -> None:
    """The figures of one evaluation, readable."""
    print(
        f"{part}: {figures['n']} clips, accuracy {figures['accuracy']:.3f} ± {figures['accuracy_error']:.3f}, "
        f"macro-F1 {figures['macro_f1']:.3f}, negative log-likelihood {figures['nll']:.3f}"
    )
    print(
        f"expected calibration error {figures['ece']:.3f} (perfect calibration would show "
        f"{figures['ece_by_chance']:.3f} on so many clips)"
    )
    right = "" if figures["answered_right"] is None else f", {figures['answered_right']:.1%} of these right"
    print(f'answered rather than "unsure": {figures["answered"]:.1%}{right}')
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
