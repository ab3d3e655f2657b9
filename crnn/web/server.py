"""What Gradio does otherwise here, but for its queue and sessions (`turns`): where a new Gradio has to be looked at."""

import asyncio
import errno
import json
import os
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import anyio
from gradio import (
    Audio,
    Blocks,
    Dataset,
    Error,
    File,
    http_server,
    mcp,
    processing_utils,
    ranged_response,
    routes,
    utils,
)
from gradio.block_function import BlockFunction
from gradio.data_classes import FileData
from gradio.route_utils import CustomCORSMiddleware, FileUploadProgress, get_hostname
from starlette.datastructures import Headers
from starlette.responses import FileResponse

from crnn.web.cores import give_memory_back
from crnn.web.gate import (
    FILE,
    NO_ADDRESSES,
    OWN_TROUBLE,
    Message,
    Receive,
    Send,
    is_own_trouble,
    is_this_computer,
    note,
)
from crnn.web.turns import Sessions
from crnn.web.uploads import ANSWERED_SECONDS, Song, Uploads, name_of

MOST_TOLD_BACK = 400  # characters of what is wrong with a language model's question
MOST_FOLLOWED = 500  # uploads of which it is remembered how far they are
NO_SONG = (
    "This is no song that the server has: send it to /gradio_api/upload first, and then the path that you get as "
    '{"path": PATH, "meta": {"_type": "gradio.FileData"}}.'
)
WRONG_SHAPE = "/classify takes one song, /classify_batch a list of songs."
OUT_OF_DATE = "This page is out of date: reload it."
AS_ADDRESS = (
    "It is given as data:audio/mpeg;base64,... or as the address of an upload to this server, "
    "http://SERVER/gradio_api/file=PATH with the path that /gradio_api/upload returns."
)
SAVE_BASE64 = processing_utils.save_base64_to_cache


class PageBlocks(Blocks):
    """A page that says what is wrong with a question; Gradio says nothing, and shows the host where it noticed."""

    async def preprocess_data(self, block_fn: BlockFunction, inputs: list, *given: object, **named: object) -> list:
        """What a handler gets of a question. Raises Error."""
        try:
            return await super().preprocess_data(block_fn, inputs, *given, **named)
        except Error:
            raise
        except Exception as error:
            note(block_fn.name, error)
            sentence = OWN_TROUBLE if is_own_trouble(error) else self._fault_of(block_fn, inputs)
            raise Error(sentence, print_exception=False) from error

    @staticmethod
    def _fault_of(block_fn: BlockFunction, inputs: list) -> str:
        if block_fn.api_visibility != "public":
            return OUT_OF_DATE
        takes_list = isinstance(block_fn.inputs[0], File)
        return WRONG_SHAPE if inputs and isinstance(inputs[0], dict if takes_list else list) else NO_SONG


class CrossOrigin(CustomCORSMiddleware):
    """Which sites browsers let read the page: as in Gradio, but none where it is asked on its own computer.

    Gradio knows that by the name `localhost` and two addresses alone, and browsers by more, even by names of strangers.
    None reads it with its visitor's cookies, which may be those of a login before the page.
    """

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)
        for headers in (self.preflight_headers, self.simple_headers):
            headers.pop("Access-Control-Allow-Credentials", None)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, as if nobody else asked where another site does: that site may not read it then."""
        if scope["type"] == "http":
            names = Headers(scope=scope)
            address, *_ = scope.get("server") or [""]
            is_own = is_this_computer(address) or is_this_computer(get_hostname(names.get("host", "")))
            if is_own and get_hostname(names.get("origin", "")) not in self.localhost_aliases:
                scope = scope | {"headers": [header for header in scope["headers"] if header[0] != b"origin"]}
        await super().__call__(scope, receive, send)


class PartOfFile(FileResponse):
    """The part of a file that is asked for, as the rest of files is sent: which part, it reads from the question.

    Gradio sends all headers of the question back with a part, those that a proxy adds and cookies among them; of the
    `headers` that it gives, two are the file's own.
    """

    def __init__(self, path: Path, _: tuple, headers: dict[str, str], stat_result: os.stat_result) -> None:
        super().__init__(
            path,
            media_type=headers["Content-Type"],
            filename=path.name,
            stat_result=stat_result,
            content_disposition_type=headers["Content-Disposition"],
        )


class RecentUploads(FileUploadProgress):
    """How far uploads are, for who follows them; Gradio would keep each that nobody follows to its end for ever."""

    def track(self, upload_id: str) -> None:
        """One more begins."""
        super().track(upload_id)
        for kept in (self._statuses, self._signals):
            while len(kept) > MOST_FOLLOWED:
                del kept[next(iter(kept))]

    async def is_tracked(self, upload_id: str) -> bool:
        """Wait until one has begun."""
        try:
            return upload_id in self._statuses or await super().is_tracked(upload_id)
        finally:
            self._signals.pop(upload_id, None)


class Places(list):
    """Where the files of a question stand, as its schema has it: in `items` of a list rather than at a number."""

    def __contains__(self, place: list[str | int]) -> bool:
        """Whether a file stands there."""
        return super().__contains__(["items" if isinstance(step, int) else step for step in place])


class Tools(mcp.GradioMCPServer):
    """The tools for language models.

    In Gradio's no list of files is described or taken as one, and any address is; answers are told as Python has them,
    and of a question that does not fit the schema all is told, its songs, too.
    """

    def create_mcp_server(self) -> "mcp.Server":
        """What answers language models, in bounded words where it does not understand them."""
        server, asks = super().create_mcp_server(), self.types.CallToolRequest
        answer = server.request_handlers[asks]

        async def bounded(question: object) -> object:
            result = await answer(question)
            for told in result.root.content if result.root.isError else ():
                told.text = in_short(told.text)
            return result

        server.request_handlers[asks] = bounded
        return server

    def postprocess_output_data(self, data: list, _: str) -> list:
        """The answers as JSON, each as a text."""
        return [self.types.TextContent(type="text", text=json.dumps(answer, ensure_ascii=False)) for answer in data]

    @property
    def _file_data_tool_description(self) -> str:
        return " If there is a tool upload_file_to_gradio, give the address that it returns."

    def convert_strings_to_filedata(self, value: object, filedata_positions: Places) -> object:
        """What a tool is given, with the files that its addresses name. Raises ValueError with a sentence."""
        try:
            return super().convert_strings_to_filedata(value, filedata_positions)
        except ValueError as error:  # a path, say, or no base64
            raise ValueError(NO_ADDRESSES) from error

    def simplify_filedata_schema(self, schema: dict) -> tuple[dict, Places]:
        """The JSON schema of what a tool takes, in which files are addresses, and where these stand."""
        simple, places = super().simplify_filedata_schema(schema)
        parts = simple["properties"]
        for place in places:
            node = parts
            for step in place:
                node = node[step]
            for key in ("$ref", "required", "title"):  # of what the whole schema would have, and is not what is sent
                node.pop(key, None)
            node |= {"format": "uri", "description": f"{node.get('description', '')} {AS_ADDRESS}".strip()}
        for part in parts.values():
            part.pop("$defs", None)
        return simple, Places(places)


def in_short(text: str) -> str:
    """A text without its middle, if it is long."""
    return text if len(text) <= MOST_TOLD_BACK else f"{text[: MOST_TOLD_BACK // 2]} … {text[-MOST_TOLD_BACK // 2 :]}"


def replace_parts() -> None:
    """Put what is here in the place of what Gradio has; before each page, as its folder may be another."""
    fetch_nothing()
    convert_nothing()
    routes.file_upload_statuses, routes.StateHolder = RecentUploads(), Sessions
    routes.CustomCORSMiddleware, mcp.GradioMCPServer = CrossOrigin, Tools
    ranged_response.RangedFileResponse = PartOfFile
    routes.DEFAULT_TEMP_DIR = mcp.DEFAULT_TEMP_DIR = utils.get_upload_folder()  # not as it was at the import


def fetch_nothing() -> None:
    """Have Gradio fetch no address that a visitor names; the address of a song that is here already names that song."""

    async def refuse(_: str) -> None:
        raise Error(NO_ADDRESSES, print_exception=False)

    async def of_upload(url: str, cache_dir: str) -> str:
        path = unquote(url.partition(FILE)[2])
        if not path or not utils.is_in_or_equal(path, cache_dir) or not Path(path).is_file():
            await refuse(url)
        return path

    processing_utils.async_ssrf_protected_get = refuse
    processing_utils.async_ssrf_protected_download = of_upload


def convert_nothing() -> None:
    """Have Gradio give back a song as it came, not as ffmpeg, if there is one here, makes it: that has no limits."""
    processing_utils.ffmpeg_installed = lambda: False


def let_the_last_example_count(demo: Blocks) -> None:
    """Have an example that is clicked while another one comes follow it; Gradio lets nobody choose, and drops it."""
    for fn in demo.fns.values():
        if any(isinstance(demo.blocks.get(block), Dataset) for block, _ in fn.targets):
            fn.trigger_mode = "always_last"


def remember_what_language_models_send(uploads: Uploads) -> None:
    """Have Gradio note the songs that come inside a question, in an address that begins with `data:`, as uploads.

    It sends each to the page once more, which answers that one.
    """

    def noted(*given: object, **named: object) -> str:
        path = SAVE_BASE64(*given, **named)
        uploads.paths.add(path)
        uploads.answered(path)
        return path

    processing_utils.save_base64_to_cache = noted


def files_input(label: object, **options: object) -> File:
    """Where several songs are uploaded. Gradio's own would leave an empty file behind for each of them."""
    files = File(label=label, min_width=320, **options)
    files._process_single_file = lambda file: Song(file.path, file.orig_name)
    return files


def file_input(label: object, **options: object) -> Audio:
    """Where one song is uploaded and played; Gradio's own would forget on either way which name the visitor gave it."""
    audio = Audio(label=label, type="filepath", **options)
    taken, shown = audio.preprocess, audio.postprocess

    def take(file: FileData | None) -> Song | None:
        path = taken(file)
        return path and Song(path, file.orig_name)

    def show(song: str | None) -> FileData | None:
        file = shown(song)
        return file and file.model_copy(update={"orig_name": name_of(song)})

    audio.preprocess, audio.postprocess = take, show
    return audio


@asynccontextmanager
async def tended(served: routes.App) -> AsyncIterator[None]:
    """What goes on beside the answers, as long as the page is served."""

    async def tend() -> None:
        demo = served.get_blocks()
        while True:
            await asyncio.sleep(max(1.0, min(ANSWERED_SECONDS, demo.uploads.kept_seconds) / 12))
            try:
                demo.uploads.sweep()
                if not any(demo._queue.unfinished()):  # in a thread of those that hear: anyio ends the idle ones then
                    await anyio.to_thread.run_sync(give_memory_back)
            except Exception:  # or uploads would stay for ever from then on
                traceback.print_exc()

    task = asyncio.create_task(tend())
    try:
        yield
    finally:
        task.cancel()


def please_zerogpu() -> None:
    """Name a function for the GPU, on which Spaces with ZeroGPU insist; it does nothing, as the CPU is fast enough."""
    try:
        import spaces  # noqa: PLC0415 (Spaces alone have it)
    except ImportError:
        return
    spaces.GPU(lambda: None)


def ask_oneself_directly() -> None:
    """Leave this computer to no proxy that the environment names: Gradio asks the page itself whether it is up."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    others = [host.strip() for host in named.split(",") if host.strip()]
    if "*" not in others:
        own = ["localhost", "127.0.0.1", "::1", named_address()]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*others, *own]))


def own_place() -> dict:
    """Where the page listens, for Gradio's `launch`. Raises OSError with a sentence.

    Gradio would take the next port for one that is named and is not free, where nobody looks for the page.
    """
    address, port = named_address(), int(os.environ.get("GRADIO_SERVER_PORT", "0"))
    try:
        places = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        for family, _, _, _, place in places:
            socket.create_server(place, family=family).close()
    except (OSError, UnicodeError) as error:  # of a name that is none
        sentence = {
            errno.EADDRINUSE: f"Port {port} is in use: GRADIO_SERVER_PORT may name another one.",
            errno.EACCES: f"Port {port} needs rights that are not given here: GRADIO_SERVER_PORT may name another one.",
        }.get(
            getattr(error, "errno", None),
            f"The page cannot listen at {address}: GRADIO_SERVER_NAME must name an address of this computer.",
        )
        raise OSError(sentence) from error
    # By IPv4 Gradio looks for a free port, also where the page listens by IPv6.
    has_ipv4 = any(family == socket.AF_INET for family, *_ in places)
    http_server.LOCALHOST_NAME = address if has_ipv4 else "127.0.0.1"
    return {"server_name": f"[{address}]" if ":" in address else address, "server_port": port or None}


def named_address() -> str:
    """What the environment names, without the brackets that an address of IPv6 may have, or Gradio's own choice."""
    return os.environ.get("GRADIO_SERVER_NAME", "").strip("[] ") or "127.0.0.1"
