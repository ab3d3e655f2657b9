"""The web page: `python app.py` serves it with the bundled model, `python app.py --model MODEL` with another one."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path

from crnn.machine import NO_THREADS, lacks_threads, let_threads_rest
from crnn.terminal import (
    INTERRUPTED,
    called_as,
    complain,
    ended_like_ctrl_c,
    ended_without_memory,
    leave,
    open_streams,
)
from crnn.walk import SERVICE_FOLDERS
from crnn.web.environment import fault

if sentence := fault():  # before it is read by what is imported now
    complain(sentence, called_as("app.py"))
    sys.exit(2)
else:
    let_threads_rest()
    with ended_without_memory("app.py"):
        import torch  # first: it says what memory it lacks, where others end the program by a signal

        from crnn.web.handlers import EXAMPLES, Handlers  # which import nearly all of the rest

import gradio as gr
from starlette.middleware import Middleware

from crnn.arguments import add_model
from crnn.audio import MAX_SECONDS, SAMPLE_RATE, SUFFIXES, Opener, open_audio
from crnn.checkpoint import CheckpointError
from crnn.decoding import Decoders
from crnn.inference import GenreClassifier
from crnn.sources import bundled_names
from crnn.web import page
from crnn.web.cores import keep_memory_together
from crnn.web.gate import Gate
from crnn.web.server import (
    PageBlocks,
    ask_oneself_directly,
    file_input,
    files_input,
    let_the_last_example_count,
    own_place,
    please_zerogpu,
    remember_what_language_models_send,
    replace_parts,
    tended,
)
from crnn.web.songs import Visit
from crnn.web.turns import FairQueue, QueuePlaces
from crnn.web.uploads import Uploads, own_folder

ROOT = Path(__file__).parent
PARTS = ROOT / "assets" / "page"
LANGUAGES = {
    "en": "English",
    "de": "Deutsch",
    "es": "Español",
    "fr": "Français",
    "pt-BR": "Português",
    "zh-CN": "中文",
}
TRANSLATIONS = {
    file.stem: json.loads(file.read_text("utf-8")) for file in (ROOT / "assets/translations").glob("*.json")
}
FIXED_VARIABLE = "GENRE_CRNN_FIXED"  # if it is set, whatever to, visitors cannot try another model
HUB_ID_HINT = "A bundled model, or the id of a compatible one on the Hugging Face Hub. Other visitors keep the default."
MAX_MEGABYTES = 100  # of an upload
MAX_BYTES = MAX_MEGABYTES * gr.FileSize.MB
KEPT_SECONDS = 3_600  # that an upload stays on the server's disk, for its player
VISITORS = 8  # whose long work goes on at once, each slower
SONG = {  # of what hears one song: they share a queue, in which one song decodes while the others are recognised
    "concurrency_id": "song",
    "concurrency_limit": min(VISITORS, torch.get_num_threads() + 1),
}
MAX_SESSIONS = 200  # of which the server remembers the songs

RECORDING = {  # what the recorder has to know
    "sample_rate": SAMPLE_RATE,
    "passage_seconds": 10,  # that it asks about while it goes on
    "most_seconds": MAX_SECONDS,
    "most_bytes": MAX_BYTES - 1_024,
}
TABS = {
    "listen": "Listen",
    "songs": "Your songs",
    "inside": "How it works",
    "model": "The model",
    "programs": "For developers",
}
PRIVATE = {"api_visibility": "private"}  # of what only the page itself may ask
LONG = {  # of long work, in which neither a visitor's next choice waits for his last one nor he for others
    "trigger_mode": "multiple",
    "concurrency_limit": VISITORS,
    **PRIVATE,
}

ENGLISH = {message: message for message in TRANSLATIONS["de"]}
ENGLISH |= {  # Gradio's own texts, which it lacks in some languages
    "common.complete": "Complete",
    "common.upload": "Upload",
    "errors.use_via_api_or_mcp": "Use via API or MCP",
}
text = gr.I18n(en=ENGLISH, **TRANSLATIONS)


def part(name: str) -> str:
    """The text of a file of the page."""
    return (PARTS / name).read_text("utf-8")


def component(name: str) -> dict:
    """The template and the script of one of the page's own components, for gr.HTML."""
    return {"html_template": part(f"{name}.html"), "js_on_load": part("common.js") + part(f"{name}.js")}


@dataclass(frozen=True, eq=False)
class Shared:
    """What several tabs of the page need."""

    own: gr.State  # the visitor's GenreClassifier, None for the host's
    heard: gr.State  # what the page is about, Heard or None
    visit: gr.State  # the visitor's Visit
    song: gr.Audio
    table: gr.HTML
    tabs: gr.Tabs


def build_demo(classifier: GenreClassifier, choice: bool = True) -> gr.Blocks:
    """The page and its API, with the answers of `classifier`; to be launched with `launch_options()`.

    `choice`: whether visitors may try another model from the Hub.
    """
    happens = Handlers(classifier)
    replace_parts()
    gr.set_static_paths(EXAMPLES)  # else they would be deleted with the uploads
    looked_after = max(1, KEPT_SECONDS // 12)  # seconds; uploads get no older than the sum of both
    kept = {"delete_cache": (looked_after, KEPT_SECONDS - looked_after)}
    with PageBlocks(title="Genre CRNN", analytics_enabled=False, **kept) as demo:
        languages = "".join(f'<option value="{code}" lang="{code}">{name}</option>' for code, name in LANGUAGES.items())
        gr.HTML(part("header.html").replace("@languages", languages), elem_id="header")
        if classifier.origin.notice:
            gr.HTML(f'<p class="notice" role="status">{escape(classifier.origin.notice)}</p>')
        states = gr.State(None), gr.State(None), gr.State(Visit())
        with gr.Tabs(selected="listen", elem_id="tabs") as tabs:
            shared = Shared(*states, song_input(), songs_table(), tabs)
            tab = {name: gr.Tab(text(title), id=name, elem_id=f"{name}-tab") for name, title in TABS.items()}
            with tab["listen"]:
                hear, features = listen_tab(happens, shared)
            with tab["songs"]:
                songs_tab(happens, shared)
            with tab["inside"]:
                inside_tab(happens, shared, tab["inside"])
            with tab["model"]:
                model_tab(happens, shared, tab["model"], hear, features, choice)
            with tab["programs"]:
                programs_tab(happens)
        gr.HTML(page.footer(MAX_MEGABYTES, KEPT_SECONDS), elem_id="footer")
    let_the_last_example_count(demo)
    demo.queue(api_open=False)  # or programs could pass by the queue
    demo._queue = FairQueue.of(demo)
    folder = Path(gr.utils.get_upload_folder())
    demo.uploads = Uploads(demo.upload_file_set, KEPT_SECONDS, demo._queue.asked_about, folder)
    happens.shown, happens.answered = demo.uploads.shown, demo.uploads.answered
    remember_what_language_models_send(demo.uploads)
    return demo


def song_input() -> gr.Audio:
    """Where a song is uploaded and played, by the browser's own player: long songs do not choke it."""
    return file_input(
        text("Song"),
        sources=["upload"],  # recordings are ours
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
        buttons=[],
        render=False,
        elem_id="song",
    )


def songs_table() -> gr.HTML:
    """The table of the visit's songs."""
    return gr.HTML("", **component("songs"), render=False, elem_id="songs")


def listen_tab(happens: Handlers, shared: Shared) -> tuple[dict, dict]:
    """One song: the answer, the drawing, the reasons, the audio features.

    Returns how a song is heard and how its features are computed, for `gr.on`.
    """
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            shared.song.render()
            recorder = gr.HTML("", **component("record"), **RECORDING, elem_id="record")
            example_buttons(shared.song)
        with gr.Column(scale=3, min_width=320):
            gr.HTML('<p class="fault" role="alert" hidden></p>', elem_id="refused")  # by the page's script
            answer = gr.HTML(page.waiting(happens.classifier.genres), elem_id="answer")
    view = gr.HTML("", overlay="", **component("song"), elem_id="view")
    reasons, stop_why = reasons_section(happens, shared, view)
    features, stop_sound = sound_section(happens, shared)

    recorder.passage(
        happens.overhear,
        [shared.own, shared.visit],
        [answer, recorder],
        show_progress="hidden",
        trigger_mode="once",
        concurrency_limit=VISITORS,
        **PRIVATE,
    )
    hear = {
        "fn": happens.hear,
        "inputs": [shared.song, shared.own, shared.visit],
        "outputs": [answer, view, reasons, shared.heard, shared.table, stop_why, stop_sound],
        "show_progress_on": answer,
        "trigger_mode": "multiple",
        **SONG,
        **PRIVATE,
    }
    heard = shared.song.change(**hear)
    heard.then(None, js="() => document.dispatchEvent(new Event('heard'))", **PRIVATE)
    heard.then(**features)
    return hear, features


def reasons_section(happens: Handlers, shared: Shared, view: gr.HTML) -> tuple[gr.HTML, gr.Button]:
    """What spoke for the genre that is chosen in the drawing. Returns the reasons and the button to stop the search."""
    with gr.Row(elem_id="why"):
        reasons = gr.HTML("", elem_id="reasons", scale=4)
        stop_why = stop_button("stop-why")
    view.select(
        happens.why,
        [shared.heard, shared.visit],
        [view, reasons, stop_why],
        show_progress_on=reasons,
        **LONG,
    )
    stop_why.click(
        lambda visit: (happens.stop("why", visit), gr.update(overlay="")), shared.visit, [stop_why, view], **PRIVATE
    )
    return reasons, stop_why


def sound_section(happens: Handlers, shared: Shared) -> tuple[dict, gr.Button]:
    """The audio features, computed while the section is open. Returns how, for an event, and the button to stop it."""
    with gr.Accordion(text("More about the sound"), open=False, elem_id="sound") as section:
        figures = gr.HTML("", elem_id="sound-figures")
        stop = stop_button("stop-sound")
    is_open, shown = gr.State(False), gr.State(None)
    features = {
        "fn": happens.sound,
        "inputs": [shared.heard, is_open, shown, shared.visit],
        "outputs": [figures, shown, stop],
        "show_progress": "minimal",
        **LONG,
    }
    section.expand(lambda: True, None, is_open, **PRIVATE).then(**features)
    section.collapse(lambda: False, None, is_open, **PRIVATE)
    stop.click(partial(happens.stop, "sound"), shared.visit, stop, **PRIVATE)
    return features, stop


def stop_button(name: str) -> gr.Button:
    """A button that is there while long work goes on, to end it."""
    return gr.Button(text("Stop"), visible=False, size="sm", scale=0, min_width=90, elem_id=name)


def example_buttons(song: gr.Audio) -> None:
    """The example clips, one a genre."""
    examples = sorted(file for file in EXAMPLES.glob("*") if file.suffix in SUFFIXES)
    gr.Examples(
        examples,
        song,
        label=text("Or one of these examples"),
        example_labels=[file.stem.capitalize() for file in examples],
        cache_examples=False,
        api_visibility="private",
        elem_id="examples",
    )


def songs_tab(happens: Handlers, shared: Shared) -> None:
    """Many songs: upload, progress, the table of the visit."""
    with gr.Row():
        files = files_input(text("Several songs at once"), file_count="multiple", height=140, elem_id="files")
        folder = files_input(text("Or a folder of songs"), file_count="directory", height=140, elem_id="folder")
    with gr.Row(elem_id="status-row"):
        status = gr.HTML("", elem_id="status", scale=4)
        stop = stop_button("stop-many")
    shared.table.render()
    for chosen in (files, folder):
        chosen.upload(
            happens.hear_many,
            [chosen, shared.own, shared.visit],
            [shared.table, status, stop],
            show_progress_on=status,
            **LONG,
        )
    stopped = page.hint("Stopped; what was heard so far is below.")
    stop.click(lambda visit: (happens.stop("many", visit), stopped), shared.visit, [stop, status], **PRIVATE)
    file = gr.Textbox(visible=False)  # a property of the table would be kept for each visitor
    saved = shared.table.take(happens.as_json, shared.visit, file, show_progress_on=status, **LONG)
    saved.success(None, file, file, js="text => window.songs.save(text)", **PRIVATE)
    shared.table.select(
        happens.open_again,
        shared.visit,
        [shared.song, shared.tabs, status],
        trigger_mode="multiple",  # the last click counts
        **PRIVATE,
    )


def inside_tab(happens: Handlers, shared: Shared, tab: gr.Tab) -> None:
    """The way from the visitor's song to its genre."""
    gr.HTML(
        page.hint("The way from your song to its genre, in pictures of the passage that spoke most for the answer.")
    )
    figures = gr.HTML("", elem_id="inside-figures")
    stop = stop_button("stop-inside")
    shown = gr.State(None)
    again = gr.Button(visible="hidden", elem_id="inside-again")  # for a song that came late, by the page's script
    gr.on(
        [tab.select, again.click],
        happens.inside,
        [shared.heard, shown, shared.visit],
        [figures, shown, stop],
        show_progress="minimal",
        **LONG,
    )
    stop.click(partial(happens.stop, "inside"), shared.visit, stop, **PRIVATE)


def model_tab(happens: Handlers, shared: Shared, tab: gr.Tab, hear: dict, features: dict, choice: bool) -> None:
    """The model behind the answers, and another one to try."""
    facts = gr.HTML("", elem_id="facts")
    if choice:
        with gr.Row(elem_id="choice", equal_height=False):
            name = gr.Textbox(
                label=text("Try another model"),
                info=text(HUB_ID_HINT),
                placeholder="user/name@revision",
                max_lines=1,
                scale=4,
                min_width=320,
            )
            use = gr.Button(text("Use it"), scale=1, min_width=120, elem_id="use")
            back = gr.Button(text("Back to the default"), scale=1, min_width=120, elem_id="back")
        bundled = gr.Examples(
            bundled_names(), name, label=text("Bundled models"), api_visibility="private", elem_id="bundled"
        )
        told = gr.HTML("", elem_id="told")
    figures = gr.HTML("", elem_id="model-figures")
    card = gr.Markdown("", elem_id="card")
    seen = [facts, figures, card]
    tab.select(happens.about, shared.own, seen, show_progress="minimal", **PRIVATE)
    if choice:
        tried = {
            "fn": happens.try_model,
            "inputs": [name, shared.visit],
            "outputs": [shared.own, told, *seen],
            "show_progress_on": told,
            "concurrency_limit": VISITORS,  # nobody waits for what another visitor fetches
            "trigger_mode": "always_last",  # a name that is given while another model is fetched is not lost
            **PRIVATE,
        }
        returned = back.click(happens.go_back, shared.visit, [shared.own, told, name], **PRIVATE)
        for event in (
            gr.on([name.submit, use.click], **tried),
            bundled.load_input_event.then(**tried),
            returned.then(happens.about, shared.own, seen, **PRIVATE),
        ):
            event.then(**hear).then(**features)


def programs_tab(happens: Handlers) -> None:
    """The endpoints, and how to use them."""
    gr.HTML(page.programs())
    gr.Markdown(f"```python\n{(ROOT / 'examples/client.py').read_text('utf-8')}```", elem_id="client")
    song = file_input("Song", visible=False)
    songs = files_input("Songs", file_count="multiple", visible=False)
    answer, answers = gr.JSON(label="Answer", visible=False), gr.JSON(label="Answers", visible=False)
    gr.on([], happens.classify, song, answer, api_name="classify", **SONG)
    gr.on([], happens.classify_batch, songs, answers, api_name="classify_batch", concurrency_limit=VISITORS)


def launch_options() -> dict:
    """How the page is served: Gradio takes its looks, limits and habits at launch."""
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    translations = json.dumps(TRANSLATIONS, ensure_ascii=False).replace("</", "<\\/")
    given = (
        f"const LANGUAGES = {json.dumps([*LANGUAGES])}, TRANSLATIONS = {translations}, "
        f"TABS = {json.dumps([*TABS.values()])}, MOST_BYTES = {MAX_BYTES}, "
        f"SERVICE_FOLDERS = {json.dumps(sorted(SERVICE_FOLDERS))};\n"
    )
    script = given + part("common.js") + part("page.js")
    return {
        "theme": theme.set(body_text_color_subdued="*neutral_500"),  # its own grey is too light to read
        # As a part of the head, as Gradio rewrites what it is given as `css`, and breaks it.
        "head": f"<style>{part('style.css')}</style><script>{script}</script>",
        "i18n": text,
        "max_file_size": MAX_BYTES,
        "state_session_capacity": MAX_SESSIONS,
        "footer_links": ["api"],  # its settings would begin the page anew, and offer languages that it lacks
        "mcp_server": find_spec("mcp") is not None,
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "app_kwargs": {
            "middleware": [Middleware(Gate, uploads=Path(gr.utils.get_upload_folder())), Middleware(QueuePlaces)],
            "lifespan": tended,
        },
    }


@contextmanager
def decoding() -> Iterator[Opener]:
    """What opens the visitors' songs: processes of their own, but for Windows."""
    if sys.platform == "win32":
        yield open_audio
        return
    with Decoders() as decoders:
        yield decoders.open_audio


def serve(args: argparse.Namespace) -> None:
    """Serve the page until it is stopped, in a notebook, too; visitors' songs have a folder and decoders of its own.

    Raises CheckpointError if there is no model, and OSError if the page cannot be where it should, or its uploads.
    """
    ask_oneself_directly()
    place = own_place()
    with own_folder(), decoding() as opener:
        classifier = GenreClassifier.from_pretrained(args.model, fallback=True, opener=opener, precision="fastest")
        if classifier.origin.notice:
            complain(classifier.origin.notice, called_as("app.py"))
        demo = build_demo(classifier, choice=not args.fixed)
        demo.launch(**place, inbrowser=args.open, prevent_thread_lock=True, **launch_options())
        demo.block_thread()  # Gradio itself does so in scripts alone


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Serve the page. The variables GRADIO_SERVER_NAME and GRADIO_SERVER_PORT set its address."
    )
    add_model(parser)
    parser.add_argument(
        "--fixed",
        action="store_true",
        default=FIXED_VARIABLE in os.environ,
        help=f"do not let visitors try other models (default: if ${FIXED_VARIABLE} is set)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in this computer's browser")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is stopped; returns the exit status, 2 if there is no model or the port is not free."""
    args = parse_args(argv)
    keep_memory_together()
    please_zerogpu()
    status = INTERRUPTED  # until it has served
    try:
        with ended_like_ctrl_c():  # who stops a container or closes a terminal wants uploads to go, too
            serve(args)
            status = 0
    except (CheckpointError, OSError) as error:
        with suppress(OSError):  # the terminal may have gone
            complain(error, called_as("app.py"))
        return 2
    except RuntimeError as error:
        if not lacks_threads(error):
            raise
        complain(NO_THREADS, called_as("app.py"))
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


if __name__ == "__main__":
    open_streams()
    sys.exit(leave(main()))
