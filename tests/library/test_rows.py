"""Tables as they are read: what stands in a cell is what its column has, or the table is refused with a sentence."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crnn.library.cluster import answered, write_part
from crnn.library.rows import LibraryError, read_rows
from crnn.library.similar import Library
from crnn.library.table import Columns, TableError, key_of

ROW = {
    "path": "a.mp3",
    "model": "crnn 1234567",
    "genre": "rock",
    "probability": 0.9,
    "duration_seconds": 3.0,
    "embedding": [1.0, 2.0],
    "probabilities": {"rock": 0.9, "pop": 0.1},
    "error": None,
}
KINDS = {
    "path": str,
    "model": str,
    "genre": str,
    "probability": float,
    "duration_seconds": float,
    "embedding": np.ndarray,
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["[]", "null", "1e999", "9" * 400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        writer = csv.DictWriter(file, list(KINDS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            {name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in row.items()} for row in rows
        )


@pytest.mark.parametrize(("suffix", "write"), [(".jsonl", write_jsonl), (".csv", write_csv)])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(list(ROW)), value=VALUES)
def test_a_cell_is_of_its_kind_or_the_table_is_refused(
    tmp_path: Path, suffix: str, write: Callable, column: str, value: object
) -> None:
    table = tmp_path / f"table{suffix}"
    write(table, [ROW, ROW | {"path": "b.mp3"} | {column: value}])
    try:
        rows = list(read_rows(table, tuple(KINDS), needed=("path",)))
        library = Library.read(table)
    except LibraryError:
        return
    assert all(row[name] is None or isinstance(row[name], kind) for row in rows for name, kind in KINDS.items())
    assert all(row["path"] is not None for row in rows)
    assert np.isfinite(library.embeddings).all()
    assert all(seconds is None or np.isfinite(seconds) for seconds in library.seconds)


def test_of_what_a_cluster_wrote_the_newest_counts_and_leftovers_do_not(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.dataset")
    out, columns = tmp_path / "genres", Columns(("rock", "pop"), None, timeline=False, embeddings=True)
    for when in (3, 1, 4, 2, 5, 0):
        row = ROW | {"modified_ns": when, "embedding": [float(when)], "size_bytes": 1, "heard": "all", "notices": []}
        write_part(str(out), [row], columns)
    (out / "0123.parquet.77.partial").write_bytes(b"of a worker that died")
    assert len(answered(str(out), columns)) == 6
    assert Library.read(out).embeddings.tolist() == [[5.0]]


def test_what_a_cluster_wrote_is_gone_on_with_under_the_same_options_alone(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.dataset")
    out, columns = str(tmp_path / "out"), Columns(("rock", "pop"), None, timeline=False, embeddings=False)
    assert answered(out, columns) == {}
    row = ROW | {"size_bytes": 1, "modified_ns": 2, "heard": "all", "notices": []}
    write_part(out, [row], columns)
    assert answered(out, columns) == {key_of(row): False}
    with pytest.raises(TableError, match="other options: give another --out"):
        answered(out, Columns(("rock", "pop"), None, timeline=False, embeddings=True))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_a_file_is_found_by_the_name_in_a_table_in_an_ascii_locale(tmp_path: Path) -> None:
    (tmp_path / "Grüße.mp3").touch()
    asked = "import sys, os, crnn.library.rows as rows; place = rows.file_at(os.fsencode(sys.argv[1]).decode())"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", f"{asked}; sys.exit(not os.path.samefile(place, sys.argv[1]))"]
    subprocess.run([*command, tmp_path / "Grüße.mp3"], check=True, env=environment)


def test_what_a_cluster_wrote_is_gone_on_with_by_a_model_with_its_genres_alone(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.dataset")
    out, columns = str(tmp_path / "out"), Columns(("rock", "pop"), 1, timeline=False, embeddings=False)
    row = ROW | {"size_bytes": 1, "modified_ns": 2, "heard": "all", "notices": [], "probabilities": {"rock": 0.9}}
    faulty = row | {"path": "b.mp3", "probabilities": {}, "error": "is none."}
    write_part(out, [row, faulty], columns)
    assert answered(out, columns) == {key_of(row): False, key_of(faulty): True}
    with pytest.raises(TableError, match="another program or model"):
        answered(out, Columns(("jazz", "pop"), 1, timeline=False, embeddings=False))


@pytest.mark.parametrize(("suffix", "write"), [(".jsonl", write_jsonl), (".csv", write_csv)])
@pytest.mark.parametrize(("cut", "expected"), [(0, 2), (12, 1), (60, 1)])
def test_of_a_last_row_without_a_line_break_only_a_cut_one_is_left_out(
    cut: int, expected: int, suffix: str, write: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / f"table{suffix}"
    write(table, [ROW | {"path": name, "embedding": [0.5] * 9} for name in ("a.mp3", "b\nc.mp3")])
    whole = table.read_bytes().rstrip()
    table.write_bytes(whole[: len(whole) - cut])
    rows = list(read_rows(table, tuple(KINDS), needed=("path",)))
    assert [row["path"] for row in rows] == ["a.mp3", "b\nc.mp3"][:expected]
    assert ("The last row of" in capsys.readouterr().err) == (expected == 1)


def test_a_row_that_was_cut_in_a_name_with_a_line_break_is_none(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    write_csv(table, [ROW, ROW | {"path": "b\nc.mp3"}])
    table.write_bytes(table.read_bytes().partition(b"\nc.mp3")[0] + b"\nc.mp")
    assert [row["path"] for row in read_rows(table, ("path", "genre"), needed=("path",))] == ["a.mp3"]


def test_a_quote_that_somebody_has_opened_is_no_cut(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    write_csv(table, [ROW | {"path": f"{number}.mp3", "embedding": ""} for number in range(9)])
    table.write_bytes(table.read_bytes().replace(b"0.mp3", b'"0.mp3', 1))
    with pytest.raises(LibraryError, match="is damaged"):
        list(read_rows(table, ("path", "genre"), needed=("path",)))
