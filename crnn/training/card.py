"""The model card: what a model is, how it was made, how good it is and what it is not for."""

import re
from textwrap import dedent, indent

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from crnn.checkpoint import brief, own_parts
from crnn.network.fronts import front_of
from crnn.network.model import CRNN
from crnn.sources import page_of

GTZAN = "marsyas/gtzan"  # the Hub's name of the data set
PLACE = "THIS FOLDER OR HUB ID"  # of the model, in the card of one that has not been published
PARTS = {"valid": "validation", "test": "test"}  # with the names that the Hub gives them
MARKUP = re.compile(r"[\\`*_\[\]<>|~&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)  # within a line, addresses among it

LIMITS = """\
## What it is not for

It has heard clips of the genres above: songs of other genres get the nearest of these names or "unsure". A genre is a
convention that people disagree about.
{other_sounds}
Do not use it where a wrong label does harm.
"""
NOISE_AS_NO_GENRE = """\
It has heard synthetic noise, tones, hum and voices as sounds of no genre, so that such sounds should come out as
"unsure"; some may get a genre all the same."""
NARROW_BANDS = """\
Some of what it has heard had lost bass and treble, as in a telephone; the figures above are of clips that have not."""


def model_card(model: CRNN, record: dict) -> str:
    """The README.md of a model folder, in Markdown with the Hub's metadata, from the record of its training.

    `record` has the keys of metrics.json that `train.py` writes.
    """
    return "\n".join(
        [
            f"---\n{metadata(record).to_yaml()}\n---\n",
            "# Music genre CRNN",
            "",
            f"A convolutional recurrent network of {record['parameters']:,} parameters that names the genre of a song",
            f"from its log-mel spectrogram: {', '.join(map(as_text, model.config.genres))}.",
            "",
            *filter(None, [front_of(model.config.front).notice]),
            _use(),
            _training(record),
            _figures(model, record),
            LIMITS.format(other_sounds=_other_sounds(record)),
        ]
    )


def as_text(name: str) -> str:
    """A name in Markdown that shows it as it is."""
    return MARKUP.sub(r"\\\g<0>", name)


def hub_card(text: str, record: dict, repo: str) -> str:
    """The card of a model as the Hub shows it under the name `repo`: its own words, and metadata where it lacks some.

    `record` is the metrics.json beside it, or empty. Raises various errors if they are not what `train.py` writes.
    """
    card = ModelCard(text.replace(PLACE, repo))
    card.data = ModelCardData(**{**metadata(record).to_dict(), **card.data.to_dict()})
    return str(card)


def metadata(record: dict) -> ModelCardData:
    """What the Hub wants to know of a model: what it is for, what it was made from, its figures on unheard clips."""
    protocol = record.get("protocol", "")
    is_gtzan = _is_gtzan(record)
    base = _base(record)
    base_model = base["name"] if "revision" in base else None
    figures = [
        EvalResult(
            task_type="audio-classification",
            task_name="Music genre recognition",
            dataset_type=GTZAN if is_gtzan else "audiofolder",
            dataset_name=protocol,
            dataset_split=split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(record[part][key], 4),
        )
        for part, split in PARTS.items()
        if part in record and part not in _heard(record)
        for kind, name, key in (("accuracy", "Accuracy", "accuracy"), ("f1", "Macro-F1", "macro_f1"))
    ]
    return ModelCardData(
        license="other" if base_model else "mit",  # that of the base holds for what is made from it
        base_model=base_model,
        library_name="genre-crnn",
        pipeline_tag="audio-classification",
        tags=["music", "music-genre-classification", "crnn"],
        datasets=[GTZAN] if is_gtzan else None,
        metrics=["accuracy", "f1"] if figures else None,
        model_name="Genre CRNN",
        eval_results=figures or None,
    )


def _is_gtzan(record: dict) -> bool:
    return "GTZAN" in record.get("protocol", "")


def _base(record: dict) -> dict:
    return record.get("recipe", {}).get("base", {})


def _heard(record: dict) -> list[str]:
    return record.get("heard", [])


def _other_sounds(record: dict) -> str:
    """What may be said of other sounds than those measured: no more than the training speaks for."""
    recipe = record.get("recipe", {})
    changes = recipe.get("augmentation", {})
    has_noise = recipe.get("training", {}).get("outlier_share", 0) > 0
    has_bands = changes.get("band_limit", 0) > 0 and changes.get("probability", 1) > 0
    parts = ((has_noise, NOISE_AS_NO_GENRE, "speech or of noise"), (has_bands, NARROW_BANDS, "a telephone's sound"))
    said = [sentence for is_known, sentence, _ in parts if is_known]
    if unknown := [sound for is_known, _, sound in parts if not is_known]:
        said.append(f"What it makes of {' or of '.join(unknown)} was not measured.")
    return "\n".join(said)


def _use() -> str:
    return dedent(
        f"""\
        ## How to use it

        ```python
        from crnn import GenreClassifier

        prediction = GenreClassifier.from_pretrained("{PLACE}").predict("song.mp3")
        print(prediction.summary())
        ```
        """
    )


def _training(record: dict) -> str:
    clips = ", ".join(f"{count} {part}" for part, count in record["clips"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    own = own_parts(record["trained_on"])
    whose = "this model, which has heard" if own == "train" else "a model of the same recipe that has heard"
    part = "the part train alone"
    if "chosen_epoch" in record:
        part += (
            f", up to epoch {record['chosen_epoch']} of {record['epochs']}.\n"
            "- The validation clips chose this epoch, so that their own figures flatter it a little"
        )
    fitted = "" if "calibration" in record else ', the temperature and the threshold of "unsure"'
    return "\n".join(
        [
            "## How it was trained",
            "",
            indent(record["command"], "    "),
            "",
            f"- Data: {record['protocol']}, {clips} clips.",
            f"- These weights have heard its parts {own}.{_fine_tuning(record)}",
            f"- The validation figures below{fitted} are those of",
            f"  {whose} {part}.{_calibration(record)}",
            f"- Made with {versions}.",
            "",
        ]
    )


def answered_of_left_out(calibration: dict) -> float:
    """The share of a genre left out that is answered, the mean of all, from what a record has under "calibration"."""
    rows = calibration["unknown"].values()
    return sum(row["answered"] for row in rows) / len(rows)


def answered_right(calibration: dict) -> float:
    """The share of its answers that are right, if songs are as unknown as a record says under "calibration"."""
    known, unknown = calibration["known"], calibration["unknown_share"]
    answered = (1 - unknown) * known["answered"]
    right = answered * (known["answered_right"] or 0.0)
    return right / (answered + unknown * answered_of_left_out(calibration))


def answers_nothing(calibration: dict) -> bool:
    """Whether no threshold kept the risk, from what a record has under "calibration"."""
    return not (calibration["known"]["answered"] or answered_of_left_out(calibration))


def _calibration(record: dict) -> str:
    """An item of the same list, on a new line; "" where the validation clips calibrated it."""
    if not (fitted := record.get("calibration")):
        return ""
    known, unknown, strange = fitted["known"], fitted["unknown_share"], answered_of_left_out(fitted)
    come_from = (
        f'\n- Its temperature and its thresholds of "unsure" come from {known["n"]} clips held out in'
        f"\n  cross-validation and from genres left out one at a time: if {unknown:.0%} of the songs are of no"
    )
    others = "; ".join(fitted.get("other_recipe", []))
    models = f"\n  Their models were made otherwise than this one: {as_text(others)}." if others else ""
    asked = f"{1 - fitted['risk']:.0%}"
    confidence = f" with a confidence of {fitted['confidence']:.0%}" if "confidence" in fitted else ""
    if answers_nothing(fitted):
        said = f"no threshold keeps {asked} of its answers right{confidence}, so that it gives none."
    else:
        least = f", and {asked} or more{confidence}" if confidence else ""
        said = (
            f"{answered_right(fitted):.0%} of its answers are right{least}."
            f"\n  It answered {known['answered']:.0%} of the clips of genres it knew and {strange:.0%} of those of a"
            "\n  genre left out."
        )
    return f"{come_from}\n  genre it knows, {said}{models}"


def _fine_tuning(record: dict) -> str:
    """Items of the list of how it was trained, each on a new line; "" for a model that was not fine-tuned."""
    if not (base := _base(record)):
        return ""
    name, past = as_text(base["name"]), as_text(brief(base["trained_on"])) or "clips that are not told"
    if "revision" in base:
        name = f"[{name}]({page_of(base['name'])}) at commit {base['revision']}, whose licence holds here too"
    item = (
        f"\n- It was fine-tuned: it started from {name}, which had been trained on {past}."
        "\n  Its classifier is new, but for the genres that both know."
    )
    if heard := " and ".join(_heard(record)):
        item += (
            f"\n- **That model has heard such {heard} clips**: where they are the same, their figures below say"
            "\n  nothing about other songs, and a temperature and a threshold from them make it too sure."
        )
    return item


def _figures(model: CRNN, record: dict) -> str:
    rows = [
        "## How good it is",
        "",
        "At clip level (mean of the probabilities over a clip's windows"
        + (", of which those count less in which little speaks for any genre" if model.config.evidence else "")
        + "), with the standard error of the accuracy.",
        "Validation clips are calibrated by a temperature and a threshold that were fitted to other validation clips.",
        *(["The project's README sets them beside published systems, by protocol."] if _is_gtzan(record) else []),
        "",
        "| part | clips | accuracy | macro-F1 | negative log-likelihood | expected calibration error (by chance) "
        "| answered | right of these |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    parts = [part for part in PARTS if part in record]
    for part in parts:
        figures = record[part]
        name = f"{part} (heard before)" if part in _heard(record) else part
        right = "–" if figures["answered_right"] is None else f"{figures['answered_right']:.0%}"
        rows.append(
            f"| {name} | {figures['n']} | {figures['accuracy']:.3f} ± {figures['accuracy_error']:.3f} "
            f"| {figures['macro_f1']:.3f} | {figures['nll']:.3f} | {figures['ece']:.3f} "
            f"({figures['ece_by_chance']:.3f}) | {figures['answered']:.0%} | {right} |"
        )
    rows += ["", f"| recall | {' | '.join(parts)} |", f"| --- |{' --- |' * len(parts)}"]
    for genre in model.config.genres:
        recalls = [record[part]["per_genre"][genre] for part in parts]
        rows.append(f"| {as_text(genre)} | {' | '.join('–' if r is None else f'{r:.2f}' for r in recalls)} |")
    rows.append("")
    return "\n".join(rows)
