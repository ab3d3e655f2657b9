"""Which clips a model has heard or was asked about, by a digest of each: whatever they are called or split."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256

from crnn.data.features import Features

DIGEST_BYTES = 5  # one of a thousand clips is taken for one of a thousand others once in a million times
MOST_HEARD = 10_000  # clips, for config.json to stay small; of more there is no record


def record_of(features: Features, before: str = "", most: int | None = None) -> str:
    """What `n_heard` needs to know these clips and those of an earlier record; "" of over `most` (MOST_HEARD)."""
    return _written({*_digests(features), *_read(before)}, most or MOST_HEARD)


def n_heard(record: str, features: Features) -> int:
    """How many of these clips are among those of the record, to the last bit of their log-mels."""
    known = set(_read(record))
    return sum(digest in known for digest in _digests(features)) if known else 0


def n_in_both(record: str, other: str) -> int:
    """How many clips are in both of two records."""
    return len({*_read(record)} & {*_read(other)})


def joined(records: Iterable[str]) -> str:
    """The record of all clips of several; "" of over MOST_HEARD."""
    return _written({digest for record in records for digest in _read(record)}, MOST_HEARD)


def _digests(features: Features) -> list[bytes]:
    levels = zip(features.logmel, features.n_frames, strict=True)
    return [sha256(level[:, :length].tobytes()).digest()[:DIGEST_BYTES] for level, length in levels]


def _written(digests: set[bytes], most: int) -> str:
    return b64encode(b"".join(sorted(digests))).decode() if len(digests) <= most else ""


def _read(record: str) -> list[bytes]:
    try:
        joined = b64decode(record, validate=True)
    except ValueError:  # a stranger's
        return []
    return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]
