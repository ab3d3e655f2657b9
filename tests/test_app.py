"""The page in a real browser and its API, with a small untrained model whose answers the tests compute themselves."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect, sync_playwright

import app
from crnn import checkpoint
from crnn.audio import SAMPLE_RATE, AudioError, load_audio
from crnn.checkpoint import BUNDLED, DEFAULT_MODEL, MODEL_VARIABLE, Origin
from crnn.inference import NO_MUSIC, UNSURE, GenreClassifier
from crnn.model import CRNN, CRNNConfig

GENRES = ("blues", "jazz", "rock & roll")
PLAYED_DB = -20.0  # RMS below full scale of what the fake microphone plays
PATIENCE_MS = 60_000  # for a machine that is busy with other things
ROOT = Path(app.__file__).parent


class Listener(GenreClassifier):
    """Keeps the waveforms that it is asked about."""

    heard: list

    def predict(self, source):
        self.heard.append(load_audio(source))
        return super().predict(source)


def write_wav(path, waveform, sample_rate=SAMPLE_RATE):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


def tone(hz, seconds, sample_rate=SAMPLE_RATE):
    """A tone at PLAYED_DB, shape (samples,)."""
    amplitude = np.sqrt(2) * 10 ** (PLAYED_DB / 20)
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)


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


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)  # one that hears a difference between the songs
    model = CRNN(CRNNConfig(genres=GENRES, channels=(4, 4), mel_pools=(8, 16), time_pools=(4, 4), recurrent_size=4))
    model.stem.mean.fill_(-40.0)
    model.stem.std.fill_(20.0)
    torch.nn.init.normal_(model.members[0].classifier.linear.weight)
    listener = Listener(model, Origin("a small untrained model"))
    listener.heard = []
    return listener


@pytest.fixture(scope="module")
def url(classifier):
    demo = app.build_demo(classifier)
    _, address, _ = demo.launch(**app.launch_options(), server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium whose microphone plays a steady tone, which cleaning for speech would remove as noise."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"none of {', '.join(names)} is installed")
    played = write_wav(tmp_path_factory.mktemp("microphone") / "tone.wav", tone(440, 20, 48_000), 48_000)
    arguments = [
        "--no-sandbox",
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={played}",
    ]
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """The page, freshly opened; at the end it must have reported no error and asked no other server."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE_MS)
    faults = []
    opened.on("console", lambda message: message.type == "error" and faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: request.url.startswith((url, "blob:", "data:")) or faults.append(request.url))
    opened.faults = faults
    opened.goto(url)
    yield opened
    opened.close()
    assert not faults


def upload(page, path):
    page.set_input_files("#song input[type=file]", path)


def clear(page):
    page.click("#song button[aria-label='Clear']")


def expect_answer_to(song, page, classifier):
    """Wait until the page shows what the classifier says, which is not the same for all songs."""
    prediction = classifier.predict(song)
    expect(page.locator("#answer .verdict")).to_have_text(app.verdict(prediction))
    shares = [f"{genre}{share:.0%}" for genre, share in prediction.probabilities.items()]
    expect(page.locator("#answer .bars li")).to_have_text(shares)
    expect(page.locator("#answer svg[role=img]")).to_have_count(2)


def test_upload_shows_the_answer(page, songs, classifier):
    upload(page, songs["tone"])
    expect_answer_to(songs["tone"], page, classifier)


def test_next_song_replaces_the_answer(page, songs, classifier):
    assert app.verdict(classifier.predict(songs["tone"])) != app.verdict(classifier.predict(songs["noise"]))
    upload(page, songs["tone"])
    expect_answer_to(songs["tone"], page, classifier)
    clear(page)
    upload(page, songs["noise"])
    expect_answer_to(songs["noise"], page, classifier)


def test_clearing_clears_the_answer(page, songs):
    upload(page, songs["tone"])
    expect(page.locator("#answer .verdict")).to_be_visible()
    clear(page)
    expect(page.locator("#answer .verdict")).to_have_count(0)
    expect(page.locator("#answer")).to_have_text("The answer will appear here.")


def test_example_is_played_and_answered(page, classifier):
    example = page.locator("#examples button").first
    name = example.inner_text().lower()
    example.click()
    (path,) = (ROOT / "assets" / "examples").glob(f"{name}.*")
    expect_answer_to(path, page, classifier)


def test_bad_file_is_explained_and_the_page_goes_on(page, songs, classifier):
    upload(page, songs["text"])
    message = page.locator("#answer .fault")
    expect(message).to_contain_text("text.mp3")
    with pytest.raises(AudioError) as error:
        load_audio(songs["text"])
    expect(message).to_have_text(str(error.value))
    expect(page.locator("body")).not_to_contain_text("Traceback")
    page.faults.clear()  # Gradio's player cannot play it either, and says so on the console
    clear(page)
    upload(page, songs["tone"])
    expect_answer_to(songs["tone"], page, classifier)
    expect(message).to_have_count(0)


def test_silence_is_no_music(page, songs):
    upload(page, songs["silence"])
    expect(page.locator("#answer .verdict")).to_have_text("No music here: the recording is silent")
    expect(page.locator("#answer .bars li")).to_have_count(0)


def test_recording_arrives_as_it_sounded(page, url, classifier):
    page.add_init_script(
        """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.wishes = [];
        navigator.mediaDevices.getUserMedia = wish => { wishes.push(wish); return ask(wish); };"""
    )
    page.goto(url)
    page.click("#song button[aria-label='Record audio']")
    page.click("#song button.record-button")
    page.wait_for_timeout(3_000)
    classifier.heard.clear()
    page.click("#song button.stop-button")
    expect(page.locator("#answer .verdict")).to_be_visible()
    wishes = [wish["audio"] for wish in page.evaluate("wishes")]
    assert wishes
    for name in ("echoCancellation", "noiseSuppression", "autoGainControl"):
        assert [wish[name] for wish in wishes] == [False] * len(wishes)
    (recording,) = classifier.heard
    assert len(recording) > 2 * SAMPLE_RATE
    assert rms_db(recording[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]) == pytest.approx(PLAYED_DB, abs=1.5)


def test_phone_needs_no_sideways_scrolling(page, songs, tmp_path):
    page.set_viewport_size({"width": 360, "height": 740})
    upload(page, songs["tone"])
    expect(page.locator("#answer svg[role=img]")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    clear(page)
    upload(page, shutil.copy(songs["text"], tmp_path / f"{'long' * 25}.mp3"))
    expect(page.locator("#answer .fault")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.faults.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_are_written_in_the_text_colour_of_the_theme(page, url, songs, theme):
    page.goto(f"{url}?__theme={theme}")
    upload(page, songs["tone"])
    expect(page.locator("#answer svg[role=img]")).to_have_count(2)
    text = page.locator("#answer svg text", has_text="seconds").first
    colour = text.evaluate("element => getComputedStyle(element).fill")
    assert colour == page.locator("#answer .verdict").evaluate("element => getComputedStyle(element).color")
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour))
    assert (red + green + blue > 3 * 128) == (theme == "dark")


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


def test_api_explains_a_missing_song(client):
    with pytest.raises(AppError, match="There is no song"):
        client.predict(None, api_name="/classify")


def test_api_has_one_documented_endpoint(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/classify"]
    assert not api["unnamed_endpoints"]
    endpoint = api["named_endpoints"]["/classify"]
    assert "genre" in endpoint["description"]
    assert [parameter["parameter_name"] for parameter in endpoint["parameters"]] == ["song"]


def test_examples_are_not_copied_to_where_uploads_are_deleted(classifier, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app.build_demo(classifier)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_verdicts_in_words(classifier, songs):
    prediction = classifier.predict(songs["tone"])
    shares = {"rock & roll": 0.874, "jazz": 0.1, "blues": 0.026}
    known = replace(prediction, verdict="rock & roll", probabilities=shares)
    assert app.verdict(known) == "Rock & roll, 87%"
    assert app.verdict(replace(known, verdict=UNSURE)) == "Unsure: between rock & roll and jazz"
    assert app.verdict(replace(known, verdict=NO_MUSIC, probabilities={})) == "No music here: the recording is silent"


def test_long_song_says_how_much_was_heard(classifier, songs):
    prediction = classifier.predict(songs["tone"])
    assert "15 minutes" not in app.result(prediction)
    assert "the first 15 minutes" in app.result(replace(prediction, duration_seconds=900.0))


def test_names_cannot_become_markup(classifier, songs):
    prediction = classifier.predict(songs["tone"])
    name = "<script>alert(1)</script>"
    evil = replace(prediction, verdict=name, genres=(name, "b", "c"), probabilities={name: 0.9, "b": 0.1, "c": 0.0})
    assert "<script" not in app.result(evil)


def test_notice_is_on_the_page(classifier):
    notice = "The Hub does not answer; <another> model answers."
    demo = app.build_demo(GenreClassifier(classifier.model, Origin("the bundled one", notice)))
    values = [str(block["props"].get("value")) for block in demo.config["components"]]
    assert any("The Hub does not answer; &lt;another&gt; model answers." in value for value in values)
    assert any("the bundled one" in value for value in values)


def test_without_any_model_there_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    assert app.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not (BUNDLED / DEFAULT_MODEL).is_dir(), reason="the bundled model is not there yet")
def test_page_starts_with_the_bundled_model():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != MODEL_VARIABLE}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert f"{DEFAULT_MODEL} (bundled)" in fetch(f"http://127.0.0.1:{port}/config", process)
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
