"""Ask a running page for genres: `python examples/client.py SONG... [--url URL]`. Needs `pip install gradio_client`."""

import argparse
from pathlib import Path

from gradio_client import Client, handle_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("songs", nargs="+", metavar="SONG")
parser.add_argument("--url", default="http://127.0.0.1:7860")
args = parser.parse_args()

if missing := [song for song in args.songs if not Path(song).is_file()]:
    parser.error(f"there is no file {missing[0]}")

client = Client(args.url, verbose=False)
answers = client.predict([handle_file(song) for song in args.songs], api_name="/classify_batch")
for song, answer in zip(args.songs, answers, strict=True):
    if answer.get("error"):
        print(f"{song}: {answer['error']}")
    else:
        shares = ", ".join(f"{genre} {share:.0%}" for genre, share in list(answer["probabilities"].items())[:3])
        why = ", like nothing it knows" if answer["is_strange"] else ""
        print(f"{song}: {answer['genre']}{why}{f' ({shares})' if shares else ''}")
