"""The real page in the Chromium of the system, for pictures and for times."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

import app  # noqa: E402
from crnn import GenreClassifier  # noqa: E402
from crnn.audio import SUFFIXES  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXAMPLES = {path.stem: path for path in app.EXAMPLES.glob("*") if path.suffix in SUFFIXES}


@contextmanager
def page_and_browser(model: str | None = None, microphone: Path | None = None) -> Iterator[tuple[str, "Browser"]]:
    """The address of the page, served with a model (default: the bundled one), and a browser to open it with.

    Its `microphone` hears a WAV file.
    """
    if not find_spec("playwright"):
        sys.exit("This needs a package that is not installed: pip install playwright.")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    arguments = ["--no-sandbox", "--disable-background-networking"]
    if microphone:
        arguments += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        arguments += [f"--use-file-for-fake-audio-capture={microphone}"]
    names = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        sys.exit("No Chromium was found: install it (on Debian: apt install chromium).")
    demo = app.build_demo(GenreClassifier.from_pretrained(model))
    _, url, _ = demo.launch(**app.launch_options(), server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield url, browser
        browser.close()
    demo.close()


def upload(page: "Page", song: Path) -> None:
    """Give the page a song and wait until it has said and drawn what it heard."""
    page.set_input_files("#song input[type=file]", song)
    page.wait_for_selector("#view image", state="attached")


def go(page: "Page", tab: str) -> None:
    """Choose one of the page's tabs by its id, on narrow screens from the menu of those that do not fit."""
    button = page.locator(f"#{tab}-tab-button:visible")
    if not button.count():
        order = ["listen", "songs", "inside", "model", "programs"]
        page.click(".overflow-menu > button")
        button = page.locator(".overflow-dropdown button").nth(order.index(tab) - order.index("programs") - 1)
    button.click()
