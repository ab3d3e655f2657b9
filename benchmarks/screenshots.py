"""Take a picture of each state of the page, at three widths, light and dark: `make screenshots`, then look at them.

The pictures go to runs/screenshots; those of the README are also renewed in assets/.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from browser import EXAMPLES, ROOT, go, page_and_browser, upload

from crnn.audio import SAMPLE_RATE, load_audio

if TYPE_CHECKING:
    from playwright.sync_api import Page

OUT = ROOT / "runs" / "screenshots"
WIDTHS, THEMES = (360, 768, 1440), ("light", "dark")
README = {"page": "6-why-1440-light", "page-phone": "4-unsure-360-dark"}
SETTLED_MS, RECORDED_MS = 700, 9_000


def states(page: "Page", silence: Path) -> Iterator[str]:
    """Bring the page from state to state, and say the name of each."""
    yield "1-empty"
    bad = silence.with_name("holiday.mp3")
    bad.write_text("This is a text.")
    page.set_input_files("#song input[type=file]", bad)
    page.wait_for_selector("#answer .fault")
    yield "2-bad-file"
    for name, song in (("3-silence", silence), ("4-unsure", EXAMPLES["jazz"]), ("5-answer", EXAMPLES["classical"])):
        page.click("#song button[aria-label=Clear]")
        page.wait_for_selector("#answer .waiting")
        upload(page, song)
        yield name
    page.select_option("[data-part=why]", "classical")
    page.wait_for_selector("#reasons ul")
    yield "6-why"
    page.click("#sound button")
    page.wait_for_function("document.querySelectorAll('#sound-figures figure').length == 6")
    yield "7-sound"
    go(page, "songs")
    several = [*(EXAMPLES[genre] for genre in ("blues", "reggae", "disco", "metal", "rock")), bad]
    page.set_input_files("#files input[type=file]", several)
    page.wait_for_function("document.querySelectorAll('#songs tbody tr').length >= 9")
    yield "8-songs"
    go(page, "inside")
    page.wait_for_function("document.querySelectorAll('#inside-figures figure').length == 7")
    yield "9-inside"
    go(page, "model")
    page.wait_for_selector("#model-figures svg")
    yield "10-model"
    go(page, "programs")
    page.wait_for_selector("#client code")
    yield "11-programs"
    go(page, "listen")
    page.click("#record [data-part=microphone]")
    page.wait_for_timeout(RECORDED_MS)
    yield "12-recording"


def photograph(open_page: Callable[[int, str], "Page"], silence: Path) -> None:
    """Take all pictures."""
    for width in WIDTHS:
        for theme in THEMES:
            page = open_page(width, theme)
            for state in states(page, silence):
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=OUT / f"{state}-{width}-{theme}.png", full_page=True)
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    print(f"{state} at {width} px, {theme}: wider than its screen", file=sys.stderr)
            page.close()
            print(f"{width} px, {theme}: done")


def main() -> None:
    """Serve the page, take the pictures, renew those of the README."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        silence, music = Path(folder) / "silence.wav", Path(folder) / "music.wav"
        soundfile.write(silence, np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
        soundfile.write(music, load_audio(EXAMPLES["metal"]).T, SAMPLE_RATE)
        take_all(silence, music)
    for name, picture in README.items():
        (ROOT / "assets" / f"{name}.png").write_bytes((OUT / f"{picture}.png").read_bytes())


def take_all(silence: Path, music: Path) -> None:
    """Take the pictures of all widths and themes, with music at the microphone."""
    with page_and_browser(microphone=music) as (url, browser):

        def open_page(width: int, theme: str) -> "Page":
            page = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            page.goto(f"{url}?__theme={theme}")
            page.wait_for_selector("#song input[type=file]", state="attached")
            return page

        photograph(open_page, silence)


if __name__ == "__main__":
    main()
