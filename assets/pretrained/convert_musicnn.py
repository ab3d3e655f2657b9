"""Convert musicnn's convolutions from its Python package into the file that crnn/musicnn.py reads.

    pip download --no-deps musicnn==0.1.0
    python assets/pretrained/convert_musicnn.py musicnn-0.1.0-py3-none-any.whl

The weights are a TensorFlow 1 checkpoint, which NumPy alone can read: an index in LevelDB's table format, whose values
are protocol buffers (tensor_bundle.proto), beside the raw numbers. What is done to them:

- Batch normalisation is folded into one factor and one summand a channel.
- Filters that training left without effect are dropped: weight decay shrank their kernels to zero (their output has a
  variance of less than 1e-9), which is so for 497 of the 561 filters that look at the spectrogram.
- Kernels go from TensorFlow's order (time, bands, in, out) to PyTorch's (out, in, bands, time).
"""

import argparse
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODEL = "MSD_musicnn"
OUT = Path(__file__).with_name("msd_musicnn.safetensors")
EPSILON = 1e-3  # of musicnn's batch normalisation
DEAD_VARIANCE = 1e-9
FRONT = ("timbral.0", "timbral.1", "temporal.0", "temporal.1", "temporal.2")
MIDDLE = ("middle.0", "middle.1", "middle.2")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def table_block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block of a LevelDB table; a key is stored as what differs from the one before it."""
    if index[offset + size] != 0:
        raise ValueError("the index is compressed")
    block = index[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def message(data: bytes) -> dict[int, list]:
    """The fields of a protocol buffer by number."""
    at, fields = 0, {}
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            length, at = varint(data, at) if tag & 7 == 2 else (4 if tag & 7 == 5 else 8, at)
            value = data[at : at + length]
            at += length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_checkpoint(wheel: Path, model: str) -> dict[str, np.ndarray]:
    """The float32 tensors of one of the package's models by name."""
    with zipfile.ZipFile(wheel) as package:
        index = package.read(f"musicnn/{model}/.index")
        numbers = package.read(f"musicnn/{model}/.data-00000-of-00001")
    footer, at, handles = index[-48:], 0, []
    for _ in range(4):  # offset and size of the meta index, then of the index
        handle, at = varint(footer, at)
        handles.append(handle)
    tensors = {}
    for _, pointer in table_block(index, *handles[2:]):
        offset, at = varint(pointer, 0)
        size, _ = varint(pointer, at)
        for name, value in table_block(index, offset, size):
            entry = message(value)  # 1 dtype, 2 shape, 4 offset, 5 size in bytes
            if not name or entry.get(1) != [1]:
                continue
            shape = [message(axis).get(1, [0])[0] for axis in message(entry[2][0]).get(2, [])] if 2 in entry else []
            start, size = entry.get(4, [0])[0], entry[5][0]
            tensors[name.decode()] = np.frombuffer(numbers, "<f4", size // 4, start).reshape(shape)
    return tensors


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of crnn.network.musicnn by the names of its state, from those of the checkpoint."""

    def normalisation(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Factor, summand and variance of each channel."""
        prefix = "batch_normalization" + (f"_{number}" if number else "")
        gamma, beta, mean, variance = (
            tensors[f"{prefix}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        return scale, beta - mean * scale, variance

    arrays = dict(zip(("scale", "shift"), normalisation(0)[:2], strict=True))
    alive_in_front = []
    for number, name in enumerate(FRONT + MIDDLE, start=1):
        layer = "conv2d" + (f"_{number - 1}" if number > 1 else "")
        kernel, bias = tensors[f"{layer}/kernel"], tensors[f"{layer}/bias"]
        scale, shift, variance = normalisation(number)
        if name in FRONT:
            alive = variance > DEAD_VARIANCE
            alive_in_front.append(alive)
            kernel = kernel.transpose(3, 2, 1, 0)
        else:
            alive = np.full(len(bias), True)  # few are dead, and the residual connections need them all
            kernel = kernel.transpose(3, 1, 2, 0)  # musicnn holds the channels on the axis of the bands
            if name == MIDDLE[0]:
                kernel = kernel[:, np.concatenate(alive_in_front)]
        arrays[f"{name}.conv.weight"] = kernel[alive]
        arrays[f"{name}.conv.bias"] = bias[alive]
        arrays[f"{name}.scale"] = scale[alive, None, None]
        arrays[f"{name}.shift"] = shift[alive, None, None]
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def main() -> None:
    """Convert the wheel that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="musicnn-0.1.0-py3-none-any.whl")
    arrays = convert(read_checkpoint(parser.parse_args().wheel, MODEL))
    save_file(arrays, OUT)
    print(f"{OUT}: {len(arrays)} arrays, {sum(array.size for array in arrays.values())} numbers")


if __name__ == "__main__":
    main()
