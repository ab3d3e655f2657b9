"""Ask a running page for genres: `python examples/client.py SONG... [--url URL]`. Needs `pip install gradio_client`."""

import argparse
import sys
from pathlib import Path

from gradio_client import Client, handle_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("songs", nargs="+", metavar="SONG")
parser.add_argument("--url", default="http://127.0.0.1:7860")
args = parser.parse_args()

if missing := [song for song in args.songs if not Path(song).is_file()]:
    parser.error(f"there is no file {missing[0]}")

try:
    client = Client(args.url, verbose=False)
    answers = client.predict([handle_file(song) for song in args.songs], api_name="/classify_batch")
except Exception as error:  # the client and its HTTP library each have errors of their own
    sys.exit(f"No answer from {args.url}: {error}")
for song, answer in zip(args.songs, answers, strict=True):
    if answer.get("error"):
        print(f"{song}: {answer['error']}", file=sys.stderr)
        continue
    shares = ", ".join(f"{genre} {share:.0%}" for genre, share in list(answer["probabilities"].items())[:3])
    why = ", like nothing it knows" if answer["is_strange"] else ""
    why += f" but like {answer['sounds_like']}" if answer["sounds_like"] else ""
    print(f"{song}: {answer['genre']}{why}{f' ({shares})' if shares else ''}", *answer["notices"])
sys.exit(any(answer.get("error") for answer in answers))
