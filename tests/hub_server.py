"""A Hub on this machine, for the real client: it answers what that asks to download files of models and datasets."""

import hashlib
import re
import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit


class HubServer:
    """Models, and datasets as "datasets/user/name", by their commits, on a free port from `with` until `stop`."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}  # repo, commit, file name
        self.branches: dict[str, dict[str, str]] = {}  # repo, branch, commit
        self.gated: set[str] = set()  # repos that need a login and a permission, which nobody has
        self.private: set[str] = set()  # repos that show themselves to requests with a token only
        self.sizes: dict[str, int] = {}  # what is said of files by name, rather than how large they are
        self.broken: set[str] = set()  # names of files that cannot be had
        self.status: int | None = None  # if set, every answer is this error
        self.hangs = False  # accepts connections and never answers
        self.drips = False  # answers, but never comes to the end of the headers
        self.is_portal = False  # answers everything with a page of its own, as the login page of a hotel does
        self.cuts: list[int] = []  # after so many bytes the next answers break off
        self.resets = False  # they do so with a reset rather than an end of the connection
        self.stalls = False  # they do not end, but nothing more comes
        self.knows_ranges = True  # answers with the part of a file that is asked for
        self.starts: list[int] = []  # the bytes with which the answers to GET began
        self.requests: list[str] = []  # "HEAD /user/name/resolve/main/config.json"
        self.tokens: set[str | None] = set()  # what requests had as Authorization
        self.stopped = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def push(self, repo: str, folder: Path, branch: str = "main") -> str:
        """Commit the files of a folder to a branch; returns the commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        commit = hashlib.sha1(repr((repo, files)).encode()).hexdigest()
        self.files.setdefault(repo, {})[commit] = files
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def stop(self) -> None:
        """Let go of every connection and refuse new ones."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> "HubServer":
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        hub: HubServer = self.server.hub
        hub.requests.append(f"{self.command} {self.path}")
        hub.tokens.add(self.headers["Authorization"])
        if hub.hangs:
            hub.stopped.wait()
        elif hub.drips:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while not hub.stopped.wait(0.1):
                self.wfile.write(b"X-More: to come\r\n")
        elif hub.is_portal:
            self._answer(200, b"Please log in.")
        elif hub.status:
            self._answer(hub.status)
        else:
            self._answer_file(hub)

    do_GET = do_HEAD  # noqa: N815

    def _answer_file(self, hub: HubServer) -> None:
        repo, _, rest = urlsplit(self.path).path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commits = hub.files.get(repo, {})
        commit = hub.branches.get(repo, {}).get(unquote(revision), unquote(revision))
        if repo in hub.gated:
            self._answer(403, error="GatedRepo")
        elif repo in hub.private and not self.headers["Authorization"]:
            self._answer(401, error="RepoNotFound")
        elif not commits:
            self._answer(404, error="RepoNotFound")
        elif commit not in commits:
            self._answer(404, error="RevisionNotFound")
        elif name not in commits[commit]:
            self._answer(404, error="EntryNotFound", commit=commit)
        elif name in hub.broken:
            self._answer(500)
        else:
            self._answer(200, commits[commit][name], commit=commit, size=hub.sizes.get(name))

    def _answer(
        self,
        status: int,
        content: bytes = b"",
        error: str | None = None,
        commit: str | None = None,
        size: int | None = None,
    ) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(wanted[1]) if wanted and status == 200 and self.server.hub.knows_ranges else 0
        self.send_response(206 if start else status)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if size is not None:
            self.send_header("X-Linked-Size", str(size))
        if error:
            self.send_header("X-Error-Code", error)
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET" and commit and status == 200:
            self._send_file(content[start:], start)
        elif self.command == "GET":
            self.wfile.write(content)

    def _send_file(self, content: bytes, start: int) -> None:
        hub: HubServer = self.server.hub
        hub.starts.append(start)
        if not hub.cuts:
            self.wfile.write(content)
            return
        self.wfile.write(content[: hub.cuts.pop(0)])
        if hub.stalls:
            hub.stopped.wait()
        if hub.resets:
            hub.stopped.wait(0.3)  # a reset throws away what the client has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""
