"""How long a visitor waits: `python benchmarks/page.py [SONG] [--model M] [--runs N]`, in the Chromium of the system.

Each run is a first visit, with an empty cache. Prints the median of the runs and the longest, in milliseconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile
from browser import EXAMPLES, go, page_and_browser, upload

from crnn.audio import SAMPLE_RATE, load_audio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
FETCHED = """performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
    .reduce((bytes, entry) => bytes + entry.transferSize, 0) / 1e6"""
TABS = {
    "songs": "document.querySelectorAll('#songs tbody tr').length == 1",
    "inside": "document.querySelectorAll('#inside-figures figure').length == 7",
    "model": "document.querySelectorAll('#model-figures figure, #card h1').length",
    "programs": "document.querySelector('#client code')",
    "listen": "document.querySelector('#answer .bars')",
}


def timed(step: Callable[[], object]) -> float:
    """The milliseconds that `step` takes."""
    started = time.perf_counter()
    step()
    return 1_000 * (time.perf_counter() - started)


def visit(browser: "Browser", url: str, song: Path) -> dict[str, float]:
    """One visitor's waits."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    waits = arrive(page, url)
    waits["song to answer, drawn"] = timed(lambda: upload(page, song))
    for tab, condition in TABS.items():
        waits[f"switch to {tab}, all there"] = timed(lambda: switch(page, tab, condition))  # noqa: B023 - called here
    waits["switch back to inside"] = timed(lambda: switch(page, "inside", TABS["inside"]))
    switch(page, "listen", TABS["listen"])
    page.click("#record [data-part=microphone]")
    waits["record to first answer"] = timed(lambda: page.wait_for_selector("#answer .passing .verdict"))
    stop = page.locator("#record [data-part=stop]")
    waits["stop to whole answer"] = timed(lambda: (stop.click(), page.wait_for_selector("#answer .whole")))
    context.close()
    return waits


def arrive(page: "Page", url: str, ready: str = "#song input[type=file]") -> dict[str, float]:
    """The waits of one who opens the page."""

    def open_page() -> None:
        page.goto(url)
        page.wait_for_selector(ready, state="attached")

    waits = {"page ready for a song": timed(open_page)}
    return {"first paint": page.evaluate(FIRST_PAINT), **waits, "fetched until then, MB": page.evaluate(FETCHED)}


def switch(page: "Page", tab: str, condition: str) -> None:
    """Choose a tab and wait until what it shows is there."""
    go(page, tab)
    page.wait_for_function(condition, polling="raf")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, default=EXAMPLES["rock"])
    parser.add_argument("--model", help="a folder, a bundled model or a Hub id")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        music = Path(folder) / "music.wav"
        soundfile.write(music, load_audio(args.song).T, SAMPLE_RATE)
        visits = visits_of(args.song, args.model, music, args.runs)
    for wait in visits[0]:
        values = [each[wait] for each in visits]
        print(f"{wait:32} {statistics.median(values):8.1f}  (longest {max(values):.1f})")


def visits_of(song: Path, model: str | None, music: Path, runs: int) -> list[dict[str, float]]:
    """What visitors wait who upload a song and then record music."""
    with page_and_browser(model, microphone=music) as (url, browser):
        visit(browser, url, song)  # the first visitor of a server waits longer
        return [visit(browser, url, song) for _ in range(runs)]


if __name__ == "__main__":
    main()
