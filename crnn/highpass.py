"""A high-pass, sample by sample in theory, in matrix products in practice."""

from collections.abc import Iterable, Iterator

import numpy as np

BLOCK = 64  # samples that it computes as one
MOST_SAMPLES = 2**18  # of each channel at once
DOUBLINGS = 8  # so that it remembers 2 ** 8 blocks, 0.7 s: after that `LogMel`'s poles have left 1e-11 of a sample


class HighPass:
    """A recursive filter in matrix products, several times as fast as sample by sample (`scipy.signal.sosfilt`).

    In a block of samples it is a product with the response to a single sample; what a block leaves behind, the state
    of the filter, reaches the later ones by doubling (Hillis and Steele 1986, "Data parallel algorithms"). The state is
    that of the filter's modes, one for each pole: the states of its sections, where poles are near 1, are large numbers
    of which little remains.

    `sections` are second-order sections (n, 6), float64, as SciPy has them, whose poles are complex and forget within
    2 ** DOUBLINGS blocks. Raises ValueError if they are others.

    Attributes, float64:
        inside: (BLOCK, BLOCK), what is heard of each sample of a block.
        left: (BLOCK, states), what each leaves behind.
        heard: (states, BLOCK), what is heard of a state.
        kept: (DOUBLINGS, states, states), what is kept of one over 1, 2, 4, 8... blocks.
        settled: (states,), the state after a 1 that has always been there.
    """

    def __init__(self, sections: np.ndarray) -> None:
        from scipy.signal import sosfilt  # noqa: PLC0415 (a tenth of a second that --help does without)

        n = 2 * len(sections)
        self.inside, left = sosfilt(sections, np.eye(BLOCK), zi=np.zeros((n // 2, BLOCK, 2)))  # by sample of the block
        states = np.eye(n).reshape(n, n // 2, 2).swapaxes(0, 1)
        heard, kept = sosfilt(sections, np.zeros((n, BLOCK)), zi=states)  # by number of the state
        left, kept = (states.swapaxes(0, 1).reshape(-1, n) for states in (left, kept))
        poles, modes = np.linalg.eig(kept)
        if np.count_nonzero(poles.imag > 0) < n // 2 or np.abs(poles).max() ** 2**DOUBLINGS > 1e-9:
            raise ValueError("the poles of its sections must be complex and forget sooner")
        modes = modes[:, poles.imag > 0]  # the others are their conjugates
        modes = np.concatenate([modes.real, modes.imag], axis=1)
        modes /= np.abs(left @ modes).max(axis=0)
        self.left, self.heard = left @ modes, np.linalg.solve(modes, heard)
        kept = np.linalg.solve(modes, kept @ modes)
        self.kept = np.stack([np.linalg.matrix_power(kept, 2**n) for n in range(DOUBLINGS)])
        self.settled = np.linalg.solve(np.eye(n) - kept.T, self.left.sum(axis=0))
        matrices = (self.inside, self.left, self.heard, self.kept, self.settled)
        self._single = [matrix.astype(np.float32) for matrix in matrices]

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Blocks (channels, samples) of a sound to such blocks, float32, as if the first sample had always been there.

        Channels may become more on the way, where all were alike.
        """
        rest, state = np.zeros((1, 0), np.float32), None
        parts = (
            block[:, start : start + MOST_SAMPLES]
            for block in blocks
            for start in range(0, block.shape[1], MOST_SAMPLES)
        )
        for block in parts:
            state = self._settled_on(block[:, :1]) if state is None else state
            rest = behind(rest, block)
            n_whole = rest.shape[1] // BLOCK**2 * BLOCK**2
            above, state = self._of_whole(rest[:, :n_whole], np.broadcast_to(state, (len(block), state.shape[1])))
            yield above
            rest = rest[:, n_whole:]
        if n_left := rest.shape[1]:
            yield self._of_whole(np.pad(rest, ((0, 0), (0, -n_left % BLOCK**2))), state)[0][:, :n_left]

    def _settled_on(self, first: np.ndarray) -> np.ndarray:
        """The state (channels, states) after samples (channels, 1) that have always been there."""
        with np.errstate(over="ignore", invalid="ignore"):  # of infinite or huge samples, for which all is refused
            return first.astype(np.float32) * self._single[-1]

    def _of_whole(self, samples: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples (channels, whole squares), and the state before them, (channels, states), to the same behind them.

        Blocks are multiplied in squares, so few that OpenBLAS does it without threads, which would wait for cores that
        decode.
        """
        n_channels, n_blocks, n_states = len(samples), samples.shape[1] // BLOCK, len(self.heard)
        inside, left, heard, kept, _ = self._single
        with np.errstate(over="ignore", invalid="ignore"):  # as above
            squares = samples.reshape(n_channels, -1, BLOCK, BLOCK)
            behind_each = (squares @ left).reshape(n_channels, n_blocks, n_states)
            states = np.concatenate([state[:, None], behind_each], axis=1)
            for n, of_distance in enumerate(kept):
                states[:, 2**n :] += states[:, : -(2**n)] @ of_distance
            before_each = states[:, :-1].reshape(*squares.shape[:3], n_states)
            above = squares @ inside + before_each @ heard
        return above.reshape(samples.shape), states[:, -1]


def behind(rest: np.ndarray, block: np.ndarray) -> np.ndarray:
    """A block (channels, samples) behind what is left of those before, of as many channels or a single one; float32."""
    return np.concatenate([np.broadcast_to(rest, (len(block), rest.shape[1])), block], axis=1, dtype=np.float32)
