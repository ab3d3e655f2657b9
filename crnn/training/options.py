"""The options of the training command, and the recipe that they name."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from crnn.arguments import add_model, count, filled, pathname, positive, seed, share
from crnn.data.gtzan import SPLITS
from crnn.data.look import ACCEPTABLE
from crnn.data.weights import FOLDER_VARIABLE
from crnn.network.devices import best_device, best_precision
from crnn.network.fronts import FRONTS, front_of
from crnn.network.layers import POOLING, RECURRENT
from crnn.network.model import CRNN
from crnn.network.published import PublishedStem
from crnn.training.crossval import FOLDS
from crnn.training.processes import launched_with
from crnn.training.recipes import DEFAULT, NETWORK, RECIPES, Base, Recipe
from crnn.training.state import TrainingError
from crnn.training.trainer import TrainingConfig
from crnn.training.values import describe, device, front, network_field, strength, unknown_share

COMMANDS = ("train", "evaluate", "cross-validate", "calibrate", "compare", "push", "export")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; without the name of a command it is `train`."""
    if not argv or (argv[0] not in COMMANDS and argv[0] not in ("-h", "--help")):
        argv = ["train", *argv]
    parser = argparse.ArgumentParser(description="Train and measure music genre classifiers.")
    parser.set_defaults(resume=None, protocol=None)  # of the commands that have no such options
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    add_train_options(commands)
    add_evaluate_options(commands)
    add_cross_validate_options(commands)
    add_calibrate_options(commands)
    add_compare_options(commands)
    add_push_options(commands)
    add_export_options(commands)
    args = parser.parse_args(argv)
    if args.command == "export" and not (args.onnx or args.pt2):
        commands.choices["export"].error("name a file to write: --onnx or --pt2")
    if args.command == "export" and args.onnx and args.pt2 and args.onnx.resolve() == args.pt2.resolve():
        commands.choices["export"].error("--onnx and --pt2 name the same file")
    return args


def add_train_options(commands: argparse._SubParsersAction) -> None:
    """Options of `train`."""
    train = commands.add_parser(
        "train",
        help="train a model (the default command)",
        description="Train a CRNN and write model, metrics, history and figures. Without options: GTZAN, from the Hub.",
    )
    add_data_options(train)
    add_split_options(train, "--split")
    train.add_argument("--out", type=pathname, help="a new folder for the results (default: runs/<date and time>)")
    train.add_argument(
        "--resume",
        type=pathname,
        metavar="RUN",
        help="continue the unfinished training in this folder; it needs no other options, except --data, --features, "
        "--artists or --pretrained if what they named has moved, and --accept if there is more to accept",
    )
    train.add_argument(
        "--patience",
        type=positive(int),
        default=argparse.SUPPRESS,
        metavar="N",
        help="stop when the validation loss has not fallen for N epochs, and take the best epoch "
        "(default: train all epochs)",
    )
    train.add_argument(
        "--tensorboard",
        action="store_true",
        help="also log the epochs in OUT/tensorboard (needs: pip install tensorboard)",
    )
    train.add_argument(
        "--no-refit",
        dest="refit",
        action="store_false",
        help="keep the validated model (default: train again on training and validation clips together)",
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
    validate.add_argument("--folds", type=positive(int), help=f"number of folds (default: {FOLDS}, or one per genre)")
    validate.add_argument(
        "--groups",
        choices=("artist", "none", "genre"),
        help="artist: keep all clips of an artist in one fold; none: do not, to show how this changes the figures; "
        "genre: train one model without each genre, to see what it takes that genre for (default: artist with "
        "--artists)",
    )
    validate.add_argument(
        "--artists", type=pathname, metavar="CSV", help="a table with the columns track_id and artist"
    )
    validate.add_argument(
        "--jobs", type=positive(int), help="number of folds at a time (default: one per core, or one on a GPU)"
    )
    validate.add_argument("--out", type=pathname, help="a folder (default: runs/cross-validate-<config>-<groups>)")
    add_recipe_options(validate)


def add_calibrate_options(commands: argparse._SubParsersAction) -> None:
    """Options of `calibrate`."""
    calibrate = commands.add_parser(
        "calibrate",
        help='set a model\'s threshold of "unsure" by cross-validations',
        description='Set a model\'s temperature and its threshold of "unsure" by the clips that cross-validations of '
        "its recipe held out: clips of the genres that it knows, and clips of genres that were left out.",
    )
    calibrate.add_argument(
        "--model", type=pathname, required=True, metavar="DIR", help="a model's folder, as a training made it"
    )
    calibrate.add_argument(
        "validations",
        nargs="+",
        type=pathname,
        metavar="DIR",
        help="the folders of two cross-validations: --groups artist (or none), and --groups genre",
    )
    calibrate.add_argument(
        "--unknown",
        type=unknown_share,
        default=0.2,
        help="expected share of songs of no genre that the model knows (default: %(default)s)",
    )
    calibrate.add_argument(
        "--risk", type=share, default=0.1, help="largest share of its answers that may be wrong (default: %(default)s)"
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """How to train; what these options leave open follows the recipe."""
    parser.add_argument(
        "--config", choices=RECIPES, help=f"the recipe of a bundled model (default: {DEFAULT}, or that of --init)"
    )
    parser.add_argument(
        "--init",
        type=filled,
        metavar="MODEL",
        help="fine-tune this model: a folder, a bundled model or a Hub id; its network is kept, the classifier is new "
        "except for the genres that it knows already",
    )
    add_schedule_options(parser)
    add_network_options(parser)
    parser.add_argument("--seed", type=seed, default=0, help="seed of everything that is random (default: %(default)s)")
    parser.add_argument(
        "--augment",
        nargs="+",
        type=strength,
        default=[],
        metavar="NAME=STRENGTH",
        help="change the strength of augmentations; 0 switches one off; without this option: "
        + "; ".join(f"{key} {describe(recipe.augmentation)}" for key, recipe in RECIPES.items()),
    )
    add_machine_options(parser)


def by_recipe(value_of: Callable[[Recipe], Any]) -> str:
    """What each recipe has, for a help text."""
    return ", ".join(f"{value_of(recipe)} for {name}" for name, recipe in RECIPES.items())


def as_options(network: Mapping[str, Any]) -> str:
    """Fields of a network as `--set` takes them."""
    return " ".join(f"{name}={str(value).strip('()').replace(' ', '')}" for name, value in network.items())


def add_schedule_options(parser: argparse.ArgumentParser) -> None:
    """How long and how fast."""
    for name, kind, meaning in (
        ("epochs", positive(int), "passes over the training clips"),
        ("batch_size", positive(int), "clips in a batch"),
        ("lr", positive(float), "highest learning rate of the one-cycle schedule"),
        ("pretrained_lr", positive(float), "learning rate of pretrained layers, as a share of --lr"),
        ("thaw", share, "share of the epochs in which published weights are frozen"),
        (
            "copies",
            count,
            "augmented copies of each clip that frozen nets hear, each once; 0 for a new copy in each epoch",
        ),
        (
            "accumulation",
            positive(int),
            "parts in which a batch is computed, where it is too large for the device's memory",
        ),
    ):
        defaults = by_recipe(lambda recipe, name=name: f"{getattr(recipe.training, name):g}")
        option, text = f"--{name.replace('_', '-')}", f"{meaning} (default: {defaults})"
        parser.add_argument(option, type=kind, default=argparse.SUPPRESS, help=text)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network."""
    parser.add_argument(
        "--members",
        type=positive(int),
        help="number of networks whose probabilities are averaged "
        f"(default: {by_recipe(lambda recipe: recipe.members)})",
    )
    parser.add_argument(
        "--front",
        type=front,
        help=f"the convolutions: {', '.join(FRONTS)}, or several side by side, joined by + "
        f"(default: {by_recipe(lambda recipe: recipe.front)})",
    )
    parser.add_argument(
        "--pretrained",
        type=pathname,
        metavar="DIR",
        help="read published weights from this folder instead of downloading them (default: "
        f"${FOLDER_VARIABLE} if it is set)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        type=network_field,
        default=[],
        metavar="NAME=VALUE",
        dest="network",
        help=f"change the network; recurrent: {', '.join(RECURRENT)}; pooling: {', '.join(POOLING)}; "
        f"without this option: {as_options(NETWORK)}; "
        + "; ".join(f"for {name} {as_options(recipe.network)}" for name, recipe in RECIPES.items() if recipe.network),
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """On what, and in which precision."""
    parser.add_argument(
        "--device", type=device, default=best_device(), help="cpu, cuda or mps (default here: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=argparse.SUPPRESS,
        help="precision of the convolutions in training (default: the faster one on this machine)",
    )


def add_evaluate_options(commands: argparse._SubParsersAction) -> None:
    """Options of `evaluate`."""
    measure = commands.add_parser(
        "evaluate",
        help="measure a model",
        description="Print accuracy, macro-F1, negative log-likelihood, expected calibration error, recall and "
        "confusion matrix at clip level (the mean of the probabilities over a clip's windows).",
    )
    add_model(measure)
    add_data_options(measure)
    add_split_options(measure, "--protocol")
    measure.add_argument(
        "--split",
        choices=("test", "valid", "train", "all"),
        default="test",
        help="the part of the data to measure on (default: %(default)s)",
    )
    measure.add_argument("--json", type=pathname, metavar="OUT", help="also write the figures to this file")


def add_compare_options(commands: argparse._SubParsersAction) -> None:
    """Options of `compare`."""
    compare = commands.add_parser(
        "compare",
        help="compare finished runs",
        description="Print the figures of finished runs and how the runs differ, and draw their validation curves. "
        "Minutes are those of the training that was validated.",
    )
    compare.add_argument("runs", nargs="+", type=pathname, metavar="RUN", help="the folder of a run or of a model")
    compare.add_argument(
        "--out",
        type=pathname,
        default=Path("runs") / "comparison.png",
        metavar="PICTURE",
        help="the file for the curves: PNG, or another format that its ending names (default: %(default)s)",
    )


def add_push_options(commands: argparse._SubParsersAction) -> None:
    """Options of `push`."""
    publish = commands.add_parser(
        "push",
        help="publish a model on the Hub",
        description="Send a model with its card, figures and history to the Hugging Face Hub, in one commit.",
    )
    publish.add_argument(
        "--model", type=pathname, required=True, metavar="DIR", help="a model's folder: runs/<name>/model"
    )
    publish.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="the repository to send it to, created if it is missing"
    )
    publish.add_argument("--private", action="store_true", help="if the repository is created, make it private")
    publish.add_argument(
        "--revision", type=filled, metavar="BRANCH", help="a branch, created if it is missing (default: main)"
    )
    publish.add_argument(
        "--message", type=filled, default="Publish a model", help="the commit message (default: %(default)s)"
    )
    publish.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")


def add_export_options(commands: argparse._SubParsersAction) -> None:
    """Options of `export`."""
    export = commands.add_parser(
        "export",
        help="write a model for other programs",
        description="Write a model as one graph from waveform to probabilities. The waveform is float32 (channels, "
        "samples) at 22050 Hz with full scale 1, and lasts at least a second. The file names the genres.",
    )
    add_model(export)
    export.add_argument(
        "--onnx", type=pathname, metavar="FILE", help="for ONNX Runtime and others (pip install onnx onnxscript)"
    )
    export.add_argument("--pt2", type=pathname, metavar="FILE", help="as a program of torch.export")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where the clips come from."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--features", type=pathname, metavar="FILE", help="a feature file (.npz)")
    source.add_argument(
        "--data",
        type=pathname,
        metavar="DIR",
        help="a folder of genre folders with audio files; it may be split into folders named train, valid and test",
    )
    parser.add_argument(
        "--accept",
        nargs="+",
        choices=ACCEPTABLE,
        default=[],
        metavar="NAME",
        help="continue in spite of problems found in the data: "
        + "; ".join(f"{name}, {what}" for name, what in ACCEPTABLE.items()),
    )


def add_split_options(parser: argparse.ArgumentParser, option: str) -> None:
    """How the clips are parted into those for training, for validation and for testing."""
    parser.add_argument(
        option,
        choices=SPLITS,
        dest="protocol",
        help="how the clips are split: fault-filtered: by GTZAN's published lists; random: by track, stratified by "
        "genre; segments: with segments of one track in all parts, only to show how worthless good figures can be "
        "(default: by the folders if they are named after parts, otherwise fault-filtered for GTZAN and random for "
        "other data)",
    )
    parser.add_argument(
        "--groups",
        choices=("artist", "none"),
        help="artist: keep all clips of an artist in one part of a random split (default: artist with --artists)",
    )
    parser.add_argument("--artists", type=pathname, metavar="CSV", help="a table with the columns track_id and artist")


def without_device(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Arguments without `--device`, and the last device that they name."""
    rest, named, given = [], None, iter(argv)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name.startswith("--de") and "--device".startswith(name):  # it may be shortened
            named = value if equals else next(given, None)
        else:
            rest.append(argument)
    return rest, named


def parse_recipe(argv: Sequence[str]) -> argparse.Namespace:
    """Read options of `train` that say how to train; where the data comes from is not among them, nor where results go.

    Raises TrainingError, naming the others, if there are any.
    """
    args, default = parse_args(["train", *argv]), vars(parse_args(["train"]))
    of_recipe = {"config", "members", "front", "network", "augment", "refit", *(f.name for f in fields(TrainingConfig))}
    if others := [name for name, value in vars(args).items() if name not in of_recipe and value != default[name]]:
        named = ", ".join(f"--{'split' if name == 'protocol' else name}" for name in others)
        raise TrainingError(f"A recipe says how to train and no more: leave out {named}.")
    return args


def config_of(args: argparse.Namespace, base: Base | None = None) -> str:
    """The name of the recipe; unless the options give it, that of the front of `base`, if there is one."""
    if base and not args.config:
        return next((name for name, recipe in RECIPES.items() if recipe.front == base.model.config.front), DEFAULT)
    return args.config or DEFAULT


def recipe_of(args: argparse.Namespace, base: Base | None = None) -> Recipe:
    """The recipe that the options name, with their changes, fine-tuning `base` if there is one.

    Raises TrainingError if there is no such network, or if it is not that of `base`.
    """
    recipe = RECIPES[config_of(args, base)]
    if base:
        check_kept(args, base)
        recipe = recipe.fine_tuning(base)
    else:
        recipe = replace(recipe, front=args.front or recipe.front)
        check_fields(recipe.front, dict(args.network))
    given = {field.name: getattr(args, field.name) for field in fields(TrainingConfig) if field.name in args}
    given = {**launched_with(), **given}
    precision = best_precision(recipe.front, given.get("device", recipe.training.device))
    recipe = replace(
        recipe,
        members=args.members or recipe.members,
        training=replace(recipe.training, **{"precision": precision, **given}),
        augmentation=replace(recipe.augmentation, **dict(args.augment)),
        network={**recipe.network, **dict(args.network)},
    )
    try:
        with torch.device("meta"):  # without memory
            model = CRNN(recipe.config(("one genre", "another")))
    except ValueError as error:
        raise TrainingError(f"There is no such network: {error}.") from error
    if not args.resume:  # else they were allowed when it was started
        check_pretrained(args, recipe, model)
    return recipe


def check_kept(args: argparse.Namespace, base: Base) -> None:
    """Raises TrainingError if the options ask for another network than that of `base`."""
    config = base.model.config
    wanted = args.front or (RECIPES[args.config].front if args.config else config.front)
    asked = {"front": wanted, "members": args.members or config.members, **dict(args.network)}
    kept = {name: getattr(config, name) for name in asked}
    if others := ", ".join(f"{name}={kept[name]}" for name in asked if asked[name] != kept[name]):
        raise TrainingError(f"--init keeps the network of {base.name}, {others}: leave out what contradicts it.")


def check_pretrained(args: argparse.Namespace, recipe: Recipe, model: CRNN) -> None:
    """Raises TrainingError if options say how to train what was trained before, of which this network has nothing."""
    has_published = bool(model.published_parameters())
    has_meaning = {
        "pretrained": not recipe.base and any(isinstance(part, PublishedStem) for part in model.stem.modules()),
        "pretrained_lr": has_published or recipe.base is not None,
        "thaw": has_published,
        "copies": bool(model.stem.groups),
    }
    useless = [name for name, means in has_meaning.items() if getattr(args, name, None) and not means]
    if useless:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        front = f"--init and the front {recipe.front}" if recipe.base else f"the front {recipe.front}"
        raise TrainingError(f"{named} would change nothing with {front}: leave it out, or take another --front.")


def check_fields(front: str, network: Mapping[str, Any]) -> None:
    """Raises TrainingError if `network` sets what means something to other fronts only."""
    others = frozenset().union(*(kind.fields for kind in FRONTS.values())) - front_of(front).fields
    if useless := others & network.keys():
        names = [name for name, recipe in RECIPES.items() if useless & front_of(recipe.front).fields]
        raise TrainingError(f"{', '.join(sorted(useless))} can be set for --config {' or '.join(names)} only.")
