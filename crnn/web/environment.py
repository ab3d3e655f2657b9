"""Variables that Gradio, httpx and matplotlib read while they are imported, and end the program over."""

import os
import re

import httpx

from crnn.terminal import forget_windows

NUMBERS = {"GRADIO_SERVER_PORT": 65_535, "GRADIO_NUM_PORTS": 65_535}  # the largest that each may be
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
WITHOUT_PROXY = ("no_proxy", "NO_PROXY")
BRACKETS = re.compile(r"\[([^\]]*)\](?=\s*(,|$))")  # about an address of IPv6, which httpx reads without them


def fault() -> str | None:
    """What is wrong with the environment, in a sentence; what can be mended is, here and for what is started here."""
    for name, most in NUMBERS.items():
        number = os.environ.get(name, "1").strip()
        if not (number.isdecimal() and 1 <= int(number[:10]) <= most):
            return f"{name} must be a number from 1 to {most}, not {number!r}."
    for name in WITHOUT_PROXY:
        if name in os.environ:
            os.environ[name] = BRACKETS.sub(r"\1", os.environ[name])
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
