"""Where models come from: folders, the bundled ones, and the Hub in its good and bad hours."""

import errno
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants, file_download
from models import assert_same, edit, refusal, truncate
from safetensors.torch import load_file, save_file

from crnn import files, sources
from crnn.bundle import DEFAULT_MODEL, MODEL_VARIABLE
from crnn.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    MOST_BYTES,
    WEIGHTS_FILE,
    CheckpointError,
    optional_text,
    save,
)
from crnn.inference import GenreClassifier
from crnn.network.config import VERDICTS
from crnn.network.model import CRNN
from crnn.sources import Origin, load_checkpoint, load_public

REPO = "someone/tiny"


@pytest.fixture
def other_folder(tiny_model: CRNN, tmp_path: Path) -> Path:
    """A saved model with other weights."""
    model = deepcopy(tiny_model)
    model.members[0].classifier.linear.bias.data += 1
    save(model, tmp_path / "other", card="")
    return tmp_path / "other"


@pytest.fixture(autouse=True)
def bundled(tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundled models; it has the default one, whose genres tell that it is bundled."""
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "BUNDLED", tmp_path / "bundled")
    bundled_model = CRNN(replace(tiny_model.config, genres=("bundled", "default")))
    save(bundled_model, tmp_path / "bundled" / DEFAULT_MODEL, card="")
    return tmp_path / "bundled"


def public_refusal(source: str) -> str:
    """The message with which a stranger's wish is refused: short, and silent about this machine."""
    message = refusal(source, load_public)
    assert len(message) < 400
    assert message.isprintable()
    assert str(Path(constants.HF_HUB_CACHE).parent) not in message
    assert "log in" not in message
    return message


# Where a model comes from


def test_the_default_is_bundled() -> None:
    model, origin = load_checkpoint()
    assert model.config.genres == ("bundled", "default")
    assert (origin.name, origin.notice) == (f"{DEFAULT_MODEL} (bundled)", None)


def test_a_bundled_model_by_its_name(bundled: Path, tiny_model: CRNN) -> None:
    save(tiny_model, bundled / "second", card="")
    model, origin = load_checkpoint("second")
    assert_same(model, tiny_model)
    assert origin.name == "second (bundled)"


def test_the_environment_names_the_model_unless_the_caller_does(
    folder: Path, tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(folder))
    assert_same(load_checkpoint()[0], tiny_model)
    assert load_checkpoint(DEFAULT_MODEL)[0].config.genres == ("bundled", "default")
    monkeypatch.setenv(MODEL_VARIABLE, "")
    assert load_checkpoint()[0].config.genres == ("bundled", "default")


def test_a_folder_wins_over_the_hub(
    folder: Path, tiny_model: CRNN, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    folder.rename(tmp_path / REPO)
    model, origin = load_checkpoint(REPO)
    assert_same(model, tiny_model)
    assert origin.name == f"{REPO} (folder)"
    assert not hub.requests


def test_a_folder_that_cannot_be_read_is_no_question_to_the_hub(
    hub: HubServer, tmp_path: Path, as_somebody: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BUNDLED", Path("bundled"))
    closed = tmp_path / REPO / "model"
    closed.mkdir(parents=True)
    (closed / CONFIG_FILE).touch()
    closed.chmod(0)
    with as_somebody():
        assert refusal(REPO) == f"{REPO} is not a model folder: it has no {CONFIG_FILE}."
    assert not hub.requests


@pytest.mark.parametrize(
    "name",
    [
        "no-such-model",
        "a/../../etc",
        "../models",
        "..",
        "/no/such/folder",
        "https://hub.example/someone/tiny",
        "someone/tiny@../..",
        "someone/tiny@main/../../x",
        "someone/tiny@/etc/passwd",
        "someone/tiny@",
        "someone/tiny@a@b",
        "someone/tiny\n",
        "someone/..",
        "x" * 5_000,
        "nul\0sign",
    ],
)
def test_what_names_no_model_is_refused_without_asking_the_hub(
    name: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(name)
    if name != "..":  # a folder, but not of a model
        assert f"There is no model {name!r}" in str(caught.value)
        assert f"a bundled model ({DEFAULT_MODEL})" in str(caught.value)
    assert not hub.requests


def test_a_name_that_the_client_refuses(hub: HubServer) -> None:
    assert "no public model someone--else/tiny" in refusal("someone--else/tiny")
    assert not hub.requests


def test_the_bundled_model_stands_in_with_a_notice(folder: Path) -> None:
    truncate(folder)
    model, origin = load_checkpoint(folder, fallback=True)
    assert model.config.genres == ("bundled", "default")
    assert origin.name == f"{DEFAULT_MODEL} (bundled)"
    assert origin.notice == f"{refusal(folder)} The bundled model {DEFAULT_MODEL} answers instead."


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_bundled_model_stands_in_where_a_genre_has_the_name_of_a_verdict(folder: Path, verdict: str) -> None:
    edit(folder, genres=["rock", "jazz", verdict])
    (folder / WEIGHTS_FILE).unlink()  # it is refused before these are read
    classifier = GenreClassifier.from_pretrained(folder, fallback=True)
    assert classifier.genres == ("bundled", "default")
    assert f"no genre can be called {verdict!r}" in classifier.origin.notice


def test_without_bundled_models_the_refusal_stands(bundled: Path) -> None:
    bundled.rename(bundled.parent / "elsewhere")
    assert f"There is no model {DEFAULT_MODEL!r}" in refusal(DEFAULT_MODEL)
    with pytest.raises(CheckpointError):
        load_checkpoint("no-such-model", fallback=True)


# The Hub


def test_download_main_a_branch_and_a_commit(
    hub: HubServer, folder: Path, other_folder: Path, tiny_model: CRNN
) -> None:
    main = hub.push(REPO, folder)
    other = hub.push(REPO, other_folder, branch="exp/louder")
    models = {main: tiny_model, other: load_checkpoint(other_folder)[0]}
    sources = {"": main, "@main": main, "@exp/louder": other, f"@{other}": other, f"@{main}": main}
    for revision, commit in sources.items():
        model, origin = load_checkpoint(REPO + revision)
        assert (origin.name, origin.notice) == (f"{REPO}@{commit[:7]} (Hub)", None)
        assert_same(model, models[commit])
    assert_same(GenreClassifier.from_pretrained(REPO).model, tiny_model)


@pytest.mark.usefixtures("hub")
def test_a_proxy_that_cannot_be_used_is_not_the_hubs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    assert refusal(REPO).startswith("A proxy that the environment names, as in ALL_PROXY or NO_PROXY, cannot")


def test_the_library_downloads_the_same_weights(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    hub.push(REPO, folder)
    assert_same(CRNN.from_pretrained(REPO, strict=True), tiny_model)


def test_nothing_is_downloaded_twice(hub: HubServer, folder: Path) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    assert sum(request.startswith("GET") for request in hub.requests) == 3  # the card is the third
    hub.requests.clear()
    load_checkpoint(REPO)
    assert not any(request.startswith("GET") for request in hub.requests)


def test_a_new_commit_is_noticed(hub: HubServer, folder: Path, other_folder: Path, tiny_model: CRNN) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    commit = hub.push(REPO, other_folder)
    model, origin = load_checkpoint(REPO)
    assert origin.name == f"{REPO}@{commit[:7]} (Hub)"
    assert not torch.equal(model.members[0].classifier.linear.bias, tiny_model.members[0].classifier.linear.bias)


def test_both_files_are_of_one_commit_when_the_branch_moves_meanwhile(
    hub: HubServer, folder: Path, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(other_folder, temperature=2.0)
    hub.push(REPO, folder)
    ask_commit = sources.ask_commit

    def ask_then_move(*args: object) -> str:
        commit = ask_commit(*args)
        hub.push(REPO, other_folder)
        return commit

    monkeypatch.setattr(sources, "ask_commit", ask_then_move)
    model, _ = load_checkpoint(REPO)
    assert model.config.temperature == 2.0
    assert_same(model, load_checkpoint(other_folder)[0])


@pytest.mark.parametrize("revision", ["", "@main", "@exp/louder", "@commit"])
def test_the_cached_copy_serves_when_the_hub_is_down(
    hub: HubServer, folder: Path, tiny_model: CRNN, revision: str
) -> None:
    commit = hub.push(REPO, folder)
    hub.push(REPO, folder, branch="exp/louder")
    source = REPO + revision.replace("commit", commit)
    load_checkpoint(source)
    hub.stop()
    model, origin = load_checkpoint(source)
    assert_same(model, tiny_model)
    if revision == "@commit":  # cannot have changed, so it is as good as new
        assert (origin.name, origin.notice) == (f"{REPO}@{commit[:7]} (Hub)", None)
    else:
        assert origin.name == f"{REPO}@{commit[:7]} (Hub)"
        assert origin.notice == f"The Hub does not answer; this is the copy of {source} kept here."


def test_a_cached_commit_needs_no_network(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    commit = hub.push(REPO, folder)
    load_checkpoint(REPO)
    hub.requests.clear()
    assert_same(load_checkpoint(f"{REPO}@{commit}")[0], tiny_model)
    assert not hub.requests


def test_an_incomplete_commit_in_the_cache_is_completed(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    commit = hub.push(REPO, folder)
    load_checkpoint(REPO)
    for path in Path(constants.HF_HUB_CACHE).rglob(CONFIG_FILE):
        path.unlink()
    assert_same(load_checkpoint(f"{REPO}@{commit}")[0], tiny_model)


@pytest.mark.parametrize("load", [load_checkpoint, load_public])
@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_what_was_damaged_in_the_cache_is_downloaded_again(
    hub: HubServer, folder: Path, tiny_model: CRNN, name: str, load: Callable
) -> None:
    """Also where an earlier commit has the same file."""
    hub.push(REPO, folder)
    load(REPO)
    (folder / CARD_FILE).write_text("# Another card\n")
    commit = hub.push(REPO, folder)
    (path,) = load(REPO)[1].folder.glob(name)
    path.resolve().write_bytes(path.read_bytes()[:100])
    for source in (f"{REPO}@{commit}", REPO):
        model, origin = load(source)
        assert_same(model, tiny_model)
        assert (origin.revision, origin.notice) == (commit, None)


def test_what_was_damaged_in_the_cache_is_said_while_the_hub_is_silent(hub: HubServer, folder: Path) -> None:
    commit = hub.push(REPO, folder)
    path = load_checkpoint(REPO)[1].folder / WEIGHTS_FILE
    truncate(path.parent)
    damaged = path.read_bytes()
    hub.stop()
    for source in (REPO, f"{REPO}@{commit}"):
        assert refusal(source) == (
            f"The Hub does not answer, and the copy of {source} kept here is damaged: the same command later downloads "
            "it again."
        )
    assert path.read_bytes() == damaged


def test_what_is_unfit_on_the_hub_is_not_downloaded_again(hub: HubServer, folder: Path) -> None:
    """Nor is its copy called damaged: it is what the Hub has."""
    truncate(folder)
    hub.push(REPO, folder)
    for n_downloads in (1, 0):
        hub.requests.clear()
        assert f"The {WEIGHTS_FILE} of {REPO} is damaged or does not fit" in refusal(REPO)
        assert sum(request.startswith("GET") and WEIGHTS_FILE in request for request in hub.requests) == n_downloads
    hub.stop()
    assert f"The {WEIGHTS_FILE} of {REPO} is damaged or does not fit" in refusal(REPO)


def test_an_unfit_configuration_on_the_hub_is_asked_for_once(hub: HubServer, folder: Path) -> None:
    (folder / CONFIG_FILE).write_text("{")
    hub.push(REPO, folder)
    refusal(REPO)
    hub.requests.clear()
    assert f"The {CONFIG_FILE} of {REPO} is damaged" in refusal(REPO)
    assert len(hub.requests) == 1  # which commit it is


def test_only_what_was_damaged_in_the_cache_is_downloaded_again(hub: HubServer, folder: Path) -> None:
    hub.push(REPO, folder)
    truncate(load_checkpoint(REPO)[1].folder)
    hub.requests.clear()
    load_checkpoint(REPO)
    assert [request.rpartition("/")[2] for request in hub.requests if request.startswith("GET")] == [WEIGHTS_FILE]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list what is mapped")
def test_what_was_damaged_in_the_cache_is_let_go_of_before_it_is_replaced(
    hub: HubServer, folder: Path, tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a file that is mapped cannot be."""
    hub.push(REPO, folder)
    path = (load_checkpoint(REPO)[1].folder / WEIGHTS_FILE).resolve()
    save_file({name: tensor * torch.nan for name, tensor in load_file(path).items()}, path)
    download, mapped = sources.download, []

    def watched(*args: object, **options: object) -> tuple[Path, Origin]:
        mapped.append(str(path) in Path("/proc/self/maps").read_text())
        return download(*args, **options)

    monkeypatch.setattr(sources, "download", watched)
    assert_same(load_checkpoint(REPO)[0], tiny_model)
    assert mapped == [False, False]


@pytest.mark.parametrize("load", [load_checkpoint, load_public])
def test_a_download_that_breaks_off_is_no_silent_hub(
    hub: HubServer, folder: Path, load: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    hub.push(REPO, folder)
    hub.cuts, hub.knows_ranges = [100] + 20 * [0], False
    ending = ": try again later, or take a bundled model."
    if load is load_checkpoint:
        ending = f", and {REPO} was only partly downloaded: the same command goes on."
    assert refusal(REPO, load) == f"The Hub answered, but the download broke off{ending}"


def test_a_token_that_cannot_be_sent_is_no_silent_hub(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_sóme")
    login = "The login on the Hub, from HF_TOKEN or `hf auth login`, cannot be used"
    assert refusal("someone/unknown").startswith(login)
    assert load_checkpoint(REPO)[1].notice.startswith(login)
    assert load_public(REPO)[1].notice is None  # as it sends none


@pytest.mark.parametrize("home", ["with a folder for a token", "a file"])
def test_a_login_that_cannot_be_read_is_as_none(
    home: str, hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the token of another user is; so that root cannot read it either, it is a folder here, or below a file."""
    token = tmp_path / "home" / "token"
    if home == "a file":
        token.parent.write_text("in the way")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(token.parent / "hub"))
    else:
        token.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub.push(REPO, folder)
    hub.private.add("someone/private")
    hub.push("someone/private", folder)
    if home == "a file":
        assert re.search(r"home/hub\S* cannot be written \(Not a directory\)", refusal(REPO))
    else:
        assert load_checkpoint(REPO)[1].notice is None
        assert "or log in with `hf auth login` if it is private" in refusal("someone/private")
    assert hub.tokens == {None}
    hub.stop()
    origin = load_checkpoint(REPO, fallback=True)[1]
    assert origin.notice.startswith("The Hub does not answer")
    assert origin.name.startswith(DEFAULT_MODEL if home == "a file" else REPO)


def test_nothing_cached_and_the_hub_down(hub: HubServer) -> None:
    hub.stop()
    assert refusal(REPO) == f"The Hub does not answer, and {REPO} has not been downloaded before."
    model, origin = load_checkpoint(f"{REPO}@v1", fallback=True)
    assert model.config.genres == ("bundled", "default")
    assert origin.notice == (
        f"The Hub does not answer, and {REPO}@v1 has not been downloaded before. "
        f"The bundled model {DEFAULT_MODEL} answers instead."
    )


def test_a_half_downloaded_model_does_not_hide_the_complete_one(
    hub: HubServer, folder: Path, other_folder: Path, tiny_model: CRNN
) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    (other_folder / CONFIG_FILE).rename(other_folder / "later.json")
    hub.push(REPO, other_folder)
    assert "lacks config.json or model.safetensors" in refusal(REPO)
    (other_folder / "later.json").rename(other_folder / CONFIG_FILE)
    (other_folder / WEIGHTS_FILE).unlink()
    hub.push(REPO, other_folder)
    assert "lacks config.json or model.safetensors" in refusal(REPO)
    hub.stop()
    assert_same(load_checkpoint(REPO)[0], tiny_model)


@pytest.mark.parametrize("manner", ["hangs", "drips"])
def test_a_hub_that_never_comes_to_an_end_costs_no_more_than_the_timeout(
    hub: HubServer, folder: Path, tiny_model: CRNN, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    monkeypatch.setattr(sources, "HUB_TIMEOUT_SECONDS", 0.5)
    setattr(hub, manner, True)
    for source in (REPO, "someone/unknown"):
        hub.requests.clear()
        _, origin = load_checkpoint(source, fallback=True)
        assert len(hub.requests) == 1
        assert origin.notice.startswith("The Hub does not answer")


@pytest.mark.parametrize(
    ("status", "words"), [(500, "500 Internal Server Error"), (503, "503 Service Unavailable"), (429, "429 Too Many")]
)
def test_an_error_of_the_hub_leads_to_the_cached_copy(
    hub: HubServer, folder: Path, tiny_model: CRNN, status: int, words: str
) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    hub.status = status
    hub.requests.clear()
    model, origin = load_checkpoint(REPO)
    assert_same(model, tiny_model)
    assert origin.notice.startswith(f"The Hub answers {words}")
    assert "has not been downloaded before" in refusal("someone/unknown")
    assert len(hub.requests) == 2  # and is not waited for to be better


def test_a_login_page_is_not_taken_for_the_hub(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    hub.is_portal = True
    assert refusal(REPO) == f"The Hub does not answer, and {REPO} has not been downloaded before."
    hub.is_portal = False
    commit = hub.push(REPO, folder)
    load_checkpoint(REPO)
    hub.is_portal = True
    model, origin = load_checkpoint(REPO)
    assert_same(model, tiny_model)
    assert origin.name == f"{REPO}@{commit[:7]} (Hub)"


def test_offline_mode_uses_the_cache(
    hub: HubServer, folder: Path, tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    load_checkpoint(REPO)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same(load_checkpoint(REPO)[0], tiny_model)
    assert load_checkpoint(REPO)[1].notice.startswith("HF_HUB_OFFLINE is set")
    unknown = refusal("someone/unknown")
    assert unknown.startswith("HF_HUB_OFFLINE is set")
    assert "has not been downloaded before" in unknown
    assert not hub.requests


def test_a_certificate_that_is_not_trusted_is_said(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a company's proxy reads along. A visitor is not told of it, and HTTPS without TLS is another fault."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url.replace("http:", "https:") + "/{repo_id}/{revision}/{filename}",
    )
    assert refusal(REPO) == f"The Hub does not answer, and {REPO} has not been downloaded before."
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub.encrypt(context)
    assert refusal(REPO).startswith("The Hub shows a certificate that is not trusted here")
    assert "SSL_CERT_FILE" in refusal(REPO)
    assert refusal(REPO, load_public).startswith("The Hub does not answer")


@pytest.mark.parametrize("file", [None, "elsewhere/xet"])
@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_full_disk_is_said(
    variable: str, file: str | None, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is full, if the client's error names a file, and which variable says where the cache is."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)

    if variable == "HF_HOME":
        monkeypatch.setattr(constants, "default_cache_path", constants.HF_HUB_CACHE)
    hub.push(REPO, folder)
    monkeypatch.setattr(sources, "hf_hub_download", fail)
    monkeypatch.setattr(sources, "cached", lambda *_: None)
    said = "cannot be written (No space left on device): "
    advice = f"make room there, or let {variable} name another folder."
    assert refusal(REPO) == f"{file or f'The cache {constants.HF_HUB_CACHE}'} {said}{advice}"
    assert refusal(REPO, load_public) == f"The cache {said}try again later, or take a bundled model."


def test_what_the_hub_does_not_have_is_said(hub: HubServer, folder: Path) -> None:
    hub.push(REPO, folder)
    assert "There is no folder runs/best here and no public model runs/best on the Hub" in refusal("runs/best")
    assert refusal(f"{REPO}@v9") == f"The model {REPO} on the Hub has no revision v9."
    assert refusal(f"{REPO}@{'0' * 40}") == f"The model {REPO} on the Hub has no revision {'0' * 40}."
    hub.gated.add(REPO)
    assert "hf auth login" in refusal(REPO)


def test_a_damaged_download_is_called_by_its_hub_name(hub: HubServer, folder: Path) -> None:
    truncate(folder)
    hub.push(REPO, folder)
    assert f"The {WEIGHTS_FILE} of {REPO} is damaged" in refusal(REPO)


def test_a_cache_that_cannot_be_written_is_said(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    assert re.match(rf"{re.escape(str(tmp_path / 'file'))}\S* cannot be written \(", refusal(REPO))


def test_who_has_no_home_is_told_where_the_cache_may_be(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user whom the system does not know, without HOME."""
    hub.push(REPO, folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~nobody that is known/hub")
    assert "HF_HUB_CACHE may name one" in refusal(REPO)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_file_that_the_hub_says_is_too_large_is_not_downloaded(hub: HubServer, folder: Path, name: str) -> None:
    hub.push(REPO, folder)
    hub.sizes[name] = MOST_BYTES[name] + 1
    for load in (load_checkpoint, load_public):
        assert f"The {name} of {REPO} is larger than {MOST_BYTES[name] / 1e6:g} MB" in refusal(REPO, load)
    assert not any(request.startswith("GET") and name in request for request in hub.requests)


# What stands beside a model


def test_a_bundled_model_and_a_folder_say_what_they_are(folder: Path, bundled: Path) -> None:
    (bundled / DEFAULT_MODEL / CARD_FILE).write_text("# Gebündelt\n", encoding="utf-8")
    for load in (load_checkpoint, load_public):
        assert load(DEFAULT_MODEL)[1] == Origin(
            f"{DEFAULT_MODEL} (bundled)", folder=bundled / DEFAULT_MODEL, card="# Gebündelt\n"
        )
    assert load_checkpoint(folder)[1] == Origin(f"{folder} (folder)", folder=folder, card="# A card\n")
    fallback = load_checkpoint("no-such-model", fallback=True)[1]
    assert (fallback.folder, fallback.card) == (bundled / DEFAULT_MODEL, "# Gebündelt\n")


def test_the_card_is_optional(folder: Path) -> None:
    (folder / CARD_FILE).write_bytes(b"caf\xe9")
    assert load_checkpoint(folder)[1].card == "caf\ufffd"
    (folder / CARD_FILE).write_bytes(b"x" * (MOST_BYTES[CARD_FILE] + 1))
    assert load_checkpoint(folder)[1].card == ""
    (folder / CARD_FILE).unlink()
    assert load_checkpoint(folder)[1].card == ""
    (folder / CARD_FILE).mkdir()
    assert load_checkpoint(folder)[1].card == ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such files")
def test_a_card_is_no_link_to_a_file_elsewhere_and_no_pipe(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a token")
    for target in (tmp_path / "secret", "/proc/self/environ", "/dev/zero"):
        (folder / CARD_FILE).unlink()
        (folder / CARD_FILE).symlink_to(target)
        assert load_checkpoint(folder)[1].card == ""
    (folder / CARD_FILE).unlink()
    os.mkfifo(folder / CARD_FILE)
    assert load_checkpoint(folder)[1].card == ""


@pytest.mark.parametrize("load", [load_checkpoint, load_public])
def test_a_hub_model_brings_its_card_and_the_figures_of_its_training(
    hub: HubServer, folder: Path, load: Callable
) -> None:
    (folder / METRICS_FILE).write_text('{"valid": 1}')
    (folder / HISTORY_FILE).write_text("epoch,loss\n1,2.3\n")
    commit = hub.push(REPO, folder)
    _, origin = load(REPO)
    assert (origin.repo, origin.revision, origin.card) == (REPO, commit, "# A card\n")
    assert origin.folder.name == commit
    assert optional_text(origin.folder, METRICS_FILE) == '{"valid": 1}'
    assert optional_text(origin.folder, HISTORY_FILE) == "epoch,loss\n1,2.3\n"
    assert "# A card" not in repr(origin)


def test_the_cached_copy_has_its_card_and_its_commit(hub: HubServer, folder: Path) -> None:
    commit = hub.push(REPO, folder)
    load_checkpoint(REPO)
    hub.stop()
    _, origin = load_checkpoint(REPO)
    assert (origin.repo, origin.revision, origin.card) == (REPO, commit, "# A card\n")


def test_what_stands_beside_a_hub_model_may_be_missing(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    (folder / CARD_FILE).unlink()
    (folder / HISTORY_FILE).write_text("epoch\n")
    hub.push(REPO, folder)
    hub.sizes[HISTORY_FILE] = MOST_BYTES[HISTORY_FILE] + 1
    model, origin = load_checkpoint(REPO)
    assert_same(model, tiny_model)
    assert (origin.card, origin.notice) == ("", None)
    assert sorted(path.name for path in origin.folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    hub.sizes.clear()
    assert optional_text(load_checkpoint(REPO)[1].folder, HISTORY_FILE) == "epoch\n"


def test_trouble_with_the_card_costs_neither_the_model_nor_time(hub: HubServer, folder: Path, tiny_model: CRNN) -> None:
    hub.push(REPO, folder)
    hub.broken.add(CARD_FILE)
    model, origin = load_public(REPO)
    assert sum(CARD_FILE in request for request in hub.requests) == 1
    assert_same(model, tiny_model)
    assert (origin.card, origin.notice) == ("", None)
    hub.broken.clear()
    assert load_public(REPO)[1].card == "# A card\n"


# What a stranger may load


def test_a_stranger_gets_bundled_and_public_models(
    hub: HubServer, folder: Path, other_folder: Path, tiny_model: CRNN
) -> None:
    assert load_public(f" {DEFAULT_MODEL}\n")[0].config.genres == ("bundled", "default")
    assert not hub.requests
    main = hub.push(REPO, folder)
    other = hub.push(REPO, other_folder, branch="exp/louder")
    models = {main: tiny_model, other: load_checkpoint(other_folder)[0]}
    address = f"https://huggingface.co/{REPO}"
    sources = {
        REPO: main,
        f"\t{REPO} ": main,
        f"{REPO}@exp/louder": other,
        f"{REPO}@{other}": other,
        address: main,
        f"{address}/": main,
        f"{address}/tree/main": main,
        f"{address}/tree/exp/louder": other,
        f"{hub.url}/{REPO}/tree/exp/louder": other,
    }
    for source, commit in sources.items():
        model, origin = load_public(source)
        assert_same(model, models[commit])
        assert origin.name == f"{REPO}@{commit[:7]} (Hub)"
        assert (origin.repo, origin.revision) == (REPO, commit)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " \n ",
        ".",
        "saved",
        "./saved",
        "bundled/../saved",
        "../models",
        "/etc",
        "~/model",
        "file:///etc/passwd",
        "C:\\models",
        "no-such-model",
        "a/b/c",
        "a/b@../../x",
        "a/../b",
        "someone/tiny@main/../../x",
        "someone/tiny?x=1",
        "someone/tiny#main",
        "someone%2Ftiny",
        "someone/tiny\nHost: evil",
        "someone/tïny",
        "\u202esomeone/tiny",
        "some\0one/tiny",
        "\ud800/x",
        "https://huggingface.co.evil.example/someone/tiny",
        "https://evil.example/someone/tiny",
        "https://huggingface.co/",
        "https://huggingface.co/datasets/someone/tiny",
        "https://huggingface.co//someone/tiny",
        "https://user@huggingface.co/someone/tiny",
        "someone--else/tiny",
        "x" * 5_000,
        "someone/" + "x" * 300,
        "someone/tiny@" + "x" * 300,
        "\U0001f3b5" * 100_000,
    ],
    ids=lambda name: f"{name[:40]!a}",
)
def test_what_a_stranger_may_not_name_is_refused_without_asking_the_hub(
    name: str, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert "There is no" in public_refusal(name)
    assert not hub.requests


def test_a_stranger_gets_no_folder(
    hub: HubServer, folder: Path, other_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no model" in public_refusal(str(folder))
    (tmp_path / "someone").mkdir()
    folder.rename(tmp_path / REPO)
    assert public_refusal(REPO) == f"There is no public model {REPO} on the Hub: check the name."
    hub.push(REPO, other_folder)
    assert_same(load_public(REPO)[0], load_checkpoint(other_folder)[0])


def test_the_token_of_this_machine_is_not_for_strangers(
    hub: HubServer, folder: Path, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (folder / METRICS_FILE).write_text("{}")
    hub.push(REPO, folder)
    load_public(REPO)
    assert public_refusal("someone/unknown")
    assert hub.tokens == {None}
    hub.push(REPO, other_folder)
    hub.tokens.clear()
    load_checkpoint(REPO)
    assert hub.tokens == {"Bearer hf_secret"}


def test_a_private_model_in_the_cache_is_not_for_strangers(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.private.add(REPO)
    commit = hub.push(REPO, folder)
    load_checkpoint(REPO)
    sources = (REPO, f"{REPO}@main", f"{REPO}@{commit}")
    for source in sources:
        assert public_refusal(source) == f"There is no public model {REPO} on the Hub: check the name."
    hub.gated.add(REPO)
    for source in sources:
        assert public_refusal(source) == f"There is no public model {REPO} on the Hub: check the name."
    for status in (401, 403, 404, 429, 500):
        hub.status = status
        for source in sources:
            assert public_refusal(source).startswith(("The Hub answers", "There is no public model"))
    hub.status, hub.is_portal = None, True
    for source in sources:
        assert public_refusal(source) == "The Hub does not answer: try again later, or take a bundled model."


def test_without_the_hub_the_cache_is_closed_to_strangers(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.push(REPO, folder)
    load_public(REPO)
    hub.requests.clear()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert public_refusal(REPO) == "The Hub does not answer: try again later, or take a bundled model."
    assert not hub.requests
    hub.stop()
    for source in (REPO, f"{REPO}@{commit}"):
        assert public_refusal(source) == "The Hub does not answer: try again later, or take a bundled model."


def test_nothing_is_downloaded_twice_for_strangers(hub: HubServer, folder: Path) -> None:
    hub.push(REPO, folder)
    load_public(REPO)
    hub.requests.clear()
    load_public(REPO)
    assert not any(request.startswith("GET") for request in hub.requests)


def test_models_of_strangers_do_not_fill_the_disk(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    with monkeypatch.context() as patch:
        patch.setattr(files, "KEPT_FREE", 2**60)
        assert "no room" in public_refusal(REPO)
    (folder / CONFIG_FILE).write_text('{"model_type": "bert"}')
    hub.push(REPO, folder)
    public_refusal(REPO)
    assert not any(request.startswith("GET") and WEIGHTS_FILE in request for request in hub.requests)


def test_what_is_no_model_does_not_stay_in_the_cache(hub: HubServer, folder: Path) -> None:
    hub.push(REPO, folder)
    load_public(REPO)
    kept = {path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.stat().st_size and path.is_file()}
    truncate(folder)
    hub.push(REPO, folder)
    public_refusal(REPO)
    cache = {path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file() and "blobs" in path.parts}
    assert cache <= kept


def test_what_was_damaged_in_the_cache_does_not_stay_for_strangers(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the Hub, which has just said which commit it is, does not give it."""
    hub.push(REPO, folder)
    path = load_public(REPO)[1].folder / WEIGHTS_FILE
    truncate(path.parent)
    download = sources.download

    def in_trouble(*args: object, **options: object) -> tuple[Path, Origin]:
        hub.status = 503 if read_once else None
        read_once.append(True)
        return download(*args, **options)

    read_once: list[bool] = []
    monkeypatch.setattr(sources, "download", in_trouble)
    assert public_refusal(REPO).startswith("The Hub answers 503")
    assert not path.resolve().exists()


def test_what_strangers_are_told_of_their_models(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(folder)
    hub.push(REPO, folder)
    assert f"The {WEIGHTS_FILE} of {REPO} is damaged" in public_refusal(REPO)
    assert public_refusal(f"{REPO}@v9") == f"The model {REPO} on the Hub has no revision v9."
    (folder / WEIGHTS_FILE).unlink()
    hub.push(REPO, folder)
    assert "it lacks config.json or model.safetensors" in public_refusal(REPO)
    save_file({}, folder / WEIGHTS_FILE)
    hub.push(REPO, folder)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    assert public_refusal(REPO).startswith("The cache cannot be written")
