"""Train and measure: `python train.py` reproduces the bundled model.

`evaluate` and `cross-validate` measure, `compare` sets runs side by side, `push` publishes, `export` writes a model for
other programs; `COMMAND --help` lists the options.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from crnn import terminal
from crnn.machine import NO_THREADS, forget_empty, import_fault, lacks_threads, let_the_hub_be_silent, n_cores

if __name__ == "__main__":  # it takes seconds to import the rest: Ctrl-C meanwhile ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    forget_empty()
    let_the_hub_be_silent()
    if sentence := import_fault():
        terminal.complain(sentence, "train.py")
        sys.exit(2)
    with terminal.ended_without_memory("train.py"):
        import_module("torch")

from safetensors import SafetensorError
from tqdm import tqdm

from crnn.checkpoint import METRICS_FILE, UNFIT, CheckpointError, brief, check_loadable
from crnn.data import stored
from crnn.data.artists import read_artists
from crnn.data.clips import Clips
from crnn.data.copies import copies_of, keep_together
from crnn.data.download import download_gtzan
from crnn.data.extraction import extract_features
from crnn.data.features import DatasetError, Features
from crnn.data.gtzan import Dataset, check_known, check_split, checked_genres, make_dataset
from crnn.data.heard import record_of
from crnn.data.look import find_tracks, look_at
from crnn.data.names import gtzan_name
from crnn.data.weights import FOLDER_VARIABLE
from crnn.files import check_writable, lock, write_json
from crnn.network.devices import is_here, lacks_memory
from crnn.network.genres import known_as
from crnn.network.model import CRNN
from crnn.sources import BUNDLED, Origin, bundled_names, load_checkpoint, page_of
from crnn.terminal import (
    INTERRUPTED,
    aligned,
    called_as,
    cells,
    forget_windows,
    leave,
    leave_broken_pipe,
    open_streams,
    printable,
    valid,
)
from crnn.training.card import answered_of_left_out, answers_nothing
from crnn.training.compare import differences, histories, read_run, table
from crnn.training.crossval import cross_validate, folds_of, folds_without_a_genre, leave_genres_out
from crnn.training.evaluation import evaluate
from crnn.training.metrics import at_an_end
from crnn.training.options import config_of, parse_args, recipe_of, without_device
from crnn.training.processes import (
    SCRIPT,
    complain,
    is_first,
    is_loss_of_another,
    n_launched,
    one_after_the_other,
    processes,
    silent,
)
from crnn.training.publish import prepare, push
from crnn.training.recipes import Base, Recipe
from crnn.training.runs import (
    UNFINISHED,
    clips_by_part,
    heard_before,
    is_calibrated_by,
    n_calibrating,
    print_confusion,
    print_figures,
    provenance,
    report_fold,
    train_and_measure,
    write_figures,
)
from crnn.training.state import TrainingError, check_same
from crnn.training.strangers import calibrate

DATA = Path("data")
COMMAND_FILE = "command.json"
AGAIN = "the same command begins anew"  # where `--resume` finds nothing to go on with
PLACES = ("data", "features", "artists", "pretrained")  # what may have moved before a training goes on
MOST_FIGURES = 2**24  # bytes of a file of `evaluate --json`, even of a thousand genres
BASE = "base"  # the folder in a run's unfinished one that holds the model that `--init` named


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 for a fault in what it was given."""
    argv = sys.argv[1:] if argv is None else list(argv)
    forget_windows()
    with silent(not is_first()):
        args = parse_args(argv)
    try:
        if n_launched() > 1 and args.command != "train":
            raise TrainingError(f"Only a training can be launched in several processes, not {args.command}.")
        if args.command == "train":
            with silent(not is_first()):
                run_train(args, argv)
        else:
            OTHERS[args.command](args, command_of(argv))
    except (DatasetError, CheckpointError, TrainingError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt as stop:
        complain(str(stop) or "stopped.")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        terminal.complain(why_it_ends(error), called_as(SCRIPT))  # of whichever process it is
        return 2
    except BrokenPipeError:
        return leave_broken_pipe()
    except OSError as error:
        complain(f"{error.filename or 'A file'} cannot be read or written ({error.strerror or error}).")
        return 2
    return 0


def why_it_ends(error: MemoryError | RuntimeError) -> str:
    """What to say of what Python or PyTorch raised. Raises it again if nothing is known of it."""
    if lacks_memory(error):
        return "There is not enough memory for this data: take fewer clips, or a larger machine."
    if is_loss_of_another(error):
        return "Another process of this training has ended; --resume goes on."
    if lacks_threads(error):
        return NO_THREADS
    raise error


def command_of(argv: Sequence[str]) -> str:
    """What was typed."""
    if (name := called_as(SCRIPT)) != SCRIPT:
        program = name.split()
    elif n_launched() > 1:
        program = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(n_launched()), SCRIPT]
    else:
        program = ["python", SCRIPT]
    return valid(shlex.join([*program, *argv]))  # names of files need not be text, what is written has to


def load_dataset(args: argparse.Namespace, known: Sequence[str] | None = None) -> Dataset:
    """The data that the options name, split as they say, of genres that are `known` to a model if there is one."""
    groups_of(args)  # which may contradict each other: nothing is decoded then
    features = load_features(args, known)
    tracks = features.track_id.tolist()
    if args.command == "cross-validate":  # what it lays aside is the test part of a training with the same options
        artists = None if all(map(gtzan_name, tracks)) else artists_of(args, tracks)  # GTZAN keeps its lists
        return make_dataset(features, None, artists, args.accept)
    return make_dataset(features, args.protocol, artists_of(args, tracks), args.accept, args.command != "evaluate")


def load_features(args: argparse.Namespace, known: Sequence[str] | None = None) -> Features:
    """The log-mels that the options name; they are computed once and kept in data/."""
    if args.features:
        return stored.load_features(args.features, complain, args.accept, args.protocol is None, measured_part(args))
    if args.data:
        return features_of(args, known)
    cache = DATA / "gtzan-logmel.npz"
    if cache.is_file():
        return stored.load_features(cache, complain)
    tracks = find_tracks(download_gtzan(DATA))
    features = extract_features(tracks, DATA / "log-mels")
    if len(features) == len(tracks):  # what failed may have done so this once
        features.save(cache)
    return features


def features_of(args: argparse.Namespace, known: Sequence[str] | None) -> Features:
    """The log-mels of a folder, once a look at it has shown that they are worth it. Raises DatasetError."""
    found = look_at(args.data)
    print(*map(printable, found.lines()), sep="\n", flush=True)
    is_to_train, is_split = args.command != "evaluate", args.protocol is None
    found.check(args.accept, is_to_train and is_split, measured_part(args) if is_split else None)
    tracks = list(found.tracks)
    genres, artists = checked_genres(tracks, args.accept, is_to_train), artists_of(args, tracks)
    if known:
        check_known(genres, known)
    check_split(tracks, args.protocol, artists)
    print(about(artists), flush=True)
    features = extract_features(found.tracks, DATA / "log-mels", lambda text: tqdm.write(printable(text), nolock=True))
    found.check_decoded(features.track_id.tolist(), args.accept, is_split, measured_part(args))
    return features


def measured_part(args: argparse.Namespace) -> str | None:
    """The part of the data that `evaluate` asks for; None of other commands, which want all of it."""
    return args.split if args.command == "evaluate" else None


def about(artists: Sequence[str | None] | None) -> str:
    """What is known of the artists of a folder, in a sentence."""
    if artists is None:
        return "Their artists are not known, so that one may be on both sides of a split; --artists keeps them apart."
    known = [artist for artist in artists if artist]
    return f"The artists of {len(known)} of {len(artists)} clips are known: {len(set(known))} in all."


def artists_of(args: argparse.Namespace, track_ids: Sequence[str]) -> list[str | None] | None:
    """The artist of each clip that is known, if the options say that artists stay together."""
    if groups_of(args) == "none" or (groups_of(args) == "genre" and not args.artists):
        return None
    if not args.artists:
        raise DatasetError("To group by artist, give --artists, a CSV with the columns track_id and artist.")
    return read_artists(args.artists, track_ids, args.accept)


def groups_of(args: argparse.Namespace) -> str:
    """What stays together when clips are parted. Raises DatasetError if a table is given and not to be used."""
    if args.groups == "none" and args.artists and not args.resume:
        raise DatasetError("--groups none does not ask who the artists are: leave out --artists, or it.")
    return args.groups or ("artist" if args.artists else "none")


def run_train(given: argparse.Namespace, typed: Sequence[str]) -> None:
    """Train, evaluate and write everything about it into one folder; what is done there already is not done again.

    Raises KeyboardInterrupt, with a sentence for the person, if it is stopped.
    """
    moved = [f"--{name}={path}" for name in PLACES if given.resume and (path := getattr(given, name))]
    moved += ["--accept", *given.accept] if given.resume and given.accept else []
    args, argv, problem = given, typed, None
    try:
        if given.resume:
            args, argv = resumed(given, typed)
    except TrainingError as error:  # the other processes have to hear of it
        problem = error
    here = processes(args.device)
    out = args.resume or args.out or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    as_before = ", launched as before," if n_launched() > 1 else ""
    go_on = f"{command_of(['--resume', str(out), *moved])}{as_before} goes on"
    with ExitStack() as claim:

        def prepared() -> tuple[Base | None, Recipe, Dataset]:
            if problem:
                raise problem
            if not here.is_main_process:
                return assemble(args)
            check_folder(out, args.resume is not None, go_on)
            parts = assemble(args)
            if args.resume:
                check_data(out, parts[2])
            claim.enter_context(claimed(out))
            check_folder(out, args.resume is not None, go_on)  # another may have come and gone meanwhile
            return parts

        parts = one_after_the_other(here, prepared, (DatasetError, CheckpointError, TrainingError))
        introduce(*parts)
        train_in(out, args, argv, parts, go_on)
    here.wait_for_everyone()
    here.destroy_process_group()


def train_in(
    out: Path, args: argparse.Namespace, argv: Sequence[str], parts: tuple[Base | None, Recipe, Dataset], go_on: str
) -> None:
    """Train in a folder that is this training's own; `go_on` says how to go on with it if it is stopped.

    Raises TrainingError and KeyboardInterrupt, which say so.
    """
    base, recipe, dataset = parts
    try:
        if args.resume:
            if not has_epoch(out):
                print("No epoch of it is saved: it begins with the first.")
        elif is_first():
            keep_command(out / UNFINISHED, base, dataset, argv)
            print(f"If it is stopped, {go_on}.")
        logs = out / "tensorboard" if args.tensorboard else None
        train_and_measure(recipe, dataset, out, command_of(argv), args.refit, logs)
    except BrokenPipeError:
        raise
    except (OSError, SafetensorError) as error:
        place, reason = (getattr(error, name, None) for name in ("filename", "strerror"))
        way = go_on if is_begun(out) else AGAIN
        raise TrainingError(
            f"{place or out} cannot be read or written ({reason or error}); when that is mended, {way}."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {go_on if is_begun(out) else AGAIN}.") from None


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Raises TrainingError where something cannot be written."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{error.filename or place} cannot be written ({error.strerror or error}).") from error


def check_place(path: Path) -> None:
    """Raises TrainingError if a file cannot be written there, as far as it shows beforehand."""
    with writing(path):
        check_writable(path)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other trainings from a folder, which is made if need be. Raises TrainingError if one is at work there."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY) if os.name == "posix" else None  # elsewhere folders cannot be opened
    try:
        if folder is not None and not lock(folder):
            raise TrainingError(f"Another training is at work in {out} just now: let it end, or give another --out.")
        yield
    finally:
        if folder is not None:
            os.close(folder)


def check_folder(out: Path, is_resumed: bool, go_on: str) -> None:
    """See to it that the folder of a new training is empty, and that of one that `is_resumed` not finished.

    One that ended before its command was noted has left nothing to go on with, and is begun anew. What is kept of the
    data may lie there. `go_on` says how to go on with another. Raises DatasetError and TrainingError.
    """
    check_place(out / METRICS_FILE)
    if is_resumed or is_begun(out):
        read_command(out)
        if not is_resumed:
            raise DatasetError(f"{out} is not empty; {go_on} with the training there, or give another --out.")
    elif out.exists() and {path.resolve() for path in out.iterdir()} - {(out / UNFINISHED).resolve(), DATA.resolve()}:
        raise DatasetError(f"{out} is not empty; give another --out.")


def assemble(args: argparse.Namespace) -> tuple[Base | None, Recipe, Dataset]:
    """What a training needs, and that it can be done. Raises DatasetError, CheckpointError or TrainingError."""
    if args.tensorboard and not find_spec("tensorboard"):
        raise TrainingError("--tensorboard needs a package that is not installed: pip install tensorboard.")
    base = load_base(args)
    recipe, dataset = recipe_of(args, base), load_dataset(args)
    dataset.check_trainable()
    fetch_weights(args, recipe, dataset)
    return base, recipe, dataset


def introduce(base: Base | None, recipe: Recipe, dataset: Dataset) -> None:
    """Say what is trained on what."""
    counts = ", ".join(f"{size} {part}" for part, size in clips_by_part(dataset).items())
    print(f"{len(dataset.genres)} genres, {counts} clips ({dataset.protocol})")
    if base:
        known = ", ".join(known_as(dataset.genres, base.model.config.genres))
        print(f"It starts from {base.name}, which knows {known or 'none of them'}.")
    warn(recipe, dataset, ("valid", "test"))


def keep_command(unfinished: Path, base: Base | None, dataset: Dataset, argv: Sequence[str]) -> None:
    """Note what `--resume` needs. Raises OSError or SafetensorError."""
    if base:
        base.save(unfinished / BASE)
    noted = {"arguments": list(argv), "folder": str(Path.cwd()), "data": dataset.settings()}
    write_json(unfinished / COMMAND_FILE, noted)


def check_data(run: Path, dataset: Dataset) -> None:
    """Raises TrainingError if an unfinished training was started with other data than this; an older one may not say.

    Where an epoch is saved, that says so by itself.
    """
    _, _, noted = read_command(run)
    if noted and not has_epoch(run):
        check_same(run / UNFINISHED / COMMAND_FILE, noted, dataset.settings())


def read_command(run: Path) -> tuple[list[str], Path, dict | None]:
    """The arguments that `keep_command` noted, the folder in which they were typed, and what tells their data.

    Raises TrainingError if there is no unfinished training in the folder `run`, or one of unknown arguments.
    """
    place = run / UNFINISHED / COMMAND_FILE
    try:
        noted = json.loads(place.read_text(encoding="utf-8"))
        if isinstance(noted, list):
            return noted, Path(), None
        return noted["arguments"], Path(noted["folder"]), noted.get("data")
    except (OSError, *UNFIT) as error:
        what = f"{place} is gone or damaged; train anew, into another folder."
        raise TrainingError(what if is_begun(run) else f"{run} holds no unfinished training.") from error


def is_begun(run: Path) -> bool:
    """Whether the folder `run` holds an unfinished training, be it one whose command cannot be read."""
    unfinished = run / UNFINISHED
    return os.path.lexists(unfinished / COMMAND_FILE) or any(unfinished.glob("*.pt"))


def has_epoch(run: Path) -> bool:
    """Whether an epoch of the unfinished training in the folder `run` is saved."""
    return (run / UNFINISHED / "train.pt").is_file()


def load_base(args: argparse.Namespace) -> Base | None:
    """The model that `--init` names, if it does; a training that goes on has kept its own copy.

    Raises CheckpointError if it is missing or damaged.
    """
    if args.init is None:
        return None
    if args.resume:
        return Base.load(args.resume / UNFINISHED / BASE)
    model, origin = load_checkpoint(args.init)
    if origin.notice:
        complain(origin.notice)
    return Base(model, origin.repo or origin.name, origin.revision)


def fetch_weights(args: argparse.Namespace, recipe: Recipe, dataset: Dataset) -> None:
    """See to it that what others published for the model is there before anything is begun, and that it can be kept.

    Raises DatasetError, CheckpointError and TrainingError.
    """
    if args.pretrained:
        os.environ[FOLDER_VARIABLE] = str(args.pretrained)
    try:
        recipe.config(dataset.genres)
    except ValueError as error:
        raise TrainingError(f"There is no such network: {error}.") from error
    check_loadable(recipe.build(dataset.genres))


def warn(recipe: Recipe, dataset: Dataset, parts: Sequence[str]) -> None:
    """Say what one should know before the training, also of the figures of these parts."""
    warnings = dataset.warnings()
    if heard := " and ".join(heard_before(recipe, dataset, parts).get("heard", [])):
        past = brief(recipe.base.model.config.trained_on)
        warnings.append(
            f"{recipe.base.name} was trained on {past}; where it has heard these {heard} clips, their figures say "
            "nothing about other songs."
        )
    for warning in warnings:
        complain(warning)


def resumed(args: argparse.Namespace, given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments, that an unfinished training was started with; it may go on with another device.

    That is the one that is `given` now, or else that of then, if it is here. Music, features and tables may have moved
    meanwhile, and more of what a look at them finds may be accepted: their contents are compared later. Raises
    TrainingError if there is no unfinished training in the folder, it was given other options, or what it was started
    with is not where it was.
    """
    run = args.resume
    argv, folder, _ = read_command(run)
    rest, then = without_device(argv)
    device = without_device(given)[1] or then
    before = parse_args([*rest, "--device", device] if device and is_here(device) else rest)
    for name in PLACES:
        if (path := getattr(before, name)) and (folder / path).exists():  # else all may have moved together
            setattr(before, name, folder / path)
    moved = {name: path for name in PLACES if (path := getattr(args, name))}
    here = {
        "out": before.out,
        "resume": None,
        "device": before.device,
        "accept": before.accept,
        **{name: getattr(before, name) for name in PLACES},
    }
    is_elsewhere = args.out not in (None, before.out)
    if is_elsewhere or {**vars(args), **here} not in (vars(before), {**vars(parse_args([])), **here}):
        raise TrainingError(f"{run} was started with {command_of(argv)}; go on with --resume alone.")
    before.resume, before.accept = run, [*before.accept, *args.accept]
    if moved.keys() & {"data", "features"}:  # the one instead of the other
        before.data = before.features = None
    vars(before).update(moved)
    for name in PLACES:
        if name not in moved and (path := getattr(before, name)) and not path.exists():
            raise TrainingError(
                f"There is no {path} any more; if it has moved, "
                f"{command_of(['--resume', str(run), f'--{name}', 'PLACE'])} goes on."
            )
    return before, [*argv, "--accept", *before.accept] if args.accept else argv


def run_cross_validate(args: argparse.Namespace, command: str) -> None:
    """Measure a recipe by cross-validation over the training and validation clips; the test clips stay out.

    Raises KeyboardInterrupt, with a sentence for the person, if it is stopped.
    """
    if args.folds and groups_of(args) == "genre":
        raise TrainingError("With --groups genre each genre is a fold: leave out --folds.")
    base = load_base(args)
    out = args.out or Path("runs") / f"cross-validate-{config_of(args, base)}-{groups_of(args)}"
    check_place(out / METRICS_FILE)
    recipe, dataset = recipe_of(args, base), load_dataset(args)
    clips = dataset.clips("train+valid")
    if missing := sorted(set(dataset.genres) - {dataset.genres[label] for label in clips.labels}):
        raise DatasetError(f"The training and validation parts have no clip of {', '.join(missing)}; split otherwise.")
    if groups_of(args) == "genre":
        groups, folds = None, folds_without_a_genre(clips, dataset.genres)
    else:
        groups = together(args, clips)
        kind = "artist" if groups_of(args) == "artist" else "song" if groups else "clip"
        folds = folds_of(clips.labels, dataset.genres, groups, kind, args.folds, recipe.training.seed)
    fetch_weights(args, recipe, dataset)
    warn(recipe, dataset, ("train", "valid"))
    jobs = args.jobs or (n_cores() if args.device == "cpu" else 1)
    with claimed(out):
        try:
            if groups_of(args) == "genre":
                figures = leave_genres_out(clips, dataset.genres, folds, recipe, out, jobs, report_fold)
            else:
                work = (groups, folds, recipe, out, jobs, report_fold)
                figures = {"valid": cross_validate(clips, dataset.genres, *work)}
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; the same command goes on.") from None
        record = {**figures, "groups": groups_of(args), **provenance(command, recipe)}
        record["held_out"] = record_of(clips.features, most=len(clips.features))
        record |= heard_before(recipe, dataset, ("train", "valid"))
        write_json(out / METRICS_FILE, record)
        if "valid" in figures:
            print_folds(figures["valid"])
            write_figures(out, "cross-validation", figures["valid"])
        else:
            print_left_out(figures["left_out"])


def together(args: argparse.Namespace, clips: Clips) -> list[str] | None:
    """The name of what each clip may not be parted from, its artist or its copies; None where each stands alone."""
    tracks = clips.features.track_id.tolist()
    artists, copies = artists_of(args, tracks), copies_of(clips.features)
    groups = keep_together([artist or track for artist, track in zip(artists or tracks, tracks, strict=True)], copies)
    return groups if len(set(groups)) < len(groups) else None


def print_folds(figures: dict) -> None:
    """The figures of a cross-validation, fold by fold and together."""
    print("fold  clips  accuracy  negative log-likelihood  minutes")
    for number, fold in enumerate(figures["folds"], start=1):
        print(f"{number:4}  {fold['n']:5}  {fold['accuracy']:8.3f}  {fold['nll']:23.3f}  {fold['seconds'] / 60:7.1f}")
    print_figures("all folds", figures)
    print(f"spread: the folds' accuracies have a standard deviation of {figures['spread']:.3f}")


def print_left_out(figures: dict[str, dict]) -> None:
    """What models take the clips of a genre for that they have never heard."""
    width = max(map(cells, figures))
    for genre, row in figures.items():
        taken_for = ", ".join(f"{name} {share:.0%}" for name, share in row["taken_for"].items())
        print(f"{aligned(genre, width)}  {row['n']} clips, taken for {taken_for}")


def check_is_folder(args: argparse.Namespace) -> None:
    """Raises CheckpointError unless `--model` names a folder, where a command has no use for other models' names."""
    if args.model.is_dir():
        return
    bundled = BUNDLED / args.model
    place = f", such as a copy of {bundled}" if str(args.model) in bundled_names() else ""
    raise CheckpointError(f"There is no folder {args.model}: {args.command} takes the folder of a model{place}.")


def run_calibrate(args: argparse.Namespace, command: str) -> None:
    """Fit a model's temperature and its threshold of "unsure" to what cross-validations say."""
    check_is_folder(args)
    try:
        figures, former_card, was_tested = calibrate(args.model, args.validations, args.unknown, args.risk, command)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise TrainingError(f"{args.model} cannot be written ({why}); it stays as it was.") from error
    known, unknown = figures["known"], figures["unknown"]
    print(
        f"temperature {figures['temperature']:.3f}; unsure below {figures['unsure_below']:.1%}, strange below an "
        f"energy of {figures['strange_below']:.2f}"
    )
    right = "" if known["answered_right"] is None else f", {known['answered_right']:.1%} of these right"
    print(f"of {known['n']} clips of the genres it knows {known['answered']:.1%} are answered{right}")
    share = answered_of_left_out(figures)
    of_each = ", ".join(f"{genre} {row['answered']:.0%}" for genre, row in unknown.items())
    print(f"of the clips of a genre that was left out {share:.1%} are answered, in the mean of these: {of_each}")
    if answers_nothing(figures):
        right = f"{1 - args.risk:.0%} of its answers right with a confidence of {figures['confidence']:.0%}"
        advice = ": a larger --risk may" if args.risk < 1 else ""
        print(f"No threshold keeps {right}, so that it gives none{advice}.")
    if others := "; ".join(figures.get("other_recipe", [])):
        complain(f"The models of these cross-validations were made otherwise: {others}.")
    if notice := at_an_end(figures["temperature"]):
        complain(notice)
    if was_tested:
        print(
            "The test figures of the earlier thresholds are gone from card and record: "
            f"{command_of(['evaluate', '--model', str(args.model), '--split', 'test'])}, with the data of its "
            "training, measures anew."
        )
    if former_card:
        print(f"The card is new; what somebody had written into the former one stands in {former_card}.")


def run_compare(args: argparse.Namespace, _: str) -> None:
    """Print the figures of runs and what differs between them, and draw the curves of those that have any."""
    from crnn import plots  # noqa: PLC0415

    if unfinished := next(filter(is_begun, args.runs), None):
        read_command(unfinished)
        raise TrainingError(f"{unfinished} is unfinished; {command_of(['--resume', str(unfinished)])} goes on.")
    runs = [read_run(folder) for folder in args.runs]
    try:
        picture = plots.picture_file(args.out)
    except ValueError as error:
        raise TrainingError(f"The curves cannot be written to {args.out}: {error}.") from error
    print("\n".join(table(runs)))
    if lines := differences(runs):
        print("", "What differs, run by run:", *lines, sep="\n")
    if drawn := histories(runs):
        plots.save_picture(plots.compared(drawn), picture)
        print(f"\n{picture} shows the validation curves.")


def check_target(option: str, path: Path, is_ours: Callable[[Path], bool], origin: Origin) -> None:
    """Raises TrainingError if a file would be written over one that is not `is_ours`, into the model's folder, or not
    at all."""
    place = Path(os.path.realpath(path))
    if origin.folder and place.is_relative_to(origin.folder.resolve()):
        raise TrainingError(f"{path} is in the folder of the model itself: give {option} another place.")
    if place.is_file() and place.stat().st_size and not is_ours(place):
        raise TrainingError(f"{path} is there and was not written by {option}: give another name.")
    check_place(path)


def is_figures(path: Path) -> bool:
    """Whether a file is one that `evaluate --json` wrote."""
    try:
        is_small = path.stat().st_size <= MOST_FIGURES
        return is_small and {"n", "accuracy", "confusion"} <= set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *UNFIT):
        return False


def run_evaluate(args: argparse.Namespace, _: str) -> None:
    """Measure a model on one part of the data."""
    model, origin = load_checkpoint(args.model)
    if args.json:
        check_target("--json", args.json, is_figures, origin)
    figures = measured(model, origin, args)
    if args.json:
        write_json(args.json, figures)


def measured(model: CRNN, origin: Origin, args: argparse.Namespace) -> dict:
    """The figures of a model on one part of the data, which are printed too."""
    if origin.notice:
        complain(origin.notice)
    dataset = load_dataset(args, model.config.genres)
    if dataset.is_heard_by(model, args.split):
        notice = f"{origin.name} was trained on clips of this part, so these figures say nothing about other songs."
        complain(notice)
    if cross_fits := is_calibrated_by(model, origin, dataset, args.split):
        notice = f"These clips calibrated {origin.name}: here others of them calibrate each, as in its training."
        complain(notice)
    clips = dataset.clips(args.split, model.config.genres)
    if n_clips := n_calibrating(origin, clips):
        past = f"At least {n_clips} of these {len(clips)} clips calibrated {origin.name} in cross-validation"
        notice = f"{past}, so that what is said of its calibration here flatters it a little."
        complain(notice)
    figures = evaluate(model, clips, cross_fits)
    print(origin.name)
    print_figures(args.split, figures)
    print_confusion(figures)
    return figures


def run_push(args: argparse.Namespace, _: str) -> None:
    """Publish a model, or show what that would send."""
    check_is_folder(args)
    upload = prepare(args.model, args.repo)
    if args.dry_run:
        print(f"{upload}\nThis is a dry run: nothing was sent.")
    else:
        commit = push(upload, args.message, args.private, args.revision)
        print(f"{page_of(args.repo)} has the model: --model {args.repo}@{commit} uses exactly this one.")


def run_export(args: argparse.Namespace, _: str) -> None:
    """Write a model for programs that have neither this code nor, with ONNX, PyTorch."""
    if args.onnx and not find_spec("onnxscript"):
        raise TrainingError("--onnx needs packages that are not installed: pip install onnx onnxscript.")
    from crnn.export import export, is_onnx, is_program  # noqa: PLC0415 (which imports what no other command needs)
    from crnn.inference import GenreClassifier  # noqa: PLC0415

    classifier = GenreClassifier.from_pretrained(args.model)
    for option, path, is_ours in (("--onnx", args.onnx, is_onnx), ("--pt2", args.pt2, is_program)):
        if path:
            check_target(option, path, is_ours, classifier.origin)
    with writing("A file"):
        export(classifier, args.onnx, args.pt2)
    for path in filter(None, (args.onnx, args.pt2)):
        print(f"{path} has {classifier.origin.name}, {path.stat().st_size / 1e6:.1f} MB")


OTHERS = {  # what each command beside `train` does, with its options and as it was typed
    "evaluate": run_evaluate,
    "cross-validate": run_cross_validate,
    "calibrate": run_calibrate,
    "compare": run_compare,
    "push": run_push,
    "export": run_export,
}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    open_streams()
    sys.exit(leave(main()))
