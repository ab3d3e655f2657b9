"""What goes with a model of published nets: whose they are, and under which licence."""

import re

import pytest

from crnn.bundle import DEFAULT_MODEL
from crnn.checkpoint import NOTICE_FILE
from crnn.network.fronts import FRONTS, front_of
from crnn.network.licences import LICENCES, notice_of
from crnn.sources import BUNDLED, bundled_names, load_checkpoint


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_model_has_the_notice_that_a_training_writes(name: str) -> None:
    path = BUNDLED / name / NOTICE_FILE
    written = path.read_text("utf-8") if path.is_file() else ""
    assert notice_of(front_of(load_checkpoint(name)[0].config.front).sources) == written
    assert bool(written) == (name == DEFAULT_MODEL)


@pytest.mark.parametrize("name", FRONTS)
def test_a_notice_names_the_holder_and_the_licence_that_the_card_names(name: str) -> None:
    front = front_of(name)
    notice, card = notice_of(front.sources), " ".join(front.notice.split())
    assert bool(notice) == bool(card)
    for licence, year, holder in re.findall(r"(\w+) licence, copyright (\d+)? ?([^)]+)\)", card):
        assert f"from a published network, under the {licence} licence:\n" in notice
        assert notice.endswith(f"\n\n{LICENCES[licence]}")
        line = next(line for line in notice.splitlines() if line.startswith("    Copyright (c) "))
        assert holder in line
        assert year in line
    assert ("AudioSet's ontology" in notice) == ("AudioSet's ontology" in card)


def test_each_licence_stands_once_behind_its_nets() -> None:
    notice = notice_of(front_of("won+musicnn+mn04+mn04-kinds").sources)
    first, second = notice.split(f"\n{LICENCES['MIT']}\n")
    assert first.startswith("The convolutions of this model are trained further from two published networks, each ")
    assert first.count("EfficientAT, mn04") == first.count("AudioSet's ontology") == 1
    assert second.startswith("The convolutions of this model are trained further from a published network, under the I")
    assert second.endswith(LICENCES["ISC"])
