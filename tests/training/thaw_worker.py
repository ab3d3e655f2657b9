"""A training whose pretrained weights rest at first, alone or, as a script, as one of several processes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from crnn.network.model import CRNN
from crnn.training.trainer import Trainer
from tests.training.test_fit import CONFIG, NO_AUGMENTATION, make_clips, training

EPOCHS = 4


def course(thaw: float, copies: int = 0) -> dict:
    """For each epoch whether the pretrained weights are what they were, of the model and of its average.

    "others" says the same of all other weights, "sum" is that of all weights at the end.
    """
    torch.manual_seed(0)
    config = training(epochs=EPOCHS, thaw=thaw, copies=copies, outlier_share=0.0)
    trainer = Trainer(CRNN(replace(CONFIG, front="choi", bottleneck=3)), make_clips(8), config, NO_AUGMENTATION)
    known = {id(value) for value in trainer.model.pretrained_parameters()}
    names = {name for name, value in trainer.model.named_parameters() if id(value) in known}
    start = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    said = {"model": [], "average": [], "others": []}
    with tqdm(disable=True) as bar:
        for _ in range(EPOCHS):
            trainer.epoch(bar)
            for part, model in (("model", trainer.model), ("average", trainer.average.module)):
                same = {name: torch.equal(value, start[name]) for name, value in model.named_parameters()}
                assert len({same[name] for name in names}) == 1, same  # all rest, or none
                said[part].append(same[next(iter(names))])
            said["others"].append(any(same[name] for name in same.keys() - names))
    return {**said, "sum": sum(value.double().sum().item() for value in trainer.model.parameters())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = course(float(sys.argv[1]), copies=2)
    rank = torch.distributed.get_rank()
    (Path(sys.argv[2]) / f"{rank}.json").write_text(json.dumps(result))
