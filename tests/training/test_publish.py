"""Publishing: the real client against a Hub of our own, from which the model then answers."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import HubServer
from huggingface_hub import ModelCard, constants, get_session

from crnn.checkpoint import CARD_FILE, CONFIG_FILE, HISTORY_FILE, METRICS_FILE, NOTICE_FILE, WEIGHTS_FILE, save
from crnn.inference import GenreClassifier
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import load_public
from crnn.training import publish
from crnn.training.card import PLACE, model_card
from crnn.training.publish import prepare
from train import main

REPO = "someone/new"
PNG = b"\x89PNG picture"


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Someone is logged in; large files go the way that needs no server of its own."""
    monkeypatch.setenv("HF_TOKEN", "hf_someone")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def record(tiny_model: CRNN) -> dict:
    """The record of a training, as far as the card needs it."""
    recall = dict.fromkeys(tiny_model.config.genres, 0.5)
    names = ("accuracy_error", "nll", "ece", "ece_by_chance", "answered", "answered_right")
    figures = {"n": 9, "accuracy": 0.76543, "macro_f1": 0.7, "per_genre": recall, **dict.fromkeys(names, 0.1)}
    return {
        "protocol": "fault-filtered split of GTZAN",
        "clips": {"train": 20, "valid": 9},
        "command": "python train.py",
        "versions": {"torch": "2"},
        "trained_on": "fault-filtered split of GTZAN: train",
        "parameters": 1_000,
        "valid": figures,
    }


@pytest.fixture
def folder(tiny_model: CRNN, record: dict, tmp_path: Path) -> Path:
    """The model of a run, in the run's folder with its figures."""
    run = tmp_path / "run"
    save(tiny_model, run / "model", model_card(tiny_model, record))
    for place in (run, run / "model"):
        (place / METRICS_FILE).write_text(json.dumps(record))
    (run / "model" / HISTORY_FILE).write_text("epoch\n1\n")
    (run / "model" / "notes.txt").write_text("for myself")
    (run / "curves.png").write_bytes(PNG)
    (run / "confusion-valid.png").write_bytes(PNG)
    (run / "holiday.png").write_bytes(PNG)
    return run / "model"


def push(folder: Path, *options: str, repo: str = REPO) -> int:
    """Publish as a user would."""
    return main(["push", "--model", str(folder), "--repo", repo, *options])


def refusal(capsys: pytest.CaptureFixture, folder: Path, *options: str, repo: str = REPO) -> str:
    """The one sentence with which it is not published."""
    assert push(folder, *options, repo=repo) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith(".\n")
    return error.removeprefix("train.py: ").strip()


def published(hub: HubServer, branch: str = "main") -> dict[str, bytes]:
    """The files that are on the Hub now."""
    return hub.files[REPO][hub.branches[REPO][branch]]


def test_a_published_model_answers_at_once(
    hub: HubServer, folder: Path, tiny_model: CRNN, record: dict, capsys: pytest.CaptureFixture
) -> None:
    assert push(folder, "--message", "The first") == 0
    commit = hub.branches[REPO]["main"]
    assert f"{hub.url}/{REPO} has the model: --model {REPO}@{commit} uses" in capsys.readouterr().out
    assert hub.messages[commit] == "The first"
    assert len(hub.files[REPO]) == 2  # with the one that made the repo
    model, origin = load_public(REPO)
    assert (origin.repo, origin.revision) == (REPO, commit)
    assert f'from_pretrained("{REPO}")' in origin.card
    classifier = GenreClassifier.from_pretrained(f"{REPO}@{commit}")
    assert classifier.genres == tiny_model.config.genres
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert torch.equal(classifier.model.state_dict()[name], tensor)
    files = published(hub)
    assert files.keys() == {
        *(".gitattributes", CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE, HISTORY_FILE),
        *("curves.png", "confusion-valid.png"),
    }
    assert json.loads(files[METRICS_FILE]) == record
    assert files["curves.png"] == PNG


def test_the_card_tells_the_hub_what_it_wants_to_know(hub: HubServer, folder: Path) -> None:
    push(folder)
    card = ModelCard(published(hub)[CARD_FILE].decode())
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "mit",
        "genre-crnn",
        "audio-classification",
    )
    assert card.data.datasets == ["marsyas/gtzan"]
    assert [(r.metric_type, r.metric_value, r.dataset_split, r.dataset_type) for r in card.data.eval_results] == [
        ("accuracy", 0.7654, "validation", "marsyas/gtzan"),
        ("f1", 0.7, "validation", "marsyas/gtzan"),
    ]
    assert PLACE not in card.text


def test_a_fine_tuned_model_names_its_base_and_no_figures_of_what_that_has_heard(
    hub: HubServer, folder: Path, tiny_model: CRNN, record: dict
) -> None:
    started_from = {"name": "me/base", "revision": "a" * 40, "trained_on": "x" * 1_000}
    record |= {"recipe": {"base": started_from}, "test": record["valid"], "heard": ["valid"]}
    (folder / CARD_FILE).write_text(model_card(tiny_model, record))
    (folder / METRICS_FILE).write_text(json.dumps(record))
    push(folder)
    card = ModelCard(published(hub)[CARD_FILE].decode())
    assert (card.data.base_model, card.data.license) == ("me/base", "other")
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}
    assert f"[me/base]({hub.url}/me/base) at commit {'a' * 40}" in card.text
    assert "x" * 200 not in card.text
    assert "- **That model has heard such valid clips**" in card.text


def test_what_a_base_is_called_and_was_trained_on_is_no_markup(tiny_model: CRNN, record: dict) -> None:
    base = {"name": "me/my_*base*", "trained_on": "# GTZAN"}
    card = model_card(tiny_model, record | {"recipe": {"base": base}})
    assert "it started from me/my\\_\\*base\\*, which had been trained on # GTZAN." in card
    from_hub = model_card(tiny_model, record | {"recipe": {"base": base | {"name": "me/a_b", "revision": "a" * 40}}})
    assert "[me/a\\_b](https://huggingface.co/me/a_b)" in from_hub


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("R*B*", r"R\*B\*"),
        ("_emo_ [a](b)", r"\_emo\_ \[a\](b)"),
        ("`x` $y$", r"\`x\` \$y\$"),
        ("a|b\\", r"a\|b\\"),
        ("<img src=x>", r"\<img src=x\>"),
        ("R&B http://x.org", r"R\&B http\://x.org"),
        ("Www.x.org", r"Www\.x.org"),
        ("Lo-fi (80s), No. 1", "Lo-fi (80s), No. 1"),
    ],
)
def test_names_of_genres_are_no_markup(tiny_model: CRNN, record: dict, name: str, escaped: str) -> None:
    record["valid"]["per_genre"] = dict.fromkeys(genres := (name, "jazz"), 0.5)
    card = model_card(CRNN(replace(tiny_model.config, genres=genres)), record)
    assert f"spectrogram: {escaped}, jazz." in card
    assert f"| {escaped} | 0.50 |" in card


def test_a_command_of_several_lines_leaves_the_rest_of_its_section_as_it_was(tiny_model: CRNN, record: dict) -> None:
    record["command"] = "python train.py --data '/my\nmusic'"
    lines = model_card(tiny_model, record).splitlines()
    place = lines.index("## How it was trained")
    assert lines[place + 2 : place + 4] == ["    python train.py --data '/my", "    music'"]
    assert lines[place + 5].startswith("- Data: ")


def test_a_card_that_was_edited_keeps_its_words(hub: HubServer, folder: Path) -> None:
    (folder / CARD_FILE).write_text(f"---\nlicense: cc0-1.0\ntags: [mine]\n---\n# My words\n{PLACE}\n")
    push(folder)
    text = published(hub)[CARD_FILE].decode()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert (metadata["license"], metadata["tags"]) == ("cc0-1.0", ["mine"])
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.7654
    assert text.endswith(f"# My words\n{REPO}\n")


def test_other_music_is_not_called_gtzan(tiny_model: CRNN, record: dict) -> None:
    data = ModelCard(model_card(tiny_model, record | {"protocol": "random split by track"})).data
    assert data.datasets is None
    assert {result.dataset_type for result in data.eval_results} == {"audiofolder"}


@pytest.mark.parametrize(
    ("outlier_share", "changes", "words", "unknown"),
    [
        (0.1, {"band_limit": 0.2, "probability": 1.0}, ["synthetic noise", "as in a telephone"], None),
        (0.1, {"band_limit": 0.2, "probability": 0.0}, ["synthetic noise"], "a telephone's sound"),
        (0.0, {"band_limit": 0.2}, ["as in a telephone"], "speech or of noise"),
        (0.0, {"band_limit": 0.0}, [], "speech or of noise or of a telephone's sound"),
    ],
)
@pytest.mark.parametrize("protocol", ["fault-filtered split of GTZAN", "random split by track"])
def test_a_card_says_of_other_sounds_what_the_training_speaks_for(
    tiny_model: CRNN,
    record: dict,
    protocol: str,
    outlier_share: float,
    changes: dict,
    words: list[str],
    unknown: str | None,
) -> None:
    record |= {
        "protocol": protocol,
        "recipe": {"training": {"outlier_share": outlier_share}, "augmentation": changes},
    }
    limits = " ".join(model_card(tiny_model, record).partition("## What it is not for")[2].split())
    said = [text for text in ("synthetic noise", "as in a telephone", "far more often") if text in limits]
    assert said == words
    assert ("not measured" in limits) == bool(unknown)
    assert f"What it makes of {unknown} was not measured." in limits or not unknown


def test_a_dry_run_shows_everything_and_asks_nobody(
    hub: HubServer, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push(folder, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f"{(folder / WEIGHTS_FILE).stat().st_size:,} bytes  {WEIGHTS_FILE}" in shown
    assert shown.startswith(f"{hub.url}/{REPO}\n")
    assert all(text in shown for text in ("curves.png", "model-index", "marsyas/gtzan", "nothing was sent"))
    assert "notes.txt" not in shown
    assert not hub.requests


def test_what_an_earlier_push_left_goes_and_other_files_stay(hub: HubServer, folder: Path) -> None:
    push(folder)
    hub.commit(REPO, published(hub) | {"mine.png": b"", "confusion-test.png": b""})
    (folder.parent / "curves.png").unlink()
    (folder / HISTORY_FILE).unlink()
    assert push(folder) == 0
    assert published(hub).keys() == {
        *(".gitattributes", CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE),
        *("confusion-valid.png", "mine.png"),
    }


def test_a_model_of_published_nets_goes_with_their_notice(
    hub: HubServer, folder: Path, record: dict, tmp_path: Path
) -> None:
    model = CRNN(CRNNConfig(genres=("rock", "jazz", "disco"), front="mn04"))
    save(model, tmp_path / "of others", model_card(model, record))
    assert push(tmp_path / "of others") == 0
    notice = published(hub)[NOTICE_FILE].decode()
    assert "Copyright (c) 2022 Florian Schmid\n" in notice
    assert "Permission is hereby granted, free of charge, " in notice
    (tmp_path / "of others" / NOTICE_FILE).write_text(f"{notice}\nMy own, too.\n", "utf-8")
    assert prepare(tmp_path / "of others", REPO).files[NOTICE_FILE].decode() == f"{notice}\nMy own, too.\n"
    (tmp_path / "of others" / NOTICE_FILE).unlink()  # as an earlier version left it
    assert prepare(tmp_path / "of others", REPO).files[NOTICE_FILE].decode() == notice
    (tmp_path / "of others" / NOTICE_FILE).write_text("My own.\n", "utf-8")
    assert prepare(tmp_path / "of others", REPO).files[NOTICE_FILE].decode() == f"{notice}\nMy own.\n"
    assert NOTICE_FILE not in prepare(folder, REPO).files


@pytest.mark.parametrize("name", ["curves.png", HISTORY_FILE, METRICS_FILE, CARD_FILE, NOTICE_FILE])
def test_what_a_link_leads_to_elsewhere_is_not_published(
    hub: HubServer, folder: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "secret").write_text("a token")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    assert refusal(capsys, folder, "--dry-run").startswith(f"{folder / name} is a link to a file elsewhere")
    assert refusal(capsys, folder).startswith(f"{folder / name} is a link to a file elsewhere")
    assert not hub.requests


@pytest.mark.parametrize("name", ["curves.png", HISTORY_FILE, METRICS_FILE, CARD_FILE])
def test_what_is_too_large_to_be_published_is_said_to_be(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(publish, "MOST_FIGURE_BYTES", 1_000)
    (folder / name).write_bytes(b"#" * 1_000_001)
    assert refusal(capsys, folder, "--dry-run").startswith(f"{folder / name} is larger than ")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no pipes in folders")
def test_only_regular_files_are_figures(folder: Path) -> None:
    os.mkfifo(folder.parent / "confusion-pipe.png")
    os.mkfifo(folder / "confusion-valid.png")
    (folder / "confusion-folder.png").mkdir()
    figures = {name for name in prepare(folder, REPO).files if name.endswith(".png")}
    assert figures == {"curves.png", "confusion-valid.png"}


def test_a_card_that_was_kept_aside_stays_at_home(folder: Path) -> None:
    for name in (f"{CARD_FILE}.bak", f"{CARD_FILE}.bak2"):
        (folder / name).write_text("For myself.")
    assert not any(".bak" in name for name in prepare(folder, REPO).files)


def test_figures_of_another_model_stay_at_home(hub: HubServer, folder: Path, record: dict) -> None:
    (folder / METRICS_FILE).write_text(json.dumps(record | {"parameters": 2}))
    (folder / "reliability-valid.png").write_bytes(PNG)
    push(folder)
    assert {name for name in published(hub) if name.endswith(".png")} == {"reliability-valid.png"}


def test_after_calibration_neither_the_reliability_nor_the_test_is_sent(
    hub: HubServer, folder: Path, record: dict
) -> None:
    (folder.parent / METRICS_FILE).write_text(json.dumps(record | {"test": record["valid"]}))
    for name in ("reliability-valid.png", "confusion-test.png"):
        (folder.parent / name).write_bytes(PNG)
    (folder / METRICS_FILE).write_text(json.dumps(record | {"calibration": {"temperature": 1.0}}))
    push(folder)
    assert {name for name in published(hub) if name.endswith(".png")} == {"confusion-valid.png", "curves.png"}


def test_the_figures_around_are_found_from_inside(
    hub: HubServer, folder: Path, record: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert {"curves.png", "confusion-valid.png"} <= prepare(Path(), REPO).files.keys()


def test_a_branch_is_made_and_main_stays(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    assert push(folder, "--revision", "exp/louder") == 0
    assert published(hub).keys() == {".gitattributes"}
    assert WEIGHTS_FILE in published(hub, "exp/louder")
    assert load_public(f"{REPO}@exp/louder")[0].config == tiny_model.config


def test_private_means_private(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert push(folder, "--private") == 0
    assert REPO in hub.private
    assert push(folder, "--private") == 0
    hub.private.clear()
    commit = hub.branches[REPO]["main"]
    assert f"{REPO} is public on the Hub already" in refusal(capsys, folder, "--private")
    assert hub.branches[REPO]["main"] == commit


def test_what_is_no_model_of_ours_stays_at_home(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert f"is not a model folder: it has no config.json, but {folder} has" in refusal(capsys, folder.parent)
    (folder / METRICS_FILE).write_text('{"valid": {}}')
    assert f"The {CARD_FILE} or {METRICS_FILE} of {folder} cannot be understood" in refusal(capsys, folder)
    (folder / METRICS_FILE).unlink()
    (folder / CARD_FILE).write_text("---\n: {\n---\n")
    assert "cannot be understood" in refusal(capsys, folder)
    (folder / CARD_FILE).unlink()
    assert f"has no model card {CARD_FILE}" in refusal(capsys, folder)
    (folder / WEIGHTS_FILE).write_bytes(b"")
    assert "is damaged" in refusal(capsys, folder)
    assert not hub.requests


@pytest.mark.parametrize("repo", ["new", "a/b/c", "someone/new@main", "some--one/new", "../new", "", "a/b\nc"])
def test_impossible_names_are_refused(hub: HubServer, folder: Path, repo: str, capsys: pytest.CaptureFixture) -> None:
    assert "is no name of a model on the Hub" in refusal(capsys, folder, repo=repo)
    assert not hub.requests


@pytest.mark.parametrize("token", ["hf_someone", "hf_sóme"])
def test_a_login_that_was_not_what_could_not_be_sent(
    token: str, folder: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """But a name that is no text."""
    monkeypatch.setenv("HF_TOKEN", token)
    if token.isascii():
        push(folder)
    said = refusal(capsys, folder, "--revision", os.fsdecode(b"caf\xe9"))
    assert said.startswith("The Hub does not accept this login") == (not token.isascii())


def test_a_missing_or_a_false_login(
    hub: HubServer, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert refusal(capsys, folder).startswith("The Hub does not accept this login: log in with `hf auth login`")
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_sóme")
    assert refusal(capsys, folder).startswith("The Hub does not accept this login: log in with `hf auth login`")
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(capsys, folder).startswith("Publishing needs a login on the Hub: log in with `hf auth login`")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder))
    assert refusal(capsys, folder).startswith(f"The login on the Hub in {folder} cannot be read: log in with")
    assert not hub.requests


def test_a_repo_of_somebody_else(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture) -> None:
    for repo in ("else/missing", "else/public", "else/private"):
        assert f"You may not write to {repo} on the Hub" in refusal(capsys, folder, repo=repo)
        hub.push("else/public", folder)
        hub.push("else/private", folder)
        hub.private.add("else/private")


def test_a_card_that_the_hub_does_not_take(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / CARD_FILE).write_text("---\nlicense: [mit, isc]\n---\n# A card\n")
    assert "does not take the card of this model" in (error := refusal(capsys, folder))
    assert '"license" must be a string' in error
    assert WEIGHTS_FILE not in published(hub)


def test_what_the_client_refuses_to_send_is_not_blamed_on_the_hub(hub: HubServer, folder: Path) -> None:
    with pytest.raises(
        publish.CheckpointError, match=r"^The Hub's client does not send this \(.*empty.*\): nothing was"
    ):
        publish.push(publish.prepare(folder, REPO), message="")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"status": 503}, "The Hub answers 503 Service Unavailable"),
        ({"is_portal": True}, "The Hub does not answer"),
        ({"hangs": True}, "The Hub does not answer"),
    ],
)
def test_a_hub_in_trouble(
    hub: HubServer,
    folder: Path,
    trouble: dict,
    words: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "HUB_TIMEOUT_SECONDS", 0.3)
    vars(hub).update(trouble)
    assert refusal(capsys, folder) == f"{words}: nothing was published; try again later."


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"hangs": True, "where": "/repos/create"}, "The Hub does not answer"),
        ({"is_portal": True, "where": "/tree/"}, "The Hub answered, but the upload broke off"),
        ({"hangs": True, "where": "/large/"}, "The Hub answered, but the upload broke off"),
        ({"status": 403, "where": "/large/"}, "The Hub answered, but the upload broke off"),
        ({"hangs": True, "where": "/commit/"}, "The Hub did not confirm what was sent"),
        ({"is_portal": True, "where": "/commit/"}, "The Hub did not confirm what was sent"),
        ({"status": 504, "where": "/commit/"}, "The Hub answers 504 Gateway Timeout"),
        ({"status": 413, "where": "/commit/"}, "The Hub answers 413 "),
    ],
)
def test_a_hub_that_lets_an_upload_down(
    hub: HubServer,
    folder: Path,
    trouble: dict,
    words: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the question that makes a commit nobody knows whether there is one, unless the Hub has refused it."""
    monkeypatch.setattr(publish, "WAIT_SECONDS", 0.4)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    vars(hub).update(trouble)
    said = refusal(capsys, folder)
    assert said.startswith(words)
    is_unknown = trouble["where"] == "/commit/" and trouble.get("status") != 413
    assert said.endswith(f"look at {hub.url}/{REPO} before you try again.") == is_unknown
    assert is_unknown or "perhaps" not in said
    assert get_session().timeout.read is None


@pytest.mark.parametrize("is_there", [True, False])
def test_the_client_of_the_hub_stays_as_somebody_has_made_it(hub: HubServer, folder: Path, is_there: bool) -> None:
    """With a proxy or certificates of his own, which its factory alone knows."""
    client = get_session()
    made = client.timeout, client.event_hooks
    if not is_there:
        vars(hub).update(status=403, where="/large/")
    assert push(folder) == (0 if is_there else 2)
    assert get_session() is client
    assert (client.timeout, client.event_hooks) == made


def test_no_hub_at_all(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture) -> None:
    hub.stop()
    assert refusal(capsys, folder) == "The Hub does not answer: nothing was published; try again later."
