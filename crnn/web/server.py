"""What Gradio's server does otherwise here: whom it lets read the page, and what it keeps of uploads."""

from gradio.route_utils import CustomCORSMiddleware, FileUploadProgress, get_hostname
from starlette.datastructures import Headers

from crnn.web.gate import Message, Receive, Send, is_this_computer

MOST_FOLLOWED = 500  # uploads of which it is remembered how far they are


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
