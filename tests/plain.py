"""The layers of published nets in plain NumPy, as their papers and libraries define them."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv(maps, weight, bias=None, stride=1, groups=1):
    """Cross-correlation with "same" zero padding: (batch, inputs, h, w) by (outputs, inputs / groups, k, k)."""
    k = weight.shape[-1]
    padded = np.pad(maps, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    patches = sliding_window_view(padded, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    if groups > 1:
        result = np.einsum("bchwij,cij->bchw", patches, weight[:, 0])
    else:
        result = np.einsum("bchwij,ocij->bohw", patches, weight)
    return result if bias is None else result + bias[:, None, None]


def norm(maps, gain, offset, eps):
    """Batch normalisation with the statistics of these maps themselves."""
    axes = (0, 2, 3)
    mean, variance = maps.mean(axes, keepdims=True), maps.var(axes, keepdims=True)
    return (maps - mean) / np.sqrt(variance + eps) * gain[:, None, None] + offset[:, None, None]


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def relu(x):
    return np.maximum(x, 0)


def hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


def pool(maps, bands, frames):
    """Maximum over tiles; what is left over at the ends is dropped."""
    b, c, h, w = maps.shape
    h, w = h // bands, w // frames
    tiles = maps[:, :, : h * bands, : w * frames].reshape(b, c, h, bands, w, frames)
    return tiles.max(axis=(3, 5))


def read_line(values, positions):
    """(..., n) linearly at positions (m,)."""
    flat = values.reshape(-1, values.shape[-1])
    return np.stack([np.interp(positions, np.arange(values.shape[-1]), row) for row in flat]).reshape(
        *values.shape[:-1], len(positions)
    )


def gru(steps, inputs, bias, gates, candidate):
    """Keras 1's GRU, (batch, time, features) to its states: hard sigmoids, the state is reset before the product."""
    hidden = candidate.shape[0]
    state, states = np.zeros((len(steps), hidden)), []
    for step in steps.transpose(1, 0, 2):
        given = step @ inputs.T + bias
        both = np.clip(0.2 * (given[:, : 2 * hidden] + state @ gates.T) + 0.5, 0, 1)
        update, reset = both[:, :hidden], both[:, hidden:]
        state = update * state + (1 - update) * np.tanh(given[:, 2 * hidden :] + (reset * state) @ candidate.T)
        states.append(state)
    return np.stack(states, axis=1)
