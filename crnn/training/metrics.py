"""How good answers are and how sure one may be of them: from the logits of windows to figures at clip level."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from crnn.network.config import NOTHING_STRANGE, NOTHING_SURE, CRNNConfig
from crnn.network.layers import clear, energy

ANSWERED_RIGHT = 0.97  # of the clips that get an answer; of strangers' songs fewer, as some are of no genre it knows
TEMPERATURES = np.geomspace(0.1, 10.0, 231)  # steps of 2 %
BORDERS = 200  # of probabilities that are tried
CONFIDENCE = 0.95  # that borders keep a risk
CALIBRATION_BINS = 15
CROSS_FITS = 10
CHANCE_PARTS, CHANCE_DRAWS = 100, 10  # parts, to spare memory, of so many draws each


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities that mean what they say, and says from where on to answer."""

    temperature: float  # divides the logits
    unsure_below: float  # a top probability under this is no answer
    strange_below: float = NOTHING_STRANGE  # nor is what it makes of a song with less energy than this
    evidence: float = 0.0  # how windows count, see `window_weights`; not fitted

    @classmethod
    def of(cls, config: CRNNConfig) -> "Calibration":
        """That of a model."""
        return cls(config.temperature, config.unsure_below, config.strange_below, config.evidence)


def mean_probabilities(logits: Sequence[Tensor], temperature: float = 1.0, evidence: float = 0.0) -> np.ndarray:
    """Clip probabilities (clips, n_genres): the mean over windows of each clip's softmax(logits / temperature).

    `evidence` says how windows count (`network.layers.window_weights`).
    """
    windows = torch.cat(tuple(logits))
    counts = np.array([len(clip) for clip in logits])
    starts, energies = np.cumsum(counts) - counts, clear(energy(windows)).numpy()
    weights = np.exp(evidence * (energies - np.maximum.reduceat(energies, starts).repeat(counts)))[:, None]
    shares = (windows / temperature).softmax(-1).numpy()
    return np.add.reduceat(shares * weights, starts) / np.add.reduceat(weights, starts)


def is_answered(logits: Sequence[Tensor], calibration: Calibration) -> np.ndarray:
    """Which clips get an answer rather than "unsure", bool (clips,)."""
    confidence = mean_probabilities(logits, calibration.temperature, calibration.evidence).max(axis=1)
    return (confidence >= calibration.unsure_below) & (mean_energies(logits) >= calibration.strange_below)


def mean_energies(logits: Sequence[Tensor]) -> np.ndarray:
    """The mean over windows of each clip's `energy`, (clips,)."""
    return np.array([energy(clip).mean().item() for clip in logits])


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(true genre), in nats."""
    return float(_surprises(probabilities, labels).mean())


def _surprises(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p(true genre) of each clip (clips,)."""
    return _surprise(probabilities[np.arange(len(labels)), labels])


def _surprise(probabilities: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def fit_calibration(logits: Sequence[Tensor], labels: np.ndarray, evidence: float = 0.0) -> Calibration:
    """The temperature with the lowest negative log-likelihood of clips and one more, and the border of "unsure" then.

    Temperature scaling: Guo et al. 2017, arXiv:1706.04599. `logits` are those of each clip's windows. Clips that are
    all right, however few, would have the temperature vanish: against that Platt (1999) counts clips that were not
    seen. Here it is one, right as often as the model's own softmax says: a conjugate prior (Diaconis and Ylvisaker
    1979). So n clips make no surer than n + 1 can.
    """
    return _calibration(_at_temperatures(logits, labels, evidence), logits, labels, evidence)


def _at_temperatures(logits: Sequence[Tensor], labels: np.ndarray, evidence: float) -> np.ndarray:
    """The surprise of each clip at each temperature, and that which the softmax expects (2, temperatures, clips)."""
    own, rows = mean_probabilities(logits, evidence=evidence), []
    for temperature in TEMPERATURES:
        probabilities = mean_probabilities(logits, temperature, evidence)
        expected = (own * _surprise(probabilities)).sum(axis=1)
        rows.append((_surprises(probabilities, labels), expected))
    return np.stack(rows, axis=1)


def _calibration(surprises: np.ndarray, logits: Sequence[Tensor], labels: np.ndarray, evidence: float) -> Calibration:
    temperature = _temperature(surprises)
    probabilities = mean_probabilities(logits, temperature, evidence)
    border = unsure_threshold(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    return Calibration(temperature, border, evidence=evidence)


def _temperature(surprises: np.ndarray) -> float:
    seen, expected = surprises
    return float(TEMPERATURES[int((seen.sum(axis=1) + expected.mean(axis=1)).argmin())])


def at_an_end(temperature: float) -> str:
    """What to know of a fitted temperature beyond which none was tried; "" of any other."""
    if temperature not in TEMPERATURES[[0, -1]]:
        return ""
    end, way = ("lowest", "less sure") if temperature < 1 else ("highest", "surer")
    return (
        f"The temperature {temperature:g} is the {end} that is tried: the model may still be {way} than it should be."
    )


def fit_among_strangers(
    logits: Sequence[Tensor],
    labels: np.ndarray,
    left_out: Sequence[Sequence[Tensor]],
    share: float,
    risk: float,
    evidence: float = 0.0,
) -> Calibration:
    """The temperature as `fit_calibration` finds it, and borders for songs of which a share is of no genre it knows.

    `left_out` are the logits of such songs, genre by genre, by models that had none of theirs to learn from; genres
    count alike. Beyond both borders at most `risk` of the answers are wrong, those to unknown songs all among them, and
    that with CONFIDENCE: known songs are a sample, and so are genres left out, as others may be answered more often.
    Of such pairs of borders this one has most right answers, and as it is the best of many, what it promises of songs
    to come is a little less sure than that. Where there is none, everything is unsure.
    """
    temperature = _temperature(_at_temperatures(logits, labels, evidence))
    unknown, sizes = [*chain(*left_out)], [len(labels), *map(len, left_out)]
    known, strange = (mean_probabilities(clips, temperature, evidence) for clips in (logits, unknown))
    confidence = np.concatenate([known.max(axis=1), strange.max(axis=1)])
    energies = mean_energies([*logits, *unknown])
    is_right = np.concatenate([known.argmax(axis=1) == labels, np.zeros(len(strange), bool)])
    # What an answer adds to the share of known songs that are answered, and to that of each genre left out.
    added = np.repeat(np.diag(1 / np.array(sizes)), sizes, axis=0)
    counts = np.array([1.0 - share, *[share / len(left_out)] * len(left_out)])
    best, most = Calibration(temperature, NOTHING_SURE, evidence=evidence), 0.0
    for border in np.unique(np.quantile(confidence, np.linspace(0, 1, BORDERS))):
        kept = np.flatnonzero(confidence >= border)
        kept = kept[np.argsort(-energies[kept])]
        right = np.cumsum(added[kept] @ counts * is_right[kept])
        keeps = _lower_ends(added[kept], is_right[kept], counts, len(labels), risk) >= 0
        enough = np.flatnonzero(keeps & _is_last_of_equals(energies[kept]))
        if len(enough) and right[enough[-1]] > most:
            most = right[enough[-1]]
            best = Calibration(temperature, float(border), float(energies[kept[enough[-1]]]), evidence)
    return best


def _lower_ends(added: np.ndarray, is_right: np.ndarray, counts: np.ndarray, n_known: int, risk: float) -> np.ndarray:
    """Where Student's one-sided interval of the surplus of right answers begins, after each answer (answers,).

    `added` (answers, 1 + genres left out) and `counts` (1 + genres left out,) as in `fit_among_strangers`. Known songs
    vary from song to song, and as if one more had been answered wrongly: some that are all right would not vary at
    all. The others vary from genre to genre, of which there are few.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 (most who know about metrics fit no borders)

    surplus = is_right - (1.0 - risk)  # where its sum is below 0, too few are right
    sums = np.cumsum(added * surplus[:, None], axis=0)
    squares = np.cumsum(added[:, 0] * surplus**2) + (1.0 - risk) ** 2 / n_known
    variances = counts[0] ** 2 * (squares - sums[:, 0] ** 2).clip(min=0) / n_known
    n_genres = len(counts) - 1
    if n_genres > 1:
        variances += n_genres * counts[1] ** 2 * sums[:, 1:].var(axis=1, ddof=1)
    return sums @ counts - stdtrit(max(n_genres - 1, 1), CONFIDENCE) * np.sqrt(variances)


def unsure_threshold(confidence: np.ndarray, right: np.ndarray) -> float:
    """The lowest top probability from which on the share of right answers is at least ANSWERED_RIGHT.

    `confidence` and `right` are (clips,). Selective classification (Geifman and El-Yaniv 2017, arXiv:1705.08500)
    without its bound. Where no threshold reaches that share, it is the highest top probability: almost everything is
    unsure then, and says so.
    """
    order = np.argsort(-confidence)
    keeps = np.cumsum(right[order]) / np.arange(1, len(right) + 1) >= ANSWERED_RIGHT
    enough = np.flatnonzero(keeps & _is_last_of_equals(confidence[order]))
    return float(confidence[order][enough[-1] if len(enough) else 0])


def _is_last_of_equals(falling: np.ndarray) -> np.ndarray:
    """Where a border can be among values (n,) that fall: all that are equal are on one side of it."""
    return np.append(np.diff(falling) != 0, True)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean gap between top probability and share of right answers, over 15 equal bins weighted by their clips.

    `confidence` and `right` are (..., clips); several rows give their mean. Guo et al. 2017.
    """
    gaps = [((right - confidence) * (_bins(confidence) == b)).sum(axis=-1) for b in range(CALIBRATION_BINS)]
    return float(np.abs(gaps).sum(axis=0).mean() / confidence.shape[-1])


def chance_calibration_error(confidence: np.ndarray) -> float:
    """The calibration error that a perfectly calibrated model with these top probabilities (clips,) would show.

    It is above zero, as clips are few; by consistency resampling (Bröcker and Smith 2007, Vaicenavicius et al. 2019,
    arXiv:1902.06977).
    """
    generator, size = np.random.default_rng(0), (CHANCE_DRAWS, len(confidence))
    parts = (generator.uniform(size=size) < confidence for _ in range(CHANCE_PARTS))
    return float(np.mean([expected_calibration_error(confidence, right) for right in parts]))


def _standard_error(n_right: int, n: int) -> float:
    """That of a share. Where all are alike Wald's is 0 however few they are, and Agresti and Coull's (1998) stands."""
    share, n = (n_right / n, n) if 0 < n_right < n else ((n_right + 0.5) / (n + 1), n + 1)
    return (share * (1 - share) / n) ** 0.5


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict]:
    """The bins of a reliability diagram that have clips: n, mean confidence and accuracy of each."""
    bins, rows = _bins(confidence), []
    for number in np.unique(bins):
        inside = bins == number
        figures = {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
        rows.append({"n": int(inside.sum()), **figures})
    return rows


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def metrics(probabilities: np.ndarray, labels: np.ndarray, genres: Sequence[str], answered: np.ndarray) -> dict:
    """All figures of an evaluation at clip level, ready for JSON.

    `probabilities` is (clips, n_genres), `answered` (clips,) says which clips get an answer rather than "unsure".

    Keys: n, accuracy, accuracy_error (its standard error), macro_f1, nll (nats), ece, ece_by_chance (of a perfectly
    calibrated model), answered (share of clips), answered_right (share of those, None where there are none),
    per_genre (recall of each genre, None where it has no clip), confusion (rows are true genres, columns the answers),
    reliability (bins) and genres.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score  # noqa: PLC0415

    answers, known = probabilities.argmax(axis=1), range(len(genres))
    confidence, right = probabilities.max(axis=1), answers == labels
    present = np.unique(labels)
    recall = dict(zip(present.tolist(), recall_score(labels, answers, labels=present, average=None), strict=True))
    accuracy = float(accuracy_score(labels, answers))
    return {
        "n": len(labels),
        "accuracy": accuracy,
        "accuracy_error": _standard_error(int(right.sum()), len(labels)),
        "macro_f1": float(f1_score(labels, answers, labels=present, average="macro")),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(confidence, right),
        "ece_by_chance": chance_calibration_error(confidence),
        "answered": float(answered.mean()),
        "answered_right": float(right[answered].mean()) if answered.any() else None,
        "per_genre": {genre: float(recall[i]) if i in recall else None for i, genre in enumerate(genres)},
        "confusion": confusion_matrix(labels, answers, labels=known).tolist(),
        "reliability": reliability(confidence, right),
        "genres": list(genres),
    }


def cross_fitted_metrics(
    logits: Sequence[Tensor], labels: np.ndarray, genres: Sequence[str], evidence: float = 0.0
) -> dict:
    """The `metrics` of clips whose calibration is fitted to the other clips, in ten parts.

    Figures of calibration on the clips that fitted it would be too good.
    """
    from sklearn.model_selection import KFold  # noqa: PLC0415

    surprises = _at_temperatures(logits, labels, evidence)
    probabilities = np.empty((len(labels), len(genres)), np.float32)
    answered = np.empty(len(labels), bool)
    parts = KFold(min(CROSS_FITS, len(labels)), shuffle=True, random_state=0)
    for others, part in parts.split(labels):
        calibration = _calibration(surprises[..., others], [logits[i] for i in others], labels[others], evidence)
        probabilities[part] = mean_probabilities([logits[i] for i in part], calibration.temperature, evidence)
        answered[part] = is_answered([logits[i] for i in part], calibration)
    return metrics(probabilities, labels, genres, answered)
