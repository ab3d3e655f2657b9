"""Why another server was not reached, in words."""

from collections.abc import Iterator
from ssl import SSLCertVerificationError

from huggingface_hub import get_token
from huggingface_hub.errors import OfflineModeIsEnabled

OFFLINE = "HF_HUB_OFFLINE is set, so that nothing is asked"
UNTRUSTED = (
    "{host} shows a certificate that is not trusted here, as behind a proxy that reads along: "
    "SSL_CERT_FILE may name the one of that proxy"
)
PROXY = "{host} is not reached through the proxy that the environment names"
UNFIT = "A proxy that the environment names, as in ALL_PROXY or NO_PROXY, cannot be used"
LOGIN = "The login on the Hub, from HF_TOKEN or `hf auth login`, cannot be used: its token is not ASCII"
SILENT = "{host} does not answer"
BROKEN_OFF = "{host} answered, but the download broke off"


def why_unreached(error: BaseException, host: str, else_why: str = SILENT) -> str:
    """The beginning of a sentence about a request that failed; `host` is what it calls the server."""
    for cause in causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return OFFLINE
        if isinstance(cause, SSLCertVerificationError):
            return UNTRUSTED.format(host=host)
        if type(cause).__name__ == "InvalidURL" or "proxy URL" in str(cause):
            return UNFIT
        if type(cause).__name__ == "ProxyError":  # of whichever HTTP library the Hub's client has
            return PROXY.format(host=host)
        if is_of_login(cause):
            return LOGIN
    return else_why.format(host=host)


def own_token() -> str | None:
    """The token of this machine's login on the Hub; None if there is none, or if its file cannot be read."""
    try:
        return get_token()
    except (OSError, UnicodeDecodeError):
        return None


def implicit_token() -> bool | None:
    """What the Hub's client is given as a token: None, by which it takes its own, or False if it has none it can read.

    It would fail to read that for public models, too.
    """
    return False if own_token() is None else None


def is_of_login(error: BaseException) -> bool:
    """Whether a request was not sent, as the token of the Hub cannot stand in its header, which ASCII alone can."""
    token = (own_token() or "") if isinstance(error, UnicodeEncodeError) else ""
    return not token.isascii() and token in error.object


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, each once."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
