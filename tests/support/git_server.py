"""Real git repositories, and a real git server (`git http-backend`) for them on a loopback port."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_TIME = "1700000000 +0000"
COMMIT_TIME = 1700000000
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_AUTHOR_DATE": _TIME,
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_COMMITTER_DATE": _TIME,
}  # fmt: skip


def needs_git() -> None:
    """Skip the test where git is missing."""
    if shutil.which("git") is None:
        pytest.skip("no git here: apt-get install git")


class Repository:
    """A repository with a work tree; `bare` is what a server shows."""

    def __init__(self, folder: Path, *, object_format: str = "sha1") -> None:
        needs_git()
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", f"--object-format={object_format}", ".")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the work tree and return what it prints."""
        settings = ["-c", "protocol.file.allow=always", "-c", "core.hooksPath=/dev/null"]
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=self.folder,
            env=_ENVIRONMENT,
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files into the work tree."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, files: Mapping[str, str], message: str = "change") -> str:
        """Write files, commit everything, and return the commit."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def commit_tree(self, entries: list[tuple[str, str, str]], branch: str) -> str:
        """Make a branch whose commit has exactly these entries (mode, name, content or hash), checked by nobody.

        A content of 040000 or 160000 entries is a hash.
        """
        raw = b""
        for mode, name, content in entries:
            value = content
            if mode not in ("40000", "160000"):
                value = self.git("hash-object", "-w", "--stdin", stdin=content.encode())
            raw += f"{mode} {name}".encode() + b"\0" + bytes.fromhex(value)
        tree = self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
        commit = self.git("commit-tree", "-m", "made", tree)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit


@dataclass
class Served:
    """A running server.

    Attributes:
        url: `http://127.0.0.1:port`.
        requests: method, path with query, and Authorization header of each request so far.
        authorization: the header a request must have, None for open doors.
        redirects: path prefix to the address that it is redirected to.
        protocols: whether version 2 of the protocol is spoken.
        dumb: only files are served.
        fetches: how often objects were asked for.
        hold: requests are never answered; `gone` tells that a client has hung up.
        hold_objects: those for objects are not.
        gate: while set and not open, every request waits; `reached` tells that one does.
    """

    url: str = ""
    root: Path = Path()
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    authorization: str | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    version2: bool = True
    dumb: bool = False
    fetches: int = 0
    hold: bool = False
    hold_objects: bool = False
    gone: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")


@contextmanager
def running_git_server(root: Path) -> Iterator[Served]:
    """Serve every repository below `root` by smart HTTP."""
    needs_git()
    served = Served(root=root)

    class Handler(_Handler):
        state = served

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            if served.gate is not None:
                served.gate.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Served

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(body)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        state = self.state
        given = self.headers.get("Authorization", "")
        state.requests.append((self.command, self.path, given))
        for_objects = self.command == "POST" and b"command=ls-refs" not in body
        if state.hold or (state.hold_objects and for_objects):
            state.reached.set()
            self.connection.recv(1)
            state.gone.set()
            self.close_connection = True
            return
        if state.gate is not None:
            state.reached.set()
            state.gate.wait(60)
        for prefix, target in state.redirects.items():
            if self.path.startswith(prefix):
                self._plain(301, {"Location": target + self.path.removeprefix(prefix)})
                return
        if state.authorization is not None and given != state.authorization:
            self._plain(401, {"WWW-Authenticate": 'Basic realm="x"'})
            return
        path, _, query = self.path.partition("?")
        if state.dumb:
            self._file(path)
            return
        state.fetches += for_objects
        self._backend(path, query, body)

    def _plain(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: str) -> None:
        file = self.state.root / path.lstrip("/")
        if file.is_file():
            self._plain(200, {"Content-Type": "application/octet-stream"}, file.read_bytes())
        else:
            self._plain(404, {})

    def _backend(self, path: str, query: str, body: bytes) -> None:
        environment = _ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.state.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }  # fmt: skip
        if self.state.version2:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        backend = ["git", "-c", "safe.directory=*", "http-backend"]
        done = subprocess.run(backend, env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split(" ")[0])
        try:
            self._plain(status, headers, content)
        except (BrokenPipeError, ConnectionResetError):
            pass
