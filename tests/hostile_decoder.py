"""A worker of `crnn.decoding` with decoders that do what broken native code does, by the name of the file."""

import ctypes
import os
import tempfile
import time

from crnn import audio, decoding

honest = audio.Sound.blocks


def blocks(sound):
    """The blocks of a sound, after the first of which something happens; those of a slow one take long to compute."""
    for number, block in enumerate(honest(sound)):
        yield block
        if number == 0:
            happen(sound._name)
        end = time.process_time() + (0.6 if sound._name == "slow.wav" else 0.0)
        while time.process_time() < end:
            pass


def happen(name):
    """What the name of a file says."""
    if name == "crash.wav":
        ctypes.string_at(1)
    elif name == "abort.wav":
        os.abort()
    elif name == "loop.wav":
        while True:
            pass
    elif name == "sleep.wav":
        time.sleep(3_600)
    elif name == "unforeseen.wav":
        raise RuntimeError
    elif name == "memory.wav":
        bytearray(2 * decoding.MEMORY_BYTES)
    elif name == "write.wav":
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"something")
    elif name == "nonsense.wav":
        os.write(0, b"b" + b"\xff" * 100)


audio.Sound.blocks = blocks
decoding.CPU_SECONDS = 2
decoding.work()
