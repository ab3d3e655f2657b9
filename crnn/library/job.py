"""Many songs heard: decoded on all cores, by one model."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

import torch

from crnn.audio import AudioError, Passages, not_now, open_audio
from crnn.decoding import Decoders
from crnn.inference import GenreClassifier, Prediction, Recording
from crnn.library.rows import File
from crnn.network.devices import best_device, lacks_memory

QUICK = Passages(4, 4.0)
PASSAGE_SECONDS = 10.0  # of `--seconds`, as many as there is time for
GPU_SONGS = 16  # that it hears at once, at most
NOT_NOW = "{name} cannot be heard just now (there is not enough memory): try again later."
STALL_SECONDS = 120.0  # that a disk may take to wake up, and a network to answer

T = TypeVar("T")


@dataclass(frozen=True)
class Hearing:
    """How songs are heard and what is kept of the answers; it can be sent to other processes and machines."""

    model: str | None = None  # as in `load_checkpoint`
    passages: Passages | None = None  # None for all of each song
    whole_in_doubt: bool = False  # songs whose verdict their passages leave open are heard as a whole
    device: str | None = None  # None for a GPU where there is one
    precision: str = "float32"  # or "bfloat16", or "fastest"
    threshold: float | None = None  # a top probability under this is no answer; None for the model's own border
    top: int | None = None  # so many of the most probable genres; None for all
    timeline: bool = False
    embeddings: bool = False

    def heard(self) -> str:
        """How much of each song, in words, and from which border on it is answered, if not from the model's own."""
        border = "" if self.threshold is None else f", unsure below {self.threshold:g}"
        if self.passages is None:
            return f"all of it{border}"
        whole = ", or all of it in doubt" if self.whole_in_doubt else ""
        return f"{self.passages.count} passages of {self.passages.seconds:g} s{whole}{border}"

    def classifier(self, opener: Callable = open_audio) -> GenreClassifier:
        """The model, ready for songs. Raises CheckpointError."""
        return GenreClassifier.from_pretrained(
            self.model,
            opener=opener,
            device=self.device or best_device(),
            precision=self.precision,
            unsure_below=self.threshold,
        )

    def answer(self, source: str | os.PathLike | bytes, classifier: GenreClassifier) -> Prediction:
        """The answer to one song, by itself. Raises AudioError."""
        return classifier.predict(source, self.passages, whole_in_doubt=self.whole_in_doubt)

    def facts(self, file: File, classifier: GenreClassifier) -> dict:
        """With what the row of a song begins, whatever the answer: what tells whether it is to be heard again."""
        return {
            "path": str(file.path),
            "size_bytes": file.size_bytes,
            "modified_ns": file.modified_ns,
            "model": classifier.name,
            "heard": self.heard(),
        }

    def row(self, file: File, answer: Prediction | AudioError, classifier: GenreClassifier) -> dict:
        """What is written about a song, ready for JSON."""
        row = self.facts(file, classifier) | {
            "genre": None,
            "is_strange": None,
            "sounds_like": None,
            "probabilities": {},
            "duration_seconds": None,
            "notices": [],
            "error": None,
        }
        if isinstance(answer, AudioError):
            return row | {"error": str(answer)}
        whole = answer.as_dict()
        row |= {
            "genre": answer.verdict,
            "is_strange": whole["is_strange"],
            "sounds_like": whole["sounds_like"],
            "probabilities": dict(islice(answer.probabilities.items(), self.top)),
            "duration_seconds": answer.duration_seconds,
            "notices": whole["notices"],
        }
        if self.timeline:
            row["timeline"] = whole["timeline"]
        if self.embeddings:
            row["embedding"] = answer.embedding.tolist() or None
        return row


Answer = tuple[File, Prediction | AudioError]


@contextmanager
def at_work(
    hearing: Hearing, files: Iterable[File], jobs: int, are_more_to_come: bool = False
) -> Iterator[tuple[GenreClassifier, Iterator[File]]]:
    """The model with what several songs at once need: processes that decode, a thread for each song.

    Gives the files back, as the first have to be known. A single one is decoded here and gets all cores, unless
    `are_more_to_come`.
    """
    files = iter(files)
    first = list(islice(files, 2))
    before = torch.get_num_threads()
    with ExitStack() as stack:
        opener = open_audio
        if len(first) > 1 or are_more_to_come:
            if os.name == "posix":
                opener = stack.enter_context(Decoders(jobs, STALL_SECONDS, own_songs=True)).open_audio
            torch.set_num_threads(1)  # else they wait for each other
            stack.callback(torch.set_num_threads, before)
        yield hearing.classifier(opener), chain(first, files)


def hear(
    files: Iterable[File], classifier: GenreClassifier, hearing: Hearing, jobs: int, in_order: bool = False
) -> Iterator[Answer]:
    """The answers to songs as they come, or in their order; a song that cannot be used has an error for an answer.

    `jobs` songs are decoded at once. On a CPU each goes on through the model alone, in the thread that has it in its
    cache; a GPU hears those together that are there. Memory is that of the songs at work, whatever their number.
    """

    def listen(file: File) -> object:
        if classifier.device.type == "cpu":
            return attempt(file, lambda: hearing.answer(file.path, classifier))
        return attempt(file, lambda: classifier.listen(file.path, hearing.passages))

    doubtful: list[File] = []

    def heard_whole(songs: list[File]) -> Iterator[Answer]:
        return hear(songs, classifier, replace(hearing, passages=None, whole_in_doubt=False), jobs, in_order)

    for finished in side_by_side(files, listen, jobs, in_order):
        recorded = [one for one in finished if not isinstance(one[1], AudioError | Prediction)]
        parts = range(0, len(recorded), GPU_SONGS)
        given = chain.from_iterable(_answers(classifier, recorded[first : first + GPU_SONGS]) for first in parts)
        answers = dict(zip((file for file, _ in recorded), given, strict=True))
        doubtful += [file for file, answer in answers.items() if _is_open(answer, classifier, hearing)]
        if doubtful and in_order:
            answers |= heard_whole(doubtful)
            doubtful = []
        yield from ((file, answers.get(file, result)) for file, result in finished if file not in doubtful)
        if len(doubtful) >= GPU_SONGS:
            yield from heard_whole(doubtful)
            doubtful = []
    if doubtful:
        yield from heard_whole(doubtful)


def attempt(file: File, work: Callable[[], T]) -> T | AudioError:
    """What `work` makes of a song; where it fails, for whatever reason, an error, so that it costs this song alone."""
    try:
        return work()
    except AudioError as error:
        return error
    except Exception as error:  # a store that does not answer, and what no one has thought of
        return _unforeseen(file, error)


def is_passing(error: AudioError) -> bool:
    """Whether a song has failed for want of something that the machine may have later."""
    return error.message in (NOT_NOW, not_now("", "").message)


def _answers(classifier: GenreClassifier, recorded: list[tuple[File, Recording]]) -> list[Prediction | AudioError]:
    """The answers to songs together, or to each alone where that fails, as on a GPU that has no room for them."""
    try:
        return classifier.answer([recording for _, recording in recorded])
    except Exception as error:
        if len(recorded) == 1:
            return [_unforeseen(recorded[0][0], error)]
    return [answer for one in recorded for answer in _answers(classifier, [one])]  # the failed one's memory is free


def _is_open(answer: Prediction | AudioError, classifier: GenreClassifier, hearing: Hearing) -> bool:
    return hearing.whole_in_doubt and isinstance(answer, Prediction) and classifier.is_in_doubt(answer)


def _unforeseen(file: File, error: Exception) -> AudioError:
    name = Path(file.path).name
    if lacks_memory(error):
        return AudioError(NOT_NOW, name=name)
    return AudioError("{name} cannot be heard: {why}", name=name, why=repr(error))


def side_by_side(
    items: Iterable[T], work: Callable[[T], object], jobs: int, in_order: bool = False
) -> Iterator[list[tuple[T, object]]]:
    """Each item with what `work` makes of it in one of up to `jobs` threads, as many as are done at a time.

    Twice as many as there are threads are begun before their results are taken; in order, four times as many wait for
    one that takes long. The threads have ended when all is given; where that is broken off, each ends after its item.

    Raises RuntimeError if not one thread can be started.
    """
    waiting, done = SimpleQueue(), SimpleQueue()

    def run() -> None:
        while (numbered := waiting.get()) is not None:
            try:
                done.put((*numbered, work(numbered[1])))
            except BaseException as error:  # raised where it is waited for
                done.put((-1, None, error))

    threads: list[Thread] = []
    try:
        held: dict[int, tuple[T, object]] = {}
        n_taken = n_done = n_given = 0
        items, is_over = enumerate(items), False
        while not is_over or n_given < n_taken:
            while not is_over and n_taken - n_done < 2 * jobs and n_taken - n_given < 6 * jobs:
                numbered = next(items, None)
                is_over = numbered is None
                if not is_over:
                    waiting.put(numbered)
                    n_taken += 1
                    if len(threads) < jobs:
                        jobs = _with_another(threads, run, jobs)
            for number, item, result in _ready(done, n_done < n_taken):
                if number < 0:
                    raise result
                held[number] = item, result
                n_done += 1
            numbers = sorted(held)
            if in_order:
                numbers = [number for place, number in enumerate(numbers) if number == n_given + place]
            if numbers:
                n_given += len(numbers)
                yield [held.pop(number) for number in numbers]
    finally:
        list(_ready(waiting, is_any=False))  # what nobody waits for any more is not begun
        for _ in threads:
            waiting.put(None)
    for thread in threads:
        thread.join()


def _with_another(threads: list[Thread], work: Callable[[], None], most: int) -> int:
    """Start a thread more; gives how many there may be, which are those that run where the system has no more."""
    thread = Thread(target=work, name="hearing", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        if not threads:
            raise
        return len(threads)
    threads.append(thread)
    return most


def _ready(done: SimpleQueue, is_any: bool) -> Iterator[tuple]:
    """What is there, at least one if there will be any."""
    if is_any:
        yield done.get()
    while True:
        try:
            yield done.get_nowait()
        except Empty:
            return
