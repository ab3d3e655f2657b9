"""A trained model to the Hub: what goes there, and sending it in one commit."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from crnn.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    NOTICE_FILE,
    OPTIONAL_FILES,
    UNFIT,
    WEIGHTS_FILE,
    CheckpointError,
    brief,
    content_beside,
    notice_beside,
    optional_text,
    read,
)
from crnn.hub import SILENT, causes, is_of_login
from crnn.sources import HUB_ID, HUB_TIMEOUT_SECONDS, page_of, trouble
from crnn.training.card import hub_card
from crnn.training.compare import is_calibrated_since

FIGURE = re.compile(r"(?:curves|(?:confusion|reliability)-\w+)\.png")
MOST_FIGURE_BYTES = 10_000_000
FORMER = re.compile(r"reliability-|confusion-test\.")  # figures that a calibration ends
WAIT_SECONDS = 60.0  # for an answer, and for a part of the upload to be taken: lines may be slow
BROKEN_OFF = "{host} answered, but the upload broke off"
UNCONFIRMED = "{host} did not confirm what was sent"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


@dataclass(frozen=True)
class Upload:
    """What goes to a repo of the Hub: its files by name."""

    repo: str
    files: dict[str, bytes] = field(repr=False)

    def __str__(self) -> str:
        """The files with their sizes, and the metadata of the card."""
        metadata = self.files[CARD_FILE].decode().split("\n---\n")[0].removeprefix("---\n")
        sizes = (f"{len(content):12,} bytes  {name}" for name, content in self.files.items())
        return "\n".join([page_of(self.repo), *sizes, f"The card {CARD_FILE} says:", metadata])


def prepare(folder: Path, repo: str) -> Upload:
    """What of a model's folder goes to `repo`, user/name; nothing is sent.

    The figures are those in the folder or, if its run measured this very model, of the run around it. With a model of
    published nets goes the notice that their licences ask for, also from a folder that has none. Raises CheckpointError
    if the name is none, if the folder has no model that this program can load, or no card, or if what is to go there
    cannot be read, is too large or lies elsewhere, behind a link.
    """
    check_name(repo)
    folder = folder.resolve()  # of ".", too, the run is around it
    model = read(folder, str(folder))
    records = {name: content_beside(folder, name) for name in OPTIONAL_FILES}
    card, metrics = ((records[name] or b"").decode("utf-8", "replace") for name in (CARD_FILE, METRICS_FILE))
    if not card:
        raise CheckpointError(f"{folder} has no model card {CARD_FILE} to publish: a training writes one.")
    try:
        card = hub_card(card, json.loads(metrics) if metrics else {}, repo)
    except Exception as error:  # the readers of YAML and of the card's figures have errors of their own
        raise CheckpointError(
            f"The {CARD_FILE} or {METRICS_FILE} of {folder} cannot be understood: {brief(str(error))}."
        ) from error
    files = {
        CARD_FILE: card.encode(),
        NOTICE_FILE: notice_beside(model, folder).encode() or None,
        # Wherever these lie, they have shown to be a model and nothing else.
        **{name: (folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)},
        **{name: records[name] for name in (METRICS_FILE, HISTORY_FILE)},
    }
    paths = (path for path in (*figures_of_run(folder, metrics), *folder.iterdir()) if FIGURE.fullmatch(path.name))
    figures = {path.name: path.parent for path in paths if path.is_file()}
    files |= {name: content_beside(figures[name], name, MOST_FIGURE_BYTES) for name in sorted(figures)}
    return Upload(repo, {name: content for name, content in files.items() if content is not None})


def figures_of_run(folder: Path, metrics: str | None) -> list[Path]:
    """What is in the run around a model's folder, if it measured this model; without those that `calibrate` ends."""
    around = optional_text(folder.parent, METRICS_FILE)
    if not metrics or not around:
        return []
    try:
        ours, theirs = json.loads(metrics), json.loads(around)
        is_calibrated = is_calibrated_since(ours, theirs)
    except UNFIT:
        return []
    if not is_calibrated and ours != theirs:
        return []
    return [path for path in folder.parent.iterdir() if not (is_calibrated and FORMER.match(path.name))]


def check_name(repo: str) -> None:
    """Raises CheckpointError if the Hub would not take this as a model's name."""
    try:
        validate_repo_id(repo)
        if not (hub_id := HUB_ID.fullmatch(repo)) or hub_id["revision"]:
            raise HFValidationError
    except HFValidationError as error:
        raise CheckpointError(f"{brief(repr(repo), 60)} is no name of a model on the Hub: give user/name.") from error


def push(upload: Upload, message: str, private: bool = False, revision: str | None = None) -> str:
    """Send it in one commit, which also takes away what an earlier push left there and this model does not have.

    A missing repo is made, for its owner alone if `private`, and so is a missing branch `revision`. Returns the full
    commit. Raises CheckpointError if nobody is logged in, the repo is somebody else's or public in spite of `private`,
    or if the Hub does not answer.
    """
    try:
        token = get_token()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The login on the Hub in {constants.HF_TOKEN_PATH} cannot be read: {LOG_IN}.") from error
    if token is None:
        raise CheckpointError(f"Publishing needs a login on the Hub: {LOG_IN}.")
    api, why, asked = HfApi(token=token), SILENT, []
    try:
        with bounded_waits() as asked:
            make_repo(api, upload.repo, private, revision)
            why = BROKEN_OFF
            there = api.list_repo_files(upload.repo, revision=revision)
            ours = (name for name in there if name in (METRICS_FILE, HISTORY_FILE) or FIGURE.fullmatch(name))
            operations = [CommitOperationDelete(name) for name in ours if name not in upload.files]
            operations += [CommitOperationAdd(name, content) for name, content in upload.files.items()]
            return api.create_commit(upload.repo, operations, commit_message=message, revision=revision).oid
    except CheckpointError:
        raise
    except Exception as error:  # the client, its HTTP library and its uploader each have errors of their own
        if asked and f"/{upload.repo}/commit/" in asked[-1]:
            why = UNCONFIRMED
        raise CheckpointError(refusal(error, upload.repo, why)) from error


@contextmanager
def bounded_waits() -> Iterator[list[str]]:
    """Let the Hub's client, which would wait for ever, wait for WAIT_SECONDS at a time; gives the paths it asks for.

    Of somebody's own client, all else stays. If it is closed meanwhile, which it is where a connection cannot be made,
    another takes its place, which waits as its factory says and whose paths are not given.
    """
    client = get_session()
    hooks, timeout, asked = client.event_hooks, client.timeout, []
    client.event_hooks = {**hooks, "request": [*hooks["request"], lambda request: asked.append(request.url.path)]}
    client.timeout = WAIT_SECONDS
    try:
        yield asked
    finally:
        client.event_hooks, client.timeout = hooks, timeout


def make_repo(api: HfApi, repo: str, private: bool, revision: str | None) -> None:
    """Have the repo, and the branch if one is named. Raises what the client does, and CheckpointError if it is public.

    The first question is one whose wait for an answer the client can limit.
    """
    try:
        if not api.model_info(repo, timeout=HUB_TIMEOUT_SECONDS).private and private:
            raise CheckpointError(f"{repo} is public on the Hub already: make it private there, or omit --private.")
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)
    if revision:
        api.create_branch(repo, branch=revision, exist_ok=True)


def refusal(error: Exception, repo: str, why: str) -> str:
    """Why the Hub did not take a model, in one sentence; `why` if the error does not say so."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if (status == 401 and not isinstance(error, RepositoryNotFoundError)) or any(map(is_of_login, causes(error))):
        return f"The Hub does not accept this login: {LOG_IN}."
    if status in (401, 403, 404):
        return f"You may not write to {repo} on the Hub: give a name of your own, or a token that may write there."
    if str(error).startswith("Invalid metadata"):
        return f"The Hub does not take the card of this model: {brief(' '.join(str(error).split()))}."
    if type(error) in (ValueError, HFValidationError) and why != UNCONFIRMED:  # of the client, which asked nobody
        return f"The Hub's client does not send this ({brief(' '.join(str(error).split()))}): nothing was published."
    if why == UNCONFIRMED and (status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        return f"{trouble(error, why)}: perhaps the model was published; look at {page_of(repo)} before you try again."
    return f"{trouble(error, why)}: nothing was published; try again later."
