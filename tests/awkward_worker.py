"""A worker of `crnn.data.extraction` that does what a decoder does with files that it was not made for."""

import os
import time
from multiprocessing.connection import Connection

import numpy as np


def work(connection: Connection) -> None:
    """Hang on hang.wav, crash on crash.wav, decode everything else to ten frames."""
    while True:
        path, place = connection.recv()
        if path.stem == "hang":
            time.sleep(600)
        if path.stem == "crash":
            os._exit(11)
        np.save(place, np.full((128, 10), 7, dtype=np.uint8))
        connection.send(None)
