"""A linear classifier beside the networks: what it is fitted to, and what its answer counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from crnn.features import N_MELS
from crnn.network.layers import energy, mean_logits
from crnn.network.linear import PENALTY, SHARPNESS, LinearClassifier
from crnn.network.model import CRNN
from crnn.network.songs import window_logits
from tests.network.test_model import CONFIG

LINEAR = replace(
    CONFIG, front="choi", members=2, summary=True, summary_channels=True, summary_components=5, linear=True
)


def test_it_is_a_logistic_regression_made_less_sharp() -> None:
    torch.manual_seed(0)
    rows, labels = torch.randn(60, 4), torch.randint(3, (60,))
    rows[:, 0] += labels
    counts = torch.rand(60) + 0.1
    linear = LinearClassifier(4, 3)
    linear.fit(rows, F.one_hot(labels, 3).float(), counts)
    # scikit-learn adds half of the squares to the sum of the losses
    peer = LogisticRegression(C=1 / (2 * PENALTY), tol=1e-8, max_iter=1_000)
    peer.fit(rows.numpy(), labels.numpy(), sample_weight=(counts / counts.sum()).numpy())
    np.testing.assert_allclose(linear.weight.numpy(), SHARPNESS * peer.coef_, atol=2e-3)
    np.testing.assert_allclose(
        linear(rows).softmax(-1).numpy(), softmax(SHARPNESS * peer.decision_function(rows.numpy())), atol=2e-3
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_rows_count_as_often_as_they_are_said_to() -> None:
    torch.manual_seed(0)
    rows, targets = torch.randn(20, 4), torch.rand(20, 3).softmax(-1)
    counted, repeated = LinearClassifier(4, 3), LinearClassifier(4, 3)
    counts = torch.arange(20) % 3
    counted.fit(rows, targets, counts)
    repeated.fit(rows.repeat_interleave(counts, 0), targets.repeat_interleave(counts, 0), torch.ones(int(counts.sum())))
    torch.testing.assert_close(counted.weight, repeated.weight, atol=1e-3, rtol=0)


def test_what_is_beside_members_counts_as_much_as_all_of_them_and_has_no_energy() -> None:
    members, beside = 3 * torch.randn(4, 5, 10), 3 * torch.randn(5, 10)
    together = mean_logits(members, beside)
    torch.testing.assert_close(together.softmax(-1), (members.softmax(-1).mean(0) + beside.softmax(-1)) / 2)
    torch.testing.assert_close(energy(together), energy(members.mean(0)))
    torch.testing.assert_close(mean_logits(members, beside + 7), together)


def test_the_model_answers_with_it() -> None:
    torch.manual_seed(0)
    model = CRNN(LINEAR).eval()
    clips = -80 * torch.rand(3, N_MELS, 48)
    model.fit(list(clips))
    model.requires_grad_(False)
    of_members = model.member_logits(clips).softmax(-1).mean(0)
    torch.testing.assert_close(model(clips).softmax(-1), (of_members + 1 / 3) / 2)  # before it is fitted
    torch.nn.init.normal_(model.linear.weight)
    by_itself = model.linear(model.of_channels(model.stem_of(clips))).softmax(-1)
    torch.testing.assert_close(model(clips).softmax(-1), (of_members + by_itself) / 2)
    for clip, logits in zip(clips, model(clips), strict=True):
        torch.testing.assert_close(window_logits(model, clip)[0][0], logits, atol=1e-4, rtol=1e-4)


def test_it_is_not_trained_and_needs_components() -> None:
    assert not any(value.requires_grad for value in CRNN(LINEAR).linear.parameters())
    assert CRNN(replace(CONFIG, linear=True)).linear is None
    assert CRNN(replace(LINEAR, summary_channels=False)).linear is None


@pytest.mark.parametrize("genres", [("rock", "jazz", "polka"), ("rock", "jazz")])
def test_another_model_takes_the_rows_of_genres_that_both_know(genres: tuple[str, ...]) -> None:
    base = CRNN(replace(LINEAR, genres=("jazz", "rock", "metal")))
    torch.nn.init.normal_(base.linear.weight)
    model = CRNN(replace(LINEAR, genres=genres))
    model.load_base(base)
    assert torch.equal(model.linear.weight[:2], base.linear.weight[[1, 0]])
    assert torch.equal(model.linear.weight[2:], torch.zeros(len(genres) - 2, 5))
