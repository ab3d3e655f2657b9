"""What Gradio does otherwise here: whom it lets read the page, what it keeps of uploads, which tools it shows."""

from gradio import Blocks, Error
from gradio.block_function import BlockFunction
from gradio.mcp import GradioMCPServer
from gradio.route_utils import CustomCORSMiddleware, FileUploadProgress, get_hostname
from starlette.datastructures import Headers

from crnn.web.gate import Message, Receive, Send, is_this_computer, note

MOST_FOLLOWED = 500  # uploads of which it is remembered how far they are
NO_SONG = (
    "This is no song that the server has: send it to /gradio_api/upload first, and then the path that you get as "
    '{"path": PATH, "meta": {"_type": "gradio.FileData"}}.'
)
NOT_ANSWERED = "The page has asked for what the server does not have any more: load it anew."


class Questions(Blocks):
    """A page that says what is wrong with a question; Gradio says nothing, and shows the host where it noticed."""

    async def preprocess_data(self, block_fn: BlockFunction, *given: object, **named: object) -> list:
        """What a handler gets of a question. Raises Error."""
        try:
            return await super().preprocess_data(block_fn, *given, **named)
        except Error:
            raise
        except Exception as error:
            note(block_fn.name, error)
            sentence = NO_SONG if block_fn.api_visibility == "public" else NOT_ANSWERED
            raise Error(sentence, print_exception=False) from error


class CrossOrigin(CustomCORSMiddleware):
    """Which sites browsers let read the page: as in Gradio, but none where it is asked on its own computer.

    Gradio knows that by the name `localhost` and two addresses alone, and browsers by more, even by names of strangers.
    """

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, as if nobody else asked where another site does: that site may not read it then."""
        if scope["type"] == "http":
            names = Headers(scope=scope)
            address, *_ = scope.get("server") or [""]
            is_own = is_this_computer(address) or is_this_computer(get_hostname(names.get("host", "")))
            if is_own and get_hostname(names.get("origin", "")) not in self.localhost_aliases:
                scope = scope | {"headers": [header for header in scope["headers"] if header[0] != b"origin"]}
        await super().__call__(scope, receive, send)


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


class Tools(GradioMCPServer):
    """The tools for language models; in Gradio's no list of files is described or taken as one."""

    def simplify_filedata_schema(self, schema: dict) -> tuple[dict, Places]:
        """The JSON schema of what a tool takes, in which files are addresses, and where these stand."""
        simple, places = super().simplify_filedata_schema(schema)
        parts = simple["properties"]
        for place in places:
            node = parts
            for step in place:
                node = node[step]
            node.pop("$ref", None)  # which names what the whole schema would have, and is not what is sent
        for part in parts.values():
            part.pop("$defs", None)
        return simple, Places(places)
