"""The model card: what a model is, how it was made, how good it is and what it is not for."""

from textwrap import dedent

from crnn.model import CRNN

MUSICNN = """\
Its convolutions are musicnn's, fixed: pretrained on tags of 200,000 songs of the Million Song Dataset (J. Pons and
X. Serra, "musicnn", 2019; ISC licence, copyright Music Technology Group, Universitat Pompeu Fabra). What follows them
was trained on the clips below.
"""

LIMITS = """\
## What it is not for

It has heard clips of the genres above and nothing else: other genres, speech and noise get the nearest of these names
or "unsure". A genre is a convention that people disagree about. Do not use it where a wrong label does harm.
"""


def model_card(model: CRNN, record: dict) -> str:
    """The README.md of a model folder, in Markdown with the Hub's metadata, from the record of its training.

    `record` has the keys of metrics.json that `train.py` writes.
    """
    return "\n".join(
        [
            _metadata(),
            "# Music genre CRNN",
            "",
            f"A convolutional recurrent network of {record['parameters']:,} parameters that names the genre of a song",
            f"from its log-mel spectrogram: {', '.join(model.config.genres)}.",
            "",
            *([MUSICNN] if model.config.front == "musicnn" else []),
            _use(),
            _training(record),
            _figures(model, record),
            LIMITS,
        ]
    )


def _metadata() -> str:
    return dedent(
        """\
        ---
        license: mit
        library_name: genre-crnn
        pipeline_tag: audio-classification
        tags: [music, music-genre-classification, crnn]
        ---
        """
    )


def _use() -> str:
    return dedent(
        """\
        ## How to use it

        ```python
        from crnn import GenreClassifier

        prediction = GenreClassifier.from_pretrained("THIS FOLDER OR HUB ID").predict("song.mp3")
        print(prediction.summary())
        ```
        """
    )


def _training(record: dict) -> str:
    clips = ", ".join(f"{count} {part}" for part, count in record["clips"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return dedent(
        f"""\
        ## How it was trained

            {record["command"]}

        Clips: {clips} ({record["protocol"]}). Validation clips chose the epoch, {record["best_epoch"]} of
        {record["epochs"]} (lowest loss of the averaged weights), the temperature and the border of "unsure".
        It took {record["seconds"] / 60:.0f} minutes with {versions}.
        """
    )


def _figures(model: CRNN, record: dict) -> str:
    rows = [
        "## How good it is",
        "",
        "At clip level (mean of the probabilities over a clip's windows); the standard error is of the accuracy.",
        "",
        "| part | clips | accuracy | macro-F1 | negative log-likelihood | expected calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    parts = [part for part in ("valid", "test") if part in record]
    for part in parts:
        figures = record[part]
        error = (figures["accuracy"] * (1 - figures["accuracy"]) / figures["n"]) ** 0.5
        rows.append(
            f"| {part} | {figures['n']} | {figures['accuracy']:.3f} ± {error:.3f} | {figures['macro_f1']:.3f} "
            f"| {figures['nll']:.3f} | {figures['ece']:.3f} |"
        )
    rows += ["", f"| recall | {' | '.join(parts)} |", f"| --- |{' --- |' * len(parts)}"]
    for genre in model.config.genres:
        recalls = [record[part]["per_genre"][genre] for part in parts]
        rows.append(f"| {genre} | {' | '.join('–' if r is None else f'{r:.2f}' for r in recalls)} |")
    rows += [
        "",
        "The validation clips chose the epoch, the temperature and the border, so their figures are a little too good.",
        "",
    ]
    return "\n".join(rows)
