"""A model as one graph from waveform to probabilities, for programs without Python or without PyTorch.

What inference does to a song is exported as it is, but for the short-time Fourier transform, which no runtime has fast:
it becomes matrix products here that give the same.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
import torch.fx.experimental._config as shape_settings
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import scan
from torch.export import Dim, ExportedProgram

from crnn.audio import MIN_SECONDS, SAMPLE_RATE
from crnn.features import N_FFT, N_MELS, LogMel, n_frames_of, sounding_frames, stand_on_level, to_db
from crnn.files import check_writable, whole_file
from crnn.highpass import BLOCK, HighPass
from crnn.inference import MOST_WINDOWS, GenreClassifier
from crnn.network.front import nets_of
from crnn.network.fronts import front_of
from crnn.network.layers import clear, energy
from crnn.network.licences import notice_of
from crnn.network.songs import CONTEXT_SECONDS, remembered

OPSET = 20
ONNX_MAGIC = b"\x08"  # the tag of ir_version, the first field of its message
FACTS_FILE = "facts.json"
LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.onnx._internal.exporter._registration")
FIRST = 32  # of the factors of N_FFT in the fast Fourier transform


class WholeHighPass(nn.Module):
    """The high-pass of `LogMel`, of all of a waveform at once."""

    def __init__(self, high_pass: HighPass) -> None:
        super().__init__()
        for name in ("inside", "left", "heard", "kept"):
            self.register_buffer(name, torch.from_numpy(getattr(high_pass, name)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(channels, samples) to the same shape, float32, as if the first sample had always been there."""
        n_samples = waveform.shape[1]
        risen = (waveform - waveform[:, :1]).double()
        # By one at least, or PyTorch would take a length that needs none for another kind of program.
        blocks = F.pad(risen, (0, BLOCK - n_samples % BLOCK)).reshape(waveform.shape[0], -1, BLOCK)
        states = blocks @ self.left  # (channels, blocks, states)
        for n in range(len(self.kept)):
            states = states + F.pad(states, (0, 0, 2**n, 0))[:, : states.shape[1]] @ self.kept[n]
        before = F.pad(states, (0, 0, 1, 0))[:, : states.shape[1]]
        return (blocks @ self.inside + before @ self.heard).flatten(1)[:, :n_samples].float()


class MelPower(nn.Module):
    """The mel power spectrogram of `LogMel`, its Fourier transform in two matrix products (Cooley and Tukey 1965).

    As samples are real, half of the rows of the first is enough; the others are their mirror.
    """

    def __init__(self, front_end: LogMel) -> None:
        super().__init__()
        self.hop_length = front_end.hop_length
        second = N_FFT // FIRST
        rows = np.arange(FIRST // 2 + 1)
        first = np.exp(-2j * np.pi * np.outer(np.arange(FIRST), rows) / FIRST)
        turn = np.exp(-2j * np.pi * np.outer(rows, np.arange(second)) / N_FFT)
        last = np.exp(-2j * np.pi * np.outer(np.arange(second), np.arange(second)) / second)
        # Row k and column m are bin k + FIRST * m, or its mirror; two rows have each bin twice.
        bins = rows[:, None] + FIRST * np.arange(second)
        shares = np.where(np.isin(rows, (0, FIRST // 2)), 0.5, 1.0)[:, None] * np.ones_like(bins)
        shares[bins % (N_FFT // 2) == 0] = 1.0
        filters = front_end.filters.double().numpy()  # (bins, bands)
        filters = filters[np.minimum(bins, N_FFT - bins)] * shares[..., None]
        for name, values in (
            ("window", front_end.window),
            ("first", np.concatenate([first.real, first.imag], axis=1).T),
            ("turn", np.stack([turn.real, turn.imag])),
            ("last", np.block([[last.real, last.imag], [-last.imag, last.real]])),
            ("filters", filters.reshape(-1, N_MELS)),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(channels, samples) to the mean of the channels' mel power, (128, frames)."""
        padded = F.pad(waveform, (N_FFT // 2, N_FFT // 2))
        starts = self.hop_length * torch.arange(waveform.shape[1] // self.hop_length + 1)
        frames = padded[:, starts[:, None] + torch.arange(N_FFT)] * self.window
        half = self.first @ frames.unflatten(-1, (FIRST, -1))  # (channels, frames, real and imaginary rows, columns)
        real, imaginary = half[..., : FIRST // 2 + 1, :], half[..., FIRST // 2 + 1 :, :]
        turned = torch.cat(
            [
                real * self.turn[0] - imaginary * self.turn[1],
                real * self.turn[1] + imaginary * self.turn[0],
            ],
            dim=-1,
        )
        spectrum = turned @ self.last  # (channels, frames, rows, real and imaginary columns)
        power = spectrum.square().unflatten(-1, (2, -1)).sum(dim=-2)
        return (power.flatten(-2) @ self.filters).mean(dim=0).T


class Graph(nn.Module):
    """What `GenreClassifier.predict_waveform` computes, without branches: whatever the sound, the same operations.

    (Of a sound longer than 20 minutes `predict_waveform` computes some windows by themselves, without what was before:
    there the two differ a little. Of one that sounds for less than a second, which `predict_waveform` refuses, it
    computes probabilities, too.)
    """

    def __init__(self, classifier: GenreClassifier) -> None:
        super().__init__()
        self.high_pass = WholeHighPass(classifier.front_end.high_pass)
        self.mel_power = MelPower(classifier.front_end)
        self.model = deepcopy(classifier.model).float().cpu()
        self.eval().requires_grad_(False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Waveform (channels, samples) of a second at least to probabilities (n_genres,), all 0 without music.

        That is where nothing sounds but steady tones. Beside them the `energy` (), of which nothing can be said there.
        Where a sample is not finite, all is NaN.
        """
        config = self.model.config
        log_mel = stand_on_level(to_db(self.mel_power(self.high_pass(waveform))))
        sounds = sounding_frames(log_mel)
        kept = sounds | ~sounds.any()
        heard = log_mel[:, kept]
        n_frames = heard.shape[1]
        torch._check(n_frames > 0)
        size, step = config.window_frames, config.step_frames
        song = heard[:, torch.arange(torch.sym_max(n_frames, size)) % kept.sum()]  # as `repeat_to` does
        n_steps = (song.shape[1] + step - 1) // step  # not -(-a // b) as elsewhere: ONNX rounds towards zero
        song = song[:, song.shape[1] - 1 - (song.shape[1] - 1 - torch.arange(n_steps * step)).abs()]  # mirrored
        last = n_steps - size // step
        hop_steps = (torch.sym_max(config.hop_frames, n_frames // MOST_WINDOWS) + step - 1) // step
        # A number of its own for PyTorch, which would get lost in the formula.
        n_windows = torch.scalar_tensor((last + hop_steps - 1) // hop_steps + 1, dtype=torch.int64).item()
        torch._check(n_windows >= 1)
        starts = (torch.arange(n_windows) * hop_steps).clamp(max=last)
        rows = starts[:, None] + torch.arange(size // step)
        logits, *_ = self.model.outputs([steps[rows] for steps in self.song_steps(song)])
        stem = self.model.stem.alone(song[None, :, :size])  # all that a short song is
        logits = torch.cat([logits, self.model.answer_of(stem)])
        shares = (logits / config.temperature).softmax(dim=-1)
        is_long = kept.sum().expand_as(starts) > size
        counts = torch.cat([is_long, ~is_long[:1]]).float()
        energies = energy(logits)
        # As `window_weights` of those that count.
        weights = (config.evidence * clear(energies) + counts.log()).softmax(dim=0)
        unless_finite = (0 * waveform).sum()  # 0 or NaN, which else would be silence
        return weights @ shares * sounds.any() + unless_finite, counts @ energies / counts.sum() + unless_finite

    def song_steps(self, log_mel: Tensor) -> list[Tensor]:
        """What `songs_steps` gives of one log-mel (128, frames); the pieces are those of a loop in the graph."""
        step = self.model.config.step_frames
        context = -(-n_frames_of(CONTEXT_SECONDS) // step)
        piece = max(self.model.config.window_frames // step, 1)
        n_steps = log_mel.shape[-1] // step
        length = torch.sym_min(piece + 2 * context, n_steps)

        def steps_of(first: Tensor) -> tuple[Tensor, ...]:
            start = (first - context).clamp(min=0).clamp(max=n_steps - length)
            heard = log_mel[None, :, start * step + torch.arange(length * step)]
            kept = (first - start + torch.arange(piece)).clamp(max=length - 1)
            if self.model.stem.groups:
                return tuple(net[0].T[kept] for net in nets_of(self.model.stem.convolved(heard)))
            return tuple(steps[0, kept] for steps in self.model.steps(self.model.stem_of(heard)))

        _, parts = scan(
            lambda nothing, first: (nothing.clone(), steps_of(first)), torch.zeros(()), torch.arange(0, n_steps, piece)
        )
        parts = [steps.flatten(0, 1)[:n_steps] for steps in parts]
        return remembered(self.model, [steps.T[None] for steps in parts]) if self.model.stem.groups else parts


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Without the warnings of these loggers, nor those of PyTorch about itself."""
    before = {name: logging.getLogger(name).level for name in loggers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in loggers:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def facts(classifier: GenreClassifier) -> dict[str, str]:
    """What a program has to know of the file, by name; lists are JSON."""
    config = classifier.model.config
    return {
        "genres": json.dumps(config.genres, ensure_ascii=False),
        "sample_rate": str(SAMPLE_RATE),
        "unsure_below": repr(classifier.unsure_below),
        "strange_below": repr(classifier.strange_below),
        "version": str(config.version),
        "model": classifier.name,
        "trained_on": config.trained_on,
        "notice": notice_of(front_of(config.front).sources),  # which the licences of published nets ask for
        "input": f"waveform, float32 (channels, samples), all finite, at {SAMPLE_RATE} Hz, full scale 1, of which "
        f"{MIN_SECONDS:g} s at least sounds",
        "output": "probabilities, float32 (genres,), all 0 where nothing sounds but steady tones, and energy, float32 "
        "(); a genre whose probability is the largest and at least unsure_below is the answer, where the energy is at "
        "least strange_below",
    }


def export(classifier: GenreClassifier, onnx: Path | None = None, pt2: Path | None = None) -> None:
    """Write a model as an ONNX file, as a program of `torch.export`, or both; any number of channels and samples.

    `facts` are the metadata of the one and facts.json in the other. ONNX needs the packages onnx and onnxscript. Raises
    OSError.
    """
    for path in filter(None, (onnx, pt2)):
        check_writable(path)  # what follows takes a while
    given = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    contents: dict[Path, bytes] = {}  # nothing is opened before all is there, as who stops a program leaves its files
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        # Of a loop in a graph PyTorch says that it has lost track of sizes that it has not.
        stack.enter_context(shape_settings.patch(soft_pending_unbacked_not_found_error=True))
        stack.enter_context(quiet(*LOGGERS))
        example = torch.zeros(2, 20 * SAMPLE_RATE)
        program = torch.export.export(Graph(classifier), (example,), dynamic_shapes=given, strict=True)
        if pt2:
            buffer = BytesIO()  # a file on the disk would have to be named *.pt2
            torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(facts(classifier))})
            contents[pt2] = buffer.getvalue()
        if onnx:
            contents[onnx] = as_onnx(program, facts(classifier))
    with ExitStack() as stack:
        files = {path: stack.enter_context(whole_file(path)) for path in contents}
        for path, file in files.items():
            file.write(contents[path])


def is_onnx(path: Path) -> bool:
    """Whether a file is one that `export` wrote for ONNX, whose package this needs."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 (of onnx, an optional package)
    from onnx import ModelProto  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            if file.read(len(ONNX_MAGIC)) != ONNX_MAGIC:  # such as a film of gigabytes
                return False
            file.seek(0)
            return "genres" in {fact.key for fact in ModelProto.FromString(file.read()).metadata_props}
    except (OSError, DecodeError):
        return False


def is_program(path: Path) -> bool:
    """Whether a file is one that `export` wrote as a program of `torch.export`."""
    try:
        with ZipFile(path) as archive:
            return any(Path(name).name == FACTS_FILE for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, BadZipFile):
        return False


def as_onnx(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    """The ONNX file of a program from waveform to probabilities and energy."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass  # noqa: PLC0415 (an optional package)

    names = {"input_names": ["waveform"], "output_names": ["probabilities", "energy"]}
    converted = torch.onnx.export(program, **names, opset_version=OPSET, dynamo=True, verbose=False)
    RemoveUnusedNodesPass()(converted.model)
    converted.model.metadata_props.update(metadata)
    return converted.model_proto.SerializeToString()
