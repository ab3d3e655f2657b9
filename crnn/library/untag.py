"""`genre-crnn untag`: take back what `genre-crnn tag` wrote."""

import argparse
from typing import TYPE_CHECKING

from crnn.arguments import pathname
from crnn.library import DEFAULT_UNDO
from crnn.terminal import complain, printable

if TYPE_CHECKING:
    from crnn.library.tags import Places
    from crnn.library.undo import Change

DESCRIPTION = (
    "Undo what genre-crnn tag wrote: each file gets its earlier genre back, or none. Others' changes are kept."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "undo",
        nargs="?",
        type=pathname,
        default=DEFAULT_UNDO,
        metavar="FILE",
        help="the undo file (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be restored, and write nothing")
    parser.add_argument("--keep-times", action="store_true", help="keep the modification times of the files")


def run(args: argparse.Namespace) -> int:
    """Bring back the genres, the last one first; returns the exit status: 1 if a file failed, 2 without an undo file.

    What is done is taken out of the undo file.
    """
    from crnn.library.undo import UndoError, alone_with  # noqa: PLC0415 (after --help, which has no use for it)

    try:
        with alone_with(args.undo):
            return _take_back(args)
    except UndoError as error:
        complain(error)
        return 2


def _take_back(args: argparse.Namespace) -> int:
    from crnn.library.tags import TagError  # noqa: PLC0415
    from crnn.library.undo import check_kept, keep_changes, read_changes  # noqa: PLC0415

    changes, others = read_changes(args.undo)
    if not changes:
        complain(f"{args.undo} holds no changes: give the file that genre-crnn tag named.")
        return 2
    if others:
        complain(f"{args.undo}: {len(others)} of its lines are no changes of genre-crnn tag, and are passed over.")
    check_kept(args.undo)
    of_song: dict[str, list[Change]] = {}
    for change in changes:
        of_song.setdefault(change.path, []).append(change)
    failed, done, n_changed = set(), set(), 0
    tried: dict[str, Change] = {}  # by --dry-run: what its song would hold
    try:
        for number in reversed(range(len(changes))):
            change = of_song[changes[number].path].pop()
            if change.path in failed:  # what was before comes back after it
                continue
            try:
                before = [older.earlier for older in of_song[change.path]]
                is_changed = _restore(args, change, before, tried.get(change.path))
            except TagError as error:
                complain(f"{change.path}: {error}")
                failed.add(change.path)
                continue
            done.add(number)
            if args.dry_run and is_changed:
                tried[change.path] = change
            n_changed += is_changed
            # What a crash has kept from being written, or from being taken out of the undo file.
            what = "taken back" if is_changed else "is not there, so it stays as it is"
            print(printable(f"{change.path}: {change.genre} {what}"), flush=True)
    finally:
        try:
            if done and not args.dry_run:
                keep_changes(args.undo, [change for number, change in enumerate(changes) if number not in done], others)
        finally:  # and not before it: the reader may have gone
            complain(f"{'Would be taken back' if args.dry_run else 'Taken back'}: {n_changed} of {len(changes)}.")
    return 1 if failed else 0


def _restore(args: argparse.Namespace, change: "Change", before: "list[Places]", newer: "Change | None") -> bool:
    """Take back a change; returns whether the song changes by that. `newer` is one that --dry-run has tried before.

    Raises TagError.
    """
    from crnn.library.retag import restore_genre  # noqa: PLC0415
    from crnn.library.tags import TagError  # noqa: PLC0415

    if newer is None:
        return restore_genre(change, args.keep_times, args.dry_run, before)
    if newer.earlier not in (change.later, change.earlier, *before):
        raise TagError("its genre was changed by somebody else meanwhile")
    return newer.earlier == change.later
