"""A Hub on this machine, for the real client: what it asks to download models and datasets and to publish a model."""

import base64
import hashlib
import json
import re
import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from threading import Event, Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit

import yaml


class HubServer:
    """Models, and datasets as "datasets/user/name", by their commits, on a free port from `with` until `stop`."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}  # repo, commit, file name
        self.branches: dict[str, dict[str, str]] = {}  # repo, branch, commit
        self.gated: set[str] = set()  # repos that need a login and a permission, which nobody has
        self.private: set[str] = set()  # repos that show themselves to requests with a token only
        self.users = {"Bearer hf_someone": "someone"}  # who may write, each in repos of that name
        self.messages: dict[str, str] = {}  # commit, its message
        self.uploads: dict[str, bytes] = {}  # SHA-256, large file
        self.sizes: dict[str, int] = {}  # what is said of files by name, rather than how large they are
        self.broken: set[str] = set()  # names of files that cannot be had
        self.status: int | None = None  # if set, every answer is this error
        self.hangs = False  # accepts connections and never answers
        self.where = ""  # what a path has to have in it so that it hangs, has that status or is that of a portal
        self.drips = False  # answers, but never comes to the end of the headers
        self.is_portal = False  # answers everything with a page of its own, as the login page of a hotel does
        self.cuts: list[int] = []  # after so many bytes the next answers break off
        self.resets = False  # they do so with a reset rather than an end of the connection
        self.stalls = False  # they do not end, but nothing more comes
        self.knows_ranges = True  # answers with the part of a file that is asked for
        self.strange: list[str] = []  # how the next answers to GET are others, as in `_answer_strangely`
        self.n_busy = 0  # so many of the next answers, to HEAD too, say that it is
        self.tells_lengths = True  # of files that are sent whole
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
        return self.commit(repo, files, branch)

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """Commit these files, and no others, to a branch; returns the commit."""
        commit = hashlib.sha1(repr((repo, files)).encode()).hexdigest()
        self.files.setdefault(repo, {})[commit] = files
        self.branches.setdefault(repo, {})[branch] = commit
        self.messages[commit] = message
        return commit

    def encrypt(self, context: SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

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
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub.requests.append(f"{self.command} {self.path}")
        hub.tokens.add(self.headers["Authorization"])
        is_here = hub.where in self.path
        if hub.hangs and is_here:
            hub.stopped.wait()
        elif hub.drips:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while not hub.stopped.wait(0.1):
                self.wfile.write(b"X-More: to come\r\n")
        elif hub.is_portal and is_here:
            self._answer(200, b"Please log in.")
        elif hub.n_busy:
            hub.n_busy -= 1
            self._answer(503)
        elif self.command == "GET" and hub.strange:
            self._answer_strangely(hub.strange.pop(0))
        elif hub.status and is_here:
            self._answer(hub.status)
        elif "/resolve/" in self.path:
            self._answer_file(hub)
        else:
            self._answer_api(hub, urlsplit(self.path).path)

    do_GET = do_POST = do_PUT = do_HEAD  # noqa: N815

    def _answer_strangely(self, how: str) -> None:
        """As portals, proxies and servers under load do: "page", "page of no length", "another part", "busy"."""
        self.send_response({"another part": 206, "busy": 503}.get(how, 200))
        if how == "page of no length":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        else:
            self.send_header("Content-Length", "9000")
        if how == "another part":
            self.send_header("Content-Range", "bytes 0-8999/9000")
        if how == "busy":
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(9_000 * b"x")

    def _answer_api(self, hub: HubServer, path: str) -> None:
        """What publishing asks. Large files, the weights, come first and on their own, as with Git LFS."""
        token = self.headers["Authorization"]
        if path.startswith("/large/"):
            hub.uploads[path.removeprefix("/large/")] = self.body
            self._answer(200)
        elif token not in hub.users:
            self._answer(401, message="Invalid credentials in Authorization header")
        elif path == "/api/validate-yaml":
            self._validate(json.loads(self.body)["content"])
        elif path == "/api/repos/create":
            self._create(hub, **json.loads(self.body))
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(self.body)["objects"]
            actions = [{"actions": {"upload": {"href": f"{hub.url}/large/{item['oid']}"}}} for item in objects]
            self._answer_json({"objects": [{**item, **action} for item, action in zip(objects, actions, strict=True)]})
        else:
            self._answer_repo(hub, *path.removeprefix("/api/models/").split("/", 3))

    def _validate(self, card: str) -> None:
        errors = []
        if not isinstance(yaml.safe_load(card.split("---\n")[1]).get("license"), str):
            errors = [{"message": '"license" must be a string'}]
        self._answer_json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def _create(self, hub: HubServer, name: str, organization: str, visibility: str = "public", **_: object) -> None:
        repo = f"{organization}/{name}"
        if hub.users[self.headers["Authorization"]] != organization:
            self._answer(403)
        elif repo in hub.branches:
            self._answer(409)
        else:
            hub.commit(repo, {".gitattributes": b""})
            if visibility == "private":
                hub.private.add(repo)
            self._answer_json({"url": f"{hub.url}/{repo}"})

    def _answer_repo(self, hub: HubServer, user: str, name: str, action: str = "", revision: str = "main") -> None:
        repo, branch = f"{user}/{name}", unquote(revision)
        branches = hub.branches.get(repo, {})
        is_ours = hub.users[self.headers["Authorization"]] == user
        if not branches or (repo in hub.private and not is_ours):
            self._answer(404, error="RepoNotFound")
        elif not action:
            self._answer_json({"id": repo, "sha": branches["main"], "private": repo in hub.private})
        elif self.command == "POST" and not is_ours:
            self._answer(403)
        elif action == "branch":
            branches.setdefault(branch, branches["main"])
            self._answer_json({})
        elif branch not in branches:
            self._answer(404, error="RevisionNotFound")
        else:
            {"tree": self._tree, "preupload": self._modes, "commit": self._commit}[action](hub, repo, branch)

    def _tree(self, hub: HubServer, repo: str, branch: str) -> None:
        files = hub.files[repo][hub.branches[repo][branch]]
        self._answer_json([{"type": "file", "path": name, "size": len(files[name]), "oid": ""} for name in files])

    def _modes(self, *_: object) -> None:
        names = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        self._answer_json({"files": [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]})

    def _commit(self, hub: HubServer, repo: str, branch: str) -> None:
        header, *operations = map(json.loads, self.body.splitlines())
        files = dict(hub.files[repo][hub.branches[repo][branch]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "lfsFile":
                files[value["path"]] = hub.uploads[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        commit = hub.commit(repo, files, branch, header["value"]["summary"])
        self._answer_json({"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def _answer_json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode())

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
            content = commits[commit][name]
            is_large = name.endswith(".safetensors")
            etag = hashlib.sha256(content) if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content)
            self._answer(200, content, commit=commit, size=hub.sizes.get(name), etag=etag.hexdigest())

    def _answer(
        self,
        status: int,
        content: bytes = b"",
        error: str | None = None,
        commit: str | None = None,
        size: int | None = None,
        message: str | None = None,
        etag: str | None = None,
    ) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(wanted[1]) if wanted and status == 200 and self.server.hub.knows_ranges else 0
        self.send_response(206 if start else status)
        if start or self.command == "HEAD" or self.server.hub.tells_lengths:
            self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if size is not None:
            self.send_header("X-Linked-Size", str(size))
        if error:
            self.send_header("X-Error-Code", error)
        if message:
            self.send_header("X-Error-Message", message)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET" and commit and status == 200:
            self._send_file(content[start:], start)
        elif self.command != "HEAD":
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
