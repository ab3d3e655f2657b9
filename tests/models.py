"""What tests of saved models share: how they are damaged, compared and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crnn.checkpoint import CONFIG_FILE, WEIGHTS_FILE, CheckpointError
from crnn.network.model import CRNN
from crnn.sources import load_checkpoint


def assert_same(model: CRNN, expected: CRNN) -> None:
    """Bit for bit the same weights, and the same configuration."""
    assert model.config == expected.config
    weights, expected_weights = model.state_dict(), expected.state_dict()
    assert weights.keys() == expected_weights.keys()
    for name, tensor in weights.items():
        assert tensor.dtype == expected_weights[name].dtype
        assert tensor.numpy().tobytes() == expected_weights[name].numpy().tobytes(), name


def refusal(source: str | Path, load: Callable = load_checkpoint) -> str:
    """The message with which a model is refused: one sentence."""
    with pytest.raises(CheckpointError) as caught:
        load(source)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def truncate(folder: Path) -> None:
    """Cut off the end of the weights."""
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-7])


def edit(folder: Path, **values: object) -> None:
    """Change values in a config.json; None removes one."""
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
