"""Whole libraries of songs: which files there are, their genres in batches, the table of them."""
