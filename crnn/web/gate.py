"""What is refused at the door: bodies without end, uploads that would fill the disk, addresses to be fetched."""

import errno
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any

from starlette._utils import get_route_path
from starlette.formparsers import MultiPartException

from crnn.files import has_room
from crnn.terminal import called_as, complain
from crnn.web.uploads import FOLDER_VARIABLE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_BODY = 8 * 2**20  # bytes of a question; a passage of a recording has half as many
MOST_TOLD = 32 * 2**20  # of one that has its songs in it, as language models send them
MOST_UPLOAD = 4 * 2**30  # of all files of a folder
UPLOAD = "/gradio_api/upload"
TOOLS = "/gradio_api/mcp"
ADDRESS = re.compile(r"/gradio_api/file=\s*\w+:")  # of a file that is on another host
FILE = "/gradio_api/file="
SHOWN = re.compile(rb"^inline(?=;|$)")  # how Content-Disposition says that a browser may
ONE_RANGE = re.compile(rb"bytes=(?:(\d{1,18})-(\d{1,18})?|-\d{1,18})")  # of at most an exabyte
# The only ones of Gradio's own routes that are read: others fetch addresses, keep files or stream without end.
READ = re.compile(
    r"/gradio_api/(file=.*|(call|heartbeat)/.+|mcp(/.*)?"
    r"|(app_id|info|openapi\.json|queue/data|startup-events|theme\.css|upload_progress)/?)",
    re.DOTALL,
)
# The only ones that take a body: others keep files, run ffmpeg on what is sent or make a visit for whoever asks.
TAKING = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset|(call|run|api)/.+|mcp(/.*)?)/?")
READING = ("GET", "HEAD", "OPTIONS")
NO_SNIFFING = b"x-content-type-options", b"nosniff"  # or a browser may take a "song" for a page
NO_ROOM = "The server has no room for more songs now: try again in an hour."
TOLD_SECONDS = 3_600  # in which the host hears of that once
NOTHING_THERE = "There is nothing here."
OWN_TROUBLE = "The server has trouble of its own: try again later."
NOT_UNDERSTOOD = 'The server does not understand this: the page shows under "For developers" how to ask.'
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO}
MOST_NOTED = 500  # characters of a line of the log
NO_ADDRESSES = (
    "This server fetches nothing from addresses but its own: send the song to /gradio_api/upload, and then "
    "http://SERVER/gradio_api/file=PATH with the path that you get; a language model may send the song itself, as "
    "data:audio/mpeg;base64,..."
)


class Gate:
    """An ASGI application that stands before another one, `app`, whose uploads lie in the folder `uploads`."""

    def __init__(self, app: Application, uploads: Path) -> None:
        self.app = app
        self.uploads = uploads
        self._told = -inf  # when the host was
        self.has_room(0)  # or a page that takes no songs would start as any

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer with a status and a sentence, or let the application answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = get_route_path(scope)  # with and without the one under which a proxy shows the page
        if path.startswith(TOOLS):  # Gradio asks the page itself for language models, with their headers
            scope = scope | {"headers": with_origin(scope)}
        elif path.startswith(FILE):
            scope = scope | {"headers": with_one_range(scope)}
        has_begun, n_left = False, most_bytes(path)
        announced = content_length(scope["headers"])
        too_large = f"This is too large: at most {n_left // 2**20} MB are read."

        async def bounded() -> Message:
            nonlocal n_left
            message = await receive()
            if n_left is None:  # the body is complete
                return message
            n_left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" and path == UPLOAD:
                # With this error Gradio throws away what it has of an upload; without, it would keep that for ever.
                raise MultiPartException("The upload broke off.")
            if n_left < 0:
                raise MultiPartException(too_large)
            if path == UPLOAD and not self.has_room(0):  # others come meanwhile, and not each says how large it is
                raise MultiPartException(NO_ROOM)
            if not message.get("more_body"):
                n_left = None
            return message

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), NO_SNIFFING]
                message["headers"] = as_download(headers) if path.startswith(FILE) else headers
            await send(message)

        if not is_open(scope["method"], path):
            await refuse(send, 404, NOTHING_THERE)
        elif ADDRESS.match(path):
            await refuse(send, 403, NO_ADDRESSES)
        elif announced > n_left:
            await refuse(send, 413, too_large)
        elif path == UPLOAD and not self.has_room(announced):
            await refuse(send, 507, NO_ROOM)
        else:
            try:
                await self.app(scope, bounded, watched)
            except MultiPartException as error:
                if not has_begun:
                    await refuse(send, 413, error.message)
            except Exception as error:  # Gradio's code is not made for what is no question of its own pages
                note(f"{scope['method']} {path}", error)
                if not has_begun:
                    await refuse(send, *((503, OWN_TROUBLE) if is_own_trouble(error) else (400, NOT_UNDERSTOOD)))

    def has_room(self, n_bytes: int) -> bool:
        """Whether the disk has room for so many bytes of songs; the log has it if not."""
        there_is = has_room(self.uploads, n_bytes)
        if not there_is and time.monotonic() - self._told > TOLD_SECONDS:
            self._told = time.monotonic()
            place = f"the disk of {self.uploads.parent} has to keep a gigabyte free"
            complain(f"Songs are refused, as {place}: {FOLDER_VARIABLE} may name another folder.", called_as("app.py"))
        return there_is


def is_open(method: str, path: str) -> bool:
    """Whether the page, programs or language models use what is asked for."""
    if method in READING:
        return not path.startswith("/gradio_api/") or READ.fullmatch(path) is not None
    return TAKING.fullmatch(path) is not None


def is_own_trouble(error: Exception) -> bool:
    """Whether the server lacks something, rather than that a question is none."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORTAGES)


def is_this_computer(host: str) -> bool:
    """Whether a name or an address leads to the computer of whoever asks for it."""
    name = host.lower().rstrip(".")
    try:
        address = ip_address(name)
    except ValueError:
        return name.rpartition(".")[2] == "localhost"
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def most_bytes(path: str) -> int:
    """How many bytes the body of a request to a path may have."""
    if path == UPLOAD:
        return MOST_UPLOAD
    return MOST_TOLD if path.startswith(TOOLS) else MOST_BODY


def with_origin(scope: Message) -> list[tuple[bytes, bytes]]:
    """The headers of a request, which say who asks, as a proxy would."""
    others = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-for"]
    return [*others, (b"x-forwarded-for", scope["client"][0].encode())] if scope.get("client") else others


def with_one_range(scope: Message) -> list[tuple[bytes, bytes]]:
    """The headers of a request for a file, the whole of which is sent to who wants other than one part of it."""
    return [(name, value) for name, value in scope["headers"] if name != b"range" or is_one_range(value)]


def is_one_range(value: bytes) -> bool:
    """Whether this asks for one part of a file that does not end before it begins (RFC 9110, 14.1.1)."""
    asked = ONE_RANGE.fullmatch(value)
    return asked is not None and (not asked[2] or int(asked[1]) <= int(asked[2]))


def as_download(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a file, by which browsers save it and show nothing of it, if it is no sound or video."""
    if dict(headers).get(b"content-type", b"").startswith((b"audio/", b"video/")):
        return headers
    return [
        (name, SHOWN.sub(b"attachment", value) if name == b"content-disposition" else value) for name, value in headers
    ]


def content_length(headers: list[tuple[bytes, bytes]]) -> int:
    """What a request says that its body has, in bytes; 0 if it says nothing, or no number."""
    length = dict(headers).get(b"content-length", b"")
    return int(length) if length.isdigit() and len(length) < 20 else 0


def note(question: str, error: Exception) -> None:
    """Say in one line to the host what was not answered, why, and which line of code found that."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    place = f"{Path(frame.f_code.co_filename).name}:{line}"
    print(ascii(f"{place}: {question}: {type(error).__name__}: {error}"[:MOST_NOTED])[1:-1], file=sys.stderr)


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answer with a sentence, and read no more of this connection."""
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
