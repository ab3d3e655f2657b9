"""The songs of a visit: their order, and that the table, the CSV and the JSON say what the answers said."""

import csv
import io
import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from crnn.audio import Notice
from crnn.inference import NO_MUSIC, UNSURE, Prediction
from crnn.plots import genre_colours
from crnn.web.songs import Row, Visit, added, songs_view, to_csv, to_json

GENRES = ("rock", "jazz", "disco")


def prediction_of(shares: dict[str, float], verdict: str | None = None, genres: tuple[str, ...] = GENRES) -> Prediction:
    """An answer over two windows, the genres most probable first; with no shares it is silence."""
    probabilities = dict(sorted(shares.items(), key=lambda item: -item[1]))
    n_windows = 2 if shares else 0
    return Prediction(
        verdict=verdict or (next(iter(probabilities)) if shares else NO_MUSIC),
        probabilities=probabilities,
        genres=genres,
        timeline=np.tile(np.float32([shares.get(genre, 0) for genre in genres]), (n_windows, 1)),
        starts_seconds=5.0 * np.arange(n_windows),
        ends_seconds=5.0 * np.arange(n_windows) + 10.0,
        log_mel=np.zeros((128, 361), np.float32),
        sounds=np.full(361, n_windows > 0),
        peaks=np.ones(722, np.float32),
        duration_seconds=14.987654,
    )


@pytest.fixture
def rock() -> Prediction:
    """Rock, by 70.012 %."""
    return prediction_of({"jazz": 0.20004, "rock": 0.70012, "disco": 0.09984})


def table_of(rows: list[Row]) -> list[dict]:
    """The CSV as a program reads it."""
    return list(csv.DictReader(io.StringIO(to_csv(rows), newline=""), strict=True))


def test_the_newest_comes_first_and_a_song_heard_again_moves_up(rock: Prediction) -> None:
    songs = [Row.of(f"/tmp/{name}.mp3", "a", rock) for name in ("one", "two", "three")]
    rows: list[Row] = []
    for song in songs:
        rows = added(rows, song)
    assert [row.name for row in rows] == ["three.mp3", "two.mp3", "one.mp3"]
    before = list(rows)
    again = Row.of(songs[1].path, "a", replace(rock, duration_seconds=1.0))
    moved = added(rows, again)
    assert [row.name for row in moved] == ["two.mp3", "three.mp3", "one.mp3"]
    assert moved[0].answer is again.answer
    assert rows == before


def test_a_row_of_a_long_song_takes_a_few_kilobytes() -> None:
    genres, n_windows = tuple(f"genre {number}" for number in range(10)), 120
    song = replace(
        prediction_of(dict.fromkeys(genres, 0.1), genres=genres),
        timeline=np.random.default_rng(0).random((n_windows, len(genres)), np.float32),
        starts_seconds=np.arange(float(n_windows)),
        ends_seconds=np.arange(10.0, n_windows + 10.0),
    )
    tracemalloc.start()
    try:
        rows = [Row.of("/tmp/a.mp3", "a", replace(song, log_mel=np.zeros((128, 9_000), np.float32))) for _ in range(9)]
        assert tracemalloc.get_traced_memory()[0] / len(rows) < 10_000
    finally:
        tracemalloc.stop()


def test_another_model_or_another_file_of_the_same_name_is_a_row_of_its_own(rock: Prediction) -> None:
    rows = added(added([], Row.of("/tmp/a/song.mp3", "one", rock)), Row.of("/tmp/a/song.mp3", "two", rock))
    rows = added(rows, Row.of("/tmp/b/song.mp3", "two", rock))
    assert [(row.path, row.model) for row in rows] == [
        ("/tmp/b/song.mp3", "two"),
        ("/tmp/a/song.mp3", "two"),
        ("/tmp/a/song.mp3", "one"),
    ]


def test_files_of_the_same_name_are_told_apart_and_keep_their_numbers(rock: Prediction) -> None:
    rows: list[Row] = []
    for path, model in (("a/x", "one"), ("b/x", "one"), ("c/y", "one"), ("a/x", "two"), ("d/x", "one"), ("b/x", "one")):
        rows = added(rows, Row.of(f"/tmp/{path}.mp3", model, rock))
    names = ["x.mp3 (2)", "x.mp3 (3)", "x.mp3", "y.mp3", "x.mp3"]
    assert [row.name for row in rows] == [cells["song"] for cells in songs_view(rows)["rows"]] == names
    assert [song["song"] for song in json.loads(to_json(rows))] == names


def test_the_course_of_a_song_is_its_strongest_genres_in_stripes() -> None:
    shares = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    song = replace(
        prediction_of({"rock": 0.45, "jazz": 0.3, "disco": 0.25}),
        timeline=shares,
        starts_seconds=np.arange(4.0),
        ends_seconds=np.arange(1.0, 5.0),
    )
    [cells, _] = songs_view([Row.of("/tmp/a.mp3", "one", song), Row("/tmp/b.mp3", "one", fault=("No.", {}))])["rows"]
    colours = genre_colours(GENRES)
    assert cells["course"] == [
        {"genre": genre, "colour": colours[genre], "share": share}
        for genre, share in (("rock", 0.5), ("disco", 0.25), ("rock", 0.25))
    ]


def test_a_song_that_works_at_last_replaces_its_error(rock: Prediction) -> None:
    failed = Row("/tmp/song.mp3", "a", fault=("There is no sound.", {}))
    [row] = added([failed], Row.of("/tmp/song.mp3", "a", rock))
    assert (row.fault, row.answer.verdict) == (None, "rock")


def test_csv_gives_the_numbers(rock: Prediction) -> None:
    rows = [Row.of('/tmp/x/My, "song"\n1.mp3', "a", rock), Row.of("/tmp/zero.wav", "a", prediction_of({}))]
    song, silence = table_of(rows)
    facts = ["song", "model", "genre", "is_strange", "sounds_like", "duration_seconds"]
    assert list(song) == [*facts, "disco", "jazz", "rock", "notices", "error"]
    assert (song["song"], song["model"], song["genre"], song["error"]) == ('My, "song"\n1.mp3', "a", "rock", "")
    assert float(song["duration_seconds"]) == 14.99
    assert {genre: float(song[genre]) for genre in GENRES} == {"rock": 0.7001, "jazz": 0.2, "disco": 0.0998}
    assert silence["genre"] == NO_MUSIC
    assert [silence[genre] for genre in GENRES] == ["", "", ""]
    assert float(silence["duration_seconds"]) == 14.99


def test_the_columns_are_the_genres_of_all_models(rock: Prediction) -> None:
    other = prediction_of({"metal": 0.0, "jazz": 1.0}, genres=("metal", "jazz"))
    first, second = table_of([Row.of("/tmp/a.mp3", "one", rock), Row.of("/tmp/a.mp3", "two", other)])
    assert list(first)[6:-2] == ["disco", "jazz", "metal", "rock"]
    assert [first[genre] for genre in ("disco", "jazz", "metal", "rock")] == ["0.0998", "0.2", "", "0.7001"]
    assert [second[genre] for genre in ("disco", "jazz", "metal", "rock")] == ["", "1.0", "0.0", ""]


def test_an_error_has_its_row() -> None:
    fault = "{name} lasts only {seconds} s.", {"name": "{notes}.txt", "seconds": 0.5}
    rows = [Row("/tmp/notes.txt", "a", fault=fault)]
    assert rows[0].error == "{notes}.txt lasts only 0.5 s."
    [line] = table_of(rows)
    expected = dict.fromkeys(["genre", "is_strange", "sounds_like", "duration_seconds", "notices"], "")
    expected |= {"song": "notes.txt", "model": "a"}
    assert line == {**expected, "error": rows[0].error}
    assert json.loads(to_json(rows)) == [{"song": "notes.txt", "model": "a", "error": rows[0].error}]
    [cells] = songs_view(rows)["rows"]
    error = {"message": fault[0], "values": {"name": "{notes}.txt", "seconds": "0.5"}}
    assert cells == {"id": rows[0].id, "song": "notes.txt", "model": "a", "error": error}


def test_what_is_wrong_with_a_file_is_in_the_table_and_both_files(rock: Prediction) -> None:
    cut = Notice("Its end is missing: {seconds} s are there.", {"seconds": 8})
    track = Notice("This is track {track}.", {"track": "2 (=eng)"})
    rows = [Row.of("/tmp/a.mp3", "a", replace(rock, notices=(cut, track))), Row.of("/tmp/b.mp3", "a", rock)]
    said = ["Its end is missing: 8 s are there.", "This is track 2 (=eng)."]
    assert [line["notices"] for line in table_of(rows)] == [" ".join(said), ""]
    assert [song["notices"] for song in json.loads(to_json(rows))] == [said, []]
    noticed, plain = songs_view(rows)["rows"]
    assert noticed["notices"] == [
        {"message": cut.message, "values": {"seconds": "8"}},
        {"message": track.message, "values": {"track": "2 (=eng)"}},
    ]
    assert plain["notices"] == []


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", ";=", "x;=", "x; \t="])
def test_no_cell_is_a_formula(sign: str) -> None:
    """Whoever names a file, a model or a genre does not write programs for a spreadsheet."""
    bad = f"{sign}HYPERLINK(1)"
    rows = [
        Row.of(f"/tmp/{bad}.mp3", bad, prediction_of({bad: 0.6, "b": 0.4}, genres=(bad, "b"))),
        Row("/tmp/b.mp3", "a", fault=(bad, {})),
        Row.of("/tmp/c.mp3", "a", replace(prediction_of({"b": 1.0}, genres=("b",)), notices=(Notice(bad),))),
    ]
    cells = [cell for line in csv.reader(io.StringIO(to_csv(rows), newline=""), strict=True) for cell in line]
    assert sum("HYPERLINK" in cell for cell in cells) == 6
    parts = [part.strip(" ") for cell in cells for part in cell.split(";")]
    assert not [part for part in parts if part.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_json_keeps_all_that_a_program_is_told(rock: Prediction) -> None:
    rows = [Row.of("/tmp/naïve ☃ <b>.mp3", "a", rock), Row("/tmp/b.mp3", "a", fault=("No.", {}))]
    song, _ = json.loads(to_json(rows))
    expected = rock.as_dict()
    assert song.keys() == {"song", "model", *expected}
    assert song["probabilities"] == pytest.approx(expected["probabilities"], abs=5e-5)
    assert song["timeline"][1] == {
        "start_seconds": 5.0,
        "end_seconds": pytest.approx(expected["timeline"][1]["end_seconds"], abs=5e-5),
        "probabilities": pytest.approx(expected["timeline"][1]["probabilities"], abs=5e-5),
    }
    assert list(song["probabilities"]) == ["rock", "jazz", "disco"]


def test_the_table_shows_the_two_best_genres_in_their_colours(rock: Prediction) -> None:
    colours = genre_colours(GENRES)
    rows = [
        Row.of("/tmp/rock.mp3", "a", rock),
        Row.of("/tmp/open.mp3", "a", prediction_of({"disco": 0.4, "rock": 0.35, "jazz": 0.25}, UNSURE)),
        Row.of("/tmp/zero.mp3", "a", prediction_of({})),
    ]
    view = songs_view(rows)
    answered, unsure, silent = view["rows"]
    assert [cells["id"] for cells in view["rows"]] == [row.id for row in rows]
    assert len({row.id for row in rows}) == 3
    assert answered["top"] == [
        {"genre": "rock", "share": 0.70012, "colour": colours["rock"]},
        {"genre": "jazz", "share": 0.20004, "colour": colours["jazz"]},
    ]
    assert [top["colour"] for top in unsure["top"]] == [colours["disco"], colours["rock"]]
    assert [cells["verdict"] for cells in view["rows"]] == ["rock", UNSURE, NO_MUSIC]
    assert [cells["is_genre"] for cells in view["rows"]] == [True, False, False]
    assert silent["top"] == []
    assert answered["seconds"] == 14.9877
    assert view["csv"] == to_csv(rows)
    assert json.loads(json.dumps(view, allow_nan=False)) == view


def test_no_songs_give_empty_files() -> None:
    header = "song,model,genre,is_strange,sounds_like,duration_seconds,notices,error\r\n"
    assert songs_view([]) == {"rows": [], "csv": header}


def test_a_song_like_nothing_the_model_knows_is_told_from_one_between_genres(rock: Prediction) -> None:
    between = replace(rock, verdict=UNSURE, stranger_kind="techno")
    rows = [Row.of(f"/tmp/{n}.mp3", "a", song) for n, song in enumerate([replace(between, lacks_energy=True), between])]
    assert [cells["is_strange"] for cells in songs_view(rows)["rows"]] == [True, False]
    for table in (table_of(rows), json.loads(to_json(rows))):
        assert [(str(row["is_strange"]), row["sounds_like"]) for row in table] == [("True", "techno"), ("False", "")]


def test_visit_keeps_its_newest_songs_and_finds_them_by_id(rock: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Visit, "MOST_ROWS", 3)
    visit = Visit()
    rows = [Row.of(f"/tmp/{number}.mp3", "a", rock) for number in range(5)]
    for row in rows:
        visit.add(row)
    assert [row.id for row in visit.rows] == [row.id for row in rows[:1:-1]]
    assert visit.row(rows[3].id) is visit.rows[1]
    assert visit.row(rows[0].id) is None


def test_visit_loses_no_song_of_many_threads(rock: Prediction) -> None:
    visit = Visit()
    rows = [Row.of(f"/tmp/{number}.mp3", "a", rock) for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit.add, rows))
    assert {row.path for row in visit.rows} == {row.path for row in rows}


def test_only_the_last_work_of_a_kind_is_the_latest() -> None:
    visit = Visit()
    first, other, second = visit.start("hear"), visit.start("why"), visit.start("hear")
    assert not visit.is_latest("hear", first)
    assert visit.is_latest("hear", second)
    assert visit.is_latest("why", other)
    assert deepcopy(visit).rows == []


def sounding(prediction: Prediction, *embedding: float) -> Prediction:
    """The same with an embedding."""
    return replace(prediction, embedding=np.float32(embedding))


def test_songs_of_one_model_have_a_place_on_the_map(rock: Prediction) -> None:
    visit = Visit()
    for name, *embedding in (("a", 1, 0, 0), ("b", 0.9, 0.1, 0), ("c", 0, 0, 1)):
        assert "map" not in songs_view(visit.rows, places=visit.places)  # of fewer than three
        visit.add(Row.of(f"/tmp/{name}.mp3", "one", sounding(rock, *embedding)))
    visit.add(Row.of("/tmp/silence.mp3", "one", prediction_of({})))
    visit.add(Row("/tmp/bad.mp3", "one", fault=("It is broken.", {})))
    view = json.loads(json.dumps(songs_view(visit.rows, places=visit.places)))
    ids = {row["song"][0]: row["id"] for row in view["rows"] if row["song"] not in ("silence.mp3", "bad.mp3")}
    assert view["map"]["places"].keys() == set(ids.values())
    assert view["map"]["nearest"][ids["a"]] == [ids["b"], ids["c"]]
    visit.add(Row.of("/tmp/d.mp3", "another", sounding(rock, 1, 2)))  # whose embeddings have other axes
    assert "map" not in songs_view(visit.rows, places=visit.places)
