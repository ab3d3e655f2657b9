"""Variables that Gradio and what it stands on read when they are imported or launched, and end the program over."""

import os
import re

import httpx

from crnn.machine import forget_empty, import_fault, let_the_hub_be_silent, number_fault
from crnn.terminal import forget_windows

NUMBERS = {  # what each may be
    "GRADIO_SERVER_PORT": range(1, 65_536),
    "GRADIO_NUM_PORTS": range(1, 65_536),
    "OMP_NUM_THREADS": range(1, 1_025),
}
LISTS = ("OMP_NUM_THREADS",)  # may be one for each nested level
ROOT_PATH = "GRADIO_ROOT_PATH"
# Of what this page does not use, or must not, as processes of Gradio's pass by the Gate, and its reloading launches a
# page a second time.
FOREIGN = (
    "GRADIO_ANALYTICS_CACHE_FREQUENCY",
    "GRADIO_ANALYTICS_MAX_EVENTS",
    "GRADIO_DEBUG",
    "GRADIO_DEFAULT_CONCURRENCY_LIMIT",
    "GRADIO_NODE_NUM_PORTS",
    "GRADIO_NUM_WORKERS",
    "GRADIO_VIBE_MODE",
    "GRADIO_WATCH_DEMO_NAME",
    "GRADIO_WATCH_DEMO_PATH",
    "GRADIO_WATCH_DIRS",
    "WEB_CONCURRENCY",
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
WITHOUT_PROXY = ("no_proxy", "NO_PROXY")
BRACKETS = re.compile(r"\[([^\]]*)\](?=\s*(,|$))")  # about an address of IPv6, which httpx reads without them


def fault() -> str | None:
    """What is wrong with the environment, in a sentence; what can be mended is, here and for what is started here."""
    forget_empty()
    if sentence := import_fault() or number_fault(NUMBERS, LISTS):
        return sentence
    for name in FOREIGN:
        os.environ.pop(name, None)
    if re.match(r"(?!/|https?://).", os.environ.get(ROOT_PATH, "")):
        os.environ[ROOT_PATH] = f"/{os.environ[ROOT_PATH]}"
    for name in WITHOUT_PROXY:
        if name in os.environ:
            os.environ[name] = BRACKETS.sub(r"\1", os.environ[name])
    let_the_hub_be_silent()
    forget_windows()
    try:
        httpx.Client().close()
    except OSError as error:
        named = ", ".join(f"{name}={os.environ[name]}" for name in CERTIFICATES if name in os.environ)
        return f"The certificates that the environment names cannot be read ({named}): {error.strerror or error}."
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        named = ", ".join(sorted(name for name in os.environ if name.lower().endswith("_proxy")))
        return f"A proxy that the environment names cannot be used ({named}): {error}."
    return None
