"""How songs go through a CRNN: in pieces through its convolutions, in windows through what is behind them."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crnn.features import n_frames_of, windows
from crnn.network.front import Piece, as_given, nets_of
from crnn.network.model import CRNN

CONTEXT_SECONDS = 1.5  # that convolutions hear on both sides of a piece of a song
STRETCH_PIECES = 4  # adjoining ones, of which a stem that gives steps hears so many at once

Report = Callable[[float], None]  # is told the share of some work that is done; what it raises ends the work


def to_nobody(_: float) -> None:
    """A Report where nobody waits for one."""


class Windows(NamedTuple):
    """What a model makes of the windows of a song."""

    logits: Tensor  # (n_windows, n_genres), as `mean_logits` gives them
    embeddings: Tensor  # (n_windows, members * features): what the members' classifiers read, one behind the other
    kinds: Tensor  # (n_windows, kinds): how much of each of AudioSet's genres is in them; no columns without such a net


class Plan(NamedTuple):
    """The windows of a song: those that are `slices` of the steps of all of it, then those that are heard alone."""

    starts: list[int]  # in frames
    alone: list[Tensor]  # log-mels (128, frames)
    song: Tensor | None = None  # (128, frames)
    slices: Sequence[slice] = ()


def window_logits(model: CRNN, log_mel: Tensor) -> tuple[Tensor, list[int]]:
    """Logits (n_windows, n_genres) of the windows of one log-mel (128, frames), and the frame where each starts."""
    plan = plan_of(model, log_mel, model.config.hop_frames)
    return hear(model, [plan])[0].logits, plan.starts


def plan_of(model: CRNN, log_mel: Tensor, hop_frames: int) -> Plan:
    """The windows of a log-mel (128, frames), `config.window_frames` long and about `hop_frames` apart.

    Where they overlap, the convolutions are computed once over the song, so that at its edges a window hears its
    neighbours rather than nothing. The last one ends with a step that may not be whole.
    """
    size, step = model.config.window_frames, model.config.step_frames
    if hop_frames >= size or log_mel.shape[-1] <= size:
        batch, starts = windows(log_mel, size, hop_frames)
        return Plan(starts, list(batch))
    last = -(-log_mel.shape[-1] // step) - size // step
    starts = [*range(0, last, -(-hop_frames // step)), last]  # in steps
    slices = [slice(start, start + size // step) for start in starts]
    return Plan([start * step for start in starts], [], log_mel, slices)


def hear(
    model: CRNN,
    plans: Sequence[Plan],
    batch_size: int = 16,
    pieces_at_once: int = 1,
    report: Report = to_nobody,
) -> list[Windows]:
    """What a model makes of the windows of several songs, whose log-mels are on the model's device.

    `batch_size` windows are computed at once, of whatever songs, and so many pieces of `songs_steps`: memory and
    speed, not results. `report` is called with the share of these pieces that are done.
    """
    songs = iter(songs_steps(model, [plan.song for plan in plans if plan.slices], pieces_at_once, report))
    alone = iter(_steps_of(model, [window for plan in plans for window in plan.alone], batch_size))
    steps: list[list[Tensor]] = []  # of each window, those of all members
    for plan in plans:
        song = next(songs) if plan.slices else []
        steps += [[member[part] for member in song] for part in plan.slices] + [next(alone) for _ in plan.alone]
    heard: list[tuple[Tensor, Tensor]] = [()] * len(steps)
    for numbers in _alike([len(window[0]) for window in steps], batch_size):
        per_member = [torch.stack(of).float() for of in zip(*(steps[number] for number in numbers), strict=True)]
        # In float32 always: to convert weights anew for each of so small products takes longer than they do.
        with torch.autocast(per_member[0].device.type, enabled=False):
            logits, vectors, kinds = model.outputs(per_member)
        embeddings = torch.cat(vectors, dim=-1).float()
        for number, *of_window in zip(numbers, logits, embeddings, kinds, strict=True):
            heard[number] = of_window
    of_song = iter(heard)
    return [Windows(*map(torch.stack, zip(*(next(of_song) for _ in plan.starts), strict=True))) for plan in plans]


def songs_steps(
    model: CRNN,
    log_mels: Sequence[Tensor],
    pieces_at_once: int = 1,
    report: Report = to_nobody,
) -> list[list[Tensor]]:
    """What each member's recurrent layer reads of whole log-mels (128, frames), (steps, front.out_features).

    Last, where the summaries read them, the channels of the stem, (steps, channels). A song goes through the
    convolutions in pieces as long as a window, each with some of what is before and behind it, to spare memory:
    what they give is in the near cache of a processor. A stem that gives steps hears adjoining ones together
    where it may. A GPU takes many pieces at once. A last step that is not whole is filled up with what is before
    it, mirrored. Recurrent layers of the stem go over all of it. `report` as in `hear`.
    """
    step = model.config.step_frames
    n_pieces = STRETCH_PIECES if model.stem.groups else 1
    stretches, plans, kept = [], [], [[] for _ in log_mels]
    for log_mel, of_song in zip(log_mels, kept, strict=True):
        pieces = _pieces(model, -(-log_mel.shape[-1] // step))
        for first in range(0, len(pieces), n_pieces):
            together = pieces[first : first + n_pieces]
            start, end = together[0].heard_from, together[-1].heard_to
            of_song.append(len(stretches))
            stretch = log_mel[:, start * step : end * step]
            stretches.append(F.pad(stretch, (0, (end - start) * step - stretch.shape[-1]), mode="reflect"))
            plans.append(tuple(Piece(*(place - start for place in piece)) for piece in together))
    given: list[list[Tensor]] = [[] for _ in stretches]
    n_done = 0
    for numbers in _alike(plans, max(1, pieces_at_once // n_pieces)):
        parts = _of_stretches(model, torch.stack([stretches[number] for number in numbers]), plans[numbers[0]])
        for number, *of_stretch in zip(numbers, *parts, strict=True):
            given[number] = of_stretch
        n_done += len(numbers)
        report(n_done / len(stretches))
    of_songs = [zip(*(given[number] for number in numbers), strict=True) for numbers in kept]
    if not model.stem.groups:
        return [[torch.cat(parts) for parts in song] for song in of_songs]
    return [remembered(model, [torch.cat(parts, dim=-1)[None] for parts in song]) for song in of_songs]


def remembered(model: CRNN, convolved: Sequence[Tensor]) -> list[Tensor]:
    """What the convolutions of a song gave, (1, channels, steps) of each net, to what `songs_steps` gives of it."""
    stem = model.stem.remembered(as_given(convolved))
    return [steps[0] for steps in model.steps_and_channels(stem)]


def _pieces(model: CRNN, n_steps: int) -> list[Piece]:
    """As long as a window each; all hear as much, but of a song that is shorter. Two that hear the same are one."""
    context = -(-n_frames_of(CONTEXT_SECONDS) // model.config.step_frames)
    size = max(model.config.window_frames // model.config.step_frames, 1)
    heard = min(size + 2 * context, n_steps)
    pieces: dict[int, Piece] = {}
    for first in range(0, n_steps, size):
        start, end = min(max(first - context, 0), n_steps - heard), min(first + size, n_steps)
        kept_from = pieces[start].kept_from if start in pieces else first
        pieces[start] = Piece(start, start + heard, kept_from, end)
    return [*pieces.values()]


def _of_stretches(model: CRNN, stretches: Tensor, pieces: Sequence[Piece]) -> list[Tensor]:
    """What pieces of log-mels (batch, 128, frames) keep: steps of each member, or of each net of the stem, if it
    gives steps, what its convolutions give.
    """
    if model.stem.groups:
        return list(nets_of(model.stem.of_stretch(stretches, pieces)))
    (piece,) = pieces
    return [steps[:, piece.kept_from : piece.kept_to] for steps in model.steps(model.stem_of(stretches))]


def _steps_of(model: CRNN, log_mels: Sequence[Tensor], at_once: int) -> list[list[Tensor]]:
    """Those of each member, (steps, front.out_features), of log-mels (128, frames) of any lengths."""
    given: list[list[Tensor]] = [[] for _ in log_mels]
    for numbers in _alike([log_mel.shape[-1] for log_mel in log_mels], at_once):
        stem = model.stem_of(torch.stack([log_mels[number] for number in numbers]))
        per_member = model.steps_and_channels(stem)
        for number, *steps in zip(numbers, *per_member, strict=True):
            given[number] = steps
    return given


def _alike(kinds: Sequence[Hashable], at_once: int) -> Iterator[list[int]]:
    """Indices of equal items, in groups of at most `at_once`."""
    numbers: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(kinds):
        numbers.setdefault(kind, []).append(number)
    for same in numbers.values():
        for first in range(0, len(same), at_once):
            yield same[first : first + at_once]
