"""The page in a real browser and its API, with a small untrained model whose answers the tests compute themselves."""

import asyncio
import base64
import codecs
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import wave
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from threading import Event

import av
import gradio as gr
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import app
from crnn import plots, sources
from crnn.audio import SAMPLE_RATE, SUFFIXES, AudioError, foreign, load_audio
from crnn.bundle import MODEL_VARIABLE
from crnn.checkpoint import save
from crnn.inference import GenreClassifier
from crnn.insight.explain import explain
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.web import handlers, page
from crnn.web.background import Stopped

GENRES = ("blues", "jazz", "rock & roll")
PLAYED_DB = -20.0  # RMS below full scale of what the fake microphone plays
VIEWPORT = {"width": 1280, "height": 900}
PATIENCE_MS = 60_000  # for a machine that is busy with other things
CALM_MS = 600  # after which a click is not the second of a double one
ROOT = Path(app.__file__).parent
TABS = app.TABS


class Listener(GenreClassifier):
    """Keeps the waveforms (samples,) that it is asked about, and waits before each answer until it may give one."""

    def __init__(self, model, origin):
        super().__init__(model, origin)
        self.heard = []
        self.may_answer = Event()
        self.may_answer.set()

    def _listen(self, blocks, is_parted=False):
        waveform = np.concatenate(list(blocks), axis=1)
        self.heard.append(waveform[0])
        assert self.may_answer.wait(60)
        return super()._listen([waveform], is_parted)


def write_wav(path, waveform, sample_rate=SAMPLE_RATE):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


def tone(hz, seconds, sample_rate=SAMPLE_RATE):
    """A tone at PLAYED_DB, shape (samples,); every other two seconds a semitone higher, as no music stays as it is."""
    amplitude = np.sqrt(2) * 10 ** (PLAYED_DB / 20)
    is_high = np.arange(round(seconds * sample_rate)) // (2 * sample_rate) % 2
    return amplitude * np.sin(2 * np.pi * np.cumsum(hz * 2 ** (is_high / 12)) / sample_rate)


def rms_db(waveform):
    return 10 * np.log10(np.mean(np.square(waveform)))


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two songs that sound unlike each other, silence, and a text that says it is an mp3."""
    folder = tmp_path_factory.mktemp("songs")
    noise = np.random.default_rng(0).normal(0, 0.1, 15 * SAMPLE_RATE)
    (folder / "text.mp3").write_text("These are words, not music.")
    return {
        "tone": write_wav(folder / "tone.wav", tone(220, 15)),
        "noise": write_wav(folder / "noise.wav", noise),
        "silence": write_wav(folder / "silence.wav", np.zeros(3 * SAMPLE_RATE)),
        "text": folder / "text.mp3",
    }


def small_model(genres, seed=0):
    """An untrained model that hears a difference between the songs."""
    torch.manual_seed(seed)
    model = CRNN(CRNNConfig(genres=genres, channels=(4, 4), mel_pools=(8, 16), time_pools=(4, 4), recurrent_size=4))
    model.stem.mean.fill_(-40.0)
    model.stem.std.fill_(20.0)
    torch.nn.init.normal_(model.members[0].classifier.linear.weight)
    return model


@pytest.fixture(scope="module")
def classifier():
    card = '---\nlicense: mit\n---\n\n# A small card\n\n<script>alert("no")</script>\n\nIt knows nothing.\n'
    return Listener(small_model(GENRES), Origin("a small untrained model", card=card))


@contextmanager
def served(demo):
    """The address of a page while it is served."""
    _, address, _ = demo.launch(**app.launch_options(), server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def url(classifier):
    with served(app.build_demo(classifier)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium whose microphone plays long tones, which cleaning for speech would remove as noise."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"none of {', '.join(names)} is installed")
    played = write_wav(tmp_path_factory.mktemp("microphone") / "tone.wav", tone(440, 20, 48_000), 48_000)
    arguments = [
        "--no-sandbox",
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        f"--use-file-for-fake-audio-capture={played}",
    ]
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def context(browser):
    """Where visitors come one after the other, each as if for the first time, though Gradio's code is there already."""
    with browser.new_context(viewport=VIEWPORT) as made:
        yield made


@contextmanager
def opened(browser, url, query="", **options):
    """A page in a browser with these options."""
    with browser.new_context(viewport=VIEWPORT, **options) as context, watched(context, url) as tab:
        visit(tab, url + query)
        yield tab


@contextmanager
def watched(context, url):
    """A tab, which at the end must have reported no error and asked no other server, and leaves nothing behind."""
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    faults = []
    tab.on("console", lambda message: message.type == "error" and faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: request.url.startswith((url, "blob:", "data:")) or faults.append(request.url))
    tab.faults = faults
    try:
        yield tab
    finally:
        kinds = "cookies,indexeddb,local_storage"
        context.new_cdp_session(tab).send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": kinds})
        tab.close()
    assert not faults


def visit(tab, url):
    tab.goto(url)
    expect(tab.locator("#song input[type=file]")).to_be_attached()


@pytest.fixture
def tab(context, url):
    """A tab that has not opened the page yet."""
    with watched(context, url) as made:
        yield made


@pytest.fixture
def page_(tab, url):
    """The page, freshly opened."""
    visit(tab, url)
    return tab


def upload(tab, path):
    tab.set_input_files("#song input[type=file]", path)


def clear(tab):
    tab.click("#song button[aria-label='Clear']")


def upload_next(tab, path):
    """Another song, where there is one already."""
    clear(tab)
    upload(tab, path)


def go(tab, name):
    """Choose a tab of the page, on narrow screens from the menu of those that do not fit."""
    button = tab.locator(f"#{name}-tab-button:visible")
    if button.count():
        button.click()
    else:
        tab.click(".overflow-menu > button")
        tab.locator(".overflow-dropdown").get_by_text(TABS[name]).click()


def plain(html):
    """HTML as a reader sees it."""
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", "", html))).strip()


def expect_answer_to(song, tab, classifier, name=None):
    """Wait until the page shows what the classifier says, which is not the same for all songs."""
    prediction = classifier.predict(song)
    expect(tab.locator("#answer .verdict")).to_have_text(plain(page.verdict(prediction)))
    shares = [f"{genre}{share:.0%}" for genre, share in prediction.probabilities.items()]
    expect(tab.locator("#answer .bars li")).to_have_text(shares)
    expect(tab.locator("#view image")).to_have_count(1)
    expect(tab.locator("#view [data-part=name]")).to_have_text(name or Path(song).name)


def expect_files(tab, button):
    """What a click on a button downloads: its name and content."""
    with tab.expect_download() as download:
        tab.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def give(tab, songs, event):
    """Paste or drop songs on the title of the page."""
    paths = songs if isinstance(songs, list) else [songs]
    tab.evaluate(
        """([event, files]) => {
            const data = new DataTransfer();
            for (const [name, code] of files) {
                const bytes = Uint8Array.from(atob(code), sign => sign.charCodeAt(0));
                data.items.add(new File([bytes], name, {type: "audio/wav"}));
            }
            const options = {bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data};
            const kind = event === "paste" ? ClipboardEvent : DragEvent;
            document.querySelector("h1").dispatchEvent(new kind(event, options));
        }""",
        [event, [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]],
    )


# One song


def test_upload_shows_the_answer(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)


def test_next_song_replaces_the_answer(page_, songs, classifier):
    first, second = (page.verdict(classifier.predict(songs[name])) for name in ("tone", "noise"))
    assert first != second
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    clear(page_)
    upload(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)


def test_clearing_clears_the_answer(page_, songs):
    upload(page_, songs["tone"])
    expect(page_.locator("#answer .bars b").first).not_to_be_empty()
    clear(page_)
    expect(page_.locator("#answer .verdict")).to_have_text("The answer will appear here.")
    expect(page_.locator("#answer .bars li span")).to_have_text(GENRES)
    expect(page_.locator("#view image")).to_have_count(0)


def test_example_is_played_answered_and_compared(page_, classifier):
    example = page_.locator("#examples button").first
    name = example.inner_text().lower()
    example.focus()
    page_.keyboard.press("Enter")
    (path,) = (ROOT / "assets" / "examples").glob(f"{name}.*")
    expect_answer_to(path, page_, classifier, handlers.CREDITS[name])
    expect(page_.locator("#answer")).to_contain_text(f"Its author calls this example {name}")


def test_last_example_that_is_clicked_is_heard(page_, classifier):
    held = []
    page_.route("**/gradio_api/run/*", lambda route: route.continue_() if held else held.append(route))
    first, second = (page_.locator("#examples button").nth(number) for number in range(2))
    first.click()
    second.click()
    page_.wait_for_timeout(500)
    held[0].continue_()
    name = second.inner_text().lower()
    (path,) = (ROOT / "assets" / "examples").glob(f"{name}.*")
    expect_answer_to(path, page_, classifier, handlers.CREDITS[name])


def test_bad_file_is_explained_and_the_page_goes_on(page_, songs, classifier):
    upload(page_, songs["text"])
    message = page_.locator("#answer .fault")
    with pytest.raises(AudioError) as error:
        load_audio(songs["text"])
    expect(message).to_have_text(str(error.value))
    expect(page_.locator("body")).not_to_contain_text("Traceback")
    page_.faults.clear()  # the browser's player cannot play it either, and says so on the console
    clear(page_)
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    expect(message).to_have_count(0)


def encoded(path, codec, waveform):
    """A file with one audio track; the name says the container."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=48_000, layout="mono")
        samples = np.repeat(waveform, 3)[np.newaxis, : 10 * 48_000].astype(np.float32)
        for start in range(0, samples.shape[1], 960):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 960].copy(), format="flt", layout="mono")
            frame.sample_rate = 48_000
            frame.pts = start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), [("clip.webm", "libopus"), ("clip.mp4", "aac")])
def test_sound_of_a_video_is_heard(page_, classifier, tmp_path, name, codec):
    path = encoded(tmp_path / name, codec, tone(220, 10))
    upload(page_, path)
    expect_answer_to(path, page_, classifier)


def test_song_that_the_browser_cannot_play_says_so(page_, classifier, tmp_path):
    path = encoded(tmp_path / "song.aiff", "pcm_s16be", tone(220, 10))
    upload(page_, path)
    expect_answer_to(path, page_, classifier)
    expect(page_.locator("#view .fault")).to_contain_text("cannot play this kind of file")
    page_.faults.clear()


def test_silence_is_no_music(page_, songs):
    upload(page_, songs["silence"])
    expect(page_.locator("#answer .verdict")).to_have_text("No music here")
    expect(page_.locator("#answer .bars li")).to_have_count(0)
    expect(page_.locator("#view image")).to_have_count(1)
    go(page_, "inside")
    expect(page_.locator("#inside-figures")).to_contain_text("There is no music")


def test_what_is_wrong_with_a_file_is_said_wherever_it_is_answered(browser, url, songs, client, tmp_path):
    cut = tmp_path / "cut.wav"
    cut.write_bytes(songs["tone"].read_bytes()[: 10 * 2 * SAMPLE_RATE + 44])
    said = "Its end is missing: this answer is from the {seconds} s that are there."
    with opened(browser, url, locale="de") as tab:
        translated = app.TRANSLATIONS["de"][said].format(seconds=10)
        upload(tab, cut)
        expect(tab.locator("#answer .hint", has_text=translated)).to_be_visible()
        go(tab, "songs")
        expect(tab.locator("#songs tbody .noticed")).to_have_text(translated)
    with opened(browser, url) as tab:
        upload(tab, songs["tone"])
        expect(tab.locator("#view [data-part=name]")).to_have_text("tone.wav")
        expect(tab.locator("#answer .hint", has_text="Its end is missing")).to_have_count(0)
    answer = client.predict(handle_file(cut), api_name="/classify")
    assert answer["notices"] == [said.format(seconds=10)]
    assert answer["duration_seconds"] == pytest.approx(10)


def media(tab, url, name, answer):
    """Open the page, with a function of the browser's media devices replaced and its wishes kept."""
    tab.add_init_script(
        f"""const media = navigator.mediaDevices, usual = media.{name}.bind(media);
        window.wishes = [];
        media.{name} = async wish => {{ wishes.push(wish); return ({answer})(wish, usual); }};"""
    )
    visit(tab, url)


def press(tab, name):
    """Click on a button of the recorder when the click is not the second of a double one."""
    tab.wait_for_timeout(CALM_MS)
    tab.click(f"#record [data-part={name}]")


def expect_raw(tab):
    """The browser was asked once for sound as it is."""
    (wish,) = tab.evaluate("wishes")
    for name in ("echoCancellation", "noiseSuppression", "autoGainControl"):
        assert wish["audio"][name] is False


def expect_idle(tab):
    expect(tab.locator("#record [data-part=stop]")).to_be_hidden()
    expect(tab.locator("#record [data-part=microphone]")).to_be_enabled()


def drawn_pixels(tab):
    """Which pixels of the recorder's course are drawn on."""
    script = """canvas => {
        const {width, height} = canvas;
        return [...canvas.getContext("2d").getImageData(0, 0, width, height).data].filter((_, i) => i % 4 === 3);
    }"""
    return np.array(tab.locator("#record canvas").evaluate(script))


def test_recording_is_answered_while_it_goes_on_and_arrives_as_it_sounded(tab, url, classifier):
    media(tab, url, "getUserMedia", "(wish, usual) => usual(wish)")
    classifier.heard.clear()
    tab.click("#record [data-part=microphone]")
    expect(tab.locator("#answer .passing .verdict")).to_be_visible()
    expect(tab.locator("#record [data-part=time]")).to_have_text("0:04 / 15:00")
    assert drawn_pixels(tab).any()
    sign = tab.evaluate("getComputedStyle(document.querySelector('#listen-tab-button'), '::after').content")
    assert "●" in sign  # from whatever tab
    passages = list(classifier.heard)
    assert 2 <= len(passages[0]) / SAMPLE_RATE < 2.5
    tab.keyboard.press("Enter")  # "Stop" has the focus
    expect(tab.locator("#view image")).to_have_count(1)
    expect(tab.locator("#answer .whole .verdict")).to_be_visible()
    expect(tab.locator("#view [data-part=name]")).to_have_text(re.compile(r"recording \d\d-\d\d-\d\d\.wav"))
    expect_idle(tab)
    expect_raw(tab)
    recording = classifier.heard[-1]
    assert len(recording) > 4 * SAMPLE_RATE
    for heard in (*passages, recording):
        assert rms_db(heard[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]) == pytest.approx(PLAYED_DB, abs=1.5)


def test_next_recording_is_answered_like_the_first(page_):
    for _ in range(2):
        press(page_, "microphone")
        expect(page_.locator("#answer .passing .verdict")).to_be_visible()
        press(page_, "stop")
        expect(page_.locator("#answer .whole .verdict")).to_be_visible(timeout=2_900)  # it need not be given up


def held_upload(tab):
    """Where the first upload waits from now on until it may go on; the others pass."""
    held = []
    tab.route("**/gradio_api/upload?*", lambda route: route.continue_() if held else held.append(route))
    return held


def test_recording_that_does_not_arrive_can_be_saved(page_):
    held = held_upload(page_)
    press(page_, "microphone")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:02 / 15:00")
    press(page_, "stop")
    with page_.expect_download() as saved:
        press(page_, "save")
    assert re.fullmatch(r"recording \d\d-\d\d-\d\d\.wav", saved.value.suggested_filename)
    assert load_audio(saved.value.path()).shape[1] > 1.5 * SAMPLE_RATE
    expect(page_.locator("#record [data-part=save]")).to_be_hidden()
    held[0].continue_()
    expect(page_.locator("#view image")).to_have_count(1)


def test_recording_that_another_song_ends_can_be_saved(page_):
    press(page_, "microphone")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:01 / 15:00")
    page_.locator("#examples button").first.click()
    expect(page_.locator("#record [data-part=save]")).to_be_visible()
    expect(page_.locator("#record [data-part=stop]")).to_be_hidden()


def test_next_recording_goes_on_when_the_last_one_arrives(page_):
    held = held_upload(page_)
    press(page_, "microphone")
    expect(page_.locator("#answer .passing .verdict")).to_be_visible()
    press(page_, "stop")
    press(page_, "microphone")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:05 / 15:00")
    held[0].continue_()
    expect(page_.locator("#answer .whole .verdict")).to_be_visible()
    first = page_.locator("#view [data-part=name]").text_content()
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:08 / 15:00")
    press(page_, "stop")
    expect(page_.locator("#view [data-part=name]")).not_to_have_text(first)
    expect_idle(page_)
    go(page_, "songs")
    expect(page_.locator("#songs tbody tr")).to_have_count(2)
    page_.faults.clear()  # of what is held, the server cannot say how far it is


def test_second_click_of_a_double_one_does_nothing(page_):
    again = {"click_count": 2, "delay": 40}
    page_.click("#record [data-part=microphone]", **again)
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:02 / 15:00")
    page_.click("#record [data-part=stop]", **again)
    expect(page_.locator("#answer .whole .verdict")).to_be_visible()
    expect_idle(page_)
    page_.on("filechooser", lambda _: page_.faults.append("files are asked for"))
    page_.click("#song button[aria-label='Clear']", **again)
    expect(page_.locator("#song .upload-container")).to_be_visible()


def test_keys_pressed_twice_stop_a_recording_once(page_):
    page_.click("#record [data-part=microphone]")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:02 / 15:00")
    for _ in range(2):
        page_.keyboard.press("Enter")  # "Stop" has the focus, then "Record"
    expect(page_.locator("#answer .whole .verdict")).to_be_visible()
    expect_idle(page_)


@pytest.mark.parametrize("stops", [False, True])
def test_recording_that_is_still_heard_is_not_lost_by_the_next(page_, classifier, stops):
    press(page_, "microphone")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:01 / 15:00")
    classifier.may_answer.clear()
    try:
        press(page_, "stop")
        expect(page_.locator("#song audio")).to_be_attached()
        press(page_, "microphone")
        expect(page_.locator("#record [data-part=time]")).to_have_text("0:03 / 15:00")
        if stops:
            press(page_, "stop")
            expect(page_.locator("#record [data-part=save]")).to_be_visible()
    finally:
        classifier.may_answer.set()
    if stops:
        expect(page_.locator("#answer .whole .verdict")).to_be_visible()
        with page_.expect_download() as saved:
            press(page_, "save")
        assert saved.value.suggested_filename != page_.locator("#view [data-part=name]").text_content()
    else:
        go(page_, "songs")
        expect(page_.locator("#songs tbody tr")).to_have_count(1)


def test_sound_of_another_tab_is_heard_until_its_sharing_ends(tab, url, classifier):
    stream = """() => {
        const context = new AudioContext(), sound = context.createOscillator();
        const target = context.createMediaStreamDestination();
        sound.connect(target);
        sound.start();
        window.shared = target.stream.getAudioTracks()[0];
        return target.stream;
    }"""
    media(tab, url, "getDisplayMedia", stream)
    tab.click("#record [data-part=tab]")
    expect(tab.locator("#answer .passing .verdict")).to_be_visible()
    expect_raw(tab)
    tab.evaluate("shared.dispatchEvent(new Event('ended'))")
    expect(tab.locator("#answer .whole .verdict")).to_be_visible()
    expect_idle(tab)
    assert rms_db(classifier.heard[-1]) == pytest.approx(-3, abs=0.5)


@pytest.mark.parametrize(
    ("name", "source", "answer", "said"),
    [
        ("getUserMedia", "microphone", "NotAllowedError", "Allow it beside the address of the page"),
        ("getUserMedia", "microphone", "NotFoundError", "There is no microphone."),
        ("getUserMedia", "microphone", "NotReadableError", "The microphone is in use by another program"),
        ("getUserMedia", "microphone", "OtherError", "The browser cannot record here"),
        ("getDisplayMedia", "tab", "", "No sound came along."),
        ("getDisplayMedia", "tab", "NotFoundError", "No sound came along."),
    ],
)
def test_recording_that_fails_is_explained(tab, url, songs, classifier, name, source, answer, said):
    fails = f"() => {{ throw new DOMException('The device is busy.', '{answer}'); }}"
    media(tab, url, name, fails if answer else "() => new MediaStream()")
    upload(tab, songs["tone"])
    expect_answer_to(songs["tone"], tab, classifier)
    tab.click(f"#record [data-part={source}]")
    expect(tab.locator("#record .fault")).to_contain_text(said)
    expect_idle(tab)
    expect_answer_to(songs["tone"], tab, classifier)  # is not lost


def test_recorder_that_does_not_load_is_no_fault_of_the_microphone(tab, url):
    """As a proxy's policy may allow no scripts from `blob:`; why stands in the browser's console."""
    warned = []
    tab.on("console", lambda message: message.type == "warning" and warned.append(message.text))
    fails = "async () => { throw new DOMException('Unable to load a module.', 'AbortError'); }"
    tab.add_init_script(f"AudioWorklet.prototype.addModule = {fails}")
    visit(tab, url)
    tab.click("#record [data-part=microphone]")
    expect(tab.locator("#record .fault")).to_contain_text("The browser cannot record here")
    assert any("AbortError: Unable to load a module." in text for text in warned)
    expect_idle(tab)


def test_sharing_that_is_not_wanted_is_no_fault(tab, url):
    media(tab, url, "getDisplayMedia", "() => { throw new DOMException('', 'NotAllowedError'); }")
    tab.click("#record [data-part=tab]")
    tab.wait_for_function("wishes.length")
    expect_idle(tab)
    expect(tab.locator("#record .fault")).to_be_hidden()


def test_another_song_ends_a_recording(page_, songs, classifier):
    page_.click("#record [data-part=microphone]")
    expect(page_.locator("#answer .passing .verdict")).to_be_visible()
    give(page_, songs["noise"], "paste")
    expect_answer_to(songs["noise"], page_, classifier)
    expect_idle(page_)
    page_.wait_for_timeout(3_000)  # in which it would have asked again
    expect_answer_to(songs["noise"], page_, classifier)
    go(page_, "songs")
    expect(page_.locator("#songs tbody tr")).to_have_count(1)


def test_song_that_the_browser_cannot_play_ends_a_recording(page_, songs, classifier, tmp_path):
    upload(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)
    page_.click("#record [data-part=microphone]")
    expect(page_.locator("#answer .passing .verdict")).to_be_visible()  # that the last song went did not end it
    path = encoded(tmp_path / "song.aiff", "pcm_s16be", tone(220, 10))
    upload(page_, path)
    expect_answer_to(path, page_, classifier)
    expect_idle(page_)
    page_.faults.clear()


def test_answer_is_in_sight_on_a_phone(page_, songs):
    page_.set_viewport_size({"width": 360, "height": 560})
    upload(page_, songs["tone"])
    expect(page_.locator("#answer .whole .verdict")).to_be_in_viewport(ratio=1)
    expect(page_.locator("#answer .bars li").last).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("event", "locale"), [("paste", "en"), ("drop", "de")])
def test_song_is_pasted_or_dropped_anywhere(browser, url, songs, classifier, event, locale):
    with opened(browser, url, locale=locale) as tab:
        for name in ("tone", "noise"):  # the second one while the first is there, and from another tab
            give(tab, songs[name], event)
            expect(tab.locator("#view [data-part=name]")).to_have_text(songs[name].name)
            expect(tab.locator("#view image")).to_have_count(1)
            assert len(classifier.heard[-1]) == load_audio(songs[name]).shape[1]
            go(tab, "songs")
        give(tab, [songs["tone"], songs["silence"]], event)
        expect(tab.locator("#songs tbody tr")).to_have_count(3)


@pytest.mark.parametrize("field", ["h1", "#folder", "#files"])
def test_folder_is_dropped_anywhere(page_, songs, tmp_path, field):
    (tmp_path / "album" / "disc 2").mkdir(parents=True)
    shutil.copy(songs["tone"], tmp_path / "album" / "a.wav")
    shutil.copy(songs["noise"], tmp_path / "album" / "disc 2" / "b.wav")
    (tmp_path / "album" / "cover.jpg").write_bytes(b"")
    if field != "h1":
        go(page_, "songs")
    place = page_.locator(field).first.bounding_box()
    chrome = page_.context.new_cdp_session(page_)

    def drop(folder):
        what = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        where = {"x": place["x"] + 20, "y": place["y"] + 10, "data": what}
        for kind in ("dragEnter", "dragOver", "drop"):
            chrome.send("Input.dispatchDragEvent", {"type": kind, **where})

    (tmp_path / "empty" / "#recycle").mkdir(parents=True)
    shutil.copy(songs["tone"], tmp_path / "empty" / "#recycle" / "a.wav")
    drop(tmp_path / "empty")
    expect(page_.locator(".fault:visible")).to_have_text("There is no file in this folder that can be read.")
    drop(tmp_path / "album")
    expect(page_.locator("#refused .fault, #songs .fault").filter(visible=True)).to_have_count(0)
    expect(page_.locator("#songs tbody tr")).to_have_count(2)
    expect(page_.locator("#songs tbody")).to_contain_text("b.wav")


@pytest.mark.parametrize("field", ["#song", "#files", "#folder"])
def test_upload_that_breaks_off_is_told_where_it_went_until_another_comes(page_, songs, field):
    page_.route("**/gradio_api/upload?*", lambda route: route.abort(), times=1)
    go(page_, "listen" if field == "#song" else "songs")
    given = songs["tone"].parent if field == "#folder" else songs["tone"]
    page_.set_input_files(f"{field} input[type=file]", given)
    faults = page_.locator(":is(#refused, #songs) .fault:not([hidden])")
    expect(faults).to_have_text("The upload broke off: give the song again.")
    expect(faults).to_be_visible()
    page_.set_input_files(f"{field} input[type=file]", given)
    expect(faults).to_have_count(0)
    go(page_, "songs")
    expect(page_.locator("#songs tbody th").filter(has_text="tone.wav")).to_have_count(1)
    page_.faults.clear()


def test_recording_whose_upload_breaks_off_is_said_to_be_kept(page_):
    page_.route("**/gradio_api/upload?*", lambda route: route.abort(), times=1)
    press(page_, "microphone")
    expect(page_.locator("#record [data-part=time]")).to_have_text("0:01 / 15:00")
    with page_.expect_response("**/gradio_api/upload_progress?*"):  # which knows of no such upload: a fault told late
        press(page_, "stop")
    expect(page_.locator("#refused .fault")).to_contain_text('"Save the recording" keeps')
    with page_.expect_download():
        press(page_, "save")
    expect(page_.locator("#record [data-part=microphone]")).to_be_focused()
    page_.faults.clear()


@pytest.mark.parametrize(("field", "given"), [("#song", "audio"), ("#files", ".upload-container")])
def test_keyboard_stays_in_the_field_where_songs_come_and_go(page_, songs, field, given):
    go(page_, "listen" if field == "#song" else "songs")
    empty = page_.locator(f"{field} .upload-container")
    empty.focus()
    page_.set_input_files(f"{field} input[type=file]", songs["tone"])
    cross = page_.locator(f"{field} button[aria-label='Clear']")
    expect(cross).to_be_visible()
    expect(page_.locator(f"{field} {given}")).to_be_focused()
    cross.press("Enter")
    expect(cross).to_have_count(0)
    expect(empty).to_be_focused()


def test_file_that_the_browser_does_not_know_is_sent(page_, songs, tmp_path):
    odd = shutil.copy(songs["tone"], tmp_path / "tone.xyz")
    page_.set_input_files("#song input[type=file]", odd)
    expect(page_.locator("#view [data-part=name]")).to_have_text("tone.xyz")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    give(page_, tmp_path / "a.pdf", "drop")
    expect(page_.locator("#answer .fault")).to_contain_text("document")


def test_song_that_is_dropped_while_another_is_sent_is_heard(page_, songs, classifier):
    held = held_upload(page_)
    give(page_, songs["tone"], "drop")
    page_.wait_for_timeout(1_000)
    give(page_, songs["noise"], "drop")
    page_.wait_for_timeout(3_000)
    held[0].continue_()
    expect_answer_to(songs["noise"], page_, classifier)
    page_.faults.clear()  # of what is held, the server cannot say how far it is


def test_nothing_jumps_when_the_answer_comes(page_, songs):
    def places():
        parts = ("#examples", "#answer", "#view", "#sound", "#footer")
        return {part: page_.locator(part).bounding_box() for part in parts}

    before = places()
    upload(page_, songs["tone"])
    expect(page_.locator("#view image")).to_have_count(1)
    assert {part: box["y"] for part, box in places().items()} == pytest.approx(
        {part: box["y"] for part, box in before.items()}, abs=2
    )


# The song over time


def seconds_of_player(tab):
    return tab.evaluate("document.querySelector('#song audio').currentTime")


def playhead_share(tab):
    """Where the playhead stands, as a share of the width."""
    return tab.evaluate(
        """() => {
            const box = document.querySelector("[data-part=track]").getBoundingClientRect();
            const head = document.querySelector(".playhead").getBoundingClientRect();
            return ((head.left + head.right) / 2 - box.left) / box.width;
        }"""
    )


def wait_for_sound(tab):
    tab.wait_for_function("document.querySelector('#song audio')?.readyState > 0")


def test_click_on_the_drawing_seeks_and_the_playhead_follows(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    wait_for_sound(page_)
    track = page_.locator("[data-part=track]")
    box = track.bounding_box()
    for height in (140, 350):  # on the genres, on the spectrogram
        track.click(position={"x": box["width"] * height / 500, "y": height})
        page_.wait_for_function(
            f"Math.abs(document.querySelector('#song audio').currentTime - {15 * height / 500}) < 0.2"
        )
        assert playhead_share(page_) == pytest.approx(height / 500, abs=0.01)
    expect(page_.locator("#view [data-part=time]")).to_have_text("0:10 / 0:15")
    page_.click("[data-part=play]")
    page_.wait_for_function("document.querySelector('#song audio').currentTime > 11")
    page_.click("[data-part=play]")
    assert playhead_share(page_) == pytest.approx(seconds_of_player(page_) / 15, abs=0.01)
    assert page_.evaluate("document.querySelector('#song audio').paused")


def test_drawing_works_by_keyboard_and_says_where_it_is(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    wait_for_sound(page_)
    track = page_.get_by_role("slider", name="Position in the song")
    track.focus()
    keys = {
        "ArrowRight": 5,
        "Shift+ArrowUp": 6,
        "ArrowLeft": 1,
        "PageUp": 15,
        "ArrowDown": 10,
        "PageDown": 0,
        "End": 15,
    }
    for key, seconds in [*keys.items(), ("Home", 0)]:
        page_.keyboard.press(key)
        expect(track).to_have_attribute("aria-valuenow", str(seconds))
    prediction = classifier.predict(songs["tone"])
    first = max(zip(prediction.timeline[0], prediction.genres, strict=True))
    expect(track).to_have_attribute("aria-valuetext", re.compile(f"^0:00 {first[1]} {first[0]:.0%} · "))


def test_zoom_shows_every_frame(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    track, closer = page_.locator("[data-part=track]"), page_.get_by_role("button", name="Zoom in")
    narrow = track.bounding_box()["width"]
    natural = page_.evaluate(
        """async () => {
            const picture = new Image();
            picture.src = document.querySelector("#view image").getAttribute("href");
            await picture.decode();
            return [picture.width, picture.height];
        }"""
    )
    assert natural == [classifier.predict(songs["tone"]).log_mel.shape[1], 128]
    while closer.is_enabled():
        closer.click()
    wide = track.bounding_box()["width"]
    assert wide > natural[0]
    assert page_.evaluate("document.documentElement.scrollWidth") <= 1280
    page_.get_by_role("button", name="Zoom out").click()
    assert narrow <= track.bounding_box()["width"] < wide


def test_view_follows_the_playhead_until_it_is_moved(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    wait_for_sound(page_)
    closer, view = page_.get_by_role("button", name="Zoom in"), page_.locator("[data-part=scroller]")
    while closer.is_enabled():
        closer.click()
    pixels_a_second = page_.locator("[data-part=track]").bounding_box()["width"] / 15
    last_second_in_view = view.bounding_box()["width"] / pixels_a_second - 0.3
    page_.evaluate(f"document.querySelector('#song audio').currentTime = {last_second_in_view}")
    page_.click("#view [data-part=play]")
    page_.wait_for_function("document.querySelector('#view [data-part=scroller]').scrollLeft > 300")
    view.evaluate("view => { view.scrollLeft = 0; }")
    page_.wait_for_timeout(500)
    assert view.evaluate("view => view.scrollLeft") == 0


def test_short_sound_in_a_long_silence_is_seen_and_named(page_, tmp_path):
    long = np.concatenate([np.zeros(333 * 8_000), tone(220, 1, 8_000), np.zeros(266 * 8_000)])
    upload(page_, write_wav(tmp_path / "long.wav", long, 8_000))
    expect(page_.locator("#view image").first).to_be_attached()
    widths = page_.locator("#view path:has(title)").evaluate_all("all => all.map(path => path.getBBox().width)")
    assert [0.5 < width < 6 for width in widths] == [True] * len(GENRES)  # two of 600 seconds, with what is about them
    box, now = page_.locator("[data-part=track]").bounding_box(), page_.locator("#view [data-part=now]")
    for seconds, named in ((331, False), (333.5, True), (336, False)):
        page_.mouse.move(box["x"] + box["width"] * seconds / 600, box["y"] + 140)
        expect(now).to_have_text(re.compile(r"^5:3\d: \w+" if named else r"^5:3\d: $"))


def test_genre_that_is_chosen_is_explained(page_, songs, classifier):
    upload(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)
    for genre in GENRES[:2]:
        page_.select_option("[data-part=why]", genre)
        expect(page_.locator("#reasons")).to_contain_text(genre)
        expect(page_.locator("#view image")).to_have_count(2)
        explanation = explain(classifier.model, classifier.predict(songs["noise"]).log_mel, genre)
        expect(page_.locator("#reasons li")).to_have_count(len(explanation.strongest()))
        expect(page_.locator("#stop-why")).to_be_hidden()
    page_.select_option("[data-part=why]", "")
    expect(page_.locator("#view image")).to_have_count(1)
    expect(page_.locator("#reasons")).to_be_empty()


def test_explanation_can_be_stopped(page_, songs, classifier, monkeypatch):
    ended = Event()

    def endless(model, log_mel, genre, report):
        try:
            while True:
                report(0.5)
                time.sleep(0.2)
        except Stopped:
            ended.set()
            raise

    monkeypatch.setattr(handlers, "explain", endless)
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    page_.select_option("[data-part=why]", GENRES[0])
    page_.click("#stop-why")
    expect(page_.locator("#stop-why")).to_be_hidden()
    assert ended.wait(30)
    expect(page_.locator("#view image")).to_have_count(1)
    expect(page_.locator("[data-part=why]")).to_have_value("")


def test_drawing_is_saved_as_it_looks(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    name, svg = expect_files(page_, "[data-save-song=svg]")
    assert name == "tone.wav genres.svg"
    assert f"tone.wav – {plain(page.verdict(classifier.predict(songs['tone'])))}" in svg.decode()
    assert svg.count(b"<image") == 1
    name, png = expect_files(page_, "[data-save-song=png]")
    assert name == "tone.wav genres.png"
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert len(picture.getcolors(1 << 24)) > 20


def test_drawing_is_shared_where_the_browser_can(page_, url, songs, classifier):
    expect(page_.locator("#view [data-part=share]")).to_be_hidden()
    page_.add_init_script(
        """navigator.canShare = ({files}) => files[0].type === "image/png";
        navigator.share = async ({files, text}) => {
            const picture = await createImageBitmap(files[0]);
            window.shared = [files[0].name, text, picture.width > 1000];
        };"""
    )
    page_.goto(url)
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    page_.click("#view [data-part=share]")
    page_.wait_for_function("window.shared")
    verdict = plain(page.verdict(classifier.predict(songs["tone"])))
    assert page_.evaluate("shared") == ["tone.wav genres.png", f"tone.wav – {verdict}", True]


def test_overlay_comes_with_nothing_else(classifier):
    """Gradio would add what it takes for a property of that name."""
    view = next(block for block in app.build_demo(classifier).blocks.values() if block.elem_id == "view")
    update = gr.blocks.postprocess_update_dict(view, {"overlay": "{}"})
    assert update == {"props": {"overlay": "{}"}, "__type__": "update"}


def test_last_genre_chosen_is_the_one_explained(page_, songs, classifier, monkeypatch):
    first_ended = Event()

    def slow(model, log_mel, genre, report):
        try:
            while genre == GENRES[0]:
                report(0.5)
                time.sleep(0.2)
        except Stopped:
            first_ended.set()
            raise
        return explain(model, log_mel, genre, report)

    monkeypatch.setattr(handlers, "explain", slow)
    page_.evaluate("document.addEventListener('heard', () => { window.isHeard = true; })")
    upload(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)
    page_.wait_for_function("window.isHeard")  # what the answer brings is there, buttons to be hidden among it
    page_.select_option("[data-part=why]", GENRES[0])
    expect(page_.locator("#stop-why")).to_be_visible()
    page_.select_option("[data-part=why]", GENRES[1])
    expect(page_.locator("#reasons")).to_contain_text(GENRES[1])
    expect(page_.locator("[data-part=why]")).to_have_value(GENRES[1])
    assert first_ended.wait(30)
    page_.select_option("[data-part=why]", GENRES[0])
    expect(page_.locator("#stop-why")).to_be_visible()
    upload_next(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    expect(page_.locator("#stop-why")).to_be_hidden()
    expect(page_.locator("[data-part=why]")).to_have_value("")


# More about the sound


def juts_out(tab, picture):
    """The texts of an SVG that are cut off at its edges."""
    return tab.evaluate(
        """svg => {
            const holder = document.createElement("div");
            holder.innerHTML = svg;
            document.body.append(holder);
            const picture = holder.querySelector("svg"), {left, right, top, bottom} = picture.getBoundingClientRect();
            const texts = [...picture.querySelectorAll("text")].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < left || box.right > right || box.top < top || box.bottom > bottom;
            });
            holder.remove();
            return texts.map(text => text.textContent).filter(Boolean);
        }""",
        picture.decode(),
    )


@pytest.mark.usefixtures("compiled")
def test_audio_features_come_when_they_are_asked_for(page_, songs, classifier, monkeypatch, tmp_path):
    decoded = []
    monkeypatch.setattr(
        handlers.figures, "load_audio", lambda song, **how: decoded.append(song) or load_audio(song, **how)
    )
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    assert len(decoded) == 0
    page_.get_by_role("button", name="More about the sound").click()
    figures = page_.locator("#sound-figures figure")
    expect(figures.locator("h2")).to_have_text([feature.title for feature in plots.FEATURES])
    assert len(decoded) == 1
    clear(page_)
    upload(page_, songs["noise"])  # while they are open, they follow the song
    expect_answer_to(songs["noise"], page_, classifier)
    expect(figures).to_have_count(len(plots.FEATURES))
    clear(page_)
    long = Path(shutil.copy(songs["noise"], tmp_path / f"{'noise ' * 30}.wav"))
    upload(page_, long)
    expect_answer_to(long, page_, classifier)
    expect(figures).to_have_count(len(plots.FEATURES))
    name, svg = expect_files(page_, "#sound-figures figure:first-child [data-save=svg]")
    assert name.endswith(".wav – Loudness.svg")
    assert b"RMS level" in svg
    assert juts_out(page_, svg) == []
    _, png = expect_files(page_, "#sound-figures figure:first-child [data-save=png]")
    assert png.startswith(b"\x89PNG")


@pytest.fixture
def endless_sound(monkeypatch):
    """The figures of the first song never come to an end; later songs have one figure each, with their number."""
    begun, may_end = [], Event()

    def drawn(path, opener):
        begun.append(path)
        yield f"<figure>song {len(begun)}</figure>"
        if len(begun) == 1:
            assert may_end.wait(60)
            yield "<figure>the rest</figure>"

    monkeypatch.setattr(handlers.figures, "sound_figures", drawn)
    yield
    may_end.set()


@pytest.mark.usefixtures("endless_sound")
def test_audio_features_of_the_next_song_do_not_wait_for_those_of_the_last(page_, songs, classifier):
    page_.get_by_role("button", name="More about the sound").click()
    expect(page_.locator("#sound-figures")).to_contain_text("Choose a song first.")
    upload(page_, songs["tone"])
    expect(page_.locator("#sound-figures figure")).to_have_text("song 1")
    upload_next(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)
    expect(page_.locator("#sound-figures figure")).to_have_text("song 2")


@pytest.mark.usefixtures("endless_sound")
def test_audio_features_are_drawn_to_the_end_for_another_model(page_, songs, classifier):
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    page_.get_by_role("button", name="More about the sound").click()
    expect(page_.locator("#sound-figures figure")).to_have_text("song 1")
    go(page_, "model")
    page_.locator("#bundled").get_by_text("crnn-scratch").click()
    expect(page_.locator("#sound-figures figure")).to_have_text("song 2")


# Many songs


def test_several_songs_become_a_table(page_, songs, classifier):
    go(page_, "songs")
    expect(page_.locator("#songs")).to_contain_text("will be listed here")
    page_.set_input_files("#files input[type=file]", [songs[name] for name in ("tone", "noise", "text", "silence")])
    expect(page_.locator("#status")).to_contain_text("Songs heard: 3 of 4.")
    rows = page_.get_by_role("region", name="Your songs").locator("tbody tr")
    expect(rows.locator("th")).to_have_text(["tone.wav", "noise.wav", "text.mp3", "silence.wav"])
    with pytest.raises(AudioError) as error:
        load_audio(songs["text"])
    expect(rows.nth(2)).to_contain_text(str(error.value))

    def column(number):
        return rows.locator(f"td:nth-child({number}):not([colspan])").all_inner_texts()

    sort = page_.get_by_role("button", name="Probability")
    sort.click()
    expect(page_.locator("th[aria-sort=descending]")).to_have_text("Probability")
    falling = [share for share in column(3) if share != "–"]
    assert falling == sorted(falling, reverse=True)
    sort.click()
    expect(page_.locator("th[aria-sort=ascending]")).to_have_text("Probability")
    assert [share for share in column(3) if share != "–"] == falling[::-1]

    name, table = expect_files(page_, "[data-take=csv]")
    assert name == "genres.csv"
    assert table.startswith(codecs.BOM_UTF8)  # else Excel takes it for another encoding
    read = {row["song"]: row for row in csv.DictReader(io.StringIO(table.decode("utf-8-sig"), newline=""))}
    prediction = classifier.predict(songs["noise"])
    assert float(read["noise.wav"]["rock & roll"]) == pytest.approx(prediction.probabilities["rock & roll"], abs=1e-4)
    assert read["text.mp3"]["error"] == str(error.value)
    for _ in range(2):
        name, answers = expect_files(page_, "[data-take=json]")
        assert name == "genres.json"
        assert [song["song"] for song in json.loads(answers)] == ["tone.wav", "noise.wav", "text.mp3", "silence.wav"]


def test_answers_that_the_server_has_no_longer_are_in_the_csv(browser, classifier, songs):
    demo = app.build_demo(classifier)
    with served(demo) as address, opened(browser, address, locale="de") as tab:
        go(tab, "songs")
        tab.set_input_files("#files input[type=file]", songs["tone"])
        expect(tab.locator("#status")).to_contain_text("1 von 1")
        for session in [*demo.state_holder.session_data]:
            demo.state_holder.forget(session)
        late = tab.locator("#songs [data-part=late]")
        expect(late).to_be_hidden()
        tab.locator("[data-take=json]").press("Enter")
        expect(late).to_contain_text("Lade das CSV herunter")
        assert b"tone.wav" in expect_files(tab, "[data-take=csv]")[1]
        expect(late).to_be_hidden()
        demo.close()
        tab.locator("[data-take=json]").click()
        expect(tab.locator("#songs [data-part=large]")).to_have_text(re.compile("^Der Server ist gerade nicht da"))
        tab.locator("[data-take=json]").click()
        expect(late).to_contain_text("Lade das CSV herunter")
        tab.faults.clear()


def test_songs_are_sorted_by_their_names_as_people_sort_them(page_, songs, tmp_path):
    names = ["Ärzte.wav", "track 2.wav", "Track 10.wav", "Zebra.wav"]
    given = [shutil.copy(songs["silence"], tmp_path / name) for name in reversed(names)]
    go(page_, "songs")
    page_.set_input_files("#files input[type=file]", [songs["text"], *given, songs["tone"]])
    expect(page_.locator("#status")).to_contain_text("Songs heard: 5 of 6.")
    rows = page_.locator("#songs tbody th")
    expected = [names[0], "text.mp3", "tone.wav", *names[1:]]
    for _ in range(2):
        page_.click("[data-sort=song]")
        expect(rows).to_have_text(expected)
        expected.reverse()
    for key in ("verdict", "second", "share", "seconds"):
        for _ in range(2):
            page_.click(f"[data-sort={key}]")
            names = rows.all_text_contents()
            assert names.index("tone.wav") < names.index("text.mp3")
            assert (names[0] if key in ("second", "share") else "tone.wav") == "tone.wav"


def test_file_that_is_too_large_is_left_out_of_many(page_, songs, tmp_path):
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(app.MAX_BYTES + 1)
    go(page_, "songs")
    page_.set_input_files("#files input[type=file]", [songs["tone"], large, songs["noise"]])
    expect(page_.locator("#songs [data-part=large]")).to_have_text(
        "Left out, as they are larger than 100 MB: large.wav"
    )
    expect(page_.locator("#songs tbody th")).to_have_text(["tone.wav", "noise.wav"])
    page_.set_input_files("#folder input[type=file]", songs["tone"].parent)
    expect(page_.locator("#songs [data-part=large]")).to_be_hidden()
    page_.locator("#files button[aria-label='Clear']").click()
    page_.set_input_files("#files input[type=file]", large)
    expect(page_.locator("#songs [data-part=large]")).to_have_text(
        "Left out, as they are larger than 100 MB: large.wav"
    )
    go(page_, "listen")
    upload(page_, large)
    refused = page_.locator("#refused .fault")
    expect(refused).to_have_text("large.wav is larger than 100 MB: save it as mp3, or only a part of it, first.")
    expect(page_.get_by_test_id("toast-text")).to_have_count(0)  # in which Gradio would say so
    page_.select_option("#language", "de")
    expect(refused).to_have_text(re.compile("^large.wav ist größer als 100 MB"))
    page_.locator("#examples button").first.click()
    expect(refused).to_be_hidden()


def test_file_that_is_too_large_is_left_out_of_many_that_are_dropped(page_, songs):
    go(page_, "songs")
    page_.evaluate(
        """([code, length]) => {
            const data = new DataTransfer(), field = document.querySelector("#files button");
            const bytes = Uint8Array.from(atob(code), sign => sign.charCodeAt(0));
            data.items.add(new File([bytes], "tone.wav", {type: "audio/wav"}));
            data.items.add(new File([new ArrayBuffer(length)], "lar\u202ege.wav", {type: "audio/wav"}));
            for (const kind of ["dragenter", "dragover", "drop"])
                field.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: data}));
        }""",
        [base64.b64encode(songs["tone"].read_bytes()).decode(), app.MAX_BYTES + 1],
    )
    expect(page_.locator("#songs [data-part=large]")).to_have_text(
        "Left out, as they are larger than 100 MB: large.wav"
    )
    expect(page_.locator("#songs tbody th")).to_have_text(["tone.wav"])
    expect(page_.locator("#status")).to_contain_text("Songs heard: 1 of 1.")


def test_keyboard_stays_on_its_song_when_others_come(page_, songs):
    go(page_, "songs")
    page_.set_input_files("#files input[type=file]", songs["tone"])
    expect(page_.locator("#status")).to_contain_text("Songs heard: 1 of 1.")
    song = page_.get_by_role("button", name="tone.wav", exact=True).and_(page_.locator("tbody button"))
    song.focus()
    page_.set_input_files("#folder input[type=file]", songs["tone"].parent)
    expect(page_.locator("#status")).to_contain_text("Songs heard: 3 of 4.")
    expect(song).to_be_focused()


def test_song_of_the_visit_is_opened_again(page_, songs, classifier):
    for name in ("tone", "noise"):
        upload(page_, songs[name])
        expect_answer_to(songs[name], page_, classifier)
        clear(page_)
    go(page_, "songs")
    page_.get_by_role("button", name="tone.wav").click()
    expect_answer_to(songs["tone"], page_, classifier)
    wait_for_sound(page_)
    go(page_, "songs")
    expect(page_.locator("#songs tbody tr")).to_have_count(2)


def test_name_that_the_server_cannot_give_a_file_is_kept_on_every_way(page_, songs, classifier, tmp_path):
    name = "Who is: next?.wav"
    upload(page_, shutil.copy(songs["tone"], tmp_path / name))
    expect_answer_to(songs["tone"], page_, classifier, name)
    upload_next(page_, songs["noise"])
    expect_answer_to(songs["noise"], page_, classifier)
    go(page_, "songs")
    page_.get_by_role("button", name=name).click()
    expect_answer_to(songs["tone"], page_, classifier, name)
    go(page_, "songs")
    expect(page_.locator("#songs tbody th")).to_have_text([name, "noise.wav"])
    page_.set_input_files("#files input[type=file]", shutil.copy(songs["silence"], tmp_path / "a|b?.wav"))
    expect(page_.locator("#songs tbody th").first).to_have_text("a|b?.wav")


def test_songs_lie_on_a_map_by_likeness(page_, songs, classifier, tmp_path):
    paths = {"tone.wav": songs["tone"], "noise.wav": songs["noise"]}
    paths["low.wav"] = write_wav(tmp_path / "low.wav", tone(200, 15))
    go(page_, "songs")
    page_.set_input_files("#files input[type=file]", [*paths.values(), songs["silence"]])
    expect(page_.locator("#status")).to_contain_text("Songs heard: 4 of 4.")
    heard = {name: classifier.predict(path) for name, path in paths.items()}
    vectors = {name: answer.embedding / np.linalg.norm(answer.embedding) for name, answer in heard.items()}
    dots = page_.locator("#songs .map").get_by_role("button", name=".wav", exact=False).and_(page_.locator("g"))
    expect(dots).to_have_count(3)  # silence sounds like nothing
    expect(dots.locator("text")).to_have_count(3)
    colours = plots.genre_colours(GENRES)
    at = {}
    for name, answer in heard.items():
        first = next(iter(answer.probabilities))
        dot = dots.and_(page_.get_by_role("button", name=f"{name} {first}"))
        dot.focus()
        others = sorted(vectors.keys() - {name}, key=lambda other: -vectors[name] @ vectors[other])
        expect(page_.locator("#songs .near button")).to_have_text(others)
        expect(page_.locator("#songs .near")).to_contain_text(f"Nearest to {name}:")
        circle = dot.locator("circle").last
        expect(circle).to_have_attribute("fill", colours[first])
        at[name] = np.array([float(circle.get_attribute(side)) for side in ("cx", "cy")])
    pairs = [("tone.wav", "low.wav"), ("tone.wav", "noise.wav"), ("low.wav", "noise.wav")]
    distances = [np.linalg.norm(vectors[a] - vectors[b]) for a, b in pairs]  # of three songs, two dimensions hold all
    assert np.corrcoef([np.linalg.norm(at[a] - at[b]) for a, b in pairs], distances)[0, 1] > 0.999
    order = sorted(at, key=lambda name: at[name][0])
    page_.keyboard.press("Home")
    for name in order:
        expect(page_.locator("#songs .map g:focus")).to_have_attribute("aria-pressed", "true")
        expect(page_.locator("#songs .near")).to_contain_text(name + ":")
        page_.keyboard.press("ArrowRight")
    violations = Axe().run(page_, context="#songs .map").response["violations"]
    assert not violations, [violation["id"] for violation in violations]
    page_.select_option("#language", "de")
    expect(page_.locator("#songs .near")).to_contain_text(f"Am nächsten an {order[-1]}:")
    page_.locator("#songs .map g:focus, #songs .map g[aria-pressed=true]").first.press("Enter")
    expect(page_.locator("#view [data-part=name]")).to_have_text(order[-1])


def test_folder_of_songs(page_, songs, tmp_path):
    (tmp_path / "album" / "disc").mkdir(parents=True)
    for number, name in enumerate(("tone", "noise")):
        shutil.copy(songs[name], tmp_path / "album" / ("disc" if number else ".") / f"{number}.wav")
    (tmp_path / "album" / "cover.txt").write_text("no song")
    (tmp_path / "album" / "@eaDir").mkdir()
    shutil.copy(songs["tone"], tmp_path / "album" / "@eaDir" / "2.wav")
    go(page_, "songs")
    page_.set_input_files("#folder input[type=file]", tmp_path / "album")
    expect(page_.locator("#status")).to_have_text(
        "Songs heard: 2 of 2. Files left out, as their names are not those of sounds: 1."
    )
    expect(page_.locator("#songs tbody th")).to_have_text(["0.wav", "1.wav"])


def test_many_songs_can_be_stopped(page_, songs, classifier):
    go(page_, "songs")
    classifier.may_answer.clear()
    classifier.heard.clear()
    page_.set_input_files("#files input[type=file]", [songs[name] for name in ("tone", "noise", "silence")])
    expect(page_.locator("#status")).to_contain_text("Song 1 of 3")
    page_.click("#stop-many")
    expect(page_.locator("#status")).to_contain_text("Stopped")
    classifier.may_answer.set()
    page_.wait_for_timeout(500)
    expect(page_.locator("#songs tbody tr")).to_have_count(0)
    assert len(classifier.heard) == 1


def test_next_batch_and_other_songs_are_not_lost(page_, songs, classifier, tmp_path):
    go(page_, "songs")
    classifier.may_answer.clear()
    page_.set_input_files("#files input[type=file]", [songs["silence"]])
    expect(page_.locator("#status")).to_contain_text("Song 1 of 1")
    go(page_, "listen")
    upload(page_, songs["tone"])  # while the batch goes on
    page_.wait_for_timeout(500)
    classifier.may_answer.set()
    expect_answer_to(songs["tone"], page_, classifier)
    go(page_, "songs")
    expect(page_.locator("#status")).to_contain_text("Songs heard: 1")
    page_.set_input_files("#folder input[type=file]", folder_of(tmp_path, songs["noise"]))
    expect(page_.locator("#songs tbody tr")).to_have_count(3)
    classifier.may_answer.clear()
    page_.locator("#files button[aria-label='Clear']").click()
    page_.set_input_files("#files input[type=file]", [shutil.copy(songs["tone"], tmp_path / "stopped.wav")])
    expect(page_.locator("#status")).to_contain_text("Song 1 of 1")
    page_.click("#stop-many")
    expect(page_.locator("#status")).to_contain_text("Stopped")
    page_.locator("#files button[aria-label='Clear']").click()
    page_.set_input_files("#files input[type=file]", [shutil.copy(songs["tone"], tmp_path / "next.wav")])
    classifier.may_answer.set()
    expect(page_.locator("#songs tbody th").filter(has_text="next.wav")).to_have_count(1)
    expect(page_.locator("#status")).to_contain_text("Songs heard: 1")


def folder_of(parent, *songs):
    """A folder with copies of these songs."""
    folder = parent / "folder"
    folder.mkdir()
    for song in songs:
        shutil.copy(song, folder)
    return folder


# How it works, the model, other programs


def test_way_to_the_answer_is_drawn_from_the_song(page_, songs, classifier):
    go(page_, "inside")
    expect(page_.locator("#inside-figures")).to_have_text("Choose a song first.")
    go(page_, "listen")
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    go(page_, "inside")
    expect(page_.locator("#inside-figures h2")).to_have_text([step.title for step in plots.STEPS])
    expect(page_.locator("#inside-figures svg")).to_have_count(len(plots.STEPS))


def test_way_to_the_answer_follows_the_song_that_is_still_being_heard(page_, songs, classifier):
    figures = page_.locator("#inside-figures")
    classifier.heard.clear()
    classifier.may_answer.clear()
    upload(page_, songs["tone"])
    while not classifier.heard:
        page_.wait_for_timeout(50)
    go(page_, "inside")
    expect(figures).to_have_text("The song is still being heard: this comes after its answer.")
    classifier.may_answer.set()
    expect(figures.locator("figure")).to_have_count(len(plots.STEPS))
    go(page_, "listen")
    upload_next(page_, songs["silence"])
    go(page_, "inside")
    expect(figures).to_contain_text("There is no music")


def test_model_is_described(page_, classifier):
    go(page_, "model")
    facts = page_.locator("#facts")
    expect(facts).to_contain_text("a small untrained model")
    parameters = sum(parameter.numel() for parameter in classifier.model.parameters())
    expect(facts).to_contain_text(f"{parameters:,}".replace(",", "\u202f"))
    expect(page_.locator("#card h1")).to_have_text("A small card")
    expect(page_.locator("#card")).not_to_contain_text("license: mit")
    assert not page_.locator("#card script").count()


def test_visitor_tries_another_model_for_himself(page_, browser, url, songs, classifier, hub, tmp_path):
    other = Listener(small_model(("left", "right"), seed=3), Origin("other"))
    save(other.model, tmp_path / "model", card="# Another card\n")
    commit = hub.push("someone/other", tmp_path / "model")
    upload(page_, songs["tone"])
    expect_answer_to(songs["tone"], page_, classifier)
    page_.select_option("[data-part=why]", GENRES[0])
    expect(page_.locator("#reasons .hint").first).to_be_visible()
    go(page_, "model")
    name = page_.get_by_label("Try another model")
    page_.click("#use")  # nothing is no name
    name.fill("someone/missing")
    name.press("Enter")
    expect(page_.locator("#told .fault")).to_contain_text("someone/missing")
    expect(page_.locator("#facts")).to_contain_text("a small untrained model")
    go(page_, "listen")
    expect(page_.locator("#answer")).not_to_contain_text("Answered by")
    expect(page_.locator("[data-part=why]")).to_have_value(GENRES[0])  # is not heard again
    go(page_, "model")
    name.fill("someone/other")
    page_.click("#use")
    expect(page_.locator("#told")).to_contain_text(f"someone/other@{commit[:7]}")
    expect(page_.locator("#facts")).to_contain_text("left, right")
    expect(page_.locator("#facts")).to_contain_text(commit)
    expect(page_.locator("#card h1")).to_have_text("Another card")
    go(page_, "listen")
    expect_answer_to(songs["tone"], page_, other)
    expect(page_.locator("#answer")).to_contain_text(f"Answered by someone/other@{commit[:7]}")
    drawn, room = (page_.locator(f"[data-part={part}]").bounding_box()["width"] for part in ("track", "scroller"))
    assert drawn == pytest.approx(room, abs=1)  # though it was drawn while it was not seen
    with opened(browser, url) as neighbour:
        upload(neighbour, songs["tone"])
        expect_answer_to(songs["tone"], neighbour, classifier)
    go(page_, "model")
    page_.click("#back")
    expect(page_.locator("#facts")).to_contain_text("a small untrained model")
    go(page_, "listen")
    expect_answer_to(songs["tone"], page_, classifier)


def test_model_that_is_named_while_another_is_fetched_is_not_lost(page_, hub):
    hub.hangs = True
    go(page_, "model")
    name = page_.get_by_label("Try another model")
    for model in ("someone/slow", "someone/other"):
        name.fill(model)
        name.press("Enter")
    hub.hangs = False
    expect(page_.locator("#told .fault")).to_contain_text("someone/other")


def test_model_that_is_fetched_keeps_nobody_from_another(page_, hub, monkeypatch):
    monkeypatch.setattr(sources, "HUB_TIMEOUT_SECONDS", 120.0)
    hub.hangs = True
    go(page_, "model")
    name = page_.get_by_label("Try another model")
    name.fill("someone/slow")
    name.press("Enter")
    page_.locator("#bundled").get_by_text("crnn-scratch").click()
    expect(page_.locator("#told")).to_contain_text("crnn-scratch")
    hub.stop()  # which is no answer any more
    page_.wait_for_timeout(1_000)
    expect(page_.locator("#told")).to_contain_text("crnn-scratch")


def test_bundled_model_is_a_click_away(page_):
    go(page_, "model")
    page_.locator("#bundled").get_by_text("crnn-scratch").click()
    expect(page_.locator("#told")).to_contain_text("crnn-scratch")
    expect(page_.locator("#facts")).to_contain_text("crnn-scratch (bundled)")


def test_host_can_keep_visitors_from_other_models(classifier, monkeypatch):
    labels = [block["props"].get("elem_id") for block in app.build_demo(classifier, choice=False).config["components"]]
    assert "facts" in labels
    assert "choice" not in labels
    assert app.parse_args(["--fixed"]).fixed
    assert not app.parse_args([]).fixed
    monkeypatch.setenv(app.FIXED_VARIABLE, "")  # whatever to
    assert app.parse_args([]).fixed


def test_client_example_works(url, songs, classifier, tmp_path):
    cut = tmp_path / "cut.wav"
    cut.write_bytes(songs["tone"].read_bytes()[:-100_000])

    def asked(*arguments):
        command = [sys.executable, ROOT / "examples" / "client.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = asked(songs["tone"], songs["text"], cut, "--url", url)
    first, second = done.stdout.splitlines()
    prediction = classifier.predict(songs["tone"])
    top = next(iter(prediction.probabilities.items()))
    assert first.startswith(f"{songs['tone']}: {prediction.verdict}")
    assert f" ({top[0]} {top[1]:.0%}, " in first
    assert second.startswith(f"{cut}: ")
    assert "Its end is missing" in second
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"{songs['text']}: text.mp3 ")
    done = asked(songs["tone"], "missing.mp3", "--url", url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert done.stderr.endswith("there is no file missing.mp3\n")
    done = asked(songs["tone"], "--url", "http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("No answer from http://127.0.0.1:9: ")


def test_client_example_is_on_the_page(page_):
    go(page_, "programs")
    expect(page_.locator("#client code")).to_contain_text("client.predict([handle_file(song) for song in args.songs]")


# How it feels


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_no_width_needs_sideways_scrolling(page_, songs, tmp_path, width):
    page_.set_viewport_size({"width": width, "height": 740})
    expect(page_.locator("footer :is(button, .divider):visible")).to_have_text("Use via API or MCP")
    upload(page_, songs["tone"])
    expect(page_.locator("#view image")).to_have_count(1)
    for name in TABS:
        go(page_, name)
        if name == "inside":
            expect(page_.locator("#inside-figures figure")).to_have_count(len(plots.STEPS))
        if name == "songs":
            fields = [page_.locator(field).bounding_box() for field in ("#files", "#folder")]
            assert min(field["width"] for field in fields) > 300  # names of files can be read
        page_.wait_for_timeout(300)
        assert page_.evaluate("document.documentElement.scrollWidth") <= width
    go(page_, "listen")
    clear(page_)
    upload(page_, shutil.copy(songs["text"], tmp_path / f"{'long' * 25}.mp3"))
    expect(page_.locator("#answer .fault")).to_be_visible()
    assert page_.evaluate("document.documentElement.scrollWidth") <= width
    page_.faults.clear()


@pytest.mark.parametrize("width", [320, 430])
def test_long_names_of_genres_have_room_on_a_phone(browser, songs, width):
    genres = ("rock", 12 * "house" + "core", "Contemporary Christian Gospel")
    demo = app.build_demo(Listener(small_model(genres), Origin("one with long names")))
    with served(demo) as address, opened(browser, address) as tab:
        tab.set_viewport_size({"width": width, "height": 740})
        upload(tab, songs["tone"])
        expect(tab.locator("#view image")).to_have_count(1)
        expect(tab.locator("#answer .bars span")).to_have_count(3)
        tab.select_option("[data-part=why]", genres[1])
        expect(tab.locator("#reasons .hint").first).to_be_visible()
        told = ("#answer .bars :is(span, b)", 30), ("#answer .bars i", 60), ("#view select", 60), ("#reasons span", 60)
        for parts, least in told:
            for box in [part.bounding_box() for part in tab.locator(parts).all()]:
                assert box["width"] > least
                assert box["x"] + box["width"] < width
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        _, svg = expect_files(tab, "[data-save-song=svg]")
        told = [unescape(text) for text in re.findall("<text[^>]*>([^<]+)</text>", svg.decode())]
        assert all(any(text.startswith(f"{genre} ") for text in told) for genre in genres)  # in the legend
        assert all(told.count(genre) <= 1 for genre in genres)  # in the drawing, all of which is seen at once
        assert juts_out(tab, svg) == []


def brightness(tab, selector, style):
    colour = tab.locator(selector).first.evaluate(f"element => getComputedStyle(element).{style}")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3


def test_news_are_told_to_those_who_listen_to_the_page(page_, songs, classifier):
    news = page_.locator("#announcer[role=status]")
    upload(page_, songs["tone"])
    expect(news).to_contain_text(plain(page.verdict(classifier.predict(songs["tone"]))))
    page_.select_option("[data-part=why]", GENRES[0])
    expect(news).to_contain_text(GENRES[0])
    page_.click("#record [data-part=microphone]")
    expect(page_.locator("#answer .passing .verdict")).to_be_visible()
    before = news.text_content()
    page_.wait_for_timeout(3_000)
    assert news.text_content() == before  # while it listens itself
    page_.click("#record [data-part=stop]")
    expect(news).to_contain_text(re.compile("in tests"))


def test_next_song_with_the_same_answer_is_news(page_, songs, classifier, tmp_path):
    news, verdict = page_.locator("#announcer"), plain(page.verdict(classifier.predict(songs["tone"])))
    upload(page_, songs["tone"])
    expect(news).to_contain_text(verdict)
    clear(page_)
    expect(news).to_be_empty()
    upload(page_, shutil.copy(songs["tone"], tmp_path / "same.wav"))
    expect(news).to_contain_text(verdict)
    told = """() => new Promise(resolve => {
        new MutationObserver(() => resolve(true)).observe(document.querySelector("#announcer"), {childList: true});
        const answer = document.querySelector("#answer .whole");
        answer.replaceWith(answer.cloneNode(true));
        setTimeout(() => resolve(false), 2000);
    })"""
    assert page_.evaluate(told)  # though no other answer stood there between


def test_theme_is_switched_and_remembered_and_drawings_follow(page_, url, songs):
    upload(page_, songs["tone"])
    expect(page_.locator("#view image")).to_have_count(1)
    axis = "#view svg text:has-text('0:05')"
    assert brightness(page_, axis, "fill") < 100 < brightness(page_, "body", "backgroundColor")
    switch = page_.get_by_role("button", name="Dark theme")
    switch.focus()
    page_.keyboard.press("Enter")
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert brightness(page_, axis, "fill") > 150 > brightness(page_, "body", "backgroundColor")
    _, png = expect_files(page_, "[data-save-song=png]")
    assert Image.open(io.BytesIO(png)).convert("L").getpixel((1, 1)) < 60
    page_.goto(url)
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert brightness(page_, "body", "backgroundColor") < 60
    page_.goto(f"{url}?__theme=dark&a=b")
    switch.click()
    page_.reload()
    expect(switch).to_have_attribute("aria-pressed", "false")
    assert page_.url == f"{url}?a=b"


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("code", sorted(app.TRANSLATIONS))
def test_visitor_is_spoken_to_in_the_language_of_the_browser(browser, url, songs, code):
    words = app.TRANSLATIONS[code]
    with opened(
        browser, url, locale={"pt": "pt-BR", "zh": "zh-CN"}.get(code, code)
    ) as tab:  # a text without translation is an error on the console
        expect(tab.locator("h1")).to_have_text(words["Which genre is this?"])
        expect(tab.locator("#listen-tab-button")).to_have_text(words["Listen"])
        expect(tab.locator("#language")).to_have_value(re.compile(f"^{code}"))
        upload(tab, songs["text"])
        fault = words[foreign.DOCUMENT].format(name="text.mp3", kind="TXT")
        expect(tab.locator("#answer .fault")).to_have_text(fault)
        tab.evaluate("window.songs.clear()")
        upload(tab, songs["tone"])
        expect(tab.locator("#view image")).to_have_count(1)
        expect(tab.locator("#answer .bars")).to_have_attribute("aria-label", words["Probability of each genre"])
        sounds_like = "It sounds like {kind}, which is none of its genres."
        for kind, said in (("classical", words["kind: classical"]), ("polka", "polka")):
            told = page.hint(sounds_like, kind=kind)
            tab.evaluate("html => document.querySelector('#answer .told').insertAdjacentHTML('beforeend', html)", told)
            expect(tab.locator("#answer .hint").last).to_have_text(words[sounds_like].format(kind=said))
        tab.faults.clear()  # the browser's player cannot play the text
        if code != "de":  # all have words for the same texts
            return
        tab.select_option("[data-part=why]", GENRES[0])
        expect(tab.locator("#reasons ul, #reasons .hint").first).to_be_visible()
        tab.locator("#sound button").first.click()
        expect(tab.locator("#sound-figures h2").last).to_have_text(words[plots.FEATURES[-1].title])
        expect(tab.locator("#sound-figures svg text", has_text=words["seconds"]).first).to_be_visible()
        for name in list(TABS)[1:]:
            go(tab, name)
            tab.wait_for_timeout(300)
        expect(tab.locator(".in-english")).to_have_text(words["The model describes itself in English:"])
        go(tab, "inside")
        expect(tab.locator("#inside-figures h2").last).to_have_text(words[plots.STEPS[-1].title])


def test_language_is_chosen_and_remembered(page_, url, songs):
    upload(page_, songs["silence"])
    expect(page_.locator("#answer .verdict")).to_have_text("No music here")
    page_.select_option("#language", "fr")
    words = app.TRANSLATIONS["fr"]
    expect(page_.locator("#answer .verdict")).to_have_text(words["No music here"])  # the answer stays, in French
    expect(page_.locator("#model-tab-button")).to_have_text(words["The model"])
    expect(page_.get_by_role("slider")).to_have_attribute("aria-label", words["Position in the song"])
    clear(page_)
    expect(page_.locator("#song .upload-container")).to_contain_text(words["Drop Audio Here"])
    page_.select_option("#language", "de")
    told = [app.TRANSLATIONS["de"][text] for text in ("Drop Audio Here", "- or -", "Click to Upload")]
    expect(page_.locator("#song .upload-container")).to_have_text(" ".join(told))
    page_.select_option("#language", "fr")
    page_.goto(url)
    expect(page_.locator("h1")).to_have_text(words["Which genre is this?"])
    page_.faults.clear()  # what Gradio was still asking for when the page was left
    page_.select_option("#language", "en")
    expect(page_.locator("h1")).to_have_text("Which genre is this?")


@pytest.mark.parametrize(
    ("spoken", "code"),
    [
        (["ja"], "en"),
        (["ca", "es-ES", "fr"], "es"),
        (["ja", "en-GB", "de"], "en"),
        (["it-IT", "de-DE"], "de"),
        (["gl", "pt-PT", "es"], "pt-BR"),
        (["zh-Hans-CN", "en"], "zh-CN"),
        (["zh-TW"], "zh-CN"),
    ],
)
def test_visitor_reads_the_first_of_his_languages_that_the_page_has_or_english(browser, url, spoken, code):
    with browser.new_context(viewport=VIEWPORT, locale=spoken[0]) as context, watched(context, url) as tab:
        tab.add_init_script(f"Object.defineProperty(navigator, 'languages', {{value: {spoken}}})")
        visit(tab, url)
        expect(tab.locator("html")).to_have_attribute("lang", code)
        words = app.TRANSLATIONS.get(code[:2], {})
        for selector, text in (("#song", "Drop Audio Here"), ("h1", "Which genre is this?")):
            expect(tab.locator(selector)).to_contain_text(words.get(text, text))
        assert not tab.evaluate("localStorage.getItem('genre-crnn-language')")


def test_page_says_that_the_server_is_away(browser, classifier, songs):
    demo = app.build_demo(classifier)
    with served(demo) as address, opened(browser, address, locale="de") as tab:
        demo.close()
        tab.locator("#examples button").first.click()
        expect(tab.locator("#refused .fault")).to_have_text(re.compile("^Der Server ist gerade nicht da"))
        tab.faults.clear()


@pytest.mark.parametrize("what", ["recording", "table", "table that grows"])
def test_what_a_visitor_has_is_not_lost_with_the_connection(browser, url, songs, classifier, what):
    """Gradio begins the page anew when it has the server again; who stays is told what there is left to do."""
    button = "#record [data-part=save]" if what == "recording" else "[data-take=csv]"
    fault = "#refused .fault" if what == "recording" else "#songs [data-part=large]"
    with opened(browser, url) as tab:
        asked = []
        tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
        if what == "recording":
            press(tab, "microphone")
            expect(tab.locator("#record [data-part=time]")).to_have_text("0:01 / 15:00")
        elif what == "table":
            go(tab, "songs")
            tab.set_input_files("#files input[type=file]", songs["tone"])
            expect(tab.locator("#status")).to_contain_text("Songs heard")
        else:
            go(tab, "songs")
            classifier.may_answer.clear()
            tab.set_input_files("#files input[type=file]", [songs["text"], songs["tone"]])  # the first is not heard
            expect(tab.locator("#status")).to_contain_text("Song 2 of 2")
            expect(tab.locator("#songs tbody tr")).to_have_count(1)
        tab.context.set_offline(True)
        tab.locator("#model-tab-button").click()
        go(tab, "listen" if what == "recording" else "songs")
        expect(tab.locator(fault)).to_contain_text("The server is away")
        tab.context.set_offline(False)
        expect(tab.locator(fault)).to_contain_text("has to be loaded anew")
        if what == "recording":
            press(tab, "stop")
            expect(tab.locator("#song audio")).to_be_attached()
        else:
            tab.set_input_files("#files input[type=file]", songs["noise"])
            expect(tab.locator("#files")).to_contain_text("noise")
        expect(tab.locator(fault)).to_contain_text("has to be loaded anew")
        with tab.expect_download():
            tab.click(button)
        assert asked == ["beforeunload"]
        tab.reload()
        assert asked == ["beforeunload"]
        classifier.may_answer.set()
        expect(tab.locator("#song input[type=file]")).to_be_attached()
        tab.faults.clear()


def test_page_that_has_the_server_can_be_left(page_, songs):
    asked = []
    page_.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    go(page_, "songs")
    page_.set_input_files("#files input[type=file]", songs["tone"])
    expect(page_.locator("#status")).to_contain_text("Songs heard")
    page_.reload()
    expect(page_.locator("#song input[type=file]")).to_be_attached()
    assert not asked


def test_visitor_from_taiwan_can_leave_chinese_and_tabs_keep_their_names(browser, url):
    with opened(browser, url, locale="zh-TW") as tab:
        expect(tab.locator("#language")).to_have_value("zh-CN")
        for code in ("en", "de", "zh-CN", "en"):
            tab.select_option("#language", code)
            words = app.TRANSLATIONS.get(code.split("-")[0], {})
            for name, title in TABS.items():
                expect(tab.locator(f"#{name}-tab-button")).to_have_text(words.get(title, title))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_shut_out(browser, url, songs, theme):
    """By the rules of axe-core; what is left are trifles of Gradio's own parts."""
    with opened(browser, url, f"?__theme={theme}") as tab:

        def check(name):
            violations = Axe().run(tab).response["violations"]
            serious = [v for v in violations if v["impact"] in ("serious", "critical")]
            assert not [(name, v["id"], [node["html"] for node in v["nodes"]]) for v in serious]

        check("empty")
        upload(tab, songs["tone"])
        expect(tab.locator("#view image")).to_have_count(1)
        tab.select_option("[data-part=why]", GENRES[0])
        expect(tab.locator("#view image")).to_have_count(2)
        tab.locator("#sound button").first.click()
        expect(tab.locator("#sound-figures figure")).to_have_count(len(plots.FEATURES))
        check("song")
        for name in list(TABS)[1:]:
            go(tab, name)
            if name == "inside":
                expect(tab.locator("#inside-figures figure")).to_have_count(len(plots.STEPS))
            tab.wait_for_timeout(500)
            check(name)


def test_uploads_are_deleted(browser, songs, classifier, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app, "KEPT_SECONDS", 6)  # looked after every second

    def kept():
        return [path.name for path in tmp_path.rglob("*") if path.is_file()]

    with served(app.build_demo(classifier)) as url, opened(browser, url) as tab:
        upload(tab, songs["tone"])
        expect_answer_to(songs["tone"], tab, classifier)
        assert kept() == ["tone.wav"]
        deadline = time.monotonic() + 60
        while kept() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not kept()
        go(tab, "songs")
        tab.get_by_role("button", name="tone.wav").click()
        expect(tab.locator("#status")).to_contain_text("no longer on the server")
        tab.faults.clear()  # the player may have asked for the file


# The API


def test_api_answers(client, songs, classifier):
    answer = client.predict(handle_file(songs["tone"]), api_name="/classify")
    expected = classifier.predict(songs["tone"]).as_dict()
    assert answer.keys() == expected.keys()
    assert answer["genre"] == expected["genre"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"])
    assert [row["start_seconds"] for row in answer["timeline"]] == [
        row["start_seconds"] for row in expected["timeline"]
    ]


def test_api_explains_a_bad_file(client, songs):
    with pytest.raises(AppError) as error:
        client.predict(handle_file(songs["text"]), api_name="/classify")
    with pytest.raises(AudioError) as expected:
        load_audio(songs["text"])
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize(("name", "nothing"), [("/classify", None), ("/classify_batch", [])])
def test_api_explains_a_missing_song(client, name, nothing):
    with pytest.raises(AppError, match=r"There (is no song|are no songs)"):
        client.predict(nothing, api_name=name)


def test_api_answers_for_many_songs(client, songs, classifier):
    sent = [handle_file(songs[name]) for name in ("tone", "text", "silence")]
    tone_answer, text_answer, silence_answer = client.predict(sent, api_name="/classify_batch")
    expected = classifier.predict(songs["tone"])
    assert tone_answer["song"] == "tone.wav"
    assert tone_answer["probabilities"] == pytest.approx(expected.probabilities)
    assert text_answer.keys() == {"song", "error"}
    assert silence_answer["genre"] == "no music"


def test_api_is_documented(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in api["named_endpoints"].items()
    } == {"/classify": ["song"], "/classify_batch": ["songs"]}
    assert [endpoint["returns"][0]["label"] for endpoint in api["named_endpoints"].values()] == ["Answer", "Answers"]
    assert all("genre" in endpoint["description"] for endpoint in api["named_endpoints"].values())
    assert not api["unnamed_endpoints"]


def test_language_models_have_the_same_tools(url, songs, classifier):
    async def ask():
        async with (
            streamablehttp_client(f"{url}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            code = base64.b64encode(songs["tone"].read_bytes()).decode()
            song = f"data:audio/wav;base64,{code}"
            given = {"song": song}, {"songs": [song, song]}
            return tools, [await session.call_tool(tool.name, sent) for tool, sent in zip(tools, given, strict=True)]

    with ThreadPoolExecutor(1) as pool:  # a thread without the browser's event loop
        tools, answers = pool.submit(asyncio.run, ask()).result()
    assert [tool.name for tool in tools] == ["classify", "classify_batch"]
    assert all("genre" in tool.description for tool in tools)
    one, many = tools[0].inputSchema["properties"]["song"], tools[1].inputSchema["properties"]["songs"]["items"]
    for described in (one, many):
        assert (described["type"], described["format"]) == ("string", "uri")
        assert "data:audio/mpeg;base64," in described["description"]
        assert "/gradio_api/file=PATH" in described["description"]
    verdict = classifier.predict(songs["tone"]).verdict
    assert not any(answer.isError for answer in answers), answers
    one, many = (json.loads(answer.content[0].text) for answer in answers)
    assert [told["genre"] for told in (one, *many)] == [verdict] * 3


# At the start


def test_examples_are_not_copied_to_where_uploads_are_deleted(classifier, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app.build_demo(classifier)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_example_has_its_credits():
    examples = [path for path in handlers.EXAMPLES.glob("*") if path.suffix in SUFFIXES]
    assert {path.stem for path in examples} == handlers.CREDITS.keys()
    words = (handlers.EXAMPLES / "README.md").read_text("utf-8")
    for credit in handlers.CREDITS.values():
        title, _, rest = credit.partition(" · ")
        author = rest.rpartition(", ")[0]
        assert title in words
        assert author in words


def test_notice_is_on_the_page(classifier):
    notice = "The Hub does not answer; <another> model answers."
    demo = app.build_demo(GenreClassifier(classifier.model, Origin("the bundled one", notice)))
    values = [str(block["props"].get("value")) for block in demo.config["components"]]
    assert any("The Hub does not answer; &lt;another&gt; model answers." in value for value in values)


def test_nothing_is_counted_or_kept(classifier):
    options = app.launch_options()
    assert (options["run_history"], options["enable_monitoring"]) == (False, False)
    demo = app.build_demo(classifier)
    assert not demo.analytics_enabled
    assert sum(demo.delete_cache) == 3_600


def test_without_any_model_there_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sources, "BUNDLED", tmp_path)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    assert app.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_page_starts_with_the_bundled_model():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != MODEL_VARIABLE}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert "Which genre is this?" in fetch(f"http://127.0.0.1:{port}/config", process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def fetch(address, process, seconds=180):
    """What a server says as soon as it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                return response.read().decode()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
