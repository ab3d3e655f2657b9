"""Coverage-guided fuzzing of `load_audio`: `make fuzz`, or `python benchmarks/torture/fuzz.py [FOLDER] [OPTION...]`.

It needs `pip install -r requirements-fuzz.txt` (Linux); the options are libFuzzer's. The coverage is that of the
Python code, which reads headers itself. FFmpeg's coverage is not seen, so the seeds have to reach its code: the
beginnings of files of every kind. They are written into FOLDER, where new inputs are kept, too. `-max_total_time=60`
ends it after a minute. An input fails, and is written into FOLDER, if it raises anything but an AudioError, or takes
longer than `-timeout` or more memory than `-rss_limit_mb`.
"""

import argparse
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the project is not installed as a package

FOLDER = ROOT / ".fuzz"
MOST_BYTES = 65_536
LIMITS = [f"-max_len={MOST_BYTES}", "-timeout=30", "-rss_limit_mb=1000", "-malloc_limit_mb=1000"]


def main() -> None:
    """Write the seeds and go on until something fails or the time is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    parser.add_argument(
        "folder", nargs="?", default=str(FOLDER), help="the folder for seeds and findings (default: %(default)s)"
    )
    parser.add_argument("--help", action="help", help="show this help message and exit")  # -help=1 is libFuzzer's
    args, options = parser.parse_known_args()
    if not find_spec("atheris"):
        sys.exit("This needs a package that is not installed: pip install -r requirements-fuzz.txt.")
    fuzz(args.folder, options)


def fuzz(folder: str, options: list[str]) -> None:
    """The same, with libFuzzer's options."""
    import atheris  # noqa: PLC0415

    with atheris.instrument_imports(include=["crnn"]):  # so that nothing may have imported it before
        from crnn.audio import AudioError, load_audio  # noqa: PLC0415
    from benchmarks.torture.corpus import KINDS, PLAYLISTS, whole  # noqa: PLC0415

    def hear(content: bytes) -> None:
        with suppress(AudioError):
            load_audio(content)

    Path(folder).mkdir(parents=True, exist_ok=True)
    seeds = {kind: whole(kind)[:MOST_BYTES] for kind in KINDS} | {
        name: text.encode() for name, text in PLAYLISTS.items()
    }
    for name, content in seeds.items():
        Path(folder, f"seed {name}").write_bytes(content)
    atheris.Setup([sys.argv[0], folder, f"-artifact_prefix={folder}/", *LIMITS, *options], hear)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
