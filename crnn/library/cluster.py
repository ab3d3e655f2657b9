"""`genre-crnn SONG... --out FOLDER --ray`: a library heard on a cluster, with Ray Data.

Songs are parted beforehand. An actor, with a model and a process that decodes, hears a part and writes it as one file
whose name follows from what is in it: a part that is heard again, as its worker was lost, takes its own place. The
folder is a parquet data set, on a disk that all workers see or in an object store.
"""

import argparse
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.audio import SUFFIXES
from crnn.checkpoint import CheckpointError
from crnn.decoding import Decoders
from crnn.files import whole_file
from crnn.library.choosing import check_device, typed
from crnn.library.job import STALL_SECONDS, Hearing, attempt
from crnn.library.rows import File, is_address, local
from crnn.library.table import (
    Columns,
    TableError,
    digest,
    key_of,
    other_columns,
    parquet_cells,
    schema_of,
    unwritable,
)
from crnn.terminal import complain
from crnn.walk import Walk, is_hidden_folder, is_song, sought_by

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

HERE, LOCAL = "here", "local"  # for an address: a cluster of this machine, unless the environment names one; always
MOST_PARTS = 20_000  # of a job, so that Ray does not keep books of more
PART_SONGS = (16, 1_000)  # at least and at most: what the loss of a worker costs is less than a part


def run(args: argparse.Namespace, hearing: Hearing) -> int:
    """Hear what is named on a cluster; returns the exit status: 1 if a song failed or there was none, 2 without Ray.

    Raises CheckpointError.
    """
    if not find_spec("ray") or not find_spec("pyarrow"):
        complain("--ray needs packages that are not installed: pip install 'ray[data]'.")
        return 2
    if args.out is None:
        complain("--ray needs --out, a folder or the address of one in an object store.")
        return 2
    if args.watch or args.json:
        complain("--ray hears what is there now and writes parquet: leave out --watch and --json.")
        return 2
    try:
        return hear(args, hearing)
    except CheckpointError:
        raise
    except (TableError, argparse.ArgumentTypeError) as error:
        complain(error)
        return 2
    except Exception as error:  # of whatever package the store needs, and of the cluster
        why = str(error).strip().rpartition("\n")[2] or repr(error)
        complain(f"{why}: what is written stays, and when that is mended, the same command goes on.")
        return 2


def hear(args: argparse.Namespace, hearing: Hearing) -> int:
    """The same. Raises CheckpointError, TableError, ArgumentTypeError, and what the store and the cluster raise."""
    import ray  # noqa: PLC0415 (an optional package that takes a second)
    from tqdm import tqdm  # noqa: PLC0415

    is_elsewhere = args.ray not in (HERE, LOCAL) or (args.ray == HERE and "RAY_ADDRESS" in os.environ)
    if not (is_elsewhere and (args.device or "").startswith("cuda")):  # which the workers may have
        check_device(args.device)
    classifier = replace(hearing, device="cpu").classifier()
    found, problems = found_at(typed(args), args.extensions or SUFFIXES, args.recursive)
    for problem in problems:
        complain(problem)
    if not is_address(args.out):
        args.out = os.path.abspath(args.out)  # noqa: PTH100 - workers have folders of their own
        make_folder(Path(args.out))
    columns = Columns(classifier.genres, hearing.top, hearing.timeline, hearing.embeddings)
    before = answered(args.out, columns)
    keys = [key_of(hearing.facts(file, classifier)) for file in found]
    files = [file for file, key in zip(found, keys, strict=True) if key not in before]
    counts = Counter({"before": len(found) - len(files), "failed before": sum(before.get(key, False) for key in keys)})
    if files:
        is_ours = not ray.is_initialized()
        if is_ours:
            ray.init(address=None if args.ray == HERE else args.ray, log_to_driver=False, logging_level="error")
        try:
            with tqdm(total=len(files), unit=" songs", disable=True if args.quiet else None, smoothing=0.05) as bar:
                for heard in parts_heard(files, args.out, columns, hearing, args.jobs):
                    for path, error in json.loads(heard["errors"]):
                        complain(f"{path}: {error}")
                        counts["failed"] += 1
                    counts["heard"] += heard["songs"]
                    bar.update(heard["songs"])
        finally:
            if is_ours:
                ray.shutdown()
    if not args.quiet:
        complain(
            f"{counts['heard'] - counts['failed']} songs heard, {counts['failed']} failed, "
            f"{counts['before']} were there before, {counts['failed before']} of them as failed: {args.out}"
        )
    return 0 if found and not (counts["failed"] or counts["failed before"] or problems) else 1


def make_folder(out: Path) -> None:
    """Make the folder of a data set, if it is not there. Raises TableError if there can be none."""
    if out.exists() and not out.is_dir():
        raise TableError(f"{out} is a file, and with --ray a table is a folder of files: give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(unwritable(out, error)) from error


def parts_heard(files: list[File], out: str, columns: Columns, hearing: Hearing, jobs: int | None) -> Iterator[dict]:
    """Hear and write them, on all cores of the cluster or in so many actors; what became of each part."""
    import ray  # noqa: PLC0415

    least, most = PART_SONGS
    size = min(max(-(-len(files) // MOST_PARTS), least), most)
    parts = [{"files": json.dumps(files[first : first + size])} for first in range(0, len(files), size)]
    jobs = min(jobs or max(1, int(ray.cluster_resources().get("CPU", 0))), len(parts))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    needed = {"num_gpus": 1} if (hearing.device or "").startswith("cuda") else {"num_cpus": 1}
    blocks = ray.data.from_items(parts, override_num_blocks=len(parts))  # a part a task: a lost one is heard again
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=jobs)
    return blocks.map(Hearer, fn_constructor_args=(hearing, out, columns), compute=actors, **needed).iter_rows()


class Hearer:
    """An actor: a model on one core, and a process that decodes."""

    def __init__(self, hearing: Hearing, out: str, columns: Columns) -> None:
        import torch  # noqa: PLC0415

        torch.set_num_threads(1)
        self.hearing, self.out, self.columns = hearing, out, columns
        self.decoders = Decoders(1, STALL_SECONDS, own_songs=True)
        self.classifier = hearing.classifier(self.decoders.open_audio)

    def __call__(self, part: dict) -> dict:
        """Hear the files of a part and write it, but for those that cannot be looked at, which may be back later."""
        files = [File(*fields) for fields in json.loads(part["files"])]
        rows = [self._row(file) for file in files]
        if there := [row for row in rows if not (row["error"] and is_away(row["path"]))]:
            write_part(self.out, there, self.columns)
        return {"songs": len(rows), "errors": json.dumps([[row["path"], row["error"]] for row in rows if row["error"]])}

    def _row(self, file: File) -> dict:
        answer = attempt(file, lambda: self.hearing.answer(source_of(file.path), self.classifier))
        return self.hearing.row(file, answer, self.classifier)


def found_at(songs: Sequence[str], suffixes: Collection[str], recursive: bool = True) -> tuple[list[File], list[str]]:
    """The songs at addresses and at paths, which all workers must see, once each, and sentences about what is missing.

    Raises what the store does.
    """
    # The address of a file of this computer is unescaped, as fsspec has it.
    songs = [song if (path := local(song)) == song else f"file://{path}" for song in songs]
    walk = Walk([Path(song).absolute() for song in songs if not is_address(song)], recursive, suffixes)
    found, problems = {}, []
    for address in filter(is_address, songs):
        files = list(_found_in_store(address, suffixes, recursive))
        found |= {file.path: file for file in files}
        if not files:
            problems.append(f"{address}: there are no {sought_by(suffixes)} at this address.")
    for file in map(File.of, walk):
        if file.size_bytes is None:
            problems.append(f"{file.path}: there is nothing at this path that can be looked at.")
        else:
            found[str(file.path)] = file._replace(path=str(file.path))
    return [*found.values()], problems + walk.faults()


def _found_in_store(address: str, suffixes: Collection[str], recursive: bool) -> Iterator[File]:
    """As a walk of a disk finds them: no hidden ones, none below hidden folders."""
    store, root = _store(address)
    for name, info in sorted(store.find(root, maxdepth=None if recursive else 1, detail=True).items()):
        folders = name.removeprefix(root).split("/")[:-1]
        if name == root or (is_song(name, suffixes) and not any(map(is_hidden_folder, folders))):
            facts = info or store.info(name)  # of the file that is named, some stores find the name alone
            changed = facts.get("LastModified") or facts.get("mtime")
            seconds = changed.timestamp() if hasattr(changed, "timestamp") else changed
            yield File(store.unstrip_protocol(name), facts["size"], None if seconds is None else int(seconds * 1e9))


def source_of(path: str) -> str | bytes:
    """What a classifier takes: a path as it is, of an address the bytes. Raises what the store does."""
    if not is_address(path):
        return path
    store, name = _store(path)
    return store.cat_file(name)


def is_away(path: str) -> bool:
    """Whether a song, of which there was one, cannot be looked at now."""
    if not is_address(path):
        return File.of(Path(path)).size_bytes is None
    try:
        store, name = _store(path)
        return not store.exists(name)
    except Exception:  # of whatever package the store needs
        return True


def answered(out: str, columns: Columns) -> dict[int, bool]:
    """By `key_of` the rows of a data set, whether they have an error. Raises TableError for other columns or genres."""
    import pyarrow.dataset as ds  # noqa: PLC0415

    store, root = _store(out)
    parts = [name for name in store.find(root) if name.endswith(".parquet")]  # no leftovers of workers that died
    if not parts:
        return {}
    data = ds.dataset(parts, filesystem=store, format="parquet")
    if data.schema.names != columns.names:
        raise other_columns(out)
    for batch in data.to_batches(columns=columns.ranked) if columns.ranked else ():
        if not all(columns.are_known(genres.unique().to_pylist()) for genres in batch.columns):
            raise other_columns(out)
    batches = data.to_batches(columns=["path", "size_bytes", "modified_ns", "model", "heard", "error"])
    return {key_of(row): bool(row["error"]) for batch in batches for row in batch.to_pylist()}


def write_part(out: str, rows: list[dict], columns: Columns) -> None:
    """Write rows as one file, whole or not at all, under a name that follows from the songs. Raises OSError."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    buffer = io.BytesIO()
    table = pa.Table.from_pylist([parquet_cells(columns.flat(row)) for row in rows], schema_of(columns))
    pq.write_table(table, buffer)
    store, root = _store(out)
    name = f"{root}/{digest(*map(key_of, rows)):016x}.parquet"
    if is_address(out):
        store.pipe_file(name, buffer.getvalue())
    else:
        with whole_file(Path(name)) as file:
            file.write(buffer.getvalue())


def _store(address: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of an address or a path, and the path in it, which may have `::` in names.

    Addresses may be chained, as simplecache::s3://bucket/music. Raises ImportError if one needs a package, ValueError
    if nobody knows it.
    """
    from fsspec import filesystem, get_filesystem_class  # noqa: PLC0415
    from fsspec.core import url_to_fs  # noqa: PLC0415

    protocol = address.partition("://")[0] if is_address(address) else "file"
    if "::" in protocol:  # which no name can be in
        store, root = url_to_fs(address)
        return store, root.rstrip("/")
    kind = get_filesystem_class(protocol)
    store = filesystem(protocol, **kind._get_kwargs_from_urls(address), use_listings_cache=False)
    return store, kind._strip_protocol(address).rstrip("/")
