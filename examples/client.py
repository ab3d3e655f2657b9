"""Ask a running page for genres: `python examples/client.py SONG... [--url URL]`. Needs `pip install gradio_client`."""

import argparse

from gradio_client import Client, handle_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("songs", nargs="+", metavar="SONG")
parser.add_argument("--url", default="http://127.0.0.1:7860")
args = parser.parse_args()

client = Client(args.url, verbose=False)
answers = client.predict([handle_file(song) for song in args.songs], api_name="/classify_batch")
for answer in answers:
    if answer.get("error"):
        print(f"{answer['song']}: {answer['error']}")
    else:
        shares = ", ".join(f"{genre} {share:.0%}" for genre, share in list(answer["probabilities"].items())[:3])
        print(f"{answer['song']}: {answer['genre']} ({shares})")
