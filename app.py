"""The web page: `python app.py` serves it with the bundled model, `python app.py --model MODEL` with another one."""

import argparse
import sys
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import gradio as gr

from crnn import plots
from crnn.audio import MAX_SECONDS, SUFFIXES, AudioError
from crnn.checkpoint import MODEL_VARIABLE, CheckpointError
from crnn.inference import NO_MUSIC, UNSURE, GenreClassifier, Prediction

ASSETS = Path(__file__).parent / "assets"
EXAMPLES = ASSETS / "examples"
MAX_MEGABYTES = 100  # of an upload
KEPT_SECONDS = 3_600  # that an upload stays on the server's disk, for its player

# Browsers clean recordings for speech: echo and noise are removed, loudness is levelled. Music does not survive that.
MICROPHONE = """<script>(() => {
  const media = navigator.mediaDevices;
  if (!media?.getUserMedia) return;
  const ask = media.getUserMedia.bind(media);
  const raw = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  media.getUserMedia = wish =>
    ask(wish?.audio ? {...wish, audio: {...(wish.audio === true ? {} : wish.audio), ...raw}} : wish);
})();</script>"""

INTRODUCTION = """# Which genre is this?
Upload a song, record some music or try an example. A neural network listens to it and says what it hears, and when."""

FOOTER = """**What it knows.** {genres}. The bundled model learned them from clips collected around 2000 (GTZAN), so
newer styles are foreign to it. Any other music, and speech and noise too, can only come out as one of these or as
unsure: an answer says what a song resembles.

**Your clips** are deleted from the server after an hour; nothing else is stored, counted or passed on. Files up to
{megabytes} MB work, of which the first {minutes} minutes are heard: wav, mp3, flac, ogg, opus, m4a, aac, webm, wma,
aiff, and videos with sound.

Answers come from the model {model}."""

NOTHING_YET = '<p class="hint">The answer will appear here.</p>'


def build_demo(classifier: GenreClassifier) -> gr.Blocks:
    """The page and its API, with the answers of `classifier`; to be launched with `launch_options()`."""

    def classify(song: str) -> dict:
        """Recognise the genre of a song.

        The answer has `genre` (the most probable one, "unsure", or "no music" for silence), `probabilities` (of each
        genre, the highest first), `timeline` (the probabilities in windows of the song, each with its `start_seconds`
        and `end_seconds`) and `duration_seconds`.

        Args:
            song: a sound file, or a video with sound, of at least one second; the first 15 minutes are heard.
        """
        if song is None:
            raise gr.Error("There is no song: send an audio file.", print_exception=False)
        try:
            return classifier.predict(song).as_dict()
        except AudioError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def show(song: str | None) -> str:
        if song is None:
            return NOTHING_YET
        try:
            return result(classifier.predict(song))
        except AudioError as error:
            return f'<p class="fault" role="alert">{escape(str(error))}</p>'

    gr.set_static_paths(EXAMPLES)  # else they would be deleted with the uploads
    with gr.Blocks(title="Genre CRNN", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)) as demo:
        gr.Markdown(INTRODUCTION)
        if classifier.origin.notice:
            gr.HTML(f'<p class="notice" role="status">{escape(classifier.origin.notice)}</p>')
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                song = gr.Audio(label="Song", type="filepath", sources=["upload", "microphone"], elem_id="song")
                examples = sorted(path for path in EXAMPLES.glob("*") if path.suffix in SUFFIXES)
                if examples:
                    labels = [path.stem.capitalize() for path in examples]
                    gr.Examples(
                        examples,
                        song,
                        label="Or one of these synthesised examples",
                        example_labels=labels,
                        cache_examples=False,
                        api_visibility="private",
                        elem_id="examples",
                    )
            with gr.Column(scale=3, min_width=320):
                answer = gr.HTML(NOTHING_YET, elem_id="answer", min_height=100)
        gr.Markdown(footer(classifier), elem_id="about")
        details = gr.JSON(visible=False, label="Answer")

        song.change(show, song, answer, api_visibility="private", show_progress="full")
        gr.on([], classify, song, details, api_name="classify")
    return demo.queue(max_size=20)


def result(prediction: Prediction) -> str:
    """All that the page shows of a prediction, as HTML."""
    parts = [f'<p class="verdict" role="status">{escape(verdict(prediction))}</p>']
    if prediction.duration_seconds >= MAX_SECONDS:
        parts.append(f'<p class="hint">Of this long song, the first {MAX_SECONDS // 60} minutes were heard.</p>')
    if prediction.verdict != NO_MUSIC:
        parts += [bars(prediction), chart("Genre over time", timeline(prediction))]
    spectrogram = plots.to_svg(plots.mel_spectrogram(prediction.log_mel), "Mel spectrogram: loudness by time and pitch")
    parts.append(chart("Mel spectrogram: the sound as the network sees it", spectrogram))
    return "".join(parts)


def verdict(prediction: Prediction) -> str:
    """The answer in a few words."""
    if prediction.verdict == NO_MUSIC:
        return "No music here: the recording is silent"
    first, second = list(prediction.probabilities)[:2]
    if prediction.verdict == UNSURE:
        return f"Unsure: between {first} and {second}"
    return f"{first.capitalize()}, {prediction.probabilities[first]:.0%}"


def bars(prediction: Prediction) -> str:
    """A bar for each genre, the most probable first; their colours are those of the timeline."""
    colours = plots.genre_colours(prediction.genres)
    rows = [
        f'<li style="--share: {share:.4f}; --colour: {colours[genre]}">'
        f"<span>{escape(genre)}</span><i></i><b>{share:.0%}</b></li>"
        for genre, share in prediction.probabilities.items()
    ]
    return f'<ol class="bars" aria-label="Probability of each genre">{"".join(rows)}</ol>'


def timeline(prediction: Prediction) -> str:
    """The genres over time as an SVG; read out, it is the most probable genres in their order."""
    figure = plots.timeline(
        prediction.starts_seconds,
        prediction.window_seconds,
        prediction.timeline,
        prediction.genres,
        prediction.duration_seconds,
    )
    winners = [prediction.genres[i] for i, _ in groupby(prediction.timeline.argmax(axis=1))]
    return plots.to_svg(figure, f"Most probable genre from start to end: {', '.join(winners)}")


def chart(caption: str, svg: str) -> str:
    """A figure with its caption."""
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def footer(classifier: GenreClassifier) -> str:
    """What the page is, can and does, as Markdown."""
    return FOOTER.format(
        genres=", ".join(classifier.genres).capitalize(),
        megabytes=MAX_MEGABYTES,
        minutes=MAX_SECONDS // 60,
        model=classifier.origin.name,
    )


def launch_options() -> dict:
    """How the page is served: Gradio takes its looks, limits and habits at launch."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {
        "theme": theme.set(body_text_color_subdued="*neutral_500"),  # its own grey is too light to read
        "css_paths": ASSETS / "style.css",
        "head": MICROPHONE,
        "max_file_size": f"{MAX_MEGABYTES}mb",
        "footer_links": ["api", "settings"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
    }


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Serve the page. GRADIO_SERVER_NAME and GRADIO_SERVER_PORT set its address."
    )
    parser.add_argument(
        "--model", help=f"a folder, a bundled model or a Hub id with an optional @revision (default: ${MODEL_VARIABLE})"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser of this computer")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is stopped; returns the exit status, 2 if there is no model or no free port."""
    args = parse_args(argv)
    try:
        classifier = GenreClassifier.from_pretrained(args.model, fallback=True)
        build_demo(classifier).launch(inbrowser=args.open, **launch_options())
    except (CheckpointError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
