"""Whole libraries of songs: which files there are, their genres in batches, the table of them."""

from pathlib import Path

DEFAULT_UNDO = Path("genre-crnn-undo.jsonl")  # of `genre-crnn tag` and `untag`, where they are run
