"""What the page says of a song, as HTML: the answer, the bars, the reasons.

Every fixed text goes through `say`, so that the browser can put it into the visitor's language.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

from crnn.audio import AudioError
from crnn.inference import NO_MUSIC, UNSURE, Prediction
from crnn.insight.explain import Explanation
from crnn.network.audioset import names_in
from crnn.plots import genre_colours

MOST_OF_A_HUNDRED = 99  # answers that are called right: none is certain
TENTHS_BELOW = 2.0  # seconds: times of passages as short as that are told to a tenth


def say(message: str, **values: object) -> str:
    """An English message as HTML with its values in place of the {names}; the browser may translate it."""
    data = "".join(f' data-{name}="{escape(str(value))}"' for name, value in values.items())
    return f'<span data-say="{escape(message)}"{data}>{escape(message.format(**values))}</span>'


def fault(error: Exception) -> str:
    """What went wrong, in a sentence."""
    if isinstance(error, AudioError):
        return f'<p class="fault" role="alert">{say(error.message, **error.values)}</p>'
    return f'<p class="fault" role="alert" lang="en">{escape(str(error))}</p>'


def hint(message: str, **values: object) -> str:
    """A remark in small print."""
    return f'<p class="hint">{say(message, **values)}</p>'


def in_english() -> str:
    """A remark to those whose language is another one."""
    return f'<div class="in-english">{hint("The model describes itself in English:")}</div>'


def answer(
    prediction: Prediction,
    unsure_below: float,
    made_as: str | None = None,
    model: str | None = None,
    others: Sequence[str] = (),
) -> str:
    """The verdict in large type, what it means, and a bar for each genre.

    `made_as` is the genre that an example clip was made as, which a model may spell otherwise or not know,
    `unsure_below` the border of the model, which is named as `model` if it is to be told from the host's, or from the
    `others` that have answered to the song.
    """
    notes = [meaning(prediction, unsure_below)]
    if made_as and (same := [genre for genre in prediction.genres if names_in(genre) & names_in(made_as)]):
        notes.append(compare(prediction.verdict, made_as, same))
    notes += [hint(notice.message, **notice.values) for notice in prediction.notices]
    if others:
        told = {"model": model, "other": ", ".join(others)}
        notes.append(hint("Answered by {model}; the answer of {other} is among your songs.", **told))
    elif model:
        notes.append(hint("Answered by {model}.", model=model))
    return _told(prediction, notes, "told whole")


def no_answer(error: Exception) -> str:
    """Why there is no answer, where the answer would be."""
    return f'<div class="told">{fault(error)}</div>'


def passing(prediction: Prediction) -> str:
    """The same of a passage of a recording that goes on."""
    seconds = round(prediction.duration_seconds)
    return _told(
        prediction, [hint("The last {n} seconds; the whole answer comes when you stop.", n=seconds)], "told passing"
    )


def _told(prediction: Prediction, notes: Sequence[str], classes: str) -> str:
    colours = genre_colours(prediction.genres)
    parts = [f'<h2 class="verdict">{verdict(prediction)}</h2>', *notes]
    named = []  # by the verdict
    if prediction.verdict != NO_MUSIC:
        parts.append(bars(prediction.probabilities, colours))
        n_named = 0 if prediction.is_strange else 2 if prediction.verdict == UNSURE else 1
        named = [colours[genre] for genre in prediction.probabilities][:n_named]
    style = f"--first: {named[0]}; --second: {named[-1]}" if named else ""
    return f'<div class="{classes}" style="{style}">{"".join(parts)}</div>'


def waiting(genres: Sequence[str]) -> str:
    """What stands where the answer will, and how much room it takes."""
    bar = bars(dict.fromkeys(genres), genre_colours(genres))
    title = f'<p class="verdict waiting">{say("The answer will appear here.")}</p>'
    return f'<div class="told">{title}{hint("One of these genres:")}{bar}</div>'


def verdict(prediction: Prediction) -> str:
    """The answer in a few words."""
    if prediction.verdict == NO_MUSIC:
        return say("No music here")
    (first, share), (second, _), *_ = prediction.probabilities.items()
    if prediction.is_strange:
        return say("Unsure: like nothing it knows")
    if prediction.verdict == UNSURE:
        return say("Unsure: between {first} and {second}", first=first, second=second)
    return f'<span class="genre">{escape(first)}</span> <span class="share">{share:.0%}</span>'


def meaning(prediction: Prediction, unsure_below: float) -> str:
    """What the verdict means, for a person who does not know the word calibration."""
    if prediction.verdict == NO_MUSIC:
        if prediction.notices:  # which say what that is
            return hint(
                "What is heard of the recording is silent."
                if prediction.is_silent
                else "What is heard of the recording is nothing but steady tones, such as hum."
            )
        if not prediction.is_silent:
            return hint("The recording is nothing but steady tones, such as hum.")
        return hint("The recording is silent. If it should not be, record it louder.")
    top = max(prediction.probabilities.values())
    like = ""
    if prediction.sounds_like:
        like = hint("It sounds like {kind}, which is none of its genres.", kind=prediction.sounds_like)
    if prediction.lacks_energy:
        return like + hint(
            "It sounds unlike all that the model has learned, and the bars only say what comes nearest: too many such "
            "answers were wrong in tests."
        )
    if prediction.verdict == UNSURE:
        # As many that nobody reads: 66% is below 66%.
        digits = next((n for n in range(9) if f"{top:.{n}%}" != f"{unsure_below:.{n}%}"), 0)
        return like + hint(
            "The best guess has {share}; below {border}, too many answers were wrong in tests.",
            share=f"{top:.{digits}%}",
            border=f"{unsure_below:.{digits}%}",
        )
    n = min(round(100 * top), MOST_OF_A_HUNDRED)
    return hint("Of a hundred answers as sure as this one, about {n} were right in tests.", n=n)


def compare(answered: str, made_as: str, same: Sequence[str]) -> str:
    """How the answer to an example compares with what it was made as, for which the model has the `same` genres."""
    if answered in same:
        return hint("Its author calls this example {genre}: the model agrees.", genre=made_as)
    if answered in (UNSURE, NO_MUSIC):
        return hint("Its author calls this example {genre}: the model leaves it open.", genre=made_as)
    return hint("Its author calls this example {genre}: the model is wrong.", genre=made_as)


def bars(probabilities: Mapping[str, float | None], colours: Mapping[str, str]) -> str:
    """A bar for each genre, in the order given and the colours that they have everywhere; None is not known yet."""
    rows = [
        f'<li style="--share: {share or 0:.4f}; --colour: {colours[genre]}">'
        f"<span>{escape(genre)}</span><i></i><b>{'' if share is None else f'{share:.0%}'}</b></li>"
        for genre, share in probabilities.items()
    ]
    return f'<ol class="bars" data-say-label="Probability of each genre">{"".join(rows)}</ol>'


def reasons(explanation: Explanation) -> str:
    """What spoke for a genre, in words: the overlay for those who do not see it, or not its colours."""
    passages = explanation.strongest()
    if not passages:
        return hint("Nothing in this song spoke for {genre}.", genre=explanation.genre)
    shortest = min(passage.end_seconds - passage.start_seconds for passage in passages)
    told = partial(clock, has_tenths=shortest < TENTHS_BELOW)
    rows = [
        "<li>{}</li>".format(
            say(
                "from {start} to {end}, {low} to {high} Hz: {share} of all that spoke for it",
                start=told(passage.start_seconds),
                end=told(passage.end_seconds),
                low=f"{passage.low_hz:.0f}",
                high=f"{passage.high_hz:.0f}",
                share=f"{passage.share:.0%}",
            )
        )
        for passage in passages
    ]
    key = say("Orange spoke for {genre}, blue against it.", genre=explanation.genre)
    method = hint(
        "By occlusion (Zeiler and Fergus 2014): a patch is hidden, and what the genre loses is what the patch had said."
    )
    key = f'<p class="hint">{key} {say("The strongest parts:")}</p>'
    return f'{key}<ul class="reasons">{"".join(rows)}</ul>{method}'


def clock(seconds: float, has_tenths: bool = False) -> str:
    """A time in a song as minutes and seconds, "1:05", or "1:05.3", whichever is nearest."""
    whole, tenths = divmod(round(10 * seconds), 10) if has_tenths else (round(seconds), 0)
    return f"{whole // 60}:{whole % 60:02d}" + (f".{tenths}" if has_tenths else "")


def footer(megabytes: int, kept_seconds: int) -> str:
    """What becomes of the visitors' songs, and what they may be."""
    return "".join(
        [
            hint(
                "Private: your songs are deleted from the server within {minutes} minutes; nothing else is stored, no "
                "statistics are kept, nothing is passed on.",
                minutes=kept_seconds // 60,
            ),
            hint(
                "Files up to {megabytes} MB work, of which the first twelve hours are heard: wav, mp3, flac, ogg, "
                "opus, m4a, aac, webm, wma, aiff, many others, and videos with sound.",
                megabytes=megabytes,
            ),
            hint(
                "The model knows its genres alone: any other music can only come out as one of them or as unsure. An "
                "answer says what a song resembles."
            ),
        ]
    )


def programs() -> str:
    """How other programs ask the page."""
    return "".join(
        [
            hint("Other programs can ask this page; they get the same answers."),
            hint(
                "The endpoint /classify takes one song, /classify_batch a list of songs. Both answer with JSON: the "
                "genre, or unsure, or no music; the probabilities, as a whole and over time; the duration."
            ),
            hint(
                "The link to the API at the foot of the page documents them. Where Gradio's mcp extra is installed, "
                "both are tools for language models, too, at the address {address}.",
                address="/gradio_api/mcp/",
            ),
        ]
    )
